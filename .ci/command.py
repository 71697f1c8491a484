"""The command of a wheel: a shell script, or on Windows a console script.

A shell script costs a launch 1 ms, and a console script 7 (`envsync/launcher.sh`). Windows has no shell. So there are
two kinds of wheel from one source distribution:

    python -m build                          envsync-VERSION-py3-none-any.whl, with the shell script
    ENVSYNC_WHEEL=win_amd64 python -m build  for Windows, with a console script; win_arm64 likewise

On Windows itself, without the variable, it is the one for this machine.
"""

from __future__ import annotations

import os
import sysconfig
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PLATFORMS = ("win_amd64", "win_arm64")


def platform() -> str:
    """Return for which platform of Windows a wheel is built; empty: for all others.

    :raises ValueError: the variable names none
    """
    here = sysconfig.get_platform().replace("-", "_")
    asked = os.environ.get("ENVSYNC_WHEEL") or (here if here in PLATFORMS else "")
    if asked not in ("", "any", *PLATFORMS):
        raise ValueError(f"ENVSYNC_WHEEL={asked} is none of {', '.join(('any', *PLATFORMS))}")
    return "" if asked == "any" else asked


class CommandHook(MetadataHookInterface):
    """Names the console script of a wheel for Windows."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        metadata["scripts"] = {"envsync": "envsync.__main__:start"} if platform() else {}
