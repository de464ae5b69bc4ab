"""Tries random problems of the configuration, the records and the operation.

  python -m tests.fuzz --minutes=10 --seed=1
  python -m tests.fuzz --kind=operation --problem=1234

Each kind takes the same share of the time. A failure is printed with the command that repeats it;
the exit status is then 1.
"""

import argparse
import random
import sys
import time

from tests.fuzz import workers


def fuzz(kind, minutes, seed, report=print):
  """Tries problems of one kind; returns their number and the seeds of those that failed."""
  worker, seeds, failed = workers.Worker(kind), random.Random(f"{kind} {seed}"), []
  tried, end = 0, time.monotonic() + 60 * minutes
  try:
    while time.monotonic() < end:
      problem = seeds.randrange(2**32)
      failure = worker.run(problem)
      tried += 1
      if failure:
        failed.append(problem)
        report(f"{failure}\n  python -m tests.fuzz --kind={kind} --problem={problem}", flush=True)
  finally:
    worker.stop()
  return tried, failed


def main():
  """Fuzzes as the arguments say; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--minutes", type=float, default=10)
  parser.add_argument("--seed", default=str(random.SystemRandom().randrange(2**32)))
  parser.add_argument("--kind", choices=workers.KINDS, help="default: all")
  parser.add_argument("--problem", type=int, help="seed of one problem, with --kind")
  arguments = parser.parse_args()
  if arguments.problem is not None:
    if arguments.kind is None:
      parser.error("--problem needs --kind")
    worker = workers.Worker(arguments.kind)
    failure = worker.run(arguments.problem)
    worker.stop()
    print(failure or "passed")
    return int(failure is not None)
  kinds = [arguments.kind] if arguments.kind else workers.KINDS
  print(f"seed {arguments.seed}", flush=True)
  results = {kind: fuzz(kind, arguments.minutes / len(kinds), arguments.seed) for kind in kinds}
  print("\n| kind | problems | failures |\n|---|---|---|")
  for kind, (tried, failed) in results.items():
    print(f"| {kind} | {tried:,} | {len(failed)} |")
  return int(any(failed for _, failed in results.values()))


if __name__ == "__main__":
  sys.exit(main())
