"""Lock files that nobody can have meant: they are refused in a sentence, however deep, long or circular they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.errors import EnvsyncError, LockFileError
from envsync.lockfile import Sources, read
from envsync.python.facts import Interpreter
from envsync.system import paths

HEAD = 'lock-version = "1.0"\ncreated-by = "test"\n'
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "x = " + "[" * 50_000 + "]" * 50_000,
        HEAD + "x = " + "{a = " * 50_000 + "1" + "}" * 50_000,
        HEAD + f"x = {DIGITS}",
        HEAD + f'packages = [{{name = "a", version = "{DIGITS}"}}]',
        HEAD + f'requires-python = ">={DIGITS}"\npackages = []',
        HEAD + f"environments = [\"python_version == '{DIGITS}'\"]\npackages = []",
        HEAD + f'packages = [{{name = "a", marker = "python_version == \'{DIGITS}\'"}}]',
        HEAD + f'packages = [{{name = "a", wheels = [{{name = "a-{DIGITS}-py3-none-any.whl", hashes = {{}}}}]}}]',
        HEAD + 'packages = [{name = "a\\u0000b"}]',
        "\0",
    ],
    ids=range(10),
)
def test_a_pylock_is_refused_in_a_sentence(tmp_path: Path, interpreter: Interpreter, text: str) -> None:
    """RecursionError and ValueError of a library are no sentence."""
    (tmp_path / "pylock.toml").write_text(text)
    with pytest.raises(LockFileError) as caught:
        read(str(tmp_path / "pylock.toml")).select(interpreter, sources=Sources(offline=True))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "text",
    [
        f"a=={DIGITS}",
        f"a==1 ; python_version < '{DIGITS}'",
        f"a @ file:///a-{DIGITS}-py3-none-any.whl",
        f"a @ http://[::1{DIGITS}/a-1-py3-none-any.whl",
        f"a @ http://host:{DIGITS}/a-1-py3-none-any.whl",
        "a @ file:///a\0b-1-py3-none-any.whl",
        "-r a\0b.txt",
        "-r " + "x" * 5000,
        "(" * 50_000,
        "a==1 ; " + "(" * 50_000 + "python_version > '3'" + ")" * 50_000,
        "a[" + "b," * 50_000 + "b]",
        "\0",
    ],
    ids=range(12),
)
def test_requirements_are_refused_in_a_sentence(tmp_path: Path, interpreter: Interpreter, text: str) -> None:
    """Whatever a line has in it."""
    (tmp_path / "requirements.txt").write_text(text)
    with pytest.raises(EnvsyncError) as caught:
        read(str(tmp_path / "requirements.txt")).select(interpreter, sources=Sources(offline=True))
    assert "\n" not in caught.value.message


def test_a_chain_of_files_may_be_long(tmp_path: Path) -> None:
    """Each includes the next: that is no deeper than it is long."""
    for number in range(3000):
        (tmp_path / f"{number}.txt").write_text(
            f"-r {number + 1}.txt\na{number} @ file:///a{number}-1-py3-none-any.whl\n"
        )
    (tmp_path / "3000.txt").write_text("b @ file:///b-1-py3-none-any.whl\n")
    parsed = read(str(tmp_path / "0.txt"))
    assert len(parsed.inputs) == 3001
    assert parsed.local_files[0] == paths.abspath(f"{tmp_path.drive}/b-1-py3-none-any.whl"), (
        "the innermost was read first"
    )
    assert parsed.local_files[-1] == paths.abspath(f"{tmp_path.drive}/a0-1-py3-none-any.whl")


def test_files_that_double_are_refused(tmp_path: Path) -> None:
    """Forty files, each of which includes the next twice, would be read a million million times."""
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n-r {number + 1}.txt\n")
    (tmp_path / "40.txt").write_text("")
    with pytest.raises(LockFileError, match="includes more than"):
        read(str(tmp_path / "0.txt"))


def test_a_file_that_includes_itself_by_a_link_is_refused(tmp_path: Path) -> None:
    """By another name each time, for as long as a path may be."""
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "requirements.txt").write_text("-r here/requirements.txt\n")
    with pytest.raises(LockFileError, match="includes itself"):
        read(str(tmp_path / "requirements.txt"))


def test_a_file_as_large_as_a_disk_is_not_read(tmp_path: Path) -> None:
    """Nobody pins so much; it is said before the memory is gone."""
    with (tmp_path / "requirements.txt").open("wb") as file:
        file.write(b"# of many pins\n" * 10_000)
        file.truncate(1 << 40)
    with pytest.raises(LockFileError, match="larger than"):
        read(str(tmp_path / "requirements.txt"))
