"""Traces for export are recognized, so that "auto" does not put custom calls into them."""

import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.ops.export_context import is_quantizable, is_tracing_for_export


def _recorder():
  """Returns a function to trace and the list of what it saw."""
  seen = []

  def run(x):
    seen.append(is_tracing_for_export())
    return 2.0 * x

  return run, seen


def test_ordinary_tracing_is_not_for_export():
  run, seen = _recorder()
  tf.function(run)(tf.constant(1.0))
  assert seen == [False]


def test_tracing_in_the_context_is_for_export():
  run, seen = _recorder()
  with ops.tracing_for_export():
    with ops.tracing_for_export():
      pass
    tf.function(run).get_concrete_function(tf.TensorSpec([]))
  assert seen == [True]


def test_eager_operations_in_the_context_are_not_for_export():
  with ops.tracing_for_export():
    assert not is_tracing_for_export()


def test_activations_are_quantizable_unless_an_exporter_excludes_it():
  assert is_quantizable()
  with ops.tracing_for_export(quantizable=False):
    with ops.tracing_for_export():  # as the exporters of Keras
      assert not is_quantizable()
    with ops.tracing_for_export(quantizable=True):
      assert is_quantizable()
    assert not is_quantizable()
  assert is_quantizable()


def test_context_exits_on_exceptions():
  run, seen = _recorder()
  with pytest.raises(RuntimeError), ops.tracing_for_export():
    raise RuntimeError
  tf.function(run)(tf.constant(1.0))
  assert seen == [False]


@pytest.mark.parametrize("with_signature", [False, True])
def test_saved_model_save_traces_for_export(tmp_path, with_signature):
  run, seen = _recorder()
  module = tf.Module()
  module.run = tf.function(run, input_signature=[tf.TensorSpec([])])
  tf.saved_model.save(module, str(tmp_path), signatures=module.run if with_signature else None)
  assert seen
  assert all(seen)


@pytest.mark.parametrize("compiled_kernels", [False, True])
def test_auto_selects_compiled_kernels_only_if_the_export_has_them(compiled_kernels):
  def attend(x):
    return ops.local_attention_2d(x, x, x)

  spec = tf.TensorSpec([None, 16, 16, 2, 8])
  with ops.tracing_for_export(compiled_kernels=compiled_kernels):
    exported = tf.function(attend).get_concrete_function(spec)
  calls_kernels = "XlaCallModule" in {node.op for node in exported.graph.as_graph_def().node}
  assert calls_kernels == (compiled_kernels and bool(ops.kernel_status().usable))
