"""tox: with `runner = envsync`, the packages of a test environment are those of a lock file.

The environment is beneath tox's own directory for it, in which tox writes before there is one. tox holds it while the
commands run: nobody changes it meanwhile, and another tox that wants the same shares it.

Every tox of a Python that has envsync loads this module (the entry point of pyproject.toml). Until the runner is asked
for, it does nothing but to say that there is one, and a tox that knows no runners is not disturbed.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from envsync.errors import EnvsyncError, SyncCancelledError

if TYPE_CHECKING:
    from envsync.library.blocking import Hold

try:
    from tox.plugin import impl
except ImportError:  # a tox before version 4, or none: whoever asks for the runner is told that there is none

    def impl(function: Any) -> Any:
        """Leave a function as it is."""
        return function


@impl  # type: ignore[untyped-decorator]
def tox_register_tox_env(register: Any) -> None:
    """Say that there is a runner (called by tox)."""
    from tox.tox_env.python.api import Python
    from tox.tox_env.runner import RunToxEnv

    register.add_run_env(type("EnvsyncRunner", (Runner, Python, RunToxEnv), {}))


class Runner:
    """What makes an environment of tox, which has an interpreter and runs commands, one whose packages envsync brings.

    Comes before the classes of tox that say the rest.
    """

    conf: Any
    core: Any
    options: Any
    env_dir: Path
    base_python: Any

    def __init__(self, create_args: Any) -> None:
        self._hold: Hold | None = None
        self._stopped = False
        self._executor: Any = None
        self._installer: Any = None
        super().__init__(create_args)  # type: ignore[call-arg]

    @staticmethod
    def id() -> str:
        """Return what `runner =` is given."""
        return "envsync"

    def register_config(self) -> None:
        """Say what the section of such an environment may have."""
        from tox.tox_env.python import api

        super().register_config()  # type: ignore[misc]
        api.add_skip_missing_interpreters_to_core(self.core, self.options)
        api.add_skip_missing_interpreters_to_env(self.conf, self.core, self.options)
        for keys, kind, default, description in (
            (["lock", "pylock"], str, "", "the lock file; default: the project's own"),
            (["extras"], list[str], [], "extras of the lock file"),
            (["groups", "dependency_groups"], list[str], [], "dependency groups of the lock file"),
            (["envsync_options"], list[str], [], "further options of `envsync sync`, a word a line"),
            (["deps"], list[str], [], "refused: what is installed is what the lock file says"),
        ):
            self.conf.add_config(keys=keys, of_type=kind, default=default, desc=description)

    # The environment

    def ensure_python_env(self) -> None:
        """Have the environment made current, at every run, and hold it until the teardown (called by tox).

        :raises Fail: it could not be; tox shows why
        """
        if self.conf["deps"]:
            _refuse("deps")
        self.create_python_env()

    def create_python_env(self) -> None:
        """Make the environment current, as `ensure_python_env`."""
        from tox.tox_env.errors import Fail

        from envsync.integrations import entering

        self._release()
        root = self.core["tox_root"]
        words = [*self.conf["envsync_options"]]
        words += [f"--extra={name}" for name in self.conf["extras"]]
        words += [f"--group={name}" for name in self.conf["groups"]]
        if self.conf["lock"]:
            words.append(f"--lock={root / self.conf['lock']}")
        env, python = str(self.env_dir / "env"), self._python()
        try:
            self._hold = entering.enter(words, project=str(root), env=env, python=python, check=self._check)
        except EnvsyncError as error:
            raise Fail(f"envsync: {error}\nhint: {error.hint}") from error

    def _python(self) -> str:
        """Return the Python that `base_python` or the environment's name asks for; empty if neither does."""
        return "" if self.conf["base_python"] == [sys.executable] else str(self.base_python.extra["executable"])

    def interrupt(self) -> None:
        """End a sync, too, which Ctrl-C does not reach, since it is done in a thread of tox (called by tox)."""
        self._stopped = True
        super().interrupt()  # type: ignore[misc]

    def _check(self) -> None:
        if self._stopped:
            raise SyncCancelledError("tox was interrupted")

    def _teardown(self) -> None:
        self._release()
        super()._teardown()  # type: ignore[misc]

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    @property
    def environment_variables(self) -> dict[str, str]:
        """What commands get: what tox gives them, and the mark of being inside the environment."""
        variables: dict[str, str] = super().environment_variables  # type: ignore[misc]
        if self._hold is None:
            return variables
        return {**variables, **self._hold.activation(variables), "PATH": variables["PATH"]}

    # Where its parts are

    def _part(self, name: str) -> Path:
        env = self._hold.result.env if self._hold is not None else str(self.env_dir / "env")
        return Path(sysconfig.get_path(name, "venv", {"base": env}))

    def prepend_env_var_path(self) -> list[Path]:
        """Return where commands are looked up first."""
        return [self.env_bin_dir()]

    def env_bin_dir(self) -> Path:
        """Return where the environment's commands are."""
        return self._part("scripts")

    def env_python(self) -> Path:
        """Return the environment's Python."""
        return self.env_bin_dir() / "python"

    def env_site_package_dir(self) -> Path:
        """Return where the environment's packages are, or would be if it had the Python of tox."""
        library = self._part("purelib")
        return next(iter(sorted(library.parent.parent.glob("python*/site-packages"))), library)

    # What tox asks of each kind of environment

    @property
    def executor(self) -> Any:
        """What runs commands."""
        if self._executor is None:
            from tox.execute.local_sub_process import LocalSubProcessExecutor

            self._executor = LocalSubProcessExecutor(self.options.is_colored)
        return self._executor

    @property
    def installer(self) -> Any:
        """What lists packages, and installs none."""
        if self._installer is None:
            self._installer = _Installer(self)
        return self._installer

    @property
    def runs_on_platform(self) -> str:
        """The platform."""
        return sys.platform

    def _get_python(self, base_python: list[str]) -> Any:
        import python_discovery
        from tox.tox_env.python.api import PythonInfo, VersionInfo

        found = next(filter(None, map(python_discovery.get_interpreter, base_python)), None)
        if found is None:
            return None
        return PythonInfo(
            implementation=found.implementation,
            version_info=VersionInfo(*found.version_info),
            version=found.version,
            is_64=found.architecture == 64,
            platform=found.platform,
            extra={"executable": found.system_executable or found.executable},
        )

    @classmethod
    def python_spec_for_path(cls, path: Path) -> Any:
        """Return what a Python is, by its path."""
        import python_discovery

        found = python_discovery.get_interpreter(str(path))
        version = "" if found is None else "{}.{}".format(*found.version_info)
        return python_discovery.PythonSpec.from_string_spec(f"python{version}")

    # There is no packaging: the lock file says whether the project is installed.

    def _register_package_conf(self) -> bool:
        return False

    @property
    def _package_tox_env_type(self) -> NoReturn:
        raise NotImplementedError

    _external_pkg_tox_env_type = _package_tox_env_type

    def _build_packages(self) -> list[Any]:
        return []


class _Installer:
    """Tells tox what is installed. Nothing else is."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def installed(self) -> list[str]:
        """Return the packages, as `name==version`."""
        from importlib import metadata

        found = metadata.distributions(path=[str(self._runner.env_site_package_dir())])
        return sorted(f"{each.name}=={each.version}" for each in found)

    def install(self, arguments: object, section: str, of_type: str) -> NoReturn:  # noqa: ARG002
        """Install nothing (called by tox).

        :raises Fail: always
        """
        _refuse(of_type)


def _refuse(what: str) -> NoReturn:
    from tox.tox_env.errors import Fail

    raise Fail(
        f"envsync: `{what}` is not for `runner = envsync`: what is installed is what the lock file says\n"
        "hint: lock it, and name its group, as in `groups = test`; `envsync sync --help` says what else can be given"
    )
