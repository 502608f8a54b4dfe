/* SPDX-License-Identifier: Apache-2.0 */
#include "support/files_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/check.h"

/* --- the folder ------------------------------------------------------------------------------- */

void files_rig_open(files_rig *r)
{
    char detail[256] = "";
    memset(r, 0, sizeof(*r));
    snprintf(r->top, sizeof(r->top), "/tmp/files-test-XXXXXX");
    assert_non_null(mkdtemp(r->top));
    assert_int_equal(chmod(r->top, 0755), 0);
    snprintf(r->dir, sizeof(r->dir), "%s/served", r->top);
    assert_int_equal(mkdir(r->dir, 0755), 0);
    test_loop_open(&r->l);
    if (tnl_files_new(&r->files, r->l.loop, r->dir, detail, sizeof(detail)))
        fail_msg("%s", detail);
}

static void on_gone(void *user)
{
    *(bool *)user = true;
}

static int on_remove(const char *path, const struct stat *st, int what, struct FTW *where)
{
    (void)st;
    (void)what;
    (void)where;
    return remove(path);
}

void files_rig_close(files_rig *r)
{
    if (r->files) {
        tnl_files_free(r->files, on_gone, &r->gone);
        UNTIL(&r->l, r->gone);
    }
    test_loop_close(&r->l);
    nftw(r->top, on_remove, 16, FTW_DEPTH | FTW_PHYS);
}

const char *files_rig_path(const files_rig *r, const char *name)
{
    static char paths[4][4400];
    static unsigned at;
    char *path = paths[at++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", r->dir, name);
    return path;
}

static void make_way(const files_rig *r, const char *name)
{
    char part[4200];
    snprintf(part, sizeof(part), "%s", name);
    for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (*part && strcmp(part, "..") != 0)
            (void)mkdir(files_rig_path(r, part), 0755);
        *slash = '/';
    }
}

