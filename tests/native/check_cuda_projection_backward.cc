// Compares the CUDA kernels of the backward pass of the projections, on an emulated or a real GPU,
// with loops in double precision on random problems. random_problems.h documents the command line.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "checks.h"
#include "device_array.h"
#include "projection_kernels.h"
#include "random_problems.h"

namespace {

using emulation::DeviceArray;
using sasa::DType;
using sasa::ProjectionProblem;

constexpr Setting<ProjectionProblem> kSettings[] = {
    {"pixels", [](ProjectionProblem& p, int x) { p.pixels = x; }},
    {"channels", [](ProjectionProblem& p, int x) { p.channels = x, p.outputs = 3 * x; }},
    {"nonfinite", [](ProjectionProblem&, int x) { nonfinite = x; }},
};

ProjectionProblem Random(std::mt19937& random, const Settings& settings) {
  ProjectionProblem p = {};
  p.pixels = 1 + random() % (random() % 2 ? 1500 : 200);
  p.channels = random() % 2 ? 64 : 128;
  p.outputs = 3 * p.channels;
  Apply(kSettings, settings, p);
  return p;
}

bool Check(const ProjectionProblem& p, std::mt19937& random) {
  Typed inputs(DType::kBfloat16, p.pixels * p.channels), d_inputs = inputs;
  Typed kernel(DType::kBfloat16, p.channels * p.outputs), d_kernel = kernel;
  Typed d_outputs(DType::kBfloat16, p.pixels * p.outputs);
  std::vector<double> x, w, dy;
  inputs.Fill(random, x);
  kernel.Fill(random, w);
  d_outputs.Fill(random, dy);
  if (nonfinite) {
    Typed* const arrays[] = {&inputs, &kernel, &d_outputs};
    std::vector<double>* const exact[] = {&x, &w, &dy};
    const int i = random() % 3;
    arrays[i]->SetNonFinite(random() % arrays[i]->size(), nonfinite == 2, *exact[i]);
  }
  std::vector<double> dx(x.size()), dw(w.size());
  for (int64_t pixel = 0; pixel < p.pixels; ++pixel) {
    for (int64_t c = 0; c < p.channels; ++c) {
      double sum = 0;
      for (int64_t f = 0; f < p.outputs; ++f) {
        const double upstream = dy[pixel * p.outputs + f];
        sum += upstream * w[c * p.outputs + f];
        dw[c * p.outputs + f] += x[pixel * p.channels + c] * upstream;
      }
      dx[pixel * p.channels + c] = sum;
    }
  }

  DeviceArray device_inputs(inputs.bytes), device_kernel(kernel.bytes);
  DeviceArray device_d_outputs(d_outputs.bytes), device_d_inputs(d_inputs.bytes);
  DeviceArray device_d_kernel(d_kernel.bytes);
  DeviceArray workspace(std::vector<char>(4 * sasa::ProjectionWorkspaceFloats(p.outputs)));
  std::vector<char> before;
  for (int run = 0; run < 2; ++run) {
    device_d_inputs.Poison();
    device_d_kernel.Poison();
    workspace.Poison();
    const char* error = nullptr;
    // Again, because every seventh tensor map of the emulated GPU fails.
    for (int attempt = 0; attempt < (error == nullptr ? 1 : 2); ++attempt) {
      error = sasa::CudaProjectionBackward(p,
                                           {.inputs = device_inputs.data(),
                                            .kernel = device_kernel.data(),
                                            .d_outputs = device_d_outputs.data(),
                                            .d_inputs = device_d_inputs.data(),
                                            .d_kernel = device_d_kernel.data(),
                                            .workspace = workspace.floats()},
                                           nullptr);
    }
    if (error != nullptr) return std::puts(error), false;
    if (!device_d_inputs.CopyTo(d_inputs.bytes) || !device_d_kernel.CopyTo(d_kernel.bytes)) {
      return std::puts("the kernels wrote outside their outputs"), false;
    }
    std::vector<char> bytes = d_inputs.bytes;
    bytes.insert(bytes.end(), d_kernel.bytes.begin(), d_kernel.bytes.end());
    if (run == 1 && bytes != before) {
      return std::puts("the gradients depend on the order of the threads"), false;
    }
    before = bytes;
  }
  // One rounding of a bfloat16.
  return Agrees("d_inputs", d_inputs, dx, 4e-3) & Agrees("d_kernel", d_kernel, dw, 4e-3);
}

void Print(const ProjectionProblem& p) {
  std::printf("pixels=%d channels=%d\n", int(p.pixels), int(p.channels));
}

}  // namespace

int main(int argc, char** argv) {
  return CheckRandomProblems(argc, argv, "of the projections' backward pass", kSettings, Random,
                             Check, Print);
}
