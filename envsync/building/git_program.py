"""The program git: how it is called, what it may see, and how what it says is told.

Where a repository is, and who may fetch it, are kept apart (`Remote`): git gets the URL without user and password, and
these by variables, which other users cannot see, unlike arguments. So they are in no repository's configuration, no
message of git and no log. What git says goes into a file of its own first, and into the log without secrets.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from envsync.building import variables
from envsync.building.supervised import Run
from envsync.errors import BuildError, FetchError, FilesystemError
from envsync.errors.redact import HIDDEN, redacted

SHOWN_LINES = 6
"""Of what git has said, in an error."""
SECRET_LENGTH = 6
"""Shorter ones are not looked for in what git says: it would become unreadable, and git itself leaves them out."""
_SCP = re.compile(r"(?!ext::)[A-Za-z0-9_][\w.+-]*@[A-Za-z0-9][\w.-]*:[^-\s:]\S*", re.ASCII)
"""As in `git@host:path`: ssh."""
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "fetch.writeCommitGraph": "false",
    "submodule.recurse": "false",
    "advice.detachedHead": "false",
    "credential.interactive": "false",
    "safe.directory": "",  # whatever the user allows elsewhere: our repositories are our own
    "safe.bareRepository": "all",  # and so we may have a bare one
}
"""Over those of the user: no hooks, no daemon, nothing besides what was asked for."""
_NO_PASSWORD = '!f() { test "$1" != get || echo password=; }; f'
"""A helper for credentials, asked last: a user alone may be a token."""
_REFUSED = ("Authentication failed", "could not read Username", "could not read Password", "Permission denied")
_UNTRUSTED = "dubious ownership"


class Remote(NamedTuple):
    """A repository, and who fetches from it."""

    url: str
    """For git: without anything secret in its user information."""
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Remote({redacted(self.url)!r})"

    @property
    def is_local(self) -> bool:
        return self.url.startswith("file:")

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables by which git knows who fetches, added to its settings that are in the environment."""
        if not self.user:
            return {}
        base = urlunsplit((*urlsplit(self.url)[:2], "", "", ""))
        if self.password:
            both = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            given = [(f"http.{base}.extraHeader", f"Authorization: Basic {both}")]
        else:
            given = [(f"credential.{base}.username", self.user), (f"credential.{base}.helper", _NO_PASSWORD)]
        count = environ.get("GIT_CONFIG_COUNT", "")
        first = int(count) if count.isdecimal() else 0
        added = {"GIT_CONFIG_COUNT": str(first + len(given))}
        for number, (key, value) in enumerate(given, first):
            added |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return added


def remote_of(url: str) -> Remote:
    """Take the URL of a repository apart.

    :raises ValueError: git is not to fetch from there; the text says why, without the URL
    """
    url = url.removeprefix("git+")
    if _SCP.fullmatch(url):
        return Remote(url)
    if any(ord(character) <= 32 or ord(character) == 127 for character in unquote(url, "latin-1").replace(" ", "")):
        raise ValueError("its URL holds a control character")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in variables.PROTOCOLS or not url[len(scheme) :].startswith("://"):
        raise ValueError(f"its URL begins with none of {', '.join(f'`{name}://`' for name in variables.PROTOCOLS)}")
    information, at, host = parts.netloc.rpartition("@")
    if host.startswith("-") or information.startswith("-") or bool(host) == (scheme == "file"):
        raise ValueError("its URL names no host" if scheme != "file" else "its file URL names a host")
    user, _, password = information.partition(":")
    shown = f"{user}@{host}" if scheme == "ssh" and at else host
    bare = urlunsplit(parts._replace(scheme=scheme, netloc=shown, fragment=""))
    return Remote(bare, unquote(user), unquote(password)) if scheme in ("http", "https") else Remote(bare)


class Answer(NamedTuple):
    """What became of a call of git."""

    status: int
    text: str
    """All that it has said."""

    def __bool__(self) -> bool:
        return self.status == 0

    def says(self, *words: str) -> bool:
        return any(word in self.text for word in words)

    @property
    def end(self) -> str:
        """Its last lines, for an error."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return "; ".join(lines[-SHOWN_LINES:]) or f"nothing, and ended with status {self.status}"


class Git:
    """Calls of git for one package.

    :param package: for messages: its name
    :param log: the file that gets what git says, without secrets
    :param scratch: an empty directory for its use
    :param checkpoint: called all the time; what it raises ends git, and goes on
    :ivar remotes: whom git is told about
    :raises BuildError: there is no git
    """

    def __init__(self, *, package: str, log: str, scratch: str, checkpoint: Callable[[], object], run: Run) -> None:
        self.package = package
        self.log = log
        self.scratch = scratch
        self.checkpoint = checkpoint
        self.environ = variables.for_git(os.environ)
        self._run = run
        self._secrets: tuple[str, ...] = ()
        program = shutil.which("git", path=self.environ.get("PATH"))
        if program is None:
            hint = "put git on the PATH (of a cluster's modules, `module load git` may do), then `envsync sync`"
            raise BuildError(package, "it comes from a git repository, and there is no program `git`", hint=hint)
        self._program = program

    def introduce(self, remote: Remote) -> None:
        """Let git know from now on who fetches from a host."""
        self.environ |= remote.variables(self.environ)
        secret = remote.password or remote.user
        if len(secret) >= SECRET_LENGTH:
            self._secrets += (secret,)

    def call(self, *words: str, at: str, settings: Mapping[str, str] | None = None, **environ: str) -> Answer:
        """Run git to its end.

        :param at: its directory; a repository above that is not looked for
        :param settings: configuration for this call
        :param environ: variables for this call
        :raises FilesystemError: git cannot be run, or the log not be written
        """
        said = f"{self.scratch}/said"
        given = [word for pair in {**_SETTINGS, **(settings or {})}.items() for word in ("-c", "=".join(pair))]
        env = {**self.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(at), **environ}
        try:
            status = self._run([self._program, *given, *words], cwd=at, env=env, log=said, checkpoint=self.checkpoint)
            with open(said, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            os.unlink(said)
        except OSError as error:
            raise FilesystemError("run git for", at, error) from error
        return Answer(status, text)

    def told(self, *words: str, at: str, settings: Mapping[str, str] | None = None, **environ: str) -> Answer:
        """Run git, and write into the log what it was asked and has said."""
        answer = self.call(*words, at=at, settings=settings, **environ)
        text = self._shown(f"+ git {' '.join(words)}\n{answer.text}")
        try:
            with open(self.log, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text if text.endswith("\n") else text + "\n")
        except OSError as error:
            raise FilesystemError("write", self.log, error) from error
        return answer

    def _shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redacted(text)

    def not_fetched(self, remote: Remote, answer: Answer) -> FetchError:
        """Return the error for a repository that cannot be fetched from."""
        url = redacted(remote.url)
        hint = f"`git ls-remote {url}` shows what git needs there"
        if answer.says(*_REFUSED):
            hint = f"let git in without asking, by ~/.netrc, a credential helper or an ssh agent: {hint}"
        elif answer.says(_UNTRUSTED):
            hint = f"if you trust whom it belongs to: `git config --global --add safe.directory {remote.url[7:]}`"
        said = self._shown(answer.end)
        return FetchError(f"cannot fetch `{self.package}` from the git repository `{url}`: git says: {said}", hint=hint)

    def failed(self, problem: str, answer: Answer, *, hint: str | None = None) -> BuildError:
        """Return the error for what git could not do here."""
        return BuildError(self.package, f"{problem}: git says: {self._shown(answer.end)}", log=self.log, hint=hint)
