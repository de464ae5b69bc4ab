// Tile shapes and compile-time constants of the tensor core kernels (sm_80 and later, bf16 and
// fp16, square windows of 3, 5, 7, 9 and 11).
//
// A CTA owns a tile of pixels and stages the keys and values (in dK/dV: queries and dO) of the tile
// and its halo of K / 2 pixels in shared memory. Each warp owns a row of MMA tiles. An MMA tile is
// the M = 16 rows of mma.m16n8k16:
//   * wide heads (32, 64): 16 pixels of one head;
//   * narrow heads (8, 16): 8 pixels of two heads, 8 rows each. A row has zeros in place of the
//     other head's channels.
// The windows of an MMA tile cover its halo tile, which is divided into blocks of 8 pixels: the N =
// 8 columns of a QK^T product. Two blocks, a step, are the K = 16 of a PV product. A block has 8 x
// 1 or 4 x 2 pixels, so that blocks divide the halo tile (rows x columns, wide / narrow heads):
//
//    K   MMA tile         halo tile          block   logits of a query
//    3   2 x 8 / 2 x 4     4 x 10 /  4 x  6   4 x 2    40 /  24, of which   9 lie in its window
//    5   4 x 4 / 4 x 2     8 x  8 /  8 x  6   8 x 1    64 /  48,           25
//    7   2 x 8 / 2 x 4     8 x 14 /  8 x 10   8 x 1   112 /  80,           49
//    9   4 x 4 / 4 x 2    12 x 12 / 12 x 10   4 x 2   144 / 120,           81
//   11   2 x 8 / 2 x 4    12 x 18 / 12 x 14   4 x 2   216 / 168,          121
//
// The position bias masks the others. The row part of q.r is the same for all blocks of the same
// rows and initializes their accumulators; the column part is a product with one-hot columns.
#ifndef SASA_TF_NATIVE_CUDA_MMA_TRAITS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_TRAITS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {
namespace {

// The bias of a masked key, in half precision. It is multiplied by the scale, so it would not mask
// with a scale below kMinTensorCoreScale.
constexpr float kMaskedBias = -60000.f;

// How a kernel divides images into CTA tiles.
struct MmaTiles {
  int warps, tile_columns;    // of a CTA; the columns are pixels
  int min_ctas_per_sm;        // for the compiler, which limits the registers accordingly
  bool staged_store = false;  // results are stored by way of shared memory, see StagedStore
  bool split_rows = false;    // warps share rows of MMA tiles at the end of an image, see WarpWork
  bool compact_buffer = false;  // the ring buffer has as few rows as possible, without TMA
  bool one_head = false;        // MMA tiles are of one head even if it is narrow; widths 16 and more
};

// Config defines kKernel, the window's rows and columns; kHeadDim; and kTiles, an MmaTiles.
template <typename Element_, typename Config>
struct MmaKernelTraits {
  using Element = Element_;
  static constexpr MmaTiles kTiles = Config::kTiles;
  static constexpr int kKernel = Config::kKernel;  // K, of rows and columns
  static constexpr int kHalo = kKernel / 2;        // pixels on each side of a tile
  static constexpr int kHeadDim = Config::kHeadDim;
  // Heads 4 wide are padded with zeros, in shared memory and in registers.
  static constexpr int kPaddedHeadDim = CeilDiv(kHeadDim, 8) * 8;
  static constexpr bool kIsPadded = kHeadDim != kPaddedHeadDim;
  static_assert(!kIsPadded || kHeadDim == 4);
  static constexpr int kWarps = kTiles.warps, kThreads = kWarpSize * kWarps;
  static constexpr int kMinCtasPerSm = kTiles.min_ctas_per_sm;
  static constexpr bool kStagedStore = kTiles.staged_store, kSplitRows = kTiles.split_rows;

  // A chunk is 8 channels, 16 bytes: a row of an 8x8 matrix of ldmatrix.
  static constexpr int kTileHeads = kHeadDim <= 16 && !kTiles.one_head ? 2 : 1;  // of an MMA tile
  static_assert(kHeadDim >= 16 || !kTiles.one_head);
  static constexpr int kHeadChunks = kPaddedHeadDim / 8;
  static constexpr int kChunks = kTileHeads * kHeadChunks;  // of a pixel
  static constexpr int kPixelBytes = kChunks * 16;

  // The MMA tile, and its halo tile.
  static constexpr int kMmaTileRows = kKernel % 4 == 3 ? 2 : 4;
  static constexpr int kMmaTileColumns = 16 / kTileHeads / kMmaTileRows;
  static constexpr int kHaloRows = kMmaTileRows + kKernel - 1;
  static constexpr int kHaloColumns = kMmaTileColumns + kKernel - 1;
  // Rows of pixels from the first half of the 16 rows to the second half.
  static constexpr int kHalfRows = kTileHeads == 2 ? 0 : kMmaTileRows / 2;

