"""Runs an exported model on arrays, in a process that cannot import sasa_tf.

  python -I run_model.py ADAPTER.py MODEL REQUESTS.npz OUTPUTS.npz

Each adapter beside this file loads the models of one format with that format's own runtime. It
defines `Model(path)` with

  version     name and version of the runtime
  signatures  {name: shape of its input, with None for dynamic sizes}
  run(signature, inputs) -> {output: array}

Adapters of runtimes that `measure_models` times also take `num_threads`. They may have

  loop(signature, inputs, count) -> a function that runs a signature `count` times on an accelerator
                                    without the host, or None if the signature cannot be run so

REQUESTS.npz holds SIGNATURE/NUMBER -> inputs [B, ...]. OUTPUTS.npz gets SIGNATURE/NUMBER/OUTPUT ->
array [B, ...], `version`, and `signatures`, the names of those that the model has. Strings are byte
arrays whose elements end with a period, because NumPy strips zeros at the end.
"""

import importlib.util
import sys

import numpy as np


def main(adapter_file, model_path, requests_file, outputs_file):
  """Runs each request whose signature the model has."""
  sys.modules["sasa_tf"] = None  # `import sasa_tf` raises ModuleNotFoundError
  model = load_adapter(adapter_file).Model(model_path)
  outputs = {"signatures": np.asarray(sorted(model.signatures), dtype=str)}
  with np.load(requests_file) as requests:
    for key in requests.files:
      signature = key.rpartition("/")[0]
      if signature in model.signatures:
        found = run_in_batches(model, signature, _decoded(requests[key]))
        outputs.update({f"{key}/{name}": _encoded(value) for name, value in found.items()})
  outputs["version"] = np.asarray(model.version)  # some know it only after a run
  np.savez(outputs_file, **outputs)


def load_adapter(path):
  """Returns the module of an adapter."""
  # By path: the directory must not be on sys.path, because its files have the runtimes' names.
  spec = importlib.util.spec_from_file_location("adapter", path)
  adapter = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(adapter)
  return adapter


def run_in_batches(model, signature, inputs, batch_size=None):
  """Runs inputs of any number; a last batch below the batch size is filled up.

  Args:
    model: of an adapter.
    signature: a name.
    inputs: [B, ...].
    batch_size: of a signature with a dynamic batch; None for all inputs in one batch.
  """
  size = model.signatures[signature][0] or batch_size or len(inputs)
  filled = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % size, axis=0)])
  batches = [model.run(signature, filled[i : i + size]) for i in range(0, len(filled), size)]
  return {
    name: np.concatenate([np.asarray(batch[name]) for batch in batches])[: len(inputs)]
    for name in batches[0]
  }


def _decoded(values):
  if values.dtype.kind != "S":
    return values
  return np.array([value[:-1] for value in values.tolist()], dtype=object)


def _encoded(values):
  if values.dtype.kind != "O":
    return values
  flat = [value + b"." for value in values.reshape(-1).tolist()]
  return np.array(flat, dtype=bytes).reshape(values.shape)


if __name__ == "__main__":
  main(*sys.argv[1:])
