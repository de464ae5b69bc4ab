// The backward pass by queries on the tensor cores: their gradients and those of the tables, and
// the sums of output times upstream that the pass by keys needs.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/tma.cuh"
#include "cuda/ptx.cuh"
#include "cuda/launch.h"
#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/mma_regions.cuh"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/mma_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// From covered rows and columns back to lines of the tables: of each half's 8 queries [8, 8 lines
// of the rows] and [8, 8 of the columns]. Without branches, in which lanes would part.
template <typename S>
__device__ inline void ToLines(const MmaLane& lane, const Way<S>& way, const Shear& shear,
                               const float (&row)[4], const float (&column)[2][4],
                               uint32_t (&lines)[2][2]) {
  using T = typename S::T;
  // Of the numbers of two words, the first word's, or from its second on.
  constexpr uint32_t kFromFirst = 0x3210, kFromSecond = 0x5432;
  const int first = lane.id - lane.pair;
  // The word so many lanes further on; behind the last lane of the row, from the other word.
  const auto further = [&](uint32_t word, uint32_t behind, int lanes) {
    return __shfl_sync(kFullMask, lane.pair < lanes ? behind : word,
                       first + (lane.pair + lanes) % 4);
  };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t rows = PackX2<T>(row[2 * half], row[2 * half + 1]);
    lines[half][0] =
        __byte_perm(rows, further(rows, 0u, 1), way.row[half] ? kFromSecond : kFromFirst);
  }
  if constexpr (S::kHeads == 1) {
    uint32_t columns[2];
    shear.ToLines<T>(lane, column, columns);
    lines[0][1] = columns[0];
    lines[1][1] = columns[1];
  } else {
    const int words = way.column / 2;
    const uint32_t from = way.column % 2 ? kFromSecond : kFromFirst;
#pragma unroll
    for (int head = 0; head < 2; ++head) {
      const uint32_t low = PackX2<T>(column[0][2 * head], column[0][2 * head + 1]);
      const uint32_t high = PackX2<T>(column[1][2 * head], column[1][2 * head + 1]);
      lines[head][1] = __byte_perm(further(low, high, words), further(low, high, words + 1), from);
    }
  }
}

