"""Keys are made with safe modes, read back, and never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import zmq.auth

from engine.errors import ConfigError
from engine.transport.keys import KeyPair, load_key_pair, load_public_key, load_public_keys, make_keys


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_with_safe_modes_and_read_back(tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path / "keys", "gate")
    assert (public.name, secret.name) == ("gate.key", "gate.key_secret")
    assert mode_of(secret) == 0o600
    assert mode_of(public) == 0o644
    assert mode_of(tmp_path / "keys") == 0o700
    pair = load_key_pair(secret)
    assert pair.public == load_public_key(public) == load_public_key(pair.public)
    assert "secret-key" not in public.read_text()


def test_the_files_are_those_of_other_zeromq_tools(tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path, "gate")
    pair = load_key_pair(secret)
    assert zmq.auth.load_certificate(secret) == (pair.public.encode(), pair.secret.encode())
    assert zmq.auth.load_certificate(public)[0] == pair.public.encode()
    theirs, theirs_secret = zmq.auth.create_certificates(tmp_path, "theirs")
    Path(theirs_secret).chmod(0o600)
    assert load_key_pair(theirs_secret).public == load_public_key(theirs)


def test_a_secret_never_appears_in_a_representation() -> None:
    assert "s" * 40 not in repr(KeyPair("p" * 40, "s" * 40))


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    _, secret = make_keys(tmp_path, "gate")
    before = secret.read_bytes()
    with pytest.raises(ConfigError, match="already exists"):
        make_keys(tmp_path, "gate")
    assert secret.read_bytes() == before


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    _, secret = make_keys(tmp_path, "gate")
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key_pair(secret)


@pytest.mark.parametrize("name", ["", "../gate", "a/b", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="key name"):
        make_keys(tmp_path, name)


def test_a_missing_or_wrong_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    public, _ = make_keys(tmp_path, "gate")
    with pytest.raises(ConfigError, match="framewire keys"):
        load_key_pair(tmp_path / "missing.key_secret")
    with pytest.raises(ConfigError, match="has no secret key"):
        load_key_pair(public)
    (tmp_path / "empty.key").write_text("")
    with pytest.raises(ConfigError, match="has no public key"):
        load_public_key(tmp_path / "empty.key")


def test_an_allow_list_is_read_from_files_folders_and_keys(tmp_path: Path) -> None:
    first, _ = make_keys(tmp_path / "clients", "one")
    second, _ = make_keys(tmp_path / "clients", "two")
    third, _ = make_keys(tmp_path, "three")
    expected = {load_public_key(path) for path in (first, second, third)} | {"k" * 40}
    assert load_public_keys([tmp_path / "clients", third, "k" * 40]) == expected
