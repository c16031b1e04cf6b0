"""Audit Framewire's dependencies: licences of all packages, known vulnerabilities, and a bill of materials.

    python tools/audit.py --licences           one line per package
    python tools/audit.py --vulnerabilities    needs pip-audit and its service
    python tools/audit.py --sbom build/sbom.json   needs cyclonedx-bom

Exit codes: 0 no findings; 1 findings; 3 not audited, because the service cannot be reached or a tool is missing.
A package that was not audited is never reported as audited.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, cast

NAME = "framewire"
FOUND, NOT_AUDITED = 1, 3
TIMEOUT_S = 300
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CLASSIFIER = "License :: "
UNWANTED = ("AGPL", "Affero", "GPL-3", "GPLv3", "SSPL", "BUSL")
"""Licences that the base install must not contain, because they would bind everyone who builds on Framewire."""


def needed(root: str = NAME) -> dict[str, metadata.Distribution]:
    """Return the installed packages that `root` needs without its extras, by normalised name, without `root` itself."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a marker excludes it here
        key = _normal(name)
        if key in found:
            continue
        found[key] = distribution
        waiting += list(_requirements(distribution))
    found.pop(_normal(root), None)
    return found


def _requirements(distribution: metadata.Distribution) -> Iterator[str]:
    for line in distribution.requires or []:
        match = _NAME.match(line)
        if match and "extra ==" not in line:
            yield match.group(0)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def licence_of(distribution: metadata.Distribution) -> str:
    """Return a package's licence, from its expression, its classifiers or the first line of its text."""
    facts = cast("Message", distribution.metadata)  # the type that importlib returns; its protocol lacks `get`
    if expression := facts.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in facts.get_all("Classifier") or [] if c.startswith(_CLASSIFIER)]
    named = str(facts.get("License") or "").strip()
    return ", ".join(classifiers) or (named.splitlines()[0][:80] if named else "not named")


def show_licences() -> int:
    """Print the licence of each package; return 1 if one is unwanted or missing."""
    packages = needed()
    if not packages:
        print(f"not audited: {NAME} is not installed: pip install -e .")
        return NOT_AUDITED
    bad = []
    for name, distribution in sorted(packages.items()):
        licence = licence_of(distribution)
        print(f"{name} {distribution.version}: {licence}")
        if licence == "not named" or any(word in licence for word in UNWANTED):
            bad.append(name)
    print(f"{len(packages)} packages, {len(bad)} to look at{': ' if bad else ''}{', '.join(bad)}")
    return FOUND if bad else 0


def show_vulnerabilities() -> int:
    """Print known vulnerabilities of the packages; return 3 if the service cannot be reached."""
    packages = needed()
    report = _audit(packages)
    if report is None:
        return NOT_AUDITED
    audited = [entry for entry in report.get("dependencies", []) if "vulns" in entry]
    missing = packages.keys() - {_normal(entry["name"]) for entry in audited}
    count = _print_vulnerabilities(audited)
    if missing or not audited:
        print(f"not audited: {', '.join(sorted(missing)) or 'anything'}")
        return NOT_AUDITED
    print(f"{len(audited)} packages audited, {count} vulnerabilities")
    return FOUND if count else 0


def _audit(packages: Mapping[str, metadata.Distribution]) -> dict[str, list[dict[str, Any]]] | None:
    """Return the report of pip-audit on exactly these packages; None if its service cannot be reached."""
    options = ["--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip"]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{name}=={d.version}\n" for name, d in sorted(packages.items())))
        return _report("pip_audit", *options, "-r", str(listed))


def _print_vulnerabilities(audited: list[dict[str, Any]]) -> int:
    """Print the vulnerabilities of each package, and return their number."""
    found = [(entry, each) for entry in audited for each in entry["vulns"]]
    for entry, each in found:
        fixed = ", ".join(each["fix_versions"]) or "-"
        print(f"{entry['name']} {entry['version']}: {each['id']}, fixed in {fixed}")
    return len(found)


def _report(module: str, *arguments: str) -> dict[str, list[dict[str, Any]]] | None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        report: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
        return report
    except (subprocess.TimeoutExpired, ValueError):
        reason = (
            "no answer in time" if "done" not in locals() else (done.stderr.strip().splitlines() or ["no report"])[-1]
        )
        print(f"not audited: {reason[:300]}")
        return None


def write_sbom(path: Path) -> int:
    """Write a CycloneDX bill of materials of this environment; return 3 if its tool is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", "--of", "JSON", "-o", str(path), sys.prefix],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not path.is_file():
        print(
            f"no bill of materials: {(done.stderr.strip().splitlines() or ['?'])[-1][:300]}: pip install cyclonedx-bom"
        )
        return NOT_AUDITED
    names = {_normal(str(each["name"])) for each in json.loads(path.read_text())["components"]}
    missing = needed().keys() - names
    print(f"{path}: {len(names)} components{', missing ' + ', '.join(sorted(missing)) if missing else ''}")
    return FOUND if missing else 0


def main() -> int:
    """Run the requested audits; the worst result is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--licences", action="store_true")
    parser.add_argument("--vulnerabilities", action="store_true")
    parser.add_argument("--sbom", type=Path)
    wanted = parser.parse_args()
    codes = [show_licences()] if wanted.licences else []
    codes += [show_vulnerabilities()] if wanted.vulnerabilities else []
    codes += [write_sbom(wanted.sbom)] if wanted.sbom else []
    if not codes:
        parser.error("choose what to audit: --licences, --vulnerabilities, --sbom FILE")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
