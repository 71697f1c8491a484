"""The request: which lock file, which options win, and what the digest stands for."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from envsync.errors import LockFileError, UsageError
from envsync.launch import options
from envsync.launch.configuration import plain_table
from envsync.launch.finding import go_to
from envsync.launch.request import INDEX_OF_UV, Request, describe_python, resolve
from envsync.launch.stamp import LocalFile, checksum
from envsync.system import core, paths

ROOT = Path(__file__).parent.parent.parent.parent
PYTHON = "cpython 3.11 x86_64 glibc"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, two levels below one that is empty but for it, as the working directory."""
    directory = tmp_path / "work" / "project"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


class TestMembers:
    """Which member of a workspace one stands in."""

    @pytest.fixture
    def workspace(self, project: Path) -> Path:
        """A workspace with a member two levels below, in which one stands, and one that is no project."""
        (project.parent.parent / "uv.lock").write_text("version = 1\n")
        for directory in (project.parent.parent, project):
            (directory / "pyproject.toml").touch()
        (project / "src").mkdir()
        return project.parent.parent

    @pytest.mark.parametrize("below", [".", "src"])
    @pytest.mark.parametrize("named", [False, True])
    def test_the_nearest_project(
        self, workspace: Path, project: Path, monkeypatch: pytest.MonkeyPatch, below: str, named: bool
    ) -> None:
        """The working directory tells it, whether the lock file is named or found; so does `--project`."""
        lock: options.Settings = {"lock": str(workspace / "uv.lock")} if named else {}
        plain = resolve({"lock": str(workspace / "uv.lock"), "all_packages": True}, {})
        assert plain.member == "."
        assert resolve({**lock, "project": below}, {}).member == "work/project"
        monkeypatch.chdir(project / below)
        request = resolve(lock, {})
        assert request.member == "work/project"
        assert request.lock == (lock.get("lock") or ("../../uv.lock" if below == "." else "../../../uv.lock"))
        root = Request(request.settings, request.lock, request.content, request.env_template)
        assert request.digest("") != root.digest("")
        assert request.key != root.key
        assert request.replaced(durable=True).digest("") == request.digest("")
        assert resolve({**lock, "package": ["a"]}, {}).member == "."

    @pytest.mark.parametrize("named", [False, True])
    def test_none(self, workspace: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
        """In the directory of the lock file, in one below that is no project, and elsewhere, it is the root."""
        lock: options.Settings = {"lock": str(workspace / "uv.lock")} if named else {}
        for directory in (workspace, workspace / "work"):
            monkeypatch.chdir(directory)
            assert resolve(lock, {}).member == "."
        monkeypatch.chdir(workspace.parent)
        assert resolve({"lock": str(workspace / "uv.lock")}, {}).member == "."

    @pytest.mark.parametrize("named", [False, True])
    def test_a_directory_is_no_project(self, workspace: Path, project: Path, named: bool) -> None:
        """Nor does one say which Python is wanted, though it has the name of a file that does."""
        lock: options.Settings = {"lock": str(workspace / "uv.lock")} if named else {}
        (project / "pyproject.toml").unlink()
        for name in ("pyproject.toml", ".python-version"):
            (project / name).mkdir()
        (project.parent / ".python-version").touch()
        request = resolve(lock, {})
        assert (request.member, request.pin) == (".", "work/.python-version")

    def test_other_formats_have_none(self, workspace: Path) -> None:
        """Where one stands means nothing for them."""
        (workspace / "uv.lock").rename(workspace / "pylock.toml")
        assert resolve({}, {}).member == "."


class TestProject:
    """`--project`, `--directory`, `--active`."""

    @pytest.mark.parametrize("name", ["", "deeper/"])
    @pytest.mark.parametrize("absolute", [False, True])
    def test_the_search_begins_there(self, project: Path, name: str, absolute: bool) -> None:
        """And what it finds is used as it is found there; other paths are relative to where one stands."""
        (project / "sub" / "deeper").mkdir(parents=True)
        (project / "sub" / "pylock.toml").write_text("x")
        (project / "requirements.txt").write_text("y")
        start = f"{project}/sub/{name}" if absolute else f"sub/{name}"
        request = resolve({"project": start, "cache_dir": "c"}, {})
        assert os.path.samefile(request.lock, project / "sub" / "pylock.toml")
        assert paths.abspath(request.env_template) == str(project / "sub" / ".venv")
        assert request.text("cache_dir") == "c"
        assert resolve({}, {"ENVSYNC_PROJECT": start}).lock == resolve({}, {"UV_PROJECT": start}).lock == request.lock
        assert resolve({}, {"ENVSYNC_PROJECT": ".", "UV_PROJECT": start}).content == checksum(b"y")
        assert resolve({"lock": "requirements.txt", "project": start}, {}).lock == "requirements.txt"

    def test_nothing_there(self, project: Path) -> None:
        """It is said where the search began."""
        (project / "sub").mkdir()
        with pytest.raises(UsageError, match=f"no lock file.* in `{project}/sub` or any of its parents"):
            resolve({"project": "sub"}, {})
        with pytest.raises(UsageError, match="cannot look for a lock file in `other/`"):
            resolve({"project": "other"}, {})

    def test_the_active_environment(self, project: Path) -> None:
        """It is taken if there is one, unless another is named nearer to the command."""
        (project / "pylock.toml").touch()
        environ = {"VIRTUAL_ENV": "/active"}
        assert resolve({}, environ).env_template == ".venv"
        assert resolve({"active": True}, {}).env_template == ".venv"
        assert resolve({"active": True}, environ).env_template == "/active"
        assert resolve({"active": True}, {**environ, "ENVSYNC_ENV": "e"}).env_template == "/active"
        assert resolve({"env": "e"}, {**environ, "ENVSYNC_ACTIVE": "1"}).env_template == "e"
        assert resolve({"active": False}, {**environ, "ENVSYNC_ACTIVE": "1"}).env_template == ".venv"
        with pytest.raises(UsageError, match="contradict"):
            resolve({"active": True, "env": "e"}, environ)

    @pytest.mark.parametrize("variable", ["", "ENVSYNC_DIRECTORY", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"])
    def test_another_directory(self, project: Path, variable: str) -> None:
        """All is as if one stood there."""
        (project / "sub").mkdir()
        go_to({} if variable else {"directory": "sub"}, {variable: "sub"})
        assert Path.cwd() == project / "sub"
        with pytest.raises(UsageError, match="cannot go to directory `missing`: No such file"):
            go_to({"directory": "missing"}, {"UV_WORKING_DIR": str(project)})


class TestVariablesOfUv:
    """uv's variables count for uv's projects alone."""

    @pytest.mark.parametrize("option", [option for option in options.ANYWHERE if option.uv], ids=lambda o: o.name)
    def test_each(self, project: Path, option: options.Option) -> None:
        """They say what ours say, which win, as does the command line; they win over the file."""
        texts = {options.FLAG: "true", options.LIST: "a", options.TEXT: option.choices[-1] if option.choices else "a"}
        value: options.Value = {options.FLAG: True, options.LIST: ["a"]}.get(option.kind, texts[options.TEXT])
        (project / "pylock.toml").touch()
        for variable in option.uv:
            assert option.key not in resolve({}, {variable: texts[option.kind]}).settings
        (project / "uv.lock").touch()
        for variable in option.uv:
            assert resolve({}, {variable: texts[option.kind]}).settings[option.key] == value
            if option.kind == options.FLAG:
                assert not resolve({}, {variable: "1", option.variable: "0"}).flag(option.key)
                assert not resolve({option.key: False}, {variable: "1"}).flag(option.key)
                (project / "pyproject.toml").write_text(f"[tool.envsync]\n{option.name} = true\n")
                assert not resolve({}, {variable: "f"}).flag(option.key)
                (project / "pyproject.toml").unlink()

    def test_a_script_is_no_project(self, project: Path) -> None:
        """Of its lock file, those count that are not about a project."""
        (project / "job.py.lock").touch()
        environ = {
            "UV_PROJECT_ENVIRONMENT": "there",
            "UV_NO_DEV": "1",
            "UV_OFFLINE": "1",
            "UV_PYTHON": "3.12",
            core.HOME: "/h",
        }
        request = resolve({"lock": "job.py.lock"}, environ)
        assert request.settings == {"lock": "job.py.lock", "offline": True, "python": "3.12"}

    @pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
    def test_their_index_redirects_nothing(self, project: Path, variable: str) -> None:
        """One of our own options does, which is not the same request."""
        (project / "uv.lock").touch()
        url = "https://a.invalid/simple"
        of_uv = resolve({}, {variable: url})
        ours = [
            resolve({"index_url": [url]}, {variable: "https://b.invalid"}),
            resolve({}, {variable: url, "ENVSYNC_INDEX_URL": url}),
        ]
        assert [each.texts("index_url") for each in (of_uv, *ours)] == [(url,)] * 3
        assert [each.flag(INDEX_OF_UV) for each in (of_uv, *ours)] == [True, False, False]
        assert of_uv.key not in {each.key for each in ours}

    def test_their_shapes(self, project: Path) -> None:
        """Paths are relative to the project, lists are separated as uv has it, and indexes may have names."""
        (project.parent / "uv.lock").touch()
        environ = {
            "UV_PROJECT_ENVIRONMENT": "there",
            "UV_NO_GROUP": "a b",
            "UV_FIND_LINKS": "x,y",
            "UV_DEFAULT_INDEX": "internal=https://index.invalid/simple?a=b",
            "UV_INDEX_URL": "https://other.invalid/",
        }
        request = resolve({}, environ)
        assert request.env_template == "../there"
        assert request.texts("no_group") == ("a", "b")
        assert request.texts("find_links") == ("x", "y")
        assert request.texts("index_url") == ("https://index.invalid/simple?a=b",)
        assert resolve({"active": True}, {**environ, "VIRTUAL_ENV": "/v"}).env_template == "/v"
        with pytest.raises(UsageError, match="environment variable `UV_OFFLINE`: `maybe` is neither"):
            resolve({}, {"UV_OFFLINE": "maybe"})


class TestDiscovery:
    """Which lock file is meant."""

    @pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt", "uv.lock"])
    def test_the_only_one_here(self, project: Path, name: str) -> None:
        """The only lock file of the working directory is taken, and .venv beside it."""
        (project / name).write_text("content")
        request = resolve({}, {})
        assert (request.lock, request.directory, request.env_template) == (name, "", ".venv")
        assert request.content == checksum(b"content")

    def test_the_nearest_parent(self, project: Path) -> None:
        """Without one here, the nearest parent's is taken, and .venv beside that."""
        (project.parent / "pylock.toml").write_text("nearer")
        (project.parent.parent / "requirements.txt").write_text("farther")
        request = resolve({}, {})
        assert (request.lock, request.env_template) == ("../pylock.toml", "../.venv")
        assert request.content == checksum(b"nearer")

    @pytest.mark.parametrize("own", ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"])
    def test_the_projects_own_before_what_was_made_of_it(self, project: Path, own: str) -> None:
        """Its tool's lock file before a pylock.toml, that one before requirements."""
        names = ["requirements.txt", "pylock.toml", own]
        for name in names:
            (project.parent / name).write_text(name)
            assert resolve({}, {}).lock == f"../{name}"
            assert resolve({}, {}).content == checksum(name.encode())

    def test_several_of_one_rank(self, project: Path) -> None:
        """Several in one directory are an error that lists them, wherever that directory is."""
        for name in ("requirements.txt", "poetry.lock", "uv.lock"):
            (project.parent / name).touch()
        with pytest.raises(UsageError, match=r"`\.\./`: uv\.lock, poetry\.lock") as caught:
            resolve({}, {})
        assert caught.value.hint == "choose one: `envsync sync --lock ../uv.lock`"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("uv.lock", "version = 2\n"),
            ("uv.lock", "version = 11\n"),
            ("poetry.lock", '[metadata]\nlock-version = "1.1"\n'),
            ("poetry.lock", '[metadata]\nlock-version = "2.0"\n'),
            ("pdm.lock", '[metadata]\nlock_version = "3.1"\n'),
        ],
    )
    def test_what_cannot_be_read_is_passed_over(self, project: Path, name: str, text: str) -> None:
        """If there is another one. Alone, it is the one that is meant, and whoever reads it says what is wrong."""
        (project / name).write_text(text)
        assert resolve({}, {}).lock == name
        (project / "requirements.txt").touch()
        assert resolve({}, {}).lock == "requirements.txt"
        (project / "Pipfile.lock").touch()
        assert resolve({}, {}).lock == "Pipfile.lock"

    @pytest.mark.parametrize("text", ["", 'version = 1\nrevision = 3\n[[package]]\nversion = "2"', "version = 1\r\n"])
    def test_what_is_being_written_is_not(self, project: Path, text: str) -> None:
        """Else the packages of another file would take the place of its own for a moment."""
        (project / "uv.lock").write_text(text)
        (project / "requirements.txt").touch()
        assert resolve({}, {}).lock == "uv.lock"

    def test_what_is_no_file_is_passed_over(self, project: Path) -> None:
        """As is one that others may read."""
        (project / "uv.lock").mkdir()
        (project / "pylock.toml").touch()
        assert resolve({}, {}).lock == "pylock.toml"

    def test_directories_are_no_lock_files(self, project: Path) -> None:
        """Whatever their names: the search goes on above, and finds none if there are only directories."""
        for name in ("uv.lock", "requirements.txt", "pyproject.toml"):
            (project / name).mkdir()
        with pytest.raises(UsageError, match="no lock file") as caught:
            resolve({}, {})
        assert "uv init" in (caught.value.hint or "")
        (project.parent / "pylock.toml").touch()
        assert resolve({}, {}).lock == "../pylock.toml"
        assert resolve({"lock": "../pylock.toml"}, {}).lock == "../pylock.toml"

    def test_a_directory_beside_a_lock_file_that_is_named(self, project: Path) -> None:
        """One called pyproject.toml has no options."""
        (project / "pyproject.toml").mkdir()
        (project / "pylock.toml").touch()
        assert resolve({"lock": "pylock.toml"}, {}).lock == "pylock.toml"

    def test_what_lies_farther_up_does_not_matter(self, project: Path) -> None:
        """The nearest directory counts, whatever kind of file is in it."""
        (project / "requirements.txt").touch()
        (project.parent / "poetry.lock").touch()
        (project.parent / "uv.lock").touch()
        assert resolve({}, {}).lock == "requirements.txt"

    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("pyproject.toml", "`uv lock`"),
            ("Pipfile", "`pipenv lock`"),
            ("requirements.in", "`uv pip compile --generate-hashes --output-file requirements.txt requirements.in`"),
            ("pixi.lock", "list the Python packages"),
            ("environment.yml", "list the Python packages"),
            ("README", "`uv init --bare && uv lock`"),
        ],
    )
    def test_what_there_is_says_how_to_make_one(self, project: Path, name: str, command: str) -> None:
        """Whoever has no lock file is told by which command to get one, as far as the other files tell."""
        (project / name).touch()
        with pytest.raises(UsageError, match="no lock file") as caught:
            resolve({}, {})
        assert command in caught.value.hint

    def test_none_anywhere(self, project: Path) -> None:
        """If no parent has one, that is said with the directory in which the search began."""
        with pytest.raises(UsageError, match=f"`{project}` or any of its parents") as caught:
            resolve({}, {})
        assert "--lock" in str(caught.value.hint)

    def test_at_the_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The search ends at the root, also if it begins there."""
        monkeypatch.chdir("/")
        with pytest.raises(UsageError, match=f"`{core.getcwd()}` or any of its parents"):
            resolve({}, {})

    def test_named(self, project: Path) -> None:
        """A named lock file is taken as it is named, and .venv beside it."""
        (project / "locks").mkdir()
        (project / "locks" / "pylock.gpu.toml").write_text("x")
        (project / "pylock.toml").touch()
        (project / "uv.lock").touch()
        request = resolve({"lock": "locks/pylock.gpu.toml"}, {})
        assert (request.lock, request.directory) == ("locks/pylock.gpu.toml", "locks/")
        assert request.env_template == "locks/.venv"

    def test_missing(self, project: Path) -> None:
        """A named lock file that is not there, or is a directory, is said with its name."""
        for name in ("pylock.toml", "."):
            with pytest.raises(LockFileError, match=f"`{name}`"):
                resolve({"lock": name}, {})

    def test_named_in_the_table(self, project: Path) -> None:
        """`lock` in [tool.envsync] settles what would be ambiguous, relative to its file."""
        (project / "locks").mkdir()
        (project / "locks" / "pylock.toml").write_text("chosen")
        for name in ("pylock.toml", "uv.lock"):
            (project / name).touch()
        (project / "pyproject.toml").write_text('[tool.envsync]\nlock = "locks/pylock.toml"\n')
        assert resolve({}, {}).content == checksum(b"chosen")

    def test_named_in_the_table_of_a_parent(self, project: Path) -> None:
        """`lock` in a parent's [tool.envsync] is relative to that parent."""
        (project.parent / "gpu.txt").write_text("chosen")
        (project.parent / "pyproject.toml").write_text('[tool.envsync]\nlock = "gpu.txt"\n')
        request = resolve({}, {})
        assert (request.lock, request.content) == ("../gpu.txt", checksum(b"chosen"))

    @pytest.mark.parametrize("levels", [0, 1, 2])
    def test_named_in_the_table_absolutely(self, project: Path, levels: int) -> None:
        """`lock` in [tool.envsync] may be absolute, from wherever below its file one asks."""
        (project / "gpu.txt").write_text("chosen")
        (project.parents[levels - 1] if levels else project).joinpath("pyproject.toml").write_text(
            f'[tool.envsync]\nlock = "{project}/gpu.txt"\n'
        )
        assert resolve({}, {}).content == checksum(b"chosen")

    def test_the_environment_is_beside_the_lock_file(self, project: Path) -> None:
        """One lock file has one default environment, whichever way it is named."""
        (project / "locks").mkdir()
        (project / "locks" / "pylock.toml").touch()
        (project / "pyproject.toml").write_text('[tool.envsync]\nlock = "locks/pylock.toml"\n')
        by_table, by_option = resolve({}, {}), resolve({"lock": "locks/pylock.toml"}, {})
        assert by_table.env_template == by_option.env_template == "locks/.venv"


