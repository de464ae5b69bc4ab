"""Training with several processes: equal weights, resuming, outputs and failures."""

import re
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.errors import PreemptedError, WorkerLostError
from sasa_tf.training import run
from sasa_tf.training.resilience import checkpoints
from tests.training import tiny_run
from tests.training.local_cluster import LocalCluster

BATCH = {"task.validation_data.global_batch_size": 16, "trainer.validation_steps": -1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def resumed(data, tmp_path_factory):
  """Returns the cluster and the process ids of the chiefs after 4 steps, resumed to 8.

  Only the resumed run evaluates, because tracing an evaluation is slow.
  """
  cluster = LocalCluster(data, tmp_path_factory.mktemp("cluster"), 2)
  chiefs = []
  for steps, mode in ((4, "train"), (8, "train_and_eval")):
    cluster.start("--attention_summaries=2", mode=mode, steps=steps, **BATCH)
    chiefs.append(cluster.processes[0].pid)
    assert cluster.finish() == [0, 0], cluster.printed(0) + cluster.printed(1)
  return cluster, chiefs


def evaluate(data, model_dir, mode):
  """Evaluates in this process only."""
  return run.run_experiment(
    tiny_run.EXPERIMENT,
    tiny_run.params(data, steps=8, **BATCH),
    mode=mode,
    model_dir=str(model_dir),
  )


def test_both_workers_resume_with_the_same_weights(resumed):
  cluster, _ = resumed
  chief, worker = cluster.results(0), cluster.results(1)
  assert (chief["first_step"], chief["last_step"]) == (4, 8)
  assert (worker["first_step"], worker["last_step"]) == (4, 8)
  weights = [name for name in chief if name.startswith("weight/")]
  assert len(weights) > 100
  for name in weights:
    np.testing.assert_array_equal(chief[name], worker[name])


def test_only_the_chief_writes(resumed):
  cluster, chiefs = resumed
  files = sorted(
    path.relative_to(cluster.model_dir).as_posix()
    for path in cluster.model_dir.rglob("*")
    if path.is_file() and "events.out" not in path.name
  )
  of_training = [f"ckpt-{step}.{part}" for step in (2, 4, 6, 8) for part in PARTS]
  of_best = [name for name in files if name.startswith("best_ckpt/best_ckpt-")]
  assert len(of_best) == 2
  others = ["best_ckpt/checkpoint", "best_ckpt/info.json", "checkpoint", "labels.txt"]
  others += ["params.yaml", "run.json", "run_log.jsonl"]
  assert files == sorted([*of_training, *of_best, *others])
  for folder, writers in (("train", chiefs), ("validation", chiefs[1:])):
    events = (cluster.model_dir / folder).glob("events.out.tfevents.*")
    found = sorted(int(re.search(r"\.(\d+)\.\d+\.v2", e.name)[1]) for e in events)
    assert found == sorted(writers)


PARTS = ("data-00000-of-00001", "index")


def test_the_chief_writes_attention_summaries(resumed):
  cluster, _ = resumed
  assert attention_steps(cluster.model_dir) == [2, 4, 6, 8]
  assert "attention_summaries" not in cluster.printed(0) + cluster.printed(1)


def attention_steps(model_dir):
  """Returns the sorted steps of the attention summaries of a run."""
  return sorted(
    event.step
    for file in (model_dir / "train").glob("events.out.tfevents.*")
    for event in tf.compat.v1.train.summary_iterator(str(file))
    if any(value.tag == "attention_entropy/group4_block1_spatial" for value in event.summary.value)
  )


def test_only_the_chief_prints_progress(resumed):
  cluster, _ = resumed
  chief, worker = cluster.printed(0), cluster.printed(1)
  assert "2 hosts, 2 replicas, batch 16 (8 per replica)" in chief
  assert "train step 8/8 (100%)" in chief and "evaluation at step 8" in chief
  assert "checkpoint to export" in chief
  assert re.search(r"^worker, process 1 of 2 at localhost:\d+: waiting for localhost", worker, re.M)
  for line in ("replicas", "train step", "evaluation at", "checkpoint to export"):
    assert line not in worker


def test_saved_configuration_is_the_one_of_the_user(resumed):
  cluster, _ = resumed
  saved = (cluster.model_dir / "params.yaml").read_text()
  assert re.search(r"input_path: \S+/train-\*$", saved, re.M)
  assert "seed: null" in saved and "preemption_on_demand_checkpoint: true" in saved


def test_metrics_equal_those_of_a_single_process(resumed, data):
  cluster, _ = resumed
  chief, worker = cluster.results(0), cluster.results(1)
  single = evaluate(data, cluster.model_dir, "eval")
  followed = evaluate(data, cluster.model_dir, "continuous_eval")
  assert {"accuracy", "validation_loss"} <= set(single)
  for name in ("accuracy", "top_3_accuracy", "validation_loss"):
    assert chief[f"metric/{name}"] == worker[f"metric/{name}"]
    np.testing.assert_allclose(chief[f"metric/{name}"], single[name], rtol=1e-5)
    np.testing.assert_allclose(followed[name], single[name], rtol=1e-6)


TRAIN_BATCH = {"task.train_data.global_batch_size": 12}  # for two and for three

# Worker failures. Each of these tests takes minutes on two cores.


def wait_for(condition, cluster, seconds=580):
  """Waits for the condition; raises if a process ends before."""
  end = time.monotonic() + seconds
  while not condition():
    ended = [process.poll() for process in cluster.processes]
    assert ended == [None] * len(ended) and time.monotonic() < end, cluster.printed(0)
    time.sleep(0.05)


def train_until_step(cluster, step):
  """Starts a training, and returns when the checkpoint of the step is written."""
  cluster.start(steps=10_000, **TRAIN_BATCH)
  wait_for(lambda: step in tiny_run.steps_of(cluster.model_dir), cluster)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_three_processes_recover_from_the_loss_of_one(data, tmp_path, victim):
  cluster = LocalCluster(data, tmp_path, 3)
  train_until_step(cluster, 4)
  cluster.processes[victim].kill()
  expected = [
    -signal.SIGKILL if index == victim else WorkerLostError.exit_status for index in range(3)
  ]
  assert cluster.finish(seconds=60) == expected, cluster.printed(1)
  assert "error: lost " in cluster.printed(1) and "Traceback" not in cluster.printed(1)

  last = checkpoints.step_of(checkpoints.latest_valid(str(cluster.model_dir)))
  assert last >= 4
  cluster.start(steps=last + 4, **TRAIN_BATCH)
  assert cluster.finish() == [0, 0, 0], cluster.printed(0)
  found = [cluster.results(index) for index in range(3)]
  assert [(one["first_step"], one["last_step"]) for one in found] == [(last, last + 4)] * 3
  for name in found[0]:
    if name.startswith("weight/"):
      np.testing.assert_array_equal(found[0][name], found[2][name])


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_after_a_checkpoint(data, tmp_path):
  cluster = LocalCluster(data, tmp_path, 2)
  train_until_step(cluster, 2)
  cluster.processes[1].terminate()
  assert cluster.finish() == [PreemptedError.exit_status] * 2, cluster.printed(0)
  (step,) = re.findall(r"ended by SIGTERM after step (\d+)", cluster.printed(0))
  assert tiny_run.steps_of(cluster.model_dir)[-1] == int(step)


@pytest.mark.slow
def test_different_configurations_raise_an_error(data, tmp_path):
  cluster = LocalCluster(data, tmp_path, 2)
  cluster.start(per_process={1: {"task.losses.l2_weight_decay": 0.5}})
  assert cluster.finish() == [2, 2], cluster.printed(0)
  for index in (0, 1):
    printed = cluster.printed(index)
    assert re.search(r"task\.losses\.l2_weight_decay is \S+ in the chief, process 0 of 2", printed)
    assert "but 0.5 in the worker, process 1 of 2" in printed
  assert not (cluster.model_dir / "params.yaml").exists()


@pytest.mark.slow
def test_same_command_for_workers_and_evaluator(data, tmp_path):
  cluster = LocalCluster(data, tmp_path, 2, evaluator=True)
  cluster.start(mode="train_and_eval", steps=6, **BATCH)
  assert cluster.finish() == [0, 0, 0], cluster.printed(0) + cluster.printed(2)
  assert "evaluation at step" not in cluster.printed(0)
  assert re.findall(r"evaluation at step (\d)", cluster.printed(2)) == ["2", "4", "6"]
  assert (cluster.model_dir / "best_ckpt" / "info.json").is_file()
