// Means of outputs over blocks of pixels, in double precision.
#ifndef SASA_TF_TESTS_NATIVE_NAIVE_MEANS_H_
#define SASA_TF_TESTS_NATIVE_NAIVE_MEANS_H_

#include <cstdint>
#include <vector>

#include "local_attention.h"

inline std::vector<double> NaiveMeans(const sasa::LocalAttentionProblem& p,
                                      const std::vector<double>& outputs) {
  const int64_t numbers = p.heads * p.head_dim, height = p.height / p.pool_size,
                width = p.width / p.pool_size;
  std::vector<double> means(p.batch * height * width * numbers);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const int64_t pixel = i / numbers, column = pixel % p.width, row = pixel / p.width % p.height;
    const int64_t image = pixel / p.width / p.height;
    const int64_t mean = (image * height + row / p.pool_size) * width + column / p.pool_size;
    means[mean * numbers + i % numbers] += outputs[i] / (p.pool_size * p.pool_size);
  }
  return means;
}

// The gradient of the outputs, from that of their means.
inline std::vector<double> NaiveGradientOfOutputs(const sasa::LocalAttentionProblem& p,
                                                  const std::vector<double>& of_means) {
  std::vector<double> outputs;
  const int64_t numbers = p.heads * p.head_dim, height = p.height / p.pool_size,
                width = p.width / p.pool_size;
  for (int64_t i = 0; i < p.batch * p.height * p.width; ++i) {
    const int64_t column = i % p.width, row = i / p.width % p.height,
                  image = i / p.width / p.height;
    const int64_t mean = (image * height + row / p.pool_size) * width + column / p.pool_size;
    for (int64_t j = 0; j < numbers; ++j) {
      outputs.push_back(of_means[mean * numbers + j] / (p.pool_size * p.pool_size));
    }
  }
  return outputs;
}

#endif  // SASA_TF_TESTS_NATIVE_NAIVE_MEANS_H_
