/* A disk on which one call fails: preloaded into a daemon (LD_PRELOAD), it fails the Nth call of one class on files below a
 * directory, or kills the process there. Manual page, classes and callers: failing_disk.py.
 *
 * failing_disk_arm() starts the count; without it, all calls pass. FAILING_DISK in the environment arms at the start of the
 * program. Every counted call is one line in the report if `traces` is set, else only the call that fails:
 *
 *     SECONDS FAULT|- CLASS NUMBER CALL FILE        SECONDS since the epoch; FILE relative to the directory
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum class { MAKE, OPEN, READ, WRITE, SYNC, REMOVE, STAT, LOCK, MAP, LOG, CLASSES };
static const char *const class_names[] = {"make", "open", "read", "write", "sync", "remove", "stat", "lock", "map", "log"};

#define DESCRIPTORS 4096
static char *files[DESCRIPTORS]; /* the relative path of each open descriptor below the directory */
static char directory[4096];
static size_t directory_length;
static int armed, traces, report = -1, target = -1, fault;
static char fault_name[16];
static long nth;
static atomic_long counts[CLASSES];

#define REAL(type, name, ...)                                                                                          \
    static type (*real_##name)(__VA_ARGS__);                                                                           \
    if (!real_##name) real_##name = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void say(const char *what, enum class class, long number, const char *call, const char *file)
{
    char line[512];
    struct timespec now;
    REAL(ssize_t, write, int, const void *, size_t);
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%ld.%06ld %s %s %ld %s %s\n", (long)now.tv_sec, now.tv_nsec / 1000, what,
                          class_names[class], number, call, file);
    if (length > 0 && real_write(report, line, (size_t)length) < 0) _exit(97);
}

/* Counts one call; returns whether it must fail, with errno set. */
static int fails(enum class class, const char *call, const char *file)
{
    int before = errno;
    const char *name = strrchr(file, '/');
    if (strncmp(name ? name + 1 : file, "mailrelay.log", 13) == 0) class = LOG;
    long number = atomic_fetch_add(&counts[class], 1) + 1;
    int is_it = (int)class == target && number == nth;
    if (is_it || traces) say(is_it ? fault_name : "-", class, number, call, file);
    errno = before;
    if (!is_it) return 0;
    if (fault == 0) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = fault;
    return 1;
}

/* The part of the path below the directory, NULL if it is elsewhere. Relative paths: only to a known descriptor. */
static const char *below(int at, const char *path, char *space)
{
    if (!armed || path == NULL) return NULL;
    if (path[0] != '/') {
        if (at < 0 || at >= DESCRIPTORS || files[at] == NULL) return NULL;
        snprintf(space, 4096, "%s/%s", files[at], path);
        return space;
    }
    if (strncmp(path, directory, directory_length) != 0) return NULL;
    if (path[directory_length] == '\0') return ".";
    return path[directory_length] == '/' ? path + directory_length + 1 : NULL;
}

static const char *open_file(int handle)
{
    return armed && handle >= 0 && handle < DESCRIPTORS ? files[handle] : NULL;
}

/* What is there, by the one call that Python and SQLite do not make: a trace shows which calls are ours. */
static int is_there(int at, const char *path, struct statx *found)
{
    return statx(at, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_TYPE, found) == 0;
}

/* What goes through a FIFO or a socket does not reach the disk. */
static const char *disk_file(int handle)
{
    const char *file = open_file(handle);
    struct statx found;
    return file && is_there(handle, "", &found) && !S_ISFIFO(found.stx_mode) && !S_ISSOCK(found.stx_mode) ? file : NULL;
}

static void remember(int handle, const char *file)
{
    if (handle < 0 || handle >= DESCRIPTORS) return;
    free(files[handle]);
    files[handle] = file ? strdup(file) : NULL;
}

/* arguments: directory, report, traces (0 or 1), and, "" to count only: class, number, fault (EIO, ENOSPC or KILL). */
void failing_disk_arm(const char *in, const char *to, int all, const char *class, long number, const char *how)
{
    REAL(int, open64, const char *, int, ...);
    directory_length = strlen(in);
    if (directory_length >= sizeof directory) _exit(98);
    strcpy(directory, in);
    int handle = real_open64(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    report = fcntl(handle, F_DUPFD_CLOEXEC, 900);
    close(handle);
    traces = all;
    for (int each = 0; each < CLASSES; each++)
        if (strcmp(class_names[each], class) == 0) target = each;
    nth = number;
    snprintf(fault_name, sizeof fault_name, "%s", how);
    fault = strcmp(how, "EIO") == 0 ? EIO : strcmp(how, "ENOSPC") == 0 ? ENOSPC : 0;
    armed = 1;
}

__attribute__((constructor)) static void arm_from_environment(void)
{
    char in[4096], to[4096];
    const char *words = getenv("FAILING_DISK");
    if (words && sscanf(words, "%4095[^:]:%4095s", in, to) == 2) failing_disk_arm(in, to, 1, "", 0, "");
}

static int opened(const char *call, int at, const char *path, int flags, mode_t mode,
                  int (*real)(int, const char *, int, ...))
{
    char space[4096];
    const char *file = below(at, path, space);
    if (file) {
        struct statx found;
        int makes = (flags & O_CREAT) && !is_there(at, path, &found);
        if (fails(makes ? MAKE : OPEN, call, file)) return -1;
    }
    int handle = real(at, path, flags, mode);
    if (handle >= 0 && (file || open_file(handle))) remember(handle, file);
    return handle;
}

#define MODE_OF(flags)                                                                                                 \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }
#define OPENS(name, atname)                                                                                            \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        MODE_OF(flags) REAL(int, atname, int, const char *, int, ...);                                                 \
        return opened("open", AT_FDCWD, path, flags, mode, real_##atname);                                             \
    }                                                                                                                  \
    int atname(int at, const char *path, int flags, ...)                                                               \
    {                                                                                                                  \
        MODE_OF(flags) REAL(int, atname, int, const char *, int, ...);                                                 \
        return opened("open", at, path, flags, mode, real_##atname);                                                   \
    }
OPENS(open, openat)
OPENS(open64, openat64)

DIR *opendir(const char *path)
{
    char space[4096];
    const char *file = below(AT_FDCWD, path, space);
    REAL(DIR *, opendir, const char *);
    return file && fails(OPEN, "open", file) ? NULL : real_opendir(path);
}

int close(int handle)
{
    REAL(int, close, int);
    if (handle == report) return 0;
    if (open_file(handle)) remember(handle, NULL);
    return real_close(handle);
}

/* Calls on a descriptor. */
#define ON_HANDLE(type, name, class, call, failed, parameters, arguments)                                              \
    type name parameters                                                                                               \
    {                                                                                                                  \
        const char *file = disk_file(handle);                                                                          \
        static type(*real) parameters;                                                                                 \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                 \
        return file && fails(class, call, file) ? (failed) : real arguments;                                           \
    }
#define TRANSFER(name, class, call, kind, offset)                                                                      \
    ON_HANDLE(ssize_t, name, class, call, -1, (int handle, kind octets, size_t size, offset at), (handle, octets, size, at))
TRANSFER(pread, READ, "pread64", void *, off_t)
TRANSFER(pread64, READ, "pread64", void *, off64_t)
TRANSFER(pwrite, WRITE, "pwrite64", const void *, off_t)
TRANSFER(pwrite64, WRITE, "pwrite64", const void *, off64_t)
ON_HANDLE(ssize_t, read, READ, "read", -1, (int handle, void *octets, size_t size), (handle, octets, size))
ON_HANDLE(ssize_t, write, WRITE, "write", -1, (int handle, const void *octets, size_t size), (handle, octets, size))
ON_HANDLE(int, fsync, SYNC, "fsync", -1, (int handle), (handle))
ON_HANDLE(int, fdatasync, SYNC, "fdatasync", -1, (int handle), (handle))
ON_HANDLE(int, ftruncate, REMOVE, "ftruncate", -1, (int handle, off_t size), (handle, size))
ON_HANDLE(int, ftruncate64, REMOVE, "ftruncate", -1, (int handle, off64_t size), (handle, size))
ON_HANDLE(int, fallocate, WRITE, "fallocate", -1, (int handle, int mode, off_t at, off_t size), (handle, mode, at, size))
ON_HANDLE(int, fallocate64, WRITE, "fallocate", -1, (int handle, int mode, off64_t at, off64_t size), (handle, mode, at, size))
ON_HANDLE(int, posix_fallocate, WRITE, "fallocate", errno, (int handle, off_t at, off_t size), (handle, at, size))
ON_HANDLE(int, posix_fallocate64, WRITE, "fallocate", errno, (int handle, off64_t at, off64_t size), (handle, at, size))
ON_HANDLE(int, fstat, STAT, "fstat", -1, (int handle, struct stat *to), (handle, to))
ON_HANDLE(int, fstat64, STAT, "fstat", -1, (int handle, struct stat64 *to), (handle, to))
ON_HANDLE(int, fstatvfs, STAT, "fstatfs", -1, (int handle, struct statvfs *to), (handle, to))
ON_HANDLE(int, fstatvfs64, STAT, "fstatfs", -1, (int handle, struct statvfs64 *to), (handle, to))
ON_HANDLE(int, fchown, MAKE, "fchown", -1, (int handle, uid_t user, gid_t group), (handle, user, group))
ON_HANDLE(int, fchmod, MAKE, "fchmod", -1, (int handle, mode_t mode), (handle, mode))
ON_HANDLE(int, flock, LOCK, "flock", -1, (int handle, int what), (handle, what))

#define MAPS(name, offset)                                                                                             \
    void *name(void *where, size_t size, int protection, int flags, int handle, offset at)                             \
    {                                                                                                                  \
        const char *file = open_file(handle);                                                                          \
        REAL(void *, name, void *, size_t, int, int, int, offset);                                                     \
        return file && fails(MAP, "mmap", file) ? MAP_FAILED : real_##name(where, size, protection, flags, handle, at); \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

#define FCNTL(name)                                                                                                    \
    int name(int handle, int what, ...)                                                                                \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, what);                                                                                          \
        void *argument = va_arg(rest, void *);                                                                         \
        va_end(rest);                                                                                                  \
        REAL(int, name, int, int, ...);                                                                                \
        int locks = what == F_GETLK || ((what == F_SETLK || what == F_SETLKW) &&                                       \
                                        ((struct flock *)argument)->l_type != F_UNLCK);                                \
        const char *file = locks ? open_file(handle) : NULL;                                                           \
        return file && fails(LOCK, "fcntl", file) ? -1 : real_##name(handle, what, argument);                          \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* Calls on a path. */
#define ON_PATH(name, class, call, at, parameters, arguments)                                                          \
    int name parameters                                                                                                \
    {                                                                                                                  \
        char space[4096];                                                                                              \
        const char *file = below(at, path, space);                                                                     \
        static int(*real) parameters;                                                                                  \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                                                  \
        return file && fails(class, call, file) ? -1 : real arguments;                                                 \
    }
ON_PATH(unlink, REMOVE, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, REMOVE, "unlink", dir, (int dir, const char *path, int flags), (dir, path, flags))
ON_PATH(rmdir, REMOVE, "rmdir", AT_FDCWD, (const char *path), (path))
ON_PATH(truncate, REMOVE, "truncate", AT_FDCWD, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, REMOVE, "truncate", AT_FDCWD, (const char *path, off64_t size), (path, size))
ON_PATH(rename, MAKE, "rename", AT_FDCWD, (const char *path, const char *to), (path, to))
ON_PATH(renameat, MAKE, "rename", dir, (int dir, const char *path, int dir2, const char *to), (dir, path, dir2, to))
ON_PATH(link, MAKE, "link", AT_FDCWD, (const char *path, const char *to), (path, to))
ON_PATH(mkdir, MAKE, "mkdir", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, MAKE, "mkdir", dir, (int dir, const char *path, mode_t mode), (dir, path, mode))
ON_PATH(mkfifo, MAKE, "mknod", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkfifoat, MAKE, "mknod", dir, (int dir, const char *path, mode_t mode), (dir, path, mode))
ON_PATH(chmod, MAKE, "chmod", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(stat, STAT, "stat", AT_FDCWD, (const char *path, struct stat *to), (path, to))
ON_PATH(stat64, STAT, "stat", AT_FDCWD, (const char *path, struct stat64 *to), (path, to))
ON_PATH(lstat, STAT, "lstat", AT_FDCWD, (const char *path, struct stat *to), (path, to))
ON_PATH(lstat64, STAT, "lstat", AT_FDCWD, (const char *path, struct stat64 *to), (path, to))
ON_PATH(fstatat, STAT, "stat", dir, (int dir, const char *path, struct stat *to, int flags), (dir, path, to, flags))
ON_PATH(fstatat64, STAT, "stat", dir, (int dir, const char *path, struct stat64 *to, int flags), (dir, path, to, flags))
ON_PATH(statvfs, STAT, "statfs", AT_FDCWD, (const char *path, struct statvfs *to), (path, to))
ON_PATH(statvfs64, STAT, "statfs", AT_FDCWD, (const char *path, struct statvfs64 *to), (path, to))
ON_PATH(access, STAT, "access", AT_FDCWD, (const char *path, int mode), (path, mode))
ON_PATH(faccessat, STAT, "access", dir, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags))

/* Programs built with a glibc before 2.33 (the wheel of apsw is one) call these. */
int __xstat64(int version, const char *path, struct stat64 *to) { return (void)version, stat64(path, to); }
int __lxstat64(int version, const char *path, struct stat64 *to) { return (void)version, lstat64(path, to); }
int __fxstat64(int version, int handle, struct stat64 *to) { return (void)version, fstat64(handle, to); }

ssize_t readlink(const char *path, char *to, size_t size)
{
    char space[4096];
    const char *file = below(AT_FDCWD, path, space);
    REAL(ssize_t, readlink, const char *, char *, size_t);
    return file && fails(STAT, "readlink", file) ? -1 : real_readlink(path, to, size);
}
