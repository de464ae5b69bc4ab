"""The report on the paper's tables, with costs that are made up."""

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
from sasa_tf.analysis.report_formats import write_report
from sasa_tf.errors import UserError


def made_up(model):
  """A cost that is what the paper prints, exactly."""
  row = rows_of(model)[0][1]
  flops, parameters = round(row.flops * 1e9), round((row.parameters or 18) * 1e6)
  layer = LayerCost("all", "Made", (1,), parameters, 0, {"multiply_add": flops // 2}, flops, 0, 0)
  return ModelCost(model, ((224, 224, 3),), CONVENTIONS["paper"], 1, "float32", (layer,))


def off_by_a_digit(model):
  cost = made_up(model)
  (layer,) = cost.layers
  work = {"multiply_add": layer.work["multiply_add"] + 51_000_000}
  layer = dataclasses.replace(layer, work=work, flops=2 * work["multiply_add"])
  return dataclasses.replace(cost, layers=(layer,))


def report(numbers=CLASSIFICATION, cost_of=made_up, convention="paper"):
  return PaperReport.of(numbers, cost_of, convention)


def written(form, capsys, **arguments):
  write_report(report(**arguments), form)
  return capsys.readouterr().out


def test_a_comparison_differs_where_the_rounded_digit_does():
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
  assert "30 of 30 rows to the printed digit, largest difference 0.000 G" in output
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
  assert "0 of 8 rows to the printed digit" in output
  reasons = " ".join(output.split())
  assert "11 x 11: the paper does not say how it counts; the convention was fitted" in reasons
  assert "nor does it give the size of this convolution (here 4x4)" in reasons


def test_another_convention_is_no_reading_of_the_paper(capsys):
  output = written("table", capsys, numbers=[4], cost_of=off_by_a_digit, convention="mac")
  assert "the convention mac does not count as the paper does" in " ".join(output.split())
  assert "FLOPs of the convention mac" in output


def test_the_headline_is_of_resnet_50():
  saved = report([4]).savings()
  assert saved == pytest.approx((100 * (1 - 7.2 / 8.2), 100 * (1 - 18.0 / 25.6)))
  (line,) = [line for line in report([4]).headline() if "convolution" in line and "ResNet" in line]
  assert "-12.2 % FLOPs (7.200 against 8.200 G), -29.7 % parameters" in line
  assert line.endswith("the paper says -12 % and -29 %.")


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


def test_numbers_of_tables():
  assert check_numbers([3, 1, 3]) == (3, 1)
  with pytest.raises(UserError, match=r"some of 1, 3, 4, 5, 6, 7; received 8, 9\."):
    check_numbers([8, 1, 9])
  with pytest.raises(UserError, match=r"received none\."):
    check_numbers([])
  with pytest.raises(UserError, match=r"Table 2 is of detectors .*: ask for it alone"):
    check_numbers([1, 2])
  with pytest.raises(UserError, match="expects numbers, for example 1,3; received 1,two"):
    profile_paper(["1", "two"])


def test_files_that_cannot_be_written(tmp_path):
  path = str(tmp_path / "missing" / "report")
  with pytest.raises(UserError, match=r"--output=.*missing/report cannot be written: No such file"):
    write_report(report([6]), "csv", path)
  with pytest.raises(UserError, match=r"--plot=.*missing/report cannot be written: No such file"):
    save_plot(plot_paper(made_up), path)


def test_the_file_holds_what_is_printed(tmp_path, capsys):
  for form in ("table", "csv", "json", "markdown"):
    write_report(report([6]), form, str(tmp_path / form))
    assert (tmp_path / form).read_text() == written(form, capsys, numbers=[6])


def test_the_plot_shows_table_1_without_overlaps(tmp_path):
  figure = plot_paper(made_up)
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
