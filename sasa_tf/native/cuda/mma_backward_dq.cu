// Backward pass on tensor cores, first kernel: dQ, delta and the gradients of the relative tables.
//
// Tiles, persistence and the loads of K and V are those of the forward pass (see mma_forward.cu).
// For an MMA tile of queries:
//   1. -delta = -rowsum(O * dO), reduced over a quad by a TF32 product with ones, and stored for
//      the dK/dV kernel. Q, dO, O and LSE of the next MMA tile are loaded into registers.
//   2. For a step of two blocks at a time: S = bias + QK^T, P = exp2(S - LSE), dP - delta = dO V^T
//      - delta, dS = P (dP - delta), dQ += dS K. The sums of dS by halo row and halo column are
//      products with matrices of zeros and ones.
//   3. These sums, converted to table entries: dQ += dS r, and the tables' gradients += dS^T Q,
//      which stay in registers until the CTA has computed all of its tiles.
//   4. Epilogue: dQ times the scale.
//
// Shared memory: QuerySmemLayout. dP and dS are scaled by the pool size if d_output is that of a
// pooled output (see PoolWeight).
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_backward.h"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_launch.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_query_rows.cuh"
#include "cuda/mma_relative_tables.cuh"
#include "cuda/mma_smem_load.cuh"
#include "cuda/mma_table_gradients.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    MmaBackwardDqKernel(TileGrid g, const __grid_constant__ TileTensorMaps maps,
                        const typename Traits::Element* __restrict__ query,
                        const typename Traits::Element* __restrict__ key,
                        const typename Traits::Element* __restrict__ value,
                        const float* __restrict__ relative_rows,
                        const float* __restrict__ relative_columns,
                        const typename Traits::Element* __restrict__ output,
                        const float* __restrict__ lse,
                        const typename Traits::Element* __restrict__ d_output,
                        typename Traits::Element* __restrict__ d_query,
                        float* __restrict__ minus_delta, float* __restrict__ table_partials) {
  using Element = typename Traits::Element;
  using Layout = QuerySmemLayout<Traits>;
  extern __shared__ __align__(1024) char memory[];
  const RelativeTables<Traits> tables(memory + Layout::kTables);
  const MmaLane lane;
  const uint32_t keys = SmemAddress(memory);
  maps.Prefetch();
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  tables.Fill(g, relative_rows, relative_columns);
  PositionBias<Traits> bias(tables, lane, WarpTileIterator<Traits>(g, CtaTile(), lane));
  char* staging = memory + Layout::kStaging + threadIdx.x / kWarpSize * Layout::kStagingBytes;
  const float scale_log2 = g.scale * kLog2E, dq_scale = g.scale * PoolWeight(g);
  const DsSums<Traits> ds_sums(lane);
  const QuadSum quad(lane);
  const int entry = lane.ldmatrix_row + (Traits::kEntryGroups == 2 ? 8 * lane.matrix_hi : 0);
  const uint32_t table = SmemAddress(lane.matrix_lo ? tables.Column(entry) : tables.Row(entry));
  TableGradients<Traits> d_tables = {};
  AFragment<Traits> q(lane, kTagDqQuery), d_out(lane, kTagDqDOutput);

  TmaBarrier barrier(memory + Layout::kBarrier);

  ClearPadding<Traits>(memory);
  const PersistentTileRange range(g);
  SmemRowBuffer<Traits> buffer;
  for (int tile_index = range.begin; tile_index < range.end; tile_index += range.step) {
    // With heads 8 wide, CTAs of the next kernel that start out of step cost more than they gain.
    if (Traits::kHeadDim > 8 && tile_index + range.step >= range.end) GridLaunchDependents();
    const CtaTile tile(g, tile_index, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
    const WarpTileIterator<Traits> mma_tiles(g, tile, lane);
    buffer.AdvanceTile(tile_index > range.begin && tile.y > 0);
    __syncthreads();
    StartTileLoads<Traits>(g, tile, buffer, lane, maps, maps.use_tma, {key, g.qkv_parts, g.has_key},
                           {value, g.qkv_parts, true}, keys, barrier);
    const SkewTranspose<Traits> skew(staging, mma_tiles.column);
    uint32_t q_offset = mma_tiles.FirstOffset(tile, g.qkv_parts, lane);
    uint32_t output_offset = mma_tiles.FirstOffset(tile, 1, lane);
    const DOutputLayout<Traits> d_output_layout(g, tile, lane, mma_tiles);
    uint32_t d_output_offset = d_output_layout.first_offset;
    RowFragment<Traits> next_q, next_d_out, out;
    TileStore<Traits> store(g, tile, lane, g.qkv_parts);
    float next_lse[2];
    const auto load = [&](uint32_t q_offset, uint32_t d_output_offset, uint32_t output_offset,
                          const RowPredicate& valid) {
      LoadRowFragment<Traits>(query + q_offset, mma_tiles.HalfStride(g.qkv_parts), valid, next_q);
      LoadRowFragment<Traits>(d_output + d_output_offset, d_output_layout.half_stride, valid,
                              next_d_out);
      LoadRowFragment<Traits>(output + output_offset, mma_tiles.HalfStride(1), valid, out);
      LoadLse(lse + output_offset / Traits::kHeadDim, mma_tiles.HalfStride(1), valid, next_lse);
    };
    load(q_offset, d_output_offset, output_offset, mma_tiles.Valid(mma_tiles.begin));
    if (g.mask_border) bias.MaskRows(tile, lane, mma_tiles);
    CpAsyncWaitAll();
    if (maps.use_tma) barrier.Wait();
    __syncthreads();
    if (!mma_tiles.active) continue;
    LdmatrixAddresses<Traits, false> addresses(keys, buffer, lane, mma_tiles.top, mma_tiles.begin);
    LdmatrixAddresses<Traits, true> transposed(keys, buffer, lane, mma_tiles.top, mma_tiles.begin);
#pragma unroll 1
    for (int left = mma_tiles.begin; left < mma_tiles.end && left < tile.columns_left;
         left += Traits::kMmaTileColumns) {
      const RowPredicate valid = mma_tiles.Valid(left);
      float lane_delta[2] = {0.f, 0.f};  // minus the lane's part of delta
      typename PositionBias<Traits>::RowBias row_bias;
      typename PositionBias<Traits>::ColumnBias column_bias;
      const float minus_lse[2] = {-kLog2E * next_lse[0], -kLog2E * next_lse[1]};
      if (g.mask_border) bias.MaskColumns(tile, lane, mma_tiles, left);
      q.Set(next_q);
      d_out.Set(next_d_out);
      SubtractDelta<Traits>(out, next_d_out, lane_delta);
      bias.Compute(q, lane, mma_tiles, skew, row_bias, column_bias);
      if (left + Traits::kMmaTileColumns < mma_tiles.end) {
        d_output_offset += d_output_layout.step;
        load(q_offset + mma_tiles.Step(g.qkv_parts), d_output_offset,
             output_offset + mma_tiles.Step(1), mma_tiles.Valid(left + Traits::kMmaTileColumns));
      }
      float row_delta[4];
      quad.Sum(lane_delta, row_delta);
      if (valid.ForQuadLane(lane)) {
        minus_delta[output_offset / Traits::kHeadDim + lane.pair * mma_tiles.HalfStride(1)] =
            lane.pair ? row_delta[2] : row_delta[0];
      }

      Accumulator<Traits> dq = {};
      float ds_row_sum[Traits::kRowGroups][4] = {}, ds_column_sum[Traits::kColumnGroups][4] = {};
#pragma unroll
      for (int step = 0; step < Traits::kSteps; ++step) {
        KvFragment<Traits, false> k, v;
        KvFragment<Traits, true> k_transposed;
        float dp[2][4] = {};  // dP - delta, then dS
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
            dp[block][i] *= Exp2Approx(fmaf(s[i], scale_log2, minus_lse[i / 2]));
          }
        }
        uint32_t ds[4];
        PackAFragment<Element>(dp[0], dp[1], ds);
        MmaPV<Traits>(step, ds, k_transposed, dq);
        ds_sums.Add(step, ds, ds_row_sum, ds_column_sum);
      }
      // Without relative positions the tables are zeros.
      const TableEntries<Traits> entries(lane, mma_tiles, skew, ds_row_sum, ds_column_sum);
      MmaTableGradients<Traits>(entries, q, d_tables);
      MmaTables<Traits>(table, entries, dq);
      ScaleAccumulator<Traits>(dq_scale, dq_scale, dq);
      store.Store(dq, lane, staging, d_query);
      store.Advance();
      q_offset += mma_tiles.Step(g.qkv_parts);
      output_offset += mma_tiles.Step(1);
      addresses.Advance();
      transposed.Advance();
    }
  }
  GridLaunchDependents();
  if (g.has_relative) {
    StoreTablePartials<Traits>(lane, d_tables, reinterpret_cast<float*>(memory), table_partials);
  }
}