class TestPrecedence:
    """Command line over environment over [tool.envsync]."""

    def write(self, directory: Path, *lines: str) -> None:
        (directory / "pyproject.toml").write_text("\n".join(["[tool.envsync]", *lines]))
        (directory / "pylock.toml").touch()

    def test_command_line_over_environment_over_file(self, project: Path) -> None:
        """Each option for itself comes from the most particular place that names it."""
        self.write(project, 'env = "file"', 'busy = "fail"', 'python = "3.9"', "offline = true")
        environ = {"ENVSYNC_ENV": "variable", "ENVSYNC_BUSY": "ignore"}
        request = resolve({"env": "option"}, environ)
        assert request.env_template == "option"
        assert request.text("busy") == "ignore"
        assert request.text("python") == "3.9"
        assert request.flag("offline")

    def test_lists_are_replaced_as_a_whole(self, project: Path) -> None:
        """A list given more particularly is not added to the others."""
        self.write(project, 'extra = ["a", "b"]', 'group = "file"')
        request = resolve({"extra": ["c"]}, {"ENVSYNC_EXTRA": "d", "ENVSYNC_GROUP": "x y"})
        assert request.texts("extra") == ("c",)
        assert request.texts("group") == ("x", "y")

    def test_a_variable_switches_a_flag_off(self, project: Path) -> None:
        """A flag of the file can be switched off by a variable."""
        self.write(project, "inexact = true")
        assert resolve({}, {}).flag("inexact")
        assert not resolve({}, {"ENVSYNC_INEXACT": "0"}).flag("inexact")

    def test_the_variable_names_the_lock_file(self, project: Path) -> None:
        """ENVSYNC_LOCK counts where --lock is not given; the table beside it counts then."""
        (project / "sub").mkdir()
        self.write(project / "sub", 'env = "there"')
        assert resolve({}, {"ENVSYNC_LOCK": "sub/pylock.toml"}).env_template == "sub/there"

    def test_paths_of_the_file_are_relative_to_it(self, project: Path) -> None:
        """Paths in [tool.envsync] mean the same from every working directory."""
        self.write(
            project.parent,
            'env = "env"',
            'cache-dir = "cache"',
            'find-links = ["wheels", "/abs", "https://index.example.invalid/x"]',
        )
        request = resolve({}, {})
        assert request.env_template == "../env"
        assert request.text("cache_dir") == "../cache"
        assert request.texts("find_links") == ("../wheels", "/abs", "https://index.example.invalid/x")

    def test_other_paths_are_relative_to_the_working_directory(self, project: Path) -> None:
        """Paths on the command line and in variables are not the file's business."""
        self.write(project.parent)
        request = resolve({"env": "env"}, {"ENVSYNC_CACHE_DIR": "cache"})
        assert (request.env_template, request.text("cache_dir")) == ("env", "cache")

    @pytest.mark.parametrize("env", ["/", "", "//"])
    def test_an_environment_that_cannot_be(self, project: Path, env: str) -> None:
        """The root directory and an empty path are no environments."""
        (project / "pylock.toml").touch()
        with pytest.raises(UsageError, match="root directory or an empty path"):
            resolve({"env": env}, {})

    def test_a_trailing_slash_means_nothing(self, project: Path) -> None:
        """`--env .venv/` is `--env .venv`."""
        (project / "pylock.toml").touch()
        assert resolve({"env": "a/b//"}, {}).env_template == "a/b"

    @pytest.mark.parametrize("text", ["[tool.envsync", "[tool]\nenvsync = 1", "[[tool.envsync]]"])
    def test_a_broken_table(self, project: Path, text: str) -> None:
        """A pyproject.toml that cannot be used is said with its name, not passed over."""
        (project / "pylock.toml").touch()
        (project / "pyproject.toml").write_text(text)
        with pytest.raises(UsageError, match=r"`pyproject\.toml`"):
            resolve({}, {})

    def test_others_tables_are_nothing_to_us(self, project: Path) -> None:
        """A pyproject.toml that does not speak of envsync is not parsed, so it may be as broken as it likes."""
        (project / "pylock.toml").touch()
        (project / "pyproject.toml").write_text("[tool.other\nx")
        assert resolve({}, {}).settings == {}


