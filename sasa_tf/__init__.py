"""Stand-alone self-attention for vision models in TensorFlow (NeurIPS 2019, arXiv 1906.05909).

`import sasa_tf` imports no other module. Import what you need by name: `sasa_tf.ops` (functions of
tensors), `sasa_tf.keras` (layers and models for Keras 3), `sasa_tf.tf_keras` (the same for tf_keras
and TF Model Garden), `sasa_tf.registry_imports` (registers them with Model Garden).
"""

__version__ = "0.1.0"
