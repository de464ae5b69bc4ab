// Checks the emulator itself. `check_emulator numbers` compares half precision with its definition;
// `check_emulator FAULT` runs a kernel with that fault, which has to end the program or print
// "wrong".
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/kernel_launch.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"
#include "cuda/warp_reduce.cuh"
#include "device_array.h"
#include "scheduler.h"

namespace sasa {
namespace {

constexpr int kThreads = 64;

enum class Fault {
  kNone,
  kBarrier,
  kWarpBarrier,
  kWait,
  kAddress,
  kAlignment,
  kWrite,
  kArray,
  kUnwritten,
  kUnwrittenStatic,
  kDivergence,
  kBranch,
  kReturned,
  kBoxes,
  kBoxWait,
  kBoxBytes,
  kBoxAlignment
};
struct Name {
  const char* name;
  Fault fault;
};
constexpr Name kNames[] = {
    {"none", Fault::kNone},
    {"missing_barrier", Fault::kBarrier},
    {"missing_warp_barrier", Fault::kWarpBarrier},
    {"missing_wait", Fault::kWait},
    {"address_beyond", Fault::kAddress},
    {"address_between", Fault::kAlignment},
    {"write_beyond", Fault::kWrite},
    {"array_beyond", Fault::kArray},
    {"unwritten", Fault::kUnwritten},
    {"unwritten_static", Fault::kUnwrittenStatic},
    {"divergence", Fault::kDivergence},
    {"barrier_in_branch", Fault::kBranch},
    {"returned_lanes", Fault::kReturned},
    {"boxes", Fault::kBoxes},
    {"missing_box_wait", Fault::kBoxWait},
    {"box_too_few", Fault::kBoxBytes},
    {"box_between", Fault::kBoxAlignment},
};

// Adds `from`, of kThreads fours of numbers, to itself backwards.
__global__ void Kernel(Fault fault, const float* from, float* to) {
  extern __shared__ __align__(128) char memory[];
  __shared__ float own[kThreads];
  float* numbers = reinterpret_cast<float*>(memory);
  const int i = threadIdx.x, back = kThreads - 1 - i;
  const uint32_t address = SmemAddress(numbers + 4 * i);
  if (fault != Fault::kUnwrittenStatic) own[i] = 0.f;
  if (fault != Fault::kUnwritten) {
    CpAsync16(address, from + 4 * i, true);
    if (fault != Fault::kWait) CpAsyncWaitAll();
  }
  if (fault == Fault::kAddress) CpAsync16(address + 16, from, true);
  if (fault == Fault::kAlignment) CpAsync16(address + 4, from, false);
  if (fault == Fault::kWrite) numbers[4 * i + 4] = 0.f;
  if (fault == Fault::kArray) to[0] = __ldg(from + 4 * i + 8);
  if (fault == Fault::kReturned && i % kWarpSize == 5) return;
  if (fault == Fault::kDivergence && i % 2) {
    __shfl_xor_sync(kFullMask, 0.f, 1);
  }
  if (fault == Fault::kBranch && i % kWarpSize > 3) __syncthreads();
  if (fault != Fault::kBarrier) __syncthreads();
  for (int n = 0; n < 4; ++n) to[4 * i + n] = numbers[4 * i + n] + numbers[4 * back + n] + own[i];
  // The lanes of a warp, the other way round.
  own[i] = to[4 * i];
  if (fault != Fault::kWarpBarrier) __syncwarp();
  if (own[i ^ 31] != to[4 * (i ^ 31)]) to[4 * i] = NAN;
  uint32_t four[4];
  LdmatrixX4(address, four);
}

bool RightWith(Fault fault) {
  std::vector<float> from(4 * kThreads), to(4 * kThreads);
  for (int i = 0; i < 4 * kThreads; ++i) from[i] = i;
  const std::vector<char> bytes(16 * kThreads);
  emulation::DeviceArray device_from(bytes), device_to(bytes);
  std::memcpy(device_from.data(), from.data(), bytes.size());
  for (int turn = 0; turn < 20; ++turn) {
    device_to.Poison();
    LaunchKernel(Kernel, 2, kThreads, 16 * kThreads, nullptr, fault, device_from.floats(),
            device_to.floats());
    std::memcpy(to.data(), device_to.data(), bytes.size());
    for (int i = 0; i < 4 * kThreads; ++i) {
      const int back = 4 * (kThreads - 1 - i / 4) + i % 4;
      if (!(to[i] == from[i] + from[back])) return false;
    }
  }
  return true;
}

// Copies a box of kSide x kSide pixels of 16 channels, which begins one pixel before the image's
// first, to an array of its own.
constexpr int kSide = 4, kChannels = 16, kPiece = 8;  // numbers of 16 bits
__global__ void CopyOneBox(Fault fault, TensorMap boxes, uint16_t* to) {
  extern __shared__ __align__(1024) char memory[];
  constexpr int kPixels = kSide * kSide, kBytes = kPixels * kChannels * 2;
  TmaBarrier arrivals(memory + 2 * kBytes);
  __syncthreads();
  if (threadIdx.x == 0) {
    arrivals.Expect(fault == Fault::kBoxBytes ? 2 * kBytes : kBytes);
    const int first = fault == Fault::kBoxAlignment ? 16 : 0;
    arrivals.Copy(boxes, 0, -1, -1, 0, SmemAddress(memory + first));
  }
  if (fault != Fault::kBoxWait) arrivals.Wait();
  __syncthreads();
  if (threadIdx.x >= kPixels) return;
  const uint16_t* numbers = reinterpret_cast<const uint16_t*>(memory);
  const int pixel = threadIdx.x;
  for (int c = 0; c < kChannels; ++c) {
    // Pieces of four pixels are as they are, of the next four exchanged.
    const int piece = (c / kPiece + pixel / 4) % 2;
    to[pixel * kChannels + c] = numbers[pixel * kChannels + piece * kPiece + c % kPiece];
  }
}

bool RightBoxes(Fault fault) {
  std::vector<uint16_t> from(kSide * kSide * kChannels), to(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = 1 + i;
  const std::vector<char> bytes(2 * from.size());
  emulation::DeviceArray device_from(bytes), device_to(bytes);
  std::memcpy(device_from.data(), from.data(), bytes.size());
  TensorMap boxes;
  EncodeTensorMap({device_from.data(), 1, kSide, kSide, kChannels, kChannels, kChannels, kSide, kSide},
            boxes);
  LaunchKernel(CopyOneBox, 1, kThreads, 2 * bytes.size() + TmaBarrier::kBytes, nullptr, fault, boxes,
          reinterpret_cast<uint16_t*>(device_to.data()));
  std::memcpy(to.data(), device_to.data(), bytes.size());
  for (int i = 0; i < kSide * kSide * kChannels; ++i) {
    const int row = i / kChannels / kSide - 1, column = i / kChannels % kSide - 1;
    const bool inside = row >= 0 && column >= 0;
    const int at = (row * kSide + column) * kChannels + i % kChannels;
    if (to[i] != (inside ? from[at] : 0)) return false;
  }
  return true;
}

// The next number away from zero differs from this one in its last bit, so of what lies in the
// middle, the even one is right.
template <typename T>
bool RightNumbers(int fraction_bits, int smallest) {
  const int count = 1 << 15, infinite = (count - 1) >> fraction_bits << fraction_bits;
  for (int bits = 0; bits < count; ++bits) {
    for (int sign = 0; sign < 2; ++sign) {
      const uint16_t own = sign << 15 | bits;
      const float x = T::FromBits(own);
      if (bits > infinite) {
        if (x == x || T(x).bits != 0x7fff) return false;
        continue;
      }
      if (T(x).bits != own) return false;
      const int exponent = bits >> fraction_bits, one = 1 << fraction_bits;
      const double last = std::ldexp(1.0, smallest + (exponent > 0 ? exponent - 1 : 0));
      if (bits == infinite) {
        if (!std::isinf(x)) return false;
        continue;
      }
      const double exact = last * (bits % one + (exponent > 0 ? one : 0)) * (sign ? -1 : 1);
      if (x != exact) return false;
      const double middle = exact + (sign ? -last : last) / 2;
      const double toward = sign ? -INFINITY : INFINITY;
      if (T(middle).bits != own + bits % 2) return false;
      if (T(std::nextafter(middle, toward)).bits != own + 1) return false;
      if (T(std::nextafter(middle, -toward)).bits != own) return false;
      if (T(static_cast<float>(middle)).bits != own + bits % 2 && std::fabs(middle) > 1e-37) {
        return false;
      }
    }
  }
  // Of products and sums, those whose exact value a long double holds.
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    T three[3];
    for (T& x : three) {
      do {
        x = T::FromBits(random());
      } while (!std::isfinite(float{x}) || std::fabs(std::log2(std::fabs(float{x}))) > 7);
    }
    const long double exact = static_cast<long double>(three[0]) * three[1] + three[2];
    const float found = T::MultiplyAdd(three[0], three[1], three[2]);
    // No neighbour is nearer, and where one is as near, the result is even.
    for (int step = -1; step <= 1; step += 2) {
      const T next = T::FromBits(T(found).bits + step);
      const long double own = std::fabs(found - exact), other = std::fabs(next - exact);
      if (other < own || (other == own && T(found).bits % 2)) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace sasa

int main(int argc, char** argv) {
  emulation::WhenFailing(nullptr);
  const char* wanted = argc > 1 ? argv[1] : "numbers";
  bool right = false;
  if (std::strcmp(wanted, "numbers") == 0) {
    right = sasa::RightNumbers<__half>(10, -24) && sasa::RightNumbers<__nv_bfloat16>(7, -133);
  }
  for (const sasa::Name& name : sasa::kNames) {
    if (std::strcmp(wanted, name.name) != 0) continue;
    const bool of_boxes = name.fault >= sasa::Fault::kBoxes;
    right = of_boxes ? sasa::RightBoxes(name.fault) : sasa::RightWith(name.fault);
  }
  std::puts(right ? "right" : "wrong");
  return right ? 0 : 1;
}
