// Bands of local attention: iteration over their pixels, loads and stores. Compiled once for each
// instruction set (see cpu/simd.h).
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_BAND_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_BAND_H_

#include "cpu/attention.h"
#include "cpu/simd.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// The rows of one head of one image that are computed together.
struct Band {
  int64_t image, head;
  int64_t begin, end;            // rows of queries
  int64_t keys_begin, keys_end;  // rows of keys that are loaded, including those outside the image

  Band(const Plan& plan, int64_t index) {
    // Bands that run concurrently have consecutive indices. They are of the same head, so that no
    // two threads write to one cache line, which the heads of a pixel share.
    image = index % plan.problem.batch;
    const int64_t band = index / plan.problem.batch % plan.bands_per_head;
    head = index / plan.problem.batch / plan.bands_per_head;
    begin = band * plan.band_rows;
    end = Min(begin + plan.band_rows, plan.problem.height);
    keys_begin = begin - plan.halo_rows;
    keys_end = end + plan.halo_rows;
  }
};

// Calls visit(pixel, flat, count) for each part of a row of the image in the range [from, to) of
// flat indices. Flat index 0 is the first pixel of row `first_row`; `pixel` is an index in the
// image.
template <typename Visit>
inline void ForEachRowSegment(const Plan& plan, int64_t first_row, int64_t from, int64_t to,
                              Visit visit) {
  const int64_t width = plan.problem.width, height = plan.problem.height;
  for (int64_t row = from / plan.row_stride; row * plan.row_stride < to; ++row) {
    const int64_t start = Max(from - row * plan.row_stride, 0);
    const int64_t count = Min(to - row * plan.row_stride, width) - start;
    const int64_t y = first_row + row;
    if (count > 0 && y >= 0 && y < height)
      visit(y * width + start, row * plan.row_stride + start, count);
  }
}

// Loads and stores one head of one image as planes of channels.
struct HeadIo {
  const Plan& plan;
  const Band& band;
  float* row;  // buffer

  int64_t Pixels(int64_t pixel) const {
    return band.image * plan.problem.height * plan.problem.width + pixel;
  }

  // Calls visit(element type, pointer to the pixel, stride of the pixels).
  template <typename Array, typename Visit>
  void VisitPixel(Array* array, int64_t parts, int64_t pixel, Visit visit) const {
    const int64_t stride = parts * plan.problem.heads * plan.problem.head_dim;
    const int64_t offset = Pixels(pixel) * stride + band.head * plan.problem.head_dim;
    DispatchDType(plan.problem.type, [&](auto type) {
      using Stored = typename decltype(type)::Stored;
      visit(type, reinterpret_cast<CopyConst<Array, Stored>*>(array) + offset, stride);
    });
  }

  // planes[d * plane + flat - from] = array; zero outside the image.
  void Load(const void* array, int64_t parts, int64_t first_row, int64_t from, int64_t to,
            float* planes, int64_t plane) const {
    for (int64_t d = 0; d < plan.padded_head_dim; ++d) Zero(planes + d * plane, to - from);
    ForEachRowSegment(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      VisitPixel(array, parts, pixel, [&](auto type, const auto* pixels, int64_t stride) {
        LoadPixels<decltype(type)>(pixels, stride, count, plan.problem.head_dim,
                                   planes + flat - from, plane, row);
      });
    });
  }

  void Store(const float* planes, int64_t plane, int64_t first_row, int64_t from, int64_t to,
             void* array, int64_t parts) const {
    ForEachRowSegment(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      VisitPixel(array, parts, pixel, [&](auto type, auto* pixels, int64_t stride) {
        StorePixels<decltype(type)>(planes + flat - from, plane, count, plan.problem.head_dim,
                                    pixels, stride, row);
      });
    });
  }

  int64_t LseOffset(int64_t pixel) const { return Pixels(pixel) * plan.problem.heads + band.head; }
};

// Loads all keys or values of a band, after `leading_zeros` zeros.
void LoadPlanes(const HeadIo& head, const void* array, float* keys) {
  const Plan& plan = head.plan;
  for (int64_t d = 0; d < plan.padded_head_dim; ++d)
    Zero(keys + d * plan.plane_stride, plan.leading_zeros);
  head.Load(array, plan.problem.qkv_parts, head.band.keys_begin, 0,
            plan.plane_stride - plan.leading_zeros, keys + plan.leading_zeros, plan.plane_stride);
}

// The mask is added to the logits: 0 inside the image, and a large negative number outside.
inline void FillMask(const Plan& plan, const Band& band, float* mask) {
  for (int64_t i = 0; i < plan.plane_stride; ++i) mask[i] = -1e9f;
  ForEachRowSegment(
      plan, band.keys_begin, 0, plan.plane_stride - plan.leading_zeros,
      [&](int64_t, int64_t flat, int64_t count) { Zero(mask + plan.leading_zeros + flat, count); });
}

}  // namespace
}  // namespace SASA_VARIANT
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_BAND_H_
