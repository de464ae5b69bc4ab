"""Trains small models on 1, 2 and 4 replicas, and saves their losses and weights.

python -m tests.training.replica_runs OUTPUT.npz CASE...

A separate process, because the number of devices is fixed when TensorFlow starts; one for all
cases, because Model Garden is slow to import. A case is TASK/OPTIMIZER/REPLICAS/COMPILER, with the
suffix /local for batch norm per replica. The compiler is plain (none), xla, or program for XLA with
the all-reduce within the program. $REPLICA_DEVICE_TYPE=GPU trains on GPUs instead of logical CPUs;
set NVIDIA_TF32_OVERRIDE=0 too, to compute in full float32.
"""

import os
import sys

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # as the train program does for logical CPUs

import tempfile

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import exp_factory, task_factory, train_utils
from official.modeling import performance

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.tasks.image_classification import ImageClassificationTask
from sasa_tf.tf_keras import LocalSelfAttention2D
from sasa_tf.training import strategy
from sasa_tf.training.trainer import Trainer
from tests.tasks.detection_records import write_scenes

DEVICE_TYPE = os.environ.get("REPLICA_DEVICE_TYPE", "CPU")
STEPS = 20
BATCH = 8
# Each half and each quarter of the batch has a different number of boxes.
BOXES = ([4, 6, 36, 40], 1), ([8, 40, 44, 62], 2), ([20, 2, 40, 20], 3)
SCENES = [BOXES, BOXES[:2], BOXES[1:], BOXES[:1], [], BOXES[2:], [], []]
OPTIMIZERS = {
  "sgd": {"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
  "clip": {"type": "sgd", "sgd": {"momentum": 0.9, "global_clipnorm": 0.5}},
  "adamw": {"type": "adamw", "adamw": {"weight_decay_rate": 0.01}},  # clips too
  "lars": {"type": "lars", "lars": {"momentum": 0.9, "weight_decay_rate": 1e-4}},
  "new": {"type": "adam_experimental", "adam_experimental": {}},
}
# Added to an optimizer as OPTIMIZER+EXTRA.
EXTRAS = {
  "ema": {"ema": {"average_decay": 0.9, "trainable_weights_only": False}},
  "float16": {},
  "bfloat16": {},
}
DETECTION = {
  "num_classes": 4,
  "input_size": [64, 64, 3],
  "max_level": 5,
  "backbone": {
    "sasa_resnet": {
      "model_id": 26,
      "width_multiplier": 0.0625,
      "num_heads": 2,
      "attention_groups": [],
    }
  },
  "decoder": {"sasa_fpn": {"num_filters": 8, "spatial": "conv"}},
  "head": {"num_filters": 8, "num_convs": 1, "spatial": "conv"},
}


class TinyClassification(ImageClassificationTask):
  """The classification task with a model that is fast to trace."""

  def build_model(self):
    layers = tf_keras.layers
    decay = tf_keras.regularizers.L2(1e-4)
    sync = self.task_config.model.norm_activation.use_sync_bn
    inputs = tf_keras.Input(self.task_config.model.input_size)
    x = layers.Conv2D(8, 3, strides=2, kernel_regularizer=decay)(inputs)
    x = layers.BatchNormalization(synchronized=sync, momentum=0.9)(x)
    x = LocalSelfAttention2D(8, kernel_size=3, num_heads=2)(layers.ReLU()(x))
    x = layers.BatchNormalization(synchronized=sync, momentum=0.9)(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return tf_keras.Model(inputs, layers.Dense(self.task_config.model.num_classes)(x))


def configuration(case):
  task, optimizer, replicas, compiler, *local = case.split("/")
  optimizer, *extras = optimizer.split("+")
  # Rounding differs. In a deep network it soon changes the sign of a ReLU's input.
  rate = 0.01 if task == "tiny" else 0.002
  schedule = {
    "learning_rate": {"cosine": {"initial_learning_rate": rate, "decay_steps": 1000}},
    "warmup": {"linear": {"warmup_steps": 2}},
    "optimizer": OPTIMIZERS[optimizer],
  }
  for extra in extras:
    schedule.update(EXTRAS[extra])
  precision = next((extra for extra in extras if extra.endswith("16")), "float32")
  override = {
    "runtime": {"enable_xla": compiler != "plain", "mixed_precision_dtype": precision},
    "task": {
      "model": {"norm_activation": {"use_sync_bn": not local}},
      "train_data": {"global_batch_size": BATCH, "seed": 1, "shuffle_buffer_size": 1},
    },
    "trainer": {"optimizer_config": schedule},
  }
  if task == "retinanet":
    records = write_scenes(os.path.join(tempfile.mkdtemp(), "a"), SCENES)
    override["task"]["model"].update(DETECTION)
    override["task"]["train_data"].update(
      {
        "tfds_name": "",
        "input_path": records,
        "parser": {"aug_rand_hflip": False, "aug_scale_min": 1.0, "aug_scale_max": 1.0},
      }
    )
  name = {"retinanet": "retinanet_sasa_coco"}.get(task, "sasa_resnet_digits")
  params = exp_factory.get_exp_config(name)
  params.override(override)
  return task, int(replicas), params


def batch_of(kind, task, params):
  """Returns one global batch, which is used in every step."""
  # Noise: equal pixels would change the sign of a ReLU's input together, depending on rounding.
  images = tf.random.stateless_normal([BATCH, *params.task.model.input_size], [1, 2])
  if kind == "retinanet":
    _, labels = next(iter(task.build_inputs(params.task.train_data)))
    return images, labels
  return images, tf.random.stateless_uniform([BATCH], [3, 4], 0, 10, tf.int32)


def check_programs_are_independent(trainer):
  """The host would wait for the devices if the step updated a variable on all of them itself."""
  step = tf.function(trainer.train_step).get_concrete_function(iter(trainer.train_dataset))
  updates = [op.name for op in step.graph.get_operations() if "Assign" in op.type]
  assert not updates, updates


def run(case):
  """Returns {name: array} of a case: losses, metrics and variables of model and optimizer."""
  kind, replicas, params = configuration(case)
  performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  tf_keras.backend.clear_session()
  tf_keras.utils.set_random_seed(1)
  task = TinyClassification(params.task) if kind == "tiny" else task_factory.get_task(params.task)
  batch = batch_of(kind, task, params)
  distribution = strategy.from_devices([f"{DEVICE_TYPE}:{i}" for i in range(replicas)])

  def build_inputs(params, input_context=None):
    images = tf.data.Dataset.from_tensors(batch).unbatch()
    return images.batch(BATCH // replicas, drop_remainder=True).repeat()  # one element per replica

  task.build_inputs = build_inputs
  with distribution.scope():
    trainer = Trainer(
      params,
      task,
      task.build_model(),
      train_utils.create_optimizer(task, params),
      evaluate=False,
      all_reduce="in_program" if "/program" in case else "between_programs",
    )
    spec = tf.nest.flatten(trainer.train_dataset.element_spec, expand_composites=True)
    int32_parts = [part for part in tf.nest.flatten(batch) if part.dtype == tf.int32]
    expected = 0 if params.runtime.enable_xla else len(int32_parts) * replicas
    assert sum(leaf.dtype == tf.int32 for leaf in spec) == expected, f"{case}: {spec}"
    logs = [trainer.train(tf.constant(1)) for _ in range(STEPS)]
    if "/program" in case:
      check_programs_are_independent(trainer)
  found = {}
  for name in logs[0]:
    found[name] = np.array([log[name].numpy() for log in logs])
  averages = getattr(trainer.optimizer, "_average_weights", [])
  for index, weight in enumerate([*trainer.model.variables, *averages]):
    copies = [np.asarray(copy) for copy in distribution.experimental_local_results(weight)]
    found[f"weight {index:03} {weight.name}"] = np.stack(copies)
  found["step"] = np.array([trainer.global_step.numpy(), trainer.optimizer.iterations.numpy()])
  performance.set_mixed_precision_policy("float32")
  return found


def main(output, *cases):
  strategy.create_logical_cpus(4)
  arrays = {}
  for case in cases:
    arrays.update({f"{case}|{name}": array for name, array in run(case).items()})
    print(case, "done", flush=True)
  np.savez(output, **arrays)


if __name__ == "__main__":
  main(*sys.argv[1:])
