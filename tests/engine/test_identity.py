"""The name of an engine that was given none."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from engine.identity import default_engine_id


def interface(net: Path, name: str, address: str, *, is_hardware: bool = True) -> None:
    (net / name).mkdir(parents=True)
    (net / name / "address").write_text(address + "\n")
    if is_hardware:
        (net / name / "device").mkdir()


def test_the_name_is_readable_and_survives_a_restart(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", "02:00:00:00:00:01")
    names = {default_engine_id(["tcp://*:5555"], net=tmp_path) for _ in range(3)}
    assert len(names) == 1
    assert re.fullmatch(re.escape(socket.gethostname()) + "-[0-9a-f]{5}", names.pop())


def test_engines_of_one_host_differ_by_their_ports(tmp_path: Path) -> None:
    assert default_engine_id(["tcp://*:5555"], net=tmp_path) != default_engine_id(["tcp://*:5556"], net=tmp_path)


def test_equal_containers_differ_by_their_hardware_address(tmp_path: Path) -> None:
    interface(tmp_path / "a", "eth0", "02:42:ac:11:00:02", is_hardware=False)
    interface(tmp_path / "b", "eth0", "02:42:ac:11:00:03", is_hardware=False)
    one, other = (default_engine_id(["tcp://*:5555"], net=tmp_path / name) for name in "ab")
    assert one != other


def test_interfaces_that_come_and_go_change_nothing(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", "02:00:00:00:00:01")
    before = default_engine_id(["tcp://*:5555"], net=tmp_path)
    interface(tmp_path, "veth12", "aa:00:00:00:00:01", is_hardware=False)
    assert default_engine_id(["tcp://*:5555"], net=tmp_path) == before


def test_free_ports_make_a_new_name_each_time(tmp_path: Path) -> None:
    assert len({default_engine_id(["tcp://127.0.0.1:*"], net=tmp_path) for _ in range(5)}) == 5
