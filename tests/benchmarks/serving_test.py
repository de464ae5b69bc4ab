"""The target serving: what is measured, how exported models are called, and what is reported."""

import dataclasses
import json

import numpy as np
import pytest

from sasa_tf.benchmarks.serving import exports, measure, processes, report, results, run
from sasa_tf.benchmarks.serving.exports import ExportedModel
from sasa_tf.benchmarks.serving.served_formats import (
  SERVED_FORMATS,
  STOCK_OF_KERNELS,
  find_served_formats,
)
from sasa_tf.errors import UserError
from sasa_tf.serving.runtimes.registry import Runtime

# A runtime of files that hold milliseconds, the logits' factor and the batch size.
SLEEP = """
import json, time
import numpy as np
class Model:
  version = "Sleep 1.0"
  def __init__(self, path, num_threads=None):
    self.milliseconds, self.factor, batch = json.loads(open(path).read())
    self.signatures = {"prepared": [batch, 2, 2, 3]}
  def run(self, signature, inputs):
    time.sleep(self.milliseconds / 1000)
    assert len(inputs) < 16, "out of memory"
    return {"logits": self.factor * inputs.sum(axis=(1, 2))}
"""
# The same with loops on an accelerator, where a call takes a tenth of the time.
LOOP = (
  SLEEP
  + """
  def loop(self, signature, inputs, count):
    assert inputs.shape[1:] == (2, 2, 3)
    return lambda: time.sleep(count * self.milliseconds / 10000)
"""
)
PLAN = processes.Plan((1, 8), num_threads=1, rounds=3, min_run_seconds=0)


@pytest.fixture
def models(tmp_path, monkeypatch):
  """Returns a function that writes models of a runtime that sleeps."""
  adapter = tmp_path / "adapter.py"
  adapter.write_text(SLEEP)
  monkeypatch.setattr(processes, "RUNTIMES", {"litert": Runtime("Sleep", adapter)})

  def write(**contents):
    found = []
    for name, content in contents.items():
      path = tmp_path / name
      path.write_text(json.dumps(content))
      found.append(ExportedModel(name, SERVED_FORMATS["litert"], path))
    return found

  return write


def measured(models, expected=None, images=None, **setting):
  setting = {"device": "cpu", "plan": PLAN, "baseline": "conv", "memory": False, **setting}
  found = measure.measure_together(
    models, measure.Setting(**setting), {} if expected is None else expected, images
  )
  return {(each.case.candidate, each.case.batch_size): each for each in found}


def test_speeds_are_relative_to_the_baseline_of_the_same_batch_size(models):
  found = measured(models(conv=[5, 1, None], attention=[20, 1, None]))
  assert set(found) == {(name, batch) for name in ("conv", "attention") for batch in (1, 8)}
  result = found["attention", 8]
  assert len(result.seconds) == result.calls == 3 and result.runtime == "Sleep 1.0"
  assert 0.02 <= result.latency["p50"] <= result.latency["p90"] <= result.latency["p99"]
  assert result.images_per_second == pytest.approx(8 / result.latency["p50"])
  assert found["conv", 8].speed == 1
  pairs = zip(found["conv", 8].seconds, result.seconds, strict=True)
  assert result.speed == pytest.approx(np.median([base / own for base, own in pairs]))


def test_differences_are_relative_to_the_largest_logit(models):
  images = np.ones([2, 2, 2, 3], np.float32)  # logits of 4
  expected = {"conv": {"logits": np.full([2, 3], 4.0)}}
  found = measured(models(conv=[0, 1.5, None], attention=[0, 1, None]), expected, images)
  assert found["conv", 1].difference == pytest.approx(0.5)
  assert found["attention", 1].difference is None  # the first of its network
  np.testing.assert_array_equal(expected["attention"]["logits"], np.full([2, 3], 4.0))


def test_scores_of_detections_are_compared():
  expected, found = ({"detection_scores": np.array([score])} for score in (0.5, 0.75))
  assert measure.output_difference(expected, found) == 0.25
  assert measure.output_difference({"x": np.zeros(1)}, {"x": np.zeros(1)}) is None


