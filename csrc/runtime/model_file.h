#ifndef EDGEQ_RUNTIME_MODEL_FILE_H_
#define EDGEQ_RUNTIME_MODEL_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "ops/model.h"

namespace edgeq {

/// The bytes of a file: mapped read-only, or copied from memory. Move only.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&& other) noexcept;
  ~FileBytes();

  static Result<FileBytes> map(const std::string& path);
  static Result<FileBytes> copy(const uint8_t* data, size_t size);

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  AlignedBuffer owned_;
};

/// Reads a model out of the bytes of a .edgeq file (docs/format.md), after checking all of it: header, hash,
/// sections, every record, every operator's shapes, attributes and quantization. The model points into
/// `bytes`, which must be 8-byte aligned and stay where they are.
///
/// What it allocates is proportional to the file. Errors: kInvalidModel with one sentence that names what is
/// wrong and where (the node's or tensor's name); kUnsupported for a newer version.
Result<Model> read_model(const uint8_t* bytes, size_t size);

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_MODEL_FILE_H_
