// Compares the CPU kernels of stem attention with nested loops in double precision on random
// problems, like check_cpu_kernels.cc.
#include <algorithm>
#include <cstdlib>

#include "checks.h"
#include "cpu/stem_attention.h"
#include "naive_stem_attention.h"

namespace {

using sasa::StemProblem;

bool Check(const StemProblem& p, std::mt19937& random) {
  const auto single = sasa::DType::kFloat32;
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
  a.output.resize(output.size());
  a.d_w_qk.resize(square);
  a.d_w_v.resize(table);
  Naive(p, a);

  int64_t threads = 1;
  const sasa::ParallelFor parallel_for{RunInThreads, &threads};
  const auto floats = [](Typed& array) { return static_cast<float*>(array.data()); };
  const char* error = sasa::CpuStemForward(
      p,
      {.pixels = pixels.data(), .w_qk = floats(w_qk), .w_v = floats(w_v), .output = output.data()},
      parallel_for);
  if (error != nullptr) return std::puts(error), false;
  const double tolerance = p.type == single ? 2e-5 : p.type == sasa::DType::kFloat16 ? 2e-3 : 1e-2;
  bool same = Same("output", output, a.output, tolerance);
  std::vector<char> before;
  for (threads = 3; threads > 0; threads -= 2) {
    error = sasa::CpuStemBackward(p,
                                  {.pixels = pixels.data(),
                                   .w_qk = floats(w_qk),
                                   .w_v = floats(w_v),
                                   .d_output = d_output.data(),
                                   .d_w_qk = floats(d_w_qk),
                                   .d_w_v = floats(d_w_v),
                                   .workspace = floats(workspace)},
                                  parallel_for);
    if (error != nullptr) return std::puts(error), false;
    std::vector<char> bytes = d_w_qk.bytes;
    bytes.insert(bytes.end(), d_w_v.bytes.begin(), d_w_v.bytes.end());
    if (threads == 1 && bytes != before) {
      std::puts("the gradients depend on the number of threads");
      same = false;
    }
    before = bytes;
  }
  same &= Same("d_w_qk", d_w_qk, a.d_w_qk, 1e-4);
  same &= Same("d_w_v", d_w_v, a.d_w_v, 1e-4);
  if (!same) Print(p);
  return same;
}

StemProblem Random(std::mt19937& random) {
  const auto up_to = [&](int limit) { return 1 + int(random() % limit); };
  StemProblem p = {};
  p.batch = up_to(2);
  p.height = up_to(random() % 4 == 0 ? 70 : 18);
  p.width = up_to(18);
  p.channels = up_to(4);
  p.block_rows = up_to(8);
  p.block_columns = up_to(8);
  p.heads = up_to(3);
  p.head_dim = random() % 8 == 0 ? up_to(128) : up_to(17);
  p.type = static_cast<sasa::DType>(random() % 3);
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  return RunChecks(argc, argv, "of stem attention",
                   [](std::mt19937& random) { return Check(Random(random), random); });
}
