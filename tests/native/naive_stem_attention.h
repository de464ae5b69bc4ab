// Stem attention by nested loops in double precision, the reference for the kernels.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_STEM_ATTENTION_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_STEM_ATTENTION_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "stem_kernels.h"

// The arrays of the kernels, in double precision.
struct NaiveStemArrays {
  std::vector<double> pixels, w_qk, w_v, output, d_output;
  std::vector<double> d_w_qk, d_w_v;
};

inline void Naive(const sasa::StemProblem& p, NaiveStemArrays& a) {
  const int64_t positions = p.block_rows * p.block_columns;
  const auto before = [](int64_t size, int64_t block) {
    return ((size + block - 1) / block * block - size) / 2;
  };
  const int64_t pad_top = before(p.height, p.block_rows),
                pad_left = before(p.width, p.block_columns);
  std::vector<double> probabilities(positions), dp(positions);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t y = 0; y < p.height; ++y)
      for (int64_t x = 0; x < p.width; ++x)
        for (int64_t n = 0; n < p.heads; ++n) {
          const int64_t own = (b * p.height + y) * p.width + x;
          const int64_t top = (y + pad_top) / p.block_rows * p.block_rows - pad_top;
          const int64_t first = (x + pad_left) / p.block_columns * p.block_columns - pad_left;
          const auto pixel = [&](int64_t position) -> int64_t {
            const int64_t row = top + position / p.block_columns,
                          column = first + position % p.block_columns;
            const bool inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
            return inside ? (b * p.height + row) * p.width + column : -1;
          };
          const auto w_qk_index = [&](int64_t c, int64_t e) {
            return (n * p.channels + c) * p.channels + e;
          };
          const auto w_v_index = [&](int64_t position, int64_t c, int64_t d) {
            return ((position * p.channels + c) * p.heads + n) * p.head_dim + d;
          };
          double max_logit = -INFINITY, sum = 0, delta = 0;
          for (int64_t q = 0; q < positions; ++q) {
            const int64_t key = pixel(q);
            probabilities[q] = key < 0 ? -INFINITY : 0;
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t e = 0; e < p.channels; ++e)
                probabilities[q] += a.pixels[own * p.channels + c] * a.w_qk[w_qk_index(c, e)] *
                                    a.pixels[key * p.channels + e];
            max_logit = std::fmax(max_logit, probabilities[q]);
          }
          for (double& p_key : probabilities) sum += p_key = std::exp(p_key - max_logit);
          for (int64_t q = 0; q < positions; ++q) {
            const int64_t key = pixel(q);
            probabilities[q] /= sum;
            dp[q] = 0;
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t d = 0; d < p.head_dim; ++d) {
                const double x = a.pixels[key * p.channels + c], v = a.w_v[w_v_index(q, c, d)];
                const int64_t out = (own * p.heads + n) * p.head_dim + d;
                a.output[out] += probabilities[q] * x * v;
                a.d_w_v[w_v_index(q, c, d)] += probabilities[q] * x * a.d_output[out];
                dp[q] += x * v * a.d_output[out];
              }
            delta += probabilities[q] * dp[q];
          }
          for (int64_t q = 0; q < positions; ++q) {
            const int64_t key = pixel(q);
            for (int64_t c = 0; key >= 0 && c < p.channels; ++c)
              for (int64_t e = 0; e < p.channels; ++e)
                a.d_w_qk[w_qk_index(c, e)] += probabilities[q] * (dp[q] - delta) *
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

#endif  // SASA_TF_TESTS_NATIVE_NAIVE_STEM_ATTENTION_H_
