"""The signatures of exported classifiers: names of inputs, equal outputs, odd batches."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sasa_tf.ops import tracing_for_export
from tests.serving.example_protos import image_example
from tests.serving.small_classifier import SIZE, build_module, params_of
from tests.serving.small_detector import random_images

KINDS = ("image_tensor", "image_bytes", "tf_example", "prepared")


@pytest.fixture(scope="module")
def module():
  return build_module(params_of(width_multiplier=0.0625, attention_groups=[4]))


@pytest.fixture(scope="module")
def signatures(module):
  with tracing_for_export():
    return module.get_inference_signatures({kind: kind for kind in KINDS})


@pytest.fixture(scope="module")
def images():
  return np.stack(random_images([(40, 50)] * 3))


def encode(pixels, image_format="PNG", mode=None):
  content = io.BytesIO()
  image = Image.fromarray(pixels)
  (image.convert(mode) if mode else image).save(content, image_format)
  return content.getvalue()


def assert_equal(found, expected):
  assert set(found) == {"logits", "probs"}
  for name, values in expected.items():
    # The rounding of logits differs between batches and threads.
    np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def test_inputs_have_the_documented_names_and_shapes(signatures):
  inputs = {
    name: signature.structured_input_signature[0][0] for name, signature in signatures.items()
  }
  assert {name: (spec.name, spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
    "image_tensor": ("images", tf.uint8, [None, None, None, 3]),
    "image_bytes": ("image_bytes", tf.string, [None]),
    "tf_example": ("example_bytes", tf.string, [None]),
    "prepared": ("images", tf.float32, [None, SIZE, SIZE, 3]),
  }


def test_all_signatures_share_one_model_step(signatures):
  steps = set()
  for signature in signatures.values():
    calls = [op for op in signature.graph.get_operations() if "PartitionedCall" in op.type]
    steps.add(calls[-1].get_attr("f").name)
    assert len(signature.graph.get_operations()) < 400
  assert len(steps) == 1


def test_signatures_agree(signatures, images):
  expected = signatures["image_tensor"](tf.constant(images))
  assert np.ptp(expected["probs"], axis=0).max() > 1e-3
  encoded = [encode(image) for image in images]
  assert_equal(signatures["image_bytes"](tf.constant(encoded)), expected)
  examples = [image_example(each) for each in encoded]
  assert_equal(signatures["tf_example"](tf.constant(examples)), expected)


def test_prepared_images_are_not_preprocessed(signatures):
  images = np.stack(random_images([(SIZE, SIZE)] * 2))
  module = build_module(params_of(width_multiplier=0.0625, attention_groups=[4]))
  module.params.task.validation_data.aug_crop = False
  expected = module.serve(tf.constant(images))
  assert_equal(signatures["prepared"](tf.cast(images, tf.float32)), expected)


def test_empty_batch(signatures):
  empty = {
    "image_tensor": tf.zeros([0, 40, 50, 3], tf.uint8),
    "image_bytes": tf.zeros([0], tf.string),
    "tf_example": tf.zeros([0], tf.string),
    "prepared": tf.zeros([0, SIZE, SIZE, 3]),
  }
  for kind, inputs in empty.items():
    assert signatures[kind](inputs)["probs"].shape == (0, 10), kind


def test_grayscale_and_transparent_images(signatures, images):
  gray, opaque = encode(images[0], mode="L"), encode(images[0], mode="RGBA")
  palette = encode(images[0], "GIF", mode="P")
  found = signatures["image_bytes"](tf.constant([gray, opaque, encode(images[0]), palette]))
  np.testing.assert_allclose(found["probs"][1], found["probs"][2], atol=1e-6)
  colors = np.repeat(np.asarray(Image.open(io.BytesIO(gray)))[..., None], 3, axis=-1)
  expected = signatures["image_tensor"](tf.constant(colors[None]))
  np.testing.assert_allclose(found["probs"][0], expected["probs"][0], atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"no image", b"%PDF-1.7", b"RIFF1234WAVE"])
def test_what_is_no_image_is_named_by_its_index(signatures, images, content):
  batch = [encode(image) for image in images]
  batch[1:1] = [content]
  batch.append(content)
  with pytest.raises(tf.errors.InvalidArgumentError, match=r"indices of the batch:\] \[1 4\]"):
    signatures["image_bytes"](tf.constant(batch))
  with pytest.raises(tf.errors.InvalidArgumentError, match=r"indices of the batch:\] \[1 4\]"):
    signatures["tf_example"](tf.constant([image_example(each) for each in batch]))


def test_example_without_an_image_is_named_by_its_index(signatures, images):
  examples = [image_example(encode(image)) for image in images]
  for bad in (b"", image_example(b"", key="image/other")):
    with pytest.raises(tf.errors.InvalidArgumentError, match="index 2 of the batch"):
      signatures["tf_example"](tf.constant([*examples[:2], bad]))
  with pytest.raises(tf.errors.InvalidArgumentError, match=r"Could not parse .* 'no example'"):
    signatures["tf_example"](tf.constant([*examples[:2], b"no example"]))


def test_wrong_number_of_channels(signatures):
  """The graph checks the shape, because servers do not."""
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r"images \[1,40,50,4\].*expected shape \[\?,\?,\?,3\]"
  ):
    signatures["image_tensor"](tf.zeros([1, 40, 50, 4], tf.uint8))
