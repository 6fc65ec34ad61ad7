#ifndef EDGEQ_KERNELS_GEMM_X86_AVX2_STEPS_H_
#define EDGEQ_KERNELS_GEMM_X86_AVX2_STEPS_H_

// One step of the AVX2 kernels' inner loops, of matrix products and of Winograd convolutions. Only
// x86_avx2.cc files include it.

#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// Four bytes anywhere, as an operand in memory.
using UnalignedDword = int32_t __attribute__((aligned(1), may_alias));

// The steps of the inner loops are written out. The 6x2 tile needs all sixteen registers, in this order of
// instructions; the compilers' own orders need more, and keep sums in memory.

/// Adds the products of four bytes at `a`, two int16 for every lane, with kVectors vectors of weights.
template <int kVectors>
EDGEQ_INLINE void add_words(const uint8_t* a, const __m256i (&b)[kVectors], __m256i (&acc)[kVectors]) {
  const UnalignedDword& dword = *reinterpret_cast<const UnalignedDword*>(a);
  __m256i row, product;
  if constexpr (kVectors == 2) {
    __asm__(
        "vpbroadcastd %[dword], %[row]\n\t"
        "vpmaddwd %[b0], %[row], %[product]\n\t"
        "vpaddd %[product], %[acc0], %[acc0]\n\t"
        "vpmaddwd %[b1], %[row], %[row]\n\t"
        "vpaddd %[row], %[acc1], %[acc1]"
        : [acc0] "+x"(acc[0]), [acc1] "+x"(acc[1]), [row] "=&x"(row), [product] "=&x"(product)
        : [b0] "x"(b[0]), [b1] "x"(b[1]), [dword] "m"(dword));
  } else {
    __asm__(
        "vpbroadcastd %[dword], %[row]\n\t"
        "vpmaddwd %[b0], %[row], %[row]\n\t"
        "vpaddd %[row], %[acc0], %[acc0]"
        : [acc0] "+x"(acc[0]), [row] "=&x"(row)
        : [b0] "x"(b[0]), [dword] "m"(dword));
  }
}

/// Adds the pair sums of four bytes at `a`, the same for every lane, with kVectors vectors of int8 weights.
template <int kVectors>
EDGEQ_INLINE void add_bytes(const uint8_t* a, const __m256i (&b)[kVectors], __m256i (&acc)[kVectors]) {
  const UnalignedDword& dword = *reinterpret_cast<const UnalignedDword*>(a);
  __m256i row, product;
  if constexpr (kVectors == 2) {
    __asm__(
        "vpbroadcastd %[dword], %[row]\n\t"
        "vpmaddubsw %[b0], %[row], %[product]\n\t"
        "vpaddw %[product], %[acc0], %[acc0]\n\t"
        "vpmaddubsw %[b1], %[row], %[row]\n\t"
        "vpaddw %[row], %[acc1], %[acc1]"
        : [acc0] "+x"(acc[0]), [acc1] "+x"(acc[1]), [row] "=&x"(row), [product] "=&x"(product)
        : [b0] "x"(b[0]), [b1] "x"(b[1]), [dword] "m"(dword));
  } else {
    __asm__(
        "vpbroadcastd %[dword], %[row]\n\t"
        "vpmaddubsw %[b0], %[row], %[row]\n\t"
        "vpaddw %[row], %[acc0], %[acc0]"
        : [acc0] "+x"(acc[0]), [row] "=&x"(row)
        : [b0] "x"(b[0]), [dword] "m"(dword));
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_AVX2_STEPS_H_
