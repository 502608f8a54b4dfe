/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "server/internal.h"
#include "tunnel/error.h"

/*
 * The file that keeps names and ports for their owners over a restart: a line for each claim, with
 * its key, its account and when it ends (seconds of the wall clock; 0: it was in use).
 */

enum {
    LINE_MAX = TNL_HOST_MAX + TNL_PATH_ID_MAX + TNL_ACCOUNT_SIZE + 64,
    FILE_MAX = 64 * 1024 * 1024,
    WRITE_MS = 1000,  /* at most so often */
    AWAIT_MS = 60000, /* clients have come back by then */
};

static const char first_line[] =
    "# tunnel-server: names and ports, whose they are, until when they are kept (0: in use)\n";

static int error_of(int error)
{
    return error == ENOENT                     ? TUNNEL_E_NOT_FOUND
           : error == EACCES || error == EPERM ? TUNNEL_E_ACCESS
           : error == EWOULDBLOCK              ? TUNNEL_E_ADDR_IN_USE
                                               : TUNNEL_E_IO;
}

/* --- one server at a time --------------------------------------------------------------------- */

/* Two servers with one file would each write what the other one does not know. The file itself is
 * locked, and the one that takes its place before it does; a file system without locks does not
 * keep the server from working. 0 or an errno. */
static int lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK ? EWOULDBLOCK : 0;
}

static void hold_file(tnl_claims *c, int fd)
{
    if (c->file >= 0)
        close(c->file);
    c->file = fd;
}

static const char *why_of(int error)
{
    return error == EWOULDBLOCK ? "another server is using it: give each one of its own"
                                : strerror(error);
}

