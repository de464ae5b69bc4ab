"""The value of `train --attention_summaries`. Imports no TensorFlow before the value is checked."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sasa_tf.errors import UserError

if TYPE_CHECKING:
  from sasa_tf.training.train_actions import TrainActionFactory


def train_actions(text: str | None, params: Any, mode: str) -> list[TrainActionFactory]:
  """Returns the action that writes the summaries; none without the flag.

  Args:
    text: value of the flag: steps between summaries, "auto", or None.
    params: configuration of the experiment.
    mode: of the program.

  Raises:
    UserError: the value is invalid, or the training cannot have summaries.
  """
  if text is None:
    return []
  interval = None
  if text != "auto":
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
      raise UserError(
        "--attention_summaries must be a number of steps, 1 or more, or auto; received "
        f"{text!r}. Remove the flag for no summaries."
      )
    interval = int(text)

  from sasa_tf.analysis.training_summaries import attention_summaries

  attention_summaries.check_supported(params, mode)
  return [functools.partial(attention_summaries.AttentionSummaries, interval=interval)]
