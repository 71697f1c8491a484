"""Boxes: this machine's own files as an image, in which what is written stays in the box. They need root.

A box is an overlay over `/`, entered by chroot(2) in a mount namespace of its own. So whatever is installed here is in
it, and a script may write to `/opt` or `/app` as in an image that is being built.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ENTER = """\
set -e
box=$1 mode=$2 user=$3 directory=$4 script=$5
shift 5
mount -t overlay -o "lowerdir=/,upperdir=$box/upper,workdir=$box/work" overlay "$box/root"
for place in proc dev sys; do
    mount --rbind "/$place" "$box/root/$place"
done
mount -t tmpfs -o mode=1777 tmpfs "$box/root/dev/shm"
while [ $# -gt 0 ]; do
    mkdir -p "$box/root$2"
    mount --rbind "$1" "$box/root$2"
    shift 2
done
[ "$mode" = rw ] || mount -o remount,ro,bind "$box/root"
exec chroot "$box/root" setpriv --reuid "$user" --regid "$user" --clear-groups \\
    sh -c 'cd "$1" && eval "$2"' sh "$directory" "$script"
"""


class Box:
    """An image that grows by what is run in it.

    :param root: a directory for it
    """

    def __init__(self, root: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to mount an overlay")
        self.root = root
        for name in ("upper", "work", "root"):
            (root / name).mkdir(parents=True)
        # Who is somebody else in it has to reach Python and the sources.
        above = {str(path) for start in (Path(sys.executable), ROOT / "tests") for path in start.parents} - {"/"}
        if (done := self.run(f"chmod a+x /root {shlex.join(above)}")).returncode:
            pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")

    def run(
        self,
        script: str,
        *,
        user: int = 0,
        directory: str = "/",
        mounts: dict[str, str] | None = None,
        read_only: bool = False,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it.

        :param mounts: directories of this machine, and where they are in the box
        :param read_only: nothing of the box itself can be written to
        """
        words = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.root), "ro" if read_only else "rw"]
        places = [place for pair in (mounts or {}).items() for place in pair]
        return subprocess.run(
            [*words, str(user), directory, script, *places],
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": "/nonexistent" if user else "/root",
                "PIP_NO_INDEX": "1",
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
