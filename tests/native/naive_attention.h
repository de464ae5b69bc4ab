// Local attention by loops in double precision, the reference of the kernels' tests.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_ATTENTION_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_ATTENTION_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "checks.h"
#include "local_attention.h"

// Arrays in double precision, with the kernels' shapes.
struct Arrays {
  std::vector<double> query, key, value, rows, columns, output, lse, d_output;
  std::vector<double> d_query, d_key, d_value, d_rows, d_columns;
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
          const auto neighbor = [&](int64_t w) -> int64_t {
            const int64_t ky = y + (w / p.kernel_columns - p.kernel_rows / 2) * p.dilation_rows;
            const int64_t kx =
                x + (w % p.kernel_columns - p.kernel_columns / 2) * p.dilation_columns;
            const bool inside = ky >= 0 && ky < p.height && kx >= 0 && kx < p.width;
            return inside ? at(b, ky, kx, n) : -1;
          };
          double max = -INFINITY, sum = 0, delta = 0;
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbor(w), r = w / p.kernel_columns, c = w % p.kernel_columns;
            logits[w] = k < 0 && p.mask_border ? -INFINITY : 0;
            for (int64_t d = 0; d < depth; ++d) {
              const double scaled = p.scale * a.query[q + d];
              if (p.has_key && k >= 0) logits[w] += scaled * a.key[k + d];
              if (p.has_relative) {
                logits[w] +=
                    scaled * (d < half ? a.rows[r * half + d] : a.columns[c * half + d - half]);
              }
            }
            max = std::fmax(max, logits[w]);
          }
          for (int64_t w = 0; w < window; ++w) sum += std::exp(logits[w] - max);
          a.lse[q / depth] = max + std::log(sum);
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbor(w);
            weights[w] = std::exp(logits[w] - max) / sum;
            products[w] = 0;
            for (int64_t d = 0; k >= 0 && d < depth; ++d) {
              a.output[q + d] += weights[w] * a.value[k + d];
              a.d_value[k + d] += weights[w] * a.d_output[q + d];
              products[w] += a.d_output[q + d] * a.value[k + d];
            }
            delta += weights[w] * products[w];
          }
          for (int64_t w = 0; w < window; ++w) {
            const int64_t k = neighbor(w), r = w / p.kernel_columns, c = w % p.kernel_columns;
            const double gradient = weights[w] * (products[w] - delta) * p.scale;
            for (int64_t d = 0; d < depth; ++d) {
              if (p.has_key && k >= 0) {
                a.d_query[q + d] += gradient * a.key[k + d];
                a.d_key[k + d] += gradient * a.query[q + d];
              }
              if (p.has_relative) {
                const int64_t i = d < half ? r * half + d : c * half + d - half;
                a.d_query[q + d] += gradient * (d < half ? a.rows : a.columns)[i];
                (d < half ? a.d_rows : a.d_columns)[i] += gradient * a.query[q + d];
              }
            }
          }
        }
}

// Packs arrays [B, H, W, N, D] in one array [B, H, W, parts, N, D].
inline Typed Packed(const sasa::LocalAttentionProblem& p, const std::vector<const Typed*>& arrays) {
  const int64_t pixels = p.batch * p.height * p.width;
  Typed packed(p.type, pixels * p.heads * p.head_dim * arrays.size());
  const int64_t bytes = packed.bytes.size() / arrays.size() / pixels;
  char* to = packed.bytes.data();
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (const Typed* array : arrays) {
      std::memcpy(to, array->bytes.data() + pixel * bytes, bytes);
      to += bytes;
    }
  }
  return packed;
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