/* Opens it, if it is a file, and nobody else's. 0 or an errno; ENOENT: there is none yet. */
static int open_file(tnl_server *s, char *detail, size_t size)
{
    struct stat st = {.st_mode = 0};
    const char *path = s->config.state_file;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return ENOENT;
    int error = fd < 0 || fstat(fd, &st) ? errno : 0;
    if (!error && !S_ISREG(st.st_mode)) {
        snprintf(detail, size, "the state file '%s' is not a regular file: give another path",
                 path);
        close(fd);
        return EINVAL;
    }
    error = error ? error : lock(fd);
    if (error) {
        snprintf(detail, size, "cannot read the state file '%s': %s", path, why_of(error));
        if (fd >= 0)
            close(fd);
        return error;
    }
    hold_file(&s->claims, fd);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* When a line's claim ends, in loop time. */
static uint64_t until_of(const tnl_server *s, uint64_t seconds)
{
    uint64_t now = tnl_loop_now(s->loop), wall = (uint64_t)time(NULL);
    uint64_t left = seconds == 0 ? s->config.hold_ms : seconds > wall ? (seconds - wall) * 1000 : 0;
    /* A clock that was wrong keeps nothing for longer. */
    return now + (left < s->config.hold_ms ? left : s->config.hold_ms);
}

static bool take_line(tnl_server *s, char *line, int *rc)
{
    char *end = line + strcspn(line, "\n"), *rest = NULL;
    bool whole = *end == '\n';
    *end = '\0';
    if (line[0] == '#' || line[0] == '\0')
        return whole || line[0] == '\0';
    char *account = strchr(line, ' ');
    char *number = account ? strchr(account + 1, ' ') : NULL;
    if (!whole || !number || account == line || number == account + 1 ||
        number - account > TNL_ACCOUNT_SIZE || number[1] < '0' || number[1] > '9')
        return false;
    *account++ = *number++ = '\0';
    errno = 0;
    unsigned long long seconds = strtoull(number, &rest, 10);
    if (errno || *rest)
        return false;
    uint64_t until = until_of(s, seconds);
    uint64_t now = tnl_loop_now(s->loop);
    *rc = until > now
              ? tnl_claims_restore(&s->claims, line, account, until, seconds ? 0 : now + AWAIT_MS)
              : 0;
    return *rc != TUNNEL_E_INVALID;
}

static int read_file(tnl_server *s, char *detail, size_t size)
{
    char line[LINE_MAX];
    const char *path = s->config.state_file;
    int rc = 0, error = open_file(s, detail, size);
    if (error)
        return error == ENOENT ? 0 : error == EINVAL ? TUNNEL_E_INVALID : error_of(error);
    int fd = fcntl(s->claims.file, F_DUPFD_CLOEXEC, 0);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
    if (!f) {
        snprintf(detail, size, "cannot read the state file '%s': %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return TUNNEL_E_IO;
    }
    for (unsigned number = 1; rc == 0 && fgets(line, sizeof(line), f); number++)
        if (!take_line(s, line, &rc)) {
            snprintf(detail, size,
                     "the state file '%s' is damaged in line %u: mend that, or remove the file",
                     path, number);
            rc = TUNNEL_E_INVALID;
        }
    if (rc == 0 && ferror(f)) {
        snprintf(detail, size, "cannot read the state file '%s': %s", path, strerror(errno));
        rc = TUNNEL_E_IO;
    }
    fclose(f);
    return rc;
}

/* --- writing ---------------------------------------------------------------------------------- */

static int put_claims(const tnl_server *s, tnl_buf *out)
{
    uint64_t now = tnl_loop_now(s->loop), wall = (uint64_t)time(NULL);
    int rc = tnl_buf_add(out, first_line, sizeof(first_line) - 1);
    for (const tnl_claim *c = tnl_claims_next(&s->claims, NULL); c && rc == 0;
         c = tnl_claims_next(&s->claims, c)) {
        uint64_t until = tnl_claim_until(c, now);
        uint64_t seconds = until == 0 ? 0 : wall + (until > now ? (until - now) / 1000 + 1 : 0);
        rc = tnl_buf_addf(out, "%s %s %llu\n", tnl_claim_key(c), tnl_claim_account(c),
                          (unsigned long long)seconds);
    }
    return rc;
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

/* Beside it first, so that there is a whole one at any time. 0 or an errno. */
static int replace_file(tnl_server *s, const uint8_t *p, size_t n)
{
    const char *path = s->config.state_file;
    char beside[sizeof(s->config.state_file) + 8];
    snprintf(beside, sizeof(beside), "%s.new", path);
    /* Never what somebody else has put there: a pipe would be waited for, for ever. */
    if (unlink(beside) && errno != ENOENT)
        return errno;
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    (void)lock(fd); /* new, so that nobody has it */
    if (!write_all(fd, p, n) || rename(beside, path)) {
        int error = errno ? errno : EIO;
        unlink(beside);
        close(fd);
        return error;
    }
    hold_file(&s->claims, fd);
    return 0;
}

static int write_file(tnl_server *s, char *detail, size_t size)
{
    tnl_buf out;
    tnl_buf_init(&out, FILE_MAX);
    errno = 0;
    int rc = put_claims(s, &out);
    int error = rc ? ENOMEM : replace_file(s, tnl_buf_bytes(&out), tnl_buf_len(&out));
    tnl_buf_free(&out);
    if (!error) {
        s->claims.changed = false;
        return 0;
    }
    snprintf(detail, size, "cannot write the state file '%s': %s", s->config.state_file,
             why_of(error));
    return rc ? rc : error_of(error);
}

/* --- life ------------------------------------------------------------------------------------- */

int tnl_claims_open(tnl_server *s, char *detail, size_t size)
{
    if (!s->config.state_file[0] || s->claims.opened)
        return 0;
    int rc = read_file(s, detail, size);
    if (rc == 0)
        rc = write_file(s, detail, size);
    /* It may be tried again. */
    while (rc && s->claims.kept_count)
        tnl_claims_expire(&s->claims, UINT64_MAX);
    if (rc)
        hold_file(&s->claims, -1);
    s->claims.opened = rc == 0;
    return rc;
}

/* Tells once that it does not work, and again when it has worked in between. */
static void save(tnl_server *s)
{
    char detail[700];
    int rc = write_file(s, detail, sizeof(detail));
    bool told = s->claims.file_failed;
    s->claims.file_failed = rc != 0;
    if (rc == 0 || told)
        return;
    tunnel_event e = {.type = TUNNEL_EVENT_WARNING, .error = rc, .text = detail};
    tnl_server_tell(s, &e);
}

void tnl_claims_look(tnl_server *s, uint64_t now)
{
    tnl_claims *c = &s->claims;
    tnl_claims_expire(c, now);
    if (c->awaited_until && c->awaited_until <= now) {
        c->awaited_until = 0;
        c->changed = true; /* who has not come back is away now */
    }
    if (!s->config.state_file[0] || !c->changed || c->frozen || now - c->written_at < WRITE_MS)
        return;
    c->written_at = now;
    save(s);
}

void tnl_claims_close(tnl_server *s)
{
    if (s->config.state_file[0] && s->claims.changed && !s->claims.frozen)
        save(s);
    s->claims.frozen = true;
    hold_file(&s->claims, -1); /* its successor may have it */
}
