"""Class names and metadata as files of a ZIP archive at the end of a model file."""

from __future__ import annotations

import pathlib
import zipfile

from sasa_tf.serving.metadata import ModelMetadata


def append_associated_files(path: pathlib.Path, metadata: ModelMetadata) -> None:
  """Appends labels.txt and model_metadata.json to a model file.

  `unzip` and ZIP libraries read them; the runtimes ignore them.

  Args:
    path: a ZIP archive, or a file whose reader ignores what follows its content.
    metadata: of the model.
  """
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("model_metadata.json", metadata.to_json())
    if metadata.class_names is not None:
      archive.writestr("labels.txt", "".join(f"{name}\n" for name in metadata.class_names))
