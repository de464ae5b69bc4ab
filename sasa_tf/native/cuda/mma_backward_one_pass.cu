// Launches the backward pass in one kernel from query, key and value in memory, see
// mma_backward_one_pass.cuh. For heads 8 and 16 wide.
//
// Keys and values are in a ring buffer of boxes of four rows, which TMA fills. The warp that is the
// last to use a box starts the load of the next box to the same place.
#include "cuda/mma_backward_one_pass.cuh"

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernel_attributes.h"
#include "cuda/mma_backward.h"
#include "cuda/mma_launch.cuh"
#include "cuda/table_reduction.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

// Query, key and value in memory. The boxes of keys and values of all regions of a CTA are loaded in
// order.
template <typename Traits_>
struct PackedSource {
  using Traits = Traits_;
  using Rows = SmemRowBuffer<Traits>;
  static constexpr int kBytes = 2 * Traits::kBufferBytes, kBarriers = Traits::kBoxes;
  const TileGrid& g;
  const RegionGrid& regions;
  const TileTensorMaps& maps;
  const typename Traits::Element* __restrict__ query;
  uint32_t smem, barriers;

  __device__ Mbarrier BarrierOf(int slot) const {
    return Mbarrier(barriers + slot * Mbarrier::kBytes);
  }
  __device__ void Init() const {
    for (int i = 0; i < Traits::kBoxes; ++i) BarrierOf(i).Init(1);
  }
  __device__ void Fill() const {}
  __device__ void Start(const MmaLane&) const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < Traits::kBoxes; ++i) Load(0, i);
    }
  }
  __device__ void BeginRow(int, int, const MmaLane&) const {}
  // Loads box `box` of the CTA's region number `number`, if there is one. Called by one thread, when
  // no warp needs what was in its slot before.
  __device__ void Load(int number, int box) const {
    number += box / regions.boxes;
    box %= regions.boxes;
    const int index = blockIdx.x + number * gridDim.x;
    if (index >= regions.num_regions) return;
    const KeyRegion region = RegionAt<Traits>(regions, index);
    const int slot = (number * regions.boxes + box) % Traits::kBoxes;
    const Mbarrier barrier = BarrierOf(slot);
    barrier.ArriveExpectTx(2 * Traits::kTmaBoxBytes);
    const uint32_t to = smem + slot * Traits::kTmaBoxBytes;
    const int channel = region.head * Traits::kHeadDim;
    const int y = box * Traits::kBoxRows - Traits::kHalo;
    TmaLoad(maps.first, barrier, to, channel, -Traits::kHalo, y, region.image);
    TmaLoad(maps.second, barrier, to + Traits::kBufferBytes, channel, -Traits::kHalo, y,
            region.image);
  }
  // Waits for the boxes of a row of MMA tiles.
  __device__ Rows Wait(int number, int row) const {
    const int first = number * regions.boxes;
    const int begin = row * Traits::kMmaTileRows;
    for (int box = begin / Traits::kBoxRows;
         box <= (begin + Traits::kHaloRows - 1) / Traits::kBoxRows; ++box) {
      BarrierOf((first + box) % Traits::kBoxes).Wait((first + box) / Traits::kBoxes % 2);
    }
    Rows rows;
    rows.first_slot = (first * Traits::kBoxRows + begin) % Traits::kBufferRows;
    return rows;
  }
  // Loads to the places of the boxes that are not needed after a row of MMA tiles, when all warps
  // have completed this row and those before.
  __device__ void EndRow(int number, int row, const MmaLane& lane) const {
    if (lane.id != 0) return;
    constexpr int kRowsOfBox = Traits::kBoxRows / Traits::kMmaTileRows;
    const bool is_last = row + 1 == regions.rows;
    const int end = is_last ? regions.boxes : (row + 1) / kRowsOfBox;
    for (int box = row / kRowsOfBox; box < end; ++box) Load(number, box + Traits::kBoxes);
  }

  struct Queries {
    const PackedSource& source;
    uint32_t offset;  // of the lane's in the next MMA tile

    __device__ Queries(const PackedSource& source, const CtaTile& tile, const MmaLane& lane,
                       const WarpTileIterator<Traits>& mma_tiles, int, int)
        : source(source), offset(mma_tiles.FirstOffset(tile, source.g.qkv_parts, lane)) {}
    __device__ void Load(const WarpTileIterator<Traits>& mma_tiles, const RowPredicate& valid,
                         RowFragment<Traits>& to) const {
      LoadRowFragment<Traits>(source.query + offset, mma_tiles.HalfStride(source.g.qkv_parts), valid,
                              to);
    }
    __device__ void Advance(const WarpTileIterator<Traits>& mma_tiles) {
      offset += mma_tiles.Step(source.g.qkv_parts);
    }
  };
};

