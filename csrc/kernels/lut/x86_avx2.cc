#include "kernels/lut/x86_wide.h"

namespace edgeq {
namespace {

struct Shuffles : Vector256 {
  explicit Shuffles(const uint8_t* table) : table_(table) {}
  EDGEQ_INLINE Int operator()(Int bytes) const { return look_up<Vector256>(bytes, table_); }

 private:
  const uint8_t* table_;
};

}  // namespace

void lut_avx2(const LutParams& p) { lut<Shuffles>(p); }

}  // namespace edgeq
