"""Tables and plots."""

import sys

import pytest

from sasa_tf.benchmarks.results import plot
from sasa_tf.benchmarks.results.report import LEGEND, describe, describe_group, milliseconds
from sasa_tf.errors import UserError
from tests.benchmarks.example_results import ENVIRONMENT, measurement

MODEL = {"target": "model", "shape": (224, 224, 3), "model_id": 50, "batch_size": 256}
REASON = "building: ValueError: " + "too many words for one line " * 30


def widest(text):
  return max(map(len, text.splitlines()))


def test_rows_show_times_and_ratios():
  text = describe_group(
    [
      measurement("conv3x3", [0.001, 0.002, 0.003]),
      measurement("reference", [0.2]),
      measurement("blocked", [0.05]),
    ],
    ["reference", "conv3x3"],
  )
  heading, header, *rows = text.splitlines()
  assert heading == ("op, forward + backward, batch 2, 56x56x64, float32, XLA; 8 heads, window 7")
  assert header.split("  ")[0] == "candidate"
  cells = {row.split()[0]: row.split()[1:] for row in rows}
  assert cells["conv3x3"][:4] == ["2.000", "1.500", "-", "2.500"]
  assert cells["conv3x3"][4:] == ["100x", "1.00x", "50.00", "3.0", "3", "x", "7"]
  assert cells["blocked"][4:6] == ["4.00x", "0.04x"]


def test_models_show_images_per_second():
  text = describe_group([measurement("conv", [0.5], case=MODEL, parameters=25_557_032)], ["conv"])
  assert "ResNet-50, training step, batch 256" in text
  assert text.splitlines()[2].split()[6:9] == ["512.0", "3.0", "25,557,032"]


def test_failures_and_remarks_are_shown():
  text = describe_group(
    [
      measurement("reference", (), error=REASON, peak_bytes=None, overhead_seconds=None),
      measurement("blocked", [1e-4], peak_bytes=None, error="no peak: unknown"),
    ],
    [],
  )
  lines = text.splitlines()
  assert lines[2].startswith("reference  failed: building: ValueError: too many")
  assert lines[5].endswith("...") and widest(text) <= 100
  assert "peak MiB" not in text
  assert "blocked: no peak: unknown" in lines
  assert "including the overhead of the loop: blocked 0.0100 ms" in lines


def test_lines_have_at_most_100_columns():
  names = ["conv_stem+attention/an_implementation_with_a_long_name", "full_attention/reference"]
  many = {
    "seconds": [123.5, 99.9, 1234.6],
    "peak_bytes": 2**40,
    "parameters": 10**9,
    "steps": 10**6,
  }
  text = describe_group([measurement(name, case=MODEL, **many) for name in names], names[1:])
  assert widest(text) <= 100 and "conv_stem" in text
  assert widest(describe(ENVIRONMENT)) <= 100
  assert widest(LEGEND) <= 100


def test_description_has_machine_and_versions():
  text = describe(ENVIRONMENT)
  for part in ("Test Processor 9000, 2 cores, 16 GiB", "sasa_tf 0.1.0 (abc1234)", "XLA_FLAGS="):
    assert part in text
  gpu = {"device": "NVIDIA H200", "cuda": "12.5.1", "cudnn": "9", "driver": "580.65.06"}
  assert "NVIDIA H200; built for CUDA 12.5.1" in describe(ENVIRONMENT | gpu)


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(1e-5, "0.0100"), (1.234e-3, "1.234"), (0.1, "100.0"), (0.01, "10.00"), (12.3456, "12,346")],
)
def test_milliseconds_have_about_four_digits(seconds, text):
  assert milliseconds(seconds) == text


@pytest.mark.parametrize("memory", [True, False])
def test_plot_is_an_image(tmp_path, memory):
  peaks = {} if memory else {"peak_bytes": None}
  rows = [
    measurement(name, [1e-3, 2e-3, 4e-3], case={"shape": shape}, **peaks)
    for shape in ((56, 56, 64), (7, 7, 512))
    for name in ("conv3x3", "blocked")
  ]
  rows += [
    measurement("reference", (), error=REASON, peak_bytes=None),
    measurement("full_attention", [0.5], case=MODEL),
    measurement("full_attention", [0.3], case=MODEL | {"batch_size": 64}),
  ]
  path = tmp_path / "plot.png"
  plot.save_plot(rows, str(path))
  assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def test_plot_of_failures_only(tmp_path):
  rows = [measurement("reference", (), error=REASON, peak_bytes=None)]
  plot.save_plot(rows, str(tmp_path / "plot.png"))
  assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_plot_errors(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r"--plot=.*xyz"):
    plot.save_plot([measurement("blocked")], str(tmp_path / "plot.xyz"))
  (tmp_path / "plot.png").write_text("old")
  with pytest.raises(UserError, match=r"plot\.png exists.*--overwrite"):
    plot.save_plot([measurement("blocked")], str(tmp_path / "plot.png"))
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match="needs matplotlib"):
    plot.save_plot([measurement("blocked")], str(tmp_path / "plot.png"))
