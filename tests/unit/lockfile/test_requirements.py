"""Requirements files: their lines, what they include, what they pin for a target, and every refusal."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.errors import FilesystemError, LockFileError, NoWheelError
from envsync.lockfile import Choice, Sources, grammar, hashes, read
from envsync.lockfile.grammar import GrammarError, Line, expand, logical_lines, parse
from envsync.lockfile.target import Artifact, Target
from envsync.python.facts import Interpreter
from tests.projects import make_project

A = "a" * 64
B = "b" * 64
COMMIT = "0123456789abcdef" * 2 + "01234567"
FOO = "foo-1.0-py3-none-any.whl"

Select = Callable[..., Target]


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    """Write a requirements file and select from it, offline and with the wheels in the same directory."""

    def select(text: str, target: Interpreter = interpreter, **options: Any) -> Target:
        path = tmp_path / "requirements.txt"
        path.write_text(text)
        options.setdefault("sources", Sources(find_links=(str(tmp_path),), offline=True))
        return read(str(path)).select(target, **options)

    return select


@pytest.fixture
def wheels(tmp_path: Path) -> Callable[..., None]:
    """Put files into the wheelhouse, each with its own name as content."""

    def wheels(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_text(name)

    return wheels


def hash_of(name: str, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, name.encode()).hexdigest()


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


# Lines


def test_continuations_are_joined_and_comments_removed() -> None:
    """A line has the number of its first physical line; a comment ends a continuation, as with pip."""
    text = "\ufefffoo==1 \\\n  --hash=x \\\n  # via bar\n\n# nothing\nbar==2 # why\nbaz==3#x\nlast==1 \\"
    assert list(logical_lines(text.removeprefix("\ufeff"))) == [
        (1, "foo==1   --hash=x"),
        (6, "bar==2"),
        (7, "baz==3#x"),
        (8, "last==1"),
    ]


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)


@given(st.lists(st.lists(words, min_size=1, max_size=4), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_however_lines_are_broken_they_read_the_same(lines: list[list[str]], newline: str) -> None:
    """Breaking a line between any two words, and commenting it, changes nothing."""
    text = newline.join(f" \\{newline}    ".join(line) + f"  # {line[0]}{newline}" for line in lines)
    assert [line.split() for _, line in logical_lines(text)] == lines


digests = st.sampled_from(sorted(hashes.DIGITS)).flatmap(
    lambda algorithm: st.tuples(
        st.just(algorithm),
        st.text("0123456789abcdef", min_size=hashes.DIGITS[algorithm], max_size=hashes.DIGITS[algorithm]),
    )
)


@given(
    st.sampled_from(["foo==1.0", "foo[a,b] == 1.0 ; python_version > '3.8'", "foo @ https://h.invalid/x-1.whl"]),
    st.lists(digests, max_size=3),
    st.sampled_from(["=", " "]),
)
def test_a_requirement_and_its_hashes_are_told_apart(
    requirement: str, given_hashes: list[tuple[str, str]], separator: str
) -> None:
    """Whatever is written as a requirement with hashes is read as that."""
    options = "".join(f"  --hash{separator}{algorithm}:{digest}" for algorithm, digest in given_hashes)
    assert parse(requirement + options) == Line(requirement, tuple(given_hashes))


names = st.sampled_from(["-r", "--requirement", "-f", "--find-links", "-i", "--index-url", "--trusted-host"])


@given(st.lists(st.tuples(names, words), min_size=1, max_size=4), st.booleans())
def test_options_are_read_joined_or_apart(options: list[tuple[str, str]], joined: bool) -> None:
    """`-fX`, `-f X`, `--find-links=X` and `--find-links X` are one and the same, several to a line."""
    apart = {"-r": "", "-f": "", "-i": ""} if joined else {}
    line = " ".join(f"{flag}{apart.get(flag, '=' if joined else ' ')}{value}" for flag, value in options)
    long = {"-r": "requirement", "-f": "find-links", "-i": "index-url"}
    assert parse(line).options == tuple((long.get(flag, flag.removeprefix("--")), value) for flag, value in options)


def test_variables_are_expanded_and_the_rest_is_left() -> None:
    """Only `${NAME}` in capitals is a variable, as with pip."""
    assert expand("https://${USER_1}:x@h/$HOME/${lower}", {"USER_1": "me"}) == "https://me:x@h/$HOME/${lower}"
    with pytest.raises(GrammarError, match="environment variable `TOKEN` is not set"):
        expand("${TOKEN}", {})


def test_every_algorithm_is_one_that_hashlib_guarantees() -> None:
    """The table of hash algorithms agrees with hashlib."""
    assert set(hashes.DIGITS) <= hashlib.algorithms_guaranteed
    assert {name: hashlib.new(name).digest_size * 2 for name in hashes.DIGITS} == hashes.DIGITS


# What is selected


def test_pins_are_resolved_from_a_wheelhouse(tmp_path: Path, select: Select, wheels: Callable[..., None]) -> None:
    """The best wheel for the target is chosen: tags first, then build tag; without hashes its stat vouches for it."""
    best = "foo-1.0-2-cp311-cp311-manylinux_2_17_x86_64.whl"
    wheels(
        "foo-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl",
        best,
        "foo-1.0-9-py3-none-any.whl",
        "foo-1.0-3-cp312-cp312-manylinux_2_17_x86_64.whl",
        "foo-2.0-py3-none-any.whl",
        "bar-1!2.0rc1-py2.py3-none-any.whl",
        "foo-1.0.tar.gz",
        "not-a-wheel.whl",
        "foo-1.0-cp311-cp311.whl",
        "foo-1.0-x-py3-none-any.whl",
        "foo-latest-py3-none-any.whl",
        "nodash.zip",
    )
    target = select("Foo[extra] == 1.0\nbar===1!2.0rc1\n")
    assert [(a.name, a.version, a.path) for a in target.artifacts] == [
        ("bar", "1!2.0rc1", str(tmp_path / "bar-1!2.0rc1-py2.py3-none-any.whl")),
        ("foo", "1.0", str(tmp_path / best)),
    ]
    assert set(target.local_files) == {artifact.path for artifact in target.artifacts}
    assert all(artifact.direct_url is None for artifact in target.artifacts)


def test_markers_are_those_of_the_target(
    select: Select, wheels: Callable[..., None], interpreter_of: Callable[[str], Interpreter]
) -> None:
    """Two pins of one name may exclude each other by their markers."""
    wheels("foo-1.0-py3-none-any.whl", "foo-2.0-py3-none-any.whl")
    text = "foo==1.0 ; python_version < '3.10'\nfoo==2.0 ; python_version >= '3.10'\n"
    assert one(select(text)).version == "2.0"
    assert one(select(text, interpreter_of("3.9.2"))).version == "1.0"


def test_one_hash_is_the_hash_and_several_are_alternatives(select: Select, wheels: Callable[..., None]) -> None:
    """Any of several hashes may match; which one is not known before the file is read."""
    wheels(FOO, "bar-1.0-py3-none-any.whl")
    target = select(f"foo==1.0 --hash=sha256:{A.upper()}\nbar==1.0 --hash=sha256:{A} \\\n --hash=sha512:{B}{B}")
    bar, foo = target.artifacts
    assert (foo.hashes, foo.alternatives) == ({"sha256": A}, ())
    assert (bar.hashes, bar.alternatives) == ({}, (("sha256", A), ("sha512", B + B)))
    assert target.local_files == ()


def test_among_several_wheels_the_one_with_an_allowed_hash_is_chosen(
    select: Select, wheels: Callable[..., None]
) -> None:
    """Where names leave a choice, the files are read: a better tag with another hash is passed over."""
    wheels("foo-1.0-cp311-cp311-linux_x86_64.whl", FOO)
    artifact = one(select(f"foo==1.0 --hash=sha256:{hash_of(FOO)} --hash=sha256:{B}"))
    assert artifact.filename == FOO
    assert artifact.hashes == {"sha256": hash_of(FOO)}


def test_weak_hashes_beside_a_strong_one_do_not_count(select: Select, wheels: Callable[..., None]) -> None:
    """As any one may match, a broken one must not be among them."""
    wheels(FOO)
    artifact = one(select(f"foo==1.0 --hash=md5:{'0' * 32} --hash=sha256:{A}"))
    assert (artifact.hashes, artifact.alternatives) == ({"sha256": A}, ())


def test_a_hash_in_the_store_needs_neither_wheelhouse_nor_index(select: Select) -> None:
    """The store's file name tells version and tags; of several that fit the best is taken."""
    best = "foo-1.0-cp311-abi3-manylinux_2_17_x86_64.whl"
    store = {A: best, B: FOO, "c" * 64: "foo-1.0-cp39-cp39-win32.whl", "d" * 64: "foo-2.0-py3-none-any.whl"}
    text = "foo==1.0 " + " ".join(f"--hash=sha256:{digest}" for digest in reversed(store))
    artifact = one(select(text, sources=Sources(offline=True), known=store.get))
    assert (artifact.filename, artifact.hashes, artifact.path, artifact.url) == (best, {"sha256": A}, None, None)
    assert "was in the cache and no longer is; run the command again" in (artifact.missing or "")


