"""Each kind of action against its real counterpart: a broker, Apprise with an HTTP service, programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.events.actions.base import ActionRules, DeliveryError, DeliveryRefusedError, Notice
from engine.events.actions.kinds.command import CommandAction
from engine.events.actions.kinds.mqtt import MqttAction
from engine.events.actions.kinds.notify import AppriseAction
from engine.events.actions.kinds.record import RecordAction
from tests.events.hooks import hook
from tests.pipelines.stream.bridges.peers import mosquitto_command, program, running, wait_for

BODY = {"text": "intruder: person in yard", "rule": "intruder", "source_id": "gate", "severity": "alert"}
NOTICE = Notice("gate-1-intruder-1-begin", "begin", BODY)
APPRISE = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the modules that Apprise imports
HOSTILE = {**BODY, "rule": "$(touch owned); `touch owned` & --help", "source_id": "'; rm -rf /"}


def test_a_program_gets_the_message_on_its_input_and_nothing_in_its_arguments(tmp_path: Path) -> None:
    code = "import sys, json, os; json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ)], open('out', 'w'))"
    action = CommandAction([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}", "fixed argument"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMERA_PASSWORD", "secret")
        action.send(Notice("key", "begin", HOSTILE, picture_path="/a.jpg"))
    arguments, body, environment = json.loads((tmp_path / "out").read_text())
    assert arguments == ["fixed argument"]
    assert body == {**HOSTILE, "key": "key", "picture_path": "/a.jpg"}
    assert "CAMERA_PASSWORD" not in environment
    assert "PATH" in environment
    assert not (tmp_path / "owned").exists()


def test_a_program_that_fails_or_hangs_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="ended with status 3"):
        CommandAction([sys.executable, "-c", "raise SystemExit(3)"]).send(NOTICE)
    child = tmp_path / "child"
    begin = (
        f"import subprocess, time; p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid))"
    )
    code = f"{begin}; time.sleep(60)"
    with pytest.raises(DeliveryError, match="did not end within"):
        CommandAction([sys.executable, "-c", code], timeout_s=1.5).send(NOTICE)
    if child.exists():  # on a very busy machine it was killed before it began
        state = Path(f"/proc/{child.read_text()}/stat")
        wait_for(lambda: not state.exists() or state.read_text().split()[2] == "Z", 60.0)


def test_a_program_need_not_read_its_input() -> None:
    body = {**BODY, "why": ["x" * 1_000_000]}
    CommandAction(["true"]).send(Notice("key", "begin", body))


@pytest.mark.parametrize("arguments", [[], ["/no/such/program"], ["no-such-program-here"]])
def test_a_program_that_is_not_there_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="there is no such program"):
        CommandAction(arguments)


@APPRISE
def test_apprise_tells_a_real_service() -> None:
    pytest.importorskip("apprise", reason="pip install apprise")
    with hook() as server:
        address = server.url.replace("http://", "json://")
        AppriseAction([address]).send(NOTICE)
        server.answers = [500]
        with pytest.raises(DeliveryError):
            AppriseAction([address]).send(NOTICE)
    [(_, body), _] = server.requests
    told = json.loads(body)
    assert told["message"] == NOTICE.text
    assert told["title"] == "intruder (gate)"
    assert told["type"] == "failure"


@APPRISE
def test_apprise_refuses_what_it_does_not_know_and_tells_no_secret() -> None:
    pytest.importorskip("apprise", reason="pip install apprise")
    with pytest.raises(ConfigError, match=r"url 1 \(nonsense\)") as caught:
        AppriseAction(["nonsense://token-of-me"])
    assert "token-of-me" not in str(caught.value)


def test_a_broker_gets_message_and_picture(tmp_path: Path, free_port: int) -> None:
    pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")
    sub = [program("mosquitto_sub", "mosquitto-clients"), "-p", str(free_port), "-t", "alarm/#", "-F", "%t %x"]
    with running(mosquitto_command(tmp_path, free_port), free_port):
        action = MqttAction("127.0.0.1", "alarm/gate", port=free_port, retain=True)
        action.send(Notice("key", "begin", BODY, b"\xff\xd8picture"))
        action.send(Notice("key 2", "end", BODY))
        action.close()
        heard = subprocess.run([*sub, "-W", "1"], capture_output=True, text=True, check=False).stdout.splitlines()
    found = {topic: bytes.fromhex(payload) for topic, payload in (line.split(" ") for line in heard)}
    assert found["alarm/gate/picture"] == b"\xff\xd8picture"
    assert json.loads(found["alarm/gate"]) == {**BODY, "key": "key 2"}


def test_a_broker_that_was_away_is_found_again(tmp_path: Path, free_port: int) -> None:
    pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")
    action = MqttAction("127.0.0.1", "alarm", port=free_port, timeout_s=10)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        action.send(NOTICE)
    for _ in range(2):
        with running(mosquitto_command(tmp_path, free_port), free_port):
            action.send(NOTICE)
    action.close()


def test_a_broker_that_refuses_the_user_is_not_asked_for_ever(tmp_path: Path, free_port: int) -> None:
    pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")
    passwords = tmp_path / "passwords"
    subprocess.run([program("mosquitto_passwd", "mosquitto"), "-b", "-c", str(passwords), "ann", "right"], check=True)
    with running(mosquitto_command(tmp_path, free_port, password_file=passwords), free_port):
        wrong = MqttAction("127.0.0.1", "alarm", port=free_port, username="ann", password="wrong")
        with pytest.raises(DeliveryRefusedError, match="refuses"):
            wrong.send(NOTICE)
        wrong.close()


def test_record_holds_the_source_of_the_event() -> None:
    held: list[tuple[str, float]] = []
    RecordAction(lambda *given: held.append(given), 30).send(NOTICE)
    assert held == [("gate", 30)]


@pytest.mark.parametrize("bad", [{"cooldown_s": -1}, {"per_hour": 0}, {"expire_s": 0}])
def test_rules_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ActionRules(**bad)
