"""What uv keeps of a local wheel in its .dist-info: without it, uv takes the distribution for out of date.

uv 0.13 compares it with the file's ctime, and installs what came from a path or `file:` URL again if they differ.
"""

from __future__ import annotations

import json
import os
from urllib.parse import unquote, urlsplit

NAME = "uv_cache.json"


def text(direct_url: str) -> bytes | None:
    """Return what uv would keep, as the wheel is now.

    :param direct_url: the text of direct_url.json
    :returns: None if it came from elsewhere, or is not there any more
    """
    parts = urlsplit(json.loads(direct_url)["url"])
    if parts.scheme != "file":
        return None
    try:
        seconds, nanos = divmod(os.stat(unquote(parts.path)).st_ctime_ns, 1_000_000_000)
    except OSError:
        return None
    time = {"secs_since_epoch": seconds, "nanos_since_epoch": nanos}
    value = {"timestamp": time, "commit": None, "tags": None, "env": {}, "directories": {}}
    return json.dumps(value, separators=(",", ":")).encode()
