// Local attention on the tensor cores of NVIDIA GPUs (sm_80 and later) for narrow heads, 8 or 16
// wide, in half precision.
//
// A warp owns a patch of 2 x 4 pixels of two heads, which are the 16 rows of a matrix instruction:
// 8 pixels of the one head, then of the other, each with its own channels and zeros for the
// other's. The windows of the patch cover 8 x 10 pixels; a column of 8 of them are the columns of
// an instruction. So a row term of a logit is the same number for all 10 columns, with which the
// sums start, and a column term is a product of the patch's terms with one-hot columns. 49 of the
// 80 logits that are computed for a query are used.
//
// The backward pass by keys is the same with the roles of queries and keys exchanged.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_instructions.cuh"
#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "cuda_table_sums.cuh"
#include "cuda_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr int kKernel = 7;  // window, rows and columns
constexpr int kMargin = kKernel / 2;
constexpr int kPatchRows = 2, kPatchColumns = 4;
constexpr int kReachRows = kPatchRows + kKernel - 1;  // pixels that a patch's windows cover:
constexpr int kReachColumns =
    kPatchColumns + kKernel - 1;           // the columns of one instruction, of ten
constexpr int kSteps = kReachColumns / 2;  // of two columns, 16 pixels
static_assert(kReachRows == 8 && kReachColumns % 2 == 0);
// Lines of the tables, padded with zeros: of a covered row, counted from the patch's last row, and
// of a covered column, counted from the patch's last column.
constexpr int kRowLines = kReachRows + 1, kColumnLines = 16 + kPatchColumns - 1;
constexpr int kRowPad = kPatchRows - 1, kColumnPad = kPatchColumns - 1;

// What a kernel is compiled for: the head, and the tile of a thread block, of which each warp has a
// row of patches. A thread block goes down the image, tile by tile, and keeps what the next tile's
// region shares with that of the tile before: rows of the region lie in a ring.
template <typename T_, int kDepth_, int kWarps_, int kColumns_, int kBlocks_>
struct Shape {
  using T = T_;
  static constexpr int kDepth = kDepth_;
  static constexpr int kChunks = kDepth / 8;        // of 8 channels, of a head
  static constexpr int kPlanes = 2 * kChunks;       // of two heads
  static constexpr int kColumnChunk = kChunks - 1;  // with the channels of the column table
  static constexpr int kWarps = kWarps_, kThreads = 32 * kWarps;
  static constexpr int kBlocks = kBlocks_;  // at a time on a multiprocessor
  static constexpr int kRows = kPatchRows * kWarps, kColumns = kColumns_;  // of the tile
  static_assert(kColumns % kPatchColumns == 0);
  static constexpr int kRegionRows = kRows + kKernel - 1;
  static constexpr int kRegionColumns = kColumns + kKernel - 1;
  static constexpr int kSharedRows = kKernel - 1;  // of the regions of two tiles
  // Of the ring that holds the region's: 8 rows that follow each other lie in different banks, also
  // where the ring ends.
  static constexpr int kRingRows = (kRegionRows + 7) / 8 * 8;
  // Of 16 bytes; odd, so that 8 pixels of a column lie in different banks.
  static constexpr int kPitch = kRegionColumns | 1;
  // In bytes; neighbouring pixels of all planes lie in different banks.
  static constexpr int kPlane = (kRingRows * kPitch + 7) / 8 * 8 * 16 + 8 / kPlanes * 16;
  static constexpr int kRegion = kPlanes * kPlane;
};

// The tables' channels of one chunk as lines of 16 bytes, in shared memory.
template <typename S>
__device__ inline void FillTables(const TileGrid& g, const float* rows, const float* columns,
                                  typename S::T* row_lines, typename S::T* column_lines) {
  using T = typename S::T;
  constexpr int kHalf = S::kDepth / 2;
  for (int i = threadIdx.x; i < (kRowLines + kColumnLines) * 8; i += S::kThreads) {
    const bool row = i < kRowLines * 8;
    const int line = row ? i / 8 - kRowPad : i / 8 - kRowLines - kColumnPad;
    // Where a head is one chunk, its second half belongs to the columns.
    const int channel = i % 8 - (row || kHalf == 8 ? 0 : kHalf);
    float x = 0.f;
    if (g.has_relative && line >= 0 && line < kKernel && channel >= 0 && channel < kHalf) {
      x = (row ? rows : columns)[line * kHalf + channel];
    }
    (row ? row_lines : column_lines - kRowLines * 8)[i] = T(x);
  }
}

// Which rows of a tile's region are to be copied, and where in the ring rows lie.
template <typename S>
struct Ring {
  bool follows = false;  // on the tile above, which has the first rows
  int slot = 0;          // of the region's first row

  // To the next tile.
  __device__ void Turn(bool tile_follows) {
    follows = tile_follows;
    slot = follows ? At(S::kRows) : 0;
  }
  __device__ int FirstNewRow() const { return follows ? S::kSharedRows : 0; }
  // Where a row of the region lies.
  __device__ int At(int row) const {
    row += slot;
    return row < S::kRingRows ? row : row - S::kRingRows;
  }
};

