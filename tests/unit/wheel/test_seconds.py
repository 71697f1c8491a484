"""The second that the files of an entry have: recent, and its own within a project."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from envsync.store.store import Store
from envsync.wheel import seconds
from envsync.wheel.manifest import Manifest
from tests.wheels import artifact, build_wheel


def added(store: Store, wheel: str) -> Manifest:
    return store.add(wheel, artifact(wheel))


def files_of(store: Store, manifest: Manifest) -> list[Path]:
    return [path for path in Path(store.path(manifest.sha256)).rglob("*") if path.is_file()]


def test_what_is_new_looks_new(tmp_path: Path) -> None:
    """Every file of an entry that was just made is a few seconds old, by mtime and by atime."""
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    before = time.time() - 30
    manifest = added(store, build_wheel(tmp_path))
    for path in files_of(store, manifest):
        status = path.stat()
        assert status.st_mtime_ns == manifest.mtime * 10**9
        assert min(status.st_mtime, status.st_atime) > before


def test_versions_of_a_project_never_share_a_second(tmp_path: Path) -> None:
    """However many are added at once, each has its own, and none is in the future."""
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    wheels = [build_wheel(tmp_path, version=f"{number}.0") for number in range(12)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda wheel=wheel: found.append(added(store, wheel).mtime)) for wheel in wheels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 12
    assert max(found) <= time.time()


def test_projects_need_not_avoid_each_other(tmp_path: Path) -> None:
    """A second that one project has is free for another."""
    root = str(tmp_path)
    taken = seconds.take(root, "one", "0" * 64)
    assert seconds.take(root, "one", "1" * 64) != taken
    assert abs(seconds.take(root, "two", "0" * 64) - taken) <= 60  # the present one, however slow this is


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_an_entry_can_be_read_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Files are 0444 and 0555; who may enter is said by the directories, which follow the umask."""
    store = Store(str(tmp_path / "cache"))
    wheel = build_wheel(tmp_path, executable=["demo/tool"], files={"demo/tool": "x", "demo/__init__.py": ""})
    store.prepare()
    old = os.umask(umask)
    try:
        manifest = added(store, wheel)
    finally:
        os.umask(old)
    entry = Path(store.path(manifest.sha256))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(store, manifest)} == {0o444, 0o555}
    assert stat.S_IMODE(entry.stat().st_mode) == 0o777 & ~umask


def test_a_cache_that_is_open_to_all_by_hand(tmp_path: Path) -> None:
    """Where another user's directory must not be written to, a second is taken all the same."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be another user")
    first = seconds.take(str(tmp_path), "demo", "0" * 64)
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith("pytest"):
            path.chmod(0o755)
    code = (
        f"import os, sys; sys.path[:0] = {sys.path!r}; from envsync.wheel import seconds; os.setuid(4321); "
        f"print(seconds.take({str(tmp_path)!r}, sys.argv[1], '1' * 64))"
    )
    for name in ("demo", "other"):
        done = subprocess.run([sys.executable, "-c", code, name], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert abs(int(done.stdout) - first) < 120
