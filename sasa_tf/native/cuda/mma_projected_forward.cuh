// Forward pass on tensor cores with the projections inside: from their input x to O and, for the
// backward pass, LSE. Query, key and value never reach device memory. For narrow heads, without
// biases.
//
// As MmaForwardCta, but a CTA computes the keys and values of a tile's new rows, and the queries of
// its own pixels, from x, with the weights of its heads in shared memory. A warp takes 32
// neighboring pixels of a row at a time, four groups of 8:
//   1. Each lane loads its part of their channels to registers, see mma_projection.cuh.
//   2. The products of 8 pixels and 16 outputs are rounded and stored to shared memory: keys and
//      values to the ring buffers that MmaForwardCta loads them to, queries to a ring buffer without
//      halo columns.
// Of the halo of a tile, only the columns are projected by two CTAs; rows stay in the ring buffers.
#ifndef SASA_TF_NATIVE_CUDA_MMA_PROJECTED_FORWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_PROJECTED_FORWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/mma_forward.cuh"
#include "cuda/mma_projection.cuh"

namespace sasa {
namespace {

// Traits_: MmaKernelTraits. kChannels_: of x. kGroups_: groups of 8 pixels that a warp projects at a
// time; more have more registers.
template <typename Traits_, int kChannels_, int kGroups_>
struct ProjectionTraits : ProjectionShape<Traits_, kChannels_, QueryOrder::kHeads> {
  using Base = ProjectionShape<Traits_, kChannels_, QueryOrder::kHeads>;
  using Traits = Traits_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kLoadedGroups = 4;  // at a time
  static_assert(kGroups % 2 == 0 && kLoadedGroups % kGroups == 0);

  // The ring buffer of queries has the tile's rows, and those of the next tile that are projected
  // with its halo.
  static constexpr int kQueryRows = Traits::kTileRows + Traits::kHalo;
  static constexpr int kQueryBytes = kQueryRows * Traits::kTileColumns * Traits::kPixelBytes;

  // Shared memory: keys and values, queries, the relative tables, the weights, a staging buffer per
  // warp, and for each thread a place for what stmatrix stores of pixels that do not exist.
  static constexpr int kQueries = 2 * Traits::kBufferBytes;
  static constexpr int kTables = kQueries + (kQueryBytes + 127) / 128 * 128;
  static constexpr int kWeights = kTables + (RelativeTables<Traits>::kBytes + 127) / 128 * 128;
  static constexpr int kStaging = kWeights + Base::kWeightBytes;
  static constexpr int kUnused =
      kStaging + (Traits::kWarps * TileStore<Traits>::kBytes + 15) / 16 * 16;
  static constexpr int kBytes = kUnused + Traits::kThreads * 16;
};

// The ring buffer of queries.
template <typename P>
struct QueryRing {
  using Traits = typename P::Traits;
  int first_slot = 0;  // of the tile's first row

  __device__ void AdvanceTile(bool follows) { first_slot = follows ? Slot(Traits::kTileRows) : 0; }
  __device__ int Slot(int row) const {
    row += first_slot;
    return row < P::kQueryRows ? row : row - P::kQueryRows;
  }
  __device__ int Pixel(int row, int column) const {
    return Slot(row) * Traits::kTileColumns + column;
  }
};

// The columns of a tile with its halo that lie in the image.
template <typename Traits>
struct ImageColumns {
  int first, count;

