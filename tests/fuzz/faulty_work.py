"""What a process does that crashes or hangs. Imports nothing slow, as the process starts twice."""

import os
import time


def crash_or_hang(kind, connection):
  """Ends with SIGABRT for problem 1, and hangs for others."""
  del kind
  connection.send(None)
  if connection.recv() == 1:
    os.abort()
  time.sleep(60)
