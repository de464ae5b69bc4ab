"""The image data format that Model Garden's layers read from tf_keras's setting."""

from __future__ import annotations

import tf_keras

from sasa_tf.errors import UserError


def require_channels_last() -> None:
  """Checks tf_keras's setting, because Model Garden's heads and losses follow it.

  Raises:
    UserError: it is channels_first.
  """
  received = tf_keras.backend.image_data_format()
  if received != "channels_last":
    raise UserError(
      "Model Garden's layers follow tf_keras's image_data_format, which must be 'channels_last' "
      f"for models of sasa_tf, as images are [B, H, W, C]; received {received!r}. Set "
      '"image_data_format": "channels_last" in ~/.keras/keras.json, or call '
      "tf_keras.backend.set_image_data_format('channels_last')."
    )
