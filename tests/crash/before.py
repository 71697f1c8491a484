"""What happens to an environment, or its cache, before the command that is struck: damage, dead leaders, leftovers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.harness import KILL, strike
from tests.environments import site_packages

if TYPE_CHECKING:
    from tests.crash.stage import Stage


def lose_its_config(stage: Stage) -> None:
    (stage.env / "pyvenv.cfg").unlink()


def leave_bytecode(stage: Stage) -> None:
    """Leave bytecode, some of a file that goes and some of nobody's."""
    for package in ("app", ""):
        directory = site_packages(stage.env) / package / "__pycache__"
        directory.mkdir(exist_ok=True)
        for name in ("old", "single", "__init__"):
            (directory / f"{name}.cpython-311.pyc").write_bytes(b"compiled")
    stage.restamp()


def die_at(is_due: Callable[[Stage], bool]) -> Callable[[Stage], None]:
    """Let the same command die before, at the first change after which something is so."""

    def prepare(stage: Stage) -> None:
        nth = stage.remembered.get("dies at", 1)
        while True:
            stage.reset_environment()
            blow = strike(stage.arguments, nth, KILL)
            assert os.WIFSIGNALED(blow.status), f"it was never so in {nth} changes: {blow.said}"
            assert os.WTERMSIG(blow.status) == signal.SIGKILL
            if is_due(stage):
                stage.remembered["dies at"] = nth
                return
            nth += 1

    return prepare


def is_half_committed(stage: Stage) -> bool:
    if not (stage.env / ".envsync" / "journal").exists():
        return False
    (workspace,) = (site_packages(stage.env) / ".envsync").iterdir()
    trash = workspace / "old"
    return trash.is_dir() and len(list(trash.iterdir())) >= 2


def is_committed(stage: Stage) -> bool:
    return (
        not (stage.env / ".envsync" / "journal").exists()
        and not (stage.env / ".envsync" / "stamp").exists()
        and (stage.env / "bin" / "app").exists()
    )


def is_half_staged(stage: Stage) -> bool:
    workspaces = list((site_packages(stage.env) / ".envsync").iterdir())
    return any(path.name == "__init__.py" for workspace in workspaces for path in workspace.rglob("app/*"))


def for_something_else(prepare: Callable[[Stage], None]) -> Callable[[Stage], None]:
    """Let a sync for something else die, and then this one begin."""

    def prepared(stage: Stage) -> None:
        stage.aim(("app-2.0", "single-1.0"))
        if not stage.remembered:
            stage.sync(stage.lock)  # so that the cache has its wheels, each time
        prepare(stage)
        stage.aim(stage.scenario.target)

    return prepared


def touch(stage: Stage) -> None:
    os.utime(site_packages(stage.env))


def strew(stage: Stage) -> None:
    """Leave what leaders leave that were killed after their stamp, or could not remove something."""
    state, work = stage.env / ".envsync", site_packages(stage.env) / ".envsync"
    for directory in (work / "0123456789abcdef" / "old" / "0", state / "work" / "1" / "old"):
        directory.mkdir(parents=True)
        (directory / "x.py").touch()
    for name in ("stamp", "journal", "progress.json", "failure.json", "installed.json"):
        (state / f"{name}.1.abcdef01.new").write_bytes(b"half")
    (stage.env / "CACHEDIR.TAG.1.abcdef01.new").touch()


# Damage that a stamp does not show, and `envsync check` does


def lose_a_module(stage: Stage) -> None:
    (site_packages(stage.env) / "app" / "old.py").unlink()


def change_a_module(stage: Stage) -> None:
    """Change it as an editor does that saves to a new file."""
    _replace(site_packages(stage.env) / "app" / "old.py", b"x = 3\n")


def empty_a_record(stage: Stage) -> None:
    _replace(site_packages(stage.env) / "app-1.0.dist-info" / "RECORD", b"")


def write_through_a_link(stage: Stage) -> None:
    """Change a module, keep its size and time, and change the cache's file with it."""
    (stored,) = stage.cache.glob("v1/wheels/*/purelib/app/old.py")
    _replace(stored, b"x = 3\n")
    module = site_packages(stage.env) / "app" / "old.py"
    module.unlink()
    os.link(stored, module)


def leave_downloads(stage: Stage) -> None:
    """Leave in the cache what a killed sync leaves there."""
    for name in ("unpack-0123/purelib", "discarded-4567/purelib"):
        directory = stage.cache / "v1" / "tmp" / name
        directory.mkdir(parents=True)
        (directory / "x.py").write_text("x = 1\n")
    (stage.cache / "v1" / "tmp" / "download-89ab").write_bytes(b"half")


def age_the_cache(stage: Stage) -> None:
    """Let nobody have used one of its wheels, and what is unfinished, for years."""
    leave_downloads(stage)
    (manifest,) = stage.cache.glob("v1/wheels/*/purelib/app/old.py")
    for path in (manifest.parents[2], *stage.cache.glob("v1/tmp/*")):
        os.utime(path, (0, 1_500_000_000))


def damage_the_cache(stage: Stage) -> None:
    """Change a file of another of its wheels, as nothing but a test of the judge does."""
    (stored,) = stage.cache.glob("v1/wheels/*/purelib/single.py")
    _replace(stored, b"x = 3\n")


def _replace(path: Path, content: bytes) -> None:
    """Replace a file by another, for it may be a link of the cache's. Its time is kept."""
    status = path.stat()
    path.unlink()
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
