/* Stands in for what macOS's C library has and Linux's has not, by the manual pages clonefile(2) and sysctl(3) and the
   header unistd.h: a clone is a copy here. Each call is noted in the file that DARWIN_CALLS names; DARWIN_REFUSES is an errno. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HERE -2 /* AT_FDCWD of macOS */
#define KNOWN_FLAGS 7

static int note(const char *call, const char *name, unsigned flags)
{
    const char *path = getenv("DARWIN_CALLS"), *refusal = getenv("DARWIN_REFUSES");
    if (path) {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        dprintf(fd, "%s %s %u\n", call, name, flags);
        close(fd);
    }
    errno = refusal ? atoi(refusal) : 0;
    return errno ? -1 : 0;
}

int fclonefileat(int source, int directory, const char *name, unsigned flags)
{
    struct stat status;
    char buffer[65536];
    ssize_t count;
    int fd;
    if (note("fclonefileat", name, flags) < 0 || fstat(source, &status) < 0)
        return -1;
    if (!S_ISREG(status.st_mode) || flags & ~KNOWN_FLAGS) {
        errno = EINVAL;
        return -1;
    }
    fd = openat(directory == HERE ? AT_FDCWD : directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    for (off_t done = 0; (count = pread(source, buffer, sizeof buffer, done)) > 0; done += count)
        if (write(fd, buffer, count) != count)
            abort();
    struct timespec times[] = {status.st_atim, status.st_mtim};
    fchmod(fd, status.st_mode & 01777);
    futimens(fd, times);
    close(fd);
    return 0;
}

int sysctlbyname(const char *name, void *old, size_t *size, const void *new, size_t new_size)
{
    const char boot[] = "01234567-89AB-CDEF-0123-456789ABCDEF";
    if (note("sysctlbyname", name, new_size) < 0)
        return -1;
    if (strcmp(name, "kern.bootsessionuuid") || new || *size < sizeof boot) {
        errno = new ? EPERM : *size < sizeof boot ? ENOMEM : ENOENT;
        return -1;
    }
    memcpy(old, boot, *size = sizeof boot);
    return 0;
}

int fsync_volume_np(int fd, int flags)
{
    return note("fsync_volume_np", "-", flags) < 0 ? -1 : syncfs(fd);
}
