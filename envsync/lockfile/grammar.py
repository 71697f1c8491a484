"""The lines of a requirements file: continuations, comments, variables, options. Pure; opens no file.

pip defines the format by what it does, and no library has it: this is the part that pinned requirements need.
What a requirement is, is left to `packaging`, see `reference`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from envsync.launch import variables

_COMMENT = re.compile(r"(^|\s+)#.*$")
_FIRST_OPTION = re.compile(r"\s+(?=--?[A-Za-z])")

_WITH_VALUE = {
    "-r": "requirement",
    "--requirement": "requirement",
    "-c": "constraint",
    "--constraint": "constraint",
    "-i": "index-url",
    "--index-url": "index-url",
    "--pypi-url": "index-url",
    "--extra-index-url": "extra-index-url",
    "-f": "find-links",
    "--find-links": "find-links",
    "--trusted-host": "trusted-host",
    "--only-binary": "only-binary",
    "--no-binary": "no-binary",
    "--only-final": "only-final",
    "--all-releases": "all-releases",
    "--use-feature": "use-feature",
    "-e": "editable",
    "--editable": "editable",
}
_FLAGS = {
    "--no-index": "no-index",
    "--require-hashes": "require-hashes",
    "--no-require-hashes": "no-require-hashes",
    "--prefer-binary": "prefer-binary",
    "--pre": "pre",
}
_EDITABLE = re.compile(r"(?:-e|--editable(?:=|\s))\s*(.*)")
_CONFIG = ("--config-settings", "--config-setting", "-C")
_OF_SETUP = ("--global-option", "--build-option")
"""Options for `setup.py` itself, which nothing calls any more; where a wheel is taken, they mean nothing."""
_OF_BUILDS = (*_CONFIG, *_OF_SETUP)
"""Options of one requirement that say how it is built."""
_OF_THE_COMMAND = {
    "--no-build-isolation": "`envsync sync --no-build-isolation`",
    "--no-editable": "`envsync sync --no-editable`",
    "--no-build": "`envsync sync --no-build`",
}
"""What `pip install` or `envsync sync` takes, and no file."""


class GrammarError(ValueError):
    """A line that cannot be used. The text never holds what a variable stands for, nor credentials.

    :ivar build: what pip would build a wheel of, if that helps
    """

    def __init__(self, problem: str, hint: str | None = None, build: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.build = build


class UnpinnedError(GrammarError):
    """A line that leaves open which version is meant."""


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: either options, or a requirement with its own."""

    requirement: str = ""
    hashes: tuple[tuple[str, str], ...] = ()
    editable: bool = False
    config: tuple[tuple[str, str], ...] = ()
    """Settings for its build backend, key and value, in order."""
    refused: str = ""
    """An option of its own that cannot be followed if it has to be built."""
    options: tuple[tuple[str, str], ...] = ()
    """(long name without dashes, value or the empty string), in order."""


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that says something, joined and without comments, with the number of its first line."""
    number, parts = 0, list[str]()
    for position, physical in enumerate(text.splitlines(), start=1):
        number = number if parts else position
        comment = physical.lstrip().startswith("#")
        # A comment never continues; the space keeps it a comment where it follows a continued line.
        parts.append(" " + physical if comment else physical.removesuffix("\\"))
        if physical.endswith("\\") and not comment:
            continue
        if line := _COMMENT.sub("", "".join(parts)).strip():
            yield number, line
        parts = []
    if line := _COMMENT.sub("", "".join(parts)).strip():
        yield number, line


def expand(line: str, environ: Mapping[str, str]) -> str:
    """Replace `${NAME}`, in capitals, by the environment variable.

    :raises GrammarError: it is not set
    """

    try:
        return variables.expand(line, environ)
    except KeyError as error:
        name = error.args[0]
        raise GrammarError(f"environment variable `{name}` is not set", f"set it: `export {name}=...`") from None


def parse(line: str) -> Line:
    """Parse one logical line.

    :raises GrammarError: an option is unknown, refused or lacks its value
    """
    editable = _EDITABLE.fullmatch(line)
    if editable is None and line.startswith("-"):
        return Line(options=tuple(_options(line)))
    requirement, *rest = _FIRST_OPTION.split(line if editable is None else editable[1], maxsplit=1)
    if editable is not None and requirement.startswith(("'", '"')):
        requirement = " ".join(_words(requirement))
    if not requirement:
        raise GrammarError("option `-e` lacks its value")
    own = list(_own_options(rest[0])) if rest else []
    return Line(
        requirement,
        tuple(_hash(value) for flag, value in own if flag == "--hash"),
        editable is not None,
        tuple(_setting(value) for flag, value in own if flag in _CONFIG),
        next((flag for flag, _ in own if flag in _OF_SETUP), ""),
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise GrammarError(f"its quotes do not match: {str(error).lower()}") from error


def _options(text: str) -> Iterator[tuple[str, str]]:
    words = iter(_words(text))
    for word in words:
        long = word.startswith("--")
        flag, given, value = word.partition("=") if long else (word[:2], word[2:], word[2:])
        if flag in _FLAGS and not given:
            yield _FLAGS[flag], ""
            continue
        name = _WITH_VALUE.get(flag)
        if name == "editable":
            raise GrammarError(f"option `{flag}` has to begin its line", "put it on a line of its own")
        if name is None and flag in _OF_THE_COMMAND:
            hint = f"remove it, and give it to the command: {_OF_THE_COMMAND[flag]}"
            raise GrammarError(f"option `{flag}` is none of a requirements file", hint)
        if name is None:
            known = ", ".join(sorted([*_FLAGS, *_WITH_VALUE]))
            raise GrammarError(
                f"option `{flag}` is not one that envsync understands", f"remove it; understood are: {known}"
            )
        value = value if given else next(words, "")
        if not value:
            raise GrammarError(f"option `{flag}` lacks its value")
        yield name, value


def _own_options(text: str) -> Iterator[tuple[str, str]]:
    """Yield the options that follow a requirement, and their values."""
    words = iter(_words(text))
    for word in words:
        flag, given, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        if flag != "--hash" and flag not in _OF_BUILDS:
            problem = f"option `{flag}` cannot follow a requirement; only --hash and --config-settings can"
            raise GrammarError(problem, f"remove {flag}")
        yield flag, value if given else next(words, "")


def _setting(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise GrammarError(
            f"the setting `{word[:80]}` is not of the form KEY=VALUE", "write --config-settings KEY=VALUE"
        )
    return key, value


def _hash(word: str) -> tuple[str, str]:
    algorithm, colon, digest = word.partition(":")
    if not colon:
        raise GrammarError(f"`--hash={word[:80]}` is not of the form --hash=sha256:DIGEST")
    return algorithm.lower(), digest
