"""Make a virtual environment in place, or take its skeleton away so that it can be made anew.

The skeleton is what the standard library's `venv` makes: pyvenv.cfg, bin with links to the base interpreter, lib,
include. It is made in the environment's own directory, under the environment lock, between writing and removing
the mark `making`: an environment that has the mark, or no pyvenv.cfg, has half of a skeleton at most.

To remake one, the old skeleton is moved into the trash by a journal like that of any commit, then a new one is
made. `<env>`, its `.lock` and `.envsync` stay the same inodes throughout: others hold locks on them.
"""

from __future__ import annotations

import os
import subprocess
import sys

from envsync import replace
from envsync.coordination.flock import Flock
from envsync.environment import Environment
from envsync.errors import FilesystemError, InterpreterError
from envsync.installed import Layout, Ledger, dump_ledger
from envsync.interpreter import own_base
from envsync.target import Interpreter
from envsync.transaction import journal
from envsync.transaction.journal import Identity, Journal, Remove

PARTS = ("pyvenv.cfg", "bin", "include", "lib", "lib64", "share", "etc", "man")
"""What belongs to a skeleton or is installed beside it. Anything else in the directory is the user's."""
_CACHEDIR_TAG = b"""\
Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by envsync.
# For information about cache directory tags see https://bford.info/cachedir/
"""


def make(environment: Environment, base: Interpreter, lock: Flock) -> None:
    """Make the skeleton.

    :param base: the interpreter outside any environment that it is to use
    :param lock: the held environment lock, which a child that writes has to hold as well: it outlives us
    :raises InterpreterError: `venv` failed; the mark stays, and the next attempt begins anew
    """
    path = os.path.abspath(environment.path)
    replace.write(environment.making, b"")
    executable = base.executable
    if os.path.realpath(executable) == os.path.realpath(own_base()):
        import venv

        try:
            venv.EnvBuilder(symlinks=os.name != "nt").create(path)
        except OSError as error:
            raise FilesystemError("make environment", path, error) from error
    else:
        words = [executable, "-I", "-m", "venv", "--without-pip", path]
        done = subprocess.run(words, capture_output=True, pass_fds=(lock.fd,), stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise InterpreterError(f"`{executable}` cannot make an environment in `{path}`: {said}")
    for name, content in ((".gitignore", b"*\n"), ("CACHEDIR.TAG", _CACHEDIR_TAG)):
        if not os.path.lexists(f"{path}/{name}"):
            replace.write(f"{path}/{name}", content)
    replace.discard(environment.making)


def exists(environment: Environment) -> bool:
    """Tell whether there is a skeleton, or part of one."""
    return any(os.path.lexists(f"{environment.path}/{name}") for name in PARTS)


def take_away(environment: Environment, workspace: str) -> None:
    """Move the skeleton, with all that is installed in it, into the trash. The caller holds in-use exclusively.

    :param workspace: a directory below `.envsync`, relative to the environment
    """
    steps = []
    for number, name in enumerate(PARTS):
        try:
            identity = Identity.of(f"{environment.path}/{name}")
        except FileNotFoundError:
            continue
        steps.append(Remove(name, identity, f"{workspace}/old/{number}"))
    decided = Journal(workspace, tuple(steps))
    os.makedirs(f"{environment.path}/{workspace}", exist_ok=True)
    replace.write(journal.ledger_path(environment, decided), dump_ledger(Ledger("", "", {})))
    journal.write(environment, decided)
    replace.discard(environment.draining)
    journal.finish(environment, decided)


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
