"""The last words of a conversion."""

import os
import pathlib
import shlex

from sasa_tf.data.output_directory import OutputDirectory
from sasa_tf.data.sharded_writer import DatasetSummary


def conversion_report(summary: DatasetSummary, experiment: str) -> str:
  """Says what was written, how fast, and the command to type next.

  Args:
    summary: what `write_dataset` returned.
    experiment: name of the experiment to train on it.

  Returns:
    Some lines of text.
  """
  splits = summary.splits
  num_images = sum(split.examples + split.skipped for split in splits.values())
  rate = num_images / (summary.seconds - summary.starting_seconds)
  lines = [
    f"Wrote {summary.output}: {num_images:,} images in {summary.seconds:.1f} s "
    f"({summary.starting_seconds:.1f} s to start TensorFlow, then {rate:,.0f} images/s)"
  ]
  width = max(len(name) for name in splits)
  for name, split in splits.items():
    line = (
      f"  {name:{width}}  {_count(split.examples, 'example')}, {_count(split.classes, 'class')}, "
      f"{_count(split.shards, 'shard')}"
    )
    if split.skipped:
      listing = os.path.join(summary.output, f"skipped-{name}.txt")
      line += f", {split.skipped:,} broken skipped (see {listing})"
    lines.append(line)
  command = _next_command(pathlib.Path(summary.output).absolute(), experiment)
  return "\n".join([*lines, "Next:", command])


def _count(number: int, noun: str) -> str:
  plural = {"class": "classes"}.get(noun, f"{noun}s")
  return f"{number:,} {noun if number == 1 else plural}"


def _next_command(output: pathlib.Path, experiment: str) -> str:
  records = OutputDirectory(output).records()
  for split in ("train", "validation"):
    if split not in records:
      return (
        "  python -m sasa_tf.bin.make_tfrecords image_folder --input=... "
        f"--output={shlex.quote(str(output))} --split={split}"
      )
  overrides = [f"task.model.num_classes={records['train']['classes']}"]
  for split in ("train", "validation"):
    overrides.append(f"task.{split}_data.tfds_name=''")  # which experiments name, too
    overrides.append(f"task.{split}_data.input_path='{output}/{split}-*.tfrecord'")
    if set(records[split]["formats"]) != {"jpeg"}:
      overrides.append(f"task.{split}_data.decode_jpeg_only=false")
  joined = ",".join(overrides)
  return (
    f"  python -m sasa_tf.bin.train --experiment={experiment} --mode=train_and_eval \\\n"
    f'    --model_dir=runs/{output.name} --params_override="{joined}"'
  )
