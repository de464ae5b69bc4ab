"""The flag --preset of the programs that run a model. Imports no TensorFlow."""

from __future__ import annotations

from absl import flags

from sasa_tf.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string(
  "preset",
  None,
  "Trained model: the name of a packaged preset, or a directory that `export --format=preset` or "
  "`save_to_preset` wrote.",
)


def check_alternatives(*names: str) -> None:
  """Checks that --preset comes without other flags that select a model.

  Args:
    names: of these flags.

  Raises:
    UserError: there are several, or none.
  """
  given = [name for name in ("preset", *names) if FLAGS[name].value]
  if len(given) != 1:
    expected = ", ".join(f"--{name}" for name in names)
    received = " and ".join(f"--{name}" for name in given) or "none of them"
    raise UserError(f"expected {expected} or --preset; received {received}. See --help.")
