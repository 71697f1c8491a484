"""Join the modules that a launch loads into one file of a wheel, and what one that waits loads besides into another.

    python .ci/join.py          prints them, to look at

Python makes a dozen system calls to find and read a module, and a launch loads eleven. So hatchling calls this when
it builds a wheel (pyproject.toml), and the launcher loads the file in place of them. The sources stay the only truth:
the files are made of them alone, in the wheel alone, and never at run time. An editable install has none.

Each module becomes a function that declares all names of the module `global`. It is executed with the dictionary of
the module, which has its own name, `__file__`, `__spec__` and `__path__` (`_ENTRY`): whoever imports the module later
gets this one, and what is not joined is imported from its own file as ever.

The text is the source's, line by line, indented. Cut out is what nobody asks for at run time and what takes time to
load: docstrings, annotations, and what is for type checkers. Nothing is written anew from a syntax tree: the text
of that would depend on the Python that builds.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import symtable
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

Hook: Any = object
try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface as Hook
except ImportError:
    pass  # to look at the file takes no hatchling

MODULES = (
    "envsync",
    "envsync.system",
    "envsync.system.posix_core",
    "envsync.launch",
    "envsync.launch.command",
    "envsync.launch.stamp",
    "envsync.launch.options",
    "envsync.launch.reading",
    "envsync.launch.configuration",
    "envsync.launch.finding",
    "envsync.launch.request",
    "envsync.launch.fast_lane",
    "envsync.__main__",
)
"""What a launch in a current environment loads (tests/unit/test_rooms.py)."""
LATER = ("envsync.launch.names", "envsync.cli")
"""What is in the same file, and loaded once it is imported: `{digest}` may take the one, the command line the other."""
WAITING = (
    "envsync.errors",
    "envsync.errors.redact",
    "envsync.system.native",
    "envsync.system.processes",
    "envsync.system.records",
    "envsync.system.mounts",
    "envsync.system.schedulers",
    "envsync.system.node_local",
    "envsync.system.forks",
    "envsync.launch.signals",
    "envsync.launch.libraries",
    "envsync.launch.messages",
    "envsync.launch.demand",
    "envsync.launch.variables",
    "envsync.locks",
    "envsync.locks.flock",
    "envsync.locks.kind",
    "envsync.locks.environment_lock",
    "envsync.waiting",
    "envsync.waiting.bare",
    "envsync.waiting.directory",
    "envsync.waiting.failures",
    "envsync.waiting.queue",
    "envsync.waiting.cycle",
    "envsync.waiting.shortening",
    "envsync.waiting.narrator",
    "envsync.waiting.company",
    "envsync.waiting.pace",
    "envsync.waiting.word",
    "envsync.waiting.desk",
    "envsync.waiting.neighbours",
    "envsync.waiting.speaking",
    "envsync.waiting.bid",
    "envsync.waiting.waiter",
    "envsync.library",
    "envsync.library.reach",
    "envsync.cli.run",
)
"""What else a `run` loads that has to wait: fifty of them start at once. Who imports the last one gets all, and who
imports another one, or one of SELDOM, has the file read."""
SELDOM = ("envsync.launch.events_file", "envsync.system.refusals", "envsync.system.atomic", "envsync.locks.holders")
"""What is in that file, too, and loaded once it is imported: for a launch that writes an event, and for the first one
of a job on a node, which leaves its name in the environment."""
BY_SYSTEM = ("envsync.system.posix", "envsync.system.linux", "envsync.system.darwin")
"""What is in that file besides, and loaded once `envsync.system.native` imports it: a wheel is for each of them."""
EXTENSIONS = ("_blake2", "fcntl")
"""What a launch loads of Python's own, and is a file in many builds of it."""
FILES = {"envsync/launch/joined.py": (*MODULES, *LATER), "envsync/waiting/joined.py": (*WAITING, *SELDOM, *BY_SYSTEM)}
"""The files, and what is in each."""

