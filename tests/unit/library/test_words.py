"""`envsync.command`: words that mean the same everywhere, and hold no password."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st

import envsync
from envsync.errors import UsageError
from envsync.launch import options
from envsync.library import blocking, words
from tests.unit.library.program import LOCK, SECONDS


def parsed(said: list[str]) -> options.Settings:
    """Read the words as `run` does."""
    start = said.index("run") + 1
    found = options.parse([*said[start:], "true"], options.RUN)
    assert found is not None
    settings, rest = found
    assert rest == ["true"]
    return settings


def test_they_run_a_command_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another directory, without the variables of whoever asked for them, and through a shell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVSYNC_LINK_MODE", "copy")
    said = envsync.command(LOCK, env="env", compile_bytecode=True)
    monkeypatch.delenv("ENVSYNC_LINK_MODE")
    assert os.path.isabs(said[0])
    assert parsed(said) == {
        "lock": LOCK.as_posix(),
        "env": str(tmp_path / "env"),
        "link_mode": "copy",
        "cache_dir": Path(os.environ["ENVSYNC_CACHE_DIR"]).as_posix(),
        "compile_bytecode": True,
    }
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    line = join([*said, "python", "-c", "import sys; print(sys.prefix)"])
    done = subprocess.run(line, shell=True, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "env"


def test_without_a_launcher_python_itself_runs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where envsync is found by PYTHONPATH, or is part of a zip file."""

    def missing(_: str) -> None:
        raise words.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(words.importlib.metadata, "files", missing)
    said = envsync.command(LOCK, env=tmp_path / "env")
    assert said[1:4] == ["-P", "-m", "envsync"]
    done = subprocess.run([*said, "greet"], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout == "HELLO, WORLD!\n"


def test_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an argument; one in a variable stays there, where the command finds it."""
    secret = "https://user:hunter2@host.test/simple"
    monkeypatch.setenv("ENVSYNC_INDEX_URL", secret)
    monkeypatch.setenv("ENVSYNC_FIND_LINKS", "/wheels")
    said = envsync.command(LOCK)
    assert not any("hunter2" in word for word in said)
    assert "--find-links=/wheels" in said
    for options_ in ({"index_urls": [secret]}, {"find_links": [secret]}, {"mirrors": {secret: "https://two.test/"}}):
        with pytest.raises(UsageError, match="holds a password") as caught:
            envsync.command(LOCK, **options_)  # type: ignore[arg-type]
        assert "hunter2" not in f"{caught.value} {caught.value.hint}"
        assert "export ENVSYNC_" in caught.value.hint


def test_the_member_of_a_workspace_is_the_one_where_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A uv.lock is for a whole workspace; which of its projects is meant does not depend on where the command runs."""
    member = tmp_path / "packages" / "one"
    member.mkdir(parents=True)
    (tmp_path / "uv.lock").touch()
    monkeypatch.chdir(member)
    assert parsed(envsync.command("../../uv.lock"))["project"] == f"{member}/"
    monkeypatch.chdir("/")
    assert parsed(envsync.command(tmp_path / "uv.lock"))["project"] == f"{tmp_path}/"


@pytest.mark.parametrize("wrong", [{"busy": "maybe"}, {"timeout": -1}])
def test_what_makes_no_sense_is_said_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        envsync.command(LOCK, **wrong)


def test_what_no_option_is_called_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="linkmode"):
        envsync.command(LOCK, linkmode="copy")  # type: ignore[call-arg]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {options.FLAG: st.booleans(), options.SECONDS: st.floats(0, 1e6)}


def value_of(option: options.Option) -> st.SearchStrategy[Any]:
    if option.choices:
        return st.sampled_from(option.choices)
    if option.kind == options.LIST:
        return st.lists(TEXTS, max_size=3)
    return VALUES.get(option.kind, TEXTS)


@configured(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_what_is_given_is_what_they_say(data: st.DataObject) -> None:
    """Whatever letters are in it, and however it looks like an option."""
    known = list(blocking._ARGUMENTS.values())
    asked = {
        option.argument: data.draw(value_of(option), label=option.name)
        for option in data.draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda option: option.key))
    }
    try:
        expected = blocking.given("/lock", asked)  # type: ignore[arg-type]
        said = envsync.command("/lock", **asked)
    except UsageError:
        return
    found = parsed(said)
    paths = {"env", "cache_dir", "cache_fallback", "find_links", "python"}
    for key, value in expected.items():
        if key not in paths:
            assert found[key] == value
