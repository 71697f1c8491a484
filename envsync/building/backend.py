"""Have a build backend make a wheel, or an editable one, of a tree (PEP 517, PEP 660).

PyPA's `build` reads pyproject.toml and calls the hooks, each in a process of its own; we give it the environments
(`envsync.building.environments`) and start the processes (`envsync.building.supervised`). Metadata is not prepared
beforehand: with a lock file, the wheel itself is all one needs.

What the rules are, where tools differ, is told by what pip does: no table `build-system` means setuptools, so does one
without `build-backend`, one without `requires` is refused, and so is a `backend-path` that leaves the tree; a backend
without `build_editable` cannot make an editable.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NoReturn, Protocol, TypeVar

import pyproject_hooks
from build import BuildBackendException, BuildException, ProjectBuilder
from packaging.utils import canonicalize_name
from packaging.version import Version

from envsync.building import supervised
from envsync.building.supervised import Run
from envsync.errors import BuildError, FilesystemError
from envsync.lockfile.wheels import Fit, WheelName
from envsync.python.facts import Interpreter
from envsync.system import core, paths

LINES = 20
"""Of what a build has said last, in the message of the error."""
TAIL = 256 * 1024
"""Bytes of what a build has said last that are searched for what is known to help."""
_MODULE = re.compile(r"No module named '?([A-Za-z_]\w*)")
_TOOL = re.compile(
    r"\b(?:mpi\.h|mpicc|nvcc|CUDA_HOME)\b|fatal error: .*\.h: |: (?:command )?not found|unable to execute|"
    r"(?:program|compiler|executable) .*not found|No such file or directory: '[\w+-]+'",
    re.IGNORECASE,
)
_SECTION = "--- "
"""Begins the line of a log that says which hook speaks from there on."""

Result = TypeVar("Result")

if (_category := getattr(pyproject_hooks, "BuildBackendWarning", None)) is not None:  # from 1.3 on
    # What backends warn of is for those who maintain the package, and would be shown as if it was ours.
    warnings.filterwarnings("ignore", category=_category)


class Environment(Protocol):
    """A build environment, as `build` takes one."""

    @property
    def python_executable(self) -> str: ...

    def make_extra_environ(self) -> Mapping[str, str] | None: ...


class Environments(Protocol):
    """What gives build environments."""

    def of(self, requirements: Iterable[str]) -> Environment: ...


def build_wheel(
    tree: str,
    out: str,
    *,
    editable: bool,
    package: str,
    environments: Environments,
    config: Mapping[str, str | list[str]],
    requires: Sequence[str],
    variables: Mapping[str, str],
    log: str,
    isolated: bool = True,
    checkpoint: Callable[[], object] = lambda: None,
    run: Run = supervised.run,
) -> str:
    """Build a wheel of a tree. Runs what the tree says, and what its build requires.

    :param tree: the project's directory, which backends write into
    :param out: the directory that gets the wheel
    :param package: what is built, for messages: its name, with the version if it is known
    :param config: settings, given to every hook
    :param requires: what has to be there besides what the tree says itself
    :param variables: all that hooks see, but for what their environment adds
    :param log: the file that what is said is appended to
    :param isolated: not beside what it is installed with, so that this may help
    :param checkpoint: called about every 0.1 s; what it raises ends the build
    :returns: the path of the wheel, which is still to be checked (`check`)
    :raises BuildError: it cannot be built
    :raises FilesystemError: a directory or the log cannot be written
    """
    hooks = _Hooks(tree, package, isolated=isolated, variables=variables, log=log, checkpoint=checkpoint, run=run)
    kind: Literal["editable", "wheel"] = "editable" if editable else "wheel"
    settings = dict(config) or None
    required = {*hooks.call(lambda: ProjectBuilder(tree).build_system_requires), *requires}
    builder = hooks.builder(environments.of(sorted(required)))
    required |= {*map(str, hooks.call(lambda: builder.get_requires_for_build(kind, settings)))}
    finisher = hooks.builder(environments.of(sorted(required)))
    wheel = core.slashed(hooks.call(lambda: finisher.build(kind, out, settings)))
    if os.path.dirname(wheel) != paths.abspath(out) or not os.path.isfile(wheel):
        raise BuildError(package, f"its backend says that it made `{wheel}`, which is not there", log=log)
    return wheel


class _Hooks:
    """Calls the hooks of one tree, and says what went wrong.

    :ivar raised: what has ended the last process that was not its own doing
    """

    def __init__(
        self,
        tree: str,
        package: str,
        *,
        isolated: bool,
        variables: Mapping[str, str],
        log: str,
        checkpoint: Callable[[], object],
        run: Run,
    ) -> None:
        self.tree = tree
        self.package = package
        self.isolated = isolated
        self.variables = variables
        self.log = log
        self.checkpoint = checkpoint
        self.run = run
        self.raised: BaseException | None = None

    def builder(self, environment: Environment) -> ProjectBuilder:
        return self.call(lambda: ProjectBuilder.from_isolated_env(environment, self.tree, self._start))

    def _start(
        self, cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        """Run one hook (the runner that `build` takes)."""
        env = {**self.variables, **(extra_environ or {})}
        try:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{_SECTION}{cmd[-2]} of {self.package}\n")
        except OSError as error:
            self.raised = FilesystemError("write", self.log, error)
            raise self.raised from error
        try:
            status = self.run(cmd, cwd=cwd or self.tree, env=env, log=self.log, checkpoint=self.checkpoint)
        except OSError as error:
            self.raised = FilesystemError("run", error.filename or cmd[0], error)
            raise self.raised from error
        except BaseException as error:
            self.raised = error
            raise
        if status:
            raise subprocess.CalledProcessError(status, cmd)

    def call(self, ask: Callable[[], Result]) -> Result:
        """Ask `build` for something, and say in our words what goes wrong."""
        self.raised = None
        try:
            return ask()
        except BuildBackendException as error:
            if self.raised is not None:  # which `build` takes for the backend's
                raise self.raised from None
            self._refuse(error)
        except BuildException as error:
            self._say(str(error))
        except UnicodeDecodeError as error:
            self._say(f"its pyproject.toml is not UTF-8 (byte {error.start})")
        except ValueError as error:  # of pyproject_hooks
            self._say(f"its `backend-path` is refused: {error}")
        except TypeError as error:  # of joining what it says with a path
            self._say(f"its build backend does not answer as one ({error})")

    def _refuse(self, error: BuildBackendException) -> NoReturn:
        cause = error.exception
        if isinstance(cause, pyproject_hooks.HookMissing):
            self._say(
                f"it uses a build backend that is missing the `{cause.hook_name}` hook, so it cannot be installed in "
                "editable mode",
                hint="install it as a wheel, `envsync sync --no-editable`, or use a backend that supports PEP 660",
            )
        if isinstance(cause, OSError) and not isinstance(
            cause, FileNotFoundError
        ):  # which is an answer that is missing
            raise FilesystemError("use", str(cause.filename or tempfile.gettempdir()), cause) from error
        said = self._said()
        if isinstance(cause, pyproject_hooks.BackendUnavailable):
            problem = "its build backend cannot be imported"
            said = f"{said}{cause.traceback}"
        elif isinstance(cause, subprocess.CalledProcessError):
            problem = _ending(cause)
        else:
            problem = f"its build backend does not answer as one ({cause})"
        lines = "\n".join(said.splitlines()[-LINES:])
        self._say(
            f"{problem}; it says:\n{lines}" if lines else problem, hint=hint_of(said, self.package, self.isolated)
        )

    def _say(self, problem: str, hint: str | None = None) -> NoReturn:
        raise BuildError(self.package, problem, log=self.log if os.path.exists(self.log) else "", hint=hint)

    def _said(self) -> str:
        """Return what the last hook has said, or the end of it."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        section = text.rpartition(f"\n{_SECTION}")[2].removeprefix(_SECTION)
        return section.partition("\n")[2]


