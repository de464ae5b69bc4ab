// Compares the CUDA kernels of attention inside of blocks, on an emulated or a real GPU, with
// nested loops in double precision, over ragged problems; random_problems.h has the command line.
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
    {"type", [](StemProblem& p, int x) { p.type = static_cast<DType>(x); }},
};

StemProblem Random(std::mt19937& random, const Settings& settings) {
  const auto upto = [&](int most) { return 1 + int(random() % most); };
  const auto side = [&] { return upto(random() % 4 == 0 ? 40 : 14); };
  StemProblem p = {};
  p.batch = upto(3);
  p.height = side();
  p.width = random() % 8 == 0 ? upto(150) : side();
  p.channels = upto(4);
  p.heads = upto(5);
  if (random() % 4) {
    // The tensor cores'.
    p.block_rows = p.block_columns = 4;
    p.head_dim = 16;
    p.type = random() % 2 ? DType::kBfloat16 : DType::kFloat16;
  } else {
    p.block_rows = upto(8);
    p.block_columns = upto(8);
    p.head_dim = upto(random() % 8 == 0 ? 128 : 40);
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
  Typed pixels(p.type, pixel_count * p.channels), similarity(single, square), values(single, table);
  Typed output(p.type, pixel_count * filters), upstream(p.type, pixel_count * filters);
  Typed similarity_gradient(single, square), values_gradient(single, table);
  Typed scratch(single, sasa::StemWorkspaceFloats(p));
  PixelArrays a;
  pixels.Fill(random, a.pixels);
  similarity.Fill(random, a.similarity);
  values.Fill(random, a.values);
  upstream.Fill(random, a.upstream);
  a.output.resize(output.size());
  a.similarity_gradient.resize(square);
  a.values_gradient.resize(table);
  Naive(p, a);

  DeviceArray device_pixels(pixels.bytes), device_similarity(similarity.bytes);
  DeviceArray device_values(values.bytes), device_output(output.bytes);
  DeviceArray device_upstream(upstream.bytes), device_scratch(scratch.bytes);
  DeviceArray device_similarity_gradient(similarity.bytes), device_values_gradient(values.bytes);
  device_output.Poison();
  const char* error = sasa::CudaStemForward(p,
                                            {device_pixels.data(), device_similarity.floats(),
                                             device_values.floats(), device_output.data()},
                                            nullptr);
  if (error != nullptr) return std::puts(error), false;
  bool within = device_output.CopyTo(output.bytes);
  const double tolerance = p.type == single ? 2e-5 : p.type == DType::kFloat16 ? 4e-3 : 2e-2;
  bool same = Same("output", output, a.output, tolerance);

  std::vector<char> before;
  for (int turn = 0; turn < 2; ++turn) {
    device_similarity_gradient.Poison();
    device_values_gradient.Poison();
    device_scratch.Poison();
    error = sasa::CudaStemBackward(
        p,
        {device_pixels.data(), device_similarity.floats(), device_values.floats(),
         device_upstream.data(), device_similarity_gradient.floats(),
         device_values_gradient.floats(), device_scratch.floats()},
        nullptr);
    if (error != nullptr) return std::puts(error), false;
    within &= device_similarity_gradient.CopyTo(similarity_gradient.bytes);
    within &= device_values_gradient.CopyTo(values_gradient.bytes);
    std::vector<char> bytes = similarity_gradient.bytes;
    bytes.insert(bytes.end(), values_gradient.bytes.begin(), values_gradient.bytes.end());
    if (turn == 1 && bytes != before) {
      std::puts("the gradients depend on the order of threads");
      same = false;
    }
    before = bytes;
  }
  within &= device_scratch.CopyTo(scratch.bytes);
  if (!within) {
    std::puts("something was written before an array");
    same = false;
  }
  // The similarity's gradient may be nothing but cancellation.
  double most = 1;
  for (double x : a.values_gradient) most = std::fmax(most, std::fabs(x));
  same &= Same("similarity_gradient", similarity_gradient, a.similarity_gradient, tolerance, most);
  same &= Same("values_gradient", values_gradient, a.values_gradient, tolerance);
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "inside of blocks", kSettings, Random, Check, Print);
}
