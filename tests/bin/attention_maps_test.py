"""Wrong flags and paths of attention_maps are reported before a model is loaded."""

import os

import pytest
from absl import flags
from absl.testing import flagsaver

from sasa_tf.bin import attention_maps
from sasa_tf.errors import UserError


@pytest.fixture(autouse=True)
def parsed_flags():
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    yield


def run(*images, **values):
  with flagsaver.flagsaver(**values):
    attention_maps.main(["attention_maps", *images])


@pytest.mark.parametrize(
  ("images", "values", "message"),
  [
    ([], {"saved_model": "x"}, "expected paths of images after the flags; received none"),
    (["a.png"], {}, "expected --model_dir, --saved_model or --preset; received none"),
    (["a.png"], {"saved_model": "x", "model_dir": "y"}, "received --model_dir and --saved_model"),
    (["a.png"], {"preset": "x", "model_dir": "y"}, "received --preset and --model_dir"),
    (["a.png"], {"saved_model": "x", "checkpoint_path": "y"}, "--checkpoint_path is for"),
    (["a.png"], {"saved_model": "x", "output": "/"}, "--output=/"),
    (["a.png"], {"saved_model": "x", "output": "gs://bucket/x.html"}, "expected a local path"),
  ],
)
def test_wrong_flags(images, values, message, tmp_path):
  with pytest.raises(UserError, match=message):
    run(*images, **({"output": str(tmp_path / "report.html")} | values))


def test_directory_without_write_permission(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
  with pytest.raises(UserError, match="is not writable"):
    run("a.png", saved_model="x", output=str(tmp_path / "report.html"))
