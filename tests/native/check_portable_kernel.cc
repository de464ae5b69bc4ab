// Compares the portable forward kernel, compiled with the macros SASA_* of one layer, with loops in
// double precision on an emulated GPU. Arguments: CTAs, batch size, seed.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "checks.h"
#include "cuda/kernel_launch.cuh"
#include "cuda/portable_forward.cuh"
#include "device_array.h"
#include "naive_attention.h"
#include "naive_avg_pool.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;

bool Check(const sasa::LocalAttentionProblem& p, int ctas, std::mt19937& random) {
  const int64_t size = p.batch * p.height * p.width * p.heads * p.head_dim, half = p.head_dim / 2;
  Typed query(p.type, size), key(p.type, p.has_key ? size : 0), value(p.type, size);
  Typed rows(DType::kFloat32, p.has_relative ? p.kernel_rows * half : 0);
  Typed columns(DType::kFloat32, p.has_relative ? p.kernel_columns * half : 0);
  Typed output(p.type, size / (p.pool_size * p.pool_size));
  Arrays a;
  query.Fill(random, a.query);
  key.Fill(random, a.key);
  value.Fill(random, a.value);
  rows.Fill(random, a.rows);
  columns.Fill(random, a.columns);
  a.d_output.resize(size);
  a.output.resize(size);
  a.lse.resize(size / p.head_dim);
  a.d_query.resize(size);
  a.d_key.resize(size);
  a.d_value.resize(size);
  a.d_rows.resize(a.rows.size());
  a.d_columns.resize(a.columns.size());
  Naive(p, a);

  std::vector<const Typed*> parts = {&query, &key, &value};
  if (!p.has_key) parts.erase(parts.begin() + 1);
  DeviceArray qkv(Packed(p, parts).bytes), device_rows(rows.bytes), device_columns(columns.bytes);
  DeviceArray device_output(output.bytes);
  device_output.Poison();
  const int batch = p.batch;
  // The emulated launch converts each argument to the type of its parameter.
  sasa::LaunchKernel(sasa_local_attention, ctas, sasa::kThreads, sasa::kSmemBytes, nullptr,
                     static_cast<const void*>(qkv.data()),
#if SASA_HAS_RELATIVE
                     static_cast<const float*>(device_rows.floats()),
                     static_cast<const float*>(device_columns.floats()),
#endif
                     &batch, static_cast<void*>(device_output.data()));
  if (!device_output.CopyTo(output.bytes)) {
    return std::puts("the kernel wrote outside its output"), false;
  }
  const double tolerance = p.type == DType::kFloat32   ? 2e-5
                           : p.type == DType::kFloat16 ? 4e-3
                                                       : 2e-2;
  return Agrees("output", output, p.pool_size > 1 ? NaiveAvgPool(p, a.output) : a.output,
                tolerance);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::puts("expected: CTAS BATCH SEED"), 2;
  sasa::LocalAttentionProblem p = sasa::kProblem;
  p.batch = std::atoi(argv[2]);
  std::mt19937 random(std::atoi(argv[3]));
  if (!Check(p, std::atoi(argv[1]), random)) return 1;
  std::puts("the kernel and the loops agree");
  return 0;
}
