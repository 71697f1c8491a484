"""The options of the user's and the site's file, and what stands for something else in paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.errors import UsageError
from envsync.launch import configuration
from envsync.launch.request import Request, own_python, resolve
from envsync.system import core
from tests.needs import IS_ROOT

RELEASE = own_python().split(" ")[1]


class Files:
    """A site's file, a user's and a project's, and what a request makes of them."""

    def __init__(self, directory: Path) -> None:
        self.site = directory / "site.toml"
        self.user = directory / "config/envsync.toml"
        self.project = directory / "project"
        self.user.parent.mkdir()
        self.project.mkdir()
        (self.project / "pylock.toml").write_text("")
        self.environ = {"ENVSYNC_SITE_CONFIG": str(self.site), "XDG_CONFIG_HOME": str(self.user.parent)}

    def say(self, *, site: str = "", user: str = "", project: str = "") -> None:
        self.site.write_text(site)
        self.user.write_text(user)
        (self.project / "pyproject.toml").write_text(f"[tool.envsync]\n{project}\n")

    def resolve(self, **environ: str) -> Request:
        return resolve({"lock": str(self.project / "pylock.toml")}, {**self.environ, **environ})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_nearest_wins(files: Files) -> None:
    """Site below user below project below variables."""
    said = [f'cache-dir = "/{name}"' for name in ("site", "user", "project")]
    for count, expected in enumerate(("/site", "/user", "/project"), start=1):
        files.say(**dict(zip(("site", "user", "project"), said[:count], strict=False)))
        assert files.resolve().text("cache_dir") == expected
    assert files.resolve(ENVSYNC_CACHE_DIR="/variable").text("cache_dir") == "/variable"


def test_contraries_are_settled_by_who_is_nearer(files: Files) -> None:
    """What the site says is dropped, not in contradiction, if the project says the contrary."""
    files.say(site="locked = true", project="frozen = true")
    assert files.resolve().flag("frozen")
    assert not files.resolve().flag("locked")


@pytest.mark.parametrize("text", ['find-links = ["/a", "/b"]', "timeout = 3", '[mirrors]\n"https://a" = "https://b"'])
def test_whatever_is_toml_is_read(files: Files, text: str) -> None:
    """What is not plain goes through a TOML parser."""
    files.say(site=text)
    assert len(files.resolve().settings) == 2


def test_neither_if_nobody_wants_them(files: Files) -> None:
    """`--no-config` and its variable leave both out, however broken; the project's own table counts."""
    files.say(site="[", user="[", project='busy = "fail"')
    assert files.resolve(ENVSYNC_NO_CONFIG="1").text("busy") == "fail"
    lock = str(files.project / "pylock.toml")
    assert resolve({"lock": lock, "no_config": True}, files.environ).text("busy") == "fail"
    with pytest.raises(UsageError, match=r"cannot parse .*site\.toml"):
        files.resolve()


def test_a_site_may_spare_the_homes(files: Files) -> None:
    """The user's file is not so much as looked for: here it would be an error."""
    files.say(site="user-configuration = false", user="[")
    assert "user-configuration" not in files.resolve().settings
    files.say(site='user-configuration = "no"')
    with pytest.raises(UsageError, match="has to be true or false"):
        files.resolve()


@pytest.mark.parametrize(
    "text",
    ['extra = "x"', 'lock = "/x"', "json = true", 'user = "x"', 'cache-dir = "cache"', 'find-links = "wheels"'],
)
@pytest.mark.parametrize("whose", ["site", "user"])
def test_what_they_may_not_say(files: Files, whose: str, text: str) -> None:
    """What is to be installed, and paths that are relative to nothing: the error names key and file."""
    files.say(**{whose: text})
    with pytest.raises(UsageError, match=text.split(" ", maxsplit=1)[0]) as raised:
        files.resolve()
    assert str(getattr(files, whose)) in str(raised.value)


def test_a_site_says_whom_to_trust(files: Files) -> None:
    """Which no project may say."""
    files.say(site='trusted-builder = "root"')
    assert files.resolve().texts("trusted_builder") == ("root",)
    files.say(project='trusted-builder = "root"')
    with pytest.raises(UsageError, match="is not an option"):
        files.resolve()


def test_what_is_not_there(files: Files) -> None:
    """No file is no error, unless it is named; a home that may not be looked into has none."""
    environ = {"XDG_CONFIG_HOME": "relative", "HOME": str(files.project / "pylock.toml")}
    lock = {"lock": str(files.project / "pylock.toml")}
    assert resolve(lock, environ).settings == lock
    with pytest.raises(UsageError, match=r"cannot read .*site\.toml"):
        files.resolve()


