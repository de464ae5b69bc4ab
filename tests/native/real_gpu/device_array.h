// Device memory of a real GPU.
#ifndef SASA_TF_TESTS_NATIVE_REAL_GPU_DEVICE_ARRAY_H_
#define SASA_TF_TESTS_NATIVE_REAL_GPU_DEVICE_ARRAY_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace emulation {

// A device copy of a host array, with a margin on both sides that must not be written.
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<char>& host) : bytes_(host.size()) {
    Check(cudaMalloc(&memory_, bytes_ + 2 * kMargin));
    Check(cudaMemset(memory_, kNan, bytes_ + 2 * kMargin));
    if (bytes_ > 0) Check(cudaMemcpy(data(), host.data(), bytes_, cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(memory_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  char* data() const { return memory_ + kMargin; }
  float* floats() const { return reinterpret_cast<float*>(data()); }

  // Fills the array with NaN, of any type.
  void Poison() { Check(cudaMemset(data(), kNan, bytes_)); }

  // Copies to the host. Returns false if a kernel wrote outside the array.
  bool CopyTo(std::vector<char>& host) const {
    std::vector<char> all(bytes_ + 2 * kMargin);
    Check(cudaDeviceSynchronize());
    Check(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost));
    if (bytes_ > 0) std::memcpy(host.data(), &all[kMargin], bytes_);
    for (size_t i = 0; i < kMargin; ++i) {
      if (all[i] != static_cast<char>(kNan)) return false;
      if (all[kMargin + bytes_ + i] != static_cast<char>(kNan)) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kMargin = 4096;
  static constexpr int kNan = 0xff;

  static void Check(cudaError_t status) {
    if (status == cudaSuccess) return;
    std::printf("CUDA error: %s\n", cudaGetErrorString(status));
    std::exit(1);
  }

  size_t bytes_;
  char* memory_ = nullptr;
};

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_REAL_GPU_DEVICE_ARRAY_H_
