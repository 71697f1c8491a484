"""What hints say in the words of PowerShell: they are written in those of a POSIX shell, wherever they come from.

Only the command line shows them so: what is stored, and what programs are told, is the same on every system. What
PowerShell takes as it stands (`rm`, `mv`, `cp`, `cd`, quotes around names) stays.
"""

from __future__ import annotations

import re

_WORDS = (
    (r"`ls -l[ad]* ([^`]+)` says who(se it is| may execute it| owns? them)", r"`Get-Acl \1` says who\2"),
    (r"`ls -l?d ([^`]+)`", r"`Get-Item -Force \1`"),
    (r"`ls -[la]+ ([^`]+)`", r"`Get-ChildItem -Force \1`"),
    (r"`df -h [^`]+`", "`Get-PSDrive -PSProvider FileSystem`"),
    (r"`less ([^`]+)`", r"`Get-Content \1`"),
    (r"`sed -n (\d+)p ([^`]+)`", r"`Get-Content \2 -TotalCount \1 | Select-Object -Last 1`"),
    (r"`grep -nE? ('[^`']+'|\w+) ([^`]+)`", r"`Select-String \1 \2`"),
    (r"`env \| grep [^`]+`", "`Get-ChildItem env:*proxy*, env:*ssl_cert*`"),
    (r"`export (\w+)=([^`\s,;]+)", r"`$env:\1 = '\2'"),
    (r", which only you may read: `chmod 600 [^`]+`", ", which only you may read"),
    (r": `ulimit [^`]+` says how [^;]+", ""),
    (r"; `ulimit -a` says those of this shell", ""),
)
"""Pattern → what it is there. What a limit of a shell says has no counterpart and is left out."""


def spoken(hint: str) -> str:
    """Return a hint with its commands as PowerShell has them."""
    for pattern, words in _WORDS:
        hint = re.sub(pattern, words, hint)
    return hint
