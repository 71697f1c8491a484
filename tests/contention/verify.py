"""What each command of the soak does inside its environment: see that it is exactly the one that was asked for.

    python -I verify.py '{"directory": ..., "want": "a", ...}'      (an `Order`, in JSON)

It looks at its start and again at its end, after a random sleep and perhaps after starting others:

- the dist-infos in site-packages are those of its set, no more and no fewer;
- every RECORD lists what the wheel's own RECORD lists, by hash and size; every file of it is there and has its size,
  and a random sample has its hash;
- nothing else is below site-packages or in `bin`, bytecode and envsync's `.envsync` apart;
- some modules, others each time, are imported and have the constant of this set (not that of bytecode left behind),
  and no module can be imported that only other sets have (a directory left behind is a namespace package);
- at the end, every file is still the same inode: not even replaced by its equal;
- a stamp, if there is one, is for the digest that the command was started for.

What is wrong goes to `violations.jsonl` in one appended line, so that it is not lost with a killed process.

Where uv changes the shared environment from time to time, the command passes the gate first (`pass_gate`, and see
soak.py). It cannot see what is right again by the time of its two looks.
"""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import importlib.util
import json
import os
import posixpath
import random
import subprocess
import sys
import sysconfig
import time
import traceback
from typing import Any, NamedTuple

VIOLATION = 70
AGAIN = 75
"""Exit status: uv may have changed the environment after envsync had seen to it. Ask again."""
SIGNALLED = frozenset({-2, -9, -15})
SKELETON = ("python", "activate", "Activate")

Snapshot = dict[str, tuple[int, int, int]]
"""Path → inode, size, mtime."""


class Order(NamedTuple):
    """What a command is told."""

    directory: str
    """Of the soak."""
    want: str
    """The name of the set that the environment has to have."""
    env: str
    """As given to `--env`."""
    kind: str
    """plain, fork, leave, same or other."""
    seconds: float
    seed: int
    epoch: int
    """How many times uv had ended when this was asked for; -1: uv does not come here."""

    def words(self) -> list[str]:
        """Return the command line."""
        return ["python", "-I", os.path.abspath(__file__), json.dumps(self._asdict())]


def main() -> int:
    """Carry out the order of the command line."""
    order = Order(**json.loads(sys.argv[1]))
    sys.excepthook = lambda kind, error, trace: failed(order, kind, error, trace)
    gate = pass_gate(order) if order.epoch >= 0 else None
    if order.epoch >= 0 and gate is None:
        return AGAIN
    look = Look(order)
    before = look("start")
    if order.kind in ("fork", "leave"):
        fork(order, look, before)
    elif order.kind in ("same", "other"):
        nest(order, look, gate)
    time.sleep(order.seconds)
    look.compare(before, look("end"))
    return VIOLATION if look.violated else 0


def failed(order: Order, kind: Any, error: Any, trace: Any) -> None:
    """Report what was not foreseen; who was interrupted need not."""
    if not issubclass(kind, KeyboardInterrupt):
        report(order, "error", ["".join(traceback.format_exception(kind, error, trace))])
    sys.__excepthook__(kind, error, trace)


