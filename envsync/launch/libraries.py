"""Libraries: what the launcher left out at start-up, for whoever needs more than built-in modules."""

from __future__ import annotations

import sys


def load_site() -> None:
    """Make the libraries importable: what the launcher's `-S` left out at start-up."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        ours = sys.path.pop(0)
        site.main()
        if ours not in sys.path:
            sys.path.append(ours)
