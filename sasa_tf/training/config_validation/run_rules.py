"""Rules of the trainer, the runtime and the data, which all experiments have."""

from __future__ import annotations

from official.core import config_definitions
from official.modeling.privacy import configs as privacy

from sasa_tf.training.config_validation.rules import Rule, at_least, choice, positive

# Sizes above this are typing errors; most machines cannot even allocate their bookkeeping.
_MAX_BATCH = 1_000_000
_MAX_THREADS = 4096
# TensorFlow allocates 24 bytes for each image of the buffer at once, and aborts if it cannot.
_MAX_SHUFFLE_BUFFER = 10_000_000

RULES: dict[type, dict[str, Rule]] = {
  config_definitions.TrainerConfig: {
    "steps_per_loop": at_least(1, unit="steps"),
    "summary_interval": at_least(1, unit="steps"),
    "checkpoint_interval": at_least(1, unit="steps"),
    "max_to_keep": at_least(1, unit="checkpoints"),
    "continuous_eval_timeout": at_least(0, unit="seconds"),
    "train_steps": at_least(0, unit="steps"),
    "validation_steps": at_least(-1, excluded=(0,), unit="batches; -1 for all images"),
    "validation_interval": at_least(1, unit="steps"),
    "best_checkpoint_export_subdir": Rule(inside=True),
    "best_checkpoint_metric_comp": choice("higher", "lower"),
    "validation_summary_subdir": Rule(inside=True),
    "loss_upper_bound": positive(),
    "recovery_begin_steps": at_least(0, unit="steps"),
    "recovery_max_trials": at_least(-1),
  },
  config_definitions.RuntimeConfig: {
    "distribution_strategy": choice(
      "off", "one_device", "mirrored", "multi_worker_mirrored", "tpu"
    ),
    "gpu_thread_mode": choice("gpu_private", "gpu_shared", "gpu_global"),
    "dataset_num_private_threads": at_least(1, _MAX_THREADS),
    "per_gpu_thread_count": at_least(0, _MAX_THREADS),
    "num_gpus": at_least(0, 1024),
    "task_index": at_least(-1, 1_000_000),
    "all_reduce_alg": choice("nccl", "ring", "hierarchical_copy"),
    "num_packs": at_least(0, 1024),
    "mixed_precision_dtype": choice("float32", "float16", "bfloat16"),
    "loss_scale": positive(texts=("dynamic",), description="dynamic, or a number greater than 0"),
    "num_cores_per_replica": at_least(1, 1024),
    "default_shard_dim": at_least(-1, 8),
  },
  config_definitions.DataConfig: {
    "input_path": Rule(nullable=True, values=str | list[str]),
    "tfds_name": Rule(nullable=True, values=str),
    "weights": Rule(values=float, minimum=0),
    "tfds_split": Rule(nullable=True),
    "tfds_data_dir": Rule(nullable=True),
    "global_batch_size": at_least(0, _MAX_BATCH, unit="images of all replicas"),
    "shuffle_buffer_size": at_least(1, _MAX_SHUFFLE_BUFFER, unit="images"),
    "cycle_length": at_least(1, _MAX_THREADS, unit="files"),
    "block_length": at_least(1, unit="records"),
    "ram_budget": at_least(1, unit="GB"),
    "prefetch_buffer_size": at_least(-1, 100_000, unit="batches; -1 for automatic"),
    "autotune_algorithm": choice(
      "DEFAULT", "HILL_CLIMB", "GRADIENT_DESCENT", "MAX_PARALLELISM", "STAGE_BASED"
    ),
    # Of the classes for images.
    "dtype": choice("float32", "float16", "bfloat16"),
    "file_type": choice("tfrecord", "tfrecord_compressed"),
  },
  privacy.DifferentialPrivacyConfig: {
    "clipping_norm": positive(),
    "noise_multiplier": at_least(0),
  },
  config_definitions.TaskConfig: {"init_checkpoint": Rule(nullable=True)},
}
