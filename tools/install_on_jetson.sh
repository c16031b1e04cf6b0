#!/usr/bin/env bash
# Install Framewire with JetPack's OpenCV and TensorRT: every dependency but OpenCV from the package registry.
# Runs in a venv made with --system-site-packages, from the checkout. Used by Dockerfile.jetson; works on a bare board too.
set -euo pipefail

python3 -m pip install --upgrade pip
requirements=$(mktemp)
python3 - >"$requirements" <<'PYTHON'
import re
from pathlib import Path

text = Path("pyproject.toml").read_text()
listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1)
for requirement in re.findall(r'"([^"]+)"', listed):
    if not requirement.startswith(("opencv-python", "openvino", "supervision")):
        print(requirement)
PYTHON
# JetPack's OpenCV and TensorRT were compiled for NumPy 1 and do not load with NumPy 2.
constraint=$(mktemp)
echo "numpy<2" >"$constraint"
export PIP_CONSTRAINT=$constraint
python3 -m pip install -r "$requirements" onnx pycuda "prometheus-client>=0.20,<1"
# supervision requires opencv-python, which lacks GStreamer: its other dependencies are listed here instead.
python3 -m pip install --no-deps supervision
python3 -m pip install defusedxml matplotlib pillow pydeprecate requests scipy tqdm
python3 -m pip install --no-deps .
rm -f "$requirements" "$constraint"
