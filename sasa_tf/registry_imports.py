"""Importing this module registers backbone, tasks and experiments with TF Model Garden."""

from official.vision import registry_imports

from sasa_tf.configs import image_classification
from sasa_tf.modeling import builders
from sasa_tf.tasks import image_classification as image_classification_task

__all__ = ["builders", "image_classification", "image_classification_task", "registry_imports"]
