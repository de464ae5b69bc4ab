"""How labels that no class has are told."""

# How `sasa_tf.training` recognises the error among others of the input pipeline.
LABEL_ERROR = "label outside of the model classes"


def is_missing(message: str) -> bool:
  """Whether such an error's message tells of a label below 0, as Model Garden reads none at all."""
  return LABEL_ERROR in message and "x >= 0 did not hold" in " ".join(message.split())
