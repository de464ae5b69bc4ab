// The backward pass of a band, which recomputes the probabilities from the log-sum-exp. Compiled
// once for each instruction set (see cpu/simd.h).
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_BACKWARD_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_BACKWARD_H_

#include "cpu/attention_band.h"
#include "cpu/attention_products.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// A block of queries of the backward pass, with zeros before and after it.
struct QueryBlock {
  float* queries;  // scaled
  float* d_outputs;
  float* d_queries;
  float* lse;
  float* p;   // probabilities, [window][query_plane_stride]
  float* ds;  // gradients of the logits, likewise
};

// Adds to the gradients of the relative tables, one vector per element, from dS.
inline void AccumulateTableGradients(const LocalAttentionProblem& p, const QueryBlock& block,
                                     int64_t plane, int64_t at, const RelativeLogits& d_logits,
                                     float* d_tables) {
  const int64_t half = p.head_dim / 2;
  for (int64_t r = 0; r < p.kernel_rows; ++r) {
    for (int64_t d = 0; d < half; ++d, d_tables += kLanes) {
      Store(d_tables, Load(d_tables) + d_logits.rows[r] * Load(block.queries + d * plane + at));
    }
  }
  for (int64_t c = 0; c < p.kernel_columns; ++c) {
    for (int64_t d = half; d < 2 * half; ++d, d_tables += kLanes) {
      Store(d_tables, Load(d_tables) + d_logits.columns[c] * Load(block.queries + d * plane + at));
    }
  }
}

// Returns the gradient of the queries through q.r, for channel d.
inline Vector RelativeQueryGradient(const LocalAttentionProblem& p, const RelativeLogits& d_logits,
                                    const float* rows, const float* columns, int64_t d) {
  const int64_t half = p.head_dim / 2;
  Vector sum = {};
  if (d < half) {
    for (int64_t r = 0; r < p.kernel_rows; ++r) sum += d_logits.rows[r] * rows[r * half + d];
  } else if (d < 2 * half) {
    for (int64_t c = 0; c < p.kernel_columns; ++c) {
      sum += d_logits.columns[c] * columns[c * half + d - half];
    }
  }
  return sum;
}

// Adds the contribution of a block of queries to the gradients of the keys (or values) in one row
// of their windows. `keys` points to the first key in the window of the first query.
template <int kColumns, int kChannels>
inline void ScatterToKeys(const Plan& plan, const float* weights, const float* queries,
                          int64_t from, int64_t to, float* keys) {
  for (int64_t i = from; i < to; i += kLanes) {
    Vector sums[kChannels];
    for (int d = 0; d < kChannels; ++d) sums[d] = Load(keys + d * plan.plane_stride + i);
    for (int c = 0; c < kColumns; ++c) {
      const int64_t query = i - c * plan.problem.dilation_columns;
      const Vector weight = Load(weights + c * plan.query_plane_stride + query);
      for (int d = 0; d < kChannels; ++d) {
        sums[d] += weight * Load(queries + d * plan.query_plane_stride + query);
      }
    }
    for (int d = 0; d < kChannels; ++d) Store(keys + d * plan.plane_stride + i, sums[d]);
  }
}

