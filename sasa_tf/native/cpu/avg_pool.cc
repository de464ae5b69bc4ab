#include "cpu/avg_pool.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/element_types.h"

namespace sasa {
namespace {

// Calls visit(output index, pooled index) for each pixel, with the indices of its first channel.
template <typename Visit>
void ForEachPixel(const LocalAttentionProblem& p, Visit visit) {
  const int64_t channels = p.heads * p.head_dim, height = p.height / p.pool_size,
                width = p.width / p.pool_size;
  int64_t output = 0;
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t y = 0; y < p.height; ++y) {
      for (int64_t x = 0; x < p.width; ++x, output += channels) {
        visit(output, ((image * height + y / p.pool_size) * width + x / p.pool_size) * channels);
      }
    }
  }
}

}  // namespace

void AvgPoolOutput(const LocalAttentionProblem& p, const void* output, void* pooled) {
  const int64_t channels = p.heads * p.head_dim;
  const float scale = 1.f / (p.pool_size * p.pool_size);
  DispatchDType(p.type, [&](auto type) {
    using Element = decltype(type);
    const auto* from = static_cast<const typename Element::Stored*>(output);
    auto* to = static_cast<typename Element::Stored*>(pooled);
    std::vector<float> sums(p.batch * (p.height / p.pool_size) * (p.width / p.pool_size) *
                            channels);
    ForEachPixel(p, [&](int64_t i, int64_t j) {
      for (int64_t c = 0; c < channels; ++c) sums[j + c] += Element::Load(from[i + c]);
    });
    for (size_t i = 0; i < sums.size(); ++i) to[i] = Element::Round(sums[i] * scale);
  });
}

std::vector<char> AvgPoolGradient(const LocalAttentionProblem& p, const void* d_pooled) {
  const int64_t channels = p.heads * p.head_dim;
  const float scale = 1.f / (p.pool_size * p.pool_size);
  std::vector<char> gradient(p.batch * p.height * p.width * channels *
                             (p.type == DType::kFloat32 ? 4 : 2));
  DispatchDType(p.type, [&](auto type) {
    using Element = decltype(type);
    const auto* from = static_cast<const typename Element::Stored*>(d_pooled);
    auto* to = reinterpret_cast<typename Element::Stored*>(gradient.data());
    ForEachPixel(p, [&](int64_t i, int64_t j) {
      for (int64_t c = 0; c < channels; ++c) {
        to[i + c] = Element::Round(Element::Load(from[j + c]) * scale);
      }
    });
  });
  return gradient;
}

}  // namespace sasa
