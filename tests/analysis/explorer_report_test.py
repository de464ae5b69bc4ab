"""The page's data is that of the maps, and the page holds all of it."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from sasa_tf.analysis import attention_maps, attention_rollout
from sasa_tf.analysis.explorer.encoding import quantize
from sasa_tf.analysis.explorer.image_data import grid_within
from sasa_tf.analysis.explorer.layer_labels import label_of
from sasa_tf.analysis.explorer.report import write_report
from sasa_tf.errors import UserError
from tests.analysis.small_explorer import SIZE, SmallModel


def data_of(page):
  (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
  return json.loads(text)


@pytest.fixture(scope="module")
def small():
  return SmallModel()


@pytest.fixture(scope="module")
def page(small, tmp_path_factory):
  file = tmp_path_factory.mktemp("page") / "report.html"
  write_report(small, ["folder/a.png", "<b>.png"], str(file), title="a </script> title")
  return file.read_text()


def test_windows_of_the_page_are_those_of_the_maps(small, page):
  data = data_of(page)
  image = small.read_image("folder/a.png")
  maps = attention_maps(small.model, image.inputs, max_grid=28)
  content = np.frombuffer(gzip.decompress(base64.b64decode(data["images"][0]["bytes"])), np.uint8)
  offset = 0
  for shown, layer in zip(data["layers"], maps.values(), strict=True):
    shape = (len(shown["rows"]), len(shown["columns"]), shown["heads"], *shown["kernel"])
    roots = content[offset : offset + np.prod(shape)].reshape(shape).astype(np.float64)
    offset += np.prod(shape)
    weights = roots**2 / (roots**2).sum(axis=(-2, -1), keepdims=True)
    np.testing.assert_allclose(weights.reshape(layer.weights[0].shape), layer.weights[0], atol=0.01)
    grid = np.stack(np.meshgrid(shown["rows"], shown["columns"], indexing="ij"), -1)
    assert grid.reshape(-1, 2).tolist() == layer.pixels.tolist()
  rollout = data["images"][0]["rollout"]
  assert len(content) - offset == np.prod(rollout["size"]) * np.prod(rollout["mapSize"])
  shares = attention_rollout(small.model, image.inputs).shares[0]
  relative = (content[offset:].reshape(shares.shape) / 255.0) ** 2
  np.testing.assert_allclose(relative, shares / shares.max((1, 2), keepdims=True), atol=0.01)


def test_statistics_and_predictions_are_those_of_the_model(small, page):
  image = data_of(page)["images"][0]
  assert [image["height"], image["width"]] == list(SIZE)
  maps = attention_maps(small.model, small.read_image("folder/a.png").inputs, max_grid=28)
  for shown, layer in zip(image["layers"], maps.values(), strict=True):
    np.testing.assert_allclose(shown["entropy"], layer.statistics.entropy, rtol=1e-4)
    np.testing.assert_allclose(shown["padding"], layer.statistics.padding_share, rtol=1e-4)
  assert [layer["positions"] is None for layer in image["layers"]] == [True, False, False]
  assert [each["score"] for each in image["predictions"]] == [0.6, 0.25, 0.1]
  assert image["name"] == "a.png"


def test_page_refers_to_nothing_and_escapes_texts(page):
  assert not re.search(r"https?://", page)
  assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
  assert page.count("</script>") == len(re.findall("<script", page))
  (imports,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
  modules = json.loads(imports)["imports"]
  for name, url in modules.items():
    source = base64.b64decode(url.removeprefix("data:text/javascript;base64,")).decode()
    for imported in re.findall(r'from "(.*?)"', source):
      assert imported in modules, f"{name} imports {imported}"


def test_detections_above_the_threshold_are_shown(tmp_path):
  file = tmp_path / "report.html"
  write_report(SmallModel(is_detector=True), ["a"], str(file), title="", score_threshold=0.5)
  image = data_of(file.read_text())["images"][0]
  assert [each["score"] for each in image["detections"]] == [0.9, 0.6]
  assert image["detections"][0]["box"] == [4, 8, 16, 24]
  assert image["detections"][1]["label"] == "</script><b>2"


def test_pages_are_replaced_and_other_files_are_not(small, tmp_path):
  file = tmp_path / "report.html"
  for path in ("a", "another"):
    write_report(small, [path], str(file), title="")
  assert data_of(file.read_text())["images"][0]["name"] == "another"
  file.write_text("<html>")
  with pytest.raises(UserError, match="is not an attention page, so it is not replaced"):
    write_report(small, ["a"], str(file), title="")
  assert file.read_text() == "<html>"
  with pytest.raises(UserError, match=r"report\.html is a file; expected a directory"):
    write_report(small, ["a"], str(file / "x.html"), title="")


def test_model_without_attention_is_explained(tmp_path):
  with pytest.raises(UserError, match="'small' has no attention layer"):
    write_report(SmallModel(attention=False), ["a"], str(tmp_path / "x.html"), title="")
  assert not list(tmp_path.iterdir())


def test_grid_fits_the_budget(small):
  maps = attention_maps(small.model, small.read_image("a").inputs, max_grid=1)
  bytes_of = {28: 28 * 28 * 2 * 16 + 96 * 4 * 25 + 24 * 2 * 9}
  assert grid_within(maps, bytes_of[28]) == 28
  assert grid_within(maps, bytes_of[28] - 1) == 20
  assert grid_within(maps, 0) == 4


def test_quantized_windows_keep_their_largest_weight():
  weights = np.array([[[0.0, 0.25], [0.5, 0.25]]])
  assert list(quantize(weights)) == [0, 45, 63, 45]
  assert list(quantize(np.zeros((1, 1, 2)))) == [0, 0]


@pytest.mark.parametrize(
  ("name", "label"),
  [
    ("group3_block2_spatial", "Stage 3, block 2"),
    ("stem", "Stem"),
    ("coarser_6", "Pyramid, level 6"),
    ("classes_1:3", "Head, classes 1, call 3"),
    ("my_layer:2", "my_layer:2"),
  ],
)
def test_labels(name, label):
  assert label_of(name) == label
