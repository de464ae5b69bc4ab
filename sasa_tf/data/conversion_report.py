"""The last words of a conversion."""

import os
import pathlib
import shlex

from sasa_tf.data.detection.box_files import annotation_file_name, problems_file_name
from sasa_tf.data.detection.box_stats import BoxFigures
from sasa_tf.data.tfrecord.output_directory import OutputDirectory
from sasa_tf.data.tfrecord.sharded_writer import DatasetSummary, SplitSummary

_CLASSES_SHOWN = 10
_PROBLEMS_SHOWN = 5
_BOXES_READ = 100  # Model Garden's parser.max_num_instances


def conversion_report(summary: DatasetSummary, converter: str, experiment: str) -> str:
  """Says what was written, how fast, and the command to type next.

  Args:
    summary: what `write_dataset` returned.
    converter: subcommand and inputs that convert another split.
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
      f"  {name:{width}}  {_count(split.examples, 'example')}, {_classes(split)}, "
      f"{_count(split.shards, 'shard')}"
    )
    if split.skipped:
      listing = os.path.join(summary.output, f"skipped-{name}.txt")
      line += f", {split.skipped:,} broken skipped (see {listing})"
    lines.append(line)
    if split.boxes:
      lines += [
        f"  {'':{width}}  {text}" for text in _about_boxes(summary.output, name, split.boxes)
      ]
  command = _next_command(pathlib.Path(summary.output).absolute(), converter, experiment)
  return "\n".join([*lines, "Next:", command])


def _count(number: int, noun: str) -> str:
  plural = f"{noun}es" if noun in ("box", "class") else f"{noun}s"
  return f"{number:,} {noun if number == 1 else plural}"


def _classes(split: SplitSummary) -> str:
  if split.boxes:
    return f"{_count(len(split.boxes.by_class), 'class')} and background"
  return _count(split.classes, "class")


def _about_boxes(output: str, split: str, boxes: BoxFigures) -> list[str]:
  most_first = sorted(boxes.by_class.items(), key=lambda item: -item[1])
  by_class = [f"{name} {count:,}" for name, count in most_first[:_CLASSES_SHOWN]]
  if len(most_first) > _CLASSES_SHOWN:
    rest = sum(count for _, count in most_first[_CLASSES_SHOWN:])
    by_class.append(f"{len(most_first) - _CLASSES_SHOWN} others {rest:,}")
  lines = [f"{_count(sum(boxes.by_class.values()), 'box')}: {', '.join(by_class)}"]
  if boxes.crowds:
    lines.append(f"{boxes.crowds:,} of them crowds, neither trained on nor counted")
  lines.append(
    f"at most {boxes.most_in_an_image} in an image; images without a box: {boxes.images_without:,}"
  )
  if boxes.most_in_an_image > _BOXES_READ:
    lines.append(
      f"Model Garden reads the first {_BOXES_READ} of an image: set "
      f"task.train_data.parser.max_num_instances={boxes.most_in_an_image}"
    )
  if boxes.problems:
    path = pathlib.Path(output, problems_file_name(split))
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in boxes.problems.items())
    lines.append(f"Faulty annotations: {kinds} (see {path})")
    examples = path.read_text(encoding="utf-8").splitlines()[:_PROBLEMS_SHOWN]
    lines += [f"  {example}" for example in examples]
  return lines


def _next_command(output: pathlib.Path, converter: str, experiment: str) -> str:
  records = OutputDirectory(output).records()
  for split in ("train", "validation"):
    if split not in records:
      return (
        f"  python -m sasa_tf.bin.make_tfrecords {converter} "
        f"--output={shlex.quote(str(output))} --split={split}"
      )
  overrides = [f"task.model.num_classes={records['train']['classes']}"]
  with_boxes = bool(records["train"].get("boxes"))
  if with_boxes:
    overrides.append(f"task.annotation_file='{output / annotation_file_name('validation')}'")
  for split in ("train", "validation"):
    overrides.append(f"task.{split}_data.tfds_name=''")  # which experiments name, too
    overrides.append(f"task.{split}_data.input_path='{output}/{split}-*.tfrecord'")
    if not with_boxes and set(records[split]["formats"]) != {"jpeg"}:
      overrides.append(f"task.{split}_data.decode_jpeg_only=false")
  joined = ",".join(overrides)
  return (
    f"  python -m sasa_tf.bin.train --experiment={experiment} --mode=train_and_eval \\\n"
    f'    --model_dir=runs/{output.name} --params_override="{joined}"'
  )
