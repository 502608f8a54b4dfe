/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/forward.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "tunnel/error.h"

enum {
    CONNECT_TIMEOUT_MS = 10000,
    LEAST_WISH = 4 * 1024,
    MOST_WISH = 64 * 1024,
    WHY = 200,
};

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
    const tnl_forward_events *events; /* NULL: none */
    void *user;
    uint8_t *head; /* NULL: none, or written */
    uint64_t started_us;
    uint64_t to_conn;
    uint64_t to_stream;
    size_t wish; /* how many bytes to make room for: grows while reads fill it */
    size_t head_n;
    char *why; /* of error; NULL: its usual text */
    int error; /* the first thing that went wrong */
    bool patient;
    bool fin_from_stream; /* the stream's side ended */
    bool shut;            /* and the connection has been told */
    bool fin_from_conn;   /* the connection's side ended */
} pump;

static void tell_over(const pump *p, const tnl_forward_end *end)
{
    if (p->events && p->events->over)
        p->events->over(p->user, end);
}

static void pump_free(pump *p)
{
    tnl_forwarder *f = p->owner;
    tnl_forward_end end = {.to_conn = p->to_conn,
                           .to_stream = p->to_stream,
                           .duration_us = tnl_loop_clock_us() - p->started_us,
                           .error = p->error,
                           .text = p->why     ? p->why
                                   : p->error ? tunnel_strerror(p->error)
                                              : ""};
    tnl_list_remove(&p->node);
    f->count--;
    if (f->freed && f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    tell_over(p, &end);
    tnl_free(p->head);
    tnl_free(p->why);
    tnl_free(p);
}

static void release_stream(pump *p)
{
    tnl_stream *s = p->stream;
    p->stream = NULL;
    if (s)
        tnl_stream_release(s);
}

/* Keeps the first error. */
static void note(pump *p, int error, const char *text, size_t n)
{
    char why[WHY];
    if (p->error || !error)
        return;
    p->error = error;
    if (n)
        p->why = tnl_strdup(tnl_log_escape(why, sizeof(why), text, n));
}

/* The stream's side has ended: so does the connection, once its own side has. */
static void end_conn(pump *p)
{
    if (p->fin_from_conn && !p->patient)
        tnl_conn_finish(p->conn);
    else if (!p->shut)
        tnl_conn_shutdown(p->conn);
    p->shut = true;
    if (p->fin_from_conn && p->patient && !tnl_conn_pending(p->conn))
        tnl_conn_close(p->conn);
}

/* --- stream to connection --------------------------------------------------------------------- */

static size_t stream_data(void *user, const uint8_t *bytes, size_t n)
{
    pump *p = user;
    if (!p->conn || tnl_conn_pending(p->conn))
        return 0;
    tnl_iov v = {bytes, n};
    /* A failed write is followed by closed(), which resets the stream. */
    if (tnl_conn_write(p->conn, &v, 1))
        return 0;
    p->to_conn += n;
    return n;
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
    note(p, code && code < 1000 ? -(int)code : TUNNEL_E_RESET, text, n);
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
    p->to_stream += n;
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
    if (p->shut && p->fin_from_conn)
        tnl_conn_close(p->conn);
    else if (p->stream)
        tnl_stream_resume(p->stream);
}

static void conn_closed(void *user, int error, const char *detail)
{
    pump *p = user;
    p->conn = NULL;
    note(p, error, detail, strlen(detail));
    /* All that the connection said is on its way and must arrive, before the news of its end. */
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

/* --- birth ------------------------------------------------------------------------------------ */

static void take_conn(pump *p, tnl_conn *c)
{
    p->conn = c;
    tnl_conn_set_events(c, &conn_events, p);
}

static void begin(pump *p)
{
    tnl_iov v = {p->head, p->head_n};
    if (p->head)
        (void)tnl_conn_write(p->conn, &v, 1); /* a failure shows in closed() */
    tnl_free(p->head);
    p->head = NULL;
    if (p->conn->ended)
        conn_eof(p);
    else
        tnl_conn_resume(p->conn);
    if (p->stream)
        tnl_stream_resume(p->stream);
    if (p->stream && p->conn && p->fin_from_stream && !p->shut)
        end_conn(p);
}

static int tell_connected(const pump *p, int error, const char *detail)
{
    return p->events && p->events->connected ? p->events->connected(p->user, error, detail, p->conn)
                                             : 0;
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *c)
{
    pump *p = user;
    p->dial = NULL;
    if (error) {
        note(p, error, detail, strlen(detail));
        tnl_stream_reset(p->stream, error, detail);
        release_stream(p);
        (void)tell_connected(p, error, detail);
        pump_free(p);
        return;
    }
    take_conn(p, c);
    int rc = tell_connected(p, 0, "");
    if (rc && p->stream) {
        note(p, rc, NULL, 0);
        tnl_stream_reset(p->stream, rc, tunnel_strerror(rc));
        release_stream(p);
    }
    if (p->stream)
        begin(p);
    else
        tnl_conn_reset(c);
}

/* Everything but stream and connection; not among the owner's yet. */
static int pump_new(pump **out, tnl_forwarder *f, const tnl_forward_options *o)
{
    static const tnl_forward_options none = {.head = NULL};
    if (!o)
        o = &none;
    if (o->head_n > TNL_FORWARD_HEAD)
        return TUNNEL_E_INVALID;
    pump *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return TUNNEL_E_NOMEM;
    if (o->head_n) {
        p->head = tnl_malloc(o->head_n);
        if (!p->head) {
            tnl_free(p);
            return TUNNEL_E_NOMEM;
        }
        memcpy(p->head, o->head, o->head_n);
        p->head_n = o->head_n;
    }
    p->owner = f;
    p->events = o->events;
    p->user = o->user;
    p->patient = o->patient;
    p->wish = LEAST_WISH;
    p->started_us = tnl_loop_clock_us();
    *out = p;
    return 0;
}

static void pump_discard(pump *p)
{
    tnl_free(p->head);
    tnl_free(p);
}

static void take_stream(pump *p, tnl_stream *s)
{
    p->stream = s;
    p->owner->count++;
    tnl_list_add_tail(&p->owner->pumps, &p->node);
    tnl_stream_set_events(s, &stream_events, p);
}

int tnl_forward_start(tnl_forwarder *f, tnl_stream *s, const tnl_upstream *u,
                      const tnl_forward_options *o)
{
    pump *p;
    int rc = pump_new(&p, f, o);
    if (rc)
        return rc;
    tnl_dial_target target = {.host = u->host[0] ? u->host : NULL,
                              .port = u->port,
                              .unix_path = u->unix_path[0] ? u->unix_path : NULL,
                              .tls = u->tls,
                              .timeout_ms = CONNECT_TIMEOUT_MS};
    rc = tnl_dial_start(&p->dial, f->loop, &target, on_dialed, p);
    if (rc)
        pump_discard(p);
    else
        take_stream(p, s);
    return rc;
}

int tnl_forward_join(tnl_forwarder *f, tnl_stream *s, tnl_conn *c, const uint8_t *early, size_t n,
                     const tnl_forward_options *o)
{
    pump *p;
    if (n > TNL_FORWARD_EARLY)
        return TUNNEL_E_INVALID;
    int rc = pump_new(&p, f, o);
    if (rc)
        return rc;
    if (tnl_stream_write(s, early, n) < n) {
        pump_discard(p);
        return TUNNEL_E_NOMEM;
    }
    p->to_stream = n;
    take_stream(p, s);
    take_conn(p, c);
    begin(p);
    return 0;
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

size_t tnl_forwarder_count(const tnl_forwarder *f)
{
    return f->count;
}

void tnl_forwarder_free(tnl_forwarder *f, void (*gone)(void *user), void *user)
{
    tnl_list ending;
    tnl_list_init(&ending);
    f->freed = true;
    f->gone = gone;
    f->gone_user = user;
    if (f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    /* over() may be told from here, and may end others. */
    for (tnl_list *n; (n = tnl_list_first(&f->pumps));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&ending, n);
    }
    for (tnl_list *n; (n = tnl_list_first(&ending));) {
        tnl_list_remove(n);
        stream_reset(TNL_CONTAINER(n, pump, node), (uint32_t)-TUNNEL_E_GONE, NULL, 0);
    }
}
