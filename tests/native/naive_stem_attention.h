// Attention inside of blocks by nested loops in double precision, which the kernels are compared
// with.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_PIXELS_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_PIXELS_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "stem_kernels.h"

// In double precision, as the kernels have them.
struct PixelArrays {
  std::vector<double> pixels, similarity, values, output, upstream;
  std::vector<double> similarity_gradient, values_gradient;
};

inline void Naive(const sasa::StemProblem& p, PixelArrays& a) {
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
            return ((place * p.channels + c) * p.heads + n) * p.head_dim + d;
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
              for (int64_t d = 0; d < p.head_dim; ++d) {
                const double x = a.pixels[key * p.channels + c], v = a.values[value(q, c, d)];
                const int64_t out = (own * p.heads + n) * p.head_dim + d;
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

inline void Print(const sasa::StemProblem& p) {
  std::printf("[%ld, %ld, %ld, %ld] block %ld x %ld, %ld heads %ld wide, type %d\n", long(p.batch),
              long(p.height), long(p.width), long(p.channels), long(p.block_rows),
              long(p.block_columns), long(p.heads), long(p.head_dim), int(p.type));
}

#endif  // SASA_TF_TESTS_NATIVE_NAIVE_PIXELS_H_
