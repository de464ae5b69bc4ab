// What the patches of a tile cover, in shared memory: how it gets there and what of it a warp
// reads.
#ifndef SASA_TF_NATIVE_CUDA_PATCH_REGIONS_CUH_
#define SASA_TF_NATIVE_CUDA_PATCH_REGIONS_CUH_

#include <cstdint>

#include "cuda/tma.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/mma_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

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
                                  const MmaLane& lane, const typename S::T* from, int parts,
                                  bool there, uint32_t region) {
  using T = typename S::T;
  constexpr int kAtOnce = kWarpSize / S::kPlanes;  // pixels of a row
  constexpr int kTurns = CeilDiv(S::kRegionColumns, kAtOnce);
  const int warp = threadIdx.x / kWarpSize, plane = lane.id % S::kPlanes;
  const int column = lane.id / S::kPlanes;
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
        CpAsync16((to ^ turn % 2 * S::Differing(kAtOnce)) + turn * kAtOnce * S::kPixel, at,
                  row_inside && inside[turn]);
      }
      at += column_step;
    }
    line += row_step;
  }
}

// The two arrays of a kernel's regions as boxes, if `there`.
struct RegionBoxes {
  TensorMap first, second;
  bool there;

  // By all threads, as soon as the kernel begins.
  __device__ void Prefetch() const {
    if (!there || threadIdx.x != 0) return;
    first.Prefetch();
    second.Prefetch();
  }
};

// For a kernel; none if not `possible`, as one of the arrays is absent or not there pixel by pixel.
// The arrays have so many parts. TensorMap know no dilation.
template <typename S, typename Kernel>
RegionBoxes MakeRegionBoxes(Kernel kernel, const LocalAttentionProblem& p, bool possible,
                            const void* first, int first_parts, const void* second,
                            int second_parts) {
  RegionBoxes boxes = {};
  const int64_t channels = p.heads * S::kDepth;
  const auto plan = [&](const void* from, int parts) {
    return TensorMapDesc{from,           p.batch,   p.height,   p.width, channels, channels * parts,
                   8 * S::kPlanes, S::kPitch, S::kBoxRows};
  };
  boxes.there = possible && p.dilation_rows == 1 && p.dilation_columns == 1 &&
                CompiledForSm90(kernel) && EncodeTensorMap(plan(first, first_parts), boxes.first) &&
                EncodeTensorMap(plan(second, second_parts), boxes.second);
  return boxes;
}

// Copies the new rows to both regions, which follow each other. By the first thread.
template <typename S>
__device__ inline void CopyBoxes(const Area& area, const Ring<S>& ring, const RegionBoxes& boxes,
                                 uint32_t regions, TmaBarrier& arrivals) {
  const int begin = ring.follows ? S::kSharedRows : -S::kLead;
  const int count = CeilDiv(S::kRegionRows - begin, S::kBoxRows);
  arrivals.Expect(2 * S::kBox * count);
  const int channel = area.head * S::kDepth, x = area.x - kMargin, y = area.y - kMargin;
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const int row = begin + i * S::kBoxRows;
    const uint32_t to = regions + ring.At(row) * S::kPitch * S::kPixel;
    arrivals.Copy(boxes.first, channel, x, y + row, area.image, to);
    arrivals.Copy(boxes.second, channel, x, y + row, area.image, to + S::kRegion);
  }
}

// Addresses that a lane gives to ldmatrix, of its rows of the matrices of two covered columns and
// two planes, which one instruction loads: of the patch's first two steps. In matrices that are
// multiplied from the left the planes of a column follow each other, in transposed ones the columns
// of a plane, as registers of one operand do.
template <typename S, bool kTransposed>
struct Places {
  static constexpr int kSteps = 2, kColumns = 2 * kSteps;
  uint32_t at[kSteps];

  // Of patches whose covered pixels of the lane are in a row of the ring, from a column on.
  __device__ Places(uint32_t region, const MmaLane& lane, int row, int column) {
    const int further = kTransposed ? lane.matrix_lo : lane.matrix_hi;
    const int plane = kTransposed ? lane.matrix_hi : lane.matrix_lo;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      at[step] = region + S::Place(row * S::kPitch + column + 2 * step + further, plane);
    }
  }
  __device__ uint32_t Of(int step, int plane) const {
    const int columns = step / kSteps * kColumns;
    return (at[step % kSteps] ^ S::Differing(columns) ^ plane * 16) + columns * S::kPixel;
  }
  // To the next patch.
  __device__ void Advance() {
#pragma unroll
    for (auto& place : at) {
      place = (place ^ S::Differing(S::kPatchColumns)) + S::kPatchColumns * S::kPixel;
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
        LdmatrixX4Trans(from, four);
      } else {
        LdmatrixX4(from, four);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        (kTransposed ? at[i % 2][plane + i / 2] : at[i / 2][plane + i % 2]) = four[i];
      }
    }
  }
};

// By head, sum [16, D] += weights [16, 16 pixels] times the head's channels; a head's rows count.
template <typename S>
__device__ inline void Gather(const uint32_t (&a)[4], const Pixels<S, true>& b, Sums<S>& sum) {
#pragma unroll
  for (int i = 0; i < S::kPlanes; ++i) {
    MmaM16N8K16<typename S::T>(sum[i / S::kChunks][i % S::kChunks], a[0], a[1], a[2], a[3],
                              b.at[0][i], b.at[1][i]);
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_PATCH_REGIONS_CUH_
