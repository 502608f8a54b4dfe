/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/forward.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { CONNECT_TIMEOUT_MS = 10000, LEAST_WISH = 4 * 1024, MOST_WISH = 64 * 1024 };

struct tnl_forwarder {
    tnl_loop *loop;
    tnl_list pumps;
    size_t count;
    bool freed;
    tnl_task ending;
    void (*gone)(void *user);
    void *gone_user;
};

/* One stream and its connection. It lives until both are gone. */
typedef struct pump {
    tnl_list node;
    tnl_forwarder *owner;
    tnl_stream *stream; /* NULL once released */
    tnl_conn *conn;     /* NULL before it is connected and after it closed */
    tnl_dial *dial;
    size_t wish;          /* how many bytes to make room for: grows while reads fill it */
    bool fin_from_stream; /* the visitor's side ended */
    bool shut;            /* and the connection has been told */
    bool fin_from_conn;   /* the upstream's side ended */
} pump;

static void pump_free(pump *p)
{
    tnl_forwarder *f = p->owner;
    tnl_list_remove(&p->node);
    f->count--;
    tnl_free(p);
    if (f->freed && f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
}

static void release_stream(pump *p)
{
    tnl_stream *s = p->stream;
    p->stream = NULL;
    if (s)
        tnl_stream_release(s);
}

/* The visitor's side has ended: so does the connection, once the upstream's side has. */
static void end_conn(pump *p)
{
    if (p->fin_from_conn)
        tnl_conn_finish(p->conn);
    else if (!p->shut)
        tnl_conn_shutdown(p->conn);
    p->shut = true;
}

/* --- stream to connection --------------------------------------------------------------------- */

static size_t stream_data(void *user, const uint8_t *bytes, size_t n)
{
    pump *p = user;
    if (!p->conn || tnl_conn_pending(p->conn))
        return 0;
    tnl_iov v = {bytes, n};
    /* A failed write is followed by closed(), which resets the stream. */
    return tnl_conn_write(p->conn, &v, 1) ? 0 : n;
}

static void stream_fin(void *user)
{
    pump *p = user;
    p->fin_from_stream = true;
    if (p->conn)
        end_conn(p);
}

static void stream_reset(void *user, uint32_t code, const char *text, size_t n)
{
    pump *p = user;
    (void)code;
    (void)text;
    (void)n;
    release_stream(p);
    if (p->conn) {
        tnl_conn_reset(p->conn);
        return;
    }
    if (p->dial)
        tnl_dial_cancel(p->dial);
    pump_free(p);
}

static void stream_room(void *user)
{
    pump *p = user;
    if (p->conn)
        tnl_conn_resume(p->conn);
}

static const tnl_stream_events stream_events = {
    .data = stream_data, .fin = stream_fin, .reset = stream_reset, .room = stream_room};

/* --- connection to stream --------------------------------------------------------------------- */

static size_t conn_space(void *user, uint8_t **bytes)
{
    pump *p = user;
    return p->stream ? tnl_stream_space(p->stream, p->wish, bytes) : 0;
}

static void conn_data(void *user, uint8_t *bytes, size_t n)
{
    pump *p = user;
    (void)bytes;
    if (n >= p->wish && p->wish < MOST_WISH)
        p->wish *= 2;
    else if (n < p->wish / 4 && p->wish > LEAST_WISH)
        p->wish /= 2;
    if (p->stream)
        tnl_stream_commit(p->stream, n);
}

static void conn_eof(void *user)
{
    pump *p = user;
    p->fin_from_conn = true;
    if (!p->stream)
        return;
    tnl_stream_fin(p->stream);
    if (p->fin_from_stream)
        end_conn(p);
}

static void conn_drained(void *user)
{
    pump *p = user;
    if (p->stream)
        tnl_stream_resume(p->stream);
}

static void conn_closed(void *user, int error, const char *detail)
{
    pump *p = user;
    p->conn = NULL;
    /* All that the upstream said is on its way and must arrive, before the news of its end. */
    if (p->stream && error && !(p->fin_from_conn && p->fin_from_stream))
        tnl_stream_break(p->stream, error, detail);
    release_stream(p);
    pump_free(p);
}

static const tnl_conn_events conn_events = {.space = conn_space,
                                            .data = conn_data,
                                            .eof = conn_eof,
                                            .drained = conn_drained,
                                            .closed = conn_closed};

static void on_dialed(void *user, int error, const char *detail, tnl_conn *c)
{
    pump *p = user;
    p->dial = NULL;
    if (error) {
        tnl_stream_reset(p->stream, error, detail);
        release_stream(p);
        pump_free(p);
        return;
    }
    p->conn = c;
    tnl_conn_set_events(c, &conn_events, p);
    tnl_conn_resume(c);
    if (p->stream)
        tnl_stream_resume(p->stream);
    if (p->stream && p->fin_from_stream && !p->shut)
        end_conn(p);
}

/* --- owner ------------------------------------------------------------------------------------ */

static void on_ending(void *user)
{
    tnl_forwarder *f = user;
    void (*gone)(void *) = f->gone;
    void *gone_user = f->gone_user;
    tnl_free(f);
    if (gone)
        gone(gone_user);
}

int tnl_forwarder_new(tnl_forwarder **out, tnl_loop *loop)
{
    tnl_forwarder *f = tnl_calloc(1, sizeof(*f));
    if (!f)
        return TUNNEL_E_NOMEM;
    f->loop = loop;
    tnl_list_init(&f->pumps);
    tnl_task_init(&f->ending, on_ending, f);
    *out = f;
    return 0;
}

int tnl_forward_start(tnl_forwarder *f, tnl_stream *s, const tnl_upstream *u)
{
    pump *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return TUNNEL_E_NOMEM;
    tnl_dial_target target = {.host = u->host[0] ? u->host : NULL,
                              .port = u->port,
                              .unix_path = u->unix_path[0] ? u->unix_path : NULL,
                              .tls = u->tls,
                              .timeout_ms = CONNECT_TIMEOUT_MS};
    int rc = tnl_dial_start(&p->dial, f->loop, &target, on_dialed, p);
    if (rc) {
        tnl_free(p);
        return rc;
    }
    p->owner = f;
    p->stream = s;
    p->wish = LEAST_WISH;
    f->count++;
    tnl_list_add_tail(&f->pumps, &p->node);
    tnl_stream_set_events(s, &stream_events, p);
    return 0;
}

size_t tnl_forwarder_count(const tnl_forwarder *f)
{
    return f->count;
}

void tnl_forwarder_free(tnl_forwarder *f, void (*gone)(void *user), void *user)
{
    f->freed = true;
    f->gone = gone;
    f->gone_user = user;
    if (f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    for (tnl_list *n = f->pumps.next, *next; n != &f->pumps; n = next) {
        next = n->next;
        stream_reset(TNL_CONTAINER(n, pump, node), 0, NULL, 0);
    }
}
