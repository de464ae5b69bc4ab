// Which CUDA kernels compute a problem.
#include <cuda_runtime.h>

#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// One block a number, in an order that does not depend on scheduling.
__global__ void __launch_bounds__(256)
    SumPartials(const float* partials, int workers, int row_numbers, int numbers, float factor,
                float* rows, float* columns) {
  __shared__ float warps[256 / kWarp];
  const int number = blockIdx.x;
  float sum = 0.f;
  for (int worker = threadIdx.x; worker < workers; worker += 256) {
    sum += partials[static_cast<int64_t>(worker) * numbers + number];
  }
  sum = WarpSum<1>(sum);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  sum = 0.f;
  for (float part : warps) sum += part;
  if (number < row_numbers) {
    rows[number] = sum * factor;
  } else {
    columns[number - row_numbers] = sum * factor;
  }
}

// An image's channels and the thread blocks of one launch are counted with 32 bits.
const char* Refusal(const Problem& p) {
  const int64_t limit = int64_t{1} << 31;
  if (p.height * p.width * p.parts * p.heads * p.depth >= limit) {
    return "an image of 2**31 numbers or more";
  }
  if (p.batch * p.height * p.width * p.heads >= limit) return "2**31 pixels times heads or more";
  if (!RunsCan(p) && !TilesCan(p)) return "no CUDA kernel for this window and head width";
  return nullptr;
}

const char* LaunchError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

bool Empty(const Problem& p) { return p.batch * p.height * p.width * p.heads == 0; }

}  // namespace

void SumTables(const Problem& p, const BackwardArrays& a, int workers, float factor,
               cudaStream_t stream) {
  const int half = static_cast<int>(p.depth) / 2;
  const int numbers = (p.kernel_rows + p.kernel_columns) * half;
  SumPartials<<<numbers, 256, 0, stream>>>(TablePartials(p, a), workers, p.kernel_rows * half,
                                           numbers, factor, a.rows_gradient, a.columns_gradient);
}

const char* CudaForward(const Problem& p, const ForwardArrays& arrays, void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  if (Empty(p)) return nullptr;
  (TilesCan(p) ? TilesForward : RunsForward)(p, arrays, static_cast<cudaStream_t>(stream));
  return LaunchError();
}

const char* CudaBackward(const Problem& p, const BackwardArrays& arrays, void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  const auto on = static_cast<cudaStream_t>(stream);
  if (Empty(p)) {
    const size_t line = p.depth / 2 * sizeof(float);
    if (p.has_relative) {
      cudaMemsetAsync(arrays.rows_gradient, 0, p.kernel_rows * line, on);
      cudaMemsetAsync(arrays.columns_gradient, 0, p.kernel_columns * line, on);
    }
  } else {
    (TilesCan(p) ? TilesBackward : RunsBackward)(p, arrays, on);
  }
  return LaunchError();
}

}  // namespace sasa
