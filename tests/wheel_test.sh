#!/usr/bin/env bash
# Builds the wheel, installs it with its extras in an empty environment and uses it outside of the checkout.
. "$(dirname "$0")/install_wheel.sh"
install_wheel constraints.txt all

"$python" - <<'PYTHON'
import pathlib

import sasa_tf

package = pathlib.Path(sasa_tf.__file__).parent
assert "site-packages" in package.parts, package
assert (package / "py.typed").is_file()
assert any((package / "official_configs").rglob("*.yaml"))

import keras
from sasa_tf.keras import SASAResNet

inputs = keras.Input([32, 32, 3])
features = SASAResNet(26, "conv_small", width_multiplier=0.125, num_heads=4)(inputs)["5"]
print("wheel: functional model", features.shape)
PYTHON
"$scratch/env/bin/sasa-make-tfrecords" digits --output=data/digits
"$scratch/env/bin/sasa-train" --experiment=sasa_resnet_digits --mode=train_and_eval \
  --model_dir=run --params_override="trainer.train_steps=2,trainer.steps_per_loop=1,trainer.summary_interval=2"
"$scratch/env/bin/sasa-export-saved-model" --model_dir=run --export_dir=run/saved_model
"$scratch/env/bin/sasa-predict" --saved_model=run/saved_model data/digits/preview_images/0-*.png
echo "wheel test passed"
