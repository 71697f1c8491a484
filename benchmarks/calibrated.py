"""Count what the steps of a task cost on a shared filesystem, and try the computed against real tasks there.

The filesystem counts its requests and delays each as it is told, by a file `.oddfs` at its root: reading it says
`count OPERATION NUMBER` in a line each, writing `delay=all:MS` to it delays. Its client may cache names and attributes
for a second. All is counted twice: *requests*, as that filesystem saw them, and *calls*, as strace saw them: system
calls that name the filesystem by a path or a descriptor, which is what a client without caches would send.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from contenders import Bench, Envsync, Uv
from measure import Command, MeasuringError, run, run_at_once, started
from operations import traced
from simulated import Costs, Queue, Work
from wake import held

from envsync.waiting import word

CONTROL = ".oddfs"
CHANGES = frozenset(
    {
        "chmod", "chown", "copy_file_range", "create", "fallocate", "fchmod", "fchmodat", "fchown", "fchownat",
        "fdatasync", "fsync", "ftruncate", "lchown", "link", "linkat", "mkdir", "mkdirat", "pwrite64", "removexattr",
        "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr", "symlink", "symlinkat", "truncate",
        "unlink", "unlinkat", "utimens", "utimensat", "write", "writev",
    }
)  # fmt: skip
LOCKS = frozenset(("flock", "lock"))
UNCOUNTED = frozenset(["close", "mmap", "munmap", "lseek", "fcntl", "ioctl", "release", "execve", "getcwd"])
"""Which ask no server, or keep nobody waiting."""
CALL = re.compile(r"^\d+ +(?P<time>\d+\.\d+) +(?P<name>\w+)\((?P<rest>.*)")
RELATIVE = re.compile(r'^(?:AT_FDCWD|\d+)<(?P<directory>[^>]*)>, "(?P<path>[^"/][^"]*)"')
CACHED_SECONDS = 1.0
IDLE_SECONDS = 2.5
"""After which the client's caches know nothing any more."""
BEGUN, WAITED = 4.0, 14.0
"""Seconds of a wait between which its looks are counted."""
POLL_SECONDS = 0.005
ROUNDS = 3
DELAYS = (1, 5)
TRIED_DELAY = 2
"""Milliseconds by which it is found how many requests are under way at once."""
COUNTS = (1, 4, 16, 64)


@dataclass(frozen=True)
class Mount:
    """A filesystem that counts and delays its requests."""

    root: str

    def counts(self) -> Counter[str]:
        """Return how many requests of each kind there were; `bytes` is what was read."""
        with open(os.path.join(self.root, CONTROL), encoding="utf-8") as file:
            lines = [line.split() for line in file]
        counted = Counter({words[1]: int(words[2]) for words in lines if words[0] == "count" and words[1] != "TOTAL"})
        counted["bytes"] = next(int(words[2]) for words in lines if words[:2] == ["bytes", "read"])
        return counted

    def delay(self, milliseconds: float) -> None:
        with open(os.path.join(self.root, CONTROL), "w", encoding="utf-8") as file:
            file.write(f"delay=all:{milliseconds:g}\n")

    @contextmanager
    def delayed(self, milliseconds: float) -> Any:
        self.delay(milliseconds)
        try:
            yield
        finally:
            self.delay(0)

    def latency(self) -> float:
        """Return how many seconds one request takes, the median of some."""
        times = []
        for number in range(300):
            begin = time.perf_counter()
            os.path.exists(os.path.join(self.root, f"there-is-no-{number}"))
            times.append(time.perf_counter() - begin)
        return statistics.median(times)


def mount_of(directory: str) -> Mount:
    """Find the root of the filesystem that a directory is on.

    :raises MeasuringError: it is not one that counts
    """
    root = os.path.realpath(directory)
    while not os.path.exists(os.path.join(root, CONTROL)):
        if root == "/":
            raise MeasuringError(f"`{directory}` is not on a filesystem that counts: it has no `{CONTROL}` at its root")
        root = os.path.dirname(root)
    return Mount(root)


def work_of(counted: Mapping[str, float], cpu: float = 0.0) -> Work:
    """Sort counted requests or calls by kind."""
    names = {name: number for name, number in counted.items() if name not in UNCOUNTED and name != "bytes"}
    changes = sum(number for name, number in names.items() if name in CHANGES)
    locks = sum(number for name, number in names.items() if name in LOCKS)
    looks = sum(names.values()) - changes - locks
    return Work(looks, changes, locks, cpu, float(counted.get("bytes", 0)))


