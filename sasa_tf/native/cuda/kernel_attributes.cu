// A separate source, because <map> and <mutex> take nvcc more than a second to compile.
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <tuple>

#include "cuda/kernel_attributes.h"

namespace sasa {
namespace {

// Returns `query(device)` for the current device, cached by kernel, device, number of threads and
// bytes of shared memory, in a separate cache for each type of `Query`.
template <typename Query>
int Cached(const void* kernel, int threads, int smem_bytes, Query query) {
  static std::mutex mutex;
  static std::map<std::tuple<const void*, int, int, int>, int> cache;
  int device = 0;
  cudaGetDevice(&device);
  const auto key = std::make_tuple(kernel, device, threads, smem_bytes);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  return cache[key] = query(device);
}

}  // namespace

bool CompiledForSm90(const void* kernel) {
  return Cached(kernel, 0, 0, [&](int) {
           cudaFuncAttributes attributes = {};
           cudaFuncGetAttributes(&attributes, kernel);
           return attributes.ptxVersion;
         }) >= 90;
}

bool CompiledForSm90a(const void* kernel) {
  return CompiledForSm90(kernel) && Cached(kernel, 0, 0, [&](int) {
           cudaFuncAttributes attributes = {};
           cudaFuncGetAttributes(&attributes, kernel);
           return 1000 * attributes.ptxVersion + attributes.binaryVersion;
         }) == 90090;
}

int ResidentCtas(const void* kernel, int threads, int smem_bytes) {
  return Cached(kernel, threads, smem_bytes, [&](int device) {
    int multiprocessors = 1, ctas = 1;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&ctas, kernel, threads, smem_bytes);
    return multiprocessors * (ctas > 0 ? ctas : 1);
  });
}

int MaxSmemBytes() {
  return Cached(nullptr, 0, 0, [](int device) {
    int bytes = 0;
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return bytes;
  });
}

}  // namespace sasa
