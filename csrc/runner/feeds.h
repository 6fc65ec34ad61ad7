#ifndef EDGEQ_RUNNER_FEEDS_H_
#define EDGEQ_RUNNER_FEEDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "runner/npy.h"
#include "runtime/session.h"

namespace edgeq {

/// The .npy files of a model's inputs, run some images at a time: all float32, all int8 codes, or one of
/// uint8 images.
class Feeds {
 public:
  /// Opens one file an input and compares them with what the model takes. `always_float`: codes give float32
  /// too.
  static Result<Feeds> open(Session& session, const std::vector<std::string>& paths,
                            bool always_float = false);

  int64_t images() const { return files_[0].shape()[0]; }
  /// Whether an output is float32 rather than int8 codes: codes give codes, unless floats are wanted.
  bool gives_float(size_t output) const {
    return always_float_ || session_->outputs()[output].is_float || files_[0].type() != NpyType::kInt8;
  }

  /// Runs images [first, first + count).
  Status run(int64_t first, int64_t count);

  /// The bytes of each output of the last run.
  const std::vector<std::vector<uint8_t>>& results() const { return out_; }

 private:
  explicit Feeds(Session& session) : session_(&session) {}
  Status check(const NpyReader& file, size_t input) const;

  friend class Result<Feeds>;
  Feeds() = default;

  Session* session_ = nullptr;
  bool always_float_ = false;
  std::vector<NpyReader> files_;
  std::vector<std::vector<uint8_t>> in_, out_;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_FEEDS_H_
