#include "runner/random_input.h"

#include <cstring>

#include "runner/session_options.h"

namespace edgeq {

RandomInput::RandomInput(Session& session, int64_t batch, bool codes) : session_(session), batch_(batch) {
  uint64_t state = 0x9E3779B97F4A7C15u;
  const auto next = [&state] {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return static_cast<uint32_t>((state * 0x2545F4914F6CDD1Du) >> 32);
  };
  in_.reserve(session.inputs().size());
  for (const EndInfo& end : session.inputs()) {
    const size_t count = static_cast<size_t>(batch * elements_of(end));
    std::vector<uint8_t>& bytes = in_.emplace_back(count * (codes ? 1 : 4));
    for (size_t i = 0; i < count; ++i) {
      const uint32_t word = next();
      if (codes) {
        // The top bits, as a code of the input's width.
        const int8_t code = static_cast<int8_t>(static_cast<int32_t>(word) >> (32 - end.bits));
        std::memcpy(bytes.data() + i, &code, 1);
      } else {
        // Anywhere in the range that the codes cover, whatever the model's normalisation is.
        const float steps =
            static_cast<float>(word >> 8) * (1.0f / 16777216.0f) * static_cast<float>(1 << end.bits);
        const float lowest = static_cast<float>(-(1 << (end.bits - 1)) - end.zero_point);
        const float value = (lowest + steps) * end.scale;
        std::memcpy(bytes.data() + 4 * i, &value, 4);
      }
    }
    inputs_.push_back({bytes.data(), !codes});
  }
  out_.reserve(session.outputs().size());
  for (const EndInfo& end : session.outputs()) {
    const bool is_float = end.is_float || !codes;
    std::vector<uint8_t>& bytes =
        out_.emplace_back(static_cast<size_t>(batch * elements_of(end)) * (is_float ? 4 : 1));
    outputs_.push_back({bytes.data(), is_float});
  }
}

}  // namespace edgeq