def test_fixed_batches_are_called_with_their_size_only(models):
  found = measured(models(conv=[0, 1, 1]))
  assert found["conv", 1].latency and found["conv", 8].latency is None
  assert found["conv", 8].error is None
  assert "conv" in report.describe_latency([found["conv", 8]])
  assert "not with batch 8" in report.describe_latency([found["conv", 8]])


def test_formats_with_a_model_for_each_batch_size(models):
  (first, second) = models(one=[0, 1, 1], eight=[0, 1, 8])
  served = SERVED_FORMATS["saved_model/fixed_batch"]
  served = dataclasses.replace(served, export_format="litert")
  found = measured(
    [
      ExportedModel("conv", served, first.path, batch_size=1),
      ExportedModel("conv", served, second.path, batch_size=8),
    ]
  )
  assert [case for case, each in found.items() if each.latency] == [("conv", 1), ("conv", 8)]


def test_loops_on_an_accelerator(models, tmp_path):
  assert not measured(models(conv=[0, 1, None]))["conv", 1].loop_seconds
  (tmp_path / "adapter.py").write_text(LOOP)
  found = measured(models(conv=[5, 1, None], attention=[20, 1, None]))
  result = found["attention", 8]
  assert len(result.loop_seconds) == 3 and 0.002 <= min(result.loop_seconds) < 0.01
  pairs = zip(found["conv", 8].loop_seconds, result.loop_seconds, strict=True)
  assert result.loop_speed == pytest.approx(np.median([base / own for base, own in pairs]))
  table = report.describe_latency([found["conv", 8], result])
  assert "ms in a loop" in table and f"{result.loop_speed:.2f}x" in table
  assert results.ServedResult.from_json(result.to_json()) == result


def test_loading_and_memory_are_measured_in_a_process_of_each_model(models, monkeypatch):
  monkeypatch.setattr(measure, "PEAK_BATCH", 4)
  (result, _) = measured(models(conv=[10, 1, None]), memory=True).values()
  assert result.load_seconds > 0 and result.first_call_seconds >= 0.01
  assert result.peak_batch == 4 and result.peak_bytes >= 0
  table = report.describe_loading([result])
  assert "peak MiB, batch 4" in table and "Sleep 1.0" in table and table.count("conv") == 1


def test_a_model_that_fails_does_not_end_the_others(models):
  (broken,) = models(broken=["no number", 1, None])
  found = measured([*models(conv=[0, 1, None]), broken])
  assert found["conv", 8].latency
  assert found["broken", 8].latency is None and "TypeError" in found["broken", 8].error
  assert "broken" in report.describe_latency(list(found.values()))
  missing = ExportedModel("none", SERVED_FORMATS["litert"], None, "no kernels")
  assert measured([missing])["none", 1].error == "no kernels"


def test_a_batch_that_fails_is_reported(models):
  plan = PLAN._replace(batch_sizes=(1, 16))
  found = measured(models(conv=[0, 1, None]), plan=plan)
  assert found["conv", 1].latency
  assert "batch 16: AssertionError: out of memory" in found["conv", 16].error


def test_a_crash_of_the_runtime_is_reported_with_each_model(models, tmp_path):
  (tmp_path / "adapter.py").write_text("raise SystemExit(3)")
  found = measured(models(conv=[0, 1, None], attention=[0, 1, None]), memory=True)
  assert all("Sleep cannot run these models" in each.error for each in found.values())


