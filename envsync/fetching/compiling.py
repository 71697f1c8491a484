"""Compile wheels of the store into bytecode: once for each kind of interpreter, by children of the target itself.

Each child is given a batch of a directory's sources, and the next one before it is done with that, for on a busy
machine we may be late (`envsync.fetching.compile_child`). It answers in order, so that it is always known which file
one of them died at: that one is tried once more, and is then left without bytecode, until the next sync that compiles
tries again. What killed them may have been the kernel, for want of memory. What does not compile is no failure; Python
says it to whoever imports it.

Children have no descriptors but their pipes and the environment lock, which whoever writes for a leader holds. They
end when their input does, so that nobody waits for a dead leader's children for longer than one file takes.

A lock per wheel only avoids doing the work twice: a wheel that another process compiles is put off until all others
are done. Locks are kept to a few files: two wheels may have one in common.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from envsync.errors import FilesystemError, InterpreterError, LockingError
from envsync.errors.hints import AGAIN
from envsync.fetching import compile_child
from envsync.fetching.compile_work import BATCH_FILES, Batch, Work
from envsync.launch.progress import Report
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.python.facts import Interpreter
from envsync.store.bytecode import Compiled, Shelf, sources
from envsync.store.store import Store
from envsync.system import native, processes
from envsync.wheel.manifest import Manifest

MOST_CHILDREN = 8
ALIVE_SECONDS = 0.25
"""Between two reports: they are signs of life, and the moments at which a sync can be cancelled."""
POLL_SECONDS = 0.05
"""Between two looks at what others compile."""
LOCKS = 64


def compile_wheels(
    manifests: Iterable[Manifest],
    interpreter: Interpreter,
    store: Store,
    *,
    inherited: Sequence[int] = (),
    report: Report,
    children: int | None = None,
) -> dict[str, Compiled]:
    """Bring the bytecode of wheels into the store, as far as it is not there.

    :param interpreter: the target, which is run
    :param inherited: descriptors that the children have to hold as long as they live
    :param children: how many; default: as many as processors, 8 at most
    :returns: the bytecode of all that have sources, by the wheel's sha256
    :raises ChangedSourceError: a store entry has been changed
    :raises InterpreterError: the interpreter does not run, or is another one than it was
    :raises FilesystemError: the store cannot be written
    """
    shelf = Shelf(store, interpreter.bytecode)
    found, missing = shelf.find(manifests)
    if missing:
        store.prepare()
        store.sweep()
        wanted = children or min(MOST_CHILDREN, processes.processors())
        pool = _Pool(interpreter, inherited, min(wanted, -(-sum(map(_count, missing)) // BATCH_FILES)))
        found |= _Compilation(missing, _Queue(missing, shelf), pool, report).run()
    return found


def _isolated(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables that keep Python to itself, as `-I` does, which would ignore the one that is set here.

    Before 3.11, it still finds modules beside its script: none of these is called like one of Python's.
    Up to 3.10, the order in which a set of strings is written to bytecode comes from their hashes: the same source is
    to give the same bytes (https://github.com/python/cpython/issues/81777).
    """
    others = {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
    return {**others, "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}


class _Child:
    """A process of the target interpreter, and what it is doing."""

    def __init__(self, interpreter: Interpreter, inherited: Sequence[int]) -> None:
        self.executable = interpreter.executable
        self.expected = [interpreter.cache_tag, interpreter.magic]
        self.batches: deque[Batch] = deque()
        self.answered = 0
        """Of the first batch."""
        self.greeted = False
        self.rest = b""
        words = [self.executable, "-s", "-S", "-B", "-W", "ignore", "-X", f"utf8={sys.flags.utf8_mode}"]
        try:
            self.process = subprocess.Popen(
                [*words, compile_child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_isolated(os.environ),
                **native.inherit(inherited),
            )
        except OSError as error:
            raise InterpreterError(f"cannot run Python `{self.executable}`: {error.strerror}") from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()

    def takes(self, request: bytes) -> bool:
        """Tell whether it can be asked without waiting: it is reading, or its pipe is empty and has room."""
        if not self.greeted:
            return False
        return not self.batches or (len(self.batches) < 2 and len(request) <= native.PIPE_BUF)

    def ask(self, batch: Batch, data: bytes) -> None:
        """Give it something to do that it takes."""
        self.batches.append(batch)
        try:
            while data:
                data = data[os.write(self.input, data) :]
        except BrokenPipeError:
            pass  # it died: its end is read next

    def read(self) -> Iterator[list[Any]]:
        """Read its answers, as many as there are.

        :raises EOFError: it has ended
        """
        data = os.read(self.output, 1 << 16)
        if not data:
            raise EOFError
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if self.greeted:
                yield answer
            elif answer != self.expected:
                raise InterpreterError(f"`{self.executable}` is another Python than it was", hint=AGAIN)
            self.greeted = True

    def count(self) -> None:
        """Count an answer; the next is to the batch that comes then."""
        self.answered += 1
        if self.answered == len(self.batches[0].names):
            self.batches.popleft()
            self.answered = 0

    def end(self) -> int:
        """End it. Returns its exit status."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait()


class _Pool:
    """The children.

    :param most: so many are of use
    """

    def __init__(self, interpreter: Interpreter, inherited: Sequence[int], most: int) -> None:
        self.interpreter = interpreter
        self.inherited = inherited
        self.most = most
        self.children: list[_Child] = []

    @property
    def is_full(self) -> bool:
        return len(self.children) >= self.most

    @property
    def is_busy(self) -> bool:
        """Whether any of them has something to do, or is still being started."""
        return any(child.batches or not child.greeted for child in self.children)

    def grow(self) -> None:
        """Start one more."""
        self.children.append(_Child(self.interpreter, self.inherited))

    def ready(self) -> list[_Child]:
        """Return those that have something to say; waits for that, not for long."""
        ready = native.readable([child.output for child in self.children], ALIVE_SECONDS)
        return [child for child in self.children if child.output in ready]

    def bury(self, child: _Child) -> int:
        """Go on without a child that has died. Returns its exit status.

        :raises InterpreterError: it never lived
        """
        self.children.remove(child)
        status = child.end()
        if not child.greeted:
            raise InterpreterError(f"Python `{child.executable}` does not run (exit status {status})")
        return status

    def close(self) -> None:
        """End them all."""
        for child in self.children:
            child.end()


class _Queue:
    """The wheels that nobody here has begun with, the largest first: one begun last would be waited for by all."""

    def __init__(self, manifests: Sequence[Manifest], shelf: Shelf) -> None:
        self.wheels = deque(sorted(manifests, key=_count, reverse=True))
        self.shelf = shelf
        self.awaited: set[str] = set()
        """Wheels that another process was compiling: what it could not do is not tried again at once."""

    def take(self) -> Work | Compiled | None:
        """Take a wheel that nobody else compiles: as work, or what became of it if somebody has done it meanwhile.

        None: there is no such wheel at the moment.
        """
        for _ in range(len(self.wheels)):
            manifest = self.wheels.popleft()
            lock, is_free = self._lock(manifest)
            compiled = self.shelf.get(manifest.sha256, manifest.mtime)
            if compiled is not None and (not compiled.died or (is_free and manifest.sha256 in self.awaited)):
                if lock is not None:
                    lock.release()
                return compiled
            if is_free:
                return Work(manifest, self.shelf, lock, compiled)
            self.wheels.append(manifest)
            self.awaited.add(manifest.sha256)
        return None

    def _lock(self, manifest: Manifest) -> tuple[Flock | None, bool]:
        """Try to lock a wheel. Returns the lock, if it works here, and whether nobody else has it."""
        try:
            lock = flock.acquire_nowait(self._lock_path(manifest), shared=False)
        except (LockingError, FilesystemError):
            return None, True  # then the work may be done twice
        return lock, lock is not None

    def _lock_path(self, manifest: Manifest) -> str:
        return f"{self.shelf.store.locks}/bytecode-{int(manifest.sha256[:8], 16) % LOCKS}"

    def whoever_compiles(self) -> str:
        """Name a process that compiles one of the wheels that are left, if it is on this host."""
        pids = processes.holders(self._lock_path(self.wheels[0]))
        return f"pid {pids[0]}" if pids else "another sync"


class _Compilation:
    """Compiles some wheels.

    :ivar sources: how many a wheel has, by its sha256; `done`: of how many of all it is known what became of them
    """

    def __init__(self, manifests: Sequence[Manifest], queue: _Queue, pool: _Pool, report: Report) -> None:
        self.sources = {manifest.sha256: _count(manifest) for manifest in manifests}
        self.queue = queue
        self.pool = pool
        self.report = report
        self.done = 0
        self.batches: deque[Batch] = deque()
        self.begun: list[Work] = []
        self.found: dict[str, Compiled] = {}

    def run(self) -> dict[str, Compiled]:
        """Compile all, or wait until others have."""
        total = sum(self.sources.values())
        self.report("compiling", 0, total)
        try:
            while self._feed() or self.begun:
                if self.pool.is_busy:
                    self.report("compiling", self.done, total)
                    self._listen()
                else:
                    self.report(f"waiting for {self.queue.whoever_compiles()} to compile", self.done, total)
                    time.sleep(POLL_SECONDS)
        finally:
            self.pool.close()
            for work in self.begun:
                work.close()
        return self.found

    def _feed(self) -> bool:
        """Give the children something to do. Returns whether anything is left that nobody here does."""
        while not self.pool.is_full and (self.batches or self._begin_next()):
            self.pool.grow()
        for depth, child in ((depth, child) for depth in (1, 2) for child in self.pool.children):
            if len(child.batches) < depth and (self.batches or self._begin_next()):
                request = self.batches[0].work.request(self.batches[0])
                if child.takes(request):
                    child.ask(self.batches.popleft(), request)
        return bool(self.batches or self.queue.wheels)

    def _begin_next(self) -> bool:
        """Begin with a wheel that nobody else compiles. Returns False if there is none at the moment."""
        while (taken := self.queue.take()) is not None:
            if isinstance(taken, Work):
                self.begun.append(taken)
                self.batches.extend(taken.begin())
                self.done += self.sources[taken.manifest.sha256] - taken.left
                return True
            self.found[taken.sha256] = taken
            self.done += self.sources[taken.sha256]
        return False

    def _listen(self) -> None:
        for child in self.pool.ready():
            try:
                for answer in child.read():
                    batch = child.batches[0]
                    batch.work.take(batch, answer)
                    child.count()
                    self.done += 1
                    self._finish_if_done(batch.work)
            except EOFError:
                self._bury(child)

    def _finish_if_done(self, work: Work) -> None:
        if not work.left:
            self.begun.remove(work)
            self.found[work.manifest.sha256] = work.finish()

    def _bury(self, child: _Child) -> None:
        """Have done by others what a child has died over, but for what it died of if that happens again."""
        status = self.pool.bury(child)
        if not child.batches:
            return
        batch = child.batches.popleft()
        self.batches.extendleft(child.batches)
        first, rest = batch.names[child.answered], batch.names[child.answered + 1 :]
        if batch.again and not child.answered:
            batch.work.give_up(batch, first, f"the compiler died of it (exit status {status})")
            self.done += 1
        else:
            self.batches.appendleft(batch._replace(names=[first], again=True))
        if rest:
            self.batches.appendleft(batch._replace(names=rest, again=False))
        self._finish_if_done(batch.work)


def _count(manifest: Manifest) -> int:
    return sum(len(names) for _, _, names in sources(manifest))
