"""The contestants of each target by name."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf import ops
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload
from sasa_tf.errors import UserError

CONVOLUTION = "conv3x3"
# Name of a model -> the arguments of SASAResNet that make it.
ARCHITECTURES = {
  "conv": {"attention_groups": ()},
  "conv_stem+attention": {},
  "full_attention": {"stem": "attention"},
}


def default_contestants(target: str) -> tuple[str, ...]:
  """Returns the names that are measured unless others are asked for, the convolution first."""
  if target == "model":
    return tuple(ARCHITECTURES)
  return (CONVOLUTION, *ops.available_implementations())


def default_baselines(contestants: Sequence[str]) -> tuple[str, ...]:
  """Returns those that the others are compared with unless others are asked for."""
  return tuple(name for name in ("reference", CONVOLUTION, "conv") if name in contestants)


def check_contestants(target: str, names: Sequence[str]) -> None:
  """Refuses names that do not exist.

  Raises:
    UserError: a name that is none of a contestant of the target.
  """
  implementations = ("auto", *ops.available_implementations())
  for name in names:
    first, _, implementation = name.partition("/")
    if target == "model":
      known = first in ARCHITECTURES and implementation in ("", *implementations)
      expected = f"{', '.join(ARCHITECTURES)}; with /{', /'.join(implementations)} where wanted"
    else:
      known = name in (CONVOLUTION, *implementations)
      expected = ", ".join((CONVOLUTION, *implementations))
    if not known:
      raise UserError(
        f"{name!r} is no contestant of the target {target}; expected one of: {expected}."
      )


def make_workload(case: Case) -> Workload:
  """Returns what the case's contestant computes; its inputs lie on the default device."""
  if case.target == "model":
    from sasa_tf.benchmarks.workloads import model

    architecture, _, implementation = case.contestant.partition("/")
    arguments = ARCHITECTURES[architecture]
    return model.network(case, arguments, implementation or "auto")
  if case.target == "layer":
    from sasa_tf.benchmarks.workloads import layer as workloads
  else:
    from sasa_tf.benchmarks.workloads import operation as workloads
  if case.contestant == CONVOLUTION:
    return workloads.convolution(case)
  return workloads.attention(case, case.contestant)
