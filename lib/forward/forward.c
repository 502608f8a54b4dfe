/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/forward.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "forward/internal.h"
#include "tunnel/error.h"

enum {
    LEAST_WISH = 4 * 1024,
    MOST_WISH = 64 * 1024,
};

/* One stream and its connection. It lives until both are gone. */
typedef struct pump {
    tnl_forward_member m;
    tnl_stream *stream; /* NULL once released */
    tnl_conn *conn;     /* NULL before it is connected and after it closed */
    tnl_dial *dial;
    size_t wish;          /* how many bytes to make room for: grows while reads fill it */
    bool fin_from_stream; /* the stream's side ended */
    bool shut;            /* and the connection has been told */
    bool fin_from_conn;   /* the connection's side ended */
} pump;

static void pump_free(pump *p)
{
    tnl_forward_member_over(&p->m);
    tnl_free(p);
}

static void release_stream(pump *p)
{
    tnl_stream *s = p->stream;
    p->stream = NULL;
    if (s)
        tnl_stream_release(s);
}

/* The stream's side has ended: so does the connection, once its own side has. */
static void end_conn(pump *p)
{
    if (p->fin_from_conn && !p->m.patient)
        tnl_conn_finish(p->conn);
    else if (!p->shut)
        tnl_conn_shutdown(p->conn);
    p->shut = true;
    if (p->fin_from_conn && p->m.patient && !tnl_conn_pending(p->conn))
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
    p->m.to_conn += n;
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
    tnl_forward_member_note(&p->m, code && code < 1000 ? -(int)code : TUNNEL_E_RESET, text, n);
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
    p->m.to_stream += n;
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

/* These codes promise that no byte has reached the upstream, which only a failure to connect may.
 */
static int after_connecting(int error)
{
    switch (error) {
    case TUNNEL_E_REFUSED:
    case TUNNEL_E_UNREACHABLE:
    case TUNNEL_E_RESOLVE:
    case TUNNEL_E_NOT_FOUND:
    case TUNNEL_E_ACCESS:
    case TUNNEL_E_DENIED:
        return TUNNEL_E_IO;
    default:
        return error;
    }
}

static void conn_closed(void *user, int error, const char *detail)
{
    pump *p = user;
    p->conn = NULL;
    tnl_forward_member_note(&p->m, error, detail, strlen(detail));
    /* All that the connection said is on its way and must arrive, before the news of its end. */
    if (p->stream && error && !(p->fin_from_conn && p->fin_from_stream))
        tnl_stream_break(p->stream, after_connecting(error), detail);
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
    tnl_forward_member_begin(&p->m, p->conn);
    if (p->conn->ended)
        conn_eof(p);
    else
        tnl_conn_resume(p->conn);
    if (p->stream)
        tnl_stream_resume(p->stream);
    if (p->stream && p->conn && p->fin_from_stream && !p->shut)
        end_conn(p);
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *c)
{
    pump *p = user;
    p->dial = NULL;
    if (error) {
        tnl_forward_member_note(&p->m, error, detail, strlen(detail));
        tnl_stream_reset(p->stream, error, detail);
        release_stream(p);
        (void)tnl_forward_member_connected(&p->m, error, detail, NULL);
        pump_free(p);
        return;
    }
    take_conn(p, c);
    int rc = tnl_forward_member_connected(&p->m, 0, "", c);
    if (rc && p->stream) {
        tnl_forward_member_note(&p->m, rc, NULL, 0);
        tnl_stream_reset(p->stream, rc, tunnel_strerror(rc));
        release_stream(p);
    }
    if (p->stream)
        begin(p);
    else
        tnl_conn_reset(c);
}

static void pump_end(tnl_forward_member *m)
{
    stream_reset(TNL_CONTAINER(m, pump, m), (uint32_t)-TUNNEL_E_GONE, NULL, 0);
}

/* Everything but stream and connection; not among the owner's yet. */
static int pump_new(pump **out, tnl_forwarder *f, const tnl_forward_options *o)
{
    pump *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return TUNNEL_E_NOMEM;
    int rc = tnl_forward_member_init(&p->m, f, o, pump_end);
    if (rc) {
        tnl_free(p);
        return rc;
    }
    p->wish = LEAST_WISH;
    *out = p;
    return 0;
}

static void pump_discard(pump *p)
{
    tnl_forward_member_discard(&p->m);
    tnl_free(p);
}

static void take_stream(pump *p, tnl_stream *s)
{
    p->stream = s;
    tnl_forward_member_add(&p->m);
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
                              .timeout_ms = TNL_FORWARD_CONNECT_MS};
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
    p->m.to_stream = n;
    take_stream(p, s);
    take_conn(p, c);
    begin(p);
    return 0;
}
