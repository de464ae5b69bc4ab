"""The paper's tables compared to the computed costs of the models."""

import pathlib
import re

import pytest

from sasa_tf.analysis.paper.classifiers import build_classifier, paper_cost
from sasa_tf.analysis.paper.tables import MODELS, TABLES, DetectionRow, rows_of

# Notes on the paper next to the checkout, if present.
NOTES = pathlib.Path(__file__).parents[3] / "shared" / "paper.md"

ROWS = [
  pytest.param(number, row, id=f"table {number}: {row.label}")
  for number, table in TABLES.items()
  for row in table.rows
  if number != 2
]

# Exact, counted by separate code.
PARAMETERS = {
  "resnet26": 13_696_552,
  "resnet38": 19_626_792,
  "resnet50": 25_557_032,
  "sasa_resnet26_conv_stem": 10_331_264,
  "sasa_resnet38_conv_stem": 14_173_384,
  "sasa_resnet50_conv_stem": 18_015_504,
  "sasa_resnet26": 10_324_032,
  "sasa_resnet38": 14_166_152,
  "sasa_resnet50": 18_008_272,
}

# In billions, counted by separate code: in the convention `paper`, and in `mac` or None.
FLOPS = {
  "resnet26": (4.720, None),
  "sasa_resnet26_conv_stem": (4.491, None),
  "sasa_resnet26": (4.744, None),
  "resnet38": (6.480, None),
  "sasa_resnet38_conv_stem": (5.740, None),
  "sasa_resnet38": (5.993, None),
  "resnet50": (8.240, 8.178),
  "sasa_resnet50_conv_stem": (6.988, 6.973),
  "sasa_resnet50": (7.241, 7.187),
  "sasa_resnet50_without_content": (6.099, None),
}


@pytest.mark.parametrize(("number", "row"), ROWS)
def test_every_row_matches(number, row):
  cost = paper_cost(row.model)
  flops, parameters = cost.flops / 1e9, cost.parameters / 1e6
  print(f"{row.label:33} {flops:.3f} G for {row.flops}, {parameters:.3f} M for {row.parameters}")
  assert not cost.unknown
  assert abs(flops - row.flops) < 0.06
  if row.parameters is not None:
    assert abs(parameters - row.parameters) < 0.1
  differing = {
    quantity
    for quantity, ours, printed in (
      ("flops", flops, row.flops),
      ("parameters", parameters, row.parameters),
    )
    if printed is not None and f"{ours:.1f}" != f"{printed:.1f}"
  }
  assert set(row.notes) == differing  # exactly the differing numbers have a note


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameters_are_exact(model):
  assert paper_cost(model).parameters == PARAMETERS[model]


@pytest.mark.parametrize("model", FLOPS)
def test_flops_match_separate_counts(model):
  paper, mac = FLOPS[model]
  cost = paper_cost(model)
  assert f"{cost.flops / 1e9:.3f}" == f"{paper:.3f}"
  if mac:
    assert f"{cost.in_convention('mac').flops / 1e9:.3f}" == f"{mac:.3f}"


def test_parameters_match_the_trainable_weights():
  model = build_classifier(**MODELS["sasa_resnet26"])
  trainable = sum(int(weight.value.shape.num_elements()) for weight in model.trainable_weights)
  assert trainable == PARAMETERS["sasa_resnet26"]
  assert model.output_shape == (None, 1000)


def test_classifier_without_a_head():
  backbone = build_classifier(num_classes=0, model_id=26, width_multiplier=0.125, num_heads=2)
  assert [tuple(output.shape)[1:3] for output in backbone.outputs] == [
    (56, 56),
    (28, 28),
    (14, 14),
    (7, 7),
  ]


def test_tables_are_complete():
  assert {number: len(table.rows) for number, table in TABLES.items()} == {
    1: 9,
    2: 5,
    3: 8,
    4: 5,
    5: 3,
    6: 2,
    7: 3,
  }
  used = {row.model for table in TABLES.values() for row in table.rows}
  assert used == set(MODELS)
  assert all(rows_of(name) for name in MODELS)


def test_models_have_the_same_numbers_in_all_tables():
  for name in MODELS:
    assert len({row.flops for _, row in rows_of(name)}) == 1
    assert len({row.parameters for _, row in rows_of(name)} - {None}) <= 1


def test_detection_rows_are_complete():
  for row in TABLES[2].rows:
    assert isinstance(row, DetectionRow) and row.heads in ("conv", "attention")
    overall, half, three_quarters, *sizes = row.average_precision
    assert sorted(sizes) == sizes and half > three_quarters > overall


@pytest.mark.skipif(
  not NOTES.is_file(), reason="there are no notes on the paper next to the checkout"
)
def test_tables_match_the_notes():
  notes = NOTES.read_text()
  of_tables = notes[notes.index("## Tables") : notes.index("## Counts")]
  printed = set(re.findall(r"\d+(?:\.\d+)?", of_tables))
  for table in TABLES.values():
    for row in table.rows:
      numbers = [row.flops, row.parameters, row.accuracy]
      if isinstance(row, DetectionRow):
        numbers += row.average_precision
      for number in numbers:
        assert number is None or {str(number), f"{number:.1f}"} & printed, (row.label, number)
  for line in re.findall(r"^(?:baseline|conv stem|full attention).*$", of_tables, re.MULTILINE):
    for numbers in re.findall(r"([\d.]+) / ([\d.]+) / ([\d.]+)", line):
      assert tuple(map(float, numbers)) in {
        (row.flops, row.parameters, row.accuracy) for row in TABLES[1].rows
      }
