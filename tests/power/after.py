"""Judge an environment on a disk as a power cut left it; run by test_power_cut.py in a mount namespace of its own.

    python after.py ENV CACHE OLD NEW

ENV may be current for OLD or for NEW, and then is whole; or for neither, and a sync to NEW makes it whole.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from envsync.launch import (  # noqa: E402
    Environment,
    fast_lane,
    request,
)
from envsync.library import blocking  # noqa: E402
from tests.environments import leftovers, unowned, unverified  # noqa: E402


def is_current(lock: str, env: Path) -> bool:
    entry = fast_lane.enter(request.resolve({"lock": lock, "env": str(env)}, {}), Environment(str(env)))
    if entry is not None:
        os.close(entry.fd)
    return entry is not None


def judge(env: Path, old: str, new: str) -> str:
    """Return what is wrong, or the empty string."""
    for lock in (old, new):
        if is_current(lock, env) and (spoiled := unverified(env)):
            return f"current for {os.path.basename(lock)}, and not whole: {spoiled}"
    blocking.sync(new, env=env)
    if spoiled := unverified(env):
        return f"not repaired: {spoiled}"
    if strange := unowned(env):
        return f"left in it: {strange}"
    if left := leftovers(env):
        return f"left over: {left}"
    if blocking.sync(new, env=env).outcome != "current":
        return "a second sync found something to do"
    return ""


if __name__ == "__main__":
    env, cache, old, new = sys.argv[1:]
    os.environ["ENVSYNC_CACHE_DIR"] = cache
    sys.exit(judge(Path(env), old, new) or 0)
