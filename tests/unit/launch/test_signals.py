"""SIGTERM ends what it meets as Ctrl-C does: at once, cleaning up, and by the signal."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.unit.scene import LIVENESS_SECONDS, ROOT

SLEEP = "time.sleep(0.1)"
"""No longer: a signal between two instructions interrupts no sleep that begins after it."""
MAIN = f"""\
import time
from envsync.launch import signals
signals.listen()
try:
    print("up", flush=True)
    while True:
        {SLEEP}
except KeyboardInterrupt as interrupt:
    print("cleaned up", flush=True)
    status = signals.die_of(interrupt)
    print("went on", status, flush=True)
"""
BEFORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def start(*, code: str = MAIN, before: str = "", stderr: int | None = None) -> subprocess.Popen[str]:
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{before}{code}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[str, int]:
    out, _ = process.communicate(timeout=LIVENESS_SECONDS)
    return out, process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_the_signal(number: signal.Signals) -> None:
    """It cleans up, and whoever waits for it sees that a signal ended it."""
    process = start()
    process.send_signal(number)
    assert end(process) == ("cleaned up\n", -number)


def test_a_second_one() -> None:
    """If cleaning up takes too long for somebody, a second SIGTERM ends it on the spot."""
    process = start(code=MAIN.replace('print("cleaned up", flush=True)', 'print("hm", flush=True); time.sleep(60)'))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "hm\n"
    process.send_signal(signal.SIGTERM)
    assert end(process) == ("", -signal.SIGTERM)


KINDS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("where", ["at once", "dying"])
def test_two_at_once(first: signal.Signals, second: signal.Signals, where: str) -> None:
    """They come before Python has looked, or the second while the first is being died of: one of them ends it."""
    both = f"{{{int(first)}, {int(second)}}}"
    send = (
        f"__import__('signal').pthread_sigmask(0, {both}); os.kill(os.getpid(), {int(second)}); "
        f"os.kill(os.getpid(), {int(first)}); __import__('signal').pthread_sigmask(1, {both})"
    )
    code = MAIN.replace("import time\n", "import os, time\n")
    if where == "at once":
        code = code.replace(f"        {SLEEP}\n", f"        {send}\n")
        process = start(code=code, stderr=subprocess.PIPE)
    else:
        code = code.replace("    status =", f"    os.kill(os.getpid(), {int(second)})\n    status =")
        process = start(code=code, stderr=subprocess.PIPE)
        process.send_signal(first)
    _, err = process.communicate(timeout=LIVENESS_SECONDS)
    assert (process.returncode in (-first, -second), err) == (True, "")


def test_another_error_on_its_way() -> None:
    """What a clean-up raises instead of the interrupt does not hide that a signal came."""
    process = start(code=MAIN.replace("    status = signals.die_of(interrupt)", "    signals.end_if_one_came()"))
    process.send_signal(signal.SIGTERM)
    assert end(process)[1] == -signal.SIGTERM


def test_ignored_stays_ignored() -> None:
    """A process that was started with SIGTERM ignored is not ended by it (`nohup`, some batch systems)."""
    process = start(before=BEFORE)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert end(process) == ("cleaned up\n", -signal.SIGINT)


def test_a_program_that_listens_itself() -> None:
    """The handler of a program that uses the library is left to it."""
    before = "import signal, os; signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
    process = start(before=before)
    process.send_signal(signal.SIGTERM)
    assert end(process) == ("", 7)


def test_exec_undoes_it() -> None:
    """The command that follows has the signal as it was: default, or ignored."""
    show = "import signal; print(int(signal.getsignal(signal.SIGTERM)))"
    for before, expected in (("", signal.SIG_DFL), (BEFORE, signal.SIG_IGN)):
        code = (
            "import os\n"
            "from envsync.launch import signals\n"
            "signals.listen()\n"
            "print('up', flush=True)\n"
            f"os.execv(sys.executable, [sys.executable, '-I', '-c', {show!r}])"
        )
        assert end(start(code=code, before=before)) == (f"{int(expected)}\n", 0)


LOST = """\
import os, signal
from envsync.launch import signals
signals.listen()
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
try:
    print("up", flush=True)
    deaf = Deaf()
    del deaf
    signals.heed()
except KeyboardInterrupt as interrupt:
    signals.die_of(interrupt)
"""


def test_one_that_a_destructor_has_swallowed_shows_nothing() -> None:
    """Python shows what is raised there with a traceback, and goes on; who heeds the signal ends of it."""
    with start(code=LOST, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=LIVENESS_SECONDS)
    assert (process.returncode, said) == (-signal.SIGTERM, "")
