// The epilogue: scales the accumulators of an MMA tile, converts them and stores them.
#ifndef SASA_TF_NATIVE_CUDA_MMA_EPILOGUE_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_EPILOGUE_CUH_

#include <cstdint>
#include <type_traits>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// Multiplies each half of the rows by its factor.
template <typename Traits>
__device__ inline void ScaleAccumulator(float first, float second, Accumulator<Traits>& acc) {
#pragma unroll
  for (auto& head : acc) {
#pragma unroll
    for (auto& fragment : head) {
#pragma unroll
      for (int i = 0; i < 4; ++i) fragment[i] *= i / 2 ? second : first;
    }
  }
}

// Packs the lane's two channels of a chunk, for its row in `half`.
template <typename Traits>
__device__ inline uint32_t PackRow(const Accumulator<Traits>& acc, int half, int chunk) {
  const auto& fragment = acc[Traits::kTileHeads == 2 ? half : 0][chunk];
  return PackX2<typename Traits::Element>(fragment[2 * half], fragment[2 * half + 1]);
}

// Stores MMA tiles from registers, 4 bytes per lane and chunk.
template <typename Traits>
struct DirectStore {
  using Element = typename Traits::Element;
  static constexpr int kBytes = 0;  // of shared memory, per warp

  // For arrays of `parts` parts; starts at the warp's first MMA tile.
  __device__ DirectStore(const TileGrid& g, const CtaTile& tile, const MmaLane& lane, int parts)
      : DirectStore(g, tile, lane, parts, WarpWork<Traits>(tile)) {}
  __device__ DirectStore(const TileGrid& g, const CtaTile& tile, const MmaLane& lane, int parts,
                         const WarpWork<Traits>& work)
      : mma_tiles(g, tile, lane, work),
        half_stride(mma_tiles.HalfStride(parts)),
        step(mma_tiles.Step(parts)),
        left(mma_tiles.begin) {
    offset = mma_tiles.FirstOffset(tile, parts, lane);
  }
  __device__ void Store(const Accumulator<Traits>& acc, const MmaLane&, char*, Element* to) const {
    const RowPredicate valid = mma_tiles.Valid(left);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Element* row = to + offset + half * half_stride * Traits::kHeadDim;
      if (!valid[half] || !LaneHasChannels<Traits>()) continue;
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) {
        *reinterpret_cast<uint32_t*>(row + 8 * c) = PackRow<Traits>(acc, half, c);
      }
    }
  }
  // Advances by MMA tiles.
  __device__ void Advance(int tiles = 1) {
    offset += tiles * step;
    left += tiles * Traits::kMmaTileColumns;
  }

 private:
  WarpTileIterator<Traits> mma_tiles;
  int half_stride, step, left;
  uint32_t offset;
};

// Stores MMA tiles by way of shared memory, 16 bytes per lane: fewer and fully coalesced stores. It
// is faster where a kernel is not bound by shared memory.
template <typename Traits>
struct StagedStore {
  using Element = typename Traits::Element;
  static_assert(!Traits::kIsPadded);
  static constexpr int kPixels = Traits::kMmaTileRows * Traits::kMmaTileColumns;
  // The staging buffer is [chunk][pixel], padded against bank conflicts.
  static constexpr int kChunkStride = (kPixels + 8 / Traits::kChunks) * 16;
  static constexpr int kBytes = Traits::kChunks * kChunkStride;  // of shared memory, per warp
  // Pixels that the warp stores at once, and iterations.
  static constexpr int kMaxPixels = kWarpSize / Traits::kChunks;
  static constexpr int kPixelsAtOnce = kMaxPixels < kPixels ? kMaxPixels : kPixels;
  static constexpr int kIterations = kPixels / kPixelsAtOnce;

