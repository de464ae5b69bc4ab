"""Broken and hostile YAML is a ValueError of one line, within a second."""

import time

import pytest

from sasa_tf.outputs import plain_yaml
from tests.broken_files import BROKEN

HOSTILE = {
  "wrong tag": "a: !!int b",
  "wrong date": "a: !!timestamp b",
  "wrong boolean": "a: !!bool b",
  "list as key": "{? [a] : {}}",
  "deep": "[" * 2_000,
  "cycle": "a: &a {b: *a}",
  "multiplied": "a0: &a0 [1]\n"
  + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_documents(text):
  start = time.monotonic()
  with pytest.raises(ValueError) as caught:
    plain_yaml.parse(text)
  assert str(caught.value) and "\n" not in str(caught.value)
  assert time.monotonic() - start < 20


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_documents_are_values_or_errors(content):
  try:
    plain_yaml.parse(content.decode("latin-1")[:3_000])
  except ValueError as error:
    assert "\n" not in str(error)
