// Compares the processor's kernels of attention inside of blocks with nested loops in double
// precision, over ragged problems, as check_cpu_kernels.cc does for local attention.
#include <algorithm>
#include <cstdlib>

#include "checks.h"
#include "cpu_pixel_blocks.h"

namespace {

using sasa::PixelProblem;

// In double precision, as the kernels have them.
struct Arrays {
  std::vector<double> pixels, similarity, values, output, upstream;
  std::vector<double> similarity_gradient, values_gradient;
};

void Naive(const PixelProblem& p, Arrays& a) {
  const int64_t places = p.block_rows * p.block_columns;
  const auto before = [](int64_t size, int64_t block) {
    return ((size + block - 1) / block * block - size) / 2;
  };
  const int64_t above = before(p.height, p.block_rows), left = before(p.width, p.block_columns);
  std::vector<double> weights(places), slopes(places);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t y = 0; y < p.height; ++y)
      for (int64_t x = 0; x < p.width; ++x)
        for (int64_t n = 0; n < p.heads; ++n) {
          const int64_t own = (b * p.height + y) * p.width + x;
          const int64_t top = (y + above) / p.block_rows * p.block_rows - above;
          const int64_t first = (x + left) / p.block_columns * p.block_columns - left;
          const auto pixel = [&](int64_t place) -> int64_t {
            const int64_t row = top + place / p.block_columns,
                          column = first + place % p.block_columns;
            const bool inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
            return inside ? (b * p.height + row) * p.width + column : -1;
          };
          const auto similarity = [&](int64_t c, int64_t e) {
            return (n * p.channels + c) * p.channels + e;
          };
          const auto value = [&](int64_t place, int64_t c, int64_t d) {
            return ((place * p.channels + c) * p.heads + n) * p.depth + d;
          };
          double most = -INFINITY, sum = 0, delta = 0;
          for (int64_t q = 0; q < places; ++q) {
            const int64_t key = pixel(q);
            weights[q] = key < 0 ? -INFINITY : 0;
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t e = 0; e < p.channels; ++e)
                weights[q] += a.pixels[own * p.channels + c] * a.similarity[similarity(c, e)] *
                              a.pixels[key * p.channels + e];
            most = std::fmax(most, weights[q]);
          }
          for (double& weight : weights) sum += weight = std::exp(weight - most);
          for (int64_t q = 0; q < places; ++q) {
            const int64_t key = pixel(q);
            weights[q] /= sum;
            slopes[q] = 0;
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t d = 0; d < p.depth; ++d) {
                const double x = a.pixels[key * p.channels + c], v = a.values[value(q, c, d)];
                const int64_t out = (own * p.heads + n) * p.depth + d;
                a.output[out] += weights[q] * x * v;
                a.values_gradient[value(q, c, d)] += weights[q] * x * a.upstream[out];
                slopes[q] += x * v * a.upstream[out];
              }
            delta += weights[q] * slopes[q];
          }
          for (int64_t q = 0; q < places; ++q) {
            const int64_t key = pixel(q);
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t e = 0; e < p.channels; ++e)
                a.similarity_gradient[similarity(c, e)] += weights[q] * (slopes[q] - delta) *
                                                           a.pixels[own * p.channels + c] *
                                                           a.pixels[key * p.channels + e];
          }
        }
}

bool Check(const PixelProblem& p, std::mt19937& random) {
  const auto single = sasa::Type::kFloat32;
  const int64_t pixel_count = p.batch * p.height * p.width, filters = p.heads * p.depth;
  const int64_t table = p.block_rows * p.block_columns * p.channels * filters;
  const int64_t square = p.heads * p.channels * p.channels;
  Typed pixels(p.type, pixel_count * p.channels), similarity(single, square), values(single, table);
  Typed output(p.type, pixel_count * filters), upstream(p.type, pixel_count * filters);
  Typed similarity_gradient(single, square), values_gradient(single, table);
  Typed scratch(single, sasa::PixelScratchFloats(p));
  Arrays a;
  pixels.Fill(random, a.pixels);
  similarity.Fill(random, a.similarity);
  values.Fill(random, a.values);
  upstream.Fill(random, a.upstream);
  a.output.resize(output.size());
  a.similarity_gradient.resize(square);
  a.values_gradient.resize(table);
  Naive(p, a);

  int64_t threads = 1;
  const sasa::Tasks tasks{RunInThreads, &threads};
  const auto floats = [](Typed& array) { return static_cast<float*>(array.data()); };
  const char* error = sasa::CpuPixelForward(
      p, {pixels.data(), floats(similarity), floats(values), output.data()}, tasks);
  if (error != nullptr) return std::puts(error), false;
  const double tolerance = p.type == single ? 2e-5 : p.type == sasa::Type::kFloat16 ? 2e-3 : 1e-2;
  bool same = Same("output", output, a.output, tolerance);
  std::vector<char> before;
  for (threads = 3; threads > 0; threads -= 2) {
    error = sasa::CpuPixelBackward(
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
  if (!same) {
    std::printf("[%ld, %ld, %ld, %ld] block %ld x %ld, %ld heads %ld wide, type %d\n",
                long(p.batch), long(p.height), long(p.width), long(p.channels), long(p.block_rows),
                long(p.block_columns), long(p.heads), long(p.depth), int(p.type));
  }
  return same;
}

PixelProblem Random(std::mt19937& random) {
  const auto upto = [&](int most) { return 1 + int(random() % most); };
  PixelProblem p = {};
  p.batch = upto(2);
  p.height = upto(random() % 4 == 0 ? 70 : 18);
  p.width = upto(18);
  p.channels = upto(4);
  p.block_rows = upto(8);
  p.block_columns = upto(8);
  p.heads = upto(3);
  p.depth = random() % 8 == 0 ? upto(128) : upto(17);
  p.type = static_cast<sasa::Type>(random() % 3);
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  return RunChecks(argc, argv, "inside of blocks",
                   [](std::mt19937& random) { return Check(Random(random), random); });
}
