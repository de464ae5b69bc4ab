// Device memory of the emulated GPU.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_DEVICE_ARRAY_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_DEVICE_ARRAY_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace emulation {

// A device copy of a host array. Accesses after its last 16 bytes fault, and writes before it are
// detected by CopyTo.
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<char>& host) : bytes_(host.size()) {
    const size_t rounded = (bytes_ + 15) / 16 * 16;
    pages_ = (rounded + 2 * kPage - 1) / kPage * kPage;
    void* memory =
        mmap(nullptr, pages_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(Plus(memory, pages_), kPage, PROT_NONE) != 0) {
      std::perror("device memory");
      std::exit(1);
    }
    memory_ = static_cast<char*>(memory);
    data_ = memory_ + pages_ - rounded;
    std::memset(memory_, kNan, pages_);
    if (bytes_ > 0) std::memcpy(data_, host.data(), bytes_);
  }
  ~DeviceArray() { munmap(memory_, pages_ + kPage); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  char* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

  // Fills the array with NaN, of any type.
  void Poison() { std::memset(data_, kNan, bytes_); }

  // Copies to the host. Returns false if a kernel wrote outside the array.
  bool CopyTo(std::vector<char>& host) const {
    if (bytes_ > 0) std::memcpy(host.data(), data_, bytes_);
    for (const char* at = memory_; at < memory_ + pages_; ++at) {
      if (at == data_) at += bytes_;
      if (at < memory_ + pages_ && *at != static_cast<char>(kNan)) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kPage = 4096;
  static constexpr int kNan = 0xff;
  static char* Plus(void* memory, size_t bytes) { return static_cast<char*>(memory) + bytes; }

  size_t bytes_, pages_;
  char *memory_, *data_;
};

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_DEVICE_ARRAY_H_
