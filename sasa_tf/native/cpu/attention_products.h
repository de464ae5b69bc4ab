// Products of vectors of queries with the tables, keys and values of their windows. Compiled once
// for each instruction set (see cpu/simd.h).
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_PRODUCTS_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_PRODUCTS_H_

#include "cpu/attention.h"
#include "cpu/simd.h"
#include "limits.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// The row and column terms of q.r for a vector of queries, or the gradients of their logits.
struct RelativeLogits {
  Vector rows[kMaxKernelSize], columns[kMaxKernelSize];
};

inline Vector TableProduct(const float* query, int64_t plane, const float* table, int64_t half) {
  Vector sum = {};
  for (int64_t d = 0; d < half; ++d) sum += Load(query + d * plane) * table[d];
  return sum;
}

inline RelativeLogits ComputeRelativeLogits(const LocalAttentionProblem& p, const float* query,
                                            int64_t plane, const float* rows,
                                            const float* columns) {
  RelativeLogits terms = {};
  if (p.has_relative) {
    const int64_t half = p.head_dim / 2;
    for (int64_t r = 0; r < p.kernel_rows; ++r) {
      terms.rows[r] = TableProduct(query, plane, rows + r * half, half);
    }
    for (int64_t c = 0; c < p.kernel_columns; ++c) {
      terms.columns[c] = TableProduct(query + half * plane, plane, columns + c * half, half);
    }
  }
  return terms;
}

// Adds the products of a vector of queries and one row of their windows.
template <int kColumns>
inline void AddRowProducts(const Plan& plan, const float* query, int64_t plane, const float* keys,
                           Vector* products) {
  Vector sums[kColumns];
  for (int c = 0; c < kColumns; ++c) sums[c] = products[c];
  for (int64_t d = 0; d < plan.padded_head_dim; ++d) {
    const Vector q = Load(query + d * plane);
    for (int c = 0; c < kColumns; ++c) {
      sums[c] += q * Load(keys + d * plan.plane_stride + c * plan.problem.dilation_columns);
    }
  }
  for (int c = 0; c < kColumns; ++c) products[c] = sums[c];
}

// sums[d] = the sum over the window of the weights times channel d of the keys, for kChannels
// channels.
template <int kColumns, int kChannels>
inline void WeightedSum(const Plan& plan, const float* weights, int64_t weights_plane,
                        const float* keys, Vector* sums) {
  for (int d = 0; d < kChannels; ++d) sums[d] = Vector{};
  for (int64_t r = 0; r < plan.problem.kernel_rows; ++r) {
    const float* row = keys + r * plan.problem.dilation_rows * plan.row_stride;
    for (int c = 0; c < kColumns; ++c) {
      const Vector weight = Load(weights + (r * kColumns + c) * weights_plane);
      const float* key = row + c * plan.problem.dilation_columns;
      for (int d = 0; d < kChannels; ++d) sums[d] += weight * Load(key + d * plan.plane_stride);
    }
  }
}

// Calls visit(first channel, count) for groups of 8 and 4 channels; counts are compile-time
// constants.
template <typename Visit>
inline void ForEachChannelGroup(int64_t depth, Visit visit) {
  int64_t d = 0;
  for (; d + 8 <= depth; d += 8) visit(d, IntConstant<8>());
  if (d < depth) visit(d, IntConstant<4>());
}

}  // namespace
}  // namespace SASA_VARIANT
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_PRODUCTS_H_
