"""The options: one table for three places, and a parser that knows when to leave a command line to click."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.cli import main
from envsync.errors import UsageError
from envsync.launch import options
from envsync.launch.options import (
    FLAG,
    LIST,
    RUN,
    SECONDS,
    SYNC,
    TEXT,
    Option,
    checked,
    from_table,
    from_variables,
    over,
    parse,
)
from envsync.launch.request import Request, resolve
from envsync.launch.stamp import checksum


def test_parse_stops_at_the_command() -> None:
    """Options end at the first word that is none, and the command's own options are the command's."""
    parsed = parse(["--lock", "a.toml", "-q", "python", "-q", "--lock", "b"], RUN)
    assert parsed == ({"lock": "a.toml", "quiet": True}, ["python", "-q", "--lock", "b"])


def test_parse_stops_at_two_dashes() -> None:
    """After `--` everything is the command, even what looks like an option."""
    assert parse(["--offline", "--", "--lock", "--"], RUN) == ({"offline": True}, ["--lock", "--"])


def test_parse_collects_lists() -> None:
    """An option that may be given several times keeps the order."""
    assert parse(["--extra", "b", "--extra=a", "x"], RUN) == ({"extra": ["b", "a"]}, ["x"])


@pytest.mark.parametrize("word", ["--help", "--unknown", "-x", "-qv", "--quiet=yes", "--loc"])
def test_parse_leaves_to_click_what_it_does_not_know(word: str) -> None:
    """What is not plainly one of the options is not guessed at."""
    assert parse(["--lock", "a", word, "x"], RUN) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lock"], "--lock"),
        (["--timeout", "soon", "x"], "soon"),
        (["--timeout=-1", "x"], "-1"),
        (["--timeout", "nan", "x"], "nan"),
        (["--timeout", "inf", "x"], "inf"),
        (["--busy", "maybe", "x"], "wait, fail, ignore"),
    ],
)
def test_parse_refuses_what_is_wrong(arguments: list[str], named: str) -> None:
    """A value that is missing or not allowed is said with the option or the value."""
    with pytest.raises(UsageError, match=named):
        parse(arguments, RUN)


def test_a_flag_that_a_file_can_set_can_be_taken_back() -> None:
    """The last one given wins; what only the command line can set needs no negation."""
    assert parse(["--inexact", "--no-inexact", "x"], RUN) == ({"inexact": False}, ["x"])
    assert parse(["--no-inexact", "--inexact", "x"], RUN) == ({"inexact": True}, ["x"])
    assert parse(["--no-no-index", "x"], RUN) == ({"no_index": False}, ["x"])
    assert parse(["--no-quiet", "x"], RUN) is None
    assert parse(["--no-lock", "x"], RUN) is None
    flags = {option.key for option in options.ANYWHERE if option.kind == FLAG}
    assert {option.key for option in options.ANYWHERE if option.negation} == flags - options.ONLY_ON_THE_COMMAND_LINE


NAMES = {f"--{option.name}" for option in RUN}
IN_A_FILE = {option.key for option in options.in_a_project()}
TAKEN_BACK = [o for o in RUN if o.negation and o.negation not in NAMES and o.key in IN_A_FILE]


@pytest.mark.parametrize("option", TAKEN_BACK, ids=lambda option: option.name)
def test_the_command_line_and_a_variable_win_over_the_file(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--no-X`, and `ENVSYNC_X=0`, take back `X = true` of [tool.envsync], and leave the digest of a file without."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pylock.toml").touch()
    plain = resolve({}, {})
    (tmp_path / "pyproject.toml").write_text(f"[tool.envsync]\n{option.name} = true\n")
    assert resolve({}, {}).flag(option.key)
    parsed = parse([option.negation], RUN)
    assert parsed is not None
    for asked in (
        resolve(parsed[0], {}),
        resolve({}, {option.variable: "0"}),
        resolve(parsed[0], {option.variable: "1"}),
    ):
        assert not asked.flag(option.key)
        assert (asked.digest(""), asked.key) == (plain.digest(""), plain.key)


@pytest.mark.parametrize("words", [["--dev", "--no-dev"], ["--no-dev", "--dev"]])
def test_the_last_of_two_contrary_flags_counts(words: list[str]) -> None:
    """`--dev` and `--no-dev` are options of their own, and each takes back the other."""
    assert parse([*words, "x"], RUN) == ({words[-1][2:].replace("-", "_"): True}, ["x"])


def test_what_is_nearer_to_the_command_wins_over_what_is_contrary() -> None:
    """A file that asks for a group does not stand in the way of a command that wants another one alone."""
    table = {"group": ["test"], "all_extras": True, "no_dev": True, "env": "a"}
    assert over({"only_group": ["docs"]}, table) == {"only_group": ["docs"], "no_dev": True, "env": "a"}
    assert over({"extra": ["x"], "dev": True}, table) == {"extra": ["x"], "dev": True, "group": ["test"], "env": "a"}
    assert over({"env": "b", "only_group": []}, table) == {**table, "env": "b", "only_group": []}


@pytest.mark.parametrize(("one", "others"), options.CONTRARY.items())
def test_contradictions(one: str, others: tuple[str, ...]) -> None:
    """What makes no sense together is refused, wherever both of it are said, and by the names of both."""
    known = {option.key: ["x"] if option.kind == LIST else True for option in RUN}
    for other in others:
        assert one in options.CONTRARY[other]
        both: options.Settings = {one: known[one], other: known[other]}
        for nearer, farther in ((both, {}), ({}, both)):
            with pytest.raises(UsageError, match=r"`(.*)` and `(.*)` contradict each other") as error:
                over(nearer, farther)
            assert all(f"`{key.replace('_', '-')}`" in error.value.message for key in (one, other))


NAME = st.sampled_from(["a", "A.b", "a_b", "a--B", "c"])
LISTED = {option.key: st.lists(NAME, max_size=3) for option in options.CHOICE if option.kind == LIST}
FLAGS = {option.key: st.booleans() for option in options.CHOICE if option.kind == FLAG}


@given(st.fixed_dictionaries({}, optional={**LISTED, **FLAGS}))
def test_what_is_not_given_adds_nothing_to_the_digest(settings: options.Settings) -> None:
    """Nor do the order and the spelling of names, names given twice, and options by which another one is said."""
    asked = Request(settings, "pylock.toml", "", ".venv")
    same: options.Settings = {key: value for key, value in settings.items() if value}
    for flag, lists in (("dev", "group"), ("no_dev", "no_group"), ("only_dev", "only_group")):
        if same.pop(flag, False):
            same[lists] = [*cast("list[str]", same.get(lists, [])), "DEV"]
    for key, value in same.items():
        if isinstance(value, list):
            same[key] = [name.replace("_", ".").upper() for name in (*reversed(value), value[0])]
    other = Request(same, "pylock.toml", "", ".venv")
    assert (asked.digest(""), asked.key) == (other.digest(""), other.key)


def test_digests_of_what_could_be_asked_for_before() -> None:
    """They stay: environments that are current, and those named by `{digest}`, are so for the next version, too."""
    asked = Request({"extra": ["b", "a"], "group": ["g"], "python": "3.12", "inexact": True}, "p.toml", "0" * 32, "e")
    lines = ["envsync-digest 2", "lock " + "0" * 32, "python '3.12'", "extra 'a'", "extra 'b'", "group 'g'"]
    assert asked.digest("P") == checksum("\n".join([*lines, "inexact True", "python P"]).encode())


WORDS = [
    *("--" + option.name for option in RUN),
    *(option.negation for option in RUN if option.negation),
    *("--" + option.name + "=" for option in RUN),
    *(choice for option in RUN for choice in option.choices),
    *("-q", "-v", "-", "--", "", "--quiet=1", "5", "0.5", "python", "job.py", "=", "--lock=a=b", "--extra= x"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_parse_agrees_with_click(arguments: list[str]) -> None:
    """Whatever the fast parser understands, click understands in the same way."""
    try:
        parsed = parse(arguments, RUN)
    except UsageError:
        return
    if parsed is None or not parsed[1]:
        return
    command = main.envsync_command.commands["run"]
    context = command.make_context("run", list(arguments))
    words = context.params.pop("command")
    assert (main._settings(RUN, context.params), list(words)) == parsed


def test_every_option_has_a_variable() -> None:
    """Every option of `run` can be given as ENVSYNC_<OPTION>, but for those that only change what is said."""
    texts = {FLAG: "yes", TEXT: "x", LIST: "x y", SECONDS: "2"}
    environ = {option.variable: option.choices[-1] if option.choices else texts[option.kind] for option in RUN}
    values = {FLAG: True, TEXT: "x", LIST: ["x", "y"], SECONDS: 2.0}
    assert from_variables(environ) == {
        option.key: option.choices[-1] if option.choices else values[option.kind]
        for option in RUN
        if option.key not in options.ONLY_ON_THE_COMMAND_LINE
    }
    assert "ENVSYNC_FIND_LINKS" in environ


def test_an_empty_variable_counts_as_unset() -> None:
    """`ENVSYNC_LOCK= envsync run` is as if it were not there."""
    assert from_variables({"ENVSYNC_LOCK": "", "ENVSYNC_TIMEOUT": "", "ENVSYNC_INEXACT": ""}) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), (" on ", True), ("0", False), ("False", False), ("no", False)],
)
def test_flags_in_variables(text: str, value: bool) -> None:
    """A flag is said in the usual words, and can be switched off."""
    assert from_variables({"ENVSYNC_OFFLINE": text}) == {"offline": value}


@pytest.mark.parametrize(
    ("name", "text"), [("OFFLINE", "perhaps"), ("TIMEOUT", "5s"), ("BUSY", "Wait"), ("LINK_MODE", "x")]
)
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    """What is wrong with a variable is said with its name and value."""
    with pytest.raises(UsageError, match=f"`ENVSYNC_{name}`.*`{text}`"):
        from_variables({f"ENVSYNC_{name}": text})


def test_from_table() -> None:
    """The keys of [tool.envsync] are the options' names, and values have TOML's types."""
    table = {"lock": "a.toml", "extra": ["x", "y"], "group": "dev", "no-index": True, "timeout": 3, "busy": "fail"}
    assert from_table(table, "`x`", options.in_a_project()) == {
        "lock": "a.toml",
        "extra": ["x", "y"],
        "group": ["dev"],
        "no_index": True,
        "timeout": 3.0,
        "busy": "fail",
    }


@pytest.mark.parametrize(
    "table",
    [
        {"no_index": True},
        {"quiet": True},
        {"json": True},
        {"envs": ".venv"},
        {"lock": 1},
        {"lock": ["a"]},
        {"extra": [1]},
        {"extra": {"a": 1}},
        {"inexact": "true"},
        {"inexact": 1},
        {"timeout": True},
        {"timeout": -1},
        {"timeout": [1]},
        {"busy": "x"},
    ],
)
def test_from_table_refuses_what_is_wrong(table: dict[str, object]) -> None:
    """A key that is unknown, or a value of the wrong type, is said with the key and the file."""
    (key,) = table
    with pytest.raises(UsageError, match=f"`{key}` in \\[tool.envsync\\] of `p/pyproject.toml`"):
        from_table(table, "[tool.envsync] of `p/pyproject.toml`", options.in_a_project())


def test_checked_takes_nothing_for_not_given() -> None:
    """A program's None, False and empty lists are not given; its zeros are."""
    values = {"lock": "a", "env": None, "inexact": False, "extra": [], "offline": True, "timeout": 0}
    assert checked(values) == {"lock": "a", "offline": True, "timeout": 0.0}


@pytest.mark.parametrize("values", [{"busy": "x"}, {"timeout": "x"}, {"timeout": -0.5}, {"lock": 3}, {"extra": [3]}])
def test_checked_refuses_what_is_wrong(values: dict[str, object]) -> None:
    """What a program gives is checked as what a person types."""
    with pytest.raises(UsageError, match=next(iter(values))):
        checked(values)


@pytest.mark.parametrize("option", SYNC, ids=lambda option: option.name)
def test_options_describe_themselves(option: Option) -> None:
    """Every option has a help text that is a sentence, and every one with a value says what that is."""
    assert option.help[0].isupper()
    assert option.help.endswith(".")
    assert option.kind == FLAG or option.metavar or option.choices
