"""symlink, copies, clones: make one environment that is missing, from a full cache, in the other link modes.

Each measures envsync and uv alternately. `symlink` compares envsync's symlink mode with uv's hard links, and counts the
file operations of both. `copies` has the caches on another filesystem than the environments (tmpfs, which needs root to
be mounted). `clones` has both on an image of xfs, and of btrfs, on a loop device, which needs root and mkfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, Outcome, Row, alternate, rows_of, run
from operations import count_operations, has_strace

MKFS = {"xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q", "-f")}
SPARE_BYTES = 1 << 30
"""What an image has beyond the caches, for their bookkeeping."""


def symlink(bench: Bench) -> list[Row]:
    """Sync from a warm cache: envsync by links to whole directories, uv by hard links."""
    rows = measured(bench, "symlink", "symlink", "hardlink", bench.place.directory, bench.place.directory)
    if has_strace("symlink, file operations"):
        rows.append(operations(bench))
    return rows


def copies(bench: Bench) -> list[Row]:
    """Sync from a warm cache on another filesystem."""
    with mounted(bench, "tmpfs") as place:
        return [] if place is None else measured(bench, "copies", "copy", "copy", place, bench.place.directory)


def clones(bench: Bench) -> list[Row]:
    """Sync from a warm cache where the filesystem has clones; and by hard links there, to compare."""
    rows = []
    for kind in MKFS:
        with mounted(bench, kind) as place:
            if place is not None:
                rows += measured(bench, f"{kind}, clones", "clone", "clone", place, place)
                rows += measured(bench, f"{kind}, hard links", "hardlink", "hardlink", place, place)
    return rows


def measured(bench: Bench, name: str, ours: str, uvs: str, caches: str, environments: str) -> list[Row]:
    """Measure both in turns, in fresh directories.

    :param ours: the link mode for envsync; `uvs` for uv
    :param caches: the directory for the caches
    """
    count = 0

    def fresh(what: str) -> str:
        nonlocal count
        count += 1
        return os.path.join(environments, f"{name.replace(', ', '-').replace(' ', '-')}-{count}-{what}")

    contenders: dict[str, Callable[[], Outcome]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench, cache=os.path.join(caches, "envsync-cache"))
        contenders[ENVSYNC] = settled(bench, lambda: envsync.sync(fresh("envsync"), mode=ours))
    if UV in bench.chosen:
        uv = Uv(bench, cache=os.path.join(caches, "uv-cache"))
        contenders[UV] = settled(bench, lambda: uv.sync(fresh("uv"), mode=uvs))
    return rows_of(name, alternate(name, contenders, bench.rounds or 7, warm_up=1), "s")


def operations(bench: Bench) -> Row:
    """Count the calls that name a path, of one warm sync each."""
    values: dict[str, list[float]] = {}
    commands: dict[str, Callable[[str], Command]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        commands[ENVSYNC] = lambda path: envsync.sync(path, mode="symlink")
    if UV in bench.chosen:
        uv = Uv(bench)
        commands[UV] = uv.sync
    for name, command in commands.items():
        bench.prepare(command(bench.place.fresh(f"{name}-environment")))
        measured = command(bench.place.fresh(f"{name}-environment"))
        counted = count_operations(measured, (), bench.place.fresh("trace"), bench.time_limit)
        values[name] = [counted.everywhere]
    return Row("file operations", "n", values)


def settled(bench: Bench, command: Callable[[], Command]) -> Callable[[], Outcome]:
    """Return what measures a command after everything written before is on the disk."""

    def once() -> Outcome:
        prepared = command()
        os.sync()
        return run(prepared, bench.time_limit)

    return once


@contextmanager
def mounted(bench: Bench, kind: str) -> Iterator[str | None]:
    """Mount a new filesystem with room for two caches and all environments; None, with the reason, if that fails."""
    size = (3 + 2 * (bench.rounds or 7)) * bench.wheels.unpacked_size + SPARE_BYTES
    if os.getuid() != 0:
        yield skipped(kind, "root is needed to mount it")
        return
    with ExitStack() as stack:
        place = bench.place.fresh_directory(kind)
        if kind == "tmpfs":
            words = ("mount", "-t", kind, "-o", f"size={3 * bench.wheels.unpacked_size + SPARE_BYTES}", kind, place)
        else:
            if shutil.which(MKFS[kind][0]) is None:
                yield skipped(kind, f"there is no {MKFS[kind][0]}")
                return
            image = bench.place.write("image", "")
            os.truncate(image, size)  # sparse: clones and links take next to nothing
            stack.callback(os.unlink, image)
            subprocess.run([*MKFS[kind], image], check=True, stdout=subprocess.DEVNULL)
            words = ("mount", "-t", kind, "-o", "loop", image, place)
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            yield skipped(kind, done.stderr.strip())
            return
        stack.callback(subprocess.run, ["umount", "--lazy", place], check=True)
        yield place


def skipped(kind: str, reason: str) -> None:
    print(f"{kind}: skipped: {reason}", file=sys.stderr)
