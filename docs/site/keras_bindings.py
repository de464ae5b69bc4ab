"""Griffe extension: the classes of the Keras bindings have the docstrings of their base classes.

`sasa_tf.keras` and `sasa_tf.tf_keras` set `__doc__` when they are imported; mkdocstrings reads the
sources only.
"""

from __future__ import annotations

import griffe

_BINDINGS = ("sasa_tf.keras", "sasa_tf.tf_keras")


class KerasBindings(griffe.Extension):
  """Copies the docstring of the first base class of sasa_tf."""

  def on_package(self, *, pkg: griffe.Module, **_) -> None:
    """Documents the classes of both bindings.

    Args:
      pkg: the loaded package.
    """
    if pkg.path != "sasa_tf":
      return
    for name in _BINDINGS:
      module = pkg.modules_collection[name]
      for cls in module.classes.values():
        if cls.is_alias:  # imported
          continue
        base = pkg.modules_collection[cls.resolve(str(cls.bases[0]))]
        cls.docstring = base.docstring
