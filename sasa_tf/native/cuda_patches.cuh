// Local attention on the tensor cores of NVIDIA GPUs (sm_80 and later), in half precision: what its
// three kernels share.
//
// A warp owns a patch of pixels that are, for its heads, the 16 rows of a matrix instruction: 2 x 8
// pixels of one head, or of narrow heads (8 or 16 wide) 2 x 4 pixels of two: 8 pixels of the one
// head, then of the other, each with its own channels and zeros for the other's. The windows of a
// patch cover 8 rows; 8 pixels of a covered column are the columns of an instruction. So a row term
// of a logit is the same number for all covered columns, with which the sums start, and a column
// term is a product of the patch's terms with one-hot columns. 49 of the 112 (80) logits that are
// computed for a query are used.
#ifndef SASA_TF_NATIVE_CUDA_PATCHES_CUH_
#define SASA_TF_NATIVE_CUDA_PATCHES_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda_instructions.cuh"
#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "cuda_table_sums.cuh"
#include "cuda_tiles.cuh"
#include "local_attention.h"

namespace sasa {

// The first kernel of the backward pass; what the second is to sum.
TableSums PatchesByQueries(const Problem& problem, const BackwardArrays& arrays,
                           cudaStream_t stream);

namespace {

constexpr int kKernel = 7;  // window, rows and columns
constexpr int kMargin = kKernel / 2;
constexpr int kPatchRows = 2;
constexpr int kReachRows = kPatchRows + kKernel - 1;  // that a patch's windows cover
static_assert(kReachRows == 8);                       // the columns of an instruction

// What a kernel is compiled for: the head, and the tile of a thread block, of which each warp has a
// row of patches. A thread block goes down the image, tile by tile, and keeps what the next tile's
// region shares with that of the tile before: rows of the region lie in a ring.
template <typename T_, int kDepth_, int kWarps_, int kColumns_, int kBlocks_, bool kPieces_ = false,
          bool kShares_ = false>
struct Shape {
  using T = T_;
  static constexpr int kDepth = kDepth_;
  static constexpr int kHeads = kDepth <= 16 ? 2 : 1;  // of a patch
  static constexpr int kChunks = kDepth / 8;           // of 8 channels, of a head
  static constexpr int kPlanes = kHeads * kChunks;
  // With the channels of a table; narrow heads have those of both in one.
  static constexpr int kTableChunks = kChunks > 1 ? kChunks / 2 : 1;
  static constexpr int kColumnChunk = kChunks - kTableChunks;  // the first of the column table
  static constexpr int kPatchColumns = 8 / kHeads;
  static constexpr int kReachColumns = kPatchColumns + kKernel - 1;
  static constexpr int kSteps = kReachColumns / 2;  // of two covered columns, 16 pixels
  static constexpr int kWarps = kWarps_, kThreads = 32 * kWarps;
  static constexpr int kBlocks = kBlocks_;   // at a time on a multiprocessor
  static constexpr bool kPieces = kPieces_;  // whether sums are stored by pieces
  static constexpr bool kShares = kShares_;  // whether warps share rows of patches, see Share
  static constexpr int kRows = kPatchRows * kWarps, kColumns = kColumns_;  // of the tile
  static_assert(kColumns % kPatchColumns == 0);
  static constexpr int kRegionRows = kRows + kKernel - 1;
  static constexpr int kRegionColumns = kColumns + kKernel - 1;
  static constexpr int kSharedRows = kKernel - 1;  // of the regions of two tiles
  // Of the ring that holds the region's: 8 rows that follow each other lie in different banks, also
  // where the ring ends.
  static constexpr int kRingRows = (kRegionRows + 7) / 8 * 8;
  // From a row's pixel to the next row's; odd, see Place.
  static constexpr int kPitch = kRegionColumns | 1;
  static constexpr int kPixel = kPlanes * 16;  // bytes
  static constexpr int kRegion = (kRingRows * kPitch * kPixel + 1023) / 1024 * 1024;
  // Rows of a box, which begins at multiples of 128 bytes; its bytes.
  static constexpr int kBoxRows = kPixel < 128 ? 128 / kPixel : 1;
  static constexpr int kBox = kBoxRows * kPitch * kPixel;
  // Rows of the ring before an image's first region, for the boxes of later tiles to begin well.
  static constexpr int kLead = (kBoxRows - kSharedRows % kBoxRows) % kBoxRows;
  static_assert(kLead + kRegionRows <= kRingRows);
  static_assert(kRingRows % kBoxRows == 0 && kRows % kBoxRows == 0);
  // Lines of the tables, padded with zeros: of a covered row, counted from the patch's last row,
  // and of a covered column, which narrow heads count from the patch's last column.
  static constexpr int kRowPad = kPatchRows - 1, kRowLines = kReachRows + kRowPad;
  static constexpr int kColumnPad = kHeads == 2 ? kPatchColumns - 1 : 0;
  static constexpr int kColumnLines = kHeads == 2 ? 16 + kColumnPad : kRowLines;