def test_a_store_entry_of_something_else_is_not_used(select: Select) -> None:
    """A hash of another package or another Python's wheel in the store does not help."""
    store = {A: "bar-1.0-py3-none-any.whl"}
    with pytest.raises(NoWheelError, match=r"`foo==1.0`: .*with --offline no index was asked"):
        select(f"foo==1.0 --hash=sha256:{A}", sources=Sources(offline=True), known=store.get)


def test_options_of_the_file_say_where_wheels_are(tmp_path: Path, interpreter: Interpreter) -> None:
    """`-f` and `--no-index` count as if given on the command line; -f is relative to the file."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / FOO).touch()
    (tmp_path / "requirements.txt").write_text(
        "--no-index -f house --pre --prefer-binary --only-binary :all:\nfoo==1.0"
    )
    target = read(str(tmp_path / "requirements.txt")).select(interpreter)
    assert one(target).path == str(tmp_path / "house" / FOO)


@pytest.mark.parametrize(
    "line",
    [
        "--no-binary :none:",
        "--no-binary=other",
        "--no-binary :all: --only-binary foo",
        "--no-binary foo --no-binary :none:",
        "--no-binary foo,other --only-binary :all:",
        "--no-binary :all:,:none:,other",
        "--only-binary :all:",
        "--only-final :all:",
        "--only-final=foo",
        "--all-releases other",
        "--pre",
        "--prefer-binary",
        "--use-feature=fast-deps",
        "--use-feature truststore",
        "--trusted-host host.invalid",
        "--no-require-hashes",
        "--pypi-url https://host.invalid/simple",
        'foo==1.0 --config-settings="a=b"',
        "foo==1.0 --config-setting a=b -C c=d -Ce=f",
        "foo==1.0 --global-option=--x --global-option --y",
    ],
)
def test_options_that_change_nothing_here_are_read_over(select: Select, wheels: Callable[..., None], line: str) -> None:
    """All that pip takes in such a file, as long as it could not choose or make another file than the pinned wheel."""
    wheels(FOO)
    assert one(select(f"{line}\nfoo==1.0")) == one(select("foo==1.0"))


PIP = """
from pip._internal.req import req_file
for kind in ("SUPPORTED_OPTIONS", "SUPPORTED_OPTIONS_REQ"):
    options = [option() for option in getattr(req_file, kind)]
    print(*(name for option in options for name in (*option._short_opts, *option._long_opts)))
