#include "tests/tile_traps.h"

#if defined(__linux__) && defined(__x86_64__)

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
    if (index != 4) d.index = static_cast<ptrdiff_t>(registers[kRegisters[index]]) << (sib >> 6);
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

bool execute(const Decoded& d) {
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
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Decoded d;
  if (!decode(reinterpret_cast<const uint8_t*>(registers[REG_RIP]), registers, d) || !execute(d)) {
    std::fprintf(stderr, "FAIL tile traps: an illegal instruction that is no tile instruction\n");
    std::abort();
  }
  registers[REG_RIP] += static_cast<greg_t>(d.length);
  ++trapped;
}

}  // namespace

TileTraps::TileTraps() {
  unit = TileUnit();
  trapped = 0;
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}

TileTraps::~TileTraps() { sigaction(SIGILL, &before, nullptr); }

bool TileTraps::available() { return true; }
size_t TileTraps::instructions() const { return trapped; }
bool TileTraps::configured() const { return unit.configured(); }

}  // namespace edgeq

#else

namespace edgeq {

TileTraps::TileTraps() = default;
TileTraps::~TileTraps() = default;
bool TileTraps::available() { return false; }
size_t TileTraps::instructions() const { return 0; }
bool TileTraps::configured() const { return false; }

}  // namespace edgeq

#endif