  // Where the 16 bytes of a plane lie in a region: those of 8 pixels that follow each other lie in
  // different banks, and so, by the odd pitch, do those of 8 pixels of a column.
  __device__ static uint32_t Place(int pixel, int plane) {
    return pixel * kPixel + (plane ^ (pixel * kPlanes / 8 % kPlanes)) * 16;
  }
  // The bits in which the place so many pixels further on differs, but for the distance.
  static constexpr uint32_t Differing(int pixels) { return pixels * kPlanes / 8 % kPlanes * 16; }
};

// The tables in shared memory: lines of 16 bytes, the channels of one chunk, one chunk after the
// other.
template <typename S>
struct Tables {
  using T = typename S::T;
  static constexpr int kRow = S::kRowLines, kColumn = S::kColumnLines;
  static constexpr int kBytes = (kRow + kColumn) * S::kTableChunks * 16;
  T* rows;
  T* columns;

  __device__ explicit Tables(void* memory)
      : rows(static_cast<T*>(memory)), columns(rows + kRow * S::kTableChunks * 8) {}
  // Where a line of the table lies, counted from its first.
  __device__ const T* Row(int line, int chunk = 0) const {
    return rows + (chunk * kRow + line + S::kRowPad) * 8;
  }
  __device__ const T* Column(int line, int chunk = 0) const {
    return columns + (chunk * kColumn + line + S::kColumnPad) * 8;
  }

  __device__ void Fill(const TileGrid& g, const float* row_table, const float* column_table) const {
    constexpr int kHalf = S::kDepth / 2, kRowNumbers = kRow * S::kTableChunks * 8;
    for (int i = threadIdx.x; i < kBytes / 2; i += S::kThreads) {
      const bool row = i < kRowNumbers;
      const int at = row ? i / 8 : (i - kRowNumbers) / 8, count = row ? kRow : kColumn;
      const int line = at % count - (row ? S::kRowPad : S::kColumnPad);
      // Where a head is one chunk, its second half belongs to the columns.
      const int channel = at / count * 8 + i % 8 - (row || S::kChunks > 1 ? 0 : kHalf);
      float x = 0.f;
      if (g.has_relative && line >= 0 && line < kKernel && channel >= 0 && channel < kHalf) {
        x = (row ? row_table : column_table)[line * kHalf + channel];
      }
      rows[i] = T(x);
    }
  }
};

// Which rows of a tile's region are to be copied, and where in the ring rows lie.
template <typename S>
struct Ring {
  bool follows = false;  // on the tile above, which has the first rows
  int slot = 0;          // of the region's first row

