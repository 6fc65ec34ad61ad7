#ifndef EDGEQ_KERNELS_X86_VECTORS_H_
#define EDGEQ_KERNELS_X86_VECTORS_H_

// The vector operations that the x86 files of several families share, one type a width. Only x86_*.cc files
// (and the headers that they alone include) include this, each compiled with its own level's flags:
// everything stands in an unnamed namespace, so that a copy built for one level never serves another.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/act.h"
#include "base/requantize.h"

#define EDGEQ_INLINE inline __attribute__((always_inline))
// For what several callers share and is long enough that a call does not show.
#define EDGEQ_NOINLINE __attribute__((noinline))

namespace edgeq {
namespace {

template <int... kIndices, typename Body>
EDGEQ_INLINE void unroll(std::integer_sequence<int, kIndices...>, Body body) {
  (body(std::integral_constant<int, kIndices>()), ...);
}

/// body(0), body(1), .. body(kCount - 1), each index a constant: arrays that are only ever indexed so live in
/// registers, which the compilers do not manage for every loop that they unroll.
template <int kCount, typename Body>
EDGEQ_INLINE void unroll(Body body) {
  unroll(std::make_integer_sequence<int, kCount>(), body);
}
#define EDGEQ_UNROLLED __attribute__((always_inline))

EDGEQ_INLINE int32_t load_dword(const uint8_t* from) {
  int32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Stores the first `count` < 16 bytes, without AVX-512's masks: a store for each bit of the count. Going
/// through memory instead would make the copy wait for a store that it cannot be forwarded from.
EDGEQ_INLINE void store_less_than_16(uint8_t* to, __m128i a, size_t count) {
  if ((count & 8) != 0) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), a);
    a = _mm_srli_si128(a, 8);
    to += 8;
  }
  if ((count & 4) != 0) {
    const int32_t dword = _mm_cvtsi128_si32(a);
    std::memcpy(to, &dword, 4);
    a = _mm_srli_si128(a, 4);
    to += 4;
  }
  if ((count & 2) != 0) {
    const uint16_t word = static_cast<uint16_t>(_mm_cvtsi128_si32(a));
    std::memcpy(to, &word, 2);
    a = _mm_srli_si128(a, 2);
    to += 2;
  }
  if ((count & 1) != 0) *to = static_cast<uint8_t>(_mm_cvtsi128_si32(a));
}

/// 64 bits, the lower half of a 128-bit register: only what is needed to store them.
struct Vector64 {
  using Int = __m128i;

  static EDGEQ_INLINE void store(uint8_t* to, Int a, size_t count) {
    if (count >= 8) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), a);
      return;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    _mm_mask_storeu_epi8(to, static_cast<__mmask16>((1u << count) - 1u), a);
#else
    store_less_than_16(to, a, count);
#endif
  }
};

/// 128 bits: 4 dwords, 16 bytes.
struct Vector128 {
  using Int = __m128i;
  using Half = Vector64;
  using Float = __m128;
  static constexpr int kLanes = 4;
  static constexpr int kBytes = 16;

