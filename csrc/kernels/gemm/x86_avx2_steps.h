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

/// Adds (x0 + w2) * (x2 + w0) + (x1 + w3) * (x3 + w1) to every lane, with x the four int16 at `a` and w the
/// weights of four channels: two of them in b[v], the next two in b[kVectors + v].
template <int kVectors>
EDGEQ_INLINE void add_crossed(const uint8_t* a, const __m256i (&b)[2 * kVectors], __m256i (&acc)[kVectors]) {
  const UnalignedDword& low = *reinterpret_cast<const UnalignedDword*>(a);
  const UnalignedDword& high = *reinterpret_cast<const UnalignedDword*>(a + 4);
  __m256i x0, x2, left, right;
  if constexpr (kVectors == 2) {
    __asm__(
        "vpbroadcastd %[low], %[x0]\n\t"
        "vpbroadcastd %[high], %[x2]\n\t"
        "vpaddw %[x0], %[b2], %[left]\n\t"
        "vpaddw %[x2], %[b0], %[right]\n\t"
        "vpaddw %[x0], %[b3], %[x0]\n\t"
        "vpaddw %[x2], %[b1], %[x2]\n\t"
        "vpmaddwd %[left], %[right], %[left]\n\t"
        "vpmaddwd %[x0], %[x2], %[x0]\n\t"
        "vpaddd %[left], %[acc0], %[acc0]\n\t"
        "vpaddd %[x0], %[acc1], %[acc1]"
        : [acc0] "+x"(acc[0]), [acc1] "+x"(acc[1]), [x0] "=&x"(x0), [x2] "=&x"(x2), [left] "=&x"(left),
          [right] "=&x"(right)
        : [b0] "x"(b[0]), [b1] "x"(b[1]), [b2] "x"(b[2]), [b3] "x"(b[3]), [low] "m"(low), [high] "m"(high));
  } else {
    __asm__(
        "vpbroadcastd %[low], %[x0]\n\t"
        "vpbroadcastd %[high], %[x2]\n\t"
        "vpaddw %[x0], %[b1], %[x0]\n\t"
        "vpaddw %[x2], %[b0], %[x2]\n\t"
        "vpmaddwd %[x0], %[x2], %[x0]\n\t"
        "vpaddd %[x0], %[acc0], %[acc0]"
        : [acc0] "+x"(acc[0]), [x0] "=&x"(x0), [x2] "=&x"(x2)
        : [b0] "x"(b[0]), [b1] "x"(b[1]), [low] "m"(low), [high] "m"(high));
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
