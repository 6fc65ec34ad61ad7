#include "runtime/model_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/int4.h"
#include "base/xxh64.h"
#include "ops/check.h"
#include "ops/op.h"

namespace edgeq {

static_assert(sizeof(void*) >= 4 && sizeof(float) == 4);
#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "The reader takes the file's integers as they are.");
#endif

FileBytes::FileBytes(FileBytes&& other) noexcept { *this = std::move(other); }

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  std::swap(owned_, other.owned_);
  return *this;
}

FileBytes::~FileBytes() {
  if (mapped_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

Result<FileBytes> FileBytes::map(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return Status::io("cannot open " + path + ": " + std::strerror(errno));
  struct stat info;
  FileBytes bytes;
  Status status;
  if (::fstat(file, &info) != 0) {
    status = Status::io("cannot look at " + path + ": " + std::strerror(errno));
  } else if (!S_ISREG(info.st_mode)) {
    status = Status::io(path + " is not a regular file");
  } else if (info.st_size == 0) {
    status = Status::invalid_model(path + " is empty");
  } else {
    void* mapped = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
      status = Status::io("cannot map " + path + ": " + std::strerror(errno));
    } else {
      bytes.data_ = static_cast<const uint8_t*>(mapped);
      bytes.size_ = static_cast<size_t>(info.st_size);
      bytes.mapped_ = true;
    }
  }
  ::close(file);
  EDGEQ_RETURN_IF_ERROR(status);
  return bytes;
}

Result<FileBytes> FileBytes::copy(const uint8_t* data, size_t size) {
  FileBytes bytes;
  if (!bytes.owned_.allocate(size)) return Status::out_of_memory("no memory for a copy of the model");
  if (size > 0) std::memcpy(bytes.owned_.data(), data, size);
  bytes.data_ = bytes.owned_.data();
  bytes.size_ = size;
  return bytes;
}

namespace {

constexpr uint8_t kMagic[8] = {0x89, 'E', 'D', 'G', 'E', 'Q', '\r', '\n'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 64;
constexpr size_t kSectionBytes = 24;
constexpr size_t kTensorBytes = 88;
constexpr uint32_t kMaxSections = 64;
constexpr uint32_t kOptional = 0x80000000u;
constexpr int32_t kMaxDimension = 1 << 24;
constexpr int64_t kMaxElements = INT32_MAX;
constexpr uint32_t kMaxStrings = 1 << 20;
constexpr uint32_t kMaxTensors = 1 << 16;
constexpr uint32_t kMaxNodes = 1 << 16;
constexpr size_t kMaxNodeFields = 1024;
constexpr size_t kMaxMetaBytes = 1 << 20;

enum SectionKind : uint32_t {
  kStrings = 1,
  kTensors = 2,
  kNodes = 3,
  kEnds = 4,
  kData = 5,
  kMeta = kOptional | 6,
  kPreprocessing = kOptional | 7,
  kLabels = kOptional | 8,
  kGuard = kOptional | 9,
};

const char* section_name(uint32_t kind) {
  switch (kind) {
    case kStrings:
      return "STRINGS";
    case kTensors:
      return "TENSORS";
    case kNodes:
      return "NODES";
    case kEnds:
      return "ENDS";
    case kData:
      return "DATA";
    case kMeta:
      return "META";
    case kPreprocessing:
      return "PREPROCESSING";
    case kLabels:
      return "LABELS";
    case kGuard:
      return "GUARD";
    default:
      return "unknown";
  }
}

/// A part of the file, read from front to back; every read is checked.
class Reader {
 public:
  Reader() = default;
  Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  size_t left() const { return size_ - at_; }
  const uint8_t* here() const { return data_ + at_; }

  template <typename T>
  bool read(T& value) {
    if (left() < sizeof(T)) return false;
    std::memcpy(&value, data_ + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }

  bool skip(size_t bytes) {
    if (left() < bytes) return false;
    at_ += bytes;
    return true;
  }

  /// Skips bytes that must be zero.
  bool reserved(size_t bytes) {
    if (left() < bytes) return false;
    for (size_t i = 0; i < bytes; ++i) {
      if (data_[at_ + i] != 0) return false;
    }
    at_ += bytes;
    return true;
  }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t at_ = 0;
};

bool valid_utf8(const uint8_t* text, size_t size) {
  for (size_t i = 0; i < size;) {
    const uint8_t lead = text[i];
    if (lead == 0) return false;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                       : lead >= 0xE0 && lead <= 0xEF ? 3
                       : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                      : 0;
    if (length == 0 || size - i < static_cast<size_t>(length)) return false;
    for (int k = 1; k < length; ++k) {
      if ((text[i + k] & 0xC0) != 0x80) return false;
    }
    const uint8_t second = text[i + 1];
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
        (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
      return false;
    }
    i += static_cast<size_t>(length);
  }
  return true;
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 120;
  std::string result = "'";
  result += text.substr(0, kShown);
  if (text.size() > kShown) result += "...";
  return result + "'";
}

class ModelReader {
 public:
  ModelReader(const uint8_t* bytes, size_t size) : bytes_(bytes), size_(size) {}

  Status read() {
    EDGEQ_RETURN_IF_ERROR(read_header());
    EDGEQ_RETURN_IF_ERROR(read_strings());
    EDGEQ_RETURN_IF_ERROR(read_tensors());
    EDGEQ_RETURN_IF_ERROR(read_nodes());
    EDGEQ_RETURN_IF_ERROR(read_ends());
    EDGEQ_RETURN_IF_ERROR(check_order());
    EDGEQ_RETURN_IF_ERROR(check_optional_sections());
    return check_operators();
  }

  Model model;

 private:
  Status read_header() {
    if (size_ < kHeaderBytes) {
      return bad_model("the file has %llu bytes, fewer than the header of an .edgeq file",
                       static_cast<unsigned long long>(size_));
    }
    if (std::memcmp(bytes_, kMagic, sizeof kMagic) != 0) {
      return bad_model("the file does not begin like an .edgeq file");
    }
    Reader reader(bytes_, kHeaderBytes);
    uint32_t version = 0, sections = 0;
    uint64_t size = 0, hash = 0;
    reader.skip(sizeof kMagic);
    reader.read(version);
    reader.read(sections);
    reader.read(size);
    reader.read(hash);
    if (version != kVersion) {
      return Status::unsupported(
          format("the file has version %u of the .edgeq format; this build reads version %u: update edgeq or "
                 "export again",
                 version, kVersion));
    }
    if (size != size_) {
      return bad_model("the header says %llu bytes, the file has %llu: it is truncated or damaged",
                       static_cast<unsigned long long>(size), static_cast<unsigned long long>(size_));
    }
    if (!reader.reserved(32)) return bad_model("reserved bytes of the header are not zero");
    if (xxh64(bytes_ + kHeaderBytes, size_ - kHeaderBytes) != hash) {
      return bad_model("the content does not match the hash in the header: the file is damaged");
    }
    if (sections < 1 || sections > kMaxSections) return bad_model("the header says %u sections", sections);
    const size_t table = kHeaderBytes + kSectionBytes * sections;
    if (table > size_) return bad_model("the section table does not fit the file");
    Reader entries(bytes_ + kHeaderBytes, kSectionBytes * sections);
    uint64_t end = table;
    for (uint32_t i = 0; i < sections; ++i) {
      uint32_t kind = 0, reserved = 0;
      uint64_t offset = 0, bytes = 0;
      entries.read(kind);
      entries.read(reserved);
      entries.read(offset);
      entries.read(bytes);
      if (reserved != 0) return bad_model("a reserved field of section %u is not zero", i);
      if (offset % 64 != 0 || offset < end || offset > size_ || bytes > size_ - offset) {
        return bad_model("section %u (%s) does not lie behind the one before it and within the file", i,
                         section_name(kind));
      }
      for (uint64_t at = end; at < offset; ++at) {
        if (bytes_[at] != 0) return bad_model("the gap before section %u is not zero", i);
      }
      end = offset + bytes;
      Section* known = find(kind);
      if (known == nullptr) {
        if ((kind & kOptional) == 0) return bad_model("section %u has the unknown kind %u", i, kind);
        continue;
      }
      if (known->present) return bad_model("section %s appears twice", section_name(kind));
      known->present = true;
      known->reader = Reader(bytes_ + offset, static_cast<size_t>(bytes));
    }
    for (uint64_t at = end; at < size_; ++at) {
      if (bytes_[at] != 0) return bad_model("the bytes behind the last section are not zero");
    }
    for (const Section& section : sections_) {
      if (!section.present && (section.kind & kOptional) == 0) {
        return bad_model("section %s is missing", section_name(section.kind));
      }
    }
    return Status();
  }

  Status read_strings() {
    Reader& reader = find(kStrings)->reader;
    uint32_t count = 0;
    if (!reader.read(count) || count < 1 || count > kMaxStrings || reader.left() / 4 < count) {
      return bad_model("section STRINGS does not fit its count, or has too many strings");
    }
    Reader ends(reader.here(), static_cast<size_t>(count) * 4);
    reader.skip(static_cast<size_t>(count) * 4);
    const uint8_t* text = reader.here();
    uint32_t begin = 0;
    strings_.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t end = 0;
      ends.read(end);
      if (end < begin || end > reader.left()) return bad_model("string %u does not lie within STRINGS", i);
      if (!valid_utf8(text + begin, end - begin)) return bad_model("string %u is not UTF-8 text", i);
      strings_.emplace_back(reinterpret_cast<const char*>(text + begin), end - begin);
      begin = end;
    }
    if (!strings_[0].empty()) return bad_model("string 0 is not empty");
    if (begin != reader.left()) return bad_model("section STRINGS is longer than its strings");
    return Status();
  }

  Status read_tensors() {
    Reader& reader = find(kTensors)->reader;
    const Reader& data = find(kData)->reader;
    uint32_t count = 0, record = 0;
    if (!reader.read(count) || !reader.read(record) || record != kTensorBytes || count > kMaxTensors ||
        reader.left() != static_cast<uint64_t>(count) * kTensorBytes) {
      return bad_model("section TENSORS does not have the size of its records, or has too many");
    }
    model.tensors.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      Tensor& tensor = model.tensors[i];
      const Status status = read_tensor(reader, data, tensor);
      if (!status.ok()) {
        return bad_model("tensor %u %s: %s", i, quoted(tensor.name).c_str(), status.message().c_str());
      }
    }
    std::vector<std::string_view> names;
    for (const Tensor& tensor : model.tensors) names.push_back(tensor.name);
    return check_names(names, "tensor");
  }

  /// Every name is there and no two are the same.
  Status check_names(std::vector<std::string_view>& names, const char* what) {
    std::sort(names.begin(), names.end());
    if (!names.empty() && names.front().empty()) return bad_model("a %s has no name", what);
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) return bad_model("two %ss are named %s", what, quoted(*twice).c_str());
    return Status();
  }

  /// A part of DATA. The parts follow each other, so that nothing is read for two tensors: the work of
  /// checking them stays proportional to the file.
  Status take_data(const Reader& data, uint64_t offset, uint64_t bytes, uint64_t alignment, const char* what,
                   const uint8_t** part) {
    if (offset % alignment != 0 || offset > data.size() || bytes > data.size() - offset) {
      return bad_model("its %s does not lie within DATA", what);
    }
    if (offset < data_used_) return bad_model("its %s overlaps what stands before it in DATA", what);
    data_used_ = offset + bytes;
    *part = data.data() + offset;
    return Status();
  }

  Status read_tensor(Reader& reader, const Reader& data, Tensor& tensor) {
    uint32_t name = 0, reserved = 0;
    uint8_t type = 0, rank = 0, constant = 0, bits = 0;
    int32_t axis = -1;
    uint64_t scale_offset = 0, value_offset = 0;
    reader.read(name);
    reader.read(type);
    reader.read(rank);
    reader.read(constant);
    reader.read(bits);
    for (int32_t& dimension : tensor.dims) reader.read(dimension);
    reader.read(axis);
    reader.read(tensor.zero_point);
    reader.read(tensor.scale_count);
    reader.read(reserved);
    reader.read(scale_offset);
    reader.read(value_offset);
    reader.read(tensor.bytes);
    if (name >= strings_.size()) return bad_model("its name is string %u, which does not exist", name);
    tensor.name = strings_[name];
    if (reserved != 0 || !reader.reserved(16)) return bad_model("a reserved field is not zero");
    if (type < 1 || type > 5) return bad_model("its type %u is not known", type);
    tensor.type = static_cast<DataType>(type);
    if (rank > kMaxRank) return bad_model("its rank %u is above %d", rank, kMaxRank);
    tensor.rank = rank;
    if (constant > 1) return bad_model("its constant flag is %u", constant);
    tensor.constant = constant == 1;
    tensor.bits = bits;
    if (!tensor.constant && rank == 0) return bad_model("an activation must have a batch axis");
    for (int d = 0; d < kMaxRank; ++d) {
      int32_t& dimension = tensor.dims[d];
      if (d >= rank) {
        if (dimension != 0) return bad_model("unused dimension %d is not zero", d);
        continue;
      }
      if (d == 0 && !tensor.constant) {
        if (dimension != -1) return bad_model("axis 0 of an activation must be -1, not %d", dimension);
        dimension = 1;
      }
      if (dimension < 1 || dimension > kMaxDimension) {
        return bad_model("dimension %d is %d, outside 1 to 2^24", d, dimension);
      }
      tensor.elements *= dimension;
      if (tensor.elements > kMaxElements) return bad_model("it has more than 2^31 - 1 elements");
    }
    EDGEQ_RETURN_IF_ERROR(check_quantization(tensor, axis, scale_offset, data));
    if (!tensor.constant) {
      const bool codes = tensor.type == DataType::kInt8 && tensor.quantized();
      const bool floats = tensor.type == DataType::kFloat32 && !tensor.quantized();
      if (!codes && !floats) return bad_model("an activation must be quantized int8, or float32");
      if (value_offset != 0 || tensor.bytes != 0) return bad_model("an activation has a value in DATA");
      return Status();
    }
    uint64_t bytes = static_cast<uint64_t>(tensor.elements);
    switch (tensor.type) {
      case DataType::kInt8:
        break;
      case DataType::kInt4:
        bytes = int4_bytes(static_cast<size_t>(tensor.elements));
        break;
      case DataType::kInt32:
      case DataType::kFloat32:
        bytes *= 4;
        break;
      case DataType::kInt64:
        bytes *= 8;
        break;
    }
    if (tensor.bytes != bytes) {
      return bad_model("its value has %llu bytes; its type and dimensions need %llu",
                       static_cast<unsigned long long>(tensor.bytes), static_cast<unsigned long long>(bytes));
    }
    EDGEQ_RETURN_IF_ERROR(take_data(data, value_offset, bytes, 64, "value", &tensor.data));
    if (tensor.type == DataType::kInt8 && tensor.bits == 4) {
      for (uint64_t i = 0; i < bytes; ++i) {
        const int code = static_cast<int8_t>(tensor.data[i]);
        if (code < -8 || code > 7) return bad_model("it holds %d, which is no 4-bit code", code);
      }
    }
    return Status();
  }

  Status check_quantization(Tensor& tensor, int32_t axis, uint64_t offset, const Reader& data) {
    if (tensor.scale_count == 0) {
      if (tensor.bits != 0 || axis != -1 || tensor.zero_point != 0 || offset != 0) {
        return bad_model("it has no scale but other quantization fields");
      }
      if (tensor.type == DataType::kInt4) return bad_model("an int4 tensor must be quantized");
      return Status();
    }
    int wanted = 0;
    switch (tensor.type) {
      case DataType::kInt8:
        wanted = tensor.bits == 4 ? 4 : 8;
        break;
      case DataType::kInt4:
        wanted = 4;
        break;
      case DataType::kInt32:
        wanted = 32;
        break;
      default:
        return bad_model("a tensor of type %s cannot be quantized", data_type_name(tensor.type));
    }
    if (tensor.bits != wanted) {
      return bad_model("%d bits do not fit the type %s", tensor.bits, data_type_name(tensor.type));
    }
    if (tensor.type == DataType::kInt4 && !tensor.constant)
      return bad_model("only constants are packed int4");
    tensor.quant_axis = axis;
    if (axis < -1 || axis >= tensor.rank) return bad_model("its quantization axis %d does not exist", axis);
    const uint32_t count = axis == -1 ? 1 : static_cast<uint32_t>(tensor.dims[axis]);
    if (tensor.scale_count != count) {
      return bad_model("it has %u scales where %u belong", tensor.scale_count, count);
    }
    if (tensor.bits == 32 || axis != -1) {
      if (tensor.zero_point != 0) return bad_model("its zero point must be 0, not %d", tensor.zero_point);
    } else if (tensor.zero_point < tensor.code_min() || tensor.zero_point > tensor.code_max()) {
      return bad_model("its zero point %d is no %d-bit code", tensor.zero_point, tensor.bits);
    }
    const uint64_t bytes = 4 * static_cast<uint64_t>(count);
    const uint8_t* part = nullptr;
    EDGEQ_RETURN_IF_ERROR(take_data(data, offset, bytes, 4, "scales", &part));
    tensor.scales = reinterpret_cast<const float*>(part);
    for (uint32_t i = 0; i < count; ++i) {
      if (!(tensor.scales[i] > 0) || !std::isfinite(tensor.scales[i])) {
        return bad_model("scale %u is not a positive finite number", i);
      }
    }
    return Status();
  }

  Status read_nodes() {
    Reader& reader = find(kNodes)->reader;
    uint32_t count = 0, reserved = 0;
    // The smallest node: its head and one output.
    if (!reader.read(count) || !reader.read(reserved) || reserved != 0 || count > kMaxNodes ||
        count > reader.left() / 16) {
      return bad_model(
          "section NODES does not fit its count, has too many nodes or a reserved field that is not zero");
    }
    model.nodes.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      Node& node = model.nodes[i];
      uint16_t inputs = 0, outputs = 0, attributes = 0;
      uint32_t name = 0;
      if (!reader.read(node.op) || !reader.read(inputs) || !reader.read(outputs) ||
          !reader.read(attributes) || !reader.read(name) ||
          reader.left() / 4 < static_cast<size_t>(inputs) + outputs + attributes ||
          static_cast<size_t>(inputs) + outputs + attributes > kMaxNodeFields) {
        return bad_model("node %u does not fit section NODES", i);
      }
      if (name >= strings_.size())
        return bad_model("the name of node %u is string %u, which does not exist", i, name);
      node.name = strings_[name];
      if (outputs != 1) return bad_model("node %s has %u outputs, not 1", quoted(node.name).c_str(), outputs);
      node.inputs.resize(inputs);
      for (int32_t& input : node.inputs) reader.read(input);
      reader.read(node.output);
      node.attributes.resize(attributes);
      for (int32_t& attribute : node.attributes) reader.read(attribute);
    }
    if (reader.left() != 0) return bad_model("section NODES is longer than its nodes");
    std::vector<std::string_view> names;
    for (const Node& node : model.nodes) names.push_back(node.name);
    return check_names(names, "node");
  }

  Status read_ends() {
    Reader& reader = find(kEnds)->reader;
    uint32_t inputs = 0, outputs = 0;
    if (!reader.read(inputs) || !reader.read(outputs) || inputs < 1 || outputs < 1 ||
        reader.left() != 16 * (static_cast<uint64_t>(inputs) + outputs)) {
      return bad_model("section ENDS does not have the size of its records");
    }
    std::vector<bool> seen[2];
    std::vector<int8_t> input_layout(model.tensors.size(), -1);
    for (uint64_t i = 0; i < static_cast<uint64_t>(inputs) + outputs; ++i) {
      const bool is_input = i < inputs;
      uint32_t tensor = 0, layout = 0;
      reader.read(tensor);
      reader.read(layout);
      if (!reader.reserved(8)) return bad_model("a reserved field of an end is not zero");
      if (tensor >= model.tensors.size())
        return bad_model("an end names tensor %u, which does not exist", tensor);
      const Tensor& found = model.tensors[tensor];
      if (found.constant) return bad_model("the end %s is a constant", quoted(found.name).c_str());
      if (is_input && !found.quantized()) {
        return bad_model("the graph input %s is not quantized", quoted(found.name).c_str());
      }
      if (layout > 1 || (layout == 1 && found.rank != 4)) {
        return bad_model("the layout %u of the end %s is not possible", layout, quoted(found.name).c_str());
      }
      std::vector<End>& ends = is_input ? model.inputs : model.outputs;
      seen[is_input].resize(model.tensors.size(), false);
      if (seen[is_input][tensor]) return bad_model("the end %s stands twice", quoted(found.name).c_str());
      seen[is_input][tensor] = true;
      if (is_input) {
        input_layout[tensor] = static_cast<int8_t>(layout);
      } else if (input_layout[tensor] >= 0 && input_layout[tensor] != static_cast<int8_t>(layout)) {
        return bad_model("the end %s is an input and an output of different layouts",
                         quoted(found.name).c_str());
      }
      ends.push_back({static_cast<int32_t>(tensor), layout == 1});
    }
    return Status();
  }

  /// Every input is defined before it is read; every activation is written once.
  Status check_order() {
    const int32_t count = static_cast<int32_t>(model.tensors.size());
    std::vector<bool> written(model.tensors.size(), false);
    for (const End& end : model.inputs) written[end.tensor] = true;
    for (const Node& node : model.nodes) {
      for (int32_t input : node.inputs) {
        if (input == -1) continue;
        if (input < -1 || input >= count) {
          return bad_model("node %s reads tensor %d, which does not exist", quoted(node.name).c_str(), input);
        }
        if (!model.tensors[input].constant && !written[input]) {
          return bad_model("node %s reads tensor %s before anything writes it", quoted(node.name).c_str(),
                           quoted(model.tensors[input].name).c_str());
        }
      }
      if (node.output < 0 || node.output >= count) {
        return bad_model("node %s writes tensor %d, which does not exist", quoted(node.name).c_str(),
                         node.output);
      }
      const Tensor& output = model.tensors[node.output];
      if (output.constant || written[node.output]) {
        return bad_model("node %s writes tensor %s, which is a constant or already written",
                         quoted(node.name).c_str(), quoted(output.name).c_str());
      }
      written[node.output] = true;
    }
    for (size_t i = 0; i < model.tensors.size(); ++i) {
      if (!model.tensors[i].constant && !written[i]) {
        return bad_model("nothing writes tensor %s", quoted(model.tensors[i].name).c_str());
      }
    }
    return Status();
  }

  Status check_operators() {
    for (const Node& node : model.nodes) {
      const OpDef* op = find_op(node.op);
      if (op == nullptr) {
        return Status::unsupported(format("node %s has operator %u, which this build does not know",
                                          quoted(node.name).c_str(), node.op));
      }
      const Status status = op->check(NodeView{model, node});
      if (!status.ok()) {
        return bad_model("node %s (%s): %s", quoted(node.name).c_str(), op->name, status.message().c_str());
      }
    }
    return Status();
  }

  /// The sections that a model can do without: what the engine itself does not use as far as its structure
  /// goes.
  Status check_optional_sections() {
    const Section* meta = find(kMeta);
    if (meta->present &&
        (meta->reader.size() > kMaxMetaBytes || !valid_utf8(meta->reader.data(), meta->reader.size()))) {
      return bad_model("section META is not UTF-8 text of at most 2^20 bytes");
    }
    Section* labels = find(kLabels);
    if (labels->present) {
      Reader& reader = labels->reader;
      uint32_t count = 0;
      if (!reader.read(count) || reader.left() != static_cast<uint64_t>(count) * 4) {
        return bad_model("section LABELS does not have the size of its count");
      }
      for (uint32_t i = 0; i < count; ++i) {
        uint32_t name = 0;
        reader.read(name);
        if (name >= strings_.size()) return bad_model("label %u is string %u, which does not exist", i, name);
      }
    }
    Section* guard = find(kGuard);
    if (guard->present) {
      float temperature = 0, margin = 0;
      const bool complete = guard->reader.size() == 16 && guard->reader.read(temperature) &&
                            guard->reader.read(margin) && guard->reader.reserved(8);
      if (!complete || !(temperature > 0) || !std::isfinite(temperature) || !(margin >= 0 && margin <= 1)) {
        return bad_model("section GUARD does not hold a temperature and a margin");
      }
      model.guard = {true, temperature, margin};
    }
    Section* preprocessing = find(kPreprocessing);
    if (preprocessing->present) {
      Reader& reader = preprocessing->reader;
      uint32_t field[6] = {};
      for (uint32_t& value : field) {
        if (!reader.read(value)) return bad_model("section PREPROCESSING is too short");
      }
      const uint32_t count = field[5];
      if (field[0] > 2 || field[4] > 1 || (count != 1 && count != (field[0] == 2 ? 1u : 3u)) ||
          reader.left() != 8 * count || (field[2] == 0) != (field[3] == 0)) {
        return bad_model("section PREPROCESSING holds an unknown value or has the wrong size");
      }
      Preprocessing& record = model.preprocessing;
      record.present = true;
      record.channels = static_cast<Preprocessing::Channels>(field[0]);
      for (uint32_t i = 0; i < 2 * count; ++i) {
        float value = 0;
        reader.read(value);
        if (!std::isfinite(value) || (i >= count && value == 0)) {
          return bad_model("a mean or standard deviation in PREPROCESSING is not a number to use");
        }
        (i < count ? record.mean : record.std).push_back(value);
      }
    }
    return Status();
  }

  struct Section {
    uint32_t kind;
    bool present = false;
    Reader reader;
  };

  Section* find(uint32_t kind) {
    for (Section& section : sections_) {
      if (section.kind == kind) return &section;
    }
    return nullptr;
  }

  const uint8_t* bytes_;
  size_t size_;
  Section sections_[9] = {{kStrings, false, {}}, {kTensors, false, {}},       {kNodes, false, {}},
                          {kEnds, false, {}},    {kData, false, {}},          {kMeta, false, {}},
                          {kLabels, false, {}},  {kPreprocessing, false, {}}, {kGuard, false, {}}};
  std::vector<std::string_view> strings_;
  uint64_t data_used_ = 0;
};

}  // namespace

Result<Model> read_model(const uint8_t* bytes, size_t size) {
  ModelReader reader(bytes, size);
  EDGEQ_RETURN_IF_ERROR(reader.read());
  return std::move(reader.model);
}

}  // namespace edgeq
