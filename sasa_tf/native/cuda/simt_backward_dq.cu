// Backward pass in SIMT arithmetic, first kernel: dQ, delta = rowsum(O * dO), and the gradients of
// the relative tables.
//
// For each row of the window, a thread computes S and dP of its strip's queries as it loads the
// keys and values of the row and its halo, dS = P (dP - delta), and dQ += dS K. dS summed over the
// columns and over the rows of the window gives the tables' part of dQ and their gradients. Each
// warp accumulates the latter in its own shared memory; the CTA's partial sum is their sum.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/simt_backward.h"
#include "cuda/simt_memory.cuh"
#include "cuda/simt_traits.cuh"
#include "cuda/table_gradients.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    SimtBackwardDqKernel(SimtGrid g, TypedLoader query, TypedLoader key, TypedLoader value,
                         const float* __restrict__ relative_rows,
                         const float* __restrict__ relative_columns, TypedLoader output,
                         const float* __restrict__ lse, TypedLoader d_output, TypedStorer d_query,
                         float* __restrict__ delta, float* __restrict__ table_partials) {
  constexpr int kStrip = Traits::kStrip, kColumns = Traits::kWindowColumns;
  constexpr int kChannels = Traits::kThreadChannels;
  extern __shared__ float tables[];
  LoadRelativeTables<Traits>(g, relative_rows, relative_columns, tables);
  const int entries = g.window_rows + kColumns, elements = entries * g.half;
  // The sums of the warps follow the tables.
  float* d_tables = tables + entries * Traits::PaddedHeadDim(g);
  for (int i = threadIdx.x; i < elements * (blockDim.x / kWarpSize); i += blockDim.x) {
    d_tables[i] = 0.f;
  }
  __syncthreads();
  d_tables += threadIdx.x / kWarpSize * elements;
  const int lane = threadIdx.x % kWarpSize;

  for (int tile = blockIdx.x; tile < g.num_tiles; tile += gridDim.x) {
    const SimtStrip<Traits> strip(g, tile, tables);
    float q[kStrip][kChannels], d_out[kStrip][kChannels], dq[kStrip][kChannels] = {};
    float column_bias[kStrip][kColumns], ds_column_sum[kStrip][kColumns] = {};
    float query_lse[kStrip], query_delta[kStrip][1];
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j), pixel = strip.y * g.width + x;
      const bool in_image = strip.InImage(g, x);
      query.Load(strip.qkv_origin + pixel * strip.qkv_stride, in_image, strip.channels, q[j]);
      d_output.Load(strip.output_origin + pixel * strip.output_stride, in_image, strip.channels,
                    d_out[j]);
      float out[kChannels];
      output.Load(strip.output_origin + pixel * strip.output_stride, in_image, strip.channels, out);
      query_delta[j][0] = Dot(d_out[j], out, 0.f);
      query_lse[j] = in_image ? lse[strip.HeadOffset(g, strip.y, x)] * kLog2E : kInvalidLse;
#pragma unroll
      for (int i = 0; i < kChannels; ++i) q[j][i] *= g.scale * kLog2E;
#pragma unroll
      for (int b = 0; b < kColumns; ++b) {
        const int column = strip.Column(g, j + b - kColumns / 2);
        const bool masked = g.mask_border && (column < 0 || column >= g.width);
        column_bias[j][b] =
            Dot(q[j], strip.column_table + b * Traits::PaddedHeadDim(g), masked ? kMaskedLogit : 0.f);
      }
    }
    SumOverHeadLanes<Traits>(g, query_delta);
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j);
      if (strip.slice == 0 && strip.InImage(g, x)) {
        delta[strip.HeadOffset(g, strip.y, x)] = query_delta[j][0];
      }
    }
#pragma unroll 1
    for (int a = 0; a < g.window_rows; ++a) {
      const int y = strip.y + (a - g.window_rows / 2) * g.dilation_rows;
      const bool row_in_image = y >= 0 && y < g.height;
      const int64_t row = strip.qkv_origin + static_cast<int64_t>(y) * g.width * strip.qkv_stride;
      const float row_mask = g.mask_border && !row_in_image ? kMaskedLogit : 0.f;
      float s[kStrip][kColumns], dp[kStrip][kColumns];  // dp: dP, then dS
#pragma unroll
      for (int j = 0; j < kStrip; ++j) {
        const float row_bias = Dot(q[j], strip.row_table + a * Traits::PaddedHeadDim(g), row_mask);
#pragma unroll
        for (int b = 0; b < kColumns; ++b) {
          s[j][b] = column_bias[j][b] + row_bias;
          dp[j][b] = 0.f;
        }
      }
#pragma unroll
      for (int n = 0; n < Traits::kHaloColumns; ++n) {
        const int x = strip.Column(g, n - kColumns / 2);
        const bool in_image = row_in_image && strip.InImage(g, x);
        float k[kChannels], v[kChannels];
        key.Load(row + x * strip.qkv_stride, g.has_key && in_image, strip.channels, k);
        value.Load(row + x * strip.qkv_stride, in_image, strip.channels, v);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          if (n - j >= 0 && n - j < kColumns) {
            s[j][n - j] = Dot(q[j], k, s[j][n - j]);
            dp[j][n - j] = Dot(d_out[j], v, dp[j][n - j]);
          }
        }
      }
      SumOverHeadLanes<Traits>(g, s);
      SumOverHeadLanes<Traits>(g, dp);
      float ds_row_sum[kStrip];