def parsed(document: str) -> object:
    """Return [tool.envsync] by a TOML parser, the empty table if there is none.

    :raises ValueError: that is no TOML
    """
    tool = tomllib.loads(document).get("tool", {})
    return tool.get("envsync", {}) if isinstance(tool, dict) else None


PIECES = st.sampled_from(
    [
        "[tool.envsync]",
        " [tool.envsync]\t",
        "[tool.envsync] # here",
        "[ tool . envsync ]",
        "[tool.'envsync']",
        "[[tool.envsync]]",
        "[tool.envsync.more]",
        "[tool]",
        "[tool] # of others",
        "[project]",
        "[tool.other]",
        'envsync.lock = "a"',
        'tool.envsync.lock = "a"',
        'envsync = { lock = "a" }',
        'name = "envsync"',
        'lock = "pylock.toml"',
        "lock = 'py[lock].toml'",
        'env="a=b"',
        'env = "#"',
        'env = "a" # "b"',
        "env = 'it is \"so\"'",
        'env = "it\'s"',
        'env = ""',
        "offline = true",
        "offline =false",
        "inexact = true # really",
        "timeout = 5",
        "timeout = 1e3",
        'extra = ["a", "b"]',
        "extra = [",
        '  "a",',
        '  "[tool.envsync]",',
        '  ["envsync"],',
        "]",
        'text = """',
        "text = '''",
        "'''",
        '"""',
        '"lock" = "quoted"',
        'no-index = "a\\tb"',
        'a.b = "c"',
        'x = "caf\u00e9"',
        '1-2 = "3"',
        "# [tool.envsync]",
        "#",
        "",
    ]
)
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
KEYS = st.from_regex(r"[a-z][a-z-]{0,6}", fullmatch=True)
LINES = (
    PIECES
    | st.builds('{} = "{}"'.format, KEYS, STRINGS)
    | st.builds("{} = '{}'".format, KEYS, STRINGS)
    | st.builds("# {}".format, STRINGS)
    | st.builds("{}{}".format, st.sampled_from([" ", "\t", ""]), PIECES)
)


