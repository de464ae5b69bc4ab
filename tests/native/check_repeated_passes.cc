// Repeats forward and backward passes of local attention in bfloat16, which must give the same bits
// each time, on an emulated or a real GPU: `check_repeated_passes [PASSES]` of each shape. Before a
// pass, all arrays are NaN; then kernels write the inputs and let the next kernel start early.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cuda/kernel_launch.cuh"
#include "cuda/ptx.cuh"
#include "device_array.h"
#include "local_attention.h"
#include "scheduler.h"

namespace {

using emulation::DeviceArray;
using sasa::LocalAttentionProblem;

constexpr int kThreads = 128, kCounters = 64 * kThreads;

__device__ uint32_t Hash(uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

// Writes pseudorandom numbers from -1 to 1, in float32 or bfloat16.
template <typename Bits>
__global__ void WriteInput(Bits* to, size_t count, uint32_t seed) {
  sasa::GridLaunchDependents();
  for (size_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += gridDim.x * kThreads) {
    const int32_t hash = static_cast<int32_t>(Hash(i) ^ Hash(seed));
    to[i] = __float_as_uint(static_cast<float>(hash) / 2147483648.f) >> 8 * (4 - sizeof(Bits));
  }
}

// The first pass keeps a result; the others count, per thread, the words that differ from it.
__global__ void Compare(const uint32_t* result, uint32_t* first, size_t count, bool is_first,
                        uint32_t* differences) {
  const int thread = blockIdx.x * kThreads + threadIdx.x;
  for (size_t i = thread; i < count; i += kCounters) {
    if (is_first) first[i] = result[i];
    if (first[i] != result[i]) ++differences[thread];
  }
}

// 32-bit words on the device, and what the first pass wrote there.
struct Words {
  explicit Words(size_t words)
      : count(words), array(std::vector<char>(4 * words)), first(std::vector<char>(4 * words)) {}
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(array.data());
  }

  size_t count;
  DeviceArray array, first;
};

struct Shape {
  int batch, height, width, heads, head_dim, kernel, pool;
};

bool Check(const Shape& s, int passes) {
  LocalAttentionProblem p = {};
  p.batch = s.batch;
  p.height = s.height;
  p.width = s.width;
  p.heads = s.heads;
  p.head_dim = s.head_dim;
  p.kernel_rows = p.kernel_columns = s.kernel;
  p.dilation_rows = p.dilation_columns = 1;
  p.mask_border = p.has_key = p.has_relative = true;
  p.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  p.qkv_parts = 3;
  p.type = sasa::DType::kBfloat16;
  p.pool_size = s.pool;
  const size_t softmaxes = size_t{1} * s.batch * s.height * s.width * s.heads;
  const size_t words = softmaxes * s.head_dim / 2, pooled_words = words / (s.pool * s.pool);
  const size_t part = 2 * s.heads * s.head_dim, table = s.kernel * s.head_dim / 2;
  Words qkv(3 * words), d_output(pooled_words), rows(table), columns(table);
  Words output(words), pooled_output(pooled_words), lse(softmaxes);
  Words d_qkv(3 * words), d_rows(table), d_columns(table);
  DeviceArray workspace(std::vector<char>(4 * sasa::WorkspaceFloats(p)));
  std::vector<char> counters(4 * kCounters);
  DeviceArray differences(counters);
  const std::vector<Words*> inputs = {&qkv, &d_output, &rows, &columns};
  std::vector<Words*> results = {&output, &lse, &d_qkv, &d_rows, &d_columns};
  if (s.pool > 1) results.push_back(&pooled_output);
  const sasa::ForwardArrays forward = {
      .query = qkv.array.data(),
      .key = qkv.array.data() + part,
      .value = qkv.array.data() + 2 * part,
      .relative_rows = rows.array.floats(),
      .relative_columns = columns.array.floats(),
      .output = output.array.data(),
      .lse = lse.array.floats(),
      .pooled_output = pooled_output.array.data(),
  };
  const sasa::BackwardArrays backward = {
      .query = forward.query,
      .key = forward.key,
      .value = forward.value,
      .relative_rows = forward.relative_rows,
      .relative_columns = forward.relative_columns,
      .output = forward.output,
      .lse = forward.lse,
      .d_output = d_output.array.data(),
      .d_query = d_qkv.array.data(),
      .d_key = d_qkv.array.data() + part,
      .d_value = d_qkv.array.data() + 2 * part,
      .d_relative_rows = d_rows.array.floats(),
      .d_relative_columns = d_columns.array.floats(),
      .workspace = workspace.floats(),
  };
  for (int pass = 0; pass < passes; ++pass) {
    for (Words* input : inputs) input->array.Poison();
    for (Words* result : results) result->array.Poison();
    workspace.Poison();
    const int ctas = 16 << pass % 5;  // so that they take longer or shorter
    const auto write = [&](auto* to, size_t count, uint32_t seed) {
      sasa::LaunchKernel(WriteInput<std::remove_pointer_t<decltype(to)>>, ctas, kThreads, 0,
                         nullptr, to, count, seed);
    };
    write(rows.as<uint32_t>(), table, 1);
    write(columns.as<uint32_t>(), table, 2);
    write(d_output.as<uint16_t>(), 2 * pooled_words, 3);
    write(qkv.as<uint16_t>(), 6 * words, 4);
    const char* error = sasa::CudaForward(p, forward, nullptr);
    if (error == nullptr) error = sasa::CudaBackward(p, backward, nullptr);
    if (error != nullptr) return std::puts(error), false;
    for (Words* result : results) {
      sasa::LaunchKernel(Compare, kCounters / kThreads, kThreads, 0, nullptr,
                         result->as<uint32_t>(), reinterpret_cast<uint32_t*>(result->first.data()),
                         result->count, pass == 0,
                         reinterpret_cast<uint32_t*>(differences.data()));
    }
  }
  if (!differences.CopyTo(counters)) return std::puts("a kernel wrote outside an array"), false;
  uint64_t different = 0;
  for (size_t i = 0; i < counters.size(); i += 4) {
    uint32_t count;
    std::memcpy(&count, &counters[i], 4);
    different += count;
  }
  if (different > 0) {
    std::printf("%llu words differ: batch %d, %d x %d, %d heads %d wide, kernel %d, pool %d\n",
                static_cast<unsigned long long>(different), s.batch, s.height, s.width, s.heads,
                s.head_dim, s.kernel, s.pool);
  }
  return different == 0;
}

// The stages of ResNet-50; shapes for which one kernel computes the backward pass on a GPU with 132
// multiprocessors, with images that are no multiple of its tiles; and other windows.
constexpr Shape kShapes[] = {
    {64, 56, 56, 8, 8, 7, 1},  {64, 56, 56, 8, 16, 7, 2}, {64, 28, 28, 8, 16, 7, 1},
    {64, 28, 28, 8, 32, 7, 2}, {64, 14, 14, 8, 32, 7, 1}, {64, 14, 14, 8, 64, 7, 2},
    {64, 7, 7, 8, 64, 7, 1},   {32, 28, 28, 8, 8, 7, 1},  {32, 33, 37, 8, 8, 7, 1},
    {32, 58, 28, 8, 8, 7, 2},  {32, 29, 55, 8, 8, 7, 1},  {44, 28, 34, 5, 8, 7, 1},
    {128, 31, 41, 1, 8, 7, 1}, {16, 28, 28, 8, 16, 7, 1}, {33, 28, 28, 8, 16, 7, 2},
    {33, 29, 31, 4, 16, 7, 1}, {66, 57, 28, 2, 16, 7, 1}, {44, 35, 29, 3, 16, 7, 1},
    {32, 56, 56, 8, 8, 3, 1},  {44, 28, 34, 5, 8, 3, 1},  {33, 28, 28, 8, 16, 3, 1},
    {16, 56, 56, 8, 16, 3, 2}, {32, 56, 56, 8, 8, 5, 1},  {33, 29, 31, 4, 16, 5, 1},
    {44, 35, 41, 3, 16, 5, 1}, {32, 28, 28, 8, 16, 11, 1}, {32, 14, 14, 8, 32, 5, 1},
    {32, 14, 14, 8, 64, 9, 1}, {32, 28, 28, 8, 4, 7, 1},  {64, 14, 14, 8, 32, 3, 1},
    {64, 14, 14, 8, 64, 3, 2}, {64, 7, 7, 8, 64, 5, 1},   {64, 8, 6, 8, 32, 7, 2},
};
// For the emulated GPU.
constexpr Shape kSmallShapes[] = {{2, 9, 13, 3, 8, 7, 1}, {1, 6, 10, 2, 16, 7, 2}};

template <size_t kCount>
int CheckAll(const Shape (&shapes)[kCount], int passes) {
  for (const Shape& shape : shapes) {
    if (!Check(shape, passes)) return 1;
  }
  std::printf("%d passes of each of %zu shapes have the same bits on the %s GPU\n", passes, kCount,
              emulation::kGpuName);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int passes = argc > 1 ? std::atoi(argv[1]) : 1000;
  const bool is_real = std::strcmp(emulation::kGpuName, "real") == 0;
  return is_real ? CheckAll(kShapes, passes) : CheckAll(kSmallShapes, passes);
}
