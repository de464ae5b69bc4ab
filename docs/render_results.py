"""Renders the tables of docs/results.json into the Markdown files.

  python docs/render_results.py           # rewrites the tables
  python docs/render_results.py --check   # exits with status 1 if a table is out of date

A table stands between `<!-- results:NAME -->` and `<!-- /results -->`, where NAME is a set of
results.json or a function of `SUMMARIES`. The tables of served models are rendered from
serving_results.jsonl and serving_gpu_results.jsonl, the --output of `sasa_tf.bin.benchmark
--target=serving` on a CPU and on a GPU. Those of studies
are rendered from studies/*.jsonl, the results of `sasa_tf.bin.study`.
"""

from __future__ import annotations

import json
import pathlib
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sasa_tf.studies.records import read_results
from sasa_tf.studies.report import tables
from sasa_tf.studies.report.statistics import compare, verdict
from sasa_tf.studies.report.summary import StudySummary, summarize
from sasa_tf.studies.study_file import read_study

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = json.loads((ROOT / "docs" / "results.json").read_text())
SERVING_RESULTS = ROOT / "docs" / "serving_results.jsonl"
SERVING_GPU_RESULTS = ROOT / "docs" / "serving_gpu_results.jsonl"
_NETWORKS = {
  "conv": "convolution",
  "conv_stem+attention": "conv stem + attention",
  "full_attention": "full attention",
}
_CIFAR10_ROWS = {
  "convolution": "convolution",
  "attention_4": "attention in stage 4",
  "attention_34": "attention in stages 3 and 4",
  "attention_234": "attention in stages 2, 3 and 4",
  "attention_all": "attention in all stages",
}
_ABLATIONS = "cifar10_ablations"
_ABLATION_ROWS = {
  "convolution": "convolution",
  "attention_34": "attention in stages 3 and 4",
  "attention_all": "attention in all stages, 7 x 7",
  "positions_none": "all stages, no positions",
  "positions_absolute": "all stages, absolute positions",
  "without_content": "all stages, positions without content",
  "kernel_3": "all stages, 3 x 3",
  "kernel_5": "all stages, 5 x 5",
  "kernel_11": "all stages, 11 x 11",
  "attention_12": "attention in stages 1 and 2",
  "stem_conv": "all stages, convolutional stem, 8 x 8",
  "stem_attention": "all stages, attention stem, 8 x 8",
  "convolution_half": "convolution, half of the width",
  "attention_34_half": "stages 3 and 4, half of the width",
  "attention_all_half": "all stages, half of the width",
  "squeeze_excitation": "convolution, squeeze-and-excitation",
  "attention_augmented": "convolution, attention-augmented",
  "non_local": "convolution, non-local blocks",
}
_BCCD_ROWS = {
  "convolution": "convolutions everywhere",
  "attention_backbone": "attention in backbone and stem",
  "shortcut_locality": "attention everywhere, shortcuts and locality",
  "shortcut_locality_conv_stem": "the same with a convolutional stem",
}
_BCCD_STUDIES = {
  "bccd": "600 steps",
  "bccd_long": "1,200 steps",
  "bccd_transfer": "600 steps, backbone from CIFAR-10",
}
_MARKED = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)


def markdown_files() -> list[pathlib.Path]:
  """Returns the files that may contain tables."""
  return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def column(name: str, header: str) -> dict[str, Any]:
  """Returns the values of a column, by the first cell of each row."""
  headers = [column["name"] for column in RESULTS["sets"][name]["columns"]]
  index = headers.index(header)
  return {row[0]: row[index] for row in RESULTS["sets"][name]["rows"]}


def training_step(header: str, batch: int) -> dict[str, Any]:
  """Returns the values of a column of the training step on an H100, by model."""
  return {row["model"]: row[header] for row in _records("train_step_h100") if row["batch"] == batch}


def latest_training_speed() -> dict[str, int]:
  """Returns images/s of the training step on an H200, batch 128, by model with windows of 7."""
  return {
    row["model"].removesuffix(", window 7"): row["images/s"]
    for row in _records("train_step_h200")
    if row["batch"] == 128 and not row["model"].endswith("window 3")
  }


def _records(name: str) -> list[dict[str, Any]]:
  columns = RESULTS["sets"][name]["columns"]
  headers = [column["name"] for column in columns if "ratio_of" not in column]
  return [dict(zip(headers, row, strict=True)) for row in RESULTS["sets"][name]["rows"]]


def _table(rows: Iterable[Sequence[str]]) -> str:
  header, *body = rows
  lines = [header, ["---"] * len(header), *body]
  return "".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(line)} |\n") for line in lines)


def _cell(value: Any, form: str) -> str:
  if value is None:
    return ""
  return form.format(*value) if isinstance(value, list) else form.format(value)


