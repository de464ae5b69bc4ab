// Backward pass on tensor cores in one kernel: dQ, dK, dV and the gradients of the relative tables,
// with one computation of the weights. For windows of 3 x 3, 5 x 5 and 7 x 7 on sm_90.
//
// A CTA goes down an image, by rows of MMA tiles of queries. Its warps take the rows round-robin;
// there is no barrier of the CTA. For an MMA tile as in dQ (see mma_backward_dq.cu), and for each
// step of two blocks of keys:
//   1. P and dS transposed by movmatrix: dV [16 keys, D] = P^T dO, dK = dS^T Q, of a head's 8
//      queries, or of all 16 of the only head.
//   2. The sums of the columns that the next MMA tile of the row has too stay in registers. Those of
//      the others are added to the sums of the rows above in shared memory (KeyGradientRing), after
//      the warp of the row above has done so. As many rows of keys as the MMA tile has of queries
//      are then complete, and stored.
// So each element of dK and dV is summed in the order of the rows of queries, without atomics.
//
// Query, key and value are those of a source: loaded (mma_backward_one_pass.cu), or projected by the
// warps (mma_projected_backward.cu).
#ifndef SASA_TF_NATIVE_CUDA_MMA_BACKWARD_ONE_PASS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_BACKWARD_ONE_PASS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_key_gradient_ring.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_query_rows.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_smem_load.cuh"
#include "cuda/mma_table_gradients.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// The regions: images and groups of heads. All groups of an image follow one another, so that CTAs
// compute those of the same pixels at the same time, which share cache lines.
struct RegionGrid {
  FastDivmod head_groups;
  int num_regions;
  int rows, boxes;  // of MMA tiles, and of keys if these are loaded, in a region
};

template <typename Traits>
RegionGrid MakeRegionGrid(const LocalAttentionProblem& p) {
  RegionGrid r = {};
  r.head_groups = FastDivmod(CeilDiv(static_cast<int>(p.heads), Traits::kTileHeads));
  r.num_regions = static_cast<int>(p.batch) * r.head_groups.divisor;
  r.rows = CeilDiv(static_cast<int>(p.height), Traits::kMmaTileRows);
  return r;
}

template <typename Traits>
__device__ KeyRegion RegionAt(const RegionGrid& regions, uint32_t index) {
  KeyRegion r;
  r.head = regions.head_groups.DivmodInPlace(index) * Traits::kTileHeads;
  r.image = index;
  return r;
}

// The shared memory: what the source has, the relative tables, a staging buffer per warp, the ring
// of dK and dV, the source's mbarriers, and for each warp one for each MMA tile of a row.
template <typename Source>
struct OnePassSmemLayout {
  using Traits = typename Source::Traits;
  static constexpr int kRowTiles = CeilDiv(Traits::kTileColumns, Traits::kMmaTileColumns);
  static constexpr int kStagingBytes = QuerySmemLayout<Traits>::kStagingBytes;
  static constexpr int kTables = Source::kBytes;
  static constexpr int kStaging = kTables + RelativeTables<Traits>::kBytes;
  static constexpr int kRing = (kStaging + Traits::kWarps * kStagingBytes + 127) / 128 * 128;
  static constexpr int kSourceBarriers = kRing + KeyGradientRing<Traits>::kBytes;
  static constexpr int kRowBarriers = kSourceBarriers + Source::kBarriers * Mbarrier::kBytes;
  static constexpr int kBytes = kRowBarriers + Traits::kWarps * kRowTiles * Mbarrier::kBytes;
  static_assert(kBytes <= 227 * 1024, "what a CTA can have on sm_90");
};

