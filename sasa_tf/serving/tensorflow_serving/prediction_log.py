"""TensorFlow Serving's request logs, as far as warm-up requests need them.

The fields have the numbers and types of tensorflow-serving-api, which would be one more dependency
of each export. Tensors and examples are declared as bytes, which have the same encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE = descriptor_pb2.FileDescriptorProto(name="prediction_log.proto", syntax="proto3")
_KINDS = {"string": "TYPE_STRING", "bytes": "TYPE_BYTES"}
# Message -> fields (name, number, type, whether it is repeated).
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
  "ModelSpec": (("signature_name", 3, "string", False),),
  "NamedTensor": (("key", 1, "string", False), ("value", 2, "bytes", False)),
  "PredictRequest": (("model_spec", 1, "ModelSpec", False), ("inputs", 2, "NamedTensor", True)),
  "PredictLog": (("request", 1, "PredictRequest", False),),
  "ExampleList": (("examples", 1, "bytes", True),),
  "Input": (("example_list", 1, "ExampleList", False),),
  "ClassificationRequest": (("model_spec", 1, "ModelSpec", False), ("input", 2, "Input", False)),
  "ClassifyLog": (("request", 1, "ClassificationRequest", False),),
  "PredictionLog": (
    ("classify_log", 2, "ClassifyLog", False),
    ("predict_log", 6, "PredictLog", False),
  ),
}
for _name, _fields in _MESSAGES.items():
  _message = _FILE.message_type.add(name=_name)
  for _field, _number, _type, _repeated in _fields:
    _message.field.add(
      name=_field,
      number=_number,
      label="LABEL_REPEATED" if _repeated else "LABEL_OPTIONAL",
      type=_KINDS.get(_type, "TYPE_MESSAGE"),
      type_name=None if _type in _KINDS else f".{_type}",
    )
# A pool of its own: the process may also have loaded tensorflow-serving-api.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_FILE)
_LOG = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("PredictionLog"))


def predict_log(signature_name: str, inputs: Mapping[str, bytes]) -> bytes:
  """Returns a serialized `PredictionLog` of a predict request.

  Args:
    signature_name: signature of the model.
    inputs: {name: serialized `TensorProto`}.
  """
  log = _LOG()
  request = log.predict_log.request
  request.model_spec.signature_name = signature_name
  for name, tensor in inputs.items():
    request.inputs.add(key=name, value=tensor)
  return log.SerializeToString()


def classify_log(signature_name: str, examples: Sequence[bytes]) -> bytes:
  """Returns a serialized `PredictionLog` of a classify request.

  Args:
    signature_name: signature of the model.
    examples: serialized `tf.train.Example`s.
  """
  log = _LOG()
  log.classify_log.request.model_spec.signature_name = signature_name
  log.classify_log.request.input.example_list.examples.extend(examples)
  return log.SerializeToString()
