"""What the stamp says of the base interpreter and the kernel, if markers look at more of them than the digest covers.

The digest has how those markers come out; the stamp names the file that decides it and the last few (size, mtime) of
it, and the last few kernels, for which that was seen. A launch that meets one of them need not evaluate any marker; one
that meets another leaves it to a sync, which adds what it sees if it comes out the same. So hosts whose images have
other dates come to live with one stamp, instead of writing it in turn.
"""

from __future__ import annotations

import os

from envsync.errors import FilesystemError
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.stamp import Stamp
from envsync.leading.goal import Goal
from envsync.python import interpreter
from envsync.python.facts import Interpreter
from envsync.system import atomic, paths


def note(vouched: Stamp, goal: Goal, environment: Environment, cache: str) -> None:
    """Put into a stamp what markers look at, as it is here, and as it was elsewhere according to the stamp before.

    :param vouched: the stamp so far; its `digest` is set
    """
    conditions = goal.conditions
    if conditions is None:
        return
    data = atomic.read_if_there(environment.stamp)
    before = (stamp.load(data) if data else None) or Stamp()
    vouched.conditions = conditions.text
    vouched.kernel = list(conditions.kernel)
    vouched.base = base_of(environment, goal.python.interpreter) if conditions.full else ""
    same = (before.digest, before.base, before.kernel) == (vouched.digest, vouched.base, vouched.kernel)
    if conditions.full:
        vouched.bases = before.bases if same else []
        if (base := _base_here(vouched.base, environment, goal, cache)) is not None:
            vouched.bases = stamp.latest(vouched.bases, base)
    if conditions.kernel:
        kernel = fast_lane.look_at_kernel(conditions.kernel)
        vouched.kernels = stamp.latest(before.kernels if same else [], kernel)


def _base_here(path: str, environment: Environment, goal: Goal, cache: str) -> tuple[int, int] | None:
    """Look at the base interpreter; None if it was exchanged since it was asked: the next launch looks again."""
    try:
        here = fast_lane.look_at_base(path)
    except OSError as error:
        raise FilesystemError("look at", path, error) from error
    facts = goal.python.interpreter
    if here != facts.identity:  # so it is as well where the environment has a copy of it
        now = interpreter.inspect(environment.python, cache)
        if now.markers["python_full_version"] != facts.markers["python_full_version"]:
            return None
    return here


def base_of(environment: Environment, facts: Interpreter) -> str:
    """Return the path by which an environment names its base interpreter: where its links lead out of it."""
    path, root = environment.python, paths.abspath(environment.path) + "/"
    for _ in range(40):
        try:
            path = paths.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break  # a copy
        if not paths.abspath(path).startswith(root):
            return paths.abspath(path)
    return facts.base_executable if os.path.exists(facts.base_executable) else paths.abspath(environment.python)
