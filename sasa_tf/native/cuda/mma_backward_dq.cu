// Backward pass on tensor cores, first kernel: dQ, delta and the gradients of the relative tables.
//
// Tiles, persistence and the loads of K and V are those of the forward pass (see mma_forward.cu).
// For an MMA tile of queries:
//   1. -delta = -rowsum(O * dO), reduced over a quad by a TF32 product with ones, and stored for
//      the dK/dV kernel. Q, dO, O and LSE of the next MMA tile are loaded into registers.
//   2. For two halo columns at a time: S = bias + QK^T, P = exp2(S - LSE), dP - delta = dO V^T -
//      delta, dS = P (dP - delta), dQ += dS K. The sums of dS by halo row and halo column are
//      products with an identity matrix and with one-hot columns.
//   3. These sums, converted to table entries: dQ += dS r, and the tables' gradients += dS^T Q,
//      which stay in registers until the CTA has computed all of its tiles.
//   4. Epilogue: dQ times the scale.
//
// Shared memory: QuerySmemLayout. dP and dS are scaled by the pool size if d_output is that of a
// pooled output (see PoolWeight).
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_backward.h"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_launch.cuh"
#include "cuda/mma_position_bias.cuh"
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
  const uint32_t one = PackX2<Element>(1.f, 1.f);
  // B operands: the identity [8, 8], and matrices [8, 8] with ones in one column.
  const uint32_t identity_element =
      lane.row / 2 == lane.pair ? (lane.row % 2 ? one & 0xffff0000u : one & 0xffffu) : 0u;
  const uint32_t identity[2] = {OpaqueRegister(identity_element, lane, kTagIdentity),
                                OpaqueRegister(identity_element, lane, kTagIdentity + 1)};
  uint32_t column_ones[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    column_ones[i] = OpaqueRegister(lane.row == i ? one : 0u, lane, kTagColumnSumOnes + i);
  }
  const float tf32_ones[2] = {OpaqueRegister(1.f, lane, kTagTf32Ones),
                              OpaqueRegister(1.f, lane, kTagTf32Ones + 1)};
  const uint32_t table = SmemAddress(lane.matrix_lo ? tables.Column(lane.ldmatrix_row)
                                                    : tables.Row(lane.ldmatrix_row));
  // [8 entries of the row table, then of the column table][8 channels]
  float d_tables[Traits::kHeadChunks][4] = {};
  AFragment<Traits> q(lane, kTagDqQuery), d_out(lane, kTagDqDOutput);

  TmaBarrier barrier(memory + Layout::kBarrier);

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
    const SkewTranspose skew(staging, mma_tiles.column);
    uint32_t q_offset = mma_tiles.FirstOffset(tile, g.qkv_parts, lane);
    uint32_t output_offset = mma_tiles.FirstOffset(tile, 1, lane);
    uint32_t d_output_offset =
        tile.PooledOffset(g, mma_tiles.top + mma_tiles.row[0], mma_tiles.begin + mma_tiles.column) *
            Traits::kHeadDim +
        2 * lane.pair;
    const uint32_t d_output_step = mma_tiles.Step(1) >> g.pool_shift;
    // Two rows of pixels are one row of a pooled output.
    const int d_output_half_stride =
        Traits::kTileHeads == 1 && g.pool_shift ? 0 : mma_tiles.HalfStride(1);
    RowFragment<Traits> next_q, next_d_out, out;
    TileStore<Traits> store(g, tile, lane, g.qkv_parts);
    float next_lse[2];
    const auto load = [&](uint32_t q_offset, uint32_t d_output_offset, uint32_t output_offset,
                          const RowPredicate& valid) {
      LoadRowFragment<Traits>(query + q_offset, mma_tiles.HalfStride(g.qkv_parts), valid, next_q);
      LoadRowFragment<Traits>(d_output + d_output_offset, d_output_half_stride, valid, next_d_out);
      LoadRowFragment<Traits>(output + output_offset, mma_tiles.HalfStride(1), valid, out);
      next_lse[0] = next_lse[1] = kInvalidLse;
      const float* from = lse + output_offset / Traits::kHeadDim;
      if (valid.first) next_lse[0] = __ldg(from);
      if (valid.second) next_lse[1] = __ldg(from + mma_tiles.HalfStride(1));
    };
    load(q_offset, d_output_offset, output_offset, mma_tiles.Valid(mma_tiles.begin));
    if (g.mask_border) bias.MaskRows(tile, lane, mma_tiles);
    CpAsyncWaitAll();
    if (maps.use_tma) barrier.Wait();
    __syncthreads();
    if (!mma_tiles.active) continue;
    const int slot = buffer.Slot(mma_tiles.top + lane.ldmatrix_row);
    LdmatrixAddresses<Traits, false> addresses(keys, lane, slot, mma_tiles.begin);
    LdmatrixAddresses<Traits, true> transposed(keys, lane, slot, mma_tiles.begin);
