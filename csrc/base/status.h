#ifndef EDGEQ_BASE_STATUS_H_
#define EDGEQ_BASE_STATUS_H_

#include <string>
#include <utility>

namespace edgeq {

enum class StatusCode {
  kOk,
  kInvalidArgument,  // The caller passed something wrong: a shape, a name, a value.
  kInvalidModel,     // The file is damaged, hostile or not an .edgeq file.
  kUnsupported,      // Well formed, but not something this build or CPU can do.
  kIo,               // The operating system refused: open, read, map, write.
  kOutOfMemory,
};

/// Success, or a code with one paragraph that names the cause and the cure.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status invalid_argument(std::string message) {
    return Status(StatusCode::kInvalidArgument, std::move(message));
  }
  static Status invalid_model(std::string message) {
    return Status(StatusCode::kInvalidModel, std::move(message));
  }
  static Status unsupported(std::string message) {
    return Status(StatusCode::kUnsupported, std::move(message));
  }
  static Status io(std::string message) { return Status(StatusCode::kIo, std::move(message)); }
  static Status out_of_memory(std::string message) {
    return Status(StatusCode::kOutOfMemory, std::move(message));
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// A value, or the status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose, for `return value;`
  Result(Status status) : status_(std::move(status)), value_() {}  // NOLINT: implicit, for `return status;`

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  const T& value() const& { return value_; }
  T& value() & { return value_; }
  T&& value() && { return std::move(value_); }

 private:
  Status status_;
  T value_;
};

}  // namespace edgeq

/// Returns from the enclosing function when `expression` is not ok.
#define EDGEQ_RETURN_IF_ERROR(expression)          \
  do {                                             \
    ::edgeq::Status edgeq_status_ = (expression);  \
    if (!edgeq_status_.ok()) return edgeq_status_; \
  } while (false)

#endif  // EDGEQ_BASE_STATUS_H_
