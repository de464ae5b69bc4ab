"""What processes tell each other, here a single one that speaks for all."""

import json

import pytest
import tensorflow as tf

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import config_sync
from sasa_tf.training.multi_worker.config_sync import WorkerConfig


def test_texts_arrive_as_they_were_sent():
  distribution = tf.distribute.MirroredStrategy(["CPU:0"])
  for text in ("", "hállo", "x" * 10_000):
    assert config_sync.all_gather_strings(distribution, text, 1) == [text]


@pytest.fixture
def heard(monkeypatch):
  """Sets what the processes say; agreement then runs in each in turn."""

  def all_agree(*statements):
    texts = [json.dumps(statement) for statement in statements]
    monkeypatch.setattr(config_sync, "all_gather_strings", lambda *arguments: texts)
    return [config_sync.sync_config(None, statement, len(texts)) for statement in statements]

  return all_agree


def test_all_take_the_chiefs_seed(heard):
  facts = {"task.model.num_classes": 10, "files": ["a", "b"]}
  chief = WorkerConfig("chief", facts, 1)
  assert heard(chief, WorkerConfig("worker 1", facts, 2)) == [chief, chief]


def test_differences_are_named_with_the_processes(heard):
  facts = {"version": "1", "seed": None, **{f"key{i}": i for i in range(9)}}
  others = {**facts, "version": "2", "extra": True}
  with pytest.raises(UserError) as raised:
    heard(
      WorkerConfig("chief", facts, 1),
      WorkerConfig("worker 1", facts, 2),
      WorkerConfig("W", others, 3),
    )
  message = str(raised.value)
  assert "version is '1' in the chief, but '2' in the W" in message
  assert "extra is None in the chief, but True in the W" in message
  assert "worker 1" not in message and "key" not in message


def test_many_differences_are_counted(heard):
  changed = WorkerConfig("worker 1", {f"key{i}": -i - 1 for i in range(9)}, 2)
  with pytest.raises(
    UserError, match=r"key4 is 4 .* but -5 in the worker 1; and 4 more\. Start all"
  ):
    heard(WorkerConfig("chief", {f"key{i}": i for i in range(9)}, 1), changed)


def test_flatten():
  nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
  assert config_sync.flatten(nested) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
