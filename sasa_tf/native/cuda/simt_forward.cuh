// Forward pass in SIMT arithmetic: output and log-sum-exp (LSE), with an online softmax over the
// rows of the window. The library (simt_forward.cu) and exported models (portable_forward.cuh) have
// kernels with this code.
//
// For each row of the window, a thread computes the logits of its strip's queries (q.r, then QK^T
// as it loads the keys of the row and its halo), sums them over the lanes of a head, updates the
// row maxima, rescales the accumulators, and accumulates PV as it loads the values. Saved for the
// backward pass: output and LSE.
#ifndef SASA_TF_NATIVE_CUDA_SIMT_FORWARD_CUH_
#define SASA_TF_NATIVE_CUDA_SIMT_FORWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/ptx.cuh"
#include "cuda/simt_memory.cuh"
#include "cuda/simt_traits.cuh"

namespace sasa {
namespace {

// The forward pass of a CTA. `tables`: shared memory of RelativeTableBytes<Traits>. `lse` is not
// written without kStoreLse.
template <typename Traits, bool kStoreLse>
__device__ __forceinline__ void SimtForwardCta(const SimtGrid& g, float* tables,
                                               const TypedLoader& query, const TypedLoader& key,
                                               const TypedLoader& value,
                                               const float* __restrict__ relative_rows,
                                               const float* __restrict__ relative_columns,
                                               const TypedStorer& output, float* __restrict__ lse) {
  constexpr int kStrip = Traits::kStrip, kColumns = Traits::kWindowColumns;
  constexpr int kChannels = Traits::kThreadChannels;
  LoadRelativeTables<Traits>(g, relative_rows, relative_columns, tables);
  for (int tile = blockIdx.x; tile < g.num_tiles; tile += gridDim.x) {
    const SimtStrip<Traits> strip(g, tile, tables);
    float q[kStrip][kChannels], acc[kStrip][kChannels] = {}, column_bias[kStrip][kColumns];
    float row_max[kStrip], row_sum[kStrip];
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j);
      query.Load(strip.qkv_origin + (strip.y * g.width + x) * strip.qkv_stride, strip.InImage(g, x),
                 strip.channels, q[j]);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) q[j][i] *= g.scale * kLog2E;
      row_max[j] = kMaskedLogit;
      row_sum[j] = 0.f;
#pragma unroll
      for (int b = 0; b < kColumns; ++b) {
        const int column = strip.Column(g, j + b - kColumns / 2);
        const bool masked = g.mask_border && (column < 0 || column >= g.width);
        column_bias[j][b] =
            Dot(q[j], strip.column_table + b * Traits::PaddedHeadDim(g), masked ? kMaskedLogit : 0.f);
      }
    }
#pragma unroll 1
    for (int a = 0; a < g.window_rows; ++a) {
      const int y = strip.y + (a - g.window_rows / 2) * g.dilation_rows;
      const bool row_in_image = y >= 0 && y < g.height;
      if (g.mask_border && __all_sync(kFullMask, !row_in_image)) continue;
      const int64_t row = strip.qkv_origin + static_cast<int64_t>(y) * g.width * strip.qkv_stride;
      const float row_mask = g.mask_border && !row_in_image ? kMaskedLogit : 0.f;
      float s[kStrip][kColumns];  // then P
#pragma unroll
      for (int j = 0; j < kStrip; ++j) {
        const float row_bias = Dot(q[j], strip.row_table + a * Traits::PaddedHeadDim(g), row_mask);
#pragma unroll
        for (int b = 0; b < kColumns; ++b) s[j][b] = column_bias[j][b] + row_bias;
      }
#pragma unroll
      for (int n = 0; n < Traits::kHaloColumns; ++n) {
        const int x = strip.Column(g, n - kColumns / 2);
        float k[kChannels];
        key.Load(row + x * strip.qkv_stride, g.has_key && row_in_image && strip.InImage(g, x),
                 strip.channels, k);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          if (n - j >= 0 && n - j < kColumns) s[j][n - j] = Dot(q[j], k, s[j][n - j]);
        }
      }
      SumOverHeadLanes<Traits>(g, s);
#pragma unroll
      for (int j = 0; j < kStrip; ++j) {
        float new_max = row_max[j];
#pragma unroll
        for (int b = 0; b < kColumns; ++b) new_max = fmaxf(new_max, s[j][b]);
        const float rescale = Exp2Approx(row_max[j] - new_max);
        row_max[j] = new_max;
        row_sum[j] *= rescale;
#pragma unroll
        for (int i = 0; i < kChannels; ++i) acc[j][i] *= rescale;
#pragma unroll
        for (int b = 0; b < kColumns; ++b) {
          s[j][b] = Exp2Approx(s[j][b] - new_max);
          row_sum[j] += s[j][b];
        }
      }
#pragma unroll
      for (int n = 0; n < Traits::kHaloColumns; ++n) {
        const int x = strip.Column(g, n - kColumns / 2);
        float v[kChannels];
        value.Load(row + x * strip.qkv_stride, row_in_image && strip.InImage(g, x), strip.channels,
                   v);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          if (n - j >= 0 && n - j < kColumns) {
#pragma unroll
            for (int i = 0; i < kChannels; ++i) acc[j][i] = fmaf(s[j][n - j], v[i], acc[j][i]);
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j);
      if (!strip.InImage(g, x)) continue;
      output.Store(acc[j], 1.f / row_sum[j], strip.channels,
                   strip.output_origin + (strip.y * g.width + x) * strip.output_stride);
      if (kStoreLse && strip.slice == 0) {
        lse[strip.HeadOffset(g, strip.y, x)] = kLn2 * (row_max[j] + log2f(row_sum[j]));
      }
    }
  }
}

// Tuned on an H200.
template <typename Head, int kWindowColumns_>
struct ForwardConfig : Head {
  static constexpr int kWindowColumns = kWindowColumns_, kMinCtasPerSm = 3;
  static constexpr int kStrip = Head::kThreadChannels <= 8 && kWindowColumns <= 7 ? 4 : 2;
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_SIMT_FORWARD_CUH_
