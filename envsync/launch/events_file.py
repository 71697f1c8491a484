"""`ENVSYNC_EVENTS`: one JSON line for each thing that happened, for operators and tests to count.

Each line is appended in one write to a file opened with O_APPEND, which is atomic between the processes of one
host (write(2)), not between the clients of NFS: give a directory there, and each host gets a file of its own.
An events file that cannot be written is said once and never in the way of the command; so is one that nobody reads, if
it is a pipe.
What is secret in URLs is in no line.
"""

from __future__ import annotations

import errno

from envsync.errors.redact import everything_redacted
from envsync.launch.messages import say
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Listener = Callable[[str, Mapping[str, object]], None]

EVENTS = ("started", "synced", "waited", "took_over", "recovered", "failed", "launched")


def record(event: str, *, env: str, digest: str, **details: object) -> None:
    """Append one event, if `ENVSYNC_EVENTS` is set.

    :param env: absolute path of the environment
    :param digest: the digest, or the empty string while it is not known
    """
    destination = core.variable("ENVSYNC_EVENTS")
    if not destination:
        return
    import json
    import time

    assert event in EVENTS
    host = core.host()
    value = {
        "event": event,
        "time": time.time(),
        "host": host,
        "pid": os.getpid(),
        "env": env,
        "digest": digest,
        **{name: everything_redacted(detail) for name, detail in details.items()},
    }
    if core.is_directory(destination):
        destination = f"{destination}/{host}.jsonl"
    try:
        # A pipe is not waited for: not until somebody reads it, nor until it is empty.
        fd = core.open_file(destination, os.O_WRONLY | os.O_APPEND | os.O_CREAT | core.NONBLOCK, 0o666)
        try:
            os.write(fd, (json.dumps(value) + "\n").encode())
        finally:
            os.close(fd)
    except OSError as error:
        if destination not in _said:
            _said.add(destination)
            reason = "nobody reads it" if error.errno == errno.ENXIO else error.strerror
            say(f"cannot write to the events file `{destination}`: {reason}")


_said: set[str] = set()
"""What was said to be out of order."""
