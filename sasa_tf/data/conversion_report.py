"""The report that a conversion prints at its end."""

import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from sasa_tf.data.images import notes
from sasa_tf.data.tfrecord.output_directory import OutputDirectory
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary


def conversion_report(
  summary: DatasetSummary, converter: str, experiment: str, *, only_paths: bool = False
) -> str:
  """Describes what was written, the speed, and the command to run next.

  Args:
    summary: what `write_dataset` returned.
    converter: subcommand and inputs that convert another split.
    experiment: name of the experiment to train on the data set.
    only_paths: whether the experiment is of this data set, and needs the paths of its files alone.

  Returns:
    Several lines of text.
  """
  splits = summary.splits
  written = sum(split.examples for split in splits.values())
  num_images = written + sum(split.skipped for split in splits.values())
  count = (
    f"{num_images:,} images" if written == num_images else f"{written:,} of {num_images:,} images"
  )
  speed = num_images / (summary.seconds - summary.startup_seconds)
  lines = [
    f"Wrote {summary.output}: {count} in {summary.seconds:.1f} s "
    f"({summary.startup_seconds:.1f} s to start TensorFlow, then {speed:,.0f} images/s)"
  ]
  width = max(len(name) for name in splits)
  for name, split in splits.items():
    line = (
      f"  {name:{width}}  {_count(split.examples, 'example')}, {_classes(split)}, "
      f"{_count(split.shards, 'shard')}"
    )
    if split.skipped:
      reasons = os.path.join(summary.output, f"skipped-{name}.txt")
      line += f", {_count(split.skipped, 'broken image')} skipped (see {reasons})"
    lines.append(line)
    if split.notes:
      lines += [f"  {'':{width}}  {text}" for text in notes.report_lines(split.notes)]
    if split.annotation_stats:
      lines += [
        f"  {'':{width}}  {text}"
        for text in split.annotation_stats.report_lines(summary.output, name)
      ]
  output = pathlib.Path(summary.output)
  records = OutputDirectory(output).records()
  lines.append("Next:")
  missing = [name for name in ("train", "validation") if name not in records]
  if missing:
    lines.append(
      f"  python -m sasa_tf.bin.make_tfrecords {converter} --output={shlex.quote(str(output))} "
      f"--split={missing[0]}"
    )
  else:
    written = next(iter(splits.values()))
    overrides = {} if only_paths else _overrides(records, written)
    overrides |= _path_overrides(output, written)
    lines.append(_training_command(output, experiment, overrides))
  return "\n".join(lines)


def _count(number: int, noun: str) -> str:
  """Returns a number and its noun, such as "1 box" and "2,000 boxes"."""
  plural = f"{noun}es" if noun in ("box", "class") else f"{noun}s"
  return f"{number:,} {noun if number == 1 else plural}"


def _classes(split: SplitSummary) -> str:
  if split.annotation_stats:
    return split.annotation_stats.describe_classes()
  return _count(split.classes, "class")


def _overrides(records: Mapping[str, Mapping[str, Any]], written: SplitSummary) -> dict[str, Any]:
  """Returns {key: value} of the experiment that the content of the splits needs."""
  overrides: dict[str, Any] = {"task.model.num_classes": written.classes}  # of all splits
  for split in ("train", "validation"):
    overrides[f"task.{split}_data.tfds_name"] = ""  # Some experiments set it.
    if not written.annotation_stats and set(records[split].get("formats", {})) != {"jpeg"}:
      overrides[f"task.{split}_data.decode_jpeg_only"] = False
  return overrides


def _path_overrides(output: pathlib.Path, written: SplitSummary) -> dict[str, str]:
  """Returns {key: path} of the files that training and evaluation read."""
  overrides = {
    f"task.{split}_data.input_path": f"{output}/{split}-*.tfrecord"
    for split in ("train", "validation")
  }
  if written.annotation_stats:
    overrides |= written.annotation_stats.experiment_overrides(str(output))
  return overrides


def _training_command(output: pathlib.Path, experiment: str, overrides: Mapping[str, Any]) -> str:
  model_dir = f"runs/{os.path.basename(os.path.abspath(output))}"
  return (
    f"  python -m sasa_tf.bin.train --experiment={experiment} --mode=train_and_eval \\\n"
    f"    {shlex.quote(f'--model_dir={model_dir}')} {_params_override(overrides)}"
  )


def _params_override(overrides: Mapping[str, Any]) -> str:
  """Returns the flag --params_override, quoted for the shell."""
  quotes = {key: _quote_for(value) for key, value in overrides.items() if isinstance(value, str)}
  if None in quotes.values():  # "a.b=1,c.d=2" has no escapes, but JSON has
    text = json.dumps(_nested(overrides), ensure_ascii=False)
  else:
    items = ((key, quotes.get(key), value) for key, value in overrides.items())
    text = ",".join(
      f"{key}={quote}{value}{quote}" if quote else f"{key}={json.dumps(value)}"
      for key, quote, value in items
    )
  if set(text) & set('"$`\\!'):
    return f"--params_override={shlex.quote(text)}"
  return f'--params_override="{text}"'


def _quote_for(value: str) -> str | None:
  """Returns the quotes that --params_override needs around a string, None if there are none."""
  if "'" not in value:
    return "'"
  return None if set(value) & {'"', "\\"} else '"'


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {"a": {"b": value}} of {"a.b": value}."""
  nested: dict[str, Any] = {}
  for key, value in overrides.items():
    *parents, name = key.split(".")
    child = nested
    for parent in parents:
      child = child.setdefault(parent, {})
    child[name] = value
  return nested
