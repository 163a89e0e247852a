/* Makes a disk fail, for tests: the dynamic linker loads it into the host (LD_PRELOAD).
 *
 * While the file that DUNLIN_FAULTS names is there, it says in one line what fails:
 *
 *     write|sync  ERRNO  PATTERN  once|always
 *
 * PATTERN is a glob of the paths whose files fail. With `once` the file goes with the
 * failure, so that whoever waits for it sees that it struck. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char control[4096];

__attribute__((constructor)) static void find_control(void) {
    const char *path = getenv("DUNLIN_FAULTS");
    if (path && strlen(path) < sizeof control)
        strcpy(control, path);
}

/* The error with which this call is to fail, or 0. */
static int fault(const char *call, int fd) {
    char line[512], kind[16], pattern[256], times[16], link[64], path[4096];
    int code;
    int file = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    long length = syscall(SYS_read, file, line, sizeof line - 1);
    syscall(SYS_close, file);
    if (length <= 0)
        return 0;
    line[length] = 0;
    if (sscanf(line, "%15s %d %255s %15s", kind, &code, pattern, times) != 4 || strcmp(kind, call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (fnmatch(pattern, path, 0))
        return 0;
    /* Of several threads one. */
    if (!strcmp(times, "once") && unlink(control))
        return 0;
    return code;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(call, fd)                                                                             \
    do {                                                                                           \
        int before = errno, code = fault(call, fd);                                                \
        errno = before;                                                                            \
        if (code) {                                                                                \
            errno = code;                                                                          \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
    FAIL("write", fd);
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    FAIL("write", fd);
    return REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    FAIL("write", fd);
    return REAL(pwrite64)(fd, bytes, count, at);
}

int fsync(int fd) {
    FAIL("sync", fd);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL("sync", fd);
    return REAL(fdatasync)(fd);
}
