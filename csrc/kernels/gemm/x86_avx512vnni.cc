#include <immintrin.h>

#include "kernels/gemm/x86_vnni.h"
#include "kernels/gemm/x86_vnni256.h"

namespace edgeq {
namespace {

struct Vector512 {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int kLanes = 16;

  static Int zero() { return _mm512_setzero_si512(); }
  static void keep_in_register(Int& a) { __asm__ volatile("" : "+v"(a)); }
  static Int load(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static Int broadcast(const uint8_t* from) {
    int32_t value;
    std::memcpy(&value, from, sizeof value);
    return _mm512_set1_epi32(value);
  }
  static Int dot(Int acc, Int a, Int b) { return _mm512_dpbusd_epi32(acc, a, b); }
  static Int set1_byte(int value) { return _mm512_set1_epi8(static_cast<char>(value)); }
  static Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int shift_left_4(Int a) { return _mm512_slli_epi32(a, 4); }
  static Int shift_right_4(Int a) { return _mm512_srai_epi32(a, 4); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int minus(Int a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  static Int widen(const uint8_t* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Float set1(float a) { return _mm512_set1_ps(a); }
  static Float load_float(const uint8_t* from) { return _mm512_loadu_ps(from); }
  static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float plus(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Int round(Float a) { return _mm512_cvtps_epi32(a); }

  /// Bytes max(saturate(q + zp), lowest) of up to four vectors, in order.
  template <int kVectors>
  static Int pack(const Int* q, int32_t zp, int32_t lowest) {
    static_assert(kVectors <= 4, "");
    const Int offset = _mm512_set1_epi16(static_cast<int16_t>(zp));
    const Int low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[kVectors > 1 ? 1 : 0]), offset);
    const Int high =
        kVectors > 2 ? _mm512_adds_epi16(_mm512_packs_epi32(q[kVectors > 2 ? 2 : 0], q[kVectors - 1]), offset)
                     : low;
    const Int bytes = _mm512_max_epu8(_mm512_packus_epi16(low, high), set1_byte(lowest));
    // Each 128-bit lane holds four bytes of each vector; gather those of one vector side by side.
    const Int order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, bytes);
  }
  static Int lookup(Int bytes, const uint8_t* table) {
    Int result = zero();
    for (int high = 0; high < 16; ++high) {
      const Int part =
          _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * high)));
      // Indices of other sixteenths get bit 7, with which the shuffle yields zero.
      const Int index = _mm512_adds_epu8(_mm512_xor_si512(bytes, set1_byte(high << 4)), set1_byte(0x70));
      result = _mm512_or_si512(result, _mm512_shuffle_epi8(part, index));
    }
    return result;
  }
  static void store_all(uint8_t* to, Int bytes) { _mm512_storeu_si512(to, bytes); }
  template <int kVectors>
  static void store(uint8_t* to, Int bytes, size_t count) {
    if (count != kVectors * 16) {
      _mm512_mask_storeu_epi8(to, _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(count)), bytes);
    } else if (kVectors == 4) {
      _mm512_storeu_si512(to, bytes);
    } else if (kVectors == 3) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(bytes));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 32), _mm512_extracti32x4_epi32(bytes, 2));
    } else if (kVectors == 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(bytes));
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_castsi512_si128(bytes));
    }
  }
};

// The 256-bit shape of the AVX-VNNI level in its EVEX encoding: the same source, so that this CPU's tests
// cover it.
struct EvexVector256 : Vector256 {
  static Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_epi32(acc, a, b); }
};

}  // namespace

#define EDGEQ_DEFINE(name, vector, bits, mr, vectors)                          \
  void name(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) { \
    run_gemm<vector, bits, mr, vectors>(p, r0, r1, p0, p1);                    \
  }
EDGEQ_DEFINE(gemm_u8s8c_u8_6x64x4_avx512vnni, Vector512, 8, 6, 4)
EDGEQ_DEFINE(gemm_u8s8c_u8_9x48x4_avx512vnni, Vector512, 8, 9, 3)
EDGEQ_DEFINE(gemm_u8s8c_u8_12x32x4_avx512vnni, Vector512, 8, 12, 2)
EDGEQ_DEFINE(gemm_u8s8c_u8_6x16x4_avx512vnni, EvexVector256, 8, 6, 2)
EDGEQ_DEFINE(gemm_u8s4c_u8_6x64x4_avx512vnni, Vector512, 4, 6, 4)
EDGEQ_DEFINE(gemm_u8s4c_u8_8x48x4_avx512vnni, Vector512, 4, 8, 3)
EDGEQ_DEFINE(gemm_u8s4c_u8_12x32x4_avx512vnni, Vector512, 4, 12, 2)
EDGEQ_DEFINE(gemm_u8s4c_u8_6x16x4_avx512vnni, EvexVector256, 4, 6, 2)
#undef EDGEQ_DEFINE

}  // namespace edgeq
