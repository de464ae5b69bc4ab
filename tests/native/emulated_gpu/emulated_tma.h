// The boxes of cuda/tma.cuh, for kernels that run on a processor.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_BOXES_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_BOXES_H_

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "scheduler.h"

namespace sasa {

struct TensorMap {
  TensorMapDesc plan;

  void Prefetch() const {}
};

// Every third time there are none, so that kernels are also seen without.
inline bool EncodeTensorMap(const TensorMapDesc& plan, TensorMap& boxes) {
  static int calls = 0;
  boxes.plan = plan;
  return ++calls % 3 != 0;
}

class TmaBarrier {
 public:
  static constexpr int kBytes = 8;

  explicit TmaBarrier(void* memory) { emulation::AddressOf(memory); }

  void Expect(int bytes) {
    if (threadIdx.x != 0 || expected_ != 0) emulation::Fail("TmaBarrier::Expect out of turn");
    expected_ = bytes;
  }

  // Numbers are not there until they are waited for. Bits of addresses are exchanged as the CUDA
  // driver's documentation of tensor maps has it.
  void Copy(const TensorMap& boxes, int channel, int x, int y, int image, uint32_t to,
            emulation::Site site = emulation::Site::Here()) {
    constexpr int kPiece = 16, kAligned = 128;
    const TensorMapDesc& p = boxes.plan;
    const int pieces = p.channels_of_box * 2 / kPiece;
    uint32_t at = to;
    emulation::SharedAt("TmaBarrier::Copy", site, at, kPiece, kAligned);
    for (int row = y; row < y + p.rows_of_box; ++row) {
      for (int column = x; column < x + p.columns_of_box; ++column) {
        for (int piece = 0; piece < pieces; ++piece, at += kPiece) {
          const uint32_t place = at ^ at / kAligned % pieces * kPiece;
          char* target = emulation::SharedAt("TmaBarrier::Copy", site, place, kPiece, kPiece);
          std::memset(target, kPoison, kPiece);
          const int first = channel + piece * kPiece / 2;
          const bool inside =
              row >= 0 && row < p.height && column >= 0 && column < p.width && first < p.channels;
          const int64_t pixel = (int64_t{image} * p.height + row) * p.width + column;
          const char* from = static_cast<const char*>(p.from) + 2 * (pixel * p.pixel_step + first);
          copies_.emplace_back(target, inside ? from : nullptr);
        }
      }
    }
  }

  void Wait() {
    if (16 * copies_.size() != expected_) {
      emulation::Fail("%zu bytes were to come in boxes, %zu were copied", expected_,
                      16 * copies_.size());
    }
    for (const auto& [to, from] : copies_) {
      if (from) {
        std::memcpy(to, from, 16);
      } else {
        std::memset(to, 0, 16);
      }
    }
    copies_.clear();
    expected_ = 0;
  }

 private:
  static constexpr int kPoison = 0xff;

  size_t expected_ = 0;
  std::vector<std::pair<char*, const char*>> copies_;  // of the first thread
};

}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_BOXES_H_
