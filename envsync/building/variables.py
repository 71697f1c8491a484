"""Which environment variables the programs see that build: what tells where things are, and nothing that misleads.

A compiler is found by them, and the libraries of a module that was loaded; so are proxies and certificates. They also
hold tokens, which a build has no need of; settings of the Python, the pip or the job step that envsync happens to run
in, which are not about a build; and switches by which git would work in another repository.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCE_DATE_EPOCH = "1580601600"
"""When files in archives are said to be from, if nobody says so: 2020-02-02. So the same source gives the same wheel
(https://reproducible-builds.org/specs/source-date-epoch/). Zip knows no time before 1980, and so refuse some backends;
this one is what hatchling takes."""
GIT_ELSEWHERE = frozenset(
    "GIT_" + name
    for name in (
        "ALTERNATE_OBJECT_DIRECTORIES",
        "COMMON_DIR",
        "DIR",
        "INDEX_FILE",
        "NAMESPACE",
        "OBJECT_DIRECTORY",
        "PREFIX",
        "WORK_TREE",
    )
)
"""By which git takes another repository than that of its directory: set in hooks and under `git rebase --exec`."""
_PYTHON_KEPT = frozenset({"PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE", "PYTHONHASHSEED"})
_COMPILER_KEPT = frozenset(
    f"OMPI_{name}" for name in ("CC", "CXX", "FC", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "FCFLAGS", "LDFLAGS", "LIBS")
)
"""What the compiler wrappers of Open MPI heed."""
_JOB_STEP = ("SLURM", "PMI", "OMPI_", "PRTE_", "HYDRA_", "MPI_LOCAL", "PALS_", "FLUX_")
"""By which an MPI program that a configure script starts would join the step it is in, or hang."""
_TOOLS = ("PIP_", "UV_", "ENVSYNC_", "TWINE_", "PYX_", "_PYTHON_", "_PYPROJECT_HOOKS_")
_ENVIRONMENT = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "__PYVENV_LAUNCHER__"})
_SECRET = ("TOKEN", "PASSWORD", "PASSWD", "SECRET", "APIKEY", "_KEY", "CREDENTIALS", "DOCKER_AUTH_CONFIG")
"""How the names of secrets end."""
_SECRET_WORDS = frozenset({"TOKEN", "PASSWORD", "PASSWD", "PASS", "SECRET", "CREDENTIALS", "JWT", "PAT"})
"""What is among the words of a secret's name, wherever: `CI_JOB_JWT_V2`, `POETRY_PYPI_TOKEN_NAME`."""
_VERSIONS = ("SETUPTOOLS_SCM_PRETEND_VERSION", "PBR_VERSION", "PDM_BUILD_SCM_VERSION", "POETRY_DYNAMIC_VERSIONING")
_PIP_ELSEWHERE = frozenset(
    "PIP_" + name
    for name in (
        "BREAK_SYSTEM_PACKAGES",
        "CONSTRAINT",
        "DRY_RUN",
        "EDITABLE",
        "FORCE_REINSTALL",
        "IGNORE_INSTALLED",
        "NO_DEPS",
        "PREFIX",
        "PYTHON",
        "REPORT",
        "REQUIREMENT",
        "REQUIRE_HASHES",
        "REQUIRE_VIRTUALENV",
        "ROOT",
        "TARGET",
        "UPGRADE",
        "USER",
    )
)
"""Of pip: what says where to install, and what is meant for the packages of a project, not for build requirements."""
_UV_KEPT = (
    *("UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_CONCURRENT", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    *("UV_HTTP", "UV_INDEX", "UV_INSECURE_HOST", "UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"),
)
"""Of uv: how what it reads starts that says where packages are; the rest is about a project."""
PROTOCOLS = ("https", "http", "ssh", "git", "file")
"""By which git may fetch. Never `ext`, which runs a command."""
_GIT_KEPT = (
    *("GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_LFS_", "GIT_PROXY_", "GIT_SSH", "GIT_SSL_", "GIT_HTTP_"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"),
)
"""How those variables of git begin that say how to get somewhere. The others say what to do there, in a repository of
somebody else's, or have git say more."""
_ASKING = frozenset({"SSH_ASKPASS", "LANGUAGE"})
"""By which git would ask somebody, or in another language."""


def of_versions(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that tell tools which version they are to find, with their values, in order."""
    return sorted(f"{name}={value}" for name, value in environ.items() if name.startswith(_VERSIONS))


def for_build(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a build backend sees, and what it starts.

    :param environ: ours
    """
    kept = {name: value for name, value in environ.items() if _is_for_builds(name) and not _is_tool(name)}
    return _settled(kept)


def for_installer(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that pip or uv see when they install build requirements: those of their own, too.

    :param environ: ours
    """
    kept = {name: value for name, value in environ.items() if _is_for_installer(name)}
    return _settled({**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"})


def for_git(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for git that fetches: it asks nobody, speaks English, and knows no repository but ours.

    Tokens stay that a credential helper may need; so do proxies and certificates.

    :param environ: ours
    """
    kept = {name: value for name, value in environ.items() if _is_for_git(name)}
    if not {"GIT_SSH", "GIT_SSH_COMMAND"} & kept.keys():
        kept["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    # A server that says nothing at all for five minutes has gone: one that computes says so every few seconds.
    kept.setdefault("GIT_HTTP_LOW_SPEED_LIMIT", "1")
    kept.setdefault("GIT_HTTP_LOW_SPEED_TIME", "300")
    allowed = environ.get("GIT_ALLOW_PROTOCOL", ":".join(PROTOCOLS)).split(":")
    return {
        **kept,
        "GIT_ALLOW_PROTOCOL": ":".join(name for name in PROTOCOLS if name in allowed),
        "GIT_TERMINAL_PROMPT": "0",
        "GCM_INTERACTIVE": "never",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "LC_ALL": "C",
    }


def _is_for_git(name: str) -> bool:
    if name.startswith("GIT_"):
        return name.startswith(_GIT_KEPT)
    return name not in _ASKING and not name.startswith((*_TOOLS, *_JOB_STEP))


def _settled(kept: dict[str, str]) -> dict[str, str]:
    for name in ("MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS"):
        if "jobserver" in kept.get(name, ""):
            del kept[name]  # it names descriptors, which no program inherits from us
    kept.setdefault("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)
    return {**kept, "PYTHONNOUSERSITE": "1", "GIT_TERMINAL_PROMPT": "0"}


def _is_for_builds(name: str) -> bool:
    if name.startswith("PYTHON"):
        return name in _PYTHON_KEPT
    if name.startswith(_JOB_STEP):
        return name in _COMPILER_KEPT
    is_secret = name.upper().endswith(_SECRET) or not _SECRET_WORDS.isdisjoint(name.upper().split("_"))
    return name not in GIT_ELSEWHERE | _ENVIRONMENT and not is_secret


def _is_tool(name: str) -> bool:
    return name.startswith(_TOOLS)


def _is_for_installer(name: str) -> bool:
    if name.startswith("PIP_"):
        return name not in _PIP_ELSEWHERE
    return name.startswith(_UV_KEPT) or (_is_for_builds(name) and not _is_tool(name))
