"""The library's own: which arguments it takes, and what a hold is."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import pytest

import envsync
from envsync import errors, events
from envsync.launch import options, request
from envsync.library import blocking
from tests.environments import FIXTURES

LOCK = FIXTURES / "pylock.toml"
TABLE = [option for option in options.RUN if option.key not in options.NOT_IN_THE_LIBRARY]


class TestArguments:
    """What does not make sense is refused by its name, before anything is done."""

    @pytest.mark.parametrize("name", ["extras", "groups", "index_urls", "find_links"])
    @pytest.mark.parametrize("value", ["foo", b"foo", Path("foo"), [1], ["a", None]])
    def test_lists(self, name: str, value: object) -> None:
        """A string is not read by letters, and what is no string is not taken for one."""
        given: Any = {name: value}
        with pytest.raises(TypeError, match=f"`{name}` has to be a list"):
            blocking.resolve(LOCK, given)

    @pytest.mark.parametrize("name", [option.argument for option in TABLE if option.kind == options.FLAG])
    @pytest.mark.parametrize("value", ["no", 0, 1, None])
    def test_flags(self, name: str, value: object) -> None:
        """What is true or false by accident is neither: `exact=None` would leave what is not asked for."""
        given: Any = {name: value}
        with pytest.raises(TypeError, match=f"`{name}` has to be True or False"):
            blocking.resolve(LOCK, given)

    def test_none_is_missing(self) -> None:
        """The types of the arguments and the table of options name the same, and say the same of them."""
        types = {
            options.FLAG: {bool},
            options.LIST: {Sequence[str], Sequence[str | os.PathLike[str]]},
            options.SECONDS: {float | None},
            options.TEXT: {str | os.PathLike[str] | None},
        }
        typed = get_type_hints(envsync.SyncOptions)
        assert typed.keys() == {option.argument for option in TABLE}
        for option in TABLE:
            expected = {Mapping[str, str]} if option.is_table else types[option.kind]
            chosen = {Literal[option.choices] | None} if option.choices else expected
            assert typed[option.argument] in chosen, option.name

    @pytest.mark.parametrize("option", TABLE, ids=lambda option: option.name)
    def test_each_is_as_on_the_command_line(self, option: options.Option) -> None:
        """What a program gives asks for the same as what a person types; a default is as if it were left out."""
        text = option.choices[-1] if option.choices else "7"
        value: Any = {
            options.FLAG: option.argument == option.key,
            options.LIST: [text],
            options.SECONDS: 7,
            options.TEXT: text,
        }[option.kind]
        default: Any = {options.FLAG: not value, options.LIST: ()}.get(option.kind)
        words = [f"--{option.name}", *([] if option.kind == options.FLAG else [text])]
        parsed = options.parse(["--lock", str(LOCK), "-q", *words], options.RUN)
        assert parsed is not None
        typed = request.resolve(parsed[0], os.environ)
        given, as_ever = ({option.argument: choice} for choice in (value, default))
        asked, plain = (blocking.resolve(LOCK, cast(Any, arguments)).settings for arguments in (given, as_ever))
        assert asked == typed.settings
        assert plain == blocking.resolve(LOCK, {}).settings != asked

    @pytest.mark.parametrize("kind", [str, Path, os.fsencode])
    def test_paths(self, kind: Callable[[str], Any], tmp_path: Path) -> None:
        """All paths may be given as any path may: strings, objects, bytes."""
        given: Any = {name: kind(str(tmp_path)) for name in ("env", "python", "cache_dir", "cache_fallback")}
        asked = blocking.resolve(kind(str(LOCK)), given)
        assert (asked.lock, asked.env_template) == (LOCK.as_posix(), str(tmp_path))
        assert {asked.text(name) for name in ("cache_dir", "cache_fallback")} == {str(tmp_path)}
        assert Path(asked.text("python") or "") == tmp_path

    @pytest.mark.parametrize("given", [{"timeout": "x"}, {"timeout": float("nan")}, {"timeout": -1}, {"busy": "no"}])
    def test_values(self, given: Any) -> None:
        """A number that is none, or a word that is not known, is an error of envsync's."""
        with pytest.raises(errors.UsageError):
            blocking.resolve(LOCK, given)

    def test_a_python_by_its_path(self, tmp_path: Path) -> None:
        """`python=Path(...)` names an interpreter."""
        result = envsync.sync(LOCK, env=tmp_path / "env", python=Path(sys.executable))
        assert result.outcome == "synced"

    def test_nobody_is_told(self, tmp_path: Path) -> None:
        """None is as if it were left out, for the report as for the options."""
        assert envsync.sync(LOCK, env=tmp_path / "env", report=None).outcome == "synced"


