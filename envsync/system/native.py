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
