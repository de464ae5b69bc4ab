// Emulation of the launches of cuda/kernel_launch.cuh.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_LAUNCH_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_LAUNCH_H_

#include "cuda_runtime.h"
#include "scheduler.h"

namespace sasa {
namespace {

// In an anonymous namespace, as kernels of different source files may have equal types.
template <typename... Parameters, typename... Arguments>
void LaunchKernel(void (*kernel)(Parameters...), int ctas, int threads, int smem_bytes,
                  cudaStream_t, Arguments... arguments) {
  auto thread = [&] { kernel(static_cast<Parameters>(arguments)...); };
  const auto call = [](void* context) { (*static_cast<decltype(thread)*>(context))(); };
  emulation::RunGrid(ctas, threads, smem_bytes, call, &thread);
}

// Kernels run one after another, as without PDL.
template <typename... Parameters, typename... Arguments>
void LaunchPdl(void (*kernel)(Parameters...), Arguments... arguments) {
  LaunchKernel(kernel, arguments...);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_LAUNCH_H_
