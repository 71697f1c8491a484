"""What the system that we run on does for us, besides what a launch needs (`envsync.system.core`).

The same names on each: `posix` has what Linux and macOS have in common, `linux` and `darwin` what each does in its own
way, and `windows` all of it. `posix` and `linux` say what the names mean.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from envsync.system import windows as common
    from envsync.system import windows as here
elif sys.platform == "darwin":
    from envsync.system import darwin as here
    from envsync.system import posix as common
else:
    from envsync.system import linux as here
    from envsync.system import posix as common

BY_OTHERS = common.BY_OTHERS
CONTINUE = common.CONTINUE
DEEP = common.DEEP
ENDS_OF_PYTHON = common.ENDS_OF_PYTHON
GLANCE_SECONDS = common.GLANCE_SECONDS
HAS_JOBS = common.HAS_JOBS
INCLUDE = common.INCLUDE
KILL = common.KILL
LAUNCHER = common.LAUNCHER
LIBRARIES = common.LIBRARIES
LINKS = common.LINKS
MAY_HAVE_PROC = common.MAY_HAVE_PROC
MODES = common.MODES
MOVES_DIRECTORIES = common.MOVES_DIRECTORIES
NO_HOME = common.NO_HOME
OWN_DIRECTORIES = common.OWN_DIRECTORIES
OWN_SCRIPTS = common.OWN_SCRIPTS
PIPE_BUF = common.PIPE_BUF
PROGRAM = common.PROGRAM
RESTRICTS_NAMES = common.RESTRICTS_NAMES
SITE_PACKAGES = common.SITE_PACKAGES
START_SECONDS = common.START_SECONDS
allocated = common.allocated
check_movable = common.check_movable
chmod = common.chmod
clock = common.clock
clock_ticks = common.clock_ticks
device = common.device
fork = common.fork
free = common.free
inherit = common.inherit
is_alive = common.is_alive
is_of_our_session = common.is_of_our_session
is_possible_name = common.is_possible_name
is_read_only = common.is_read_only
link = common.link
listdir = common.listdir
mkdir = common.mkdir
parents = common.parents
pread = common.pread
pwrite = common.pwrite
readable = common.readable
replace = common.replace
set_nonblocking = common.set_nonblocking
site_packages = common.site_packages
socket_readable = common.socket_readable
spelled = common.spelled
spoken = common.spoken
started_of = common.started_of
stat = common.stat
umask = common.umask
unlink = common.unlink
user_id = common.user_id
utime = common.utime

CAN_FORK = here.CAN_FORK
NAME = here.NAME
birth_ns = here.birth_ns
boot = here.boot
cache_directory = here.cache_directory
clone = here.clone
command_of = here.command_of
jupyter_directory = here.jupyter_directory
libc_version = here.libc_version
notes_reading = here.notes_reading
pread_into = here.pread_into
send = here.send
sync_filesystem = here.sync_filesystem