def _ending(error: subprocess.CalledProcessError) -> str:
    hook = error.cmd[-2] if len(error.cmd) > 1 else "a hook"
    if error.returncode < 0:
        return f"`{hook}` of its build backend was killed by signal {-error.returncode}"
    return f"`{hook}` of its build backend failed"


def hint_of(said: str, package: str, isolated: bool = True) -> str | None:
    """Say what helps, if what a build has said tells that; None: nothing is known.

    :param package: its name, with the version if it is known
    :param isolated: it was not built beside what it is installed with
    """
    name = re.split(r"[\s=]", package, maxsplit=1)[0]
    modules = _MODULE.findall(said)
    if "pkg_resources" in modules:
        return "its build needs what setuptools no longer has: `envsync sync --build-constraint 'setuptools<81'`"
    if modules and not isolated:
        return (
            f"its build imports `{modules[-1]}`, which the lock file does not have: lock that, too, then `envsync sync`"
        )
    if modules:
        return (
            f"its build imports `{modules[-1]}` and does not say that it requires it; if the lock file has that: "
            f"`envsync sync --no-build-isolation-package {name}`; if the project is yours, name it in "
            "`[build-system]` of its pyproject.toml, in `requires`"
        )
    if _TOOL.search(said):
        return (
            "a compiler, a program or a library is missing here; `module avail` may list it: load that module first, "
            "then `envsync sync`"
        )
    return None


