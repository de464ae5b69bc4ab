"""The limits of Python and of the C++ sources are the same."""

import ctypes
import dataclasses
import itertools
import pathlib
import re

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.native import cache, library, limits
from sasa_tf.ops.checks import window_geometry
from sasa_tf.ops.compiled import fused_projection, fused_stem
from sasa_tf.ops.compiled.local_attention_stablehlo import LocalAttentionCall

needs_library = pytest.mark.skipif(
  not ops.kernel_status().usable, reason="the compiled kernels have not been built"
)
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Problem:
  """A problem of local attention that both platforms and the tensor cores support."""

  batch: int = 2
  height: int = 14
  width: int = 14
  heads: int = 8
  depth: int = 16
  kernel: tuple[int, int] = (7, 7)
  parts: int = 3
  dtype: str = "bfloat16"
  scale: float = 1.0

  @property
  def shape(self):
    return (self.batch, self.height, self.width, self.heads, self.depth)

  @property
  def sizes(self):
    values = (*self.shape, *self.kernel, 1, 1, self.parts, DTYPES.index(self.dtype), 1)
    return (ctypes.c_int64 * len(values))(*values)


def problems():
  """Problems with one or two fields at the edges of the limits."""
  edges = {
    "batch": (1, 2**20, 2**28),
    "height": (1, 2**12, 2**13, 2**16),
    "width": (2**12, 2**15 - 1, 2**15),
    "heads": (1, 1023, 1024, 1025),
    "depth": (1, 2, 3, 4, 6, 7, 8, 12, 24, 32, 63, 64, 96, 124, 127, 128, 129, 132, 256),
    "kernel": tuple(itertools.product((1, 3, 5, 7, 9, 11, 13), repeat=2)),
    "parts": (1, 2, 3),
    "dtype": DTYPES,
    "scale": (0.009, 0.011, 0.5),
  }
  choices = [(name, value) for name, values in edges.items() for value in values]
  for one, other in itertools.combinations(choices, 2):
    yield dataclasses.replace(
      Problem(), **dict([one]), **(dict([other]) if one[0] != other[0] else {})
    )
  # 2**32 and 2**31 elements, and one less or more.
  for batch in (2**14 - 1, 2**14, 2**14 + 1):
    yield Problem(batch, 2**5, 2**5, 2**4, 2**4, parts=1)
  for width in (2**11 - 1, 2**11, 2**11 + 1):
    yield Problem(1, 2**11, width, 2**4, 2**5, parts=1)
    yield Problem(2**5, 2**11, width, 2**4, 2**2, parts=1)


@needs_library
def test_local_attention_limits_equal_those_of_cpp():
  library = ctypes.CDLL(str(cache.library_path()))
  supported = library.sasa_tf_local_attention_supported
  supported.restype = ctypes.c_bool
  tensor_cores = library.sasa_tf_local_attention_uses_tensor_cores
  tensor_cores.restype = ctypes.c_bool
  outcomes = set()
  for p in problems():
    for platform in ("CPU", "CUDA"):
      reason = limits.local_attention_unsupported(platform, p.kernel, p.shape, qkv_parts=p.parts)
      expected = supported(p.sizes, ctypes.c_float(p.scale), platform == "CUDA")
      assert (reason is None) == expected, (p, platform, reason)
      outcomes.add(re.sub(r"\d+|\(.*?\)", "", reason or "supported"))
    found = limits.uses_tensor_cores(p.dtype, p.kernel, p.shape, p.scale, qkv_parts=p.parts)
    assert found == tensor_cores(p.sizes, ctypes.c_float(p.scale)), p
    outcomes.add(found)
  assert len(outcomes) == 9, outcomes  # six reasons, supported, and both values of tensor cores


