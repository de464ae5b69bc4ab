// The source of the one-pass backward kernel with the projections inside: query, key and value from
// their input x, so that they are never in device memory. For heads 8 wide, without biases.
//
// The unit of work is a group of pixels: the rows of a row of MMA tiles. The warp that begins a row
// of MMA tiles projects the group kLead rows further down, the last that its halo needs, through all
// regions of the CTA. So each warp projects as many groups as it computes rows. In shared memory are
// ring buffers of keys and values, whose last row is zeros for what is above or below the image, and
// of queries, as the lanes need them. An mbarrier for each place of a group tells that the group is
// complete. A group replaces one whose last reader is a row that the same warp, or a warp of a row
// above, has completed.
#ifndef SASA_TF_NATIVE_CUDA_MMA_PROJECTED_BACKWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_PROJECTED_BACKWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/mma_backward_one_pass.cuh"
#include "cuda/mma_projection.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// Config: as that of MmaKernelTraits.
template <typename Element, typename Config>
struct ProjectedBackwardTraits : MmaKernelTraits<Element, Config> {
  using Base = MmaKernelTraits<Element, Config>;
  // Groups of pixels that a row of MMA tiles needs above its own, and below.
  static constexpr int kLead = CeilDiv(Base::kHalo, Base::kMmaTileRows);
  // Of the rows that the warps compute at the same time.
  static constexpr int kSlots = Base::kWarps + 2 * kLead, kQuerySlots = Base::kWarps + kLead;
  static constexpr int kBufferRows = kSlots * Base::kMmaTileRows;
  static constexpr int kZeroRow = kBufferRows;
  static constexpr int kBufferBytes =
      ((kBufferRows + 1) * Base::kSmemPitch * Base::kPixelBytes + 1023) / 1024 * 1024;
  static_assert(kBufferRows % Base::kBlockRows == 0 && Base::kMmaTileColumns == 4);
};

// kChannels: of x. A warp projects kTiles MMA tiles at a time, in a step. Those of the next kAhead
// steps are loaded before.
template <typename Traits_, int kChannels, int kTiles, int kAhead>
struct ProjectedSource {
  using Traits = Traits_;
  using Element = typename Traits::Element;
  using Projection = ProjectionShape<Traits, kChannels, QueryOrder::kPairs>;
  static constexpr int kRowTiles = CeilDiv(Traits::kTileColumns, Traits::kMmaTileColumns);
  static_assert(kTiles % 2 == 0 && kRowTiles % 2 == 0);
  // Of the queries: [MMA tile][pixel][pair of channels][head] in words, of which a lane reads two.
  // The halves of a pixel are swapped in the second four, so that stmatrix has no bank conflicts.
  static constexpr int kTileQueryBytes = kWarpSize * 8;
  static constexpr int kQueryBytes = kRowTiles * kTileQueryBytes;  // of a group
  static constexpr int kQueries = 2 * Traits::kBufferBytes;
  static constexpr int kWeights = kQueries + Traits::kQuerySlots * kQueryBytes;
  static constexpr int kBytes = kWeights + Projection::kWeightBytes;
  static constexpr int kBarriers = Traits::kSlots;

  const TileGrid& g;
  const RegionGrid& regions;
  const Element* __restrict__ x;       // [B, H, W, C]
  const Element* __restrict__ kernel;  // [C, 3, N, D]
  char* memory;
  uint32_t barriers;

  __device__ Mbarrier BarrierOf(int group) const {
    return Mbarrier(barriers + group % Traits::kSlots * Mbarrier::kBytes);
  }
  __device__ void Init() const {
    for (int i = 0; i < Traits::kSlots; ++i) BarrierOf(i).Init(kWarpSize);
  }
  // Columns outside of the image stay zeros.
  __device__ void Fill() const {
    for (int i = threadIdx.x; i < 2 * Traits::kBufferBytes / 16; i += Traits::kThreads) {
      reinterpret_cast<uint4*>(memory)[i] = make_uint4(0, 0, 0, 0);
    }
    // All regions of a CTA are of the same heads.
    const int head = blockIdx.x % regions.head_groups.divisor * Traits::kTileHeads;
    FillProjectionWeights<Projection>(g, head, kernel, memory + kWeights);
  }
  __device__ void Start(const MmaLane& lane) const {
    const int warp = threadIdx.x / kWarpSize;
    if (warp < Traits::kLead) Project(0, warp, lane);
  }
  __device__ void BeginRow(int number, int row, const MmaLane& lane) const {
    Project(number, row + Traits::kLead, lane);
    const int end = min(row + Traits::kLead + 1, regions.rows);
    for (int i = max(row - Traits::kLead, 0); i < end; ++i) {
      const int group = number * regions.rows + i;
      BarrierOf(group).Wait(group / Traits::kSlots % 2);
    }
  }
  __device__ void EndRow(int, int, const MmaLane&) const {}

  // Where the rows of the halo of a row of MMA tiles are.
  struct Rows {
    int first_slot, y, height;  // y: the first row in the image

    __device__ int Slot(int row) const {
      if (y + row < 0 || y + row >= height) return Traits::kZeroRow;
      return (first_slot + row) % Traits::kBufferRows;
    }
  };
  __device__ Rows Wait(int number, int row) const {
    const int y = row * Traits::kMmaTileRows - Traits::kHalo;
    const int first = number * regions.rows % Traits::kSlots * Traits::kMmaTileRows;
    return {first + y, y, g.height};
  }

