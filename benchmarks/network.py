"""network, index: make one environment that is missing from wheels that are fetched over HTTPS, cache empty.

Both read one uv.lock with URLs, sizes and hashes, made by `uv lock` before: envsync with `sync --lock uv.lock`, uv with
`sync --frozen`. `network` has an index on loopback (see index_server.py), whose answers are counted, and whose CPU time
is measured, for it shares the CPUs with who is measured. Counts are of one run more, under strace. `index` takes the
same pins from the index that is configured for uv or pip on the machine, or else from uv's default; it is left out,
with the reason, if that does not have them. What an index far away keeps ready may change from round to round.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from contenders import ENVSYNC, PYTHON_OPTION, UV, Bench, project_of
from index_server import IndexServer, Served, index_server
from measure import Command, CommandFailedError, MeasuringError, Outcome, Row, alternate, rows_of, run
from operations import FILES_AND_LOCKS, Operations, count_operations, has_strace

NETWORK_VARIABLES = ("SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC")
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")
"""What these begin with: uv has variables for the user and the password of each index."""
MEGABYTE = 1e6
WARM_UP = 1


class Locked:
    """A project with a uv.lock that both read, made from an index.

    :param variables: which index, and how it is reached
    :raises CommandFailedError: there is nothing to lock, or no network
    """

    def __init__(self, bench: Bench, variables: Mapping[str, str]) -> None:
        self.bench = bench
        self.variables = variables
        self.project = bench.place.fresh_directory("project")
        with open(os.path.join(self.project, "pyproject.toml"), "w", encoding="utf-8") as file:
            file.write(project_of(bench.wheels))
        bench.prepare(self._uv("lock"))

    def envsync(self) -> Command:
        environment, cache = self._fresh(ENVSYNC)
        lock = os.path.join(self.project, "uv.lock")
        return self.bench.command(
            self.bench.envsync,
            *("sync", "--lock", lock, "--env", environment, "--link-mode", "hardlink"),
            directory=self.project,
            **{
                "ENVSYNC_CACHE_DIR": cache,
                "ENVSYNC_NO_CONFIG": "1",  # with the user's home, for netrc, come the user's options
                PYTHON_OPTION: self.bench.python,
                **self.variables,
            },
        )

    def uv(self) -> Command:
        return self._uv("sync", "--frozen")

    def _uv(self, *words: str) -> Command:
        environment, cache = self._fresh(UV)
        return self.bench.command(
            self.bench.uv,
            *words,
            directory=self.project,
            **{
                "UV_CACHE_DIR": cache,
                "UV_PROJECT_ENVIRONMENT": environment,
                "UV_PYTHON": self.bench.python,
                "UV_PYTHON_DOWNLOADS": "never",
                "UV_LINK_MODE": "hardlink",
                **self.variables,
            },
        )

    def _fresh(self, who: str) -> tuple[str, str]:
        return self.bench.place.fresh(f"{who}-environment"), self.bench.place.fresh(f"{who}-cache")

    def commands(self) -> dict[str, Callable[[], Command]]:
        known = {ENVSYNC: self.envsync, UV: self.uv}
        return {who: known[who] for who in self.bench.chosen if who in known}


def network(bench: Bench) -> list[Row]:
    """Sync from an index on loopback."""
    require(bench)
    with index_server(bench.place, bench.wheels.wheels) as server:
        variables = {"UV_DEFAULT_INDEX": server.url, "SSL_CERT_FILE": server.certificates}
        commands = Locked(bench, variables).commands()
        seen: dict[str, list[Served]] = {who: [] for who in commands}
        timed = {who: partial(observed, bench, server, command, seen[who]) for who, command in commands.items()}
        outcomes = alternate("network", timed, bench.rounds or 5, warm_up=WARM_UP)
        rows = rows_of("network", outcomes, "s")
        switches = {who: [outcome.switches for outcome in several] for who, several in outcomes.items()}
        rows.append(Row("network: voluntary context switches", "n", switches))
        return rows + rows_of_server({who: done[WARM_UP:] for who, done in seen.items()}) + counted(bench, commands)


def observed(bench: Bench, server: IndexServer, command: Callable[[], Command], seen: list[Served]) -> Outcome:
    """Measure one run, and append what the server did for it."""
    before = server.served
    outcome = once(bench, command)
    seen.append(server.served - before)
    return outcome


def rows_of_server(seen: Mapping[str, Sequence[Served]]) -> list[Row]:
    kinds: dict[str, tuple[str, Callable[[Served], float]]] = {
        "CPU of the server": ("s", lambda done: done.cpu),
        "requests": ("n", lambda done: done.requests),
        "bytes": ("MB", lambda done: done.bytes / MEGABYTE),
    }
    return [
        Row(f"network: {what}", unit, {who: [of(done) for done in several] for who, several in seen.items()})
        for what, (unit, of) in kinds.items()
    ]


def once(bench: Bench, command: Callable[[], Command]) -> Outcome:
    """Measure a command on paths of its own, after everything written before is on the disk."""
    prepared = command()
    os.sync()
    return run(prepared, bench.time_limit)


def counted(bench: Bench, commands: Mapping[str, Callable[[], Command]]) -> list[Row]:
    """Count file operations, and by themselves the calls of threads that wait for one another or wake one.

    The latter are more the slower the threads are, as the switches are: nothing else is traced beside them.
    """
    if not has_strace("network: file operations"):
        return []

    def count(of: Callable[[], Command], what: str) -> Operations:
        return count_operations(of(), (), bench.place.fresh("trace"), bench.time_limit, what)

    files = {who: [count(command, FILES_AND_LOCKS).everywhere] for who, command in commands.items()}
    futexes = {who: [count(command, "futex").names["futex"]] for who, command in commands.items()}
    return [Row("network: file operations", "n", files), Row("network: futex calls", "n", futexes)]


def index(bench: Bench) -> list[Row]:
    """Sync from the index that the machine is configured for."""
    require(bench)
    try:
        commands = Locked(bench, configured(bench)).commands()
    except CommandFailedError as error:
        print(f"index: skipped, for no index has what is pinned: {error}", file=sys.stderr)
        return []
    timed = {who: partial(once, bench, command) for who, command in commands.items()}
    return rows_of("index", alternate("index", timed, bench.rounds or 3, warm_up=WARM_UP), "s")


def require(bench: Bench) -> None:
    """Refuse to begin what cannot be measured: uv makes the lock file, and every round fills two caches."""
    if not bench.uv:
        raise MeasuringError("uv is needed to make the lock file\nhint: do not leave it out with --only")
    rounds = (bench.rounds or 5) + 2
    bench.place.require_space(rounds * len(bench.chosen) * bench.wheels.unpacked_size)


def configured(bench: Bench) -> dict[str, str]:
    """Return the variables by which this machine reaches its index, and the user's home for all that is in files.

    If uv is told nothing by variables, pip's index counts, as configured by variable or file.
    """
    told = {name: value for name, value in os.environ.items() if name.startswith(INDEX_VARIABLES)}
    reached = [name for known in NETWORK_VARIABLES for name in (known, known.lower())]
    variables = {**told, **{name: os.environ[name] for name in ("HOME", *reached) if name in os.environ}}
    if not told:
        words = (bench.python, "-m", "pip", "config", "get", "global.index-url")
        said = subprocess.run(words, capture_output=True, text=True, check=False)
        url = os.environ.get("PIP_INDEX_URL") or said.stdout.strip()
        if url:
            variables["UV_DEFAULT_INDEX"] = url
    return variables
