/* SPDX-License-Identifier: Apache-2.0 */
#include "support/ends.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "tunnel/error.h"

static uint32_t random_number(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* --- the user of a transport ------------------------------------------------------------------ */

static void reach(test_end *e, test_when now)
{
    if (e->close_when != now)
        return;
    e->close_when = TEST_WHEN_NEVER;
    test_end_close(e);
}

static void on_opened(void *user)
{
    test_end *e = user;
    assert_int_equal(e->opens++, 0);
    assert_int_equal(e->closes, 0);
    reach(e, TEST_WHEN_OPENED);
}

static void on_data(void *user, const uint8_t *p, size_t n)
{
    test_end *e = user;
    assert_int_equal(e->opens, 1);
    assert_int_equal(e->closes, 0);
    assert_true(n > 0);
    e->received += n;
    e->hash = test_hash(e->hash, p, n);
    if (e->echo) {
        assert_true(e->back_n + n <= TNL_TRANSPORT_BATCH);
        memcpy(e->back + e->back_n, p, n);
        e->back_n += n;
        test_end_wake(e);
    }
    reach(e, TEST_WHEN_DATA);
}

static size_t on_pull(void *user, uint8_t *out, size_t cap)
{
    test_end *e = user;
    assert_int_equal(e->opens, 1);
    assert_int_equal(e->closes, 0);
    assert_int_equal(cap, TNL_TRANSPORT_BATCH);
    reach(e, TEST_WHEN_PULL);
    if (e->echo) {
        size_t n = e->back_n;
        memcpy(out, e->back, n);
        e->back_n = 0;
        return n;
    }
    size_t n = e->total - e->sent < cap ? (size_t)(e->total - e->sent) : cap;
    if (e->most && n > e->most)
        n = e->most;
    if (e->ragged && n > 1) {
        size_t most = (size_t)1 << (random_number(&e->seed) % 17);
        if (n > most)
            n = most;
        n = 1 + random_number(&e->seed) % n;
    }
    test_fill(out, n, e->sent);
    e->sent += n;
    return n;
}

static void on_closed(void *user, int error, int status, const char *detail)
{
    test_end *e = user;
    assert_false(e->in_call);
    assert_int_equal(e->closes++, 0);
    assert_non_null(detail);
    assert_null(strpbrk(detail, "\r\n"));
    e->t = NULL;
    e->error = error;
    e->status = status;
    snprintf(e->detail, sizeof(e->detail), "%s", detail);
    free(e->back);
    e->back = NULL;
}

const tnl_transport_events test_end_events = {
    .opened = on_opened, .data = on_data, .pull = on_pull, .closed = on_closed};

void test_end_init(test_end *e)
{
    memset(e, 0, sizeof(*e));
    e->seed = 4711;
    e->back = malloc(TNL_TRANSPORT_BATCH);
}

void test_end_wake(test_end *e)
{
    bool outer = e->in_call;
    e->in_call = true;
    if (e->t)
        tnl_transport_wake(e->t);
    e->in_call = outer;
}

void test_end_close(test_end *e)
{
    bool outer = e->in_call;
    e->in_call = true;
    if (e->t)
        tnl_transport_close(e->t);
    e->in_call = outer;
}

void test_end_send(test_end *e, uint64_t n)
{
    e->total += n;
    test_end_wake(e);
}

uint64_t test_sequence_hash(uint64_t n)
{
    static uint8_t chunk[64 * 1024];
    uint64_t hash = 0;
    for (uint64_t at = 0; at < n;) {
        size_t m = n - at < sizeof(chunk) ? (size_t)(n - at) : sizeof(chunk);
        test_fill(chunk, m, at);
        hash = test_hash(hash, chunk, m);
        at += m;
    }
    return hash;
}

/* --- connections ------------------------------------------------------------------------------ */

void test_tcp_sockets(int fd[2])
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(sa);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(l >= 0);
    assert_int_equal(bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &n), 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd[0], (struct sockaddr *)&sa, sizeof(sa)), 0);
    fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd[1] >= 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    close(l);
}

tnl_conn *test_conn(test_loop *l, int fd)
{
    static const tnl_conn_events none = {0};
    tnl_conn *c;
    assert_int_equal(tnl_conn_from_fd(&c, l->loop, fd, &none, NULL), 0);
    return c;
}

typedef struct wrap {
    tnl_conn base;
    tnl_conn *lower;
    uint32_t seed;
} wrap;

static size_t wrap_space(void *user, uint8_t **p)
{
    wrap *w = user;
    size_t n = w->base.events->space(w->base.user, p);
    size_t most = (size_t)1 << (random_number(&w->seed) % 17);
    return n < most ? n : most;
}

static void wrap_data(void *user, uint8_t *p, size_t n)
{
    wrap *w = user;
    w->base.events->data(w->base.user, p, n);
}

static void wrap_eof(void *user)
{
    wrap *w = user;
    w->base.ended = true;
    if (w->base.events->eof)
        w->base.events->eof(w->base.user);
}

static void wrap_drained(void *user)
{
    wrap *w = user;
    if (w->base.events->drained)
        w->base.events->drained(w->base.user);
}

