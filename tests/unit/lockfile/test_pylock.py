"""pylock.toml: what is selected for another Python, where each wheel is taken from, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import LockFileError, NoWheelError, UsageError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.target import Artifact, Target
from envsync.python.facts import Interpreter

A = "a" * 64
B = "b" * 64
HEAD = 'lock-version = "1.0"\ncreated-by = "test"\n'
FILES = "https://files.example.invalid/packages"


def wheel(filename: str, sha256: str = A, **keys: object) -> str:
    keys = {"name": filename, **keys}
    texts = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "{ " + ", ".join([*texts, f'hashes = {{ sha256 = "{sha256}" }}']) + " }"


def at_url(filename: str, sha256: str = A) -> str:
    return wheel(filename, sha256, url=f"{FILES}/{filename}", size=10)


def package(name: str, *wheels: str, version: str | None = "1.0", **keys: str) -> str:
    lines = ["[[packages]]", f'name = "{name}"']
    lines += [f'version = "{version}"'] if version else []
    lines += [f"{key.replace('_', '-')} = {value}" for key, value in keys.items()]
    lines += [f"wheels = [{', '.join(wheels)}]"] if wheels else []
    return "\n".join(lines) + "\n"


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Callable[..., Target]:
    """Write a lock file and select from it."""

    def select(*packages: str, head: str = HEAD, target: Interpreter = interpreter, **options: Any) -> Target:
        path = tmp_path / "pylock.toml"
        path.write_text(head + "\n" + "\n".join(packages))
        return read(str(path)).select(target, **options)

    return select


Select = Callable[..., Target]


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


# What is selected


def test_the_wheel_that_fits_the_target_best_is_selected(select: Select) -> None:
    """Tags decide for the target: a manylinux wheel of its version goes before a pure one, others are passed over."""
    target = select(
        package(
            "foo",
            at_url("foo-1.0-py3-none-any.whl"),
            at_url("foo-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"),
            at_url("foo-1.0-cp311-cp311-win_amd64.whl"),
            at_url("foo-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", B),
        )
    )
    assert one(target) == Artifact(
        name="foo",
        version="1.0",
        filename="foo-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        hashes={"sha256": B},
        size=10,
        url=f"{FILES}/foo-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        locked=(("sha256", B),),
    )


@pytest.mark.parametrize(
    ("marker", "selected"),
    [
        ("python_version == '3.9'", True),
        ("python_full_version < '3.9.5'", True),
        ("sys_platform == 'linux' and platform_release == '6.1.0'", True),
        ("platform_python_implementation == 'PyPy'", False),
        ("python_version >= '3.11'", False),
    ],
)
def test_markers_are_those_of_the_target(
    select: Select, interpreter_of: Callable[[str], Interpreter], marker: str, selected: bool
) -> None:
    """A marker is evaluated for the target, whatever Python envsync itself runs on."""
    target = select(
        package("foo", at_url("foo-1.0-py3-none-any.whl"), marker=f'"{marker}"'), target=interpreter_of("3.9.1")
    )
    assert bool(target.artifacts) is selected


def test_artifacts_are_sorted_by_name(select: Select) -> None:
    """The order of packages in the lock file does not show."""
    target = select(*(package(name, at_url(f"{name}-1.0-py3-none-any.whl")) for name in ("b", "c", "a")))
    assert [artifact.name for artifact in target.artifacts] == ["a", "b", "c"]


GROUPED = (
    HEAD + 'extras = ["plot"]\ndependency-groups = ["dev", "Docs"]\ndefault-groups = ["main"]\n',
    package("plotting", at_url("plotting-1.0-py3-none-any.whl"), marker="\"'plot' in extras\""),
    package("testing", at_url("testing-1.0-py3-none-any.whl"), marker="\"'dev' in dependency_groups\""),
    package("docs", at_url("docs-1.0-py3-none-any.whl"), marker="\"'Docs' in dependency_groups\""),
    package("core", at_url("core-1.0-py3-none-any.whl"), marker="\"'main' in dependency_groups\""),
)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, {"core"}),
        ({"no_default_groups": True}, set()),
        ({"groups": ("dev",)}, {"core", "testing"}),
        ({"groups": ("docs", "dev"), "no_groups": ("Dev",)}, {"docs", "core"}),
        ({"no_groups": ("main",)}, set()),
        ({"only_groups": ("docs",)}, {"docs"}),
        ({"all_groups": True}, {"core", "docs", "testing"}),
        ({"extras": ("Plot",)}, {"core", "plotting"}),
        ({"all_extras": True}, {"core", "plotting"}),
        ({"all_extras": True, "no_extras": ("plot",)}, {"core"}),
        ({"all_groups": True, "no_install_packages": ("Docs",)}, {"core", "testing"}),
    ],
)
def test_extras_and_groups_select_packages(select: Select, options: dict[str, Any], names: set[str]) -> None:
    """Names are compared normalized; groups come in addition to the lock file's default ones."""
    target = select(*GROUPED[1:], head=GROUPED[0], choice=Choice(**options))
    assert {artifact.name for artifact in target.artifacts} == names


