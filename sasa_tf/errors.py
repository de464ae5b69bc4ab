"""The error that programs report in one paragraph instead of a traceback."""


class UserError(ValueError):
  """Something that the user of a program can mend; the message says how."""