// Adds what the tables' lines add to the gradients of the queries. `table_at`: the lane's address
// of lines of the rows, or in the second half of lanes of the columns.
template <typename S>
__device__ inline void AddTables(uint32_t table_at, const uint32_t (&lines)[2][2], Sums<S>& dq) {
  using T = typename S::T;
#pragma unroll
  for (int i = 0; i < S::kTableChunks; ++i) {
    const int column_chunk = S::kColumnChunk + i;
    uint32_t b[2];
    LdmatrixX2Trans(table_at + i * S::kRowLines * 16, b[0], b[1]);
    if constexpr (S::kHeads == 1) {
      MmaM16N8K8<T>(dq[0][i], lines[0][0], lines[1][0], b[0]);
      MmaM16N8K8<T>(dq[0][column_chunk], lines[0][1], lines[1][1], b[1]);
    } else {
      // Each head has half of the rows of its sums.
      float term[S::kChunks][4];
      if constexpr (S::kChunks == 1) {
        MmaM16N8K16<T>(term[0], kZeros, lines[0][0], lines[1][0], lines[0][1], lines[1][1], b[0],
                      b[1]);
      } else {
        MmaM16N8K8<T>(term[0], kZeros, lines[0][0], lines[1][0], b[0]);
        MmaM16N8K8<T>(term[1], kZeros, lines[0][1], lines[1][1], b[1]);
      }
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) dq[i / 2][c][i] += term[c][i];
      }
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    QueryBackward(TileGrid g, const __grid_constant__ RegionBoxes boxes,
                  const typename S::T* __restrict__ query, const typename S::T* __restrict__ key,
                  const typename S::T* __restrict__ value, const float* __restrict__ rows,
                  const float* __restrict__ columns, const typename S::T* __restrict__ output,
                  const float* __restrict__ log_sum, const typename S::T* __restrict__ upstream,
                  typename S::T* __restrict__ query_gradient, float* __restrict__ minus_deltas,
                  float* __restrict__ partials) {
  using T = typename S::T;
  extern __shared__ __align__(1024) char memory[];
  const Tables<S> tables(memory + ByQueries<S>::kTables);
  const MmaLane lane;
  const uint32_t keys = SmemAddress(memory), values = keys + S::kRegion;
  boxes.Prefetch();
  GridDependencyWait();  // it may have written any of the arguments
  tables.Fill(g, rows, columns);
  Terms<S> terms(tables, lane, Way<S>(g, Area(), lane));
  char* room = memory + ByQueries<S>::kRooms + threadIdx.x / kWarpSize * ByQueries<S>::kRoom;
  const float factor = g.scale * kLog2E, query_factor = g.scale * PoolShare(g);
  const uint32_t one = PackX2<T>(1.f, 1.f);
  // A lane's part of the identity [8, 8], and of matrices [8, 8] with ones in one column.
  const uint32_t of_identity =
      lane.row / 2 == lane.pair ? (lane.row % 2 ? one & 0xffff0000u : one & 0xffffu) : 0u;
  const uint32_t identity[2] = {Hidden(of_identity, lane, 20), Hidden(of_identity, lane, 21)};
  uint32_t ones[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) ones[i] = Hidden(lane.row == i ? one : 0u, lane, 22 + i);
  const float floats[2] = {Hidden(1.f, lane, 30), Hidden(1.f, lane, 31)};
  // The tables' lines from the first on: of rows, and of columns.
  const uint32_t table_at =
      SmemAddress(lane.matrix_lo ? tables.Column(lane.ldmatrix_row) : tables.Row(lane.ldmatrix_row));
  float table_sum[S::kChunks][4] = {};  // [8 lines of rows, 8 of columns][8 channels]
  Operands<S> q(lane, 32), up(lane, 40);

  TmaBarrier arrivals(memory + ByQueries<S>::kArrivals);

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    // Heads 8 wide lose more by thread blocks of the next kernel that do not begin side by side.
    if (S::kDepth > 8 && tile + run.step >= run.end) GridLaunchDependents();
    const Area area(g, tile, S::kRows, S::kColumns, S::kHeads);
    const Way<S> way(g, area, lane);
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    if (boxes.there) {
      if (threadIdx.x == 0) CopyBoxes<S>(area, ring, boxes, keys, arrivals);
    } else {
      CopyRegion<S>(g, area, ring, lane, key, g.parts, g.has_key, keys);
      CopyRegion<S>(g, area, ring, lane, value, g.parts, true, values);
    }
    const Shear shear(room, way.column);
    uint32_t q_at = way.First(area, g.parts, lane), output_at = way.First(area, 1, lane);
    uint32_t upstream_at =
        area.Upstream(g, way.top + way.row[0], way.begin + way.column) * S::kDepth + 2 * lane.pair;
    const uint32_t upstream_step = way.Step(1) >> g.pool_shift;
    // Two rows of pixels are one of means.
    const int upstream_second = S::kHeads == 1 && g.pool_shift ? 0 : way.Second(1);
    Rows<S> next_q, next_up, out;
    Stores<S> stores(g, area, lane, g.parts);
    float lse[2];
    const auto load = [&](uint32_t q_at, uint32_t upstream_at, uint32_t output_at,
                          const Halves& inside) {
      LoadRows<S>(query + q_at, way.Second(g.parts), inside, next_q);
      LoadRows<S>(upstream + upstream_at, upstream_second, inside, next_up);
      LoadRows<S>(output + output_at, way.Second(1), inside, out);
      // Of a query that is not there: weights of zero.
      lse[0] = lse[1] = kInvalidLse;
      const float* from = log_sum + output_at / S::kDepth;
      if (inside.first) lse[0] = __ldg(from);
      if (inside.second) lse[1] = __ldg(from + way.Second(1));
    };
    load(q_at, upstream_at, output_at, way.Inside(way.begin));
    if (g.mask_border) terms.SetRows(area, lane, way);
    CpAsyncWaitAll();
    if (boxes.there) arrivals.Wait();
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.ldmatrix_row);
    Places<S, false> places(keys, lane, matrix_row, way.begin);
    Places<S, true> transposed(keys, lane, matrix_row, way.begin);
#pragma unroll 1
    for (int left = way.begin; left < way.end && left < area.columns; left += S::kPatchColumns) {
      const Halves inside = way.Inside(left);
      float row_terms[4], minus_delta[2] = {0.f, 0.f};
      uint32_t column_terms[4];
      const float minus_lse[2] = {-kLog2E * lse[0], -kLog2E * lse[1]};
      if (g.mask_border) terms.SetColumns(area, lane, way, left);
      q.Set(next_q);
      up.Set(next_up);
#pragma unroll
      for (int i = 0; i < 2 * S::kChunks; ++i) {
        const int half = i / S::kChunks, c = i % S::kChunks;
        const float2 a = UnpackX2(out[half][c], T()), b = UnpackX2(next_up[half][c], T());
        minus_delta[half] = fmaf(-a.x, b.x, fmaf(-a.y, b.y, minus_delta[half]));
      }
      terms.Get(q, lane, way, shear, row_terms, column_terms);
      if (left + S::kPatchColumns < way.end) {
        upstream_at += upstream_step;
        load(q_at + way.Step(g.parts), upstream_at, output_at + way.Step(1),
             way.Inside(left + S::kPatchColumns));
      }
      // Sums over the lanes of a row, as a product with ones; what the instruction does not look at
      // of a number is another number.
      const float coarse[2] = {TruncateToTf32(minus_delta[0]), TruncateToTf32(minus_delta[1])};
      float slope_start[4];
      MmaM16N8K8Tf32(slope_start, kZeros, coarse[0], coarse[1], minus_delta[0] - coarse[0],
                   minus_delta[1] - coarse[1], floats[0], floats[1]);
      if (inside.OfNumber(lane)) {
        minus_deltas[output_at / S::kDepth + lane.pair * way.Second(1)] =
            lane.pair ? slope_start[2] : slope_start[0];
      }

      Sums<S> dq = {};
      float drow[4] = {}, dcolumn[2][4] = {};
#pragma unroll
      for (int step = 0; step < S::kSteps; ++step) {
        Pixels<S, false> k, v;
        Pixels<S, true> kt;
        float slope[2][4];
        k.Load(places, step);
        v.Load(places, step, S::kRegion);
        kt.Load(transposed, step);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          float logit[4];
          terms.Of(2 * step + column, row_terms, column_terms, logit);
          Logits<S>(q, k.at[column], logit, logit);
          Logits<S>(up, v.at[column], slope_start, slope[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            slope[column][i] *= Exp2Approx(fmaf(logit[i], factor, minus_lse[i / 2]));
          }
        }
        uint32_t slopes[4];
        PackAFragment<T>(slope[0], slope[1], slopes);
        Gather<S>(slopes, kt, dq);
        MmaM16N8K16<T>(drow, slopes[0], slopes[1], slopes[2], slopes[3], identity[0], identity[1]);
        MmaM16N8K16<T>(dcolumn[step / 4], slopes[0], slopes[1], slopes[2], slopes[3],
                      ones[2 * step % 8], ones[2 * step % 8 + 1]);
      }
      // Without tables, of zeros.
      uint32_t lines[2][2];
      ToLines<S>(lane, way, shear, drow, dcolumn, lines);
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = Movmatrix(lines[i / 2][i % 2]);
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
        MmaM16N8K16<T>(table_sum[c], a[0], a[1], a[2], a[3], Movmatrix(q.Of(0, c)),
                      Movmatrix(q.Of(1, c)));
      }
      AddTables<S>(table_at, lines, dq);
      Scale<S>(query_factor, query_factor, dq);
      stores.Store(dq, lane, room, query_gradient);
      stores.Advance();
      q_at += way.Step(g.parts);
      output_at += way.Step(1);
      places.Advance();
      transposed.Advance();
    }
  }
  GridLaunchDependents();
  if (g.has_relative) {
    StoreTableSums<kKernel, S::kDepth>(lane, table_sum, reinterpret_cast<float*>(memory), partials);
  }
}

