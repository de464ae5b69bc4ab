"""The fingerprint follows a changed SavedModel."""

import tensorflow as tf

from sasa_tf.compat.saved_model_fingerprint import write_fingerprint


def test_fingerprint_is_that_of_the_changed_model(tmp_path):
  directory = str(tmp_path)
  servable = tf.Module()
  double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([], name="x")])
  tf.saved_model.save(servable, directory, signatures={"serving_default": double})
  read = tf.saved_model.experimental.read_fingerprint
  before = read(directory)
  write_fingerprint(directory)
  assert read(directory).signature_def_hash == before.signature_def_hash
  updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(directory)
  updater.replace_method_name("serving_default", "tensorflow/serving/classify", tags="serve")
  updater.save()
  assert read(directory).signature_def_hash == before.signature_def_hash  # stale
  write_fingerprint(directory)
  assert read(directory).signature_def_hash != before.signature_def_hash
