#ifndef EDGEQ_KERNELS_GEMM_X86_VNNI256_H_
#define EDGEQ_KERNELS_GEMM_X86_VNNI256_H_

// 256-bit vectors for x86_vnni.h with AVX2 instructions; the including file adds the dot product in its
// encoding.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "base/act.h"

namespace edgeq {
namespace {

struct Vector256 {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kLanes = 8;

  static Int zero() { return _mm256_setzero_si256(); }
  static void keep_in_register(Int& a) { __asm__ volatile("" : "+x"(a)); }
  static Int load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Int broadcast(const uint8_t* from) {
    int32_t value;
    std::memcpy(&value, from, sizeof value);
    return _mm256_set1_epi32(value);
  }
  static Int set1_byte(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
  static Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int shift_left_4(Int a) { return _mm256_slli_epi32(a, 4); }
  static Int shift_right_4(Int a) { return _mm256_srai_epi32(a, 4); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int minus(Int a, int32_t b) { return _mm256_sub_epi32(a, _mm256_set1_epi32(b)); }
  static Int widen(const uint8_t* from) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Float set1(float a) { return _mm256_set1_ps(a); }
  static Float load_float(const uint8_t* from) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(from));
  }
  static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float plus(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Int round(Float a) { return _mm256_cvtps_epi32(a); }

  /// Bytes max(saturate(q + zp), lowest) of up to two vectors, in order, in the low half.
  template <int kVectors>
  static Int pack(const Int* q, int32_t zp, int32_t lowest) {
    static_assert(kVectors <= 2, "");
    const Int words = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[kVectors - 1]),
                                        _mm256_set1_epi16(static_cast<int16_t>(zp)));
    const Int bytes =
        _mm256_max_epu8(_mm256_packus_epi16(words, words), _mm256_set1_epi8(static_cast<char>(lowest)));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
  }
  static Int lookup(Int bytes, const uint8_t* table) {
    Int result = zero();
    for (int high = 0; high < 16; ++high) {
      const Int part =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * high)));
      // Indices of other sixteenths get bit 7, with which the shuffle yields zero.
      const Int index = _mm256_adds_epu8(_mm256_xor_si256(bytes, set1_byte(high << 4)), set1_byte(0x70));
      result = _mm256_or_si256(result, _mm256_shuffle_epi8(part, index));
    }
    return result;
  }
  static void store_all(uint8_t* to, Int bytes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
  }
  template <int kVectors>
  static void store(uint8_t* to, Int bytes, size_t count) {
    if (kVectors == 2 && count == 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(bytes));
    } else if (kVectors == 1 && count == 8) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(bytes));
    } else {
      alignas(32) uint8_t all[32];
      store_all(all, bytes);
      std::memcpy(to, all, count);
    }
  }
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_VNNI256_H_
