"""Finding wheels on indexes and pages: a real HTTP server on 127.0.0.1, with and without basic authentication."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from unearth.fetchers.sync import PyPIClient

from envsync.errors import FetchError, NoWheelError
from envsync.lockfile import Choice, Sources, index, read, retrying
from envsync.lockfile.target import ARCHIVE, Artifact, Source, Target
from envsync.python.facts import Interpreter

A = "a" * 64
B = "b" * 64
FOO = "foo-1.0-py3-none-any.whl"

Select = Callable[..., Target]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "BACKOFF", 0.0)


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter, server: Any) -> Select:
    """Write a requirements file and select from it with the server as the index."""

    def select(text: str, **options: Any) -> Target:
        path = tmp_path / "requirements.txt"
        path.write_text(text)
        options.setdefault("sources", Sources(index_urls=(server.index,)))
        return read(str(path)).select(interpreter, **options)

    return select


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


# What is found


def test_a_wheel_is_found_on_an_index_in_html(select: Select, server: Any) -> None:
    """The link gives URL and hash; only the project's page is fetched, no wheel."""
    server.project("foo", f"foo-0.9-py3-none-any.whl#sha256={B}", f"{FOO}#sha256={A}", "foo-1.0.tar.gz")
    artifact = one(select("Foo==1.0"))
    assert artifact == Artifact("foo", "1.0", FOO, {"sha256": A}, url=f"{server.url}/files/{FOO}")
    assert server.asked == ["/simple/foo/"]


def test_a_wheel_is_found_on_an_index_in_json(select: Select, server: Any) -> None:
    """The JSON form of the simple API works alike; a pinned version may be yanked."""
    file = {"filename": FOO, "url": f"../../files/{FOO}", "hashes": {"sha256": A}, "yanked": "broken"}
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "foo", "files": [file]})
    server.page("/simple/foo/", page, kind="application/vnd.pypi.simple.v1+json")
    artifact = one(select("foo==1.0"))
    assert (artifact.url, artifact.hashes) == (f"{server.url}/files/{FOO}", {"sha256": A})


def test_the_best_wheel_for_the_target_is_chosen(select: Select, server: Any) -> None:
    """Tags of the target, requires-python of the file, then build tags."""
    best = "foo-1.0-2-cp311-cp311-manylinux_2_17_x86_64.whl"
    server.project(
        "foo",
        "foo-1.0-cp312-cp312-manylinux_2_17_x86_64.whl",
        "foo-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl",
        'foo-1.0-9-cp311-cp311-manylinux_2_17_x86_64.whl data-requires-python="&gt;=3.12"',
        best,
        FOO,
    )
    assert one(select("foo==1.0")).filename == best


def test_only_a_wheel_with_an_allowed_hash_is_chosen(select: Select, server: Any) -> None:
    """--hash picks among the wheels that fit, and the chosen one's hash becomes known."""
    server.project("foo", f"foo-1.0-cp311-cp311-linux_x86_64.whl#sha256={B}", f"{FOO}#sha256={A}")
    artifact = one(select(f"foo==1.0 --hash=sha256:{A} --hash=sha256:{'c' * 64}"))
    assert (artifact.filename, artifact.hashes, artifact.alternatives) == (FOO, {"sha256": A}, ())


def test_an_index_without_hashes_leaves_the_alternatives(select: Select, server: Any) -> None:
    """Nothing is downloaded to learn a hash: whoever fetches the wheel checks it."""
    server.project("foo", f"{FOO}#md5={'0' * 32}")
    artifact = one(select(f"foo==1.0 --hash=sha256:{A} --hash=sha256:{B}"))
    assert (artifact.hashes, artifact.alternatives) == ({}, (("sha256", A), ("sha256", B)))
    assert server.asked == ["/simple/foo/"]


def test_many_packages_are_each_asked_for_once(select: Select, server: Any) -> None:
    """Look-ups run side by side and are put together by name."""
    names = [f"p{number}" for number in range(40)]
    for name in names:
        server.project(name, f"{name}-1.0-py3-none-any.whl")
    target = select("\n".join(f"{name}==1.0" for name in names))
    assert [artifact.name for artifact in target.artifacts] == sorted(names)
    assert sorted(server.asked) == sorted(f"/simple/{name}/" for name in names)


