"""What the system that we run on does for us, and the only place that asks which system that is.

`core` is what a launch needs of it: files that are opened, locks, holds, and how a process becomes the command. It
consists of built-in modules alone, and there is one for each family of systems, with the same names: `posix_core`,
`windows_core`. `native` is what everything else needs, of `linux`, `darwin` or `windows`. docs/systems.md says what
differs. Start reading at `core`, then at `atomic`: how all that we write gets its name.

May import `launch`, for descriptors and messages; `launch` imports `core` alone. `atomic`, `records`, `processes` and
`mounts` are for waiters, too, and import built-in modules alone.
"""

import sys

if sys.platform == "win32":
    from envsync.system import windows_core as core
else:
    from envsync.system import posix_core as core

__all__ = ["core"]