@pytest.mark.parametrize(
    ("options", "message", "lock_with"),
    [
        ({"extras": ("plots",)}, "extra `plots`; the extras that it defines: plot", " --extra plots"),
        ({"groups": ("test",)}, "group `test`; the groups that it defines: Docs, dev, main", " --group test"),
    ],
)
def test_an_unknown_extra_or_group_is_refused_with_those_that_exist(
    select: Select, options: dict[str, Any], message: str, lock_with: str
) -> None:
    """A misspelt --extra or --group does not silently install less."""
    with pytest.raises(LockFileError, match=r"pylock\.toml`: ") as caught:
        select(*GROUPED[1:], head=GROUPED[0], choice=Choice(**options))
    assert caught.value.problem == f"it does not define the {message}"
    assert f"uv export --format pylock.toml{lock_with} --output-file pylock.toml`" in str(caught.value.hint)


def test_what_was_read_is_told(tmp_path: Path) -> None:
    """The inputs of a pylock file are itself, and all its references have hashes."""
    path = tmp_path / "pylock.dev.toml"
    path.write_text(HEAD + "packages = []\n")
    lock = read(str(path))
    assert (lock.path, lock.inputs, lock.contents) == (str(path), (str(path),), (path.read_bytes(),))
    assert (lock.unhashed, lock.local_files) == (False, ())


# Where a wheel is taken from


