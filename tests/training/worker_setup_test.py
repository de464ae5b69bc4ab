"""Which process trains on which images, and what it has and writes; without other processes."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from official.core import input_reader

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import config_sync, setup
from sasa_tf.training.multi_worker.cluster import Cluster
from sasa_tf.training.multi_worker.config_sync import WorkerConfig
from tests.training import tiny_run

READ_IN_ORDER = {
  "task.train_data.shuffle_buffer_size": 1,
  "task.train_data.cycle_length": 1,
  "task.train_data.global_batch_size": 6,
}


@pytest.fixture
def shares(tmp_path, monkeypatch):
  """Returns what each of some processes reads of some files, and the warning of the chief."""

  def read(num_files, num_processes, count, dataset_fn=tf.data.TFRecordDataset):
    for index in range(num_files):
      with tf.io.TFRecordWriter(str(tmp_path / f"train-{index}")) as writer:
        for record in range(12):
          writer.write(f"{index} {record}".encode())
    addresses = tuple(f"a:{1 + i}" for i in range(num_processes))
    params = tiny_run.params(tmp_path, **READ_IN_ORDER, **{"task.validation_data.input_path": "''"})
    read_by = []
    for index in range(num_processes):
      monkeypatch.setattr(
        config_sync,
        "sync_config",
        lambda strategy, own, processes: WorkerConfig("chief", own.facts, 7),
      )
      cluster = Cluster({"worker": addresses}, "worker", index)
      agreed = setup.sync_experiment(None, cluster, "x", params, "train")
      context = tf.distribute.InputContext(num_processes, index, num_processes)
      reader = input_reader.InputReader(agreed.task.train_data, dataset_fn=dataset_fn)
      batches = reader.read(context).unbatch().take(count)
      read_by.append([record.decode() for record in batches.as_numpy_iterator()])
    return read_by

  return read


def test_in_every_epoch_every_file_is_read_by_one_process(shares):
  names = shares(8, 2, 3 * 4, dataset_fn=tf.data.Dataset.from_tensors)
  epochs = np.array(names).reshape(2, 3, 4).transpose(1, 0, 2).reshape(3, 8)
  for epoch in epochs:
    assert len(set(epoch)) == 8
  assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled


@pytest.mark.parametrize(("files", "processes"), [(1, 3), (2, 3)])
def test_of_fewer_files_than_processes_each_reads_other_records(shares, files, processes):
  records = shares(files, processes, files * 12 // processes)
  everything = [record for share in records for record in share]
  assert len(everything) == len(set(everything)) == files * 12


def test_files_that_do_not_divide_are_told_by_the_chief(shares, capsys):
  shares(3, 2, 1)
  assert capsys.readouterr().err.count("3 files for 2 processes") == 1


def test_a_seed_of_the_user_stays(monkeypatch, tmp_path):
  (tmp_path / "train-0").touch()
  monkeypatch.setattr(
    config_sync, "sync_config", lambda strategy, own, processes: WorkerConfig("chief", own.facts, 7)
  )
  others = {"task.train_data.seed": 3, "task.validation_data.input_path": "''"}
  params = tiny_run.params(tmp_path, **others)
  cluster = Cluster({"worker": ("a:1", "a:2")}, "worker", 0)
  agreed = setup.sync_experiment(None, cluster, "x", params, "train")
  assert agreed.task.train_data.seed == 3
  assert params.task.train_data.input_path == f"{tmp_path}/train-*"  # left alone, for params.yaml
  assert type(agreed.task) is type(params.task)


@pytest.mark.parametrize(
  ("changes", "logical_cpus", "message"),
  [
    ({"runtime.num_gpus": 64}, 0, "num_gpus=64 in each process, but TensorFlow sees .* chief, pro"),
    ({"runtime.all_reduce_alg": "rign"}, 0, "all_reduce_alg='rign': expected nccl, ring or null"),
    ({}, 2, "--num_logical_cpus is a dry run of .*mirrored"),
  ],
)
def test_what_a_process_does_not_have_is_told_before_it_waits(changes, logical_cpus, message):
  params = tiny_run.params("data", **changes)
  cluster = Cluster({"worker": ("localhost:1", "localhost:2")}, "worker", 0)
  with pytest.raises(UserError, match=message):
    setup.build_strategy(cluster, params.runtime, logical_cpus)


def test_a_worker_writes_elsewhere_and_knows_the_best_evaluation(tmp_path):
  params = tiny_run.params("data")
  best = tmp_path / "run" / "best_ckpt" / "info.json"
  best.parent.mkdir(parents=True)
  best.write_text("{}")
  with setup.output_directory(str(tmp_path / "run"), True, params) as directory:
    assert directory == str(tmp_path / "run")
  with setup.output_directory(str(tmp_path / "run"), False, params) as directory:
    assert (pathlib.Path(directory) / "best_ckpt" / "info.json").read_text() == "{}"
  assert not pathlib.Path(directory).exists() and best.is_file()
