// Compares the CUDA kernels, on an emulated or a real GPU, with nested loops in double precision,
// over ragged problems; random_problems.h has the command line.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "checks.h"
#include "device_array.h"
#include "local_attention.h"
#include "naive_attention.h"
#include "naive_avg_pool.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::LocalAttentionProblem;

constexpr Setting<LocalAttentionProblem> kSettings[] = {
    {"batch", [](LocalAttentionProblem& p, int x) { p.batch = x; }},
    {"height", [](LocalAttentionProblem& p, int x) { p.height = x; }},
    {"width", [](LocalAttentionProblem& p, int x) { p.width = x; }},
    {"heads", [](LocalAttentionProblem& p, int x) { p.heads = x; }},
    {"depth", [](LocalAttentionProblem& p, int x) { p.head_dim = x; }},
    {"kernel", [](LocalAttentionProblem& p, int x) { p.kernel_rows = p.kernel_columns = x; }},
    {"dilation", [](LocalAttentionProblem& p, int x) { p.dilation_rows = p.dilation_columns = x; }},
    {"mask", [](LocalAttentionProblem& p, int x) { p.mask_border = x; }},
    {"key", [](LocalAttentionProblem& p, int x) { p.has_key = x; }},
    {"relative", [](LocalAttentionProblem& p, int x) { p.has_relative = x; }},
    {"joined", [](LocalAttentionProblem& p, int x) { p.qkv_parts = x ? 3 : 1; }},
    {"scale", [](LocalAttentionProblem& p, int x) { p.scale = x; }},
    {"pool", [](LocalAttentionProblem& p, int x) { p.pool_size = x; }},
    {"type", [](LocalAttentionProblem& p, int x) { p.type = static_cast<DType>(x); }},
};

LocalAttentionProblem Random(std::mt19937& random, const Settings& settings) {
  const auto upto = [&](int most) { return 1 + int(random() % most); };
  const auto side = [&] { return upto(random() % 4 == 0 ? 33 : 12); };
  LocalAttentionProblem p = {};
  p.batch = upto(2);
  p.height = side();
  p.width = side();
  p.heads = upto(5);
  p.dilation_rows = random() % 4 ? 1 : upto(2);
  p.dilation_columns = random() % 4 ? 1 : upto(2);
  p.mask_border = random() % 2;
  p.has_relative = random() % 4 != 0;
  p.has_key = random() % 4 != 0;
  p.qkv_parts = random() % 2 ? 3 : 1;
  if (random() % 4) {
    // The tensor cores'.
    p.kernel_rows = p.kernel_columns = 7;
    p.head_dim = 8 << random() % 4;
    p.type = random() % 2 ? DType::kBfloat16 : DType::kFloat16;
  } else {
    p.kernel_rows = 2 * upto(6) - 1;
    p.kernel_columns = 1 + 2 * upto(5);
    p.head_dim = 4 * upto(random() % 8 == 0 ? 32 : 8);
    p.type = static_cast<DType>(random() % 3);
  }
  Apply(kSettings, settings, p);
  // An even number of pixels may be pooled, by the tensor cores.
  const bool can_pool = p.height % 2 == 0 && p.width % 2 == 0 && p.dilation_rows == 1 &&
                        p.dilation_columns == 1 && p.kernel_rows == 7 && p.kernel_columns == 7 &&
                        p.type != DType::kFloat32 && (p.head_dim & (p.head_dim - 1)) == 0 &&
                        p.head_dim >= 8 && p.head_dim <= 64;
  if (!settings.count("pool")) p.pool_size = can_pool && random() % 2 ? 2 : 1;
  p.has_key |= !p.has_relative;
  if (p.qkv_parts > 1) p.qkv_parts = p.has_key ? 3 : 2;
  p.scale = (random() % 2 ? 1.0f : 0.5f) / std::sqrt(static_cast<float>(p.head_dim));
  return p;
}

// What Joined has joined.
void Take(const LocalAttentionProblem& p, const Typed& joined, const std::vector<Typed*>& arrays) {
  const int64_t pixels = p.batch * p.height * p.width;
  const char* from = joined.bytes.data();
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (Typed* array : arrays) {
      const int64_t bytes = array->bytes.size() / pixels;
      std::memcpy(array->bytes.data() + pixel * bytes, from, bytes);
      from += bytes;
    }
  }
}

// Query, key and value on the device, each its own array or parts of one; likewise their gradients.
struct Parts {
  std::unique_ptr<DeviceArray> arrays[3];
  char *query, *key, *value;

  Parts(int parts, int64_t bytes, const Typed& joined, const Typed& q, const Typed& k,
        const Typed& v) {
    if (parts > 1) {
      arrays[0] = std::make_unique<DeviceArray>(joined.bytes);
      query = arrays[0]->data();
      key = query + bytes;
      value = query + (parts - 1) * bytes;
    } else {
      const Typed* own[3] = {&q, &k, &v};
      for (int i = 0; i < 3; ++i) arrays[i] = std::make_unique<DeviceArray>(own[i]->bytes);
      query = arrays[0]->data();
      key = arrays[1]->data();
      value = arrays[2]->data();
    }
  }
  void Poison() const {
    for (const auto& array : arrays) {
      if (array) array->Poison();
    }
  }
  bool CopyTo(Typed& joined, Typed& q, Typed& k, Typed& v) const {
    if (!arrays[1]) return arrays[0]->CopyTo(joined.bytes);
    return arrays[0]->CopyTo(q.bytes) & arrays[1]->CopyTo(k.bytes) & arrays[2]->CopyTo(v.bytes);
  }
};

