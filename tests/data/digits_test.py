import collections
import glob
import importlib.util

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from sasa_tf.data.classification import digits
from sasa_tf.data.errors import DatasetError
from sasa_tf.data.preview_images import write_preview_images
from sasa_tf.errors import MissingExtraError


def _examples(output, split):
  for record in tf.data.TFRecordDataset(sorted(glob.glob(f"{output}/{split}-*.tfrecord"))):
    yield tf.train.Example.FromString(record.numpy()).features.feature


def _names(output, split):
  return {f["image/filename"].bytes_list.value[0].decode() for f in _examples(output, split)}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
  path = tmp_path_factory.mktemp("digits") / "out"
  digits.convert(path, num_preview_images=14)
  return path


def test_holds_out_a_fifth(output):
  train, validation = _names(output, "train"), _names(output, "validation")
  assert (len(train), len(validation)) == (1437, 360)
  assert not train & validation
  counts = collections.Counter(name[0] for name in validation)
  assert set(counts) == set("0123456789")
  assert set(counts.values()) <= {35, 36, 37}
  assert (output / "labels.txt").read_text().split() == list("0123456789")


def test_gray_levels_are_stored_exactly(output):
  bunch = datasets.load_digits()
  for feature in [*_examples(output, "train"), *_examples(output, "validation")]:
    index = int(feature["image/filename"].bytes_list.value[0][2:6])
    image = tf.io.decode_png(feature["image/encoded"].bytes_list.value[0]).numpy()
    assert image.shape == (8, 8, 1)
    np.testing.assert_array_equal(image[..., 0], np.round(bunch.images[index] * 255 / 16))
    assert feature["image/class/label"].int64_list.value[0] == bunch.target[index]


def test_preview_images_are_held_out_and_cover_all_classes(output):
  names = sorted(path.name for path in (output / "preview_images").iterdir())
  assert len(names) == 14
  assert set(names) <= _names(output, "validation")
  assert [name[0] for name in names] == list("00112233456789")
  image = tf.io.decode_png((output / "preview_images" / names[0]).read_bytes())
  assert image.shape == (8, 8, 1)


def test_overwrite_replaces_splits_and_preview_images(output, tmp_path):
  digits.convert(tmp_path, num_preview_images=2)
  (tmp_path / "preview_images/foreign.png").write_text("")
  digits.convert(tmp_path, num_preview_images=3, seed=1, overwrite=True)
  previews = {path.name for path in (tmp_path / "preview_images").iterdir()}
  assert len(previews - {"foreign.png"}) == 3
  assert "foreign.png" in previews
  assert previews - {"foreign.png"} <= _names(tmp_path, "validation")
  assert _names(tmp_path, "validation") != _names(output, "validation")


def test_missing_scikit_learn_is_named_with_its_extra(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(MissingExtraError, match=r"digits needs scikit-learn.*sasa_tf\[garden\]"):
    digits.convert(tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_no_directory_without_preview_images(tmp_path):
  digits.convert(tmp_path, num_preview_images=0)
  assert not (tmp_path / "preview_images").exists()


@pytest.mark.parametrize("number", [-1, 361])
def test_invalid_number_of_preview_images_raises(tmp_path, number):
  with pytest.raises(DatasetError, match=f"0 and the 360 validation images, received {number}"):
    digits.convert(tmp_path / "out", num_preview_images=number)
  assert not (tmp_path / "out").exists()


def test_preview_images_are_not_written_through_a_link(tmp_path):
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos/1-7.png").write_text("precious")
  (tmp_path / "data").mkdir()
  (tmp_path / "data/preview_images").symlink_to(tmp_path / "photos")
  with pytest.raises(DatasetError, match="preview_images is a symbolic link"):
    write_preview_images(tmp_path / "data", {"1-8.png": b"new"}, r"\d-\d\.png")
  assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1-7.png"]
