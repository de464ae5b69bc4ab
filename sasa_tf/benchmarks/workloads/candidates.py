"""The candidates of each benchmark target, by name."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf import ops
from sasa_tf.benchmarks.workloads.cases import Case
from sasa_tf.benchmarks.workloads.workload import Workload
from sasa_tf.errors import UserError

CONVOLUTION = "conv3x3"
# Name of a model -> its arguments of SASAResNet.
ARCHITECTURES = {
  "conv": {"attention_groups": ()},
  "conv_stem+attention": {},
  "full_attention": {"stem": "attention"},
}


def default_candidates(target: str) -> tuple[str, ...]:
  """Returns the names to measure by default, the convolution first."""
  if target == "model":
    return tuple(ARCHITECTURES)
  return (CONVOLUTION, *ops.available_implementations())


def default_baselines(candidates: Sequence[str]) -> tuple[str, ...]:
  """Returns the candidates that the others are compared with by default."""
  return tuple(name for name in ("reference", CONVOLUTION, "conv") if name in candidates)


def check_candidates(target: str, names: Sequence[str]) -> None:
  """Checks that the names are candidates of the target.

  Raises:
    UserError: a name is unknown.
  """
  implementations = ("auto", *ops.available_implementations())
  for name in names:
    first, _, implementation = name.partition("/")
    if target == "model":
      known = first in ARCHITECTURES and implementation in ("", *implementations)
      expected = f"{', '.join(ARCHITECTURES)}; optionally with /{', /'.join(implementations)}"
    else:
      known = name in (CONVOLUTION, *implementations)
      expected = ", ".join((CONVOLUTION, *implementations))
    if not known:
      raise UserError(
        f"{name!r} is not a candidate of the target {target}; expected one of: {expected}."
      )


def make_workload(case: Case) -> Workload:
  """Returns the computation of the case's candidate, with its inputs on the default device."""
  if case.target == "model":
    from sasa_tf.benchmarks.workloads import model

    architecture, _, implementation = case.candidate.partition("/")
    arguments = ARCHITECTURES[architecture]
    return model.network(case, arguments, implementation or "auto")
  if case.target == "layer":
    from sasa_tf.benchmarks.workloads import layer as workloads
  else:
    from sasa_tf.benchmarks.workloads import operation as workloads
  if case.candidate == CONVOLUTION:
    return workloads.convolution(case)
  return workloads.attention(case, case.candidate)
