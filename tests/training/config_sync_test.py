"""The comparison of the workers' configurations, in a single process."""

import json

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import config_sync
from sasa_tf.training.multi_worker.config_sync import WorkerConfig


def test_all_gather_strings():
  distribution = tf.distribute.MirroredStrategy(["CPU:0"])
  for text in ("", "hállo", "x" * 10_000):
    assert config_sync.all_gather_strings(distribution, text, 1) == [text]


@pytest.fixture
def sync(monkeypatch):
  """Returns a function of the configurations of all processes, which runs the check in each."""

  def sync_all(*configs):
    texts = [json.dumps(config) for config in configs]
    monkeypatch.setattr(config_sync, "all_gather_strings", lambda *arguments: texts)
    return [config_sync.sync_config(None, config, len(texts)) for config in configs]

  return sync_all


def test_all_processes_use_the_seed_of_the_chief(sync):
  settings = {"task.model.num_classes": 10, "files": ["a", "b"]}
  chief = WorkerConfig("chief", settings, 1)
  assert sync(chief, WorkerConfig("worker 1", settings, 2)) == [chief, chief]


def test_error_names_differences_and_processes(sync):
  settings = {"version": "1", "seed": None, **{f"key{i}": i for i in range(9)}}
  others = {**settings, "version": "2", "extra": True}
  with pytest.raises(UserError) as raised:
    sync(
      WorkerConfig("chief", settings, 1),
      WorkerConfig("worker 1", settings, 2),
      WorkerConfig("W", others, 3),
    )
  message = str(raised.value)
  assert "version is '1' in the chief, but '2' in the W" in message
  assert "extra is None in the chief, but True in the W" in message
  assert "worker 1" not in message and "key" not in message


def test_error_counts_further_differences(sync):
  changed = WorkerConfig("worker 1", {f"key{i}": -i - 1 for i in range(9)}, 2)
  with pytest.raises(
    UserError, match=r"key4 is 4 .* but -5 in the worker 1; and 4 more\. Start all"
  ):
    sync(WorkerConfig("chief", {f"key{i}": i for i in range(9)}, 1), changed)


def test_flatten():
  nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
  assert config_sync.flatten(nested) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
