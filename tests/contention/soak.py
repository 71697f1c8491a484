"""The soak: dozens of processes want different environments for minutes, and are killed all the while.

    python tests/contention/soak.py --seconds 300 --processes 24 --seed 1 [--envsync PATH] [--uv PATH] [--kill-uv]

Three sets of distributions, three lock files. At random, `envsync run` is asked for one of them, either in one shared
environment or in `--env '<dir>/{digest}'`, and each command looks from inside whether it sees exactly its target, at
its start and at its end (verify.py). Some fork, some leave a child behind, some start a nested `run`, some give up
after 0.2 s, some are plain `envsync sync`, some sync in a thread and fork meanwhile (forker.py). Leaders, waiters and
commands are killed; a leader preferably while its journal is in place. They are stopped, too, and go on seconds later.
Entries of the cache are removed beneath them, and now and then the whole cache. Now and then uv changes the shared
environment. In the end all is quiet,
every environment is made current for each lock file once more, looked at, and searched for leftovers.

A violation is: whatever a command sees that is not its target; an exit status that is neither 0, nor by a signal of
ours, nor 124 of those who asked for it (`--timeout`; a nested run that would wait for itself), nor 125 that names
three dead leaders, all of them killed by us; a process that never ends; a leftover.

**uv.** It takes the environment lock, but knows nothing of the in-use lock: what it changes beneath a command is no
fault of envsync. So there is a gate: commands hold it shared for as long as they and their children last, uv is
started with it held exclusively, and the turnstile before it makes newcomers stay away while uv waits for the gate.
The gate must not be in the way of envsync, or the test would have no teeth: `sync` and `run` know nothing of it. They
start, wait, lead, repair and are killed while uv is at it, and only the command that `run` becomes passes the gate,
inside the environment. There it has to answer one question: did uv come after envsync had seen to the environment?

- No uv has ended since the command was asked for (the gate file counts them), and none is at it, for the gate is
  open: then all that it sees is envsync's doing, and it looks strictly.
- One has, but the stamp is newer than the gate file, which is written when uv has ended: whoever wrote that stamp
  held the environment lock after uv did, and vouched for what uv had left. It looks strictly, too.
- Otherwise it cannot tell, and ends with `AGAIN`. The same request is made again once uv has gone. A stamp that
  vouches for uv's leftovers would be seen then, and whatever uv leaves has to be made exact by envsync.

With `--kill-uv`, uv is killed in the act. It then leaves files, scripts and empty directories that no distribution
owns. envsync refuses to overwrite such files (125) and leaves the others alone, so this shows violations, and is off
unless asked for.

A command never waits at the gate: it holds the in-use lock, a leader may wait for that, and uv for that leader.

What this cannot see: a wrong command that is right again by the time of its looks; that a process entered by a stamp
which vouched for nothing while uv was at it (README: "what other tools change meanwhile"); other hosts and other
filesystems; the loss of power. A seed repeats the choices, not the timing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from envsync.system import records
from tests.contention.verify import AGAIN, VIOLATION, Order
from tests.environments import site_packages, unowned, unverified
from tests.wheels import build_wheel, row, sha256_of

SETS = {
    "a": {"soak-core": "1.0", "soak-data": "1.0", "soak-tools": "1.0", "soak-web": "1.0", "soak-nest-alpha": "1.0"}
    | {"soak-nest-beta": "1.0", "soak-common": "1.0"},
    "b": {"soak-core": "2.0", "soak-data": "2.0", "soak-tools": "1.0", "soak-web": "1.0", "soak-nest-alpha": "2.0"}
    | {"soak-common": "1.0"},
    "c": {"soak-core": "3.0", "soak-data": "1.0", "soak-tools": "2.0", "soak-nest-beta": "2.0", "soak-common": "1.0"}
    | {"soak-only": "1.0", "soak-nest-alpha": "1.0"},
}
KINDS = {
    "plain": 40,
    "fork": 8,
    "leave": 6,
    "same": 10,
    "other": 8,
    "shell": 8,
    "impatient": 8,
    "sync": 12,
    "library": 6,
}
SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT)
FORKER = str(Path(__file__).with_name("forker.py"))
STOPPED_SECONDS = (0.05, 0.5, 3.0)
"""How long somebody is stopped: less than a look at the stamp takes, less than it takes to be known, and more."""
QUIET_SECONDS = 120.0
"""How long the last processes may take to end before they are taken to wait for ever."""
LEFTOVERS = re.compile(r"progress\.json|journal|stamp\.draining|making|clock.*|.*\.(new|tmp)")


class Options(NamedTuple):
    """Of the command line."""

    seconds: float
    processes: int
    seed: int
    envsync: list[str]
    uv: str | None
    kill_uv: bool
    leader_kills: int
    keep: bool


def main() -> int:
    """Run the soak, print what happened, and tell by the exit status whether there was a violation."""
    options = parse()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process of a shell ignores it
    libc().prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: who loses its parent becomes our child
    directory = tempfile.mkdtemp(prefix="soak-")
    print(f"seed {options.seed}, {options.seconds:g} s, {options.processes} processes, in {directory}", flush=True)
    soak = Soak(options, directory)
    try:
        soak.run()
        return soak.conclude()
    finally:
        soak.end_all()
        if not options.keep:
            shutil.rmtree(directory)


def parse() -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--processes", type=int, default=24, help="at a time")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--envsync", help="the launcher; default: envsync of this source tree")
    parser.add_argument("--uv", default=shutil.which("uv"), help="default: the one on PATH; empty: none")
    parser.add_argument("--kill-uv", action="store_true", help="in the act, too")
    parser.add_argument("--leader-kills", type=int, default=0, help="go on until so many leaders were killed")
    parser.add_argument("--keep", action="store_true", help="leave the temporary directory")
    words = vars(parser.parse_args())
    if words["envsync"] is None:
        from tests.conftest import envsync_command

        words["envsync"] = envsync_command()
    else:
        words["envsync"] = [os.path.abspath(words["envsync"])]
    return Options(**words)


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


# What is to be installed


def build(directory: str, envsync: list[str], sets: Mapping[str, Mapping[str, str]] = SETS) -> None:
    """Write the wheels, the lock files, and what verify.py has to know of them.

    :param sets: by name, the versions of its distributions
    """
    os.makedirs(f"{directory}/wheels")
    os.makedirs(f"{directory}/errors")
    every = {module.partition(".")[0] for pins in sets.values() for pin in pins.items() for module in modules_of(*pin)}
    for name, pins in sets.items():
        wheels = [build_distribution(f"{directory}/wheels", *pin) for pin in sorted(pins.items())]
        write(f"{directory}/pylock.{name}.toml", lock_file(pins, wheels))
        write(f"{directory}/{name}.txt", "".join(f"{pin}=={version}\n" for pin, version in pins.items()))
        modules = {module: value for pin in pins.items() for module, value in modules_of(*pin).items()}
        files = {path: row for wheel in wheels for path, row in rows_of(wheel).items()}
        packages = {module.partition(".")[0] for module in modules}
        write(
            f"{directory}/{name}.json",
            json.dumps({"modules": modules, "files": files, "foreign": sorted(every - packages)}),
        )
    locks = {name: f"{directory}/pylock.{name}.toml" for name in sets}
    write(f"{directory}/soak.json", json.dumps({"envsync": envsync, "locks": locks}))
    write(f"{directory}/gate", "0")
    write(f"{directory}/turnstile", "")


def write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def modules_of(name: str, version: str) -> dict[str, str]:
    """Name the modules of a distribution, 20 to 60 of them, and their constants."""
    package = name.replace("soak-nest-", "soak_nest.").replace("-", "_")
    count = 20 + zlib.crc32(f"{name} {version}".encode()) % 41
    names = [package, f"{package}.deep", *(f"{package}.m{number:02}" for number in range(count * 2 // 3))]
    names += [f"{package}.deep.m{number:02}" for number in range(count // 3)]
    names += [f"{package}_single"] if "." not in package else []
    return {module: f"{module} of {name} {version}" for module in names}


def build_distribution(directory: str, name: str, version: str) -> str:
    """Build a wheel. Modules of a name have one size in all versions: only their mtime tells their bytecode apart."""
    modules = modules_of(name, version)
    files = {}
    for module, value in modules.items():
        path = module.replace(".", "/")
        is_package = any(other.startswith(f"{module}.") for other in modules)
        filler = f"# {module}\n" * (1 + zlib.crc32(module.encode()) % 80)
        files[f"{path}/__init__.py" if is_package else f"{path}.py"] = f"VALUE = {value!r}\n{filler}"
    entry_points = {"console_scripts": {f"{name}-{version}": f"{next(iter(modules))}:main"}}
    return build_wheel(directory, name, version, files, entry_points=entry_points if name == "soak-tools" else None)


def rows_of(wheel: str) -> dict[str, list[str]]:
    """Return path → hash and size of all that is in a wheel but its RECORD, which an installer writes anew."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: list(row(name, archive.read(name))[1:]) for name in names}


