// How the results of patches get from matrices to memory.
#ifndef SASA_TF_NATIVE_CUDA_PATCH_STORES_CUH_
#define SASA_TF_NATIVE_CUDA_PATCH_STORES_CUH_

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/ptx.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/mma_tiles.cuh"

namespace sasa {
namespace {

// Multiplies sums by a number for each half of the rows.
template <typename S>
__device__ inline void Scale(float first, float second, Sums<S>& sums) {
#pragma unroll
  for (auto& of_head : sums) {
#pragma unroll
    for (auto& sum : of_head) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] *= i / 2 ? second : first;
    }
  }
}

// Two numbers of the lane's row, of its own head's sums.
template <typename S>
__device__ inline uint32_t Packed(const Sums<S>& sums, int half, int chunk) {
  const auto& sum = sums[S::kHeads == 2 ? half : 0][chunk];
  return PackX2<typename S::T>(sum[2 * half], sum[2 * half + 1]);
}

// How a warp stores its patches: number by number, as they lie in matrices, or, by way of its own
// shared memory, in pieces of 16 bytes, as few requests for whole lines. That is faster where a
// kernel does not wait for shared memory already.
template <typename S>
struct Numbers {
  using T = typename S::T;
  static constexpr int kBytes = 0;

  // Of the first patch on the warp's way, in an array of so many parts.
  __device__ Numbers(const TileGrid& g, const Area& area, const MmaLane& lane, int parts)
      : way(g, area, lane), second(way.Second(parts)), step(way.Step(parts)), left(way.begin) {
    at = way.First(area, parts, lane);
  }
  __device__ void Store(const Sums<S>& sums, const MmaLane&, char*, T* to) const {
    const Halves inside = way.Inside(left);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      T* half_at = to + at + half * second * S::kDepth;
      if (!inside[half]) continue;
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
        *reinterpret_cast<uint32_t*>(half_at + 8 * c) = Packed<S>(sums, half, c);
      }
    }
  }
  // To the next patch.
  __device__ void Advance() {
    at += step;
    left += S::kPatchColumns;
  }

 private:
  Way<S> way;
  int second, step, left;
  uint32_t at;
};

template <typename S>
struct Pieces {
  using T = typename S::T;
  static constexpr int kPixels = kPatchRows * S::kPatchColumns;
  // Of shared memory, [plane][pixel]; the pieces of neighbouring pixels lie in different banks.
  static constexpr int kPlane = (kPixels + 8 / S::kPlanes) * 16;
  static constexpr int kBytes = S::kPlanes * kPlane;
  // The lanes take so many pixels at once, so many times.
  static constexpr int kMost = kWarpSize / S::kPlanes, kAtOnce = kMost < kPixels ? kMost : kPixels;
  static constexpr int kTurns = kPixels / kAtOnce;

  // Of the first patch on the warp's way, in an array of so many parts.
  __device__ Pieces(const TileGrid& g, const Area& area, const MmaLane& lane, int parts) {
    const int plane = lane.id % S::kPlanes, pixel = lane.id / S::kPlanes;
    const Share<S> share(area);
    const int row = share.top + pixel / S::kPatchColumns;
    const int column = share.begin + pixel % S::kPatchColumns;
    piece = plane * kPlane + pixel * 16;
    rows = pixel < kAtOnce && area.head + plane / S::kChunks < g.heads ? area.rows - row : 0;
    columns = (area.columns < S::kColumns ? area.columns : S::kColumns) - column;
    row_step = g.row_step * parts * S::kDepth;
    column_step = g.column_step * parts * S::kDepth;
    at = area.First(parts) * S::kDepth + row * row_step + column * column_step + plane * 8;
  }
  __device__ void Store(const Sums<S>& sums, const MmaLane& lane, char* memory, T* to) const {
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
        const int plane = S::kHeads == 2 ? half * S::kChunks + c : c;
        const int pixel = lane.row + (S::kHeads == 2 ? 0 : half * 8);
        *reinterpret_cast<uint32_t*>(memory + plane * kPlane + pixel * 16 + lane.pair * 4) =
            Packed<S>(sums, half, c);
      }
    }
    __syncwarp();
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const int row = turn * kAtOnce / S::kPatchColumns, column = turn * kAtOnce % S::kPatchColumns;
      if (row < rows && column < columns) {
        *reinterpret_cast<uint4*>(to + at + row * row_step + column * column_step) =
            *reinterpret_cast<const uint4*>(memory + piece + turn * kAtOnce * 16);
      }
    }
  }
  // To the next patch.
  __device__ void Advance() {
    at += S::kPatchColumns * column_step;
    columns -= S::kPatchColumns;
  }

 private:
  uint32_t piece;     // the lane's first one's place in shared memory
  uint32_t at;        // and in the array
  int rows, columns;  // of the image from there on
  int row_step, column_step;
};

template <typename S>
using Stores = std::conditional_t<S::kPieces, Pieces<S>, Numbers<S>>;

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_PATCH_STORES_CUH_
