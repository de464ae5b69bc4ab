// The MMA tiles (warp tiles) of a warp: the iterator over them, and their rows as mma operands.
#ifndef SASA_TF_NATIVE_CUDA_MMA_WARP_TILE_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_WARP_TILE_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// The lane's part of an MMA tile of q, k, v or dO: for its row in each half of the 16 rows, and
// each chunk, two packed channels.
template <typename Traits>
using RowFragment = uint32_t[2][Traits::kHeadChunks];

// Accumulator [16, D] of each head. With two heads, only 8 of a head's rows are used.
template <typename Traits>
using Accumulator = float[Traits::kTileHeads][Traits::kHeadChunks][4];

// The first of the lane's two channels in a chunk, and whether it has channels that are not
// padding.
template <typename Traits>
__device__ inline int LaneChannel(const MmaLane& lane) {
  return Traits::kIsPadded ? 2 * (lane.pair % 2) : 2 * lane.pair;
}
template <typename Traits>
__device__ inline bool LaneHasChannels() {
  return !Traits::kIsPadded || threadIdx.x % 4 < 2;
}

// A condition for the lane's row in each half of the 16 rows.
struct RowPredicate {
  bool first, second;
  __device__ bool any() const { return first || second; }
  __device__ bool operator[](int half) const { return half ? second : first; }
  // For one value per row, which lane 0 of a quad stores for the first half and lane 1 for the
  // second.
  __device__ bool ForQuadLane(const MmaLane& lane) const {
    return lane.pair == 0 ? first : lane.pair == 1 && second;
  }
};

// Which MMA tiles of a CTA tile a warp computes: a row of them. With kSplitRows, where an image
// ends so that only half of the warps or fewer have a row, two or more warps share a row.
template <typename Traits>
struct WarpWork {
  int top;         // first row of the MMA tiles, in the CTA tile
  int begin, end;  // their columns in the CTA tile; the image may end before

  __device__ WarpWork(int top, int begin, int end) : top(top), begin(begin), end(end) {}
  __device__ explicit WarpWork(const CtaTile& tile)
      : top(threadIdx.x / kWarpSize * Traits::kMmaTileRows), begin(0), end(Traits::kTileColumns) {
    if constexpr (Traits::kSplitRows) {
      constexpr int kRowTiles = Traits::kTileColumns / Traits::kMmaTileColumns;
      int rows = Traits::kWarps, tiles = kRowTiles;  // rows that have pixels, tiles of a warp
#pragma unroll
      for (int half = Traits::kWarps; half % 2 == 0; half /= 2) {
        if (tile.rows_left > Traits::kMmaTileRows * half / 2) break;
        rows = half / 2;
        tiles = (kRowTiles * rows + Traits::kWarps - 1) / Traits::kWarps;
      }
      const int warp = threadIdx.x / kWarpSize, part = warp / rows;
      top = (warp - part * rows) * Traits::kMmaTileRows;
      begin = part * tiles * Traits::kMmaTileColumns;
      end = min(begin + tiles * Traits::kMmaTileColumns, Traits::kTileColumns);
    }
  }
};

// Iterates over the MMA tiles of a warp, from left to right. The lane has a pixel in each half of
// the 16 rows.
template <typename Traits>
struct WarpTileIterator {
  int column;  // of the lane's pixel, in the MMA tile
  int row[2];  // the same, by half
  int top;     // see WarpWork
  int begin, end;
  bool active;         // whether the MMA tiles have pixels
  RowPredicate valid;  // whether the lane's rows lie in the image and the heads exist
  int columns_left;    // of the CTA tile in the image, from the lane's column on
  int pixel, step;     // offset in the CTA tile, and to the next MMA tile, in heads of one part
  int row_stride;