#pragma unroll 1
    for (int left = mma_tiles.begin; left < mma_tiles.end && left < tile.columns_left;
         left += Traits::kMmaTileColumns) {
      const RowPredicate valid = mma_tiles.Valid(left);
      float row_bias[4], lane_delta[2] = {0.f, 0.f};  // minus the lane's part of delta
      uint32_t column_bias[4];
      const float minus_lse[2] = {-kLog2E * next_lse[0], -kLog2E * next_lse[1]};
      if (g.mask_border) bias.MaskColumns(tile, lane, mma_tiles, left);
      q.Set(next_q);
      d_out.Set(next_d_out);
#pragma unroll
      for (int i = 0; i < 2 * Traits::kHeadChunks; ++i) {
        const int half = i / Traits::kHeadChunks, c = i % Traits::kHeadChunks;
        const float2 o = UnpackX2(out[half][c], Element());
        const float2 d_o = UnpackX2(next_d_out[half][c], Element());
        lane_delta[half] = fmaf(-o.x, d_o.x, fmaf(-o.y, d_o.y, lane_delta[half]));
      }
      bias.Compute(q, lane, mma_tiles, skew, row_bias, column_bias);
      if (left + Traits::kMmaTileColumns < mma_tiles.end) {
        d_output_offset += d_output_step;
        load(q_offset + mma_tiles.Step(g.qkv_parts), d_output_offset,
             output_offset + mma_tiles.Step(1), mma_tiles.Valid(left + Traits::kMmaTileColumns));
      }
      // Sums over the lanes of a quad, as a product with ones. What TF32 truncates is summed too.
      const float high[2] = {TruncateToTf32(lane_delta[0]), TruncateToTf32(lane_delta[1])};
      float row_delta[4];
      MmaM16N8K8Tf32(row_delta, kZeros, high[0], high[1], lane_delta[0] - high[0],
                     lane_delta[1] - high[1], tf32_ones[0], tf32_ones[1]);
      if (valid.ForQuadLane(lane)) {
        minus_delta[output_offset / Traits::kHeadDim + lane.pair * mma_tiles.HalfStride(1)] =
            lane.pair ? row_delta[2] : row_delta[0];
      }

      Accumulator<Traits> dq = {};
      float ds_row_sum[4] = {}, ds_column_sum[2][4] = {};
#pragma unroll
      for (int step = 0; step < Traits::kSteps; ++step) {
        KvFragment<Traits, false> k, v;
        KvFragment<Traits, true> k_transposed;
        float dp[2][4];  // dP - delta, then dS
        k.Load(addresses, step);
        v.Load(addresses, step, Traits::kBufferBytes);
        k_transposed.Load(transposed, step);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          float s[4];
          bias.InitLogits(2 * step + column, row_bias, column_bias, s);
          MmaQK<Traits>(q, k.b[column], s, s);
          MmaQK<Traits>(d_out, v.b[column], row_delta, dp[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            dp[column][i] *= Exp2Approx(fmaf(s[i], scale_log2, minus_lse[i / 2]));
          }
        }
        uint32_t ds[4];
        PackAFragment<Element>(dp[0], dp[1], ds);
        MmaPV<Traits>(ds, k_transposed, dq);
        MmaM16N8K16<Element>(ds_row_sum, ds[0], ds[1], ds[2], ds[3], identity[0], identity[1]);
        MmaM16N8K16<Element>(ds_column_sum[step / 4], ds[0], ds[1], ds[2], ds[3],
                             column_ones[2 * step % 8], column_ones[2 * step % 8 + 1]);
      }
      // Without relative positions the tables are zeros.
      uint32_t entries[2][2];
      SumsToTableEntries<Traits>(lane, mma_tiles, skew, ds_row_sum, ds_column_sum, entries);
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = Movmatrix(entries[i / 2][i % 2]);
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) {
        MmaM16N8K16<Element>(d_tables[c], a[0], a[1], a[2], a[3], Movmatrix(q.Get(0, c)),
                             Movmatrix(q.Get(1, c)));
      }
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
    StoreTablePartials<Traits::kHeadDim>(lane, d_tables, reinterpret_cast<float*>(memory),
                                         table_partials);
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
      static_cast<Element*>(a.d_query), a.workspace, TablePartials(p, a));
  return MakeTableReduction(p, a, ctas, g.scale * PoolWeight(g));
}

// Tile configurations by head width, tuned on an H100.
struct DqD8 : MmaTileConfig {
  static constexpr int kHeadDim = 8, kWarps = 4, kTileColumns = 28, kMinCtasPerSm = 3;
  static constexpr bool kStagedStore = true, kSplitRows = true;
};
struct DqD16 : MmaTileConfig {
  static constexpr int kHeadDim = 16, kWarps = 4, kTileColumns = 28, kMinCtasPerSm = 2;
  static constexpr bool kSplitRows = true;
};
struct DqD32 : MmaTileConfig {
  static constexpr int kHeadDim = 32, kWarps = 4, kTileColumns = 16, kMinCtasPerSm = 2;
  static constexpr bool kStagedStore = true;
};
struct DqD64 : MmaTileConfig {
  static constexpr int kHeadDim = 64, kWarps = 4, kTileColumns = 16, kMinCtasPerSm = 1;
  static constexpr bool kStagedStore = true;
};
struct DqD64Narrow : MmaTileConfig {  // images up to 8 pixels wide
  static constexpr int kHeadDim = 64, kWarps = 4, kTileColumns = 8, kMinCtasPerSm = 1;
  static constexpr bool kStagedStore = true;
};

// Calls `launch` with the traits of the fastest configuration.
template <typename Element, typename Launch>
void DispatchDqTraits(const LocalAttentionProblem& p, Element, Launch launch) {
  if (p.head_dim == 8) return launch(MmaKernelTraits<Element, DqD8>());
  if (p.head_dim == 16) return launch(MmaKernelTraits<Element, DqD16>());
  if (p.head_dim == 32) return launch(MmaKernelTraits<Element, DqD32>());
  if (p.width <= 8) return launch(MmaKernelTraits<Element, DqD64Narrow>());
  launch(MmaKernelTraits<Element, DqD64>());
}

}  // namespace

TableReduction MmaBackwardDq(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                             cudaStream_t stream) {
  TableReduction reduction = {};
  DispatchHalfType(p, [&](auto zero) {
    DispatchDqTraits(p, zero, [&](auto traits) {
      reduction = LaunchBackwardDq<decltype(traits)>(p, arrays, stream);
    });
  });
  return reduction;
}

}  // namespace sasa
