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

#include "cuda/ptx.cuh"
#include "cuda/launch.h"
#include "cuda/element_types.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/mma_tiles.cuh"
#include "local_attention.h"

namespace sasa {

// The first kernel of the backward pass; what the second is to sum.
TableSums PatchesByQueries(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
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
  // Rows of a box, so many that each begins at a multiple of 128 bytes; its bytes.
  static constexpr int kBoxRows = kRows % 4 == 0 ? 4 : 2;
  static constexpr int kBox = kBoxRows * kPitch * kPixel;
  static_assert(kBox % 128 == 0);
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
  // The bits in which the place so many pixels further on differs, four or a multiple, but for the
  // distance.
  __host__ __device__ static constexpr uint32_t Differing(int pixels) {
    return pixels / 4 % 2 * (kPlanes / 2) * 16;
  }
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
  __device__ bool OfNumber(const MmaLane& lane) const {
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
      : top(threadIdx.x / kWarpSize * kPatchRows), begin(0), end(S::kColumns) {
    if constexpr (S::kShares) {
      constexpr int kPatches = S::kColumns / S::kPatchColumns;  // of a row
      int rows = S::kWarps, each = kPatches;
#pragma unroll
      for (int half = S::kWarps; half % 2 == 0; half /= 2) {
        if (area.rows > kPatchRows * half / 2) break;
        rows = half / 2;
        each = (kPatches * rows + S::kWarps - 1) / S::kWarps;
      }
      const int warp = threadIdx.x / kWarpSize, part = warp / rows;
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

  __device__ Way(const TileGrid& g, const Area& area, const MmaLane& lane) {
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
  __device__ uint32_t First(const Area& area, int parts, const MmaLane& lane) const {
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
  __device__ Operands(const MmaLane& lane, int place) {
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

// sum [16, 8 pixels] = start + the patch's rows, each head's times its own channels of a column.
template <typename S>
__device__ inline void Logits(const Operands<S>& rows, const uint32_t (&b)[S::kPlanes],
                              const float (&start)[4], float (&sum)[4]) {
#pragma unroll
  for (int i = 0; i < S::kPlanes / 2; ++i) {
    const auto& a = rows.a[i];
    const auto& before = i == 0 ? start : const_cast<const float (&)[4]>(sum);
    MmaM16N8K16<typename S::T>(sum, before, a[0], a[1], a[2], a[3], b[2 * i], b[2 * i + 1]);
  }
}

// For tiles of a shape.
template <typename S>
TileGrid PlanPatches(const LocalAttentionProblem& p) {
  return PlanTiles(p, S::kRows, S::kColumns, S::kHeads);
}

// With a smaller one, kMaskedBias would not keep out what it is to keep out.
constexpr float kSmallestScale = 0.01f;

// Calls `launch` with a number of the problem's type.
template <typename Launch>
void WithType(const LocalAttentionProblem& p, Launch launch) {
  if (p.type == DType::kBfloat16) {
    launch(__nv_bfloat16());
  } else {
    launch(__half());
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_PATCHES_CUH_
