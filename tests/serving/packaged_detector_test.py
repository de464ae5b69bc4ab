"""The packaged detector finds cells in a drawn blood smear."""

import pytest
import tensorflow as tf

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.modeling.presets import find_preset
from sasa_tf.serving.clients import detection_client
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.restored_module import restored_module
from sasa_tf.training.experiment import load_preset_experiment

NAME = "retinanet_sasa_resnet26_bccd"
WHITE = (250, 150, 400, 300)  # xmin, ymin, xmax, ymax
RED = ((60, 60), (480, 80), (100, 330), (500, 340))  # xmin, ymin
RED_SIZE = 90


@pytest.fixture(scope="module")
def smear(tmp_path_factory):
  """Returns the file of an image with a white cell, dark with a nucleus, and four red cells."""
  from PIL import Image, ImageDraw, ImageFilter

  image = Image.new("RGB", (640, 480), (235, 215, 215))
  draw = ImageDraw.Draw(image)
  draw.ellipse(WHITE, fill=(150, 90, 160))
  draw.ellipse((285, 180, 375, 270), fill=(110, 50, 140))
  for x, y in RED:
    draw.ellipse((x, y, x + RED_SIZE, y + RED_SIZE), fill=(215, 165, 165))
    draw.ellipse((x + 25, y + 25, x + 65, y + 65), fill=(228, 195, 195))
  file = tmp_path_factory.mktemp("smear") / "smear.png"
  image.filter(ImageFilter.GaussianBlur(3)).save(file)
  return str(file)


def _center(box):
  xmin, ymin, xmax, ymax = box
  return (xmin + xmax) / 2, (ymin + ymax) / 2


def test_cells_are_found(smear):
  preset = find_preset(NAME)
  module = restored_module(load_preset_experiment(preset, mode="export"), preset, batch_size=1)
  model = EncodedImageModel.from_module(f"--preset={NAME}", module, preset.labels)
  found = detection_client.detect(model, smear, score_threshold=0.3)
  expected = [("WBC", _center(WHITE))]
  expected += [("RBC", (x + RED_SIZE / 2, y + RED_SIZE / 2)) for x, y in RED]
  assert sorted(each.name for each in found) == sorted(name for name, _ in expected)
  for name, center in expected:
    distances = [
      tf.norm(tf.subtract(_center(each.box), center)) for each in found if each.name == name
    ]
    assert min(distances) < 25, (name, center)
