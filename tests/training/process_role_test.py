"""The role of a process, by mode, strategy and TF_CONFIG."""

import pytest

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import UserError
from sasa_tf.training import experiment
from sasa_tf.training.multi_worker import process_role
from sasa_tf.training.multi_worker.cluster import Cluster

JOBS = {"worker": ("a:1", "b:2")}
CHIEF = Cluster(JOBS, "worker", 0)
WORKER = Cluster(JOBS, "worker", 1)
EVALUATOR = Cluster(JOBS, "evaluator", 0)
WITH_EVALUATOR = Cluster(JOBS, "worker", 0, has_evaluator=True)
SINGLE = Cluster({"chief": ("a:1",)}, "chief", 0)

MULTI_WORKER = "multi_worker_mirrored"
DIGITS, COCO = "sasa_resnet_digits", "retinanet_sasa_coco"


def resolve_role(mode, strategy, cluster, name=DIGITS, gpus=0):
  override = f"runtime.distribution_strategy={strategy},runtime.num_gpus={gpus}"
  params = experiment.load_experiment(name, params_override=override)
  return process_role.resolve_role(params, mode, cluster)


@pytest.mark.parametrize(
  ("mode", "strategy", "cluster", "expected"),
  [
    ("train", "mirrored", None, ("train", "mirrored", None)),
    ("train", "mirrored", SINGLE, ("train", "mirrored", None)),
    ("train", MULTI_WORKER, SINGLE, ("train", MULTI_WORKER, SINGLE)),
    ("train", MULTI_WORKER, CHIEF, ("train", MULTI_WORKER, CHIEF)),
    ("train_and_eval", MULTI_WORKER, WORKER, ("train_and_eval", MULTI_WORKER, WORKER)),
    ("train_and_eval", MULTI_WORKER, WITH_EVALUATOR, ("train", MULTI_WORKER, WITH_EVALUATOR)),
    ("train_and_eval", MULTI_WORKER, EVALUATOR, ("continuous_eval", "one_device", None)),
    ("eval", MULTI_WORKER, EVALUATOR, ("eval", "one_device", None)),
    ("train", "mirrored", EVALUATOR, ("continuous_eval", "mirrored", None)),
    ("continuous_eval", MULTI_WORKER, None, ("continuous_eval", "one_device", None)),
  ],
)
def test_roles(mode, strategy, cluster, expected):
  assert tuple(resolve_role(mode, strategy, cluster)) == expected


def test_evaluator_uses_all_gpus_of_its_machine():
  role = resolve_role("continuous_eval", MULTI_WORKER, None, gpus=2)
  assert role.distribution_strategy == "mirrored"


def test_only_the_chief_and_single_processes_write():
  assert resolve_role("train", MULTI_WORKER, CHIEF).writes_model_dir
  assert not resolve_role("train", MULTI_WORKER, WORKER).writes_model_dir
  assert resolve_role("train", MULTI_WORKER, EVALUATOR).writes_model_dir


@pytest.mark.parametrize(
  ("mode", "strategy", "cluster", "name", "message"),
  [
    ("train", MULTI_WORKER, None, DIGITS, "needs the environment variable TF_CONFIG.*use mirrored"),
    ("train", "mirrored", CHIEF, DIGITS, "distribution_strategy=mirrored, which is for a single"),
    ("eval", MULTI_WORKER, WORKER, DIGITS, "--mode=eval is for a single process.*evaluator"),
    ("continuous_eval", MULTI_WORKER, CHIEF, DIGITS, "Unset TF_CONFIG"),
    (
      "train_and_eval",
      MULTI_WORKER,
      CHIEF,
      COCO,
      "average precision of its own share.*continuous_eval",
    ),
  ],
)
def test_incompatible_settings_raise_an_error(mode, strategy, cluster, name, message):
  with pytest.raises(UserError, match=message):
    resolve_role(mode, strategy, cluster, name)


def test_detection_trains_with_several_workers_and_a_separate_evaluator():
  assert resolve_role("train", MULTI_WORKER, CHIEF, COCO).mode == "train"
  assert resolve_role("train_and_eval", MULTI_WORKER, WITH_EVALUATOR, COCO).mode == "train"
