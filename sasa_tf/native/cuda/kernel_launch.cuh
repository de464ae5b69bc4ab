// Launches kernels, with programmatic dependent launch (PDL) where the GPU has it, and sizes the
// grids of persistent kernels.
//
// With SASA_EMULATED_GPU defined, tests/native/emulated_gpu/emulated_launch.h replaces the
// launches.
#ifndef SASA_TF_NATIVE_CUDA_KERNEL_LAUNCH_CUH_
#define SASA_TF_NATIVE_CUDA_KERNEL_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "cuda/kernel_attributes.h"

#ifdef SASA_EMULATED_GPU
#include "emulated_launch.h"
#else

namespace sasa {

// Launches a kernel; the arguments are converted to its parameter types.
template <typename... Parameters, typename... Arguments>
void LaunchKernel(void (*kernel)(Parameters...), int ctas, int threads, int smem_bytes,
                  cudaStream_t stream, Arguments... arguments) {
  // clang-format off: it would split the angle brackets.
  kernel<<<ctas, threads, smem_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
}

// Launches a kernel with PDL: it may start when all CTAs of the stream's previous kernel have
// exited or called GridLaunchDependents, and must call GridDependencyWait before it touches
// anything that the previous kernel writes. Before sm_90 this is LaunchKernel.
template <typename... Parameters, typename... Arguments>
void LaunchPdl(void (*kernel)(Parameters...), int ctas, int threads, int smem_bytes,
               cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute pdl = {};
  pdl.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  pdl.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(ctas);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = smem_bytes;
  config.stream = stream;
  config.attrs = &pdl;
  // Code for older GPUs has no griddepcontrol.wait.
  config.numAttrs = CompiledForSm90(reinterpret_cast<const void*>(kernel)) ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace sasa

#endif  // SASA_EMULATED_GPU

namespace sasa {

// Returns why a launch has failed, or null.
inline const char* LaunchError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Returns the number of CTAs of a persistent kernel, which loop over `work` tiles: as many as are
// resident at a time, at most `limit`.
template <typename Kernel>
int PersistentGridSize(Kernel kernel, int work, int threads, int smem_bytes, int limit) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem_bytes);
  const int resident = ResidentCtas(reinterpret_cast<const void*>(kernel), threads, smem_bytes);
  const int ctas = work < resident ? work : resident;
  return ctas < limit ? ctas : limit;
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_KERNEL_LAUNCH_CUH_