static void wrap_closed(void *user, int error, const char *detail)
{
    wrap *w = user;
    if (w->base.events && w->base.events->closed)
        w->base.events->closed(w->base.user, error, detail);
    free(w);
}

static const tnl_conn_events wrap_events = {
    .space = wrap_space,
    .data = wrap_data,
    .eof = wrap_eof,
    .drained = wrap_drained,
    .closed = wrap_closed,
};

static tnl_conn *lower(const tnl_conn *c)
{
    return ((const wrap *)(const void *)c)->lower;
}

static int wrap_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    return tnl_conn_write(lower(c), v, n);
}

static size_t wrap_pending(const tnl_conn *c)
{
    return tnl_conn_pending(lower(c));
}

static void wrap_resume(tnl_conn *c)
{
    tnl_conn_resume(lower(c));
}

static void wrap_pause(tnl_conn *c)
{
    tnl_conn_pause(lower(c));
}

static void wrap_shutdown(tnl_conn *c)
{
    tnl_conn_shutdown(lower(c));
}

static void wrap_close(tnl_conn *c, bool reset)
{
    if (reset)
        tnl_conn_reset(lower(c));
    else
        tnl_conn_close(lower(c));
}

static int wrap_dup(tnl_conn *c)
{
    (void)c;
    return TUNNEL_E_UNSUPPORTED;
}

static const tnl_conn_ops wrap_ops = {
    .write = wrap_write,
    .pending = wrap_pending,
    .resume = wrap_resume,
    .pause = wrap_pause,
    .shutdown = wrap_shutdown,
    .close = wrap_close,
    .dup = wrap_dup,
};

tnl_conn *test_wrap(tnl_conn *c, uint32_t seed)
{
    wrap *w = calloc(1, sizeof(*w));
    w->base.ops = &wrap_ops;
    w->base.loop = c->loop;
    w->lower = c;
    w->seed = seed;
    tnl_conn_set_events(c, &wrap_events, w);
    return &w->base;
}

/* --- accepting -------------------------------------------------------------------------------- */

static size_t accept_space(void *user, uint8_t **p)
{
    test_acceptor *a = user;
    *p = a->head + a->n;
    return sizeof(a->head) - a->n;
}

static void accept_data(void *user, uint8_t *p, size_t n)
{
    test_acceptor *a = user;
    (void)p;
    a->n += n;
    const uint8_t *end = memmem(a->head, a->n, "\r\n\r\n", 4);
    if (!end)
        return;
    a->done = true;
    if (a->lane) {
        static const char answer[] =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: " TNL_LANE_PROTOCOL
            "\r\nConnection: Upgrade\r\n\r\n";
        tnl_iov v = {answer, sizeof(answer) - 1};
        size_t head = (size_t)(end + 4 - a->head);
        (void)tnl_conn_write(a->c, &v, 1);
        a->result = tnl_lane_accept(&a->end->t, a->c, a->head + head, a->n - head, &test_end_events,
                                    a->end);
        return;
    }
    a->result = tnl_ws_accept(&a->end->t, a->ws, a->c, a->head, a->n, &test_end_events, a->end);
}

static void accept_eof(void *user)
{
    test_acceptor *a = user;
    tnl_conn_close(a->c);
}

static void accept_closed(void *user, int error, const char *detail)
{
    test_acceptor *a = user;
    (void)detail;
    a->done = true;
    a->result = error ? error : TUNNEL_E_EOF;
}

void test_accept(test_acceptor *a, tnl_ws *ws, tnl_conn *c, test_end *end)
{
    static const tnl_conn_events events = {
        .space = accept_space, .data = accept_data, .eof = accept_eof, .closed = accept_closed};
    memset(a, 0, sizeof(*a));
    a->ws = ws;
    a->c = c;
    a->end = end;
    tnl_conn_set_events(c, &events, a);
    tnl_conn_resume(c);
}

void test_accept_lane(test_acceptor *a, tnl_ws *ws, tnl_conn *c, test_end *end)
{
    test_accept(a, ws, c, end);
    a->lane = true;
}

/* --- odds and ends ---------------------------------------------------------------------------- */

void test_count_log(void *user, const char *line)
{
    assert_null(strpbrk(line, "\r\n"));
    ++*(unsigned *)user;
}

unsigned test_open_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

size_t test_frame(uint8_t *out, uint8_t first, bool masked, const void *payload, size_t n)
{
    static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    size_t at = 0;
    out[at++] = first;
    uint8_t bit = masked ? 0x80 : 0;
    if (n < 126) {
        out[at++] = (uint8_t)(bit | n);
    } else if (n < 65536) {
        out[at++] = (uint8_t)(bit | 126);
        out[at++] = (uint8_t)(n >> 8);
        out[at++] = (uint8_t)n;
    } else {
        out[at++] = (uint8_t)(bit | 127);
        for (int i = 7; i >= 0; i--)
            out[at++] = (uint8_t)(n >> (8 * i));
    }
    if (masked) {
        memcpy(out + at, mask, 4);
        at += 4;
    }
    for (size_t i = 0; i < n; i++)
        out[at + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ (masked ? mask[i & 3] : 0));
    return at + n;
}