  // To the next tile.
  __device__ void Turn(bool tile_follows) {
    follows = tile_follows;
    slot = follows ? At(S::kRows) : S::kLead;
  }
  __device__ int FirstNewRow() const { return follows ? S::kSharedRows : 0; }
  // Where a row of the region lies.
  __device__ int At(int row) const {
    row += slot;
    return row < S::kRingRows ? row : row - S::kRingRows;
  }
};

// Copies the new rows of the tile and of the halo around it into a region. `kUpstream`: from the
// upstream gradient, which may be that of means.
template <typename S, bool kUpstream = false>
__device__ inline void CopyRegion(const TileGrid& g, const Area& area, const Ring<S>& ring,
                                  const Lane& lane, const typename S::T* from, int parts,
                                  bool there, uint32_t region) {
  using T = typename S::T;
  constexpr int kAtOnce = kWarp / S::kPlanes;  // pixels of a row
  constexpr int kTurns = (S::kRegionColumns + kAtOnce - 1) / kAtOnce;
  const int warp = threadIdx.x / kWarp, plane = lane.number % S::kPlanes;
  const int column = lane.number / S::kPlanes;
  // Both are even numbers of pixels.
  const int shift = kUpstream ? g.pool_shift : 0;
  static_assert(!kUpstream || (S::kWarps % 2 == 0 && kAtOnce % 2 == 0));
  const int row_step = (S::kWarps * g.row_step * parts >> 2 * shift) * S::kDepth;
  const int column_step = (kAtOnce * g.column_step * parts >> shift) * S::kDepth;
  there = there && area.head + plane / S::kChunks < g.heads;
  bool inside[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    inside[turn] = there && area.ColumnInside(column + turn * kAtOnce - kMargin);
  }
  const int first = ring.FirstNewRow() + warp;
  const int y = first - kMargin, x = column - kMargin;
  const int64_t pixel = kUpstream
                            ? area.Upstream(g, y, x)
                            : area.First(parts) + (y * g.row_step + x * g.column_step) * parts;
  const T* line = from + pixel * S::kDepth + plane * 8;
#pragma unroll 2
  for (int row = first; row < S::kRegionRows; row += S::kWarps) {
    const bool row_inside = area.RowInside(row - kMargin);
    const uint32_t to = region + S::Place(ring.At(row) * S::kPitch + column, plane);
    const T* at = line;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (turn < kTurns - 1 || column + turn * kAtOnce < S::kRegionColumns) {
        CopyAsync((to ^ turn % 2 * S::Differing(kAtOnce)) + turn * kAtOnce * S::kPixel, at,
                  row_inside && inside[turn]);
      }
      at += column_step;
    }
    line += row_step;
  }
}

// A patch's rows of a matrix: of each half of the 16 and each chunk, two channels of the lane's
// pixel.
template <typename S>
using Rows = uint32_t[2][S::kChunks];

// Sums over the covered pixels by head, channels in chunks. Of two heads, each has its own half of
// the rows.
template <typename S>
using Sums = float[S::kHeads][S::kChunks][4];

// A condition for each half of the rows.
struct Halves {
  bool first, second;
  __device__ bool any() const { return first || second; }
  __device__ bool operator[](int half) const { return half ? second : first; }
  // Of a number for each row, which the first lane of four stores for the first half, the second
  // lane for the second.
  __device__ bool OfNumber(const Lane& lane) const {
    return lane.pair == 0 ? first : lane.pair == 1 && second;
  }
};

// A warp's part of a tile: a row of patches. Of shapes that share, at the lower end of an image,
// where there are at most half as many rows as warps, a half of a row, and so on.
template <typename S>
struct Share {
  int top;    // of the patches, in the tile
  int begin;  // the first of their columns in the tile
  int end;    // where they end; or the tile, which an image may end before

  __device__ explicit Share(const Area& area)
      : top(threadIdx.x / kWarp * kPatchRows), begin(0), end(S::kColumns) {
    if constexpr (S::kShares) {
      constexpr int kPatches = S::kColumns / S::kPatchColumns;  // of a row
      int rows = S::kWarps, each = kPatches;
#pragma unroll
      for (int half = S::kWarps; half % 2 == 0; half /= 2) {
        if (area.rows > kPatchRows * half / 2) break;
        rows = half / 2;
        each = (kPatches * rows + S::kWarps - 1) / S::kWarps;
      }
      const int warp = threadIdx.x / kWarp, part = warp / rows;
      top = (warp - part * rows) * kPatchRows;
      begin = part * each * S::kPatchColumns;
      end = min(begin + each * S::kPatchColumns, S::kColumns);
    }
  }
};

// The way of a warp along its patches: the lane's pixels, one for each half of the rows.
template <typename S>
struct Way {
  int column;       // in the patch
  int row[2];       // likewise
  int top;          // of the patches, in the tile
  int begin, end;   // see Share
  bool live;        // whether the patches have pixels
  Halves there;     // whether the lane's pixels are rows of the image, and the heads are there
  int columns;      // of the tile in the image, from the lane's place in a patch on
  int pixel, step;  // counted in heads of one part: from the tile's first, and to the next patch
  int row_step;

