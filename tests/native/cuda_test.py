"""The CUDA kernels: their build, their limits, and their results on a GPU."""

import pathlib
import shutil
import subprocess

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import build, cache, library, limits
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.compiled import fused, fused_projection
from sasa_tf.ops.stem.absorbed_attention import block_attention_2d_absorbed

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
GPU = bool(tf.config.list_physical_devices("GPU"))


def test_compiles_for_each_architecture_and_ptx_for_newer_ones(tmp_path):
  compilers = build.Compilers("/usr/bin/g++", "/usr/bin/nvcc", (80, 90))
  commands = build.compile_commands(compilers, tmp_path)
  cuda = [command for command in commands.values() if command[0] == compilers.nvcc]
  assert len(cuda) == len(cache.sources(".cu")) >= 3
  for command in cuda:
    hopper = "90a" if pathlib.Path(command[-3]).stem.startswith("wgmma_") else "90"
    assert [part for part in command if part.startswith("arch=")] == [
      "arch=compute_80,code=sm_80",
      f"arch=compute_{hopper},code=sm_{hopper}",
      "arch=compute_90,code=compute_90",
    ]


@pytest.mark.skipif(GPU, reason="this host has a GPU to compile for")
def test_builds_no_cuda_kernels_without_a_gpu():
  assert build.find_compilers().nvcc is None


def test_old_architectures_are_an_error(capsys):
  with pytest.raises(SystemExit):
    build.main(["--cuda_architectures=70,80"])
  assert "compute capability 8.0" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("width", "kernel", "reason"),
  [
    (8, 7, None),
    (128, 11, None),
    (12, 3, None),
    (6, 7, "divisible by 4, not 6"),
    (8, (1, 3), None),
    (8, (3, 1), "windows of 3 columns or more"),
    (132, 7, "width up to 128"),
  ],
)
def test_reports_unsupported_arguments(monkeypatch, width, kernel, reason):
  monkeypatch.setattr(library, "load", lambda: library.Library(("CPU", "CUDA")))
  query = tf.zeros([1, 2, 2, 1, width])
  with ops.use_target_device("GPU"):
    found = fused.unsupported_reason(query, window_geometry(kernel), True)
  assert found is None if reason is None else reason in found


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
@pytest.mark.parametrize("source", [build.object_name(path) for path in cache.sources(".cu")])
def test_sources_compile(tmp_path, source):
  command = build.compile_commands(build.Compilers("g++", NVCC, (90,)), tmp_path)[
    tmp_path / f"{source}.o"
  ]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr


