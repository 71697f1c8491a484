"""A plain model of one environment: what must be in it, and what may be.

It knows the wheels, what the user has put there, and what others have done: nothing of journals, plans and stages. What
is not promised is written down where it is allowed for (`Model.harm`, `Model.orphans`, `Model.fragile`), so that it can
be read off here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.model.universe import Universe, Wheel

PARTS = ("bin/", "include/", "lib/", "lib64/", "share/", "etc/", "man/")
"""What goes with the skeleton of an environment that has to be remade, the user's files in it included."""


class Model:
    """What is known of one environment.

    What plain `sync` does not promise, by name:

    - `harm`: damage inside installed packages. "blind" is of equal size: only reinstalling repairs it. "seen" is a
      missing file, or one of another size: repaired as soon as anything makes the slow path doubt (a recovery, a change
      of a site-packages directory, a stamp that is gone). Both stay in distributions that a sync keeps while all that
      the fast lane looks at is as it was: `check` is for that.
    - `orphans`: files of distributions whose .dist-info, RECORD or journal was destroyed. Nobody owns them (PEP 376):
      they stay, or are in the way of others and then named.
    - `fragile`: an environment that lost its skeleton or was moved is remade, and loses what is in `PARTS`.
    """

    def __init__(self, universe: Universe, root: Path) -> None:
        self.universe = universe
        self.root = root
        self.env = root / "env"
        self.installed: dict[str, Wheel] = {}
        self.aliens: set[str] = set()
        """Names of those in `installed` that others have installed."""
        self.possible: dict[str, set[Wheel]] | None = None
        """After a crash: what may be there of each name. None: `installed` is."""
        self.kept: set[str] = set()
        """After a crash: what has to be there, of whatever version."""
        self.users: dict[str, bytes] = {}
        self.harm: dict[str, str] = {}
        self.orphans: set[str] = set()
        self.fragile = False
        self.unrecorded: set[str] = set()
        """Names of those that may not have the RECORD that was written for them."""
        self.forgotten = False
        """`installed.json` was lost or damaged: of a distribution without RECORD, nobody knows the files."""
        self.compiled_in_between = False
        self.witness: tuple[object, ...] = ()
        self.request: tuple[int, bool] | None = None
        """The target and exactness of the last success."""

    def lose_track(self) -> None:
        """From now on, what is installed is not known but only what may be."""
        if self.possible is None:
            self.possible = {name: {wheel} for name, wheel in self.installed.items()}
            self.kept = set(self.installed)

    def forget(self, name: str) -> None:
        """A distribution is not there any more."""
        self.installed.pop(name, None)
        self.aliens.discard(name)
        self.kept.discard(name)
        if self.possible is not None:
            self.possible.pop(name, None)

    def make_orphans(self, name: str) -> None:
        """Nobody knows any more whose the files of a distribution are."""
        wheels = {self.installed.get(name)} if self.possible is None else self.possible.get(name, set())
        for wheel in wheels - {None}:
            assert wheel is not None
            self.orphans |= {path for path in wheel.contents(self.env) if (self.env / path).is_file()}
        self.forget(name)

    def lose_journal(self) -> None:
        """A commit was decided, and nobody can know it any more: what was half moved is nobody's."""
        self.kept = set()
        for wheels in (self.possible or {}).values():
            for wheel in wheels:
                self.orphans |= wheel.contents(self.env).keys() | {f"{wheel.info}/RECORD"}

    def note_alien(self, wheel: Wheel) -> None:
        """Another installer has installed a distribution."""
        self.installed[wheel.name] = wheel
        self.aliens.add(wheel.name)
        self.harm = {path: kind for path, kind in self.harm.items() if not path.startswith(wheel.info)}
        self.unrecorded.discard(wheel.name)
        if self.possible is not None:
            self.possible.setdefault(wheel.name, set()).add(wheel)

    def expected(
        self, state: Mapping[str, Wheel], stay: set[str]
    ) -> tuple[dict[str, bytes], dict[str, str], dict[str, set[bytes]]]:
        """Return what must be there, by whom, and what else may be where others have installed over it."""
        contents: dict[str, bytes] = {}
        providers: dict[str, str] = {}
        several: dict[str, set[bytes]] = {}
        for name, wheel in sorted(state.items()):
            for path, content in wheel.contents(self.env).items():
                if name in self.aliens and path.endswith(("/INSTALLER", "/REQUESTED")):
                    continue
                contents[path], providers[path] = content, name
        for wheel in self.universe.wheels.values():
            for path, content in wheel.files:
                owners = {name for name, each in state.items() if path in dict(each.files)}
                if len(owners) > 1 and owners & stay:
                    several.setdefault(path, set()).add(content)
        for name in self.aliens & state.keys():
            contents[f"{state[name].info}/INSTALLER"], providers[f"{state[name].info}/INSTALLER"] = b"pip\n", name
        return contents, providers, several

    def owned(self) -> list[str]:
        """List what the distributions of the model have, as far as it is there."""
        if self.possible is not None:
            found: set[str] = set()
            for wheels in self.possible.values():
                for wheel in wheels:
                    found.update(wheel.contents(self.env))
        else:
            found = set(self.expected(self.installed, set())[0])
        return sorted(path for path in found if (self.env / path).is_file() and path not in self.users)