  static EDGEQ_INLINE void keep_in_register(Int& a) { __asm__ volatile("" : "+x"(a)); }
  static EDGEQ_INLINE Int low_half(Int a) { return a; }
  static EDGEQ_INLINE Int high_half(Int a) { return _mm_unpackhi_epi64(a, a); }
  static EDGEQ_INLINE Int zero() { return _mm_setzero_si128(); }
  static EDGEQ_INLINE Int load(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  }
  static EDGEQ_INLINE void store_all(void* to, Int a) { _mm_storeu_si128(static_cast<__m128i*>(to), a); }
  static EDGEQ_INLINE Int set1_byte(int a) { return _mm_set1_epi8(static_cast<char>(a)); }
  static EDGEQ_INLINE Int set1_word(int a) { return _mm_set1_epi16(static_cast<int16_t>(a)); }
  static EDGEQ_INLINE Int bit_and(Int a, Int b) { return _mm_and_si128(a, b); }
  static EDGEQ_INLINE Int bit_or(Int a, Int b) { return _mm_or_si128(a, b); }
  static EDGEQ_INLINE Int bit_xor(Int a, Int b) { return _mm_xor_si128(a, b); }
  static EDGEQ_INLINE Int add(Int a, Int b) { return _mm_add_epi32(a, b); }
  static EDGEQ_INLINE Int add_words(Int a, Int b) { return _mm_add_epi16(a, b); }
  static EDGEQ_INLINE Int sub_words(Int a, Int b) { return _mm_sub_epi16(a, b); }
  static EDGEQ_INLINE Int mul_words(Int a, Int b) { return _mm_mullo_epi16(a, b); }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left_words(Int a) {
    return _mm_slli_epi16(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_words(Int a) {
    return _mm_srli_epi16(a, kCount);
  }
  static EDGEQ_INLINE Int madd_words(Int a, Int b) { return _mm_madd_epi16(a, b); }
  static EDGEQ_INLINE Int madd_bytes(Int a, Int b) { return _mm_maddubs_epi16(a, b); }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left(Int a) {
    return _mm_slli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right(Int a) {
    return _mm_srli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_signed(Int a) {
    return _mm_srai_epi32(a, kCount);
  }
  static EDGEQ_INLINE Int low_bytes(Int a, Int b) { return _mm_unpacklo_epi8(a, b); }
  static EDGEQ_INLINE Int high_bytes(Int a, Int b) { return _mm_unpackhi_epi8(a, b); }
  static EDGEQ_INLINE Int low_words(Int a, Int b) { return _mm_unpacklo_epi16(a, b); }
  static EDGEQ_INLINE Int high_words(Int a, Int b) { return _mm_unpackhi_epi16(a, b); }
  static EDGEQ_INLINE Int shuffle(Int table, Int index) { return _mm_shuffle_epi8(table, index); }
  static EDGEQ_INLINE Int max_bytes(Int a, Int b) { return _mm_max_epu8(a, b); }
  static EDGEQ_INLINE Int min_bytes(Int a, Int b) { return _mm_min_epu8(a, b); }
  static EDGEQ_INLINE Int add_saturated_words(Int a, Int b) { return _mm_adds_epi16(a, b); }
  static EDGEQ_INLINE Int min_words(Int a, Int b) { return _mm_min_epi16(a, b); }
  static EDGEQ_INLINE Int min_dwords(Int a, Int b) { return _mm_min_epi32(a, b); }
  static EDGEQ_INLINE Int max_dwords(Int a, Int b) { return _mm_max_epi32(a, b); }
  static EDGEQ_INLINE Int pack_dwords(Int a, Int b) { return _mm_packs_epi32(a, b); }
  static EDGEQ_INLINE Int pack_words(Int a, Int b) { return _mm_packus_epi16(a, b); }
  static EDGEQ_INLINE Int repeat128(const void* from) { return load(from); }
  static EDGEQ_INLINE Int widen_signed_bytes(const void* from) {
    return _mm_cvtepi8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
  }
  static EDGEQ_INLINE Float set1(float a) { return _mm_set1_ps(a); }
  static EDGEQ_INLINE Float load_float(const void* from) {
    return _mm_loadu_ps(static_cast<const float*>(from));
  }
  static EDGEQ_INLINE Float to_float(Int a) { return _mm_cvtepi32_ps(a); }
  static EDGEQ_INLINE Float mul(Float a, Float b) { return _mm_mul_ps(a, b); }
  static EDGEQ_INLINE Float plus(Float a, Float b) { return _mm_add_ps(a, b); }
  static EDGEQ_INLINE Float minus(Float a, Float b) { return _mm_sub_ps(a, b); }
  static EDGEQ_INLINE Float min(Float a, Float b) { return _mm_min_ps(a, b); }
  static EDGEQ_INLINE Int round(Float a) { return _mm_cvtps_epi32(a); }
  static EDGEQ_INLINE void store(uint8_t* to, Int a, size_t count) {
    if (count >= 16) {
      store_all(to, a);
      return;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    _mm_mask_storeu_epi8(to, static_cast<__mmask16>((1u << count) - 1u), a);
#else
    store_less_than_16(to, a, count);
#endif
  }
};

/// 256 bits: 8 dwords, 32 bytes.
struct Vector256 {
  using Int = __m256i;
  using Float = __m256;
  using Half = Vector128;
  static constexpr int kLanes = 8;
  static constexpr int kBytes = 32;

  static EDGEQ_INLINE void keep_in_register(Int& a) { __asm__ volatile("" : "+x"(a)); }
  static EDGEQ_INLINE __m128i low_half(Int a) { return _mm256_castsi256_si128(a); }
  static EDGEQ_INLINE __m128i high_half(Int a) { return _mm256_extracti128_si256(a, 1); }
  static EDGEQ_INLINE Int zero() { return _mm256_setzero_si256(); }
  static EDGEQ_INLINE Int load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static EDGEQ_INLINE void store_all(void* to, Int a) { _mm256_storeu_si256(static_cast<__m256i*>(to), a); }
  static EDGEQ_INLINE Int broadcast(const uint8_t* from) { return _mm256_set1_epi32(load_dword(from)); }
  static EDGEQ_INLINE Int set1_byte(int a) { return _mm256_set1_epi8(static_cast<char>(a)); }
  static EDGEQ_INLINE Int set1_word(int a) { return _mm256_set1_epi16(static_cast<int16_t>(a)); }
  static EDGEQ_INLINE Int set1_dword(int32_t a) { return _mm256_set1_epi32(a); }
  static EDGEQ_INLINE Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static EDGEQ_INLINE Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
  static EDGEQ_INLINE Int bit_xor(Int a, Int b) { return _mm256_xor_si256(a, b); }
  static EDGEQ_INLINE Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static EDGEQ_INLINE Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static EDGEQ_INLINE Int mul_dwords(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static EDGEQ_INLINE Int add_words(Int a, Int b) { return _mm256_add_epi16(a, b); }
  static EDGEQ_INLINE Int sub_words(Int a, Int b) { return _mm256_sub_epi16(a, b); }
  static EDGEQ_INLINE Int mul_words(Int a, Int b) { return _mm256_mullo_epi16(a, b); }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left_words(Int a) {
    return _mm256_slli_epi16(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_words(Int a) {
    return _mm256_srli_epi16(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_qwords(Int a) {
    return _mm256_srli_epi64(a, kCount);
  }
  static EDGEQ_INLINE Int madd_words(Int a, Int b) { return _mm256_madd_epi16(a, b); }
  /// Modulo 2^32.
  static EDGEQ_INLINE int32_t sum_dwords(Int a) {
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
    return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_srli_epi64(sums, 32)));
  }
  static EDGEQ_INLINE Int madd_bytes(Int a, Int b) { return _mm256_maddubs_epi16(a, b); }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left(Int a) {
    return _mm256_slli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right(Int a) {
    return _mm256_srli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_signed(Int a) {
    return _mm256_srai_epi32(a, kCount);
  }
  static EDGEQ_INLINE Int low_bytes(Int a, Int b) { return _mm256_unpacklo_epi8(a, b); }
  static EDGEQ_INLINE Int high_bytes(Int a, Int b) { return _mm256_unpackhi_epi8(a, b); }
  static EDGEQ_INLINE Int low_words(Int a, Int b) { return _mm256_unpacklo_epi16(a, b); }
  static EDGEQ_INLINE Int high_words(Int a, Int b) { return _mm256_unpackhi_epi16(a, b); }
  static EDGEQ_INLINE Int shuffle(Int table, Int index) { return _mm256_shuffle_epi8(table, index); }
  static EDGEQ_INLINE Int add_bytes(Int a, Int b) { return _mm256_add_epi8(a, b); }
  static EDGEQ_INLINE Int max_bytes(Int a, Int b) { return _mm256_max_epu8(a, b); }
  static EDGEQ_INLINE Int min_bytes(Int a, Int b) { return _mm256_min_epu8(a, b); }
  static EDGEQ_INLINE Int add_saturated_words(Int a, Int b) { return _mm256_adds_epi16(a, b); }
  static EDGEQ_INLINE Int min_words(Int a, Int b) { return _mm256_min_epi16(a, b); }
  static EDGEQ_INLINE Int min_dwords(Int a, Int b) { return _mm256_min_epi32(a, b); }
  static EDGEQ_INLINE Int max_dwords(Int a, Int b) { return _mm256_max_epi32(a, b); }
  static EDGEQ_INLINE Int pack_dwords(Int a, Int b) { return _mm256_packs_epi32(a, b); }
  static EDGEQ_INLINE Int pack_words(Int a, Int b) { return _mm256_packus_epi16(a, b); }
  /// The bytes of b where those of `mask` have their top bit set, else of a.
  static EDGEQ_INLINE Int select_bytes(Int a, Int b, Int mask) { return _mm256_blendv_epi8(a, b, mask); }
  static EDGEQ_INLINE Int repeat128(const void* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static EDGEQ_INLINE Int widen_bytes(const void* from) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
  }
  static EDGEQ_INLINE Int widen_signed_bytes(const void* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  /// Bytes without a sign to words.
  static EDGEQ_INLINE Int widen_to_words(const void* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  /// Puts back in order what four dword vectors become by pack_dwords and pack_words, which work within
  /// 128-bit lanes.
  static EDGEQ_INLINE Int order_packed(Int a) {
    return _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  /// The halves of that, by shuffles that take no time to cross the lanes but for one.
  static EDGEQ_INLINE void order_packed_halves(Int a, __m128i* low, __m128i* high) {
    const __m128i even = low_half(a);
    const __m128i odd = high_half(a);
    *low = _mm_unpacklo_epi32(even, odd);
    *high = _mm_unpackhi_epi32(even, odd);
  }
  static EDGEQ_INLINE Float set1(float a) { return _mm256_set1_ps(a); }
  static EDGEQ_INLINE Float load_float(const void* from) {
    return _mm256_loadu_ps(static_cast<const float*>(from));
  }
  static EDGEQ_INLINE void store_float(float* to, Float a) { _mm256_storeu_ps(to, a); }
  static EDGEQ_INLINE Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static EDGEQ_INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static EDGEQ_INLINE Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static EDGEQ_INLINE Float plus(Float a, Float b) { return _mm256_add_ps(a, b); }
  static EDGEQ_INLINE Float minus(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static EDGEQ_INLINE Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static EDGEQ_INLINE Float nan_to_zero(Float a) { return _mm256_and_ps(a, _mm256_cmp_ps(a, a, _CMP_ORD_Q)); }
  static EDGEQ_INLINE Int round(Float a) { return _mm256_cvtps_epi32(a); }
  static EDGEQ_INLINE void store(uint8_t* to, Int a, size_t count) {
    if (count >= 32) {
      store_all(to, a);
      return;
    }
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    _mm256_mask_storeu_epi8(to, _bzhi_u32(~0u, static_cast<unsigned>(count)), a);
#else
    __m128i part = _mm256_castsi256_si128(a);
    if ((count & 16) != 0) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), part);
      part = _mm256_extracti128_si256(a, 1);
      to += 16;
    }
    store_less_than_16(to, part, count & 15);
#endif
  }
};

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

/// 512 bits: 16 dwords, 64 bytes.
struct Vector512 {
  using Int = __m512i;
  using Float = __m512;
  using Half = Vector256;
  static constexpr int kLanes = 16;
  static constexpr int kBytes = 64;

  static EDGEQ_INLINE void keep_in_register(Int& a) { __asm__ volatile("" : "+v"(a)); }
  static EDGEQ_INLINE __m256i low_half(Int a) { return _mm512_castsi512_si256(a); }
  static EDGEQ_INLINE __m256i high_half(Int a) { return _mm512_extracti64x4_epi64(a, 1); }
  /// The lower halves of two vectors, side by side.
  static EDGEQ_INLINE Int join_halves(Int low, Int high) {
    return _mm512_inserti64x4(low, low_half(high), 1);
  }
  static EDGEQ_INLINE Int load_half(const void* from) {
    return _mm512_castsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  static EDGEQ_INLINE Int widen_halves(const void* low, const void* high) {
    const __m128i eight = _mm_loadl_epi64(static_cast<const __m128i*>(low));
    return _mm512_cvtepu8_epi32(
        _mm_unpacklo_epi64(eight, _mm_loadl_epi64(static_cast<const __m128i*>(high))));
  }
  static EDGEQ_INLINE Float load_half_twice(const void* from) {
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(static_cast<const float*>(from)));
  }
  static EDGEQ_INLINE Int zero() { return _mm512_setzero_si512(); }
  static EDGEQ_INLINE Int load(const void* from) { return _mm512_loadu_si512(from); }
  static EDGEQ_INLINE void store_all(void* to, Int a) { _mm512_storeu_si512(to, a); }
  static EDGEQ_INLINE Int broadcast(const uint8_t* from) { return _mm512_set1_epi32(load_dword(from)); }
  static EDGEQ_INLINE Int set1_byte(int a) { return _mm512_set1_epi8(static_cast<char>(a)); }
  static EDGEQ_INLINE Int set1_word(int a) { return _mm512_set1_epi16(static_cast<int16_t>(a)); }
  static EDGEQ_INLINE Int set1_dword(int32_t a) { return _mm512_set1_epi32(a); }
  static EDGEQ_INLINE Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static EDGEQ_INLINE Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
  static EDGEQ_INLINE Int bit_xor(Int a, Int b) { return _mm512_xor_si512(a, b); }
  static EDGEQ_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static EDGEQ_INLINE Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static EDGEQ_INLINE Int mul_dwords(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static EDGEQ_INLINE Int add_words(Int a, Int b) { return _mm512_add_epi16(a, b); }
  static EDGEQ_INLINE Int sub_words(Int a, Int b) { return _mm512_sub_epi16(a, b); }
  static EDGEQ_INLINE Int mul_words(Int a, Int b) { return _mm512_mullo_epi16(a, b); }
  static EDGEQ_INLINE Int madd_bytes(Int a, Int b) { return _mm512_maddubs_epi16(a, b); }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left_words(Int a) {
    return _mm512_slli_epi16(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_qwords(Int a) {
    return _mm512_srli_epi64(a, kCount);
  }
  static EDGEQ_INLINE Int madd_words(Int a, Int b) { return _mm512_madd_epi16(a, b); }
  static EDGEQ_INLINE int32_t sum_dwords(Int a) {
    return Vector256::sum_dwords(
        _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1)));
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_words(Int a) {
    return _mm512_srli_epi16(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_left(Int a) {
    return _mm512_slli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right(Int a) {
    return _mm512_srli_epi32(a, kCount);
  }
  template <int kCount>
  static EDGEQ_INLINE Int shift_right_signed(Int a) {
    return _mm512_srai_epi32(a, kCount);
  }
  static EDGEQ_INLINE Int low_bytes(Int a, Int b) { return _mm512_unpacklo_epi8(a, b); }
  static EDGEQ_INLINE Int high_bytes(Int a, Int b) { return _mm512_unpackhi_epi8(a, b); }
  static EDGEQ_INLINE Int low_words(Int a, Int b) { return _mm512_unpacklo_epi16(a, b); }
  static EDGEQ_INLINE Int high_words(Int a, Int b) { return _mm512_unpackhi_epi16(a, b); }
  static EDGEQ_INLINE Int shuffle(Int table, Int index) { return _mm512_shuffle_epi8(table, index); }
  static EDGEQ_INLINE Int add_bytes(Int a, Int b) { return _mm512_add_epi8(a, b); }
  static EDGEQ_INLINE Int max_bytes(Int a, Int b) { return _mm512_max_epu8(a, b); }
  static EDGEQ_INLINE Int min_bytes(Int a, Int b) { return _mm512_min_epu8(a, b); }
  static EDGEQ_INLINE Int add_saturated_words(Int a, Int b) { return _mm512_adds_epi16(a, b); }
  static EDGEQ_INLINE Int min_words(Int a, Int b) { return _mm512_min_epi16(a, b); }
  static EDGEQ_INLINE Int min_dwords(Int a, Int b) { return _mm512_min_epi32(a, b); }
  static EDGEQ_INLINE Int max_dwords(Int a, Int b) { return _mm512_max_epi32(a, b); }
  static EDGEQ_INLINE Int pack_dwords(Int a, Int b) { return _mm512_packs_epi32(a, b); }
  static EDGEQ_INLINE Int pack_words(Int a, Int b) { return _mm512_packus_epi16(a, b); }
  /// The bytes of b where those of `mask` have their top bit set, else of a.
  static EDGEQ_INLINE Int select_bytes(Int a, Int b, Int mask) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(mask), a, b);
  }
  static EDGEQ_INLINE Int repeat128(const void* from) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static EDGEQ_INLINE Int widen_bytes(const void* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static EDGEQ_INLINE Int widen_signed_bytes(const void* from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  /// Bytes without a sign to words.
  static EDGEQ_INLINE Int widen_to_words(const void* from) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  /// Puts back in order what four dword vectors become by pack_dwords and pack_words, which work within
  /// 128-bit lanes.
  static EDGEQ_INLINE Int order_packed(Int a) {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    a);
  }
  /// The same where the third vector holds two halves: the first vector and the lower half are the lower half
  /// of the result, the second vector and the upper half the upper one.
  static EDGEQ_INLINE Int order_packed_pairs(Int a) {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 2, 6, 3, 7, 1, 5, 9, 13, 10, 14, 11, 15),
                                    a);
  }
  static EDGEQ_INLINE Float set1(float a) { return _mm512_set1_ps(a); }
  static EDGEQ_INLINE Float load_float(const void* from) { return _mm512_loadu_ps(from); }
  static EDGEQ_INLINE void store_float(float* to, Float a) { _mm512_storeu_ps(to, a); }
  static EDGEQ_INLINE Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static EDGEQ_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static EDGEQ_INLINE Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static EDGEQ_INLINE Float plus(Float a, Float b) { return _mm512_add_ps(a, b); }
  static EDGEQ_INLINE Float minus(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static EDGEQ_INLINE Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static EDGEQ_INLINE Float nan_to_zero(Float a) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a);
  }
  static EDGEQ_INLINE Int round(Float a) { return _mm512_cvtps_epi32(a); }
  static EDGEQ_INLINE void store(uint8_t* to, Int a, size_t count) {
    if (count >= 64) {
      store_all(to, a);
    } else if (count == 32) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(a));
    } else if (count == 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_castsi512_si128(a));
    } else {
      _mm512_mask_storeu_epi8(to, _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(count)), a);
    }
  }
};

#endif  // AVX-512

/// Bytes max(saturate(q + zp), min) of four dword vectors; the order is that of the lanes (see order_packed).
///
/// Only the upper clamp of the rounding rule must come before the conversion to integers, which turns what is
/// too large into INT32_MIN. The lower one follows here, where it costs one instruction for four vectors:
/// saturation and integer bounds commute with rounding.
template <typename V>
EDGEQ_INLINE typename V::Int pack_codes(typename V::Int q0, typename V::Int q1, typename V::Int q2,
                                        typename V::Int q3, OutputRange range) {
  const auto zp = V::set1_word(range.zp);
  const auto low = V::add_saturated_words(V::pack_dwords(q0, q1), zp);
  const auto high = V::add_saturated_words(V::pack_dwords(q2, q3), zp);
  return V::max_bytes(V::pack_words(low, high), V::set1_byte(range.min));
}

/// The same with both clamps, for values that stay within 32 bits without the upper one: saturation to 16
/// bits, to which it then saturates, never passes a bound by.
template <typename V>
EDGEQ_INLINE typename V::Int pack_and_clamp(typename V::Int q0, typename V::Int q1, typename V::Int q2,
                                            typename V::Int q3, OutputRange range) {
  return V::min_bytes(pack_codes<V>(q0, q1, q2, q3, range), V::set1_byte(range.max));
}

/// The upper clamp, and the rounding.
template <typename V>
EDGEQ_INLINE typename V::Int round_below(typename V::Float value, typename V::Float hi) {
  return V::round(V::min(value, hi));
}

/// Whether codes have no zero point and any value, so that saturation to bytes is all the clamp there is: as
/// after a ReLU whose zero point is the lowest code.
EDGEQ_INLINE bool only_saturates(OutputRange range) {
  return range.zp == 0 && range.min == kActMin && range.max == kActMax;
}

template <typename V>
EDGEQ_INLINE typename V::Float upper_bound(OutputRange range) {
  return V::set1(static_cast<float>(range.max - range.zp));
}

/// Among the 2^kBits results of part(i) from kFirst on, by the lowest of `bits`, whose top bits count.
template <typename V, int kFirst, int kBits, typename Part>
EDGEQ_INLINE typename V::Int select_part(const Part& part, const typename V::Int (&bits)[4]) {
  if constexpr (kBits == 0) {
    return part(std::integral_constant<int, kFirst>());
  } else {
    const auto without = select_part<V, kFirst, kBits - 1>(part, bits);
    const auto with = select_part<V, kFirst + (1 << (kBits - 1)), kBits - 1>(part, bits);
    return V::select_bytes(without, with, bits[kBits - 1]);
  }
}

/// A table of 256 bytes at the bytes of `index`; part(i) is its i-th sixteenth, repeated in all lanes.
/// Sixteen shuffles by the lower four bits, and a tree of selections by the others: 36 instructions, of which
/// the shuffles bind, as CPUs have one or two pipes for them and others for most of the rest.
template <typename V, typename Part>
EDGEQ_INLINE typename V::Int look_up_parts(typename V::Int index, const Part& part) {
  typename V::Int bits[4];
  bits[3] = index;
  unroll<3>([&](auto i) EDGEQ_UNROLLED { bits[2 - i] = V::add_bytes(bits[3 - i], bits[3 - i]); });
  const auto low = V::bit_and(index, V::set1_byte(0x0F));
  return select_part<V, 0, 4>([&](auto i) EDGEQ_UNROLLED { return V::shuffle(part(i), low); }, bits);
}

/// table[byte].
template <typename V>
EDGEQ_INLINE typename V::Int look_up(typename V::Int bytes, const uint8_t* table) {
  return look_up_parts<V>(bytes, [&](auto i) EDGEQ_UNROLLED { return V::repeat128(table + 16 * i); });
}

/// Less the sum, modulo 2^32, of x0 * x2 + x1 * x3 over the fours of words at `words`, up to the next whole
/// four: what is taken off where one multiplication does the work of two (gemm/x86_avx2.cc).
template <typename V>
EDGEQ_INLINE int32_t minus_crossed_products(const uint8_t* words, size_t depth) {
  constexpr size_t kWords = V::kBytes / 2;
  typename V::Int sums = V::zero();
  size_t i = 0;
  for (; i + kWords <= depth; i += kWords) {
    const typename V::Int x = V::load(words + 2 * i);
    sums = V::sub(sums, V::madd_words(x, V::template shift_right_qwords<32>(x)));
  }
  __m128i rest = _mm_cvtsi32_si128(V::sum_dwords(sums));
  for (; i < depth; i += 4) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(words + 2 * i));
    rest = _mm_sub_epi32(rest, _mm_madd_epi16(x, _mm_srli_epi64(x, 32)));
  }
  return _mm_cvtsi128_si32(rest);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_X86_VECTORS_H_
