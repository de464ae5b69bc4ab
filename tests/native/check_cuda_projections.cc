// Compares the CUDA kernel of local attention with the projections inside, on an emulated or a real
// GPU, with loops in double precision on random problems. random_problems.h documents the command
// line.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "checks.h"
#include "device_array.h"
#include "limits.h"
#include "local_attention.h"
#include "naive_attention.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::LocalAttentionProblem;

constexpr int64_t kChannels = sasa::kProjectedChannels;

constexpr Setting<LocalAttentionProblem> kSettings[] = {
    {"batch", [](LocalAttentionProblem& p, int x) { p.batch = x; }},
    {"height", [](LocalAttentionProblem& p, int x) { p.height = x; }},
    {"width", [](LocalAttentionProblem& p, int x) { p.width = x; }},
    {"heads", [](LocalAttentionProblem& p, int x) { p.heads = x; }},
    {"kernel", [](LocalAttentionProblem& p, int x) { p.kernel_rows = p.kernel_columns = x; }},
    {"mask", [](LocalAttentionProblem& p, int x) { p.mask_border = x; }},
    {"relative", [](LocalAttentionProblem& p, int x) { p.has_relative = x; }},
    {"scale", [](LocalAttentionProblem& p, int x) { p.scale = x; }},
    {"nonfinite", [](LocalAttentionProblem&, int x) { nonfinite = x; }},
};

LocalAttentionProblem Random(std::mt19937& random, const Settings& settings) {
  const auto up_to = [&](int max) { return 1 + int(random() % max); };
  LocalAttentionProblem p = {};
  p.batch = up_to(2);
  p.height = up_to(random() % 2 ? 33 : 12);
  p.width = up_to(random() % 2 ? 33 : 12);
  p.heads = up_to(random() % 4 ? 3 : 8);
  p.head_dim = sasa::kProjectedHeadDim;
  p.kernel_rows = p.kernel_columns = 3 + 2 * (random() % 3);
  p.dilation_rows = p.dilation_columns = 1;
  p.mask_border = random() % 2;
  p.has_key = true;
  p.has_relative = random() % 4 != 0;
  // The projections are sums of 64 products.
  p.scale = random() % 2 ? 1.f / 32 : 1.f / 64;
  p.qkv_parts = 3;
  p.type = DType::kBfloat16;
  Apply(kSettings, settings, p);
  return p;
}

double RoundToBfloat16(double exact) {
  float x = exact;
  if (!std::isfinite(x)) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

bool Check(const LocalAttentionProblem& p, std::mt19937& random) {
  const int64_t pixels = p.batch * p.height * p.width, filters = p.heads * p.head_dim;
  const int64_t table = p.has_relative ? p.kernel_rows * p.head_dim / 2 : 0;
  Typed inputs(p.type, pixels * kChannels), kernel(p.type, kChannels * 3 * filters);
  Typed rows(DType::kFloat32, table), columns(DType::kFloat32, table);
  Typed output(p.type, pixels * filters);
  std::vector<double> exact_inputs, exact_kernel;
  Arrays a;
  inputs.Fill(random, exact_inputs);
  kernel.Fill(random, exact_kernel);
  rows.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  if (nonfinite) inputs.SetNonFinite(random() % inputs.size(), nonfinite == 2, exact_inputs);
  std::vector<double>* const parts[] = {&a.query, &a.key, &a.value};
  for (int part = 0; part < 3; ++part) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int64_t filter = 0; filter < filters; ++filter) {
        double sum = 0;
        for (int64_t c = 0; c < kChannels; ++c) {
          sum += exact_inputs[pixel * kChannels + c] *
                 exact_kernel[(c * 3 + part) * filters + filter];
        }
        parts[part]->push_back(RoundToBfloat16(sum));
      }
    }
  }
  a.d_output.resize(output.size());
  a.output.resize(output.size());
  a.lse.resize(pixels * p.heads);
  a.d_query.resize(output.size());
  a.d_key.resize(output.size());
  a.d_value.resize(output.size());
  a.d_rows.resize(table);
  a.d_columns.resize(table);
  Naive(p, a);

  DeviceArray device_inputs(inputs.bytes), device_kernel(kernel.bytes);
  DeviceArray device_rows(rows.bytes), device_columns(columns.bytes), device_output(output.bytes);
  Typed lse(DType::kFloat32, pixels * p.heads);
  DeviceArray device_lse(lse.bytes);
  std::vector<char> before;
  for (int run = 0; run < 2; ++run) {
    device_output.Poison();
    device_lse.Poison();
    const char* error = sasa::CudaProjectedForward(p, kChannels,
                                                   {.inputs = device_inputs.data(),
                                                    .kernel = device_kernel.data(),
                                                    .relative_rows = device_rows.floats(),
                                                    .relative_columns = device_columns.floats(),
                                                    .output = device_output.data(),
                                                    .lse = run ? nullptr : device_lse.floats()},
                                                   nullptr);
    if (error != nullptr) return std::puts(error), false;
    if (!device_output.CopyTo(output.bytes) || (run == 0 && !device_lse.CopyTo(lse.bytes))) {
      return std::puts("the kernel wrote outside its output"), false;
    }
    if (run == 1 && output.bytes != before) {
      return std::puts("the output depends on the order of the threads, or on the LSE"), false;
    }
    before = output.bytes;
  }
  return Agrees("output", output, a.output, 2e-2) & Agrees("lse", lse, a.lse, 2e-2);
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of local attention with projections", kSettings, Random,
                             Check, Print);
}
