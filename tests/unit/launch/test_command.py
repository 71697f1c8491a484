"""Becoming the command: what it is looked up in, what it inherits, and how a failure is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from envsync.launch import command
from envsync.system import posix_core

ROOT = Path(__file__).parent.parent.parent.parent
DRIVER = f"""\
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.launch import command
from envsync.errors import CommandError
env, commands, words, variables = json.loads(sys.argv[1])
try:
    print("returned", command.execute(env, commands, words, variables))
except CommandError as error:
    print(error)
    sys.exit(error.exit_code)
"""


class Place:
    """An environment with a `bin`, and two further directories for PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = root / "env"
        self.first, self.second = root / "first", root / "second"
        for directory in (self.env / "bin", self.first, self.second):
            directory.mkdir(parents=True)

    def script(self, path: Path, text: str = "#!/bin/sh\necho $0 $*\n", *, mode: int = 0o755) -> Path:
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(
        self,
        *words: str,
        commands: Sequence[str] = (),
        path: str | None = None,
        variables: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Execute in a process of its own."""
        path = f"{self.first}:{self.second}" if path is None else path
        given = command.environment_variables({"PATH": path, **(variables or {})}, str(self.env), "1:x")
        arguments = json.dumps([str(self.env), list(commands), list(words), given])
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", DRIVER, arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            **options,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TestVariables:
    """What the command sees."""

    def test_as_activation_does(self) -> None:
        """VIRTUAL_ENV and PATH are set, PYTHONHOME is not, and all the rest is as it was."""
        environ = {"PATH": "/usr/bin:/bin", "PYTHONHOME": "/x", "PYTHONPATH": "/y", "HOME": "/h", "VIRTUAL_ENV": "/o"}
        assert command.environment_variables(environ, "/env", "12:abc") == {
            "PATH": "/env/bin:/usr/bin:/bin",
            "PYTHONPATH": "/y",
            "HOME": "/h",
            "VIRTUAL_ENV": "/env",
            "ENVSYNC_IN": "12:abc",
            "ENVSYNC_IN_BY": f"{os.getpid()}@{os.uname().nodename}",
        }
        assert "PYTHONHOME" in environ

    def test_without_path(self) -> None:
        """Without PATH the system's default counts, as execvp(3) has it."""
        assert command.environment_variables({}, "/env", "")["PATH"] == f"/env/bin:{os.defpath}"

    def test_with_an_empty_path(self) -> None:
        """An empty PATH stays empty but for the environment: no colon lets the working directory in."""
        assert command.environment_variables({"PATH": ""}, "/env", "")["PATH"] == "/env/bin"


class TestSearch:
    """Which file is executed."""

    def test_the_environment_comes_first(self, place: Place) -> None:
        """A command of the environment is taken before one of that name on PATH."""
        ours = place.script(place.env / "bin" / "tool")
        place.script(place.first / "tool")
        assert place.run("tool", "a", "b c").stdout == f"{ours} a b c\n"

    def test_then_path_in_order(self, place: Place) -> None:
        """What the environment does not have is looked for along PATH."""
        second = place.script(place.second / "tool")
        assert place.run("tool").stdout == f"{second}\n"
        first = place.script(place.first / "tool")
        assert place.run("tool").stdout == f"{first}\n"

    def test_an_empty_entry_is_the_working_directory(self, place: Place) -> None:
        """As everywhere: an empty entry of PATH is the working directory."""
        place.script(place.root / "tool")
        assert place.run("tool", path="/nowhere::", cwd=place.root).stdout == "./tool\n"

    @pytest.mark.parametrize("word", ["./tool", "sub/../tool", "{}/tool"])
    def test_a_path_is_not_searched_for(self, place: Place, word: str) -> None:
        """A command with a slash is that file, relative to the working directory, whatever the environment has."""
        (place.root / "sub").mkdir()
        place.script(place.root / "tool")
        place.script(place.env / "bin" / "tool")
        word = word.format(place.root)
        assert place.run(word, cwd=place.root).stdout == f"{word}\n"

    def test_a_directory_on_path_that_is_none(self, place: Place) -> None:
        """An entry of PATH that is a file or missing is passed over."""
        second = place.script(place.second / "tool")
        path = f"{place.script(place.root / 'file')}:/nowhere:{place.second}"
        assert place.run("tool", path=path).stdout == f"{second}\n"

    def test_the_process_stays(self, place: Place) -> None:
        """The command is the process that was started: its id is the same, and its status its own."""
        place.script(place.env / "bin" / "tool", "#!/bin/sh\necho $$\nexit 37\n")
        with subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                DRIVER,
                json.dumps([str(place.env), [], ["tool"], {"PATH": f"{place.env}/bin"}]),
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            output, _ = process.communicate(timeout=60)
        assert int(output) == process.pid
        assert process.returncode == 37


class TestFailure:
    """How it is said, so that a scheduler can tell our failures from the job's."""

    def test_not_found(self, place: Place) -> None:
        """A command that is nowhere is 127, and where it was looked for is said."""
        done = place.run("tool")
        assert done.returncode == 127
        assert done.stdout == f"command `tool` not found in `{place.env}/bin` or on PATH\n"

    def test_a_path_that_is_not_there(self, place: Place) -> None:
        """So is a path that leads nowhere."""
        done = place.run(f"{place.root}/x/tool")
        assert (done.returncode, done.stdout) == (127, f"command `{place.root}/x/tool` not found\n")

    @pytest.mark.parametrize("where", ["environment", "path", "slash"])
    def test_not_executable(self, place: Place, where: str) -> None:
        """A file that cannot be executed is 126, with its path and the reason."""
        directory = {"environment": place.env / "bin", "path": place.second, "slash": place.root}[where]
        tool = place.script(directory / "tool", mode=0o644)
        done = place.run(str(tool) if where == "slash" else "tool")
        assert (done.returncode, done.stdout) == (126, f"cannot execute `{tool}`: Permission denied\n")

    def test_a_directory(self, place: Place) -> None:
        """A directory cannot be executed."""
        assert place.run(str(place.root)).returncode == 126

    def test_path_is_searched_on(self, place: Place) -> None:
        """What cannot be executed on PATH is passed over if there is another, as in a shell."""
        place.script(place.first / "tool", mode=0o644)
        second = place.script(place.second / "tool")
        assert place.run("tool").stdout == f"{second}\n"

    def test_the_environments_own_is_never_replaced(self, place: Place) -> None:
        """If the environment has the command and it cannot be executed, another one on PATH is the wrong one."""
        ours = place.script(place.env / "bin" / "tool", mode=0o644)
        place.script(place.first / "tool")
        done = place.run("tool", commands=["tool"])
        assert done.stdout == f"returned {ours}\n"  # so that it can be repaired
        done = place.run("tool", commands=[])
        assert (done.returncode, done.stdout) == (126, f"cannot execute `{ours}`: Permission denied\n")

    def test_arguments_that_are_too_long(self, place: Place) -> None:
        """The kernel's limits are said as what they are."""
        tool = place.script(place.env / "bin" / "tool")
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from envsync.launch import command\n"
            f"try: command.execute({str(place.env)!r}, ['tool'], ['tool', 'x' * 10**7], {{'PATH': '/x'}})\n"
            "except Exception as error: print(error); sys.exit(error.exit_code)\n"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (126, f"cannot execute `{tool}`: Argument list too long\n")


class TestInterpreters:
    """Scripts."""

    @pytest.mark.parametrize("where", ["environment", "path", "slash"])
    def test_without_a_first_line(self, place: Place, where: str) -> None:
        """A script without `#!` is the shell's, as for execvp(3), with its name and arguments."""
        directory = {"environment": place.env / "bin", "path": place.second, "slash": place.root}[where]
        tool = place.script(directory / "tool", "echo $0 $*\n")
        done = place.run(str(tool) if where == "slash" else "tool", "a", "b")
        assert done.stdout == f"{tool} a b\n"

    def test_an_empty_file(self, place: Place) -> None:
        """An empty script does nothing, successfully."""
        place.script(place.env / "bin" / "tool", "")
        assert place.run("tool").returncode == 0

    def test_a_lost_interpreter(self, place: Place) -> None:
        """A script of the environment whose interpreter is gone is returned, not another one on PATH executed."""
        ours = place.script(place.env / "bin" / "tool", "#!/nowhere/python\n")
        place.script(place.first / "tool")
        assert place.run("tool", commands=["python", "tool"]).stdout == f"returned {ours}\n"

    def test_a_lost_base(self, place: Place) -> None:
        """A `bin/python` that leads nowhere is returned: the base Python is gone."""
        (place.env / "bin" / "python").symlink_to("/nowhere/python")
        place.script(place.first / "python")
        assert place.run("python", commands=["python"]).stdout == f"returned {place.env}/bin/python\n"

    def test_a_command_that_was_never_there(self, place: Place) -> None:
        """The environment's having other commands keeps nobody from PATH."""
        first = place.script(place.first / "tool")
        assert place.run("tool", commands=["python"]).stdout == f"{first}\n"


KEEPER = f"""\
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.launch import command
import fcntl, resource
if sys.argv[2] != "-":
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_SH)
high = command.keep_across_exec(fd)
os.execv("/bin/sh", ["sh", "-c", f"echo {{high}}; exec cat"])
"""


class TestDescriptor:
    """The in-use lock is kept by the command."""

    @pytest.mark.parametrize("limit", [None, 1024, 200, 64])
    def test_kept_across_exec(self, tmp_path: Path, limit: int | None) -> None:
        """The lock is held by what the process becomes, until it ends, by a descriptor that is out of the way.

        Where the limit on descriptors leaves no room up there, any will do.
        """
        import fcntl
        import resource

        if limit is not None and limit > resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
            pytest.skip("the limit cannot be raised")
        path = tmp_path / "in-use"
        words = [sys.executable, "-I", "-c", KEEPER, str(path), "-" if limit is None else str(limit)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            descriptor = int(process.stdout.readline())
            assert (descriptor >= posix_core._OUT_OF_THE_WAY) == (limit is None or limit > posix_core._OUT_OF_THE_WAY)
            with path.open("rb+") as file:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                process.stdin.close()
                assert process.wait(60) == 0
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_the_low_one_is_closed(self, tmp_path: Path) -> None:
        """Only one descriptor is left, so that closing it in the command releases the lock."""
        fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
        high = command.keep_across_exec(fd)
        try:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            assert os.get_inheritable(high)
        finally:
            os.close(high)
