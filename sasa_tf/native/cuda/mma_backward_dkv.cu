// The backward pass by keys on the tensor cores: the gradients of keys and values, gathered over
// the queries whose windows reach them. Patches are of keys here, and queries what they cover.
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
#include "cuda/mma_attention.cuh"
#include "cuda/mma_query_stats.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/mma_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// Shared memory: regions of queries and upstream gradients, what is known of the queries, of each
// warp what goes from lane to lane, and what the regions' copies are waited for with.
template <typename S>
struct ByKeys {
  static constexpr int kFacts = 2 * S::kRegion, kRooms = kFacts + kFactBytes<S>;
  static constexpr int kArrivals = kRooms + S::kWarps * Stores<S>::kBytes;
  static constexpr int kBytes = kArrivals + TmaBarrier::kBytes;
  static_assert(kArrivals % TmaBarrier::kBytes == 0);
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    KeyBackward(TileGrid g, const __grid_constant__ RegionBoxes boxes,
                const typename S::T* __restrict__ query, const typename S::T* __restrict__ key,
                const typename S::T* __restrict__ value, const float* __restrict__ rows,
                const float* __restrict__ columns, const float* __restrict__ log_sum,
                const typename S::T* __restrict__ upstream, const float* __restrict__ minus_deltas,
                typename S::T* __restrict__ key_gradient,
                typename S::T* __restrict__ value_gradient, TableSums sums) {
  using T = typename S::T;
  using Facts = QueryFacts<S>;
  extern __shared__ __align__(1024) char memory[];
  const Tables<S> tables(memory + ByKeys<S>::kFacts);
  uint32_t* words = reinterpret_cast<uint32_t*>(memory + ByKeys<S>::kFacts);
  const MmaLane lane;
  const uint32_t queries = SmemAddress(memory);
  boxes.Prefetch();
  tables.Fill(g, rows, columns);
  __syncthreads();
  const typename Facts::Factors factors(tables, lane);
  const Way<S> first_way(g, Area(), lane);
  const Picks<S> picks(lane, first_way);
  // For each column of queries, what keeps out those whose windows do not reach the lane's key, and
  // of two heads the column table's line.
  uint32_t column_line[S::kReachColumns];
  float outside[S::kReachColumns];
#pragma unroll
  for (int covered = 0; covered < S::kReachColumns; ++covered) {
    const int line = first_way.column - covered + kKernel - 1;
    if constexpr (S::kHeads == 2) {
      column_line[covered] = reinterpret_cast<const uint32_t*>(tables.Column(line))[lane.pair];
    }
    outside[covered] = Hidden(line < 0 || line >= kKernel ? kMaskedBias : 0.f, lane, 4 + covered);
  }
  // Tables have been read.
  __syncthreads();
  Facts::Clear(words);
  const float factor = g.scale * kLog2E, share = PoolShare(g), key_factor = g.scale * share;
  char* room = memory + ByKeys<S>::kRooms + threadIdx.x / kWarpSize * Stores<S>::kBytes;
  Operands<S> k(lane, 18), v(lane, 26);
  uint32_t line[4] = {0u, Hidden(0u, lane, 34), Hidden(0u, lane, 35), 0u};

  TmaBarrier arrivals(memory + ByKeys<S>::kArrivals);

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, S::kHeads);
    const Way<S> way(g, area, lane);
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    if (boxes.there) {
      if (threadIdx.x == 0) CopyBoxes<S>(area, ring, boxes, queries, arrivals);
    } else {
      CopyRegion<S>(g, area, ring, lane, query, g.parts, true, queries);
      CopyRegion<S, true>(g, area, ring, lane, upstream, 1, true, queries + S::kRegion);
    }
    // For the sums of output times upstream.
    if (tile == run.begin) GridDependencyWait();
    Facts::Copy(g, area, ring, lane, log_sum, minus_deltas, SmemAddress(words));
    uint32_t at = way.First(area, g.parts, lane);
    Rows<S> next_k, next_v;
    Stores<S> stores(g, area, lane, g.parts);
    const auto with_key = [&](const Halves& inside) {
      return Halves{inside.first && g.has_key, inside.second && g.has_key};
    };
    const auto load = [&](uint32_t at, const Halves& inside) {
      LoadRows<S>(key + at, way.Second(g.parts), with_key(inside), next_k);
      LoadRows<S>(value + at, way.Second(g.parts), inside, next_v);
    };
    load(at, way.Inside(way.begin));
    CpAsyncWaitAll();
    if (boxes.there) arrivals.Wait();
    __syncthreads();
    Facts::Complete(g, area, ring, queries, factors, 1.f / g.scale, lane, words);
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.ldmatrix_row);
    Places<S, false> places(queries, lane, matrix_row, way.begin);
    Places<S, true> transposed(queries, lane, matrix_row, way.begin);
    const int query_row = ring.At(way.top + lane.row);
    const uint32_t* term = words + Facts::Terms(lane, query_row) + way.begin * Facts::kColumn;
    const uint32_t* delta = words + Facts::Deltas(lane, query_row) + way.begin * Facts::kColumn;
    const uint32_t* column_term =
        words + Facts::ColumnTerms(lane, query_row) + way.begin * Facts::kTermsOfColumn;
