"""The server of the other tests holds what it is told to hold, so that they need no luck."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.unit.fetching.server import File, Server, serving

SECONDS = 30
SIZE = 100_000


@contextmanager
def asked(server: Server, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """Ask for `/file`."""
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SECONDS)) as connection:
        connection.request("GET", "/file", headers=headers)
        with connection.getresponse() as response:
            yield response


@pytest.mark.parametrize("missing", [1, 2, 2560, 20_000, SIZE])
def test_the_rest_is_held_however_little_it_is(missing: int) -> None:
    """Who continues a download is held as well: four in a row cannot get the whole by bits."""
    with serving() as server:
        hold = threading.Event()
        server.files["/file"] = File(bytes(SIZE), hold=hold)
        with asked(server, Range=f"bytes={SIZE - missing}-") as response:
            assert server.began.wait(SECONDS)
            assert len(response.read(missing // 2)) == missing // 2
            hold.set()
            assert len(response.read()) == missing - missing // 2


def test_it_says_once_that_it_holds() -> None:
    """Of an answer that goes on nobody hears again: it would be taken for the answer to somebody else."""
    with serving() as server:
        hold = threading.Event()
        server.files["/file"] = File(bytes(SIZE), hold=hold)
        with asked(server) as response:
            assert server.began.wait(SECONDS)
            server.began.clear()
            hold.set()
            assert len(response.read()) == SIZE
        assert not server.began.is_set()
