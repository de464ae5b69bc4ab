"""Inspection of the programs that XLA compiles."""

import re

import tensorflow as tf


def products(function, *arguments):
  """Returns the shapes of the matrix products in the XLA program of a function."""
  compiled = tf.function(function, jit_compile=True, autograph=False)
  text = compiled.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
  return re.findall(r"= \w+\[([\d,]*)\]\S* (?:dot|custom-call)\(", text)
