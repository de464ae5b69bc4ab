// Compares the CPU kernels of local attention with nested loops in double precision on random
// problems. The gradients must be bitwise equal for any number of threads. Exits with status 1 at
// the first difference. `make sanitize` runs this under the sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "checks.h"
#include "cpu/attention.h"
#include "naive_attention.h"
#include "naive_avg_pool.h"

namespace {

using sasa::LocalAttentionProblem;

bool Check(const LocalAttentionProblem& p, std::mt19937& random) {
  const auto single = sasa::DType::kFloat32;
  const int64_t size = p.batch * p.height * p.width * p.heads * p.head_dim, half = p.head_dim / 2;
  const int64_t row_size = p.has_relative ? p.kernel_rows * half : 0;
  const int64_t column_size = p.has_relative ? p.kernel_columns * half : 0;
  const int64_t key_size = p.has_key ? size : 0;
  Typed query(p.type, size), key(p.type, key_size), value(p.type, size);
  Typed upstream(p.type, size / (p.pool_size * p.pool_size)), pooled = upstream;
  Typed rows(single, row_size), columns(single, column_size);
  Typed output(p.type, size), log_sum(single, size / p.head_dim);
  Arrays a;
  query.Fill(random, a.query);
  key.Fill(random, a.key);
  value.Fill(random, a.value);
  upstream.Fill(random, a.d_output);
  if (p.pool_size > 1) a.d_output = NaiveAvgPoolGradient(p, a.d_output);
  rows.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  a.output.resize(size);
  a.lse.resize(size / p.head_dim);
  a.d_query.resize(size);
  a.d_key.resize(key_size);
  a.d_value.resize(size);
  a.d_rows.resize(row_size);
  a.d_columns.resize(column_size);
  Naive(p, a);

  int64_t threads = 1;
  const sasa::ParallelFor parallel_for{RunInThreads, &threads};
  const auto floats = [](Typed& array) { return static_cast<float*>(array.data()); };
  const char* error = sasa::CpuForward(p,
                                       {.query = query.data(),
                                        .key = key.data(),
                                        .value = value.data(),
                                        .relative_rows = floats(rows),
                                        .relative_columns = floats(columns),
                                        .output = output.data(),
                                        .lse = floats(log_sum),
                                        .pooled_output = pooled.data()},
                                       parallel_for);
  if (error != nullptr) return std::puts(error), false;
  const double tolerance = p.type == single ? 2e-5 : p.type == sasa::DType::kFloat16 ? 2e-3 : 1e-2;
  bool same =
      Same("output", output, a.output, tolerance) & Same("log_sum", log_sum, a.lse, 1e-5);
  if (p.pool_size > 1) same &= Same("pooled", pooled, NaiveAvgPool(p, a.output), tolerance);

  Typed query_gradient(p.type, size), key_gradient(p.type, key_size), value_gradient(p.type, size);
  Typed rows_gradient(single, row_size), columns_gradient(single, column_size);
  Typed workspace(single, sasa::WorkspaceFloats(p));
  std::vector<char> before;
  for (threads = 3; threads > 0; threads -= 2) {
    error = sasa::CpuBackward(p,
                              {.query = query.data(),
                               .key = key.data(),
                               .value = value.data(),
                               .relative_rows = floats(rows),
                               .relative_columns = floats(columns),
                               .output = output.data(),
                               .lse = floats(log_sum),
                               .d_output = upstream.data(),
                               .d_query = query_gradient.data(),
                               .d_key = key_gradient.data(),
                               .d_value = value_gradient.data(),
                               .d_relative_rows = floats(rows_gradient),
                               .d_relative_columns = floats(columns_gradient),
                               .workspace = floats(workspace)},
                              parallel_for);
    if (error != nullptr) return std::puts(error), false;
    std::vector<char> bytes;
    for (const Typed* array :
         {&query_gradient, &key_gradient, &value_gradient, &rows_gradient, &columns_gradient}) {
      bytes.insert(bytes.end(), array->bytes.begin(), array->bytes.end());
    }
    if (threads == 1 && bytes != before) {
      std::puts("the gradients depend on the number of threads");
      same = false;
    }
    before = bytes;
  }

  // The results are bitwise equal if query, key and value are packed in one array.
  LocalAttentionProblem packed = p;
  packed.qkv_parts = p.has_key ? 3 : 2;
  const int64_t part = p.heads * p.head_dim * (query.bytes.size() / size);
  const auto parts = [&](Typed& q, Typed& k, Typed& v) {
    return p.has_key ? Packed(p, {&q, &k, &v}) : Packed(p, {&q, &v});
  };
  Typed joined = parts(query, key, value);
  Typed gradients = parts(query_gradient, key_gradient, value_gradient), found = gradients;
  std::fill(found.bytes.begin(), found.bytes.end(), 1);
  Typed joined_output(p.type, size), joined_log_sum(single, size / p.head_dim);
  threads = 3;
  const char* key_part = joined.bytes.data() + part;
  const char* value_part = joined.bytes.data() + (packed.qkv_parts - 1) * part;
  const sasa::ForwardArrays forward = {
      .query = joined.data(),
      .key = key_part,
      .value = value_part,
      .relative_rows = floats(rows),
      .relative_columns = floats(columns),
      .output = joined_output.data(),
      .lse = floats(joined_log_sum),
      .pooled_output = pooled.data(),
  };
  error = sasa::CpuForward(packed, forward, parallel_for);
  if (error != nullptr) return std::puts(error), false;
  // Inference: without what only the backward pass reads.
  Typed inferred_output(p.type, size), inferred_pooled = pooled;
  std::fill(inferred_pooled.bytes.begin(), inferred_pooled.bytes.end(), 1);
  sasa::ForwardArrays inference = forward;
  inference.output = p.pool_size > 1 ? nullptr : inferred_output.data();
  inference.lse = nullptr;
  inference.pooled_output = inferred_pooled.data();
  error = sasa::CpuForward(packed, inference, parallel_for);
  if (error != nullptr) return std::puts(error), false;
  if (p.pool_size > 1 ? inferred_pooled.bytes != pooled.bytes
                      : inferred_output.bytes != joined_output.bytes) {
    std::puts("the output without the arrays of the backward pass differs");
    same = false;
  }
  error = sasa::CpuBackward(packed,
                            {.query = joined.data(),
                             .key = key_part,
                             .value = value_part,
                             .relative_rows = floats(rows),
                             .relative_columns = floats(columns),
                             .output = output.data(),
                             .lse = floats(log_sum),
                             .d_output = upstream.data(),
                             .d_query = found.data(),
                             .d_key = found.bytes.data() + part,
                             .d_value = found.bytes.data() + (packed.qkv_parts - 1) * part,
                             .d_relative_rows = floats(rows_gradient),
                             .d_relative_columns = floats(columns_gradient),
                             .workspace = floats(workspace)},
                            parallel_for);
  if (error != nullptr) return std::puts(error), false;
  if (joined_output.bytes != output.bytes || found.bytes != gradients.bytes) {
    std::puts("packed arrays give other results");
    same = false;
  }
  same &= Same("query_gradient", query_gradient, a.d_query, tolerance);
  same &= Same("key_gradient", key_gradient, a.d_key, tolerance);
  same &= Same("value_gradient", value_gradient, a.d_value, tolerance);
  // With one row, the gradient of its table is only rounding error: compare it relative to both.
  double largest = 1;
  for (double x : a.d_rows) largest = std::fmax(largest, std::fabs(x));
  for (double x : a.d_columns) largest = std::fmax(largest, std::fabs(x));
  same &= Same("rows_gradient", rows_gradient, a.d_rows, tolerance, largest);
  same &= Same("columns_gradient", columns_gradient, a.d_columns, tolerance, largest);
  if (!same) Print(p);
  return same;
}

LocalAttentionProblem Random(std::mt19937& random) {
  const auto up_to = [&](int limit) { return 1 + int(random() % limit); };
  LocalAttentionProblem p = {};
  p.batch = up_to(2);
  p.height = up_to(random() % 4 == 0 ? 40 : 12);
  p.width = up_to(random() % 4 == 0 ? 70 : 18);
  p.heads = up_to(3);
  p.head_dim = random() % 8 == 0 ? up_to(128) : up_to(17);
  p.pool_size = p.height % 2 == 0 && p.width % 2 == 0 && random() % 2 ? 2 : 1;
  p.kernel_rows = 2 * up_to(6) - 1;
  p.kernel_columns = 2 * up_to(6) - 1;
  p.dilation_rows = random() % 3 ? 1 : up_to(4);
  p.dilation_columns = random() % 3 ? 1 : up_to(4);
  p.mask_border = random() % 2;
  p.has_relative = p.head_dim % 2 == 0 && random() % 4;
  p.has_key = !p.has_relative || random() % 4;
  p.scale = random() % 2 ? 1.0f : 0.5f;
  p.qkv_parts = 1;
  p.type = static_cast<sasa::DType>(random() % 3);
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  return RunChecks(argc, argv, "of local attention",
                   [](std::mt19937& random) { return Check(Random(random), random); });
}
