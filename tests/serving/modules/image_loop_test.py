"""Exported models with attention run on one or a few images of a batch at a time."""

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.ops import tracing_for_export
from sasa_tf.serving.modules import image_loop
from tests.serving.small_classifier import SIZE, build_module, params_of
from tests.serving.small_detector import random_images


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize(
  ("with_kernels", "device", "largest"), [(True, 0, 2), (False, 0, 1), (False, 1, 3), (False, 2, 1)]
)
def test_outputs_of_all_images_are_joined(with_kernels, device, largest, batch, monkeypatch):
  for name, images in (("_CPU", 1), ("_KERNEL", 2), ("_GPU", 3)):
    monkeypatch.setattr(image_loop, f"{name}_PIXELS", images * 12)
  monkeypatch.setattr(tf.raw_ops, "DeviceIndex", lambda device_names: tf.constant(device))
  numbers = []

  def step(images):
    tf.py_function(lambda number: numbers.append(int(number)), [tf.shape(images)[0]], [])
    means = tf.reduce_mean(images, axis=[1, 2])
    return {"means": means, "labels": tf.argmax(means, axis=1)}

  run = tf.function(lambda images: image_loop.map_chunks(step, images, with_kernels=with_kernels))
  images = np.random.default_rng(0).normal(size=[batch, 4, 3, 5]).astype(np.float32)
  function = run.get_concrete_function(tf.TensorSpec([None, 4, 3, 5]))
  found = function(tf.constant(images))
  np.testing.assert_allclose(found["means"], images.mean((1, 2)), atol=1e-6)
  np.testing.assert_array_equal(found["labels"], images.mean((1, 2)).argmax(1))
  assert max(numbers, default=0) == min(batch, largest) and sum(numbers) == batch
  assert function.structured_outputs["means"].shape.as_list() == [None, 5]


def test_the_device_is_known_where_the_graph_runs():
  run = tf.function(lambda: tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"]))
  with tf.device("/device:CPU:0"):
    assert run() == 0
  assert tf.function(run, jit_compile=True)() == 2


@pytest.mark.gpu
def test_the_device_is_known_on_a_gpu():
  run = tf.function(lambda: tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"]))
  assert run() == 1


@pytest.mark.parametrize(("pixels", "parallel"), [(3 * 12, 3), (11, 1)])
def test_fewer_large_images_are_processed_at_the_same_time(pixels, parallel, monkeypatch):
  monkeypatch.setattr(image_loop, "_PARALLEL_PIXELS", pixels)
  run = tf.function(
    lambda images: image_loop.map_chunks(lambda x: {"images": x}, images, with_kernels=False)
  )
  graph = run.get_concrete_function(tf.TensorSpec([None, 4, 3, 5])).graph.as_graph_def()
  (loop,) = (node for node in graph.node if node.op.endswith("While"))
  assert loop.attr["parallel_iterations"].i == parallel


def _prepared(module):
  with tracing_for_export(quantizable=False):
    return module.get_inference_signatures({"prepared": "prepared"})["prepared"]


def _kinds(function):
  library = function.graph.as_graph_def().library.function
  return {node.op.removeprefix("Stateless") for each in library for node in each.node_def}


@pytest.mark.parametrize("backbone", [{"attention_groups": [4]}, {"stem": "attention"}], ids=str)
def test_classifier_with_attention_is_a_loop(backbone):
  module = build_module(params_of(width_multiplier=0.0625, **{"attention_groups": [], **backbone}))
  signature = _prepared(module)
  assert "While" in _kinds(signature)
  images = tf.cast(tf.stack(random_images([(SIZE, SIZE)] * 3)), tf.float32)
  expected = module.serve_prepared(images)["logits"]
  for batch in (0, 1, 3):
    np.testing.assert_allclose(signature(images[:batch])["logits"], expected[:batch], atol=1e-4)


def test_convolutions_and_small_fixed_batches_are_no_loop():
  for params, batch in (({"attention_groups": []}, None), ({"attention_groups": [4]}, 3)):
    module = build_module(params_of(width_multiplier=0.0625, **params), batch_size=batch)
    assert "While" not in _kinds(_prepared(module))


def test_large_fixed_batches_are_a_loop(monkeypatch):
  """With all images at once, each layer would divide them by the memory of a CPU, on a GPU too."""
  monkeypatch.setattr(image_loop, "_CPU_PIXELS", 2 * SIZE**2)
  params = params_of(width_multiplier=0.0625, attention_groups=[4])
  module = build_module(params, batch_size=3)
  signature = _prepared(module)
  assert {"While", "DeviceIndex"} <= _kinds(signature)
  assert signature.structured_outputs["logits"].shape.as_list() == [3, 10]
  images = tf.cast(tf.stack(random_images([(SIZE, SIZE)] * 3)), tf.float32)
  expected = module.serve_prepared(images)["logits"]
  np.testing.assert_allclose(signature(images)["logits"], expected, atol=1e-4)
  with tracing_for_export(compiled_kernels=True):  # 32 images of this size at once
    kernels = module.get_inference_signatures({"prepared": "prepared"})["prepared"]
  assert "While" not in _kinds(kernels)


@pytest.mark.parametrize(
  "shape", [[1, SIZE + 2, SIZE, 3], [1, 2 * SIZE, 2 * SIZE, 3], [1, SIZE, SIZE, 4]]
)
def test_images_of_another_size_are_named(shape, tmp_path):
  module = build_module(params_of(width_multiplier=0.0625, attention_groups=[4]))
  signature = _prepared(module)
  exported = tf.Module()
  exported.model = module.model
  tf.saved_model.save(exported, str(tmp_path), signatures={"prepared": signature})
  loaded = tf.saved_model.load(str(tmp_path)).signatures["prepared"]
  with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{SIZE},{SIZE},3"):
    loaded(images=tf.zeros(shape))


def test_only_stock_operations_depend_on_the_device():
  module = build_module(params_of(width_multiplier=0.0625, attention_groups=[4]))
  with tracing_for_export(compiled_kernels=True):
    kernels = module.get_inference_signatures({"prepared": "prepared"})["prepared"]
  assert "While" in _kinds(kernels) and "DeviceIndex" not in _kinds(kernels)
  assert "DeviceIndex" in _kinds(_prepared(module))
