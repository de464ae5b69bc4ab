// Backward pass on tensor cores, second kernel: dK and dV, and the reduction of the gradients of
// the relative tables.
//
// The roles of queries and keys are those of the forward pass exchanged: MMA tiles are of keys, and
// a halo tile holds the queries whose windows contain them. So dK and dV are gathered without
// atomic operations. For each CTA tile:
//   1. Load Q and dO of the tile and its halo into shared memory, by TMA on sm_90, else by
//      cp.async, and LSE and -delta by cp.async. Compute q.r of the queries (see QueryStats).
//   2. Each warp goes along its row of MMA tiles. K and V of the next MMA tile are loaded into
//      registers while one is computed. For a step of two blocks at a time, all transposed: S =
//      bias - LSE + K Q^T, P = exp2(S), dP - delta = V dO^T - delta, dS = P (dP - delta), dV += P
//      dO, dK
//      += dS Q. The statistics of the queries are selected by products with one-hot operands.
//   3. Epilogue: dK times the scale, dV.
//
// The kernel may start before dQ has completed (PDL) and waits for it before it reads delta. Shared
// memory: DkvSmemLayout.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/launch.h"
#include "cuda/mma_backward.h"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_launch.cuh"
#include "cuda/mma_query_stats.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_smem_load.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// The shared memory, in order: the buffers of queries and dO, the query statistics, a staging
// buffer per warp, and the mbarrier. The relative tables are only read before the first statistics
// are written, to the same place.
template <typename Traits>
struct DkvSmemLayout {
  static constexpr int kStatsBytes = QueryStats<Traits>::kBytes > RelativeTables<Traits>::kBytes
                                         ? (QueryStats<Traits>::kBytes + 15) / 16 * 16
                                         : RelativeTables<Traits>::kBytes;
  static constexpr int kStagingBytes = TileStore<Traits>::kBytes;
  static constexpr int kStats = 2 * Traits::kBufferBytes, kStaging = kStats + kStatsBytes;
  static constexpr int kBarrier = kStaging + Traits::kWarps * kStagingBytes;
  static constexpr int kBytes = kBarrier + TmaBarrier::kBytes;
  static_assert(kBarrier % TmaBarrier::kBytes == 0);
};

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    MmaBackwardDkvKernel(TileGrid g, const __grid_constant__ TileTensorMaps maps,
                         const typename Traits::Element* __restrict__ query,
                         const typename Traits::Element* __restrict__ key,
                         const typename Traits::Element* __restrict__ value,
                         const float* __restrict__ relative_rows,
                         const float* __restrict__ relative_columns, const float* __restrict__ lse,
                         const typename Traits::Element* __restrict__ d_output,
                         const float* __restrict__ minus_delta,
                         typename Traits::Element* __restrict__ d_key,
                         typename Traits::Element* __restrict__ d_value, TableReduction reduction) {
  using Element = typename Traits::Element;
  using Layout = DkvSmemLayout<Traits>;
  using Stats = QueryStats<Traits>;
  extern __shared__ __align__(1024) char memory[];
  const RelativeTables<Traits> tables(memory + Layout::kStats);
  uint32_t* stats = reinterpret_cast<uint32_t*>(memory + Layout::kStats);
  const MmaLane lane;
  const uint32_t queries = SmemAddress(memory);
  maps.Prefetch();
  tables.Fill(g, relative_rows, relative_columns);
  __syncthreads();
  const typename Stats::TableFragments table_fragments(tables, lane);
  const WarpTileIterator<Traits> first_tile(g, CtaTile(), lane);
  const OneHotSelectors<Traits> selectors(lane, first_tile);
  // With two heads, for each halo column of queries the column table's entry for the lane's key.
  uint32_t column_entry[Traits::kHaloColumns];
  // For each column of blocks, the mask of the lane's queries whose windows do not contain its key.
  float window_mask[Traits::kColumnBlocks];
  const int last_entry = first_tile.column + Traits::kKernel - 1;
#pragma unroll
  for (int halo_column = 0; halo_column < Traits::kHaloColumns; ++halo_column) {
    if constexpr (Traits::kTileHeads == 2) {
      const Element* entry = tables.Column(last_entry - halo_column);
      column_entry[halo_column] = reinterpret_cast<const uint32_t*>(entry)[lane.pair];
    }
  }
#pragma unroll
  for (int block = 0; block < Traits::kColumnBlocks; ++block) {
    const int entry =
        last_entry - block * Traits::kBlockColumns - Traits::BlockColumn(2 * lane.pair);
    window_mask[block] = OpaqueRegister(entry < 0 || entry >= Traits::kKernel ? kMaskedBias : 0.f,
                                        lane, kTagWindowMask + block);
  }
  // The tables have been read, and the statistics may overwrite them.
  __syncthreads();
  Stats::Clear(stats);
  const float scale_log2 = g.scale * kLog2E, dv_scale = PoolWeight(g),
              dk_scale = g.scale * dv_scale;
  char* staging = memory + Layout::kStaging + threadIdx.x / kWarpSize * Layout::kStagingBytes;
  AFragment<Traits> k(lane, kTagDkvKey), v(lane, kTagDkvValue);
  uint32_t column_table[4] = {0u, OpaqueRegister(0u, lane, kTagColumnTableZeros),
                              OpaqueRegister(0u, lane, kTagColumnTableZeros + 1), 0u};

  TmaBarrier barrier(memory + Layout::kBarrier);

  ClearPadding<Traits>(memory);
  const PersistentTileRange range(g);
  SmemRowBuffer<Traits> buffer;
  for (int tile_index = range.begin; tile_index < range.end; tile_index += range.step) {
    const CtaTile tile(g, tile_index, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
    const WarpTileIterator<Traits> mma_tiles(g, tile, lane);
    buffer.AdvanceTile(tile_index > range.begin && tile.y > 0);
    __syncthreads();
    StartTileLoads<Traits, true>(g, tile, buffer, lane, maps, maps.use_tma,
                                 {query, g.qkv_parts, true}, {d_output, 1, true}, queries, barrier);
    if (tile_index == range.begin) GridDependencyWait();  // for delta
    Stats::CpAsyncLoad(g, tile, buffer, lane, lse, minus_delta, SmemAddress(stats));
    uint32_t offset = mma_tiles.FirstOffset(tile, g.qkv_parts, lane);
    RowFragment<Traits> next_k, next_v;
    TileStore<Traits> store(g, tile, lane, g.qkv_parts);
    const auto load = [&](uint32_t offset, const RowPredicate& valid) {
      const RowPredicate key_valid = {valid.first && g.has_key, valid.second && g.has_key};
      LoadRowFragment<Traits>(key + offset, mma_tiles.HalfStride(g.qkv_parts), key_valid, next_k);
      LoadRowFragment<Traits>(value + offset, mma_tiles.HalfStride(g.qkv_parts), valid, next_v);
    };
    load(offset, mma_tiles.Valid(mma_tiles.begin));
    CpAsyncWaitAll();
    if (maps.use_tma) barrier.Wait();
    __syncthreads();
    Stats::Compute(g, tile, buffer, queries, table_fragments, 1.f / g.scale, lane, stats);
    __syncthreads();
    if (!mma_tiles.active) continue;
    LdmatrixAddresses<Traits, false> addresses(queries, buffer, lane, mma_tiles.top,
                                               mma_tiles.begin);
    LdmatrixAddresses<Traits, true> transposed(queries, buffer, lane, mma_tiles.top,
                                               mma_tiles.begin);
    // The lane's words of the query statistics, by row of blocks.
    const uint32_t *row_bias[Traits::kRowBlocks], *delta[Traits::kRowBlocks],
        *column_bias[Traits::kRowBlocks];
#pragma unroll
    for (int i = 0; i < Traits::kRowBlocks; ++i) {
      const typename Stats::WordOffsets offsets(lane, buffer, mma_tiles.top, i);
      row_bias[i] = stats + offsets.row_bias + mma_tiles.begin * Stats::kColumnStride;
      delta[i] = stats + offsets.delta + mma_tiles.begin * Stats::kColumnStride;
      column_bias[i] = stats + offsets.column_bias + mma_tiles.begin * Stats::kBiasColumnStride;
    }
#pragma unroll 1
    for (int left = mma_tiles.begin; left < mma_tiles.end && left < tile.columns_left;
         left += Traits::kMmaTileColumns) {
      k.Set(next_k);
      v.Set(next_v);
      if (left + Traits::kMmaTileColumns < mma_tiles.end) {
        load(offset + mma_tiles.Step(g.qkv_parts), mma_tiles.Valid(left + Traits::kMmaTileColumns));
      }
      Accumulator<Traits> dk = {}, dv = {};
#pragma unroll
      for (int step = 0; step < Traits::kSteps; ++step) {
        KvFragment<Traits, false> q, d_out;
        KvFragment<Traits, true> q_transposed, d_out_transposed;
        float p[2][4] = {}, dp[2][4] = {};  // dp: dP - delta, then dS
        q.Load(addresses, step);
        d_out.Load(addresses, step, Traits::kBufferBytes);
#pragma unroll
        for (int block = 0; block < Traits::Blocks(step); ++block) {
          const int row_block = Traits::RowBlock(step);
          const int column_block = Traits::ColumnBlock(step) + block;
          const int halo_column = column_block * Traits::kBlockColumns;
          float s[4];
          const uint32_t* row_words = row_bias[row_block] + Stats::ColumnStep(column_block);
          if constexpr (Traits::kTileHeads == 2) {
            if constexpr (Stats::kFourRows) {
              MmaM16N8K16<Float16>(s, kZeros, selectors.row_bias[0], selectors.zeros[0],
                                   selectors.zeros[1], selectors.row_bias[1], row_words[0],
                                   row_words[Stats::kHeadStride]);
            } else {
              MmaM16N8K8<Float16>(s, kZeros, selectors.row_bias[0], selectors.row_bias[1],
                                  row_words[0]);
            }
            MmaQK<Traits>(k, q.b[block], s, s);
            // A product for each halo column of the block, with the queries of the other one zero.
#pragma unroll
            for (int i = 0; i < Traits::kBlockColumns; ++i) {
              const bool in_column = Traits::BlockColumn(lane.row) == i;
              const auto select = [&](uint32_t x) {
                return Traits::kBlockColumns == 1 || in_column ? x : 0u;
              };
              column_table[0] = column_table[3] = column_entry[halo_column + i];
              MmaM16N8K16<Element>(
                  s, column_table[0], column_table[1], column_table[2], column_table[3],
                  select(q.b[block][Traits::kColumnTableChunk]),
                  select(q.b[block][Traits::kHeadChunks + Traits::kColumnTableChunk]));
            }
          } else {
            MmaM16N8K16<Float16>(s, kZeros, selectors.column_bias[0], selectors.column_bias[1],
                                 selectors.row_bias[0], selectors.row_bias[1],
                                 column_bias[row_block][Stats::ColumnBiasStep(column_block)],
                                 row_words[0]);
            MmaQK<Traits>(k, q.b[block], s, s);
          }
          MmaM16N8K8<Bfloat16>(dp[block], kZeros, selectors.delta[0], selectors.delta[1],
                               delta[row_block][Stats::ColumnStep(column_block)]);
          MmaQK<Traits>(v, d_out.b[block], dp[block], dp[block]);
          // The middle columns are in the windows of all keys.
          const bool in_all_windows = halo_column >= Traits::kMmaTileColumns - 1 &&
                                      halo_column + Traits::kBlockColumns <= Traits::kKernel;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            p[block][i] =
                Exp2Approx(in_all_windows ? s[i] * scale_log2
                                          : fmaf(s[i], scale_log2, window_mask[column_block]));
            dp[block][i] *= p[block][i];
          }
        }
        uint32_t p_operand[4], ds_operand[4];
        PackAFragment<Element>(p[0], p[1], p_operand);
        PackAFragment<Element>(dp[0], dp[1], ds_operand);
        d_out_transposed.Load(transposed, step, Traits::kBufferBytes);
        MmaPV<Traits>(step, p_operand, d_out_transposed, dv);
        q_transposed.Load(transposed, step);
        MmaPV<Traits>(step, ds_operand, q_transposed, dk);
      }
      ScaleAccumulator<Traits>(dk_scale, dk_scale, dk);
      ScaleAccumulator<Traits>(dv_scale, dv_scale, dv);
      if (g.has_key) store.Store(dk, lane, staging, d_key);
      store.Store(dv, lane, staging, d_value);
      store.Advance();
      offset += mma_tiles.Step(g.qkv_parts);
      addresses.Advance();
      transposed.Advance();
#pragma unroll
      for (int i = 0; i < Traits::kRowBlocks; ++i) {
        row_bias[i] += Traits::kMmaTileColumns * Stats::kColumnStride;
        delta[i] += Traits::kMmaTileColumns * Stats::kColumnStride;
        column_bias[i] += Traits::kMmaTileColumns * Stats::kBiasColumnStride;
      }
    }
  }
  GridDependencyWait();  // for CTAs without tiles
  ReduceTableGradients(reduction);
}