@pytest.mark.skipif(IS_ROOT, reason="root may look into everything")
def test_a_home_of_somebody_else(files: Files) -> None:
    """As under `sudo -u`, where HOME stays."""
    files.say(user="[")
    files.user.parent.chmod(0)
    try:
        assert files.resolve().text("cache_dir") is None
    finally:
        files.user.parent.chmod(0o700)


def test_an_environment_of_the_user_is_beside_the_lock_file(files: Files) -> None:
    """`env` is the one path that a shared file may give relative."""
    files.say(user='env = ".env"')
    assert files.resolve().env_template == str(files.project / ".env")


@pytest.mark.parametrize(("env", "kept"), [("/envs/{digest}", True), ("/env", False)])
def test_scripts(files: Files, env: str, kept: bool) -> None:
    """A script has an environment of its own: one that is for everything is not meant for it."""
    files.say(site=f'env = "{env}"')
    lock = files.project / "job.py.lock"
    lock.write_text("")
    found = resolve({"lock": str(lock)}, {**files.environ, "HOME": "/home/x"}).env_template
    assert (found == env) is kept
    assert "{digest}" in found


@pytest.mark.parametrize("whose", ["site", "user", "project"])
def test_variables_in_files(files: Files, whose: str) -> None:
    """`${NAME}` in any of the files; what is no such thing stays; one that is not set is an error."""
    files.say(**{whose: 'env = "${SCRATCH}/e/${USER}-${-$"\nindex-url = "https://${TOKEN}@x"'})
    asked = files.resolve(SCRATCH="/scratch", USER="me", TOKEN="secret")
    assert asked.env_template == "/scratch/e/me-${-$"
    assert asked.texts("index_url") == ("https://secret@x",)
    with pytest.raises(UsageError, match=r"`\$\{TOKEN\}` in `.*toml`.*"):
        files.resolve(SCRATCH="/scratch", USER="me")


def test_no_variables_on_the_command_line(files: Files) -> None:
    """There, shells do that."""
    files.say()
    assert resolve({"lock": str(files.project / "pylock.toml"), "env": "/${X}"}, files.environ).env_template == "/${X}"


def test_paths_are_spelled_with_slashes(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they come from, where a path may have backslashes: on Windows."""
    monkeypatch.setattr(core, "slashed", lambda path: path.replace("\\", "/"))
    (files.project / "sub").mkdir()
    files.say(project="cache-dir = 'sub\\cache'\nfind-links = ['sub\\wheels', \"https://h.invalid/a\"]")
    found = files.resolve(ENVSYNC_ENV="envs\\first")
    assert (found.env_template, found.text("cache_dir")) == ("envs/first", f"{files.project}/sub/cache")
    assert found.texts("find_links") == (f"{files.project}/sub/wheels", "https://h.invalid/a")
    assert files.resolve(ENVSYNC_ENV="~\\first", **{core.HOME: "\\users\\me"}).env_template == "/users/me/first"
    given = {"lock": f"{files.project}\\sub\\..\\pylock.toml", "active": True}
    found = resolve(given, {**files.environ, "VIRTUAL_ENV": "/envs\\active"})
    assert (found.lock, found.env_template) == (f"{files.project}/sub/../pylock.toml", "/envs/active")


def test_user_and_host(files: Files) -> None:
    """Wherever it is said, in the places where envsync writes; a lock file may have a brace in its name."""
    import pwd

    files.say(site='cache-dir = "/c/{user}/{host}"')
    asked = files.resolve(LOGNAME="me", USER="you", ENVSYNC_ENV="/e/{user}")
    assert asked.text("cache_dir") == f"/c/me/{os.uname().nodename}"
    assert asked.env_template == "/e/me"
    assert files.resolve(ENVSYNC_ENV="/e/{user}").env_template == f"/e/{pwd.getpwuid(os.getuid()).pw_name}"
    assert files.resolve(ENVSYNC_ENV="~/{user}", HOME="/h", USER="me").env_template == "/h/me"
    odd = files.project / "{user}.txt"
    odd.write_text("")
    assert resolve({"lock": str(odd)}, {**files.environ, "USER": "me"}).lock == str(odd)


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_name_that_is_no_part_of_a_path(files: Files, name: str) -> None:
    """A user's name leads nowhere else."""
    files.say(site='env = "/e/{user}"')
    with pytest.raises(UsageError, match="set LOGNAME"):
        files.resolve(LOGNAME=name)


def test_the_users_place(tmp_path: Path) -> None:
    """`~/.config` without XDG_CONFIG_HOME."""
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config/envsync.toml").write_text('cache-dir = "/c"')
    assert configuration.shared({"HOME": str(tmp_path)}, "") == {"cache_dir": "/c"}
    assert configuration.shared({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "/nowhere"}, "") == {}
