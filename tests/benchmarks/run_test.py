"""Small end-to-end measurements in this process."""

import io

import numpy as np
import pytest
import tensorflow as tf

from sasa_tf import ops
from sasa_tf.benchmarks import run
from sasa_tf.benchmarks.measurement import loop, measure, memory
from sasa_tf.benchmarks.measurement.environment import describe_environment
from sasa_tf.benchmarks.results import records
from sasa_tf.benchmarks.workloads import candidates
from sasa_tf.benchmarks.workloads.cases import Case, case_groups
from sasa_tf.errors import UserError
from sasa_tf.reporting import ProgressBar

PLAN = measure.MeasurementPlan(rounds=3, min_run_seconds=0.0, memory=True)
UNSUPPORTED = memory.unsupported_reason()


def op_case(candidate, **changes):
  defaults = {
    "target": "op",
    "mode": "forward_backward",
    "batch_size": 1,
    "shape": (4, 5, 16),
    "dtype": "float32",
    "jit": False,
    "num_heads": 4,
    "kernel_size": 3,
  }
  return Case(candidate=candidate, **defaults | changes)


def model_case(candidate, mode, **changes):
  changes = {"target": "model", "model_id": 26, "num_heads": 8, "shape": (32, 32, 3)} | changes
  return op_case(candidate, mode=mode, **changes)


def test_operation_is_measured_written_shown_and_compared(tmp_path, capsys):
  output, image = tmp_path / "results.jsonl", tmp_path / "results.png"
  names, common = candidates.default_candidates("op"), {"num_heads": 4, "kernel_size": 3}
  groups = [
    group
    for shape, jit in (((4, 5, 16), True), ((3, 3, 12), False))
    for group in case_groups(
      names, ["forward_backward"], [1], [shape], ["float32"], [jit], target="op", **common
    )
  ]
  run.measure(groups, PLAN, output=str(output), plot=str(image), command="python -m x")
  printed = capsys.readouterr()
  found = records.read(str(output))
  assert len(found) == 2 * len(names)
  assert image.stat().st_size > 20_000
  for m in found:
    if m.case.shape == (3, 3, 12) and m.case.candidate != "conv3x3":
      assert (
        not m.seconds and "multiple of 2 * num_heads" in m.error
      )  # and the others were measured
    else:
      assert len(m.seconds) == 3 and min(m.seconds) > 0 and m.error is None
      assert m.compile_seconds > 0
      assert UNSUPPORTED or m.peak_bytes > m.required_bytes / 11
      assert m.overhead_seconds > 0
  assert "blocked" in printed.out and "vs reference" in printed.out and "failed" in printed.out
  assert "tensorflow 2." in printed.out and "compiling blocked" in printed.err
  assert max(map(len, printed.out.splitlines())) <= 100
  run.show(str(output))
  assert capsys.readouterr().out.count("vs conv3x3") == printed.out.count("vs conv3x3")
  run.compare_files([str(output), str(output)])
  assert "quartiles overlap" in capsys.readouterr().out


def test_error_if_nothing_can_be_measured(capsys):
  with pytest.raises(UserError, match="no candidate could be measured"):
    run.measure([[op_case("blocked", num_heads=3)]], PLAN)
  assert "failed: building: ValueError" in capsys.readouterr().out
  with pytest.raises(UserError, match="--baselines: conv3x3 is not measured here"):
    run.measure([[op_case("blocked")]], PLAN, baselines=["conv3x3"])


@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
@pytest.mark.parametrize("target", ["op", "layer"])
def test_implementations_compute_the_same_results(target, mode):
  results = {}
  for name in ops.available_implementations():
    workload = candidates.make_workload(op_case(name, target=target, mode=mode))
    results[name] = workload.step(workload.inputs)
    assert len(results[name]) == len(workload.inputs) if mode != "forward" else 1
  expected = results.pop("reference")
  for found in results.values():
    if target == "op":  # layers have random weights
      for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert [x.shape for x in found] == [x.shape for x in expected]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("candidate", ["conv3x3", "blocked"])
def test_layers_compute_in_the_dtype_and_have_float32_weight_gradients(candidate, dtype):
  workload = candidates.make_workload(op_case(candidate, target="layer", dtype=dtype))
  output, image_gradient, *weight_gradients = workload.step(workload.inputs)
  assert output.dtype == image_gradient.dtype == dtype
  assert weight_gradients and {x.dtype for x in weight_gradients} == {tf.float32}
  assert all(np.abs(x.numpy()).max() > 0 for x in weight_gradients)


