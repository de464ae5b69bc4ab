"""Cases of the scaling benchmark and their order."""

import pytest

from sasa_tf.benchmarks.scaling import cases
from sasa_tf.errors import UserError

SIZES = {"batch_size": 4, "image_size": 32, "model_id": 26, "dtype": "float32"}


@pytest.mark.parametrize(("available", "counts"), [(1, [1]), (2, [1, 2]), (7, [1, 2, 4])])
def test_replicas_default_to_powers_of_two(available, counts):
  assert cases.default_replicas(available) == counts


def test_single_replica_is_measured_first_and_once():
  devices = ["GPU:0", "GPU:1"]
  planned = cases.make_cases(["conv"], [2, 1], ["between_programs", "none"], devices, **SIZES)
  assert [(case.replicas, case.all_reduce) for case in planned] == [
    (1, "none"),
    (2, "between_programs"),
    (2, "none"),
  ]


@pytest.mark.parametrize(
  ("models", "replicas", "all_reduce", "message"),
  [
    (["cnv"], [1], ["none"], "--models: expected some of conv, .*received cnv"),
    (
      ["conv"],
      [1],
      ["outside"],
      "--all_reduce: expected some of between_programs, .*received outside",
    ),
    ([], [1], ["none"], "--models is empty; expected some of conv"),
    (["conv"], [1], [], "--all_reduce is empty"),
    (["conv"], [4], ["none"], "--replicas=4, but there are 2 devices"),
  ],
)
def test_unknown_names_and_too_many_replicas_raise(models, replicas, all_reduce, message):
  with pytest.raises(UserError, match=message):
    cases.make_cases(models, replicas, all_reduce, ["CPU:0", "CPU:1"], **SIZES)
