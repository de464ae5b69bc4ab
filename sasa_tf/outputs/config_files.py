"""Finds YAML files: those of the user, and the official configs of the package."""

from __future__ import annotations

import os
import pathlib

import sasa_tf
from sasa_tf.errors import UserError, did_you_mean


def find_config_file(file: str, flag: str = "config_file") -> pathlib.Path:
  """Returns the path of a config file, which may be the name of an official config.

  Args:
    file: a path, or a name such as "cifar10/sasa_resnet26.yaml".
    flag: name of the flag with the file, for the message.

  Raises:
    UserError: there is no such file.
  """
  package = pathlib.Path(sasa_tf.__file__).parent
  # Inside the package when installed, next to it in a checkout.
  roots = [package / "official_configs", package.parent / "official_configs"]
  candidates = [pathlib.Path(file), *(root / file for root in roots)]
  for path in candidates:
    if os.path.isfile(path):  # False for a name that is too long, unlike `path.is_file`
      return path
  if not file.strip():
    raise UserError(f"--{flag}={file}: expected the path of a YAML file. Set it, or omit the flag.")
  if os.path.exists(file):
    kind = "a directory" if os.path.isdir(file) else "a pipe or a device"
    raise UserError(f"--{flag}={file} is {kind}; expected a YAML file. Set the path of the file.")
  if "," in file and all(os.path.isfile(part) for part in file.split(",")):
    raise UserError(f"--{flag}={file}: expected one file. Repeat the flag for several.")
  official = {str(p.relative_to(root)) for root in roots for p in root.glob("**/*.yaml")}
  raise UserError(
    f"--{flag}={file}: no such file, and no official config of that name. "
    f"{did_you_mean(file, official)}"
  )