def _ratio(record: dict[str, Any], records: list[dict[str, Any]], spec: dict[str, str]) -> float:
  """Divides a value by that of the first row with the same batch size."""
  same, of = spec["same"], spec["ratio_of"]
  baseline = next(other for other in records if other[same] == record[same])
  return record[of] / baseline[of]


def render_set(name: str) -> str:
  """Returns a set of results as a Markdown table."""
  columns, records = RESULTS["sets"][name]["columns"], _records(name)
  rows = [[column["name"].strip() for column in columns]]
  for record in records:
    values = [
      _ratio(record, records, spec) if "ratio_of" in spec else record[spec["name"]]
      for spec in columns
    ]
    rows.append(
      [_cell(value, spec.get("format", "{}")) for value, spec in zip(values, columns, strict=True)]
    )
  return _table(rows)


def summary() -> str:
  """Returns the rows of the README: ResNet-50 with convolutions and with attention."""
  parameters, flops = column("model_cost", "parameters"), column("model_cost", "GFLOPs")
  speed, memory = latest_training_speed(), training_step("peak MiB", 128)
  models = list(parameters)
  return _table(
    [
      ["", "convolution", "conv stem + attention", "full attention"],
      ["parameters", *(f"{parameters[model] / 1e6:.1f} M" for model in models)],
      ["FLOPs (2 per multiply-add)", *(f"{flops[model]:.2f} G" for model in models)],
      ["training, images/s", *(f"{speed[model]:,}" for model in models)],
      ["its peak memory", *(f"{memory[model] / 1024:.1f} GiB" for model in models)],
    ]
  )


def _study(name: str) -> StudySummary:
  return summarize(read_results([ROOT / "docs" / "studies" / f"{name}.jsonl"]))


def cifar10_study() -> str:
  """Returns the accuracy of networks with attention in some stages, over several seeds."""
  study = _study("cifar10")
  rows = [["ResNet-26, CIFAR-10", "parameters", "GFLOPs", "test accuracy, %", "seeds"]]
  for name, label in _CIFAR10_ROWS.items():
    row = study.row(name)
    accuracy = tables.percent(row.mean, row.spread)
    cost = [f"{row.parameters / 1e6:.2f} M", f"{row.flops() / 1e9:.2f}"]
    rows.append([label, *cost, accuracy, str(len(row.values))])
  return _table(rows)


def cifar10_ablations() -> str:
  """Returns all rows of the study of ablations, with the findings of the paper."""
  summary = _study(_ABLATIONS)
  head = ["ResNet-26, CIFAR-10, 10 epochs", "parameters", "GFLOPs", "test accuracy, %", "seeds"]
  rows = [[*head, "compared with", "difference, points", "p", "the paper", "verdict"]]
  for planned in read_study(ROOT / "official_configs" / "studies" / f"{_ABLATIONS}.yaml").rows:
    label, row = _ABLATION_ROWS[planned.name], summary.row(planned.name)
    if row is None:
      rows.append([label, "", "", "not run", *[""] * 4, planned.paper or "", ""])
      continue
    flops, other = row.flops(), summary.row(planned.compare_with)
    compared, decided = ["", "", ""], ""
    if other is not None and planned.expect:
      comparison = compare(row.values, other.values)
      compared = [
        _ABLATION_ROWS[other.name],
        tables.points(comparison),
        tables.p_value(comparison),
      ]
      decided = verdict(comparison, planned.expect)
    rows.append(
      [
        label,
        f"{row.parameters / 1e6:.2f} M",
        f"{flops / 1e9:.2f}" if flops else "",
        tables.percent(row.mean, row.spread),
        str(len(row.values)),
        *compared,
        planned.paper or "",
        decided,
      ]
    )
  return _table(rows)


def bccd_studies() -> str:
  """Returns the AP of detectors of blood cells for several budgets, over several seeds."""
  studies = [_study(name) for name in _BCCD_STUDIES]
  rows = [["AP, mean and standard deviation of 3 seeds", "parameters", *_BCCD_STUDIES.values()]]
  for name, label in _BCCD_ROWS.items():
    found = [study.row(name) for study in studies]
    cells = [tables.percent(row.mean, row.spread) if row else "" for row in found]
    parameters = next(row.parameters for row in found if row)
    rows.append([label, f"{parameters:,}", *cells])
  return _table(rows)


def input_rates() -> str:
  """Returns the input that a training of ResNet-50 on an H100 consumes."""
  rows = [["ResNet-50, batch 256", "images/s", "JPEG, 108 kB per image", "bfloat16, 301 kB"]]
  for model, rate in training_step("images/s", 256).items():
    rows.append([model, f"{rate:,}", f"{rate * 108e-6:.1f} GB/s", f"{rate * 301e-6:.1f} GB/s"])
  return _table(rows)


def served_models(path: pathlib.Path) -> dict[tuple[str, str, str], dict[int, dict[str, Any]]]:
  """Returns {(device, format, network): {batch size: result}} of the last run of each case."""
  found: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
  for line in path.read_text().splitlines():
    result = json.loads(line)
    case = result["case"]
    key = (case["device"], case["served"], case["candidate"])
    found.setdefault(key, {})[case["batch_size"]] = result
  return found


