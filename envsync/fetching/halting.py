"""End what threads are doing that wait for the network: a blocking read has no other end than its connection's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from envsync.fetching.floor import Floor


class HaltedError(Exception):
    """What a thread was doing was ended from outside."""


class Halt:
    """By what all downloads of a process are ended, from any thread.

    A thread that reads is woken up, for its connection is shut down. One that looks up a name or makes a connection
    is not: it ends when that does, or fails.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.floor = Floor()
        self._mutex = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def check(self) -> None:
        """:raises HaltedError: it has been asked for"""
        if self._asked.is_set():
            raise HaltedError

    def wait(self, seconds: float) -> None:
        """Sleep.

        :raises HaltedError: it has been asked for
        """
        self._asked.wait(seconds)
        self.check()

    def ask(self) -> None:
        """End all. Not to be called from a signal's handler: it takes a lock."""
        self._asked.set()
        with self._mutex:
            for each in self._sockets:
                _shut_down(each)

    def watch(self, event: str, details: Mapping[str, Any]) -> None:
        """Note each connection as soon as it is made: the `trace` extension of a request."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        made: socket.socket = details["return_value"].get_extra_info("socket")
        with self._mutex:
            self._sockets.add(made)
            if self._asked.is_set():
                _shut_down(made)


def _shut_down(each: socket.socket) -> None:
    with suppress(OSError):  # it is closed, or TLS was laid over it
        socket.socket.shutdown(each, socket.SHUT_RDWR)  # TLS's own would change what another thread is reading from
