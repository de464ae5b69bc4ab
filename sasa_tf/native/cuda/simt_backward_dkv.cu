// Backward pass in SIMT arithmetic, second kernel: dK and dV, and the reduction of the gradients of
// the relative tables.
//
// A thread owns a strip of keys and loops over the queries whose windows contain them, so dK and dV
// are gathered without atomic operations. For each query it computes S, P, dP and dS = P (dP -
// delta), and accumulates dV += P dO and dK += dS Q.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
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
    SimtBackwardDkvKernel(SimtGrid g, TypedLoader query, TypedLoader key, TypedLoader value,
                          const float* __restrict__ relative_rows,
                          const float* __restrict__ relative_columns, const float* __restrict__ lse,
                          TypedLoader d_output, const float* __restrict__ delta, TypedStorer d_key,
                          TypedStorer d_value, TableReduction reduction) {
  constexpr int kStrip = Traits::kStrip, kColumns = Traits::kWindowColumns;
  constexpr int kChannels = Traits::kThreadChannels;
  extern __shared__ float tables[];
  LoadRelativeTables<Traits>(g, relative_rows, relative_columns, tables);
  for (int tile = blockIdx.x; tile < g.num_tiles; tile += gridDim.x) {
    const SimtStrip<Traits> strip(g, tile, tables);
    float k[kStrip][kChannels], v[kStrip][kChannels];
    float dk[kStrip][kChannels] = {}, dv[kStrip][kChannels] = {};
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j), offset = (strip.y * g.width + x) * strip.qkv_stride;
      key.Load(strip.qkv_origin + offset, g.has_key && strip.InImage(g, x), strip.channels, k[j]);
      value.Load(strip.qkv_origin + offset, strip.InImage(g, x), strip.channels, v[j]);
    }
#pragma unroll 1
    for (int a = 0; a < g.window_rows; ++a) {
      const int y = strip.y - (a - g.window_rows / 2) * g.dilation_rows;  // of the queries
      const bool row_in_image = y >= 0 && y < g.height;
      if (__all_sync(kFullMask, !row_in_image)) continue;
      const int64_t row = static_cast<int64_t>(y) * g.width;
#pragma unroll
      for (int n = 0; n < Traits::kHaloColumns; ++n) {
        const int x = strip.Column(g, n - kColumns / 2);
        const bool in_image = row_in_image && strip.InImage(g, x);
        float q[kChannels], d_out[kChannels], query_lse = kInvalidLse, query_delta = 0.f;
        query.Load(strip.qkv_origin + (row + x) * strip.qkv_stride, in_image, strip.channels, q);
        d_output.Load(strip.output_origin + (row + x) * strip.output_stride, in_image,
                      strip.channels, d_out);
        if (in_image) {
          const int64_t head = strip.HeadOffset(g, y, x);
          query_lse = __ldg(lse + head) * kLog2E;
          query_delta = __ldg(delta + head);
        }
#pragma unroll
        for (int i = 0; i < kChannels; ++i) q[i] *= g.scale * kLog2E;
        const float row_bias = Dot(q, strip.row_table + a * Traits::PaddedHeadDim(g), 0.f);
        float products[kStrip][2] = {};  // S and dP
        // Column of key j in the query's window.
        const auto window_column = [&](int j) { return j - n + kColumns - 1; };
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          const int b = window_column(j);
          if (b < 0 || b >= kColumns) continue;
          const float bias = Dot(q, strip.column_table + b * Traits::PaddedHeadDim(g), row_bias);
          products[j][0] = Dot(q, k[j], bias);
          products[j][1] = Dot(d_out, v[j], 0.f);
        }
        SumOverHeadLanes<Traits>(g, products);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          if (window_column(j) < 0 || window_column(j) >= kColumns) continue;
          const float p = Exp2Approx(products[j][0] - query_lse);
          const float ds = p * (products[j][1] - query_delta);
#pragma unroll
          for (int i = 0; i < kChannels; ++i) {
            dk[j][i] = fmaf(ds, q[i], dk[j][i]);
            dv[j][i] = fmaf(p, d_out[i], dv[j][i]);
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kStrip; ++j) {
      const int x = strip.Column(g, j);
      if (!strip.InImage(g, x)) continue;
      const int64_t offset = strip.qkv_origin + (strip.y * g.width + x) * strip.qkv_stride;
      // q was multiplied by the scale and by log2(e).
      if (g.has_key) d_key.Store(dk[j], kLn2, strip.channels, offset);
      d_value.Store(dv[j], 1.f, strip.channels, offset);
    }
  }
  ReduceTableGradients(reduction);
}

// Tuned on an H200.
template <typename Head, int kWindowColumns_>
struct DkvConfig : Head {
  static constexpr int kWindowColumns = kWindowColumns_, kMinCtasPerSm = 3;
  static constexpr int kStrip = Head::kThreadChannels <= 8 ? 2 : 1;
};

template <typename Traits>
void LaunchBackwardDkv(const LocalAttentionProblem& p, const BackwardArrays& a,
                       const TableReduction& reduction, cudaStream_t stream) {
  const auto kernel = SimtBackwardDkvKernel<Traits>;
  const SimtLaunchPlan plan = PlanSimtLaunch<Traits>(p);
  const int smem_bytes = RelativeTableBytes<Traits>(plan.grid), tiles = plan.grid.num_tiles;
  const int ctas = PersistentGridSize(kernel, tiles, plan.threads, smem_bytes, tiles);
  LaunchKernel(kernel, ctas, plan.threads, smem_bytes, stream, plan.grid, LoadFrom(p, a.query),
               LoadFrom(p, a.key), LoadFrom(p, a.value), a.relative_rows, a.relative_columns, a.lse,
               LoadFrom(p, a.d_output), a.workspace, StoreTo(p, a.d_key), StoreTo(p, a.d_value),
               reduction);
}

}  // namespace

void SimtBackwardDkv(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                     const TableReduction& reduction, cudaStream_t stream) {
  DispatchSimtWindow(p, [&](auto head, auto columns) {
    using Config = DkvConfig<decltype(head), decltype(columns)::value>;
    LaunchBackwardDkv<SimtKernelTraits<Config>>(p, arrays, reduction, stream);
  });
}

void SimtBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                  cudaStream_t stream) {
  SimtBackwardDkv(p, arrays, SimtBackwardDq(p, arrays, stream), stream);
}

}  // namespace sasa
