"""What every program does around its main function."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging

from sasa_tf.errors import UserError
from sasa_tf.training.multi_worker import cluster
from sasa_tf.training.resilience import preemption


def run(main: Callable[[list[str]], None]) -> None:
  """Runs `main` under absl; a `UserError` becomes one paragraph and exit status 2.

  A run that SIGTERM ended says so, with a status of its own, see `preemption.EXIT_STATUS`; so does
  one that lost a process of several, see `cluster.EXIT_STATUS`.
  """
  # TensorFlow's notes on the processor and on missing GPUs, unless somebody asked for them.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

  def guarded(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    try:
      main(argv)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)
    except preemption.PreemptedError as ended:
      print(ended, file=sys.stderr)
      sys.exit(preemption.EXIT_STATUS)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)
    except cluster.WorkerLostError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(cluster.EXIT_STATUS)

  app.run(guarded)


def refuse_positional(argv: list[str]) -> None:
  """Raises on arguments that are no flags, most often a flag without its dashes."""
  if len(argv) > 1:
    raise UserError(f"expected only flags; received {' '.join(argv[1:])!r}. See --help.")
