"""What direct_url.json says of directories and git repositories (PEP 610)."""

from __future__ import annotations

import json

import pytest
from packaging.direct_url import DirectUrl

from envsync.lockfile.sources import direct_url_of
from envsync.lockfile.target import DIRECTORY, GIT, Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("editable", [False, True])
def test_a_directory_is_said_to_be_editable_or_not(editable: bool) -> None:
    """A directory is a file URL, percent-encoded, that says whether it is editable, for uv looks at that."""
    text = direct_url_of(Source(DIRECTORY, "/home/a b/project", editable=editable))
    assert json.loads(text) == {"url": "file:///home/a%20b/project", "dir_info": {"editable": editable}}


def test_a_commit_is_named_with_what_it_was_found_by() -> None:
    """Commit, reference and subdirectory are told, in the form that packaging reads."""
    text = direct_url_of(Source(GIT, "https://git.example/x.git", COMMIT, "v1.0", "python"))
    assert json.loads(text) == {
        "url": "https://git.example/x.git",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "v1.0"},
        "subdirectory": "python",
    }
    DirectUrl.from_dict(json.loads(text)).validate()


def test_what_was_not_asked_for_is_left_out() -> None:
    """Without a reference and a subdirectory there is no empty one either."""
    text = direct_url_of(Source(GIT, "file:///srv/x", COMMIT))
    assert json.loads(text) == {"url": "file:///srv/x", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("https://me:hunter2@git.example/x", "https://git.example/x"),
        ("https://hunter2@git.example:8443/x", "https://git.example:8443/x"),
        ("https://me:hunt@er2@git.example/x", "https://git.example/x"),
        ("https://git:hunter2@git.example/x", "https://git.example/x"),
        ("https://git.example/x?token=hunter2", "https://git.example/x?token=***"),
        ("ssh://git@git.example/x", "ssh://git@git.example/x"),
        ("ssh://git@git.example:22/x", "ssh://git@git.example:22/x"),
        ("git@git.example:me/x.git", "git@git.example:me/x.git"),
        ("https://${USER}:${TOKEN}@git.example/x", "https://${USER}:${TOKEN}@git.example/x"),
    ],
)
def test_no_secret_of_a_url_is_written(place: str, shown: str) -> None:
    """Users and passwords are left out, but for the user `git` of ssh and variables."""
    assert json.loads(direct_url_of(Source(GIT, place, COMMIT)))["url"] == shown
