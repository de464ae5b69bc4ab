"""Registers models, tasks and experiments with TF Model Garden when it is imported."""

from sasa_tf import extras

extras.require(__name__, "official", "tf_keras")

from official.vision import registry_imports

from sasa_tf.configs import image_classification, retinanet
from sasa_tf.modeling import builders
from sasa_tf.tasks import image_classification as image_classification_task
from sasa_tf.tasks import retinanet as retinanet_task

__all__ = [
  "builders",
  "image_classification",
  "image_classification_task",
  "registry_imports",
  "retinanet",
  "retinanet_task",
]
