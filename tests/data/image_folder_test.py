import glob

import pytest
import tensorflow as tf

from sasa_tf.data.classification import image_folder
from sasa_tf.data.errors import DatasetError

from . import image_files


def _examples(output, split):
  examples = []
  for record in tf.data.TFRecordDataset(sorted(glob.glob(f"{output}/{split}-*.tfrecord"))):
    feature = tf.train.Example.FromString(record.numpy()).features.feature
    values = {}
    for key, value in feature.items():
      values[key] = (value.bytes_list.value or value.int64_list.value)[0]
    examples.append(values)
  return examples


def _convert(root, output, **options):
  return image_folder.convert(root, output, **{"num_processes": 1, **options})


def _content(output):
  return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture
def root(tmp_path):
  return image_files.write_class_folders(tmp_path / "images")


def test_images_are_stored_unchanged(root, tmp_path):
  summary = _convert(root, tmp_path / "out", num_shards=2)
  assert summary.splits["train"].formats == {"jpeg": 10, "png": 2}
  assert (tmp_path / "out/labels.txt").read_text() == "cat\ndog\n"
  examples = {e["image/filename"].decode(): e for e in _examples(tmp_path / "out", "train")}
  assert examples.keys() == {
    path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
  }
  for name, example in examples.items():
    label, number = int(name.startswith("dog")), int(name[4])
    assert example == {
      "image/filename": name.encode(),
      "image/encoded": (root / name).read_bytes(),
      "image/format": b"png" if number == 0 else b"jpeg",
      "image/height": 8 + number,
      "image/width": 9 + label,
      "image/class/label": label,
      "image/class/text": name[:3].encode(),
    }


def test_output_depends_on_the_seed(root, tmp_path):
  for name, seed in (("a", 0), ("b", 0), ("c", 1)):
    _convert(root, tmp_path / name, seed=seed)
  assert _content(tmp_path / "a") == _content(tmp_path / "b")
  assert _content(tmp_path / "a") != _content(tmp_path / "c")


def test_holds_out_a_fraction_of_every_class(root, tmp_path):
  _convert(root, tmp_path / "out", validation_fraction=0.25)
  train, validation = (_examples(tmp_path / "out", split) for split in ("train", "validation"))
  names = [example["image/filename"] for example in train + validation]
  assert len(names) == len(set(names)) == 12
  assert sorted(example["image/class/label"] for example in validation) in ([0, 0, 1], [0, 1, 1])


def test_second_directory_becomes_another_split(root, tmp_path):
  test = image_files.write_class_folders(tmp_path / "test", images=2)
  _convert(root, tmp_path / "out")
  _convert(test, tmp_path / "out", split="validation")
  assert len(_examples(tmp_path / "out", "train")) == 12
  assert len(_examples(tmp_path / "out", "validation")) == 4


def test_other_classes_raise(root, tmp_path):
  test = image_files.write_class_folders(tmp_path / "test", classes=("cat", "cow", "dog"))
  _convert(root, tmp_path / "out")
  with pytest.raises(DatasetError, match="new: cow"):
    _convert(test, tmp_path / "out", split="validation")
  assert not list((tmp_path / "out").glob("validation*"))


def test_broken_images_are_skipped_and_listed(root, tmp_path, capfd):
  broken = image_files.broken_files()
  for name, (content, _) in broken.items():
    (root / "cat" / name).write_bytes(content)
  (root / "dog" / "link.jpg").symlink_to("nowhere")
  summary = _convert(root, tmp_path / "out")
  assert summary.splits["train"].examples == 12
  assert summary.splits["train"].skipped == len(broken) + 1
  lines = (tmp_path / "out/skipped-train.txt").read_text().splitlines()
  reasons = dict(line.split(": ", 1) for line in lines)
  assert reasons.pop(str(root / "dog/link.jpg")) == "No such file or directory"
  assert reasons.keys() == {str(root / "cat" / name) for name in broken}
  for name, (_, reason) in broken.items():
    assert reason in reasons[str(root / "cat" / name)]
  stderr = capfd.readouterr().err
  assert all(f"Skipped {line}" in stderr for line in lines)


@pytest.mark.parametrize("name", image_files.broken_files())
def test_strict_raises_for_every_kind_of_broken_image(root, tmp_path, name):
  (root / "dog" / name).write_bytes(image_files.broken_files()[name][0])
  with pytest.raises(DatasetError, match=f"dog/{name}: "):
    _convert(root, tmp_path / "out", strict=True)
  assert not (tmp_path / "out").exists()


def test_warnings_are_printed(root, tmp_path, capsys):
  (root / "empty").mkdir()
  _convert(root, tmp_path / "out")
  assert "Warning: no images in class folder 'empty'" in capsys.readouterr().err
  assert (tmp_path / "out/labels.txt").read_text() == "cat\ndog\nempty\n"


@pytest.mark.parametrize("output", ["", "cat", "cat/new", "../images/new"])
def test_output_inside_the_input_raises(root, output):
  with pytest.raises(DatasetError, match="must be outside of --input"):
    _convert(root, root / output)
  assert sorted(path.name for path in root.iterdir()) == ["cat", "dog"]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"validation_fraction": 0.2, "split": "validation"}, "--split other than validation"),
    ({"validation_fraction": 1.0}, "between 0 and 1"),
    ({"num_shards": 13}, "12 images"),
    ({"split": "a/b"}, "letters, digits"),
  ],
)
def test_invalid_settings_raise(root, tmp_path, options, message):
  with pytest.raises(DatasetError, match=message):
    _convert(root, tmp_path / "out", **options)
  assert not (tmp_path / "out").exists()
