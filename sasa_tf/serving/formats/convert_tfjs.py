"""Converts a SavedModel with tensorflowjs: python -I convert_tfjs.py SAVED_MODEL OUTPUT_DIR.

A process of its own, because it hides modules that tensorflowjs imports without need.
"""

import json
import os
import re
import sys
import types


def main(saved_model, output_dir):
  """Writes model.json and the weights."""
  # Of converters of decision forests, JAX models and TensorFlow Hub. The first two need other
  # versions of TensorFlow than Model Garden, and tensorflow_hub an old version of setuptools.
  sys.modules["tensorflow_hub"] = types.ModuleType("tensorflow_hub")
  sys.modules["tensorflow_decision_forests"] = types.ModuleType("tensorflow_decision_forests")
  jax_conversion = types.ModuleType("tensorflowjs.converters.jax_conversion")
  jax_conversion.convert_jax = None
  sys.modules["tensorflowjs.converters.jax_conversion"] = jax_conversion

  from tensorflowjs.converters import tf_saved_model_conversion_v2

  tf_saved_model_conversion_v2.convert_tf_saved_model(
    saved_model,
    output_dir,
    signature_def="serving_default",
    use_structured_outputs_names=True,
  )
  _name_outputs(os.path.join(output_dir, "model.json"))


def _name_outputs(file):
  """Gives the outputs their names, in the order of these.

  tensorflowjs lists the outputs in any order, but TensorFlow.js expects that of the names.
  """
  with open(file, encoding="utf-8") as stream:
    model = json.load(stream)
  names = model["userDefinedMetadata"]["structuredOutputKeys"]  # sorted, as TensorFlow's outputs
  outputs = sorted(model["signature"]["outputs"].values(), key=_position)
  model["signature"]["outputs"] = dict(zip(names, outputs, strict=True))
  with open(file, "w", encoding="utf-8") as stream:
    json.dump(model, stream)


def _position(output):
  """Returns the position of an output of the signature: 2 for "Identity_2:0"."""
  return int(re.fullmatch(r"Identity(?:_(\d+))?:0", output["name"])[1] or 0)


if __name__ == "__main__":
  main(*sys.argv[1:])
