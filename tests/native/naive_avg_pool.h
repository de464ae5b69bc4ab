// Average pooling of the output, in double precision.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_AVG_POOL_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_AVG_POOL_H_

#include <cstdint>
#include <vector>

#include "local_attention.h"

inline std::vector<double> NaiveAvgPool(const sasa::LocalAttentionProblem& p,
                                        const std::vector<double>& output) {
  const int64_t channels = p.heads * p.head_dim;
  const int64_t height = p.height / p.pool_size, width = p.width / p.pool_size;
  std::vector<double> pooled(p.batch * height * width * channels);
  for (size_t i = 0; i < output.size(); ++i) {
    const int64_t pixel = i / channels, column = pixel % p.width, row = pixel / p.width % p.height;
    const int64_t image = pixel / p.width / p.height;
    const int64_t to = (image * height + row / p.pool_size) * width + column / p.pool_size;
    pooled[to * channels + i % channels] += output[i] / (p.pool_size * p.pool_size);
  }
  return pooled;
}

// Returns the gradient of the output from that of the pooled output.
inline std::vector<double> NaiveAvgPoolGradient(const sasa::LocalAttentionProblem& p,
                                                const std::vector<double>& d_pooled) {
  std::vector<double> d_output;
  const int64_t channels = p.heads * p.head_dim;
  const int64_t height = p.height / p.pool_size, width = p.width / p.pool_size;
  for (int64_t i = 0; i < p.batch * p.height * p.width; ++i) {
    const int64_t column = i % p.width, row = i / p.width % p.height;
    const int64_t image = i / p.width / p.height;
    const int64_t from = (image * height + row / p.pool_size) * width + column / p.pool_size;
    for (int64_t c = 0; c < channels; ++c) {
      d_output.push_back(d_pooled[from * channels + c] / (p.pool_size * p.pool_size));
    }
  }
  return d_output;
}

#endif  // SASA_TF_TESTS_NATIVE_NAIVE_AVG_POOL_H_
