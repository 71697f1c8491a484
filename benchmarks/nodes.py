"""Environments on the disks of the nodes of a Slurm, of what lies on a filesystem that they share.

    python benchmarks/nodes.py --lock LOCK --shared DIR --local DIR [--nodes 2] [--delays 0 1 5]

Every node makes the same environment at once, with an empty cache of its own: from a bundle, with its bytecode and
without, from a shared cache of unpacked wheels, and from a tar of the environment that `sbcast` brings. Counted are, by
strace, the system calls of a node that name the shared filesystem (all but those that no server could get to see:
close, mmap, lseek, fcntl, ioctl), and the bytes read from it. Timed is the slowest of the nodes, the ways in turns, and
the CPU time that one takes.

`sbatch`, `srun` and `sbcast` are on PATH, and so is the envsync that is measured, on each node. DIR is as the nodes see
it; `--shared-here` is the same directory as this host sees it. `--slower` is a shell command that makes each request to
the shared filesystem take {ms} ms longer; `--forget` is one that empties page caches, on each node.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

UNSEEN = frozenset({"close", "mmap", "munmap", "lseek", "fcntl", "ioctl"})
READS = frozenset({"read", "pread64", "readv", "preadv", "preadv2", "copy_file_range", "sendfile", "splice"})
STARTED = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<words>.*)")
RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>.* = (?P<result>\d+)")
RESULT = re.compile(r" = (\d+)(?: |$)")
OWN = re.compile(r"AT_FDCWD<[^>]*>")
"""The working directory, which strace shows whether or not a path is relative to it; none is here."""
MEGABYTE = 1e6
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Way:
    """One way to an environment.

    :param command: what a node does, for a shell: {shared} and {local} are its directories
    :param cast: what `sbcast` brings to {local} before, below {shared}
    :param most: the longest delay with which it is waited for, in ms
    """

    name: str
    command: str
    cast: str = ""
    most: float = 60


SYNC = "envsync sync -q --lock {shared}/%s/pylock.toml --env {local}/env --cache-dir %s%s"
COMPILED = " --compile-bytecode"
WAYS = (
    Way("a bundle", SYNC % ("bundle", "{local}/cache", "")),
    Way("a bundle with bytecode", SYNC % ("bundle", "{local}/cache", COMPILED)),
    Way("a bundle without, compiled on each node", SYNC % ("plain", "{local}/cache", COMPILED)),
    Way("a shared cache, unpacked", SYNC % ("bundle", "{shared}/cache", ""), most=1),
    Way("a shared cache, unpacked, with bytecode", SYNC % ("bundle", "{shared}/cache", COMPILED), most=1),
    Way("a tar of the environment by `sbcast`", "tar -xf {local}/env.tar -C {local}", cast="env.tar"),
    Way("a tar with bytecode by `sbcast`", "tar -xf {local}/compiled.tar -C {local}", cast="compiled.tar"),
)


@dataclass(frozen=True)
class Seen:
    """What one node did."""

    seconds: float
    cpu: float = 0
    calls: int = 0
    bytes: int = 0


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", help="what to lay out before; without it, that was done already")
    parser.add_argument("--find-links", nargs="*", default=[])
    parser.add_argument("--shared", required=True)
    parser.add_argument("--shared-here")
    parser.add_argument("--local", required=True)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--delays", type=float, nargs="*", default=[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-counts", action="store_true", help="leave strace out, which takes the longest")
    parser.add_argument("--slower", default="true", metavar="COMMAND")
    parser.add_argument("--forget", default="true", metavar="COMMAND")
    parser.add_argument("--ways", nargs="*", default=[""], help="parts of their names")
    parser.add_argument("--node", nargs=2, default=("", ""), metavar=("COMMAND", "TRACE"), help="be one of the nodes")
    asked = parser.parse_args()
    command, trace = asked.node
    if command or trace:
        print(json.dumps(on_a_node(command, trace, asked.shared)), flush=True)
        return
    lab = Lab(asked.shared, asked.shared_here or asked.shared, asked.local, asked.nodes, asked.slower, asked.forget)
    if asked.lock:
        lab.prepare(asked.lock, asked.find_links)
    ways = [way for way in WAYS if any(part in way.name for part in asked.ways)]
    table = lab.table(ways, asked.delays, asked.rounds, counting=not asked.no_counts)
    print(f"| from | calls | read | CPU | {' | '.join(f'+{ms:g} ms' for ms in asked.delays)} |")
    print(f"|---|---|---|---|{'---|' * len(asked.delays)}")
    for way, cells in table.items():
        print(f"| {' | '.join((way.name, *cells))} |")


class Lab:
    """The nodes, and what lies on their shared directory."""

    def __init__(self, shared: str, here: str, local: str, nodes: int, slower: str, forget: str) -> None:
        self.shared = shared
        self.here = here
        self.local = local
        self.nodes = nodes
        self.slower = slower
        self.forget = forget

    def prepare(self, lock: str, find_links: list[str]) -> None:
        """Lay out what the nodes make their environments of.

        :param find_links: directories of wheels, asked before any URL
        """
        local, bundle = f"{self.local}/prepared", f"{self.here}/bundle"
        cached = {"ENVSYNC_CACHE_DIR": f"{self.here}/cache"}
        wheels = [word for directory in find_links for word in ("--find-links", directory)]
        self._do("bundle", "--lock", lock, "--to", bundle, "--compile-bytecode", *wheels, **cached)
        self._do("bundle", "--lock", f"{bundle}/pylock.toml", "--to", f"{self.here}/plain", **cached)
        self._do("cache", "add", "--lock", f"{bundle}/pylock.toml", "--compile-bytecode", **cached)
        for name, option in (("env", []), ("compiled", ["--compile-bytecode"])):
            where = ("--env", f"{local}/env", "--cache-dir", f"{local}/cache")
            self._do("sync", "--lock", f"{bundle}/pylock.toml", *where, *option)
            subprocess.run(["tar", "-cf", f"{self.here}/{name}.tar", "-C", local, "env"], check=True)
            shutil.rmtree(local)

    def _do(self, *words: str, **variables: str) -> None:
        subprocess.run(["envsync", *words, "-q"], env={**os.environ, **variables}, check=True)

    def table(self, ways: list[Way], delays: list[float], rounds: int, *, counting: bool) -> dict[Way, list[str]]:
        """Measure ways, in turns.

        :returns: by way, the cells of its line
        """
        seen: dict[tuple[Way, float], list[list[Seen]]] = {}
        for ms in delays:
            for _ in range(rounds):
                for way in ways:
                    if ms <= way.most:
                        seen.setdefault((way, ms), []).append(self.run(way, ms))
        found = {}
        for way in ways:
            counted = self.run(way, 0, counting=True) if counting else []
            calls = f"{max(each.calls for each in counted):,}" if counted else ""
            read = f"{max(each.bytes for each in counted) / MEGABYTE:,.0f} MB" if counted else ""
            cpu = min(
                (each.cpu for (other, _), runs in seen.items() if other == way for run in runs for each in run),
                default=0,
            )
            times = [self._times(seen.get((way, ms), [])) for ms in delays]
            found[way] = [calls, read, f"{cpu:.1f} s", *times]
        return found

    def _times(self, runs: list[list[Seen]]) -> str:
        slowest = [max(each.seconds for each in run) for run in runs]
        return f"{', '.join(f'{seconds:.1f}' for seconds in slowest)} s" if slowest else "not waited for"

    def run(self, way: Way, ms: float, *, counting: bool = False) -> list[Seen]:
        """Have all nodes do it. The time that `sbcast` takes is in that of each node."""
        ended = f"{self.here}/ended"
        local = f"{self.local}/{os.urandom(4).hex()}"
        trace = f"{local}.trace" if counting else ""
        each = f"srun -N{self.nodes} --ntasks-per-node=1 --overcommit"
        command = way.command.format(shared=self.shared, local=local)
        me = shlex.join([sys.executable, f"{self.shared}/{os.path.basename(__file__)}"])
        lines = [
            "#!/bin/bash",
            "set -eu",
            f"trap 'echo $? >{self.shared}/.ended; mv {self.shared}/.ended {self.shared}/ended' EXIT",
            f"{each} sh -c {shlex.quote(f'mkdir -p {local}; sync; {self.forget}; {self._delayed(ms)}')}",
        ]
        if way.cast:
            cast = f"sbcast --force {self.shared}/{way.cast} {local}/{way.cast}"
            strace = f"strace -f -y -qq -o {trace}.cast " if counting else ""
            lines += ["start=$(date +%s.%N)", f"{strace}{cast}", 'echo "cast $(date +%s.%N) $start"']
            lines += [f"{me} --shared {self.shared} --local x --node '' {trace}.cast"] if counting else []
        node = ["--shared", self.shared, "--local", local, "--node", command, trace]
        lines += [
            f"{each} {me} {shlex.join(node)}",
            f"{each} sh -c {shlex.quote(f'rm -rf {local} {local}.*; {self._delayed(0)}')}",
        ]
        shutil.copy(__file__, self.here)
        script = f"{self.here}/job.sh"
        with open(script, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
        words = ["sbatch", f"-N{self.nodes}", "--overcommit", "-D", "/", "-o", f"{self.shared}/job.out", script]
        subprocess.run(words, capture_output=True, text=True, check=True)
        while not os.path.exists(ended):
            time.sleep(POLL_SECONDS)
        with open(f"{self.here}/job.out", encoding="utf-8") as file:
            said = file.read()
        with open(ended, encoding="utf-8") as file:
            if file.read().strip() != "0":
                sys.exit(f"{way.name}: {said}")
        os.unlink(ended)
        print(f"{way.name}, +{ms:g} ms{', counted' * counting}: {said}", file=sys.stderr)
        return list(self._seen(said))

    def _delayed(self, ms: float) -> str:
        return self.slower.format(ms=f"{ms:g}", shared=self.shared)

    def _seen(self, said: str) -> Iterator[Seen]:
        began = re.search(r"^cast (\S+) (\S+)$", said, re.MULTILINE)
        cast = float(began[1]) - float(began[2]) if began else 0.0
        for line in said.splitlines():
            if line.startswith("{"):
                seen = json.loads(line)
                yield Seen(seen["seconds"] + cast, seen["cpu"], seen["calls"], seen["bytes"])


def on_a_node(command: str, trace: str, shared: str) -> dict[str, object]:
    """Do it, and say how long it took, or what of it names the shared directory.

    :param command: for a shell; empty: what is in the trace was done already
    :param trace: a file for what strace says; empty: it is not traced
    """
    strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", "trace=%file,%desc", "-o", trace] if trace else []
    begun = time.perf_counter()
    if command:
        subprocess.run([*strace, "sh", "-c", command], check=True)
    seconds = time.perf_counter() - begun
    calls, read = counted(trace, shared) if trace else (0, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    return {"host": socket.gethostname(), "seconds": seconds, "cpu": cpu, "calls": calls, "bytes": read}


def counted(trace: str, shared: str) -> tuple[int, int]:
    """Count in a trace the calls that name a directory or what is below it, and the bytes that were read there."""
    calls = read = 0
    named = re.compile(rf'[<"]{re.escape(shared)}(/[^>"]*)?[>"]')
    reading: set[str] = set()
    """Processes in a read of which the result comes later in the trace."""
    with open(trace, encoding="utf-8", errors="replace") as file:
        for line in file:
            if (resumed := RESUMED.match(line)) and resumed["pid"] in reading:
                reading.discard(resumed["pid"])
                read += int(resumed["result"])
                continue
            call = STARTED.match(line)
            if call is None or call["name"] in UNSEEN or not named.search(OWN.sub("", call["words"])):
                continue
            calls += 1
            if call["name"] not in READS:
                continue
            if "<unfinished ...>" in line:
                reading.add(call["pid"])
            elif result := RESULT.search(line):
                read += int(result[1])
    return calls, read


if __name__ == "__main__":
    main()
