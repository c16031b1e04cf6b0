"""Several engine processes that look like one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from engine.errors import ConfigError
from engine.stats import HistogramSnapshot, StatsSnapshot
from engine.stats.counters import PipelineStats
from engine.subscriber import Subscriber
from engine.wire import EosMessage, FrameMessage
from pipelines.config.file import load_config
from pipelines.config.models import Config
from pipelines.metrics.merging import merged_pages
from pipelines.running.control_client import ask
from pipelines.web.page.live import HEADER
from pipelines.workers.report import WorkerReport, decoded, encoded, merged_stats, merged_summary
from pipelines.workers.split import ONLY_ONE, check_workers, worker_configs

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0


def _config(count: int = 4, workers: int = 2, **more: Any) -> Config:
    sources = [{"uri": "synthetic://?count=20", "source_id": f"c{n}"} for n in range(1, count + 1)]
    return load_config(None, {"sources": sources, "pipeline.workers": workers, **more})


def _run(*words: str, runtime: Path, sources: int = 4, scene: str = "count=20") -> subprocess.Popen[str]:
    given = [word for n in range(1, sources + 1) for word in ("--source", f"c{n}=synthetic://?{scene}")]
    command = [sys.executable, "-m", "pipelines", "run", *given, "--model", "motion", "--json", *words]
    runtime.mkdir(mode=0o700, exist_ok=True)
    return subprocess.Popen(
        [*command, "--set", "pipeline.workers=2"],
        cwd=CHECKOUT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sources_are_dealt_out_and_each_worker_has_its_own_sockets() -> None:
    configs = worker_configs(
        _config(5, 2, **{"publish.address": "tcp://127.0.0.1:5599", "control.address": "auto"}), "/x"
    )
    assert [[source.source_id for source in each.sources] for each in configs] == [["c1", "c3", "c5"], ["c2", "c4"]]
    assert len({each.publish.address for each in configs} | {each.control.address for each in configs}) == 4
    assert [each.pipeline.workers for each in configs] == [1, 1]
    assert configs[0].pipeline.engine_id != configs[1].pipeline.engine_id
    assert len(worker_configs(_config(2, 8), "/x")) == 2


@pytest.mark.parametrize("key", sorted(ONLY_ONE))
def test_what_only_one_process_can_do_is_refused(key: str, tmp_path: Path) -> None:
    value: Any = {
        "output.show": True,
        "output.grid": True,
        "control.watch": True,
        "output.sinks": [{"type": "a.b:C"}],
    }.get(key)
    value = ["tcp://127.0.0.1:5551"] if key == "publish.connect" else value
    value = value or ("127.0.0.1:8080" if key.endswith(".address") else str(tmp_path / "x"))
    with pytest.raises(ConfigError, match=f"{key} does not work with pipeline.workers"):
        check_workers(_config(**{key: value}))
    check_workers(_config(workers=1, **{key: value}))


def test_workers_need_sources() -> None:
    with pytest.raises(ConfigError, match="no source"):
        check_workers(_config(0))


def _stats(name: str, values: range) -> StatsSnapshot:
    stats = PipelineStats()
    source = stats.source(name)
    for ms in values:
        source.add_captured()
        source.add_published(ms, 1, ms * 10**9)
        stats.model("detector").add({"infer": ms}, is_detected=True)
    source.add_dropped("age", 2)
    return stats.snapshot()


def test_figures_of_workers_are_those_of_one_engine() -> None:
    one, other, both = _stats("a", range(1, 51)), _stats("b", range(51, 101)), PipelineStats()
    for ms in range(1, 101):
        both.source("x").add_published(ms, 1, ms * 10**9)
    whole = merged_stats([one, other])
    assert whole.latency == HistogramSnapshot.merged([one.latency, other.latency])
    assert whole.latency.percentile(0.5) == both.latency.percentile(0.5)
    assert whole.models["detector"].detected == 100
    assert whole.fps == 1.0
    facts = {"backend": "opencv", "device": "cpu", "model": "m", "cpu_s": 1.0, "max_rss_mb": 10.0, "interrupted": False}
    facts["models"] = {"detector": {"model": "m", "backend": "opencv"}}
    reports = [decoded(encoded(WorkerReport(each, dict(facts), 0))) for each in (one, other)]
    summary = merged_summary(reports, ["b", "a"], 3.0, 0.5)
    assert list(summary["sources"]) == ["b", "a"]
    assert summary["sources"]["a"] == {
        "captured": 50,
        "published": 50,
        "detected": 50,
        "dropped": {"age": 2},
        "reconnects": 0,
    }
    assert (summary["cpu_s"], summary["max_rss_mb"], summary["workers"]) == (2.5, 20.0, 2)
    assert summary["models"]["detector"]["detected"] == 100


def test_a_run_with_workers_prints_one_summary_and_publishes_at_one_address(tmp_path: Path, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    seen: dict[str, int] = {}
    ended: set[str] = set()

    def read() -> None:
        with Subscriber(address, ["v1/frame/", "v1/eos/"]) as subscriber:
            while len(ended) < 4:
                message = subscriber.receive(PATIENCE_S)
                if isinstance(message, FrameMessage):
                    seen[message.source_id] = seen.get(message.source_id, 0) + 1
                elif isinstance(message, EosMessage):
                    ended.add(message.source_id)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with _run("--publish", address, runtime=tmp_path / "run", scene="count=60&fps=20&realtime=1") as run:
        out, err = run.communicate(timeout=2 * PATIENCE_S)
    reader.join(PATIENCE_S)
    assert run.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert list(summary["sources"]) == ["c1", "c2", "c3", "c4"]
    assert {row["captured"] for row in summary["sources"].values()} == {60}
    assert all(
        row["captured"] == row["published"] + sum(row["dropped"].values()) for row in summary["sources"].values()
    )
    assert summary["workers"] == 2
    assert ended == {"c1", "c2", "c3", "c4"}
    assert set(seen) == ended
    assert list((tmp_path / "run").rglob("workers-*")) == []


def test_one_control_socket_reaches_all_workers_and_ctrl_c_ends_them(tmp_path: Path) -> None:
    control = f"ipc://{tmp_path}/control"
    scene = "fps=10&realtime=1"
    with _run("--publish", "none", "--control", control, runtime=tmp_path / "run", scene=scene) as run:
        try:
            status = _status(control)
            assert set(status["sources"]) == {"c1", "c2", "c3", "c4"}
            assert status["workers"] == 2
            assert len(list((tmp_path / "run").rglob("control-*.json"))) == 1, "ctl would not know which run is meant"
            ask(control, {"command": "pause", "source_id": "c2"}, PATIENCE_S)
            ask(control, {"command": "add", "source": {"uri": f"synthetic://?{scene}", "source_id": "c5"}}, PATIENCE_S)
            ask(control, {"command": "remove", "source_id": "c1"}, PATIENCE_S)
            for unknown in ("nobody", "c1"):
                with pytest.raises(ConfigError, match=f"there is no source {unknown}; expected one of") as refused:
                    ask(control, {"command": "remove", "source_id": unknown}, PATIENCE_S)
                listed = str(refused.value).rpartition(": ")[2].split(", ")
                assert sorted(listed) == ["c2", "c3", "c4", "c5"], "the sources of one worker only"
            again = {"uri": f"synthetic://?{scene}", "source_id": "c1"}
            ask(control, {"command": "add", "source": again}, PATIENCE_S)
            assert sorted(_status(control)["configured"]) == ["c1", "c2", "c3", "c4", "c5"]
            with pytest.raises(ConfigError, match="already a source c3"):
                ask(control, {"command": "add", "source": {"uri": "synthetic://", "source_id": "c3"}}, PATIENCE_S)
            status = _status(control)
            assert status["sources"]["c2"]["paused"]
            assert "c5" in status["sources"]
        finally:
            run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=2 * PATIENCE_S)
    assert run.returncode == 130, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["interrupted"]
    assert set(summary["sources"]) == {"c1", "c2", "c3", "c4", "c5"}


def test_a_worker_that_dies_ends_the_run_with_its_name(tmp_path: Path) -> None:
    control = f"ipc://{tmp_path}/control"
    words = ("--publish", "none", "--control", control)
    with _run(*words, runtime=tmp_path / "run", sources=2, scene="fps=10&realtime=1") as run:
        _status(control)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        out, err = run.communicate(timeout=2 * PATIENCE_S)
    assert run.returncode == 1
    assert "worker 1 ended by signal 9" in err
    assert set(json.loads(out.splitlines()[-1])["sources"]) == {"c2"}


def _status(control: str) -> dict[str, Any]:
    """Return the status once both workers run."""
    for _ in range(int(PATIENCE_S)):
        try:
            status = ask(control, {"command": "status"}, PATIENCE_S)
        except ConfigError:
            status = {}
        if status.get("workers") == 2:
            return status
        threading.Event().wait(0.5)
    pytest.fail("the workers did not start")


def test_figures_on_one_page_are_sums_and_facts_are_kept_once() -> None:
    head = "# HELP framewire_{0} Text.\n# TYPE framewire_{0} {1}\n"
    first = head.format("frames_total", "counter") + 'framewire_frames_total{source="a"} 3\n'
    first += head.format("model_info", "gauge") + 'framewire_model_info{model="m"} 1\n'
    first += head.format("model_loaded", "gauge") + 'framewire_model_loaded{model="m"} 1\n'
    first += head.format("age_seconds", "histogram") + 'framewire_age_seconds_bucket{le="0.1"} 2\n'
    first += "framewire_age_seconds_sum 0.25\nframewire_age_seconds_count 4\n"
    other = first.replace('source="a"', 'source="b c"').replace('loaded{model="m"} 1', 'loaded{model="m"} 0')
    merged = merged_pages([first, other])
    assert merged.splitlines() == [
        *head.format("frames_total", "counter").splitlines(),
        'framewire_frames_total{source="a"} 3',
        'framewire_frames_total{source="b c"} 3',
        *head.format("model_info", "gauge").splitlines(),
        'framewire_model_info{model="m"} 1',
        *head.format("model_loaded", "gauge").splitlines(),
        'framewire_model_loaded{model="m"} 0',
        *head.format("age_seconds", "histogram").splitlines(),
        'framewire_age_seconds_bucket{le="0.1"} 4',
        "framewire_age_seconds_sum 0.5",
        "framewire_age_seconds_count 8",
    ]
    assert merged_pages([]) == ""


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_metrics_and_page_show_one_engine(tmp_path: Path) -> None:
    sockets = pytest.importorskip("websockets.sync.client", reason="pip install 'framewire[web]'")
    pytest.importorskip("prometheus_client", reason="pip install 'framewire[metrics]'")
    scene = "count=100000&realtime=1&width=64&height=48&fps=10"
    words = ("--publish", "none", "--metrics", "127.0.0.1:0", "--web", "127.0.0.1:0")
    run = _run(*words, runtime=tmp_path / "run", sources=2, scene=scene)
    try:
        ports: dict[str, int] = {}
        assert run.stderr is not None
        while len(ports) < 2:
            line = run.stderr.readline()
            assert line, "the run ended"
            found = re.match(r"(metrics|page) at http://127\.0\.0\.1:(\d+)", line)
            ports |= {found[1]: int(found[2])} if found else {}
        _until(lambda: _get(ports["metrics"], "/readyz")[0] == 200)
        assert json.loads(_get(ports["metrics"], "/healthz")[1])["sources"].keys() == {"c1", "c2"}
        counted = re.compile(r"^framewire_frames_published_total\{source=\"c[12]\"\} [1-9]", re.M)
        _until(lambda: len(counted.findall(_get(ports["metrics"], "/metrics")[1])) == 2)
        page = _get(ports["metrics"], "/metrics")[1]
        assert page.count("framewire_build_info{") == 1
        _until(
            lambda: (
                {each["source_id"] for each in json.loads(_get(ports["page"], "/api/v1/sources")[1] or "[]")}
                == {"c1", "c2"}
            )
        )
        wishes = {name: {"jpeg": {"fps": 10, "w": 320}} for name in ("c1", "c2")}
        pictures: set[int] = set()
        with sockets.connect(f"ws://127.0.0.1:{ports['page']}/api/v1/live", compression=None) as viewer:
            viewer.send(json.dumps({"watch": wishes}))
            while len(pictures) < 2:
                data = viewer.recv(timeout=PATIENCE_S)
                if isinstance(data, bytes):
                    pictures.add(HEADER.unpack(data[: HEADER.size])[2])
    finally:
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=PATIENCE_S)
    assert json.loads(out.splitlines()[-1])["workers"] == 2


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)


def test_workers_write_the_files_of_one_engine(tmp_path: Path) -> None:
    lines, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    run = _run("--publish", "none", "--jsonl", str(lines), "--save", str(video), runtime=tmp_path / "run", sources=2)
    out, err = run.communicate(timeout=2 * PATIENCE_S)
    assert run.returncode == 0, err
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted((row["source_id"], row["seq"]) for row in rows) == [(c, n) for c in ("c1", "c2") for n in range(20)]
    files = [tmp_path / "out_c1.mp4", tmp_path / "out_c2.mp4"]
    assert all(file.stat().st_size > 500 for file in files)
    outputs = {
        Path(each["path"]): (each["frames"], each["complete"]) for each in json.loads(out.splitlines()[-1])["outputs"]
    }
    assert outputs == {lines: (40, True), files[0]: (20, True), files[1]: (20, True)}


def test_files_that_workers_cannot_share_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mix on stdout"):
        check_workers(_config(**{"output.jsonl": "-"}))
    sources = [{"uri": "synthetic://", "source_id": name} for name in ("a;b", "a:b")]
    config = load_config(None, {"sources": sources, "pipeline.workers": 2, "output.save": str(tmp_path / "x.mp4")})
    with pytest.raises(ConfigError, match="share a file"):
        check_workers(config)