// The backward pass of a CTA. `memory`: OnePassSmemLayout<Source>::kBytes, aligned to 1024 bytes.
//
// Source defines Traits, the bytes of shared memory at `memory` that it has, and the number of its
// mbarriers, which are at Layout::kSourceBarriers:
//   Init() is called by one thread, Fill() by all. Then follows a __syncthreads, and Start().
//   BeginRow(), Wait() and EndRow() are called for each row of MMA tiles. After Wait(), which returns
//   where the rows of its halo are in the buffers of keys and values, these can be read.
//   Queries loads the queries of the MMA tiles of a row, after BeginRow().
template <typename Source>
__device__ __forceinline__ void MmaBackwardOnePassCta(
    const TileGrid& g, const RegionGrid& regions, char* memory, const Source& source,
    const float* __restrict__ relative_rows, const float* __restrict__ relative_columns,
    const typename Source::Traits::Element* __restrict__ output, const float* __restrict__ lse,
    const typename Source::Traits::Element* __restrict__ d_output,
    typename Source::Traits::Element* __restrict__ d_query,
    typename Source::Traits::Element* __restrict__ d_key,
    typename Source::Traits::Element* __restrict__ d_value, float* __restrict__ table_partials) {
  using Traits = typename Source::Traits;
  using Element = typename Traits::Element;
  using Layout = OnePassSmemLayout<Source>;
  using Ring = KeyGradientRing<Traits>;
  // Steps of an MMA tile that the next one of the row does not have, and those that it has.
  constexpr int kStepColumns = 2 * Traits::kBlockColumns;
  constexpr int kSteps = Traits::kSteps, kFinished = Traits::kMmaTileColumns / kStepColumns;
  constexpr int kCarried = kSteps - kFinished, kCarriedBlocks = Traits::kColumnBlocks - 2 * kFinished;
  static_assert(Traits::kRowBlocks == 1 && Traits::kMmaTileColumns % kStepColumns == 0 &&
                Traits::kEntryGroups == 1);
  const RelativeTables<Traits> tables(memory + Layout::kTables);
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize;
  const uint32_t keys = SmemAddress(memory);
  const auto barrier_of = [&](int warp, int row_tile) {
    return Mbarrier(keys + Layout::kRowBarriers +
                    (warp * Layout::kRowTiles + row_tile) * Mbarrier::kBytes);
  };
  if (threadIdx.x == 0) {
    source.Init();
    for (int i = 0; i < Traits::kWarps * Layout::kRowTiles; ++i) barrier_of(0, i).Init(kWarpSize);
  }
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  tables.Fill(g, relative_rows, relative_columns);
  source.Fill();
  const WarpWork<Traits> work(0, 0, Traits::kTileColumns);
  PositionBias<Traits> bias(tables, lane, WarpTileIterator<Traits>(g, CtaTile(), lane, work));
  char* staging = memory + Layout::kStaging + warp * Layout::kStagingBytes;
  const float scale_log2 = g.scale * kLog2E, dv_scale = PoolWeight(g);
  const float dq_scale = g.scale * dv_scale;
  const DsSums<Traits> ds_sums(lane);
  const QuadSum quad(lane);
  const uint32_t table = SmemAddress(lane.matrix_lo ? tables.Column(lane.ldmatrix_row)
                                                    : tables.Row(lane.ldmatrix_row));
  TableGradients<Traits> d_tables = {};
  AFragment<Traits> q(lane, kTagDqQuery), d_out(lane, kTagDqDOutput);
  __syncthreads();
  source.Start(lane);

  // Rows of MMA tiles are numbered through all regions; `turn` counts the warp's.
  int number = 0, row = warp;
#pragma unroll 1
  for (int turn = 0;; ++turn) {
    while (row >= regions.rows) {
      row -= regions.rows;
      ++number;
    }
    const int index = blockIdx.x + number * gridDim.x;
    if (index >= regions.num_regions) break;
    source.BeginRow(number, row, lane);
    const KeyRegion region = RegionAt<Traits>(regions, index);
    CtaTile tile;
    tile.head = region.head;
    tile.image = region.image;
    tile.x = 0;
    tile.y = row * Traits::kMmaTileRows;
    tile.rows_left = g.height - tile.y;
    tile.columns_left = g.width;
    tile.origin = (static_cast<int64_t>(tile.image) * g.height + tile.y) * g.width * g.heads;
    const int row_tiles = CeilDiv(g.width, Traits::kMmaTileColumns);
    const WarpTileIterator<Traits> mma_tiles(g, tile, lane, work);
    const SkewTranspose<Traits> skew(staging, mma_tiles.column);
    typename Source::Queries queries(source, tile, lane, mma_tiles, number, row);
    uint32_t output_offset = mma_tiles.FirstOffset(tile, 1, lane);
    const DOutputLayout<Traits> d_output_layout(g, tile, lane, mma_tiles);
    uint32_t d_output_offset = d_output_layout.first_offset;
    RowFragment<Traits> next_q, next_d_out, out;
    TileStore<Traits> store(g, tile, lane, g.qkv_parts, work);
    float next_lse[2];
    const auto load = [&](const RowPredicate& valid) {
      queries.Load(mma_tiles, valid, next_q);
      LoadRowFragment<Traits>(d_output + d_output_offset, d_output_layout.half_stride, valid,
                              next_d_out);
      LoadRowFragment<Traits>(output + output_offset, mma_tiles.HalfStride(1), valid, out);
      LoadLse(lse + output_offset / Traits::kHeadDim, mma_tiles.HalfStride(1), valid, next_lse);
    };
    load(mma_tiles.Valid(0));
    if (g.mask_border) bias.MaskRows(tile, lane, mma_tiles);
    const Ring ring(memory + Layout::kRing, g, region, row, lane);
    KeyGradients<Traits> carried[kCarried] = {};
    const typename Source::Rows buffer = source.Wait(number, row);
    LdmatrixAddresses<Traits, false> addresses(keys, buffer, lane, 0, 0);
    LdmatrixAddresses<Traits, true> transposed(keys, buffer, lane, 0, 0);
    // Of the row above, whose warp is in the same turn, but for the first warp.
    const int last_warp = warp == 0 ? Traits::kWarps - 1 : warp - 1;
    const unsigned last_parity = (warp == 0 ? turn - 1 : turn) & 1;
    const bool is_last_row = row + 1 == regions.rows;
#pragma unroll 1
    for (int row_tile = 0; row_tile < row_tiles; ++row_tile) {
      const int left = row_tile * Traits::kMmaTileColumns;
      const bool is_last = row_tile + 1 == row_tiles;
      float lane_delta[2] = {0.f, 0.f};  // minus the lane's part of delta
      typename PositionBias<Traits>::RowBias row_bias;
      typename PositionBias<Traits>::ColumnBias column_bias;
      const float minus_lse[2] = {-kLog2E * next_lse[0], -kLog2E * next_lse[1]};
      if (g.mask_border) bias.MaskColumns(tile, lane, mma_tiles, left);
      q.Set(next_q);
      d_out.Set(next_d_out);
      SubtractDelta<Traits>(out, next_d_out, lane_delta);
      bias.Compute(q, lane, mma_tiles, skew, row_bias, column_bias);
      if (!is_last) {
        queries.Advance(mma_tiles);
        d_output_offset += d_output_layout.step;
        output_offset += mma_tiles.Step(1);
        load(mma_tiles.Valid(left + Traits::kMmaTileColumns));
      }
      float row_delta[4];
      quad.Sum(lane_delta, row_delta);
      // B operands: with two heads [8 queries of a head, 8 channels] by chunk of both, else for each
      // half of the queries.
      constexpr int kHalves = 2 / Traits::kTileHeads;
      uint32_t q_b[kHalves][Traits::kChunks], d_out_b[kHalves][Traits::kChunks];
#pragma unroll
      for (int i = 0; i < kHalves * Traits::kChunks; ++i) {
        const int c = i % Traits::kChunks, half = i / Traits::kChunks + c / Traits::kHeadChunks;
        q_b[i / Traits::kChunks][c] = Movmatrix(q.Get(half, c % Traits::kHeadChunks));
        d_out_b[i / Traits::kChunks][c] = Movmatrix(d_out.Get(half, c % Traits::kHeadChunks));
      }
      KeyGradients<Traits> finished[kFinished];
      Accumulator<Traits> dq = {};
      float ds_row_sum[1][4] = {}, ds_column_sum[Traits::kColumnGroups][4] = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        KvFragment<Traits, false> k, v;
        KvFragment<Traits, true> k_transposed;
        float p[2][4] = {}, dp[2][4] = {};  // dp: dP - delta, then dS
        k.Load(addresses, step);
        v.Load(addresses, step, Traits::kBufferBytes);
        k_transposed.Load(transposed, step);
#pragma unroll
        for (int block = 0; block < Traits::Blocks(step); ++block) {
          float s[4];
          bias.InitLogits(step, block, row_bias, column_bias, s);
          MmaQK<Traits>(q, k.b[block], s, s);
          MmaQK<Traits>(d_out, v.b[block], row_delta, dp[block]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            p[block][i] = Exp2Approx(fmaf(s[i], scale_log2, minus_lse[i / 2]));
            dp[block][i] *= p[block][i];
          }
        }
        uint32_t p_a[4], ds[4];
        PackAFragment<Element>(p[0], p[1], p_a);
        PackAFragment<Element>(dp[0], dp[1], ds);
        MmaPV<Traits>(step, ds, k_transposed, dq);
        ds_sums.Add(step, ds, ds_row_sum, ds_column_sum);
        uint32_t p_t[4] = {}, ds_t[4] = {};  // transposed, by block and half
#pragma unroll
        for (int i = 0; i < 2 * Traits::Blocks(step); ++i) {
          p_t[i] = Movmatrix(p_a[i]);
          ds_t[i] = Movmatrix(ds[i]);
        }
        KeyGradients<Traits>& sums = step < kFinished ? finished[step] : carried[step - kFinished];
#pragma unroll
        for (int c = 0; c < Traits::kChunks; ++c) {
          const bool is_new = step >= kCarried;
          const KeyGradients<Traits>& before = carried[is_new ? 0 : step];
          const auto& dv = is_new ? kZeros : before.dv[c];
          const auto& dk = is_new ? kZeros : before.dk[c];
          if constexpr (Traits::kTileHeads == 2) {
            const int head = c / Traits::kHeadChunks;
            MmaM16N8K8<Element>(sums.dv[c], dv, p_t[head], p_t[2 + head], d_out_b[0][c]);
            MmaM16N8K8<Element>(sums.dk[c], dk, ds_t[head], ds_t[2 + head], q_b[0][c]);
          } else {
            MmaM16N8K16<Element>(sums.dv[c], dv, p_t[0], p_t[2], p_t[1], p_t[3], d_out_b[0][c],
                                 d_out_b[1][c]);
            MmaM16N8K16<Element>(sums.dk[c], dk, ds_t[0], ds_t[2], ds_t[1], ds_t[3], q_b[0][c],
                                 q_b[1][c]);
          }
        }
      }
      // Without relative positions the tables are zeros.
      const TableEntries<Traits> entries(lane, mma_tiles, skew, ds_row_sum, ds_column_sum);
      MmaTableGradients<Traits>(entries, q, d_tables);
      MmaTables<Traits>(table, entries, dq);
      ScaleAccumulator<Traits>(dq_scale, dq_scale, dq);
      store.Store(dq, lane, staging, d_query);
      store.Advance();
      addresses.Advance();
      transposed.Advance();

      if (warp > 0 || turn > 0) barrier_of(last_warp, row_tile).Wait(last_parity);
      ring.template Add<2 * kFinished>(left, lane, finished);
      if (is_last) {
        ring.template Add<kCarriedBlocks>(left + Traits::kMmaTileColumns, lane, carried);
      }
      __syncwarp();
      const auto store_keys = [&](int column, int group) {
        ring.Store(g, left + column, group, dq_scale, dv_scale, d_key, d_value);
      };
      if (is_last || is_last_row) {
        const int columns = is_last ? Traits::kHaloColumns : Traits::kMmaTileColumns;
        const int groups = is_last_row ? Traits::kHaloRows / Ring::kFinishedRows : 1;
#pragma unroll 1
        for (int group = 0; group < groups; ++group) {
#pragma unroll 1
          for (int column = 0; column < columns; column += Ring::kStoreColumns) {
            store_keys(column, group);
          }
        }
      } else {
#pragma unroll
        for (int column = 0; column < Traits::kMmaTileColumns; column += Ring::kStoreColumns) {
          store_keys(column, 0);
        }
      }
      __syncwarp();
      barrier_of(warp, row_tile).Arrive();  // all lanes, each for what it read and wrote
    }
    source.EndRow(number, row, lane);
    row += Traits::kWarps;
  }
  GridLaunchDependents();
  if (g.has_relative) {
    StoreTablePartials<Traits>(lane, d_tables, reinterpret_cast<float*>(memory), table_partials);
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_BACKWARD_ONE_PASS_CUH_
