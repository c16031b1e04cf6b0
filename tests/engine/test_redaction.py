"""Text that leaves the process: no secret that was parsed anywhere, no command to a terminal, in linear time."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable

import pytest

from engine import redaction
from engine.data import Run, SourceInfo, SourceStatus
from engine.errors import ConfigError, SourceError
from engine.redaction import (
    hide,
    hide_address,
    hide_setting,
    keep_readable,
    printable,
    public_address,
    redact,
    redact_tree,
)
from engine.sinks.video_push.pusher import push_address
from engine.sources.open import open_source
from engine.transport.post import Poster
from engine.video.network import record_address, video_address_from_uri
from engine.video.options import SourceOptions
from engine.video.uri import name_from_uri
from engine.wire import encode, status_message
from pipelines.build.actions import _broker

SECRET = "S3CRETvalue-0123456789"
FORMS = [
    pytest.param(f"rtsp://admin:{SECRET}@127.0.0.1:9/1", id="user and password"),
    pytest.param(f"rtsp://:{SECRET}@127.0.0.1:9/1", id="password alone"),
    pytest.param(f"rtsp://admin:{SECRET}#tail@127.0.0.1:9/1", id="raw hash"),
    pytest.param(f"rtsp://admin:{SECRET}/tail@127.0.0.1:9/1", id="raw slash"),
    pytest.param(f"rtsp://admin:{SECRET}?tail@127.0.0.1:9/1", id="raw question mark"),
    pytest.param(f"rtsp://admin:head@{SECRET}@127.0.0.1:9/1", id="raw at sign"),
    pytest.param(f"rtsp://admin:a {SECRET}@127.0.0.1:9/1", id="space"),
    pytest.param(f"rtsp://admin:head\n{SECRET}@127.0.0.1:9/1", id="line end"),
    pytest.param(f"srt://127.0.0.1:9?mode=caller&passphrase={SECRET}", id="SRT passphrase"),
    pytest.param(f"http://127.0.0.1:9/videostream.cgi?loginuse=a&loginpas={SECRET}", id="loginpas"),
    pytest.param(f"http://127.0.0.1:9/live.m3u8?access_token={SECRET}", id="access token"),
    pytest.param(f"http://127.0.0.1:9/mjpg?u=admin&p={SECRET}", id="one letter"),
    pytest.param(f"http://127.0.0.1:9/mjpg;jsessionid={SECRET}", id="path parameter"),
    pytest.param(f"rtsp://127.0.0.1:9/user=admin_password={SECRET}_channel=1_stream=0.sdp", id="password in the path"),
    pytest.param(f"rtsp://127.0.0.1:9/user=admin&password={SECRET}&channel=1", id="query without a mark"),
    pytest.param(f"rtmp://127.0.0.1:9/live/{SECRET}", id="RTMP key"),
    pytest.param(f"https://hooks.example/services/T0/{SECRET}", id="web hook key"),
    pytest.param(f"mqtt://u:{SECRET}@127.0.0.1:9", id="MQTT"),
    pytest.param(f"redis://:{SECRET}@127.0.0.1:9/0", id="Redis"),
]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_values", redaction._Values())


@pytest.mark.parametrize("address", FORMS)
def test_no_form_of_an_address_shows_its_secret(address: str) -> None:
    assert SECRET not in public_address(address)
    for text in (address, f"cannot open {address!r}: no", f"it said {SECRET} to me", json.dumps({"uri": address})):
        assert SECRET not in redact(text), text


def test_a_key_in_the_path_of_an_rtsp_address_is_secret_and_its_words_are_not() -> None:
    """UniFi Protect gives the stream to anyone who knows its path."""
    assert public_address("rtsps://10.0.0.1:7441/fJ6kQ2nR8sXw3bTz?enableSrtp") == "rtsps://10.0.0.1:7441/***"
    for path in ("Streaming/Channels/101", "h264Preview_01_main", "cam/realmonitor", "MediaInput/h265/stream_1"):
        assert public_address(f"rtsp://10.0.0.1/{path}") == f"rtsp://10.0.0.1/{path}"


AMBIGUOUS = "me:p@sswordA/wordB#C?D@127.0.0.1:9/live"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda: open_source(f"rtsp://{AMBIGUOUS}"), id="camera"),
        pytest.param(lambda: open_source(f"http://{AMBIGUOUS}.mjpg"), id="HTTP camera"),
        pytest.param(lambda: record_address(f"rtsp://{AMBIGUOUS}", SourceOptions()), id="recording"),
        pytest.param(lambda: push_address(f"rtmp://{AMBIGUOUS}", "rtmp", SourceOptions()), id="pushed video"),
        pytest.param(lambda: Poster(f"http://{AMBIGUOUS}"), id="webhook"),
        pytest.param(lambda: _broker(f"mqtt://{AMBIGUOUS}"), id="broker"),
    ],
)
def test_no_part_of_a_password_is_taken_for_a_host(use: Callable[[], object]) -> None:
    """It was looked up as a host name, and became the name of the source."""
    with pytest.raises((SourceError, ConfigError), match="%2F") as failure:
        use()
    assert "sswordA" not in redact(str(failure.value))
    assert "sswordA" not in name_from_uri(f"rtsp://{AMBIGUOUS}")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"admin:{SECRET}@10.0.0.7:9464", id="HOST:PORT with a login"),
        pytest.param(f"host=db port=9 password={SECRET} user=u", id="PostgreSQL's other form"),
        pytest.param(f"events.store=host=db password='{SECRET}'", id="as a setting"),
        pytest.param(f"gate=admin:{SECRET}@10.0.0.7", id="a named source without a scheme"),
    ],
)
def test_no_form_without_a_scheme_shows_its_secret(text: str) -> None:
    hide_address(text)
    assert SECRET not in redact(f"{text!r}: expected HOST:PORT")


@pytest.mark.parametrize("address", FORMS)
def test_what_is_published_has_neither_user_nor_query(address: str) -> None:
    shown = public_address(address)
    assert "admin" not in shown
    assert "?" not in shown
    status = SourceStatus(SourceInfo("cam", address, is_live=True), "offline", f"refused: {address} and {SECRET}")
    body = encode(status_message(status, Run("e", 1), seq=0, published_utc_ns=1)).decode()
    assert SECRET not in body
    assert "admin" not in body


@pytest.mark.parametrize("address", FORMS)
def test_errors_of_parsers_show_no_part_of_a_password(address: str) -> None:
    for use in (lambda: video_address_from_uri(address, SourceOptions()), lambda: open_source(address)):
        assert "S3CRET" not in redact(_failure(use))


def _failure(act: Callable[[], object]) -> str:
    try:
        act()
    except SourceError as error:
        return str(error)
    return ""


def test_a_secret_is_found_encoded_decoded_quoted_and_as_basic_credentials() -> None:
    hide_address('rtsp://admin:pa%20ss"w\\d@host/1')
    for form in ('pa%20ss"w\\d', 'pa ss"w\\d', "pa%20ss%22w%5Cd", 'pa ss\\"w\\\\d', repr('pa ss"w\\d')):
        assert "***" in redact(f"x {form} y"), form
    assert redact(base64.b64encode(b'admin:pa ss"w\\d').decode()) == "***"


def test_settings_hide_by_their_names_and_headers_by_their_parts() -> None:
    hide_setting("headers", "Authorization: Bearer abc.def.ghi\r\nX: y")
    hide_setting("CAMERA_PASSWORD", "kept out")
    hide_setting("folder", "recordings")
    assert redact("Bearer abc.def.ghi, kept out, recordings") == "***, ***, recordings"


def test_trees_are_redacted_with_their_keys() -> None:
    hide("hunter2!")
    assert redact_tree({"a hunter2!": ["x hunter2!", 3, None, {"y": "hunter2!"}]}) == {
        "a ***": ["x ***", 3, None, {"y": "***"}]
    }


def test_log_records_keep_words_that_only_look_like_a_short_password() -> None:
    hide_address("rtsp://admin:12@10.0.0.7:554/live?channel=1&subtype=0")
    assert redact("frame 12 of channel 1 at 10.0.0.7:554 is live") == "frame 12 of channel 1 at 10.0.0.7:554 is live"


def test_a_flood_of_addresses_does_not_push_the_first_secrets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MAX_VALUES", 50)
    hide(SECRET)
    for number in range(200):
        hide(f"filler-{number}")
    assert redact(SECRET) == "***"


def _cost(act: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        act()
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "://",
        "a://",
        "a://b:c@",
        "?key=1&",
        "user=a_password=b_",
        "x:/",
        " ",
        "a:b@c://",
        "rtsp://a?token=",
        "@",
        "/@",
    ],
)
def test_redaction_takes_time_linear_in_the_text(unit: str) -> None:
    hide(*(f"secret-{number}" for number in range(50)))
    small, large = 20_000, 160_000
    texts = {size: ("rtsp://" + unit * size)[:size] for size in (small, large)}
    base = max(_cost(lambda: redact(texts[small])), 1e-3)
    assert _cost(lambda: redact(texts[large])) < 4 * (large / small) * base


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("gate", "gate", id="plain"),
        pytest.param("caf\u00e9 \u5165\u53e3", "caf\u00e9 \u5165\u53e3", id="other scripts"),
        pytest.param("a\x1b[2Jb", "a\\x1b[2Jb", id="escape"),
        pytest.param("a\x9b2Jb\x07", "a\\x9b2Jb\\x07", id="C1 and bell"),
        pytest.param("a\u202egnp.exe", "a\\u202egnp.exe", id="direction"),
        pytest.param("a\rb\tc\nd", "a\\rb\tc\nd", id="carriage return"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
    ],
)
def test_printable_text_cannot_command_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_secret_of_a_camera_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(f"rtsp://admin:{SECRET}@127.0.0.1:9/1", reconnect=False, reader="thread")
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as failed:
        next(iter(source))
    assert SECRET not in caplog.text
    assert SECRET not in str(failed.value)
    assert SECRET not in source.info.uri


def test_names_stay_readable_where_a_secret_is_the_same_word() -> None:
    hide_address("http://127.0.0.1:1984/api/stream.mp4?src=gate")  # as go2rtc names its streams
    hide_address("rtsp://admin:admin@127.0.0.1/1")
    assert redact("gate: live") == "***: live"
    keep_readable("gate", "/home/admin/log")
    assert redact("/home/admin/log/clips/gate/2026/gate-1.mp4") == "/home/admin/log/clips/gate/2026/gate-1.mp4"
    assert redact_tree({"sources": {"gate": {"uri": "rtsp://admin:admin@127.0.0.1/1"}}}) == {
        "sources": {"gate": {"uri": "rtsp://***:***@127.0.0.1/1"}}
    }
    assert redact("refused: admin; gateway") == "refused: ***; ***way"


def test_a_source_named_like_a_part_of_its_address_keeps_its_name() -> None:
    open_source("rtsp://admin:gate-7@127.0.0.1/1", source_id="gate-7")
    assert redact("gate-7: rtsp://admin:gate-7@127.0.0.1/1") == "gate-7: rtsp://admin:***@127.0.0.1/1"
