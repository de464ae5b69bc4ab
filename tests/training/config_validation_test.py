"""Every configuration is either valid, or rejected as a whole with the names of its keys."""

import copy
import functools
import pathlib
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from official.core import exp_factory, train_utils
from official.modeling import optimization

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.compat import model_garden
from sasa_tf.errors import ConfigError, UserError
from sasa_tf.training import experiment, strategy
from sasa_tf.training.config_validation import memory, override_text, schema, strict_yaml
from sasa_tf.training.config_validation.experiment_check import check_experiment
from sasa_tf.training.config_validation.overrides import Overrides
from sasa_tf.training.config_validation.rules import NO_RULE
from sasa_tf.training.config_validation.use import Use
from tests.training import config_values

OFFICIAL = [
  path
  for path in sorted(pathlib.Path(__file__).parents[2].glob("official_configs/*/*.yaml"))
  if path.parent.name != "studies"
]
MODES = ("train", "eval", "train_and_eval", "continuous_eval", "export")


def load(override, name="sasa_resnet_digits", mode="train_and_eval"):
  return experiment.load_experiment(name, (), override, mode=mode)


def check(text, name="sasa_resnet_digits", mode="train_and_eval"):
  """As `load`, but creates the experiment once, which takes most of the time."""
  params = copy.deepcopy(created(name))
  overrides = Overrides(params)
  overrides.apply(override_text.parse(text, "test")[0], "test")
  check_experiment(params, mode, earlier=overrides.problems, sources=overrides.sources)
  return params


created = functools.cache(exp_factory.get_exp_config)


@pytest.mark.parametrize("name", config_values.EXPERIMENTS)
def test_hostile_values_of_every_field(name):
  """More than ten thousand values: accepted in the right type, or rejected with the key."""
  fields = list(config_values.leaves(name))
  values = [strict_yaml.parse(text, "test")[0] for text in config_values.HOSTILE]
  assert len(fields) > 200
  params = exp_factory.get_exp_config(name)
  accepted = 0
  for path, section, field in fields:
    for value in values:
      overrides = Overrides(params)
      tree = value
      for key in reversed(path.split(".")):
        tree = {key: tree}
      found = overrides.check(tree, "test")
      if overrides.problems:
        assert path in overrides.problems[0].text, (path, value)
        assert "expected" in overrides.problems[0].text
      else:
        accepted += 1
        for key in path.split("."):
          found = found[key]
        assert config_values.has_type(found, field.hint, field.nullable), (path, value, found)
        assert field.rule.allows(found), (section, path, value)
  assert 0.01 < accepted / (len(fields) * len(values)) < 0.2


def test_every_number_has_a_limit():
  """A new field of a configuration needs a rule, or an entry here."""
  without = {
    (field.name, section.__name__)
    for name in config_values.EXPERIMENTS
    for _, section, field in config_values.leaves(name)
    if field.hint in (int, float) and field.rule is NO_RULE
  }
  # Any seed, and exponents of either sign.
  unlimited = {"seed", "power", "beta_2_decay"}
  assert {pair for pair in without if pair[0] not in unlimited} == set()


@pytest.mark.parametrize("name", model_garden.registered_experiments())
def test_registered_experiments_are_valid(name):
  experiment.load_experiment(name)


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_official_configs_are_valid(path):
  (name,) = set(re.findall(r"--experiment=(\w+)", path.read_text()))
  experiment.load_experiment(name, [str(path)], mode="export")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
  "name", [name for name in model_garden.registered_experiments() if "sasa" in name]
)
def test_experiments_are_valid_in_every_mode(name, mode):
  override = "task.train_data.global_batch_size=8" if "train" in mode else None
  assert load(override, name, mode).task


def test_saved_parameters_are_read_unchanged(tmp_path):
  for name in config_values.EXPERIMENTS:
    params = experiment.load_experiment(name)
    train_utils.serialize_config(params, str(tmp_path))
    again = experiment.load_experiment(name, [str(tmp_path / "params.yaml")])
    assert again.as_dict() == params.as_dict()


