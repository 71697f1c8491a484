"""A build environment in which a package sees what it will be installed with: for those that import torch to be built.

Others call that a build without isolation, and install everything else first. Here the wheels that the lock file names
are seen where they lie in the store, before the environment has any of them; what the package says that its build
requires is put into a build environment as ever, but for what the lock file has itself, which goes before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envsync.building.backend import Environment, Environments
from envsync.errors import BuildError

if TYPE_CHECKING:
    from envsync.store.store import Store


class Beside:
    """Gives build environments that see some wheels of a store as well.

    :param hashes: of the wheels
    :raises BuildError: one is not in the store any more
    """

    def __init__(self, environments: Environments, store: Store, hashes: Iterable[str], package: str) -> None:
        self._environments = environments
        self._paths: list[str] = []
        self._names: set[str] = set()
        for sha256 in hashes:
            manifest = store.get(sha256)
            if manifest is None:
                raise BuildError(package, "a wheel that it is built beside was removed from the cache meanwhile")
            self._names.add(manifest.name)
            self._paths.append(store.path(sha256))

    def of(self, requirements: Iterable[str]) -> Environment:
        """Return an environment with what is required, as far as it is not among the wheels."""
        return _Seeing(self._environments.of(each for each in requirements if not self._has(each)), self._paths)

    def _has(self, requirement: str) -> bool:
        try:
            return canonicalize_name(Requirement(requirement).name) in self._names
        except InvalidRequirement:
            return False  # whoever installs it will say so


class _Seeing:
    def __init__(self, environment: Environment, paths: Iterable[str]) -> None:
        self._environment = environment
        self._paths = list(paths)

    @property
    def python_executable(self) -> str:
        return self._environment.python_executable

    def make_extra_environ(self) -> Mapping[str, str]:
        """Let Python find the packages, and the shell their programs, before those of the environment."""
        made = dict(self._environment.make_extra_environ() or {})
        libraries = [f"{path}/{scheme}" for path in self._paths for scheme in ("purelib", "platlib")]
        programs = [f"{path}/scripts" for path in self._paths]
        made["PYTHONPATH"] = os.pathsep.join(filter(os.path.isdir, libraries))
        rest = made.get("PATH", os.environ.get("PATH", os.defpath))
        made["PATH"] = os.pathsep.join([*filter(os.path.isdir, programs), rest])
        return made