_GUARD = """
if __name__ != "__main__":
    raise ImportError("this file is for the launcher alone: import envsync")
"""
_HEAD = f"""\
# What a launch loads, joined from its sources when the wheel was built (.ci/join.py): edits belong there.
# The launcher executes it, with the directory that has the package as `home`, and then calls `start`.

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import EXTENSION_SUFFIXES, ExtensionFileLoader, SourceFileLoader
{_GUARD}"""
_HEAD_OF_WAITING = f"""\
# What a `run` loads that has to wait, joined from its sources when the wheel was built (.ci/join.py): edits belong
# there. It is executed where `envsync/launch/joined.py` has been.
{_GUARD}"""
_ENTRY = """

class Loader(SourceFileLoader):
    # Knows all that the loader of the module's own file knows, and takes what to execute from here.

    def exec_module(self, module):
        exec(JOINED[self.name].__code__, module.__dict__)


class Finder:
    # Finds what is joined, the first time.

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in SECOND and (name not in JOINED or name == WAITING[-1]):
            load_waiting(name)
        return spec_of(name) if name in JOINED and target is None else None


def spec_of(name):
    path = f"{home}/{name.replace('.', '/')}"
    file = f"{path}/__init__.py" if name in PACKAGES else f"{path}.py"
    spec = ModuleSpec(name, Loader(name, file), origin=file, is_package=name in PACKAGES)
    spec.has_location = True
    if name in PACKAGES:
        spec.submodule_search_locations = [path]
    return spec


def spec_of_extension(name):
    # Where Python finds it in the end, without a look at all places before.
    path = f"{sys.path[-1]}/{name}{EXTENSION_SUFFIXES[0]}"
    spec = ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
    spec.has_location = True
    return spec


def load(spec):
    # As Python's own import system does it, in a fifth of the time: no other thread imports anything yet.
    module = spec.loader.create_module(spec) or type(sys)(spec.name)
    package, _, short = spec.name.rpartition(".")
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    module.__spec__ = spec
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    if package:
        setattr(sys.modules[package], short, module)


def load_all(names):
    for name in names:
        if name not in sys.modules:
            load(spec_of(name))


def load_waiting(name):
    global is_waiting_read
    try:
        if not is_waiting_read:
            is_waiting_read = True
            exec(SourceFileLoader("joined", f"{home}/envsync/waiting/joined.py").get_code("joined"), globals())
        if name == WAITING[-1]:
            load_all(WAITING[:-1])
    except Exception:
        pass  # what is not there yet is imported from its own file, which says what is wrong


is_waiting_read = False
for name in EXTENSIONS:
    if name not in sys.builtin_module_names:
        try:
            load(spec_of_extension(name))
        except ImportError:
            pass  # it is elsewhere: whoever imports it will find it
sys.meta_path.insert(0, Finder)
try:
    load_all(MODULES)
except BaseException:
    sys.meta_path.remove(Finder)
    for name in JOINED:
        sys.modules.pop(name, None)
    raise
start = sys.modules["envsync.__main__"].start
"""


