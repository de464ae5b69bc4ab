"""Random configurations: valid ones, or one paragraph that names the key or the file."""

import pathlib
import random

import yaml
from official.core import exp_factory

from sasa_tf.errors import UserError
from sasa_tf.training import checks, experiment
from sasa_tf.training.config_validation import strict_yaml
from tests.broken_files import BROKEN, changed_bytes, changed_values
from tests.training import config_values

MODES = (None, "train", "eval", "train_and_eval", "continuous_eval", "export")
_HOSTILE = [strict_yaml.parse(text, "test")[0] for text in config_values.HOSTILE]


def _tree(params, generator):
  """Returns the configuration, or a few of its keys, with some hostile values."""
  if generator.random() < 0.3:
    fraction = generator.choice((0.0, 0.002, 0.02))
    return changed_values(params.as_dict(), _HOSTILE, generator, fraction)
  tree = {}
  paths = [path for path, _, _ in config_values.leaves(params)]
  for path in generator.sample(paths, generator.randrange(1, 4)):
    *parents, last = path.split(".")
    section = tree
    for key in parents:
      section = section.setdefault(key, {})
    value = config_values.value_at(params, path) if generator.random() < 0.3 else None
    section[last] = generator.choice(_HOSTILE) if value is None else value
  return tree


def _content(params, generator):
  """Returns the bytes of a YAML file: of a configuration with some changes, or broken."""
  if generator.random() < 0.05:
    return generator.choice(list(BROKEN.values()))
  text = yaml.dump(_tree(params, generator), allow_unicode=True)
  content = text.encode("utf-8", "surrogatepass")
  return changed_bytes(content, generator) if generator.random() < 0.4 else content


def check(seed, directory):
  """Raises an error unless a configuration is valid or rejected; returns a description."""
  generator = random.Random(seed)
  name, mode = generator.choice(config_values.EXPERIMENTS), generator.choice(MODES)
  as_run = generator.random() < 0.4  # as the directory of a training
  file = pathlib.Path(directory, "params.yaml" if as_run else "a.yaml")
  file.write_bytes(_content(exp_factory.get_exp_config(name), generator))
  (file.parent / "run.json").write_text(f'{{"experiment": "{name}"}}')
  described = f"{name}, mode {mode}, {file.name}"
  try:
    if as_run:
      params = experiment.load_trained_experiment(directory, None, mode=mode)
      checks.load_model_config(str(file))
    else:
      params = experiment.load_experiment(name, [str(file)], mode=mode)
  except UserError as error:
    message = str(error)
    assert "\n\n" not in message and "Traceback" not in message, f"{described}: {message[:300]}"
    names_key = "." in message.split(" ", maxsplit=1)[0] or "problems:" in message
    assert names_key or str(file) in message, f"{described}: names no key: {message[:300]}"
  else:
    wrong = list(config_values.wrong_types(params))
    assert not wrong, f"{described}: accepts {wrong[:3]}"
  return described
