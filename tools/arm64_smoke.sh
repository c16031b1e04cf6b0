#!/usr/bin/env bash
# Resolve what a Jetson installs for 64-bit Arm, and compare the boxes of the detector, emulated, with those of this machine.
#
# usage: tools/arm64_smoke.sh WORKDIR        (Debian or Ubuntu on x86-64; about 150 MB of downloads the first time)
#
# Nothing is installed: Debian's arm64 CPython, the aarch64 wheels from the package registry and a qemu that is new
# enough for ONNX Runtime are unpacked into WORKDIR. No container, no binfmt_misc, no root.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?usage: arm64_smoke.sh WORKDIR}" && cd "$1"
work=$PWD
packages="libc6 libgcc-s1 libstdc++6 python3.11-minimal python3.11 libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1
  libbz2-1.0 liblzma5 libffi8 libssl3 libuuid1 libsqlite3-0 libreadline8 libncursesw6 libtinfo6 libcrypt1 libgomp1"
wheels="numpy onnxruntime opencv-python-headless av flatbuffers packaging protobuf PyYAML msgspec typing_extensions"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -1)

resolve() { # resolve PYTHON GLIBC: print what pip would install on a board, without installing it
  # shellcheck disable=SC2046,SC2086
  python3 -m pip install -q --dry-run --ignore-installed --report "$work/$1.json" --only-binary=:all: --target "$work/nowhere" \
    --implementation cp --python-version "$1" $(printf -- '--platform manylinux_2_%s_aarch64 ' $(seq "$2" -1 17)) \
    --platform manylinux2014_aarch64 -r "$work/jetson.txt"
  python3 -c 'import json, sys
found = {each["metadata"]["name"]: each["metadata"]["version"] for each in json.load(open(sys.argv[1]))["install"]}
shown = ("numpy", "av", "onnxruntime", "lap", "pyzmq", "msgspec", "pydantic", "onnx", "scipy")
print(f"Python {sys.argv[2]}: {len(found)} packages:", ", ".join(f"{name} {found[name]}" for name in shown))' "$work/$1.json" "$1"
}

fetch() { # fetch FOLDER ARCHITECTURE SUITE PACKAGE...: download packages of another architecture or suite
  local folder=$work/$1 architecture=$2 suite=$3 options
  shift 3
  mkdir -p "$folder"/{lists/partial,cache/archives/partial,debs}
  echo "deb [trusted=yes] $mirror $suite main" >"$folder/sources.list"
  options="-oAPT::Architecture=$architecture -oAPT::Architectures=$architecture -oDebug::NoLocking=1
    -oDir::Etc::SourceList=$folder/sources.list -oDir::Etc::SourceParts=/dev/null
    -oDir::State::Lists=$folder/lists -oDir::Cache=$folder/cache"
  # shellcheck disable=SC2086
  (cd "$folder/debs" && apt-get $options update -qq && apt-get $options download -qq "$@")
}

(cd "$checkout" && bash tools/install_on_jetson.sh --list) >jetson.txt
resolve 3.10 35 # JetPack 6: Ubuntu 22.04
resolve 3.12 39 # JetPack 7: Ubuntu 24.04

if [ ! -x root/usr/bin/python3.11 ]; then
  # shellcheck disable=SC2086
  fetch arm64 arm64 bookworm $packages
  for package in arm64/debs/*.deb; do dpkg -x "$package" root; done
fi
if [ ! -x qemu/usr/bin/qemu-aarch64 ]; then
  fetch host "$(dpkg --print-architecture)" trixie qemu-user
  dpkg -x host/debs/qemu-user*.deb qemu
fi
if [ ! -d site/numpy ]; then
  platforms=$(printf -- '--platform manylinux_2_%s_aarch64 ' 28 27 26 17)
  # shellcheck disable=SC2086
  python3 -m pip install -q --no-deps --only-binary=:all: --implementation cp --python-version 311 \
    $platforms --platform manylinux2014_aarch64 --target site $wheels
fi

cd "$checkout"
"${PYTHON:-python3}" tools/smoke_detect.py >"$work/here.json"
"$work/qemu/usr/bin/qemu-aarch64" -L "$work/root" -E PYTHONPATH="$work/site:$checkout" -E PYTHONDONTWRITEBYTECODE=1 \
  "$work/root/usr/bin/python3.11" tools/smoke_detect.py >"$work/arm64.json"
"${PYTHON:-python3}" tools/smoke_detect.py --compare "$work/here.json" "$work/arm64.json"