  struct Queries {
    const char* from;  // of the lane in the next MMA tile

    __device__ Queries(const ProjectedSource& source, const CtaTile&, const MmaLane& lane,
                       const WarpTileIterator<Traits>&, int number, int row)
        : from(source.memory + kQueries + source.QuerySlot(number, row) * kQueryBytes +
               QueryOffset(lane.row, lane.pair / 2) + lane.pair % 2 * 8) {}
    // Zeros outside of the image.
    __device__ void Load(const WarpTileIterator<Traits>&, const RowPredicate&,
                         RowFragment<Traits>& to) const {
      const uint2 words = *reinterpret_cast<const uint2*>(from);
      to[0][0] = words.x;
      to[1][0] = words.y;
    }
    __device__ void Advance(const WarpTileIterator<Traits>&) { from += kTileQueryBytes; }
  };
  // Of half of a pixel: four channels of both heads.
  __device__ static int QueryOffset(int pixel, int half) {
    return pixel * 32 + (half ^ pixel / 4) * 16;
  }
  __device__ int QuerySlot(int number, int row) const {
    return (number * regions.rows + row) % Traits::kQuerySlots;
  }

  // Projects a group of the CTA's region number `number`, if there is one. The pixels of a product
  // are those of an MMA tile.
  __device__ __forceinline__ void Project(int number, int row, const MmaLane& lane) const {
    while (row >= regions.rows) {
      row -= regions.rows;
      ++number;
    }
    const int index = blockIdx.x + number * gridDim.x;
    if (index >= regions.num_regions) return;
    const int image = RegionAt<Traits>(regions, index).image;
    const int group = number * regions.rows + row;
    // Of an MMA tile, the lane loads channels of one pixel, and passes the address of another's
    // results to stmatrix.
    const int column = lane.row % Traits::kMmaTileColumns;
    const int y = row * Traits::kMmaTileRows + lane.row / Traits::kMmaTileColumns;
    const Element* pixels =
        x + ((static_cast<int64_t>(image) * g.height + y) * g.width + column) * kChannels +
        lane.pair * 8;
    const int columns_left = y < g.height ? g.width - column : 0;
    const int slot =
        group % Traits::kSlots * Traits::kMmaTileRows + lane.ldmatrix_row / Traits::kMmaTileColumns;
    const int pixel = slot * Traits::kSmemPitch + Traits::kHalo +
                      lane.ldmatrix_row % Traits::kMmaTileColumns;
    const uint32_t smem = SmemAddress(memory);
    const uint32_t keys = smem + Traits::SwizzledOffset(pixel, lane.matrix_lo) +
                          lane.matrix_hi * Traits::kBufferBytes;
    const uint32_t queries = smem + kQueries + QuerySlot(number, row) * kQueryBytes +
                             QueryOffset(lane.ldmatrix_row, lane.matrix_lo) +
                             lane.matrix_hi * kTileQueryBytes;

    constexpr int kSteps = CeilDiv(kRowTiles, kTiles), kLast = kRowTiles - (kSteps - 1) * kTiles;
    uint4 loaded[kAhead + 1][kTiles][Projection::kPieces];
    // Zeros outside of the image.
    const auto load = [&](int step) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int left = (kTiles * step + i) * Traits::kMmaTileColumns;
#pragma unroll
        for (int piece = 0; piece < Projection::kPieces; ++piece) {
          uint4& to = loaded[step % (kAhead + 1)][i][piece];
          to = make_uint4(0, 0, 0, 0);
          if (left < Traits::kTileColumns && left < columns_left) {
            to = __ldg(reinterpret_cast<const uint4*>(pixels + left * kChannels + piece * 32));
          }
        }
      }
    };
#pragma unroll
    for (int step = 0; step < kAhead; ++step) load(step);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + kAhead < kSteps) load(step + kAhead);
      const int first = step * kTiles;
      if (first * Traits::kMmaTileColumns >= g.width) break;
      const auto& of_step = loaded[step % (kAhead + 1)];
      if (step + 1 < kSteps) {
        ProjectTiles<kTiles>(lane, first, of_step, keys, queries);
      } else {
        ProjectTiles<kLast>(lane, first, of_step, keys, queries);
      }
    }
    BarrierOf(group).Arrive();  // all lanes, each for what it wrote
  }

  // Projects kCount MMA tiles, from number `first` of the row on. Pixels right of the image become
  // zeros.
  template <int kCount>
  __device__ __forceinline__ void ProjectTiles(const MmaLane& lane, int first,
                                               const uint4 (*pixels)[Projection::kPieces],
                                               uint32_t keys, uint32_t queries) const {
    uint32_t matrices[kCount][Projection::kParts][2];
    MmaProjection<Projection, kCount>(memory + kWeights, lane, pixels, matrices);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int left = (first + i) * Traits::kMmaTileColumns;
      const auto &key = matrices[i][1], &value = matrices[i][2];
      StmatrixX4Trans((keys ^ Traits::SwizzleXor(left)) + left * Traits::kPixelBytes,
                      key[0], key[1], value[0], value[1]);
      if (i % 2 == 0) {
        const auto &query = matrices[i][0], &next = matrices[i + 1][0];
        StmatrixX4Trans(queries + (first + i) * kTileQueryBytes, query[0], query[1], next[0],
                        next[1]);
      }
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_PROJECTED_BACKWARD_CUH_
