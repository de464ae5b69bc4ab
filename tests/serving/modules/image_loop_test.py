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
  ("run_all", "traced"), [(image_loop.map_images, 1), (image_loop.map_chunks, None)]
)
def test_outputs_of_all_images_are_joined(run_all, traced, batch, monkeypatch):
  monkeypatch.setattr(image_loop, "_CHUNK_PIXELS", 2 * 12)
  sizes = []

  def step(images):
    sizes.append(images.shape[0])
    tf.debugging.assert_less(tf.shape(images)[0], 3)
    means = tf.reduce_mean(images, axis=[1, 2])
    return {"means": means, "labels": tf.argmax(means, axis=1)}

  run = tf.function(lambda images: run_all(step, images))
  images = np.random.default_rng(0).normal(size=[batch, 4, 3, 5]).astype(np.float32)
  function = run.get_concrete_function(tf.TensorSpec([None, 4, 3, 5]))
  found = function(tf.constant(images))
  np.testing.assert_allclose(found["means"], images.mean((1, 2)), atol=1e-6)
  np.testing.assert_array_equal(found["labels"], images.mean((1, 2)).argmax(1))
  assert sizes == [traced]
  assert function.structured_outputs["means"].shape.as_list() == [None, 5]


@pytest.mark.parametrize(("pixels", "parallel"), [(3 * 12, 3), (11, 1)])
def test_fewer_large_images_are_processed_at_the_same_time(pixels, parallel, monkeypatch):
  monkeypatch.setattr(image_loop, "_PARALLEL_PIXELS", pixels)
  run = tf.function(lambda images: image_loop.map_images(lambda x: {"images": x}, images))
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


def test_convolutions_and_fixed_batches_are_no_loop():
  for params, batch in (({"attention_groups": []}, None), ({"attention_groups": [4]}, 3)):
    module = build_module(params_of(width_multiplier=0.0625, **params), batch_size=batch)
    assert "While" not in _kinds(_prepared(module))


def test_compiled_kernels_get_several_images_at_a_time():
  module = build_module(params_of(width_multiplier=0.0625, attention_groups=[4]))
  with tracing_for_export(compiled_kernels=True):
    chunks = module.get_inference_signatures({"prepared": "prepared"})["prepared"]
  assert "TensorListConcatV2" in _kinds(chunks)
  assert "TensorListConcatV2" not in _kinds(_prepared(module))
