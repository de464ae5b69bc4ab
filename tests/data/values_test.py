import math

import pytest

from sasa_tf.data.inputs import values

from .hostile_values import HOSTILE_VALUES

FUNCTIONS = (
  values.shown,
  values.as_number,
  values.as_flag,
  values.as_name,
  values.file_name_error,
  lambda value: values.as_integer(value, 0, values.MAX_INT64),
  lambda value: values.parse_number(value if isinstance(value, str) else None),
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_value_raises(function):
  for value in HOSTILE_VALUES:
    function(value)


def test_shown_values_are_one_short_line():
  for value in HOSTILE_VALUES:
    text = values.shown(value)
    assert len(text) < 100 and text.isprintable(), value


@pytest.mark.parametrize(
  ("text", "number"),
  [
    *(("12", 12), (" 1.5\n", 1.5), ("+3e1", 30), (".5", 0.5), ("5.", 5), ("-1E-2", -0.01)),
    *(("inf", math.inf), ("1e999", math.inf), ("-Infinity", -math.inf)),
  ],
)
def test_parses_numbers(text, number):
  assert values.parse_number(text) == number


@pytest.mark.parametrize("text", [None, "", "a", "1_000", "١٢", "1,5", "0x10", "1 2", "--1", "e1"])
def test_other_texts_are_no_numbers(text):
  assert values.parse_number(text) is None
  assert math.isnan(values.parse_number("NaN"))


def test_numbers_and_integers_of_json():
  assert [values.as_number(value) for value in (3, 2.5, 10**400, -(10**400))] == [
    *(3.0, 2.5, math.inf, -math.inf)
  ]
  assert all(values.as_number(value) is None for value in (True, "3", None, [3]))
  assert [values.as_integer(value, 0, 9) for value in (0, 9, 7.0)] == [0, 9, 7]
  for value in (-1, 10, 7.5, True, "7", None, math.nan, math.inf, 1e300, [7]):
    assert values.as_integer(value, 0, 9) is None


@pytest.mark.parametrize(
  ("flag", "received"),
  [
    (False, (0, 0.0, False, None, "0", "false", "False ", "")),
    (True, (1, 1.0, True, "1", "TRUE")),
    (None, (2, -1, 0.5, math.nan, "2", "yes", [], {}, [0])),
  ],
)
def test_flags(flag, received):
  assert [values.as_flag(value) for value in received] == [flag] * len(received)


def test_names():
  assert values.as_name(" traffic\n\t light\xa0") == "traffic light"
  assert values.as_name("Große Katze 猫") == "Große Katze 猫"
  assert [values.as_name(v) for v in ("", " ", None, 3, ["cat"], "a\0", "\ud800", "\x1b[1m")] == (
    [None] * 8
  )


@pytest.mark.parametrize(
  "name", ["a.jpg", "train/a b.jpg", "./a..jpg", "猫.png", "latin\udce9.jpg"]
)
def test_valid_file_names(name):
  assert values.file_name_error(name) is None


@pytest.mark.parametrize(
  ("name", "reason"),
  [
    (None, "has no file_name"),
    ("", "has no file_name"),
    (["a.jpg"], "has no file_name"),
    ("a\0.jpg", "control characters"),
    ("a\n.jpg", "control characters"),
    ("\ud800.jpg", "not valid Unicode"),
    ("/etc/passwd", "absolute"),
    ("C:/a.jpg", "absolute"),
    ("../a.jpg", "outside of the folder"),
    ("a/../../b.jpg", "outside of the folder"),
    ("a/..", "outside of the folder"),
  ],
)
def test_invalid_file_names(name, reason):
  assert reason in values.file_name_error(name)
