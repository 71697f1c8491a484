"""What uv's variables say of a project of uv's besides options: who fetches, and what is not heeded.

`[[tool.uv.index]]` in pyproject.toml gives a URL a name; `UV_INDEX_<NAME>_USERNAME` and `UV_INDEX_<NAME>_PASSWORD` are
for that index. A lock file has the URLs without any of it. They decide who fetches, not what. Those that are as options
are in the table of options (`envsync.launch.options`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from envsync.launch.finding import MEMBERS, PROJECT
from envsync.launch.reading import content_if_there
from envsync.system import paths

UNHEEDED = (
    "UV_BUILD_CONSTRAINT",
    "UV_CONFIG_FILE",
    "UV_ENV_FILE",
    "UV_INSECURE_HOST",
    "UV_ISOLATED",
    "UV_KEYRING_PROVIDER",
    "UV_MANAGED_PYTHON",
    "UV_NO_INSTALL_LOCAL",
    "UV_NO_MANAGED_PYTHON",
    "UV_NO_PROJECT",
    "UV_ONLY_INSTALL_LOCAL",
    "UV_ONLY_INSTALL_PROJECT",
    "UV_ONLY_INSTALL_WORKSPACE",
    "UV_PYTHON_PREFERENCE",
)
"""They would change what uv installs from a lock file, on which Python, or what a command sees."""


def unheeded(lock_file: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Say, in a sentence at most, which variables are set and do nothing here."""
    if os.path.basename(lock_file) != MEMBERS:
        return ()
    names = [name for name in UNHEEDED if environ.get(name)]
    return (f"not heeded, though uv would: {', '.join(names)}",) if names else ()


def index_urls(lock_file: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the URLs of the project's indexes for which there is user information, with it.

    What cannot be read says nothing here: whoever parses the lock file has said so.
    """
    import tomllib  # 10 ms, and a sync that has nothing to fetch needs none of it

    if os.path.basename(lock_file) != MEMBERS:
        return ()
    try:
        table = tomllib.loads(content_if_there(paths.join(os.path.dirname(lock_file), PROJECT)).decode())
    except (OSError, ValueError):
        return ()
    return tuple(_with_user(str(index["url"]), str(index.get("name", "")), environ) for index in _indexes(table))


def _indexes(table: Any) -> Iterator[Mapping[str, Any]]:
    for name in ("tool", "uv", "index"):
        table = table.get(name) if isinstance(table, dict) else None
    for index in table if isinstance(table, list) else ():
        if isinstance(index, dict) and "url" in index:
            yield index


def _with_user(url: str, name: str, environ: Mapping[str, str]) -> str:
    """Add the user information that variables have for an index, in place of what its URL has."""
    from urllib.parse import quote, urlsplit, urlunsplit  # 3 ms, which every sync would pay for `unheeded`

    prefix = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = (environ.get(f"{prefix}_{what}") for what in ("USERNAME", "PASSWORD"))
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if not name or (user is None and password is None) or not parts.netloc:
        return url
    said = ":".join(quote(each, safe="") for each in (user or "", password) if each is not None)
    return urlunsplit(parts._replace(netloc=f"{said}@{parts.netloc.rpartition('@')[2]}"))