// Copies the new rows of the tile and of the halo around it into planes [head, chunk][row][column]
// of 16 bytes.
template <typename S>
__device__ inline void CopyRegion(const TileGrid& g, const Area& area, const Ring<S>& ring,
                                  const Lane& lane, const typename S::T* from, int parts,
                                  bool there, uint32_t planes) {
  using T = typename S::T;
  constexpr int kAtOnce = kWarp / S::kPlanes;  // pixels of a row
  constexpr int kTurns = (S::kRegionColumns + kAtOnce - 1) / kAtOnce;
  const int warp = threadIdx.x / kWarp, plane = lane.number % S::kPlanes;
  const int column = lane.number / S::kPlanes;
  const int row_step = g.row_step * parts * S::kDepth;
  const int column_step = g.column_step * parts * S::kDepth * kAtOnce;
  there = there && area.head + plane / S::kChunks < g.heads;
  bool inside[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    inside[turn] = there && area.ColumnInside(column + turn * kAtOnce - kMargin);
  }
  const int first = ring.FirstNewRow() + warp;
  const T* line = from + area.First(parts) * S::kDepth + plane * 8 + (first - kMargin) * row_step +
                  (column - kMargin) * g.column_step * parts * S::kDepth;
  planes += plane * S::kPlane + column * 16;
#pragma unroll 2
  for (int row = first; row < S::kRegionRows; row += S::kWarps) {
    const bool row_inside = area.RowInside(row - kMargin);
    const uint32_t to = planes + ring.At(row) * S::kPitch * 16;
    const T* pixel = line;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (turn < kTurns - 1 || column + turn * kAtOnce < S::kRegionColumns) {
        CopyAsync(to + turn * kAtOnce * 16, pixel, row_inside && inside[turn]);
      }
      pixel += column_step;
    }
    line += S::kWarps * row_step;
  }
}

// A patch's rows of a matrix: of each head and chunk, two channels of the lane's pixel.
template <typename S>
using Rows = uint32_t[2][S::kChunks];

// `from`: the lane's channels of its pixel.
template <typename S>
__device__ inline void LoadRows(const typename S::T* from, bool first, bool second, Rows<S>& to) {
#pragma unroll
  for (int i = 0; i < S::kPlanes; ++i) {
    const int head = i / S::kChunks, c = i % S::kChunks;
    to[head][c] = 0;
    if (head ? second : first) {
      to[head][c] = __ldg(reinterpret_cast<const uint32_t*>(from + head * S::kDepth + 8 * c));
    }
  }
}

// Stores the head's rows of each head's sums.
template <typename S>
__device__ inline void StoreRows(const float (&from)[2][S::kChunks][4], float first_factor,
                                 float second_factor, bool first, bool second, typename S::T* to) {
#pragma unroll
  for (int i = 0; i < S::kPlanes; ++i) {
    const int head = i / S::kChunks, c = i % S::kChunks;
    const float factor = head ? second_factor : first_factor;
    if (head ? second : first) {
      *reinterpret_cast<uint32_t*>(to + head * S::kDepth + 8 * c) = Pack<typename S::T>(
          from[head][c][2 * head] * factor, from[head][c][2 * head + 1] * factor);
    }
  }
}

// A patch's rows as operands: each head's beside zeros in the place of the other's channels.
template <typename S>
struct Operands {
  uint32_t a[S::kChunks][4];

  // Each place has a zero of its own, as registers of one operand follow each other.
  __device__ Operands(const Lane& lane, int place) {
#pragma unroll
    for (int i = 0; i < 4 * S::kChunks; ++i) a[i / 4][i % 4] = Hidden(0u, lane, place + i);
  }
  __device__ void Set(const Rows<S>& rows) {
    if constexpr (S::kChunks == 1) {
      a[0][0] = rows[0][0];
      a[0][3] = rows[1][0];
    } else {
      a[0][0] = rows[0][0];
      a[0][2] = rows[0][1];
      a[1][1] = rows[1][0];
      a[1][3] = rows[1][1];
    }
  }
};

// The way of a warp along its row of patches: the lane's pixel.
template <typename S>
struct Way {
  int row, column;    // in the patch
  int top;            // of the patches, in the tile
  bool live, inside;  // whether the patches have pixels, and the lane's row is one of the image
  int columns;        // of the tile in the image, from the lane's in the first patch on
  int pixel, step;    // counted in heads of one part: from the tile's first, and to the next patch

  __device__ Way(const TileGrid& g, const Area& area, const Lane& lane) {
    row = lane.row / kPatchColumns;
    column = lane.row % kPatchColumns;
    top = threadIdx.x / kWarp * kPatchRows;
    live = top < area.rows;
    inside = top + row < area.rows;
    columns = (area.columns < S::kColumns ? area.columns : S::kColumns) - column;
    pixel = (top + row) * g.row_step + column * g.column_step;
    step = kPatchColumns * g.column_step;
  }
  // Where, in an array of so many parts, the lane's channels of its first pixel begin.
  __device__ uint32_t First(const Area& area, int parts, const Lane& lane) const {
    return (area.First(parts) + pixel * parts) * S::kDepth + 2 * lane.pair;
  }
  // From there to those of the next patch's.
  __device__ uint32_t Step(int parts) const { return step * parts * S::kDepth; }
  // Whether the lane has a pixel in the patch `left` columns after the tile's first.
  __device__ bool Inside(int left) const { return inside && left < columns; }
};

// The matrices of two columns of covered pixels: [column][head, chunk], pixels as rows of 8
// channels, or (transposed) as columns.
template <typename S, bool kTransposed>
struct Pixels {
  uint32_t at[2][S::kPlanes];

  // Where in the planes the lane's row of the first matrices begins, of the row of the ring that it
  // reads. The columns of a matrix that
  // is multiplied from the left are channels, of one column of pixels after the other; transposed,
  // of one head after the other.
  __device__ static uint32_t Offset(const Lane& lane, int row) {
    const int matrix = lane.number / 8;
    const int plane = kTransposed ? matrix / 2 : matrix % S::kPlanes;
    const int column = kTransposed ? matrix % 2 : matrix / S::kPlanes;
    return plane * S::kPlane + (row * S::kPitch + column) * 16;
  }
  // `from`: of the patch's first covered pixel, plus the lane's offset.
  __device__ void Load(uint32_t from, int step) {
    uint32_t four[4];
    if constexpr (S::kPlanes == 2) {
      Four(from + 32 * step, four);
#pragma unroll
      for (int i = 0; i < 4; ++i) (kTransposed ? at[i % 2][i / 2] : at[i / 2][i % 2]) = four[i];
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Four(from + 32 * step + half * (kTransposed ? 2 * S::kPlane : 16), four);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          (kTransposed ? at[i % 2][2 * half + i / 2] : at[half][i]) = four[i];
      }
    }
  }
  __device__ static void Four(uint32_t from, uint32_t (&to)[4]) {
    if constexpr (kTransposed) {
      LoadTransposed(from, to);
    } else {
      LoadMatrices(from, to);
    }
  }
};