// The arrays are separate parameters, as nvcc ignores __restrict__ on the members of a struct.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinCtasPerSm)
    MmaBackwardOnePassKernel(TileGrid g, RegionGrid regions,
                             const __grid_constant__ TileTensorMaps maps,
                             const typename Traits::Element* __restrict__ query,
                             const float* __restrict__ relative_rows,
                             const float* __restrict__ relative_columns,
                             const typename Traits::Element* __restrict__ output,
                             const float* __restrict__ lse,
                             const typename Traits::Element* __restrict__ d_output,
                             typename Traits::Element* __restrict__ d_query,
                             typename Traits::Element* __restrict__ d_key,
                             typename Traits::Element* __restrict__ d_value,
                             float* __restrict__ table_partials) {
  using Source = PackedSource<Traits>;
  extern __shared__ __align__(1024) char memory[];
  const uint32_t smem = SmemAddress(memory);
  const Source source = {
      g, regions, maps, query, smem, smem + OnePassSmemLayout<Source>::kSourceBarriers};
  maps.Prefetch();
  MmaBackwardOnePassCta(g, regions, memory, source, relative_rows, relative_columns, output, lse,
                        d_output, d_query, d_key, d_value, table_partials);
}

// Whether the buffers hold the boxes of the rows of MMA tiles that warps compute at the same time. A
// warp waits for a box by the parity of the loads to its slot. So the load before must be complete:
// it must have been for the warp's last row, or for one above it. Where a CTA computes many images
// of a few rows, this does not hold.
template <typename Traits>
bool FitsBuffers(const RegionGrid& regions, int ctas) {
  const auto last_box = [&](int row) {
    return row / regions.rows * regions.boxes +
           (row % regions.rows * Traits::kMmaTileRows + Traits::kHaloRows - 1) / Traits::kBoxRows;
  };
  const int rows = CeilDiv(regions.num_regions, ctas) * regions.rows;
  for (int row = 0; row < rows && row < Traits::kWarps + regions.rows; ++row) {
    const int before = row < Traits::kWarps ? -1 : last_box(row - Traits::kWarps);
    if (last_box(row) - before > Traits::kBoxes) return false;
  }
  return true;
}

// Returns false if the kernel does not support the problem or is slower than two kernels.
template <typename Traits>
bool LaunchBackwardOnePass(const LocalAttentionProblem& p, const BackwardArrays& a, bool always,
                           cudaStream_t stream) {
  using Element = typename Traits::Element;
  if (p.width > Traits::kTileColumns) return false;
  constexpr int kBytes = OnePassSmemLayout<PackedSource<Traits>>::kBytes;
  const auto kernel = MmaBackwardOnePassKernel<Traits>;
  if (!CompiledForSm90(reinterpret_cast<const void*>(kernel)) || MaxSmemBytes() < kBytes) {
    return false;
  }
  RegionGrid regions = MakeRegionGrid<Traits>(p);
  regions.boxes =
      CeilDiv((regions.rows - 1) * Traits::kMmaTileRows + Traits::kHaloRows, Traits::kBoxRows);
  const int resident =
      PersistentGridSize(kernel, kTableWorkers, Traits::kThreads, kBytes, kTableWorkers);
  constexpr double kWideHeads = Traits::kKernel == 7 ? 0.9 : 0.8;
  const double min_occupancy = Traits::kHeadDim == 8 ? MinOnePassOccupancy(p) : kWideHeads;
  if (!always && !IsOnePassFaster(p, regions.num_regions, resident, min_occupancy)) return false;
  int ctas = regions.num_regions < resident ? regions.num_regions : resident;
  if (!FitsBuffers<Traits>(regions, ctas)) ctas = regions.num_regions;  // some start later
  if (ctas > kTableWorkers) return false;
  // There is no version without TMA.
  const TileTensorMaps maps =
      EncodeTileTensorMaps<Traits>(kernel, p, p.has_key, a.key, p.qkv_parts, a.value, p.qkv_parts);
  if (!maps.use_tma) return false;
  const TileGrid g = MakeMmaTileGrid<Traits>(p);
  LaunchPdl(kernel, ctas, Traits::kThreads, kBytes, stream, g, regions, maps,
            static_cast<const Element*>(a.query), a.relative_rows, a.relative_columns,
            static_cast<const Element*>(a.output), a.lse, static_cast<const Element*>(a.d_output),
            static_cast<Element*>(a.d_query), static_cast<Element*>(a.d_key),
            static_cast<Element*>(a.d_value), TablePartials(p, a.workspace));
  LaunchTableReduction(MakeTableReduction(p, a.workspace, ctas, g.scale * PoolWeight(g),
                                          a.d_relative_rows, a.d_relative_columns),
                       stream);
  return true;
}

