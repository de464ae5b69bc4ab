"""dataset.json beside TFRecords shows missing shards before a training."""

import json

import pytest

from sasa_tf.data.integrity.shard_count import find_problems


@pytest.fixture
def data(tmp_path):
  for shard in range(3):
    (tmp_path / f"train-{shard:05d}-of-00003.tfrecord").touch()
  (tmp_path / "dataset.json").write_text(json.dumps({"train": {"shards": 3}}))
  return tmp_path


def problems(data):
  return list(find_problems(str(data), [str(path) for path in data.glob("train-*")]))


def test_complete_data_sets_have_no_problem(data):
  assert not problems(data)
  (data / "dataset.json").unlink()
  assert not problems(data)


def test_missing_shard_is_a_problem_of_its_split(data):
  (data / "train-00001-of-00003.tfrecord").unlink()
  (problem,) = problems(data)
  assert "has 2 shards of split train; dataset.json lists 3. Copy the missing ones" in problem
  assert not list(find_problems(str(data), [str(data / "validation-0")]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"train": 3}', b"\xff", b"[" * 100_000])
def test_broken_record_is_a_problem(content, data):
  (data / "dataset.json").write_bytes(content)
  (problem,) = problems(data)
  assert f"{data}/dataset.json is not what make_tfrecords wrote" in problem
  assert "Restore it, or remove it" in problem
