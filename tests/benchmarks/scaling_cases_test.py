"""What the scaling program measures, and in which order."""

import pytest

from sasa_tf.benchmarks.scaling import cases
from sasa_tf.errors import UserError

SIZES = {"batch_size": 4, "image_size": 32, "model_id": 26, "dtype": "float32"}


@pytest.mark.parametrize(("available", "counts"), [(1, [1]), (2, [1, 2]), (7, [1, 2, 4])])
def test_powers_of_two_by_default(available, counts):
  assert cases.default_replicas(available) == counts


def test_single_replicas_come_first_and_once():
  devices = ["GPU:0", "GPU:1"]
  planned = cases.plan(["conv"], [2, 1], ["between", "none"], devices, **SIZES)
  assert [(case.replicas, case.reduction) for case in planned] == [
    (1, "none"),
    (2, "between"),
    (2, "none"),
  ]


@pytest.mark.parametrize(
  ("models", "replicas", "reductions", "message"),
  [
    (["cnv"], [1], ["none"], "--models: expected some of conv, .*received cnv"),
    (["conv"], [1], ["outside"], "--reductions: expected some of between, .*received outside"),
    (["conv"], [4], ["none"], "--replicas=4, but there are 2 devices"),
  ],
)
def test_what_cannot_be_measured(models, replicas, reductions, message):
  with pytest.raises(UserError, match=message):
    cases.plan(models, replicas, reductions, ["CPU:0", "CPU:1"], **SIZES)
