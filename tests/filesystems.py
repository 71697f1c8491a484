"""Small filesystems on images, for tests that need a particular one. They need root and the filesystem's mkfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.needs import IS_ROOT

MKFS: dict[str, Sequence[str]] = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ntfs": ("mkfs.ntfs", "-q", "-F", "-f"),
}
SMALL = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
"""With these, mkfs.xfs makes filesystems of less than 300 MB: it takes itself to run in its own tests."""


@contextmanager
def mounted(kind: str, directory: Path, size: int = 200 << 20) -> Iterator[Path]:
    """Mount a new filesystem, or skip the test with the reason why there can be none.

    :param kind: one of `MKFS`, or "tmpfs". NTFS does not tell case apart, and shows all names in small letters
    :param size: in bytes
    """
    if not IS_ROOT:
        pytest.skip(f"needs root to mount {kind}")
    if not os.path.exists("/proc/self/mountinfo"):
        pytest.skip(f"needs /proc to unmount {kind}")
    place = directory / kind
    place.mkdir()
    if kind == "tmpfs":
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    else:
        mkfs = MKFS[kind]
        if shutil.which(mkfs[0]) is None:
            pytest.skip(f"there is no {mkfs[0]}")
        image = directory / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([*mkfs, str(image)], check=True, capture_output=True, env={**os.environ, **SMALL})
        words = ["mount", "-t", kind, "-o", "loop", str(image), str(place)]
        if kind == "ntfs":
            words = ["lowntfs-3g", str(image), str(place), "-o", "ignore_case,permissions"]
            if shutil.which(words[0]) is None:
                pytest.skip("there is no lowntfs-3g")
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
