import collections
import glob

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from sasa_tf.data.classification import digits
from sasa_tf.data.errors import DatasetError


def _examples(output, split):
  for record in tf.data.TFRecordDataset(sorted(glob.glob(f"{output}/{split}-*.tfrecord"))):
    yield tf.train.Example.FromString(record.numpy()).features.feature


def _names(output, split):
  return {f["image/filename"].bytes_list.value[0].decode() for f in _examples(output, split)}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
  path = tmp_path_factory.mktemp("digits") / "out"
  digits.convert(path, pictures=14)
  return path


def test_a_fifth_is_held_out(output):
  train, validation = _names(output, "train"), _names(output, "validation")
  assert (len(train), len(validation)) == (1437, 360)
  assert not train & validation
  counts = collections.Counter(name[0] for name in validation)
  assert set(counts) == set("0123456789")
  assert set(counts.values()) <= {35, 36, 37}
  assert (output / "labels.txt").read_text().split() == list("0123456789")


def test_the_grey_levels_survive(output):
  bunch = datasets.load_digits()
  for feature in [*_examples(output, "train"), *_examples(output, "validation")]:
    index = int(feature["image/filename"].bytes_list.value[0][2:6])
    image = tf.io.decode_png(feature["image/encoded"].bytes_list.value[0]).numpy()
    assert image.shape == (8, 8, 1)
    np.testing.assert_array_equal(image[..., 0], np.round(bunch.images[index] * 255 / 16))
    assert feature["image/class/label"].int64_list.value[0] == bunch.target[index]


def test_pictures_are_held_out_and_one_of_each_comes_first(output):
  names = sorted(path.name for path in (output / "pictures").iterdir())
  assert len(names) == 14
  assert set(names) <= _names(output, "validation")
  assert [name[0] for name in names] == list("00112233456789")
  image = tf.io.decode_png((output / "pictures" / names[0]).read_bytes())
  assert image.shape == (8, 8, 1)


def test_another_seed_replaces_splits_and_pictures(output, tmp_path):
  digits.convert(tmp_path, pictures=2)
  (tmp_path / "pictures/mine.png").write_text("")
  digits.convert(tmp_path, pictures=3, seed=1, overwrite=True)
  pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
  assert len(pictures - {"mine.png"}) == 3
  assert "mine.png" in pictures
  assert pictures - {"mine.png"} <= _names(tmp_path, "validation")
  assert _names(tmp_path, "validation") != _names(output, "validation")


def test_zero_pictures_make_no_directory(tmp_path):
  digits.convert(tmp_path, pictures=0)
  assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("pictures", [-1, 361])
def test_refuses_more_pictures_than_there_are(tmp_path, pictures):
  with pytest.raises(DatasetError, match=f"0 and the 360 held-out digits, received {pictures}"):
    digits.convert(tmp_path / "out", pictures=pictures)
  assert not (tmp_path / "out").exists()
