#include "cpu/avg_pool.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/element_types.h"

namespace sasa {
namespace {

// Calls `visit` for each pixel of the images with the first number of its outputs, and that of
// their mean.
template <typename Visit>
void ForEachPixel(const LocalAttentionProblem& p, Visit visit) {
  const int64_t numbers = p.heads * p.head_dim, height = p.height / p.pool_size,
                width = p.width / p.pool_size;
  int64_t output = 0;
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t y = 0; y < p.height; ++y) {
      for (int64_t x = 0; x < p.width; ++x, output += numbers) {
        visit(output, ((image * height + y / p.pool_size) * width + x / p.pool_size) * numbers);
      }
    }
  }
}

}  // namespace

void WriteMeans(const LocalAttentionProblem& p, const void* outputs, void* means) {
  const int64_t numbers = p.heads * p.head_dim;
  const float share = 1.f / (p.pool_size * p.pool_size);
  WithNumbers(p.type, [&](auto type) {
    using Number = decltype(type);
    const auto* from = static_cast<const typename Number::Stored*>(outputs);
    auto* to = static_cast<typename Number::Stored*>(means);
    std::vector<float> sums(p.batch * (p.height / p.pool_size) * (p.width / p.pool_size) * numbers);
    ForEachPixel(p, [&](int64_t output, int64_t mean) {
      for (int64_t i = 0; i < numbers; ++i) sums[mean + i] += Number::Load(from[output + i]);
    });
    for (size_t i = 0; i < sums.size(); ++i) to[i] = Number::Round(sums[i] * share);
  });
}

std::vector<char> GradientOfOutputs(const LocalAttentionProblem& p, const void* of_means) {
  const int64_t numbers = p.heads * p.head_dim;
  const float share = 1.f / (p.pool_size * p.pool_size);
  std::vector<char> gradient(p.batch * p.height * p.width * numbers *
                             (p.type == DType::kFloat32 ? 4 : 2));
  WithNumbers(p.type, [&](auto type) {
    using Number = decltype(type);
    const auto* from = static_cast<const typename Number::Stored*>(of_means);
    auto* to = reinterpret_cast<typename Number::Stored*>(gradient.data());
    ForEachPixel(p, [&](int64_t output, int64_t mean) {
      for (int64_t i = 0; i < numbers; ++i) {
        to[output + i] = Number::Round(Number::Load(from[mean + i]) * share);
      }
    });
  });
  return gradient;
}

}  // namespace sasa