template <typename Traits>
TableReduction LaunchBackwardDq(const LocalAttentionProblem& p, const BackwardArrays& a,
                                cudaStream_t stream) {
  using Element = typename Traits::Element;
  const auto kernel = MmaBackwardDqKernel<Traits>;
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  const TileTensorMaps maps =
      EncodeTileTensorMaps<Traits>(kernel, p, p.has_key, a.key, p.qkv_parts, a.value, p.qkv_parts);
  const int ctas = LaunchMmaKernel<Traits>(
      kernel, QuerySmemLayout<Traits>::kBytes, kTableWorkers, stream, g, maps,
      static_cast<const Element*>(a.query), static_cast<const Element*>(a.key),
      static_cast<const Element*>(a.value), a.relative_rows, a.relative_columns,
      static_cast<const Element*>(a.output), a.lse, static_cast<const Element*>(a.d_output),
      static_cast<Element*>(a.d_query), a.workspace, TablePartials(p, a.workspace));
  return MakeTableReduction(p, a.workspace, ctas, g.scale * PoolWeight(g), a.d_relative_rows,
                            a.d_relative_columns);
}

// Windows of 7 are tuned on an H100, the others on an H200.
struct DqTiles {
  // clang-format off
  static constexpr MmaTilesRow kRows[] = {
      // K, D, {warps, columns, CTAs, staged store, split rows}, largest width
      {3, 4, {4, 28, 4, false, true}},
      {3, 8, {2, 28, 6, true, true}},
      {3, 16, {8, 28, 2, true, true}},
      {3, 32, {2, 16, 6, true, true}},
      {3, 64, {2, 8, 3, false, true}},
      {5, 4, {4, 28, 3, false, true}},
      {5, 8, {4, 14, 4, false, true}},
      {5, 16, {4, 14, 3, false, true}},
      {5, 32, {2, 16, 4, true, true}},
      {5, 64, {2, 8, 2}},
      {7, 4, {4, 28, 3, false, true}},
      {7, 8, {4, 28, 3, true, true}},
      {7, 16, {4, 28, 2, false, true}},
      {7, 32, {4, 16, 2, true}},
      {7, 64, {4, 8, 1, true}, 8},
      {7, 64, {4, 16, 1, true}},
      {9, 4, {4, 28, 3, false, true}},
      {9, 8, {2, 28, 4, false, true}},
      {9, 16, {2, 14, 4, false, true}},
      {9, 32, {4, 16, 2, false, true}},
      {9, 64, {2, 8, 2, false, true}},
      {11, 4, {4, 28, 3, false, true}},
      {11, 8, {4, 28, 3}},
      {11, 16, {4, 28, 2, true, true}},
      {11, 32, {2, 16, 3, false, true}},
      {11, 64, {4, 8, 1, true}},
  };
  // clang-format on
};

}  // namespace

TableReduction MmaBackwardDq(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                             cudaStream_t stream) {
  TableReduction reduction = {};
  DispatchMmaTiles<DqTiles>(
      p, [&](auto traits) { reduction = LaunchBackwardDq<decltype(traits)>(p, arrays, stream); });
  return reduction;
}

}  // namespace sasa