@dataclass(frozen=True)
class Call:
    """A system call that names the filesystem."""

    time: float
    name: str
    rest: str


def calls_below(trace: str, root: str) -> list[Call]:
    """Read from a trace which calls name what is below a directory."""
    found = []
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            call = CALL.match(line)
            if call is None or call["name"] in UNCOUNTED:
                continue
            relative = RELATIVE.match(call["rest"])
            directory = f"{relative['directory']}/" if relative else ""
            is_named = f'"{root}/' in call["rest"] or f"<{root}/" in call["rest"].replace("AT_FDCWD<", "")
            if is_named or directory.startswith(f"{root}/"):
                changes = call["name"] == "openat" and "O_CREAT" in call["rest"]
                found.append(Call(float(call["time"]), "create" if changes else call["name"], call["rest"]))
    return found


def bytes_of(found: Iterable[Call]) -> int:
    """Sum up what was read."""
    sizes = (re.search(r"= (\d+)$", call.rest) for call in found if call.name in ("read", "pread64"))
    return sum(int(size[1]) for size in sizes if size)


class Counting:
    """Counts the steps of tasks on a mount.

    :param local: a directory of the node's own
    """

    def __init__(self, bench: Bench, mount: Mount, local: str) -> None:
        self.bench = bench
        self.mount = mount
        self.local = local

    def requests(self, command: Command) -> Work:
        """Run a command and count what the filesystem is asked."""
        before = self.mount.counts()
        outcome = run(command, self.bench.time_limit)
        return work_of(self.mount.counts() - before, outcome.cpu)

    def traced(self, command: Command) -> list[Call]:
        trace = os.path.join(self.local, "trace")
        run(traced(command, trace, "all"), self.bench.time_limit)
        return calls_below(trace, self.mount.root)

    def calls(self, command: Command) -> Work:
        """Run a command under strace and count its calls."""
        return sorted_by_kind(self.traced(command))

    def both(self, make: Callable[[], Command]) -> dict[str, Work]:
        """Count requests and calls of two runs."""
        requests = self.requests(make())
        # What is read of files that the kernel copies, strace does not say.
        return {"requests": requests, "calls": replace(self.calls(make()), cpu=requests.cpu, size=requests.size)}

    # envsync

    def launch(self, command: Command) -> dict[str, Work]:
        """Count a launch in a current environment: the first of a node, and one just after it."""
        run(command, self.bench.time_limit)
        time.sleep(IDLE_SECONDS)
        first, again = self.requests(command), self.requests(command)
        calls = replace(self.calls(command), cpu=again.cpu)
        return {"requests": first, "again": again, "calls": calls}

    def wait(self, command: Command, environment: str) -> dict[str, dict[str, Work]]:
        """Count a wait, from the start of the task to that of its command, for somebody who leads all the while.

        :returns: by step (`begin` with the launch before it, `look`, `enter`): requests and calls
        """
        calls = self.traced_wait(command, environment)
        with self.led(environment) as release:
            before, words = self.mount.counts(), self.looks()
            process = started(command)
            while self.looks() == words:
                time.sleep(POLL_SECONDS)
            begin, cpu = work_of(self.mount.counts() - before), cpu_of(process.pid)
            time.sleep(BEGUN)
            begun, words = self.mount.counts(), self.looks()
            time.sleep(WAITED - BEGUN)
            look = work_of(self.mount.counts() - begun) * (1 / max(1, self.looks() - words))
            released = release()
            used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(used[1])
            enter = work_of(self.mount.counts() - released) - look
        total = used[2].ru_utime + used[2].ru_stime
        # Its name it puts into the list only later: that is counted by the calls.
        begin = replace(begin + calls["enlist"], cpu=cpu)
        return {
            "begin": {"requests": begin, "calls": replace(calls["begin"] + calls["enlist"], cpu=cpu)},
            "look": {"requests": look, "calls": calls["look"]},
            "enter": {
                "requests": replace(enter, cpu=max(0.0, total - cpu)),
                "calls": replace(calls["enter"], cpu=max(0.0, total - cpu)),
            },
        }

    def traced_wait(self, command: Command, environment: str) -> dict[str, Work]:
        """Count the calls of a wait: until the first look, its name in the list, a look, and what comes at the end."""
        trace = os.path.join(self.local, "trace")
        with self.led(environment) as release:
            process = started(traced(command, trace, "all"))
            time.sleep(WAITED)
            release()
            freed = time.time()
            if process.wait():
                raise MeasuringError(f"`{command}` failed under strace")
        found = calls_below(trace, self.mount.root)
        looks = [call.time for call in found if is_look(call, environment)]
        over = next(when for when in looks if when >= freed)
        later = [when for when in looks if looks[0] + BEGUN <= when <= over]
        look = between(found, later[0], later[-1]) * (1 / max(1, len(later) - 1))
        earlier = between(found, looks[0], later[0])
        return {
            "begin": between(found, 0, looks[0]),
            "enlist": earlier - look * sum(when < later[0] for when in looks),
            "look": look,
            "enter": between(found, over, time.time()) - look,
        }

    @contextmanager
    def led(self, environment: str) -> Any:
        """Hold the environment lock, and keep the stamp aside until it is said that it is to be there again."""
        stamp = os.path.join(environment, ".envsync", "stamp")
        os.rename(stamp, f"{stamp}.aside")

        def release() -> Counter[str]:
            os.rename(f"{stamp}.aside", stamp)
            return self.mount.counts()

        try:
            with held(os.path.join(environment, ".lock")):
                yield release
        finally:
            if os.path.exists(f"{stamp}.aside"):
                os.rename(f"{stamp}.aside", stamp)

    def looks(self) -> int:
        """Return how many looks the one who waits on this node has said."""
        said = []
        for path in glob.glob(os.path.join(self.local, "envsync", "*.word")):
            with open(path, "rb") as file:
                said.append(word.load(file.read()))
        return max((each.count for each in said if each is not None), default=0)

    # uv

    def queued(self, make: Callable[[], Command], environment: str) -> dict[str, dict[str, Work]]:
        """Count a run of uv: before, while and after it holds the lock of the environment.

        What the filesystem is asked is shared out as the calls are.
        """
        requests = self.requests(make())
        found = self.traced(make())
        lock = os.path.join(environment, ".lock")
        taken = [
            at for at, call in enumerate(found) if call.name == "flock" and lock in call.rest and "_EX" in call.rest
        ]
        if not taken:
            raise MeasuringError(f"uv did not lock `{lock}`")
        freed = [
            at for at, call in enumerate(found) if call.name == "flock" and lock in call.rest and "_UN" in call.rest
        ]
        end = freed[-1] if freed else len(found) - 1
        parts = {"before": found[: taken[0]], "held": found[taken[0] : end + 1], "after": found[end + 1 :]}
        shares = {name: len(part) / len(found) for name, part in parts.items()}
        return {
            name: {
                "requests": requests * shares[name],
                "calls": replace(sorted_by_kind(part), cpu=requests.cpu * shares[name]),
            }
            for name, part in parts.items()
        }


