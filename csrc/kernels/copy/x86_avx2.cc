#include "kernels/copy/copy.h"
#include "kernels/x86_vectors.h"

namespace edgeq {

void copy_scalar(const CopyParams&);

namespace {

/// dst[2 * i] = a[i], dst[2 * i + 1] = b[i].
void interleave2(const uint8_t* a, const uint8_t* b, size_t count, uint8_t* dst) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i left = Vector128::load(a + i);
    const __m128i right = Vector128::load(b + i);
    Vector128::store_all(dst + 2 * i, Vector128::low_bytes(left, right));
    Vector128::store_all(dst + 2 * i + 16, Vector128::high_bytes(left, right));
  }
  for (; i < count; ++i) {
    dst[2 * i] = a[i];
    dst[2 * i + 1] = b[i];
  }
}

}  // namespace

// Shuffles of two groups, the ones that occur, as interleaving; everything else as the reference does it.
void copy_avx2(const CopyParams& p) {
  int group = -1;
  int channel = -1;
  for (int d = 2; d < 4; ++d) {
    const int other = 5 - d;
    if (p.size[d] == 2 && p.dst_stride[d] == 1 && p.dst_stride[other] == 2 && p.src_stride[other] == 1) {
      group = d;
      channel = other;
    }
  }
  if (group < 0) {
    copy_scalar(p);
    return;
  }
  for (size_t i0 = 0; i0 < p.size[0]; ++i0) {
    for (size_t i1 = 0; i1 < p.size[1]; ++i1) {
      const ptrdiff_t index0 = static_cast<ptrdiff_t>(i0);
      const ptrdiff_t index1 = static_cast<ptrdiff_t>(i1);
      const uint8_t* src = p.src + index0 * p.src_stride[0] + index1 * p.src_stride[1];
      uint8_t* dst = p.dst + index0 * p.dst_stride[0] + index1 * p.dst_stride[1];
      interleave2(src, src + p.src_stride[group], p.size[channel], dst);
    }
  }
}

}  // namespace edgeq
