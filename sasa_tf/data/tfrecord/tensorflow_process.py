"""How TensorFlow behaves in a process that only converts data."""

import os


def prepare_for_conversion() -> None:
  """Keeps TensorFlow quiet and off the GPUs; has an effect only before its first import.

  Each worker would otherwise reserve the memory of every GPU to decode images on the CPU.
  """
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