def test_a_path_is_relative_to_the_lock_file(tmp_path: Path, select: Select, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory plays no part, and neither does whether the file exists."""
    monkeypatch.chdir("/")
    artifact = one(select(package("foo", wheel("foo-1.0-py3-none-any.whl", path="wheels/foo-1.0-py3-none-any.whl"))))
    assert artifact.path == str(tmp_path / "wheels/foo-1.0-py3-none-any.whl")
    assert artifact.url is None
    assert artifact.direct_url is None


def test_a_file_url_is_a_path(select: Select) -> None:
    """A file URL needs no HTTP client, and may hold percent escapes."""
    artifact = one(
        select(package("foo", wheel("foo-1.0-py3-none-any.whl", url="file:///a%20b/foo-1.0-py3-none-any.whl")))
    )
    assert (artifact.path, artifact.url) == ("/a b/foo-1.0-py3-none-any.whl", None)


@pytest.mark.skipif(sys.platform == "win32", reason="a host shares files there")
def test_a_file_url_of_another_host_is_refused(select: Select) -> None:
    """A file URL that names a host is no path here."""
    with pytest.raises(LockFileError, match="package `foo`: a file URL cannot name the host `nas`"):
        select(package("foo", wheel("foo-1.0-py3-none-any.whl", url="file://nas/foo-1.0-py3-none-any.whl")))


@pytest.mark.parametrize("exists", [True, False])
def test_a_path_goes_before_a_url_if_it_exists(tmp_path: Path, select: Select, exists: bool) -> None:
    """An entry with both is fetched only where the file is not at hand."""
    name = "foo-1.0-py3-none-any.whl"
    if exists:
        (tmp_path / name).touch()
    artifact = one(select(package("foo", wheel(name, path=name, url=f"{FILES}/{name}"))))
    assert (artifact.path is not None, artifact.url is None) == (exists, exists)


def test_a_file_in_a_find_links_directory_is_preferred(tmp_path: Path, select: Select) -> None:
    """A wheel of that name in a directory saves fetching it; its hash is verified either way."""
    name = "foo-1.0-py3-none-any.whl"
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / name).touch()
    artifact = one(select(package("foo", at_url(name)), sources=Sources(find_links=(str(tmp_path / "links"),))))
    assert (artifact.path, artifact.url) == (str(tmp_path / "links" / name), None)
    assert artifact.hashes == {"sha256": A}


@pytest.mark.parametrize(
    ("sources", "option"), [(Sources(offline=True), "--offline"), (Sources(no_index=True), "--no-index")]
)
def test_a_url_that_is_ruled_out_leaves_the_artifact_without_a_place(
    select: Select, sources: Sources, option: str
) -> None:
    """The store may have it; what is said if not names package, file, cause and remedy, and no credentials."""
    name = "foo-1.0-py3-none-any.whl"
    artifact = one(select(package("foo", wheel(name, url=f"https://me:secret@host.invalid/{name}")), sources=sources))
    assert (artifact.path, artifact.url) == (None, None)
    assert artifact.missing == (
        f"package `foo`: `{name}` is neither in the cache nor in a --find-links directory, and {option} rules out "
        f"fetching it from `host.invalid`; name a directory that has it with --find-links, or run once without {option}"
    )


def test_a_url_gets_the_credentials_of_its_index(select: Select) -> None:
    """What --index-url says about a host is used for the files on it, and for no other host."""
    sources = Sources(index_urls=("https://me:secret@files.example.invalid/simple",))
    target = select(
        package("foo", at_url("foo-1.0-py3-none-any.whl")),
        package("bar", wheel("bar-1.0-py3-none-any.whl", url="https://other.invalid/bar-1.0-py3-none-any.whl")),
        sources=sources,
        known=lambda sha256: "in-the-store.whl",  # else it would be looked for on that index first
    )
    assert [artifact.url for artifact in target.artifacts] == [
        "https://other.invalid/bar-1.0-py3-none-any.whl",
        "https://me:secret@files.example.invalid/packages/foo-1.0-py3-none-any.whl",
    ]


def test_an_archive_that_is_a_wheel_is_recorded_as_direct(select: Select) -> None:
    """direct_url.json (PEP 610) has the URL without credentials and the hashes; --no-index does not concern it."""
    archive = f'{{ url = "https://me:secret@host.invalid/foo-2.0-py3-none-any.whl", hashes = {{ sha256 = "{A}" }} }}'
    artifact = one(select(package("foo", version=None, archive=archive), sources=Sources(no_index=True)))
    assert (artifact.version, artifact.filename) == ("2.0", "foo-2.0-py3-none-any.whl")
    assert artifact.url == "https://me:secret@host.invalid/foo-2.0-py3-none-any.whl"
    assert json.loads(artifact.direct_url or "") == {
        "url": "https://host.invalid/foo-2.0-py3-none-any.whl",
        "archive_info": {"hashes": {"sha256": A}},
    }


def test_an_archive_at_a_path_is_recorded_with_its_file_url(tmp_path: Path, select: Select) -> None:
    """A path becomes an absolute file URL in direct_url.json."""
    archive = f'{{ path = "./foo-2.0-py3-none-any.whl", hashes = {{ sha256 = "{A}" }} }}'
    artifact = one(select(package("foo", version=None, archive=archive)))
    assert artifact.path == str(tmp_path / "foo-2.0-py3-none-any.whl")
    assert json.loads(artifact.direct_url or "")["url"] == (tmp_path / "foo-2.0-py3-none-any.whl").as_uri()


# Wheels without URL and path


def test_a_wheel_without_url_is_found_by_name_in_find_links(tmp_path: Path, select: Select) -> None:
    """A lock file without URLs works with a wheelhouse."""
    name = "foo-1.0-py3-none-any.whl"
    (tmp_path / name).touch()
    artifact = one(select(package("foo", wheel(name)), sources=Sources(find_links=(str(tmp_path),), no_index=True)))
    assert artifact.path == str(tmp_path / name)


def test_a_wheel_without_url_is_found_by_name_on_the_index(select: Select, server: Any) -> None:
    """The index is asked for the file of that very name, and the lock file's hash stays."""
    name = "foo-1.0-py3-none-any.whl"
    server.project("foo", f"foo-1.0-1-py3-none-any.whl#sha256={B}", f"{name}#sha256={A}")
    artifact = one(select(package("foo", wheel(name)), sources=Sources(index_urls=(server.index,))))
    assert artifact.url == f"{server.url}/files/{name}"
    assert artifact.hashes == {"sha256": A}
    assert artifact.missing is None


def test_the_index_that_the_lock_file_names_is_asked(select: Select, server: Any) -> None:
    """`packages.index` says where the wheel comes from, unless an option says otherwise."""
    name = "foo-1.0-py3-none-any.whl"
    server.project("foo", name)
    artifact = one(select(package("foo", wheel(name), index=f'"{server.index}"')))
    assert artifact.url == f"{server.url}/files/{name}"


def test_what_the_store_has_is_not_looked_for(select: Select, server: Any) -> None:
    """No network for a wheel that is in the store already."""
    name = "foo-1.0-py3-none-any.whl"
    sources = Sources(index_urls=(server.index,))
    artifact = one(select(package("foo", wheel(name)), sources=sources, known={A: name}.get))
    assert (artifact.path, artifact.url) == (None, None)
    assert server.asked == []


def test_a_wheel_without_url_that_nobody_has_says_so(select: Select, server: Any) -> None:
    """The artifact is left without a place, and the text for the error says where it was looked for."""
    name = "foo-1.0-py3-none-any.whl"
    artifact = one(select(package("foo", wheel(name)), sources=Sources(index_urls=(server.index,))))
    assert f"`{name}` is neither in the cache" in (artifact.missing or "")
    assert "the lock file gives no URL for it, and no index has it" in (artifact.missing or "")


def test_a_wheel_without_url_is_not_looked_for_offline(select: Select, server: Any) -> None:
    """Offline asks nobody, and says what rules it out."""
    sources = Sources(index_urls=(server.index,), offline=True)
    artifact = one(select(package("foo", wheel("foo-1.0-py3-none-any.whl")), sources=sources))
    assert "gives no URL for it, and --offline rules out asking an index" in (artifact.missing or "")
    assert server.asked == []


# Refusals

SDIST = f'{{ name = "foo-1.0.tar.gz", url = "{FILES}/foo-1.0.tar.gz", hashes = {{ sha256 = "{A}" }} }}'
PURE = at_url("foo-1.0-py3-none-any.whl")
PURE_PACKAGE = package("foo", PURE)
REFUSED: dict[str, tuple[type[LockFileError], str, str, str, str]] = {
    "newer format": (
        LockFileError,
        HEAD.replace("1.0", "2.0"),
        package("foo", PURE),
        "its lock-version 2.0 is not supported, envsync reads 1.0",
        "uv export --format pylock.toml --output-file pylock.toml`",
    ),
    "not TOML": (
        LockFileError,
        HEAD + "packages = [\n!",
        "",
        "(at line 4, column 1)",
        "uv export --format pylock.toml --output-file pylock.toml`",
    ),
    "not valid": (
        LockFileError,
        HEAD,
        package("foo", PURE) + package("bar", f'{{ hashes = {{ sha256 = "{A}" }} }}'),
        "package `bar`: path or url must be provided in `packages[1].wheels[0]`",
        "uv export --format pylock.toml --output-file pylock.toml`",
    ),
    "not a table": (
        LockFileError,
        HEAD,
        'packages = ["foo"]',
        "unexpected type str",
        "uv export --format pylock.toml --output-file pylock.toml`",
    ),
    "other Python": (
        LockFileError,
        HEAD + 'requires-python = ">=3.12"\n',
        package("foo", PURE),
        "it needs Python >=3.12, and the target is 3.11.7",
        "--python",
    ),
    "other environment": (
        LockFileError,
        HEAD + "environments = [\"sys_platform == 'win32'\"]\n",
        package("foo", PURE),
        'its environments are: sys_platform == "win32"',
        "lock again: ",
    ),
    "package for another Python": (
        LockFileError,
        HEAD,
        package("bar", at_url("bar-1.0-cp39-cp39-win32.whl"), marker="\"os_name == 'nt'\"")
        + package("foo", PURE, requires_python='">=3.12"'),
        "package `foo`: it needs Python >=3.12, and the target is 3.11.7",
        "--python",
    ),
    "no wheel fits": (
        NoWheelError,
        HEAD,
        package("foo", at_url("foo-1.0-cp312-cp312-win_amd64.whl"), at_url("foo-1.0-cp313-cp313-win_amd64.whl")),
        "package `foo`: no wheel fits cpython 3.11 on x86_64; its best tag is cp311-cp311-manylinux_2_28_x86_64 "
        "(tags available: cp312-cp312-win_amd64, cp313-cp313-win_amd64)",
        "build wheels with `pip wheel --no-deps --wheel-dir wheels foo==1.0`",
    ),
    "archive that does not fit": (
        NoWheelError,
        HEAD,
        package("foo", archive=f'{{ path = "foo-1.0-cp39-cp39-win32.whl", hashes = {{ sha256 = "{A}" }} }}'),
        "(tags available: cp39-cp39-win32)",
        "`pip wheel --no-deps --wheel-dir wheels foo==1.0`",
    ),
    "archive of something else": (
        LockFileError,
        HEAD,
        package("foo", archive=f'{{ path = "bar-1.0-py3-none-any.whl", hashes = {{ sha256 = "{A}" }} }}'),
        "package `foo`: `bar-1.0-py3-none-any.whl` is a wheel of something else",
        "lock again",
    ),
    "weak hash": (
        LockFileError,
        HEAD,
        package("foo", f'{{ url = "{FILES}/foo-1.0-py3-none-any.whl", hashes = {{ md5 = "{"a" * 32}" }} }}'),
        "package `foo`: md5 is too weak to tell one wheel from another",
        "lock again",
    ),
    "unknown hash": (
        LockFileError,
        HEAD,
        package("foo", f'{{ url = "{FILES}/foo-1.0-py3-none-any.whl", hashes = {{ crc32 = "abcd" }} }}'),
        "package `foo`: hash algorithm `crc32` is not one that every Python has",
        "lock again",
    ),
    "malformed hash": (
        LockFileError,
        HEAD,
        package("foo", f'{{ url = "{FILES}/foo-1.0-py3-none-any.whl", hashes = {{ sha256 = "../../x" }} }}'),
        "package `foo`: `../../x` is not a sha256 hash of 64 hexadecimal digits",
        "lock again",
    ),
    "name with a slash": (
        LockFileError,
        HEAD,
        package("foo", at_url("foo-1.0-py3-none-any.x/y.whl")),
        "package `foo`: `foo-1.0-py3-none-any.x/y.whl` is not a wheel's file name",
        "lock again",
    ),
    "malformed URL": (
        LockFileError,
        HEAD,
        package("foo", wheel("foo-1.0-py3-none-any.whl", url="https://me:secret/x@host.invalid/foo.whl")),
        "package `foo`: its URL is malformed",
        "lock again",
    ),
    "undefined marker": (
        LockFileError,
        HEAD + "environments = [\"'x' in extras\"]\n",
        package("foo", PURE),
        "a marker cannot be evaluated: ",
        "lock again",
    ),
    "ambiguous": (
        LockFileError,
        HEAD,
        package("foo", PURE) + package("foo", PURE),
        "Multiple packages with the name 'foo' are selected",
        "extras or groups may exclude each other",
    ),
}


@pytest.mark.parametrize(("kind", "head", "body", "message", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, select: Select, kind: type[LockFileError], head: str, body: str, message: str, hint: str
) -> None:
    """Each refusal names the lock file, the package, the cause and a remedy."""
    with pytest.raises(kind) as caught:
        select(body, head=head)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"cannot use lock file `{tmp_path / 'pylock.toml'}`: ")
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_prerelease_python_is_a_python(select: Select, interpreter_of: Callable[[str], Interpreter]) -> None:
    """`requires-python = ">=3.11"` lets a release candidate of a later Python pass."""
    target = select(
        package("foo", PURE, requires_python='">=3.9"'),
        head=HEAD + 'requires-python = ">=3.11"\n',
        target=interpreter_of("3.15.0rc1"),
    )
    assert len(target.artifacts) == 1


# Names


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("poetry.toml", "it is no lock file", "`uv export --format pylock.toml --output-file pylock.toml`"),
        ("environment.yml", "a file of conda,", "list the Python packages that are meant in `requirements.in`"),
        ("environment-gpu.yaml", "a file of conda,", "list"),
        ("conda-lock.yml", "a file of conda-lock,", "list"),
        ("cpu.conda-lock.yml", "a file of conda-lock,", "list"),
        ("pixi.lock", "a file of pixi,", "list"),
        ("pixi.toml", "a file of pixi,", "list"),
        ("pyproject.toml", "a project, not its lock", "lock it: `uv lock`"),
    ],
)
def test_other_formats_are_told_by_their_names(name: str, problem: str, hint: str) -> None:
    """A format that is not read is refused with the command that makes one that is."""
    with pytest.raises(LockFileError) as caught:
        read(name)
    assert problem in caught.value.problem
    assert str(caught.value.hint).startswith(hint)