@pytest.mark.parametrize(
  ("override", "message"),
  [
    (
      "trainer.train_steps=1.5",
      r"trainer\.train_steps=1\.5 \(--params_override\): expected an int",
    ),
    ("trainer.train_steps=0", "trainer.train_steps=0: expected at least 1"),
    ("trainer.train_steps=nan", "received|trainer.train_steps='nan'.*Write a number"),
    ("trainer.train_steps=" + "9" * 5000, "trainer.train_steps.*Exceeds the limit"),
    ("trainer.summary_interval=7", "multiple of trainer.steps_per_loop=44.*Set it to 44"),
    ("runtime.distribution_strategy=off", "put quotes around the text"),
    ("task.losses.one_hot=1", "Write true or false"),
    ("task.model.backbone.type=sasa_resnt", r"expected one of .*Did you mean 'sasa_resnet'"),
    ("task.model.backbone=null", "task.model.backbone=null.*expected nested keys"),
    ("task.model.backbone.sasa_resnet.kernel_size=2", r"sasa_resnet\.kernel_size=2.*odd integer"),
    ("task.model.backbone.sasa_resnet.positions=nonsense", "one of relative, absolute, none"),
    (
      "task.model.backbone.sasa_resnet.content=false,"
      "task.model.backbone.sasa_resnet.positions=none",
      r"content=false: expected .*positions=relative",
    ),
    ("task.model.backbone.sasa_resnet.baseline=non_local", "baseline=non_local.*attention_groups"),
    ("task.model.input_size=[8,8,1]", "3 channels"),
    ("task.train_data.aug_type={type: ssd_random_crop}", "aug_type.type=ssd_random_crop"),
    ("task.train_data.aug_type.randaug.num_layers=1", "aug_type.type=null.*This run needs it"),
    ("task.train_data.mixup_and_cutmix.prob=0.5", "one_hot=false and soft_labels=true"),
    (
      "task.train_data.batch_augmentation=true,task.train_data.aug_crop=true",
      "aug_crop=true: expected false with task.train_data.batch_augmentation=true",
    ),
    (
      "task.train_data.batch_augmentation=true,task.train_data.repeated_augment=3",
      "repeated_augment=3: expected null with task.train_data.batch_augmentation=true",
    ),
    ("task.train_data.random_erasing.trials=0", "random_erasing.trials=0.*1 to 100"),
    (
      "task.train_data.random_erasing.min_area=0.5,task.train_data.random_erasing.max_area=0.1",
      "random_erasing.min_area=0.5.*at most.*max_area=0.1",
    ),
    (
      "task.train_data.aug_type={type: autoaug, autoaug: {augmentation_name: detection_v0}}",
      "augmentation_name=detection_v0: expected a policy for classification",
    ),
    ("task.losses.use_binary_cross_entropy=true", "expected task.train_data.mixup_and_cutmix"),
    ("task.train_data.is_multilabel=true", r"metric='accuracy': .*\(globalPR-AUC, meanPR-AUC, "),
    ("task.train_data.crop_area_range=[1.0,0.5]", "the smaller value first"),
    ("task.train_data.is_training=false", "expected true"),
    (
      "task.validation_data.is_training=true,trainer.validation_steps=2",
      "the metrics would be those of random crops",
    ),
    ("trainer.train_steps=2;trainer.steps_per_loop=2", "Separate assignments by commas: a.b=1,"),
    ("task.train_data.tfds_name=cifar11,task.train_data.input_path=''", "Did you mean 'cifar10"),
    ("task.train_data.enable_tf_data_service=true", "expected an address"),
    (
      "task.validation_data.enable_tf_data_service=true,"
      "task.validation_data.tf_data_service_address=grpc://host:5050",
      "counted more than once",
    ),
    ("task.train_data.global_batch_size=1000000", "needs at least .* GiB of memory"),
    ("task.model.backbone.sasa_resnet.width_multiplier=64", "needs at least .* GiB"),
    ("trainer.best_checkpoint_eval_metric=acc", "expected a metric of the evaluation"),
    ("trainer.best_checkpoint_export_subdir=../x", "a path inside of model_dir"),
    ("trainer.best_checkpoint_export_subdir=.", "a path inside of model_dir"),
    ("trainer.best_checkpoint_export_subdir=.//./", "a path inside of model_dir"),
    ("trainer.validation_steps=0", "not 0"),
    ("trainer.train_tf_function=false", r"train_tf_function=false: .*train_tf_while_loop=true"),
    ("trainer.optimizer_config.optimizer.type=sdg", "Did you mean 'sgd'"),
    ("trainer.optimizer_config.learning_rate.type=null", "This run needs it"),
    ("trainer.optimizer_config.learning_rate.type=exponential", "decay_rate=null"),
    (
      "trainer.optimizer_config.learning_rate={type: stepwise, stepwise: {boundaries: [1, 2], "
      "values: [1]}}",
      "expected 3 values",
    ),
    ("trainer.optimizer_config.optimizer.adam={clipnorm: 1, global_clipnorm: 1}", "all but one"),
    ("trainer.train_step=1", "no key 'train_step' in trainer. Did you mean 'train_steps'"),
    ("{trainer.train_steps: 1}", "write a.b as nested keys"),
    ("train_steps=10", r"'train_steps' at the top level\. Did you mean 'trainer\.train_steps'\?"),
    ("model.num_classes=10", r"no key 'model' at the top level\. Did you mean 'task\.model'\?"),
    ("trainer.kernel_size=3", r"Did you mean 'task\.model\.backbone\.sasa_resnet\.kernel_size'\?"),
    (
      "task.model.backbone.sasa_resnet.dilation=2",
      r"no key 'dilation' in task\.model\.backbone\.sasa_resnet\. Known: attention_groups, ",
    ),
    (
      "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e300",
      r"cosine\.initial_learning_rate=1e\+300.*float32, up to 3\.4e38,",
    ),
    (
      "trainer.optimizer_config.optimizer={type: adamw, adamw: {include_in_weight_decay: ['[']}}",
      r"adamw\.include_in_weight_decay=\['\['\].*a regular expression",
    ),
    (
      "trainer.optimizer_config.optimizer={type: lars, lars: {exclude_from_weight_decay: ['(']}}",
      "a regular expression",
    ),
    (
      "task.train_data.shuffle_buffer_size=1000000000000",
      r"shuffle_buffer_size=1000000000000.*expected an integer, 1 to 10,000,000 \(images\)",
    ),
    (
      "task.train_data.input_path={a: x, b: y},task.train_data.weights={a: 0, b: 0}",
      r"task\.train_data\.weights=.*expected one weight greater than 0",
    ),
    ("task.train_data.seed=99999999999999999999", "expected an integer, or null.*in 64 bits"),
    (
      "task.train_data.label_field_key=image/encoded",
      r"train_data\.image_field_key='image/encoded', .*label_field_key=.*names of two features",
    ),
    ("task.train_data.weights={a: -1}", r"task\.train_data\.weights=\{'a': -1"),
    ("task.freeze_backbone=true", "expected task.init_checkpoint with trained weights"),
    ("runtime.num_gpus=3", r"not divisible by 3 replicas \(runtime.num_gpus=3\)"),
  ],
)
def test_invalid_configurations(override, message):
  with pytest.raises(ConfigError, match=message) as caught:
    load(override)
  assert "\n\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("task.model.num_classes=1", "at least 2, because class 0 is the background"),
    ("task.model.min_level=6", "min_level to be at most max_level"),
    ("task.model.min_level=1", "a level of sasa_resnet, 2 to 5"),
    (
      "task.model.max_level=7,task.model.input_size=[128,96,3]",
      r"2\^max_level = 128.*\[128,128,3\]",
    ),
    ("task.model.decoder.type=identity", "the levels of sasa_resnet"),
    ("task.model.decoder.type=aspp", "expected one of sasa_fpn, fpn"),
    (
      "task.model.head={spatial: attention, num_filters: 36}",
      "multiple of 16.*Set num_filters to 32",
    ),
    ("task.model.head.value_stddev=0", "value_stddev=0.*expected a number, greater than 0"),
    (
      "task.model.decoder.sasa_fpn={spatial: attention, locality_strength: 1, num_heads: 32}",
      "at least 4 channels in each head; received positions=relative and 32 heads of 2 channels",
    ),
    (
      "task.model.head={spatial: attention, locality_strength: 1, positions: none}",
      "head.locality_strength=1.*expected positions=relative",
    ),
    (
      "task.model.backbone.sasa_resnet={locality_strength: 1, num_heads: 8}",
      "sasa_resnet.locality_strength=1.*received positions=relative and 8 heads of 2 channels",
    ),
    ("task.model.backbone.sasa_resnet.locality_strength=-1", "expected a number, at least 0"),
    ("task.model.backbone.sasa_resnet.stem=conv_small", "for detection"),
    ("task.model.head.share_level_convs=false", "share_level_convs=false.*expected true"),
    ("task.model.head.attribute_heads=[{name: a}]", "attribute_heads.*0 elements"),
    ("task.model.anchor.aspect_ratios=[]", "1 to 64 numbers greater than 0"),
    ("task.train_data.parser.unmatched_threshold=0.6", "at most .*match_threshold=0.5"),
    ("task.train_data.parser={aug_scale_min: 2.0}", "aug_scale_min=2.0: expected at most"),
    ("task.use_wod_metrics=true", "use_wod_metrics=true"),
    (
      "task.annotation_file=x,task.validation_data.input_path='',"
      "task.validation_data.tfds_name=coco,task.validation_data.tfds_split=test",
      "task.annotation_file='x': expected null",
    ),
  ],
)
def test_invalid_detection_configurations(override, message):
  with pytest.raises(ConfigError, match=message):
    load(override, "retinanet_sasa_scenes")


