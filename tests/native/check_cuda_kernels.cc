// Compares the CUDA kernels of local attention, on an emulated or a real GPU, with loops in double
// precision on random problems. random_problems.h documents the command line.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "checks.h"
#include "cuda/launch.h"
#include "device_array.h"
#include "limits.h"
#include "local_attention.h"
#include "naive_attention.h"
#include "naive_avg_pool.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::LocalAttentionProblem;

bool backward_pass = true;  // whether to compare the gradients too
bool one_pass = false;      // whether the gradients are those of the one-pass kernel
bool rows = false;          // whether the kernels are those for small images

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
    {"packed", [](LocalAttentionProblem& p, int x) { p.qkv_parts = x ? 3 : 1; }},
    {"scale", [](LocalAttentionProblem& p, int x) { p.scale = x; }},
    {"pool", [](LocalAttentionProblem& p, int x) { p.pool_size = x; }},
    {"nonfinite", [](LocalAttentionProblem&, int x) { nonfinite = x; }},
    {"backward", [](LocalAttentionProblem&, int x) { backward_pass = x; }},
    {"one_pass", [](LocalAttentionProblem&, int x) { one_pass = x; }},
    {"rows", [](LocalAttentionProblem&, int x) { rows = x; }},
    {"type", [](LocalAttentionProblem& p, int x) { p.type = static_cast<DType>(x); }},
};

LocalAttentionProblem Random(std::mt19937& random, const Settings& settings) {
  const auto up_to = [&](int max) { return 1 + int(random() % max); };
  const auto image_side = [&] {
    return up_to(settings.count("rows") ? 16 : random() % 4 == 0 ? 33 : 12);
  };
  LocalAttentionProblem p = {};
  p.batch = up_to(2);
  p.height = image_side();
  p.width = image_side();
  p.heads = up_to(5);
  p.dilation_rows = random() % 4 ? 1 : up_to(2);
  p.dilation_columns = random() % 4 ? 1 : up_to(2);
  p.mask_border = random() % 2;
  p.has_relative = random() % 4 != 0;
  p.has_key = random() % 4 != 0;
  p.qkv_parts = random() % 2 ? 3 : 1;
  if (random() % 4) {
    // For the tensor core kernels.
    p.kernel_rows = p.kernel_columns = 3 + 2 * (random() % 5);
    p.head_dim = 4 << random() % 5;
    p.type = random() % 2 ? DType::kBfloat16 : DType::kFloat16;
  } else {
    p.kernel_rows = 2 * up_to(6) - 1;
    p.kernel_columns = 1 + 2 * up_to(5);
    p.head_dim = 4 * up_to(random() % 8 == 0 ? 32 : 8);
    p.type = static_cast<DType>(random() % 3);
  }
  Apply(kSettings, settings, p);
  p.has_key |= !p.has_relative;
  if (p.qkv_parts > 1) p.qkv_parts = p.has_key ? 3 : 2;
  const float scale = random() % 2 ? 1.0f : 0.5f;
  if (!settings.count("scale")) p.scale = scale / std::sqrt(static_cast<float>(p.head_dim));
  // Only the tensor core kernels pool, an even number of pixels.
  LocalAttentionProblem pooled = p;
  pooled.pool_size = 2;
  const bool can_pool = sasa::UnsupportedReason(pooled, sasa::Platform::kCuda) == nullptr;
  if (!settings.count("pool")) p.pool_size = can_pool && random() % 2 ? 2 : 1;
  return p;
}

// Unpacks what Packed has packed.
void Unpack(const LocalAttentionProblem& p, const Typed& packed,
            const std::vector<Typed*>& arrays) {
  const int64_t pixels = p.batch * p.height * p.width;
  const char* from = packed.bytes.data();
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (Typed* array : arrays) {
      const int64_t bytes = array->bytes.size() / pixels;
      std::memcpy(array->bytes.data() + pixel * bytes, from, bytes);
      from += bytes;
    }
  }
}

// Query, key and value on the device, or their gradients: separate arrays, or packed in one.
struct DeviceQkv {
  std::unique_ptr<DeviceArray> arrays[3];
  char *query, *key, *value;

