"""The report on the paper's tables, with artificial costs."""

import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

from sasa_tf.analysis import CONVENTIONS, LayerCost, ModelCost
from sasa_tf.analysis.paper.plot import plot_paper, save_plot
from sasa_tf.analysis.paper.program import profile_paper
from sasa_tf.analysis.paper.report import CLASSIFICATION, Comparison, PaperReport, check_numbers
from sasa_tf.analysis.paper.tables import MODELS, TABLES, rows_of
from sasa_tf.errors import UserError
from sasa_tf.reporting import write_report


def exact_cost(model):
  """Returns a cost equal to the printed numbers."""
  row = rows_of(model)[0][1]
  flops, parameters = round(row.flops * 1e9), round((row.parameters or 18) * 1e6)
  layer = LayerCost(
    "all", "Artificial", (1,), parameters, 0, {"multiply_add": flops // 2}, flops, 0, 0
  )
  return ModelCost(model, ((224, 224, 3),), CONVENTIONS["paper"], 1, "float32", (layer,))


def off_by_a_digit(model):
  cost = exact_cost(model)
  (layer,) = cost.layers
  counts = {"multiply_add": layer.op_counts["multiply_add"] + 51_000_000}
  layer = dataclasses.replace(layer, op_counts=counts, flops=2 * counts["multiply_add"])
  return dataclasses.replace(cost, layers=(layer,))


def report(numbers=CLASSIFICATION, cost_of=exact_cost, convention="paper"):
  return PaperReport.of(numbers, cost_of, convention)


def written(form, capsys, **arguments):
  write_report(report(**arguments), form)
  return capsys.readouterr().out


def test_comparison_differs_if_the_rounded_number_does():
  assert not Comparison(7.0, 6.988).differs and not Comparison(None, 1.0).differs
  assert Comparison(14.1, 14.173).differs and Comparison(7.9, 7.9546).differs
  assert Comparison(14.1, 14.173).cells() == ["14.1", "14.173*", "+0.073"]
  assert Comparison(None, 18.014).cells() == ["", "18.014 ", ""]


def test_every_row_of_every_table_is_printed(capsys):
  output = written("table", capsys)
  for number in CLASSIFICATION:
    assert f"Table {number}: {TABLES[number].title}" in output
    for row in TABLES[number].rows:
      assert row.label in output
  assert max(map(len, output.splitlines())) <= 100
  assert "30 of 30 rows agree to the printed digit; largest difference 0.000 G" in output
  assert "*" not in output


def test_rows_fit_a_terminal_of_80_columns():
  console = Console(file=io.StringIO(), width=80)
  console.print(report(cost_of=off_by_a_digit).table())
  lines = console.file.getvalue().splitlines()
  for row in TABLES[1].rows:
    (line,) = [line for line in lines if line.startswith(row.label) and str(row.accuracy) in line]
    assert "*" in line and len(line) <= 80


def test_differing_digits_are_marked_with_their_reason(capsys):
  output = written("table", capsys, numbers=[4, 7], cost_of=off_by_a_digit)
  assert "7.802*" in output and "+0.102" in output
  assert "0 of 8 rows agree to the printed digit" in output
  reasons = " ".join(output.split())
  assert "11 x 11: the paper does not define its FLOPs; the convention was fitted" in reasons
  assert "the paper does not give this kernel size either (here 4x4)" in reasons


def test_note_for_another_convention(capsys):
  output = written("table", capsys, numbers=[4], cost_of=off_by_a_digit, convention="mac")
  assert "the convention mac differs from the paper's way of counting" in " ".join(output.split())
  assert "FLOPs in the convention mac" in output


def test_summary_compares_resnet_50():
  saved = report([4]).savings()
  assert saved == pytest.approx((100 * (1 - 7.2 / 8.2), 100 * (1 - 18.0 / 25.6)))
  (line,) = [line for line in report([4]).summary() if "convolution" in line and "ResNet" in line]
  assert "-12.2 % FLOPs (7.200 and 8.200 G), -29.7 % parameters" in line
  assert line.endswith("the paper: -12 % and -29 %.")


def test_csv_and_json_hold_the_same_rows(capsys):
  rows = list(csv.DictReader(io.StringIO(written("csv", capsys))))
  value = json.loads(written("json", capsys))
  assert len(rows) == len(value["rows"]) == 30
  assert value["convention"] == "paper"
  for row, record in zip(rows, value["rows"], strict=True):
    assert row["model"] == record["model"] and record["config"] == f"imagenet/{row['model']}.yaml"
    assert float(row["flops_ours"]) == record["flops_ours"] == record["flops_paper"]
    assert row["parameters_paper"] == str(record["parameters_paper"] or "")
  assert value["resnet50_full_attention_saves"]["paper"]["parameters_percent"] == 29


def test_markdown_escapes_pipes(capsys):
  output = written("markdown", capsys, numbers=[3])
  assert "| 1 \\| 234 | 7.3 | 7.300 | +0.000 | 18.1 |" in output
  widths = {line.replace("\\|", "").count("|") for line in output.splitlines() if line[:1] == "|"}
  assert widths == {9}


def test_models_of_the_report():
  assert report([6]).models() == ["sasa_resnet50_conv_stem", "sasa_resnet50_without_content"]
  assert report().models() == list(MODELS)


def test_invalid_table_numbers_raise():
  assert check_numbers([3, 1, 3]) == (3, 1)
  with pytest.raises(UserError, match=r"some of 1, 3, 4, 5, 6, 7; received 8, 9\."):
    check_numbers([8, 1, 9])
  with pytest.raises(UserError, match=r"received none\."):
    check_numbers([])
  with pytest.raises(UserError, match=r"Table 2 is about detectors .*: request it alone"):
    check_numbers([1, 2])
  with pytest.raises(UserError, match="expects numbers, for example 1,3; received 1,two"):
    profile_paper(["1", "two"])


def test_unwritable_files_raise(tmp_path):
  (tmp_path / "report").touch()
  path = str(tmp_path / "report")
  with pytest.raises(UserError, match=r"--output=.*report exists"):
    write_report(report([6]), "csv", path)
  with pytest.raises(UserError, match=r"--plot=.*report exists"):
    save_plot(plot_paper(exact_cost), path)


def test_file_has_the_printed_text(tmp_path, capsys):
  for form in ("table", "csv", "json", "markdown"):
    write_report(report([6]), form, str(tmp_path / form))
    assert (tmp_path / form).read_text() == written(form, capsys, numbers=[6])


def test_plot_shows_table_1_without_overlaps(tmp_path):
  figure = plot_paper(exact_cost)
  save_plot(figure, str(tmp_path / "paper.png"))
  assert (tmp_path / "paper.png").read_bytes().startswith(b"\x89PNG")
  assert len(figure.axes) == 2
  for panel, quantity in zip(figure.axes, ("flops", "parameters"), strict=True):
    points = [tuple(point) for line in panel.lines for point in line.get_xydata()]
    assert sorted(points) == sorted(
      (getattr(row, quantity), row.accuracy) for row in TABLES[1].rows
    )
    pixels = panel.transData.transform(points)
    diameter = panel.lines[0].get_markersize() / 72 * figure.dpi
    distances = [((a - b) ** 2).sum() ** 0.5 for i, a in enumerate(pixels) for b in pixels[i + 1 :]]
    assert min(distances) > diameter
    labels = [text.get_text() for text in panel.texts]
    assert labels == ["26", "38", "50"] * 3
