// Backward pass on tensor cores in one kernel, for small images; mma_row_tile.cuh has row tiles.
//
// A CTA is persistent, and has queries, keys, values, outputs and dO of an image of one head in
// shared memory. Each warp has a row tile:
//   1. As queries: the position bias, and -delta = -rowsum(O * dO). For a step of 16 keys at a
//      time, one row of 16 columns or two of 8, P, dP - delta and dS = P (dP - delta) as in dQ (see
//      mma_backward_dq.cu), and dQ += dS K. P and dS are stored to shared memory. Then dQ += dS r,
//      from the sums of dS by table entry, which are stored too.
//   2. After a barrier, as keys: for each row tile of queries whose windows reach them, dV += P^T
//      dO and dK += dS^T Q, with P and dS transposed by ldmatrix. A warp adds a part of the tables'
//      gradients, dS^T Q of 16 channels.
// So the weights are computed once. Keys and values of the CTA's next image are loaded during the
// second phase, the others after it or an image earlier, as shared memory allows.
//
// dP and dS are scaled by the pool size if d_output is that of a pooled output (see PoolWeight).
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_row_backward_grid.cuh"
#include "cuda/mma_row_backward_warp.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

struct RowBackwardMaps {
  TensorMap query, key, value, output, d_output;
};

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Traits, int kWarps, int kCtas>
__global__ void __launch_bounds__(kWarps * kWarpSize, kCtas)
    MmaRowBackwardKernel(const __grid_constant__ RowBackwardGrid r,
                         const __grid_constant__ RowBackwardMaps maps,
                         const float* __restrict__ relative_rows,
                         const float* __restrict__ relative_columns, const float* __restrict__ lse,
                         Bfloat16* __restrict__ d_query, Bfloat16* __restrict__ d_key,
                         Bfloat16* __restrict__ d_value, float* __restrict__ table_partials) {
  extern __shared__ __align__(1024) char memory[];
  const RowTileGrid& g = r.g;
  const RowBackwardWarp<Traits> warp(r, memory);
  const uint32_t smem = warp.smem;
  const Mbarrier keys_full(smem + r.barriers);
  const auto queries_full = [&](int stage) {
    return Mbarrier(smem + r.barriers + (1 + stage) * Mbarrier::kBytes);
  };
  const int query_bytes = 2 * r.image_bytes + r.d_output_bytes;
  // Called by one thread.
  const auto load_keys = [&](uint32_t item) {
    const int channel = g.heads.DivmodInPlace(item) * Traits::kHeadDim;
    keys_full.ArriveExpectTx(2 * r.image_bytes);
    TmaLoad(maps.key, keys_full, smem, channel, 0, 0, item);
    TmaLoad(maps.value, keys_full, smem + r.image_bytes, channel, 0, 0, item);
  };
  const auto load_queries = [&](uint32_t item, int stage) {
    const int channel = g.heads.DivmodInPlace(item) * Traits::kHeadDim;
    const Mbarrier barrier = queries_full(stage);
    const uint32_t to = smem + r.queries + stage * query_bytes;
    barrier.ArriveExpectTx(query_bytes);
    TmaLoad(maps.query, barrier, to, channel, 0, 0, item);
    TmaLoad(maps.output, barrier, to + r.image_bytes, channel, 0, 0, item);
    TmaLoad(maps.d_output, barrier, to + 2 * r.image_bytes, channel, 0, 0, item);
  };
  const auto load_lse = [&](uint32_t item, float(&query_lse)[2]) {
    const int head = g.heads.DivmodInPlace(item);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      query_lse[half] = kInvalidLse;
      if (warp.active && warp.valid[half]) {
        query_lse[half] =
            __ldg(lse + (item * g.height * g.width + warp.pixel[half]) * r.num_heads + head);
      }
    }
  };
  if (threadIdx.x == 0) {
    maps.query.Prefetch();
    maps.key.Prefetch();
    maps.value.Prefetch();
    maps.output.Prefetch();
    maps.d_output.Prefetch();
    keys_full.Init(1);
    for (int i = 0; i < 2; ++i) queries_full(i).Init(1);
  }
  if (threadIdx.x < 8) {
    reinterpret_cast<uint4*>(memory + r.zeros)[threadIdx.x] = make_uint4(0, 0, 0, 0);
  }
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  warp.FillTables(relative_rows, relative_columns);
  __syncthreads();
  if (threadIdx.x == 0) {
    load_keys(blockIdx.x);
    for (int i = 0; i < r.query_stages; ++i) {
      const int item = blockIdx.x + i * gridDim.x;
      if (item < g.items) load_queries(item, i);
    }
  }
  const float dv_scale = g.pool_shift ? kPoolWeight : 1.f, dq_scale = g.scale * dv_scale;
  float table_gradient[4] = {}, next_lse[2];
  load_lse(blockIdx.x, next_lse);

  int turn = 0;
#pragma unroll 1
  for (int item = blockIdx.x; item < g.items; item += gridDim.x, ++turn) {
    const bool has_next = item + static_cast<int>(gridDim.x) < g.items;
    const bool two_stages = r.query_stages == 2;
    const int stage = two_stages ? turn & 1 : 0;
    const uint32_t queries = smem + r.queries + stage * query_bytes;
    const uint32_t outputs = queries + r.image_bytes, d_outputs = outputs + r.image_bytes;
    const uint32_t table_sums =
        Traits::kSumsInOutputs ? outputs + Traits::kStagingBytes : smem + r.sums;
    char* const staging = memory + (outputs - smem) + warp.warp * Traits::kTileBytes;
    uint32_t image = item, offset[2];
    const int head = g.heads.DivmodInPlace(image);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t pixel = image * g.height * g.width + warp.pixel[half];
      offset[half] =
          (pixel * (r.qkv_parts * r.num_heads) + head) * Traits::kHeadDim + warp.lane.pair * 8;
    }
    queries_full(stage).Wait((two_stages ? turn >> 1 : turn) & 1);
    if (warp.active) {
      float dq[Traits::kHeadChunks][4] = {};
      const float query_lse[2] = {next_lse[0], next_lse[1]};
      warp.ComputeQueries(queries, outputs, d_outputs, table_sums, query_lse, keys_full, turn & 1,
                          staging, dq);
      if (has_next) load_lse(item + gridDim.x, next_lse);
      warp.Store(dq, dq_scale, staging, offset, d_query);
    }
    __syncthreads();
    if (has_next && threadIdx.x == 0) load_keys(item + gridDim.x);
    if (r.has_relative) warp.AddTableGradient(queries, table_sums, table_gradient);
    if (warp.active) {
      float dk[Traits::kHeadChunks][4] = {}, dv[Traits::kHeadChunks][4] = {};
      warp.ComputeKeys(queries, d_outputs, dk, dv);
      warp.Store(dk, dq_scale, staging, offset, d_key);
      warp.Store(dv, dv_scale, staging, offset, d_value);
    }
    TmaStoreFence();  // what took the place of the outputs was written before their next load
    __syncthreads();
    const int next = item + r.query_stages * gridDim.x;
    if (next < g.items && threadIdx.x == 0) load_queries(next, stage);
  }
  GridLaunchDependents();
  if (r.has_relative) warp.StoreTablePartials(table_gradient, table_partials);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_CUH_
