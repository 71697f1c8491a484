"""Which environments a template names, as in `.venvs/{digest}` or `/local/envs/py{python}-{digest}`.

A template is what `--env` takes. The directories in it before the first placeholder are taken as they are; from there
on, each name has to fit, and no symbolic link is ever followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from envsync.errors import FilesystemError, UsageError
from envsync.launch import request

TRASH = ".envsync-trash."
"""How the names begin of environments that are being removed: nobody's any more, for whoever removes next."""
DIGEST, PYTHON = request.NAMED_LATER
PATTERNS = {DIGEST: r"[0-9a-f]{32}", PYTHON: r"[0-9]+\.[0-9]+[a-z]*(?:-32)?"}
"""What stands for a placeholder (`envsync.launch.request`)."""
_PLACEHOLDER = re.compile("|".join(map(re.escape, request.NAMED_LATER)))
_DIGEST = re.compile(rf"(?<![0-9a-f]){PATTERNS[DIGEST]}(?![0-9a-f])")


class Found(NamedTuple):
    """What a template names.

    :ivar path: of the environment
    :ivar digest: in its path; empty if the template has none
    :ivar between: the directories above it that belong to it alone, the lowest first
    :ivar is_link: it, or one of these, is a symbolic link, and so not followed
    """

    path: str
    digest: str
    between: tuple[str, ...]
    is_link: bool


class Template:
    """A template, whose placeholders for user and host are filled.

    :ivar above: the directory of all that it names, as a prefix: empty, or ending in a slash
    :raises UsageError: it names one environment, or makes no sense
    """

    def __init__(self, text: str) -> None:
        self.text = text.rstrip("/")
        if not request.is_named_later(self.text):
            raise UsageError(
                f"`{text}` is one environment, and not a template with `{DIGEST}`",
                hint="name those that are meant: `envsync env list '.venvs/{digest}'`; `envsync status` says how it is "
                "with a single one",
            )
        self.above = request.above_names(self.text)
        self.steps = [step for step in self.text[len(self.above) :].split("/") if step not in ("", ".")]
        if ".." in self.steps:
            raise UsageError(f"`{text}` has a `..` behind a placeholder")

    def find(self) -> Iterator[Found]:
        """Find what it names, in the order of names.

        :raises FilesystemError: its directory cannot be listed
        """
        yield from self._find(self.above, 0, {}, ())

    def _find(self, prefix: str, depth: int, known: dict[str, str], between: tuple[str, ...]) -> Iterator[Found]:
        is_last = depth == len(self.steps) - 1
        for name, values, is_link in self._fitting(prefix, depth, known):
            path = prefix + name
            if is_last or is_link:
                yield Found(path, values.get("digest", ""), between, is_link)
            else:
                yield from self._find(f"{path}/", depth + 1, values, (path, *between))

    def _fitting(self, prefix: str, depth: int, known: dict[str, str]) -> Iterator[tuple[str, dict[str, str], bool]]:
        """Yield the names in a directory that fit, what stands for the placeholders, and whether it is a link."""
        pattern = _pattern(self.steps[depth], known)
        for name, is_link in _directories(prefix, must=depth == 0):
            match = pattern.fullmatch(name)
            if match is not None:
                yield name, {**known, **match.groupdict()}, is_link

    def parents(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the directories that environments may be in, as prefixes, and those between; trash lies there, too."""
        ways: list[tuple[str, dict[str, str], tuple[str, ...]]] = [(self.above, {}, ())]
        for depth in range(len(self.steps) - 1):
            ways = [
                (f"{prefix}{name}/", values, (prefix + name, *between))
                for prefix, known, between in ways
                for name, values, is_link in self._fitting(prefix, depth, known)
                if not is_link
            ]
        for prefix, _, between in ways:
            yield prefix, between

    def trash(self) -> Iterator[Found]:
        """Yield what somebody has begun to remove."""
        for prefix, between in self.parents():
            for name, is_link in _directories(prefix):
                if name.startswith(TRASH) and not is_link:
                    yield Found(prefix + name, "", between, is_link)


def of_path(path: str) -> Template:
    """Return the template by which one environment is named: the last digest in its path.

    :raises UsageError: there is none
    """
    found = list(_DIGEST.finditer(path.rstrip("/")))
    if not found:
        raise UsageError(
            f"`{path}` is not named by `{DIGEST}`, so nobody knows whether another one may be made in its place",
            hint="name those that are meant: `envsync env list '.venvs/{digest}'`",
        )
    return Template(path[: found[-1].start()] + DIGEST + path[found[-1].end() :])


def _pattern(step: str, known: dict[str, str]) -> re.Pattern[str]:
    """Return what a name has to look like.

    :param known: what the placeholders stand for, as far as that was seen above
    """
    parts, seen, end = [], set(known), 0
    for match in _PLACEHOLDER.finditer(step):
        parts.append(re.escape(step[end : match.start()]))
        end, name = match.end(), match[0].strip("{}")
        if name in known:
            parts.append(re.escape(known[name]))
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{PATTERNS[match[0]]})")
            seen.add(name)
    return re.compile("".join(parts) + re.escape(step[end:]))


def _directories(prefix: str, *, must: bool = False) -> list[tuple[str, bool]]:
    """List the directories in a directory, and what may be a link to one: the name, and whether it is.

    :param must: one that cannot be listed is an error; that there is none is not
    """
    try:
        with os.scandir(prefix or ".") as entries:
            found = [
                (entry.name, entry.is_symlink()) for entry in entries if entry.is_symlink() or _is_directory(entry)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if must:
            raise FilesystemError("list", prefix or ".", error) from error
        return []
    return sorted(found)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # gone meanwhile