RESULT = envsync.SyncResult("synced", "/env", "digest", ("greet==1.0",), (), 0.5, ("a note",))


class TestPickles:
    """Task runners move functions, results and events, and not all their processes have one version of envsync."""

    @pytest.mark.parametrize(
        ("value", "module"),
        [
            (RESULT, "envsync"),
            (envsync.sync, "envsync"),
            (envsync.use, "envsync"),
            (errors.NoEnvironmentError("/env"), "envsync.errors"),
            (events.Waiting("/env", "for whom"), "envsync.events"),
            (events.Finished("/env", RESULT), "envsync.events"),
        ],
        ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__),
    )
    def test_they_have_the_names_that_programs_use(self, value: object, module: str) -> None:
        """Where a class or a function is kept may change, what programs import it by does not."""
        name = getattr(value, "__name__", type(value).__name__)
        pickled = pickle.dumps(value, 0 if callable(value) else 2)
        assert f"c{module}\n{name}\n".encode() in pickled
        read = pickle.loads(pickled)
        assert read == value or (isinstance(value, errors.EnvsyncError) and vars(read) == vars(value))

    @pytest.mark.parametrize(
        ("before", "now"),
        [
            ("envsync.syncing SyncResult", envsync.SyncResult),
            ("envsync.library sync", envsync.sync),
            ("envsync.library use", envsync.use),
            ("envsync.events Finished", events.Finished),
            ("envsync.errors WheelError", errors.WheelError),
        ],
    )
    def test_those_of_the_version_before_are_read(self, before: str, now: object) -> None:
        """What is pickled by the version before is read by this one."""
        module, name = before.split()
        assert pickle.loads(f"c{module}\n{name}\n.".encode()) is now

    def test_whole(self) -> None:
        """Nothing is lost on the way, in any protocol."""
        more = RESULT._replace(details=("in detail",), installers=(("greet==0.9", "pip"),))
        for value in (more, events.Finished("/env", more), events.Progress("/env", "fetching", 1, 2, 3, 4)):
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                assert pickle.loads(pickle.dumps(value, protocol)) == value
        failed = events.Failed("/env", errors.FilesystemError("write", "/e", OSError(28, "full")))
        read = pickle.loads(pickle.dumps(failed))
        assert (read.env, vars(read.error)) == ("/env", vars(failed.error))

    def test_what_a_later_version_says_more_is_left_out(self) -> None:
        """A result can be read by one that does not know all of its fields."""
        assert envsync.SyncResult.of(*RESULT, "of tomorrow") == RESULT

    def test_types_of_their_fields(self) -> None:
        """Who takes them apart by their types finds these."""
        assert get_type_hints(events.Finished)["result"] is envsync.SyncResult
        assert get_type_hints(events.Failed)["error"] is envsync.EnvsyncError
        assert get_type_hints(envsync.SyncResult)["removed"] == tuple[str, ...]
        assert get_type_hints(envsync.sync)["return"] is envsync.SyncResult


class TestHold:
    """A hold is a lock of one process."""

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda way: way.__name__)
    def test_it_has_no_duplicate(self, tmp_path: Path, duplicate: Callable[[object], object]) -> None:
        """A copy would close the descriptor of the original, or whatever has its number elsewhere."""
        with envsync.use(LOCK, env=tmp_path / "env") as hold:
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                duplicate(hold)
            os.fstat(hold.fd)

    def test_released(self, tmp_path: Path) -> None:
        """After its end there is nothing to belong to; what it was for is still known."""
        with envsync.use(LOCK, env=tmp_path / "env") as hold:
            assert hold.variables()["ENVSYNC_IN"] == f"{os.fstat(hold.fd).st_ino}:{hold.result.digest}"
        with pytest.raises(ValueError, match="is released"):
            hold.variables()
        hold.release()
        assert (hold.fd, hold.python) == (-1, f"{tmp_path}/env/bin/python")