// Computes the gradients of a band's queries, keys and values, and adds to those of the tables.
template <int kColumns>
void BackwardBand(const Plan& plan, const BackwardArrays& arrays, const Band& band, float* memory,
                  float* d_tables) {
  const LocalAttentionProblem& p = plan.problem;
  ScratchArena scratch(memory);
  const auto planes = [&](bool needed) {
    return needed ? scratch.Allocate(plan.padded_head_dim * plan.plane_stride) : nullptr;
  };
  float* keys = planes(p.has_key);
  float* values = planes(true);
  float* d_keys = planes(p.has_key);
  float* d_values = planes(true);
  float* mask = p.mask_border ? scratch.Allocate(plan.plane_stride) : nullptr;
  // Pointers are to the first query of the block, after the margin.
  const int64_t block_floats = plan.padded_head_dim * plan.query_plane_stride;
  const int64_t window_floats = plan.window_size * plan.query_plane_stride;
  float* margins = scratch.Allocate(2 * block_floats + 2 * window_floats);
  Zero(margins, 2 * block_floats + 2 * window_floats);
  const QueryBlock block{.queries = margins + plan.margin,
                         .d_outputs = margins + block_floats + plan.margin,
                         .d_queries = scratch.Allocate(block_floats),
                         .lse = scratch.Allocate(plan.query_plane_stride),
                         .p = margins + 2 * block_floats + plan.margin,
                         .ds = margins + 2 * block_floats + window_floats + plan.margin};
  const HeadIo head{plan, band, scratch.Allocate(p.width * plan.padded_head_dim)};

  if (p.has_key) {
    LoadPlanes(head, arrays.key, keys);
    Zero(d_keys, plan.padded_head_dim * plan.plane_stride);
  }
  LoadPlanes(head, arrays.value, values);
  Zero(d_values, plan.padded_head_dim * plan.plane_stride);
  if (p.mask_border) FillMask(plan, band, mask);

  // Queries in the halo attend to keys of the band too. The rows above, in and below the band are
  // processed separately.
  const int64_t halo = plan.halo_rows - plan.radius_rows;
  const int64_t first_row = band.begin - halo;
  const int64_t band_from = halo * plan.row_stride;
  const int64_t band_to = band_from + (band.end - band.begin) * plan.row_stride;
  const int64_t first = plan.leading_zeros - plan.radius_columns;  // first key of query 0
  const int64_t band_keys = plan.leading_zeros + plan.halo_rows * plan.row_stride;
  const int64_t band_keys_end = band_keys + (band.end - band.begin) * plan.row_stride;
  for (int64_t from = 0, to; from < band_to + halo * plan.row_stride; from = to) {
    const bool in_band = from >= band_from && from < band_to;
    to = Min(from + plan.query_block, in_band            ? band_to
                                      : from < band_from ? band_from
                                                         : band_to + halo * plan.row_stride);
    const auto load = [&](const void* array, int64_t parts, float* planes) {
      head.Load(array, parts, first_row, from, to, planes, plan.query_plane_stride);
      for (int64_t d = 0; d < plan.padded_head_dim; ++d) {
        Zero(planes + d * plan.query_plane_stride + to - from, plan.query_block - (to - from));
      }
    };
    load(arrays.query, p.qkv_parts, block.queries);
    load(arrays.d_output, 1, block.d_outputs);
    for (int64_t d = 0; d < plan.padded_head_dim; ++d) {
      Scale(block.queries + d * plan.query_plane_stride, plan.query_block, p.scale);
    }
    // Those of the block before would turn the zeros after the queries into NaN if they are NaN.
    const int64_t computed = (to - from + kLanes - 1) / kLanes * kLanes;
    for (int64_t w = 0; w < plan.window_size && computed < plan.query_block; ++w) {
      Zero(block.p + w * plan.query_plane_stride + computed, plan.query_block - computed);
      Zero(block.ds + w * plan.query_plane_stride + computed, plan.query_block - computed);
    }
    Zero(block.lse, plan.query_block);
    ForEachRowSegment(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      for (int64_t x = 0; x < count; ++x) {
        block.lse[flat - from + x] = arrays.lse[head.LseOffset(pixel + x)];
      }
    });

    for (int64_t i = 0; i < to - from; i += kLanes) {
      const RelativeLogits terms =
          ComputeRelativeLogits(p, block.queries + i, plan.query_plane_stride, arrays.relative_rows,
                                arrays.relative_columns);
      const Vector lse = Load(block.lse + i);
      Vector delta = {};  // rowsum(P dP), not d_output times output, which may have been rounded
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        const int64_t key = first + from + i + r * p.dilation_rows * plan.row_stride;
        Vector logits[kColumns], dp[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          logits[c] = terms.rows[r] + terms.columns[c];
          if (p.mask_border) logits[c] += Load(mask + key + c * p.dilation_columns);
          dp[c] = Vector{};
        }
        if (p.has_key) {
          AddRowProducts<kColumns>(plan, block.queries + i, plan.query_plane_stride, keys + key,
                                   logits);
        }
        AddRowProducts<kColumns>(plan, block.d_outputs + i, plan.query_plane_stride, values + key,
                                 dp);
        for (int c = 0; c < kColumns; ++c) {
          const Vector weight = Exp(logits[c] - lse);
          delta += weight * dp[c];
          Store(block.p + (r * kColumns + c) * plan.query_plane_stride + i, weight);
          Store(block.ds + (r * kColumns + c) * plan.query_plane_stride + i, dp[c]);
        }
      }
      RelativeLogits d_logits = {};
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        for (int c = 0; c < kColumns; ++c) {
          const int64_t at = (r * kColumns + c) * plan.query_plane_stride + i;
          const Vector dp = Load(block.ds + at);
          const Vector ds = Load(block.p + at) * (dp - delta);
          Store(block.ds + at, ds);
          d_logits.rows[r] += ds;
          d_logits.columns[c] += ds;
        }
      }
      if (in_band) {
        ForEachChannelGroup(plan.padded_head_dim, [&](int64_t d, auto channels) {
          Vector sums[channels.value] = {};
          if (p.has_key) {
            WeightedSum<kColumns, channels.value>(plan, block.ds + i, plan.query_plane_stride,
                                                  keys + d * plan.plane_stride + first + from + i,
                                                  sums);
          }
          for (int j = 0; j < channels.value; ++j) {
            if (p.has_relative) {
              sums[j] += RelativeQueryGradient(p, d_logits, arrays.relative_rows,
                                               arrays.relative_columns, d + j);
            }
            Store(block.d_queries + (d + j) * plan.query_plane_stride + i, sums[j] * p.scale);
          }
        });
        if (p.has_relative) {
          AccumulateTableGradients(p, block, plan.query_plane_stride, i, d_logits, d_tables);
        }
      }
    }
    if (in_band) {
      head.Store(block.d_queries, plan.query_plane_stride, first_row, from, to, arrays.d_query,
                 p.qkv_parts);
    }

    for (int64_t r = 0; r < p.kernel_rows; ++r) {
      const int64_t key = first + from + r * p.dilation_rows * plan.row_stride;
      const int64_t begin = Max(0, band_keys - key);
      const int64_t end = Min(to - from + 2 * plan.radius_columns, band_keys_end - key);
      if (begin >= end) continue;
      ForEachChannelGroup(plan.padded_head_dim, [&](int64_t d, auto channels) {
        const auto add = [&](const float* weights, const float* queries, float* gradients) {
          ScatterToKeys<kColumns, channels.value>(plan,
                                                  weights + r * kColumns * plan.query_plane_stride,
                                                  queries + d * plan.query_plane_stride, begin, end,
                                                  gradients + d * plan.plane_stride + key);
        };
        add(block.p, block.d_outputs, d_values);
        if (p.has_key) add(block.ds, block.queries, d_keys);
      });
    }
  }
  const auto store = [&](const float* planes, void* array) {
    head.Store(planes + band_keys, plan.plane_stride, band.begin, 0, band_keys_end - band_keys,
               array, p.qkv_parts);
  };
  store(d_values, arrays.d_value);
  if (p.has_key) store(d_keys, arrays.d_key);
}

}  // namespace
}  // namespace SASA_VARIANT
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_BACKWARD_H_
