"""The report of a study, from JSON lines alone."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from sasa_tf.errors import UserError
from sasa_tf.studies.records import read_results
from sasa_tf.studies.report import page, statistics
from sasa_tf.studies.report.summary import summarize


def record(row, seed, value, *, position=0, status="finished", **report):
  return {
    "case": {"study": "s", "row": row, "seed": seed},
    "status": status,
    "error": None if status == "finished" else "out | of memory",
    "metric": "accuracy",
    "value": value,
    "evaluations": [
      {"step": 1, "seconds": 30.0, "metrics": {"accuracy": 0.5}},
      {"step": 2, "seconds": 60.0, "metrics": {"accuracy": value}},
    ],
    "step": 2,
    "train_steps": 2,
    "batch_size": 8,
    "seconds": 60.0,
    "target": {"value": 0.9, "seconds": 60.0, "step": 2},
    "images_per_second": 1234.5,
    "peak_memory": {"kind": "device", "bytes": 2**30},
    "parameters": 1_000_000 if row == "conv" else 750_000,
    "flops": {"mac": 2e9, "paper": 2.1e9},
    "device": "GPU <0>",
    "processes_per_gpu": 2,
    "versions": {"tensorflow": "2.20.0"},
    "commit": "abc",
    "timestamp": "2026-01-02T00:00:00+00:00",
    "report": {
      "position": position,
      "baseline": "conv",
      "paper": None,
      "compare_with": None,
      "expect": None,
      **report,
    },
  }


def example():
  finding = {"paper": "80 against 79 %", "compare_with": "conv", "expect": "higher"}
  return [
    *(record("attention", s, 0.92 + 0.001 * s, position=1, **finding) for s in range(3)),
    *(record("conv", s, 0.90 + 0.001 * s) for s in range(3)),
    record("big", 0, None, position=2, status="failed", **finding),
  ]


def write(path, records):
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return path


def test_welch_test_and_verdicts():
  rng = np.random.default_rng(0)
  a, b = rng.normal(0.92, 0.002, 5).tolist(), rng.normal(0.90, 0.004, 4).tolist()
  found = statistics.compare(a, b)
  # Welch (1947), from its formulas.
  va, vb = np.var(a, ddof=1) / 5, np.var(b, ddof=1) / 4
  degrees = (va + vb) ** 2 / (va**2 / 4 + vb**2 / 3)
  t = (np.mean(a) - np.mean(b)) / np.sqrt(va + vb)
  from scipy import stats

  assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), degrees))
  assert found.high - found.difference == pytest.approx(
    stats.t.ppf(0.975, degrees) * np.sqrt(va + vb)
  )
  assert statistics.verdict(found, "higher") == statistics.verdict(found, "not_lower")
  assert statistics.verdict(found, "higher") == "reproduced"
  assert statistics.verdict(found, "lower") == "opposite"
  assert statistics.verdict(statistics.compare(b, a), "not_lower") == "opposite"
  unclear = statistics.compare([0.9, 0.92], [0.9, 0.93])
  assert statistics.verdict(unclear, "higher") == "not at this scale"
  assert statistics.verdict(unclear, "not_lower") == "not at this scale"
  assert statistics.verdict(statistics.compare([0.9], a), "higher") == "one seed"
  assert statistics.compare([0.9, 0.9], [0.9, 0.9]).p_value == 1.0


def test_results_keep_the_last_of_each_run_and_finished_before_failed(tmp_path):
  lines = [record("a", 0, 0.5), record("a", 0, 0.6), record("a", 0, None, status="failed")]
  path = write(tmp_path / "r.jsonl", lines)
  path.write_text(path.read_text() + '{"case": {"study"')
  (found,) = read_results([path])
  assert found["value"] == 0.6


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"\xcc\x00garbage",
    b"[]\n3\nnull",
    b'{"case": 3}',
    b'{"case": {"study": [], "row": "a", "seed": 0}, "status": "finished", "report": {}}',
    b'{"case": {"study": "s", "row": "a", "seed": 0}, "status": "finished", "report": 3}',
    b"[" * 100_000,
  ],
)
def test_files_without_results_are_named(content, tmp_path):
  (tmp_path / "r.jsonl").write_bytes(content)
  with pytest.raises(UserError, match=r"r\.jsonl contains no results of a study"):
    read_results([tmp_path / "r.jsonl"])
  with pytest.raises(UserError, match="cannot be read: Is not a regular file"):
    read_results(["/dev/zero"])


def test_report_has_all_rows_tests_and_failures(tmp_path):
  pytest.importorskip("matplotlib")
  files = page.check_report(str(tmp_path / "r.md"), overwrite=False)
  page.write_report(summarize(example()), files)
  text = (tmp_path / "r.md").read_text()
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  baseline, attention = rows[1], rows[2]
  assert baseline.startswith("| **conv** | **3** | **90.10 ± 0.10** |")
  assert "| +2.00 (+1.77 to +2.23) | < 0.001 | 750,000 | 75% | 2.000 | 100% | 1,234 |" in attention
  assert "| reproduced |" in text and "reproduced: the difference is" in text
  assert "| no result |" in text
  assert "| big, seed 0 | 2 | out \\| of memory |" in text
  for image in re.findall(r"!\[.*?\]\((.*?)\)", text):
    assert (tmp_path / image).read_bytes().startswith(b"\x89PNG")
  html = (tmp_path / "r.html").read_text()
  assert html.count("<table>") == 3 and "data:image/png;base64," in html
  assert "GPU &lt;0&gt;" in html and "<td><strong>3</strong></td>" in html


def test_other_files_are_not_replaced(tmp_path):
  pytest.importorskip("matplotlib")
  (tmp_path / "r.md").write_text("# Notes\n")
  with pytest.raises(UserError, match="exists"):
    page.check_report(str(tmp_path / "r.md"), overwrite=False)
  (tmp_path / "s_cost.png").write_text("")
  with pytest.raises(UserError, match=r"s_cost\.png exists"):
    page.check_report(str(tmp_path / "s.md"), overwrite=False)
  with pytest.raises(UserError, match=r"ends with \.md"):
    page.check_report(str(tmp_path / "s.html"), overwrite=False)


def test_report_replaces_its_section_of_a_document(tmp_path):
  pytest.importorskip("matplotlib")
  document = tmp_path / "d.md"
  title = f"# The text between `{page.BEGIN}` and `{page.END}` is replaced\n"
  document.write_text(f"{title}\n{page.BEGIN}\nold\n{page.END}\n\nEnd.\n")
  for _ in range(2):
    files = page.check_report(str(document), overwrite=False)
    page.write_report(summarize(example()), files)
  text = document.read_text()
  assert text.startswith(title) and text.endswith("\n\nEnd.\n") and "old" not in text
  assert text.count("## Results of the study s") == 1


def test_summary_errors():
  with pytest.raises(UserError, match="one study; received those of s, t"):
    other = record("a", 0, 0.5)
    other["case"]["study"] = "t"
    summarize([record("a", 0, 0.5), other])
  with pytest.raises(UserError, match=r"no run of the study s finished; .* out \| of memory"):
    summarize(example()[-1:])
  with pytest.raises(UserError, match="--baseline=x"):
    summarize(example(), "x")
  assert summarize(example(), "attention").baseline.name == "attention"
  without = [r for r in example() if r["case"]["row"] != "conv"]
  assert summarize(without).baseline is None


def test_report_imports_no_tensorflow(tmp_path):
  write(tmp_path / "r.jsonl", example())
  code = (
    "import sys; sys.argv = ['study', '--results=r.jsonl', '--report=r.md']\n"
    "from sasa_tf.bin import study\n"
    "try: study.run()\n"
    "except SystemExit as end: assert not end.code, end.code\n"
    "assert not {'tensorflow', 'official', 'keras'} & set(sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "r.html").exists() and "r_metric.png" in done.stdout


@pytest.mark.parametrize(
  "key, value",
  [
    ("case", {"study": "s", "row": "a", "seed": "0"}),
    ("metric", 5),
    ("value", None),
    ("value", "0.9"),
    ("evaluations", [{"step": 1}]),
    ("evaluations", [{"step": 1, "seconds": None, "metrics": {}}]),
    ("seconds", "60"),
    ("peak_memory", 7),
    ("parameters", "many"),
    ("flops", {"mac": 1}),
    ("timestamp", 2026),
    ("versions", ["1"]),
    ("status", "unknown"),
    ("report", {"position": 0}),
    ("images_per_second", 1e999),
  ],
)
def test_results_with_values_of_other_types_are_skipped(tmp_path, key, value):
  good, bad = record("a", 0, 0.5), record("a", 1, 0.5) | {key: value}
  file = tmp_path / "results.jsonl"
  file.write_text("\n".join(map(json.dumps, (bad, good))))
  assert read_results([file]) == [good]


def test_runs_that_diverged_have_no_deviation(tmp_path):
  infinite, none = float("inf"), float("nan")
  rows = {"conv": (0.5, 0.6), "a": (infinite, 0.5), "b": (none, none), "c": (infinite, -infinite)}
  found = [record(row, s, v) for row, values in rows.items() for s, v in enumerate(values)]
  for one in found[2:]:
    one["report"] |= {"paper": "better", "compare_with": "conv", "expect": "higher"}
  (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, found)))
  summary = summarize(read_results([tmp_path / "results.jsonl"]))
  assert [str(row.mean) for row in summary.rows[1:]] == ["inf", "nan", "nan"]
  page.write_report(summary, page.check_report(str(tmp_path / "a.md"), overwrite=False))
  assert "inf" in (tmp_path / "a.md").read_text()
