"""Entry points that would escape from `bin`, or from the script that is made of them."""

from __future__ import annotations

from tests.hostile.cases import ENTRY_POINTS, KEEPS, NAME, Case, Content, wheel

SECTION = "[console_scripts]\n"
MAIN = f"{NAME}:main"
NO_FILE = "entry point `.*` in console_scripts is not the name of a file"
NO_FUNCTION = "entry point `(?s:.*)` in console_scripts does not name a function"
NO_TEXT = "its entry_points.txt cannot be read: .*"
SPACE = "entry point `.*` in console_scripts has a space in its name"

_NAMES: dict[str, tuple[str, str, str]] = {
    "dots": ("A script is in `bin`.", "../evil", NO_FILE),
    "dots-alone": ("And is no directory.", "..", NO_FILE),
    "dot": ("Nor is it `bin` itself.", ".", NO_FILE),
    "absolute": ("It has no place of its own.", "/bin/sh", NO_FILE),
    "below": ("Not even below.", "sub/evil", NO_FILE),
    "backslash": ("On Windows, either.", "..\\evil", NO_FILE),
    "drive": ("On no drive.", "C;evil".replace(";", ":"), NO_FILE),
    "nul": ("C would end its name.", "evil\0.py", NO_FILE),
    "escape": ("A terminal would act on its name.", "\x1b[2Jevil", NO_FILE),
    "long": ("Its name would be too long.", "x" * 256, NO_FILE),
    "empty": ("It has a name.", "", NO_TEXT),
    "space": ("pip refuses it, and a shell would see two words.", "rm -rf", SPACE),
    "wide-space": ("Other spaces are spaces.", "rm\u3000-rf", SPACE),
    "python": ("The environment has a Python.", "python", KEEPS.format("python")),
    "python-3": ("By several names.", "python3", KEEPS.format("python3")),
    "python-3-11": ("By several names.", "python3.11", KEEPS.format("python3.11")),
    "activate": ("And something that activates it.", "activate", KEEPS.format("activate")),
    "activate-csh": ("For several shells.", "activate.csh", KEEPS.format("activate.csh")),
}

_TEXTS: dict[str, tuple[str, Content, str]] = {
    "statement": ("A script would run whatever follows.", f"x = {MAIN}; import os\n", NO_FUNCTION),
    "statement-before": ("Or comes before.", f"x = os; import {MAIN}\n", NO_FUNCTION),
    "call": ("A function is named, not called.", "x = os:system('id')\n", NO_FUNCTION),
    "line": ("A value can have a second line.", f"x = {MAIN}\n import os\n", NO_FUNCTION),
    "line-in-extra": ("After an extra, too.", f"x = {MAIN} [a]\n import os\n", NO_FUNCTION),
    "line-in-module": ("Before the colon, too.", "x = hostile\n import os:main\n", NO_FUNCTION),
    "comment": ("A comment is no name.", f"x = {MAIN}#\n", NO_FUNCTION),
    "quote": ("A quote is no name.", 'x = "hostile":main\n', NO_FUNCTION),
    "star": ("All is not one function.", "x = hostile:*\n", NO_FUNCTION),
    "module-alone": ("A module is no function.", f"x = {NAME}\n", NO_FUNCTION),
    "nothing": ("Nothing is none.", "x =\n", NO_FUNCTION),
    "no-module": ("A function is in a module.", "x = :main\n", NO_FUNCTION),
    "reference": ("Nobody fills in references.", "x = %(y)s:main\ny = os\n", NO_FUNCTION),
    "reference-in-extra": ("Nor in extras.", f"x = {MAIN} [%(y)s]\ny = os:x\n", NO_FUNCTION),
    "default": ("What stands for all sections is checked as well.", f"x = {MAIN}\n[DEFAULT]\ny = os\n", NO_FUNCTION),
    "no-value": ("A name alone is none.", "x\n", NO_TEXT),
    "twice": ("A name counts once.", f"x = {MAIN}\nx = os:abort\n", NO_TEXT),
    "noise": ("It is UTF-8.", SECTION.encode() + b"\xff = x:y\n", "its entry_points.txt is not UTF-8"),
}

_GOOD: dict[str, tuple[str, str, str]] = {
    "shell": ("Only a shell would run this name.", "$(touch${IFS}evil)`id`;rm", MAIN),
    "quotes": ("Quotes are characters.", "a'b\"c", MAIN),
    "option": ("A name may begin with a dash.", "-rf", MAIN),
    "tilde": ("Or with a tilde.", "~", MAIN),
    "envsync": ("It may be called like envsync.", "envsync", MAIN),
    "uv": ("Or like another.", "uv", MAIN),
    "bash": ("Or like any command.", "bash", MAIN),
    "pythonic": ("Not all that begins with python is one.", "pythonw", MAIN),
    "activates": ("Nor does all activate the environment.", "activate-global-python-argcomplete", MAIN),
    "hidden": ("It may be hidden.", ".hidden", MAIN),
    "unicode": ("It may be in any script.", "\u00fcber", MAIN),
    "extra": ("Extras are no matter.", "x", f"{MAIN} [a, b]"),
    "spaces": ("Nor are spaces.", "x", "hostile : main"),
    "attribute": ("An attribute may be of an attribute.", "x", "hostile.cli:Main.run"),
}


def cases() -> list[Case]:
    """Return the cases."""
    found = [
        Case(f"script-name-{name}", claim, wheel(entry_points=f"{SECTION}{script} = {MAIN}\n"), refused=reason)
        for name, (claim, script, reason) in _NAMES.items()
    ]
    found += [
        Case(
            f"script-{name}",
            claim,
            wheel({}, info_files={"entry_points.txt": text} if isinstance(text, bytes) else {},
                  entry_points=None if isinstance(text, bytes) else SECTION + text),
            refused=reason,
        )
        for name, (claim, text, reason) in _TEXTS.items()
    ]  # fmt: skip
    found += [
        Case(
            "script-two-sections",
            "A console script and a gui script of one name are one file; the latter counts.",
            wheel(entry_points=f"{SECTION}x = {MAIN}\n[gui_scripts]\nx = {NAME}:gui\n"),
            files=("bin/x", ENTRY_POINTS),
        ),
        Case(
            "script-two-cases",
            "Where the filesystem tells case apart, they are two.",
            wheel(entry_points=f"{SECTION}x = {MAIN}\nX = {MAIN}\n"),
            files=("bin/x", "bin/X", ENTRY_POINTS),
        ),
        Case(
            "script-no-section",
            "An entry point is in a group.",
            wheel(entry_points=f"x = {MAIN}\n"),
            refused=NO_TEXT,
        ),
        Case(
            "script-other-group",
            "Of groups that make no scripts, nothing is made.",
            wheel(entry_points="[evil]\n../x = rm -rf ~\n"),
            files=(ENTRY_POINTS,),
        ),
        Case(
            "script-interpreter",
            "What follows `#!python` is kept for whoever runs the script.",
            wheel(data={"scripts/x": "#!python -c evil\n"}),
            files=("bin/x",),
        ),
    ]
    found += [
        Case(
            f"script-{name}",
            claim,
            wheel(entry_points=f"{SECTION}{script} = {value}\n"),
            files=(f"bin/{script}", ENTRY_POINTS),
            pip=None if name == "spaces" else (),
        )
        for name, (claim, script, value) in _GOOD.items()
    ]
    return found
