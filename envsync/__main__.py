"""`python -m envsync`, and what the launcher script runs: the fast lane first, then the command line.

The launcher (`launcher.sh`) starts Python with `-I -S`, so that nothing is imported that a launch in a current
environment does not need. `site`, and with it every library, is loaded when the fast lane does not know.
"""

import sys

from envsync.system import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(arguments: "Sequence[str]") -> int:
    """Run one command line. Returns the exit status unless the process becomes the command."""
    try:
        if arguments and arguments[0] == "run":
            status = _run(arguments[1:])
            if status is not None:
                return status
        return _slow(arguments)
    except KeyboardInterrupt as interrupt:
        from envsync.launch.signals import die_of

        return die_of(interrupt)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the last handler
        _end_of_signal()
        return _last(error, arguments)


def _last(error: BaseException, arguments: "Sequence[str]") -> int:
    """Say in one line whatever went wrong, and never what only a programmer can read: 1 is the command's own status."""
    try:
        from envsync.errors import EnvsyncError

        if isinstance(error, EnvsyncError):
            from envsync.cli.tell import tell

            return tell(error, arguments)
        from envsync.cli.last_error import last

        return last(error, arguments)
    except Exception:  # noqa: BLE001  # the disk is full of holes, or the installation is
        if sys.stderr is not None:
            print(f"envsync: error: {type(error).__name__}; is envsync installed as a whole?", file=sys.stderr)
        return 125


def _slow(arguments: "Sequence[str]") -> int:
    """Run anything but a plain `run`, with all libraries at hand."""
    from envsync.launch import options
    from envsync.launch.libraries import load_site
    from envsync.launch.signals import listen

    listen()
    load_site()
    parsed = options.parse(arguments[1:], options.SYNC) if arguments and arguments[0] == "sync" else None
    if parsed is not None and not parsed[1]:
        from envsync.cli.sync import sync

        return sync(parsed[0])
    from envsync.cli.main import main as command_line

    return command_line(arguments)


def _run(arguments: "Sequence[str]") -> int | None:
    """Take the fast lane. Returns None for what needs the command line interface proper."""
    from envsync.launch import fast_lane, options

    parsed = options.parse(arguments, options.RUN)
    if parsed is None or not parsed[1]:
        return None
    settings, words = parsed
    environ = core.variables()
    asked, environment, distrust, words = fast_lane.launch(settings, words, environ)
    from envsync.cli.run import run
    from envsync.launch.signals import listen

    listen()
    run(asked, environment, words, environ, distrust=distrust)


def _end_of_signal() -> None:
    """End by the signal that came, if one did since somebody listened."""
    signals = sys.modules.get("envsync.launch.signals")
    if signals is not None:
        signals.end_if_one_came()


def _interrupt_at_once() -> None:
    """Let Ctrl-C end the process as SIGTERM does, until somebody listens: there is nothing to clean up, or to show."""
    import _signal  # type: ignore[import-not-found]

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _open_missing_streams() -> None:
    """Put /dev/null where standard streams are closed: the next file opened, a lock perhaps, would take their place."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    import os

    while (fd := core.open_file(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


def start(said: str = "") -> "NoReturn":
    """Run the process's own command line and end it.

    :param said: what the launcher knows of how the process was started (`envsync.launch.command.begin`)

    Without taking the interpreter down, which takes 10 ms after a sync: what is open is flushed, nothing else is kept.
    And without the cyclic garbage collector: the process ends soon, and going over the tens of thousands of names of a
    large environment again and again takes a tenth of its time.
    """
    import gc

    from envsync.launch import command

    _interrupt_at_once()
    gc.disable()
    _open_missing_streams()
    command.begin(said)
    try:
        status = main(sys.argv[1:])
        _finish(status)
    except KeyboardInterrupt as interrupt:  # the first signal, after all has been done
        from envsync.launch.signals import die_of

        _finish(die_of(interrupt))


def _finish(status: int) -> "NoReturn":
    """Flush what is open, and end the process."""
    import os

    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        status = status or 120  # as Python says that what was printed is lost
    os._exit(status)


if __name__ == "__main__":
    start()