// sum [16, 8 pixels] = start + the patch's rows, each head's times its own channels of a column.
template <typename S>
__device__ inline void Logits(const Operands<S>& rows, const uint32_t (&b)[S::kPlanes],
                              const float (&start)[4], float (&sum)[4]) {
  const auto& a = rows.a;
  Multiply16<typename S::T>(sum, start, a[0][0], a[0][1], a[0][2], a[0][3], b[0], b[1]);
  if constexpr (S::kChunks == 2) {
    Multiply16<typename S::T>(sum, a[1][0], a[1][1], a[1][2], a[1][3], b[2], b[3]);
  }
}

// By head, sum [16, D] += weights [16, 16 pixels] times the head's channels; a head's rows count.
template <typename S>
__device__ inline void Gather(const uint32_t (&a)[4], const Pixels<S, true>& b,
                              float (&sum)[2][S::kChunks][4]) {
#pragma unroll
  for (int i = 0; i < S::kPlanes; ++i) {
    Multiply16<typename S::T>(sum[i / S::kChunks][i % S::kChunks], a[0], a[1], a[2], a[3],
                              b.at[0][i], b.at[1][i]);
  }
}

// The terms of a patch's logits: of positions and of what takes no part.
template <typename S>
struct Terms {
  using T = typename S::T;
  uint32_t row_at, column_at;  // addresses that the lane gives to ldmatrix
  float row_start[4];
  uint32_t column_most[2];  // that a column term can be, in half precision
  uint32_t one_hot[8];

