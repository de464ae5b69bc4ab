// Compares the CUDA kernels of local attention with the projections inside, on an emulated or a real
// GPU, with loops in double precision on random problems. random_problems.h documents the command
// line.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "checks.h"
#include "cuda/launch.h"
#include "device_array.h"
#include "limits.h"
#include "local_attention.h"
#include "naive_attention.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::LocalAttentionProblem;

constexpr int64_t kChannels = sasa::kProjectedChannels;

bool backward_pass = true;  // which needs a Hopper GPU

constexpr Setting<LocalAttentionProblem> kSettings[] = {
    {"batch", [](LocalAttentionProblem& p, int x) { p.batch = x; }},
    {"height", [](LocalAttentionProblem& p, int x) { p.height = x; }},
    {"width", [](LocalAttentionProblem& p, int x) { p.width = x; }},
    {"heads", [](LocalAttentionProblem& p, int x) { p.heads = x; }},
    {"kernel", [](LocalAttentionProblem& p, int x) { p.kernel_rows = p.kernel_columns = x; }},
    {"mask", [](LocalAttentionProblem& p, int x) { p.mask_border = x; }},
    {"relative", [](LocalAttentionProblem& p, int x) { p.has_relative = x; }},
    {"scale", [](LocalAttentionProblem& p, int x) { p.scale = x; }},
    {"nonfinite", [](LocalAttentionProblem&, int x) { nonfinite = x; }},
    {"backward", [](LocalAttentionProblem&, int x) { backward_pass = x; }},
};

LocalAttentionProblem Random(std::mt19937& random, const Settings& settings) {
  const auto up_to = [&](int max) { return 1 + int(random() % max); };
  LocalAttentionProblem p = {};
  p.batch = up_to(2);
  p.height = up_to(random() % 2 ? 33 : 12);
  p.width = up_to(random() % 2 ? 33 : 12);
  p.heads = up_to(random() % 4 ? 3 : 8);
  p.head_dim = sasa::kProjectedHeadDim;
  p.kernel_rows = p.kernel_columns = 3 + 2 * (random() % 3);
  p.dilation_rows = p.dilation_columns = 1;
  p.mask_border = random() % 2;
  p.has_key = true;
  p.has_relative = random() % 4 != 0;
  // The projections are sums of 64 products.
  p.scale = random() % 2 ? 1.f / 32 : 1.f / 64;
  p.qkv_parts = 3;
  p.type = DType::kBfloat16;
  Apply(kSettings, settings, p);
  return p;
}

