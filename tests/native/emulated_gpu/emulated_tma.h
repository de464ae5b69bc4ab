// Emulation of cuda/tma.cuh.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_TMA_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_TMA_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "scheduler.h"

namespace sasa {

struct TensorMap {
  TensorMapDesc desc;

  void Prefetch() const {}
};

// Fails every seventh time, so that kernels are also tested without TMA.
inline bool EncodeTensorMap(const TensorMapDesc& desc, TensorMap& tensor_map) {
  static int calls = 0;
  tensor_map.desc = desc;
  return ++calls % 7 != 0;
}

class TmaBarrier {
 public:
  static constexpr int kBytes = 8;

  explicit TmaBarrier(void* memory) { emulation::SmemAddressOf(memory); }

  void ArriveExpectTx(int bytes) {
    if (threadIdx.x != 0 || expected_ != 0) {
      emulation::Fail("ArriveExpectTx was called twice, or not by the first thread");
    }
    expected_ = bytes;
  }

  void Wait() {
    if (kChunkBytes * loads_.size() != expected_) {
      emulation::Fail("the TMA barrier expects %zu bytes, and %zu were loaded", expected_,
                      kChunkBytes * loads_.size());
    }
    for (const auto& [to, from] : loads_) {
      if (from) {
        std::memcpy(to, from, kChunkBytes);
      } else {
        std::memset(to, 0, kChunkBytes);
      }
    }
    loads_.clear();
    expected_ = 0;
  }

 private:
  friend void TmaLoad(const TensorMap&, TmaBarrier&, uint32_t, int, int, int, int,
                      emulation::SourceLocation);

  static constexpr size_t kChunkBytes = 16;

  size_t expected_ = 0;
  std::vector<std::pair<char*, const char*>> loads_;  // chunks; null for zeros
};

// The state of an mbarrier in shared memory, by its address. TMA loads arrive when a thread waits
// for a phase that nothing else is missing of.
struct MbarrierState {
  int count, pending;
  unsigned phases = 0;  // that are complete
  size_t expected = 0;
  std::vector<std::pair<char*, const char*>> loads_;  // as in TmaBarrier
};

inline MbarrierState& MbarrierAt(uint32_t address) {
  static std::map<uint32_t, MbarrierState> states;
  return states[address];
}

class Mbarrier {
 public:
  static constexpr int kBytes = 8;

  explicit Mbarrier(uint32_t address) : address_(address) {}

  void Init(int count,
            emulation::SourceLocation location = emulation::SourceLocation::Current()) const {
    emulation::ResolveSmem("Mbarrier", location, address_, kBytes, kBytes);
    MbarrierAt(address_) = {count, count};
  }
  void Arrive() const { ArriveExpectTx(0); }
  void ArriveExpectTx(int bytes) const {
    MbarrierState& state = MbarrierAt(address_);
    if (--state.pending < 0) emulation::Fail("more arrivals at an mbarrier than its count");
    state.expected += bytes;
    if (state.expected == 0 && state.pending == 0) CompletePhase(state);
  }
  void Wait(unsigned parity,
            emulation::SourceLocation location = emulation::SourceLocation::Current()) const {
    for (;;) {
      MbarrierState& state = MbarrierAt(address_);
      if (state.pending == 0 && kChunkBytes * state.loads_.size() == state.expected) {
        for (const auto& [to, from] : state.loads_) {
          if (from) {
            std::memcpy(to, from, kChunkBytes);
          } else {
            std::memset(to, 0, kChunkBytes);
          }
        }
        CompletePhase(state);
      }
      if (state.phases % 2 != parity) return;
      emulation::Poll(location);
    }
  }
  uint32_t address() const { return address_; }
  auto& loads() const { return MbarrierAt(address_).loads_; }

  static constexpr size_t kChunkBytes = 16;

 private:
  static void CompletePhase(MbarrierState& state) {
    state.loads_.clear();
    state.expected = 0;
    state.pending = state.count;
    ++state.phases;
  }
  uint32_t address_;
};

// Calls `f` with the place in shared memory and the data of each 16 bytes of a box; null outside the
// image. The swizzle is that of the CUDA driver API's documentation of tensor maps.
template <typename Function>
void ForEachTmaChunk(const char* name, const TensorMap& tensor_map, uint32_t smem, int channel,
                     int x, int y, int image, emulation::SourceLocation location,
                     const Function& f) {
  constexpr int kChunk = Mbarrier::kChunkBytes, kAlignment = 128;
  const TensorMapDesc& desc = tensor_map.desc;
  const int chunks = desc.box_channels * 2 / kChunk;
  uint32_t address = smem;
  emulation::ResolveSmem(name, location, address, kChunk, kAlignment);
  for (int row = y; row < y + desc.box_rows; ++row) {
    for (int column = x; column < x + desc.box_columns; ++column) {
      for (int chunk = 0; chunk < chunks; ++chunk, address += kChunk) {
        const uint32_t swizzled = address ^ address / kAlignment % chunks * kChunk;
        char* place = emulation::ResolveSmem(name, location, swizzled, kChunk, kChunk);
        const int first = channel + chunk * kChunk / 2;
        const bool in_image = row >= 0 && row < desc.height && column >= 0 && column < desc.width &&
                              first < desc.channels;
        const int64_t pixel = (int64_t{image} * desc.height + row) * desc.width + column;
        const char* data = static_cast<const char*>(desc.data);
        f(place, in_image ? data + 2 * (pixel * desc.pixel_stride + first) : nullptr);
      }
    }
  }
}

// The data arrives when it is waited for; until then its place is NaN.
template <typename Loads>
void EmulateTmaLoad(const TensorMap& tensor_map, Loads& loads, uint32_t smem, int channel, int x,
                    int y, int image, emulation::SourceLocation location) {
  ForEachTmaChunk("TmaLoad", tensor_map, smem, channel, x, y, image, location,
                  [&](char* place, const char* data) {
                    constexpr int kNan = 0xff;
                    std::memset(place, kNan, Mbarrier::kChunkBytes);
                    loads.emplace_back(place, data);
                  });
}

inline void TmaLoad(const TensorMap& tensor_map, TmaBarrier& barrier, uint32_t smem, int channel,
                    int x, int y, int image,
                    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  EmulateTmaLoad(tensor_map, barrier.loads_, smem, channel, x, y, image, location);
}
inline void TmaLoad(const TensorMap& tensor_map, Mbarrier barrier, uint32_t smem, int channel,
                    int x, int y, int image,
                    emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  EmulateTmaLoad(tensor_map, barrier.loads(), smem, channel, x, y, image, location);
}

// The TMA stores that a thread has not waited for, by the thread. They read shared memory when they
// are waited for.
inline auto& PendingTmaStores() {
  static std::map<unsigned, std::vector<std::pair<char*, const char*>>> stores;  // chunks
  return stores[threadIdx.x];
}

inline void TmaStoreFence() {}

inline void TmaStore(const TensorMap& tensor_map, uint32_t smem, int channel, int x, int y,
                     int image,
                     emulation::SourceLocation location = emulation::SourceLocation::Current()) {
  ForEachTmaChunk("TmaStore", tensor_map, smem, channel, x, y, image, location,
                  [](const char* place, const char* data) {
                    if (data != nullptr) {
                      PendingTmaStores().emplace_back(const_cast<char*>(data), place);
                    }
                  });
}

inline void TmaStoreWaitRead() {
  for (const auto& [to, from] : PendingTmaStores()) std::memcpy(to, from, Mbarrier::kChunkBytes);
  PendingTmaStores().clear();
}

}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_TMA_H_