  __device__ Terms(const T* row_lines, const T* column_lines, const Lane& lane, const Way<S>& way) {
    row_at = SharedAddress(row_lines) + (lane.matrix_row + kRowPad - lane.half) * 16;
    column_at = SharedAddress(column_lines) +
                (8 * lane.upper + lane.matrix_row + kColumnPad - lane.half) * 16;
    SetColumns(lane, way, [](int) { return true; });
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t hot = i % 2 ? Pack<__half>(0.f, 1.f) : Pack<__half>(1.f, 0.f);
      one_hot[i] = Hidden(lane.pair == i / 2 ? hot : 0u, lane, 12 + i);
    }
  }

  // Of the tile: with border "mask", pixels beyond the image are never attended to.
  __device__ void SetRows(bool mask_border, const Area& area, const Lane& lane, const Way<S>& way) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 2 * lane.pair + i % 2;
      const bool never = row < way.row || row >= way.row + kKernel ||
                         (mask_border && !area.RowInside(way.top + row - kMargin));
      row_start[i] = Hidden(never ? kNever : 0.f, lane, i);
    }
  }
  // Likewise of the patch `left` columns after the tile's first.
  __device__ void SetColumns(const Area& area, const Lane& lane, const Way<S>& way, int left) {
    SetColumns(lane, way, [&](int covered) { return area.ColumnInside(left + covered - kMargin); });
  }
  template <typename Inside>
  __device__ void SetColumns(const Lane& lane, const Way<S>& way, Inside inside) {
    const auto most = [&](int covered) {
      const bool seen = covered >= way.column && covered < way.column + kKernel;
      return seen && inside(covered) ? INFINITY : kNever;
    };
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int covered = 8 * upper + 2 * lane.pair;
      column_most[upper] = Pack<__half>(most(covered), most(covered + 1));
    }
  }

  // Of the covered rows, with which the logits of every column start; of the covered columns, a
  // matrix [16, 16 columns].
  __device__ void Get(const Rows<S>& q, const Way<S>& way, float (&row)[4],
                      uint32_t (&columns)[4]) const {
    uint32_t b[4];
    LoadTwoMatrices(row_at, b[0], b[1]);
    const auto kept = [](bool keep, uint32_t word) { return keep ? word : 0u; };
    Multiply16<T>(row, row_start, kept(way.row == 0, q[0][0]), kept(way.row == 0, q[1][0]),
                  kept(way.row == 1, q[0][0]), kept(way.row == 1, q[1][0]), b[0], b[1]);
    float sums[2][4];
#pragma unroll
    for (int two = 0; two < kPatchColumns / 2; ++two) {
      LoadMatrices(column_at - 2 * two * 16, b);
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = kept(way.column == 2 * two + i / 2, q[i % 2][S::kColumnChunk]);
      }
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const auto& start = two == 0 ? kZeros : const_cast<const float (&)[4]>(sums[upper]);
        Multiply16<T>(sums[upper], start, a[0], a[1], a[2], a[3], b[2 * upper], b[2 * upper + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t sum = Pack<__half>(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
      columns[i] = LesserHalves(sum, column_most[i / 2]);
    }
  }

  // sum [16, 8 pixels of a covered column] = the terms.
  __device__ void Of(int covered, const float (&row)[4], const uint32_t (&columns)[4],
                     float (&sum)[4]) const {
    const int second = covered / 8 * 2;
    Multiply8<__half>(sum, row, columns[second], columns[second + 1], one_hot[covered % 8]);
  }
};

// What the backward pass by keys knows of the queries of its region, in planes of words in shared
// memory, two numbers in a word. For each head, four words with a query's terms with two
// neighbouring rows of keys each (q.r, in float16); one with minus its log-sum-exp, divided by the
// scale as if it were a term too, as two numbers in float16 whose sum it is; and one with minus its
// sum of output times upstream, as two in bfloat16.
template <typename S>
struct QueryFacts {
  using T = typename S::T;
  static constexpr int kLogSum = 4, kDelta = 5, kOfHead = 6;  // planes
  // One column of queries after the other; odd, so that the queries of a row lie in different
  // banks, and those of the second head in the banks that are left.
  static constexpr int kColumn = S::kRingRows | 1;
  // So that as many queries of a column lie in different banks in four planes.
  static constexpr int kPlane = (S::kRegionColumns * kColumn + 23) / 32 * 32 + 8;
  static constexpr int kHead = kOfHead * kPlane;
  static constexpr int kBytes = 2 * kHead * 4;
  static_assert(kPlane >= S::kRegionColumns * kColumn && kHead % 32 == 16);

  // Starts to copy log-sum-exps and sums of the new rows, as they are.
  __device__ static void Copy(const TileGrid& g, const Area& area, const Ring<S>& ring,
                              const Lane& lane, bool both, const float* log_sum,
                              const float* minus_deltas, uint32_t words) {
    constexpr int kAtOnce = kWarp / 2;
    const int head = lane.number % 2, column = lane.number / 2;
    const bool there = head == 0 || both;
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

  // After those and the queries have been copied. `line` is the lane's word of the table of the
  // rows, `start` zeros but for the line behind its last.
  __device__ static void Complete(const Area& area, const Ring<S>& ring, bool both,
                                  const char* queries, uint32_t line, const float (&start)[4],
                                  float through_scale, const Lane& lane, uint32_t* words) {
    static_assert(S::kSharedRows % 2 == 0 && S::kRows == 8 && S::kWarps % 2 == 0);
    const int warp = threadIdx.x / kWarp;
    // Warps side by side share the rows if there are more than 8.
    const int down = ring.follows ? 1 : 2, stride = S::kWarps / down;  // columns at a time
    const int y = ring.FirstNewRow() + warp % down * 8 + lane.row, row = ring.At(y);
    const bool within = y < S::kRegionRows, odd = y % 2;
    // The lane's word to convert.
    const int head = lane.pair % 2;
    const bool of_log_sum = lane.pair < 2;
    const bool row_inside = area.RowInside(y - kMargin) && (head == 0 || both);
    int x = warp / down;
    const char* from = queries + (row * S::kPitch + x) * 16 + lane.pair * 4;
    uint32_t* to = words + lane.pair * kPlane + x * kColumn + row;
    uint32_t* own =
        words + head * kHead + (of_log_sum ? kLogSum : kDelta) * kPlane + x * kColumn + row;
    const int before = (lane.number + kWarp - 1) % kWarp;
#pragma unroll 2
    for (; x < S::kRegionColumns; x += stride) {
      uint32_t q[2] = {0u, 0u};
      float number = 0.f;
      if (within) {
        q[0] = *reinterpret_cast<const uint32_t*>(from);
        q[1] = *reinterpret_cast<const uint32_t*>(from + S::kChunks * S::kPlane);
        number = __uint_as_float(*own);
      }
      float terms[4];
      Multiply8<T>(terms, start, q[0], q[1], line);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // Rows of keys come in twos from an even one on, so that it depends on the query's row
        // which two lines of the table go together.
        const float low = terms[2 * i], high = terms[2 * i + 1];
        const float previous = __shfl_sync(kAllLanes, high, before);
        const uint32_t word = Pack<__half>(odd ? previous : low, odd ? low : high);
        if (within) to[i * kHead] = word;
      }
      uint32_t word;
      if (of_log_sum) {
        // A query that is not there has weights of zero.
        const bool inside = row_inside && area.ColumnInside(x - kMargin);
        const float term = inside ? -number * through_scale : kNever;
        word = Pack<__half>(term, term - __half2float(__float2half(term)));
      } else {
        word = Pack<__nv_bfloat16>(number, number - __bfloat162float(__float2bfloat16(number)));
      }
      if (within) *own = word;
      from += stride * 16;
      to += stride * kColumn;
      own += stride * kColumn;
    }
  }

  // Where a lane finds the words of its query, in a row of the ring, of a column whose matrix has
  // the patch's pixels as columns. Pairs of lanes: the terms and the log-sum-exp of the first head,
  // then of the second.
  __device__ static int Terms(const Lane& lane, int row) {
    const int plane = lane.pair % 2 ? kLogSum : 3 - lane.row / 2;
    return lane.pair / 2 * kHead + plane * kPlane + row;
  }
  // The sums of the first head, then of the second; the other two lanes' are not looked at.
  __device__ static int Deltas(const Lane& lane, int row) {
    return lane.pair % 2 * kHead + kDelta * kPlane + row;
  }
};

// Shared memory of the kernels, in bytes.
template <typename S>
struct Memory {
  static constexpr int kLines = (kRowLines + kColumnLines) * 16;
  static constexpr int kByQueries = 2 * S::kRegion + kLines;
  // By keys, the tables are only read before the first facts take their place.
  static constexpr int kByKeys = 2 * S::kRegion + QueryFacts<S>::kBytes;
};

// With a smaller one, kNever would not keep out what it is to keep out.
constexpr float kSmallestScale = 0.01f;

// Sums of weights from which a row's output and log-sum-exp can be told although its logits were
// not compared with their maximum: far from where numbers end.
__device__ inline bool Told(float total) { return total > 0x1p-100f && total < 0x1p100f; }

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    Forward(TileGrid g, const typename S::T* __restrict__ query,
            const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
            const float* __restrict__ rows, const float* __restrict__ columns,
            typename S::T* __restrict__ output, float* __restrict__ log_sum) {
  using T = typename S::T;
  extern __shared__ __align__(128) char memory[];
  T* row_lines = reinterpret_cast<T*>(memory + 2 * S::kRegion);
  T* column_lines = row_lines + kRowLines * 8;
  const Lane lane;
  const uint32_t keys = SharedAddress(memory), values = keys + S::kRegion;
  FillTables<S>(g, rows, columns, row_lines, column_lines);
  Terms<S> terms(row_lines, column_lines, lane, Way<S>(g, Area(), lane));
  const float factor = g.scale * kLog2E;
  // Weights in float16 end where those in bfloat16 do not, long before their sums.
  constexpr bool kCompare = std::is_same_v<T, __half>;
  Operands<S> q(lane, 20);
  const uint32_t ones[2] = {Hidden(Pack<T>(1.f, 1.f), lane, 30),
                            Hidden(Pack<T>(1.f, 1.f), lane, 31)};

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, 2);
    const Way<S> way(g, area, lane);
    const bool both = area.head + 1 < g.heads;
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    CopyRegion<S>(g, area, ring, lane, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, ring, lane, value, g.parts, true, values);
    uint32_t q_at = way.First(area, g.parts, lane), output_at = way.First(area, 1, lane);
    const bool stores_log_sum = lane.pair < (both ? 2 : 1);
    Rows<S> next;
    LoadRows<S>(query + q_at, way.Inside(0), way.Inside(0) && both, next);
    terms.SetRows(g.mask_border, area, lane, way);
    WaitForCopies();
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.matrix_row);
    uint32_t k_at = keys + Pixels<S, false>::Offset(lane, matrix_row);
    uint32_t v_at = values + Pixels<S, true>::Offset(lane, matrix_row);
