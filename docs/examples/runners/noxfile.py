"""nox: envsync is in the Python that has nox (`pip install nox envsync`)."""

import nox

from envsync.integrations.nox import register

register()


@nox.session(venv_backend="envsync", venv_params=["--lock", "pylock.toml"])
def tests(session: nox.Session) -> None:
    session.run("python", "job.py", *session.posargs)
