// Launches the reduction of the tables' gradients after a backward pass in one kernel.
#ifndef SASA_TF_NATIVE_CUDA_TABLE_REDUCTION_CUH_
#define SASA_TF_NATIVE_CUDA_TABLE_REDUCTION_CUH_

#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/table_gradients.cuh"

namespace sasa {
namespace {

__global__ void ReduceTablesKernel(TableReduction reduction) {
  GridDependencyWait();
  ReduceTableGradients(reduction);
}

inline void LaunchTableReduction(const TableReduction& reduction, cudaStream_t stream) {
  if (reduction.elements == 0) return;
  LaunchPdl(ReduceTablesKernel, reduction.elements, 128, 0, stream, reduction);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_TABLE_REDUCTION_CUH_
