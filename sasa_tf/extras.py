"""Checks for packages that only an optional extra of sasa_tf installs."""

from __future__ import annotations

import importlib.util

from sasa_tf.errors import MissingExtraError

# Module -> (distribution, the extra that installs it).
OPTIONAL = {
  "official": ("tf-models-official", "garden"),
  "PIL": ("pillow", "garden"),
  "rich": ("rich", "report"),
  "scipy": ("scipy", "report"),
  "sklearn": ("scikit-learn", "garden"),
  "tf_keras": ("tf-keras", "garden"),
}


def require(user: str, *modules: str) -> None:
  """Checks that optional packages are installed, without importing them.

  Args:
    user: what needs the packages, for the message.
    *modules: keys of `OPTIONAL`.

  Raises:
    MissingExtraError: a package is missing; the message names the extras that install it.
  """
  missing = [OPTIONAL[module] for module in modules if importlib.util.find_spec(module) is None]
  if missing:
    distributions = ", ".join(sorted({distribution for distribution, _ in missing}))
    extras = ",".join(sorted({extra for _, extra in missing}))
    raise MissingExtraError(
      f"{user} needs {distributions}. Install with: pip install 'sasa_tf[{extras}]'"
    )