def serving_speed(path: pathlib.Path = SERVING_RESULTS) -> str:
  """Returns latency, speed relative to convolution, and difference of served models."""
  models = served_models(path)
  batch_sizes = sorted({size for results in models.values() for size in results})
  first, last = batch_sizes[0], batch_sizes[-1]
  has_loops = any(
    result.get("loop_seconds") for each in models.values() for result in each.values()
  )
  header = ["format", "runtime", "network", "difference", f"ms, batch {first}: p50, p90, p99"]
  for size in batch_sizes:
    header += [f"images/s, batch {size}", "speed"]
  if has_loops:
    header += [f"ms in a loop, batch {last}", "speed"]
  rows = [header]
  for (_, served, network), results in models.items():
    result = results[first]
    latency = [1e3 * seconds for seconds in result["latency"].values()]
    difference = result["difference"]
    row = [
      f"`{served}`",
      result["runtime"],
      _NETWORKS[network],
      "" if difference is None else f"{difference:.0e}" if difference else "0",
      ", ".join(f"{milliseconds:.{int(milliseconds < 10)}f}" for milliseconds in latency),
    ]
    for size in batch_sizes:
      if size not in results or results[size]["speed"] is None:  # a file with a fixed batch size
        row += ["", ""]
      else:
        row += [f"{results[size]['images_per_second']:,.1f}", f"{results[size]['speed']:.2f}"]
    if has_loops:
      loops, speed = results[last]["loop_seconds"], results[last]["loop_speed"]
      row += [f"{1e3 * statistics.median(loops):.2f}", f"{speed:.2f}"] if loops else ["", ""]
    rows.append(row)
  return _table(rows)


def serving_loading() -> str:
  """Returns size, load time, first call and peak memory of served models."""
  rows = [["format", "network", "MB", "load, s", "first call, s", "peak memory, MiB"]]
  for (_, served, network), results in served_models(SERVING_RESULTS).items():
    result = next(iter(results.values()))
    if result["load_seconds"] is None:  # measured with --nomemory
      continue
    peak = f"{result['peak_bytes'] / 2**20:,.0f}"
    if result["peak_batch"] == 1:
      peak += " (batch 1)"
    rows.append(
      [
        f"`{served}`",
        _NETWORKS[network],
        f"{result['num_bytes'] / 1e6:.0f}",
        f"{result['load_seconds']:.1f}",
        f"{result['first_call_seconds']:.1f}",
        peak,
      ]
    )
  return _table(rows)


def serving_gpu() -> str:
  """Returns the table of `serving_speed` for a GPU."""
  return serving_speed(SERVING_GPU_RESULTS)


def serving_gpu_machine() -> str:
  """Returns machine and command of the table of a GPU."""
  return serving_machine(SERVING_GPU_RESULTS)


def serving_machine(path: pathlib.Path = SERVING_RESULTS) -> str:
  """Returns the machines and commands of the tables of served models."""
  lines = []
  for results in served_models(path).values():
    for result in results.values():
      environment = result["environment"]
      machine = f"{environment['cores']} cores of an {environment['machine']}"
      if environment["device"] != "CPU":
        machine = f"an {environment['device']} with {machine}"
      load = f"with a load average of {environment['load_average']:.0f} at the start"
      lines.append(
        f"Measured on {machine} {load}, {environment['timestamp'][:10]}:\n`{result['command']}`\n"
      )
  return "\n".join(dict.fromkeys(lines))


SUMMARIES: dict[str, Callable[[], str]] = {
  "summary": summary,
  "cifar10_study": cifar10_study,
  "cifar10_ablations": cifar10_ablations,
  "bccd_studies": bccd_studies,
  "input_rates": input_rates,
  "serving_speed": serving_speed,
  "serving_loading": serving_loading,
  "serving_machine": serving_machine,
  "serving_gpu": serving_gpu,
  "serving_gpu_machine": serving_gpu_machine,
}


def render_text(text: str) -> str:
  """Returns a Markdown text with all its tables rendered."""

  def replaced(match: re.Match[str]) -> str:
    start, name, _, end = match.groups()
    return start + (SUMMARIES[name]() if name in SUMMARIES else render_set(name)) + end

  return _MARKED.sub(replaced, text)


def main() -> int:
  """Rewrites or checks all files. Returns the exit status."""
  outdated = []
  for path in markdown_files():
    text = path.read_text()
    rendered = render_text(text)
    if rendered != text:
      outdated.append(path)
      if "--check" not in sys.argv[1:]:
        path.write_text(rendered)
  for path in outdated:
    print(f"{'outdated' if '--check' in sys.argv[1:] else 'updated'}: {path.relative_to(ROOT)}")
  return int(bool(outdated) and "--check" in sys.argv[1:])


if __name__ == "__main__":
  sys.exit(main())
