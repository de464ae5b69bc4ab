// Emulation of cuda/wgmma.cuh.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_WGMMA_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_WGMMA_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "half_types.h"
#include "instructions.h"
#include "scheduler.h"

namespace emulation {

// A product [64, columns] that a lane has started, with its part of the sum. It is computed when
// the lane waits for it; until then the accumulator is NaN.
struct Wgmma {
  float* d;
  uint32_t array;  // of the addresses in shared memory, which descriptors do not have
  int columns;
  uint64_t a, b;
  bool trans_a, trans_b, accumulate;
  std::vector<float> sum;  // empty if a pending product has the same accumulator

  bool SameAs(const Wgmma& other) const {
    return array == other.array && columns == other.columns && a == other.a && b == other.b &&
           trans_a == other.trans_a && trans_b == other.trans_b && accumulate == other.accumulate;
  }
};

// The products of a thread that are pending, by group; those of the last have not been committed.
inline std::deque<std::vector<Wgmma>>& PendingWgmmas() {
  static auto* pending = new std::deque<std::vector<Wgmma>>[kMaxThreads];
  return pending[threadIdx.x];
}

// The element at place `mn` of M or N and place `k` of K of a matrix in shared memory, which has
// the 128 byte swizzle.
inline float WgmmaElement(SourceLocation location, uint32_t array, uint64_t descriptor,
                          bool mn_major, int mn, int k) {
  const auto field = [=](int first) {
    return static_cast<uint32_t>(descriptor >> first & 0x3fff) * 16;
  };
  if (descriptor >> 62 != 1) Fail("wgmma of a matrix without the 128 byte swizzle");
  const uint32_t offset = mn_major
                              ? mn / 64 * field(16) + mn % 64 * 2 + k / 8 * field(32) + k % 8 * 128
                              : mn / 8 * field(32) + mn % 8 * 128 + k * 2;
  const uint32_t address = array + field(0) + offset;
  uint16_t bits;
  std::memcpy(&bits, ResolveSmem("wgmma", location, address ^ address / 128 % 8 * 16, 2, 2), 2);
  return Bfloat16::ToFloat(bits);
}

// Computes the rows of a warp.
inline void ComputeWgmma(SourceLocation location, Wgmma* const* all, int warp) {
  const Wgmma& first = *all[0];
  float a[16][16];
  std::vector<float> b(16 * first.columns);
  for (int k = 0; k < 16; ++k) {
    for (int m = 0; m < 16; ++m) {
      a[m][k] = WgmmaElement(location, first.array, first.a, first.trans_a, warp % 4 * 16 + m, k);
    }
    for (int n = 0; n < first.columns; ++n) {
      b[k * first.columns + n] = WgmmaElement(location, first.array, first.b, first.trans_b, n, k);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    Wgmma& own = *all[lane];
    if (!own.SameAs(first)) Fail("lanes of a warp have different wgmma operands");
    if (!own.sum.empty()) std::copy(own.sum.begin(), own.sum.end(), own.d);
    for (int i = 0; i < own.columns / 2; ++i) {
      const int row = lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = own.accumulate ? own.d[i] : 0.f;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k * own.columns + column];
      own.d[i] = sum;
    }
  }
}

}  // namespace emulation

namespace sasa {

inline void WgmmaFence(SourceLocation location = SourceLocation::Current()) {
  emulation::RunCollective({"wgmma.fence", location, ~0u, false, true, nullptr, nullptr}, nullptr);
}

inline void WgmmaCommitGroup(SourceLocation = SourceLocation::Current()) {
  auto& pending = emulation::PendingWgmmas();
  if (pending.empty()) pending.emplace_back();
  pending.emplace_back();
}

template <int kGroups, int kSize>
void WgmmaWaitGroup(float (&)[kSize], SourceLocation location = SourceLocation::Current()) {
  struct Operands {
    std::vector<emulation::Wgmma> products;
  } operands;
  auto& pending = emulation::PendingWgmmas();
  while (pending.size() > kGroups + 1) {
    for (emulation::Wgmma& product : pending.front()) operands.products.push_back(product);
    pending.pop_front();
  }
  const int warp = threadIdx.x / emulation::kWarp;
  emulation::RunCollective(
      "wgmma.wait_group", location, ~0u, true, operands, [=](Operands* const* all) {
        for (size_t i = 0; i < all[0]->products.size(); ++i) {
          emulation::Wgmma* of_lanes[emulation::kWarp];
          for (int lane = 0; lane < emulation::kWarp; ++lane) {
            if (all[lane]->products.size() != all[0]->products.size()) {
              emulation::Fail("lanes of a warp wait for different numbers of wgmma");
            }
            of_lanes[lane] = &all[lane]->products[i];
          }
          emulation::ComputeWgmma(location, of_lanes, warp);
        }
      });
}

inline void FenceProxyAsync() {}

namespace {  // as `memory` is another array in each source file

template <int kSize>
void StartWgmma(float (&d)[kSize], uint64_t a, uint64_t b, bool trans_a, bool trans_b,
                bool accumulate) {
  auto& pending = emulation::PendingWgmmas();
  if (pending.empty()) pending.emplace_back();
  bool is_pending = false;
  for (const auto& group : pending) {
    for (const emulation::Wgmma& product : group) is_pending |= product.d == d;
  }
  const uint32_t array = SmemAddress(memory) & 0xfff00000;
  emulation::Wgmma product = {d, array, 2 * kSize, a, b, trans_a, trans_b, accumulate, {}};
  if (!is_pending) {
    product.sum.assign(d, d + kSize);
    std::fill(d, d + kSize, NAN);
  }
  pending.back().push_back(product);
}

template <int kTransA, int kTransB>
void WgmmaM64N64K16(float (&d)[32], uint64_t a, uint64_t b, bool accumulate) {
  StartWgmma(d, a, b, kTransA, kTransB, accumulate);
}
template <int kTransA, int kTransB>
void WgmmaM64N192K16(float (&d)[96], uint64_t a, uint64_t b, bool accumulate) {
  StartWgmma(d, a, b, kTransA, kTransB, accumulate);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_EMULATED_WGMMA_H_