"""


def test_every_option_that_pip_takes_in_such_a_file_is_known() -> None:
    """Whatever this pip takes, alone on a line or after a requirement, is understood, if only to be refused."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip to compare with")
    done = subprocess.run([sys.executable, "-I", "-c", PIP], stdout=subprocess.PIPE, text=True, check=True)
    alone, after = (line.split() for line in done.stdout.splitlines())
    assert set(alone) <= {*grammar._WITH_VALUE, *grammar._FLAGS}
    assert set(after) <= {"--hash", *grammar._OF_BUILDS}


def test_a_wheel_at_a_path_is_no_matter_of_formats(select: Select, tmp_path: Path) -> None:
    """As by pip: what is named as a file is that file, `--no-binary` or not."""
    (tmp_path / FOO).touch()
    assert one(select(f"--no-binary :all: --only-final :all:\n./{FOO}")).path == str(tmp_path / FOO)


def test_a_pre_release_that_may_be_is_taken(select: Select, wheels: Callable[..., None]) -> None:
    """`--only-final` of all gives way to `--all-releases` of one, and to `--pre`."""
    wheels("foo-1.0rc1-py3-none-any.whl")
    for options in ("--only-final :all: --all-releases Foo", "--only-final :all: --pre", "--only-final bar"):
        assert one(select(f"{options}\nfoo==1.0rc1")).version == "1.0rc1"


def test_hashes_need_not_be_required(select: Select, wheels: Callable[..., None]) -> None:
    """With `--no-require-hashes`, one may have a hash and the other none; each that is there counts."""
    wheels(FOO, "bar-1.0-py3-none-any.whl")
    target = select(f"--no-require-hashes\nfoo==1.0 --hash=sha256:{A}\nbar==1.0")
    assert [artifact.locked for artifact in target.artifacts] == [(), (("sha256", A),)]


# Direct references


