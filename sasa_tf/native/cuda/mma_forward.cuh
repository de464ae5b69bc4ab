// Forward pass on tensor cores: the output O and the log-sum-exp (LSE) of the logits. The code of a
// thread; mma_forward.cu launches it in the library, portable_forward.cuh in exported models.
//
// A CTA computes tiles of queries of one head, or two narrow ones (see mma_traits.cuh). It is
// persistent and goes down the image tile by tile (see PersistentTileRange). For each tile:
//   1. Load K and V of the tile and its halo into shared memory, by TMA on sm_90, else by cp.async.
//      Rows that the tile above has already loaded stay in the ring buffer.
//   2. Each warp goes along its row of MMA tiles, with a software pipeline of one stage: the
//      queries of the next MMA tile are loaded into registers while one is computed. For an MMA
//      tile:
//      a. Compute the position bias q.r with its masks.
//      b. For a step of two blocks at a time: S = bias + QK^T, P = exp2(S), O += PV, and the row
//         sums of P by a product with ones. K and V come from shared memory by ldmatrix.
//      c. Epilogue: O / row sum, and LSE = max + log(row sum).
//
// The softmax is not online: all logits of a query are of one MMA tile. In bf16, P is computed
// without subtracting the row maximum first; if a row sum is then out of range, the MMA tile is
// computed again with the maximum, as it always is in fp16.
//
// Shared memory: QuerySmemLayout. Saved for the backward pass: O and LSE.
#ifndef SASA_TF_NATIVE_CUDA_MMA_FORWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_FORWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/element_types.cuh"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_smem_load.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

// What a forward kernel stores. Template arguments, as each takes registers. The pooled output is
// stored if the problem has one; kernels with it do not store what is null.
struct StoreForTraining {
  static constexpr bool kOutput = true, kLse = true, kPooled = false;
};
struct StorePooledForTraining {
  static constexpr bool kOutput = true, kLse = true, kPooled = true;
};
struct StoreForInference {
  static constexpr bool kOutput = true, kLse = false, kPooled = false;
};
struct StorePooledForInference {
  static constexpr bool kOutput = false, kLse = false, kPooled = true;
};

// Attends with the queries of an MMA tile: the unnormalized output, and of each half of the rows the
// maximum that was subtracted from the logits (in log2, or 0) and the sum of the exponentials.
// `valid`: whether the lane's rows have queries.
template <typename Traits>
__device__ __forceinline__ void AttendMmaTile(
    const AFragment<Traits>& q, const PositionBias<Traits>& bias,
    const typename PositionBias<Traits>::RowBias& row_bias,
    const typename PositionBias<Traits>::ColumnBias& column_bias,
    const LdmatrixAddresses<Traits, false>& k_addresses,
    const LdmatrixAddresses<Traits, true>& v_addresses, float scale_log2,
    const uint32_t (&ones)[2], const RowPredicate& valid, Accumulator<Traits>& acc,
    float (&row_max)[2], float (&row_sum)[4]) {
  using Element = typename Traits::Element;
  // The exponentials of fp16 overflow where those of bf16 do not.
  constexpr bool kAlwaysSubtractMax = std::is_same_v<Element, Float16>;
  row_max[0] = row_max[1] = 0.f;
  for (bool subtract_max = kAlwaysSubtractMax;; subtract_max = true) {
    if (subtract_max) {
      row_max[0] = row_max[1] = kMaskedLogit;
#pragma unroll
      for (int step = 0; step < Traits::kSteps; ++step) {
        KvFragment<Traits, false> k;
        k.Load(k_addresses, step);
#pragma unroll
        for (int block = 0; block < Traits::Blocks(step); ++block) {
          float s[4];
          bias.InitLogits(step, block, row_bias, column_bias, s);
          MmaQK<Traits>(q, k.b[block], s, s);
#pragma unroll
          for (int i = 0; i < 4; ++i) row_max[i / 2] = fmaxf(row_max[i / 2], s[i]);
        }
      }
      row_max[0] = QuadMax(row_max[0]) * scale_log2;
      row_max[1] = QuadMax(row_max[1]) * scale_log2;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row_sum[i] = 0.f;
#pragma unroll
      for (int chunk = 0; chunk < Traits::kChunks; ++chunk) {
        acc[chunk / Traits::kHeadChunks][chunk % Traits::kHeadChunks][i] = 0.f;
      }
    }
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      KvFragment<Traits, false> k;
      KvFragment<Traits, true> v;
      float s[2][4] = {};  // then P
      k.Load(k_addresses, step);
      v.Load(v_addresses, step);
#pragma unroll
      for (int block = 0; block < Traits::Blocks(step); ++block) {
        bias.InitLogits(step, block, row_bias, column_bias, s[block]);
        MmaQK<Traits>(q, k.b[block], s[block], s[block]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[block][i] = Exp2Approx(fmaf(s[block][i], scale_log2, -row_max[i / 2]));
        }
      }
      uint32_t p[4];
      PackAFragment<Element>(s[0], s[1], p);
      MmaPV<Traits>(step, p, v, acc);
      MmaStep<Traits>(step, p, ones[0], ones[1], row_sum);
    }
    const bool in_range = SumInRange(row_sum[0]) && SumInRange(row_sum[2]);
    if (subtract_max || __all_sync(kFullMask, in_range || !valid.any())) break;
  }
}

