"""Table 2: detectors compared to manual counts, and the report on them."""

import csv
import io
import json

import pytest

from sasa_tf.analysis.paper.detection_report import DetectionReport
from sasa_tf.analysis.paper.detectors import batch_norm_beyond_backbone, paper_detector_cost
from sasa_tf.analysis.paper.program import profile_paper
from sasa_tf.analysis.paper.tables import DETECTORS, TABLES
from sasa_tf.errors import UserError
from sasa_tf.reporting import write_report

# Manual counts: GFLOPs in the convention `products`, parameters with and without the batch norm of
# pyramid and head.
MANUAL_COUNTS = {
  "retinanet_resnet50": (182.3, 33_420_404, 33_397_364),
  "retinanet_sasa_resnet50_conv_stem_attention_heads": (111.1, 21_971_484, 21_948_444),
  "retinanet_sasa_resnet50_conv_stem_attention_heads_fpn": (105.1, 20_005_244, 19_982_204),
}


@pytest.fixture(scope="module")
def report():
  return DetectionReport.of(paper_detector_cost)


@pytest.mark.parametrize("name", MANUAL_COUNTS)
def test_detectors_match_manual_counts(name):
  flops, parameters, bare = MANUAL_COUNTS[name]
  cost = paper_detector_cost(name)
  assert not cost.unknown
  assert f"{cost.flops / 1e9:.1f}" == str(flops)
  assert cost.parameters == parameters
  assert cost.parameters - batch_norm_beyond_backbone(cost) == bare


def test_conv_baseline_by_multiply_adds():
  """Laterals and 3x3 convolutions of pyramid and heads, from their sizes alone."""
  pixels = [(640 // 2**level) ** 2 for level in range(3, 8)]
  laterals = sum(p * c * 256 for p, c in zip(pixels, (512, 1024, 2048), strict=False))
  pyramid = 9 * 256 * 256 * sum(pixels)
  heads = 9 * 256 * (8 * 256 + 6 * (90 + 4)) * sum(pixels)
  cost = paper_detector_cost("retinanet_resnet50").in_convention("mac")
  beyond = sum(x.flops for x in cost.layers if not x.name.startswith("backbone/"))
  assert beyond == 2 * (laterals + pyramid + heads)


def test_report_has_every_row_of_the_paper(report):
  labels = [counted.row.label for counted in report.detectors]
  assert list(dict.fromkeys(labels)) == [row.label for row in TABLES[2].rows]
  assert {counted.name for counted in report.detectors} == set(DETECTORS)
  for counted in report.detectors:
    if DETECTORS[counted.name].interpretation != "attention heads and FPN":
      assert f"{counted.cost.parameters / 1e6:.1f}" == f"{counted.row.parameters:.1f}"
      assert abs(counted.cost.flops / 1e9 - counted.row.flops) < 3.1


def test_savings_match_the_paper(report):
  savings = report.savings()
  assert len(savings) == 4
  flops, parameters = savings["retinanet_sasa_resnet50_conv_stem_attention_heads"]
  assert (round(flops), round(parameters)) == (39, 34)


def test_all_formats_have_the_same_numbers(report, capsys):
  printed = {}
  for form in ("table", "markdown", "csv", "json"):
    write_report(report, form)
    printed[form] = capsys.readouterr().out
  records = json.loads(printed["json"])["rows"]
  rows = list(csv.DictReader(io.StringIO(printed["csv"])))
  assert len(records) == len(rows) == 7
  for record, row in zip(records, rows, strict=True):
    assert record["config"] == row["config"] == f"coco/{record['model']}.yaml"
    assert row["parameters"] == str(record["parameters"])
    for form in ("table", "markdown"):
      assert f"{record['flops_products'] / 1e9:.1f}" in printed[form]
  assert max(map(len, printed["table"].splitlines())) <= 100
  assert "-39.1 % FLOPs, -34.3 %" in " ".join(printed["table"].split())


def test_table_2_is_printed_alone(capsys):
  profile_paper(["2"], report_format="csv")
  assert capsys.readouterr().out.count("coco/retinanet_") == 7
  with pytest.raises(UserError, match="request it alone"):
    profile_paper(["1", "2"])