#pragma unroll 1
    for (int left = 0; left < S::kColumns && left < area.columns; left += kPatchColumns) {
      const bool inside = way.Inside(left), more = way.Inside(left + kPatchColumns);
      float row_terms[4];
      uint32_t column_terms[4];
      if (g.mask_border) terms.SetColumns(area, lane, way, left);
      q.Set(next);
      terms.Get(next, way, row_terms, column_terms);
      // A branch, lest these loads start before the last ones are waited for, and so both.
      if (left + kPatchColumns < S::kColumns) {
        q_at += way.Step(g.parts);
        LoadRows<S>(query + q_at, more, more && both, next);
      }
      float top[2] = {0.f, 0.f}, total[4], sum[2][S::kChunks][4];
      for (bool compare = kCompare;; compare = true) {
        if (compare) {
          top[0] = top[1] = kMasked;
#pragma unroll
          for (int step = 0; step < kSteps; ++step) {
            Pixels<S, false> k;
            k.Load(k_at, step);
#pragma unroll
            for (int column = 0; column < 2; ++column) {
              float logit[4];
              terms.Of(2 * step + column, row_terms, column_terms, logit);
              Logits<S>(q, k.at[column], logit, logit);
#pragma unroll
              for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], logit[i]);
            }
          }
          top[0] = RowMax(top[0]) * factor;
          top[1] = RowMax(top[1]) * factor;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[i] = 0.f;
#pragma unroll
          for (int plane = 0; plane < S::kPlanes; ++plane) {
            sum[plane / S::kChunks][plane % S::kChunks][i] = 0.f;
          }
        }
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          Pixels<S, false> k;
          Pixels<S, true> v;
          float weight[2][4];
          k.Load(k_at, step);
          v.Load(v_at, step);
#pragma unroll
          for (int column = 0; column < 2; ++column) {
            terms.Of(2 * step + column, row_terms, column_terms, weight[column]);
            Logits<S>(q, k.at[column], weight[column], weight[column]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              weight[column][i] = Exp2(fmaf(weight[column][i], factor, -top[i / 2]));
            }
          }
          uint32_t weights[4];
          PackRows<T>(weight[0], weight[1], weights);
          Gather<S>(weights, v, sum);
          Multiply16<T>(total, weights[0], weights[1], weights[2], weights[3], ones[0], ones[1]);
        }
        const bool told = Told(total[0]) && Told(total[2]);
        if (compare || __all_sync(kAllLanes, told || !inside)) break;
      }
      StoreRows<S>(sum, Inverse(total[0]), Inverse(total[2]), inside, inside && both,
                   output + output_at);
      const float all = lane.pair ? total[2] : total[0], greatest = lane.pair ? top[1] : top[0];
      const float log_of_sum = kLn2 * (greatest + Log2(all));
      if (inside && stores_log_sum) log_sum[output_at / S::kDepth + lane.pair] = log_of_sum;
      output_at += way.Step(1);
      k_at += kPatchColumns * 16;
      v_at += kPatchColumns * 16;
    }
  }
}

// Two numbers of a row, the first left out: the word's second and the next word's first.
__device__ inline uint32_t Shifted(uint32_t word, uint32_t next) {
  return __byte_perm(word, next, 0x5432);
}