#pragma unroll
      for (int j = 0; j < kStrip; ++j) {
        ds_row_sum[j] = 0.f;
#pragma unroll
        for (int b = 0; b < kColumns; ++b) {
          dp[j][b] = Exp2Approx(s[j][b] - query_lse[j]) * (dp[j][b] - query_delta[j][0]);
          ds_row_sum[j] += dp[j][b];
          ds_column_sum[j][b] += dp[j][b];
        }
      }
#pragma unroll
      for (int n = 0; n < Traits::kHaloColumns; ++n) {
        const int x = strip.Column(g, n - kColumns / 2);
        float k[kChannels];
        key.Load(row + x * strip.qkv_stride, g.has_key && row_in_image && strip.InImage(g, x),
                 strip.channels, k);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          if (n - j >= 0 && n - j < kColumns) {
#pragma unroll
            for (int i = 0; i < kChannels; ++i) dq[j][i] = fmaf(dp[j][n - j], k[i], dq[j][i]);
          }
        }
      }
      if (g.has_relative) {
        float sums[kChannels] = {};
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
#pragma unroll
          for (int j = 0; j < kStrip; ++j) {
            dq[j][i] =
                fmaf(ds_row_sum[j], strip.row_table[a * Traits::PaddedHeadDim(g) + i], dq[j][i]);
            sums[i] = fmaf(ds_row_sum[j], q[j][i], sums[i]);
          }
          if (!strip.active) sums[i] = 0.f;
        }
        SumOverHeads<Traits>(g, sums);
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
          const int channel = strip.slice * kChannels + i;
          if (lane < Traits::HeadLanes(g) && channel < g.half) {
            d_tables[a * g.half + channel] += sums[i];
          }
        }
      }
    }
    if (g.has_relative) {
      // A copy that is indexed at run time: the loop is not unrolled, as that would take a third of
      // the time to compile the kernel.
      float column_sum[kColumns][kStrip];
#pragma unroll
      for (int i = 0; i < kColumns * kStrip; ++i) {
        column_sum[i / kStrip][i % kStrip] = ds_column_sum[i % kStrip][i / kStrip];
      }
#pragma unroll 1
      for (int b = 0; b < kColumns; ++b) {
        float sums[kChannels] = {};
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
#pragma unroll
          for (int j = 0; j < kStrip; ++j) {
            dq[j][i] = fmaf(column_sum[b][j], strip.column_table[b * Traits::PaddedHeadDim(g) + i],
                            dq[j][i]);
            sums[i] = fmaf(column_sum[b][j], q[j][i], sums[i]);
          }
          if (!strip.active) sums[i] = 0.f;
        }
        SumOverHeads<Traits>(g, sums);
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
          const int channel = strip.slice * kChannels + i - g.half;
          if (lane < Traits::HeadLanes(g) && channel >= 0 && channel < g.half) {
            d_tables[(g.window_rows + b) * g.half + channel] += sums[i];
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j);
      if (strip.InImage(g, x)) {
        d_query.Store(dq[j], g.scale, strip.channels,
                      strip.qkv_origin + (strip.y * g.width + x) * strip.qkv_stride);
      }
    }
  }
  __syncthreads();
  d_tables = tables + entries * Traits::PaddedHeadDim(g);
  for (int i = threadIdx.x; i < elements; i += blockDim.x) {
    float sum = 0.f;
    for (int warp = 0; warp < blockDim.x / kWarpSize; ++warp) sum += d_tables[warp * elements + i];
    table_partials[static_cast<int64_t>(blockIdx.x) * elements + i] = sum;
  }
}

// Tuned on an H200.
template <typename Head, int kWindowColumns_>
struct DqConfig : Head {
  static constexpr int kWindowColumns = kWindowColumns_;
  static constexpr int kMinCtasPerSm = Head::kThreadChannels <= 8 ? 3 : 2;
  static constexpr int kStrip = kWindowColumns <= 7 ? 2 : 1;
};

template <typename Traits>
TableReduction LaunchBackwardDq(const LocalAttentionProblem& p, const BackwardArrays& a,
                                cudaStream_t stream) {
  const auto kernel = SimtBackwardDqKernel<Traits>;
  const SimtLaunchPlan plan = PlanSimtLaunch<Traits>(p);
  const SimtGrid& g = plan.grid;
  const int entries = g.window_rows + Traits::kWindowColumns, warps = plan.threads / kWarpSize;
  const int smem_bytes =
      RelativeTableBytes<Traits>(g) + static_cast<int>(sizeof(float)) * entries * g.half * warps;
  const int ctas = PersistentGridSize(kernel, g.num_tiles, plan.threads, smem_bytes, kTableWorkers);
  LaunchKernel(kernel, ctas, plan.threads, smem_bytes, stream, g, LoadFrom(p, a.query),
               LoadFrom(p, a.key), LoadFrom(p, a.value), a.relative_rows, a.relative_columns,
               LoadFrom(p, a.output), a.lse, LoadFrom(p, a.d_output), StoreTo(p, a.d_query),
               a.workspace, TablePartials(p, a.workspace));
  return MakeTableReduction(p, a.workspace, ctas, kLn2, a.d_relative_rows,
                            a.d_relative_columns);
}

}  // namespace

TableReduction SimtBackwardDq(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                              cudaStream_t stream) {
  TableReduction reduction = {};
  DispatchSimtWindow(p, [&](auto head, auto columns) {
    using Config = DqConfig<decltype(head), decltype(columns)::value>;
    reduction = LaunchBackwardDq<SimtKernelTraits<Config>>(p, arrays, stream);
  });
  return reduction;
}

}  // namespace sasa
