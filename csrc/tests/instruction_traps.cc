#include "tests/instruction_traps.h"

#if defined(__linux__) && defined(__x86_64__)

#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

#include "tests/emulated_tiles.h"

namespace edgeq {
namespace {

TileUnit unit;
size_t trapped = 0;
struct sigaction before;

/// The registers in the order of their numbers in machine code.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/// An instruction with a three-byte VEX prefix: C4, R X B (inverted) and the opcode map, W vvvv (inverted) L
/// pp, opcode, ModRM, SIB, displacement.
struct Decoded {
  int map, vector, prefix, opcode;  // prefix: 0 none, 1 66, 2 F3, 3 F2
  bool wide, big;                   // W, L
  int mod, reg, rm;
  bool sib;
  uint8_t* address;  // of the memory operand without the index
  ptrdiff_t index;   // scaled
  size_t length;
};

template <typename T>
T read(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

bool decode(const uint8_t* code, const greg_t* registers, Decoded& d) {
  if (code[0] != 0xC4) return false;
  d.reg = (code[1] & 0x80) != 0 ? 0 : 8;
  const int index_high = (code[1] & 0x40) != 0 ? 0 : 8;
  const int base_high = (code[1] & 0x20) != 0 ? 0 : 8;
  d.map = code[1] & 0x1F;
  d.wide = (code[2] & 0x80) != 0;
  d.vector = ~(code[2] >> 3) & 0x0F;
  d.big = (code[2] & 0x04) != 0;
  d.prefix = code[2] & 0x03;
  d.opcode = code[3];
  d.mod = code[4] >> 6;
  d.reg |= code[4] >> 3 & 7;
  d.rm = code[4] & 7;
  d.sib = d.mod != 3 && d.rm == 4;
  d.address = nullptr;
  d.index = 0;
  d.length = 5;
  if (d.mod == 3) {
    d.rm |= base_high;
    return true;
  }
  int base = d.rm;
  if (d.sib) {
    const uint8_t sib = code[d.length++];
    base = sib & 7;
    const int index = (sib >> 3 & 7) | index_high;
    if (index != 4) d.index = static_cast<ptrdiff_t>(registers[kRegisters[index]]) * (1 << (sib >> 6));
  }
  ptrdiff_t address = 0;
  const bool no_base = d.mod == 0 && base == 5;
  if (!no_base) address = static_cast<ptrdiff_t>(registers[kRegisters[base | base_high]]);
  if (d.mod == 1) {
    address += read<int8_t>(code + d.length);
    d.length += 1;
  } else if (d.mod == 2 || no_base) {
    address += read<int32_t>(code + d.length);
    d.length += 4;
    // Without SIB this form counts from the next instruction.
    if (no_base && !d.sib) address += reinterpret_cast<ptrdiff_t>(code + d.length);
  }
  d.address = reinterpret_cast<uint8_t*>(address);
  return true;
}

/// The vector registers that the kernel saved for the handler and loads again when it returns: the lower
/// halves lie in the first 512 bytes (FXSAVE), the upper ones where CPUID says (XSAVE, component 2).
class Vectors {
 public:
  explicit Vectors(void* saved) : saved_(static_cast<uint8_t*>(saved)) {
    unsigned size, other1, other2;
    __cpuid_count(0x0D, 2, size, upper_, other1, other2);
  }
  void get(int index, uint8_t (&bytes)[32]) const {
    std::memcpy(bytes, saved_ + 160 + 16 * index, 16);
    std::memcpy(bytes + 16, saved_ + upper_ + 16 * static_cast<unsigned>(index), 16);
    // XSTATE_BV: without its bit the upper halves are zero, whatever lies there.
    if ((saved_[512] & 4) == 0) std::memset(bytes + 16, 0, 16);
  }
  void set(int index, const uint8_t (&bytes)[32]) {
    if ((saved_[512] & 4) == 0) std::memset(saved_ + upper_, 0, 16 * 16);
    saved_[512] |= 2 | 4;
    std::memcpy(saved_ + 160 + 16 * index, bytes, 16);
    std::memcpy(saved_ + upper_ + 16 * static_cast<unsigned>(index), bytes + 16, 16);
  }

 private:
  uint8_t* saved_;
  unsigned upper_;
};

/// VPDPBUSD in its VEX form: each dword of the sum plus the products of four unsigned bytes and four signed
/// ones.
bool execute_vnni(const Decoded& d, Vectors vectors) {
  if (d.map != 2 || d.wide || d.prefix != 1 || d.opcode != 0x50) return false;
  uint8_t sum[32], left[32], right[32];
  vectors.get(d.reg, sum);
  vectors.get(d.vector, left);
  if (d.mod == 3) {
    vectors.get(d.rm, right);
  } else {
    std::memcpy(right, d.address + d.index, d.big ? 32 : 16);
  }
  for (int i = 0; i < (d.big ? 8 : 4); ++i) {
    uint32_t value = read<uint32_t>(sum + 4 * i);
    for (int b = 4 * i; b < 4 * i + 4; ++b) {
      value += static_cast<uint32_t>(int32_t{left[b]} * int32_t{static_cast<int8_t>(right[b])});
    }
    std::memcpy(sum + 4 * i, &value, sizeof value);
  }
  if (!d.big) std::memset(sum + 16, 0, 16);
  vectors.set(d.reg, sum);
  return true;
}

bool execute_tiles(const Decoded& d) {
  constexpr int kNone = 0, k66 = 1, kF3 = 2, kF2 = 3;
  if (d.map != 2 || d.wide || d.big || d.reg >= kTiles) return false;
  const bool memory = d.mod != 3;
  if (d.opcode != 0x5E && d.vector != 0) return false;
  if (d.opcode == 0x49) {
    if (d.prefix == kNone && memory && d.reg == 0) {  // LDTILECFG
      uint8_t bytes[64];
      std::memcpy(bytes, d.address + d.index, sizeof bytes);
      unit.configure(bytes);
    } else if (d.prefix == kNone && !memory && d.reg == 0 && d.rm == 0) {
      unit.release();
    } else if (d.prefix == k66 && memory && d.reg == 0) {  // STTILECFG
      uint8_t bytes[64];
      unit.store_config(bytes);
      std::memcpy(d.address + d.index, bytes, sizeof bytes);
    } else if (d.prefix == kF2 && !memory && d.rm == 0) {
      unit.zero(d.reg);
    } else {
      return false;
    }
  } else if (d.opcode == 0x4B && memory && d.sib) {
    if (d.prefix == kF2 || d.prefix == k66) {  // TILELOADD, TILELOADDT1
      unit.load(d.reg, d.address, d.index);
    } else if (d.prefix == kF3) {
      unit.store(d.reg, d.address, d.index);
    } else {
      return false;
    }
  } else if (d.opcode == 0x5E && !memory && d.prefix == k66) {  // TDPBUSD
    unit.multiply_add(d.reg, d.rm, d.vector);
  } else {
    return false;
  }
  return true;
}

void handle(int, siginfo_t*, void* context) {
  mcontext_t& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  greg_t* registers = machine.gregs;
  Decoded d;
  const auto* code = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  if (!decode(code, registers, d) || !(execute_tiles(d) || execute_vnni(d, Vectors(machine.fpregs)))) {
    std::fprintf(stderr, "FAIL instruction traps: an illegal instruction that is not emulated\n");
    std::abort();
  }
  registers[REG_RIP] += static_cast<greg_t>(d.length);
  ++trapped;
}

}  // namespace

InstructionTraps::InstructionTraps() {
  unit = TileUnit();
  trapped = 0;
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}

InstructionTraps::~InstructionTraps() { sigaction(SIGILL, &before, nullptr); }

bool InstructionTraps::available() { return true; }
size_t InstructionTraps::instructions() const { return trapped; }
bool InstructionTraps::configured() const { return unit.configured(); }

}  // namespace edgeq

#else

namespace edgeq {

InstructionTraps::InstructionTraps() = default;
InstructionTraps::~InstructionTraps() = default;
bool InstructionTraps::available() { return false; }
size_t InstructionTraps::instructions() const { return 0; }
bool InstructionTraps::configured() const { return false; }

}  // namespace edgeq

#endif