// Stores the log-sum-exp of an MMA tile, if `stored`. `offset`: of the lane's channels in the
// output.
template <typename Traits>
__device__ __forceinline__ void StoreLse(const MmaLane& lane,
                                         const WarpTileIterator<Traits>& mma_tiles,
                                         const RowPredicate& valid, const float (&row_max)[2],
                                         const float (&row_sum)[4], bool stored, float* lse,
                                         uint32_t offset) {
  const float quad_sum = lane.pair ? row_sum[2] : row_sum[0];
  const float quad_max = lane.pair ? row_max[1] : row_max[0];
  const float query_lse = kLn2 * (quad_max + Log2Approx(quad_sum));
  if (valid.ForQuadLane(lane) && stored) {
    lse[offset / Traits::kHeadDim + lane.pair * mma_tiles.HalfStride(1)] = query_lse;
  }
}

// The forward pass of a CTA. `memory`: QuerySmemLayout<Traits>::kBytes, aligned to 1024 bytes.
// Arrays that Stores does not name may be null.
template <typename Traits, typename Stores>
__device__ __forceinline__ void MmaForwardCta(
    const TileGrid& g, const TileTensorMaps& maps, char* memory,
    const typename Traits::Element* __restrict__ query,
    const typename Traits::Element* __restrict__ key,
    const typename Traits::Element* __restrict__ value, const float* __restrict__ relative_rows,
    const float* __restrict__ relative_columns, typename Traits::Element* __restrict__ output,
    float* __restrict__ lse, typename Traits::Element* __restrict__ pooled_output) {
  using Element = typename Traits::Element;
  using Layout = QuerySmemLayout<Traits>;
  const RelativeTables<Traits> tables(memory + Layout::kTables);
  const MmaLane lane;
  const uint32_t keys = SmemAddress(memory), values = keys + Traits::kBufferBytes;
  maps.Prefetch();
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  tables.Fill(g, relative_rows, relative_columns);
  PositionBias<Traits> bias(tables, lane, WarpTileIterator<Traits>(g, CtaTile(), lane));
  char* staging = memory + Layout::kStaging + threadIdx.x / kWarpSize * Layout::kStagingBytes;
  const float scale_log2 = g.scale * kLog2E;
  AFragment<Traits> q(lane, kTagForwardQuery);
  const uint32_t ones[2] = {OpaqueRegister(PackX2<Element>(1.f, 1.f), lane, kTagForwardOnes),
                            OpaqueRegister(PackX2<Element>(1.f, 1.f), lane, kTagForwardOnes + 1)};

  TmaBarrier barrier(memory + Layout::kBarrier);

  ClearPadding<Traits>(memory);
  const PersistentTileRange range(g);
  SmemRowBuffer<Traits> buffer;
  for (int tile_index = range.begin; tile_index < range.end; tile_index += range.step) {
    const CtaTile tile(g, tile_index, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
    const WarpTileIterator<Traits> mma_tiles(g, tile, lane);
    buffer.AdvanceTile(tile_index > range.begin && tile.y > 0);
    // The first tile arrives sooner by cp.async of all threads than by TMA.
    const bool use_tma = maps.use_tma && tile_index > range.begin;
    __syncthreads();
    if (use_tma) {
      if (threadIdx.x == 0) TmaLoadTiles<Traits>(tile, buffer, maps, keys, barrier);
    } else {
      CpAsyncLoadTile<Traits>(g, tile, buffer, lane, {key, g.qkv_parts, g.has_key}, keys);
      CpAsyncLoadTile<Traits>(g, tile, buffer, lane, {value, g.qkv_parts, true}, values);
    }
    const SkewTranspose<Traits> skew(staging, mma_tiles.column);
    uint32_t q_offset = mma_tiles.FirstOffset(tile, g.qkv_parts, lane);
    uint32_t output_offset = mma_tiles.FirstOffset(tile, 1, lane);
    RowFragment<Traits> next_q;
    TileStore<Traits> store(g, tile, lane, 1);
    LoadRowFragment<Traits>(query + q_offset, mma_tiles.HalfStride(g.qkv_parts),
                            mma_tiles.Valid(mma_tiles.begin), next_q);
    if (g.mask_border) bias.MaskRows(tile, lane, mma_tiles);
    CpAsyncWaitAll();
    if (use_tma) barrier.Wait();
    __syncthreads();
    if (!mma_tiles.active) continue;
    LdmatrixAddresses<Traits, false> k_addresses(keys, buffer, lane, mma_tiles.top,
                                                 mma_tiles.begin);
    LdmatrixAddresses<Traits, true> v_addresses(values, buffer, lane, mma_tiles.top,
                                                mma_tiles.begin);
#pragma unroll 1
    for (int left = mma_tiles.begin; left < mma_tiles.end && left < tile.columns_left;
         left += Traits::kMmaTileColumns) {
      const RowPredicate valid = mma_tiles.Valid(left);
      typename PositionBias<Traits>::RowBias row_bias;
      typename PositionBias<Traits>::ColumnBias column_bias;
      if (g.mask_border) bias.MaskColumns(tile, lane, mma_tiles, left);
      q.Set(next_q);
      bias.Compute(q, lane, mma_tiles, skew, row_bias, column_bias);
      // The branch keeps the compiler from issuing these loads before the previous ones have
      // arrived, which would wait for both.
      if (left + Traits::kMmaTileColumns < mma_tiles.end) {
        q_offset += mma_tiles.Step(g.qkv_parts);
        LoadRowFragment<Traits>(query + q_offset, mma_tiles.HalfStride(g.qkv_parts),
                                mma_tiles.Valid(left + Traits::kMmaTileColumns), next_q);
      }
      float row_max[2], row_sum[4];
      Accumulator<Traits> acc;
      AttendMmaTile<Traits>(q, bias, row_bias, column_bias, k_addresses, v_addresses, scale_log2,
                            ones, valid, acc, row_max, row_sum);
      ScaleAccumulator<Traits>(RcpApprox(row_sum[0]), RcpApprox(row_sum[2]), acc);
      if (Stores::kOutput && (!Stores::kPooled || output != nullptr)) {
        store.Store(acc, lane, staging, output);
      }
      if (Stores::kPooled && g.pool_shift != 0) {
        const int64_t pixel =
            tile.PooledOffset(g, mma_tiles.top + mma_tiles.row[0], left + mma_tiles.column);
        StorePooledOutput<Traits>(
            acc, lane, valid, mma_tiles.PooledHalfStride() * Traits::kHeadDim,
            pooled_output + pixel * Traits::kHeadDim + LaneChannel<Traits>(lane));
      }
      store.Advance();
      if constexpr (Stores::kLse) {
        StoreLse<Traits>(lane, mma_tiles, valid, row_max, row_sum, !Stores::kPooled || lse != nullptr,
                         lse, output_offset);
      }
      output_offset += mma_tiles.Step(1);
      k_addresses.Advance();
      v_addresses.Advance();
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_FORWARD_CUH_
