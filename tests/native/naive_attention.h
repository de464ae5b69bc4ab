// Local attention by nested loops in double precision, which the kernels are compared with.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_ATTENTION_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_ATTENTION_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "checks.h"
#include "local_attention.h"

// In double precision, [B, H, W, N, D] and the tables as the kernels have them.
struct Arrays {
  std::vector<double> query, key, value, rows, columns, output, log_sum, upstream;
  std::vector<double> query_gradient, key_gradient, value_gradient, rows_gradient, columns_gradient;
};

inline void Naive(const sasa::LocalAttentionProblem& p, Arrays& a) {
  const int64_t depth = p.head_dim, half = depth / 2, window = p.kernel_rows * p.kernel_columns;
  const auto at = [&](int64_t b, int64_t y, int64_t x, int64_t n) {
    return (((b * p.height + y) * p.width + x) * p.heads + n) * depth;
  };
  std::vector<double> weights(window), products(window), logits(window);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t y = 0; y < p.height; ++y)
      for (int64_t x = 0; x < p.width; ++x)
        for (int64_t n = 0; n < p.heads; ++n) {
          const int64_t q = at(b, y, x, n);
          const auto neighbour = [&](int64_t w) -> int64_t {
            const int64_t ky = y + (w / p.kernel_columns - p.kernel_rows / 2) * p.dilation_rows;
            const int64_t kx =
                x + (w % p.kernel_columns - p.kernel_columns / 2) * p.dilation_columns;
            const bool inside = ky >= 0 && ky < p.height && kx >= 0 && kx < p.width;
            return inside ? at(b, ky, kx, n) : -1;
          };
          double most = -INFINITY, sum = 0, delta = 0;
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbour(w), r = w / p.kernel_columns, c = w % p.kernel_columns;
            logits[w] = k < 0 && p.mask_border ? -INFINITY : 0;
            for (int64_t d = 0; d < depth; ++d) {
              const double scaled = p.scale * a.query[q + d];
              if (p.has_key && k >= 0) logits[w] += scaled * a.key[k + d];
              if (p.has_relative) {
                logits[w] +=
                    scaled * (d < half ? a.rows[r * half + d] : a.columns[c * half + d - half]);
              }
            }
            most = std::fmax(most, logits[w]);
          }
          for (int64_t w = 0; w < window; ++w) sum += std::exp(logits[w] - most);
          a.log_sum[q / depth] = most + std::log(sum);
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbour(w);
            weights[w] = std::exp(logits[w] - most) / sum;
            products[w] = 0;
            for (int64_t d = 0; k >= 0 && d < depth; ++d) {
              a.output[q + d] += weights[w] * a.value[k + d];
              a.value_gradient[k + d] += weights[w] * a.upstream[q + d];
              products[w] += a.upstream[q + d] * a.value[k + d];
            }
            delta += weights[w] * products[w];
          }
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbour(w), r = w / p.kernel_columns, c = w % p.kernel_columns;
            const double gradient = weights[w] * (products[w] - delta) * p.scale;
            for (int64_t d = 0; d < depth; ++d) {
              if (p.has_key && k >= 0) {
                a.query_gradient[q + d] += gradient * a.key[k + d];
                a.key_gradient[k + d] += gradient * a.query[q + d];
              }
              if (p.has_relative) {
                const int64_t i = d < half ? r * half + d : c * half + d - half;
                a.query_gradient[q + d] += gradient * (d < half ? a.rows : a.columns)[i];
                (d < half ? a.rows_gradient : a.columns_gradient)[i] += gradient * a.query[q + d];
              }
            }
          }
        }
}

// The arrays of [B, H, W, N, D], pixel by pixel in one.
inline Typed Joined(const sasa::LocalAttentionProblem& p, const std::vector<const Typed*>& arrays) {
  const int64_t pixels = p.batch * p.height * p.width;
  Typed joined(p.type, pixels * p.heads * p.head_dim * arrays.size());
  const int64_t bytes = joined.bytes.size() / arrays.size() / pixels;
  char* to = joined.bytes.data();
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (const Typed* array : arrays) {
      std::memcpy(to, array->bytes.data() + pixel * bytes, bytes);
      to += bytes;
    }
  }
  return joined;
}

inline void Print(const sasa::LocalAttentionProblem& p) {
  std::printf(
      "[%ld, %ld, %ld, %ld, %ld] kernel %d x %d, dilation %d x %d, mask %d, key %d, "
      "relative %d, scale %g, parts %d, pool %d, type %d\n",
      long(p.batch), long(p.height), long(p.width), long(p.heads), long(p.head_dim), p.kernel_rows,
      p.kernel_columns, p.dilation_rows, p.dilation_columns, p.mask_border, p.has_key,
      p.has_relative, p.scale, p.qkv_parts, p.pool_size, int(p.type));
}

#endif  // SASA_TF_TESTS_NATIVE_NAIVE_ATTENTION_H_