def sorted_by_kind(found: Iterable[Call]) -> Work:
    found = list(found)
    return work_of({**Counter(call.name for call in found), "bytes": bytes_of(found)})


def between(found: Iterable[Call], begin: float, end: float) -> Work:
    return sorted_by_kind(call for call in found if begin <= call.time < end)


def is_look(call: Call, environment: str) -> bool:
    """Tell whether a call is the one by which a waiter looks for the stamp."""
    return "stat" in call.name and f'"{environment}/.envsync/stamp"' in call.rest


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and of those of its children that have ended (proc(5))."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# All steps of a set


class Tasks:
    """Tasks with one set of wheels on a mount: environments are missing, of an older lock file, or current.

    :param local: a directory of the node's own
    """

    def __init__(self, bench: Bench, local: str) -> None:
        self.bench = bench
        self.local = local
        self.envsync = Envsync(bench)
        older = replace(bench.wheels, lock=without_one(bench))
        self.older = Envsync(bench, older, cache=self.envsync.cache)
        self.uv = Uv(bench)
        self.bundle, self.older_bundle = bench.place.fresh("bundle"), bench.place.fresh("bundle")
        bench.prepare(self.own(self.envsync.sync(bench.place.fresh("fill"))))
        bench.prepare(self.uv.sync_cold(bench.place.fresh("fill"), self.uv.cache))
        bench.prepare(self.uv.sync(bench.place.fresh("fill")))
        found = ("--find-links", bench.wheels.wheelhouse, "--no-index")
        for envsync, bundle in ((self.envsync, self.bundle), (self.older, self.older_bundle)):
            words = ("bundle", "--lock", os.path.join(envsync.project, "pylock.toml"), "--to", bundle)
            bench.prepare(self.own(envsync._command(*words, *found)))

    def own(self, command: Command) -> Command:
        """Have those who wait meet in the directory of this node."""
        return replace(command, variables={**command.variables, "XDG_RUNTIME_DIR": self.local})

    def run(self, environment: str) -> Command:
        return self.own(self.envsync.run_and_sync(environment, "true"))

    def missing(self) -> Command:
        return self.run(self.bench.place.fresh("environment"))

    def stale(self) -> Command:
        environment = self.bench.place.fresh("environment")
        self.bench.prepare(self.own(self.older.sync(environment)))
        return self.run(environment)

    def from_cache(self, *, stale: bool = False) -> Command:
        """Make an environment on the node's own disk, or mend it, from the shared cache."""
        environment = self.here()
        if stale:
            self.bench.prepare(self.own(self.older.sync(environment)))
        return self.run(environment)

    def from_bundle(self, *, stale: bool = False) -> Command:
        """The same from a bundle, with a cache of the node's own."""
        environment = self.here()
        if stale:
            self.bench.prepare(self.bundled(self.older_bundle, environment))
        return self.bundled(self.bundle, environment)

    def here(self) -> str:
        return os.path.join(self.local, f"environment-{os.urandom(4).hex()}")

    def bundled(self, bundle: str, environment: str) -> Command:
        words = ("run", "--lock", os.path.join(bundle, "pylock.toml"), "--env", environment, "--", "true")
        command = self.own(self.envsync._command(*words, cache=f"{environment}.cache"))
        return replace(command, directory=self.local, variables={**command.variables, "PWD": self.local})

    def uv_stale(self) -> Command:
        environment = self.bench.place.fresh("uv-environment")
        self.bench.prepare(self.uv_run(environment))
        python, name = f"{environment}/bin/python", self.bench.wheels.wheels[-1].pin.partition("==")[0]
        self.bench.prepare(self.uv._command("pip", "uninstall", "--python", python, name, environment=environment))
        return self.uv_run(environment)

    def leads(self) -> dict[str, Callable[[], Command]]:
        """Return what makes an environment current, by what it does."""
        return {
            "cold": self.missing,
            "stale": self.stale,
            "from cache": self.from_cache,
            "from cache, stale": lambda: self.from_cache(stale=True),
            "from bundle": self.from_bundle,
            "from bundle, stale": lambda: self.from_bundle(stale=True),
            "uv cold": lambda: self.uv_run(self.bench.place.fresh("uv-environment")),
            "uv stale": self.uv_stale,
        }

    def uv_run(self, environment: str) -> Command:
        return self.uv.run_and_sync(environment, "true")