// From covered rows and columns back to lines of the tables: of each head's 8 queries [8, 8 lines
// of the rows] and [8, 8 of the columns].
template <typename S>
__device__ inline void Lines(const Lane& lane, const Way<S>& way, const float (&row)[4],
                             const float (&column)[2][4], uint32_t (&lines)[2][2]) {
  using T = typename S::T;
  const int first = lane.number - lane.pair;
  const bool last = lane.pair == 3;
  const auto of = [](uint32_t word, int from) { return __shfl_sync(kAllLanes, word, from); };
  const int following = first + (lane.pair + 1) % 4;
#pragma unroll
  for (int head = 0; head < 2; ++head) {
    uint32_t rows = Pack<T>(row[2 * head], row[2 * head + 1]);
    const uint32_t below = of(rows, following);
    if (way.row == 1) rows = Shifted(rows, last ? 0u : below);
    uint32_t low = Pack<T>(column[0][2 * head], column[0][2 * head + 1]);
    uint32_t high = Pack<T>(column[1][2 * head], column[1][2 * head + 1]);
    // By two columns; of the upper eight only the first two are needed afterwards.
    const uint32_t later = of(low, following), upper = of(high, last ? first : following);
    if (way.column >= 2) {
      low = last ? upper : later;
      high = upper;
    }
    const uint32_t next = of(low, following), beyond = of(high, first);
    if (way.column % 2) low = Shifted(low, last ? beyond : next);
    lines[head][0] = rows;
    lines[head][1] = low;
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    QueryBackward(TileGrid g, const typename S::T* __restrict__ query,
                  const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
                  const float* __restrict__ rows, const float* __restrict__ columns,
                  const typename S::T* __restrict__ output, const float* __restrict__ log_sum,
                  const typename S::T* __restrict__ upstream,
                  typename S::T* __restrict__ query_gradient, float* __restrict__ minus_deltas,
                  float* __restrict__ partials) {
  using T = typename S::T;
  extern __shared__ __align__(128) char memory[];
  T* row_lines = reinterpret_cast<T*>(memory + 2 * S::kRegion);
  T* column_lines = row_lines + kRowLines * 8;
  const Lane lane;
  const uint32_t keys = SharedAddress(memory), values = keys + S::kRegion;
  FillTables<S>(g, rows, columns, row_lines, column_lines);
  Terms<S> terms(row_lines, column_lines, lane, Way<S>(g, Area(), lane));
  const float factor = g.scale * kLog2E;
  const uint32_t one = Pack<T>(1.f, 1.f);
  // A lane's part of the identity [8, 8], and of matrices [8, 8] with ones in one column.
  const uint32_t of_identity =
      lane.row / 2 == lane.pair ? (lane.row % 2 ? one & 0xffff0000u : one & 0xffffu) : 0u;
  const uint32_t identity[2] = {Hidden(of_identity, lane, 20), Hidden(of_identity, lane, 21)};
  uint32_t ones[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) ones[i] = Hidden(lane.row == i ? one : 0u, lane, 22 + i);
  const float floats[2] = {Hidden(1.f, lane, 30), Hidden(1.f, lane, 31)};
  // The tables' lines from the first on: of rows, and of columns.
  const uint32_t table_at = lane.half
                                ? SharedAddress(column_lines) + (kColumnPad + lane.matrix_row) * 16
                                : SharedAddress(row_lines) + (kRowPad + lane.matrix_row) * 16;
  float table_sum[S::kChunks][4] = {};  // [8 lines of rows, 8 of columns][8 channels]
  Operands<S> q(lane, 32), up(lane, 40);

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, 2);
    const Way<S> way(g, area, lane);
    const bool both = area.head + 1 < g.heads;
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    CopyRegion<S>(g, area, ring, lane, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, ring, lane, value, g.parts, true, values);
    uint32_t q_at = way.First(area, g.parts, lane), output_at = way.First(area, 1, lane);
    const bool stores_delta = lane.pair < (both ? 2 : 1);
    Rows<S> next_q, next_up, out;
    float lse[2];
    const auto load = [&](uint32_t q_at, uint32_t output_at, bool inside) {
      const bool second = inside && both;
      LoadRows<S>(query + q_at, inside, second, next_q);
      LoadRows<S>(upstream + output_at, inside, second, next_up);
      LoadRows<S>(output + output_at, inside, second, out);
      // Of a query that is not there: weights of zero.
      lse[0] = lse[1] = kAbsent;
      const float* from = log_sum + output_at / S::kDepth;
      if (inside) lse[0] = __ldg(from);
      if (second) lse[1] = __ldg(from + 1);
    };
    load(q_at, output_at, way.Inside(0));
    terms.SetRows(g.mask_border, area, lane, way);
    WaitForCopies();
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.matrix_row);
    uint32_t k_at = keys + Pixels<S, false>::Offset(lane, matrix_row);
    const uint32_t to_values = values - keys;
    uint32_t transposed_at = keys + Pixels<S, true>::Offset(lane, matrix_row);
#pragma unroll 1
    for (int left = 0; left < S::kColumns && left < area.columns; left += kPatchColumns) {
      const bool inside = way.Inside(left);
      float row_terms[4], minus_delta[2] = {0.f, 0.f};
      uint32_t column_terms[4];
      const float minus_lse[2] = {-kLog2E * lse[0], -kLog2E * lse[1]};
      if (g.mask_border) terms.SetColumns(area, lane, way, left);
      q.Set(next_q);
      up.Set(next_up);
#pragma unroll
      for (int i = 0; i < S::kPlanes; ++i) {
        const int head = i / S::kChunks, c = i % S::kChunks;
        const float2 a = Widen(out[head][c], T()), b = Widen(next_up[head][c], T());
        minus_delta[head] = fmaf(-a.x, b.x, fmaf(-a.y, b.y, minus_delta[head]));
      }
      terms.Get(next_q, way, row_terms, column_terms);
      uint32_t channels[S::kPlanes];  // of the queries, transposed
#pragma unroll
      for (int i = 0; i < S::kPlanes; ++i) {
        channels[i] = Transposed(next_q[i / S::kChunks][i % S::kChunks]);
      }
      if (left + kPatchColumns < S::kColumns) {
        load(q_at + way.Step(g.parts), output_at + way.Step(1), way.Inside(left + kPatchColumns));
      }
      // Sums over the lanes of a row, as a product with ones; what the instruction does not look at
      // of a number is another number.
      const float coarse[2] = {Coarse(minus_delta[0]), Coarse(minus_delta[1])};
      float slope_start[4];
      MultiplyTf32(slope_start, kZeros, coarse[0], coarse[1], minus_delta[0] - coarse[0],
                   minus_delta[1] - coarse[1], floats[0], floats[1]);
      if (inside && stores_delta) {
        minus_deltas[output_at / S::kDepth + lane.pair] =
            lane.pair ? slope_start[2] : slope_start[0];
      }

      float dq[2][S::kChunks][4] = {}, drow[4] = {}, dcolumn[2][4] = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        Pixels<S, false> k, v;
        Pixels<S, true> kt;
        float slope[2][4];
        k.Load(k_at, step);
        v.Load(k_at + to_values, step);
        kt.Load(transposed_at, step);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          float logit[4];
          terms.Of(2 * step + column, row_terms, column_terms, logit);
          Logits<S>(q, k.at[column], logit, logit);
          Logits<S>(up, v.at[column], slope_start, slope[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            slope[column][i] *= Exp2(fmaf(logit[i], factor, minus_lse[i / 2]));
          }
        }
        uint32_t slopes[4];
        PackRows<T>(slope[0], slope[1], slopes);
        Gather<S>(slopes, kt, dq);
        Multiply16<T>(drow, slopes[0], slopes[1], slopes[2], slopes[3], identity[0], identity[1]);
        Multiply16<T>(dcolumn[step / 4], slopes[0], slopes[1], slopes[2], slopes[3],
                      ones[2 * step % 8], ones[2 * step % 8 + 1]);
      }
      // Without tables, of zeros.
      uint32_t lines[2][2], b[2];
      Lines<S>(lane, way, drow, dcolumn, lines);
      LoadTwoTransposed(table_at, b[0], b[1]);
      float dterm[S::kChunks][4];
      if constexpr (S::kChunks == 1) {
        Multiply16<T>(dterm[0], kZeros, lines[0][0], lines[1][0], lines[0][1], lines[1][1], b[0],
                      b[1]);
      } else {
        Multiply8<T>(dterm[0], kZeros, lines[0][0], lines[1][0], b[0]);
        Multiply8<T>(dterm[1], kZeros, lines[0][1], lines[1][1], b[1]);
      }
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = Transposed(lines[i / 2][i % 2]);
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
        Multiply16<T>(table_sum[c], a[0], a[1], a[2], a[3], channels[c], channels[S::kChunks + c]);
#pragma unroll
        for (int i = 0; i < 4; ++i) dq[i / 2][c][i] += dterm[c][i];
      }
      StoreRows<S>(dq, g.scale, g.scale, inside, inside && both, query_gradient + q_at);
      q_at += way.Step(g.parts);
      output_at += way.Step(1);
      k_at += kPatchColumns * 16;
      transposed_at += kPatchColumns * 16;
    }
  }
  if (g.has_relative) {
    StoreTableSums<kKernel, S::kDepth>(lane, table_sum, reinterpret_cast<float*>(memory), partials);
  }
}

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
  T* row_lines = reinterpret_cast<T*>(memory + 2 * S::kRegion);
  T* column_lines = row_lines + kRowLines * 8;
  uint32_t* words = reinterpret_cast<uint32_t*>(memory + 2 * S::kRegion);
  const Lane lane;
  const uint32_t queries = SharedAddress(memory);
  FillTables<S>(g, rows, columns, row_lines, column_lines);
  __syncthreads();
  const uint32_t row_line =
      reinterpret_cast<const uint32_t*>(row_lines + (kRowPad + lane.row) * 8)[lane.pair];
  const float behind = lane.pair == 3 ? kNever : 0.f;
  const float row_start[4] = {0.f, behind, 0.f, behind};
  // The lane's key, of each head, as a row that picks its terms: its row of two, and the
  // log-sum-exp.
  const int key_row = lane.row / kPatchColumns, key_column = lane.row % kPatchColumns;
  const uint32_t pick = lane.pair % 2 ? Pack<__half>(1.f, 1.f)
                        : key_row     ? Pack<__half>(0.f, 1.f)
                                      : Pack<__half>(1.f, 0.f);
  const uint32_t picks[2] = {Hidden(lane.pair < 2 ? pick : 0u, lane, 0),
                             Hidden(lane.pair < 2 ? 0u : pick, lane, 1)};
  const uint32_t two = Pack<__nv_bfloat16>(1.f, 1.f);
  const uint32_t delta_picks[2] = {Hidden(lane.pair == 0 ? two : 0u, lane, 30),
                                   Hidden(lane.pair == 1 ? two : 0u, lane, 31)};
  // For each column of queries, the column table's line of the lane's key, and what keeps out the
  // queries whose windows do not reach it.
  uint32_t column_line[kReachColumns];
  float outside[kReachColumns];