def test_all_problems_are_reported_together(tmp_path):
  file = tmp_path / "a.yaml"
  file.write_text("trainer: {train_steps: x, foo: 1}\ntask: {model: {num_classes: -1}}")
  with pytest.raises(ConfigError) as caught:
    experiment.load_experiment(
      "sasa_resnet_digits", [str(file)], "runtime.num_gpus=z", mode="train"
    )
  message = str(caught.value)
  assert message.startswith("the configuration has 4 problems:\n")
  for part in (
    f"trainer.train_steps='x' ({file})",
    f"{file}: no key 'foo' in trainer",
    f"task.model.num_classes=-1 ({file})",
    "runtime.num_gpus='z' (--params_override)",
  ):
    assert part in message


def test_configuration_of_another_experiment_is_recognized(tmp_path):
  train_utils.serialize_config(experiment.load_experiment("retinanet_sasa_scenes"), str(tmp_path))
  with pytest.raises(ConfigError, match=r"problems, \d+ of them keys .*another experiment\?\):\n"):
    experiment.load_experiment("sasa_resnet_digits", [str(tmp_path / "params.yaml")])


def test_numbers_are_converted_to_the_type_of_the_field():
  params = load("trainer.train_steps=2e3,task.losses.l2_weight_decay=1,trainer.max_to_keep=0x10")
  assert params.trainer.train_steps == 2000 and type(params.trainer.train_steps) is int
  assert type(params.task.losses.l2_weight_decay) is float
  assert params.trainer.max_to_keep == 16


