"""Libraries: what the launcher left out at start-up, for whoever needs more than built-in modules."""

from __future__ import annotations

import sys

import envsync


def load_site() -> None:
    """Make the libraries importable: what the launcher's `-S` left out at start-up.

    The directory that envsync is in comes last, wherever it has been: the launcher puts it first, or nowhere if it has
    found what it needs in one file (.ci/join.py).
    """
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        ours = envsync.__path__[0].rpartition("/")[0]
        if ours in sys.path:
            sys.path.remove(ours)
        site.main()
        if ours not in sys.path:
            sys.path.append(ours)