template <typename S>
TableSums LaunchQueryBackward(const LocalAttentionProblem& p, const BackwardArrays& a,
                              cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanPatches<S>(p);
  constexpr int kBytes = ByQueries<S>::kBytes;
  const int workers =
      RunsOf(g, PersistentGridSize(QueryBackward<S>, g.tiles, S::kThreads, kBytes, kTableWorkers));
  const RegionBoxes boxes =
      MakeRegionBoxes<S>(QueryBackward<S>, p, p.has_key, a.key, p.qkv_parts, a.value, p.qkv_parts);
  LaunchPdl(QueryBackward<S>, workers, S::kThreads, kBytes, stream, g, boxes,
               static_cast<const T*>(a.query), static_cast<const T*>(a.key),
               static_cast<const T*>(a.value), a.relative_rows, a.relative_columns,
               static_cast<const T*>(a.output), a.lse, static_cast<const T*>(a.d_output),
               static_cast<T*>(a.d_query), a.workspace, TablePartials(p, a));
  return SumsOf(p, a, workers, g.scale * PoolShare(g));
}

// As fast as was found on an H100.
template <typename T, typename Launch>
void WithQueryShape(const LocalAttentionProblem& p, T, Launch launch) {
  if (p.head_dim == 8) return launch(Shape<T, 8, 4, 28, 3, true, true>());
  if (p.head_dim == 16) return launch(Shape<T, 16, 4, 28, 2, false, true>());
  if (p.head_dim == 32) return launch(Shape<T, 32, 4, 16, 2, true>());
  if (p.width <= 8) return launch(Shape<T, 64, 4, 8, 1, true>());
  launch(Shape<T, 64, 4, 16, 1, true>());
}

}  // namespace

TableSums PatchesByQueries(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                           cudaStream_t stream) {
  TableSums sums;
  WithType(p, [&](auto zero) {
    WithQueryShape(p, zero, [&](auto shape) {
      sums = LaunchQueryBackward<decltype(shape)>(p, arrays, stream);
    });
  });
  return sums;
}

}  // namespace sasa
