"""Model directories of trainings that did not take place."""

import json

import yaml


def make_run(directory, *, steps=40, finished=True, accuracy=0.5, log=True, **params):
  """Writes the log and the configuration of a training with batches of 8 images."""
  directory.mkdir(parents=True)
  begin = {"event": "begin", "step": 0, "seconds": 0, "batch_size": 8, "parameters": 1234}
  events = [{**begin, "train_steps": 40}]
  for step in range(10, steps + 1, 10):
    metrics = {"training_loss": 1 / step}
    events.append({"event": "train", "step": step, "seconds": step / 2, "metrics": metrics})
  metrics = {"accuracy": accuracy, "validation_loss": 2.0}
  events.append({"event": "evaluation", "step": steps, "seconds": steps, "metrics": metrics})
  if finished:
    events.append({"event": "end", "step": steps, "seconds": steps})
  if log:
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (directory / "run_log.jsonl").write_text(lines)
  (directory / "params.yaml").write_text(yaml.safe_dump({"task": params, "trainer": {"steps": 40}}))
  return directory
