"""Random problems of the operation: every implementation and mode against the reference."""

import numpy as np
import tensorflow as tf

from sasa_tf import ops
from tests.ops.cases import TOLERANCE, Case, output_and_gradients

MODES = ("eager", "graph", "jit", "unknown sizes", "jit, unknown sizes")
_NUMBERS = (np.nan, np.inf, -np.inf)


def _draw_case(generator):
  """Returns a geometry; every tenth size is 0."""
  size = lambda limit: 0 if generator.random() < 0.1 else int(generator.integers(1, limit))  # noqa: E731
  shape = (size(3), size(20), size(24), size(4), 2 * size(5))
  odd = [int(2 * generator.integers(0, 5) + 1) for _ in range(2)]
  rates = [int(generator.integers(1, 4)) for _ in range(2)]
  return Case(shape, tuple(odd), tuple(rates), str(generator.choice(["zero", "mask"])))


def _draw_tensors(generator, case, absent, packed):
  """Returns the float64 arrays [query, key, value or packed QKV, tables], without absent ones."""
  maps = [generator.normal(size=case.shape) for _ in range(2 if absent == "key" else 3)]
  if packed:
    maps = [np.stack(maps, axis=3)]
  if absent == "tables":
    return maps
  half = case.shape[4] // 2
  return maps + [generator.normal(size=(kernel, half)) for kernel in case.kernel_size]


def _attend(case, implementation, absent, pool_size, scale):
  """Returns a function of the tensors of `_draw_tensors`; pool_size 0 is not packed."""
  arguments = {**case.arguments, "implementation": implementation, "scale": scale}

  def attend(*tensors):
    if pool_size:
      return ops.local_attention_2d_qkv_packed(*tensors, pool_size=pool_size, **arguments)
    query, *rest = tensors
    return ops.local_attention_2d(query, *([None] if absent == "key" else []), *rest, **arguments)

  return attend


def _compute(attend, tensors, mode, maps):
  """Returns [output, gradients]; the sizes of the first `maps` tensors may be unknown."""
  compute = lambda *tensors: output_and_gradients(attend, tensors)  # noqa: E731
  if mode == "eager":
    return compute(*tensors)
  signature = None
  if "unknown" in mode:
    unknown = [
      tf.TensorSpec([None, None, None, *t.shape[3:]], t.dtype)
      if index < maps or index == len(tensors) - 1
      else tf.TensorSpec(t.shape, t.dtype)
      for index, t in enumerate(tensors)
    ]
    signature = unknown
  function = tf.function(
    compute, input_signature=signature, jit_compile="jit" in mode, autograph=False
  )
  return function(*tensors)


def _compare(found, expected, tolerance, finite, maps):
  """Compares [output, gradients of `maps` tensors and of the tables] with the reference's."""
  queries = float(np.prod(found[0].shape[:4]))
  for index, (actual, wanted) in enumerate(zip(found, expected, strict=True)):
    if index == maps + 1:  # gradients of the tables are sums over queries, as are their errors
      tolerance *= max(1.0, queries**0.5 / 8)
    a, w = (tf.cast(t, tf.float64).numpy() for t in (actual, wanted))
    assert a.shape == w.shape, f"tensor {index}: {a.shape}, expected {w.shape}"
    if not finite:
      hidden = ~np.isfinite(w) & np.isfinite(a)
      assert not hidden.any(), f"tensor {index} hides {np.argwhere(hidden)[:3].tolist()}"
    elif a.size:
      assert np.isfinite(a).all(), f"tensor {index} is not finite"
      error = np.abs(a - w).max() / max(1.0, np.abs(w).max())
      assert error <= tolerance, f"tensor {index} differs by {error:.1e}"


def check(seed, directory):
  """Raises an error unless an implementation agrees with the reference; returns a description."""
  del directory
  generator = np.random.default_rng(seed)
  case = _draw_case(generator)
  absent = str(generator.choice(["key", "tables", "", ""]))
  pool_size = int(generator.choice([0, 0, 1, 2]))
  implementation = str(generator.choice(ops.available_implementations()))
  mode = str(generator.choice(MODES))
  dtypes = list(TOLERANCE) if implementation != "fused" else list(TOLERANCE)[1:]
  dtype = dtypes[int(generator.integers(len(dtypes)))]
  scale = float(generator.choice([1.0, 0.25]))
  arrays = _draw_tensors(generator, case, absent, pool_size)
  maps = len(arrays) - (0 if absent == "tables" else 2)
  finite = generator.random() < 0.75
  if not finite:
    index = int(generator.integers(len(arrays)))
    array = arrays[index]
    if array.size:
      array.flat[int(generator.integers(array.size))] = generator.choice(_NUMBERS)
  tensors = [tf.cast(tf.constant(array), dtype) for array in arrays]
  described = f"{case}, {implementation}, {mode}, {dtype.name}, absent={absent}, pool={pool_size}"
  try:
    attend = _attend(case, implementation, absent, pool_size, scale)
    reference = _attend(case, "reference", absent, pool_size, scale)
    exact = [tf.cast(t, tf.float64 if finite else dtype) for t in tensors]
    output = reference(*exact)
    upstream = tf.constant(generator.normal(size=output.shape))
    expected = output_and_gradients(reference, [*exact, tf.cast(upstream, exact[0].dtype)])
    found = _compute(attend, [*tensors, tf.cast(upstream, dtype)], mode, maps)
    _compare(found, expected, 3 * TOLERANCE[dtype], finite, maps)
  except Exception as error:
    raise AssertionError(f"{described}: {type(error).__name__}: {str(error)[:300]}") from error
  return described
