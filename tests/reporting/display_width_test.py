import pytest

from sasa_tf.reporting.display_width import display_width, padded


@pytest.mark.parametrize(
  ("text", "width"),
  [("", 0), ("cat", 3), ("猫", 2), ("e\u0301", 1), ("ที่", 1), ("ｶ", 1), ("\uff21", 2)],
)
def test_columns_of_a_terminal(text, width):
  assert display_width(text) == width
  assert padded(text, 4) == text + " " * (4 - width)
  assert padded(text, 0) == text
