"""From a data set with the odd files of all systems to drawn detections."""

import numpy as np
import pytest
from PIL import Image

from sasa_tf.data.detection import coco
from sasa_tf.serving import export
from sasa_tf.serving.clients import client
from sasa_tf.serving.clients.encoded_image_model import EncodedImageModel
from sasa_tf.serving.formats.format import SavedModelOptions
from sasa_tf.training import results
from sasa_tf.training.run import run_experiment
from tests.data import odd_data_sets as odd
from tests.serving import small_detector

EXPERIMENT = "retinanet_sasa_scenes"
LABEL = 1  # Arabic
MODEL = {
  "num_classes": 1 + len(odd.CLASSES),
  "detection_generator": {"pre_nms_score_threshold": 0.0, "max_num_detections": 3},
}


def _params(records):
  params = small_detector.params_of(records / "validation-*", **MODEL)
  params.task.train_data.input_path = f"{records}/train-*"
  params.task.annotation_file = f"{records}/validation.json"
  params.task.train_data.global_batch_size = params.task.validation_data.global_batch_size = 2
  params.task.train_data.shuffle_buffer_size = 8
  trainer = {"train_steps": 2, "steps_per_loop": 2, "validation_interval": 2}
  trainer |= {"checkpoint_interval": 2, "summary_interval": 2, "validation_steps": -1}
  params.trainer.override(trainer)
  return params


def _write_images(folder):
  """Writes images that are all displayed alike, those but the GIF without loss."""
  files = {
    f"{orientation}.png": odd.image(LABEL, orientation, "PNG") for orientation in range(1, 9)
  }
  files |= {f"{orientation}b.WebP": odd.image(LABEL, orientation, "WEBP") for orientation in (1, 6)}
  for name, content in files.items():
    odd.write(folder / f"图, [set] {name}", content)
  first = Image.fromarray(odd.displayed(LABEL))
  first.save(folder / "图.gif", save_all=True, append_images=[first.rotate(180)])
  return sorted(map(str, folder.iterdir()))


@pytest.mark.slow  # a minute
def test_training_export_and_drawing(tmp_path, capfd):
  root = tmp_path / odd.DIRECTORY
  file = odd.write_coco(root / "coco") / "instances.json"
  records, model_dir = root / "records", tmp_path / "runs/exp [lr=1e-3] v1"
  options = {"validation_fraction": 0.3, "num_processes": 1}
  coco.convert(file.parent / "images", file, records, **options)
  params = _params(records)
  run_experiment(EXPERIMENT, params, mode="train_and_eval", model_dir=str(model_dir))
  directory = model_dir / "saved [model]"
  export.export_model(
    params,
    weights=results.find_checkpoint(None, str(model_dir), params),
    outputs={"saved_model": directory},
    class_names=["background", *odd.CLASSES],
    saved_model=SavedModelOptions("image_bytes", signatures=("image_bytes",)),  # faster
  )
  images = _write_images(root / "serve")
  drawn = root / "drawn"
  model = EncodedImageModel.from_saved_model(str(directory))
  lines = list(client.predict_all(model, images, score_threshold=0.0, output=str(drawn)))
  found = "\n".join(lines)
  assert all(found.count(f"{image}") == 1 for image in images), found
  assert "Traceback" not in "".join(capfd.readouterr())
  pixels = {path.name: np.asarray(Image.open(path).convert("RGB")) for path in drawn.iterdir()}
  assert len(pixels) == len(images)
  expected = pixels["图, [set] 1.png"]
  for name, other in pixels.items():
    small = Image.fromarray(other).resize([odd.WIDTH, odd.HEIGHT])
    assert odd.label_of(np.asarray(small)) == LABEL  # upright
    if "gif" not in name and name != "图.png":
      np.testing.assert_array_equal(other, expected, err_msg=name)
