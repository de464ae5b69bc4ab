"""What a process does, by mode, strategy and TF_CONFIG."""

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
LONELY = Cluster({"chief": ("a:1",)}, "chief", 0)

TOGETHER = "multi_worker_mirrored"
DIGITS, COCO = "sasa_resnet_digits", "retinanet_sasa_coco"


def role_of(mode, strategy, cluster, name=DIGITS, gpus=0):
  override = f"runtime.distribution_strategy={strategy},runtime.num_gpus={gpus}"
  params = experiment.load_experiment(name, params_override=override)
  return process_role.resolve_role(params, mode, cluster)


@pytest.mark.parametrize(
  ("mode", "strategy", "cluster", "expected"),
  [
    ("train", "mirrored", None, ("train", "mirrored", None)),
    ("train", "mirrored", LONELY, ("train", "mirrored", None)),
    ("train", TOGETHER, LONELY, ("train", TOGETHER, LONELY)),
    ("train", TOGETHER, CHIEF, ("train", TOGETHER, CHIEF)),
    ("train_and_eval", TOGETHER, WORKER, ("train_and_eval", TOGETHER, WORKER)),
    ("train_and_eval", TOGETHER, WITH_EVALUATOR, ("train", TOGETHER, WITH_EVALUATOR)),
    ("train_and_eval", TOGETHER, EVALUATOR, ("continuous_eval", "one_device", None)),
    ("eval", TOGETHER, EVALUATOR, ("eval", "one_device", None)),
    ("train", "mirrored", EVALUATOR, ("continuous_eval", "mirrored", None)),
    ("continuous_eval", TOGETHER, None, ("continuous_eval", "one_device", None)),
  ],
)
def test_roles(mode, strategy, cluster, expected):
  assert tuple(role_of(mode, strategy, cluster)) == expected


def test_an_evaluator_uses_all_gpus_of_its_machine():
  assert role_of("continuous_eval", TOGETHER, None, gpus=2).distribution_strategy == "mirrored"


def test_who_writes():
  assert role_of("train", TOGETHER, CHIEF).writes
  assert not role_of("train", TOGETHER, WORKER).writes
  assert role_of("train", TOGETHER, EVALUATOR).writes


@pytest.mark.parametrize(
  ("mode", "strategy", "cluster", "name", "message"),
  [
    ("train", TOGETHER, None, DIGITS, "needs the environment variable TF_CONFIG.*use mirrored"),
    ("train", "mirrored", CHIEF, DIGITS, "distribution_strategy=mirrored, which is of a single"),
    ("eval", TOGETHER, WORKER, DIGITS, "--mode=eval is of a single process.*evaluator"),
    ("continuous_eval", TOGETHER, CHIEF, DIGITS, "Unset TF_CONFIG"),
    (
      "train_and_eval",
      TOGETHER,
      CHIEF,
      COCO,
      "average precision of its own share.*continuous_eval",
    ),
  ],
)
def test_what_does_not_go_together_is_refused(mode, strategy, cluster, name, message):
  with pytest.raises(UserError, match=message):
    role_of(mode, strategy, cluster, name)


def test_detection_trains_together_and_is_evaluated_beside():
  assert role_of("train", TOGETHER, CHIEF, COCO).mode == "train"
  assert role_of("train_and_eval", TOGETHER, WITH_EVALUATOR, COCO).mode == "train"
