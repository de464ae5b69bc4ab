"""Times and speeds in units that suit them."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
  """Returns a time, such as "45 s", "12 min", "3 h 05 min", "2 d 4 h"."""
  minutes = round(seconds / 60)
  if seconds < 120:
    return f"{seconds:.0f} s"
  if minutes < 120:
    return f"{minutes} min"
  hours = round(seconds / 3600)
  if hours < 48:
    return f"{minutes // 60} h {minutes % 60:02} min"
  return f"{hours // 24} d {hours % 24} h"


def format_speed(per_second: float, unit: str) -> str:
  """Returns a speed, such as "1,230 images/s", "3.21 steps/s" or "12.5 s/step".

  Args:
    per_second: number of items.
    unit: name of one item, singular.
  """
  if 0 < per_second < 1:
    return f"{_digits(1 / per_second)} s/{unit}"
  return f"{_digits(per_second)} {unit}s/s"


def _digits(value: float) -> str:
  """Returns a number with three digits or all those before the point."""
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
