/* SPDX-License-Identifier: Apache-2.0 */
#include "files/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { ATTEMPTS = 8, TEXT_PATH = 512 };

/* --- lookups ---------------------------------------------------------------------------------- */

static int open_beneath(int folder, const char *path, int flags)
{
    struct open_how how = {.flags = (unsigned)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;
    int attempts = 0;
    /* EAGAIN: something was renamed meanwhile, so that the kernel could not be sure. */
    do {
        fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
    } while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++attempts < ATTEMPTS);
    return (int)fd;
}

static int open_once(int folder, const char *name, int flags)
{
    int fd;
    do {
        fd = openat(folder, name, flags | O_NOFOLLOW);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Name by name, none of them a link; there is no ".." among them. */
static int open_walk(int folder, const char *path, int flags)
{
    char name[NAME_MAX + 1];
    int at = folder;
    for (;;) {
        size_t n = strcspn(path, "/");
        bool last = path[n] == '\0';
        int fd = -1;
        if (n > NAME_MAX) {
            errno = ENAMETOOLONG;
        } else {
            memcpy(name, path, n);
            name[n] = '\0';
            fd = open_once(at, name, last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        int error = errno;
        if (at != folder)
            close(at);
        errno = error;
        if (fd < 0 || last)
            return fd;
        at = fd;
        path += n + 1;
    }
}

int tnl_folder_at(const tnl_folder *f, const char *path, int flags)
{
    flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (flags & O_PATH)
        flags &= ~(O_NONBLOCK | O_NOCTTY);
    if (!*path)
        path = ".";
    return f->walk ? open_walk(f->fd, path, flags) : open_beneath(f->fd, path, flags);
}

/* --- the folder ------------------------------------------------------------------------------- */

/* A path as part of a line for people. */
static const char *shown(char out[TEXT_PATH], const char *path)
{
    snprintf(out, TEXT_PATH, "%s", path);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return out;
}

static int refuse(int error, const char *path, char *detail, size_t size)
{
    char text[TEXT_PATH];
    shown(text, path);
    switch (error) {
    case ENOENT:
        snprintf(detail, size, "there is no folder %s", text);
        return TUNNEL_E_NOT_FOUND;
    case ENOTDIR:
        snprintf(detail, size, "%s is not a folder; name the folder that the files are in", text);
        return TUNNEL_E_INVALID;
    case EACCES:
    case EPERM:
        snprintf(detail, size, "%s: permission denied; this user must be able to enter the folder",
                 text);
        return TUNNEL_E_ACCESS;
    case ELOOP:
    case ENAMETOOLONG:
        snprintf(detail, size, "%s: %s", text, strerror(error));
        return TUNNEL_E_INVALID;
    case ENOMEM:
        snprintf(detail, size, "out of memory");
        return TUNNEL_E_NOMEM;
    default:
        snprintf(detail, size, "%s: %s", text, strerror(error));
        return TUNNEL_E_IO;
    }
}

/* The path from the root on, so that it means the same when the current directory changes. NULL
 * with errno. */
static char *absolute(const char *path)
{
    char here[PATH_MAX];
    if (path[0] == '/')
        here[0] = '\0';
    else if (!getcwd(here, sizeof(here)))
        return NULL;
    size_t size = strlen(here) + 1 + strlen(path) + 1;
    char *whole = tnl_malloc(size);
    if (!whole)
        errno = ENOMEM;
    else
        snprintf(whole, size, "%s%s%s", here, here[0] ? "/" : "", path);
    return whole;
}

/* Opens the folder at f->path into fd, device and inode. 0 or an errno. */
static int take(tnl_folder *f)
{
    struct stat st;
    int fd = open(f->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = fstat(fd, &st) ? errno : 0;
    /* One that cannot be entered is no folder to serve. */
    int inside = error ? -1 : openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (inside < 0) {
        error = error ? error : errno;
        close(fd);
        return error;
    }
    close(inside);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = fd;
    f->device = st.st_dev;
    f->inode = st.st_ino;
    return 0;
}

int tnl_folder_open(tnl_folder *f, const char *path, char *detail, size_t size)
{
    int error = 0;
    *f = (tnl_folder){.fd = -1};
    if (!*path)
        return refuse(ENOENT, "\"\"", detail, size);
    f->path = absolute(path);
    error = f->path ? take(f) : errno;
    if (error) {
        tnl_free(f->path);
        f->path = NULL;
        return refuse(error, path, detail, size);
    }
    /* Old kernels say ENOSYS, some sandboxes EPERM. */
    int probe = open_beneath(f->fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    f->walk = probe < 0;
    if (probe >= 0)
        close(probe);
    return 0;
}

void tnl_folder_close(tnl_folder *f)
{
    if (f->fd >= 0)
        close(f->fd);
    tnl_free(f->path);
    *f = (tnl_folder){.fd = -1};
}

void tnl_folder_refresh(tnl_folder *f)
{
    struct stat st;
    if (stat(f->path, &st) == 0 && (st.st_dev != f->device || st.st_ino != f->inode))
        (void)take(f);
}