def check(wheel: str, name: str, version: str | None, python: Interpreter, *, log: str = "") -> None:
    """Make sure that a wheel that was built is the one that was wanted.

    Its contents are compared with its RECORD when it is unpacked into the store, as those of any wheel.

    :param name: what it has to be, normalized
    :param version: what it has to be, whatever local version is added; None: any
    :raises BuildError: it is another one, is none, or does not fit the Python
    """
    filename = os.path.basename(wheel)
    package = f"{name} {version}" if version else name

    def refuse(problem: str) -> NoReturn:
        raise BuildError(package, f"what its backend has made is refused: {problem}", log=log)

    try:
        named = WheelName(filename)
    except ValueError:
        refuse(f"`{filename}` is no file name of a wheel")
    if named.name != canonicalize_name(name):
        refuse(f"`{filename}` is a wheel of another package")
    if version is not None and not _is_version(named.version, Version(version)):
        refuse(f"`{filename}` has version {named.version}")
    fit = Fit(python)
    if not fit.fits(named.tags):
        refuse(f"`{filename}` does not fit {fit.description}")
    problem = _problem_inside(wheel, named)
    if problem:
        refuse(f"`{filename}` {problem}")


def _is_version(found: Version, wanted: Version) -> bool:
    """Tell whether a version is the wanted one; builds with options add a local version, as in 2.7.4+cu12."""
    return found == wanted or (wanted.local is None and Version(found.public) == wanted)


def _problem_inside(wheel: str, named: WheelName) -> str:
    """Say what is wrong with the metadata of a wheel; empty: nothing."""
    from email.parser import BytesParser

    try:
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.partition("/")[0] for name in archive.namelist() if "/" in name}
            infos = [top for top in tops if top.endswith(".dist-info")]
            if len(infos) != 1:
                return f"has {len(infos)} dist-info directories"
            with archive.open(f"{infos[0]}/METADATA") as file:
                metadata = BytesParser().parse(file, headersonly=True)
        name, version = str(metadata["Name"]), Version(str(metadata["Version"]))
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        return f"cannot be read ({error})"
    if canonicalize_name(name) != named.name or version != named.version:
        return f"has the metadata of {name} {version}"
    return ""