// The boxes of keys and values. Tuned on an H200.
constexpr int OnePassBoxes(int kernel) { return kernel == 3 ? 7 : kernel == 5 ? 10 : 8; }

// The tiles: {warps, columns, CTAs, staged store, split rows, compact buffer, one head}. Tuned on an
// H200.
template <int kKernel_>
struct OnePassHeads8 {
  static constexpr int kKernel = kKernel_, kHeadDim = 8, kBoxes = OnePassBoxes(kKernel);
  static constexpr MmaTiles kTiles = {kKernel == 3 ? 12 : 8, 56, 1};
};
template <int kKernel_, int kColumns>
struct OnePassHeads16 {
  static constexpr int kKernel = kKernel_, kHeadDim = 16, kBoxes = OnePassBoxes(kKernel);
  static constexpr MmaTiles kTiles = {kKernel == 3 ? 12 : 8, kColumns, 1, true, false, false, true};
};

template <typename Element, typename Config>
struct OnePassTraits : MmaKernelTraits<Element, Config> {
  using Base = MmaKernelTraits<Element, Config>;
  // The buffers of keys and values. The rows of MMA tiles that the warps compute, if they are of two
  // images, need up to 28 rows of keys, and 40 with windows of 5.
  static constexpr int kBoxes = Config::kBoxes, kBoxRows = 4, kBufferRows = kBoxes * kBoxRows;
  static constexpr int kTmaBoxRows = kBoxRows;
  static constexpr int kTmaBoxBytes = kBoxRows * Base::kSmemPitch * Base::kPixelBytes;
  static constexpr int kBufferBytes = (kBoxes * kTmaBoxBytes + 1023) / 1024 * 1024;
  static_assert(kBufferRows % Base::kBlockRows == 0 && kTmaBoxBytes % 128 == 0);
};

// For a window of kKernel x kKernel pixels.
template <int kKernel>
bool LaunchForHeads(const LocalAttentionProblem& p, const BackwardArrays& a, bool always,
                    cudaStream_t stream) {
  using Heads8 = OnePassTraits<Bfloat16, OnePassHeads8<kKernel>>;
  using Heads16 = OnePassTraits<Bfloat16, OnePassHeads16<kKernel, 32>>;
  using WideHeads16 = OnePassTraits<Bfloat16, OnePassHeads16<kKernel, 56>>;
  switch (p.head_dim) {
    case 8:
      return LaunchBackwardOnePass<Heads8>(p, a, always, stream);
    case 16:
      if (p.width <= Heads16::kTileColumns) {
        return LaunchBackwardOnePass<Heads16>(p, a, always, stream);
      }
      return LaunchBackwardOnePass<WideHeads16>(p, a, always, stream);
  }
  return false;
}

}  // namespace

bool MmaBackwardOnePass(const LocalAttentionProblem& p, const BackwardArrays& arrays, bool always,
                        cudaStream_t stream) {
  if (p.type != DType::kBfloat16 || !p.has_key) return false;
  switch (p.kernel_rows) {
    case 3:
      return LaunchForHeads<3>(p, arrays, always, stream);
    case 5:
      return LaunchForHeads<5>(p, arrays, always, stream);
    case 7:
      return LaunchForHeads<7>(p, arrays, always, stream);
  }
  return false;
}

}  // namespace sasa
