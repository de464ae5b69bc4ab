// The forward kernel of one attention layer, for exported models: compiled to PTX text that XLA
// loads, so that it needs neither this library nor a compiler where it runs. sasa_tf/ops/portable
// defines the macros SASA_* from the layer and compiles this file by itself.
//
// All sizes but the batch are constants. XLA passes pointers alone, so the batch size is an array
// of one element. The grid is fixed too; CTAs without tiles exit at once. Without TMA, whose tensor
// maps need host code.
#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/mma_forward.cuh"
#include "cuda/simt_forward.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr LocalAttentionProblem kProblem = {
    /*batch=*/1,
    SASA_HEIGHT,
    SASA_WIDTH,
    SASA_HEADS,
    SASA_HEAD_DIM,
    SASA_KERNEL_ROWS,
    SASA_KERNEL_COLUMNS,
    SASA_DILATION_ROWS,
    SASA_DILATION_COLUMNS,
    SASA_MASK_BORDER,
    SASA_HAS_KEY,
    SASA_HAS_RELATIVE,
    SASA_SCALE,
    /*qkv_parts=*/SASA_HAS_KEY ? 3 : 2,
    static_cast<DType>(SASA_DTYPE),
    SASA_POOL_SIZE,
};
// Elements from query to value, and to key.
constexpr int kPart = SASA_HEADS * SASA_HEAD_DIM;
constexpr int kValueOffset = (kProblem.qkv_parts - 1) * kPart;

#if SASA_USES_TENSOR_CORES

using Element = std::conditional_t<kProblem.type == DType::kBfloat16, Bfloat16, Float16>;
using Stores =
    std::conditional_t<kProblem.pool_size == 1, StoreForInference, StorePooledForInference>;

struct PortableConfig {
  static constexpr int kKernel = SASA_KERNEL_ROWS, kHeadDim = SASA_HEAD_DIM;
  static constexpr MmaTiles kTiles = {
      SASA_WARPS,        SASA_TILE_COLUMNS, SASA_MIN_CTAS_PER_SM,
      SASA_STAGED_STORE, SASA_SPLIT_ROWS,   SASA_COMPACT_BUFFER,
  };
};
using Traits = MmaKernelTraits<Element, PortableConfig>;
constexpr int kThreads = Traits::kThreads;
constexpr int kSmemBytes = QuerySmemLayout<Traits>::kBytes;

__device__ __forceinline__ void Forward(char* memory, const void* qkv, const float* relative_rows,
                                        const float* relative_columns, int batch, void* output) {
  constexpr TileGrid kImage =
      MakeTileGrid(kProblem, Traits::kTileRows, Traits::kTileColumns, Traits::kTileHeads);
  TileGrid g = kImage;
  g.num_tiles *= batch;
  TileTensorMaps maps;
  maps.use_tma = false;
  const Element* query = static_cast<const Element*>(qkv);
  Element* to = static_cast<Element*>(output);
  MmaForwardCta<Traits, Stores>(g, maps, memory, query, query + kPart, query + kValueOffset,
                                relative_rows, relative_columns, to, nullptr, to);
}

#else

constexpr int kThreadChannels = SASA_HEAD_DIM <= 8 ? 8 : 16;
using Head = SimtHead<kThreadChannels, SimtHeadLanes(SASA_HEAD_DIM, kThreadChannels)>;
using Traits = SimtKernelTraits<ForwardConfig<Head, SASA_KERNEL_COLUMNS>>;
constexpr SimtLaunchPlan kPlan = PlanSimtLaunch<Traits>(kProblem);
constexpr int kThreads = kPlan.threads;
constexpr int kSmemBytes = RelativeTableBytes<Traits>(kPlan.grid);

__device__ __forceinline__ void Forward(char* memory, const void* qkv, const float* relative_rows,
                                        const float* relative_columns, int batch, void* output) {
  constexpr SimtGrid kImage = PlanSimtLaunch<Traits>(kProblem).grid;
  constexpr int kBytes = kProblem.type == DType::kFloat32 ? 4 : 2;  // of an element
  SimtGrid g = kImage;
  g.num_tiles *= batch;
  const char* query = static_cast<const char*>(qkv);
  SimtForwardCta<Traits, false>(
      g, reinterpret_cast<float*>(memory), {query, kProblem.type},
      {query + kPart * kBytes, kProblem.type}, {query + kValueOffset * kBytes, kProblem.type},
      relative_rows, relative_columns, {static_cast<char*>(output), kProblem.type}, nullptr);
}

#endif  // SASA_USES_TENSOR_CORES

__device__ __forceinline__ void ForwardInSharedMemory(const void* qkv, const float* relative_rows,
                                                      const float* relative_columns, int batch,
                                                      void* output) {
#ifdef SASA_EMULATED_GPU
  extern __shared__ __align__(1024) char memory[];  // the emulator's shared memory is dynamic
#else
  __shared__ __align__(1024) char memory[kSmemBytes];  // static, so that XLA allocates none
#endif
  Forward(memory, qkv, relative_rows, relative_columns, batch, output);
}

}  // namespace
}  // namespace sasa

extern "C" __global__ void __launch_bounds__(sasa::kThreads, SASA_MIN_CTAS_PER_SM)
    sasa_local_attention(const void* qkv,
#if SASA_HAS_RELATIVE
                         const float* relative_rows, const float* relative_columns,
#endif
                         const int* batch, void* output) {
#if !SASA_HAS_RELATIVE
  const float *relative_rows = nullptr, *relative_columns = nullptr;
#endif
  sasa::ForwardInSharedMemory(qkv, relative_rows, relative_columns, *batch, output);
}