double RoundToBfloat16(double exact) {
  float x = exact;
  if (!std::isfinite(x)) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Packs query, key and value, or their gradients.
std::vector<double> Packed(const LocalAttentionProblem& p,
                           const std::vector<const std::vector<double>*>& parts) {
  const int64_t filters = p.heads * p.head_dim;
  std::vector<double> packed;
  for (int64_t begin = 0; begin < p.batch * p.height * p.width * filters; begin += filters) {
    for (const auto* part : parts) {
      packed.insert(packed.end(), part->begin() + begin, part->begin() + begin + filters);
    }
  }
  return packed;
}

// What an error of the tables' gradients is relative to, even where their terms cancel out: delta,
// computed from the output in bfloat16 and thus with an error of up to 2^-9, times a query.
double TableGradientScale(const LocalAttentionProblem& p, const Arrays& a) {
  double max_query = 0, max_delta = 0;
  for (double x : a.query) {
    if (std::isfinite(x)) max_query = std::fmax(max_query, std::fabs(x));
  }
  for (size_t i = 0; i < a.output.size(); i += p.head_dim) {
    double delta = 0;
    for (int64_t d = 0; d < p.head_dim; ++d) delta += std::fabs(a.output[i + d] * a.d_output[i + d]);
    if (std::isfinite(delta)) max_delta = std::fmax(max_delta, delta);
  }
  return std::fmax(1, p.scale * max_query * max_delta / 8);
}

// The gradients of query, key, value and tables, from the output and LSE on the device. Those of
// query, key and value have the same bits as from packed QKV.
bool CheckBackward(const LocalAttentionProblem& p, const DeviceArray& inputs,
                   const DeviceArray& kernel, const DeviceArray& rows, const DeviceArray& columns,
                   const DeviceArray& output, const DeviceArray& lse, Typed& d_output,
                   const Arrays& a) {
  const int64_t filters = p.heads * p.head_dim, table = a.rows.size();
  Typed d_qkv(p.type, p.batch * p.height * p.width * 3 * filters);
  Typed d_rows(DType::kFloat32, table), d_columns(DType::kFloat32, table);
  DeviceArray device_d_output(d_output.bytes), device_d_qkv(d_qkv.bytes);
  DeviceArray device_d_rows(d_rows.bytes), device_d_columns(d_columns.bytes);
  DeviceArray workspace(std::vector<char>(4 * sasa::WorkspaceFloats(p)));
  std::vector<char> before;
  for (int run = 0; run < 2; ++run) {
    for (DeviceArray* array : {&device_d_qkv, &device_d_rows, &device_d_columns, &workspace}) {
      array->Poison();
    }
    const char* error =
        sasa::CudaProjectedBackward(p, kChannels,
                                    {.inputs = inputs.data(),
                                     .kernel = kernel.data(),
                                     .relative_rows = rows.floats(),
                                     .relative_columns = columns.floats(),
                                     .output = output.data(),
                                     .lse = lse.floats(),
                                     .d_output = device_d_output.data(),
                                     .d_qkv = device_d_qkv.data(),
                                     .d_relative_rows = device_d_rows.floats(),
                                     .d_relative_columns = device_d_columns.floats(),
                                     .workspace = workspace.floats()},
                                    nullptr);
    if (error != nullptr) return std::puts(error), false;
    if (!device_d_qkv.CopyTo(d_qkv.bytes) || !device_d_rows.CopyTo(d_rows.bytes) ||
        !device_d_columns.CopyTo(d_columns.bytes)) {
      return std::puts("the kernel wrote outside its gradients"), false;
    }
    std::vector<char> bytes = d_qkv.bytes;
    bytes.insert(bytes.end(), d_rows.bytes.begin(), d_rows.bytes.end());
    bytes.insert(bytes.end(), d_columns.bytes.begin(), d_columns.bytes.end());
    if (run == 1 && bytes != before) {
      return std::puts("the gradients depend on the order of the threads"), false;
    }
    before = bytes;
  }
  Typed qkv = d_qkv, from_qkv = d_qkv;
  qkv.SetExact(Packed(p, {&a.query, &a.key, &a.value}));
  DeviceArray device_qkv(qkv.bytes);
  device_d_qkv.Poison();
  const int64_t part = filters * 2;  // in bytes
  const sasa::BackwardArrays packed = {.query = device_qkv.data(),
                                       .key = device_qkv.data() + part,
                                       .value = device_qkv.data() + 2 * part,
                                       .relative_rows = rows.floats(),
                                       .relative_columns = columns.floats(),
                                       .output = output.data(),
                                       .lse = lse.floats(),
                                       .d_output = device_d_output.data(),
                                       .d_query = device_d_qkv.data(),
                                       .d_key = device_d_qkv.data() + part,
                                       .d_value = device_d_qkv.data() + 2 * part,
                                       .d_relative_rows = device_d_rows.floats(),
                                       .d_relative_columns = device_d_columns.floats(),
                                       .workspace = workspace.floats()};
  // Twice, because every seventh tensor map of the emulated GPU fails.
  if (!sasa::MmaBackwardOnePass(p, packed, true, nullptr) &&
      !sasa::MmaBackwardOnePass(p, packed, true, nullptr)) {
    return std::puts("the one-pass kernel does not support the problem"), false;
  }
  device_d_qkv.CopyTo(from_qkv.bytes);
  if (!nonfinite && from_qkv.bytes != d_qkv.bytes) {
    return std::puts("the gradients differ from those with packed QKV"), false;
  }
  const std::vector<double> expected = Packed(p, {&a.d_query, &a.d_key, &a.d_value});
  double max = TableGradientScale(p, a);
  for (double x : a.d_rows) max = std::fmax(max, std::fabs(x));
  for (double x : a.d_columns) max = std::fmax(max, std::fabs(x));
  // The gradients of the logits, rounded to bfloat16, are multiplied by keys of up to 40.
  return Agrees("d_qkv", d_qkv, expected, 5e-2) &
         Agrees("d_rows", d_rows, a.d_rows, 5e-2, max) &
         Agrees("d_columns", d_columns, a.d_columns, 5e-2, max);
}

bool Check(const LocalAttentionProblem& p, std::mt19937& random) {
  const int64_t pixels = p.batch * p.height * p.width, filters = p.heads * p.head_dim;
  const int64_t table = p.has_relative ? p.kernel_rows * p.head_dim / 2 : 0;
  Typed inputs(p.type, pixels * kChannels), kernel(p.type, kChannels * 3 * filters);
  Typed rows(DType::kFloat32, table), columns(DType::kFloat32, table);
  Typed output(p.type, pixels * filters), d_output = output;
  std::vector<double> exact_inputs, exact_kernel;
  Arrays a;
  inputs.Fill(random, exact_inputs);
  kernel.Fill(random, exact_kernel);
  rows.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  d_output.Fill(random, a.d_output);
  if (nonfinite) inputs.SetNonFinite(random() % inputs.size(), nonfinite == 2, exact_inputs);
  std::vector<double>* const parts[] = {&a.query, &a.key, &a.value};
  for (int part = 0; part < 3; ++part) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int64_t filter = 0; filter < filters; ++filter) {
        double sum = 0;
        for (int64_t c = 0; c < kChannels; ++c) {
          sum += exact_inputs[pixel * kChannels + c] *
                 exact_kernel[(c * 3 + part) * filters + filter];
        }
        parts[part]->push_back(RoundToBfloat16(sum));
      }
    }
  }
  a.output.resize(output.size());
  a.lse.resize(pixels * p.heads);
  a.d_query.resize(output.size());
  a.d_key.resize(output.size());
  a.d_value.resize(output.size());
  a.d_rows.resize(table);
  a.d_columns.resize(table);
  Naive(p, a);

  DeviceArray device_inputs(inputs.bytes), device_kernel(kernel.bytes);
  DeviceArray device_rows(rows.bytes), device_columns(columns.bytes), device_output(output.bytes);
  Typed lse(DType::kFloat32, pixels * p.heads);
  DeviceArray device_lse(lse.bytes);
  device_lse.Poison();
  std::vector<char> before;
  for (int run = 0; run < 2; ++run) {
    device_output.Poison();
    const char* error = sasa::CudaProjectedForward(p, kChannels,
                                                   {.inputs = device_inputs.data(),
                                                    .kernel = device_kernel.data(),
                                                    .relative_rows = device_rows.floats(),
                                                    .relative_columns = device_columns.floats(),
                                                    .output = device_output.data(),
                                                    .lse = run ? nullptr : device_lse.floats()},
                                                   nullptr);
    if (error != nullptr) return std::puts(error), false;
    if (!device_output.CopyTo(output.bytes) || (run == 0 && !device_lse.CopyTo(lse.bytes))) {
      return std::puts("the kernel wrote outside its output"), false;
    }
    if (run == 1 && output.bytes != before) {
      return std::puts("the output depends on the order of the threads, or on the LSE"), false;
    }
    before = output.bytes;
  }
  const bool agrees =
      Agrees("output", output, a.output, 2e-2) & Agrees("lse", lse, a.lse, 2e-2);
  if (!backward_pass || !sasa::SupportsProjectedBackward(p, kChannels)) return agrees;
  return CheckBackward(p, device_inputs, device_kernel, device_rows, device_columns, device_output,
                       device_lse, d_output, a) &
         agrees;
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of local attention with projections", kSettings, Random,
                             Check, Print);
}
