"""Packaging of sasa_tf."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "sasa_tf/__init__.py").read_text())[1]
PROGRAMS = (
  "train",
  "export",
  "export_saved_model",
  "predict",
  "attention_maps",
  "make_tfrecords",
  "convert_weights",
  "profile_model",
  "benchmark",
  "benchmark_input",
  "tpu_check",
  "scaling",
  "study",
  "report",
  "doctor",
)

# Training, evaluation and export with TF Model Garden, and its data.
GARDEN = [
  "importlib-resources>=6",  # TFDS imports it without requiring it
  "numpy<2.4",  # Model Garden's COCO evaluation fails with later versions
  "pillow>=10.1",
  "rich>=13",
  "scikit-learn>=1.5",
  "tensorflow>=2.20,<2.21",  # the version that Model Garden's wheel requires
  "tensorflow-datasets>=4.9.7",
  "tensorflow-metadata>=1.16",  # earlier versions, which some resolvers choose, break TFDS
  "tf-keras>=2.20,<2.21",
  "tf-models-official>=2.20,<2.21",
  "tqdm>=4.66",
]
# Tables, plots, drawings and the statistics of studies.
REPORT = [
  "matplotlib>=3.8",
  "pillow>=10.1",
  "pyyaml>=6.0",
  "rich>=13",
  "scipy>=1.13",
  "tqdm>=4.66",
]
# Export to ONNX, and ONNX Runtime to verify it.
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "tf2onnx>=1.17"]
# Export to OpenVINO, and its runtime to verify it.
OPENVINO = ["openvino>=2025.0"]
# Messages of TensorFlow Serving, for its gRPC clients.
TF_SERVING = ["tensorflow-serving-api>=2.20,<2.22"]
# The documentation site: `make docs`.
DOCS = ["mkdocs-jupyter>=0.26.3", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"]
# Execution of the notebooks of docs/tutorials.
NOTEBOOKS = ["ipykernel>=6.29", "nbclient>=0.10"]
TEST = ["hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.8"]

setuptools.setup(
  name="sasa_tf",
  version=VERSION,
  description="Stand-alone self-attention in vision models, for Keras and TF Model Garden",
  long_description=(ROOT / "README.md").read_text(),
  long_description_content_type="text/markdown",
  keywords=["self-attention", "vision", "tensorflow", "keras", "resnet", "retinanet"],
  classifiers=[
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.10",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Image Recognition",
  ],
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.10,<3.14",
  # The YAML files live beside the package in the checkout and inside of it when installed.
  packages=[
    *setuptools.find_packages(include=["sasa_tf", "sasa_tf.*"]),
    "sasa_tf.official_configs",
  ],
  package_dir={"sasa_tf.official_configs": "official_configs"},
  package_data={
    "sasa_tf": ["py.typed", "presets/*/*"],
    "sasa_tf.analysis.explorer": ["page/*"],
    "sasa_tf.native": [
      "**/*.cc",
      "**/*.cu",
      "**/*.cuh",
      "**/*.h",
    ],  # built where they are installed
    "sasa_tf.official_configs": ["**/*.yaml", "**/*.md"],
    "sasa_tf.serving.runtimes": ["*.js"],
  },
  # Supported ranges; constraints.txt has the versions that are tested.
  install_requires=["absl-py>=1.4", "keras>=3.10", "numpy>=2.0", "tensorflow>=2.20,<2.22"],
  extras_require={
    "garden": GARDEN,
    "report": REPORT,
    "onnx": ONNX,
    "openvino": OPENVINO,
    "tf_serving": TF_SERVING,
    "all": [*GARDEN, *REPORT, *ONNX, *OPENVINO],
    "test": TEST,
    "docs": DOCS,
    "dev": [
      *GARDEN,
      *REPORT,
      *ONNX,
      *OPENVINO,
      *TF_SERVING,
      *TEST,
      *DOCS,
      *NOTEBOOKS,
      "mypy>=1.18",
      "ruff>=0.14",
    ],
    "browser": ["playwright>=1.50"],  # tests of the attention explorer, with an installed Chromium
    # Exact versions, because tpu_check calls internal functions of jax.
    "tpu": ["jax==0.10.2", "jaxlib==0.10.2", "libtpu==0.0.52"],
  },
  entry_points={
    "console_scripts": [
      "sasa=sasa_tf.commandline.__main__:run",
      "sasa-build-kernels=sasa_tf.native.build:main",
      *[f"sasa-{name.replace('_', '-')}=sasa_tf.bin.{name}:run" for name in PROGRAMS],
    ]
  },
)