#pragma unroll
  for (int covered = 0; covered < kReachColumns; ++covered) {
    const int line = key_column - covered + kKernel - 1;
    column_line[covered] =
        reinterpret_cast<const uint32_t*>(column_lines + (line + kColumnPad) * 8)[lane.pair];
    outside[covered] = Hidden(line < 0 || line >= kKernel ? kNever : 0.f, lane, 2 + covered);
  }
  const float factor = g.scale * kLog2E;
  Operands<S> k(lane, 12), v(lane, 20);
  uint32_t line[4] = {0u, Hidden(0u, lane, 28), Hidden(0u, lane, 29), 0u};

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, 2);
    const Way<S> way(g, area, lane);
    const bool both = area.head + 1 < g.heads;
    ring.Turn(tile > run.begin && area.y > 0);
    __syncthreads();
    CopyRegion<S>(g, area, ring, lane, query, g.parts, true, queries);
    CopyRegion<S>(g, area, ring, lane, upstream, 1, true, queries + S::kRegion);
    Facts::Copy(g, area, ring, lane, both, log_sum, minus_deltas, SharedAddress(words));
    uint32_t at = way.First(area, g.parts, lane);
    Rows<S> next_k, next_v;
    const auto load = [&](uint32_t at, bool inside) {
      LoadRows<S>(key + at, inside && g.has_key, inside && both && g.has_key, next_k);
      LoadRows<S>(value + at, inside, inside && both, next_v);
    };
    load(at, way.Inside(0));
    WaitForCopies();
    __syncthreads();
    Facts::Complete(area, ring, both, memory, row_line, row_start, 1.f / g.scale, lane, words);
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.matrix_row);
    uint32_t q_at = queries + Pixels<S, false>::Offset(lane, matrix_row);
    uint32_t transposed_at = queries + Pixels<S, true>::Offset(lane, matrix_row);
    const int query_row = ring.At(way.top + lane.row);
    const uint32_t* term = words + Facts::Terms(lane, query_row);
    const uint32_t* delta = words + Facts::Deltas(lane, query_row);
