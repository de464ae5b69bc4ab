"""GPU memory of training steps, from XLA's buffer assignment, without a GPU.

Requires additional packages (5 GB):

  pip install jax==0.10.2 jax-cuda12-pjrt==0.10.2 jax-cuda12-plugin==0.10.2 nvidia-cuda-nvcc-cu12 \
    nvidia-cuda-runtime-cu12 nvidia-cuda-cupti-cu12 nvidia-cublas-cu12 nvidia-cudnn-cu12 \
    nvidia-cusolver-cu12 nvidia-cusparse-cu12 nvidia-cufft-cu12
  python -m tests.analysis.gpu_memory [BATCH_SIZE [CANDIDATE ...]]

A conv ResNet-50 with batch size 64 takes 2,950 MiB on an H200, and 2,954 MiB by this program.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import tempfile

_DUMP = tempfile.mkdtemp(prefix="gpu_memory.")
# Autotuning and CUDA graphs need a GPU.
os.environ["XLA_FLAGS"] = (
  f"--xla_dump_to={_DUMP} --xla_dump_hlo_as_text --xla_gpu_autotune_level=0 "
  "--xla_gpu_enable_command_buffer="
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import tensorflow as tf  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.extend.mlir import ir  # noqa: E402
from jax.interpreters import mlir  # noqa: E402
from jaxlib import _jax  # noqa: E402

from sasa_tf.analysis.tpu import compiler  # noqa: E402
from sasa_tf.benchmarks.workloads import candidates, model  # noqa: E402
from sasa_tf.benchmarks.workloads.cases import Case  # noqa: E402
from sasa_tf.ops.compiled import xla_custom_call  # noqa: E402

H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  clock_rate_ghz: 1.755  core_count: 132  fpus_per_core: 128  l2_cache_size: 52428800
  memory_bandwidth: 4800000000000  device_memory_size: 150000000000
  registers_per_block_limit: 65536  registers_per_core_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_block_limit: 1024  threads_per_core_limit: 2048  threads_per_warp: 32
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 3 }
device_description_str: "sm_9.0"
"""
SHAPE = (224, 224, 3)


def mebibytes(candidate: str, batch_size: int) -> float:
  """Returns the MiB of images, weights, optimizer and temporaries in a mixed bfloat16 step."""
  name, _, implementation = candidate.partition("/")
  architecture = candidates.ARCHITECTURES[name]
  case = Case("model", name, "forward_backward", batch_size, SHAPE, "bfloat16", True, model_id=50)
  workload = model.network(case, architecture, implementation or "auto")
  text = compiler.lower(
    lambda images: workload.step([images]), [tf.TensorSpec([batch_size, *SHAPE])], device="GPU"
  )
  topology = topologies.get_topology_desc(
    "gpu", platform="cuda", target_config=H200, topology="1x1x1"
  )
  core = topology.devices[0]
  with mlir.make_ir_context():
    module = ir.Module.parse(text)
    compiler.remove_copies(module)
    try:
      core.client.compile(
        module,
        executable_devices=_jax.DeviceList((core,)),
        compile_options=_jax.CompileOptions(),
      )
    except jax.errors.JaxRuntimeError as error:
      # The kernels of this library are not registered in JAX, which raises after buffer assignment.
      if "No FFI handler registered for sasa_tf" not in str(error):
        raise
  newest = max(glob.glob(f"{_DUMP}/*-buffer-assignment.txt"), key=os.path.getmtime)
  with open(newest) as report:
    sizes = re.findall(r"^allocation \d+: size (\d+), (?!.*thread-local)", report.read(), re.M)
  return sum(map(int, sizes)) / 2**20


def main(batch_size: str = "64", *names: str) -> None:
  # Uses the CPU kernels, as those for GPUs may not be built on this machine.
  xla_custom_call.PLATFORMS["GPU"] = "CPU"
  names = names or ("conv", "conv_stem+attention/fused", "conv_stem+attention/blocked")
  for name in names:
    print(f"{name:32} batch {batch_size}: {mebibytes(name, int(batch_size)):8,.0f} MiB", flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