def report(order: Order, when: str, problems: list[str]) -> None:
    """Append a violation, in one write."""
    line = {"when": when, "pid": os.getpid(), "time": time.time(), "prefix": sys.prefix, "order": order._asdict()}
    line |= {"inside": os.environ.get("ENVSYNC_IN"), "count": len(problems), "problems": problems[:8]}
    fd = os.open(f"{order.directory}/violations.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, (json.dumps(line) + "\n").encode())
    os.close(fd)


# The gate


def pass_gate(order: Order) -> int | None:
    """Keep uv out until this process and all that it starts have ended.

    Does not wait: this process holds the in-use lock, a leader may wait for that, and uv for the leader.

    :returns: the descriptor that does so, or None: uv may have changed something in between
    """
    turnstile = os.open(f"{order.directory}/turnstile", os.O_RDONLY)
    gate = os.open(f"{order.directory}/gate", os.O_RDONLY)
    try:
        fcntl.flock(turnstile, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    os.close(turnstile)
    unchanged = int(os.read(gate, 20)) == order.epoch or vouched_since(os.fstat(gate).st_mtime_ns)
    return gate if unchanged else None


def vouched_since(mtime_ns: int) -> bool:
    """Tell whether envsync has looked after uv ended: whoever writes a stamp holds the lock that uv holds, too."""
    for name in ("stamp", "stamp.draining"):
        try:
            return os.stat(f"{sys.prefix}/.envsync/{name}").st_mtime_ns > mtime_ns
        except FileNotFoundError:
            continue
    return False


# Looking


class Look:
    """Looks at the environment that this process runs in; called twice, and in each fork."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.random = random.Random(order.seed)
        self.site = sysconfig.get_path("purelib")
        with open(f"{order.directory}/{order.want}.json", encoding="utf-8") as file:
            expected = json.load(file)
        self.files: dict[str, list[str]] = expected["files"]
        self.modules: dict[str, str] = expected["modules"]
        self.foreign: list[str] = expected["foreign"]
        self.violated = False

    def __call__(self, when: str) -> Snapshot:
        """Look once, and report what is wrong.

        :returns: what was found of all recorded files
        """
        problems = self._dist_infos()
        rows = self._rows(problems)
        problems += [f"{path}: not in any RECORD as in its wheel" for path in self.files if path not in rows]
        snapshot = self._stat(rows, problems)
        problems += self._hashes(rows)
        problems += [f"{path}: unrecorded" for path in sorted(self._present() - rows.keys())]
        problems += self._imports()
        problems += self._stamp()
        self._report(when, problems)
        return snapshot

    def compare(self, before: Snapshot, after: Snapshot) -> None:
        """Report what was changed meanwhile."""
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        self._report("between", [f"{path}: {before.get(path)} became {after.get(path)}" for path in changed])

    def _report(self, when: str, problems: list[str]) -> None:
        if problems:
            self.violated = True
            report(self.order, when, problems)

    def _dist_infos(self) -> list[str]:
        found = {name for name in os.listdir(self.site) if name.endswith(".dist-info")}
        wanted = {path.partition("/")[0] for path in self.files if path.partition("/")[0].endswith(".dist-info")}
        return [f"{name}: missing" for name in sorted(wanted - found)] + [
            f"{name}: should not be here" for name in sorted(found - wanted)
        ]

    def _rows(self, problems: list[str]) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {}
        for name in sorted(os.listdir(self.site)):
            if not name.endswith(".dist-info"):
                continue
            try:
                with open(f"{self.site}/{name}/RECORD", newline="", encoding="utf-8") as file:
                    rows.update((posixpath.normpath(path), [hash_, size]) for path, hash_, size in csv.reader(file))
            except (OSError, ValueError) as error:
                problems.append(f"{name}/RECORD: {error}")
        for path, row in self.files.items():
            if path in rows and not path.endswith("/RECORD") and rows[path] != row:
                problems.append(f"{path}: RECORD says {rows[path]}, its wheel {row}")
        return rows

    def _stat(self, rows: dict[str, list[str]], problems: list[str]) -> Snapshot:
        snapshot: Snapshot = {}
        for path, (_, size) in rows.items():
            try:
                status = os.stat(f"{self.site}/{path}")
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            snapshot[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
            if size and status.st_size != int(size):
                problems.append(f"{path}: has {status.st_size} bytes, not {size}")
        return snapshot

    def _hashes(self, rows: dict[str, list[str]]) -> list[str]:
        problems = []
        for path in self.random.sample(sorted(rows), min(40, len(rows))):
            if not rows[path][0]:
                continue
            try:
                with open(f"{self.site}/{path}", "rb") as file:
                    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read()).digest()).rstrip(b"=").decode()
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            if f"sha256={digest}" != rows[path][0]:
                problems.append(f"{path}: has another hash than RECORD says")
        return problems

    def _present(self) -> set[str]:
        names = [name for name in os.listdir(f"{sys.prefix}/bin") if not name.startswith(SKELETON)]
        found = {posixpath.relpath(f"{sys.prefix}/bin/{name}", self.site) for name in names}
        for directory, below, files in os.walk(self.site):
            below[:] = [name for name in below if name not in ("__pycache__", ".envsync")]
            found |= {os.path.relpath(f"{directory}/{name}", self.site) for name in files if not name.endswith(".pyc")}
        return found

    def _imports(self) -> list[str]:
        problems = []
        for name in self.random.sample(sorted(self.modules.keys() - sys.modules.keys()), 6):
            try:
                value = importlib.import_module(name).VALUE
            except (ImportError, AttributeError, OSError, SyntaxError) as error:
                problems.append(f"import {name}: {error!r}")
                continue
            if value != self.modules[name]:
                problems.append(f"import {name}: is {value!r}, not {self.modules[name]!r}")
        for name in self.foreign:
            if importlib.util.find_spec(name) is not None:
                there = [f"{path}: {below + files}" for path, below, files in os.walk(f"{self.site}/{name}")]
                problems.append(f"import {name}: is there, and of another set: {there}")
        return problems

    def _stamp(self) -> list[str]:
        digest = os.environ["ENVSYNC_IN"].partition(":")[2]
        for name in ("stamp", "stamp.draining"):
            try:
                with open(f"{sys.prefix}/.envsync/{name}", encoding="utf-8") as file:
                    lines = file.read().splitlines()
            except FileNotFoundError:
                continue
            return [] if f"digest {digest}" in lines else [f"{name}: is for another digest: {lines[1:2]}"]
        return []


# Starting others


def fork(order: Order, look: Look, before: Snapshot) -> None:
    """Start a child that looks, too. It inherits the in-use lock, and outlives its parent if that is to leave it."""
    pid = os.fork()
    if pid == 0:
        look.random.seed(order.seed + 1)
        time.sleep(look.random.uniform(0, 0.5))
        look.compare(before, look("fork"))
        os._exit(VIOLATION if look.violated else 0)
    if order.kind == "fork":
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in {0, VIOLATION, *SIGNALLED}:
            report(order, "fork", [f"exit status {status}"])


def nest(order: Order, look: Look, gate: int | None) -> None:
    """Start `envsync run` within: the same digest enters; another one would wait for this command, and is refused.

    It inherits the gate, to hold it though this process may be killed before; and in every other case the in-use lock.
    Some that have to be refused are not killed as leaders: that would help one that waits for itself for ever.
    """
    with open(f"{order.directory}/soak.json", encoding="utf-8") as file:
        known = json.load(file)
    others = sorted(set(known["locks"]) - {order.want})
    want = order.want if order.kind == "same" else look.random.choice(others)
    inner = order._replace(want=want, kind="plain", seconds=look.random.uniform(0, 0.2), seed=order.seed + 2, epoch=-1)
    request = ["run", "-q", "--lock", known["locks"][want], "--env", order.env, "--"]
    refused = order.kind == "other" and "{digest}" not in order.env
    errors = f"{order.directory}/errors/nested-{os.getpid()}"
    inherit = [fd for fd in (gate, in_use() if order.seed % 2 else None) if fd is not None]
    variables = {**os.environ, "SOAK_SPARE": "1" if refused and order.seed % 4 < 2 else "0"}
    words = [*known["envsync"], *request, *inner.words()]
    with open(errors, "wb") as file:
        process = subprocess.Popen(words, stderr=file, pass_fds=inherit, env=variables)
    status = process.wait()
    if status not in {124 if refused else 0, VIOLATION, *SIGNALLED}:
        with open(errors, encoding="utf-8", errors="replace") as file:
            report(order, "nested", [f"exit status {status} of a nested run of {want}", file.read()])
    os.unlink(errors)


def in_use() -> int | None:
    """Return the descriptor of the in-use lock that envsync left us."""
    inode = os.environ["ENVSYNC_IN"].partition(":")[0]
    open_files = [int(name) for name in os.listdir("/proc/self/fd") if int(name) >= 200]
    return next((fd for fd in open_files if str(os.fstat(fd).st_ino) == inode), None)


if __name__ == "__main__":
    sys.exit(main())
