// The backward pass by keys on the tensor cores.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_instructions.cuh"
#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "cuda_patches.cuh"
#include "cuda_table_sums.cuh"
#include "cuda_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// What the backward pass by keys knows of the queries of its region, as words in shared memory, two
// numbers in a word. For each head six planes: four with a query's terms with two neighbouring rows
// of keys each (q.r, in float16); one with minus its log-sum-exp, divided by the scale as if it
// were a term too, as two numbers in float16 whose sum it is; and one with minus its sum of output
// times upstream, as two in bfloat16.
//
// Of a wide head also four words side by side with a query's terms with the columns of keys: 7
// numbers, after an empty one where the query's column is odd, so that those of two neighbouring
// columns of keys are a word, whatever the query's column.
template <typename S>
struct QueryFacts {
  using T = typename S::T;
  static constexpr bool kTwoHeads = S::kHeads == 2;
  static constexpr int kLogSum = 4, kDelta = 5, kOfHead = 6;  // planes
  // One column of queries after the other; odd, so that the queries of a row lie in different
  // banks, and those of the second head in the banks that are left.
  static constexpr int kColumn = S::kRingRows | 1;
  // So that as many queries of a column lie in different banks in four planes.
  static constexpr int kPlane = (S::kRegionColumns * kColumn + 23) / 32 * 32 + 8;
  static constexpr int kHead = kOfHead * kPlane;
  // Words of the column terms: from one column of queries to the next, and where they begin. Those
  // of the first and last query are read beyond.
  static constexpr int kTermsOfColumn = 4 * S::kRingRows, kBeyond = 4;
  static constexpr int kColumnTerms = kHead + kBeyond;
  static constexpr int kWords =
      kTwoHeads ? 2 * kHead : kColumnTerms + S::kRegionColumns * kTermsOfColumn + kBeyond;
  static constexpr int kBytes = kWords * 4;
  static_assert(kPlane >= S::kRegionColumns * kColumn && kHead % 32 == 16);
  // Of the planes, from what the first half of a matrix's rows is about to what the second half is:
  // the other head, or the next column.
  static constexpr int kSecond = kTwoHeads ? kHead : kColumn;

  // Once: column terms that are read where there are none must be numbers.
  __device__ static void Clear(uint32_t* words) {
    if (kTwoHeads) return;
    for (int i = kHead + threadIdx.x; i < kWords; i += S::kThreads) words[i] = 0;
  }

  // Starts to copy log-sum-exps and sums of the new rows, as they are.
  __device__ static void Copy(const TileGrid& g, const Area& area, const Ring<S>& ring,
                              const Lane& lane, const float* log_sum,
                              const float* minus_deltas, uint32_t words) {
    constexpr int kAtOnce = kWarp / S::kHeads;
    const int head = lane.number % S::kHeads, column = lane.number / S::kHeads;
    const bool there = area.head + head < g.heads;
    words += (head * kHead + column * kColumn) * 4;
#pragma unroll 1
    for (int y = ring.FirstNewRow() + threadIdx.x / kWarp; y < S::kRegionRows; y += S::kWarps) {
      const int row = ring.At(y);
      const bool row_inside = there && area.RowInside(y - kMargin);
      int64_t pixel =
          area.First(1) + head + (y - kMargin) * g.row_step + (column - kMargin) * g.column_step;
#pragma unroll
      for (int turn = 0; turn < (S::kRegionColumns + kAtOnce - 1) / kAtOnce; ++turn) {
        const int x = turn * kAtOnce + column;
        if (x >= S::kRegionColumns) break;
        const bool inside = row_inside && area.ColumnInside(x - kMargin);
        const uint32_t to = words + (turn * kAtOnce * kColumn + row) * 4;
        CopyWordAsync(to + kLogSum * kPlane * 4, log_sum + pixel, inside);
        CopyWordAsync(to + kDelta * kPlane * 4, minus_deltas + pixel, inside);
        pixel += kAtOnce * g.column_step;
      }
    }
  }

  // The lane's words of the tables, and what the sums of its terms start with: zeros but for the
  // line behind the last of the rows.
  struct Factors {
    uint32_t rows[S::kTableChunks], columns[S::kTableChunks];
    float start[4];

    __device__ Factors(const Tables<S>& tables, const Lane& lane) {
      const auto word = [&](const T* line) {
        return reinterpret_cast<const uint32_t*>(line)[lane.pair];
      };
#pragma unroll
      for (int c = 0; c < S::kTableChunks; ++c) {
        rows[c] = word(tables.Row(lane.row, c));
        columns[c] = word(tables.Column(lane.row, c));
      }
      start[0] = start[2] = 0.f;
      start[1] = start[3] = lane.pair == 3 ? kNever : 0.f;
    }
  };

