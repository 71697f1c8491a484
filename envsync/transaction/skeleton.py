"""Make a virtual environment in place, or take its skeleton away so that it can be made anew.

The skeleton is what the standard library's `venv` makes: pyvenv.cfg, bin with links to the base interpreter, lib,
include (`envsync.python.venv`). It is made in the environment's own directory, under the environment lock,
between writing and removing the mark `making`: an environment that has the mark, or no pyvenv.cfg, has half of a
skeleton at most.

To remake one, the old skeleton is moved into the trash by a journal like that of any commit, then a new one is
made. `<env>`, its `.lock` and `.envsync` stay the same inodes throughout: others hold locks on them.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from envsync.installed.ledger import Ledger, dump_ledger
from envsync.launch import Environment
from envsync.python.facts import Interpreter, Layout
from envsync.python.venv import is_plain, pattern_of, run_venv
from envsync.system import atomic, core, native, paths, processes
from envsync.transaction import journal
from envsync.transaction.journal import Identity, Journal, Remove

if TYPE_CHECKING:
    from envsync.locks.environment_lock import EnvironmentLock

PARTS = ("pyvenv.cfg", core.BIN, native.INCLUDE, *native.LIBRARIES, "share", "etc", "man")
"""What belongs to a skeleton or is installed beside it. Anything else in the directory is the user's."""
_CACHEDIR_TAG = b"""\
Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by envsync.
# For information about cache directory tags see https://bford.info/cachedir/
"""


def make(
    environment: Environment, base: Interpreter, lock: EnvironmentLock, cache: str, *, durable: bool = False
) -> None:
    """Make the skeleton.

    :param base: the interpreter outside any environment that it is to use
    :param lock: the held environment lock, which a child that writes has to hold as well: it outlives us
    :param cache: the cache directory, where skeletons are remembered
    :param durable: force it to the disk before the mark is removed
    :raises InterpreterError: `venv` failed; the mark stays, and the next attempt begins anew
    """
    path = paths.abspath(environment.path)
    atomic.write(environment.making, b"", durable=durable)
    pattern = pattern_of(base, cache, lock.fd) if is_plain(path) else None
    if pattern is None:
        run_venv(base.executable, path, lock.fd)
        _follow_umask(path)
    else:
        pattern.render(path)
    for name, content in ((".gitignore", b"*\n"), ("CACHEDIR.TAG", _CACHEDIR_TAG)):
        if not os.path.lexists(f"{path}/{name}"):
            atomic.write(f"{path}/{name}", content)
    if durable:
        atomic.sync_filesystem(path)
    atomic.remove(environment.making)


def _follow_umask(path: str) -> None:
    """Take from what `venv` has made what the umask does not allow: it copies the modes of its templates."""
    umask = processes.read_umask()
    for directory, _, names in os.walk(path):
        for name in names:
            file = f"{directory}/{name}"
            try:
                mode = os.lstat(file).st_mode
                if stat.S_ISREG(mode) and mode & umask:
                    native.chmod(file, stat.S_IMODE(mode) & ~umask)
            except OSError:
                pass  # the mount says the modes of all files, or it is gone


def exists(environment: Environment) -> bool:
    """Tell whether there is a skeleton, or part of one."""
    return any(os.path.lexists(f"{environment.path}/{name}") for name in PARTS)


def take_away(
    environment: Environment,
    workspace: str,
    in_use: tuple[int, ...],
    *,
    durable: bool = False,
    checkpoint: Callable[[], object] = lambda: None,
) -> None:
    """Move the skeleton, with all that is installed in it, into the trash. The caller holds in-use exclusively.

    :param workspace: a directory below `.envsync`, relative to the environment
    :param in_use: inodes of the in-use locks that commands may hold
    :param checkpoint: called before each rename, as in `journal.apply`
    """
    steps = []
    for number, name in enumerate(PARTS):
        try:
            identity = Identity.of(f"{environment.path}/{name}")
        except FileNotFoundError:
            continue
        steps.append(Remove(name, identity, f"{workspace}/old/{number}"))
    decided = Journal(workspace, tuple(steps))
    emptied = Ledger(paths.abspath(environment.path), "", {}, in_use)
    os.makedirs(f"{environment.path}/{workspace}", exist_ok=True)
    atomic.write(journal.ledger_path(environment, decided), dump_ledger(emptied))
    journal.write(environment, decided, durable=durable)
    atomic.discard(environment.draining)
    journal.finish(environment, decided, durable=durable, checkpoint=checkpoint)


def layout_of(environment: Environment, interpreter: Interpreter) -> Layout:
    """Return the layout of an environment that exists: one site-packages where `lib64` links to `lib`."""
    purelib, platlib = interpreter.layout["purelib"], interpreter.layout["platlib"]
    if purelib != platlib:
        try:
            if os.path.samefile(f"{environment.path}/{purelib}", f"{environment.path}/{platlib}"):
                platlib = purelib
        except OSError:
            pass  # one of them does not exist, so they are two
    return Layout(purelib, platlib, interpreter.layout["scripts"], interpreter.layout["headers"])


def is_own(environment: Environment) -> bool:
    """Tell whether this process runs from the environment itself."""
    try:
        return os.path.samefile(sys.prefix, environment.path)
    except OSError:
        return False
