"""The report on the cost of one model."""

import csv
import io
import json

import keras
import pytest
from rich.console import Console

from sasa_tf.analysis import cost_model
from sasa_tf.analysis.cost.graph_profile import GraphProfile
from sasa_tf.analysis.cost.report import CostReport
from sasa_tf.analysis.paper.classifiers import build_classifier
from sasa_tf.reporting import write_report


@pytest.fixture(scope="module")
def cost():
  model = build_classifier(
    model_id=26, stem="attention", width_multiplier=0.25, num_classes=10, input_shape=(64, 64, 3)
  )
  return cost_model(model)


def written(report, form, capsys):
  write_report(report, form)
  return capsys.readouterr().out


def rows(output):
  """Returns {name: cells} of the lines of a printed table."""
  lines = [line.split() for line in output.splitlines() if line.strip()]
  return {cells[0]: cells[1:] for cells in lines}


def test_table_has_stages_with_subtotals(cost, capsys):
  output = written(CostReport(cost), "table", capsys)
  table = rows(output)
  assert max(map(len, output.splitlines())) <= 100
  assert sum(f"{layer.parameters:,}" in output for layer in cost.layers) == len(cost.layers)
  assert table["block1_shortcut_activation".replace("_activation", "")][0] == "Conv2D"
  stage = [layer for layer in cost.layers if layer.name.startswith("group2_")]
  assert table["group2"][:3] == [str(len(stage)), "layers", "8x8x128"]
  assert table["group2"][3] == f"{sum(layer.parameters for layer in stage):,}"
  assert table["group2"][4] == f"{sum(layer.flops for layer in stage) / 1e6:,.1f}"


def test_table_fits_a_terminal_of_80_columns(cost):
  console = Console(file=io.StringIO(), width=80)
  console.print(CostReport(cost).table())
  lines = console.file.getvalue().splitlines()
  names = [line.split()[0] for line in lines if line.startswith("  block")]
  assert len(names) == sum("block" in layer.name for layer in cost.layers)
  assert "block1_spatial_activation" in names and max(map(len, lines)) <= 80


def test_totals_are_shown_for_each_convention(cost, capsys):
  output = written(CostReport(cost), "table", capsys)
  assert (
    f"parameters      {cost.parameters:,}, and {cost.non_trainable_parameters:,} non-trainable"
    in output
  )
  for convention in ("paper", "mac"):
    flops = cost.in_convention(convention).flops
    assert f"FLOPs, {convention}    "[:13] in output and f"{flops / 1e6:.3f} M per image" in output
  assert f"{cost.bytes / 1e6:,.1f} MB per batch of 1 in float32" in output


@pytest.mark.parametrize(("by", "lines"), [("layer", 94), ("block", 8 + 2 + 4), ("group", 8)])
def test_levels(cost, by, lines, capsys):
  output = written(CostReport(cost, by), "markdown", capsys)
  table = [line for line in output.splitlines() if line.startswith("| ")][1:]
  detailed = [line for line in table if "**" not in line]
  if by == "layer":
    assert len(detailed) == len(cost.layers)
  else:
    assert len(table) == lines
  parameters = sum(int(line.split(" | ")[3].replace(",", "")) for line in detailed)
  assert parameters == cost.parameters


def test_csv_has_one_line_per_layer(cost, capsys):
  records = list(csv.DictReader(io.StringIO(written(CostReport(cost), "csv", capsys))))
  assert [record["name"] for record in records] == [layer.name for layer in cost.layers]
  for convention in ("mac", "paper"):
    total = sum(int(record[f"flops_{convention}"]) for record in records)
    assert total == cost.in_convention(convention).flops


def test_json_totals_are_sums(cost, capsys):
  value = json.loads(written(CostReport(cost), "json", capsys))
  assert value["flops"] == {"mac": cost.in_convention("mac").flops, "paper": cost.flops}
  assert value["input_shapes"] == [[64, 64, 3]] and value["unknown"] == []
  assert value["profiler"] is None
  for quantity in ("parameters", "non_trainable_parameters", "activation_bytes", "weight_bytes"):
    assert value[quantity] == sum(layer[quantity] for layer in value["layers"])


def test_layers_without_a_rule_are_shown(capsys):
  class Custom(keras.layers.Layer):
    def call(self, inputs):
      return inputs + 1

  inputs = keras.Input((8, 8, 3))
  x = keras.layers.Conv2D(4, 3, name="convolution")(Custom(name="custom")(inputs))
  report = CostReport(cost_model(keras.Model(inputs, x)))
  output = " ".join(written(report, "table", capsys).split())
  assert "custom Custom 8x8x3 0 unknown unknown" in output
  assert (
    "custom (Custom): these layers have no rule, so the sums do not include their FLOPs" in output
  )
  assert "more than 0.008 M per image" in output
  value = json.loads(written(report, "json", capsys))
  assert value["unknown"] == ["custom"]
  assert value["layers"][1]["flops"] == {"mac": None, "paper": None}
  assert "custom,Custom,8x8x3,False,0,0,,,," in written(report, "csv", capsys)


def test_profiler_is_shown(cost, capsys):
  profile = GraphProfile(flops=123_456_789, uncounted={"Relu": 24, "Exp": 2}, loops=1)
  report = CostReport(cost, profile=profile)
  output = " ".join(written(report, "table", capsys).split())
  assert "Model Garden's profiler 0.123 G per image for the implementation that runs here" in output
  assert "not counted: 24 Relu, 2 Exp; the bodies of 1 loop counted as if they ran once." in output
  assert json.loads(written(report, "json", capsys))["profiler"]["uncounted"] == {
    "Relu": 24,
    "Exp": 2,
  }
