"""Which filesystem a directory is on: do other hosts share it, and what do its mount options say of its locks?

By /proc/self/mountinfo (proc(5)). Unknown filesystems count as local.

A flock that only excludes processes of one node looks perfect from that node. Some filesystems tell by their mount
options, some by their kind; what is listed here is what is known of them. Of all others it is believed that a lock
that works between two descriptors works between hosts.
"""

from __future__ import annotations

from envsync.system import core, native
from envsync.system.processes import read_proc

os = core.os

LOCAL_BY_OPTION = {
    "lustre": ("localflock",),  # mount.lustre(8)
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),  # nfs(5)
    "nfs4": ("local_lock=all", "local_lock=flock"),
    "cifs": ("nobrl",),  # mount.cifs(8)
    "smb3": ("nobrl",),
}
"""Filesystem → the options by which flock stays within the node."""
LOCAL_BY_KIND = frozenset(
    {
        "fuse.blobfuse", "fuse.blobfuse2", "fuse.gcsfuse", "fuse.goofys", "fuse.mountpoint-s3", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs",
    }
)  # fmt: skip
"""FUSE filesystems of remote storage that do not forward flock, so that the kernel keeps it for itself (fuse(4))."""


NETWORK = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
        "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "smb3", "smbfs", "virtiofs", "vboxsf", "weka", "wekafs",
    }
)  # fmt: skip
LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs", "fuse.squashfuse", "fuse.ntfs-3g", "fuse.portal"})
"""Of FUSE filesystems, those that are this host's alone."""


class Mount:
    """A mounted filesystem: its kind as mount(8) says it, and its options; empty if they are not known."""

    __slots__ = ("kind", "options")

    def __init__(self, kind: str = "", options: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.options = options

    @property
    def local_flock(self) -> str:
        """Say by what flock is known to stay within this node; empty if nothing is known against it."""
        if self.kind in LOCAL_BY_KIND:
            return self.kind
        options = [option for option in LOCAL_BY_OPTION.get(self.kind, ()) if option in self.options]
        return f"{self.kind}, {options[0]}" if options else ""


def is_network(path: str) -> bool:
    """Tell whether a directory is on a filesystem that other hosts may share."""
    kind = mount_of(path).kind
    return kind in NETWORK or (kind.startswith("fuse") and kind not in LOCAL_FUSE)


def mount_of(path: str) -> Mount:
    """Return the mount that a path is on; of a path that is not there, nothing is known."""
    try:
        number = os.stat(path).st_dev
    except OSError:
        return Mount()
    return _of_device(number)


def mounted_in(path: str) -> str:
    """Name a directory at or below a path that something is mounted on, of whatever filesystem; empty if none is."""
    import os

    real = os.fsencode(os.path.realpath(path))
    for fields in map(str.split, read_proc("/proc/self/mountinfo").splitlines()):
        # A blank, a tab, a newline and a backslash are written in octal digits (proc(5)).
        point = fields[4].encode().decode("unicode_escape").encode("latin-1") if len(fields) > 4 else b""
        if point == real or point.startswith(real + b"/"):
            return os.fsdecode(point)
    return ""


def local_flock(file: str | int) -> str:
    """Say by what flock is known to stay within this node, where a file is that may be open; empty: nothing is known.

    Of what somebody may remove meanwhile ask the open lock file: what is not there is on no filesystem, and against
    none nothing is known.

    :raises OSError: it is not there
    """
    return _of_device(os.stat(file).st_dev).local_flock


def _of_device(number: int) -> Mount:
    return parse(read_proc("/proc/self/mountinfo"), "{}:{}".format(*native.device(number)))


def parse(table: str, device: str) -> Mount:
    """Find a device, as in `8:1`, in the text of mountinfo. The first mount of it stands for all."""
    for fields in map(str.split, table.splitlines()):
        if len(fields) > 6 and fields[2] == device and "-" in fields[:-1]:
            end = fields.index("-")
            options = f"{fields[5]},{fields[end + 3] if len(fields) > end + 3 else ''}"
            return Mount(fields[end + 1], tuple(options.split(",")))
    return Mount()
