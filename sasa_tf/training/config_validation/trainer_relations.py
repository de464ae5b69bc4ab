"""Relations between fields of the trainer and the runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sasa_tf.training.config_validation.problems import Problem, show
from sasa_tf.training.config_validation.use import Use

_OPTIMIZER = "trainer.optimizer_config"
# Metrics whose names do not depend on the configuration; * is any text.
_CLASSIFICATION_METRICS = ("accuracy", "precision_at_threshold_*", "recall_at_threshold_*")
_MULTILABEL_METRICS = ("globalPR-AUC", "meanPR-AUC")
_CLASSIFICATION_LOSSES = ("validation_loss", "loss")
_LOSS_METRICS = ("total_loss", "cls_loss", "box_loss", "model_loss", "validation_loss")
_COCO_METRICS = ("AP*", "AR*")


def _steps(use: Use) -> Iterator[Problem]:
  trainer = use.params.trainer
  if not use.trains:
    return
  if trainer.train_steps < 1:
    yield Problem(
      f"trainer.train_steps={trainer.train_steps}: expected at least 1 (steps) to train. Set the "
      "number of steps, or use --mode=eval.",
      ("trainer.train_steps",),
    )
  loop, interval = trainer.steps_per_loop, trainer.summary_interval
  if interval % loop:
    nearest = max(1, round(interval / loop)) * loop
    yield Problem(
      f"trainer.summary_interval={interval}: expected a multiple of trainer.steps_per_loop={loop}, "
      f"because summaries are written after a loop of steps. Set it to {nearest}.",
      ("trainer.summary_interval", "trainer.steps_per_loop"),
    )


def _learning_rate(use: Use) -> Iterator[Problem]:
  if use.mode in (None, "export"):
    return
  schedule = use.params.trainer.optimizer_config.learning_rate
  path = f"{_OPTIMIZER}.learning_rate.{schedule.type}"
  if schedule.type in ("stepwise", "step_cosine_with_offset"):
    boundaries, values = schedule.get().boundaries, schedule.get().values
    expected = len(boundaries) + (schedule.type == "stepwise")
    if len(values) != expected:
      yield Problem(
        f"{path}.values={show(values)}: expected {expected} values for the {len(boundaries)} "
        f"boundaries {show(boundaries)}; received {len(values)}.",
        (f"{path}.values", f"{path}.boundaries"),
      )


def _clipping(use: Use) -> Iterator[Problem]:
  optimizer = use.params.trainer.optimizer_config.optimizer
  chosen = optimizer.get()
  if chosen is None:
    return
  path = f"{_OPTIMIZER}.optimizer.{optimizer.type}"
  names = ("clipnorm", "clipvalue", "global_clipnorm")
  used = [name for name in names if getattr(chosen, name, None) is not None]
  if len(used) > 1 and "clipnorm" in used:
    yield Problem(
      f"{path}: expected clipnorm or another way of clipping; received "
      f"{', '.join(f'{name}={getattr(chosen, name)}' for name in used)}. Set all but one to null.",
      tuple(f"{path}.{name}" for name in used),
    )


def _best_checkpoint(use: Use) -> Iterator[Problem]:
  trainer = use.params.trainer
  metric = trainer.best_checkpoint_eval_metric
  key = "trainer.best_checkpoint_eval_metric"
  if not use.evaluates or not trainer.best_checkpoint_export_subdir:
    return
  patterns: tuple[str, ...] = ()
  if use.is_classification:
    task = use.params.task
    patterns = (*_CLASSIFICATION_METRICS, f"top_{task.evaluation.top_k}_accuracy")
    if task.train_data.is_multilabel:
      patterns = _MULTILABEL_METRICS
    patterns += _CLASSIFICATION_LOSSES
  elif use.is_detection:
    patterns = _LOSS_METRICS + (_COCO_METRICS if use.params.task.use_coco_metrics else ())
  if not metric or (patterns and not _matches(metric, patterns)):
    known = ", ".join(patterns) or "a metric of the evaluation"
    yield Problem(
      f"{key}={show(metric)}: expected a metric of the evaluation ({known}). Set one, or set "
      "trainer.best_checkpoint_export_subdir to ''.",
      (key, "task.evaluation.top_k", "task.train_data.is_multilabel"),
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
  return any(re.fullmatch(re.escape(p).replace(r"\*", ".*"), name) for p in patterns)


def _replicas(use: Use) -> Iterator[Problem]:
  replicas = use.num_replicas
  if replicas is None:
    return
  for key, data in use.data.items():
    size = data.global_batch_size
    if size < 1:
      yield Problem(
        f"{key}.global_batch_size={size}: expected at least 1 (images of all replicas).",
        (f"{key}.global_batch_size",),
      )
    elif size % replicas:
      lower = size // replicas * replicas
      gpus = use.params.runtime.num_gpus
      reason = f" (runtime.num_gpus={gpus})" if gpus == replicas else ""
      yield Problem(
        f"{key}.global_batch_size={size}: it is not divisible by {replicas} replicas{reason}. Use "
        f"a multiple of {replicas}, such as {f'{lower} or ' if lower else ''}{lower + replicas}.",
        (f"{key}.global_batch_size", "runtime.num_gpus"),
      )


def _loops(use: Use) -> Iterator[Problem]:
  for part, is_used in (("train", use.trains), ("eval", use.evaluates)):
    loop, function = f"{part}_tf_while_loop", f"{part}_tf_function"
    trainer = use.params.trainer
    if is_used and getattr(trainer, loop) and not getattr(trainer, function):
      yield Problem(
        f"trainer.{function}=false: expected true with trainer.{loop}=true, because the loop is a "
        "part of the function. Set both to false to run step by step.",
        (f"trainer.{function}", f"trainer.{loop}"),
      )


RELATIONS = (_loops, _steps, _learning_rate, _clipping, _best_checkpoint, _replicas)