#pragma unroll 1
    for (int left = 0; left < S::kColumns && left < area.columns; left += kPatchColumns) {
      const bool inside = way.Inside(left);
      k.Set(next_k);
      v.Set(next_v);
      if (left + kPatchColumns < S::kColumns) {
        load(at + way.Step(g.parts), way.Inside(left + kPatchColumns));
      }
      float dk[2][S::kChunks][4] = {}, dv[2][S::kChunks][4] = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        Pixels<S, false> q, up;
        Pixels<S, true> qt, upt;
        float weight[2][4], slope[2][4];
        q.Load(q_at, step);
        up.Load(q_at + S::kRegion, step);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const int covered = 2 * step + column;
          float logit[4];
          Multiply8<__half>(logit, kZeros, picks[0], picks[1], term[covered * Facts::kColumn]);
          Logits<S>(k, q.at[column], logit, logit);
          line[0] = line[3] = column_line[covered];
          Multiply16<T>(logit, line[0], line[1], line[2], line[3], q.at[column][S::kColumnChunk],
                        q.at[column][S::kChunks + S::kColumnChunk]);
          Multiply8<__nv_bfloat16>(slope[column], kZeros, delta_picks[0], delta_picks[1],
                                   delta[covered * Facts::kColumn]);
          Logits<S>(v, up.at[column], slope[column], slope[column]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            weight[column][i] = Exp2(covered >= kPatchColumns - 1 && covered < kKernel
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
      StoreRows<S>(dk, g.scale, g.scale, inside && g.has_key, inside && both && g.has_key,
                   key_gradient + at);
      StoreRows<S>(dv, 1.f, 1.f, inside, inside && both, value_gradient + at);
      at += way.Step(g.parts);
      q_at += kPatchColumns * 16;
      transposed_at += kPatchColumns * 16;
      term += kPatchColumns * Facts::kColumn;
      delta += kPatchColumns * Facts::kColumn;
    }
  }
  SumTables(sums);
}

// As fast as was found on an H100.
template <typename T, int kDepth>
using ForwardShape = Shape<T, kDepth, kDepth == 8 ? 4 : 7, 28, kDepth == 8 ? 5 : 2>;
template <typename T, int kDepth>
using QueryShape = Shape<T, kDepth, 4, 28, kDepth == 8 ? 3 : 2>;
template <typename T, int kDepth>
using KeyShape = Shape<T, kDepth, 4, 28, kDepth == 8 ? 3 : 2>;

template <typename S>
void LaunchForward(const Problem& p, const ForwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, S::kRows, S::kColumns, 2);
  constexpr int kBytes = Memory<S>::kByQueries;
  const int workers = RunsOf(g, Workers(Forward<S>, g.tiles, S::kThreads, kBytes, g.tiles));
  Enqueue(Forward<S>, workers, S::kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          static_cast<T*>(a.output), a.log_sum);
}

template <typename S>
TableSums LaunchQueryBackward(const Problem& p, const BackwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, S::kRows, S::kColumns, 2);
  constexpr int kBytes = Memory<S>::kByQueries;
  const int workers =
      RunsOf(g, Workers(QueryBackward<S>, g.tiles, S::kThreads, kBytes, kTableWorkers));
  Enqueue(QueryBackward<S>, workers, S::kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          static_cast<const T*>(a.output), a.log_sum, static_cast<const T*>(a.upstream),
          static_cast<T*>(a.query_gradient), a.scratch, TablePartials(p, a));
  return SumsOf(p, a, workers, g.scale);
}

template <typename S>
void LaunchKeyBackward(const Problem& p, const BackwardArrays& a, const TableSums& sums,
                       cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, S::kRows, S::kColumns, 2);
  constexpr int kBytes = Memory<S>::kByKeys;
  const int workers = RunsOf(g, Workers(KeyBackward<S>, g.tiles, S::kThreads, kBytes, g.tiles));
  Enqueue(KeyBackward<S>, workers, S::kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          a.log_sum, static_cast<const T*>(a.upstream), a.scratch, static_cast<T*>(a.key_gradient),
          static_cast<T*>(a.value_gradient), sums);
}

// Calls `launch` with a number of the type and the head's width.
template <typename Launch>
void WithHead(const Problem& p, Launch launch) {
  const auto with_type = [&](auto zero) {
    if (p.depth == 8) launch(zero, std::integral_constant<int, 8>());
    if (p.depth == 16) launch(zero, std::integral_constant<int, 16>());
  };
  if (p.type == Type::kBfloat16) {
    with_type(__nv_bfloat16());
  } else {
    with_type(__half());
  }
}

}  // namespace

bool PairsCan(const Problem& p) {
  // Each block of heads has a worker, and places are numbers of 32 bits.
  const double numbers = 1. * p.batch * p.height * p.width * p.parts * p.heads * p.depth;
  return (p.depth == 8 || p.depth == 16) && p.heads <= kTableWorkers && numbers < 0x1p32 &&
         p.type != Type::kFloat32 && p.kernel_rows == kKernel && p.kernel_columns == kKernel &&
         p.scale >= kSmallestScale;
}

void PairsForward(const Problem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto zero, auto depth) {
    LaunchForward<ForwardShape<decltype(zero), depth>>(p, arrays, stream);
  });
}

void PairsBackward(const Problem& p, const BackwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto zero, auto depth) {
    const TableSums sums =
        LaunchQueryBackward<QueryShape<decltype(zero), depth>>(p, arrays, stream);
    LaunchKeyBackward<KeyShape<decltype(zero), depth>>(p, arrays, sums, stream);
  });
}

}  // namespace sasa
