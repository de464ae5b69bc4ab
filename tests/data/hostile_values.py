"""Values of every type and range that an annotation file may hold where another is expected."""

import math

HOSTILE_VALUES = (
  *(None, True, False, 0, 1, -1, 7.0, 7.5, -0.0, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63)),
  *(10**400, -(10**400), math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324),
  *("", " ", "0", "1", "7", "-1", "nan", "inf", "1e999", "1_0", "١٢", "true", "x" * 999, "0" * 999),
  *("a\0b", "\0", "\ud800", "\udcff", "a\nb", "\x1b[2J", "\ufeff", "\u202e", "猫", "<a>&amp;"),
  *("..", "../a", "a/../../b", "/etc/passwd", "C:\\a", "~", "a\\..\\..\\b", "-", "%s", "{}"),
  *([], [[]], [None], {}, {"a": 1}, [1, 2, 3, 4], [0, 0, 10**400, 1], ["1"] * 4, [[1]] * 4),
)