def test_a_page_of_links_is_fetched_once(select: Select, server: Any) -> None:
    """--find-links with a URL is one page for all packages, and works without an index."""
    server.page(
        "/links.html", f'<a href="w/{FOO}#sha256={A}">x</a><a href="w/bar-1.0-py3-none-any.whl">y</a><a href="/">z</a>'
    )
    target = select("foo==1.0\nbar==1.0", sources=Sources(find_links=(f"{server.url}/links.html",), no_index=True))
    assert [artifact.url for artifact in target.artifacts] == [
        f"{server.url}/w/bar-1.0-py3-none-any.whl",
        f"{server.url}/w/{FOO}",
    ]
    assert server.asked == ["/links.html"]


def test_what_is_in_a_wheelhouse_is_not_asked_for(tmp_path: Path, select: Select, server: Any) -> None:
    """A local wheel that fits goes before the index; the rest is looked up."""
    (tmp_path / FOO).touch()
    server.project("bar", "bar-1.0-py3-none-any.whl")
    target = select("foo==1.0\nbar==1.0", sources=Sources(index_urls=(server.index,), find_links=(str(tmp_path),)))
    assert [artifact.path is None for artifact in target.artifacts] == [True, False]
    assert server.asked == ["/simple/bar/"]


def test_extra_indexes_are_asked_besides(select: Select, server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """An index that does not have a package is no failure, and nothing is printed about it."""
    server.page("/extra/foo/", f'<a href="{FOO}">x</a>')
    artifact = one(
        select(f"--index-url {server.index}\n--extra-index-url {server.url}/extra\nfoo==1.0", sources=Sources())
    )
    assert artifact.url == f"{server.url}/extra/foo/{FOO}"
    assert server.asked == ["/simple/foo/", "/extra/foo/"]
    assert capfd.readouterr() == ("", "")


def test_the_command_lines_index_replaces_the_files(select: Select, server: Any) -> None:
    """--index-url on the command line wins over --index-url and --extra-index-url in the file."""
    server.project("foo", FOO)
    text = f"-i {server.url}/other\n--extra-index-url {server.url}/extra\nfoo==1.0"
    assert one(select(text)).url == f"{server.url}/files/{FOO}"
    assert server.asked == ["/simple/foo/"]


def test_without_an_index_url_the_librarys_default_is_asked(
    select: Select, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which index is the default one is unearth's to say; an extra one does not replace it."""

    class Finder:
        sources = ({"url": server.index, "type": "index"},)

    monkeypatch.setattr(index, "PackageFinder", Finder)
    server.project("foo", FOO)
    assert one(select(f"--extra-index-url {server.url}/extra\nfoo==1.0", sources=Sources())).filename == FOO
    assert server.asked == ["/simple/foo/", "/extra/foo/"]


@pytest.mark.parametrize("offline", [True, False])
def test_an_index_in_a_directory_needs_no_network(tmp_path: Path, select: Select, offline: bool) -> None:
    """A file URL may be an index, also offline; what it has are local files."""
    (tmp_path / "simple" / "foo").mkdir(parents=True)
    (tmp_path / "simple" / "foo" / "index.html").write_text(f'<a href="../../{FOO}#sha256={A}">x</a>')
    artifact = one(select("foo==1.0", sources=Sources(index_urls=((tmp_path / "simple").as_uri(),), offline=offline)))
    assert (artifact.path, artifact.url, artifact.hashes) == (str(tmp_path / FOO), None, {"sha256": A})


@pytest.mark.parametrize("option", ["--offline", "--no-index"])
def test_offline_and_no_index_ask_nobody(select: Select, server: Any, option: str) -> None:
    """What cannot be had without asking is refused, and the option is named."""
    server.project("foo", FOO)
    sources = Sources(index_urls=(server.index,), offline=option == "--offline", no_index=option == "--no-index")
    with pytest.raises(NoWheelError, match=f"line 1: `foo==1.0`: .* \\(with {option} no index was asked\\)"):
        select("foo==1.0", sources=sources)
    assert server.asked == []


def test_redirects_are_followed(select: Select, server: Any) -> None:
    """Links are relative to where the page was found in the end."""
    server.page("/simple/foo/", "/moved/simple/foo/", status=301)
    server.page("/moved/simple/foo/", f'<a href="{FOO}">x</a>')
    assert one(select("foo==1.0")).url == f"{server.url}/moved/simple/foo/{FOO}"


# Authentication


def test_credentials_in_the_url_are_used_and_handed_on(select: Select, server: Any) -> None:
    """The index gets them, and so does whoever fetches the file from the same host; direct_url.json does not."""
    server.password = "secret"
    server.project("foo", FOO)
    artifact = one(select("foo==1.0", sources=Sources(index_urls=(server.index_with_password,))))
    assert artifact.url == f"http://user:secret@{server.host}/files/{FOO}"
    assert artifact.direct_url is None


def test_credentials_in_netrc_are_used(
    tmp_path: Path, select: Select, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NETRC names the file, as for other programs."""
    server.password = "secret"
    server.project("foo", FOO)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert one(select("foo==1.0")).url == f"{server.url}/files/{FOO}"


@pytest.mark.parametrize("userinfo", ["", "user:wrong-secret@"])
def test_wrong_credentials_are_an_error_that_does_not_show_them(select: Select, server: Any, userinfo: str) -> None:
    """Nobody is prompted; the message has the host, not the password."""
    server.password = "secret"
    with pytest.raises(FetchError) as caught:
        select("foo==1.0", sources=Sources(index_urls=(f"http://{userinfo}{server.host}/simple",)))
    assert str(caught.value) == (
        f"cannot list the files at `{server.host}`: it wants credentials, or other ones (401 Unauthorized)"
    )
    assert "secret" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"


# Failures


def test_an_index_that_is_down_is_a_fetch_error(select: Select, server: Any) -> None:
    """The message names the host and the reason, the hint what works without it."""
    server.close()
    with pytest.raises(
        FetchError, match=rf"cannot list the files at `{server.host}`: .*[Cc]onnection refused"
    ) as caught:
        select("foo==1.0", sources=Sources(index_urls=(f"http://me:secret@{server.host}/simple",)))
    assert "--find-links" in str(caught.value.hint)
    assert "--offline" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


def test_a_failure_that_passes_is_tried_again(select: Select, server: Any) -> None:
    """Two answers of 503 are survived."""
    server.project("foo", FOO)
    server.failures = 2
    assert one(select("foo==1.0")).filename == FOO


@pytest.mark.parametrize(("said", "asked"), [("7", 7.0), ("nonsense", None), (None, None)])
def test_an_index_may_say_how_long_to_wait(
    select: Select, server: Any, monkeypatch: pytest.MonkeyPatch, said: str | None, asked: float | None
) -> None:
    """Retry-After is obeyed as it is when a file is downloaded."""
    waits: list[tuple[int, float | None]] = []

    def wait_after(attempt: int, asked: float | None = None) -> float:
        waits.append((attempt, asked))
        return 0.0

    monkeypatch.setattr(retrying, "wait_after", wait_after)
    server.project("foo", FOO)
    server.failures, server.retry_after = 2, said
    assert one(select("foo==1.0")).filename == FOO
    assert waits == [(1, asked), (2, asked)]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_what_may_pass_in_a_download(select: Select, server: Any, status: int) -> None:
    """All of these are tried again."""
    server.project("foo", FOO)
    server.failures, server.failure = 1, status
    assert one(select("foo==1.0")).filename == FOO


def test_a_certificate_that_is_refused_is_not_tried_again(select: Select, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that cannot prove who it is does not get a second chance."""
    tries: list[int] = []

    def get(*_: object, **__: object) -> None:
        tries.append(1)
        raise httpx2.ConnectError("certificate verify failed") from ssl.SSLCertVerificationError("self-signed")

    monkeypatch.setattr(PyPIClient, "get", get)
    with pytest.raises(FetchError, match="certificate verify failed"):
        select("foo==1.0")
    assert len(tries) == 1


def test_a_failure_that_does_not_pass_is_reported(select: Select, server: Any) -> None:
    """An index that is broken is not taken for one that lacks the package."""
    server.failures = 3
    with pytest.raises(FetchError, match=r"it answered 503 Service Unavailable"):
        select("foo==1.0")


def test_an_interruption_does_not_wait_for_a_silent_index(
    tmp_path: Path, interpreter: Interpreter, server: Any
) -> None:
    """SIGINT ends the process at once, not when the look-ups in other threads have timed out."""
    (tmp_path / "requirements.txt").write_text("foo==1.0\nbar==1.0")
    program = f"""
from envsync.lockfile import Sources, read
from envsync.python.facts import Interpreter
lock = read({str(tmp_path / "requirements.txt")!r})
lock.select({interpreter!r}, sources=Sources(index_urls=({server.index!r},)))
"""
    server.answering.clear()
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert server.woken.wait(60)
    process.send_signal(signal.SIGINT)
    # The client gives an index 10 seconds.
    _, stderr = process.communicate(timeout=9)
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_one_failure_among_many_fails_all(select: Select, server: Any) -> None:
    """A target is whole or not at all."""
    for number in range(20):
        server.project(f"p{number}", f"p{number}-1.0-py3-none-any.whl")
    server.page("/simple/p7/", "", status=500)
    with pytest.raises(FetchError, match="it answered 500"):
        select("\n".join(f"p{number}==1.0" for number in range(20)))


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("hello", "application/pdf", "it answered with application/pdf instead of a list of files"),
        ("{", "application/vnd.pypi.simple.v1+json", "its answer is malformed: "),
        ("[]", "application/vnd.pypi.simple.v1+json", "its answer is malformed: "),
    ],
)
def test_an_answer_that_is_no_index_is_reported(
    select: Select, server: Any, body: str, kind: str, message: str
) -> None:
    """A log-in page or a broken proxy is not taken for an index that lacks the package."""
    server.page("/simple/foo/", body, kind=kind)
    with pytest.raises(FetchError, match=message):
        select("foo==1.0")


def test_a_denied_page_matters_only_if_nobody_else_has_the_package(select: Select, server: Any) -> None:
    """Some object stores say 403 for what they do not have."""
    server.page("/simple/foo/", "", status=403)
    server.page("/extra/foo/", f'<a href="{FOO}">x</a>')
    assert one(select("foo==1.0", sources=Sources(index_urls=(server.index, f"{server.url}/extra")))).filename == FOO
    with pytest.raises(FetchError, match=f"cannot list the files at `{server.host}`: it answered 403 Forbidden"):
        select("foo==1.0")


def test_an_index_that_is_neither_encrypted_nor_trusted_is_refused(select: Select, server: Any) -> None:
    """--trusted-host, here in the file, allows it; else nothing is sent to it."""
    server.project("foo", FOO)
    insecure = server.index.replace("127.0.0.1", "0.0.0.0")
    with pytest.raises(FetchError, match="it is neither encrypted nor trusted") as caught:
        select(f"-i {insecure}\nfoo==1.0", sources=Sources())
    assert "`echo --trusted-host 0.0.0.0 >> requirements.txt`" in str(caught.value.hint)
    assert server.asked == []
    assert one(select(f"-i {insecure}\n--trusted-host 0.0.0.0\nfoo==1.0", sources=Sources())).filename == FOO


def test_an_index_of_another_scheme_is_refused(select: Select) -> None:
    """A mistyped URL is said to be one."""
    with pytest.raises(FetchError, match=r"`host.invalid`: its URL begins with neither https: nor http: nor file:"):
        select("foo==1.0", sources=Sources(index_urls=("ftp://host.invalid/simple",)))


def test_an_index_that_is_not_there_is_blamed_itself(tmp_path: Path, select: Select, server: Any) -> None:
    """What is no URL is a directory; an address without a page says 404 of itself. One that has anything is right."""
    for address in ("notaurl", "http/host.invalid"):
        with pytest.raises(
            FetchError, match=rf"no index `.*/{address}`: it is neither a URL nor a directory$"
        ) as caught:
            select("foo==1.0", sources=Sources(index_urls=(address,)))
        assert "`envsync sync --index-url http" in str(caught.value.hint)
    wrong = f"{server.url}/simpel"
    with pytest.raises(NoWheelError, match="no file of that name was found") as absent:
        select("foo==1.0\nbar==1.0", sources=Sources(index_urls=(wrong,)))
    assert f"`{wrong}/` itself answers that there is no such page" in str(absent.value.hint)
    server.page("/simple/", "<p>all of it</p>")
    with pytest.raises(NoWheelError, match="no file of that name was found") as absent:
        select("foo==1.0")
    assert "itself" not in str(absent.value.hint)
    server.project("foo", FOO)
    assert one(select("foo==1.0", sources=Sources(index_urls=(wrong, server.index)))).filename == FOO


def test_unusable_certificate_settings_are_reported(
    tmp_path: Path, select: Select, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong SSL_CERT_FILE or proxy is an error with a remedy, before anything is asked."""
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy.invalid")
    with pytest.raises(FetchError, match="cannot set up connections: ") as caught:
        select("foo==1.0")
    assert str(caught.value.hint).startswith("look at the proxy and certificate variables: `env ")


def test_a_page_on_the_network_cannot_refer_to_local_files(select: Select, server: Any) -> None:
    """A link to a file URL counts only in a page that is itself a file."""
    server.page("/simple/foo/", f'<a href="file:///tmp/{FOO}">x</a>')
    with pytest.raises(NoWheelError, match="no file of that name was found"):
        select("foo==1.0")


# What is there, but cannot be used


@pytest.mark.parametrize(
    ("files", "line", "message", "hint"),
    [
        ((), "foo==1.0", "line 1: `foo==1.0`: no file of that name was found", "check the name"),
        (
            ("foo-0.9-py3-none-any.whl", "foo-2.0-py3-none-any.whl", "foo-2.0.tar.gz"),
            "foo==1.0",
            "line 1: `foo==1.0`: there is no such version; there are 2.0, 0.9",
            "lock again",
        ),
        (
            tuple(f"foo-2.{number}-py3-none-any.whl" for number in range(12)),
            "foo==1.0",
            "there are 2.11, 2.10, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4 and 4 more",
            "lock again",
        ),
        (
            ("foo-1.0-cp311-cp311-win_amd64.whl", "foo-1.0-cp39-cp39-linux_x86_64.whl", "foo-2.0.tar.gz"),
            "foo==1.0",
            "(tags available: cp311-cp311-win_amd64, cp39-cp39-linux_x86_64)",
            "choose another Python with `envsync sync --python 3.9`, or build",
        ),
        (
            (f'{FOO} data-requires-python="&gt;=3.12"',),
            "foo==1.0",
            "it needs Python >=3.12, and the target is 3.11.7",
            "--python",
        ),
        (
            (f"{FOO}#sha256={B}",),
            f"foo==1.0 --hash=sha256:{A}",
            f"none of its files that fit has a hash that the lock file allows: {FOO}",
            "lock again",
        ),
    ],
    ids=["nothing", "no such version", "many versions", "no wheel fits", "other Python", "other hash"],
)
def test_why_no_wheel_was_found_is_told(
    tmp_path: Path, select: Select, server: Any, files: tuple[str, ...], line: str, message: str, hint: str
) -> None:
    """Each reason has its own text, that names file, line, package and remedy."""
    server.project("foo", *files)
    with pytest.raises(NoWheelError) as caught:
        select(line)
    assert str(caught.value).startswith(f"cannot use lock file `{tmp_path / 'requirements.txt'}`: line 1: `foo==1.0`: ")
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


SDIST = "foo-1.0.tar.gz"
OTHER = "foo-1.0-cp39-cp39-win32.whl"


@pytest.mark.parametrize(
    ("files", "line", "taken"),
    [
        ((SDIST,), "foo==1.0", SDIST),
        ((SDIST, FOO), "foo==1.0", FOO),
        ((SDIST, OTHER), "foo==1.0", SDIST),
        ((SDIST, f'{FOO} data-requires-python="&gt;=3.12"'), "foo==1.0", SDIST),
        ((SDIST, FOO), "--no-binary foo\nfoo==1.0", SDIST),
        ((SDIST, FOO), "--no-binary :all:\n--only-binary foo\nfoo==1.0", FOO),
        ((f"{SDIST}#sha256={A}", f"{FOO}#sha256={B}"), f"foo==1.0 --hash=sha256:{A}", SDIST),
        ((f"{SDIST}#sha256={A}", f"{FOO}#sha256={B}"), f"foo==1.0 --hash=sha256:{A} --hash=sha256:{B}", FOO),
        ((f"{SDIST}#sha256={A}", FOO), f"foo==1.0 --hash=sha256:{A}", FOO),
    ],
)
def test_a_source_distribution_is_taken_where_no_wheel_is(
    select: Select, server: Any, files: tuple[str, ...], line: str, taken: str
) -> None:
    """As by pip: where no wheel fits, may be taken, or has a hash that is allowed."""
    server.project("foo", *files)
    artifact = one(select(line))
    assert artifact.filename == taken
    assert artifact.source == (Source(ARCHIVE) if taken == SDIST else None)
    assert (artifact.name, artifact.version, artifact.url) == ("foo", "1.0", f"{server.url}/files/{taken}")


@pytest.mark.parametrize(
    ("files", "text", "choice", "message"),
    [
        (
            (SDIST,),
            "foo==1.0",
            Choice(no_build=True),
            f"there is only a source distribution (`{SDIST}`), and `--no-build`",
        ),
        ((SDIST,), "--only-binary :all:\nfoo==1.0", Choice(), "--only-binary (line 1) forbids to build it"),
        ((SDIST, OTHER), "foo==1.0", Choice(no_build_packages=("Foo",)), "win32), and `--no-build-package` forbids to"),
        (
            (FOO,),
            "foo==1.0",
            Choice(no_binary=True),
            "no source distribution of it, and `--no-binary` forbids its wheels",
        ),
        ((FOO,), "--no-binary foo\nfoo==1.0", Choice(), "and --no-binary (line 1) forbids its wheels"),
        ((f'{SDIST} data-requires-python="&gt;=3.12"',), "foo==1.0", Choice(), "it needs Python >=3.12"),
    ],
)
def test_what_may_be_taken_in_no_form_is_refused(
    select: Select, server: Any, files: tuple[str, ...], text: str, choice: Choice, message: str
) -> None:
    """It is said what there is, and which option forbids it."""
    server.project("foo", *files)
    with pytest.raises(NoWheelError) as caught:
        select(text, choice=choice)
    assert message in caught.value.problem
    assert caught.value.hint


def test_contrary_options_are_refused_before_an_index_is_asked(select: Select, server: Any) -> None:
    """`--no-binary` of the file and `--no-build` of the command leave nothing to be looked for."""
    with pytest.raises(NoWheelError, match="2 of its packages") as caught:
        select("--no-binary :all:\nfoo==1.0\nbar==1.0\n", choice=Choice(no_build=True))
    assert "line 3: package `bar`: --no-binary (line 1) forbids its wheels, and `--no-build` forbids" in str(
        caught.value
    )
    assert server.asked == []


def test_a_malformed_requires_python_is_no_obstacle(select: Select, server: Any) -> None:
    """Old files on indexes say it in ways that nobody can read; a pin means that it was tried."""
    server.project("foo", f'{FOO} data-requires-python="3.x"')
    assert one(select("foo==1.0")).filename == FOO


def test_a_wheelhouse_needs_no_http_client(tmp_path: Path, interpreter: Interpreter) -> None:
    """Pins that are all in a directory, or hashes that are all in the store, import no HTTP client."""
    (tmp_path / FOO).touch()
    (tmp_path / "requirements.txt").write_text("foo==1.0")
    (tmp_path / "hashed.txt").write_text(f"foo==1.0 --hash=sha256:{A}")
    program = f"""
import os, sys
from envsync.lockfile import Sources, read
from envsync.python.facts import Interpreter
os.chdir({str(tmp_path)!r})
read("requirements.txt").select({interpreter!r}, sources=Sources(find_links=(".",)))
read("hashed.txt").select({interpreter!r}, known=lambda sha256: {FOO!r})
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"unearth", "httpx2", "requests", "installer", "click", "rich", "anyio"}
