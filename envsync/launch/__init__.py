"""`run` in an environment that is current: is it, and then become the command.

Imports built-in modules and `envsync.errors` alone, and that only once something fails: hundreds of tasks pay for each
import at once. What a launch imports does without `from __future__ import annotations`, too: it is a module like any
other, and costs seven file operations. tests/unit/test_rooms.py lists what is loaded. Start reading at `fast_lane`;
`request` and `stamp` are what it compares.

The names of what envsync keeps in an environment are here, and not in a module of their own: they are six file
operations of each launch fewer.
"""

from envsync.system import core


class Environment:
    """The paths of one environment directory. Knows names, touches nothing.

    :param path: the environment, absolute or relative to the working directory
    """

    __slots__ = ("path", "state")

    def __init__(self, path: str) -> None:
        self.path = path
        self.state = path + "/.envsync"

    @property
    def lock(self) -> str:
        """The environment lock, the same file that uv locks."""
        return self.path + "/.lock"

    @property
    def in_use(self) -> str:
        """The in-use lock, held shared by every running command."""
        return self.state + "/in-use"

    @property
    def holders(self) -> str:
        """Directory of the names of those who run in it, on whatever node."""
        return self.state + "/holders"

    @property
    def locking(self) -> str:
        """How this environment is locked, as its first leader found out."""
        return self.state + "/locking"

    @property
    def lease(self) -> str:
        """The environment lock where flock does not work."""
        return self.state + "/lease"

    @property
    def stamp(self) -> str:
        return self.state + "/stamp"

    @property
    def draining(self) -> str:
        """The stamp while a leader waits for running commands to end."""
        return self.state + "/stamp.draining"

    @property
    def installed(self) -> str:
        """What envsync installed."""
        return self.state + "/installed.json"

    @property
    def journal(self) -> str:
        return self.state + "/journal"

    @property
    def progress(self) -> str:
        return self.state + "/progress.json"

    @property
    def failure(self) -> str:
        return self.state + "/failure.json"

    @property
    def told(self) -> str:
        """Which notes have been said of it."""
        return self.state + "/told"

    @property
    def editables(self) -> str:
        """Directory of the wheels by which trees are linked, which are of use to this environment alone."""
        return self.state + "/editables"

    @property
    def waiting(self) -> str:
        """Directory of the names of those who wait."""
        return self.state + "/waiting"

    @property
    def turn(self) -> str:
        """Which request is to be served next."""
        return self.state + "/turn"

    @property
    def leading(self) -> str:
        """Is there and locked while somebody leads, so that others can ask without touching the environment lock."""
        return self.state + "/leading"

    @property
    def making(self) -> str:
        """Present while the skeleton (bin, lib, pyvenv.cfg) is being made: what is there may be half of one."""
        return self.state + "/making"

    @property
    def bare(self) -> str:
        """Present until the first sync of the environment has been completed: nobody has been served in it yet."""
        return self.state + "/bare"

    @property
    def wanted(self) -> str:
        """Locked shared by everybody who waits for an environment that was never synced, or is about to lead there."""
        return self.state + "/wanted"

    @property
    def config(self) -> str:
        return self.path + "/pyvenv.cfg"

    @property
    def bin(self) -> str:
        return f"{self.path}/{core.BIN}"

    @property
    def python(self) -> str:
        return f"{self.path}/{core.PYTHON}"
