// Caches what the CUDA runtime reports about kernels; a query can take longer than a launch.
#ifndef SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTE_CACHE_H_
#define SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTE_CACHE_H_

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <tuple>

namespace sasa {

// Returns `query(device)` for the current device. The result is cached by kernel, device, number
// of threads and bytes of shared memory, in a separate cache for each type of `Query`.
template <typename Kernel, typename Query>
int CachedKernelAttribute(Kernel kernel, int threads, int smem_bytes, Query query) {
  static std::mutex mutex;
  static std::map<std::tuple<Kernel, int, int, int>, int> cache;
  int device = 0;
  cudaGetDevice(&device);
  const std::tuple<Kernel, int, int, int> key(kernel, device, threads, smem_bytes);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  return cache[key] = query(device);
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTE_CACHE_H_
