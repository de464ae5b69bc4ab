"""Runs the programs of this library as commands: `sasa train`, `sasa export`, ...

  sasa
  sasa train --experiment=sasa_resnet_digits --mode=train --model_dir=runs/digits
  source <(sasa completion bash)

`sasa` is equal to `python -m sasa_tf.commandline`, and `sasa COMMAND` to `python -m` with the
module of the command.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from sasa_tf.commandline import commands, completion
from sasa_tf.commandline.short_help import short_help
from sasa_tf.errors import UserError


def main(arguments: list[str]) -> None:
  """Runs the command that the arguments name.

  Raises:
    UserError: there is no such command.
  """
  if not arguments or arguments[0] in ("help", "--help", "-h", "-help", "--helpshort"):
    print(commands.usage())
  elif arguments[0] == "--version":
    from sasa_tf import __version__

    print(f"sasa_tf {__version__}")
  elif arguments[0] == "completion":
    _complete(arguments[1:])
  else:
    command = commands.find(arguments[0])
    if "--helpshort" in arguments[1:]:
      print(short_help(command.source, f"sasa {arguments[0]}"))
      return
    sys.argv = [f"sasa {arguments[0]}", *arguments[1:]]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)


def _complete(arguments: list[str]) -> None:
  if arguments and arguments[0] == "words":
    print("\n".join(completion.candidates(arguments[1:])))
  elif len(arguments) == 1:
    print(completion.script(arguments[0]), end="")
  else:
    raise UserError("expected `sasa completion bash`, zsh or fish.")


def run() -> None:
  """Console script."""
  try:
    main(sys.argv[1:])
    sys.stdout.flush()
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
  except BrokenPipeError:  # the reader is gone, as after `| head -1`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(128 + signal.SIGPIPE)


if __name__ == "__main__":
  run()
