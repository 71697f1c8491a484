"""What only a filesystem can do: two clients with caches of their own, files that come back under hidden names."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import envsync_command
from tests.environments import FIXTURES, site_packages, unverified
from tests.odd.conftest import Mount, start_process

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")


def start(directory: Path, *arguments: str, within: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
    return start_process([*within, *envsync_command(), *arguments], directory, **variables)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


def test_two_clients_that_cache_for_seconds(tmp_path: Path, mount: Mount) -> None:
    """Four runs through each: one syncs and all run, though each client sees the other's changes late."""
    backing, shared, log = tmp_path / "backing", tmp_path / "shared", tmp_path / "events"
    backing.mkdir()
    shared.mkdir()
    clients = [mount(str(backing), "--cache", "5") for _ in range(2)]
    variables = {"ENVSYNC_EVENTS": str(log), "ENVSYNC_CACHE_DIR": f"{tmp_path}/cache"}
    # The path is the same on all nodes of a cluster: each sees its own client there.
    there = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"']
    command = ["run", "--lock", LOCK, "--env", f"{shared}/.venv", "--", "python", "-c", "import greet"]
    running = [
        start(tmp_path, *command, within=[*there, str(clients[number % 2]), str(shared)], **variables)
        for number in range(8)
    ]
    for process in running:
        finish(process)
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert (events.count("launched"), events.count("synced")) == (8, 1)
    assert unverified(clients[0] / ".venv") == unverified(clients[1] / ".venv") == []


def test_a_removed_file_that_comes_back(mount: Mount) -> None:
    """A module that is open while it is replaced comes back under a hidden name, in the trash: it is in nobody's way.

    The environment is current and stays so. A later sync removes what is left.
    """
    directory = mount("--silly", "--cache", "1")
    assert finish(start(directory, "sync", "--lock", LOCK, "--env", ".venv")) == ""
    env = directory / ".venv"
    site = site_packages(env)
    with (site / "greet" / "__init__.py").open():
        finish(start(directory, "sync", "--lock", NEXT, "--env", ".venv"))
        assert unverified(env) == []
        hidden = list(env.rglob(".fuse_hidden*"))
        assert hidden
        assert all(path.is_relative_to(site / ".envsync") for path in hidden)
        said = finish(start(directory, "sync", "--lock", NEXT, "--env", ".venv", "--json"))
        assert json.loads(said)["outcome"] == "current"
    finish(start(directory, "sync", "--lock", LOCK, "--env", ".venv"))
    assert list(env.rglob(".fuse_hidden*")) == []
    assert unverified(env) == []