  // After those and the queries have been copied. `queries`: the planes' address.
  __device__ static void Complete(const TileGrid& g, const Area& area, const Ring<S>& ring,
                                  uint32_t queries, const Factors& factors, float through_scale,
                                  const Lane& lane, uint32_t* words) {
    static_assert(S::kSharedRows % 2 == 0 && S::kRows % 2 == 0);
    constexpr int kAtOnce = 2 / S::kHeads, kStride = S::kWarps * kAtOnce;  // columns
    // The lane's word to convert.
    const int half = lane.pair % 2, next = kTwoHeads ? 0 : half;
    const bool of_log_sum = lane.pair < 2;
    const int before = (lane.number + kWarp - 1) % kWarp;
    const auto previous = [&](float x) { return __shfl_sync(kAllLanes, x, before); };
#pragma unroll 1
    for (int first = ring.FirstNewRow(); first < S::kRegionRows; first += 8) {
      const int y = first + lane.row, row = ring.At(y);
      const bool within = y < S::kRegionRows, odd = y % 2;
      const bool row_inside =
          area.RowInside(y - kMargin) && (!kTwoHeads || area.head + half < g.heads);
      int x = threadIdx.x / kWarp * kAtOnce;
      // Of two heads the first chunks' matrices of both, of wide heads two chunks' of two columns.
      uint32_t from = queries + (ring.At(first + lane.matrix_row) * S::kPitch + x) * 16;
      from += kTwoHeads ? lane.half * S::kChunks * S::kPlane
                        : lane.half * 16 + lane.upper * S::kPlane;
      uint32_t* to = words + lane.pair * kPlane + x * kColumn + row;
      uint32_t* own =
          words + (of_log_sum ? kLogSum : kDelta) * kPlane + half * kSecond + x * kColumn + row;
      uint32_t* to_columns = words + kColumnTerms + x * kTermsOfColumn + row * 4 + lane.pair;
#pragma unroll 2
      for (; x < S::kRegionColumns; x += kStride) {
        const float number = within ? __uint_as_float(*own) : 0.f;
        float terms[4], columns[4];
        if constexpr (kTwoHeads) {
          uint32_t q[2];
          LoadTwoMatrices(from, q[0], q[1]);
          Multiply8<T>(terms, factors.start, q[0], q[1], factors.rows[0]);
        } else {
#pragma unroll
          for (int c = 0; c < S::kChunks; c += 2) {
            const bool of_rows = c < S::kTableChunks, begins = c % S::kTableChunks == 0;
            auto& sum = of_rows ? terms : columns;
            const auto& factor = of_rows ? factors.rows : factors.columns;
            const auto& start = !begins   ? const_cast<const float (&)[4]>(sum)
                                : of_rows ? factors.start
                                          : kZeros;
            uint32_t q[4];
            LoadMatrices(from + c * S::kPlane, q);
            Multiply16<T>(sum, start, q[0], q[1], q[2], q[3], factor[c % S::kTableChunks],
                          factor[c % S::kTableChunks + 1]);
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // Rows of keys come in twos from an even one on, so that it depends on the query's row
          // which two lines of the table go together.
          const float low = terms[2 * i], high = terms[2 * i + 1], one_less = previous(high);
          const uint32_t word = Pack<__half>(odd ? one_less : low, odd ? low : high);
          if (within) to[i * kSecond] = word;
        }
        if constexpr (!kTwoHeads) {
          const float one_less = previous(columns[3]);
          const uint32_t even = Pack<__half>(columns[0], columns[1]);
          const uint32_t odd = Pack<__half>(lane.pair ? one_less : 0.f, columns[2]);
          if (within) to_columns[0] = even;
          if (within) to_columns[kTermsOfColumn] = odd;
        }
        uint32_t word;
        if (of_log_sum) {
          // A query that is not there has weights of zero.
          const bool inside = row_inside && area.ColumnInside(x + next - kMargin);
          const float term = inside ? -number * through_scale : kNever;
          word = Pack<__half>(term, term - __half2float(__float2half(term)));
        } else {
          word = Pack<__nv_bfloat16>(number, number - __bfloat162float(__float2bfloat16(number)));
        }
        if (within) *own = word;
        from += kStride * 16;
        to += kStride * kColumn;
        own += kStride * kColumn;
        to_columns += kStride * kTermsOfColumn;
      }
    }
  }

  // Where a lane finds the words of its query, in a row of the ring, of a column whose matrix has
  // the patch's pixels as columns. Pairs of lanes: the terms and the log-sum-exp of the first head,
  // then of the second, or of the one again.
  __device__ static int Terms(const Lane& lane, int row) {
    const int plane = lane.pair % 2 ? kLogSum : 3 - lane.row / 2;
    return (kTwoHeads ? lane.pair / 2 * kHead : 0) + plane * kPlane + row;
  }
  // The sums of the first head, then of the second; the other two lanes' are not looked at.
  __device__ static int Deltas(const Lane& lane, int row) {
    return (kTwoHeads ? lane.pair % 2 * kHead : 0) + kDelta * kPlane + row;
  }
  // The terms with the lane's two columns of keys, in the patch's first covered column; and how far
  // on in another.
  __device__ static int ColumnTerms(const Lane& lane, int row) {
    return kColumnTerms + row * 4 + lane.pair + kMargin;
  }
  __device__ static constexpr int ColumnTermsOf(int covered) {
    return covered * kTermsOfColumn - covered / 2;
  }
};

// What a patch's keys, as rows, pick of the facts of a column of queries: factors that are the same
// for all patches.
template <typename S>
struct Picks {
  static constexpr bool kTwoHeads = S::kHeads == 2;
  uint32_t terms[2];    // of the row terms and the log-sum-exp
  uint32_t columns[2];  // of the column terms; of wide heads
  uint32_t deltas[2];   // of the sums

