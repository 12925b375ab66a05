"""Metadata, dependencies and the list of commands."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = [
    "make-permutations",
    "make-color-bins",
    "sample-yfcc",
    "list-images",
    "list-objects",
    "make-scenes",
    "list-pairs",
    "unpack-nyuv2",
    "make-normals",
    "pretrain",
    "show-pretext",
    "convert-weights",
    "extract-features",
    "sample-low-shot",
    "train-svm",
    "eval-svm",
    "train-linear",
    "eval-linear",
    "finetune",
    "eval-finetune",
    "make-proposals",
    "train-detector",
    "detect",
    "eval-detections",
    "show-detections",
    "train-normals",
    "eval-normals",
    "show-normals",
    "record-navigation",
    "train-navigator",
    "eval-navigator",
    "report",
]

setup(
    name="ssl-bench",
    version="0.2.0",
    description="Pre-train image networks without labels, and measure what they learned",
    long_description=Path("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=["ssl_tools", *find_packages(include=["ssl_common", "ssl_common.*"])],
    package_dir={"ssl_tools": "tools"},
    package_data={"ssl_common": ["py.typed"], "ssl_common.reporting": ["published.json"]},
    install_requires=[
        "click>=8.3",
        "numpy>=1.26",
        "pillow>=11.3",
        "scikit-learn>=1.5",
        "threadpoolctl>=3.1",
        "torch>=2.13",
        "torchvision>=0.28",
    ],
    extras_require={
        "coco": ["faster-coco-eval>=1.7"],
        "navigation": ["gymnasium>=1.0", "stable-baselines3>=2.6", "vizdoom>=1.3"],
        "nyuv2": ["h5py>=3.10"],
        "plot": ["matplotlib>=3.8"],
        "proposals": ["opencv-contrib-python-headless>=4.10.0.84"],
        "test": [
            "gymnasium>=1.0",
            "h5py>=3.10",
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pycocotools>=2.0.8",
            "pytest>=8",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "scikit-image>=0.22",
            "scipy>=1.11",
            "stable-baselines3>=2.6",
        ],
    },
    entry_points={
        "console_scripts": [f"{c} = ssl_tools.{c.replace('-', '_')}:main" for c in COMMANDS]
    },
    data_files=[(f"share/man/man{s}", sorted(glob(f"man/*.{s}"))) for s in (1, 5, 7)],
)
