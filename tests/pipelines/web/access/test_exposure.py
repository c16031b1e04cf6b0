from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from engine.errors import ConfigError
from pipelines.web.access import Exposure, Gate, GateRules, Listen, TlsFiles, check_exposure, make_certificate
from pipelines.web.access.listen import networks_of
from tests.web_server import ask, echo, running

pytest.importorskip("cryptography", reason='needs the extra "web": pip install "framewire[web]"')


@pytest.mark.parametrize("text", ["8000", "127.0.0.1", "::1:8000", "127.0.0.1:70000", "a/b:80", "u@h:80", ":80"])
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        Listen.parse(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gate.lan"])
def test_other_machines_need_tls_and_a_login(host: str, tmp_path: Path) -> None:
    listen, tls = Listen(host, 8000), TlsFiles(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ConfigError, match="TLS .* and a token"):
        check_exposure(Exposure(listen))
    with pytest.raises(ConfigError, match="give a token"):
        check_exposure(Exposure(listen, tls=tls))
    with pytest.raises(ConfigError, match="give TLS"):
        check_exposure(Exposure(listen, has_login=True))
    check_exposure(Exposure(listen, tls=tls, has_login=True))
    check_exposure(Exposure(listen, proxies=networks_of(["192.0.2.9"], "proxy")))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.53"])
def test_loopback_needs_nothing(host: str) -> None:
    check_exposure(Exposure(Listen(host, 8000)))


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "proxy.lan", "10.0.0.0/33"])
def test_a_proxy_is_named_by_its_own_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"proxy|expected"):
        networks_of([text], "proxy")


def test_behind_a_proxy_the_client_is_whom_the_proxy_names() -> None:
    exposure = Exposure(Listen("0.0.0.0", 0), proxies=networks_of(["127.0.0.0/8"], "proxy"))
    with running(Gate(echo, GateRules(exposure))) as port:
        assert ask(port, headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"})[2]["client"] == "192.0.2.7"


def test_where_a_proxy_does_the_login_nobody_else_may_connect() -> None:
    exposure = Exposure(Listen("0.0.0.0", 0), proxies=networks_of(["192.0.2.9"], "proxy"))
    gate = Gate(echo, GateRules(exposure))
    assert not gate._is_expected("192.0.2.10")
    assert gate._is_expected("192.0.2.9")


def test_a_certificate_is_used_and_replaced_while_it_runs(tmp_path: Path) -> None:
    files = make_certificate("localhost", tmp_path)
    assert files.key.stat().st_mode & 0o077 == 0
    trust = ssl.create_default_context(cafile=str(files.certificate))
    trust.check_hostname = False
    with running(Gate(echo, GateRules(Exposure(Listen("127.0.0.1", 0)))), tls=files) as port:
        assert ask(port, context=trust)[0] == 200
        assert not files.refresh()
        other = make_certificate("localhost", tmp_path / "other")
        other.key.replace(files.key)
        assert not files.refresh()  # half of it
        assert ask(port, context=trust)[0] == 200
        other.certificate.replace(files.certificate)
        assert files.refresh()
        with pytest.raises(ssl.SSLError):
            ask(port, context=trust)


def test_files_that_are_no_certificate_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="expected a PEM certificate"):
        TlsFiles.parse(f"{tmp_path}/a.pem").context()
    with pytest.raises(ConfigError, match="No such file"):
        TlsFiles.parse(f"{tmp_path}/b.pem,{tmp_path}/c.pem").context()


@pytest.mark.parametrize("host", ["../up", "", "a b", ".hidden"])
def test_a_certificate_is_not_written_elsewhere(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        make_certificate(host, tmp_path)
