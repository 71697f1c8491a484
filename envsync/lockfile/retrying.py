"""What may pass if a server is asked again, and how long to wait before: for pages of an index and for downloads."""

from __future__ import annotations

import random
import ssl
import time
from email.utils import parsedate_to_datetime

import httpx2

BACKOFF = 0.5
"""Seconds before the second try; doubled for each further one, with jitter."""
LONGEST_WAIT = 30.0
"""Seconds, however long a server says to wait."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


def may_pass(outcome: httpx2.Response | httpx2.HTTPError) -> bool:
    """Tell whether another try may have another outcome."""
    if isinstance(outcome, httpx2.Response):
        return outcome.status_code in _PASSING
    final = isinstance(outcome, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)) or _is_about_trust(outcome)
    return isinstance(outcome, httpx2.TransportError) and not final


def _is_about_trust(error: BaseException) -> bool:
    """Tell whether a certificate was refused: trying again does not help."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def asked_wait(response: httpx2.Response) -> float | None:
    """Return the seconds that a server asks to wait; None if it does not."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text[:18])
    try:
        return parsedate_to_datetime(text[:80]).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def wait_after(attempt: int, asked: float | None = None) -> float:
    """Return how long to wait before the next try: as the server asks, else longer and longer, never all at once.

    :param attempt: how many tries there were
    """
    if asked is None:
        asked = BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    return min(max(asked, 0.0), LONGEST_WAIT)
