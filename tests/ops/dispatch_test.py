"""Selection of an implementation, and how to override it."""

import logging

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops import dispatch
from sasa_tf.ops.checks import window_geometry

SEVEN, ONE = window_geometry(7), window_geometry(1)

# What "auto" selects for ordinary inputs.
BEST = "fused" if "fused" in ops.available_implementations() else "blocked"


@pytest.fixture(autouse=True)
def _no_environment_variable(monkeypatch):
  monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)


def _selected(geometry=SEVEN, window_mask=True, shape=(2, 14, 14, 8, 32), dtype=tf.float32):
  request = dispatch.AttentionRequest(tf.zeros(shape, dtype), geometry, window_mask)
  return dispatch.select("auto", request).name


def test_reference_is_listed_first():
  assert ops.available_implementations()[:2] == ("reference", "blocked")


def test_selection_rules():
  assert _selected() == BEST
  assert _selected(dtype=tf.float64) == "blocked"
  assert _selected(window_geometry(13)) == "blocked"
  assert _selected(ONE) == "reference"
  assert _selected(ONE, window_mask=False) == "blocked"
  assert _selected(shape=(1, 4, 4, 1, 2)) == "reference"
  assert _selected(shape=(1, 4, 4, 1, 2), window_mask=False) == "blocked"


def test_selection_in_a_graph_does_not_need_the_shape():
  selected = []

  @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1, 2])])
  def trace(x):
    selected.append(dispatch.select("auto", dispatch.AttentionRequest(x, SEVEN, True)).name)
    return x

  trace(tf.zeros([1, 4, 4, 1, 2]))
  assert selected == [BEST]


def test_environment_variable(monkeypatch):
  monkeypatch.setenv("SASA_TF_IMPLEMENTATION", "reference")
  assert _selected() == "reference"
  monkeypatch.setenv("SASA_TF_IMPLEMENTATION", "auto")
  assert _selected() == BEST
  monkeypatch.setenv("SASA_TF_IMPLEMENTATION", "fastest")
  with pytest.raises(ValueError, match=r"SASA_TF_IMPLEMENTATION must be one of .*'fastest'"):
    _selected()


def test_context_manager_overrides_environment_variable(monkeypatch):
  monkeypatch.setenv("SASA_TF_IMPLEMENTATION", "reference")
  with ops.use_implementation("blocked"):
    assert _selected() == "blocked"
    with ops.use_implementation("auto"):
      assert _selected(ONE) == "reference"
      assert _selected() == BEST
  assert _selected() == "reference"


def test_context_manager_exits_on_exceptions():
  with pytest.raises(RuntimeError), ops.use_implementation("reference"):
    raise RuntimeError
  assert _selected() == BEST


def test_context_manager_rejects_unknown_names():
  with pytest.raises(ValueError, match="received 'fastest'"), ops.use_implementation("fastest"):
    pass


def test_argument_overrides_context_manager():
  x = tf.ones([1, 3, 3, 1, 2])
  with (
    ops.use_implementation("blocked"),
    pytest.raises(ValueError, match="'reference' gathers each window exactly"),
  ):
    ops.local_attention_2d(x, x, x, window_mask=False, implementation="reference")


def test_each_selection_is_logged_once(caplog):
  dispatch._log_selection.cache_clear()
  x = tf.ones([1, 64, 64, 4, 8])
  with caplog.at_level(logging.INFO, logger="sasa_tf.ops.dispatch"):
    for kernel_size in (3, 3, 1, 5, 1):
      ops.local_attention_2d(x, x, x, kernel_size=kernel_size)
    ops.local_attention_2d(x, x, x, implementation="reference")
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 2
  assert f"'{BEST}': " in messages[0]
  assert "'reference': windows of one pixel" in messages[1]


def test_autograph_does_not_warn():
  """The functions of a training loop are converted by AutoGraph, with all that they call."""
  warnings = []
  handler = logging.Handler(logging.WARNING)
  handler.emit = warnings.append
  tf.get_logger().addHandler(handler)
  try:
    tensors = [tf.ones([1, 4, 4, 2, 8])] * 3
    tf.function(ops.local_attention_2d)(*tensors, kernel_size=3)
    tf.function(ops.block_attention_2d)(*tensors, block_size=2)
  finally:
    tf.get_logger().removeHandler(handler)
  assert not warnings, warnings[0].getMessage()
