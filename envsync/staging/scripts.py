"""Scripts that name the environment's interpreter: entry points and `#!python` lines."""

from __future__ import annotations

from envsync.system import native
from envsync.wheel.manifest import Manifest, Script

_TEMPLATE = """\
# -*- coding: utf-8 -*-
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({attr}())
"""
"""As pip writes it, without the `re` of installer's template, which costs each start of a script 5 ms."""


def names(manifest: Manifest) -> tuple[str, ...]:
    """Name the scripts of a wheel that name the interpreter."""
    return (*(script.filename for script in manifest.scripts), *manifest.rewrite)


def entry_point(script: Script, python: str) -> bytes:
    """Make the script for an entry point.

    On Windows that is a program, which starts the script that is behind it.

    :param python: absolute path of the environment's interpreter, as its system spells it
    """
    if native.LAUNCHER:
        from installer.scripts import Script as Launcher

        launcher = Launcher(*script[:3], script.section)  # type: ignore[arg-type]  # a section that is one of two
        return launcher.generate(python, native.LAUNCHER)[1]  # type: ignore[arg-type]
    body = _TEMPLATE.format(module=script.module, name=script.attr.partition(".")[0], attr=script.attr)
    return shebang(python) + body.encode()


def rewrite(content: bytes, python: str) -> bytes:
    """Replace the `#!python` line of a script by one that names the interpreter; its arguments are kept."""
    first, newline, rest = content.partition(b"\n")
    words = first.removeprefix(b"#!").split(None, 1)
    arguments = words[1].strip().decode("utf-8", "surrogateescape") if len(words) > 1 else ""
    return shebang(python, arguments) + (rest if newline else b"")


def shebang(python: str, arguments: str = "") -> bytes:
    """Make the first line of a script.

    The kernel takes 127 bytes on older systems (execve(2)) and no spaces in the path; beyond that a line that is
    both shell and Python has the shell exec the interpreter, as distlib and pip do it.
    """
    line = f"#!{python}{' ' + arguments if arguments else ''}\n".encode("utf-8", "surrogateescape")
    if len(line) <= 127 and not any(c.isspace() for c in python):
        return line
    import shlex

    command = " ".join([shlex.quote(python), *([arguments] if arguments else [])])
    return f"#!/bin/sh\n'''exec' {command} \"$0\" \"$@\"\n' '''\n".encode("utf-8", "surrogateescape")
