#include "kernels/quantize/x86_wide.h"

namespace edgeq {

void quantize_avx2(const QuantizeParams& p) { quantize<Vector256>(p); }
void dequantize_avx2(const DequantizeParams& p) { dequantize<Vector256>(p); }
void recode_avx2(const RecodeParams& p) { recode<Vector256>(p); }

}  // namespace edgeq
