#ifndef EDGEQ_RUNNER_RANDOM_INPUT_H_
#define EDGEQ_RUNNER_RANDOM_INPUT_H_

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "runtime/session.h"

namespace edgeq {

/// A batch of random inputs for a session, and room for its outputs: the same numbers on every machine.
class RandomInput {
 public:
  /// Args:
  ///   codes: int8 codes at the ends instead of float32.
  RandomInput(Session& session, int64_t batch, bool codes);

  Status run() { return session_.run(inputs_, outputs_, batch_); }

  /// The bytes of each output after `run`.
  const std::vector<std::vector<uint8_t>>& results() const { return out_; }

 private:
  Session& session_;
  const int64_t batch_;
  std::vector<std::vector<uint8_t>> in_, out_;
  std::vector<InputArray> inputs_;
  std::vector<OutputArray> outputs_;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_RANDOM_INPUT_H_