bool Check(const LocalAttentionProblem& p, std::mt19937& random) {
  const auto single = DType::kFloat32;
  const int64_t size = p.batch * p.height * p.width * p.heads * p.head_dim, half = p.head_dim / 2;
  const int64_t row_size = p.has_relative ? p.kernel_rows * half : 0;
  const int64_t column_size = p.has_relative ? p.kernel_columns * half : 0;
  const int64_t key_size = p.has_key ? size : 0;
  Typed query(p.type, size), key(p.type, key_size), value(p.type, size);
  Typed upstream(p.type, size / (p.pool_size * p.pool_size));
  Typed rows(single, row_size), columns(single, column_size);
  Typed output(p.type, size), log_sum(single, size / p.head_dim);
  Arrays a;
  query.Fill(random, a.query);
  key.Fill(random, a.key);
  value.Fill(random, a.value);
  upstream.Fill(random, a.upstream);
  if (p.pool_size > 1) a.upstream = NaiveAvgPoolGradient(p, a.upstream);
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

  // Query, key and value, each its own array or parts of one.
  Typed query_gradient(p.type, size), key_gradient(p.type, key_size), value_gradient(p.type, size);
  std::vector<const Typed*> inputs = {&query, &key, &value};
  std::vector<Typed*> gradients = {&query_gradient, &key_gradient, &value_gradient};
  if (!p.has_key) {
    inputs.erase(inputs.begin() + 1);
    gradients.erase(gradients.begin() + 1);
  }
  Typed joined = Joined(p, inputs);
  const int64_t part = p.heads * p.head_dim * Typed::Size(p.type);
  const Parts in(p.qkv_parts, part, joined, query, key, value);
  const Parts out(p.qkv_parts, part, joined, query, key, value);
  Typed rows_gradient(single, row_size), columns_gradient(single, column_size);
  Typed scratch(single, sasa::WorkspaceFloats(p));
  DeviceArray device_rows(rows.bytes), device_columns(columns.bytes), device_output(output.bytes);
  DeviceArray device_log_sum(log_sum.bytes), device_upstream(upstream.bytes);
  DeviceArray device_rows_gradient(rows.bytes), device_columns_gradient(columns.bytes);
  DeviceArray device_scratch(scratch.bytes);

  Typed means(p.type, p.pool_size > 1 ? upstream.bytes.size() / Typed::Size(p.type) : 0);
  DeviceArray device_means(means.bytes);
  device_means.Poison();
  device_output.Poison();
  device_log_sum.Poison();
  const char* error =
      sasa::CudaForward(p,
                        {in.query, in.key, in.value, device_rows.floats(), device_columns.floats(),
                         device_output.data(), device_log_sum.floats(), device_means.data()},
                        nullptr);
  if (error != nullptr) return std::puts(error), false;
  bool within = device_output.CopyTo(output.bytes) & device_log_sum.CopyTo(log_sum.bytes) &
                device_means.CopyTo(means.bytes);
  const double tolerance = p.type == single ? 2e-5 : p.type == DType::kFloat16 ? 4e-3 : 2e-2;
  bool same =
      Same("output", output, a.output, tolerance) & Same("log_sum", log_sum, a.log_sum, tolerance);
  if (p.pool_size > 1) same &= Same("means", means, NaiveAvgPool(p, a.output), tolerance);

  std::vector<char> before;
  for (int turn = 0; turn < 2; ++turn) {
    out.Poison();
    for (DeviceArray* array : {&device_rows_gradient, &device_columns_gradient, &device_scratch}) {
      array->Poison();
    }
    error = sasa::CudaBackward(
        p,
        {in.query, in.key, in.value, device_rows.floats(), device_columns.floats(),
         device_output.data(), device_log_sum.floats(), device_upstream.data(), out.query, out.key,
         out.value, device_rows_gradient.floats(), device_columns_gradient.floats(),
         device_scratch.floats()},
        nullptr);
    if (error != nullptr) return std::puts(error), false;
    within &= out.CopyTo(joined, query_gradient, key_gradient, value_gradient);
    if (p.qkv_parts > 1) Take(p, joined, gradients);
    within &= device_rows_gradient.CopyTo(rows_gradient.bytes);
    within &= device_columns_gradient.CopyTo(columns_gradient.bytes);
    std::vector<char> bytes;
    for (const Typed* array :
         {&query_gradient, &key_gradient, &value_gradient, &rows_gradient, &columns_gradient}) {
      bytes.insert(bytes.end(), array->bytes.begin(), array->bytes.end());
    }
    if (turn == 1 && bytes != before) {
      std::puts("the gradients depend on the order of threads");
      same = false;
    }
    before = bytes;
  }
  within &= device_scratch.CopyTo(scratch.bytes);
  if (!within) {
    std::puts("something was written before an array");
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
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of local attention", kSettings, Random, Check, Print);
}
