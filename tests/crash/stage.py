"""Set the stage for a scenario: the cache and the environment as they are before the command, again and again.

The environment is restored from a template, which a sync made at the same path. Files are linked, so that the inode
of pyvenv.cfg is the same; the in-use lock cannot be, so the stamp is made out for the new one, as the sync would have.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envsync.checking import repair
from envsync.checking.repair import Checked
from envsync.launch import Environment, fast_lane, options, request, stamp
from envsync.launch.progress import quiet
from envsync.library import blocking
from envsync.python import interpreter
from envsync.staging.link import Linker
from envsync.store import trash
from envsync.system import forking
from tests.crash.harness import Kind, strike
from tests.crash.looking import Counter, Snapshot, cache_listing, difference, snapshot
from tests.crash.scenarios import ALL, CLEANING, NO_WHEELS, NOTHING, REPAIR, RUN, Scenario
from tests.environments import unverified
from tests.wheels import sha256_of

if TYPE_CHECKING:
    from envsync.launch.options import Settings


class Stage:
    """One scenario, in a directory of its own.

    :param root: the directory; is made
    :param wheels: the directory of wheels (`scenarios.build_wheels`)
    """

    def __init__(self, scenario: Scenario, root: Path, wheels: Path) -> None:
        Counter.arm()
        _be_steady(scenario)
        self.scenario = scenario
        self.root = root
        self.wheels = wheels
        self.env = root / "env"
        self.cache = root / "cache"
        self.template = root / "template"
        self.saved_cache = root / "saved"
        self.remembered: dict[str, int] = {}
        self.may_lack_bytecode = False
        root.mkdir()
        self.url = _serve(wheels) if scenario.served else ""
        self.locks: dict[tuple[str, ...], Path] = {}
        self.lock = self.aim(scenario.target)
        self.before = self._lock_file(scenario.before) if scenario.before is not None else None
        self._fill()
        self.restore()
        self.old = self.look() if self.is_current(self.before) else None
        blow = strike(self.arguments, 0, Kind("none"))
        assert blow.status == 0, blow.said
        assert blow.changes >= scenario.least, f"only {blow.changes} changes"
        self.changes = blow.changes
        self.kept_in_cache = cache_listing(self.cache)
        if scenario.verb in CLEANING:
            self.sync(self.lock)
        self.new = self.look()
        assert scenario.verb != REPAIR or self.new == snapshot(self.template, bytecode=self.compiles) != self.old
        self.disputed = set(unverified(self.env))  # shared files, of which one RECORD is right

    def aim(self, target: tuple[str, ...]) -> Path:
        """Let the command be for these wheels."""
        self.lock = self._lock_file(target)
        verb = self.scenario.verb
        request = () if verb in CLEANING else ("--lock", str(self.lock), "--env", str(self.env))
        quietly = () if verb in (*CLEANING, REPAIR) else ("-q",)
        command = ("--", *self.scenario.command) if verb == RUN else ()
        self.arguments = [*verb.split(), *request, *quietly, "--cache-dir", str(self.cache), *self.scenario.options]
        self.arguments += command
        return self.lock

    def restore(self) -> None:
        """Make everything as it was before the command."""
        if self.scenario.cache != ALL:
            shutil.rmtree(self.cache, ignore_errors=True)
        if self.scenario.cache not in (ALL, NOTHING):
            shutil.copytree(self.saved_cache, self.cache)
        self.reset_environment()
        if self.scenario.prepare is not None:
            self.scenario.prepare(self)

    def reset_environment(self) -> None:
        """Make the environment what it was when it was synced."""
        shutil.rmtree(self.env, ignore_errors=True)
        if self.before is None:
            return
        _copy(self.template, self.env)
        self.restamp()
        assert self.is_current(self.before)

    def restamp(self) -> None:
        """Let the stamp vouch for what is there now, and be old enough that nobody waits for it to be seen."""
        path = self.env / ".envsync" / "stamp"
        vouched = stamp.load(path.read_bytes())
        assert vouched is not None
        vouched.in_use = (self.env / ".envsync" / "in-use").stat().st_ino
        for site in vouched.sites:
            os.utime(site.path, (0, 1_600_000_000))
            status = os.stat(site.path)
            site.inode, site.mtime_ns = status.st_ino, status.st_mtime_ns
        path.write_bytes(stamp.dump(vouched))
        os.utime(path, (0, 1_700_000_000))

    # Before

    def _fill(self) -> None:
        """Fill the cache, and make the template."""
        if self.scenario.before is not None:
            self.sync(self.before)
            (self.env / ".envsync" / "failure.json").unlink(missing_ok=True)
            self.env.rename(self.template)
        self.sync(self.lock)
        shutil.rmtree(self.env)
        ignored = ("wheels", "targets", "bytecode") if self.scenario.cache == NO_WHEELS else ()
        shutil.copytree(self.cache, self.saved_cache, ignore=shutil.ignore_patterns(*ignored))

    def _lock_file(self, keys: tuple[str, ...]) -> Path:
        if keys not in self.locks:
            self.locks[keys] = path = self.root / f"pylock.{len(self.locks)}.toml"
            path.write_text('lock-version = "1.0"\ncreated-by = "tests"\n' + "".join(map(self._package, keys)))
        return self.locks[keys]

    def _package(self, key: str) -> str:
        name, _, version = key.rpartition("-")
        path = self.wheels / f"{key}-py3-none-any.whl"
        hashes = f'{{ sha256 = "{sha256_of(path)}" }}'
        place = f'url = "{self.url}/{path.name}"' if self.scenario.served else f'path = "{path}"'
        wheel = f"{{ {place}, size = {path.stat().st_size}, hashes = {hashes} }}"
        return f'[[packages]]\nname = "{name.replace("_", "-")}"\nversion = "{version}"\nwheels = [{wheel}]\n'

    def sync(self, lock: Path | None) -> str:
        assert lock is not None
        settings = self._settings(lock)
        return blocking.run(request.resolve(settings, {}), report=quiet).outcome

    def check(self) -> Checked:
        """Verify the environment, as `envsync check` does."""
        return repair.check(repair.request_of(self._settings(self.lock), str(self.env)), self._environment(), quiet)

    def repair(self) -> Checked:
        """Verify and repair the environment, as `envsync check --repair` does."""
        settings = self._settings(self.lock)
        how = repair.request_of(settings, str(self.env))
        return repair.check_and_repair(how, request.resolve(settings, {}), self._environment(), quiet)

    def _environment(self) -> Environment:
        return Environment(str(self.env))

    def _settings(self, lock: Path) -> Settings:
        parsed = options.parse(self.scenario.options, options.RUN)
        own = parsed[0] if parsed is not None and self.scenario.verb not in CLEANING else {}
        return {"lock": str(lock), "env": str(self.env), "cache_dir": str(self.cache), "timeout": 20.0, **own}

    @property
    def compiles(self) -> bool:
        """Bytecode is to be there, too."""
        return "--compile-bytecode" in self.scenario.options

    def look(self) -> Snapshot:
        """Take down what is in the environment."""
        return snapshot(self.env, bytecode=self.compiles)

    def differs(self, expected: Snapshot) -> str:
        """Say how the environment differs from that; empty if it does not."""
        both = expected, self.look()
        if self.may_lack_bytecode:
            both = tuple({name: value for name, value in each.items() if not name.endswith(".pyc")} for each in both)
        return difference(*both)

    def is_current(self, lock: Path | None) -> bool:
        if lock is None:
            return False
        entry = fast_lane.enter(request.resolve(self._settings(lock), {}), self._environment())
        if entry is not None:
            os.close(entry.fd)
        return entry is not None


def _copy(template: Path, env: Path) -> None:
    """Restore an environment: state is copied, all else linked; times are kept."""
    env.mkdir()
    for directory, names, entries in os.walk(template):
        relative = directory[len(str(template)) :]
        for name in names:
            if not os.path.islink(f"{directory}/{name}"):
                os.mkdir(f"{env}{relative}/{name}")
        for name in [*entries, *(name for name in names if os.path.islink(f"{directory}/{name}"))]:
            source, destination = f"{directory}/{name}", f"{env}{relative}/{name}"
            if relative == "/.envsync" or name == ".lock":
                shutil.copy2(source, destination)
            else:
                os.link(source, destination, follow_symlinks=False)


def _serve(directory: Path) -> str:
    """Serve wheels from a thread as long as this process lives. Returns the URL."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(directory))

        def copyfile(self, source: Any, outputfile: Any) -> None:
            body = source.read()
            outputfile.write(body[: len(body) // 2])
            outputfile.flush()
            time.sleep(0.02)  # so that there is something to wait for
            outputfile.write(body[len(body) // 2 :])

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # whoever downloads was killed

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def _refuse(*_: object) -> None:
    raise BlockingIOError("no more processes")


def _be_steady(scenario: Scenario) -> None:
    """Let a command make the same changes in the same order, every time, and not ask the same Python again and again.

    Not to be undone: for a process of one's own.
    """
    trash.LEFTOVER_SECONDS = -1  # what is in tmp was left there yesterday
    if not scenario.forks:
        share = forking.share
        forking.share = lambda count, work, *, children=1, tell=lambda _: None: share(
            count, work, children=0, tell=tell
        )
        forking.can_share = lambda count: count > 0
        forking.start = _refuse
        assert Linker.run.__globals__["forking"] is forking
    if scenario.cache != NOTHING:
        ask, answers = interpreter._ask, {}

        def remember(executable: str) -> dict[str, object]:
            config = Path(executable).parent.parent / "pyvenv.cfg"
            key = (executable, config.read_bytes() if config.exists() else b"")
            if key not in answers:
                answers[key] = json.dumps(ask(executable))
            return dict(json.loads(answers[key]))

        interpreter._ask = remember
