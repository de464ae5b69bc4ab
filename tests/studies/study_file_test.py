"""Study files: what they mean, and what is rejected."""

import pytest

from sasa_tf.errors import UserError
from sasa_tf.studies.program import plan_runs
from sasa_tf.studies.study_file import read_study
from tests.studies.stub_study import write_study


def test_rows_inherit_and_override(tmp_path):
  rows = {
    "a": {"overrides": {"task.model.size": 2, "task": {"data": {"x": 1}}}, "seeds": [3, 5]},
    "b": {"experiment": "other", "config_files": "b.yaml"},
  }
  study = read_study(
    write_study(
      tmp_path / "s.yaml", rows, overrides={"task.model": {"size": 1, "depth": 7}}, seeds=2
    )
  )
  a, b = study.rows
  assert a.overrides == {"task": {"model": {"size": 2, "depth": 7}, "data": {"x": 1}}}
  assert (b.experiment, b.config_files, b.seeds) == ("other", ("b.yaml",), (0, 1))
  assert [(row.name, seed) for row, seed in study.select()] == [
    ("a", 3),
    ("b", 0),
    ("a", 5),
    ("b", 1),
  ]
  assert [(row.name, seed) for row, seed in study.select(["b"], [9])] == [("b", 9)]
  assert study.baseline == "a"
  with pytest.raises(UserError, match=r"no row 'bb'. Did you mean 'b'"):
    study.select(["bb"])
  for empty in ({"rows": []}, {"seeds": []}):
    with pytest.raises(UserError, match="--rows or --seeds is empty"):
      plan_runs(study, tmp_path, **empty)


@pytest.mark.parametrize(
  "content, message",
  [
    ("- a", "the file: expected keys with values"),
    ("rows: {a: {}}", "experiment: expected the name of an experiment"),
    ("experiment: e", "rows: expected keys with values; received None"),
    ("experiment: e\nrow: {}", "no key 'row'. Did you mean 'rows'"),
    ("experiment: e\nrows: {a: {seed: 1}}", "rows.a: no key 'seed'. Did you mean 'seeds'"),
    ("experiment: e\nrows: {a: {seeds: 0}}", "rows.a.seeds: expected a number of seeds"),
    ("experiment: e\nrows: {a/b: {}}", "expected names of letters"),
    ("experiment: e\nrows: {a: {}}\nbaseline: b", "baseline: no row 'b'"),
    ("experiment: e\nrows: {a: {expect: higher}}", "compare_with and expect belong together"),
    ("experiment: e\nrows: {a: {expect: more, compare_with: a}}", "expect: expected one of higher"),
    ("experiment: e\nrows: {a: {}}\ntarget: high", "target: expected a finite number"),
    ("experiment: e\nrows: {a: {}}\ntarget: .nan", "target: expected a finite number"),
    ("experiment: e\nrows: {a: {seeds: 1000000000000}}", "a number of seeds, 1 to 10,000"),
    ("experiment: e\nrows: {a: {seeds: [4294967296]}}", "a.seeds: expected a number of seeds"),
    (
      "rows: {a: {}}\nexperiment: 5",
      "experiment: expected the name of an experiment, in the study",
    ),
    ("experiment: e\nrows: {a: 0}", "rows.a: expected keys with values; received 0"),
    (
      "experiment: e\noverrides: {model_dir: x}\nrows: {a: {}}",
      "overrides: no key 'model_dir' in the configuration of an experiment, which has runtime",
    ),
    ("experiment: e\nrows: {a: {overrides: {tasks.x: 1}}}", "rows.a.overrides: no key 'tasks'"),
    ("a: [", "expected YAML"),
    ("rows:\n  a: {}\n  a: {}", "line 3: the key 'a' occurs twice"),
    ("a: !!int b", "expected YAML: invalid literal for int()"),
    (
      "overrides: &a {b: *a}\nexperiment: e\nrows: {a: {}}",
      "an alias (*name) that contains itself",
    ),
  ],
)
def test_invalid_files(tmp_path, content, message):
  (tmp_path / "s.yaml").write_text(content)
  with pytest.raises(UserError, match=r"s\.yaml") as caught:
    read_study(tmp_path / "s.yaml")
  assert message in str(caught.value)
  with pytest.raises(UserError, match="cannot be read"):
    read_study(tmp_path / "missing.yaml")
