// Compares the CUDA kernels of stem attention, on an emulated or a real GPU, with nested loops in
// double precision on random problems. random_problems.h describes the command line.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "checks.h"
#include "device_array.h"
#include "naive_stem_attention.h"
#include "stem_kernels.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::StemProblem;

constexpr Setting<StemProblem> kSettings[] = {
    {"batch", [](StemProblem& p, int x) { p.batch = x; }},
    {"height", [](StemProblem& p, int x) { p.height = x; }},
    {"width", [](StemProblem& p, int x) { p.width = x; }},
    {"channels", [](StemProblem& p, int x) { p.channels = x; }},
    {"rows", [](StemProblem& p, int x) { p.block_rows = x; }},
    {"columns", [](StemProblem& p, int x) { p.block_columns = x; }},
    {"heads", [](StemProblem& p, int x) { p.heads = x; }},
    {"depth", [](StemProblem& p, int x) { p.head_dim = x; }},
    {"nonfinite", [](StemProblem&, int x) { nonfinite = x; }},
    {"type", [](StemProblem& p, int x) { p.type = static_cast<DType>(x); }},
};

StemProblem Random(std::mt19937& random, const Settings& settings) {
  const auto up_to = [&](int limit) { return 1 + int(random() % limit); };
  const auto side = [&] { return up_to(random() % 4 == 0 ? 40 : 14); };
  StemProblem p = {};
  p.batch = up_to(3);
  p.height = side();
  p.width = random() % 8 == 0 ? up_to(150) : side();
  p.channels = up_to(4);
  p.heads = up_to(5);
  if (random() % 4) {
    // For the tensor cores.
    p.block_rows = p.block_columns = 4;
    p.head_dim = 16;
    p.type = random() % 2 ? DType::kBfloat16 : DType::kFloat16;
  } else {
    p.block_rows = up_to(8);
    p.block_columns = up_to(8);
    p.head_dim = up_to(random() % 8 == 0 ? 128 : 40);
    p.type = static_cast<DType>(random() % 3);
  }
  Apply(kSettings, settings, p);
  return p;
}

bool Check(const StemProblem& p, std::mt19937& random) {
  const auto single = DType::kFloat32;
  const int64_t pixel_count = p.batch * p.height * p.width, filters = p.heads * p.head_dim;
  const int64_t table = p.block_rows * p.block_columns * p.channels * filters;
  const int64_t square = p.heads * p.channels * p.channels;
  Typed pixels(p.type, pixel_count * p.channels), w_qk(single, square), w_v(single, table);
  Typed output(p.type, pixel_count * filters), d_output(p.type, pixel_count * filters);
  Typed d_w_qk(single, square), d_w_v(single, table);
  Typed workspace(single, sasa::StemWorkspaceFloats(p));
  NaiveStemArrays a;
  pixels.Fill(random, a.pixels);
  w_qk.Fill(random, a.w_qk);
  w_v.Fill(random, a.w_v);
  d_output.Fill(random, a.d_output);
  if (nonfinite && random() % 2) {
    pixels.SetNonFinite(random() % pixels.size(), nonfinite == 2, a.pixels);
  } else if (nonfinite) {
    d_output.SetNonFinite(random() % d_output.size(), nonfinite == 2, a.d_output);
  }
  a.output.resize(output.size());
  a.d_w_qk.resize(square);
  a.d_w_v.resize(table);
  Naive(p, a);

  DeviceArray device_pixels(pixels.bytes), device_w_qk(w_qk.bytes);
  DeviceArray device_w_v(w_v.bytes), device_output(output.bytes);
  DeviceArray device_d_output(d_output.bytes), device_workspace(workspace.bytes);
  DeviceArray device_d_w_qk(w_qk.bytes), device_d_w_v(w_v.bytes);
  device_output.Poison();
  const char* error = sasa::CudaStemForward(p,
                                            {.pixels = device_pixels.data(),
                                             .w_qk = device_w_qk.floats(),
                                             .w_v = device_w_v.floats(),
                                             .output = device_output.data()},
                                            nullptr);
  if (error != nullptr) return std::puts(error), false;
  bool within = device_output.CopyTo(output.bytes);
  const double tolerance = p.type == single ? 2e-5 : p.type == DType::kFloat16 ? 4e-3 : 2e-2;
  bool same = Agrees("output", output, a.output, tolerance);

  std::vector<char> before;
  for (int run = 0; run < 2; ++run) {
    device_d_w_qk.Poison();
    device_d_w_v.Poison();
    device_workspace.Poison();
    error = sasa::CudaStemBackward(p,
                                   {.pixels = device_pixels.data(),
                                    .w_qk = device_w_qk.floats(),
                                    .w_v = device_w_v.floats(),
                                    .d_output = device_d_output.data(),
                                    .d_w_qk = device_d_w_qk.floats(),
                                    .d_w_v = device_d_w_v.floats(),
                                    .workspace = device_workspace.floats()},
                                   nullptr);
    if (error != nullptr) return std::puts(error), false;
    within &= device_d_w_qk.CopyTo(d_w_qk.bytes);
    within &= device_d_w_v.CopyTo(d_w_v.bytes);
    std::vector<char> bytes = d_w_qk.bytes;
    bytes.insert(bytes.end(), d_w_v.bytes.begin(), d_w_v.bytes.end());
    if (run == 1 && bytes != before) {
      std::puts("the gradients depend on the order of the threads");
      same = false;
    }
    before = bytes;
  }
  within &= device_workspace.CopyTo(workspace.bytes);
  if (!within) {
    std::puts("memory before an array was written");
    same = false;
  }
  // d_w_qk may be nothing but cancellation error, so it is compared relative to d_w_v.
  double largest = 1;
  for (double x : a.d_w_v) largest = std::fmax(largest, std::fabs(x));
  same &= Agrees("d_w_qk", d_w_qk, a.d_w_qk, tolerance, largest);
  same &= Agrees("d_w_v", d_w_v, a.d_w_v, tolerance);
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of stem attention", kSettings, Random, Check, Print);
}
