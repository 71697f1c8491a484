"""What is struck: for each scenario what it claims, what was there before, the command, and what has to come of it.

All wheels have one to four files of a line each, so that every change of every scenario can be struck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.crash import before
from tests.wheels import build_wheel

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from tests.crash.stage import Stage

WHEELS: Mapping[str, Mapping[str, Any]] = {
    "app-1.0": {"files": {"app/__init__.py": "x = 1\n", "app/old.py": "x = 1\n"}},
    "app-2.0": {
        "files": {"app/__init__.py": "x = 2\n", "app/new/__init__.py": "x = 2\n"},
        "entry_points": {"console_scripts": {"app": "app:main"}},
    },
    "single-1.0": {"files": {"single.py": "x = 1\n"}},
    "space_a-1.0": {"files": {"space/a.py": "x = 1\n", "space/sub/a.py": "x = 1\n"}},
    "space_a-2.0": {"files": {"space/a.py": "x = 2\n", "space/more.py": "x = 2\n"}},
    "space_b-1.0": {"files": {"space/b.py": "x = 1\n"}},
    "space_c-1.0": {"files": {"space/sub/c.py": "x = 1\n"}},
    "one-1.0": {"files": {"shared/common.py": "x = 'one'\n", "shared/one.py": "x = 1\n"}},
    "two-1.0": {"files": {"shared/common.py": "x = 'two'\n", "shared/two.py": "x = 1\n"}},
    "tool-1.0": {
        "files": {"tool.py": "x = 1\n"},
        "data": {
            "scripts/tool.py": "#!python\nprint(1)\n",
            "scripts/plain": "#!/bin/sh\n",
            "data/share/tool/one.txt": "1\n",
            "headers/tool.h": "1\n",
        },
        "entry_points": {"console_scripts": {"tool-main": "tool:main"}},
    },
    "tool-2.0": {
        "files": {"tool.py": "x = 2\n"},
        "data": {
            "scripts/tool.py": "#!python -X utf8\nprint(2)\n",
            "data/share/tool/two.txt": "2\n",
            "headers/tool.h": "2\n",
        },
        "entry_points": {"console_scripts": {"tool-main": "tool:main", "tool-more": "tool:more"}},
    },
}  # fmt: skip

NOTHING, NO_WHEELS, ALL, OWN = "nothing", "no wheels", "all", "own"
"""What the cache holds before: nothing at all; what is known of Pythons, but no wheel; everything, as the last command
has left it; everything, and the same again before each strike."""
SYNC, RUN, REPAIR = "sync", "run", "check --repair"
CLEANING = CLEAN, PRUNE = "cache clean", "cache prune"


class Scenario(NamedTuple):
    """One row: a command that is struck at each of its changes.

    :ivar claim: what is to be true whenever it is struck
    :ivar before: what is installed before; None: there is no environment
    :ivar target: what the command installs
    :ivar prepare: what happens to the environment after that and before the command
    :ivar cache: what the cache holds
    :ivar options: of the command and of what repairs it
    :ivar verb: the command that is struck
    :ivar command: what follows the options of `run`
    :ivar then: the commands that put things right, one after the other; the first of them is the next command
    :ivar forks: let the command fork as it would; otherwise it does all in one process, in the same order every time
    :ivar served: the wheels come from a server that pauses in the midst of each
    :ivar varies: by how many the changes differ from run to run, since several things go on at once
    :ivar least: how many changes it makes at least: if it made fewer, nothing would be shown
    """

    name: str
    claim: str
    before: tuple[str, ...] | None
    target: tuple[str, ...]
    prepare: Callable[[Stage], None] | None = None
    cache: str = ALL
    options: tuple[str, ...] = ()
    verb: str = SYNC
    command: tuple[str, ...] = ()
    then: tuple[str, ...] = (SYNC,)
    forks: bool = False
    served: bool = False
    varies: int = 0
    least: int = 20


def build_wheels(directory: Path) -> None:
    """Build all wheels."""
    directory.mkdir()
    for key, options in WHEELS.items():
        name, _, version = key.rpartition("-")
        build_wheel(directory, name, version, **options)


UPGRADE = (("app-1.0", "single-1.0"), ("app-2.0", "single-1.0"))


def _repairs(damage: str, claim: str, prepare: Callable[[Stage], None], cache: str = ALL) -> Iterator[Scenario]:
    """Yield what is struck while it repairs, for each command that may come next."""
    for then in ((REPAIR, SYNC), (SYNC, REPAIR)):
        name = f"repair {damage}, then {then[0].removesuffix(' --repair')}"
        yield Scenario(name, claim, *UPGRADE[:1] * 2, prepare, cache, verb=REPAIR, then=then, least=40)


SCENARIOS = (
    Scenario(
        "first install",
        "Whatever a first sync was doing, the next one ends with exactly the target.",
        None,
        ("app-1.0", "single-1.0"),
        least=50,
    ),
    Scenario(
        "upgrade",
        "An environment that is being changed is still the old one, or is finished by the next sync.",
        *UPGRADE,
        prepare=before.leave_bytecode,
        least=40,
    ),
    Scenario("downgrade", "So it is if files come back that were gone, and a command goes.", *UPGRADE[::-1]),
    Scenario(
        "removal", "What is not asked for any more is there as a whole or not at all.", *UPGRADE[:1], ("app-1.0",)
    ),
    Scenario(
        "namespace package",
        "In a directory that several distributions share, each file is the old or the new one of its owner.",
        ("space_a-1.0", "space_b-1.0"),
        ("space_a-2.0", "space_c-1.0"),
    ),
    Scenario(
        "shared file",
        "A file that two distributions have is that of the one that stays, once the other has gone.",
        ("one-1.0", "two-1.0"),
        ("one-1.0",),
    ),
    Scenario(
        "shared file comes",
        "A file that two distributions have is that of the one that wins, once it has come.",
        ("one-1.0", "single-1.0"),
        ("one-1.0", "two-1.0"),
    ),
    Scenario(
        ".data and scripts",
        "So it is with what goes to bin, include, share, and with scripts that are made.",
        ("tool-1.0",),
        ("tool-2.0",),
        least=40,
    ),
    Scenario(
        "remade environment",
        "An environment without pyvenv.cfg is remade, whenever that is interrupted; the base Python is not touched.",
        ("app-1.0", "single-1.0"),
        ("app-1.0", "single-1.0"),
        before.lose_its_config,
        least=60,
    ),
    Scenario(
        "recovery",
        "A leader that dies while it finishes a dead leader's commit leaves no more than that one did.",
        *UPGRADE,
        before.die_at(before.is_half_committed),
    ),
    Scenario(
        "late recovery",
        "So it is if all steps were taken, and only the stamp is missing.",
        *UPGRADE,
        before.die_at(before.is_committed),
        least=10,
    ),
    Scenario(
        "recovery for another",
        "So it is if what the dead leader decided is not what is wanted now.",
        ("app-1.0", "single-1.0"),
        ("app-1.0",),
        before.for_something_else(before.die_at(before.is_half_committed)),
        least=30,
    ),
    Scenario(
        "resumed stage",
        "Half a stage is gone on with, again and again.",
        *UPGRADE,
        before.die_at(before.is_half_staged),
    ),
    Scenario(
        "stage of another",
        "Half a stage of something else goes.",
        ("app-1.0", "single-1.0"),
        ("app-1.0",),
        before.for_something_else(before.die_at(before.is_half_staged)),
    ),
    Scenario("copies", "So it is if files are copied.", *UPGRADE, options=("--link-mode", "copy")),
    Scenario("symlinks", "So it is if directories are linked whole.", *UPGRADE, options=("--link-mode", "symlink")),
    Scenario(
        "cold cache",
        "So it is if nothing is known yet: neither the Python, nor its skeleton, nor any wheel.",
        None,
        ("app-1.0", "tool-1.0"),
        cache=NOTHING,
        least=100,
    ),
    Scenario("cold store", "So it is if wheels have to be unpacked.", *UPGRADE, cache=NO_WHEELS, least=60),
    Scenario("bytecode", "So it is if bytecode is linked, too.", *UPGRADE, options=("--compile-bytecode",), least=50),
    Scenario(
        "cold bytecode",
        "So it is if wheels have to be unpacked and compiled.",
        *UPGRADE,
        cache=NO_WHEELS,
        options=("--compile-bytecode",),
        least=70,
    ),
    Scenario(
        "new stamp", "If nothing is to be done, the stamp alone is at risk.", *UPGRADE[:1] * 2, before.touch, least=5
    ),
    Scenario(
        "leftovers", "What is left over is cleared away by whoever comes.", *UPGRADE[:1] * 2, before.strew, least=15
    ),
    Scenario("run", "A command starts in the whole of it, or not at all.", *UPGRADE, verb=RUN, command=("true",)),
    Scenario("two processes", "So it is if a second process links files.", *UPGRADE, forks=True, least=40),
    Scenario(
        "two processes, cold store",
        "So it is if a second process unpacks wheels.",
        ("one-1.0",),
        ("app-2.0", "single-1.0", "tool-1.0"),
        cache=NO_WHEELS,
        forks=True,
        least=90,
    ),
    Scenario(
        "downloads",
        "So it is if wheels have to be downloaded, whatever each thread is doing.",
        ("one-1.0",),
        ("app-2.0", "single-1.0", "tool-1.0"),
        cache=NO_WHEELS,
        served=True,
        varies=40,
        least=30,
    ),
    Scenario(
        "two processes, downloads",
        "So it is if children download them.",
        ("one-1.0",),
        ("app-2.0", "single-1.0", "tool-1.0"),
        cache=NO_WHEELS,
        served=True,
        forks=True,
        varies=40,
        least=30,
    ),
    *_repairs(
        "lost module",
        "What is being repaired is not called sound before it is, and whatever comes next finishes it.",
        before.lose_a_module,
    ),
    *_repairs("changed module", "So it is if only its hash tells.", before.change_a_module),
    *_repairs("emptied RECORD", "So it is if RECORD does not say any more what there was.", before.empty_a_record),
    *_repairs("damaged cache", "So it is if the wheel has to be unpacked anew.", before.write_through_a_link, OWN),
    Scenario(
        CLEAN,
        "A cache that is being emptied has whole entries only, and nothing else is touched.",
        *UPGRADE,
        before.leave_downloads,
        OWN,
        verb=CLEAN,
        least=5,
    ),
    Scenario(
        PRUNE,
        "So it is if only what is old goes.",
        *UPGRADE,
        before.age_the_cache,
        OWN,
        verb=PRUNE,
        least=5,
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def rows(*always: str) -> list[ParameterSet]:
    """Return all scenarios as a test's parameters; but for those that always run, under the marker `slow`."""
    assert BY_NAME.keys() >= set(always)
    return [
        pytest.param(scenario, id=scenario.name, marks=() if scenario.name in always else pytest.mark.slow)
        for scenario in SCENARIOS
    ]
