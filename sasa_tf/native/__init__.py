"""The compiled kernels: C++ and CUDA sources, their build, and the loaded library.

Sources:
  local_attention.h   interface of the local attention kernels: problem, arrays, workspace
  stem_kernels.h      interface of the stem attention kernels, with absorbed projections
  limits.h            what the kernels support; limits.py parses its constants
  cpu/                CPU kernels, compiled once for each instruction set (plain, AVX2, AVX-512)
  cuda/               CUDA kernels for sm_80 and newer: MMA kernels on the tensor cores (mma_*,
                      stem_mma_*) and SIMT kernels for everything else (simt_*, stem_simt_*)
  collectives/        all-reduce of the replicas of one process: by NCCL on GPUs, or on the CPU
  ffi/                the kernels as XLA custom calls, and their registration

Python:
  build.py            compiles the library into the user's cache directory
  cache.py            the path of the library that belongs to this TensorFlow and these sources
  library.py          loads the library, or explains why it cannot be used

`sasa_tf/ops/compiled` and `sasa_tf/collectives` call them from TensorFlow. docs/kernels.md
describes the kernels, docs/glossary.md defines the terms.
"""