  // For arrays of `parts` parts; starts at the warp's first MMA tile.
  __device__ StagedStore(const TileGrid& g, const CtaTile& tile, const MmaLane& lane, int parts)
      : StagedStore(g, tile, lane, parts, WarpWork<Traits>(tile)) {}
  __device__ StagedStore(const TileGrid& g, const CtaTile& tile, const MmaLane& lane, int parts,
                         const WarpWork<Traits>& work) {
    const int chunk = lane.id % Traits::kChunks, pixel = lane.id / Traits::kChunks;
    const int row = work.top + pixel / Traits::kMmaTileColumns;
    const int column = work.begin + pixel % Traits::kMmaTileColumns;
    smem_offset = chunk * kChunkStride + pixel * 16;
    rows_left = pixel < kPixelsAtOnce && tile.head + chunk / Traits::kHeadChunks < g.heads
                    ? tile.rows_left - row
                    : 0;
    columns_left =
        (tile.columns_left < Traits::kTileColumns ? tile.columns_left : Traits::kTileColumns) -
        column;
    row_stride = g.row_stride * parts * Traits::kHeadDim;
    column_stride = g.column_stride * parts * Traits::kHeadDim;
    offset = tile.Offset(parts) * Traits::kHeadDim + row * row_stride + column * column_stride +
             chunk * 8;
  }
  // `smem`: the warp's kBytes.
  __device__ void Store(const Accumulator<Traits>& acc, const MmaLane& lane, char* smem,
                        Element* to) const {
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) {
        const int chunk = Traits::kTileHeads == 2 ? half * Traits::kHeadChunks + c : c;
        const int pixel = lane.row + (Traits::kTileHeads == 2 ? 0 : half * 8);
        *reinterpret_cast<uint32_t*>(smem + chunk * kChunkStride + pixel * 16 + lane.pair * 4) =
            PackRow<Traits>(acc, half, c);
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kIterations; ++i) {
      const int row = i * kPixelsAtOnce / Traits::kMmaTileColumns;
      const int column = i * kPixelsAtOnce % Traits::kMmaTileColumns;
      if (row < rows_left && column < columns_left) {
        *reinterpret_cast<uint4*>(to + offset + row * row_stride + column * column_stride) =
            *reinterpret_cast<const uint4*>(smem + smem_offset + i * kPixelsAtOnce * 16);
      }
    }
  }
  // Advances by MMA tiles.
  __device__ void Advance(int tiles = 1) {
    offset += tiles * Traits::kMmaTileColumns * column_stride;
    columns_left -= tiles * Traits::kMmaTileColumns;
  }

 private:
  // Of the lane's first 16 bytes.
  uint32_t smem_offset;
  uint32_t offset;
  int rows_left, columns_left;  // of the image from there on
  int row_stride, column_stride;
};

template <typename Traits>
using TileStore =
    std::conditional_t<Traits::kStagedStore, StagedStore<Traits>, DirectStore<Traits>>;

// Stores the output of an MMA tile averaged over blocks of 2 x 2 pixels. The rows of a block differ
// in two bits of their index; in MMA tiles of 2 x 8 pixels, in the half and one bit. `to`: the
// lane's channels of the first half; `half_stride`: from there to those of the second, in elements.
template <typename Traits>
__device__ inline void StorePooledOutput(const Accumulator<Traits>& output, const MmaLane& lane,
                                         const RowPredicate& valid, int half_stride,
                                         typename Traits::Element* to) {
  constexpr bool kHalvesAreRows = Traits::kHalfRows == 1;
  // Distance to the lanes of the next column and of the next row of pixels.
  constexpr int kColumnLanes = 4, kRowLanes = 4 * Traits::kMmaTileColumns;
  const bool first = (lane.id & (kHalvesAreRows ? kColumnLanes : kColumnLanes | kRowLanes)) == 0;
#pragma unroll
  for (int half = 0; half < (kHalvesAreRows ? 1 : 2); ++half) {
#pragma unroll
    for (int c = 0; c < Traits::kHeadChunks; ++c) {
      float average[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const auto& fragment = output[Traits::kTileHeads == 2 ? half : 0][c];
        float x = kHalvesAreRows ? fragment[i] + fragment[2 + i] : fragment[2 * half + i];
        x += __shfl_xor_sync(kFullMask, x, kColumnLanes);
        if (!kHalvesAreRows) x += __shfl_xor_sync(kFullMask, x, kRowLanes);
        average[i] = x * kPoolWeight;
      }
      if (first && valid[half] && LaneHasChannels<Traits>()) {
        *reinterpret_cast<uint32_t*>(to + half * half_stride + 8 * c) =
            PackX2<typename Traits::Element>(average[0], average[1]);
      }
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_EPILOGUE_CUH_