  // The blocks of the halo tile, and steps of two blocks of the same rows. Of an odd number of
  // blocks, the last step has one.
  static constexpr int kBlockRows = kHaloRows % 8 == 0 ? 8 : 4, kBlockColumns = 8 / kBlockRows;
  static constexpr int kRowBlocks = kHaloRows / kBlockRows;
  static constexpr int kColumnBlocks = kHaloColumns / kBlockColumns;
  static_assert(kHaloRows % kBlockRows == 0 && kHaloColumns % kBlockColumns == 0);
  static constexpr int kRowSteps = CeilDiv(kColumnBlocks, 2), kSteps = kRowBlocks * kRowSteps;
  // The row of blocks of a step, and the column of its first block.
  __host__ __device__ static constexpr int RowBlock(int step) { return step / kRowSteps; }
  __host__ __device__ static constexpr int ColumnBlock(int step) { return step % kRowSteps * 2; }
  __host__ __device__ static constexpr int Blocks(int step) {
    return ColumnBlock(step) + 1 < kColumnBlocks ? 2 : 1;
  }
  // The row and column of a block's pixel `i`.
  __host__ __device__ static constexpr int BlockRow(int i) { return i % kBlockRows; }
  __host__ __device__ static constexpr int BlockColumn(int i) { return i / kBlockRows; }

  // Groups of 8, the N of a product: of halo rows, halo columns, and entries of a relative table.
  static constexpr int kRowGroups = CeilDiv(kHaloRows, 8);
  static constexpr int kColumnGroups = CeilDiv(kHaloColumns, 8);
  static constexpr int kEntryGroups = CeilDiv(kKernel, 8);

  // The CTA tile, and what of it lies in shared memory.
  static constexpr int kTileRows = kMmaTileRows * kWarps, kTileColumns = kTiles.tile_columns;
  static_assert(kTileColumns % kMmaTileColumns == 0);
  static constexpr int kSmemRows = kTileRows + kKernel - 1;
  static constexpr int kSmemColumns = kTileColumns + kKernel - 1;
  static constexpr int kOverlapRows = kKernel - 1;  // that consecutive tiles share

  // TMA boxes have as many rows as make each begin at a multiple of 128 bytes.
  static constexpr int kTmaBoxRows = kTileRows % 4 == 0 ? 4 : 2;
  // Unused rows before an image's first tile, which align the boxes of its other tiles.
  static constexpr bool kCompactBuffer = kTiles.compact_buffer;
  static constexpr int kLeadRows =
      kCompactBuffer ? 0 : (kTmaBoxRows - kOverlapRows % kTmaBoxRows) % kTmaBoxRows;

  // The ring buffer of rows, see SmemRowBuffer. The 8 pixels of a block lie in different banks,
  // also where the buffer wraps around: with the swizzle, if they differ modulo 8. So the pitch, in
  // pixels from row to row, is odd for blocks of 8 x 1, 2 or 6 modulo 8 for blocks of 4 x 2, and
  // the buffer a multiple of 8 pixels. A compact buffer has conflicts where it wraps.
  static constexpr int kSmemPitch =
      kBlockColumns == 1 ? kSmemColumns | 1 : (kSmemColumns + 1) / 4 * 4 + 2;
  static constexpr int kBufferRows =
      kCompactBuffer ? kSmemRows : CeilDiv(kLeadRows + kSmemRows, kBlockRows) * kBlockRows;
  static constexpr int kBufferBytes = (kBufferRows * kSmemPitch * kPixelBytes + 1023) / 1024 * 1024;
  static constexpr int kTmaBoxBytes = kTmaBoxRows * kSmemPitch * kPixelBytes;
  static_assert(kSmemPitch >= kSmemColumns && kTmaBoxBytes % 128 == 0);
  static_assert(kCompactBuffer || (kBufferRows % kTmaBoxRows == 0 && kTileRows % kTmaBoxRows == 0));

  // The relative tables: half of the head's channels are of the row table, half of the column
  // table. Heads 8 wide have both in one chunk.
  static constexpr int kTableChunks = kHeadChunks > 1 ? kHeadChunks / 2 : 1;
  static constexpr int kColumnTableChunk = kHeadChunks - kTableChunks;  // the column table's first
  // Entries, padded with zeros: of a halo row, relative to the MMA tile's last row, and of a halo
  // column, with narrow heads relative to the MMA tile's last column.
  static constexpr int kRowPadding = kMmaTileRows - 1;
  static constexpr int kColumnPadding = kTileHeads == 2 ? kMmaTileColumns - 1 : 0;
  static constexpr int kRowEntries =
      kRowPadding + (kHaloRows > 8 * kEntryGroups ? kHaloRows : 8 * kEntryGroups);
  static constexpr int kColumnEntries =
      kTileHeads == 2 ? kColumnPadding + 8 * kColumnGroups : kRowEntries;

  // Byte offset of a chunk in the buffer, with the swizzle of TMA: the chunks of pixels that differ
  // modulo 8 lie in different banks.
  __device__ static uint32_t SwizzledOffset(int pixel, int chunk) {
    return pixel * kPixelBytes + (chunk ^ (pixel * kChunks / 8 % kChunks)) * 16;
  }
  // The bits by which the swizzle differs `pixels` further on, for a multiple of 4.
  __host__ __device__ static constexpr uint32_t SwizzleXor(int pixels) {
    return pixels / 4 % 2 * (kChunks / 2) * 16;
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_TRAITS_CUH_