  __device__ Picks(const Lane& lane, const Way<S>& way) {
    const uint32_t low = Pack<__half>(1.f, 0.f), high = Pack<__half>(0.f, 1.f);
    const uint32_t sum = Pack<__nv_bfloat16>(1.f, 1.f);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // The first of two heads, and the one, have the facts in the first lanes of a row.
      const int first = kTwoHeads ? 2 * half : 0;
      uint32_t pick = 0;
      if (lane.pair == first) pick = way.row[half] ? high : low;
      if (lane.pair == first + 1) pick = low | high;
      terms[half] = Hidden(pick, lane, half);
      pick = way.column / 2 == lane.pair ? (way.column % 2 ? high : low) : 0u;
      columns[half] = Hidden(pick, lane, 2 + half);
      deltas[half] = Hidden(lane.pair == first / 2 ? sum : 0u, lane, 30 + half);
    }
  }
};

// Shared memory for what is known of the queries; the tables are only read before the first facts
// take their place.
template <typename S>
constexpr int kFactBytes = QueryFacts<S>::kBytes > Tables<S>::kBytes
                               ? (QueryFacts<S>::kBytes + 15) / 16 * 16
                               : Tables<S>::kBytes;

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    KeyBackward(TileGrid g, const typename S::T* __restrict__ query,
                const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
                const float* __restrict__ rows, const float* __restrict__ columns,
                const float* __restrict__ log_sum, const typename S::T* __restrict__ upstream,
                const float* __restrict__ minus_deltas, typename S::T* __restrict__ key_gradient,
                typename S::T* __restrict__ value_gradient, TableSums sums) {
  using T = typename S::T;
  using Facts = QueryFacts<S>;
  extern __shared__ __align__(128) char memory[];
  const Tables<S> tables(memory + 2 * S::kRegion);
  uint32_t* words = reinterpret_cast<uint32_t*>(memory + 2 * S::kRegion);
  const Lane lane;
  const uint32_t queries = SharedAddress(memory);
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
    outside[covered] = Hidden(line < 0 || line >= kKernel ? kNever : 0.f, lane, 4 + covered);
  }
  // Tables have been read.
  __syncthreads();
  Facts::Clear(words);
  const float factor = g.scale * kLog2E, share = PoolShare(g), key_factor = g.scale * share;
  char* room = memory + 2 * S::kRegion + kFactBytes<S> + threadIdx.x / kWarp * Stores<S>::kBytes;
  Operands<S> k(lane, 18), v(lane, 26);
  uint32_t line[4] = {0u, Hidden(0u, lane, 34), Hidden(0u, lane, 35), 0u};

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, S::kHeads);
    const Way<S> way(g, area, lane);
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    CopyRegion<S>(g, area, ring, lane, query, g.parts, true, queries);
    CopyRegion<S, true>(g, area, ring, lane, upstream, 1, true, queries + S::kRegion);
    Facts::Copy(g, area, ring, lane, log_sum, minus_deltas, SharedAddress(words));
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
    load(at, way.Inside(0));
    WaitForCopies();
    __syncthreads();
    Facts::Complete(g, area, ring, queries, factors, 1.f / g.scale, lane, words);
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.matrix_row);
    uint32_t q_at = queries + Pixels<S, false>::Offset(lane, matrix_row);
    uint32_t transposed_at = queries + Pixels<S, true>::Offset(lane, matrix_row);
    const int query_row = ring.At(way.top + lane.row);
    const uint32_t* term = words + Facts::Terms(lane, query_row);
    const uint32_t* delta = words + Facts::Deltas(lane, query_row);
    const uint32_t* column_term = words + Facts::ColumnTerms(lane, query_row);
