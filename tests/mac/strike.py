"""`python strike.py WHEN ARGUMENT...`: an envsync command as on macOS, struck as tests/wine/strike.py says."""

from __future__ import annotations

import sys

from tests import darwin

darwin.become()

from envsync.__main__ import main  # noqa: E402
from tests.wine.strike import Strike  # noqa: E402

if __name__ == "__main__":
    sys.addaudithook(Strike(sys.argv[1]))
    sys.dont_write_bytecode = True
    sys.exit(main(sys.argv[2:]))