@pytest.mark.parametrize(
    "line",
    [
        f"./dir/{FOO}",
        f"dir/{FOO}",
        f"foo @ ./dir/{FOO}",
        f"foo @ file:./dir/{FOO}",
        f"./dir/{FOO}[x] ; os_name == 'posix'",
    ],
)
def test_a_path_is_relative_to_the_file(tmp_path: Path, select: Select, line: str) -> None:
    """However a path is written, it gives the wheel, its direct_url.json, and a local file to watch."""
    (tmp_path / "dir").mkdir()
    path = tmp_path / "dir" / FOO
    path.touch()
    target = select(line)
    assert (one(target).name, one(target).version, one(target).path) == ("foo", "1.0", str(path))
    assert json.loads(one(target).direct_url or "") == {"url": path.as_uri(), "archive_info": {}}
    assert target.local_files == (str(path),)
    lock = read(str(tmp_path / "requirements.txt"))
    assert (lock.unhashed, lock.local_files) == (True, (str(path),))


def test_an_absolute_file_url_is_a_path(tmp_path: Path, select: Select) -> None:
    """With a hash there is nothing to watch, and the hash is recorded."""
    path = tmp_path / FOO
    path.touch()
    target = select(f"foo @ {path.as_uri()} --hash=sha256:{A}")
    assert (one(target).path, one(target).hashes, target.local_files) == (str(path), {"sha256": A}, ())
    assert json.loads(one(target).direct_url or "")["archive_info"] == {"hashes": {"sha256": A}}
    assert read(str(tmp_path / "requirements.txt")).unhashed is False


