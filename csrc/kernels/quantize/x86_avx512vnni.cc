#include "kernels/quantize/x86_wide.h"

namespace edgeq {

void quantize_avx512vnni(const QuantizeParams& p) { quantize<Vector512>(p); }
void dequantize_avx512vnni(const DequantizeParams& p) { dequantize<Vector512>(p); }
void recode_avx512vnni(const RecodeParams& p) { recode<Vector512>(p); }

}  // namespace edgeq
