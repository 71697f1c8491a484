"""The tests do not depend on which signals they were started with ignored, in the background or by `nohup`."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.scene import ROOT

IGNORE = """\
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
import tests.conftest
signal.raise_signal(signal.SIGQUIT)
signal.raise_signal(signal.SIGHUP)
signal.raise_signal(signal.SIGTERM)
subprocess.run([sys.executable, "-I", "-c", sys.argv[1]], check=True)
"""
SHOW = """\
import signal
print([number.name for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
       if signal.getsignal(number) is signal.SIG_IGN])
"""


def test_what_tests_start_has_no_signal_ignored() -> None:
    """And they themselves go on, as those who had them ignored want it."""
    words = [sys.executable, "-c", IGNORE, SHOW]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
