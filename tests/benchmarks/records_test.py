"""Result files and their comparison."""

import dataclasses
import json
import re

import pytest

from sasa_tf.benchmarks.results import records
from sasa_tf.benchmarks.results.compare import compare
from sasa_tf.benchmarks.run import compare_files
from sasa_tf.benchmarks.workloads.cases import case_groups
from sasa_tf.errors import UserError
from tests.benchmarks.example_results import ENVIRONMENT, measurement


def test_json_lines_round_trip(tmp_path):
  path = str(tmp_path / "new" / "results.jsonl")
  found = [
    measurement("blocked", command="python -m x", parameters=3),
    measurement("reference", (), error="running: MemoryError: full", peak_bytes=None),
  ]
  records.append(path, found[:1])
  records.append(path, found[1:])
  assert records.read(path) == found
  line = json.loads((tmp_path / "new" / "results.jsonl").read_text().splitlines()[0])
  assert line["summary"]["median"] == 0.02
  assert line["case"]["shape"] == [56, 56, 64]
  assert line["environment"] == ENVIRONMENT


def test_last_measurement_of_a_case_is_read(tmp_path):
  path = str(tmp_path / "results.jsonl")
  records.append(path, [measurement("blocked", [1.0]), measurement("blocked", [2.0])])
  (found,) = records.read(path)
  assert found.seconds == (2.0,)


def test_files_without_results_raise(tmp_path):
  with pytest.raises(UserError, match=r"cannot read .* No such file"):
    records.read(str(tmp_path / "missing"))
  (tmp_path / "text").write_text("{}\n")
  with pytest.raises(UserError, match="line 1: expected a measurement"):
    records.read(str(tmp_path / "text"))
  (tmp_path / "empty").touch()
  with pytest.raises(UserError, match="contains no measurement"):
    records.read(str(tmp_path / "empty"))
  with pytest.raises(UserError, match="is a directory; expected a file"):
    records.append(str(tmp_path), [])


def test_groups_cover_all_combinations():
  groups = case_groups(
    ("a", "b"),
    ["forward", "forward_backward"],
    [1, 2],
    [(4, 4, 8), (2, 2, 16)],
    ["float32"],
    [True, False],
    target="op",
  )
  assert len(groups) == 16 and len({group[0].group for group in groups}) == 16
  assert all([case.candidate for case in group] == ["a", "b"] for group in groups)
  assert all(group[0].group == group[1].group for group in groups)


def test_comparison_shows_ratios_and_missing_results():
  other = {"shape": (7, 7, 512)}
  old = [
    measurement("faster", [0.8, 1.0, 1.2]),
    measurement("alike", [0.8, 1.0, 1.2]),
    measurement("broken", [1.0]),
    measurement("gone", [1.0]),
    measurement("gone", [1.0], case=other),
  ]
  new = [
    measurement("faster", [0.4, 0.5, 0.6], peak_bytes=6 * 2**20),
    measurement("alike", [1.0, 1.1, 1.2]),
    measurement("broken", (), error="compiling: it did not"),
  ]
  new = [dataclasses.replace(m, environment=ENVIRONMENT | {"cores": 4}) for m in new]
  text = compare(old, new)
  rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
  assert rows["faster"][1:] == ["1,000", "500.0", "0.500", "faster", "3.0", "6.0", "2.000"]
  assert rows["alike"][3:6] == ["1.100", "quartiles", "overlap"]
  assert rows["broken"][1:3] == ["1,000", "failed"]
  assert rows["gone"][1:3] == ["1,000", "absent"]
  assert "changed   cores: 2 -> 4" in text
  assert "only in the old results: 1 other settings" in text
  assert re.search("Test Processor 9000, 4 cores", text)
  assert max(map(len, text.splitlines())) <= 100


def test_comparison_requires_two_files():
  with pytest.raises(UserError, match=r"two files.*received 1"):
    compare_files(["one"])


@pytest.mark.parametrize(
  "key, value",
  [
    ("seconds", [0]),
    ("seconds", ["1"]),
    ("steps", None),
    ("peak_bytes", "1"),
    ("parameters", 1.5),
    ("overhead_seconds", 1e999),
    ("environment", {"cores": 2}),
    ("environment", ENVIRONMENT | {"packages": []}),
    ("error", 5),
  ],
)
def test_values_of_other_types_are_named_with_their_line(tmp_path, key, value):
  path = tmp_path / "results.jsonl"
  line = json.loads(measurement("a").to_json())
  path.write_text("\n".join(map(json.dumps, (line, line | {key: value}))))
  with pytest.raises(UserError, match=r"results\.jsonl, line 2: expected a measurement"):
    records.read(str(path))