# [B, H, W, N, D], kernel, dilation, border. Head widths 4 to 64 with square windows use the tensor
# cores in bfloat16, with windows of 7 in float16 too.
CASES = [
  ((2, 9, 13, 3, 8), 7, 1, "zero"),
  ((1, 14, 14, 8, 32), 7, 1, "mask"),
  ((3, 1, 1, 1, 16), 7, 2, "zero"),
  ((1, 23, 8, 2, 64), 7, (2, 1), "mask"),
  ((2, 9, 30, 3, 8), 3, 1, "mask"),
  ((1, 14, 14, 2, 64), 3, 1, "zero"),
  ((2, 19, 7, 2, 16), 5, (1, 2), "zero"),
  ((1, 15, 13, 3, 32), 9, 1, "mask"),
  ((1, 12, 20, 3, 16), 11, 1, "zero"),
  ((2, 10, 31, 3, 4), 3, 1, "mask"),
  ((2, 5, 6, 2, 12), 5, 1, "mask"),
  ((1, 7, 19, 2, 128), (3, 11), 1, "zero"),
  # One kernel computes the backward pass in bfloat16, on an H100 or H200.
  ((128, 28, 29, 2, 8), 7, 1, "mask"),
  ((64, 29, 28, 2, 16), 7, 1, "zero"),
]
TOLERANCES = {tf.float32: 2e-5, tf.float16: 4e-3, tf.bfloat16: 2e-2}


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("shape", "kernel", "dilation", "border"), CASES)
def test_equals_the_reference(shape, kernel, dilation, border, dtype, mode):
  generator = tf.random.Generator.from_seed(1)
  rows, columns = window_geometry(kernel).kernel_size
  *maps, upstream = (tf.cast(generator.normal(shape), dtype) for _ in range(4))
  tables = [0.3 * generator.normal([size, shape[-1] // 2]) for size in (rows, columns)]

  def results(arguments, upstream, implementation):
    with tf.GradientTape() as tape:
      tape.watch(arguments)
      output = ops.local_attention_2d(
        *arguments,
        kernel_size=kernel,
        dilation_rate=dilation,
        border=border,
        implementation=implementation,
      )
    return [output, *tape.gradient(output, arguments, upstream)]

  exact = [tf.cast(x, tf.float64) for x in (*maps, *tables)]
  expected = results(exact, tf.cast(upstream, tf.float64), "reference")
  run = results if mode == "eager" else tf.function(results, jit_compile=mode == "jit")
  found = run([*maps, *tables], upstream, "fused")
  for name, a, b in zip(("output", "q", "k", "v", "rows", "columns"), found, expected, strict=True):
    size = tf.norm(b) + 1e-3 * tf.sqrt(tf.cast(tf.size(b), tf.float64))
    error = float(tf.norm(tf.cast(a, tf.float64) - b) / size)
    assert error < TOLERANCES[dtype], name
  again = run([*maps, *tables], upstream, "fused")
  assert all(bool(tf.reduce_all(a == b)) for a, b in zip(found, again, strict=True))


# [B, H, W, N, D], kernel, dilation. In bfloat16, the kernels pool in the first five, in float16 in
# the first four.
POOLED = [
  ((2, 8, 14, 3, 8), 7, 1),
  ((1, 28, 6, 2, 16), 7, 1),
  ((2, 14, 14, 2, 32), 7, 1),
  ((1, 2, 18, 1, 64), 7, 1),
  ((1, 8, 8, 2, 16), 5, 1),
  ((1, 9, 8, 2, 16), 7, 1),
  ((1, 8, 8, 2, 16), 7, 2),
  ((1, 8, 8, 2, 12), 5, 1),
]


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("shape", "kernel", "dilation"), POOLED)
def test_pooled_output_equals_the_reference(shape, kernel, dilation, dtype, mode):
  generator = tf.random.Generator.from_seed(1)
  batch, height, width, heads, depth = shape
  projected = tf.cast(generator.normal([batch, height, width, 3, heads, depth]), dtype)
  tables = [0.3 * generator.normal([kernel, depth // 2]) for _ in range(2)]
  means = [batch, -(-height // 2), -(-width // 2), heads, depth]
  upstream = tf.cast(generator.normal(means), dtype)

  def results(projected, tables, upstream, implementation):
    with tf.GradientTape() as tape:
      tape.watch([projected, tables])
      output = ops.local_attention_2d_qkv_packed(
        projected,
        *tables,
        kernel_size=kernel,
        dilation_rate=dilation,
        implementation=implementation,
        pool_size=2,
      )
    return [output, *tf.nest.flatten(tape.gradient(output, [projected, tables], upstream))]

  arguments = [projected, tables, upstream]
  exact = tf.nest.map_structure(lambda x: tf.cast(x, tf.float64), arguments)
  expected = results(*exact, "reference")
  run = results if mode == "eager" else tf.function(results, jit_compile=True)
  found = run(*arguments, "fused")
  for name, a, b in zip(("output", "projected", "rows", "columns"), found, expected, strict=True):
    error = float(tf.norm(tf.cast(a, tf.float64) - b) / tf.norm(b))
    assert error < TOLERANCES[dtype], name


# [B, H, W, N] and the window, with 64 channels and heads 8 wide: the forward kernel has the
# projections inside, and that of the backward pass can have them.
PROJECTED = [
  ((2, 56, 56, 8), 7),
  ((1, 17, 16, 3), 7),
  ((1, 33, 57, 1), 7),
  ((3, 18, 29, 2), 7),
  ((2, 56, 56, 8), 3),
  ((1, 17, 29, 3), 3),
  ((2, 56, 56, 8), 5),
  ((1, 33, 57, 1), 5),
]


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("projects_backward", [False, True])
@pytest.mark.parametrize(("shape", "kernel_size"), PROJECTED)
def test_projections_inside_equal_the_reference(
  monkeypatch, shape, kernel_size, projects_backward, border
):
  generator = tf.random.Generator.from_seed(1)
  *size, heads = shape
  filters = 8 * heads
  inputs = tf.cast(generator.normal([*size, 64]), tf.bfloat16)
  kernels = [tf.cast(generator.normal([64, filters]) / 8, tf.bfloat16) for _ in range(3)]
  tables = [0.3 * generator.normal([kernel_size, 4]) for _ in range(2)]
  upstream = tf.cast(generator.normal([*size, heads, 8]), tf.bfloat16)

  def attend(inputs, kernels, tables, implementation):
    return ops.local_self_attention_2d(
      inputs,
      kernels,
      *tables,
      num_heads=heads,
      kernel_size=kernel_size,
      border=border,
      implementation=implementation,
    )

  def results(inputs, kernels, tables, upstream, implementation):
    with tf.GradientTape() as tape:
      tape.watch([inputs, kernels, tables])
      output = attend(inputs, kernels, tables, implementation)
    return [output, *tf.nest.flatten(tape.gradient(output, [inputs, kernels, tables], upstream))]

  calls = []
  projected_forward = fused._projected_forward
  monkeypatch.setattr(
    fused, "_projected_forward", lambda *a: calls.append(a) or projected_forward(*a)
  )
  backward_calls = []
  projected_backward = fused._projected_backward
  monkeypatch.setattr(
    fused, "_projected_backward", lambda *a: backward_calls.append(a) or projected_backward(*a)
  )
  monkeypatch.setattr(limits, "projected_backward_is_faster", lambda *a: projects_backward)
  arguments = [inputs, kernels, tables, upstream]
  exact = tf.nest.map_structure(lambda x: tf.cast(x, tf.float64), arguments)
  expected = results(*exact, "reference")
  run = tf.function(results, jit_compile=True)
  found = run(*arguments, "fused")
  infer = tf.function(attend, jit_compile=True)
  found.append(infer(*arguments[:3], "fused"))
  assert len(calls) == 2
  supported = kernel_size in (3, 7) and shape[2] <= 56 and library.gpu_capability() == (9, 0)
  assert len(backward_calls) == (projects_backward and supported)
  names = ("output", "inputs", "query", "key", "value", "rows", "columns", "inference")
  for name, a, b in zip(names, found, [*expected, expected[0]], strict=True):
    error = float(tf.norm(tf.cast(a, tf.float64) - b) / tf.norm(b))
    assert error < 2e-2, (name, error)
  again = [*run(*arguments, "fused"), infer(*arguments[:3], "fused")]
  assert all(bool(tf.reduce_all(a == b)) for a, b in zip(found, again, strict=True))


# [B, H, W], channels, heads and pool size. Both numbers of channels have a kernel.
PROJECTION_GRADIENTS = [
  ((2, 56, 56), 64, 8, 1),
  ((1, 17, 19), 64, 8, 1),
  ((2, 28, 28), 128, 8, 2),
  ((3, 9, 10), 128, 4, 1),
]


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize(("size", "channels", "heads", "pool_size"), PROJECTION_GRADIENTS)
def test_gradients_of_projections_equal_those_of_products(
  monkeypatch, size, channels, heads, pool_size
):
  generator = tf.random.Generator.from_seed(1)
  inputs = tf.cast(generator.normal([*size, channels]), tf.bfloat16)
  kernels = [tf.cast(generator.normal([channels, channels]) / 16, tf.bfloat16) for _ in range(3)]

  def gradients(inputs, kernels):
    with tf.GradientTape() as tape:
      tape.watch([inputs, kernels])
      output = ops.local_self_attention_2d(
        inputs, kernels, num_heads=heads, pool_size=pool_size, implementation="fused"
      )
      loss = tf.reduce_sum(tf.cast(tf.sin(output), tf.float32))
    return tf.nest.flatten(tape.gradient(loss, [inputs, kernels]))

  with monkeypatch.context() as patch:
    patch.setattr(fused_projection, "is_faster", lambda projection: False)
    expected = tf.function(gradients, jit_compile=True)(inputs, kernels)
  monkeypatch.setattr(fused_projection, "_MIN_ELEMENTS", 1)
  calls = []
  kernel = fused_projection._gradients
  monkeypatch.setattr(fused_projection, "_gradients", lambda *a: calls.append(a) or kernel(*a))
  run = tf.function(gradients, jit_compile=True)
  found = run(inputs, kernels)
  assert len(calls) == (library.gpu_capability() == (9, 0))
  for a, b in zip(found, expected, strict=True):
    assert float(tf.norm(tf.cast(a - b, tf.float32)) / tf.norm(tf.cast(b, tf.float32))) < 5e-3
  assert all(bool(tf.reduce_all(a == b)) for a, b in zip(found, run(inputs, kernels), strict=True))


# [B, H, W], block, C, N, D. In half precision, blocks of 4 x 4 with heads of width 16 use the
# tensor cores.
STEMS = [
  ((2, 9, 13), (4, 4), 3, 4, 16),
  ((1, 20, 75), (4, 4), 3, 5, 16),
  ((3, 7, 6), (4, 4), 1, 1, 16),
  ((1, 10, 6), (2, 3), 3, 2, 8),
  ((2, 16, 9), (8, 8), 4, 2, 20),
]


@pytest.fixture
def exact_products():
  """Of stock operations, in float32 instead of TensorFloat-32."""
  enabled = tf.config.experimental.tensor_float_32_execution_enabled()
  tf.config.experimental.enable_tensor_float_32_execution(False)
  yield
  tf.config.experimental.enable_tensor_float_32_execution(enabled)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_products")
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("mode", ["graph", "jit"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("size", "block", "channels", "heads", "depth"), STEMS)
def test_stem_attention_equals_tensorflow_operations(
  size, block, channels, heads, depth, dtype, mode
):
  generator = tf.random.Generator.from_seed(1)
  projection = [channels, heads, depth]
  images = tf.cast(generator.normal([*size, channels]), dtype)
  kernels = [generator.normal(projection), generator.normal(projection)]
  kernels.append(generator.normal([block[0] * block[1], *projection]))
  upstream = tf.cast(generator.normal([*size, heads * depth]), dtype)

  def results(images, kernels, upstream):
    with tf.GradientTape() as tape:
      tape.watch(kernels)
      output = block_attention_2d_absorbed(
        images, *kernels, block_size=block, scale=0.5 * depth**-0.5
      )
    return [output, *tape.gradient(output, kernels, upstream)]

  arguments = (images, kernels, upstream)
  expected = results(*tf.nest.map_structure(lambda x: tf.cast(x, tf.float64), arguments))
  run = tf.function(results, jit_compile=mode == "jit")
  graph = run.get_concrete_function(*arguments).graph
  assert "XlaCallModule" in {operation.type for operation in graph.get_operations()}
  found = run(*arguments)
  for name, a, b in zip(("output", "query", "key", "values"), found, expected, strict=True):
    size = tf.norm(b) + 1e-3 * tf.sqrt(tf.cast(tf.size(b), tf.float64))
    error = float(tf.norm(tf.cast(a, tf.float64) - b) / size)
    assert error < TOLERANCES[dtype], name
  again = run(*arguments)
  assert all(bool(tf.reduce_all(a == b)) for a, b in zip(found, again, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="there is no NVIDIA GPU")
def test_eager_stem_attention_uses_tensorflow_operations():
  """Because eager execution would compute the gradient of the pixels even if it is not used."""
  images = tf.random.normal([1, 8, 8, 3])
  kernels = [tf.random.normal(shape) for shape in ([3, 2, 8], [3, 2, 8], [16, 3, 2, 8])]

  def attend():
    return block_attention_2d_absorbed(images, *kernels)

  with ops.use_implementation("reference"):
    stock = attend()
  assert bool(tf.reduce_all(attend() == stock))
