"""What the tests look at in an environment: its files, and whether every RECORD verifies."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import posixpath
from pathlib import Path

from envsync.system import native

FIXTURES = Path(__file__).parent.parent / "fixtures"


def site_packages(env: Path) -> Path:
    """Return the site-packages directory of an environment."""
    return env / min(native.site_packages(str(env)))


def unverified(env: Path) -> list[str]:
    """Name what is wrong with the installed files: every RECORD is checked by hash and size."""
    problems = []
    site = site_packages(env)
    for dist_info in sorted(site.glob("*.dist-info")):
        record = dist_info / "RECORD"
        if not record.is_file():
            problems.append(f"{dist_info.name} has no RECORD")
            continue
        with record.open(newline="") as file:
            rows = list(csv.reader(file))
        for path, expected, size in rows:
            problems += _problems(site / path, expected, size)
    return problems


def _problems(path: Path, expected: str, size: str) -> list[str]:
    if not expected and path.is_symlink() and path.is_dir():
        return []  # linked whole into the store (`--link-mode symlink`); what is in it has its own lines
    if not path.is_file():
        return [f"{path} is missing"]
    if not expected:
        return []
    content = path.read_bytes()
    algorithm, _, value = expected.partition("=")
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
    return [] if (digest, str(len(content))) == (value, size) else [f"{path} is not what RECORD says"]


def unowned(env: Path) -> set[str]:
    """Name the files that no RECORD and no skeleton of an environment accounts for, bytecode apart."""
    site = site_packages(env)
    owned = set()
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="") as file:
            owned |= {posixpath.normpath((site / row[0]).as_posix()) for row in csv.reader(file)}
    skeleton = {"pyvenv.cfg", ".gitignore", "CACHEDIR.TAG", ".lock"}
    return {
        path
        for path in files(env)
        if path not in skeleton
        and not path.startswith(("bin/python", "bin/activate", "bin/Activate"))
        and (env / path).as_posix() not in owned
    }


def files(env: Path) -> set[str]:
    """List the files of an environment, without bytecode and what envsync keeps in `.envsync`."""
    found = set()
    for directory, names, entries in os.walk(env):
        names[:] = [name for name in names if name not in ("__pycache__", ".envsync")]
        found |= {(Path(directory) / entry).relative_to(env).as_posix() for entry in entries}
    return found


def leftovers(env: Path) -> list[str]:
    """Name what a sync should have cleared away: journals, stages, trash, progress, temporary files."""
    state = env / ".envsync"
    # `leading` says nothing by itself: whether it is locked does.
    expected = {"in-use", "locking", "stamp", "installed.json", "failure.json", "work", "leading", "editables", "told"}
    found = [path.name for path in state.iterdir() if path.name not in expected]
    for workspace in (state / "work", site_packages(env) / ".envsync"):
        if workspace.is_dir():
            found += [path.name for path in workspace.iterdir()]
    return found