def test_label_files_limit_the_classes(tmp_path):
  for split, names in (("a", "zebra\n"), ("b", "zebra\nyak\n")):
    (tmp_path / split).mkdir()
    (tmp_path / split / "labels.txt").write_text(names)
  inputs = (
    f"task.train_data.input_path={tmp_path}/{{}}/x,task.validation_data.input_path={tmp_path}/b/x"
  )
  load(inputs.format("b"))
  with pytest.raises(ConfigError, match="different label files"):
    load(inputs.format("a"))
  classes = "task.model.num_classes=1,task.evaluation.top_k=1,"
  metric = "trainer.best_checkpoint_eval_metric=accuracy,"
  with pytest.raises(ConfigError, match=r"num_classes=1: expected 2, the number of lines of"):
    load(classes + metric + inputs.format("b"))


def test_memory_is_warned_about(monkeypatch):
  use = Use(created("sasa_resnet_digits"), "train")
  (estimate,) = memory.estimates(use)
  assert 32 * 100_000 < estimate.total < 1 << 30
  monkeypatch.setattr(memory, "available_memory", lambda: 1.5 * estimate.total)
  (warning,) = memory.warnings(use)
  assert "task.train_data.global_batch_size=32 needs at least" in warning
  assert not list(memory.find_problems(use))
  monkeypatch.setattr(memory, "available_memory", lambda: 0.9 * estimate.total)
  (problem,) = memory.find_problems(use)
  assert "Use a batch of at most 1" in problem.text