@needs_library
def test_limits_of_projections_equal_those_of_cpp():
  library = ctypes.CDLL(str(cache.library_path()))
  supported = library.sasa_tf_local_attention_supports_projections
  backward = library.sasa_tf_local_attention_supports_projected_backward
  supported.restype = backward.restype = ctypes.c_bool
  outcomes, backward_outcomes = set(), set()
  for dtype, kernel, depth, channels, size, scale in itertools.product(
    DTYPES,
    ((3, 3), (5, 5), (7, 7), (7, 5), (9, 9)),
    (4, 8, 16),
    (32, 64, 128),
    ((56, 56), (56, 57), (56, 58), (2**20, 32), (2**20 - 1, 32)),
    (0.009, 1.0),
  ):
    p = Problem(1, *size, heads=1, depth=depth, kernel=kernel, dtype=dtype, scale=scale)
    found = limits.supports_projections(dtype, kernel, p.shape, channels, scale)
    expected = supported(p.sizes, ctypes.c_float(scale), ctypes.c_int64(channels))
    assert found == expected, (p, channels)
    outcomes.add((found, size))
    found = limits.supports_projected_backward(dtype, kernel, p.shape, channels, scale)
    expected = backward(p.sizes, ctypes.c_float(scale), ctypes.c_int64(channels))
    assert found == expected, (p, channels)
    backward_outcomes.add((found, kernel, size))
  assert len(outcomes) == 8, outcomes  # supported or not, but not all sizes are
  sizes = ((56, 56), (2**20 - 1, 32))
  expected = {(True, kernel, size) for kernel in ((3, 3), (7, 7)) for size in sizes}
  assert {outcome for outcome in backward_outcomes if outcome[0]} == expected
  assert not limits.supports_projections("bfloat16", (7, 7), (1, 56, None, 8, 8), 64, 1.0)


@needs_library
def test_speed_of_the_projected_backward_pass_equals_that_of_cpp():
  library = ctypes.CDLL(str(cache.library_path()))
  is_faster = library.sasa_tf_local_attention_projected_backward_is_faster
  is_faster.restype = ctypes.c_bool
  outcomes = set()
  for kernel, batch, side, heads in itertools.product(
    ((3, 3), (7, 7)), range(1, 140), (27, 28, 56), (1, 7, 8)
  ):
    p = Problem(batch, side, 56, heads=heads, depth=8, kernel=kernel, dtype="bfloat16")
    found = limits.projected_backward_is_faster(kernel, p.shape)
    assert found == is_faster(p.sizes), p
    outcomes.add((found, kernel[0], batch, side, heads))
  assert {(True, 7, 32, 56, 8), (False, 7, 48, 56, 8), (True, 3, 48, 56, 8)} <= outcomes
  assert {(True, 7, 128, 28, 8), (False, 7, 128, 27, 8), (True, 7, 132, 56, 1)} <= outcomes
  assert not limits.projected_backward_is_faster((7, 7), (None, 56, 56, 8, 8))


@needs_library
def test_limits_of_the_projections_backward_pass_equal_those_of_cpp():
  library = ctypes.CDLL(str(cache.library_path()))
  supported = library.sasa_tf_projection_backward_supported
  supported.restype = ctypes.c_bool
  outcomes = set()
  for batch, channels, outputs in itertools.product(
    (1, 2**11 - 1, 2**11), (32, 64, 96, 128, 192, 256), (64, 128, 192, 256, 384, 576, 768)
  ):
    shape = (batch, 2**10, 2**10)
    found = limits.supports_projection_backward("bfloat16", shape, channels, outputs)
    sizes = (ctypes.c_int64 * 3)(batch * 2**20, channels, outputs)
    assert found == supported(sizes), (shape, channels, outputs)
    outcomes.add((found, channels, batch))
  assert {(found, channels) for found, channels, _ in outcomes if found} == {
    (True, 64),
    (True, 128),
  }
  assert (True, 64, 2**11) not in outcomes
  assert not limits.supports_projection_backward("float16", (1, 56, 56), 64, 192)
  assert limits.supports_projection_backward("bfloat16", (None, 56, 56), 64, 192)


@needs_library
def test_stem_attention_limits_equal_those_of_cpp():
  supported = ctypes.CDLL(str(cache.library_path())).sasa_tf_stem_attention_supported
  supported.restype = ctypes.c_bool
  cases = itertools.product(
    ((1, 8, 8), (2**17, 2**7, 2**7 - 1), (2**17, 2**7, 2**7), (1, 2**14, 2**13), (1, 2**13, 2**13)),
    (1, 2, 3, 4, 5),
    ((1, 1), (4, 4), (8, 8), (5, 13), (64, 1), (1, 65)),
    (1, 2),
    (1, 7, 16, 128, 129),
  )
  for size, channels, block, heads, depth in cases:
    values = (*size, channels, *block, heads, depth, 0)
    sizes = (ctypes.c_int64 * len(values))(*values)
    for platform in ("CPU", "CUDA"):
      reason = limits.stem_attention_unsupported(platform, block, (*size, channels), depth, heads)
      assert (reason is None) == supported(sizes, platform == "CUDA"), (values, platform, reason)


