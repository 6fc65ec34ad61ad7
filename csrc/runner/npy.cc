#include "runner/npy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "ops/check.h"

namespace edgeq {
namespace {

constexpr char kMagic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};
constexpr size_t kMaxHeader = 1 << 16;

Status read_at(int file, uint64_t offset, void* out, size_t bytes, const std::string& path) {
  char* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t done = ::pread(file, to, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return Status::io(path + " cannot be read (" + std::strerror(errno) + ")");
    if (done == 0) return Status::io(path + " is truncated; save the array again with numpy.save");
    to += done;
    offset += static_cast<uint64_t>(done);
    bytes -= static_cast<size_t>(done);
  }
  return Status();
}

/// What stands behind 'key': in the header's dictionary, or nothing.
std::string_view value_of(std::string_view header, std::string_view key) {
  for (const char quote : {'\'', '"'}) {
    const size_t found = header.find(std::string(1, quote) + std::string(key) + quote);
    if (found == std::string_view::npos) continue;
    size_t at = found + key.size() + 2;
    while (at < header.size() && (header[at] == ' ' || header[at] == ':')) ++at;
    return header.substr(at);
  }
  return {};
}

/// "(2, 3, )" to its numbers; false when it is no tuple of sane numbers.
bool parse_shape(std::string_view text, std::vector<int64_t>* shape) {
  if (text.empty() || text[0] != '(') return false;
  int64_t number = -1;
  for (const char c : text.substr(1)) {
    if (c >= '0' && c <= '9') {
      number = (number < 0 ? 0 : number) * 10 + (c - '0');
      if (number > INT64_C(1) << 40) return false;
    } else if (c == ',' || c == ')') {
      if (number >= 0) shape->push_back(number);
      number = -1;
      if (c == ')') return true;
    } else if (c != ' ') {
      return false;
    }
  }
  return false;
}

}  // namespace

std::string array_text(NpyType type, const std::vector<int64_t>& shape) {
  std::string text = type == NpyType::kFloat32 ? "float32 [" : type == NpyType::kInt8 ? "int8 [" : "uint8 [";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += shape[axis] < 0 ? "N" : std::to_string(shape[axis]);
  }
  return text + "]";
}

NpyReader& NpyReader::operator=(NpyReader&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(type_, other.type_);
  std::swap(shape_, other.shape_);
  std::swap(data_offset_, other.data_offset_);
  std::swap(row_bytes_, other.row_bytes_);
  return *this;
}

NpyReader::~NpyReader() {
  if (file_ >= 0) ::close(file_);
}

Result<NpyReader> NpyReader::open(const std::string& path) {
  NpyReader reader;
  reader.path_ = path;
  reader.file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (reader.file_ < 0) return Status::io(path + " cannot be opened (" + std::strerror(errno) + ")");
  EDGEQ_RETURN_IF_ERROR(reader.read_header());
  return reader;
}

Status NpyReader::read_header() {
  struct stat info;
  if (::fstat(file_, &info) != 0) return Status::io(path_ + " cannot be read (" + std::strerror(errno) + ")");
  if (!S_ISREG(info.st_mode)) return Status::io(path_ + " is not a regular file");
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  uint8_t head[12] = {};
  if (size >= sizeof head) EDGEQ_RETURN_IF_ERROR(read_at(file_, 0, head, sizeof head, path_));
  if (size < sizeof head || std::memcmp(head, kMagic, sizeof kMagic) != 0) {
    return Status::io(path_ + " is not a .npy file; save the array with numpy.save");
  }
  // Version 1 has two bytes of length, the later ones four.
  const bool first = head[6] == 1;
  const size_t begin = first ? 10 : 12;
  const uint64_t length =
      first ? head[8] | head[9] << 8 : head[8] | head[9] << 8 | head[10] << 16 | uint64_t{head[11]} << 24;
  if (head[6] < 1 || head[6] > 3 || length > kMaxHeader || begin + length > size) {
    return Status::io(path_ + " has a malformed .npy header; save the array again with numpy.save");
  }
  std::string header(static_cast<size_t>(length), '\0');
  EDGEQ_RETURN_IF_ERROR(read_at(file_, begin, header.data(), header.size(), path_));
  const std::string_view descr = value_of(header, "descr").substr(0, 5);
  const std::string_view order = value_of(header, "fortran_order");
  if (!parse_shape(value_of(header, "shape"), &shape_) || descr.empty() || order.empty()) {
    return Status::io(path_ + " has a malformed .npy header; save the array again with numpy.save");
  }
  if (descr.substr(1, 3) == "<f4") {
    type_ = NpyType::kFloat32;
  } else if (descr.substr(1, 3) == "|i1") {
    type_ = NpyType::kInt8;
  } else if (descr.substr(1, 3) == "|u1") {
    type_ = NpyType::kUint8;
  } else {
    return Status::io(path_ + " holds numbers of type " + std::string(descr) +
                      "; save x.astype(\"float32\"), int8 codes of the model's input, or uint8 images");
  }
  if (order.substr(0, 5) != "False") {
    return Status::io(path_ + " is in Fortran order; save numpy.ascontiguousarray(x)");
  }
  if (shape_.empty())
    return Status::io(path_ + " holds a single number; the model takes arrays with the batch first");
  data_offset_ = begin + length;
  row_bytes_ = npy_bytes(type_);
  uint64_t total = row_bytes_;
  const uint64_t room = size - data_offset_;
  for (size_t axis = 0; axis < shape_.size(); ++axis) {
    const uint64_t extent = static_cast<uint64_t>(shape_[axis]);
    if (extent != 0 && total > UINT64_MAX / extent)
      total = UINT64_MAX;
    else
      total *= extent;
    if (axis > 0) row_bytes_ *= extent;
  }
  if (total != room) {
    return Status::io(path_ + " is truncated or malformed: " + array_text(type_, shape_) +
                      " does not fit its size; save the array again with numpy.save");
  }
  return Status();
}

Status NpyReader::read(int64_t first, int64_t count, void* out) const {
  return read_at(file_, data_offset_ + static_cast<uint64_t>(first) * row_bytes_, out,
                 static_cast<size_t>(static_cast<uint64_t>(count) * row_bytes_), path_);
}

std::string npy_header(NpyType type, const std::vector<int64_t>& shape) {
  std::string text = "{'descr': '";
  text += type == NpyType::kFloat32 ? "<f4" : type == NpyType::kInt8 ? "|i1" : "|u1";
  text += "', 'fortran_order': False, 'shape': (";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis > 0) text += " ";
    text += std::to_string(shape[axis]);
    if (axis + 1 < shape.size() || axis == 0) text += ",";
  }
  text += "), }";
  const size_t before = sizeof kMagic + 4;
  text.append(64 - (before + text.size() + 1) % 64, ' ');
  text += "\n";
  std::string header(kMagic, sizeof kMagic);
  header += {'\x01', '\x00', static_cast<char>(text.size() & 0xFF), static_cast<char>(text.size() >> 8)};
  return header + text;
}

Result<NpyWriter> NpyWriter::create(const std::string& path, NpyType type,
                                    const std::vector<int64_t>& shape) {
  NpyWriter writer;
  auto file = WholeFile::create(path);
  EDGEQ_RETURN_IF_ERROR(file.status());
  writer.file_ = std::move(file).value();
  const std::string header = npy_header(type, shape);
  EDGEQ_RETURN_IF_ERROR(writer.write(header.data(), header.size()));
  return writer;
}

}  // namespace edgeq
