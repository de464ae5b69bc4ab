"""Rules of optimizers, learning rates and warm-up."""

from __future__ import annotations

from official.modeling.optimization.configs import (
  learning_rate_config,
  optimization_config,
  optimizer_config,
)

from sasa_tf.training.config_validation.rules import (
  Rule,
  at_least,
  choice,
  decay,
  fraction,
  positive,
)

_STEPS = at_least(1, required=True, unit="steps")
_RATE = at_least(0, required=True)
_OFFSET = at_least(0, unit="steps")
_ADAM = {
  "beta_1": decay(),
  "beta_2": decay(),
  "epsilon": positive(),
  "weight_decay_rate": at_least(0),
  "weight_decay": at_least(0),
  "global_clipnorm": positive(),
  "gradient_clip_norm": at_least(0),
  # A single text in Model Garden's own experiments, in spite of the hint.
  "include_in_weight_decay": Rule(hint=list[str] | str, pattern=True),
  "exclude_from_weight_decay": Rule(pattern=True),
  "exclude_from_layer_adaptation": Rule(pattern=True),
}
_STEPWISE = {
  "boundaries": at_least(0, increasing=True, required=True, unit="steps"),
  "values": at_least(0, required=True),
  "offset": _OFFSET,
}

RULES: dict[type, dict[str, Rule]] = {
  # Without slide and adafactor, which Model Garden does not implement.
  optimization_config.OptimizerConfig: {
    "type": choice(
      *("sgd", "sgd_experimental", "adam", "adam_experimental", "adamw", "adamw_experimental"),
      *("lamb", "lars", "rmsprop", "adagrad", "adafactor_keras"),
      required=True,
    )
  },
  optimization_config.LrConfig: {"type": Rule(required=True)},
  optimizer_config.BaseOptimizerConfig: {
    "clipnorm": positive(),
    "clipvalue": positive(),
    "global_clipnorm": positive(),
  },
  optimizer_config.SGDConfig: {"decay": at_least(0), "momentum": fraction()},
  optimizer_config.SGDExperimentalConfig: {"momentum": fraction()},
  optimizer_config.RMSPropConfig: {"rho": decay(), "momentum": fraction(), "epsilon": positive()},
  optimizer_config.AdagradConfig: {
    "initial_accumulator_value": at_least(0),
    "epsilon": positive(),
  },
  optimizer_config.AdamConfig: _ADAM,
  optimizer_config.AdamExperimentalConfig: _ADAM,
  optimizer_config.AdamWeightDecayConfig: _ADAM,
  optimizer_config.AdamWeightDecayExperimentalConfig: _ADAM,
  optimizer_config.LAMBConfig: _ADAM,
  optimizer_config.SLIDEConfig: {
    **_ADAM,
    "sparse_layer_learning_rate": at_least(0),
    "ratio_clip_norm": positive(),
  },
  optimizer_config.LARSConfig: {
    "momentum": fraction(),
    "eeta": positive(),
    "weight_decay_rate": at_least(0),
    "exclude_from_weight_decay": Rule(pattern=True),
    "exclude_from_layer_adaptation": Rule(pattern=True),
  },
  optimizer_config.AdafactorConfig: {
    "beta1": decay(),
    "decay_rate": fraction(),
    "step_offset": at_least(0),
    "clipping_threshold": positive(),
    "min_dim_size_to_factor": at_least(1),
    "epsilon1": positive(),
    "epsilon2": positive(),
    "weight_decay": at_least(0),
  },
  optimizer_config.AdafactorKerasConfig: {
    "learning_rate": at_least(0),
    "epsilon_1": positive(),
    "epsilon_2": positive(),
    "clip_threshold": positive(),
  },
  optimizer_config.EMAConfig: {"average_decay": decay(), "start_step": at_least(0, unit="steps")},
  learning_rate_config.ConstantLrConfig: {"learning_rate": at_least(0)},
  learning_rate_config.StepwiseLrConfig: _STEPWISE,
  learning_rate_config.StepCosineLrConfig: _STEPWISE,
  learning_rate_config.ExponentialLrConfig: {
    "initial_learning_rate": _RATE,
    "decay_steps": _STEPS,
    "decay_rate": positive(required=True),
    "offset": _OFFSET,
  },
  learning_rate_config.PolynomialLrConfig: {
    "initial_learning_rate": _RATE,
    "decay_steps": _STEPS,
    "end_learning_rate": at_least(0),
    "power": positive(),
    "offset": _OFFSET,
  },
  learning_rate_config.CosineLrConfig: {
    "initial_learning_rate": _RATE,
    "decay_steps": _STEPS,
    "alpha": fraction(),
    "offset": _OFFSET,
  },
  learning_rate_config.DirectPowerLrConfig: {"initial_learning_rate": _RATE},
  learning_rate_config.PowerAndLinearDecayLrConfig: {
    "initial_learning_rate": _RATE,
    "total_decay_steps": _STEPS,
    "linear_decay_fraction": Rule(above=0, maximum=1),
    "offset": _OFFSET,
  },
  learning_rate_config.PowerDecayWithOffsetLrConfig: {
    "initial_learning_rate": _RATE,
    "offset": _OFFSET,
    "pre_offset_learning_rate": at_least(0),
  },
  learning_rate_config.LinearWarmupConfig: {
    "warmup_learning_rate": at_least(0),
    "warmup_steps": at_least(0, required=True, unit="steps"),
  },
  learning_rate_config.PolynomialWarmupConfig: {
    "power": positive(),
    "warmup_steps": at_least(1, required=True, unit="steps"),
  },
}
