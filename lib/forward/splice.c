/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/splice.h"

#include <string.h>

#include "base/mem.h"
#include "forward/internal.h"
#include "forward/stream_conn.h"
#include "tunnel/error.h"

/* One of the two connections, and what is known of its end. */
typedef struct side {
    tnl_conn *conn; /* NULL before it is there and after it closed */
    bool ended;     /* its own direction */
    bool shut;      /* it was told of the end of the other one's */
} side;

/* It lives until both connections are gone. */
typedef struct splice {
    tnl_forward_member m;
    side near; /* the visitor's, within TLS */
    side far;  /* the upstream's */
    tnl_dial *dial;
    tnl_upstream upstream; /* until it is dialed */
    bool breaking;         /* the far one broke: the near one ends when its queue has gone */
} splice;

static splice *member_of(tnl_forward_member *m)
{
    return TNL_CONTAINER(m, splice, m);
}

static void splice_free(splice *s)
{
    tnl_forward_member_over(&s->m);
    tnl_upstream_clear(&s->upstream);
    tnl_free(s);
}

/* --- both directions -------------------------------------------------------------------------- */

/* Both directions of s have ended; what waits for x goes out first. */
static void end_side(const splice *s, const side *x)
{
    if (!x->conn)
        return;
    if (!s->m.patient)
        tnl_conn_finish(x->conn);
    else if (tnl_conn_pending(x->conn) == 0)
        tnl_conn_close(x->conn);
}

static bool both_ended(const splice *s)
{
    return s->near.ended && s->far.ended;
}

/* `from` has ended its direction: the other one is told. */
static void pass_end(splice *s, side *from, side *to)
{
    from->ended = true;
    if (!to->conn)
        return;
    to->shut = true;
    tnl_conn_shutdown(to->conn);
    if (both_ended(s)) {
        end_side(s, &s->near);
        end_side(s, &s->far);
    }
}

/* Who does not take what it has got gives nothing more to read. */
static size_t space(const splice *s, const side *to, uint8_t **p)
{
    if (!to->conn || tnl_conn_pending(to->conn))
        return 0;
    *p = tnl_loop_scratch(s->m.owner->loop);
    return TNL_LOOP_SCRATCH;
}

/* A failure is followed by closed(). */
static void pass_data(const side *to, const uint8_t *p, size_t n, uint64_t *count)
{
    tnl_iov v = {p, n};
    if (to->conn && tnl_conn_write(to->conn, &v, 1) == 0)
        *count += n;
}

static void drained(const splice *s, const side *x, const side *other)
{
    if (s->breaking || both_ended(s))
        tnl_conn_close(x->conn);
    else if (other->conn)
        tnl_conn_resume(other->conn);
}

/* --- the upstream's connection ---------------------------------------------------------------- */

static size_t far_space(void *user, uint8_t **p)
{
    const splice *s = user;
    return space(s, &s->near, p);
}

static void far_data(void *user, uint8_t *p, size_t n)
{
    splice *s = user;
    pass_data(&s->near, p, n, &s->m.to_stream);
}

static void far_eof(void *user)
{
    splice *s = user;
    pass_end(s, &s->far, &s->near);
}

static void far_drained(void *user)
{
    const splice *s = user;
    drained(s, &s->far, &s->near);
}

static void far_closed(void *user, int error, const char *detail)
{
    splice *s = user;
    s->far.conn = NULL;
    tnl_forward_member_note(&s->m, error, detail, strlen(detail));
    if (!s->near.conn) {
        splice_free(s);
    } else if (!both_ended(s)) {
        /* Without close_notify, so that it is not taken for all. */
        s->breaking = true;
        if (tnl_conn_pending(s->near.conn) == 0)
            tnl_conn_close(s->near.conn);
    }
}

static const tnl_conn_events far_events = {.space = far_space,
                                           .data = far_data,
                                           .eof = far_eof,
                                           .drained = far_drained,
                                           .closed = far_closed};