class JoinHook(Hook):  # type: ignore[misc]
    """Lets hatchling put the file into a wheel."""

    PLUGIN_NAME = "custom"
    _made: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if windows := _command(self.root).platform():
            build_data["tag"] = f"py3-none-{windows}"
        else:
            build_data["shared_scripts"][os.path.join(self.root, "envsync", "launcher.sh")] = "envsync"
        if version == "editable" or windows:
            return
        self._made = tempfile.TemporaryDirectory()
        for number, (target, text) in enumerate(join(self.root).items()):
            made = os.path.join(self._made.name, f"{number}.py")
            with open(made, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            build_data["force_include"][made] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if self._made is not None:
            self._made.cleanup()


def _command(root: str) -> Any:
    """Return the module beside this one, which knows for which platform it is."""
    spec = importlib.util.spec_from_file_location("command", os.path.join(root, ".ci", "command.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def join(root: str) -> dict[str, str]:
    """Return the files, and their texts.

    :param root: the directory that has the package's directory
    :raises ValueError: a module imports one of ours that is not joined
    """
    launch, waiting = (_functions(root, modules) for modules in FILES.values())
    joined = (name for modules in FILES.values() for name in modules)
    packages = sorted(name for name in joined if _path(root, name).endswith("__init__.py"))
    lists = f"PACKAGES = {packages!r}\nMODULES = {MODULES!r}\nWAITING = {WAITING!r}\nEXTENSIONS = {EXTENSIONS!r}\n"
    lists += f"SECOND = {{*WAITING, *{SELDOM!r}}}\n"
    of_launch, of_waiting = map(_table, FILES.values())
    texts = (
        f"{_HEAD}{launch}\n\nJOINED = {of_launch}\n{lists}{_ENTRY}",
        f"{_HEAD_OF_WAITING}{waiting}\n\nJOINED |= {of_waiting}\n",
    )
    return dict(zip(FILES, texts, strict=True))


def _functions(root: str, modules: tuple[str, ...]) -> str:
    """Return modules as functions."""
    parts = []
    for name in modules:
        with open(_path(root, name), "rb") as file:
            source = file.read()
        known = {*MODULES, *LATER, *modules}
        if missing := {each for each in imported(source) if _path(root, each)} - known:
            raise ValueError(f"{name} imports {', '.join(sorted(missing))}: list it in .ci/join.py")
        parts.append(as_function(name, source))
    return "".join(parts)


def _table(modules: tuple[str, ...]) -> str:
    return "{\n" + "".join(f"    {name!r}: {_function_name(name)},\n" for name in modules) + "}"


def _path(root: str, module: str) -> str:
    """Return the file of a module, or the empty string if there is none."""
    path = os.path.join(root, *module.split("."))
    return next((file for file in (os.path.join(path, "__init__.py"), f"{path}.py") if os.path.isfile(file)), "")


def imported(source: bytes) -> set[str]:
    """Return what a module imports of envsync as it is loaded: modules, and names in them as if they were some."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.partition(".")[0] == "envsync"}


def as_function(module: str, source: bytes) -> str:
    """Return a module as a function.

    :param source: of the module, in UTF-8
    """
    text = cut(source)
    inside = {line for node in ast.walk(ast.parse(text)) for line in _lines_within(node)}
    lines = [
        line if number in inside else f"    {line}"
        for number, line in enumerate(text.decode().split("\n"), 1)
        if line.strip() or number in inside
    ]
    names = f"global {', '.join(bound(text))}" if bound(text) else "pass"
    return "\n".join(["", "", f"def {_function_name(module)}():", f"    {names}", *lines, ""])


def bound(text: bytes) -> list[str]:
    """Return the names that a module binds, by imports, too."""
    symbols = symtable.symtable(text.decode(), "joined", "exec").get_symbols()
    return sorted(
        symbol.get_name()
        for symbol in symbols
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_declared_global()  # the last: `:=` in a list
    )


def cut(source: bytes) -> bytes:
    """Cut out of a module what nobody asks for at run time."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    text = source
    for begin, end, instead in sorted(_cuts(ast.parse(source), source, starts), reverse=True):
        text = text[:begin] + instead + text[end:]
    return text


def _cuts(tree: ast.Module, source: bytes, starts: list[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yield from where to where to cut, and what to put there instead."""

    def begin(node: Any) -> int:
        return int(starts[node.lineno - 1] + node.col_offset)

    def end(node: Any) -> int:
        return int(starts[node.end_lineno - 1] + node.end_col_offset)

    for node in _walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            gone = [each for each in body if _is_gone(each)]
            for each in gone:
                alone = len(gone) == len(body) and each is gone[0] and not isinstance(node, ast.Module)
                yield begin(each), end(each), b"pass" if alone else b""
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield end(node.target), source.index(b"=", end(node.annotation)), b" "
        elif isinstance(node, ast.arg) and node.annotation is not None:
            yield begin(node) + len(node.arg.encode()), end(node.annotation), b""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield source.rindex(b"->", 0, begin(node.returns)), source.index(b":", end(node.returns)), b""


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, but for what is cut out as a whole."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _is_for_types(child):
            yield from _walk(child)


def _is_gone(node: ast.AST) -> bool:
    """Tell whether a statement is cut out as a whole: it has no effect at run time, or none that is missed."""
    if isinstance(node, ast.Expr):  # a docstring, of whatever
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.ImportFrom):  # it is about annotations, and would load a module
        return node.module == "__future__"
    return _is_for_types(node) or (isinstance(node, ast.AnnAssign) and node.value is None)


def _is_for_types(node: ast.AST) -> bool:
    is_so = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return is_so and not node.orelse  # type: ignore[attr-defined]


def _lines_within(node: ast.AST) -> range:
    """Return the lines that begin within a string: to indent them would change it."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
        return range(node.lineno + 1, (node.end_lineno or 0) + 1)
    return range(0)


def _function_name(module: str) -> str:
    return "_" + module.replace(".", "_")


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(join(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))).values()))