def test_required_bytes():
  maps = 4 * 4 * 5 * 16
  for mode, of_attention, of_convolution in (
    ("forward", 4 * maps, 2 * maps + 4 * 9 * 16 * 16),
    ("forward_backward", 11 * maps, 5 * maps + 3 * 4 * 9 * 16 * 16),
  ):
    workloads = [candidates.make_workload(op_case(n, mode=mode)) for n in ("blocked", "conv3x3")]
    assert [w.required_bytes for w in workloads] == [of_attention, of_convolution]


def test_training_step_reduces_the_loss_and_updates_variables():
  case = model_case("conv", "forward_backward", batch_size=4)  # attention takes longer to compile
  workload = candidates.make_workload(case)
  step = tf.function(workload.step)
  before = [variable.numpy() for variable in workload.variables]
  losses = [float(step(workload.inputs)[0]) for _ in range(4)]
  assert abs(losses[0] - np.log(1000)) < 3 and losses[3] < losses[0]
  after = [variable.numpy() for variable in workload.variables]
  changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
  assert np.mean(changed) > 0.9  # weights, momenta, moving averages of batch normalization
  assert workload.parameters > 10**7


def test_inference_returns_logits_and_updates_no_variables():
  workload = candidates.make_workload(model_case("full_attention/reference", "forward"))
  before = [variable.numpy() for variable in workload.variables]
  (logits,) = tf.function(workload.step)(workload.inputs)
  assert logits.shape == (1, 1000) and logits.dtype == tf.float32
  for old, new in zip(before, workload.variables, strict=True):
    np.testing.assert_array_equal(old, new.numpy())


def test_unknown_candidates_raise():
  for name in ("conv3x3", "auto", "blocked"):
    candidates.check_candidates("layer", [name])
  candidates.check_candidates("model", ["conv", "full_attention/blocked"])
  for target, name in (("op", "conv"), ("model", "conv/quick"), ("model", "blocked"), ("op", "")):
    with pytest.raises(UserError, match=f"is not a candidate of the target {target}"):
      candidates.check_candidates(target, [name])
  assert candidates.default_candidates("op")[1:] == ops.available_implementations()


def test_unsupported_peak_memory_is_skipped(monkeypatch):
  monkeypatch.setattr(memory, "unsupported_reason", lambda: "no statistics")
  stream = io.StringIO()
  (found,) = measure.measure_group([op_case("conv3x3")], PLAN, ProgressBar(5, stream=stream), {})
  assert found.seconds and found.peak_bytes is None and found.error is None
  assert "no peaks: no statistics" in stream.getvalue()


@pytest.mark.skipif(UNSUPPORTED is not None, reason=str(UNSUPPORTED))
def test_peak_includes_inputs_results_and_temporaries():
  x = tf.ones([2**20])

  def compute(copies):
    # Each depends on the previous one, and all are alive when they are added.
    tensors = [x + 1.0]
    for _ in range(copies - 1):
      tensors.append(tensors[-1] * 2.0)
    return float(tf.add_n(tensors)[0])

  size = 4 * 2**20
  small, large = (memory.peak_bytes(lambda n=n: compute(n), size) for n in (2, 10))
  assert 3 * size <= small <= 8 * size
  assert 5 * size <= large - small <= 16 * size


def test_nan_results_are_a_failure(monkeypatch):
  monkeypatch.setattr(
    measure, "make_workload", lambda case: loop_workload(lambda inputs: [inputs[0] / 0.0])
  )
  (found,) = measure.measure_group([op_case("x")], PLAN, ProgressBar(1, stream=io.StringIO()), {})
  assert not found.seconds and "the results contain NaN" in found.error


def test_out_of_memory_while_running_is_a_failure(monkeypatch):
  workload = loop_workload(loop.idle_step)
  monkeypatch.setattr(measure, "make_workload", lambda case: workload)

  def out_of_memory(candidate):
    raise tf.errors.ResourceExhaustedError(None, None, "out of\nmemory")

  monkeypatch.setattr(measure._PreparedCandidate, "run", out_of_memory)
  (found,) = measure.measure_group([op_case("x")], PLAN, ProgressBar(1, stream=io.StringIO()), {})
  assert not found.seconds
  assert found.error == "running: ResourceExhaustedError: out of memory"


def loop_workload(step):
  from sasa_tf.benchmarks.workloads.workload import Workload

  return Workload(step, [tf.zeros([3])])


def test_environment_has_versions_and_machine():
  environment = describe_environment()
  assert environment["packages"]["tensorflow"] == tf.__version__
  assert (
    environment["cores"] >= 1 and environment["memory_bytes"] > 2**28 and environment["machine"]
  )
  assert environment["timestamp"].endswith("+00:00")