def test_results_are_stored_in_lines(models, tmp_path):
  found = list(measured(models(conv=[0, 1, None])).values())
  path = str(tmp_path / "results.jsonl")
  results.append(path, found)
  results.append(path, found[:1])
  assert results.read(path) == found
  assert results.holds_served_results(path)
  (tmp_path / "other.jsonl").write_text('{"case": {"target": "op"}}\n')
  assert not results.holds_served_results(str(tmp_path / "other.jsonl"))
  with pytest.raises(UserError, match=r"other.jsonl, line 1: expected a result of --target=serv"):
    results.read(str(tmp_path / "other.jsonl"))
  line = json.loads(found[0].to_json())
  for key, value in (
    ("latency", {"p50": 0, "p90": 1, "p99": 1}),
    ("seconds", "12"),
    ("num_bytes", 1.5),
    ("environment", {"cores": 2}),
    ("case", line["case"] | {"device": "tpu"}),
  ):
    (tmp_path / "other.jsonl").write_text(json.dumps(line | {key: value}))
    with pytest.raises(UserError, match=r"other.jsonl, line 1: expected a result"):
      results.read(str(tmp_path / "other.jsonl"))


def test_formats():
  assert [each.name for each in find_served_formats([])] == [
    "saved_model",
    "saved_model/cpu_kernels",
    "saved_model/gpu_kernels",
    "litert",
    "onnx",
    "openvino",
  ]
  assert [each.name for each in find_served_formats(["onnx/int8", "onnx/int8"])] == ["onnx/int8"]
  with pytest.raises(
    UserError, match=r"--formats=onx: expected some of saved_model, .*mean 'onnx' or"
  ):
    find_served_formats(["onx"])
  with pytest.raises(UserError, match=r"--formats=keras: .* run in Keras or in a browser"):
    find_served_formats(["keras"])


def test_given_exports(tmp_path):
  first, second = tmp_path / "a" / "exported", tmp_path / "b" / "exported"
  for folder in (first, second):
    (folder / "saved_model").mkdir(parents=True)
  (first / "model.onnx").touch()
  metadata = first / "saved_model" / "assets.extra" / "model_metadata.json"
  metadata.parent.mkdir()
  metadata.write_text('{"gpu": {"signature": "gpu"}}')
  library = second / "saved_model" / "assets.extra" / "libsasa_tf.so"
  library.parent.mkdir()
  library.touch()
  found = exports.find_exports([str(first), str(second)], find_served_formats([]))
  assert [(each.candidate, each.served.name, each.served.signature) for each in found] == [
    (str(first), "saved_model", "prepared"),
    (str(first), "saved_model/gpu_kernels", "gpu"),
    (str(first), "onnx", "prepared"),
    (str(second), "saved_model", "prepared_stock"),
    (str(second), "saved_model/cpu_kernels", "prepared"),
  ]
  assert found[3].served is STOCK_OF_KERNELS
  (only,) = exports.find_exports([str(first)], find_served_formats(["onnx"]))
  assert only.candidate == "exported"
  with pytest.raises(
    UserError, match=r"--exports=.* holds no exported model of these formats: exp"
  ):
    exports.find_exports([str(tmp_path)], find_served_formats([]))
  with pytest.raises(
    UserError, match=r"--exports=/nothing: no such directory. Expected an --outpu"
  ):
    exports.find_exports(["/nothing"], find_served_formats([]))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"formats": ["savedmodel"]}, r"--formats=savedmodel: .* Did you mean 'saved_model' or "),
    ({"candidates": ["resnet"]}, "'resnet' is not a candidate of the target serving; expected"),
    ({"devices": ["tpu"]}, "--devices=tpu: expected some of cpu, gpu"),
    ({"baseline": "full"}, "--baselines: full is not measured here; expected one of conv, "),
    ({"exports": ["/nothing"]}, "--exports=/nothing: no such directory"),
    ({"formats": ["saved_model/gpu_kernels"], "devices": ["cpu"]}, "runs on the GPU, which is not"),
  ],
)
def test_unusable_arguments(options, message):
  with pytest.raises(UserError, match=message):
    run.measure(run.ServingBenchmark(PLAN, **options))


def test_missing_packages_are_named(monkeypatch, capsys):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"--formats=onnx cannot be measured: .*sasa_tf\[onnx\]"):
    run.measure(run.ServingBenchmark(PLAN, formats=["onnx"]))