class TestPlainTable:
    """Reading [tool.envsync] without a TOML parser, which takes 8 ms to import."""

    @given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]))
    @example(["[tool.envsync]", 'lock = "a"', "[project]", 'lock = "b"'], "\n")
    def test_agrees_with_a_toml_parser(self, lines: list[str], end: str) -> None:
        """Whenever it answers about something that is TOML, its answer is a TOML parser's."""
        document = end.join(lines)
        plain = plain_table(document.encode("utf-8"))
        if plain is None:
            return
        try:
            expected = parsed(document)
        except ValueError:
            return
        assert plain == expected

    @given(st.lists(st.tuples(KEYS, st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"])))))
    def test_answers_what_people_write(self, items: list[tuple[str, str]]) -> None:
        """It answers for strings and booleans, so that the launch of an ordinary project needs no parser."""
        items = [item for item in dict(items).items() if not set(item[1]) & set("\"'\\")]
        table = "".join(f'{key} = "{value}"\n' for key, value in items)
        document = (
            f'[project]\nname = "x"\n\n# ours\n[tool.envsync]\n{table}offline-too = true\n[tool.other]\nlock = 1\n'
        )
        assert plain_table(document.encode()) == {**dict(items), "offline-too": True}

    @pytest.mark.parametrize(
        "document",
        [
            'tool = { envsync = { lock = "a" } }',
            'tool = { envsync.lock = "a" }',
            "tool = { 'envsync' = {} }",
            'tool . envsync = { lock = "a" }',
            '[tool]\nenvsync.lock = "a"',
            '["tool"]\nenvsync.lock = "a"',
            '["tool"."envsync"]\nlock = "a"',
        ],
    )
    def test_sees_every_way_to_write_a_table(self, document: str) -> None:
        """A table written in another way is not taken for none."""
        assert plain_table(document.encode()) in (None, parsed(document))

    @pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029"])
    @pytest.mark.parametrize("quote", ["#", '"', "'"])
    def test_only_a_newline_ends_a_line(self, character: str, quote: str) -> None:
        """What other standards take for the end of a line does not end one in TOML."""
        start, end = ("#", "") if quote == "#" else (f"x = {quote}", quote)
        document = f"{start}{character}[tool.envsync]{character}lock = true{character}{end}"
        assert parsed(document) == {}
        assert plain_table(document.encode()) in (None, {})


def request(content: bytes = b"lock", **settings: object) -> Request:
    given = options.checked(settings)
    return Request(given, "pylock.toml", checksum(content), ".venv")


class TestDigest:
    """What the digest stands for."""

    def test_is_the_same_for_ever(self) -> None:
        """Environments of earlier versions stay current: a change of the digest has to be on purpose."""
        assert request().digest(PYTHON) == "d79bcb0fd36fa706472c5e29ea851562"
        full = request(extra=["x"], group=["dev"], inexact=True, python="3.11", find_links=["/wheels"])
        local = [LocalFile("/w/a.whl", 3, 4, direct=True)]
        digest = full.digest(PYTHON, ["0" * 32], unhashed=True, local_files=local)
        assert digest == "f3593dd3b6d1336f494a722c30fd50d3"

    @pytest.mark.parametrize(
        "settings",
        [
            {"extra": ["x"]},
            {"extra": ["x", "y"]},
            {"group": ["x"]},
            {"inexact": True},
            {"python": "3.11"},
            {"python": "x"},
        ],
    )
    def test_changes_with_what_decides_the_target(self, settings: dict[str, object]) -> None:
        """Each option that decides what is installed changes it, and the key as well."""
        assert request(**settings).digest(PYTHON) != request().digest(PYTHON)
        assert request(**settings).key != request().key

    @pytest.mark.parametrize("settings", [{"link_mode": "auto"}, {"offline": False}, {"cache_dir": None}])
    def test_a_default_that_is_given(self, settings: dict[str, object]) -> None:
        """Who names a default asks for the same: a program's call and a command line share failures and turns."""
        assert request(**settings).key == request().key
        assert request(link_mode="copy").key != request().key

    def test_changes_with_the_inputs(self) -> None:
        """The content of the lock file and of every further input file, in their order, change it."""
        one, two = checksum(b"1"), checksum(b"2")
        digests = {
            request().digest(PYTHON),
            request(b"other").digest(PYTHON),
            request().digest(PYTHON, [one]),
            request().digest(PYTHON, [one, two]),
            request().digest(PYTHON, [two, one]),
            request().digest(PYTHON, [one, one]),
        }
        assert len(digests) == 6

    @pytest.mark.parametrize(
        "python", ["pypy 3.11 x86_64 glibc", "cpython 3.12 x86_64 glibc", "cpython 3.11 aarch64 glibc"]
    )
    def test_changes_with_the_python(self, python: str) -> None:
        """Another implementation, version or machine is another environment."""
        assert request().digest(python) != request().digest(PYTHON)

    @pytest.mark.parametrize(
        "settings",
        [
            {"env": "elsewhere"},
            {"lock": "elsewhere"},
            {"cache_dir": "/c"},
            {"link_mode": "copy"},
            {"timeout": 3},
            {"busy": "fail"},
            {"offline": True},
            {"quiet": True},
            {"verbose": True},
            {"index_url": ["https://i"]},
            {"find_links": ["/w"]},
            {"no_index": True},
            {"extra": []},
            {"inexact": False},
        ],
    )
    def test_does_not_change_with_anything_else(self, settings: dict[str, object]) -> None:
        """Where things are, how long one waits, and where hashed wheels come from is no part of it."""
        assert request(**settings).digest(PYTHON) == request().digest(PYTHON)

    def test_does_not_change_with_order_and_repetition(self) -> None:
        """Extras and groups are sets."""
        assert request(extra=["a", "b"]).digest(PYTHON) == request(extra=["b", "a", "b"]).digest(PYTHON)

    def test_sources_count_without_hashes(self) -> None:
        """Where wheels come from, in that order, decides what a reference without a hash means."""
        settings: list[dict[str, object]] = [
            {},
            {"index_url": ["https://i"]},
            {"index_url": ["https://i", "https://j"]},
            {"index_url": ["https://j", "https://i"]},
            {"find_links": ["/w"]},
            {"no_index": True},
        ]
        assert len({request(**each).digest(PYTHON, unhashed=True) for each in settings}) == 6

    def test_user_information_does_not_count(self) -> None:
        """A token in the URL of an index says who fetches, not what: it is part of the key, and of no digest."""
        mine, yours = (request(index_url=[f"https://{who}@i/simple"]) for who in ("me:x", "you:y"))
        assert mine.digest(PYTHON, unhashed=True) == yours.digest(PYTHON, unhashed=True)
        assert mine.digest(PYTHON, unhashed=True) != request().digest(PYTHON, unhashed=True)
        assert mine.key != yours.key

    def test_variables_count(self) -> None:
        """What stands for the environment variables that a file uses is part of it."""
        values = [(), ("V 1",), ("V 2",), ("V 1", "W 1")]
        assert len({request().digest(PYTHON, variables=each) for each in values}) == 4

    def test_the_place_counts_where_it_decides(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The lock file's directory counts if directories or files without a hash are found beside it, by any name."""

        def digest(lock: str, *, placed: bool, unhashed: bool = True) -> str:
            asked = Request({}, lock, checksum(b""), ".venv")
            return asked.digest(PYTHON, unhashed=unhashed, placed=placed)

        monkeypatch.chdir(tmp_path)
        (tmp_path / "a").mkdir()
        here = digest("requirements.txt", placed=True)
        assert here == digest(f"{tmp_path}/requirements.txt", placed=True)
        assert here == digest("a/../requirements.txt", placed=True)
        assert here != digest("a/requirements.txt", placed=True)
        assert digest("requirements.txt", placed=False) == digest("a/requirements.txt", placed=False)
        assert digest("x.txt", placed=True, unhashed=False) != digest("a/x.txt", placed=True, unhashed=False)
        assert digest("x.txt", placed=False, unhashed=False) == digest("a/x.txt", placed=False, unhashed=False)

    def test_local_files_count_without_hashes(self) -> None:
        """Path, size and time of a local wheel stand for its content."""
        files = [("/a", 1, 1), ("/b", 1, 1), ("/a", 2, 1), ("/a", 1, 2)]
        digests = [
            request().digest(PYTHON, unhashed=True, local_files=[LocalFile(*each, direct=True)]) for each in files
        ]
        assert len(set(digests)) == 4

    def test_does_not_depend_on_the_working_directory(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two tasks in two directories of one project ask for the same."""
        (project / "pyproject.toml").write_text('[tool.envsync]\nfind-links = "wheels"\n')
        (project / "requirements.txt").write_text("demo==1\n")
        digests = {resolve({}, {}).digest(PYTHON, unhashed=True)}
        keys = {resolve({}, {}).key}
        (project / "a" / "b").mkdir(parents=True)
        for below in ("a", "a/b"):
            monkeypatch.chdir(project / below)
            digests.add(resolve({}, {}).digest(PYTHON, unhashed=True))
            keys.add(resolve({}, {}).key)
        assert len(digests) == len(keys) == 1

    TEXTS = st.sampled_from(["a", "b", "a b", "a\ngroup b", "", " "])
    SETTINGS = st.fixed_dictionaries(
        {},
        optional={
            "extra": st.lists(TEXTS, max_size=2),
            "group": st.lists(TEXTS, max_size=2),
            "python": TEXTS.filter(bool),
            "inexact": st.booleans(),
        },
    )

    @given(SETTINGS, SETTINGS)
    def test_different_requests_have_different_digests(self, one: dict[str, object], other: dict[str, object]) -> None:
        """Two requests have one digest only if they ask for the same."""

        def meaning(settings: dict[str, object]) -> object:
            lists = [frozenset(settings.get(key, [])) for key in ("extra", "group")]  # type: ignore[call-overload]
            return lists, settings.get("python"), settings.get("inexact") or False

        assume(meaning(one) != meaning(other))
        assert request(**one).digest(PYTHON) != request(**other).digest(PYTHON)

    def test_an_extra_cannot_pose_as_a_group(self) -> None:
        """A name with a newline in it does not borrow another request's digest, and with it its environment."""
        assert request(extra=["a\ngroup b"]).digest(PYTHON) != request(extra=["a"], group=["b"]).digest(PYTHON)


def test_describe_python() -> None:
    """The description names implementation, X.Y, machine and libc family."""
    implementation, version, machine, libc = describe_python("cpython", "3.11").split(" ")
    assert (implementation, version, machine) == ("cpython", "3.11", os.uname().machine)
    assert libc in ("glibc", "other")


@pytest.mark.parametrize("key", sorted(options.AS_WRITTEN))
@pytest.mark.parametrize(
    ("one", "other"), [(["x=Ab"], ["x=ab"]), (["x=a_b"], ["x=a-b"]), (["x=1", "x=2"], ["x=2", "x=1"])]
)
def test_settings_of_builds_are_no_names(project: Path, key: str, one: list[str], other: list[str]) -> None:
    """Backends tell capitals, signs and the order of values apart, so the digest does."""
    (project / "pylock.toml").touch()
    first, second = (resolve({key: value}, {}) for value in (one, other))  # type: ignore[misc]
    assert first.digest(PYTHON) != second.digest(PYTHON)
    assert first.key != second.key