  DeviceQkv(int parts, int64_t bytes, const Typed& packed, const Typed& q, const Typed& k,
            const Typed& v) {
    if (parts > 1) {
      arrays[0] = std::make_unique<DeviceArray>(packed.bytes);
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
  bool CopyTo(Typed& packed, Typed& q, Typed& k, Typed& v) const {
    if (!arrays[1]) return arrays[0]->CopyTo(packed.bytes);
    return arrays[0]->CopyTo(q.bytes) & arrays[1]->CopyTo(k.bytes) & arrays[2]->CopyTo(v.bytes);
  }
};

const char* Forward(const LocalAttentionProblem& p, const sasa::ForwardArrays& arrays) {
  if (!rows) return sasa::CudaForward(p, arrays, nullptr);
  // It needs TMA, of which the emulated GPU fails to encode every seventh tensor map.
  for (int tries = 0; tries < 2; ++tries) {
    if (sasa::MmaRowForward(p, arrays, true, nullptr)) return nullptr;
  }
  return "the kernel for small images does not support the problem";
}

const char* Backward(const LocalAttentionProblem& p, const sasa::BackwardArrays& arrays) {
  if (!rows && !one_pass) return sasa::CudaBackward(p, arrays, nullptr);
  // They need TMA, of which the emulated GPU fails to encode every seventh tensor map.
  for (int tries = 0; tries < 2; ++tries) {
    if (rows ? sasa::MmaRowBackward(p, arrays, nullptr)
             : sasa::MmaBackwardOnePass(p, arrays, true, nullptr)) {
      return nullptr;
    }
  }
  return "the backward kernel does not support the problem";
}

bool Check(const LocalAttentionProblem& p, std::mt19937& random) {
  const auto single = DType::kFloat32;
  const int64_t size = p.batch * p.height * p.width * p.heads * p.head_dim, half = p.head_dim / 2;
  const int64_t row_size = p.has_relative ? p.kernel_rows * half : 0;
  const int64_t column_size = p.has_relative ? p.kernel_columns * half : 0;
  const int64_t key_size = p.has_key ? size : 0;
  Typed query(p.type, size), key(p.type, key_size), value(p.type, size);
  Typed d_output(p.type, size / (p.pool_size * p.pool_size));
  Typed row_table(single, row_size), columns(single, column_size);
  Typed output(p.type, size), lse(single, size / p.head_dim);
  Arrays a;
  query.Fill(random, a.query);
  key.Fill(random, a.key);
  value.Fill(random, a.value);
  d_output.Fill(random, a.d_output);
  if (nonfinite) {
    const int array = random() % 4;
    if (array == 0) query.SetNonFinite(random() % size, nonfinite == 2, a.query);
    if (array == 1 && p.has_key) key.SetNonFinite(random() % size, nonfinite == 2, a.key);
    if (array == 2) value.SetNonFinite(random() % size, nonfinite == 2, a.value);
    if (array == 3) d_output.SetNonFinite(random() % d_output.size(), nonfinite == 2, a.d_output);
  }
  if (p.pool_size > 1) a.d_output = NaiveAvgPoolGradient(p, a.d_output);
  row_table.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  a.output.resize(size);
  a.lse.resize(size / p.head_dim);
  a.d_query.resize(size);
  a.d_key.resize(key_size);
  a.d_value.resize(size);
  a.d_rows.resize(row_size);
  a.d_columns.resize(column_size);
  Naive(p, a);

  Typed d_query(p.type, size), d_key(p.type, key_size), d_value(p.type, size);
  std::vector<const Typed*> inputs = {&query, &key, &value};
  std::vector<Typed*> gradients = {&d_query, &d_key, &d_value};
  if (!p.has_key) {
    inputs.erase(inputs.begin() + 1);
    gradients.erase(gradients.begin() + 1);
  }
  Typed packed = Packed(p, inputs);
  const int64_t part = p.heads * p.head_dim * Typed::Size(p.type);
  const DeviceQkv in(p.qkv_parts, part, packed, query, key, value);
  const DeviceQkv out(p.qkv_parts, part, packed, query, key, value);
  Typed d_rows(single, row_size), d_columns(single, column_size);
  Typed workspace(single, sasa::WorkspaceFloats(p));
  DeviceArray device_rows(row_table.bytes), device_columns(columns.bytes);
  DeviceArray device_output(output.bytes);
  DeviceArray device_lse(lse.bytes), device_d_output(d_output.bytes);
  DeviceArray device_d_rows(row_table.bytes), device_d_columns(columns.bytes);
  DeviceArray device_workspace(workspace.bytes);

  Typed pooled_output(p.type, p.pool_size > 1 ? d_output.bytes.size() / Typed::Size(p.type) : 0);
  DeviceArray device_pooled_output(pooled_output.bytes);
  device_pooled_output.Poison();
  device_output.Poison();
  device_lse.Poison();
  const sasa::ForwardArrays forward = {
      .query = in.query,
      .key = in.key,
      .value = in.value,
      .relative_rows = device_rows.floats(),
      .relative_columns = device_columns.floats(),
      .output = device_output.data(),
      .lse = device_lse.floats(),
      .pooled_output = device_pooled_output.data(),
  };
  const char* error = Forward(p, forward);
  if (error != nullptr) return std::puts(error), false;
  bool within = device_output.CopyTo(output.bytes) & device_lse.CopyTo(lse.bytes) &
                device_pooled_output.CopyTo(pooled_output.bytes);
  const double tolerance = p.type == single ? 2e-5 : p.type == DType::kFloat16 ? 4e-3 : 2e-2;
  bool same = Agrees("output", output, a.output, tolerance) & Agrees("lse", lse, a.lse, tolerance);
  if (p.pool_size > 1)
    same &= Agrees("pooled_output", pooled_output, NaiveAvgPool(p, a.output), tolerance);
  if (p.pool_size > 1) {
    // Inference: without what only the backward pass reads.
    DeviceArray device_result(pooled_output.bytes);
    device_result.Poison();
    sasa::ForwardArrays inference = forward;
    inference.lse = nullptr;
    inference.output = nullptr;
    inference.pooled_output = device_result.data();
    error = Forward(p, inference);
    if (error != nullptr) return std::puts(error), false;
    Typed result = pooled_output;
    within &= device_result.CopyTo(result.bytes);
    if (result.bytes != pooled_output.bytes) {
      std::puts("the pooled output alone differs");
      same = false;
    }
  }
  if (!backward_pass) return same && within;

  const sasa::BackwardArrays backward = {
      .query = in.query,
      .key = in.key,
      .value = in.value,
      .relative_rows = device_rows.floats(),
      .relative_columns = device_columns.floats(),
      .output = device_output.data(),
      .lse = device_lse.floats(),
      .d_output = device_d_output.data(),
      .d_query = out.query,
      .d_key = out.key,
      .d_value = out.value,
      .d_relative_rows = device_d_rows.floats(),
      .d_relative_columns = device_d_columns.floats(),
      .workspace = device_workspace.floats(),
  };
  std::vector<char> previous;
  for (int repetition = 0; repetition < 2; ++repetition) {
    out.Poison();
    for (DeviceArray* array : {&device_d_rows, &device_d_columns, &device_workspace}) {
      array->Poison();
    }
    error = Backward(p, backward);
    if (error != nullptr) return std::puts(error), false;
    within &= out.CopyTo(packed, d_query, d_key, d_value);
    if (p.qkv_parts > 1) Unpack(p, packed, gradients);
    within &= device_d_rows.CopyTo(d_rows.bytes);
    within &= device_d_columns.CopyTo(d_columns.bytes);
    std::vector<char> bytes;
    for (const Typed* array : {&d_query, &d_key, &d_value, &d_rows, &d_columns}) {
      bytes.insert(bytes.end(), array->bytes.begin(), array->bytes.end());
    }
    if (repetition == 1 && bytes != previous) {
      std::puts("the gradients are not deterministic");
      same = false;
    }
    previous = bytes;
  }
  within &= device_workspace.CopyTo(workspace.bytes);
  if (!within) {
    std::puts("a kernel wrote outside an array");
    same = false;
  }
  same &= Agrees("d_query", d_query, a.d_query, tolerance);
  same &= Agrees("d_key", d_key, a.d_key, tolerance);
  same &= Agrees("d_value", d_value, a.d_value, tolerance);
  // With a window of one row, the row table's gradient is only rounding error.
  double max = 1;
  for (double x : a.d_rows) max = std::fmax(max, std::fabs(x));
  for (double x : a.d_columns) max = std::fmax(max, std::fabs(x));
  same &= Agrees("d_rows", d_rows, a.d_rows, tolerance, max);
  same &= Agrees("d_columns", d_columns, a.d_columns, tolerance, max);
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of local attention", kSettings, Random, Check, Print);
}