#pragma unroll 1
    for (int left = way.begin; left < way.end && left < area.columns; left += S::kPatchColumns) {
      const Halves inside = way.Inside(left);
      k.Set(next_k);
      v.Set(next_v);
      if (left + S::kPatchColumns < way.end) {
        load(at + way.Step(g.parts), way.Inside(left + S::kPatchColumns));
      }
      Sums<S> dk = {}, dv = {};
#pragma unroll
      for (int step = 0; step < S::kSteps; ++step) {
        Pixels<S, false> q, up;
        Pixels<S, true> qt, upt;
        float weight[2][4], slope[2][4];
        q.Load(places, step);
        up.Load(places, step, S::kRegion);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const int covered = 2 * step + column;
          float logit[4];
          const uint32_t of_term = term[covered * Facts::kColumn];
          if constexpr (S::kHeads == 2) {
            MmaM16N8K8<__half>(logit, kZeros, picks.terms[0], picks.terms[1], of_term);
            Logits<S>(k, q.at[column], logit, logit);
            line[0] = line[3] = column_line[covered];
            MmaM16N8K16<T>(logit, line[0], line[1], line[2], line[3], q.at[column][S::kColumnChunk],
                          q.at[column][S::kChunks + S::kColumnChunk]);
          } else {
            MmaM16N8K16<__half>(logit, kZeros, picks.columns[0], picks.columns[1], picks.terms[0],
                               picks.terms[1], column_term[Facts::ColumnTermsOf(covered)], of_term);
            Logits<S>(k, q.at[column], logit, logit);
          }
          MmaM16N8K8<__nv_bfloat16>(slope[column], kZeros, picks.deltas[0], picks.deltas[1],
                                   delta[covered * Facts::kColumn]);
          Logits<S>(v, up.at[column], slope[column], slope[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            weight[column][i] = Exp2Approx(covered >= S::kPatchColumns - 1 && covered < kKernel
                                         ? logit[i] * factor
                                         : fmaf(logit[i], factor, outside[covered]));
            slope[column][i] *= weight[column][i];
          }
        }
        uint32_t weights[4], slopes[4];
        PackAFragment<T>(weight[0], weight[1], weights);
        PackAFragment<T>(slope[0], slope[1], slopes);
        upt.Load(transposed, step, S::kRegion);
        Gather<S>(weights, upt, dv);
        qt.Load(transposed, step);
        Gather<S>(slopes, qt, dk);
      }
      Scale<S>(key_factor, key_factor, dk);
      Scale<S>(share, share, dv);
      if (g.has_key) stores.Store(dk, lane, room, key_gradient);
      stores.Store(dv, lane, room, value_gradient);
      stores.Advance();
      at += way.Step(g.parts);
      places.Advance();
      transposed.Advance();
      term += S::kPatchColumns * Facts::kColumn;
      delta += S::kPatchColumns * Facts::kColumn;
      column_term += S::kPatchColumns * Facts::kTermsOfColumn;
    }
  }
  GridDependencyWait();  // of thread blocks without tiles
  SumTables(sums);
}

template <typename S>
void LaunchKeyBackward(const LocalAttentionProblem& p, const BackwardArrays& a,
                       const TableSums& sums, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanPatches<S>(p);
  constexpr int kBytes = ByKeys<S>::kBytes;
  const int workers = RunsOf(g, PersistentGridSize(KeyBackward<S>, g.tiles, S::kThreads, kBytes, g.tiles));
  const RegionBoxes boxes =
      MakeRegionBoxes<S>(KeyBackward<S>, p, p.pool_size == 1, a.query, p.qkv_parts, a.d_output, 1);
  LaunchPdl(KeyBackward<S>, workers, S::kThreads, kBytes, stream, g, boxes,
               static_cast<const T*>(a.query), static_cast<const T*>(a.key),
               static_cast<const T*>(a.value), a.relative_rows, a.relative_columns, a.lse,
               static_cast<const T*>(a.d_output), a.workspace, static_cast<T*>(a.d_key),
               static_cast<T*>(a.d_value), sums);
}

// As fast as was found on an H100.
template <typename T, typename Launch>
void WithKeyShape(const LocalAttentionProblem& p, T, Launch launch) {
  if (p.head_dim == 8) return launch(Shape<T, 8, 4, 28, 3>());
  if (p.head_dim == 16) return launch(Shape<T, 16, 4, 28, 2, true, true>());
  if (p.head_dim == 32) return launch(Shape<T, 32, 4, 16, 3, false, true>());
  if (p.width <= 8) return launch(Shape<T, 64, 4, 8, 2>());
  launch(Shape<T, 64, 4, 16, 2>());
}

void PatchesByKeys(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                   const TableSums& sums, cudaStream_t stream) {
  WithType(p, [&](auto zero) {
    WithKeyShape(p, zero,
                 [&](auto shape) { LaunchKeyBackward<decltype(shape)>(p, arrays, sums, stream); });
  });
}

}  // namespace

void PatchesBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                     cudaStream_t stream) {
  PatchesByKeys(p, arrays, PatchesByQueries(p, arrays, stream), stream);
}

}  // namespace sasa
