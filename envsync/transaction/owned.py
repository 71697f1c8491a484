"""The files that a distribution owns by its RECORD, and whether they are there."""

from __future__ import annotations

import os
import posixpath
import stat

from envsync.installed.plan import Installed
from envsync.installed.scan import is_skeleton
from envsync.launch import Environment
from envsync.launch.reading import content
from envsync.system import paths
from envsync.wheel import record
from envsync.wheel.record import OwnedFile


def files_of(environment: Environment, installed: Installed) -> list[OwnedFile] | None:
    """List the files that a distribution owns by its RECORD.

    Paths that lead out of the environment are left out, and those that are the environment's own.

    :returns: None if there is no RECORD that can be read
    """
    site, roots = posixpath.dirname(installed.dist_info), (paths.abspath(environment.path),)
    try:
        text = content(f"{environment.path}/{installed.dist_info}/{record.NAME}").decode()
        found = [record.owned(row, site, roots) for row in record.rows(text)]
    except (OSError, ValueError):
        return None
    return [file for file in found if file is not None and not is_skeleton(file.path)]


def is_intact(environment: Environment, file: OwnedFile, *, sized: bool) -> bool:
    """Tell whether a recorded file is there, is a file, and has the size that is recorded.

    :param sized: whether the size counts
    """
    path = f"{environment.path}/{file.path}"
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):  # into the store, say
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):  # a directory that is linked whole: RECORD lists it, and what is in it
                return not file.hash
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (not sized or file.size is None or status.st_size == file.size)
