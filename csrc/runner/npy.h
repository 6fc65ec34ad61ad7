#ifndef EDGEQ_RUNNER_NPY_H_
#define EDGEQ_RUNNER_NPY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "runner/outputs.h"

namespace edgeq {

enum class NpyType { kFloat32, kInt8, kUint8 };

/// Bytes of an element.
inline size_t npy_bytes(NpyType type) { return type == NpyType::kFloat32 ? 4 : 1; }

/// A .npy file of float32, int8 or uint8 in C order, read a few rows of its first axis at a time.
class NpyReader {
 public:
  NpyReader() = default;
  NpyReader(NpyReader&& other) noexcept { *this = static_cast<NpyReader&&>(other); }
  NpyReader& operator=(NpyReader&& other) noexcept;
  ~NpyReader();

  /// Reads the header and compares the file's size with it.
  static Result<NpyReader> open(const std::string& path);

  NpyType type() const { return type_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  const std::string& path() const { return path_; }

  /// Rows [first, first + count) of the first axis.
  Status read(int64_t first, int64_t count, void* out) const;

 private:
  Status read_header();

  std::string path_;
  int file_ = -1;
  NpyType type_ = NpyType::kFloat32;
  std::vector<int64_t> shape_;
  uint64_t data_offset_ = 0;
  uint64_t row_bytes_ = 0;
};

/// The header of a .npy file (version 1.0), its end on a multiple of 64.
std::string npy_header(NpyType type, const std::vector<int64_t>& shape);

/// A .npy file that appears whole or not at all.
class NpyWriter {
 public:
  static Result<NpyWriter> create(const std::string& path, NpyType type, const std::vector<int64_t>& shape);
  Status write(const void* data, size_t bytes) { return file_.write(data, bytes); }
  Status commit() { return file_.commit(); }

 private:
  WholeFile file_;
};

/// "float32 [2, 3, 224, 224]"
std::string array_text(NpyType type, const std::vector<int64_t>& shape);

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_NPY_H_
