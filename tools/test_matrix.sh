#!/usr/bin/env bash
# Install, demo, doctor and a short suite on several Pythons, with the oldest and the newest dependencies that
# pyproject.toml allows. One combination after the other, at low priority; the rows of a Markdown table are the result.
#
#   tools/test_matrix.sh                             every Python at both ends
#   tools/test_matrix.sh 3.10:oldest 3.13:newest     these combinations
#   REPORT=rows.md tools/test_matrix.sh              append the rows to a file as well
#   SUITE="tests/wire" tools/test_matrix.sh          other tests (empty: install, demo and doctor alone)
#
# An interpreter is python3.N on PATH, or one of pyenv's. A missing one is reported in its row and is not a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
renice -n 15 $$ >/dev/null

ALL="3.10:oldest 3.10:newest 3.12:oldest 3.12:newest 3.13:oldest 3.13:newest 3.14:oldest 3.14:newest"
SUITE=${SUITE-"tests/contract tests/wire tests/subscriber tests/tracking tests/imaging tests/detection/heads/test_heads.py
  tests/detection/test_letterbox.py tests/sinks/test_video.py tests/sinks/test_zmq.py tests/sources/test_file.py
  tests/pipelines/config tests/pipelines/build"}
# The tests' own tools, without those that raise the minimum of a dependency (trackers and scipy need numpy 2).
TOOLS="pytest pytest-timeout pytest-xdist hypothesis jsonschema onnx psutil"
WORK=${WORK:-.venv-matrix}
export UV_LINK_MODE=${UV_LINK_MODE:-copy}

uv() { "$WORK/uv/bin/uv" "$@"; }

interpreter_of() { # VERSION -> path of an interpreter that starts, or nothing
  local path
  for path in "$(command -v "python$1")" ~/.pyenv/versions/"$1".*/bin/python; do
    [ -x "$path" ] && "$path" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null && echo "$path" && return
  done
}

install() { # PYTHON ENDS FOLDER
  uv venv -q --clear -p "$1" "$3" || return
  local tools="$TOOLS" resolution=highest
  if [ "$2" = oldest ]; then resolution=lowest-direct; fi
  VIRTUAL_ENV=$3 uv pip install -q --only-binary :all: --no-binary wsdiscovery --no-binary framewire --resolution "$resolution" \
    -e ".[mqtt,redis,parquet,websocket,onvif]" || return
  VIRTUAL_ENV=$3 uv pip install -q $tools
}

versions_of() { # FOLDER -> numpy 2.2.6, ...
  "$1/bin/python" - <<'P'
from importlib.metadata import version
names = ("numpy", "opencv-python", "av", "onnxruntime", "openvino", "pydantic", "pyzmq", "typer", "rich", "supervision")
print(", ".join(f"{name} {version(name)}" for name in names))
P
}

demo() { # FOLDER -> how many frames the README's first command published
  "$1/bin/framewire" demo --publish none --json --set pipeline.max_frames=100 2>"$WORK/demo.err" |
    "$1/bin/python" -c 'import json, sys; d = json.load(sys.stdin)["sources"]["demo"]; print(d["published"], "of", d["captured"]); sys.exit(not d["published"])'
}

suite() { # FOLDER OPTIONS
  PATH="$PWD/$1/bin:$PATH" "$1/bin/python" -m pytest -q -o cache_dir="$PWD/$1.cache" --no-header -rfE "${@:2}" $SUITE
}

again() { # FOLDER: up to three failed tests once more, when no others run beside them (see .ci/run)
  [ "$(grep -cE "^(FAILED|ERROR) tests" "$1.log")" -le 3 ] || return 1
  until [ -z "${TESTS_ENDED:-}" ] || [ -e "$TESTS_ENDED" ]; do sleep 5; done
  suite "$1" --last-failed --last-failed-no-failures=none >>"$1.log" 2>&1
}

row() { # VERSION:ENDS -> a row of the table; fails where anything does
  local version=${1%:*} ends=${1#*:} folder="$WORK/${1/:/-}" python failed=0 shown doctor tests started=$SECONDS
  python=$(interpreter_of "$version")
  if [ -z "$python" ]; then
    echo "| $version | $ends | no such interpreter on this machine | | | | |"
    return 0
  fi
  if ! install "$python" "$ends" "$folder" >"$WORK/install.log" 2>&1; then
    echo "| $version | $ends | **cannot be installed**: $(grep -m1 -iE 'error|because' "$WORK/install.log" | tr '|' ' ') | | | | |"
    return 1
  fi
  shown=$(demo "$folder") || { failed=1; shown="**failed**: $(tail -n 1 "$WORK/demo.err")"; }
  doctor=$("$folder/bin/framewire" doctor 2>/dev/null) || failed=1
  doctor=${doctor%%$'\n'*}
  tests="not run"
  if [ -n "$SUITE" ]; then
    suite "$folder" >"$folder.log" 2>&1 || again "$folder" || failed=1
    tests=$(tail -n 1 "$folder.log")
  fi
  echo "| $("$folder/bin/python" -c 'import platform; print(platform.python_version())') | $ends | $(versions_of "$folder") | $shown | $doctor | $tests | $((SECONDS - started)) |"
  [ "$failed" = 0 ] || { grep -E "^(FAILED|ERROR)" "$folder.log" 2>/dev/null || cat "$WORK/demo.err"; } >&2
  rm -rf "$folder"
  return "$failed"
}

mkdir -p "$WORK"
[ -x "$WORK/uv/bin/uv" ] || { python3 -m venv "$WORK/uv" && "$WORK/uv/bin/pip" install -q "uv>=0.8,<1"; } || exit 1
status=0
head="| Python | versions | dependencies | demo published | doctor | short suite | seconds |"
printf '%s\n%s\n' "$head" "|---|---|---|---|---|---|---|" | tee -a "${REPORT:-/dev/null}"
for combination in ${@:-$ALL}; do
  row "$combination" >"$WORK/row" || status=1
  tee -a "${REPORT:-/dev/null}" <"$WORK/row"
done
exit $status