def without_one(bench: Bench) -> str:
    """Write a lock file without the last package of the set."""
    with open(bench.wheels.lock, encoding="utf-8") as file:
        head, mark, _ = file.read().rpartition("[[packages]]")
    if not mark:
        raise MeasuringError(f"`{bench.wheels.lock}` has no packages")
    return bench.place.write("pylock.toml", head)


def steps_of(bench: Bench, mount: Mount, local: str) -> dict[str, Any]:
    """Count all steps. Returns them by name: requests, calls, CPU seconds, bytes."""
    tasks, counting = Tasks(bench, local), Counting(bench, mount, local)
    environment = bench.place.fresh("environment")
    command = tasks.run(environment)
    run(command, bench.time_limit)
    steps: dict[str, dict[str, Work]] = {"launch": counting.launch(command)}
    here = tasks.from_bundle()
    run(here, bench.time_limit)
    steps["launch here"] = counting.launch(here)
    steps |= counting.wait(command, environment)
    for name, make in tasks.leads().items():
        steps[name] = counting.both(make)
    place = bench.place.fresh("uv-environment")
    run(tasks.uv_run(place), bench.time_limit)
    steps |= {f"uv {name}": part for name, part in counting.queued(lambda: tasks.uv_run(place), place).items()}
    return {name: {how: asdict(work) for how, work in step.items()} for name, step in steps.items()}


# What is tried


