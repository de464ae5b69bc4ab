"""YAML files and overrides of a configuration: every notation, and broken text."""

import os
import time

import pytest

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.errors import ConfigError
from sasa_tf.training import experiment
from sasa_tf.training.config_validation import override_text, strict_yaml
from tests.broken_files import BROKEN


def load(override, name="sasa_resnet_digits", mode="train_and_eval"):
  return experiment.load_experiment(name, (), override, mode=mode)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("a: [1", "line 1, column 6"),
    ("a: 1\nb: {", "line 2, column 5"),
    ("a: 1\n\tb: 2", "line 2"),
    ("a: !!python/name:os.system", "Python objects are not created"),
    ("a: &a [*a]", r"alias \*a contains itself"),
    ("a: *b", "undefined alias"),
    ("{a: " * 50_000, "nested deeper than 40 levels"),
    ("a: 1\n---\nb: 2", "expected a single document"),
    ("a: \x00", "cannot be parsed"),
    ("a: !!int abc", r"line 1, column 4: 'abc' is no value of the tag !!int"),
    ("a: !!bool maybe", "'maybe' is no value of the tag !!bool"),
    ("a: !!timestamp xyz", "'xyz' is no value of the tag !!timestamp"),
    ("a:\n  b: !!timestamp 2020-99-99", r"line 2, column 6.*!!timestamp \(month must be"),
    ("a: !!float ''", "'' is no value of the tag !!float"),
    ("x" * 400_000, "at most 300,000 characters"),
    (
      "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
      + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)
      ),
      "more than 20000 values",
    ),
  ],
)
def test_broken_files(tmp_path, monkeypatch, text, message):
  monkeypatch.chdir(tmp_path)
  file = tmp_path / "a.yaml"
  file.write_text(text)
  start = time.monotonic()
  with pytest.raises(ConfigError, match=message) as caught:
    experiment.load_experiment("sasa_resnet_digits", [str(file)])
  assert str(file) in str(caught.value)
  assert time.monotonic() - start < 20
  assert os.listdir(tmp_path) == ["a.yaml"]


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_without_keys(tmp_path, content):
  file = tmp_path / "a.yaml"
  file.write_bytes(content)
  with pytest.raises(ConfigError, match=r"expected (nested keys|UTF-8 text|YAML or JSON)"):
    experiment.load_experiment("sasa_resnet_digits", [str(file)])


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("a.b=1,c.d=x", {"a": {"b": 1}, "c": {"d": "x"}}),
    ("a.b=[1, 2],a.c='x,y', a.d = 1e-3", {"a": {"b": [1, 2], "c": "x,y", "d": 1e-3}}),
    ("a[0]=1,a[1]=2,b.c[0]=x", {"a": [1, 2], "b": {"c": ["x"]}}),
    ("""a='it''s, x',b="a \\" , b",c=1""", {"a": "it's, x", "b": 'a " , b', "c": 1}),
    ("a={b: 1, c: [2]},a.d=don't", {"a": {"b": 1, "c": [2], "d": "don't"}}),
    ("a=gs://bucket/train-*,b=data/[ab]*", {"a": "gs://bucket/train-*", "b": "data/[ab]*"}),
    (
      "a=,b=true,c=010,d=1.5e3,e=2020-01-01",
      {"a": None, "b": True, "c": "010", "d": 1500.0, "e": "2020-01-01"},
    ),
    ("{a: {b: 1}}", {"a": {"b": 1}}),
    ('{"a": {"b": "x=y"}}', {"a": {"b": "x=y"}}),
    ("a:\n  b: !!python/tuple [1]", {"a": {"b": (1,)}}),
  ],
)
def test_overrides_in_every_notation(text, expected):
  assert override_text.parse(text, "test") == (expected, [])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("abc", "it has no '='"),
    ("trainer.train_steps", "it has no '='"),
    ("a=1,b", "'b', which cannot be parsed.*as in a, needs quotes"),
    ("a=1,", "it is not a key"),
    ("a..b=1", "it is not a key"),
    ("--a.b=1", r"Keys have no hyphens: write a\.b\."),
    ("a.b-c=1", r"it is not a key.*Keys have no hyphens: write a\.b_c\."),
    ("a=1,a.b=2", "sets both a and a.b"),
    ("a.b=1,a=2", "sets both a and a part of it"),
    ("a[1]=2", r"expected all elements of a from a\[0\]"),
    ("a[0]=1,a[99999999999]=2", "expected all elements"),
    ("a=*x", "needs quotes"),
    ("a=!!python/object:os.system", "Python objects are not created"),
    ("a=" + "[" * 1000, "nested deeper"),
    ("a." * 1000 + "b=1", "it is not a key"),
  ],
)
def test_broken_overrides(text, message):
  with pytest.raises(ConfigError, match=message):
    override_text.parse(text, "--params_override")


def test_keys_that_occur_twice_are_reported(tmp_path):
  file = tmp_path / "a.yaml"
  file.write_text("trainer:\n  train_steps: 1\n  train_steps: 2\n")
  _, warnings = strict_yaml.read_file(file)
  assert warnings == [
    f"{file}, line 3: the key 'train_steps' occurs twice; the last value is used."
  ]
  assert override_text.parse("a=1,a=2", "x")[1] == ["x: a occurs twice; the last value is used."]
