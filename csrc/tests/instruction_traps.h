#ifndef EDGEQ_TESTS_INSTRUCTION_TRAPS_H_
#define EDGEQ_TESTS_INSTRUCTION_TRAPS_H_

#include <cstddef>

namespace edgeq {

/// While it lives, AMX and AVX-VNNI instructions that the CPU lacks are emulated: each raises SIGILL, whose
/// handler decodes the machine code as the manual states the encodings. So the compiled kernels themselves
/// are tested, and not only their source. One at a time, one thread.
class InstructionTraps {
 public:
  InstructionTraps();
  ~InstructionTraps();
  InstructionTraps(const InstructionTraps&) = delete;
  InstructionTraps& operator=(const InstructionTraps&) = delete;

  /// Whether this build can trap them: Linux on x86-64.
  static bool available();

  size_t instructions() const;  // so far
  bool configured() const;      // whether a configuration of tiles is loaded
};

}  // namespace edgeq

#endif  // EDGEQ_TESTS_INSTRUCTION_TRAPS_H_
