# `make quickstart` and `make test` each make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of the fast tests.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile
CORE_TESTS := tests/ops tests/layers tests/modeling
FUZZ_MINUTES ?= 10
QUICKSTART := .quickstart
SCENES := $(QUICKSTART)/scenes
DETECTOR := $(QUICKSTART)/detector

.PHONY: help env quickstart quickstart-detection test test-quick test-slow test-gpu fuzz lint format native sanitize tpu-check core-test wheel-test constraints tutorials docs docs-serve bazel clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(VENV)/installed: setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v < (3, 14) and \
	  f"error: sasa_tf needs Python 3.10 to 3.13, this is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@# The pip that comes with Python 3.10 cannot build one of Model Garden's dependencies.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

env: $(VENV)/installed ## make the environment in .venv

native: env ## build the compiled kernels, where there is a C++ compiler
	$(BIN)/python -m sasa_tf.native.build --if_possible

quickstart: env native ## train, evaluate, export and use an attention ResNet on handwritten digits
	$(BIN)/python -m sasa_tf.bin.make_tfrecords digits --output=$(QUICKSTART)/data --overwrite
	rm -rf $(QUICKSTART)/run
	$(BIN)/python -m sasa_tf.bin.train --experiment=sasa_resnet_digits --mode=train_and_eval \
	  --model_dir=$(QUICKSTART)/run --params_override="task.train_data.input_path=$(QUICKSTART)/data/train-*,task.validation_data.input_path=$(QUICKSTART)/data/validation-*"
	$(BIN)/python -m sasa_tf.bin.export --model_dir=$(QUICKSTART)/run \
	  --output_dir=$(QUICKSTART)/run/exported
	$(BIN)/python -m sasa_tf.bin.predict --saved_model=$(QUICKSTART)/run/exported/saved_model --top_k=2 \
	  $(QUICKSTART)/data/preview_images/*.png
	@echo
	@echo "data             $(QUICKSTART)/data"
	@echo "checkpoint       $(QUICKSTART)/run/best_ckpt"
	@echo "TensorBoard log  $(BIN)/tensorboard --logdir $(QUICKSTART)/run"
	@echo "SavedModel       $(QUICKSTART)/run/exported/saved_model"
	@echo "next             $(BIN)/python -m sasa_tf.bin.predict --saved_model=$(QUICKSTART)/run/exported/saved_model YOUR_IMAGE.png"

quickstart-detection: env native ## train, evaluate, export and use a detector on scenes of digits
	$(BIN)/python -m sasa_tf.bin.make_tfrecords scenes --output=$(SCENES) --overwrite
	rm -rf $(DETECTOR)
	$(BIN)/python -m sasa_tf.bin.train --experiment=retinanet_sasa_scenes --mode=train_and_eval \
	  --model_dir=$(DETECTOR) --params_override="task.train_data.input_path=$(SCENES)/train-*,task.validation_data.input_path=$(SCENES)/validation-*,task.annotation_file=$(SCENES)/validation.json"
	$(BIN)/python -m sasa_tf.bin.export --model_dir=$(DETECTOR) \
	  --output_dir=$(DETECTOR)/exported
	$(BIN)/python -m sasa_tf.bin.predict --saved_model=$(DETECTOR)/exported/saved_model \
	  --score_threshold=0.4 --output=$(DETECTOR)/drawn $(SCENES)/preview_images/*.jpg
	@echo
	@echo "data             $(SCENES)"
	@echo "checkpoint       $(DETECTOR)/best_ckpt"
	@echo "TensorBoard log  $(BIN)/tensorboard --logdir $(DETECTOR)"
	@echo "SavedModel       $(DETECTOR)/exported/saved_model"
	@echo "drawn boxes      $(DETECTOR)/drawn (as they should be: $(SCENES)/preview_images/with_boxes.png)"
	@echo "next             $(BIN)/python -m sasa_tf.bin.predict --saved_model=$(DETECTOR)/exported/saved_model --output=drawn YOUR_IMAGE.jpg"

test: env native ## all fast tests
	@# In two runs, because a process keeps all programs that XLA compiled in it.
	status=0; \
	  $(PYTEST) --no-loadscope-reorder $(CORE_TESTS) || status=1; \
	  $(PYTEST) --no-loadscope-reorder $(addprefix --ignore=,$(CORE_TESTS)) || status=1; \
	  exit $$status

test-quick: env native ## the tests of ops, layers and models but the thorough ones: 3 minutes
	$(PYTEST) -m "not slow and not gpu and not thorough" $(CORE_TESTS)

test-slow: env native ## tests that take minutes
	$(BIN)/python -m pytest -q -m slow

test-gpu: env native ## tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -q -m gpu
	$(BIN)/python -m tests.native.gpu_checks

fuzz: env native ## random configurations, records and problems of the operation for FUZZ_MINUTES
	$(BIN)/python -m tests.fuzz --minutes=$(FUZZ_MINUTES)

sanitize: env ## the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python -m tests.native.sanitize

lint: env ## format, ruff's rules, and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/tpu-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tpu]'
	touch $@

tpu-check: $(VENV)/tpu-installed ## compile layers and model for a TPU v5e core, without a TPU
	$(BIN)/python -m sasa_tf.bin.tpu_check

core-test: env ## install the wheel's core with the latest TensorFlow and run the quick tests there
	PYTHON=$(PYTHON) bash tests/core_test.sh

wheel-test: env ## build the wheel, install it in an empty environment, use it outside the checkout
	PYTHON=$(PYTHON) bash tests/wheel_test.sh

COMPILE := $(BIN)/uv pip compile setup.py --universal --python-version 3.10 --upgrade \
	  --no-annotate --no-emit-index-url --custom-compile-command "make constraints"

constraints: env ## renew the tested versions in constraints.txt and constraints-core.txt
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) --extra dev -o constraints.txt
	echo 'tensorflow>=2.21' | $(COMPILE) --extra test --constraint - -o constraints-core.txt

tutorials: env native ## run the notebooks of docs/tutorials, and store their outputs
	$(BIN)/python docs/run_tutorials.py

docs: env ## the documentation site in build/docs; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: env ## the documentation site at http://localhost:8000, built again after each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

clean: ## remove what the other targets made
	rm -rf $(VENV) $(QUICKSTART) build dist *.egg-info