static void begin(splice *s)
{
    tnl_forward_member_begin(&s->m, s->far.conn);
    tnl_conn_resume(s->far.conn);
    tnl_conn_resume(s->near.conn);
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *c)
{
    splice *s = user;
    s->dial = NULL;
    s->far.conn = c;
    if (c)
        tnl_conn_set_events(c, &far_events, s);
    tnl_forward_member_note(&s->m, error, detail, strlen(detail));
    int rc = tnl_forward_member_connected(&s->m, error, detail, c);
    tnl_forward_member_note(&s->m, rc, NULL, 0);
    if (error == 0 && rc == 0) {
        begin(s);
        return;
    }
    tnl_conn_reset(s->near.conn);
    if (c)
        tnl_conn_reset(c);
}

/* --- the visitor's connection ----------------------------------------------------------------- */

static size_t near_space(void *user, uint8_t **p)
{
    const splice *s = user;
    return space(s, &s->far, p);
}

static void near_data(void *user, uint8_t *p, size_t n)
{
    splice *s = user;
    pass_data(&s->far, p, n, &s->m.to_conn);
}

static void near_eof(void *user)
{
    splice *s = user;
    pass_end(s, &s->near, &s->far);
}

static void near_drained(void *user)
{
    const splice *s = user;
    drained(s, &s->near, &s->far);
}

static void near_ready(void *user)
{
    splice *s = user;
    const tnl_upstream *u = &s->upstream;
    tnl_dial_target target = {.host = u->host[0] ? u->host : NULL,
                              .port = u->port,
                              .unix_path = u->unix_path[0] ? u->unix_path : NULL,
                              .tls = u->tls,
                              .timeout_ms = TNL_FORWARD_CONNECT_MS};
    int rc = tnl_dial_start(&s->dial, s->m.owner->loop, &target, on_dialed, s);
    if (rc) {
        tnl_forward_member_note(&s->m, rc, NULL, 0);
        tnl_conn_reset(s->near.conn);
    }
}

static void near_closed(void *user, int error, const char *detail)
{
    splice *s = user;
    s->near.conn = NULL;
    tnl_forward_member_note(&s->m, error, detail, strlen(detail));
    if (s->far.conn) {
        if (!both_ended(s))
            tnl_conn_reset(s->far.conn);
        return;
    }
    if (s->dial)
        tnl_dial_cancel(s->dial);
    splice_free(s);
}

static const tnl_conn_events near_events = {.space = near_space,
                                            .data = near_data,
                                            .eof = near_eof,
                                            .drained = near_drained,
                                            .ready = near_ready,
                                            .closed = near_closed};

/* --- birth and end ---------------------------------------------------------------------------- */

static void splice_end(tnl_forward_member *m)
{
    splice *s = member_of(m);
    tnl_forward_member_note(m, TUNNEL_E_GONE, NULL, 0);
    if (s->near.conn)
        tnl_conn_reset(s->near.conn);
    if (s->far.conn)
        tnl_conn_reset(s->far.conn);
}

int tnl_forward_tls(tnl_forwarder *f, tnl_stream *stream, tnl_tls_server *tls,
                    const tnl_address *peer, const tnl_upstream *u, const tnl_forward_options *o)
{
    tnl_conn *lower;
    splice *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    int rc = tnl_forward_member_init(&s->m, f, o, splice_end);
    if (rc) {
        tnl_free(s);
        return rc;
    }
    rc = tnl_stream_conn(&lower, f->loop, stream, peer, &tnl_conn_no_events, NULL);
    if (rc == 0)
        rc = tnl_tls_accept(&s->near.conn, tls, lower, NULL, 0, &near_events, s);
    if (rc) {
        tnl_forward_member_discard(&s->m);
        tnl_free(s);
        return rc;
    }
    s->upstream = *u;
    if (u->tls)
        tnl_tls_client_ref(u->tls);
    tnl_forward_member_add(&s->m);
    return 0;
}
