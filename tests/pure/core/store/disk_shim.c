/* Preloaded into a child by test_durability.py: says in one log, in order, what reached the disk of the files below
   $SHIM_UNDER (write, sync, rename, mkdir), and makes calls fail as the file $SHIM_FAULT says: "sync 5 -wal" makes every sync
   of a path that ends in -wal fail with errno 5; "write" likewise. What another thread does in between stays in order,
   since each line is one append. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int is_ours(const char *path) {
    const char *under = getenv("SHIM_UNDER");
    return under && !strncmp(path, under, strlen(under));
}

static int named(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_ours(path);
}

static void say(const char *what, const char *path, const char *more) {
    char line[2 * PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%s\t%s\t%s\n", what, path, more);
    int log = syscall(SYS_openat, AT_FDCWD, getenv("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (log >= 0) {
        syscall(SYS_write, log, line, n);
        syscall(SYS_close, log);
    }
}

static int fails(const char *what, const char *path) {
    const char *name = getenv("SHIM_FAULT");
    char order[256] = {0}, kind[16] = {0}, ending[128] = {0};
    int number = 0, file = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDONLY) : -1;
    if (file < 0) return 0;
    syscall(SYS_read, file, order, sizeof order - 1);
    syscall(SYS_close, file);
    if (sscanf(order, "%15s %d %127s", kind, &number, ending) != 3 || strcmp(kind, what)) return 0;
    size_t long_ = strlen(path), short_ = strlen(ending);
    if (long_ < short_ || strcmp(path + long_ - short_, ending)) return 0;
    errno = number;
    return 1;
}

static int refused(const char *what, int fd) {
    char path[PATH_MAX];
    if (!named(fd, path)) return 0;
    int no = fails(what, path), kept = errno;
    say(no ? "failed" : what, path, what);
    errno = kept;
    return no;
}

ssize_t write(int fd, const void *from, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return refused("write", fd) ? -1 : real(fd, from, n);
}
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return refused("write", fd) ? -1 : real(fd, from, n, at);
}
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return refused("write", fd) ? -1 : real(fd, from, n, at);
}
ssize_t writev(int fd, const struct iovec *from, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return refused("write", fd) ? -1 : real(fd, from, n);
}

/* A sync is told when it has returned: only then is it one. */
static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!named(fd, path)) return real(fd);
    int result = fails("sync", path) ? -1 : real(fd), kept = errno;
    say(result ? "failed" : "sync", path, "sync");
    errno = kept;
    return result;
}
int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(fd, real);
}
int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(fd, real);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    int result = real(from, to), kept = errno;
    if (!result && is_ours(to)) say("rename", from, to);
    errno = kept;
    return result;
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    int result = real(path, mode), kept = errno;
    if (!result && is_ours(path)) say("mkdir", path, "");
    errno = kept;
    return result;
}