@needs_library
def test_workspace_sizes_equal_those_of_cpp():
  library = ctypes.CDLL(str(cache.library_path()))
  local, stem = (
    library.sasa_tf_local_attention_workspace_floats,
    library.sasa_tf_stem_attention_workspace_floats,
  )
  local.restype = stem.restype = ctypes.c_int64
  projections = library.sasa_tf_projection_backward_workspace_floats
  projections.restype = ctypes.c_int64
  for outputs in (192, 384):
    scratch = f"tensor<{projections(ctypes.c_int64(outputs))}xf32>"
    assert scratch in fused_projection._call("bf16", outputs // 3, outputs)
  for p in (Problem(), Problem(depth=128, kernel=(3, 11)), Problem(depth=7, kernel=(1, 1))):
    call = LocalAttentionCall(
      *("bf16", p.heads, p.depth, window_geometry(p.kernel), 1.0, True, True, True, ("CPU",))
    )
    tables = int(re.search(r"%partial_tables = stablehlo.constant dense<(\d+)>", call.backward)[1])
    assert tables + p.batch * p.height * p.width * p.heads == local(p.sizes)
  for positions, channels, heads, depth in itertools.product((1, 16, 64), (1, 3), (1, 8), (5, 128)):
    values = (1, 8, 8, channels, positions, 1, heads, depth, 0)
    found = fused_stem._scratch_floats(positions, channels, heads, depth)
    assert found == stem((ctypes.c_int64 * len(values))(*values))


def test_docs_name_the_tensor_core_kernels():
  text = (pathlib.Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8")
  _, table, _ = re.split(r"<!-- /?paths -->\n", text)
  header, _, *rows = [line.strip("| \n").split(" | ") for line in table.splitlines()]
  windows = itertools.product(range(1, 13, 2), repeat=2)
  expected = {}
  for window in windows:
    widths = []
    for dtype in header[1:]:
      on_tensor_cores = [
        str(depth)
        for depth in range(4, 129, 4)
        if limits.uses_tensor_cores(dtype, window, (2, 14, 14, 8, depth), 1.0)
      ]
      widths.append(", ".join(on_tensor_cores) or "none")
    expected.setdefault(
      "others" if set(widths) == {"none"} else f"{window[0]} x {window[1]}", widths
    )
  assert {name: widths for name, *widths in rows} == expected


def test_constants_are_found_without_a_library():
  constants = limits.constants()
  assert constants["kMaxKernelSize"] == 11
  assert constants["kTableWorkers"] == 1024
  assert constants["kMinTensorCoreScale"] == 0.01
  assert constants["kMaxStemChannels"] == 4


@pytest.mark.parametrize(
  ("kernel", "shape", "reason"),
  [
    ((13, 3), (None, None, None, 1, 8), "up to 11 rows and columns, not"),
    ((7, 7), (None, None, None, 1, 132), "width up to 128, not 132"),
    ((1, 3), (None, None, None, 1, 6), "divisible by 4, not 6"),
    ((3, 1), (None, None, None, 1, 8), "windows of 3 columns or more"),
    ((1, 3), (None, None, None, 1, 8), None),
  ],
)
def test_unknown_sizes_are_no_limit(kernel, shape, reason):
  found = limits.local_attention_unsupported("CUDA", kernel, shape)
  assert found is None if reason is None else reason in found


def test_packed_tensors_are_checked_as_a_whole(monkeypatch):
  """On a GPU, an image of the packed tensor has fewer than 2**31 elements; nothing is allocated."""
  monkeypatch.setattr(library, "load", lambda: library.Library(("CPU", "CUDA")))
  side = 2**11 * 7

  def trace(shape):
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.bfloat16)])
    def attend(qkv):
      return ops.local_attention_2d_qkv_packed(qkv, implementation="fused")

    with ops.use_target_device("GPU"):
      return attend.get_concrete_function()

  assert trace([1, side, side // 8, 3, 1, 16])
  assert side * side // 2 * 16 < 2**31 < 3 * side * side // 2 * 16
  with pytest.raises(ValueError, match=r"images of fewer than 2\*\*31 elements"):
    trace([1, side, side // 2, 3, 1, 16])


def test_heads_count_in_the_stem(monkeypatch):
  monkeypatch.setattr(library, "load", lambda: library.Library(("CPU", "CUDA")))
  pixels = tf.TensorSpec([1, 2**13, 2**13, 3], tf.bfloat16)
  with ops.use_target_device("GPU"):
    assert fused_stem.unsupported_reason(pixels, (4, 4), 16, heads=1) is None
    reason = fused_stem.unsupported_reason(pixels, (4, 4), 16, heads=2)
  assert "fewer than 2**31 elements" in reason