  __device__ Way(const TileGrid& g, const Area& area, const Lane& lane) {
    const bool two_heads = S::kHeads == 2;
    column = lane.row % S::kPatchColumns;
    const Share<S> share(area);
    top = share.top;
    begin = share.begin;
    end = share.end;
    live = top < area.rows;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row[half] = two_heads ? lane.row / S::kPatchColumns : half;
    }
    there.first = top + row[0] < area.rows;
    there.second = top + row[1] < area.rows && (!two_heads || area.head + 1 < g.heads);
    columns = (area.columns < S::kColumns ? area.columns : S::kColumns) - column;
    row_step = g.row_step;
    pixel = (top + row[0]) * g.row_step + (begin + column) * g.column_step;
    step = S::kPatchColumns * g.column_step;
  }
  // Where, in an array of so many parts, the lane's channels of its first pixel begin.
  __device__ uint32_t First(const Area& area, int parts, const Lane& lane) const {
    return (area.First(parts) + pixel * parts) * S::kDepth + 2 * lane.pair;
  }
  // From there to those of the next patch's.
  __device__ uint32_t Step(int parts) const { return step * parts * S::kDepth; }
  // From the first half's to the second half's, in heads.
  __device__ int Second(int parts) const { return S::kHeads == 2 ? 1 : row_step * parts; }
  // Whether the lane has a pixel in the patch `left` columns after the tile's first.
  __device__ Halves Inside(int left) const {
    return {there.first && left < columns, there.second && left < columns};
  }
};

// `from`: the lane's channels of its pixel; `second`: to those of the other half, in heads.
template <typename S>
__device__ inline void LoadRows(const typename S::T* from, int second, const Halves& inside,
                                Rows<S>& to) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const typename S::T* at = from + half * second * S::kDepth;
#pragma unroll
    for (int c = 0; c < S::kChunks; ++c) {
      to[half][c] = 0;
      if (inside[half]) to[half][c] = __ldg(reinterpret_cast<const uint32_t*>(at + 8 * c));
    }
  }
}

// A patch's rows as operands of two planes each; of two heads, each head's beside zeros in the
// place of the other's channels.
template <typename S>
struct Operands {
  uint32_t a[S::kPlanes / 2][4];

  // Each place has a zero of its own, as registers of one operand follow each other.
  __device__ Operands(const Lane& lane, int place) {
    if constexpr (S::kHeads == 2) {
#pragma unroll
      for (int i = 0; i < 2 * S::kPlanes; ++i) a[i / 4][i % 4] = Hidden(0u, lane, place + i);
    }
  }
  __device__ void Set(const Rows<S>& rows) {
    if constexpr (S::kHeads == 1) {
#pragma unroll
      for (int i = 0; i < 2 * S::kPlanes; ++i) a[i / 4][i % 4] = rows[i % 2][i / 2];
    } else if constexpr (S::kChunks == 1) {
      a[0][0] = rows[0][0];
      a[0][3] = rows[1][0];
    } else {
      a[0][0] = rows[0][0];
      a[0][2] = rows[0][1];
      a[1][1] = rows[1][0];
      a[1][3] = rows[1][1];
    }
  }
  // The rows that were set.
  __device__ uint32_t Of(int half, int chunk) const {
    if constexpr (S::kHeads == 1) return a[chunk / 2][half + chunk % 2 * 2];
    if constexpr (S::kChunks == 1) return a[0][3 * half];
    return a[half][half + 2 * chunk];
  }
};