void files_rig_put_bytes(const files_rig *r, const char *name, const void *p, size_t n)
{
    make_way(r, name);
    int fd = open(files_rig_path(r, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

void files_rig_put(const files_rig *r, const char *name, const char *text)
{
    files_rig_put_bytes(r, name, text, strlen(text));
}

void files_rig_mkdir(const files_rig *r, const char *name)
{
    make_way(r, name);
    assert_int_equal(mkdir(files_rig_path(r, name), 0755), 0);
}

void files_rig_link(const files_rig *r, const char *target, const char *name)
{
    make_way(r, name);
    assert_int_equal(symlink(target, files_rig_path(r, name)), 0);
}

void files_rig_touch(const files_rig *r, const char *name, int64_t seconds)
{
    struct timespec times[2] = {{.tv_sec = (time_t)seconds}, {.tv_sec = (time_t)seconds}};
    assert_int_equal(utimensat(AT_FDCWD, files_rig_path(r, name), times, 0), 0);
}

/* --- guests ----------------------------------------------------------------------------------- */

void files_guest_open(files_guest *g, files_rig *r)
{
    int fd[2];
    tnl_conn *c;
    memset(g, 0, sizeof(*g));
    g->rig = r;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    g->fd = fd[0];
    assert_int_equal(tnl_conn_from_fd(&c, r->l.loop, fd[1], &tnl_conn_no_events, NULL), 0);
    assert_int_equal(tnl_files_serve(r->files, c), 0);
}

void files_guest_close(files_guest *g)
{
    if (g->fd >= 0)
        close(g->fd);
    g->fd = -1;
    free(g->bytes);
    g->bytes = NULL;
}

void files_guest_say(files_guest *g, const char *text)
{
    size_t n = strlen(text), sent = 0;
    while (sent < n) {
        ssize_t rc = send(g->fd, text + sent, n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (rc > 0)
            sent += (size_t)rc;
        else if (errno == EPIPE || errno == ECONNRESET)
            return;
        else
            assert_true(test_turn(&g->rig->l));
    }
}

size_t files_guest_read(files_guest *g, size_t most)
{
    if (g->room < g->n + most) {
        g->room = 2 * (g->n + most);
        g->bytes = realloc(g->bytes, g->room);
        assert_non_null(g->bytes);
    }
    ssize_t got = g->ended ? 0 : recv(g->fd, g->bytes + g->n, most, MSG_DONTWAIT);
    if (got > 0) {
        g->n += (size_t)got;
        return (size_t)got;
    }
    if (got == 0)
        g->ended = true;
    else if (errno != EAGAIN)
        g->ended = g->reset = true;
    return 0;
}

static const char *find(const void *p, size_t n, const char *text)
{
    return n ? memmem(p, n, text, strlen(text)) : NULL;
}

static size_t find_value(const files_reply *r, const char *name, const char **value)
{
    size_t n = strlen(name), length = 0;
    unsigned count = 0;
    const char *end = r->head + r->head_n;
    for (const char *line = find(r->head, r->head_n, "\r\n"); line;) {
        line += 2;
        const char *next = find(line, (size_t)(end - line), "\r\n");
        if (next && (size_t)(next - line) > n + 1 && strncasecmp(line, name, n) == 0 &&
            line[n] == ':') {
            *value = line + n + 2;
            length = (size_t)(next - *value);
            count++;
        }
        line = next;
    }
    assert_true(count <= 1);
    return length;
}

/* Whether a whole answer is there: its length; 0: not yet. */
static size_t whole(files_guest *g, bool head_request)
{
    const char *end = find(g->bytes, g->n, "\r\n\r\n"), *value = NULL;
    if (!end)
        return 0;
    files_reply *r = &g->reply;
    r->head = (const char *)g->bytes;
    r->head_n = (size_t)(end - r->head) + 4;
    r->body = g->bytes + r->head_n;
    assert_int_equal(strncmp(r->head, "HTTP/1.1 ", 9), 0);
    r->status = (int)strtol(r->head + 9, NULL, 10);
    size_t n = find_value(r, "Content-Length", &value);
    assert_int_equal(n == 0, r->status == 304);
    r->n = head_request || !n ? 0 : strtoul(value, NULL, 10);
    return g->n >= r->head_n + r->n ? r->head_n + r->n : 0;
}

void files_guest_hear(files_guest *g, bool head_request)
{
    if (g->reply.head) {
        size_t taken = g->reply.head_n + g->reply.n;
        memmove(g->bytes, g->bytes + taken, g->n - taken);
        g->n -= taken;
        g->reply = (files_reply){0};
    }
    while (!whole(g, head_request)) {
        if (g->ended)
            fail_msg("ended after %zu bytes: %.*s", g->n, (int)g->n, (const char *)g->bytes);
        if (!files_guest_read(g, 256 * 1024) && !test_turn(&g->rig->l))
            fail_msg("no answer, but %zu bytes: %.*s", g->n, (int)g->n, (const char *)g->bytes);
    }
}

void files_guest_end(files_guest *g)
{
    while (!g->ended)
        if (!files_guest_read(g, 256 * 1024) && !test_turn(&g->rig->l))
            fail_msg("the connection does not end");
}

const char *files_field(files_guest *g, const char *name)
{
    const char *value = "";
    size_t n = find_value(&g->reply, name, &value);
    assert_true(n < sizeof(g->value));
    memcpy(g->value, value, n);
    g->value[n] = '\0';
    return g->value;
}

bool files_body_is(const files_guest *g, const char *text)
{
    return g->reply.n == strlen(text) && memcmp(g->reply.body, text, g->reply.n) == 0;
}

bool files_body_has(const files_guest *g, const char *text)
{
    return find(g->reply.body, g->reply.n, text) != NULL;
}

int files_ask(files_guest *g, const char *method, const char *target, const char *lines)
{
    char *request;
    assert_true(asprintf(&request, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, target, lines) >
                0);
    files_guest_say(g, request);
    free(request);
    files_guest_hear(g, strcmp(method, "HEAD") == 0);
    return g->reply.status;
}

int files_status(files_rig *r, const char *target)
{
    files_guest g;
    files_guest_open(&g, r);
    int status = files_ask(&g, "GET", target, "");
    files_guest_close(&g);
    return status;
}
