#!/usr/bin/env bash
# Install Framewire with JetPack's OpenCV and TensorRT: every dependency but OpenCV from the package registry.
# Runs in a venv made with --system-site-packages, from the checkout. Used by Dockerfile.jetson; works on a bare board too.
# `tools/install_on_jetson.sh --list` only prints what has wheels in the registry, for tools/arm64_smoke.sh.
set -euo pipefail

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
printf '%s\n' onnx "prometheus-client>=0.20,<1" >>"$requirements"
# supervision requires opencv-python, which lacks GStreamer: its other dependencies are listed here instead.
printf '%s\n' defusedxml matplotlib pillow pydeprecate requests scipy tqdm >>"$requirements"
if [ "${1:-}" = --list ]; then
  cat "$requirements" "$constraint"
  exit
fi

python3 -m pip install --upgrade pip
export PIP_CONSTRAINT=$constraint
python3 -m pip install -r "$requirements" pycuda
python3 -m pip install --no-deps supervision
python3 -m pip install --no-deps .
rm -f "$requirements" "$constraint"