def real(bench: Bench, mount: Mount, local: str) -> dict[str, Any]:
    """Run tasks at once, with delays: how long it takes until the last command has started.

    :returns: latencies by delay, in seconds, and rows: what, delay in ms, number of tasks, seconds of each round
    """
    tasks = Tasks(bench, local)
    current, uv_current = bench.place.fresh("environment"), bench.place.fresh("uv-environment")
    run(tasks.run(current), bench.time_limit)
    run(tasks.uv_run(uv_current), bench.time_limit)
    cases: dict[str, Callable[[], Command]] = {
        "current": lambda: tasks.run(current),
        "cold": tasks.missing,
        "uv current": lambda: tasks.uv_run(uv_current),
        "uv cold": lambda: tasks.uv_run(bench.place.fresh("uv-environment")),
    }
    rows, latencies = [], {"0": mount.latency()}
    for delay in DELAYS:
        with mount.delayed(delay):
            latencies[str(delay)] = mount.latency()
            for name, make in cases.items():
                for count in COUNTS:
                    if name.startswith("uv") and count > 16:
                        continue
                    seconds = []
                    for _ in range(bench.rounds or ROUNDS):
                        command = make()
                        time.sleep(IDLE_SECONDS)
                        outcome = run_at_once(resolved(command), count, bench.time_limit)
                        if outcome.failures:
                            raise MeasuringError(f"{name}: {outcome.failures[0]}")
                        seconds.append(outcome.ends[-1])
                    rows.append({"what": name, "delay": delay, "tasks": count, "seconds": seconds})
                    print(rows[-1], flush=True)
    return {"latencies": latencies, "rows": rows}


def resolved(command: Command) -> Command:
    """Name the program by its path, for it is executed as it stands."""
    return replace(command, words=(shutil.which(command.words[0]) or command.words[0], *command.words[1:]))


def lanes_of(bench: Bench, mount: Mount, local: str) -> dict[str, float]:
    """Find how many requests of one leader are under way at once: by how much longer it takes if each takes longer."""
    tasks = Tasks(bench, local)
    environment, uv_environment = bench.place.fresh("environment"), bench.place.fresh("uv-environment")
    cases = tasks.leads()
    cases["launch"], cases["uv current"] = lambda: tasks.run(environment), lambda: tasks.uv_run(uv_environment)
    for name in ("launch", "uv current"):
        run(cases[name](), bench.time_limit)
    return {name: lanes_in(bench, mount, make) for name, make in cases.items()}


def lanes_in(bench: Bench, mount: Mount, make: Callable[[], Command]) -> float:
    taken, requests = [], 0.0
    for delay in (0, TRIED_DELAY):
        command = make()
        time.sleep(IDLE_SECONDS)
        with mount.delayed(delay):
            latency, before = mount.latency(), mount.counts()
            outcome = run(command, bench.time_limit)
            requests = work_of(mount.counts() - before).requests
            taken.append((outcome.seconds, latency))
    longer, slower = (more - less for less, more in zip(*taken, strict=True))
    return max(1.0, requests * slower / longer) if longer > 0 else 1.0


# Kept for what is computed of it


def costs(steps: Mapping[str, Any], how: str, lanes: Mapping[str, float], *, lead: str, here: bool = False) -> Costs:
    """Make of counted steps what a task costs.

    :param how: requests or calls
    :param lead: which step the leader does
    :param here: the environment is on the node's own disk
    """

    def work(name: str, kind: str = how) -> Work:
        step = steps[name]
        return replace(Work(**step.get(kind, step[how])), lanes=1.0)

    launch = work("launch here" if here else "launch")
    again = work("launch here" if here else "launch", "again") if how == "requests" else launch
    begin = work("begin") - work("launch")
    leads = replace(work(lead) - launch, lanes=lanes.get(lead, 1.0))
    look, enter = work("look"), work("enter")
    if here:  # all of it is on the node's own disk, and takes no more than CPU
        begin, look, enter = Work(cpu=begin.cpu), Work(), Work(cpu=enter.cpu)
    return Costs(launch, again, begin, look, enter, leads)


def queue(steps: Mapping[str, Any], how: str, lanes: Mapping[str, float], *, sync: str) -> Queue:
    """Make of counted steps what a run of uv costs.

    :param sync: which step the first one does
    """

    def work(name: str) -> Work:
        return replace(Work(**steps[name][how]), lanes=1.0)

    before, locked, after = (work(f"uv {name}") for name in ("before", "held", "after"))
    current = lanes.get("uv current", 1.0)
    syncs = replace(work(sync) - before - after, lanes=lanes.get(sync, 1.0))
    return Queue(before, replace(locked, lanes=current), syncs, after)
