"""Public projects beside uv: what `uv sync --frozen` and `envsync sync` install of the same checkout is compared.

    REAL_PROJECTS=DIR python -m pytest -m network -s tests/real/test_real_projects.py

`projects.txt` lists them; DIR holds their git repositories as REAL_LOCKS does (`test_real_uv_locks`). The projects
themselves, the members of their workspaces and what comes from git or as source distributions are built by both. No
file of theirs is kept here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import pythons
from tests.conftest import envsync_command
from tests.environments import site_packages, unverified
from tests.real.test_real_uv_locks import git
from tests.uv_oracle import UV

pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]

LIST = Path(__file__).with_name("projects.txt")
SECONDS = 400
PYTHON = "3.13"


class Listed(NamedTuple):
    """A line of the list."""

    repository: str
    commit: str
    directory: str
    module: str

    def __str__(self) -> str:
        return self.repository


LISTED = [Listed(*line.split()) for line in LIST.read_text().splitlines() if not line.startswith("#")]


class Seen(NamedTuple):
    """What is installed: direct_url.json by name and version, and the scripts."""

    origins: dict[str, object]
    scripts: list[str]


def check_out(listed: Listed, place: Path) -> Path:
    """Clone the repository at its commit, or skip the test; return the directory of the lock file."""
    name = listed.repository.replace("/", "+")
    given = os.environ.get("REAL_PROJECTS")
    found = [path for path in (Path(given, name, "repo"), Path(given, name)) if path.is_dir()] if given else []
    if given and not found:
        pytest.skip(f"REAL_PROJECTS has no {name}")
    url = str(found[0]) if found else f"https://github.com/{listed.repository}"
    subprocess.run(["git", "init", "-q", place], check=True)
    try:
        git(place, "fetch", "-q", "--tags", url, listed.commit)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"it cannot be fetched: {error.stderr.decode().strip()}")
    git(place, "checkout", "-q", listed.commit)
    return place / listed.directory


def seen(directory: Path) -> Seen:
    """Look at the environment of a checkout; paths below the checkout are given without it."""
    env = directory / ".venv"
    origins: dict[str, object] = {}
    for info in site_packages(env).glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        url = info / "direct_url.json"
        text = url.read_text().replace(str(directory), "HERE") if url.exists() else "null"
        origin = json.loads(text)
        if origin and "archive_info" in origin:
            origin["archive_info"] = {}  # what of the hashes is told differs, and is told elsewhere
        origins[f"{re.sub('[-_.]+', '-', name).lower()}=={version}"] = origin
    scripts = {path.name for path in (env / "bin").iterdir()}
    own = {name for name in scripts if name.startswith(("python", "activate", "Activate", "deactivate", "pydoc"))}
    return Seen(origins, sorted(scripts - own))


def run(directory: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    environ["PATH"] = f"{os.path.dirname(sys.executable)}:{environ.get('PATH', os.defpath)}"
    done = subprocess.run(
        words, cwd=directory, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert not check or done.returncode == 0, f"{words}: {done.stderr[-3000:]}"
    return done


@pytest.mark.skipif(not UV, reason="there is no uv on PATH")
@pytest.mark.parametrize("listed", LISTED, ids=str)
def test_the_same_is_installed_as_by_uv(listed: Listed, tmp_path: Path) -> None:
    """Names, versions, where from, scripts; the root is importable; and each finds nothing to do after the other."""
    theirs, own = check_out(listed, tmp_path / "a" / "tree"), check_out(listed, tmp_path / "b" / "tree")
    python = pythons.need(PYTHON)
    uv = [str(UV), "sync", "--frozen", "--no-config", "--python", python, "--cache-dir", str(tmp_path / "uv")]
    envsync = [*envsync_command(), "sync", "--python", python]
    refused = run(theirs, *uv, check=False)
    if refused.returncode:
        pytest.skip(f"uv cannot install it here: {refused.stderr.strip()[-500:]}")
    done = run(own, *envsync)
    built = re.findall(r"authors: (.*)", done.stderr)
    expected, found = seen(theirs), seen(own)
    differences = [
        f"{name}: uv {expected.origins.get(name, 'nothing')}, envsync {found.origins.get(name, 'nothing')}"
        for name in sorted(expected.origins.keys() | found.origins.keys())
        if expected.origins.get(name, "nothing") != found.origins.get(name, "nothing")
    ]
    if expected.scripts != found.scripts:
        differences.append(f"scripts: {sorted(set(expected.scripts) ^ set(found.scripts))}")
    imported = [run(each, ".venv/bin/python", "-c", f"import {listed.module}", check=False) for each in (theirs, own)]
    after_us = run(own, *uv, "--dry-run").stderr
    json_line = [*envsync, "--json"]
    after_uv = json.loads(run(theirs, *json_line).stdout)
    again = json.loads(run(theirs, *json_line).stdout)
    uv_again = run(theirs, *uv, "--dry-run").stderr
    print(
        f"{listed}: {len(found.origins)} distributions, {len(found.scripts)} scripts, built: {built}, "
        f"{len(differences)} different; uv after us: {after_us.strip().splitlines()[-1]}; "
        f"we after uv: {len(after_uv['installed'])} installed {after_uv['installed'][:6]}"
    )
    assert not differences, "\n".join(differences)
    assert imported[0].returncode == imported[1].returncode, imported[1].stderr
    assert unverified(own / ".venv") == []
    assert "Would make no changes" in after_us, after_us
    assert again["outcome"] == "current"
    assert "Would make no changes" in uv_again, uv_again
    shutil.rmtree(tmp_path)