// Addresses that a lane gives to ldmatrix, of its rows of the matrices of two covered columns and
// two planes, which one instruction loads: of the patch's first four steps. In matrices that are
// multiplied from the left the planes of a column follow each other, in transposed ones the columns
// of a plane, as registers of one operand do.
template <typename S, bool kTransposed>
struct Places {
  static constexpr int kSteps = 4, kColumns = 2 * kSteps;
  static_assert(S::Differing(kColumns) == 0);
  uint32_t at[kSteps];

  // Of patches whose covered pixels of the lane are in a row of the ring, from a column on.
  __device__ Places(uint32_t region, const Lane& lane, int row, int column) {
    const int further = kTransposed ? lane.half : lane.upper;
    const int plane = kTransposed ? lane.upper : lane.half;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      at[step] = region + S::Place(row * S::kPitch + column + 2 * step + further, plane);
    }
  }
  __device__ uint32_t Of(int step, int plane) const {
    return (at[step % kSteps] ^ plane * 16) + step / kSteps * kColumns * S::kPixel;
  }
  // To the next patch.
  __device__ void Advance() {
    if constexpr (S::kPatchColumns == kColumns) {
#pragma unroll
      for (auto& place : at) place += kColumns * S::kPixel;
    } else {
      // Its first steps are this one's last.
#pragma unroll
      for (int step = 0; step < kSteps / 2; ++step) {
        const uint32_t later = at[step] + kColumns * S::kPixel;
        at[step] = at[kSteps / 2 + step];
        at[kSteps / 2 + step] = later;
      }
    }
  }
};

// The matrices of two columns of covered pixels: [column][plane], pixels as rows of 8 channels, or
// (transposed) as columns.
template <typename S, bool kTransposed>
struct Pixels {
  uint32_t at[2][S::kPlanes];

  // `region`: how far on from that of the places.
  __device__ void Load(const Places<S, kTransposed>& places, int step, int region = 0) {
#pragma unroll
    for (int plane = 0; plane < S::kPlanes; plane += 2) {
      uint32_t four[4];
      const uint32_t from = places.Of(step, plane) + region;
      if constexpr (kTransposed) {
        LoadTransposed(from, four);
      } else {
        LoadMatrices(from, four);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        (kTransposed ? at[i % 2][plane + i / 2] : at[i / 2][plane + i % 2]) = four[i];
      }
    }
  }
};

// sum [16, 8 pixels] = start + the patch's rows, each head's times its own channels of a column.
template <typename S>
__device__ inline void Logits(const Operands<S>& rows, const uint32_t (&b)[S::kPlanes],
                              const float (&start)[4], float (&sum)[4]) {
#pragma unroll
  for (int i = 0; i < S::kPlanes / 2; ++i) {
    const auto& a = rows.a[i];
    const auto& before = i == 0 ? start : const_cast<const float (&)[4]>(sum);
    Multiply16<typename S::T>(sum, before, a[0], a[1], a[2], a[3], b[2 * i], b[2 * i + 1]);
  }
}

// By head, sum [16, D] += weights [16, 16 pixels] times the head's channels; a head's rows count.
template <typename S>
__device__ inline void Gather(const uint32_t (&a)[4], const Pixels<S, true>& b, Sums<S>& sum) {
#pragma unroll
  for (int i = 0; i < S::kPlanes; ++i) {
    Multiply16<typename S::T>(sum[i / S::kChunks][i % S::kChunks], a[0], a[1], a[2], a[3],
                              b.at[0][i], b.at[1][i]);
  }
}

// For tiles of a shape.
template <typename S>
TileGrid PlanPatches(const Problem& p) {
  return PlanTiles(p, S::kRows, S::kColumns, S::kHeads);
}

// With a smaller one, kNever would not keep out what it is to keep out.
constexpr float kSmallestScale = 0.01f;

// Calls `launch` with a number of the problem's type.
template <typename Launch>
void WithType(const Problem& p, Launch launch) {
  if (p.type == Type::kBfloat16) {
    launch(__nv_bfloat16());
  } else {
    launch(__half());
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_PATCHES_CUH_