  __device__ explicit ImageColumns(const CtaTile& tile) {
    first = max(0, Traits::kHalo - tile.x);
    count = min(Traits::kSmemColumns, Traits::kHalo + tile.columns_left) - first;
  }
};

// Clears the keys and values of a tile that lie outside of the image: columns, which stay clear in
// the tiles below, and new rows.
template <typename Traits>
__device__ inline void ClearOutsideOfImage(const CtaTile& tile,
                                           const SmemRowBuffer<Traits>& buffer,
                                           const ImageColumns<Traits>& columns,
                                           const MmaLane& lane, char* memory) {
  const int warp = threadIdx.x / kWarpSize;
  const auto clear = [&](int row_slot, int column) {
    char* pixel = memory + (row_slot * Traits::kSmemPitch + column) * Traits::kPixelBytes;
#pragma unroll
    for (int i = 0; i < Traits::kChunks; ++i) {
      reinterpret_cast<uint4*>(pixel)[i] = make_uint4(0, 0, 0, 0);
      reinterpret_cast<uint4*>(pixel + Traits::kBufferBytes)[i] = make_uint4(0, 0, 0, 0);
    }
  };
  if (!buffer.reuses_rows && columns.count < Traits::kSmemColumns) {
    for (int column = lane.id; column < Traits::kSmemColumns; column += kWarpSize) {
      if (column >= columns.first && column < columns.first + columns.count) continue;
      for (int slot = warp; slot < Traits::kBufferRows; slot += Traits::kWarps) {
        clear(slot, column);
      }
    }
  }
  for (int row = buffer.FirstNewRow() + warp; row < Traits::kSmemRows; row += Traits::kWarps) {
    if (tile.RowInImage(row - Traits::kHalo)) continue;
    for (int column = lane.id; column < Traits::kSmemColumns; column += kWarpSize) {
      clear(buffer.Slot(row), column);
    }
  }
}

// Projects the new rows of a tile. A __syncthreads must be before and after.
template <typename P>
__device__ __forceinline__ void ProjectTile(const TileGrid& g, const CtaTile& tile,
                                            const SmemRowBuffer<typename P::Traits>& buffer,
                                            const QueryRing<P>& ring, const MmaLane& lane,
                                            const typename P::Element* __restrict__ x,
                                            char* memory) {
  using Traits = typename P::Traits;
  using Element = typename P::Element;
  const ImageColumns<Traits> columns(tile);
  ClearOutsideOfImage<Traits>(tile, buffer, columns, lane, memory);
  const int first_row = max(buffer.FirstNewRow(), Traits::kHalo - tile.y);
  const int end_row = min(Traits::kSmemRows, Traits::kHalo + tile.rows_left);
  const uint32_t smem = SmemAddress(memory), unused = smem + P::kUnused + threadIdx.x * 16;
  const int64_t image = static_cast<int64_t>(tile.image) * g.height * g.width;
#pragma unroll 1
  for (int begin = 0; begin < columns.count; begin += P::kLoadedGroups * P::kPixels) {
    // Of a group of 8 columns, the lane loads channels of one pixel, and passes the address of
    // another's results to stmatrix: keys and values of a group, or queries of two groups.
    const int columns_left = columns.count - begin - lane.row;
    const Element* from =
        x + (image + tile.x + columns.first + begin + lane.row - Traits::kHalo) * P::kChannels +
        lane.pair * 8;
    const int column = begin + lane.ldmatrix_row, query = column + lane.matrix_hi * P::kPixels;
    const int left = columns.first + query - Traits::kHalo;
    bool is_pixel[P::kLoadedGroups], is_query[P::kLoadedGroups / 2];
#pragma unroll
    for (int i = 0; i < P::kLoadedGroups; ++i) {
      is_pixel[i] = column + P::kPixels * i < columns.count;
      if (i % 2 == 0) {
        is_query[i / 2] = query + P::kPixels * i < columns.count && left + P::kPixels * i >= 0 &&
                          left + P::kPixels * i < Traits::kTileColumns;
      }
    }
    uint4 loaded[P::kLoadedGroups][P::kPieces] = {};  // zeros outside of the image
#pragma unroll 1
    for (int row = first_row + static_cast<int>(threadIdx.x) / kWarpSize; row < end_row;
         row += Traits::kWarps) {
      const int y = row - Traits::kHalo;
      const Element* pixels = from + (tile.y + y) * g.width * P::kChannels;
#pragma unroll
      for (int i = 0; i < P::kLoadedGroups; ++i) {
#pragma unroll
        for (int piece = 0; piece < P::kPieces; ++piece) {
          if (P::kPixels * i < columns_left) {
            loaded[i][piece] = __ldg(reinterpret_cast<const uint4*>(
                pixels + P::kPixels * i * P::kChannels + piece * 32));
          }
        }
      }
      // The swizzle is the same 8 pixels further on. `left` may be negative.
      const uint32_t keys =
          smem + lane.matrix_hi * Traits::kBufferBytes +
          Traits::SwizzledOffset(buffer.Slot(row) * Traits::kSmemPitch + columns.first + column,
                                 lane.matrix_lo);
      const uint32_t queries =
          smem + P::kQueries +
          Traits::SwizzledOffset(ring.Pixel(max(y, 0), left + P::kPixels), lane.matrix_lo) -
          P::kPixels * Traits::kPixelBytes;
#pragma unroll
      for (int first = 0; first < P::kLoadedGroups; first += P::kGroups) {
        uint32_t matrices[P::kGroups][P::kParts][2];
        MmaProjection<P>(memory + P::kWeights, lane, loaded + first, matrices);
#pragma unroll
        for (int i = 0; i < P::kGroups; ++i) {
          const int offset = (first + i) * P::kPixels * Traits::kPixelBytes;
          const auto &key = matrices[i][1], &value = matrices[i][2];
          StmatrixX4Trans(is_pixel[first + i] ? keys + offset : unused, key[0], key[1], value[0],
                          value[1]);
          if (i % 2 == 0) {
            const auto &first_query = matrices[i][0], &second_query = matrices[i + 1][0];
            StmatrixX4Trans(y >= 0 && is_query[(first + i) / 2] ? queries + offset : unused,
                            first_query[0], first_query[1], second_query[0], second_query[1]);
          }
        }
      }
    }
  }
}

// The forward pass of a CTA. `memory`: P::kBytes, aligned to 1024 bytes. x: [B, H, W, C], kernel:
// [C, 3, N, D]. Stores: of mma_forward.cuh, without pooling.
template <typename P, typename Stores>
__device__ __forceinline__ void MmaProjectedForwardCta(
    const TileGrid& g, char* memory, const typename P::Element* __restrict__ x,
    const typename P::Element* __restrict__ kernel, const float* __restrict__ relative_rows,
    const float* __restrict__ relative_columns, typename P::Element* __restrict__ output,
    float* __restrict__ lse) {
  using Traits = typename P::Traits;
  using Element = typename Traits::Element;
  static_assert(!Stores::kPooled);
  const RelativeTables<Traits> tables(memory + P::kTables);
  const MmaLane lane;
  const uint32_t keys = SmemAddress(memory), values = keys + Traits::kBufferBytes;
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  tables.Fill(g, relative_rows, relative_columns);
  // All tiles of a CTA are of the same heads, see PersistentTileRange.
  FillProjectionWeights<P>(
      g, static_cast<int>(blockIdx.x % g.head_groups.divisor) * Traits::kTileHeads, kernel,
      memory + P::kWeights);
  PositionBias<Traits> bias(tables, lane, WarpTileIterator<Traits>(g, CtaTile(), lane));
  char* staging = memory + P::kStaging + threadIdx.x / kWarpSize * TileStore<Traits>::kBytes;
  const char* queries = memory + P::kQueries + lane.pair * 4;
  const float scale_log2 = g.scale * kLog2E;
  AFragment<Traits> q(lane, kTagForwardQuery);
  const uint32_t ones[2] = {OpaqueRegister(PackX2<Element>(1.f, 1.f), lane, kTagForwardOnes),
                            OpaqueRegister(PackX2<Element>(1.f, 1.f), lane, kTagForwardOnes + 1)};

  const PersistentTileRange range(g);
  SmemRowBuffer<Traits> buffer;
  QueryRing<P> ring;
  for (int tile_index = range.begin; tile_index < range.end; tile_index += range.step) {
    const CtaTile tile(g, tile_index, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
    const WarpTileIterator<Traits> mma_tiles(g, tile, lane);
    const bool follows = tile_index > range.begin && tile.y > 0;
    buffer.AdvanceTile(follows);
    ring.AdvanceTile(follows);
    __syncthreads();
    ProjectTile<P>(g, tile, buffer, ring, lane, x, memory);
    const SkewTranspose<Traits> skew(staging, mma_tiles.column);
    uint32_t output_offset = mma_tiles.FirstOffset(tile, 1, lane);
    TileStore<Traits> store(g, tile, lane, 1);
    if (g.mask_border) bias.MaskRows(tile, lane, mma_tiles);
    __syncthreads();
    if (!mma_tiles.active) continue;
    LdmatrixAddresses<Traits, false> k_addresses(keys, buffer, lane, mma_tiles.top,
                                                 mma_tiles.begin);
    LdmatrixAddresses<Traits, true> v_addresses(values, buffer, lane, mma_tiles.top,
                                                mma_tiles.begin);
    const int query_pixel = ring.Pixel(mma_tiles.top + mma_tiles.row[0], mma_tiles.column);
#pragma unroll 1
    for (int left = mma_tiles.begin; left < mma_tiles.end && left < tile.columns_left;
         left += Traits::kMmaTileColumns) {
      const RowPredicate valid = mma_tiles.Valid(left);
      typename PositionBias<Traits>::RowBias row_bias;
      typename PositionBias<Traits>::ColumnBias column_bias;
      if (g.mask_border) bias.MaskColumns(tile, lane, mma_tiles, left);
      RowFragment<Traits> rows;
      const uint32_t query_offset = Traits::SwizzledOffset(query_pixel + left, 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        rows[half][0] = *reinterpret_cast<const uint32_t*>(queries + (query_offset ^ half * 16));
      }
      q.Set(rows);
      bias.Compute(q, lane, mma_tiles, skew, row_bias, column_bias);
      float row_max[2], row_sum[4];
      Accumulator<Traits> acc;
      AttendMmaTile<Traits>(q, bias, row_bias, column_bias, k_addresses, v_addresses, scale_log2,
                            ones, valid, acc, row_max, row_sum);
      ScaleAccumulator<Traits>(RcpApprox(row_sum[0]), RcpApprox(row_sum[2]), acc);
      store.Store(acc, lane, staging, output);
      store.Advance();
      if constexpr (Stores::kLse) {
        StoreLse<Traits>(lane, mma_tiles, valid, row_max, row_sum, true, lse, output_offset);
        output_offset += mma_tiles.Step(1);
      }
      k_addresses.Advance();
      v_addresses.Advance();
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_PROJECTED_FORWARD_CUH_
