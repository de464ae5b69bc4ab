"""All-reduces of known numbers on all replicas of a MirroredStrategy, within compiled programs.

python -m tests.collectives.mirrored_sums CPU|GPU REPLICAS

A separate process, because the number of devices is fixed when TensorFlow starts. It prints each
phase with the time since its start and, while it takes long, where all threads are. On GPUs, NCCL
prints what it does too.
"""

import faulthandler
import os
import sys
import time

import numpy as np
import tensorflow as tf

from sasa_tf.collectives.all_reduce import reduce_within_program
from sasa_tf.collectives.self_test import create_tested_group
from sasa_tf.training import strategy

TRACEBACK_SECONDS = 30
START = time.perf_counter()
ARRAYS = [((), "float32"), ((1000,), "float32"), ((3, 5, 7), "bfloat16"), ((2**18,), "float16")]
# NCCL has other algorithms for small arrays than for the size of ResNet-50's gradients.
LARGEST = {"CPU": 2**20, "GPU": 25_557_032}


def report(text):
  print(f"[{time.perf_counter() - START:.1f} s] {text}", flush=True)


def check_equal(found, expected):
  found = tf.cast(found, tf.float32).numpy()
  assert np.array_equal(found, expected), (found, expected)


def check(distribution, group, arrays):
  """Compares sums of one call with several arrays, and of one call each, with NumPy's."""
  # Small multiples of 1/8: their sums are exact in all three types.
  draw, eighth = np.random.default_rng(0).integers, np.float32(0.125)
  inputs = [
    [np.multiply(draw(-8, 8, shape, np.int8), eighth) for shape, _ in arrays]
    for _ in range(group.size)
  ]

  @tf.function(jit_compile=True)
  def program(*arrays):
    with reduce_within_program(group) as all_reduce:
      context = tf.distribute.get_replica_context()
      together = context.all_reduce("SUM", list(arrays))
      separate = [context.all_reduce("SUM", array + 1) for array in arrays]
      asynchronous = all_reduce.reduce_asynchronously([array * 2 for array in arrays])
    # Not the arrays themselves: TensorFlow 2.20 frees them twice if the program fails.
    return together, separate, asynchronous, [array + 1 for array in arrays]

  def replica(*arrays):
    return program(*arrays)

  @tf.function
  def step(*arrays):
    return distribution.run(replica, args=arrays)

  def of_replica(context, index):
    return tf.cast(inputs[context.replica_id_in_sync_group][index], arrays[index][1])

  values = [
    distribution.experimental_distribute_values_from_function(lambda c, i=i: of_replica(c, i))
    for i in range(len(arrays))
  ]
  for number in range(3):
    results = step(*values)
    report(f"step {number} was launched")
    for index in range(len(arrays)):
      expected = sum(of_one[index] for of_one in inputs)
      local = [distribution.experimental_local_results(part[index]) for part in results]
      for together, separate, doubled, shifted, before in zip(*local, inputs, strict=True):
        check_equal(together, expected)
        check_equal(separate, expected + group.size)
        check_equal(doubled, 2 * expected)
        check_equal(shifted, before[index] + 1)
    report(f"the sums of step {number} are right")


def main(kind, replicas):
  # Tracing, compilation and NCCL's connections take a few seconds together.
  faulthandler.dump_traceback_later(TRACEBACK_SECONDS, repeat=True, file=sys.stdout)
  report("TensorFlow is imported")
  os.environ.setdefault("NCCL_DEBUG", "INFO")
  if kind == "CPU":
    strategy.create_logical_cpus(int(replicas))
  distribution = strategy.from_devices([f"{kind}:{i}" for i in range(int(replicas))])
  devices = distribution.extended.worker_devices
  report(f"the strategy over {', '.join(devices)} exists")
  group = create_tested_group(devices)
  report("the first all-reduce is right")
  check(distribution, group, [*ARRAYS, ((LARGEST[kind],), "float32")])
  assert group.failure() == ""
  report(f"{replicas} replicas: all sums are right")


if __name__ == "__main__":
  main(*sys.argv[1:])