@pytest.mark.parametrize("named", [True, False])
def test_a_url_is_taken_as_it_is_but_recorded_without_credentials(
    select: Select, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """A token from a variable gets into the URL to fetch, and nowhere else; a fragment may give the hash."""
    monkeypatch.setenv("TOKEN", "secret")
    url = f"https://me:${{TOKEN}}@host.invalid/{FOO}#sha256={A}"
    artifact = one(select((f"foo @ {url}" if named else url) + " ; sys_platform == 'linux'", sources=Sources()))
    assert artifact.url == f"https://me:secret@host.invalid/{FOO}"
    assert artifact.hashes == {"sha256": A}
    assert json.loads(artifact.direct_url or "")["url"] == f"https://host.invalid/{FOO}"


def test_a_url_that_offline_rules_out_leaves_the_artifact_without_a_place(select: Select) -> None:
    """The store may have it; what is said if not has no credentials."""
    artifact = one(select(f"https://me:secret@host.invalid/{FOO}", sources=Sources(offline=True)))
    assert artifact.url is None
    assert artifact.missing == (
        f"package `foo`: `{FOO}` is not in the cache, and --offline rules out fetching it from `host.invalid`; "
        "run once without --offline"
    )


def test_of_several_hashes_of_a_url_the_one_in_the_store_counts(select: Select) -> None:
    """The store is found by a single hash."""
    text = f"https://host.invalid/{FOO} --hash=sha256:{A} --hash=sha256:{B}"
    assert one(select(text, known={B: FOO}.get)).hashes == {"sha256": B}
    assert one(select(text)).alternatives == (("sha256", A), ("sha256", B))


# Files that include files


def test_included_files_are_read_beside_the_including_one(
    tmp_path: Path, wheels: Callable[..., None], interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-r and -c nest, relative to their file; every file is told once, in order, with what was read."""
    wheels(FOO, "bar-1.0-py3-none-any.whl", "baz-1.0-py3-none-any.whl")
    sub = tmp_path / "sub"
    sub.mkdir()
    monkeypatch.chdir(tmp_path)
    Path("main.txt").write_text("-r sub/more.txt\nfoo==1.0\n-c sub/pins.txt\n")
    (sub / "more.txt").write_text("-f ..\n-r last.txt\nbar\n")
    (sub / "last.txt").write_text("-c pins.txt\nbaz>=0.5\n")
    (sub / "pins.txt").write_text("bar==1.0\nbaz==1.0\nunused==7\n")
    lock = read("main.txt")
    assert lock.inputs == ("main.txt", "sub/more.txt", "sub/last.txt", "sub/pins.txt")
    assert lock.contents == tuple(Path(path).read_bytes() for path in lock.inputs)
    target = lock.select(interpreter, sources=Sources(offline=True))
    assert [(artifact.name, artifact.version) for artifact in target.artifacts] == [
        ("bar", "1.0"),
        ("baz", "1.0"),
        ("foo", "1.0"),
    ]


def test_a_constraint_may_give_the_hash(tmp_path: Path, select: Select, wheels: Callable[..., None]) -> None:
    """A pinned and hashed constraint makes a bare name a whole reference."""
    wheels(FOO)
    (tmp_path / "pins.txt").write_text(f"foo==1.0 --hash=sha256:{A}\n")
    assert one(select("-c pins.txt\nfoo\n")).hashes == {"sha256": A}
    assert read(str(tmp_path / "requirements.txt")).unhashed is False


def test_a_file_that_includes_itself_is_refused(tmp_path: Path, select: Select) -> None:
    """Recursion is detected, and shown."""
    (tmp_path / "more.txt").write_text("\n-r requirements.txt")
    with pytest.raises(LockFileError) as caught:
        select("-r more.txt")
    assert caught.value.problem == (
        f"line 2 of `{tmp_path / 'more.txt'}`: it includes itself: `requirements.txt` includes `more.txt` includes "
        "`requirements.txt`"
    )


def test_a_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    (tmp_path / "requirements.txt").write_bytes(b"\xef\xbb\xbffoo==1.0\r\n")
    assert read(str(tmp_path / "requirements.txt")).unhashed is True


# Refusals

REFUSED: dict[str, tuple[type[LockFileError], str, str, str]] = {
    "not pinned": (LockFileError, "\nfoo>=1.0", "line 2: `foo>=1.0` is not pinned to one version", "--generate-hashes"),
    "no version": (
        LockFileError,
        "foo",
        "line 1: `foo` is not pinned to one version",
        "uv pip compile --generate-hashes --output-file requirements.lock.txt requirements.txt`",
    ),
    "wildcard": (
        LockFileError,
        "foo==1.*",
        "line 1: `foo==1.*` is not pinned to one version",
        "uv pip compile --generate-hashes --output-file requirements.lock.txt requirements.txt`",
    ),
    "contradiction": (LockFileError, "foo==1.0,>2", "line 1: `foo==1.0,>2` contradicts itself", ""),
    "malformed": (
        LockFileError,
        "foo bar",
        "line 1: it is not a requirement: expected",
        "`name==1.0`",
    ),
    "editable": (
        LockFileError,
        "-e https://me:secret@host.invalid/foo-1.0.tar.gz",
        "line 1: what is editable is a directory here",
        "remove the `-e`",
    ),
    "editable version": (LockFileError, "-e foo==1.0", "line 1: there is no directory", "ls -la"),
    "editable of nothing": (LockFileError, "-e", "line 1: option `-e` lacks its value", ""),
    "editable among others": (LockFileError, "--pre -e .", "line 1: option `-e` has to begin its line", "of its own"),
    "option of the command": (
        LockFileError,
        "--no-build-isolation",
        "line 1: option `--no-build-isolation` is none of a requirements file",
        "`envsync sync --no-build-isolation`",
    ),
    "setting": (LockFileError, "foo==1.0 -C x", "line 1: the setting `x` is not of the form KEY=VALUE", "KEY=VALUE"),
    "only-final": (
        LockFileError,
        "--only-final=Foo\nfoo==1.0rc1",
        "line 1: --only-final rules out `foo==1.0rc1`, to which it is pinned",
        "pin a final version; `sed -n 1p",
    ),
    "no commit": (
        LockFileError,
        "foo @ git+https://me:secret@host.invalid/foo",
        "line 1: it names no commit, so it is not pinned to one commit",
        "`git ls-remote https://host.invalid/foo HEAD` gives the commit",
    ),
    "branch": (
        LockFileError,
        "git+ssh://git@host.invalid/foo.git@my/branch#egg=foo",
        "line 1: `my/branch` may be moved, so it is not pinned",
        "`git ls-remote ssh://host.invalid/foo.git my/branch 'my/branch^{}'` gives the commit",
    ),
    "short commit": (
        LockFileError,
        "-e git+https://host.invalid/foo@0123abc#egg=foo",
        "line 1: `0123abc` is not a whole commit",
        "https://host.invalid/foo repository.git && git -C repository.git rev-parse 0123abc`",
    ),
    "nameless commit": (
        LockFileError,
        f"git+https://host.invalid/foo@{COMMIT}",
        f"line 1: commit {COMMIT[:12]} of `https://host.invalid/foo` does not say what the project is called",
        "begin the line with `NAME @ `",
    ),
    "other version control": (
        LockFileError,
        "foo @ hg+https://me:secret@host.invalid/foo",
        "line 1: it is a URL of `hg`, and of version control envsync uses git",
        "`pip wheel --no-deps --wheel-dir wheels hg+https://host.invalid/foo`",
    ),
    "program for git": (
        LockFileError,
        f"foo @ git+ext::sh@{COMMIT}",
        "line 1: the URL of its repository has no",
        "git+ssh",
    ),
    "commit and out of it": (
        LockFileError,
        f"foo @ git+https://host.invalid/foo@{COMMIT}#subdirectory=a/../../b",
        "line 1: its subdirectory 'a/../../b' leads out of it",
        "",
    ),
    "nameless archive": (
        LockFileError,
        "https://host.invalid/main.tar.gz",
        "line 1: `main.tar.gz` does not say what the project is called",
        "begin the line with `NAME @ `",
    ),
    "directory": (LockFileError, "./src", "line 1: there is no directory `", "ls -la"),
    "named directory": (NoWheelError, "foo @ file:///no/such", "line 1: there is no directory `/no/such`", "sed -n 1p"),
    "directory without project": (
        LockFileError,
        ".",
        "line 1: there is neither `pyproject.toml` nor `setup.py` in",
        "ls",
    ),
    "directory with a hash": (
        LockFileError,
        f"foo @ file:///no/such --hash=sha256:{A}",
        "line 1: `foo` is directory `/no/such`, which has no hash, but where one has, all must",
        "`pip wheel --no-deps --wheel-dir wheels /no/such`",
    ),
    "commit beside hashes": (
        LockFileError,
        f"foo==1.0 --hash=sha256:{A}\nbar @ git+https://me:secret@host.invalid/b@{COMMIT}#subdirectory=x",
        f"line 2: `bar` is commit {COMMIT[:12]} of `https://host.invalid/b`, which has no hash",
        f"`pip wheel --no-deps --wheel-dir wheels 'git+https://host.invalid/b@{COMMIT}#subdirectory=x'`",
    ),
    "old option of what is built": (
        LockFileError,
        "foo @ https://host.invalid/foo-1.0.tar.gz --global-option=--x",
        "line 1: `foo` has to be built, and nothing follows `--global-option` any more",
        "--config-settings",
    ),
    "nameless constraint": (LockFileError, "-c tree.txt", "line 1 of", "write `tree @ URL`"),
    "page": (
        LockFileError,
        "https://host.invalid/foo",
        "`foo` ends neither in .whl nor as an archive does",
        "pip wheel",
    ),
    "misnamed wheel": (LockFileError, "./foo.whl", "line 1: `foo.whl` is not a wheel's file name", "rename"),
    "malformed URL": (
        LockFileError,
        f"foo @ https://me:secret/x@host.invalid/{FOO}",
        "line 1: its URL is malformed",
        "https://USER:PASSWORD@HOST",
    ),
    "malformed index": (
        LockFileError,
        "-i https://me:secret/x@host.invalid/simple",
        "line 1: the URL of --index-url is malformed",
        "https://USER:PASSWORD@HOST",
    ),
    "unintelligible URL": (
        LockFileError,
        "https://host.invalid/a b.whl",
        "line 1: it is neither a requirement nor",
        "",
    ),
    "undefined marker": (
        LockFileError,
        "foo==1.0 ; 'x' in extras",
        "line 1: the marker of `foo` cannot be evaluated",
        "correct the marker",
    ),
    "other name": (LockFileError, f"bar @ ./{FOO}", "line 1: `bar` is at a wheel of `foo`", "correct"),
    "other host": (LockFileError, f"foo @ file://nas/{FOO}", "a file URL cannot name the host `nas`", ""),
    "missing wheel": (NoWheelError, f"./{FOO}", "line 1: there is no file `", "put the wheel there"),
    "other platform": (
        NoWheelError,
        "./foo-1.0-cp311-cp311-win_amd64.whl",
        "line 1: `foo`: no wheel fits cpython 3.11 on x86_64; its best tag is cp311-cp311-manylinux_2_28_x86_64 "
        "(tags available: cp311-cp311-win_amd64)",
        "`pip wheel --no-deps --wheel-dir wheels foo==1.0`",
    ),
    "unknown option": (
        LockFileError,
        "--bogus x",
        "line 1: option `--bogus` is not one that envsync understands",
        "remove",
    ),
    "lacking value": (LockFileError, "-r", "line 1: option `-r` lacks its value", ""),
    "value for a flag": (LockFileError, "--pre=x", "line 1: option `--pre` is not one", "remove"),
    "option of an installation": (
        LockFileError,
        "foo==1 --install-option=x",
        "option `--install-option` cannot follow",
        "remove",
    ),
    "option of pip's command line": (LockFileError, "--no-deps", "option `--no-deps` is not one", "remove"),
    "quotes": (LockFileError, '-r "x', "line 1: its quotes do not match", ""),
    "URL to include": (
        LockFileError,
        "-r https://h.invalid/r.txt",
        "line 1: an included file cannot be at a URL",
        "download",
    ),
    "missing include": (LockFileError, "\n-r more.txt", "more.txt`: No such file or directory", ""),
    "hash without algorithm": (LockFileError, f"foo==1 --hash={A}", "is not of the form --hash=sha256:DIGEST", ""),
    "unknown hash": (LockFileError, "foo==1 --hash=crc32:abc", "line 1: hash algorithm `crc32` is not one", "SHA-256"),
    "weak hash": (LockFileError, f"foo==1 --hash=sha1:{'0' * 40}", "line 1: sha1 is too weak", "SHA-256"),
    "short hash": (LockFileError, "foo==1 --hash=sha256:abc", "`abc` is not a sha256 hash of 64", "SHA-256"),
    "one lacks its hash": (
        LockFileError,
        f"foo==1.0 --hash=sha256:{A}\nbar==1.0",
        "line 2: `bar` has no hash, but where one has, all must",
        "uv pip compile --generate-hashes",
    ),
    "hashes required": (LockFileError, "--require-hashes\nfoo==1.0", "line 2: `foo` has no hash", "--generate-hashes"),
    "pinned twice": (
        LockFileError,
        "foo==1.0\nfoo==2.0",
        "`foo` is pinned twice, to ==1.0 (line 1) and to ==2.0 (line 2)",
        "remove one of them",
    ),
    "other hashes": (
        LockFileError,
        f"foo==1.0 --hash=sha256:{A}\nfoo==1.0 --hash=sha256:{B}",
        "`foo` is pinned twice, to ==1.0 from elsewhere or with other hashes (line 1)",
        "remove one of them",
    ),
    "variable": (
        LockFileError,
        "--index-url https://${NO_SUCH}@h.invalid/",
        "line 1: environment variable `NO_SUCH`",
        "export",
    ),
    "marker": (LockFileError, f"./{FOO} ; nonsense", "line 1: it has a malformed marker", ""),
    "no such file": (NoWheelError, "foo==1.0", "line 1: `foo==1.0`: no file of that name was found", "--find-links"),
}


@pytest.mark.parametrize(("kind", "text", "message", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, select: Select, kind: type[LockFileError], text: str, message: str, hint: str
) -> None:
    """Each refusal names file, line, cause and a remedy, and never a credential."""
    make_project(tmp_path / "tree", "tree")
    (tmp_path / "tree.txt").write_text("./tree\n")
    with pytest.raises(kind) as caught:
        select(text)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"cannot use lock file `{tmp_path / 'requirements.txt'}`: ")
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("foo==2.0", "line 2: `foo==1.0` contradicts the constraint `foo==2.0` (line 3 of `{pins}`)"),
        ("foo<1", "line 2: `foo==1.0` contradicts the constraint `foo<1` (line 3 of `{pins}`)"),
        ("-e 'foo @ file:///x'", "line 3 of `{pins}`: a constraint cannot be editable"),
        ("foo[x]==1.0", "line 3 of `{pins}`: a constraint cannot have extras"),
    ],
)
def test_constraints_that_contradict_are_refused(tmp_path: Path, select: Select, constraint: str, message: str) -> None:
    """A constraint never changes a pin silently; both places are named."""
    (tmp_path / "pins.txt").write_text(f"\n\n{constraint}\n")
    with pytest.raises(LockFileError) as caught:
        select("-c pins.txt\nfoo==1.0")
    assert caught.value.problem == message.format(pins=tmp_path / "pins.txt")


def test_a_wheel_that_cannot_be_read_is_named(tmp_path: Path, select: Select, wheels: Callable[..., None]) -> None:
    """Where files have to be hashed to choose among them, one that cannot be read is an error."""
    wheels(FOO)
    bad = tmp_path / "foo-1.0-py2.py3-none-any.whl"
    bad.mkdir()
    with pytest.raises(FilesystemError, match=f"cannot read `{bad}`: (Is a directory|Permission denied)"):
        select(f"foo==1.0 --hash=sha256:{A}")


def test_what_is_no_version_can_be_pinned_but_not_found(select: Select) -> None:
    """`===` compares text, and no wheel's file name has such a version."""
    with pytest.raises(NoWheelError, match="`foo===latest`: no file of that name was found"):
        select("foo===latest\nfoo===latest")


@pytest.mark.parametrize("text", ["foo==1.0\nFoo == 1.0.0\n", f"./{FOO}\nfoo @ ./{FOO}\n"])
def test_the_same_pin_twice_is_fine(select: Select, wheels: Callable[..., None], text: str) -> None:
    """Versions are compared, not their spelling."""
    wheels(FOO)
    assert one(select(text)).filename == FOO


@pytest.mark.parametrize(("options", "kind"), [({"extras": ("x",)}, "extra"), ({"groups": ("x",)}, "group")])
def test_requirements_define_no_extras_or_groups(select: Select, options: dict[str, Any], kind: str) -> None:
    """Asking for one is an error, as with a pylock that does not define it."""
    with pytest.raises(LockFileError, match=f"define the {kind} `x`; requirements files define no {kind}s"):
        select("", choice=Choice(**options))


def test_requirements_have_no_members(select: Select) -> None:
    """Nor does it pass over what only a workspace has."""
    with pytest.raises(LockFileError, match="no workspace members to choose from with `--package x`"):
        select("", choice=Choice(packages=("x",)))


def test_a_requirement_may_be_left_out(select: Select, wheels: Callable[..., None]) -> None:
    """By its name, however it is spelled."""
    wheels(FOO)
    assert select("foo==1.0", choice=Choice(no_install_packages=("Foo",))).artifacts == ()


def test_a_wheelhouse_that_is_not_there_is_named(select: Select) -> None:
    """A misspelt --find-links is not silently skipped."""
    with pytest.raises(FilesystemError, match="cannot list find-links directory `/no/such`: No such file") as caught:
        select("foo==1.0", sources=Sources(find_links=("/no/such",), offline=True))
    assert "--find-links takes a directory" in str(caught.value.hint)


def test_a_single_wheel_may_be_named_as_find_links(tmp_path: Path, select: Select, wheels: Callable[..., None]) -> None:
    """--find-links takes the path of a wheel as well as a directory, also as a file URL."""
    wheels(FOO)
    for place in (str(tmp_path / FOO), (tmp_path / FOO).as_uri()):
        assert one(select("foo==1.0", sources=Sources(find_links=(place,), offline=True))).path == str(tmp_path / FOO)


def test_all_lines_that_cannot_be_used_are_named_at_once(tmp_path: Path, select: Select) -> None:
    """Lines that are no requirements, and those that are not pinned, and one command for each kind of them."""
    (tmp_path / "more.txt").write_text("delta\n--unheard-of\n")
    with pytest.raises(LockFileError) as caught:
        select("alpha\n./beta\ngamma @ hg+https://name:secret@host.invalid/g\n-r more.txt\nfine==1.0\n")
    problem, hint = caught.value.problem, str(caught.value.hint)
    assert problem.startswith("5 of its packages cannot be installed:\n")
    for part in (
        f"line 2: there is no directory `{tmp_path / 'beta'}`",
        "line 3: it is",
        f"line 2 of `{tmp_path / 'more.txt'}`",
        "line 1: `alpha`",
        "`delta`",
    ):
        assert part in problem
    assert "`pip wheel --no-deps --wheel-dir wheels hg+https://host.invalid/g`" in hint
    assert "secret" not in problem + hint


def test_all_unpinned_lines_are_named_at_once(select: Select) -> None:
    """Those that contradict a constraint, too."""
    with pytest.raises(LockFileError) as caught:
        select("alpha\nbeta>=1\ngamma==2.*\ndelta==1,==2\n")
    for name in ("alpha", "beta", "gamma", "delta"):
        assert f"`{name}" in caught.value.problem


def test_all_that_have_no_wheel_are_named_at_once(tmp_path: Path, select: Select) -> None:
    """Whether a wheel is referred to, or has to be looked for."""
    with pytest.raises(NoWheelError, match="3 of its packages cannot be installed:") as caught:
        select("foo==1.0\nbar==1.0\n./wheels/none-1.0-py3-none-any.whl\n")
    assert f"there is no file `{tmp_path / 'wheels' / 'none-1.0-py3-none-any.whl'}`" in caught.value.problem
    assert "`pip download --no-deps foo`" in str(caught.value.hint)


def test_the_line_that_is_wrong_is_shown_by_the_hint(tmp_path: Path, select: Select) -> None:
    """The command prints it, whichever file it is in."""
    (tmp_path / "m ore.txt").write_text("fine==1.0\nfoo==1.0 --hash=nonsense\n")
    with pytest.raises(LockFileError) as caught:
        select("fine==1.0\n-r 'm ore.txt'\n")
    (command,) = [part for part in str(caught.value.hint).split("`") if part.startswith("sed ")]
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    assert done.stdout == "foo==1.0 --hash=nonsense\n"