FOREIGN = {
    "conda": "channels:\n  - conda-forge\ndependencies:\n  - numpy\n",
    "conda, exported": "name: job\nprefix: /opt/job\ndependencies:\n  - numpy=1.0\n",
    "conda, explicit": "# platform: linux-64\n@EXPLICIT\nhttps://host.invalid/noarch/x-1.0-0.tar.bz2\n",
    "conda-lock": "version: 1\nmetadata:\n  content_hash:\n    linux-64: 00\npackage: []\n",
    "pixi": "version: 6\nenvironments:\n  default: {}\n",
    "uv": 'version = 1\nrevision = 3\n\n[[package]]\nname = "foo"\n',
    "poetry": "# This file is automatically @generated by Poetry 2.1.1.\n\n[[package]]\n",
    "pdm": "# This file is @generated by PDM.\n[metadata]\n",
    "pipenv": '{\n    "_meta": {\n        "hash": {}\n    }\n}\n',
}


@pytest.mark.parametrize(("tool", "text"), FOREIGN.items(), ids=FOREIGN)
def test_other_formats_are_told_by_what_is_in_them(tmp_path: Path, tool: str, text: str) -> None:
    """Whatever their name, it is not said that some line of theirs is no requirement."""
    lock = tmp_path / "job.lock"
    lock.write_text(text)
    with pytest.raises(LockFileError, match=f"file of {tool.partition(',')[0]}, wh") as caught:
        read(str(lock))
    assert "`" in str(caught.value.hint)


