// What the backward pass by keys knows of queries beyond their channels.
#ifndef SASA_TF_NATIVE_CUDA_QUERY_FACTS_CUH_
#define SASA_TF_NATIVE_CUDA_QUERY_FACTS_CUH_

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/ptx.cuh"
#include "cuda/element_types.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/mma_tiles.cuh"

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
                              const MmaLane& lane, const float* log_sum, const float* minus_deltas,
                              uint32_t words) {
    constexpr int kAtOnce = kWarpSize / S::kHeads;
    const int head = lane.id % S::kHeads, column = lane.id / S::kHeads;
    const bool there = area.head + head < g.heads;
    words += (head * kHead + column * kColumn) * 4;
#pragma unroll 1
    for (int y = ring.FirstNewRow() + threadIdx.x / kWarpSize; y < S::kRegionRows; y += S::kWarps) {
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
        CpAsync4(to + kLogSum * kPlane * 4, log_sum + pixel, inside);
        CpAsync4(to + kDelta * kPlane * 4, minus_deltas + pixel, inside);
        pixel += kAtOnce * g.column_step;
      }
    }
  }

  // The lane's words of the tables, and what the sums of its terms start with: zeros but for the
  // line behind the last of the rows.
  struct Factors {
    uint32_t rows[S::kTableChunks], columns[S::kTableChunks];
    float start[4];

    __device__ Factors(const Tables<S>& tables, const MmaLane& lane) {
      const auto word = [&](const T* line) {
        return reinterpret_cast<const uint32_t*>(line)[lane.pair];
      };
#pragma unroll
      for (int c = 0; c < S::kTableChunks; ++c) {
        rows[c] = word(tables.Row(lane.row, c));
        columns[c] = word(tables.Column(lane.row, c));
      }
      start[0] = start[2] = 0.f;
      start[1] = start[3] = lane.pair == 3 ? kMaskedBias : 0.f;
    }
  };

  // After those and the queries have been copied. `queries`: the region's address.
  __device__ static void Complete(const TileGrid& g, const Area& area, const Ring<S>& ring,
                                  uint32_t queries, const Factors& factors, float through_scale,
                                  const MmaLane& lane, uint32_t* words) {
    constexpr int kAtOnce = 2 / S::kHeads, kStride = S::kWarps * kAtOnce;  // columns
    static_assert(S::kSharedRows % 2 == 0 && S::kRows % 2 == 0);
    static_assert(kStride % 4 == 0);
    // The lane's word to convert.
    const int half = lane.pair % 2, next = kTwoHeads ? 0 : half;
    const bool of_log_sum = lane.pair < 2;
    const int before = (lane.id + kWarpSize - 1) % kWarpSize;
    const auto previous = [&](float x) { return __shfl_sync(kFullMask, x, before); };
#pragma unroll 1
    for (int first = ring.FirstNewRow(); first < S::kRegionRows; first += 8) {
      const int y = first + lane.row, row = ring.At(y);
      const bool within = y < S::kRegionRows, odd = y % 2;
      const bool row_inside =
          area.RowInside(y - kMargin) && (!kTwoHeads || area.head + half < g.heads);
      int x = threadIdx.x / kWarpSize * kAtOnce;
      // Of two heads the first chunks' matrices of both, of wide heads two chunks' of two columns.
      const int pixel = ring.At(first + lane.ldmatrix_row) * S::kPitch + x;
      uint32_t from = queries + (kTwoHeads ? S::Place(pixel, lane.matrix_lo * S::kChunks)
                                           : S::Place(pixel + lane.matrix_lo, lane.matrix_hi));
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
          LdmatrixX2(from, q[0], q[1]);
          MmaM16N8K8<T>(terms, factors.start, q[0], q[1], factors.rows[0]);
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
            LdmatrixX4(from ^ c * 16, q);
            MmaM16N8K16<T>(sum, start, q[0], q[1], q[2], q[3], factor[c % S::kTableChunks],
                          factor[c % S::kTableChunks + 1]);
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // Rows of keys come in twos from an even one on, so that it depends on the query's row
          // which two lines of the table go together.
          const float low = terms[2 * i], high = terms[2 * i + 1], one_less = previous(high);
          const uint32_t word = PackX2<__half>(odd ? one_less : low, odd ? low : high);
          if (within) to[i * kSecond] = word;
        }
        if constexpr (!kTwoHeads) {
          const float one_less = previous(columns[3]);
          const uint32_t even = PackX2<__half>(columns[0], columns[1]);
          const uint32_t odd = PackX2<__half>(lane.pair ? one_less : 0.f, columns[2]);
          if (within) to_columns[0] = even;
          if (within) to_columns[kTermsOfColumn] = odd;
        }
        uint32_t word;
        if (of_log_sum) {
          // A query that is not there has weights of zero.
          const bool inside = row_inside && area.ColumnInside(x + next - kMargin);
          const float term = inside ? -number * through_scale : kMaskedBias;
          word = PackX2<__half>(term, term - __half2float(__float2half(term)));
        } else {
          word = PackX2<__nv_bfloat16>(number, number - __bfloat162float(__float2bfloat16(number)));
        }
        if (within) *own = word;
        from = (from ^ S::Differing(kStride)) + kStride * S::kPixel;
        to += kStride * kColumn;
        own += kStride * kColumn;
        to_columns += kStride * kTermsOfColumn;
      }
    }
  }

  // Where a lane finds the words of its query, in a row of the ring, of a column whose matrix has
  // the patch's pixels as columns. Pairs of lanes: the terms and the log-sum-exp of the first head,
  // then of the second, or of the one again.
  __device__ static int Terms(const MmaLane& lane, int row) {
    const int plane = lane.pair % 2 ? kLogSum : 3 - lane.row / 2;
    return (kTwoHeads ? lane.pair / 2 * kHead : 0) + plane * kPlane + row;
  }
  // The sums of the first head, then of the second; the other two lanes' are not looked at.
  __device__ static int Deltas(const MmaLane& lane, int row) {
    return (kTwoHeads ? lane.pair % 2 * kHead : 0) + kDelta * kPlane + row;
  }
  // The terms with the lane's two columns of keys, in the patch's first covered column; and how far
  // on in another.
  __device__ static int ColumnTerms(const MmaLane& lane, int row) {
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

  __device__ Picks(const MmaLane& lane, const Way<S>& way) {
    const uint32_t low = PackX2<__half>(1.f, 0.f), high = PackX2<__half>(0.f, 1.f);
    const uint32_t sum = PackX2<__nv_bfloat16>(1.f, 1.f);
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
constexpr int kFactBytes =
    QueryFacts<S>::kBytes > Tables<S>::kBytes ? (QueryFacts<S>::kBytes + 15) / 16 * 16
                                              : Tables<S>::kBytes;

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_QUERY_FACTS_CUH_