def lock_file(pins: Mapping[str, str], wheels: list[str]) -> str:
    parts = ['lock-version = "1.0"\ncreated-by = "soak"\n']
    for (name, version), wheel in zip(sorted(pins.items()), wheels, strict=True):
        file = f'path = "wheels/{os.path.basename(wheel)}", hashes = {{ sha256 = "{sha256_of(wheel)}" }}'
        parts.append(f'[[packages]]\nname = "{name}"\nversion = "{version}"\nwheels = [{{ {file} }}]\n')
    return "\n".join(parts)


# Watching


class Watch:
    """Tells which state files of the environments are put in place, the moment they are (inotify(7))."""

    def __init__(self) -> None:
        self.fd = libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.environments: dict[int, str] = {}

    def add(self, env: str) -> None:
        """Watch an environment, once it is one."""
        if env not in self.environments.values():
            number = libc().inotify_add_watch(self.fd, os.fsencode(f"{env}/.envsync"), 0x80)  # IN_MOVED_TO
            if number >= 0:
                self.environments[number] = env

    def wait(self, seconds: float) -> Iterator[tuple[str, str]]:
        """Yield environment and name of each file, after the given time if there is none."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return
        data = os.read(self.fd, 1 << 16)
        while data:
            number, _, _, length = struct.unpack_from("iIII", data)
            yield self.environments[number], data[16 : 16 + length].rstrip(b"\0").decode()
            data = data[16 + length :]


# The processes


class Child(NamedTuple):
    """A process that was started here."""

    process: subprocess.Popen[bytes]
    name: str
    """What it is, as in `shell a shared`."""
    allowed: frozenset[int]
    errors: str
    order: Order


class Soak:
    """All that is under way, and what became of it."""

    def __init__(self, options: Options, directory: str) -> None:
        self.options = options
        self.directory = directory
        self.random = random.Random(options.seed)
        self.began = time.monotonic()
        self.children: dict[int, Child] = {}
        self.uv = 0
        """The pid of the uv step that is under way."""
        self.struck: dict[int, set[int]] = {}
        """Signals by pid, of those that are not reaped yet."""
        self.ever_struck: dict[int, int] = {}
        """The last signal by pid, of all."""
        self.due: list[tuple[float, str, str]] = []
        """When to strike the leader of which environment, in which phase."""
        self.again: deque[Child] = deque()
        self.blamed: set[int] = set()
        """Dead leaders that were named when others gave up."""
        self.watch = Watch()
        self.tally: Counter[str] = Counter()
        self.violations: list[str] = []
        self.next_kill = self.next_uv = self.next_stop = self.next_removal = 0.0
        self.stopped: list[tuple[float, int]] = []
        """When who is to go on, by pidfd."""
        build(directory, options.envsync)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENVSYNC_", "PYTHON", "UV_"))}
        kept |= {"HOME": directory, "XDG_CACHE_HOME": f"{directory}/xdg", "ENVSYNC_CACHE_DIR": f"{directory}/cache"}
        kept |= {"ENVSYNC_EVENTS": f"{directory}/events.jsonl", "SOAK": directory, "UV_CACHE_DIR": f"{directory}/uv"}
        self.variables = kept | {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_OFFLINE": "1"}

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> None:
        """Keep them coming until the time is over; then let all of them end."""
        limit = self.options.seconds
        while self.elapsed < limit or (
            self.tally["killed leader"] < self.options.leader_kills and self.elapsed < 4 * limit
        ):
            while len(self.children) < self.options.processes:
                self.start()
            self.start_uv()
            self.stop_and_continue()
            self.remove_from_cache()
            self.kill()
            self.reap()
        self.wait_for_quiet()

    # Starting

    def start(self) -> None:
        """Start one more: one that has to ask again, or anything."""
        if self.again and not self.uv:
            child = self.again.popleft()
            self.launch(child.name.split()[0], child.order._replace(epoch=self.epoch()))
            return
        kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
        shared = self.random.random() < 0.65
        env = f"{self.directory}/shared" if shared else f"{self.directory}/many/{self.round()}/{{digest}}"
        inside = "plain" if kind in ("shell", "impatient", "sync", "library") else kind
        seconds = self.random.choice((0.0, self.random.uniform(0, 0.5)))
        epoch = self.epoch() if shared else -1
        want = self.random.choice(self.wanted())
        self.launch(kind, Order(self.directory, want, env, inside, seconds, self.random.getrandbits(32), epoch))

    def wanted(self) -> list[str]:
        """Return the sets that are in demand now: in every other spell a single one, so that stamps live to be used.

        Else somebody with another digest would put right whatever happens, before a stamp could be believed wrongly.
        """
        spell = int(self.elapsed / 1.5)
        return [sorted(SETS)[spell // 2 % 3]] if spell % 2 else sorted(SETS)

    def round(self) -> int:
        """Return which `{digest}` environments are asked for now: new ones from time to time."""
        return int(self.elapsed / max(2.5, self.options.seconds / 20))

    def epoch(self) -> int:
        return int(Path(f"{self.directory}/gate").read_text(encoding="utf-8"))

    def launch(self, kind: str, order: Order) -> Child:
        request = ["--lock", f"{self.directory}/pylock.{order.want}.toml", "--env", order.env]
        words = [*self.options.envsync, "sync" if kind == "sync" else "run", *request]
        allowed = {0} if order.epoch < 0 or kind in ("sync", "library") else {0, AGAIN}
        if kind == "impatient":
            words += ["--timeout", "0.2"]
            allowed.add(124)
        if kind == "library":
            seconds = str(self.random.uniform(0.5, 4.0))
            words = [sys.executable, FORKER, f"{self.directory}/pylock.{order.want}.toml", order.env, seconds]
        elif kind == "shell":
            words += ["--", "sh", "-c", '"$@"; exit $?', "sh", *order.words()]
        elif kind != "sync":
            words += ["--", *order.words()]
        self.tally["processes"] += 1
        errors = f"{self.directory}/errors/{self.tally['processes']}"
        with open(errors, "wb") as file, open(os.devnull, "r+b") as null:
            process = subprocess.Popen(
                words, cwd=self.directory, env=self.variables, stdin=null, stdout=null, stderr=file, process_group=0
            )
        where = "by digest" if "{digest}" in order.env else "shared"
        child = Child(process, f"{kind} {order.want} {where}", frozenset(allowed), errors, order)
        self.children[process.pid] = child
        return child

    # uv

    def start_uv(self) -> None:
        """Let uv change the shared environment, now and then."""
        if not self.options.uv or self.uv or self.elapsed < self.next_uv:
            return
        self.next_uv = self.elapsed + self.random.uniform(0.5, 3.0)
        words, patience = self.uv_words(), self.random.choice((None, self.random.uniform(0, 0.03)))
        patience = patience if self.options.kill_uv else None
        self.uv = os.fork()
        if self.uv == 0:
            status = 1
            try:
                status = self.uv_step(words, patience)
            finally:
                os._exit(status)

    def uv_words(self) -> list[str]:
        """Return a command line of uv: sync another set, or install what is not wanted."""
        want = self.random.choice(sorted(SETS))
        pins = [f"{name}=={version}" for name, version in SETS[want].items()]
        chosen = self.random.sample(pins, self.random.randint(1, len(pins)))
        words = ["sync", f"{want}.txt"] if self.random.random() < 0.5 else ["install", "--no-deps", *chosen]
        python = ["--python", f"{self.directory}/shared/bin/python"]
        assert self.options.uv
        return [self.options.uv, "pip", *words, "--offline", "--no-index", "--find-links", "wheels", *python]

    def uv_step(self, words: list[str], patience: float | None) -> int:
        """Run uv behind the gate, and kill it if its time is over. Runs in a process of its own."""
        with open(f"{self.directory}/turnstile", "r+b") as turnstile, open(f"{self.directory}/gate", "r+b", 0) as gate:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(gate, fcntl.LOCK_EX)
            count = int(gate.read()) + 1
            with open(f"{self.directory}/errors/uv", "ab") as errors:
                process = subprocess.Popen(words, cwd=self.directory, env=self.variables, stderr=errors)
                if patience is not None:
                    self.kill_in_the_act(process, patience)
                status = process.wait()
            os.pwrite(gate.fileno(), str(count).encode(), 0)
            with open(f"{self.directory}/uv.jsonl", "a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"words": words[2:], "status": status, "count": count, "time": time.time()}) + "\n"
                )
        return 0

    def kill_in_the_act(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Kill uv some time after it has changed the environment for the first time."""
        with contextlib.suppress(StopIteration, FileNotFoundError):
            site = site_packages(Path(self.directory) / "shared")
            before = site.stat().st_mtime_ns
            while process.poll() is None and site.stat().st_mtime_ns == before:
                time.sleep(0.001)
            time.sleep(seconds)
        process.kill()

    # Killing

    def kill(self) -> None:
        """Look who leads, and strike whoever is due."""
        pause = max(0.0, min([0.005, *(when - self.elapsed for when, _, _ in self.due)]))
        self.watch_all()
        for env, name in self.watch.wait(pause):
            if name == "progress.json" and self.random.random() < 0.15:
                self.due.append((self.elapsed + self.random.uniform(0, 0.3), env, "leader"))
            elif name == "journal" and self.random.random() < 0.4:
                self.due.append((self.elapsed + self.random.choice((0, 0, 0.001, 0.003)), env, "in commit"))
        for each in [each for each in self.due if each[0] <= self.elapsed]:
            self.due.remove(each)
            self.strike_leader(*each[1:])
        if self.elapsed >= self.next_kill and self.children:
            self.next_kill = self.elapsed + self.random.uniform(0.05, 0.6)
            self.strike_any()

    def watch_all(self) -> None:
        self.watch.add(f"{self.directory}/shared")
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(f"{self.directory}/many/{self.round()}"):
                self.watch.add(entry.path)

    def leader_of(self, env: str) -> int:
        """Return who leads by `progress.json`, or 0. It may be dead."""
        return int(records.number(records.load(f"{env}/.envsync/progress.json"), "pid"))

    def strike_leader(self, env: str, phase: str) -> None:
        pid = self.leader_of(env)
        sent = self.random.choice(SIGNALS)
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                # Who held the number before may be dead; whoever has it now is ours by what it was started with.
                with open(f"/proc/{pid}/environ", "rb") as file:
                    variables = file.read().split(b"\0")
                ours = f"SOAK={self.directory}".encode() in variables and b"SOAK_SPARE=1" not in variables
                if ours and is_envsync(pid):
                    self.mark(pid, sent)
                    signal.pidfd_send_signal(handle, sent)
                    self.tally["killed leader"] += 1
                    if phase == "in commit":
                        self.tally[f"killed leader in commit by {signal.Signals(sent).name}"] += 1
            finally:
                os.close(handle)

    def strike_any(self) -> None:
        """Strike a child, whatever it is: mostly the process alone; sometimes its group, and it once more at once."""
        pid, child = self.random.choice(list(self.children.items()))
        sent = self.random.choice(SIGNALS)
        kind = ("waiter" if is_envsync(pid) else "command") if self.leader_of(child.order.env) != pid else "leader"
        if self.random.random() < 0.15:
            for member in members(pid):
                self.mark(member, sent)
            os.killpg(pid, sent)
            kind = f"group of {kind}"
        self.mark(pid, sent)
        os.kill(pid, sent)
        self.tally[f"killed {kind}"] += 1

    def mark(self, pid: int, sent: int) -> None:
        self.struck.setdefault(pid, set()).add(sent)
        self.ever_struck[pid] = sent

    # Stopping, and removing beneath them

    def stop_and_continue(self) -> None:
        """Let go on whoever was stopped for long enough, and stop another one: who leads, or anybody."""
        for when, handle in [each for each in self.stopped if each[0] <= self.elapsed]:
            self.stopped.remove((when, handle))
            self.go_on(handle)
        if self.elapsed < self.next_stop or not self.children:
            return
        self.next_stop = self.elapsed + self.random.uniform(0.2, 1.5)
        pid = self.random.choice(list(self.children))
        if self.random.random() < 0.5:
            pid = self.leader_of(self.children[pid].order.env) or pid
        if pid not in self.children:
            return
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        self.stopped.append((self.elapsed + self.random.choice(STOPPED_SECONDS), handle))
        self.tally["stopped"] += 1

    def go_on(self, handle: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        os.close(handle)

    def remove_from_cache(self) -> None:
        """Remove one entry of the cache without asking anybody, as people and purges do; seldom the whole cache."""
        if self.elapsed < self.next_removal:
            return
        self.next_removal = self.elapsed + self.random.uniform(0.3, 3.0)
        cache = Path(self.directory) / "cache"
        victim = cache
        if self.random.random() < 0.9:
            entries = sorted(cache.glob("v1/wheels/*"))
            if not entries:
                return
            victim = self.random.choice(entries)
        make_removable(victim)
        shutil.rmtree(victim, ignore_errors=True)
        self.tally["removed cache" if victim == cache else "removed entry"] += 1

    # Ending

    def reap(self) -> bool:
        """Judge all that have ended. Returns False if nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            code = os.waitstatus_to_exitcode(status)
            child = self.children.pop(pid, None)
            if child is not None:
                child.process.returncode = code
                self.judge(child, code, self.struck.pop(pid, set()))
            elif pid == self.uv:
                self.uv = 0
                if code:
                    self.violations.append(f"the uv step ended with {code}")

    def judge(self, child: Child, code: int, struck: set[int]) -> None:
        """Tally how a child ended. Its messages are kept if it should not have."""
        text = Path(child.errors).read_text(encoding="utf-8", errors="replace")
        self.tally[f"status {code}"] += 1
        if code == AGAIN and code in child.allowed:
            self.again.append(child)
        elif code == 125 and self.names_dead(text):
            self.tally["gave up on dead leaders"] += 1
        elif code not in child.allowed and code != VIOLATION and not by_signal(code, struck, text):
            self.violations.append(f"{child.name}: exit status {code} (signals sent: {sorted(struck)}):\n{text}")
            return
        os.unlink(child.errors)

    def names_dead(self, text: str) -> bool:
        """Tell whether a failure blames leaders that died, three at least, and all of them killed here."""
        said = re.search(
            r"died one after the other while they synced [^:]*: (.*?)( \(the sync by |$)", text, re.MULTILINE
        )
        named = {int(pid) for pid in re.findall(r"pid (\d+) on ", said[1])} if said else set()
        if len(named) < 3 or not named <= self.ever_struck.keys():
            return False
        self.blamed |= named
        return True

    def wait_for_quiet(self) -> None:
        """Wait until everybody has ended, orphans included."""
        for _, handle in self.stopped:
            self.go_on(handle)
        self.stopped.clear()
        deadline = time.monotonic() + QUIET_SECONDS
        while self.reap():
            if time.monotonic() > deadline:
                self.violations += [f"never ended: {describe(pid)}" for pid in descendants()]
                self.end_all()
                return
            select.select([], [], [], 0.01)

    def end_all(self) -> None:
        """Kill and reap what is left."""
        while found := descendants():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)
        for child in self.children.values():
            child.process.returncode = -signal.SIGKILL
        self.children.clear()

    # The end

    def conclude(self) -> int:
        """Ask for everything once more, in peace; print the summary.

        :returns: the exit status
        """
        rounds = sorted(Path(self.directory).glob("many/*"))
        for env in [f"{self.directory}/shared", *(f"{each}/{{digest}}" for each in rounds)]:
            for want in SETS:
                for kind in ("plain", "sync"):
                    self.launch(kind, Order(self.directory, want, env, "plain", 0.0, 1, -1))
                    self.wait_for_quiet()
        for place in [Path(self.directory) / "shared", *(each for number in rounds for each in number.iterdir())]:
            self.violations += [
                f"{place}: {problem}" for problem in [*unverified(place), *unowned(place), *leftovers(place)]
            ]
        self.violations += lines(f"{self.directory}/violations.jsonl")
        self.count()
        for violation in self.violations:
            print(f"VIOLATION {violation}")
        print(json.dumps({**dict(sorted(self.tally.items())), "violations": len(self.violations)}))
        return 1 if self.violations else 0

    def count(self) -> None:
        """Add events and uv's outcomes to the tally, and print it."""
        for line in lines(f"{self.directory}/events.jsonl"):
            self.tally[f"event {json.loads(line)['event']}"] += 1
        for line in lines(f"{self.directory}/uv.jsonl"):
            status = json.loads(line)["status"]
            self.tally["uv " + ("done" if status == 0 else "killed" if status == -signal.SIGKILL else "failed")] += 1
        for pid in self.blamed:
            self.tally[f"blamed leader killed by {signal.Signals(self.ever_struck[pid]).name}"] += 1
        for name, number in sorted(self.tally.items()):
            print(f"{number:7} {name}")


def make_removable(directory: Path) -> None:
    """Let what lies below be removed: entries of the store are read-only."""
    for place, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)


