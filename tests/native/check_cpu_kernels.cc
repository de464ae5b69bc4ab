// Compares the processor's kernels with nested loops in double precision, over ragged problems.
// Backward results must have the same bits with any number of threads. Exits with 1 at the first
// difference; `make sanitize` runs it under the sanitizers.
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
  Typed upstream(p.type, size / (p.pool_size * p.pool_size)), means = upstream;
  Typed rows(single, row_size), columns(single, column_size);
  Typed output(p.type, size), log_sum(single, size / p.head_dim);
  Arrays a;
  query.Fill(random, a.query);
  key.Fill(random, a.key);
  value.Fill(random, a.value);
  upstream.Fill(random, a.upstream);
  if (p.pool_size > 1) a.upstream = NaiveGradientOfOutputs(p, a.upstream);
  rows.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  a.output.resize(size);
  a.log_sum.resize(size / p.head_dim);
  a.query_gradient.resize(size);
  a.key_gradient.resize(key_size);
  a.value_gradient.resize(size);
  a.rows_gradient.resize(row_size);
  a.columns_gradient.resize(column_size);
  Naive(p, a);

  int64_t threads = 1;
  const sasa::ParallelFor tasks{RunInThreads, &threads};
  const auto floats = [](Typed& array) { return static_cast<float*>(array.data()); };
  const char* error =
      sasa::CpuForward(p,
                       {query.data(), key.data(), value.data(), floats(rows), floats(columns),
                        output.data(), floats(log_sum), means.data()},
                       tasks);
  if (error != nullptr) return std::puts(error), false;
  const double tolerance = p.type == single ? 2e-5 : p.type == sasa::DType::kFloat16 ? 2e-3 : 1e-2;
  bool same =
      Same("output", output, a.output, tolerance) & Same("log_sum", log_sum, a.log_sum, 1e-5);
  if (p.pool_size > 1) same &= Same("means", means, NaiveMeans(p, a.output), tolerance);

  Typed query_gradient(p.type, size), key_gradient(p.type, key_size), value_gradient(p.type, size);
  Typed rows_gradient(single, row_size), columns_gradient(single, column_size);
  Typed scratch(single, sasa::WorkspaceFloats(p));
  std::vector<char> before;
  for (threads = 3; threads > 0; threads -= 2) {
    error = sasa::CpuBackward(
        p,
        {query.data(), key.data(), value.data(), floats(rows), floats(columns), output.data(),
         floats(log_sum), upstream.data(), query_gradient.data(), key_gradient.data(),
         value_gradient.data(), floats(rows_gradient), floats(columns_gradient), floats(scratch)},
        tasks);
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

  // The same bits come where query, key and value are parts of one array.
  LocalAttentionProblem shared = p;
  shared.qkv_parts = p.has_key ? 3 : 2;
  const int64_t part = p.heads * p.head_dim * (query.bytes.size() / size);
  const auto parts = [&](Typed& q, Typed& k, Typed& v) {
    return p.has_key ? Joined(p, {&q, &k, &v}) : Joined(p, {&q, &v});
  };
  Typed joined = parts(query, key, value);
  Typed gradients = parts(query_gradient, key_gradient, value_gradient), found = gradients;
  std::fill(found.bytes.begin(), found.bytes.end(), 1);
  Typed joined_output(p.type, size), joined_log_sum(single, size / p.head_dim);
  threads = 3;
  error = sasa::CpuForward(
      shared,
      {joined.data(), joined.bytes.data() + part,
       joined.bytes.data() + (shared.qkv_parts - 1) * part, floats(rows), floats(columns),
       joined_output.data(), floats(joined_log_sum), means.data()},
      tasks);
  if (error != nullptr) return std::puts(error), false;
  error = sasa::CpuBackward(
      shared,
      {joined.data(), joined.bytes.data() + part,
       joined.bytes.data() + (shared.qkv_parts - 1) * part, floats(rows), floats(columns),
       output.data(), floats(log_sum), upstream.data(), found.data(), found.bytes.data() + part,
       found.bytes.data() + (shared.qkv_parts - 1) * part, floats(rows_gradient),
       floats(columns_gradient), floats(scratch)},
      tasks);
  if (error != nullptr) return std::puts(error), false;
  if (joined_output.bytes != output.bytes || found.bytes != gradients.bytes) {
    std::puts("parts of one array give other bits");
    same = false;
  }
  same &= Same("query_gradient", query_gradient, a.query_gradient, tolerance);
  same &= Same("key_gradient", key_gradient, a.key_gradient, tolerance);
  same &= Same("value_gradient", value_gradient, a.value_gradient, tolerance);
  // Of a window of one row, the rows' gradient is nothing but rounding of the output.
  double most = 1;
  for (double x : a.rows_gradient) most = std::fmax(most, std::fabs(x));
  for (double x : a.columns_gradient) most = std::fmax(most, std::fabs(x));
  same &= Same("rows_gradient", rows_gradient, a.rows_gradient, tolerance, most);
  same &= Same("columns_gradient", columns_gradient, a.columns_gradient, tolerance, most);
  if (!same) Print(p);
  return same;
}

LocalAttentionProblem Random(std::mt19937& random) {
  const auto upto = [&](int most) { return 1 + int(random() % most); };
  LocalAttentionProblem p = {};
  p.batch = upto(2);
  p.height = upto(random() % 4 == 0 ? 40 : 12);
  p.width = upto(random() % 4 == 0 ? 70 : 18);
  p.heads = upto(3);
  p.head_dim = random() % 8 == 0 ? upto(128) : upto(17);
  p.pool_size = p.height % 2 == 0 && p.width % 2 == 0 && random() % 2 ? 2 : 1;
  p.kernel_rows = 2 * upto(6) - 1;
  p.kernel_columns = 2 * upto(6) - 1;
  p.dilation_rows = random() % 3 ? 1 : upto(4);
  p.dilation_columns = random() % 3 ? 1 : upto(4);
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