def test_too_many_logical_cpus():
  with pytest.raises(UserError, match="num_logical_cpus=100000: expected at most 128"):
    strategy.create_logical_cpus(100_000)


def test_few_classes_do_not_need_another_top_k():
  """The default top_k is 5; with fewer classes every image is among the top k."""
  load("task.model.num_classes=3", "sasa_resnet_cifar10")


_SCALARS = (
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats()
  | st.text(max_size=8)
  | st.sampled_from([strict_yaml.parse(text, "test")[0] for text in config_values.HOSTILE])
)
_VALUES = st.recursive(
  _SCALARS,
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
  ),
  max_leaves=6,
)
_PATHS = {
  name: [path for path, _, _ in config_values.leaves(name)] for name in config_values.EXPERIMENTS
}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_random_configurations_are_valid_or_rejected_with_their_keys(data):
  """Several random values in a YAML file or an override, in every mode."""
  name = data.draw(st.sampled_from(config_values.EXPERIMENTS))
  paths = data.draw(st.lists(st.sampled_from(_PATHS[name]), min_size=1, max_size=3, unique=True))
  tree = {}
  for path in paths:
    section = tree
    *parents, last = path.split(".")
    for key in parents:
      section = section.setdefault(key, {})
    section[last] = data.draw(_VALUES)
  text = yaml.safe_dump(tree, allow_unicode=data.draw(st.booleans()))
  try:
    params = check(text, name, data.draw(st.sampled_from([None, *MODES])))
  except ConfigError as error:
    assert "expected" in str(error) or "no key" in str(error) or "cannot be parsed" in str(error)
    assert "\n\n" not in str(error)
  else:
    assert list(config_values.wrong_types(params)) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_valid_optimizers_can_be_created(data):
  """What the schema accepts, Model Garden's factory accepts too."""
  prefix = "trainer.optimizer_config."
  sections = dict(
    (path, config)
    for path, config, _ in schema.sections(exp_factory.get_exp_config("sasa_resnet_digits"))
  )
  tree = {}
  for part in ("optimizer", "learning_rate", "warmup"):
    names = [n for n in schema.fields_of(type(sections[prefix + part])) if n != "type"]
    chosen = data.draw(st.sampled_from(names))
    fields = schema.fields_of(type(sections[f"{prefix}{part}.{chosen}"]))
    values = {}
    for field in fields.values():
      if field.hint in (float, int) and (field.rule.required or data.draw(st.booleans())):
        values[field.name] = data.draw(st.sampled_from([0, 1, 2, 0.5, 1e-9, 1e9]))
    tree[part] = {"type": chosen, chosen: values}
  try:
    params = check(yaml.safe_dump({"trainer": {"optimizer_config": tree}}))
  except ConfigError:
    return
  factory = optimization.OptimizerFactory(params.trainer.optimizer_config)
  assert factory.build_optimizer(factory.build_learning_rate())
