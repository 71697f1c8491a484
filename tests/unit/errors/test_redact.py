"""What is secret in a URL is never shown, and everything else is."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.errors import EnvsyncError, LockFileError
from envsync.errors.redact import everything_redacted, keep_out_of_logs, redacted
from envsync.system import processes

SECRET = "hunter2"
HIDING = {
    "https://user:hunter2@host/simple": "https://host/simple",
    "https://hunter2@host/simple": "https://host/simple",
    "https://user:hunter2@host:8443/a?x=1#y": "https://host:8443/a?x=1#y",
    "https://us%40er:hunter2%2F@host/": "https://host/",
    "https://user:a@hunter2@host/": "https://host/",
    "https://user:/hunter2@host/": "https://host/",
    "https://user:#hunter2@host/": "https://host/",
    "https://user:x/y@hunter2@host/": "https://host/",
    "HTTPS://user:hunter2@HOST": "HTTPS://HOST",
    "`/home/me/https:/user:hunter2@host/x`": "`/home/me/https:/host/x`",
    "git+ssh:/user:x/hunter2@host/x": "git+ssh:/host/x",
    "https://john.doe:123456/hunter2@host/": "https://host/",
    "//user:hunter2@host/": "//host/",
    "https:///user:hunter2@host/x": "https:///host/x",
    "https:////user:hunter2@host/x": "https:////host/x",
    "\u0130\u0130\u0130\u0130\u0130,https://user:hunter2@host/": "\u0130\u0130\u0130\u0130\u0130,https://host/",
    "--index-url=https://user:hunter2@host/": "--index-url=https://host/",
    "-i https://user:hunter2@host/ -- x": "-i https://host/ -- x",
    "ENVSYNC_INDEX_URL='https://user:hunter2@host/'": "ENVSYNC_INDEX_URL='https://host/'",
    "`https://user:hunter2@host/`, and `ftp://hunter2@b/`": "`https://host/`, and `ftp://b/`",
    "cannot reach https://u:hunter2@a/x,http://u:hunter2@b/y": "cannot reach https://a/x,http://b/y",
    "git+ssh://git:hunter2@host/x.git@v1.0": "git+ssh://host/x.git@v1.0",
    "greet@https://user:hunter2@host/greet.whl": "greet@https://host/greet.whl",
    "https://host/go?to=https%3A%2F%2Fuser%3Ahunter2%40inner%2Fx": "https://host/go?to=https%3A%2F%2Finner%2Fx",
    "https://host/go?to=https%3a%2f%2fhunter2@inner": "https://host/go?to=https%3a%2f%2finner",
    "https%3A//user:hunter2@host": "https%3A//host",
    "https://host/x.whl?token=hunter2": "https://host/x.whl?token=***",
    "https://host/x.whl?a=1&X-Amz-Signature=hunter2&b=2": "https://host/x.whl?a=1&X-Amz-Signature=***&b=2",
    "`https://host/?access_token=hunter2`": "`https://host/?access_token=***`",
    "https://host/#private_token=hunter2": "https://host/#private_token=***",
    "https://host/?API-KEY=hunter2;x=1": "https://host/?API-KEY=***;x=1",
    "a\thttp://user:hunter2@host\nb": "a\thttp://host\nb",
}
SHOWN = [
    "",
    "python job.py --lr=0.1 --mail a@b.example",
    "cannot read `/a//b@c/d`: No such file",
    "https://host:8080/simple/",
    "https://host/simple?page=2&tokens=3#sha256=0",
    "file:///home/me@work/x.whl",
    "file:///me@work/x.whl",
    "git+https://host/x/y@v1.0",
    "git+https://git.host.org:8443/x/y.git@v1.0",
    "http://localhost:8080/@scope/x.whl",
    "`/home/me/https:/host/x@1`",
    "git@host:x/y.git",
    "user@host",
    "50 % of 2 = 1",
    "a URL is like https://USER:PASSWORD@HOST:PORT/PATH, with special characters as in %2F",
]


@pytest.mark.parametrize(("text", "shown"), HIDING.items())
def test_it_is_hidden(text: str, shown: str) -> None:
    """User information and what a query calls a secret go; the rest of the text stays."""
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize("text", SHOWN)
def test_the_rest_is_shown(text: str) -> None:
    """What has no secret is left as it is: paths, options, addresses, versions of a repository."""
    assert redacted(text) == text


@given(
    st.text(st.characters(exclude_categories=["Z", "C"]), max_size=8),
    st.text(st.characters(exclude_categories=["Z", "C"]), max_size=8),
    st.sampled_from(["", " ", "x=", "'", "(", "x "]),
)
def test_whatever_the_password_is(one: str, other: str, before: str) -> None:
    """No password is shown, with whatever unencoded characters it is written, and nothing is hidden twice."""
    shown = redacted(f"{before}https://user:{one}{SECRET}{other}@host/ and more")
    assert SECRET not in shown
    assert shown.endswith(" and more")
    assert redacted(shown) == shown


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Any text can be asked for, and one without `@` and `=` is itself."""
    shown = redacted(text)
    if not {"@", "="} & set(text) and "%40" not in text:
        assert shown == text


@pytest.mark.parametrize("piece", ["//", "//a", "//a:b", "%2f%2fa", "https://u:p@"])
def test_a_long_text(piece: str) -> None:
    """A damaged file that is one long line is gone over once, not once a slash, which would take many minutes."""
    text = piece * 300_000
    shown = redacted(f"{text},https://user:{SECRET}@host")
    assert SECRET not in shown
    assert len(shown) <= len(f"{text},https://host")


def test_plain_data() -> None:
    """All texts of what becomes JSON are redacted."""
    value = {"a": ["https://u:hunter2@h", {"b": ("x", 1, None)}], "c": True}
    assert everything_redacted(value) == {"a": ["https://h", {"b": ["x", 1, None]}], "c": True}


def test_errors() -> None:
    """No error has a secret in its message, its hint, any other field, its arguments or its pickle."""
    error = EnvsyncError("cannot list `https://u:hunter2@h/`", hint="try https://u:hunter2@h/x")
    assert (error.message, error.hint, str(error)) == ("cannot list `https://h/`", "try https://h/x", error.message)
    changed = EnvsyncError("")
    changed.message = "no `https://u:hunter2@h/`"
    for each in (error, changed, LockFileError("https://u:hunter2@h", "line 1: `https://u:hunter2@h/`")):
        assert SECRET not in repr((each, each.args, vars(each)))
        assert SECRET.encode() not in pickle.dumps(each)


def test_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line is redacted before it is cut, so that no beginning of a secret is left."""
    long = "x" * 60
    monkeypatch.setattr("sys.argv", ["envsync", "run", long, "--index-url=https://user:hunter2@host/simple"])
    assert processes.own_command().startswith(f"envsync run {long}")
    assert "user" not in processes.own_command()


def test_logs(caplog: pytest.LogCaptureFixture) -> None:
    """What libraries log of the URLs that they were given has no secret; who a user is, is not logged at all."""
    for _ in range(2):
        keep_out_of_logs()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx2").info("HTTP Request: %s %s", "GET", "https://u:hunter2@h/x")
        logging.getLogger("unearth.auth").debug("Username: %s", SECRET)
        logging.getLogger("unearth.auth").warning("401 Error, Credentials not correct for %s", "https://u:hunter2@h/x")
    assert [record.getMessage() for record in caplog.records] == [
        "HTTP Request: GET https://h/x",
        "401 Error, Credentials not correct for https://h/x",
    ]
