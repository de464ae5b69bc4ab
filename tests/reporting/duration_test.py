"""Times and speeds in units that suit them."""

import pytest

from sasa_tf.reporting import format_duration, format_speed


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0.4, "0 s"),
    (45, "45 s"),
    (119, "119 s"),
    (750, "12 min"),
    (3 * 3600 + 301, "3 h 05 min"),
    (52.4 * 3600, "2 d 4 h"),
  ],
)
def test_duration(seconds, text):
  assert format_duration(seconds) == text


@pytest.mark.parametrize(
  ("per_second", "text"),
  [(12345.6, "12,346 steps/s"), (3.214, "3.21 steps/s"), (0.08, "12.5 s/step"), (0, "0 steps/s")],
)
def test_speed(per_second, text):
  assert format_speed(per_second, "step") == text
