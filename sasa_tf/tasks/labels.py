"""How labels that no class has are told."""

# How `sasa_tf.training` recognises the error among others of the input pipeline.
LABEL_ERROR = "label outside of the model classes"
