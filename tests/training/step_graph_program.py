"""Checks what the training step of two replicas has besides their two XLA programs.

python -m tests.training.step_graph_program

A separate process, because the number of devices is fixed when TensorFlow starts.
"""

import tensorflow as tf
import tf_keras
from official.core import exp_factory, train_utils

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.tasks.image_classification import ImageClassificationTask
from sasa_tf.training import strategy
from sasa_tf.training.trainer import Trainer


class DenseTask(ImageClassificationTask):
  """Has a model of one layer."""

  def build_model(self):
    layers = tf_keras.layers
    inputs = tf_keras.Input(self.task_config.model.input_size)
    return tf_keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))

  def build_inputs(self, params, input_context=None):
    images = tf.random.stateless_normal([8, *self.task_config.model.input_size], [1, 2])
    return tf.data.Dataset.from_tensors((images, tf.range(8))).repeat()


def main():
  # CPU:0 is the host, and the other two stand for GPUs.
  strategy.create_logical_cpus(3)
  params = exp_factory.get_exp_config("sasa_resnet_digits")
  params.override({"runtime": {"enable_xla": True}})
  task = DenseTask(params.task)
  with strategy.from_devices(["CPU:1", "CPU:2"]).scope():
    optimizer = train_utils.create_optimizer(task, params)
    trainer = Trainer(
      params, task, task.build_model(), optimizer, evaluate=False, all_reduce="in_program"
    )
    step = tf.function(trainer.train_step)
    graph = step.get_concrete_function(iter(trainer.train_dataset)).graph
  operations = [op for op in graph.get_operations() if op.type != "Placeholder"]
  programs = [op for op in operations if op.type == "StatefulPartitionedCall"]
  assert [tf.DeviceSpec.from_string(op.device).device_index for op in programs] == [1, 2]
  assert sorted(op.type for op in operations if op not in programs) == 2 * ["IteratorGetNext"]
  for program in programs:
    # Each one of these would make the host wait for a device.
    assert not program.control_inputs, program.control_inputs
    for tensor in program.inputs:
      same_device = tensor.device == program.device
      from_iterator = tensor.op.type == "IteratorGetNext"
      assert from_iterator or (same_device and tensor.dtype == tf.resource), tensor


if __name__ == "__main__":
  main()
