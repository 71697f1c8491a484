"""Which names files can have on Windows. It loads everywhere, so that it can be tried everywhere."""

from __future__ import annotations

import re

_DEVICE = re.compile(r"(aux|con|nul|prn|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)( *\.| *$)", re.IGNORECASE)
"""Names that are devices, whatever their extension ("Naming Files, Paths, and Namespaces")."""


def is_possible_name(part: str) -> bool:
    """Tell whether a file can have a name: not a device's, no blank or point at its end, no control character, none of
    `<>:"|?*` and the backslash."""
    is_odd = _DEVICE.match(part) or part[-1:] in (".", " ") or any(character in part for character in '<>:"|?*\\')
    return not is_odd and all(ord(character) >= 32 for character in part)
