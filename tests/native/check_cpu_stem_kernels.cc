// Compares the processor's kernels of attention inside of blocks with nested loops in double
// precision, over ragged problems, as check_cpu_kernels.cc does for local attention.
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

  int64_t threads = 1;
  const sasa::ParallelFor tasks{RunInThreads, &threads};
  const auto floats = [](Typed& array) { return static_cast<float*>(array.data()); };
  const char* error = sasa::CpuStemForward(
      p, {pixels.data(), floats(similarity), floats(values), output.data()}, tasks);
  if (error != nullptr) return std::puts(error), false;
  const double tolerance = p.type == single ? 2e-5 : p.type == sasa::DType::kFloat16 ? 2e-3 : 1e-2;
  bool same = Same("output", output, a.output, tolerance);
  std::vector<char> before;
  for (threads = 3; threads > 0; threads -= 2) {
    error = sasa::CpuStemBackward(
        p,
        {pixels.data(), floats(similarity), floats(values), upstream.data(),
         floats(similarity_gradient), floats(values_gradient), floats(scratch)},
        tasks);
    if (error != nullptr) return std::puts(error), false;
    std::vector<char> bytes = similarity_gradient.bytes;
    bytes.insert(bytes.end(), values_gradient.bytes.begin(), values_gradient.bytes.end());
    if (threads == 1 && bytes != before) {
      std::puts("the gradients depend on the number of threads");
      same = false;
    }
    before = bytes;
  }
  same &= Same("similarity_gradient", similarity_gradient, a.similarity_gradient, 1e-4);
  same &= Same("values_gradient", values_gradient, a.values_gradient, 1e-4);
  if (!same) Print(p);
  return same;
}

StemProblem Random(std::mt19937& random) {
  const auto upto = [&](int most) { return 1 + int(random() % most); };
  StemProblem p = {};
  p.batch = upto(2);
  p.height = upto(random() % 4 == 0 ? 70 : 18);
  p.width = upto(18);
  p.channels = upto(4);
  p.block_rows = upto(8);
  p.block_columns = upto(8);
  p.heads = upto(3);
  p.head_dim = random() % 8 == 0 ? upto(128) : upto(17);
  p.type = static_cast<sasa::DType>(random() % 3);
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  return RunChecks(argc, argv, "inside of blocks",
                   [](std::mt19937& random) { return Check(Random(random), random); });
}
