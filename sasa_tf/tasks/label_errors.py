"""The message of the error for labels outside the model's classes."""

# `sasa_tf.training` recognizes the error by this text among other errors of the input pipeline.
LABEL_ERROR = "label outside of the model classes"


def is_missing_label(message: str) -> bool:
  """Whether the message reports a label below 0, which is how Model Garden reads a missing one."""
  return LABEL_ERROR in message and "x >= 0 did not hold" in " ".join(message.split())
