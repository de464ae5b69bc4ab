// What the CUDA runtime reports about kernels on the current device. The results are cached: a
// query can take longer than a launch.
#ifndef SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTES_H_
#define SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTES_H_

namespace sasa {

// Whether the code that runs on this GPU was compiled for sm_90 or later.
bool CompiledForSm90(const void* kernel);

// Whether the code that runs on this GPU can be for sm_90a: it was compiled for its compute
// capability, 9.0, and not translated from PTX.
bool CompiledForSm90a(const void* kernel);

// The number of CTAs that the GPU runs at a time, with `smem_bytes` of dynamic shared memory each.
int ResidentCtas(const void* kernel, int threads, int smem_bytes);

// The dynamic shared memory that a CTA can have, in bytes.
int MaxSmemBytes();

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_KERNEL_ATTRIBUTES_H_
