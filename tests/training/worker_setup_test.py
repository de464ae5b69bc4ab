"""The share of the data, the strategy and the output directory of a worker, in one process."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from official.core import input_reader

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import config_sync, process_role, strategy
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.multi_worker.config_sync import WorkerConfig
from tests.training import tiny_run

READ_IN_ORDER = {
  "task.train_data.shuffle_buffer_size": 1,
  "task.train_data.cycle_length": 1,
  "task.train_data.global_batch_size": 6,
}


def config_of_the_chief(distribution, own, num_processes):
  """Replaces `config_sync.sync_config`: the chief has the same settings, and the seed 7."""
  return WorkerConfig("chief", own.settings, 7)


@pytest.fixture
def shares(tmp_path, monkeypatch):
  """Returns a function that reads some files with several workers; it returns their records."""

  def read(num_files, num_processes, count, dataset_fn=tf.data.TFRecordDataset):
    for index in range(num_files):
      with tf.io.TFRecordWriter(str(tmp_path / f"train-{index}")) as writer:
        for record in range(12):
          writer.write(f"{index} {record}".encode())
    addresses = tuple(f"a:{1 + i}" for i in range(num_processes))
    params = tiny_run.params(tmp_path, **READ_IN_ORDER, **{"task.validation_data.input_path": "''"})
    read_by = []
    for index in range(num_processes):
      monkeypatch.setattr(config_sync, "sync_config", config_of_the_chief)
      cluster = Cluster({"worker": addresses}, "worker", index)
      synced = config_sync.sync_experiment(None, cluster, "x", params, "train")
      context = tf.distribute.InputContext(num_processes, index, num_processes)
      reader = input_reader.InputReader(synced.task.train_data, dataset_fn=dataset_fn)
      batches = reader.read(context).unbatch().take(count)
      read_by.append([record.decode() for record in batches.as_numpy_iterator()])
    return read_by

  return read


def test_each_file_is_read_by_one_process_per_epoch(shares):
  names = shares(8, 2, 3 * 4, dataset_fn=tf.data.Dataset.from_tensors)
  epochs = np.array(names).reshape(2, 3, 4).transpose(1, 0, 2).reshape(3, 8)
  for epoch in epochs:
    assert len(set(epoch)) == 8
  assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled


@pytest.mark.parametrize(("files", "processes"), [(1, 3), (2, 3)])
def test_fewer_files_than_processes_are_split_by_records(shares, files, processes):
  records = shares(files, processes, files * 12 // processes)
  everything = [record for share in records for record in share]
  assert len(everything) == len(set(everything)) == files * 12


def test_chief_warns_about_an_uneven_number_of_files(shares, capsys):
  shares(3, 2, 1)
  assert capsys.readouterr().err.count("3 files for 2 processes") == 1


def test_flags_of_all_processes_are_compared(monkeypatch, tmp_path):
  """With another --all_reduce, a process would take part in other exchanges, and all would wait."""
  (tmp_path / "train-0").touch()
  params = tiny_run.params(tmp_path, **{"task.validation_data.input_path": "''"})

  def sync(index, all_reduce, others=()):
    """Returns what the process sends to the others, of which it receives `others`."""
    sent = []

    def gather(_, text, num_processes):
      sent.append(text)
      return [*others, *[text] * (num_processes - len(others))]

    monkeypatch.setattr(config_sync, "all_gather_strings", gather)
    cluster = Cluster({"worker": ("a:1", "a:2")}, "worker", index)
    config_sync.sync_experiment(None, cluster, "x", params, "train", {"--all_reduce": all_reduce})
    return sent

  chief = sync(0, "auto")
  sync(1, "auto", chief)
  with pytest.raises(UserError, match=r"--all_reduce is 'auto' in the .*, but 'in_program' in the"):
    sync(1, "in_program", chief)


def test_seed_of_the_user_is_not_replaced(monkeypatch, tmp_path):
  (tmp_path / "train-0").touch()
  monkeypatch.setattr(config_sync, "sync_config", config_of_the_chief)
  others = {"task.train_data.seed": 3, "task.validation_data.input_path": "''"}
  params = tiny_run.params(tmp_path, **others)
  cluster = Cluster({"worker": ("a:1", "a:2")}, "worker", 0)
  synced = config_sync.sync_experiment(None, cluster, "x", params, "train")
  assert synced.task.train_data.seed == 3
  assert params.task.train_data.input_path == f"{tmp_path}/train-*"  # not modified, for params.yaml
  assert type(synced.task) is type(params.task)


@pytest.mark.parametrize(
  ("changes", "logical_cpus", "message"),
  [
    ({"runtime.num_gpus": 64}, 0, "num_gpus=64 in each process, but TensorFlow sees .* chief, pro"),
    (
      {"runtime.all_reduce_alg": "hierarchical_copy"},
      0,
      "all_reduce_alg='hierarchical_copy': expected nccl, ring or null",
    ),
    ({}, 2, "--num_logical_cpus is a dry run of .*mirrored"),
  ],
)
def test_invalid_configurations_raise_before_waiting(changes, logical_cpus, message):
  params = tiny_run.params("data", **changes)
  cluster = Cluster({"worker": ("localhost:1", "localhost:2")}, "worker", 0)
  with pytest.raises(UserError, match=message):
    strategy.build_strategy(cluster, params.runtime, logical_cpus)


def test_worker_writes_to_a_temporary_directory(tmp_path):
  params = tiny_run.params("data")
  best = tmp_path / "run" / "best_ckpt" / "info.json"
  best.parent.mkdir(parents=True)
  best.write_text("{}")
  with process_role.output_directory(str(tmp_path / "run"), True, params) as directory:
    assert directory == str(tmp_path / "run")
  with process_role.output_directory(str(tmp_path / "run"), False, params) as directory:
    assert (pathlib.Path(directory) / "best_ckpt" / "info.json").read_text() == "{}"
  assert not pathlib.Path(directory).exists() and best.is_file()
