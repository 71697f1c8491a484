"""What of a text may be shown or stored: everything but what is secret in URLs.

Command lines, errors, notes, events and logs go through here before anybody else can see them: a terminal, a log, a
file that other users can read, another process. User information (`https://USER:PASSWORD@HOST/`) is left out, be it
percent-encoded or not, within an option (`--index-url=...`) or within another URL, encoded as a part of it. Of what a
query calls by an obvious name (`?token=...`), the value is.

Where it cannot be told what is a password, more is left out rather than less: a URL whose password holds a `/` or `#`
that is not encoded loses all up to its last `@`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from logging import LogRecord

HIDDEN = "***"
PLACEHOLDER = "USER:PASSWORD@"
"""Of hints that say what a URL looks like."""
PORT_DIGITS = 5
_FORMS = (
    ("//", ":", "/?#", ("@",)),
    ("%2f%2f", "%3a", ("%2f", "%3f", "%23"), ("@", "%40")),
    *((end, ":", "/?#", ("@",)) for end in ("tp:/", "ps:/", "sh:/")),
)
"""How user information begins, what is in it, ends it, and marks it. One `/` is left of http, ftp, https and ssh where
a URL was taken for a path."""
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
"""`str.lower` makes two characters of some, and then no place in a text is where it was."""
LOGGERS = ("httpx2", "unearth.auth", "unearth.collector", "unearth.evaluator", "unearth.preparer", "unearth.finder")
"""Of libraries that may log a URL as it was given to them."""
SECRET = ("token", "password", "passwd", "pwd", "secret", "apikey", "signature", "sig", "credential", "credentials")
"""How the names of a query's secrets end, without `-` and `_`."""
WHOLLY_SECRET = frozenset({"auth", "authorization", "key", "pass", "jwt"})


def redacted(text: str) -> str:
    """Return a text without what is secret in its URLs."""
    if "@" not in text and "=" not in text and "%" not in text:
        return text
    return "".join(word if word.isspace() else _without_values(_without_users(word)) for word in _words(text))


def everything_redacted(value: object) -> object:
    """Return plain data, as for JSON, with all its texts redacted but keys."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: everything_redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [everything_redacted(item) for item in value]
    return value


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text, and what is between them."""
    start = 0
    for position in range(1, len(text)):
        if text[position].isspace() != text[position - 1].isspace():
            yield text[start:position]
            start = position
    yield text[start:]


def _without_users(word: str) -> str:
    for slash, colon, ends, at in _FORMS:
        lowered = word.translate(_LOWER)
        kept, done, start = [], 0, 0
        while (found := lowered.find(slash, start)) >= 0:
            start = found + len(slash)
            if ":" not in slash and found and not lowered.endswith((":", "%3a"), 0, found) and _is_in_path(word, found):
                continue
            if lowered.endswith(":", 0, found) and not lowered.endswith("file:", 0, found):
                while lowered.startswith("/", start):  # more than two of them are a slip
                    start += 1
            end = len(word)
            for mark in ends:
                place = lowered.find(mark, start, end)
                end = place if place >= 0 else end
            cut = _end_of(lowered, at, start, end)
            if cut == start and (":" in lowered[start:end] or colon in lowered[start:end]):
                cut = start if _is_host(lowered[start:end]) else _end_of(lowered, at, start, len(word))
            if word[start:cut] != PLACEHOLDER:
                kept.append(word[done:start])
                done = start = cut
        word = "".join(kept) + word[done:]
    return word


def _is_host(text: str) -> bool:
    """Tell whether it is a host's full name with a port: an `@` behind that belongs to a path (`.../x.git@v1.0`)."""
    host, _, port = text.partition(":")
    named = "." in host or host == "localhost"
    return named and port.isdecimal() and len(port) <= PORT_DIGITS


def _is_in_path(word: str, slash: int) -> bool:
    before = word[slash - 1]
    return before.isalnum() or before in "/."


def _end_of(text: str, marks: tuple[str, ...], start: int, end: int) -> int:
    """Return where the last of some marks ends, between two places; the first of these if there is none."""
    return max((at + len(mark) for mark in marks if (at := text.rfind(mark, start, end)) >= 0), default=start)


def _without_values(word: str) -> str:
    """Hide the values of those parameters of a query or fragment that are obviously secret."""
    if "=" not in word or not any(mark in word for mark in "?&#"):
        return word
    pieces, start = [], 0
    for position, character in enumerate(word):
        if character in "?&#;":
            pieces.append(word[start : position + 1])
            start = position + 1
    pieces.append(word[start:])
    return pieces[0] + "".join(map(_without_value, pieces[1:]))


def _without_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    plain = name.lower().replace("-", "").replace("_", "")
    if not equals or not (plain in WHOLLY_SECRET or plain.endswith(SECRET)):
        return parameter
    end = next((at for at, character in enumerate(value) if character in "&#;`'\"<>)"), len(value))
    return f"{name}={HIDDEN}{value[end:]}"


def keep_out_of_logs() -> None:
    """See to it that libraries log no URL with its secrets, for programs that use us and keep a log. Idempotent."""
    import logging

    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # which adds it once


def _filter(record: LogRecord) -> bool:
    if record.name == "unearth.auth" and record.levelno < 30:  # below a warning: it names users
        return False
    record.msg, record.args = redacted(record.getMessage()), None
    return True
