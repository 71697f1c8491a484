"""The body of an answer, piece by piece: when there is something to read, and a large one past the HTTP library.

A piece of TLS has 16 KiB, and each goes through generators of three libraries and is copied twice: that takes as long
as to decrypt it. So a large body whose length is known is read from the connection itself. The library does not know
then how far it is, and closes the connection. (`network_stream` is an extension of httpx's, documented for
what comes after the head of an answer.)
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx2

from envsync.system import native

LARGE = 4 * 1024 * 1024
"""Bytes from which on a connection is worth less than the time; the next file then takes a handshake."""
PIECE = 64 * 1024
"""Bytes, as many as the library reads at once."""


class Body:
    """A body whose length is known and that can be waited for. At first there is nothing but its head.

    :ivar left: how many bytes have not come yet
    """

    def __init__(self, response: httpx2.Response, connection: socket.socket) -> None:
        self.left = int(announced(response))
        self._connection = connection
        self._raw = response.iter_raw()  # closes the connection when it is freed
        self._pieces = self._raw
        self._has_begun = False

    def wait(self, seconds: float) -> bool:
        """Wait for something to read. Returns whether there is."""
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        number = self._connection.fileno()
        return number < 0 or native.socket_readable(number, seconds)  # closed: whoever reads will be told

    def take(self) -> bytes:
        """Return the next piece; waits for it, as long as the client's time for reading allows. Empty at the end.

        :raises httpx2.HTTPError: it does not come
        """
        data = next(self._pieces, b"")
        if not self._has_begun:
            # The first piece is all that came with the head: from now on nothing is in between.
            self._has_begun = True
            if self.left - len(data) >= LARGE:
                self._pieces = self._read(self.left - len(data))
        self.left -= len(data)
        if self.left > 0 and not data:
            raise httpx2.RemoteProtocolError(f"the connection ended {self.left} bytes too soon")
        return data

    def _read(self, left: int) -> Iterator[bytes]:
        while left > 0:
            try:
                data = self._connection.recv(min(left, PIECE))
            except TimeoutError as error:
                raise httpx2.ReadTimeout(str(error)) from error
            except OSError as error:
                raise httpx2.ReadError(str(error)) from error
            if not data:
                return
            left -= len(data)
            yield data


def body_of(response: httpx2.Response) -> Body | None:
    """Return the body that comes.

    None if it cannot be waited for: nobody knows how much is to come, or TLS is within another TLS, of a proxy.
    """
    stream = response.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("socket")
    if not isinstance(connection, socket.socket):
        return None
    if isinstance(connection, ssl.SSLSocket) != (response.url.scheme == "https"):
        return None
    return Body(response, connection) if announced(response).isdecimal() else None


def announced(response: httpx2.Response) -> str:
    """Return how many bytes a body is said to have; empty if it says itself where it ends (RFC 9112, 6.3)."""
    return "" if "Transfer-Encoding" in response.headers else response.headers.get("Content-Length", "")
