"""Errors travel: task runners move them between processes, and whoever catches one there asks for its fields."""

from __future__ import annotations

import copy
import errno
import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import envsync
from envsync import errors
from envsync.errors import CommandError, EnvsyncError, FilesystemError
from envsync.system import native

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(),
    "str | None": st.none() | st.text(),
    "bool | None": st.none() | st.booleans(),
    "int": st.integers(0, 255),
    "OSError": st.builds(OSError, st.integers(1, 130), st.text()),
    "tuple[str, ...]": st.lists(st.text(), max_size=9).map(tuple),
    "Manifest": st.builds(SimpleNamespace, filename=st.text(), sha256=st.text()),
    "Manifest | Compiled": st.builds(SimpleNamespace, filename=st.text(), sha256=st.text()),
}
"""What the arguments of errors may be, by their annotations."""


def all_classes(base: type[EnvsyncError]) -> Iterator[type[EnvsyncError]]:
    yield base
    for kind in base.__subclasses__():
        yield from all_classes(kind)


ELSEWHERE = ("envsync.integrations.", "envsync.system.windows", "envsync.system.darwin", "envsync.system.linux")
for module in pkgutil.walk_packages(envsync.__path__, "envsync."):
    # Integrations import engines, which need not be here, and a system's module asserts that it is that system.
    elsewhere = (
        (ImportError, AssertionError, AttributeError)
        if module.name.startswith(ELSEWHERE) or native.NAME == "windows"
        else ()
    )
    with suppress(*elsewhere):
        importlib.import_module(module.name)
CLASSES = sorted(set(all_classes(EnvsyncError)), key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_an_error_keeps_all_its_fields(kind: type[EnvsyncError], data: st.DataObject) -> None:
    """Pickled by any protocol, and copied, it is an error of the same class with the same fields, notes included."""
    positional, named = [], {}
    for name, parameter in inspect.signature(kind).parameters.items():
        value = data.draw(VALUES[parameter.annotation], label=name)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    error = kind(*positional, **named)
    error.add_note("seen by a task")
    twins = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in (*twins, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert twin.__dict__ == error.__dict__
        assert (twin.args, str(twin), twin.exit_code) == (error.args, str(error), error.exit_code)
        assert twin.retryable is error.retryable


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_that_says_nothing_better_hints_at_what_usually_helps(kind: type[EnvsyncError]) -> None:
    """There is no error without a command that can be run."""
    values: dict[str, Any] = {
        "int": 126,
        "OSError": OSError(5, "Input/output error"),
        "tuple[str, ...]": ("a",),
        "Manifest": SimpleNamespace(filename="a-1.0-py3-none-any.whl", sha256="0"),
        "Manifest | Compiled": SimpleNamespace(filename="a-1.0-py3-none-any.whl", sha256="0"),
    }
    needed = [
        values.get(parameter.annotation, "some/where")
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    assert re.search("`[a-z]+ [^`]+`", kind(*needed).hint)


def test_what_is_derived_from_a_field() -> None:
    """What an error says of itself by its fields, it says on the other side, too."""
    refused = pickle.loads(pickle.dumps(FilesystemError("write", "e", OSError(30, "Read-only file system"))))
    assert refused.is_refusal
    denied = CommandError("m", exit_code=126)
    denied.errno = 13
    assert (copy.copy(denied).errno, copy.copy(denied).exit_code) == (13, 126)


def refused(number: int) -> FilesystemError:
    return FilesystemError("write", "e", OSError(number, "no"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused(errno.ENOSPC), True),
        (refused(errno.EDQUOT), True),
        (refused(errno.ESTALE), True),
        (refused(errno.EMFILE), True),
        (refused(errno.EACCES), False),
        (refused(errno.EROFS), False),
        (refused(errno.ENAMETOOLONG), False),
        (errors.FetchError("m"), True),
        (errors.FetchError("m", retryable=False), False),
        (errors.WaitTimeoutError("m"), True),
        (errors.RefusedError("m"), False),
        (errors.SyncCancelledError("m"), True),
        (errors.HashMismatchError("w", "m"), False),
        (errors.LockFileError("l", "m"), False),
        (errors.UsageError("m"), False),
        (errors.DeadLeadersError("e", ("a",)), False),
        (errors.BuildError("p", "m"), False),
    ],
    ids=str,
)
def test_whether_to_try_again(error: EnvsyncError, expected: bool) -> None:
    """What may pass by itself can be tried again, as a full disk; what somebody has to mend cannot, as a wrong hash."""
    assert error.retryable is expected
