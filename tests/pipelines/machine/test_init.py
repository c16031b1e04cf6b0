"""`framewire init`: what it writes passes the check, holds no password, and does what Frigate's configuration did."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.config.models import Config
from pipelines.machine.from_frigate import new_from_frigate
from pipelines.machine.new_config import NewConfig, config_text, flow, scalar

FRIGATE = Path(__file__).with_name("frigate.yml")


def written(folder: Path, *words: str, text: str = "") -> tuple[str, Path]:
    """Run `framewire init` and return its output and the file."""
    file = folder / "cameras.yaml"
    done = CliRunner().invoke(app, ["init", "--out", str(file), *words], input=text)
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    return done.output, file


def with_secrets(file: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Load a configuration with the passwords from the file beside it."""
    env = file.with_suffix(".env")
    for line in env.read_text().splitlines() if env.exists() else ():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    return load_config(str(file), {})


def test_the_file_is_valid_commented_and_the_password_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = ["--source", "gate=rtsp://admin:orchid%2F9@192.0.2.1/sub", "--source", "rtsp://192.0.2.2/x#y"]
    output, file = written(tmp_path, *cameras, "--classes", "person, car", "--metrics", "127.0.0.1:9464")
    text = file.read_text()
    assert "orchid" not in text + output
    assert "# zones:" in text
    env = tmp_path / "cameras.env"
    assert env.read_text() == "GATE_PASSWORD=orchid%2F9\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    config = with_secrets(file, monkeypatch)
    assert [source.source_id for source in config.sources] == ["gate", "192_0_2_2"]
    assert config.sources[0].uri == "rtsp://admin:orchid%2F9@192.0.2.1/sub"
    assert config.detector.classes == ["person", "car"]
    assert config.metrics.address == "127.0.0.1:9464"
    checked = CliRunner().invoke(app, ["check", str(file)])
    assert checked.exit_code == 0, checked.output


def test_every_commented_line_is_valid_too(tmp_path: Path) -> None:
    """People uncomment them, and must not get an error."""
    new = NewConfig()
    new.add("gate", "rtsp://192.0.2.1/sub")
    lines = []
    for line in config_text(new, 1).splitlines():
        head, mark, rest = line.partition("# ")
        lines.append(head + rest if mark and not head.strip() and rest.split(":")[0] in ROOT_KEYS else line)
    file = tmp_path / "run.yaml"
    file.write_text("\n".join(lines))
    config = load_config(str(file), {})
    assert config.rules[0].name == "intruder"
    assert config.sources[0].record is not None
    assert set(config.sources[0].zones) == {"yard"}


ROOT_KEYS = ("zones", "record", "classes", "rules", "publish", "metrics")


def test_nothing_is_replaced_unless_forced(tmp_path: Path) -> None:
    written(tmp_path, "--source", "0")
    done = CliRunner().invoke(app, ["init", "--out", str(tmp_path / "cameras.yaml"), "--source", "1"])
    assert isinstance(done.exception, ConfigError)
    written(tmp_path, "--source", "1", "--force")


def test_without_a_camera_it_says_how_to_give_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--out", str(tmp_path / "x.yaml")])
    assert isinstance(done.exception, ConfigError)
    assert "--discover" in str(done.exception)


def test_frigate_cameras_zones_masks_and_filters_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRIGATE_RTSP_PASSWORD", "tulip-33")
    output, file = written(tmp_path, "--from-frigate", str(FRIGATE))
    config = with_secrets(file, monkeypatch)
    front, back = config.sources
    assert (front.source_id, back.source_id) == ("front", "back_door")
    assert front.uri == "rtsp://admin:tulip-33@192.0.2.10:554/sub"
    assert front.record is not None
    assert front.record.uri == "rtsp://admin:tulip-33@192.0.2.10:554/main"
    assert front.zones["yard"].points == [(0, 1), (0.5, 0.5), (1, 1)]
    assert front.zones["yard"].classes == ["person"]
    assert front.ignore == [[(640, 0), (1280, 0), (1280, 360)]]
    assert (front.score_threshold, front.classes, front.detect_hz) == (0.6, ["person"], 5.0)
    assert back.record is not None
    assert back.record.uri is None
    assert config.detector.classes == ["person", "car"]
    assert "pa55word" not in file.read_text() + output


def test_what_could_not_be_taken_from_frigate_is_listed() -> None:
    notes = "\n".join(new_from_frigate(str(FRIGATE)).notes)
    for part in (
        "old: it is disabled",
        "birdseye",
        "zone broken",
        "loitering_time",
        "min_area",
        "motion.mask",
        "onvif",
    ):
        assert part in notes
    assert "framewire bridge" in notes
    assert "secret-1" not in notes


@pytest.mark.parametrize("text", ["", "cameras: [1]", "x: 1"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="give Frigate's"):
        new_from_frigate(str(file))


def test_cameras_without_an_input_to_detect_on_are_left_out_and_listed(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("cameras: {a: {ffmpeg: {inputs: 3}}, b: 1}\nobjects: 4")
    new = new_from_frigate(str(file))
    assert new.cameras == []
    assert "role detect" in " ".join(new.notes)


def test_values_are_written_so_that_yaml_reads_them_back() -> None:
    import yaml

    for value in ("no", "1e3", "a: b", "#x", "", "ä", {"k": [1.5, None, True, "y"]}, 'q"\\'):
        assert yaml.safe_load(flow(value)) == value
    assert scalar("gate") == "gate"
