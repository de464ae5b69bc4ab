"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags

# TensorFlow's and Model Garden's helpers read absl flags, which pytest never parses.
flags.FLAGS(["pytest"])
