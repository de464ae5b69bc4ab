// Tile shapes and compile-time constants of the tensor core kernels (sm_80 and later, bf16 and
// fp16, windows of 7 x 7).
//
// A CTA owns a tile of pixels and stages the keys and values (in dK/dV: queries and dO) of the tile
// and its halo of 3 pixels in shared memory. Each warp owns a row of MMA tiles. An MMA tile is the
// M = 16 rows of mma.m16n8k16:
//   * wide heads (32, 64): 2 x 8 pixels of one head;
//   * narrow heads (8, 16): 2 x 4 pixels of two heads, 8 rows each. A row has zeros in place of the
//     other head's channels.
// The windows of an MMA tile cover a halo tile of 8 rows and 14 (10) columns. The 8 pixels of a
// halo column are the N = 8 columns of a QK^T product, and two halo columns are the K = 16 of a PV
// product. So the row part of q.r is the same for all halo columns and initializes their
// accumulators, and the column part is a product with one-hot columns. 49 of the 112 (80) logits of
// a query lie in its window; the position bias masks the others.
#ifndef SASA_TF_NATIVE_CUDA_MMA_TRAITS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_TRAITS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/warp_reduce.cuh"
#include "limits.h"

namespace sasa {
namespace {

constexpr int kKernel = kTensorCoreKernelSize;  // K, of rows and columns
constexpr int kHalo = kKernel / 2;              // pixels on each side of a tile
constexpr int kMmaTileRows = 2;
constexpr int kHaloRows = kMmaTileRows + kKernel - 1;  // of an MMA tile with its halo
static_assert(kHaloRows == 8);                         // N of the mma instructions

// The bias of a masked key, in half precision. It is multiplied by the scale, so it would not mask
// with a scale below kMinTensorCoreScale.
constexpr float kMaskedBias = -60000.f;

// Base of the tile configurations of a kernel, which define
//   kHeadDim, kWarps, kTileColumns (of the CTA tile, in pixels), kMinCtasPerSm
// and may override
//   kStagedStore: results are stored by way of shared memory, see StagedStore;
//   kSplitRows: warps share rows of MMA tiles at the lower end of an image, see WarpWork;
//   kCompactBuffer: the ring buffer has as few rows as possible, for kernels without TMA.
struct MmaTileConfig {
  static constexpr bool kStagedStore = false, kSplitRows = false, kCompactBuffer = false;
};

template <typename Element_, typename Config>
struct MmaKernelTraits {
  using Element = Element_;
  static constexpr int kHeadDim = Config::kHeadDim;
  static constexpr int kWarps = Config::kWarps, kThreads = kWarpSize * kWarps;
  static constexpr int kMinCtasPerSm = Config::kMinCtasPerSm;
  static constexpr bool kStagedStore = Config::kStagedStore, kSplitRows = Config::kSplitRows;

  // A chunk is 8 channels, 16 bytes: a row of an 8x8 matrix of ldmatrix.
  static constexpr int kTileHeads = kHeadDim <= 16 ? 2 : 1;  // heads of an MMA tile
  static constexpr int kHeadChunks = kHeadDim / 8;
  static constexpr int kChunks = kTileHeads * kHeadChunks;  // of a pixel
  static constexpr int kPixelBytes = kChunks * 16;

  // The MMA tile, and its halo tile.
  static constexpr int kMmaTileColumns = 8 / kTileHeads;
  static constexpr int kHaloColumns = kMmaTileColumns + kKernel - 1;
  static constexpr int kSteps = kHaloColumns / 2;  // of two halo columns, 16 pixels

  // The CTA tile, and what of it lies in shared memory.
  static constexpr int kTileRows = kMmaTileRows * kWarps, kTileColumns = Config::kTileColumns;
  static_assert(kTileColumns % kMmaTileColumns == 0);
  static constexpr int kSmemRows = kTileRows + kKernel - 1;
  static constexpr int kSmemColumns = kTileColumns + kKernel - 1;
  static constexpr int kOverlapRows = kKernel - 1;  // that consecutive tiles share

  // The ring buffer of rows, see SmemRowBuffer. A multiple of 8 rows, so that 8 consecutive rows
  // lie in different banks, also where the buffer wraps around. A compact one has conflicts there.
  static constexpr bool kCompactBuffer = Config::kCompactBuffer;
  static constexpr int kBufferRows = kCompactBuffer ? kSmemRows : (kSmemRows + 7) / 8 * 8;
  static constexpr int kSmemPitch =
      kSmemColumns | 1;  // pixels from row to row; odd for the swizzle
  static constexpr int kBufferBytes = (kBufferRows * kSmemPitch * kPixelBytes + 1023) / 1024 * 1024;

  // TMA boxes have as many rows as make each begin at a multiple of 128 bytes.
  static constexpr int kTmaBoxRows = kTileRows % 4 == 0 ? 4 : 2;
  static constexpr int kTmaBoxBytes = kTmaBoxRows * kSmemPitch * kPixelBytes;
  static_assert(kTmaBoxBytes % 128 == 0);
  // Unused rows before an image's first tile, which align the boxes of its other tiles.
  static constexpr int kLeadRows =
      kCompactBuffer ? 0 : (kTmaBoxRows - kOverlapRows % kTmaBoxRows) % kTmaBoxRows;
  static_assert(kLeadRows + kSmemRows <= kBufferRows);
  static_assert(kCompactBuffer ||
                (kBufferRows % kTmaBoxRows == 0 && kTileRows % kTmaBoxRows == 0));

  // The relative tables: half of the head's channels are of the row table, half of the column
  // table. Heads 8 wide have both in one chunk.
  static constexpr int kTableChunks = kHeadChunks > 1 ? kHeadChunks / 2 : 1;
  static constexpr int kColumnTableChunk = kHeadChunks - kTableChunks;  // the column table's first
  // Entries, padded with zeros: of a halo row, relative to the MMA tile's last row, and of a halo
  // column, with narrow heads relative to the MMA tile's last column.
  static constexpr int kRowPadding = kMmaTileRows - 1, kRowEntries = kHaloRows + kRowPadding;
  static constexpr int kColumnPadding = kTileHeads == 2 ? kMmaTileColumns - 1 : 0;
  static constexpr int kColumnEntries = kTileHeads == 2 ? 16 + kColumnPadding : kRowEntries;

  // Byte offset of a chunk in the buffer, with the swizzle of TMA: the chunks of 8 consecutive
  // pixels lie in different banks and, as the pitch is odd, so do those of 8 pixels of a column.
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