template <typename Traits>
void LaunchBackwardDkv(const LocalAttentionProblem& p, const BackwardArrays& a,
                       const TableReduction& reduction, cudaStream_t stream) {
  using Element = typename Traits::Element;
  const auto kernel = MmaBackwardDkvKernel<Traits>;
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  const TileTensorMaps maps = EncodeTileTensorMaps<Traits>(kernel, p, p.pool_size == 1, a.query,
                                                           p.qkv_parts, a.d_output, 1);
  LaunchMmaKernel<Traits>(kernel, DkvSmemLayout<Traits>::kBytes, g.num_tiles, stream, g, maps,
                          static_cast<const Element*>(a.query), static_cast<const Element*>(a.key),
                          static_cast<const Element*>(a.value), a.relative_rows, a.relative_columns,
                          a.lse, static_cast<const Element*>(a.d_output), a.workspace,
                          static_cast<Element*>(a.d_key), static_cast<Element*>(a.d_value),
                          reduction);
}

// Windows of 7 are tuned on an H100, the others on an H200.
struct DkvTiles {
  // clang-format off
  static constexpr MmaTilesRow kRows[] = {
      // K, D, {warps, columns, CTAs, staged store, split rows}, largest width
      {3, 4, {4, 28, 3}},
      {3, 8, {4, 28, 4}},
      {3, 16, {4, 28, 3, true, true}},
      {3, 32, {4, 16, 4, true, true}},
      {3, 64, {2, 8, 3, true, true}},
      {5, 4, {4, 14, 3}},
      {5, 8, {4, 14, 3, true, true}},
      {5, 16, {4, 14, 2, true, true}},
      {5, 32, {4, 16, 2, true, true}},
      {5, 64, {2, 8, 2, false, true}},
      {7, 4, {4, 28, 3}},
      {7, 8, {4, 28, 3}},
      {7, 16, {4, 28, 2, true, true}},
      {7, 32, {4, 16, 3, false, true}},
      {7, 64, {4, 8, 2}, 8},
      {7, 64, {4, 16, 2}},
      {9, 4, {4, 14, 3}},
      {9, 8, {4, 14, 3, false, true}},
      {9, 16, {4, 14, 2, true, true}},
      {9, 32, {4, 16, 1, false, true}},
      {9, 64, {2, 8, 2, false, true}},
      {11, 4, {4, 28, 2}},
      {11, 8, {4, 28, 2}},
      {11, 16, {4, 16, 2, true, true}},
      {11, 32, {4, 16, 2, false, true}},
      {11, 64, {4, 8, 1}},
  };
  // clang-format on
};

}  // namespace

void MmaBackwardDkv(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                    const TableReduction& reduction, cudaStream_t stream) {
  DispatchMmaTiles<DkvTiles>(
      p, [&](auto traits) { LaunchBackwardDkv<decltype(traits)>(p, arrays, reduction, stream); });
}

void MmaBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                 cudaStream_t stream) {
  if (MmaRowBackward(p, arrays, stream)) return;
  if (MmaBackwardOnePass(p, arrays, false, stream)) return;
  MmaBackwardDkv(p, arrays, MmaBackwardDq(p, arrays, stream), stream);
}

}  // namespace sasa
