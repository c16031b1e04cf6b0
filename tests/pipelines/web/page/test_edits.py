"""Edits of the page survive the run: a real engine is ended and started again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.web.access import Accounts
from tests.pipelines.web.page.site import COMMAND, SCENE, Site
from tests.test_layout import CHECKOUT

ZONE = {"points": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]], "classes": None}
LINE = {"points": [[0.5, 0.0], [0.5, 1.0]], "left_to_right": "in", "right_to_left": "out"}
RULE = {"name": "busy", "kind": "presence", "zone": "middle", "for_s": 0.5, "severity": "alert"}


def write_config(path: Path, **changes: object) -> None:
    source = {"uri": SCENE, "source_id": "cam", "zones": {"old": {"points": ZONE["points"]}}}
    path.write_text(yaml.safe_dump({"sources": [{**source, **changes}]}))


def check(path: Path) -> str:
    command = [*COMMAND, "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    return done.stdout + done.stderr


def test_places_and_rules_survive_a_restart_until_the_configuration_is_changed(tmp_path: Path) -> None:
    config, users = tmp_path / "gate.yaml", tmp_path / "users.sqlite"
    write_config(config)
    accounts = Accounts(users)
    token = accounts.add_token("anna", "operator")
    admin = accounts.add_token("boss", "admin")
    viewer = {"Authorization": f"Bearer {accounts.add_token('vera', 'viewer')}"}
    accounts.close()
    arguments = [str(config), "--set", f"web.users={users}"]
    with Site(*arguments, sources={}, token=token) as site:
        before = site.get("sources/cam/places")[1]
        assert (list(before["zones"]), before["kept"]["file"]) == (["old"], "gate.edits.json")
        edit = {"zones": {"middle": ZONE}, "lines": {"door": LINE}}
        assert site.ask("PUT", "/api/v1/sources/cam/places", edit, viewer)[0] == 403
        status, headers, after = site.ask("PUT", "/api/v1/sources/cam/places", edit)
        assert (status, after["kept"]) == (200, {"file": "gate.edits.json", "problem": ""})
        status, headers, rules = site.ask("GET", "/api/v1/rules")
        assert (status, rules["rules"]) == (200, [])
        match = {"If-Match": headers["etag"]}
        assert site.ask("PUT", "/api/v1/rules", {"rules": [RULE]}, viewer)[0] == 403
        status, _, rules = site.ask("PUT", "/api/v1/rules", {"rules": [RULE]}, match)
        assert (status, rules["kept"]["problem"], rules["rules"]) == (200, "", [RULE])
        assert site.ask("PUT", "/api/v1/rules", {"rules": []}, match)[0] == 409
        assert os.stat(tmp_path / "gate.edits.json").st_mode & 0o077 == 0
    with Site(*arguments, sources={}, token=token) as site:
        again = site.get("sources/cam/places")[1]
        assert (again["version"], list(again["lines"])) == (after["version"], ["door"])
        assert site.get("rules")[1]["rules"] == [RULE]
        assert any("as edited on the page by anna" in line for line in site.log)
        assert site.get("audit")[0] == 403
        audit = site.ask("GET", "/api/v1/audit", headers={"Authorization": f"Bearer {admin}"})[2]["entries"]
        assert [(entry["name"], entry["action"]) for entry in audit] == [("anna", "rules"), ("anna", "places")]
        assert audit[1]["detail"]["lines"]["door"]["points"] == LINE["points"]
    told = check(config)
    assert "zones and lines of cam as edited on the page by anna" in told
    assert "rules as edited on the page by anna" in told
    write_config(config, zones={"new": {"points": ZONE["points"]}})
    told = check(config)
    assert "the configuration was changed after anna edited them" in told
    assert "those in gate.edits.json no longer work" in told  # their zone is gone with the edit
    assert "is valid" in told


def test_a_damaged_file_is_named_and_not_overwritten(tmp_path: Path) -> None:
    config, edits = tmp_path / "gate.yaml", tmp_path / "gate.edits.json"
    write_config(config)
    edits.write_text('{"version": 1, "places": {"cam"')
    told = check(config)
    assert "gate.edits.json" in told
    assert "is damaged" in told
    assert "is valid" not in told


def test_what_cannot_be_kept_is_said_and_counts_until_the_end(tmp_path: Path) -> None:
    missing = tmp_path / "file" / "edits.json"
    with Site("--set", f"control.edits={missing}", sources={"cam": SCENE}) as site:
        (tmp_path / "file").write_text("no folder")
        status, _, body = site.ask("PUT", "/api/v1/sources/cam/places", {"zones": {"middle": ZONE}})
        assert (status, "control.edits" in body["kept"]["problem"]) == (200, True)
        assert list(site.get("sources/cam/places")[1]["zones"]) == ["middle"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"zone": "nowhere"}, "nowhere"),
        ({"for_s": -1}, "for_s"),
        ({"kind": "os:system"}, "custom rules"),
        ({"at_least": 2}, "at_least does not apply"),
        ({"uri": "rtsp://evil.example"}, "uri"),
        ({"actions": ["nobody"]}, "nobody"),
        ({"name": "${HOME}"}, "${NAME}"),
        ({"schedule": {"days": ["someday"]}}, "someday"),
    ],
    ids=str,
)
def test_rules_that_cannot_work_are_refused_with_a_reason(site: Site, change: dict[str, object], key: str) -> None:
    site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {"middle": ZONE}})
    try:
        status, _, body = site.ask("PUT", "/api/v1/rules", {"rules": [{**RULE, **change}]})
        assert (status, key in body["error"]) == (422, True), body
        assert site.get("rules")[1]["rules"] == []
    finally:
        site.ask("PUT", "/api/v1/sources/yard/places", {})


def test_a_rule_is_disabled_and_enabled_while_running(site: Site) -> None:
    site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {"middle": ZONE}})
    try:
        assert site.ask("PUT", "/api/v1/rules", {"rules": [{**RULE, "enabled": False}]})[0] == 200
        assert site.get("rules")[1]["rules"] == [{**RULE, "enabled": False}]
        edit = {"zones": {"middle": ZONE}, "lines": {"l": LINE}}
        assert site.ask("PUT", "/api/v1/sources/yard/places", edit)[0] == 200  # also while there are rules
        assert site.ask("PUT", "/api/v1/rules", {"rules": [RULE]})[0] == 200
    finally:
        assert site.ask("PUT", "/api/v1/rules", {"rules": []})[0] == 200
        site.ask("PUT", "/api/v1/sources/yard/places", {})


def test_the_form_of_each_kind_comes_from_the_configuration(site: Site) -> None:
    kinds = site.get("rules")[1]["kinds"]
    assert kinds["count"]["required"] == ["zone"]
    assert kinds["count"]["properties"]["at_least"]["minimum"] == 1
    assert kinds["direction"]["properties"]["tolerance_deg"]["default"] == 45.0
    text = json.dumps(kinds)
    assert "null" not in {each["type"] for kind in kinds.values() for each in kind["properties"].values()}
    assert len(text) < 20_000


def test_places_of_a_run_with_workers_are_kept_too(tmp_path: Path) -> None:
    config = tmp_path / "gate.yaml"
    sources = [{"uri": SCENE, "source_id": name} for name in ("cam", "yard")]
    config.write_text(yaml.safe_dump({"sources": sources, "pipeline": {"workers": 2}}))
    with Site(str(config), sources={}) as site:
        status, _, body = site.ask("PUT", "/api/v1/sources/yard/places", {"zones": {"middle": ZONE}})
        assert (status, body["kept"]) == (200, {"file": "gate.edits.json", "problem": ""})
        assert site.get("rules")[1]["rules"] == []
        status, _, body = site.ask("PUT", "/api/v1/rules", {"rules": [RULE]})
        assert (status, "pipeline.workers" in body["error"]) == (422, True)
        assert not site.get("recordings/cam?from=0&to=1")[1]["is_recorded"]
    assert "zones and lines of yard as edited on the page by local" in check(config)
