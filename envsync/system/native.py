"""What the system that we run on does for us, besides what a launch needs (`envsync.system.core`).

The same names of `linux`, `darwin` or `windows`; `posix` is what the first two have in common, and says what they mean.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from envsync.system import windows as here
elif sys.platform == "darwin":
    from envsync.system import darwin as here
else:
    from envsync.system import linux as here

NAME = here.NAME
CAN_FORK = here.CAN_FORK
PIPE_BUF = here.PIPE_BUF
KILL = here.KILL
CONTINUE = here.CONTINUE
allocated = here.allocated
MAY_HAVE_PROC = here.MAY_HAVE_PROC
parents = here.parents
ENDS_OF_PYTHON = here.ENDS_OF_PYTHON
RESTRICTS_NAMES = here.RESTRICTS_NAMES
birth_ns = here.birth_ns
replace = here.replace
HAS_JOBS = here.HAS_JOBS
socket_readable = here.socket_readable
inherit = here.inherit
spelled = here.spelled
PROGRAM = here.PROGRAM
LAUNCHER = here.LAUNCHER
OWN_SCRIPTS = here.OWN_SCRIPTS
DEEP = here.DEEP
INCLUDE = here.INCLUDE
LIBRARIES = here.LIBRARIES
OWN_DIRECTORIES = here.OWN_DIRECTORIES
SITE_PACKAGES = here.SITE_PACKAGES
site_packages = here.site_packages
MODES = here.MODES
MOVES_DIRECTORIES = here.MOVES_DIRECTORIES
GLANCE_SECONDS = here.GLANCE_SECONDS
check_movable = here.check_movable
chmod = here.chmod
link = here.link
listdir = here.listdir
mkdir = here.mkdir
stat = here.stat
unlink = here.unlink
utime = here.utime
cache_directory = here.cache_directory
clock = here.clock
clock_ticks = here.clock_ticks
clone = here.clone
device = here.device
fork = here.fork
free = here.free
is_of_our_session = here.is_of_our_session
is_possible_name = here.is_possible_name
is_read_only = here.is_read_only
jupyter_directory = here.jupyter_directory
libc_version = here.libc_version
notes_reading = here.notes_reading
pread = here.pread
pread_into = here.pread_into
pwrite = here.pwrite
readable = here.readable
send = here.send
set_nonblocking = here.set_nonblocking
sync_filesystem = here.sync_filesystem
user_id = here.user_id