  __device__ WarpTileIterator(const TileGrid& g, const CtaTile& tile, const MmaLane& lane)
      : WarpTileIterator(g, tile, lane, WarpWork<Traits>(tile)) {}
  __device__ WarpTileIterator(const TileGrid& g, const CtaTile& tile, const MmaLane& lane,
                              const WarpWork<Traits>& work) {
    const bool two_heads = Traits::kTileHeads == 2;
    column = lane.row % Traits::kMmaTileColumns;
    top = work.top;
    begin = work.begin;
    end = work.end;
    active = top < tile.rows_left;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row[half] = lane.row / Traits::kMmaTileColumns + half * Traits::kHalfRows;
    }
    valid.first = top + row[0] < tile.rows_left;
    valid.second = top + row[1] < tile.rows_left && (!two_heads || tile.head + 1 < g.heads);
    columns_left =
        (tile.columns_left < Traits::kTileColumns ? tile.columns_left : Traits::kTileColumns) -
        column;
    row_stride = g.row_stride;
    pixel = (top + row[0]) * g.row_stride + (begin + column) * g.column_stride;
    step = Traits::kMmaTileColumns * g.column_stride;
  }
  // Offset of the lane's channels in the first MMA tile, in an array of `parts` parts.
  __device__ uint32_t FirstOffset(const CtaTile& tile, int parts, const MmaLane& lane) const {
    return (tile.Offset(parts) + pixel * parts) * Traits::kHeadDim + LaneChannel<Traits>(lane);
  }
  // From there to the next MMA tile.
  __device__ uint32_t Step(int parts) const { return step * parts * Traits::kHeadDim; }
  // From the first half's pixel to the second half's, in heads.
  __device__ int HalfStride(int parts) const {
    return Traits::kTileHeads == 2 ? 1 : Traits::kHalfRows * row_stride * parts;
  }
  // The same in an array that is pooled over blocks of 2 x 2 pixels.
  __device__ int PooledHalfStride() const {
    return Traits::kTileHeads == 2 ? 1 : Traits::kHalfRows / 2 * (row_stride / 2);
  }
  // Whether the lane has pixels in the MMA tile whose first column is `left`.
  __device__ RowPredicate Valid(int left) const {
    return {valid.first && left < columns_left, valid.second && left < columns_left};
  }
};

// Loads from the lane's first channels; `half_stride` is in heads.
template <typename Traits>
__device__ inline void LoadRowFragment(const typename Traits::Element* from, int half_stride,
                                       const RowPredicate& valid, RowFragment<Traits>& to) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const typename Traits::Element* row = from + half * half_stride * Traits::kHeadDim;
#pragma unroll
    for (int c = 0; c < Traits::kHeadChunks; ++c) {
      to[half][c] = 0;
      if (valid[half] && LaneHasChannels<Traits>())
        to[half][c] = __ldg(reinterpret_cast<const uint32_t*>(row + 8 * c));
    }
  }
}

// An MMA tile as A operands [16, 16] of two chunks each. With two heads, each row has zeros in
// place of the other head's channels.
template <typename Traits>
struct AFragment {
  uint32_t a[Traits::kChunks / 2][4];

  __device__ AFragment(const MmaLane& lane, int tag) {
    if constexpr (Traits::kTileHeads == 2) {
#pragma unroll
      for (int i = 0; i < 2 * Traits::kChunks; ++i) {
        a[i / 4][i % 4] = OpaqueRegister(0u, lane, tag + i);
      }
    }
  }
  __device__ void Set(const RowFragment<Traits>& rows) {
    if constexpr (Traits::kTileHeads == 1) {
#pragma unroll
      for (int i = 0; i < 2 * Traits::kChunks; ++i) a[i / 4][i % 4] = rows[i % 2][i / 2];
    } else if constexpr (Traits::kHeadChunks == 1) {
      a[0][0] = rows[0][0];
      a[0][3] = rows[1][0];
    } else {
      a[0][0] = rows[0][0];
      a[0][2] = rows[0][1];
      a[1][1] = rows[1][0];
      a[1][3] = rows[1][1];
    }
  }
  // The value that was set.
  __device__ uint32_t Get(int half, int chunk) const {
    if constexpr (Traits::kTileHeads == 1) return a[chunk / 2][half + chunk % 2 * 2];
    if constexpr (Traits::kHeadChunks == 1) return a[0][3 * half];
    return a[half][half + 2 * chunk];
  }
};

// s [16, 8 pixels of a block] = rows b^T + c, the channels of each head separately.
template <typename Traits>
__device__ inline void MmaQK(const AFragment<Traits>& rows, const uint32_t (&b)[Traits::kChunks],
                             const float (&c)[4], float (&s)[4]) {
#pragma unroll
  for (int i = 0; i < Traits::kChunks / 2; ++i) {
    const auto& a = rows.a[i];
    const auto& sum = i == 0 ? c : const_cast<const float (&)[4]>(s);
    MmaM16N8K16<typename Traits::Element>(s, sum, a[0], a[1], a[2], a[3], b[2 * i], b[2 * i + 1]);
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_WARP_TILE_CUH_
