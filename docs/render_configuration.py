"""Renders the valid values of all keys into docs/configuration.md.

python docs/render_configuration.py
"""

from __future__ import annotations

import pathlib

DOCUMENT = pathlib.Path(__file__).parent / "configuration.md"
_MARKER = "<!-- keys -->\n"
# Together they have every section of our experiments.
_EXPERIMENTS = ("sasa_resnet_imagenet", "retinanet_sasa_coco")


def render() -> str:
  """Returns the document with its current introduction and the rendered tables."""
  from sasa_tf import registry_imports  # noqa: F401
  from sasa_tf.training.config_validation import reference

  introduction = DOCUMENT.read_text().partition(_MARKER)[0]
  return introduction + _MARKER + "\n" + reference.markdown(_EXPERIMENTS)


if __name__ == "__main__":
  DOCUMENT.write_text(render())
