// The forward pass of a band. Compiled once for each instruction set (see cpu/simd.h).
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_FORWARD_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_FORWARD_H_

#include "cpu/attention_band.h"
#include "cpu/attention_products.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// Computes the output and the log-sum-exp of a band. kColumns are the kernel columns; `memory` is
// this worker's scratch.
template <int kColumns>
void ForwardBand(const Plan& plan, const ForwardArrays& arrays, const Band& band, float* memory) {
  const LocalAttentionProblem& p = plan.problem;
  ScratchArena scratch(memory);
  float* keys = p.has_key ? scratch.Allocate(plan.padded_head_dim * plan.plane_stride) : nullptr;
  float* values = scratch.Allocate(plan.padded_head_dim * plan.plane_stride);
  float* mask = p.mask_border ? scratch.Allocate(plan.plane_stride) : nullptr;
  float* queries = scratch.Allocate(plan.padded_head_dim * plan.query_plane_stride);
  float* outputs = scratch.Allocate(plan.padded_head_dim * plan.query_plane_stride);
  float* lse = scratch.Allocate(plan.query_plane_stride);
  float* weights = scratch.Allocate(plan.window_size * kLanes);
  const HeadIo head{plan, band, scratch.Allocate(p.width * plan.padded_head_dim)};

  if (p.has_key) LoadPlanes(head, arrays.key, keys);
  LoadPlanes(head, arrays.value, values);
  if (p.mask_border) FillMask(plan, band, mask);
  // Offset from the flat index of a query in the band to the first key of its window.
  const int64_t first = plan.leading_zeros + (plan.halo_rows - plan.radius_rows) * plan.row_stride -
                        plan.radius_columns;
  const int64_t length = (band.end - band.begin) * plan.row_stride;
  for (int64_t from = 0; from < length; from += plan.query_block) {
    const int64_t to = Min(from + plan.query_block, length);
    head.Load(arrays.query, p.qkv_parts, band.begin, from, from + plan.query_block, queries,
              plan.query_plane_stride);
    for (int64_t d = 0; d < plan.padded_head_dim; ++d) {
      Scale(queries + d * plan.query_plane_stride, plan.query_block, p.scale);
    }
    for (int64_t i = 0; i < to - from; i += kLanes) {
      const RelativeLogits terms = ComputeRelativeLogits(
          p, queries + i, plan.query_plane_stride, arrays.relative_rows, arrays.relative_columns);
      Vector max_logit = Broadcast(-3e38f);
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        const int64_t key = first + from + i + r * p.dilation_rows * plan.row_stride;
        Vector logits[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          logits[c] = terms.rows[r] + terms.columns[c];
          if (p.mask_border) logits[c] += Load(mask + key + c * p.dilation_columns);
        }
        if (p.has_key) {
          AddRowProducts<kColumns>(plan, queries + i, plan.query_plane_stride, keys + key, logits);
        }
        for (int c = 0; c < kColumns; ++c) {
          max_logit = Max(max_logit, logits[c]);
          Store(weights + (r * kColumns + c) * kLanes, logits[c]);
        }
      }
      Vector sum = {};
      for (int64_t w = 0; w < plan.window_size; ++w) {
        const Vector weight = Exp(Load(weights + w * kLanes) - max_logit);
        sum += weight;
        Store(weights + w * kLanes, weight);
      }
      const Vector inverse = 1.0f / sum;
      // NaN if the softmax is, so that the backward pass does not hide it: Log has no NaN.
      Store(lse + i, max_logit + Log(sum) + (inverse - inverse));
      ForEachChannelGroup(plan.padded_head_dim, [&](int64_t d, auto channels) {
        Vector sums[channels.value];
        WeightedSum<kColumns, channels.value>(
            plan, weights, kLanes, values + d * plan.plane_stride + first + from + i, sums);
        for (int j = 0; j < channels.value; ++j) {
          Store(outputs + (d + j) * plan.query_plane_stride + i, sums[j] * inverse);
        }
      });
    }
    head.Store(outputs, plan.query_plane_stride, band.begin, from, to, arrays.output, 1);
    if (arrays.lse == nullptr) continue;
    ForEachRowSegment(plan, band.begin, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      for (int64_t x = 0; x < count; ++x) {
        arrays.lse[head.LseOffset(pixel + x)] = lse[flat - from + x];
      }
    });
  }
}

}  // namespace
}  // namespace SASA_VARIANT
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_FORWARD_H_
