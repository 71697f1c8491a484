"""An environment with dist-infos in it, made by hand."""

from __future__ import annotations

from pathlib import Path

from envsync.installed.plan import Installed
from envsync.launch import Environment

SITE = "lib/python3.11/site-packages"


def make_environment(path: Path) -> Environment:
    """Make an environment with an empty site-packages."""
    (path / SITE).mkdir(parents=True)
    (path / ".envsync").mkdir()
    return Environment(str(path))


def add(environment: Environment, directory: str, record: str | bytes | None = "") -> Installed:
    """Make a dist-info with a RECORD."""
    path = Path(environment.path, SITE, directory)
    path.mkdir()
    if record is not None:
        (path / "RECORD").write_bytes(record if isinstance(record, bytes) else record.encode())
    name, _, version = directory.removesuffix(".dist-info").partition("-")
    return Installed(name, version, f"{SITE}/{directory}", None)
