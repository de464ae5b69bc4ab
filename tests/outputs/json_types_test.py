"""Types of values that were read from JSON."""

import dataclasses
import json
import math
from typing import Annotated, Any, Literal, TypedDict

import pytest

from sasa_tf.outputs.json_types import Finite, Positive, conforms


class Point(TypedDict):
  x: int
  y: float


class Labeled(Point, total=False):
  labels: list[str]


@dataclasses.dataclass
class Box:
  corner: Point
  size: tuple[int, ...] = ()


@pytest.mark.parametrize(
  "text, hint",
  [
    ("1", int),
    ("1", float),
    ("1.5", float),
    ("NaN", float),
    ("true", bool),
    ("null", int | None),
    ('"a"', Literal["a", "b"]),
    ("[1, 2.5]", list[float]),
    ('{"a": null}', dict[str, str | None]),
    ('{"x": 1, "y": 2, "z": []}', Point),
    ('{"x": 1, "y": 2, "labels": ["a"]}', Labeled),
    ("2", Annotated[int, lambda value: value > 1]),
    ("[[]]", Any),
  ],
)
def test_values_of_the_type(text, hint):
  assert conforms(json.loads(text), hint)


@pytest.mark.parametrize(
  "text, hint",
  [
    ("true", int),
    ("1.0", int),
    ("1" * 400, float),
    ("null", float),
    ('"1"', int | None),
    ('"c"', Literal["a", "b"]),
    ("1", Literal[True]),
    ('[1, "a"]', list[float]),
    ('{"a": 1}', dict[str, str]),
    ("[]", Point),
    ('{"x": 1}', Point),
    ('{"x": 1.5, "y": 2}', Point),
    ('{"x": 1, "y": 2, "labels": "a"}', Labeled),
    ("1e999", Finite),
    ("0", Positive),
    ("NaN", Positive),
  ],
)
def test_values_of_other_types(text, hint):
  assert not conforms(json.loads(text), hint)


def test_fields_of_dataclasses():
  assert conforms(Box({"x": 1, "y": math.inf}, (1, 2)), Box)
  assert not conforms(Box({"x": 1, "y": math.inf}, (1, 2.5)), Box)
  assert not conforms(Box({"x": None, "y": 1}), Box)
  assert not conforms({"corner": {}, "size": ()}, Box)
  assert conforms((1, "a"), tuple[int, str]) and not conforms((1,), tuple[int, str])