def test_a_lock_file_whose_name_is_wrong_gets_one_more_name(tmp_path: Path) -> None:
    """The hint makes a link of such a name, and moves nobody's file."""
    lock = tmp_path / "a b" / "my.lock.toml"
    lock.parent.mkdir()
    lock.write_text(HEAD + PURE_PACKAGE)
    with pytest.raises(LockFileError, match=r"pylock\.NAME\.toml") as caught:
        read(str(lock))
    subprocess.run(["sh", "-c", str(caught.value.hint).split("`")[1]], check=True)
    assert read(str(lock.parent / "pylock.my-lock.toml")).unhashed is False
    assert lock.is_file()


@pytest.mark.parametrize("name", ["job.lock", "pylock.toml", "job.txt"])
@pytest.mark.parametrize("right", ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"])
def test_a_lock_file_of_a_tool_by_another_name(tmp_path: Path, right: str, name: str) -> None:
    """It is said whose it is, and the hint gives it the name by which that tool knows it."""
    text = FOREIGN[{"Pipfile.lock": "pipenv"}.get(right, right.partition(".")[0])]
    (tmp_path / name).write_text(text)
    with pytest.raises(LockFileError, match=f"it is a lock file of .*, whose name is {right}") as caught:
        read(str(tmp_path / name))
    subprocess.run(["sh", "-c", str(caught.value.hint).split("`")[1]], check=True)
    assert (tmp_path / right).read_text() == text


@pytest.mark.parametrize("text", ["greet==1.0\n", "--no-index\n# x\nName[extra] == 1.0 ; os_name == 'nt'\n"])
def test_requirements_in_a_pylock(tmp_path: Path, text: str) -> None:
    """Said as what they are, and not as TOML with a mistake; what is damaged is no requirement."""
    (tmp_path / "pylock.toml").write_text(text)
    with pytest.raises(LockFileError, match="it holds requirements, and no TOML") as caught:
        read(str(tmp_path / "pylock.toml"))
    subprocess.run(["sh", "-c", str(caught.value.hint).split("`")[1]], check=True)
    assert (tmp_path / "requirements.txt").read_text() == text
    (tmp_path / "pylock.toml").write_text(f"{HEAD}# This file is @generated by PDM.\n{text}")
    with pytest.raises(LockFileError, match="it is not TOML"):
        read(str(tmp_path / "pylock.toml"))


@pytest.mark.parametrize("lock", ["poetry.lock", "pdm.lock", "Pipfile.lock", "uv.lock"])
def test_a_project_has_a_lock_file_beside_it(tmp_path: Path, lock: str) -> None:
    """That one is named."""
    (tmp_path / lock).touch()
    with pytest.raises(LockFileError, match="it is a project, not its lock file") as caught:
        read(str(tmp_path / "pyproject.toml"))
    assert caught.value.hint == f"name that one: `envsync sync --lock {tmp_path}/{lock}`"
    (tmp_path / lock).unlink()
    with pytest.raises(LockFileError, match="it is a project, not its lock file") as caught:
        read(str(tmp_path / "pyproject.toml"))
    assert caught.value.hint == f"lock it: `cd {tmp_path} && uv lock`"


@pytest.mark.parametrize(
    ("tool", "extra", "group"),
    [
        (
            "uv",
            "uv export --format pylock.toml --extra a --extra b",
            "uv export --format pylock.toml --group a --group b",
        ),
        (
            "pdm",
            "pdm lock --group :all && pdm export --format pylock --group a --group b",
            "pdm lock --group :all && pdm export --format pylock --group a --group b",
        ),
        ("poetry-plugin-export", "poetry export --extras a --extras b", "poetry export --with a --with b"),
        ("pip", "pip lock --output pylock.toml '.[a,b]'", "pip lock --group a --group b"),
        ("somebody", "uv export --format pylock.toml --extra a --extra b", "uv export"),
    ],
)
def test_extras_get_into_a_lock_file_by_the_tool_that_made_it(
    select: Select, tool: str, extra: str, group: str
) -> None:
    """Locking again as before would make the same file without any."""
    for options, command in (({"extras": ("a", "b")}, extra), ({"groups": ("a", "b")}, group)):
        with pytest.raises(LockFileError, match="it does not define the") as caught:
            select(PURE_PACKAGE, head=HEAD.replace("test", tool), choice=Choice(**options))
        assert f"&& {command}" in str(caught.value.hint)
        assert "leave out --" in str(caught.value.hint)


def test_the_lock_file_that_pdm_keeps_gets_all_extras_by_locking_again(select: Select) -> None:
    """An export would have none to choose from."""
    head = HEAD.replace("test", "pdm")
    with pytest.raises(LockFileError) as caught:
        select(PURE_PACKAGE, '[tool.pdm]\nstrategy = ["inherit_metadata"]', head=head, choice=Choice(extras=("a",)))
    assert "&& pdm lock --group :all` makes a lock file that has all" in str(caught.value.hint)


@pytest.mark.parametrize("left_out", [Choice(no_install_project=True), Choice(no_install_workspace=True)])
def test_the_project_itself_can_be_left_out(select: Select, left_out: Choice) -> None:
    """It is the directory that the lock file is in, however that is spelled; other directories are not."""
    for path in (".", "./", "sub/.."):
        project = package("self", version=None, directory=f'{{ path = "{path}", editable = true }}')
        assert [each.name for each in select(project, PURE_PACKAGE, choice=left_out).artifacts] == ["foo"]
        assert [each.name for each in select(project, PURE_PACKAGE).artifacts] == ["foo", "self"]
        with pytest.raises(NoWheelError, match="package `self`: it comes from a directory, and `--no-build`") as caught:
            select(project, PURE_PACKAGE, choice=Choice(no_build=True))
        assert caught.value.hint == "leave the project itself out with `envsync sync --no-install-project`"
    other = package("other", version=None, directory='{ path = "other" }')
    with pytest.raises(NoWheelError, match="`other`: it comes from a directory"):
        select(other, choice=replace(left_out, no_build=True))


def test_all_that_cannot_be_installed_is_named_at_once(select: Select) -> None:
    """Each has a line, up to twenty, and one command builds wheels of all that it can build."""
    packages = [
        package("alpha", directory='{ path = "alpha" }'),
        package("beta", vcs='{ type = "hg", url = "https://name:secret@host.invalid/b", commit-id = "abc" }'),
        package("delta", PURE.replace("foo", "delta"), requires_python='">=3.99"'),
        package("epsilon", at_url("epsilon-1.0-cp311-cp311-win32.whl")),
        PURE_PACKAGE,
        package("never", directory='{ path = "never" }', marker="\"sys_platform == 'win32'\""),
    ]
    with pytest.raises(LockFileError) as caught:
        select(*packages)
    problem, hint = caught.value.problem, str(caught.value.hint)
    assert problem.startswith("4 of its packages cannot be installed:\n  package `")
    assert {line.split("`")[1] for line in problem.splitlines()[1:]} == {"alpha", "beta", "delta", "epsilon"}
    assert "`envsync sync --python '>=3.99'`" in hint
    assert "epsilon==1.0 hg+https://host.invalid/b@abc`" in hint
    assert "secret" not in problem + hint


def test_very_many_that_cannot_be_installed_are_counted(select: Select) -> None:
    """What is more than twenty lines is a number."""
    many = [package(f"p{number:02}", directory='{ path = "x" }') for number in range(23)]
    with pytest.raises(NoWheelError, match="23 of its packages cannot be installed:") as caught:
        select(*many, choice=Choice(no_build=True))
    assert len(caught.value.problem.splitlines()) == 22
    assert caught.value.problem.endswith("\n  and 3 more")


def test_archives_that_cannot_be_installed_are_named_at_once(select: Select) -> None:
    """They are found when their places are looked for, all of them."""
    archive = '{{ url = "{}/{}-1.0-py2-none-any.whl", hashes = {{ sha256 = "{}" }} }}'
    with pytest.raises(NoWheelError, match="2 of its packages cannot be installed:"):
        select(*(package(name, archive=archive.format(FILES, name, A)) for name in ("foo", "bar")))


@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt"])
def test_a_missing_lock_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    """The operating system's reason is passed on."""
    with pytest.raises(LockFileError, match=f"`{tmp_path / name}`: No such file or directory"):
        read(str(tmp_path / name))


@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt"])
def test_another_encoding_is_refused(tmp_path: Path, name: str) -> None:
    """Lock files are UTF-8; the message names the file."""
    (tmp_path / name).write_bytes("foo==1.0 # é".encode("latin-1"))
    with pytest.raises(LockFileError, match=rf"`{tmp_path / name}`.* is not UTF-8 \(byte 11\)|it is not UTF-8"):
        read(str(tmp_path / name))


def test_sources_do_not_show_credentials() -> None:
    """URLs of indexes may hold passwords, so the options' repr leaves them out."""
    secret = "https://me:secret@host.invalid/simple"
    assert "secret" not in repr(Sources(index_urls=(secret,), find_links=(secret,), extra_index_urls=(secret,)))


@pytest.mark.parametrize(
    ("sources", "flag"),
    [("index_urls", "--index-url"), ("extra_index_urls", "--extra-index-url"), ("find_links", "--find-links")],
)
def test_a_malformed_url_is_a_usage_error_that_does_not_show_it(sources: str, flag: str) -> None:
    """Where a URL cannot be taken apart, nobody knows which part of it is the password."""
    options: dict[str, Any] = {sources: ("https://me:secret/x@host.invalid/simple",)}
    with pytest.raises(UsageError, match=f"a URL given to {flag} is malformed$") as caught:
        Sources(**options)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_the_pylock_path_imports_no_http_client(tmp_path: Path, interpreter: Interpreter) -> None:
    """Reading and selecting with URLs and a wheelhouse imports nothing that is slow and not needed."""
    (tmp_path / "pylock.toml").write_text(
        HEAD + package("foo", PURE) + package("bar", at_url("bar-1.0-py3-none-any.whl"))
    )
    (tmp_path / "bar-1.0-py3-none-any.whl").touch()
    program = f"""
import sys
from envsync.lockfile import Sources, read
from envsync.python.facts import Interpreter
read({str(tmp_path / "pylock.toml")!r}).select({interpreter!r}, sources=Sources(find_links=({str(tmp_path)!r},)))
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "envsync.lockfile.pylock" in imported
    assert not imported & {"unearth", "httpx2", "requests", "installer", "click", "rich", "anyio", "hashlib"}