#pragma unroll 1
    for (int left = 0; left < S::kColumns && left < area.columns; left += S::kPatchColumns) {
      const Halves inside = way.Inside(left);
      k.Set(next_k);
      v.Set(next_v);
      if (left + S::kPatchColumns < S::kColumns) {
        load(at + way.Step(g.parts), way.Inside(left + S::kPatchColumns));
      }
      Sums<S> dk = {}, dv = {};
#pragma unroll
      for (int step = 0; step < S::kSteps; ++step) {
        Pixels<S, false> q, up;
        Pixels<S, true> qt, upt;
        float weight[2][4], slope[2][4];
        q.Load(q_at, step);
        up.Load(q_at + S::kRegion, step);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const int covered = 2 * step + column;
          float logit[4];
          const uint32_t of_term = term[covered * Facts::kColumn];
          if constexpr (S::kHeads == 2) {
            Multiply8<__half>(logit, kZeros, picks.terms[0], picks.terms[1], of_term);
            Logits<S>(k, q.at[column], logit, logit);
            line[0] = line[3] = column_line[covered];
            Multiply16<T>(logit, line[0], line[1], line[2], line[3],
                          q.at[column][S::kColumnChunk],
                          q.at[column][S::kChunks + S::kColumnChunk]);
          } else {
            Multiply16<__half>(logit, kZeros, picks.columns[0], picks.columns[1], picks.terms[0],
                               picks.terms[1], column_term[Facts::ColumnTermsOf(covered)],
                               of_term);
            Logits<S>(k, q.at[column], logit, logit);
          }
          Multiply8<__nv_bfloat16>(slope[column], kZeros, picks.deltas[0], picks.deltas[1],
                                   delta[covered * Facts::kColumn]);
          Logits<S>(v, up.at[column], slope[column], slope[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            weight[column][i] = Exp2(covered >= S::kPatchColumns - 1 && covered < kKernel
                                         ? logit[i] * factor
                                         : fmaf(logit[i], factor, outside[covered]));
            slope[column][i] *= weight[column][i];
          }
        }
        uint32_t weights[4], slopes[4];
        PackRows<T>(weight[0], weight[1], weights);
        PackRows<T>(slope[0], slope[1], slopes);
        upt.Load(transposed_at + S::kRegion, step);
        Gather<S>(weights, upt, dv);
        qt.Load(transposed_at, step);
        Gather<S>(slopes, qt, dk);
      }
      if (g.has_key) stores.Store(dk, key_factor, key_factor, lane, room, key_gradient);
      stores.Store(dv, share, share, lane, room, value_gradient);
      stores.Advance();
      at += way.Step(g.parts);
      q_at += S::kPatchColumns * 16;
      transposed_at += S::kPatchColumns * 16;
      term += S::kPatchColumns * Facts::kColumn;
      delta += S::kPatchColumns * Facts::kColumn;
      column_term += S::kPatchColumns * Facts::kTermsOfColumn;
    }
  }
  SumTables(sums);
}

template <typename S>
void LaunchKeyBackward(const Problem& p, const BackwardArrays& a, const TableSums& sums,
                       cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, S::kRows, S::kColumns, S::kHeads);
  constexpr int kBytes = 2 * S::kRegion + kFactBytes<S> + S::kWarps * Stores<S>::kBytes;
  const int workers = RunsOf(g, Workers(KeyBackward<S>, g.tiles, S::kThreads, kBytes, g.tiles));
  Enqueue(KeyBackward<S>, workers, S::kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          a.log_sum, static_cast<const T*>(a.upstream), a.scratch, static_cast<T*>(a.key_gradient),
          static_cast<T*>(a.value_gradient), sums);
}

// As fast as was found on an H100.
template <typename T, typename Launch>
void WithKeyShape(const Problem& p, T, Launch launch) {
  if (p.depth == 8) return launch(Shape<T, 8, 4, 28, 3>());
  if (p.depth == 16) return launch(Shape<T, 16, 4, 28, 2, true>());
  if (p.depth == 32) return launch(Shape<T, 32, 4, 16, 3>());
  if (p.width <= 8) return launch(Shape<T, 64, 4, 8, 2>());
  launch(Shape<T, 64, 4, 16, 2>());
}

void ByKeys(const Problem& p, const BackwardArrays& arrays, const TableSums& sums,
            cudaStream_t stream) {
  WithType(p, [&](auto zero) {
    WithKeyShape(p, zero, [&](auto shape) {
      LaunchKeyBackward<decltype(shape)>(p, arrays, sums, stream);
    });
  });
}

}  // namespace

void PatchesBackward(const Problem& p, const BackwardArrays& arrays, cudaStream_t stream) {
  ByKeys(p, arrays, PatchesByQueries(p, arrays, stream), stream);
}

}  // namespace sasa
