// Launches the tensor core kernels.
#ifndef SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <utility>

#include "cuda/kernel_launch.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/tile_scheduler.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits>
TileGrid MakeMmaTileGrid(const LocalAttentionProblem& p) {
  return MakeTileGrid(p, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
}

// Launches a persistent kernel with PDL and returns the number of CTAs, which is at most `max_ctas`
// rounded to the head groups.
template <typename Traits, typename... Parameters, typename... Arguments>
int LaunchMmaKernel(void (*kernel)(TileGrid, Parameters...), int smem_bytes, int max_ctas,
                    cudaStream_t stream, const TileGrid& g, Arguments... arguments) {
  const int ctas = RoundToHeadGroups(
      g, PersistentGridSize(kernel, g.num_tiles, Traits::kThreads, smem_bytes, max_ctas));
  LaunchPdl(kernel, ctas, Traits::kThreads, smem_bytes, stream, g, arguments...);
  return ctas;
}

// A row of a kernel's table of tiles: those of a window and a head width, in images of at most some
// width.
struct MmaTilesRow {
  int kernel, head_dim;
  MmaTiles tiles;
  int max_width = 0;  // 0: any

  constexpr bool Matches(const LocalAttentionProblem& p) const {
    return p.kernel_rows == kernel && p.head_dim == head_dim &&
           (max_width == 0 || p.width <= max_width);
  }
};

// The traits' Config of a row. Table defines kRows, an array of MmaTilesRow.
template <typename Table, int kRow>
struct MmaTilesOf {
  static constexpr int kKernel = Table::kRows[kRow].kernel;
  static constexpr int kHeadDim = Table::kRows[kRow].head_dim;
  static constexpr MmaTiles kTiles = Table::kRows[kRow].tiles;
};

// Whether a table has rows for everything that UsesTensorCores accepts.
template <typename Table>
constexpr bool HasAllTiles() {
  for (int64_t kernel = kMinTensorCoreKernelSize; kernel <= kMaxKernelSize; kernel += 2) {
    for (int64_t head_dim = kMinTensorCoreHeadDim; head_dim <= kMaxTensorCoreHeadDim;
         head_dim *= 2) {
      bool found = false;
      for (const MmaTilesRow& row : Table::kRows) {
        found |= row.kernel == kernel && row.head_dim == head_dim && row.max_width == 0;
      }
      if (!found) return false;
    }
  }
  return true;
}

template <typename Table, typename Launch, int kRow>
bool LaunchMmaRow(const LocalAttentionProblem& p, Launch& launch) {
  if (!Table::kRows[kRow].Matches(p)) return false;
  using Config = MmaTilesOf<Table, kRow>;
  if (p.type == DType::kBfloat16) {
    launch(MmaKernelTraits<Bfloat16, Config>());
  } else if constexpr (Config::kKernel == kFloat16TensorCoreKernelSize) {
    launch(MmaKernelTraits<Float16, Config>());
  }
  return true;
}

template <typename Table, typename Launch, int... kRows>
void DispatchMmaRows(const LocalAttentionProblem& p, Launch launch,
                     std::integer_sequence<int, kRows...>) {
  (LaunchMmaRow<Table, Launch, kRows>(p, launch) || ...);
}

// Calls `launch` with the traits of the first row of the table that matches the problem.
template <typename Table, typename Launch>
void DispatchMmaTiles(const LocalAttentionProblem& p, Launch launch) {
  static_assert(HasAllTiles<Table>());
  constexpr int kRows = sizeof(Table::kRows) / sizeof(MmaTilesRow);
  DispatchMmaRows<Table>(p, launch, std::make_integer_sequence<int, kRows>());
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_LAUNCH_CUH_
