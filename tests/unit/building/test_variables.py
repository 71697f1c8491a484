"""What programs see that build: where things are, but no token, and nothing of what envsync happens to run in."""

from __future__ import annotations

import pytest

from envsync.building import variables

KEPT = {
    "PATH": "/opt/bin:/usr/bin",
    "HOME": "/home/one",
    "TMPDIR": "/scratch",
    "CC": "gcc-12",
    "CFLAGS": "-O2 -march=native",
    "CUDA_HOME": "/opt/cuda",
    "LD_LIBRARY_PATH": "/opt/lib",
    "MODULEPATH": "/opt/modules",
    "LOADEDMODULES": "gcc/12",
    "MPICC": "mpicc",
    "OMPI_CC": "gcc-12",
    "MAX_JOBS": "4",
    "MAKEFLAGS": "-j4",
    "https_proxy": "http://proxy.example:3128",
    "SSL_CERT_FILE": "/etc/certs.pem",
    "PYTHONUTF8": "1",
    "SETUPTOOLS_SCM_PRETEND_VERSION": "1.0",
    "KEYBOARD": "no key",
}
DROPPED = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS", "PYTHONSAFEPATH"),
    *("__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "_PYTHON_SYSCONFIGDATA_NAME"),
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"),
    *("HF_TOKEN", "GITHUB_TOKEN", "TWINE_PASSWORD", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "CI_JOB_TOKEN"),
    *("SLURM_JOB_ID", "SLURMD_NODENAME", "PMI_RANK", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_pml"),
    *("ENVSYNC_IN", "UV_PUBLISH_TOKEN", "UV_PROJECT_ENVIRONMENT", "PIP_TARGET", "PIP_USER", "PIP_CONSTRAINT"),
)
PLACES = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT", "PIP_CONFIG_FILE"),
    *("PIP_BUILD_CONSTRAINT", "UV_INDEX_URL", "UV_INDEX_OURS_PASSWORD", "UV_CACHE_DIR"),
)
FUNCTIONS = pytest.mark.parametrize("given", [variables.for_build, variables.for_installer])


@FUNCTIONS
def test_what_is_kept(given: object) -> None:
    """Compilers, modules, proxies and certificates, as they are."""
    assert callable(given)
    assert given(KEPT).items() >= KEPT.items()


@FUNCTIONS
def test_what_is_dropped(given: object) -> None:
    """Tokens, and what is about another Python, another repository, a job step or another environment."""
    assert callable(given)
    assert [name for name in DROPPED if name in given(dict.fromkeys(DROPPED, "x"))] == []


def test_where_packages_are() -> None:
    """Whoever installs build requirements is told; a backend is not, for URLs may hold passwords."""
    environ = dict.fromkeys(PLACES, "https://me:secret@index.example/simple")
    assert [name for name in PLACES if name not in variables.for_installer(environ)] == []
    assert [name for name in PLACES if name in variables.for_build(environ)] == []


def test_what_is_set() -> None:
    """The user's own packages stay out, git asks nothing, and archives get the same times each time."""
    found = variables.for_build({"MAKEFLAGS": " -j --jobserver-auth=3,4"})
    assert found == {"PYTHONNOUSERSITE": "1", "GIT_TERMINAL_PROMPT": "0", "SOURCE_DATE_EPOCH": "1580601600"}
    assert variables.for_build({"SOURCE_DATE_EPOCH": "7"})["SOURCE_DATE_EPOCH"] == "7"


def test_git_is_told_how_to_get_there_and_nothing_else() -> None:
    """What leads git to a server stays, tokens too; what leads it to another repository, or to ask, does not."""
    stays = ("HOME", "PATH", "https_proxy", "SSH_AUTH_SOCK", "GH_TOKEN", "GIT_SSL_CAINFO", "GIT_CONFIG_COUNT")
    goes = ("GIT_DIR", "GIT_TRACE", "GIT_TEMPLATE_DIR", "SSH_ASKPASS", "UV_PUBLISH_TOKEN", "SLURM_JOB_ID", "PMI_RANK")
    found = variables.for_git(dict.fromkeys((*stays, *goes), "x"))
    assert [name for name in stays if found.get(name) != "x"] == []
    assert [name for name in goes if name in found] == []
    assert found["GIT_TERMINAL_PROMPT"] == "0"
    assert found["GIT_SSH_COMMAND"] == "ssh -oBatchMode=yes"


def test_git_may_be_allowed_less_and_called_otherwise() -> None:
    """A user's own ssh stays as it is, and so does what they forbid; `ext` is never allowed."""
    found = variables.for_git({"GIT_SSH_COMMAND": "ssh -F x", "GIT_ALLOW_PROTOCOL": "https:ext"})
    assert found["GIT_SSH_COMMAND"] == "ssh -F x"
    assert found["GIT_ALLOW_PROTOCOL"] == "https"


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("CI_JOB_JWT_V2", False),
        ("POETRY_PYPI_TOKEN_PYPI", False),
        ("SSH_PRIVATE_KEY", False),
        ("DB_PASS", False),
        ("GH_PAT", False),
        ("DOCKER_AUTH_CONFIG", False),
        ("PATH", True),
        ("SSH_AUTH_SOCK", True),
        ("TOKENIZERS_PARALLELISM", True),
        ("GIT_CONFIG_KEY_0", True),
        ("CMAKE_PREFIX_PATH", True),
    ],
)
def test_words_of_secrets(name: str, seen: bool) -> None:
    """A secret is told by a word in its name, wherever that is."""
    assert (name in variables.for_build({name: "x"})) is seen
    assert (name in variables.for_installer({name: "x"})) is seen