def by_signal(code: int, struck: set[int], text: str) -> bool:
    """Tell whether a process ended by a signal of ours.

    A shell answers an interrupt of its child with 130, and Python one that comes while it starts with 1: it says so, or
    cannot make its streams.
    """
    interrupted = "KeyboardInterrupt" in text or "Fatal Python error: init_" in text
    starting = code == 1 and interrupted and "/envsync/" not in text
    return -code in struck or (signal.SIGINT in struck and (code == 130 or starting))


def is_envsync(pid: int) -> bool:
    """Tell whether a process is (still) envsync, and not the command that it became."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            return b"--lock" in words or FORKER.encode() in words
    except OSError:
        return False


def stat_fields(pid: str) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on: state, ppid, pgrp, ..."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2].split()
    except OSError:
        return ["", "0", "0"]


def members(group: int) -> list[int]:
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and stat_fields(pid)[2] == str(group)]


def descendants() -> list[int]:
    """Return all below this process."""
    parents = {int(pid): int(stat_fields(pid)[1]) for pid in os.listdir("/proc") if pid.isdigit()}
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def describe(pid: int) -> str:
    parts = [f"pid {pid}", *stat_fields(str(pid))[:3]]
    for name in ("cmdline", "wchan"):
        with contextlib.suppress(OSError):
            parts.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace").replace("\0", " "))
    return " ".join(parts)


def leftovers(env: Path) -> list[str]:
    """Name what a sync should have cleared away: journal, progress, temporary files, stages and trash."""
    found = [path.name for path in (env / ".envsync").iterdir() if LEFTOVERS.fullmatch(path.name)]
    for workspace in (env / ".envsync" / "work", site_packages(env) / ".envsync"):
        found += [f"{workspace.name}/{path.name}" for path in workspace.glob("*")]
    return [f"leftover: {name}" for name in found]


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if os.path.exists(path) else []


if __name__ == "__main__":
    sys.exit(main())
