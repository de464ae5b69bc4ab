// Tests the emulator itself. `check_emulator half_types` compares the 16-bit types with their
// definitions; `check_emulator NAME` runs a kernel, with the fault of that name if it is one, which
// must end the program with an error or make it print "incorrect".
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
#include "cuda/wgmma.cuh"
#include "device_array.h"
#include "scheduler.h"

namespace sasa {
namespace {

constexpr int kThreads = 64;

enum class Fault {
  kNone,
  kMissingBarrier,
  kMissingWarpBarrier,
  kMissingWait,
  kAddressOutOfBounds,
  kAddressMisaligned,
  kWriteOutOfBounds,
  kArrayOutOfBounds,
  kUninitialized,
  kUninitializedStatic,
  kDivergence,
  kDivergentBarrier,
  kExitedLanes,
  kTma,  // none, of the TMA kernel
  kMissingTmaWait,
  kTmaBytes,
  kTmaMisaligned,
  kMbarrier,  // none, of the mbarrier kernel
  kMissingMbarrierWait,
  kMbarrierDeadlock,
  kWgmma,  // none, of the wgmma kernel
  kMissingWgmmaWait,
  kWgmmaOperands
};
struct NamedFault {
  const char* name;
  Fault fault;
};
constexpr NamedFault kFaults[] = {
    {"none", Fault::kNone},
    {"missing_barrier", Fault::kMissingBarrier},
    {"missing_warp_barrier", Fault::kMissingWarpBarrier},
    {"missing_wait", Fault::kMissingWait},
    {"address_out_of_bounds", Fault::kAddressOutOfBounds},
    {"address_misaligned", Fault::kAddressMisaligned},
    {"write_out_of_bounds", Fault::kWriteOutOfBounds},
    {"array_out_of_bounds", Fault::kArrayOutOfBounds},
    {"uninitialized", Fault::kUninitialized},
    {"uninitialized_static", Fault::kUninitializedStatic},
    {"divergence", Fault::kDivergence},
    {"divergent_barrier", Fault::kDivergentBarrier},
    {"exited_lanes", Fault::kExitedLanes},
    {"tma", Fault::kTma},
    {"missing_tma_wait", Fault::kMissingTmaWait},
    {"tma_bytes", Fault::kTmaBytes},
    {"tma_misaligned", Fault::kTmaMisaligned},
    {"mbarrier", Fault::kMbarrier},
    {"missing_mbarrier_wait", Fault::kMissingMbarrierWait},
    {"mbarrier_deadlock", Fault::kMbarrierDeadlock},
    {"wgmma", Fault::kWgmma},
    {"missing_wgmma_wait", Fault::kMissingWgmmaWait},
    {"wgmma_operands", Fault::kWgmmaOperands},
};

// Adds kThreads float4s to the same in reverse order.
__global__ void AddReversed(Fault fault, const float* from, float* to) {
  extern __shared__ __align__(128) char memory[];
  __shared__ float first[kThreads];
  float* staged = reinterpret_cast<float*>(memory);
  const int i = threadIdx.x, reversed = kThreads - 1 - i;
  const uint32_t address = SmemAddress(staged + 4 * i);
  if (fault != Fault::kUninitializedStatic) first[i] = 0.f;
  if (fault != Fault::kUninitialized) {
    CpAsync16(address, from + 4 * i, true);
    if (fault != Fault::kMissingWait) CpAsyncWaitAll();
  }
  if (fault == Fault::kAddressOutOfBounds) CpAsync16(address + 16, from, true);
  if (fault == Fault::kAddressMisaligned) CpAsync16(address + 4, from, false);
  if (fault == Fault::kWriteOutOfBounds) staged[4 * i + 4] = 0.f;
  if (fault == Fault::kArrayOutOfBounds) to[0] = __ldg(from + 4 * i + 8);
  if (fault == Fault::kExitedLanes && i % kWarpSize == 5) return;
  if (fault == Fault::kDivergence && i % 2) {
    __shfl_xor_sync(kFullMask, 0.f, 1);
  }
  if (fault == Fault::kDivergentBarrier && i % kWarpSize > 3) __syncthreads();
  if (fault != Fault::kMissingBarrier) __syncthreads();
  for (int n = 0; n < 4; ++n) {
    to[4 * i + n] = staged[4 * i + n] + staged[4 * reversed + n] + first[i];
  }
  // Read what another lane of the warp has written.
  first[i] = to[4 * i];
  if (fault != Fault::kMissingWarpBarrier) __syncwarp();
  if (first[i ^ 31] != to[4 * (i ^ 31)]) to[4 * i] = NAN;
  uint32_t matrices[4];
  LdmatrixX4(address, matrices);
}

bool CheckAddReversed(Fault fault) {
  std::vector<float> from(4 * kThreads), to(4 * kThreads);
  for (int i = 0; i < 4 * kThreads; ++i) from[i] = i;
  const std::vector<char> bytes(16 * kThreads);
  emulation::DeviceArray device_from(bytes), device_to(bytes);
  std::memcpy(device_from.data(), from.data(), bytes.size());
  for (int repetition = 0; repetition < 20; ++repetition) {
    device_to.Poison();
    LaunchKernel(AddReversed, 2, kThreads, 16 * kThreads, nullptr, fault, device_from.floats(),
                 device_to.floats());
    std::memcpy(to.data(), device_to.data(), bytes.size());
    for (int i = 0; i < 4 * kThreads; ++i) {
      const int reversed = 4 * (kThreads - 1 - i / 4) + i % 4;
      if (!(to[i] == from[i] + from[reversed])) return false;
    }
  }
  return true;
}

// Loads a box of kSide x kSide pixels of 16 channels by TMA, which begins one pixel before the
// image's first, and undoes the swizzle.
constexpr int kSide = 4, kChannels = 16, kChunk = 8;  // 16-bit elements
__global__ void LoadBox(Fault fault, TensorMap tensor_map, uint16_t* to) {
  extern __shared__ __align__(1024) char memory[];
  constexpr int kPixels = kSide * kSide, kBytes = kPixels * kChannels * 2;
  TmaBarrier barrier(memory + 2 * kBytes);
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier.ArriveExpectTx(fault == Fault::kTmaBytes ? 2 * kBytes : kBytes);
    const int offset = fault == Fault::kTmaMisaligned ? 16 : 0;
    TmaLoad(tensor_map, barrier, SmemAddress(memory + offset), 0, -1, -1, 0);
  }
  if (fault != Fault::kMissingTmaWait) barrier.Wait();
  __syncthreads();
  if (threadIdx.x >= kPixels) return;
  const uint16_t* elements = reinterpret_cast<const uint16_t*>(memory);
  const int pixel = threadIdx.x;
  for (int c = 0; c < kChannels; ++c) {
    // The chunks of every second group of four pixels are exchanged.
    const int chunk = (c / kChunk + pixel / 4) % 2;
    to[pixel * kChannels + c] = elements[pixel * kChannels + chunk * kChunk + c % kChunk];
  }
}

bool CheckLoadBox(Fault fault) {
  std::vector<uint16_t> from(kSide * kSide * kChannels), to(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = 1 + i;
  const std::vector<char> bytes(2 * from.size());
  emulation::DeviceArray device_from(bytes), device_to(bytes);
  std::memcpy(device_from.data(), from.data(), bytes.size());
  const TensorMapDesc desc = {
      .data = device_from.data(),
      .images = 1,
      .height = kSide,
      .width = kSide,
      .channels = kChannels,
      .pixel_stride = kChannels,
      .box_channels = kChannels,
      .box_columns = kSide,
      .box_rows = kSide,
  };
  TensorMap tensor_map;
  EncodeTensorMap(desc, tensor_map);
  LaunchKernel(LoadBox, 1, kThreads, 2 * bytes.size() + TmaBarrier::kBytes, nullptr, fault,
               tensor_map, reinterpret_cast<uint16_t*>(device_to.data()));
  std::memcpy(to.data(), device_to.data(), bytes.size());
  for (int i = 0; i < kSide * kSide * kChannels; ++i) {
    const int row = i / kChannels / kSide - 1, column = i / kChannels % kSide - 1;
    const bool in_image = row >= 0 && column >= 0;
    const int source = (row * kSide + column) * kChannels + i % kChannels;
    if (to[i] != (in_image ? from[source] : 0)) return false;
  }
  return true;
}

// The warps alternate in counting, as far as `count`: each waits for the other's arrival.
void CountAlternately(Fault fault, int count, int* to) {
  extern __shared__ __align__(1024) char memory[];
  int* number = reinterpret_cast<int*>(memory + 2 * Mbarrier::kBytes);
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const auto barrier_of = [&](int warp) {
    return Mbarrier(SmemAddress(memory) + warp * Mbarrier::kBytes);
  };
  if (threadIdx.x == 0) {
    barrier_of(0).Init(1);
    barrier_of(1).Init(1);
    *number = 0;
  }
  __syncthreads();
  for (int i = warp; i < count; i += 2) {
    const bool waits = i > 0 && fault != Fault::kMissingMbarrierWait;
    if (waits || fault == Fault::kMbarrierDeadlock) barrier_of(1 - warp).Wait((i - 1) / 2 % 2);
    if (lane == 0 && *number == i) *number = i + 1;
    __syncwarp();
    if (lane == 0) barrier_of(warp).Arrive();
  }
  __syncthreads();
  if (threadIdx.x == 0) *to = *number;
}

bool CheckCountAlternately(Fault fault) {
  constexpr int kCount = 50, kRuns = 20;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<char> bytes(sizeof(int));
    emulation::DeviceArray to(bytes);
    LaunchKernel(CountAlternately, 1, kThreads, 2 * Mbarrier::kBytes + sizeof(int), nullptr, fault,
                 kCount, reinterpret_cast<int*>(to.data()));
    int count = 0;
    std::memcpy(&count, to.data(), sizeof(int));
    if (count != kCount) return false;
  }
  return true;
}

// Four panels of small integers, of which the first is a and the others are b.
constexpr int kPanelBytes = 64 * WgmmaPanel::kRowBytes;
int PanelElement(int panel, int row, int column) { return (panel + 3 * row + 5 * column) % 7 - 3; }

// The products a b^T with the first panel of b, and a^T b, of which each thread stores its part.
void MultiplyPanels(Fault fault, float* to) {
  extern __shared__ __align__(1024) char memory[];
  for (int i = threadIdx.x; i < 4 * 64 * 64; i += blockDim.x) {
    const int panel = i / 4096, row = i / 64 % 64, column = i % 64;
    const int chunk = (column / 8 ^ row) % 8;
    const uint16_t bits = ConvertTo<Bfloat16>(PanelElement(panel, row, column)).bits;
    std::memcpy(memory + panel * kPanelBytes + row * WgmmaPanel::kRowBytes + chunk * 16 +
                    column % 8 * 2,
                &bits, 2);
  }
  FenceProxyAsync();
  __syncthreads();
  const uint32_t a = SmemAddress(memory), b = a + kPanelBytes;
  const int lane = threadIdx.x % kWarpSize;
  float narrow[32], wide[96] = {};
  WgmmaFence();
  for (int k = 0; k < 64; k += 16) {
    const int other = fault == Fault::kWgmmaOperands && lane == 5 ? 16 : 0;
    WgmmaM64N64K16<0, 0>(narrow, WgmmaPanel::KMajor(a, k ^ other), WgmmaPanel::KMajor(b, k), k > 0);
  }
  WgmmaCommitGroup();
  for (int k = 0; k < 64; k += 16) {
    WgmmaM64N192K16<1, 1>(wide, WgmmaPanel::MnMajor(a, k, kPanelBytes),
                          WgmmaPanel::MnMajor(b, k, kPanelBytes), true);
  }
  WgmmaCommitGroup();
  WgmmaWaitGroup<1>(narrow);
  if (fault != Fault::kMissingWgmmaWait) WgmmaWaitGroup<0>(wide);
  for (int i = 0; i < 128; ++i) to[threadIdx.x * 128 + i] = i < 32 ? narrow[i] : wide[i - 32];
}

bool CheckMultiplyPanels(Fault fault) {
  std::vector<char> bytes(kWarpgroupSize * 128 * sizeof(float));
  emulation::DeviceArray to(bytes);
  LaunchKernel(MultiplyPanels, 1, kWarpgroupSize, 4 * kPanelBytes, nullptr, fault, to.floats());
  for (int thread = 0; thread < kWarpgroupSize; ++thread) {
    for (int i = 0; i < 128; ++i) {
      const int j = i < 32 ? i : i - 32, lane = thread % kWarpSize;
      const int row = thread / kWarpSize * 16 + lane / 4 + j % 4 / 2 * 8;
      const int column = j / 4 * 8 + lane % 4 * 2 + j % 2;
      int sum = 0;
      for (int k = 0; k < 64; ++k) {
        sum += i < 32 ? PanelElement(0, row, k) * PanelElement(1, column, k)
                      : PanelElement(0, k, row) * PanelElement(1 + column / 64, k, column % 64);
      }
      if (to.floats()[thread * 128 + i] != sum) return false;
    }
  }
  return true;
}

// Compares conversions with the definition of the type: `smallest` is the exponent of the smallest
// denormal. A value halfway between two neighbors is rounded to the even one.
template <typename Format>
bool CheckHalfType(int fraction_bits, int smallest) {
  const auto rounded = [](double x) { return Format::FromFloat(emulation::RoundToOdd(x)); };
  const int count = 1 << 15, infinite = (count - 1) >> fraction_bits << fraction_bits;
  for (int bits = 0; bits < count; ++bits) {
    for (int sign = 0; sign < 2; ++sign) {
      const uint16_t encoding = sign << 15 | bits;
      const float x = Format::ToFloat(encoding);
      if (bits > infinite) {
        if (x == x || Format::FromFloat(x) != 0x7fff) return false;
        continue;
      }
      if (Format::FromFloat(x) != encoding) return false;
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
      if (rounded(middle) != encoding + bits % 2) return false;
      if (rounded(std::nextafter(middle, toward)) != encoding + 1) return false;
      if (rounded(std::nextafter(middle, -toward)) != encoding) return false;
      const uint16_t of_float = Format::FromFloat(static_cast<float>(middle));
      if (of_float != encoding + bits % 2 && std::fabs(middle) > 1e-37) {
        return false;
      }
    }
  }
  // Fused multiply-adds whose exact result fits in a long double.
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    uint16_t bits[3];
    float x[3];
    for (int j = 0; j < 3; ++j) {
      do {
        bits[j] = random();
        x[j] = Format::ToFloat(bits[j]);
      } while (!std::isfinite(x[j]) || std::fabs(std::log2(std::fabs(x[j]))) > 7);
    }
    const long double exact = static_cast<long double>(x[0]) * x[1] + x[2];
    const uint16_t found = emulation::Fma<Format>(bits[0], bits[1], bits[2]);
    // No neighbor is nearer; if one is as near, the result is the even one.
    for (int step = -1; step <= 1; step += 2) {
      const long double own = std::fabs(Format::ToFloat(found) - exact);
      const long double other = std::fabs(Format::ToFloat(found + step) - exact);
      if (other < own || (other == own && found % 2)) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace sasa

int main(int argc, char** argv) {
  emulation::OnFailure(nullptr);
  const char* name = argc > 1 ? argv[1] : "half_types";
  bool correct = false;
  if (std::strcmp(name, "half_types") == 0) {
    correct = sasa::CheckHalfType<emulation::Float16>(10, -24) &&
              sasa::CheckHalfType<emulation::Bfloat16>(7, -133);
  }
  for (const sasa::NamedFault& known : sasa::kFaults) {
    if (std::strcmp(name, known.name) != 0) continue;
    const auto check = known.fault >= sasa::Fault::kWgmma      ? sasa::CheckMultiplyPanels
                       : known.fault >= sasa::Fault::kMbarrier ? sasa::CheckCountAlternately
                       : known.fault >= sasa::Fault::kTma    ? sasa::CheckLoadBox
                                                             : sasa::CheckAddReversed;
    correct = check(known.fault);
  }
  std::puts(correct ? "correct" : "incorrect");
  return correct ? 0 : 1;
}
