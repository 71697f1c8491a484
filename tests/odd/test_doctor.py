"""`envsync doctor` on filesystems where some call fails with some error: it says so, and what else it has found out."""

from __future__ import annotations

import json
import subprocess

import pytest

from envsync.doctor import Subject, examine, judge
from tests.conftest import envsync_command
from tests.odd.conftest import Mount

HARMLESS = ("chmod", "chown", "fsync", "readlink")
"""Calls that no probe needs."""
CALLS = {
    **{name: f"err={name}:CODE" for name in ("create", "flock", "link", "mkdir", "open", "opendir", "read", "rename")},
    **{name: f"err={name}:CODE" for name in ("rmdir", "statfs", "symlink", "unlink", "utimens", "write", *HARMLESS)},
    "getattr": "fail=getattr:CODE:5:20",
}


@pytest.mark.parametrize("code", ["EPERM", "EIO", "ESTALE"])
@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_there_are_findings(mount: Mount, call: str, code: str) -> None:
    """No error of any call keeps the doctor from having its say, and what concerns a sync is named."""
    directory = mount("--cache", "0", CALLS[call].replace("CODE", code))
    findings = judge(examine(Subject(str(directory / "env"), str(directory / "cache"))), blind=False)
    assert findings
    assert call in HARMLESS or any(finding.level != "fine" for finding in findings), findings


def test_the_command_itself(mount: Mount) -> None:
    """It ends with what it has found, as lines or as an object, and without a traceback."""
    directory = mount("err=create:EIO")
    for words, status in ((["--json"], 1), ([], 1)):
        done = subprocess.run(
            [*envsync_command(), "doctor", "--env", "env", "--cache-dir", "cache", *words],
            cwd=directory,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (status, "")
        assert "EIO" in done.stdout
        if words:
            assert json.loads(done.stdout)["facts"]["failed"]["locks"] == "EIO"
