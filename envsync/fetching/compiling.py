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
import select
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from envsync.system import processes
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
        found |= _Compilation(missing, interpreter, shelf, inherited, report, children).run()
    return found


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
        words = [self.executable, "-I", "-S", "-B", "-W", "ignore", "-X", f"utf8={sys.flags.utf8_mode}"]
        try:
            self.process = subprocess.Popen(
                [*words, compile_child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
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
        return not self.batches or (len(self.batches) < 2 and len(request) <= select.PIPE_BUF)

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

    def end(self) -> int:
        """End it. Returns its exit status."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait()


class _Compilation:
    """Compiles some wheels."""

    def __init__(  # noqa: PLR0917
        self,
        manifests: Sequence[Manifest],
        interpreter: Interpreter,
        shelf: Shelf,
        inherited: Sequence[int],
        report: Report,
        children: int | None,
    ) -> None:
        # The largest first: one begun last would be waited for by all.
        self.wheels = deque(sorted(manifests, key=_count, reverse=True))
        self.interpreter = interpreter
        self.shelf = shelf
        self.inherited = inherited
        self.report = report
        self.total = sum(map(_count, manifests))
        self.done = 0
        wanted = children or min(MOST_CHILDREN, processes.processors())
        self.most = min(wanted, -(-self.total // BATCH_FILES))
        self.batches: deque[Batch] = deque()
        self.begun: list[Work] = []
        self.children: list[_Child] = []
        self.selector = selectors.DefaultSelector()
        self.found: dict[str, Compiled] = {}
        self.awaited: set[str] = set()
        """Wheels that another process was compiling: what it could not do is not tried again at once."""

    def run(self) -> dict[str, Compiled]:
        """Compile all, or wait until others have."""
        self.report("compiling", 0, self.total)
        try:
            while self._feed() or self.begun:
                if any(child.batches or not child.greeted for child in self.children):
                    self.report("compiling", self.done, self.total)
                    self._listen()
                else:
                    self.report(f"waiting for {self._whoever_compiles()} to compile", self.done, self.total)
                    time.sleep(POLL_SECONDS)
        finally:
            for child in self.children:
                child.end()
            for work in self.begun:
                work.close()
            self.selector.close()
        return self.found

    def _feed(self) -> bool:
        """Give the children something to do. Returns whether anything is left that nobody here does."""
        while len(self.children) < self.most and (self.batches or self._begin_next()):
            child = _Child(self.interpreter, self.inherited)
            self.children.append(child)
            self.selector.register(child.output, selectors.EVENT_READ, child)
        for depth, child in ((depth, child) for depth in (1, 2) for child in self.children):
            if len(child.batches) < depth and (self.batches or self._begin_next()):
                request = self.batches[0].work.request(self.batches[0])
                if child.takes(request):
                    child.ask(self.batches.popleft(), request)
        return bool(self.batches or self.wheels)

    def _begin_next(self) -> bool:
        """Begin with a wheel that nobody else compiles. Returns False if there is none at the moment."""
        for _ in range(len(self.wheels)):
            manifest = self.wheels.popleft()
            lock, is_free = self._lock(manifest)
            compiled = self.shelf.get(manifest.sha256, manifest.mtime)
            is_new = compiled is not None and (not compiled.died or (is_free and manifest.sha256 in self.awaited))
            if compiled is not None and is_new:  # somebody has done it in the meantime
                if lock is not None:
                    lock.release()
                self.found[manifest.sha256] = compiled
                self.done += _count(manifest)
            elif not is_free:
                self.wheels.append(manifest)
                self.awaited.add(manifest.sha256)
            else:
                work = Work(manifest, self.shelf, lock, compiled)
                self.begun.append(work)
                self.batches.extend(work.begin())
                self.done += _count(manifest) - work.left
                return True
        return False

    def _lock(self, manifest: Manifest) -> tuple[Flock | None, bool]:
        """Try to lock a wheel. Returns the lock, if it works here, and whether nobody else has it."""
        try:
            lock = flock.acquire_nowait(self._lock_path(manifest), shared=False)
        except (LockingError, FilesystemError):
            return None, True  # then the work may be done twice
        return lock, lock is not None

    def _lock_path(self, manifest: Manifest) -> str:
        return f"{self.shelf.store.locks}/bytecode-{int(manifest.sha256[:8], 16) % LOCKS}"

    def _whoever_compiles(self) -> str:
        """Name a process that compiles one of the wheels that are left, if it is on this host."""
        pids = processes.holders(self._lock_path(self.wheels[0]))
        return f"pid {pids[0]}" if pids else "another sync"

    def _listen(self) -> None:
        """Wait for answers, not for long."""
        for key, _ in self.selector.select(ALIVE_SECONDS):
            child: _Child = key.data
            try:
                for answer in child.read():
                    self._take(child, answer)
            except EOFError:
                self._bury(child)

    def _take(self, child: _Child, answer: list[Any]) -> None:
        batch = child.batches[0]
        batch.work.take(batch, answer)
        child.answered += 1
        self.done += 1
        if child.answered == len(batch.names):
            child.batches.popleft()
            child.answered = 0
        self._finish_if_done(batch.work)

    def _finish_if_done(self, work: Work) -> None:
        if not work.left:
            self.begun.remove(work)
            self.found[work.manifest.sha256] = work.finish()

    def _bury(self, child: _Child) -> None:
        """Go on without a child that has died.

        :raises InterpreterError: it never lived
        """
        self.selector.unregister(child.output)
        self.children.remove(child)
        status = child.end()
        if not child.greeted:
            raise InterpreterError(f"Python `{child.executable}` does not run (exit status {status})")
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
