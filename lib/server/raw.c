/* SPDX-License-Identifier: Apache-2.0 */
#include "server/raw.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "forward/forward.h"
#include "tunnel/error.h"
#include "wire/message.h"

/* What is told of a connection when it is over; its tunnel may be gone by then. */
typedef struct raw {
    tnl_server *server;
    tnl_list of_tunnel; /* in tunnel->raws */
    tnl_tunnel *tunnel; /* NULL: gone, or not joined yet */
    uint64_t since;     /* loop time */
    const char *method;
    tnl_address visitor;
    char host[TNL_HOST_MAX];
} raw;

static void tell(const raw *r, const tnl_forward_end *end)
{
    tunnel_event e = {.type = TUNNEL_EVENT_ACCESS,
                      .method = r->method,
                      .host = r->host,
                      .visitor = r->visitor.host,
                      .duration_us = end->duration_us,
                      .bytes_in = end->to_stream,
                      .bytes_out = end->to_conn};
    if (r->server->config.access_events)
        tnl_server_tell(r->server, &e);
}

static void bind(raw *r, tnl_tunnel *t)
{
    r->tunnel = t;
    t->busy++;
    tnl_list_add_tail(&t->raws, &r->of_tunnel);
}

static void unbind(raw *r)
{
    if (r->tunnel)
        r->tunnel->busy--;
    r->tunnel = NULL;
    tnl_list_remove(&r->of_tunnel);
}

void tnl_raw_forget(tnl_tunnel *t)
{
    for (tnl_list *n; (n = tnl_list_first(&t->raws));)
        unbind(TNL_CONTAINER(n, raw, of_tunnel));
}

/* Whether the service was not there. A connection that breaks without that may be the visitor's. */
static bool not_reached(const tnl_forward_end *end)
{
    static const int codes[] = {TUNNEL_E_REFUSED,   TUNNEL_E_UNREACHABLE, TUNNEL_E_RESOLVE,
                                TUNNEL_E_NOT_FOUND, TUNNEL_E_ACCESS,      TUNNEL_E_TIMEOUT,
                                TUNNEL_E_UPSTREAM,  TUNNEL_E_TLS,         TUNNEL_E_CERTIFICATE};
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
        if (end->error == codes[i])
            return end->to_conn == 0;
    return false;
}

static void on_over(void *user, const tnl_forward_end *end)
{
    raw *r = user;
    r->server->visitor_count--;
    tnl_drain_changed(r->server);
    if (r->tunnel && not_reached(end))
        tnl_pool_failed(r->tunnel);
    else if (r->tunnel && end->to_conn)
        tnl_pool_worked(r->tunnel, r->since);
    unbind(r);
    tell(r, end);
    tnl_free(r);
}

static const tnl_forward_events events = {.over = on_over};
static const tnl_stream_events no_events = {.data = NULL};

static int open_stream(const tnl_tunnel *t, const raw *r, const tnl_address *local, uint16_t target,
                       tnl_stream **out)
{
    uint8_t map[512];
    tnl_mux *m = t->peer->session ? tnl_session_mux(t->peer->session) : NULL;
    tnl_open o = {.tunnel = t->id,
                  .visitor = tnl_str_of(r->visitor.host),
                  .port = r->visitor.port,
                  .server = tnl_str_of(local->host),
                  .server_port = local->port,
                  .target = target};
    size_t n = tnl_open_encode(map, sizeof(map), &o);
    if (!m)
        return TUNNEL_E_GONE;
    return n ? tnl_mux_open(m, out, map, n, &no_events, NULL) : TUNNEL_E_INVALID;
}

static int join(tnl_tunnel *t, raw *r, tnl_conn *c, const uint8_t *early, size_t n, uint16_t target)
{
    tnl_stream *s = NULL;
    tnl_address local = tnl_conn_local(c);
    tnl_forward_options o = {.patient = true, .events = &events, .user = r};
    int rc = r->server->raw ? open_stream(t, r, &local, target, &s) : TUNNEL_E_GONE;
    if (rc)
        return rc;
    bind(r, t);
    rc = tnl_forward_join(r->server->raw, s, c, early, n, &o);
    if (rc) {
        unbind(r);
        tnl_stream_reset(s, rc, NULL);
        tnl_stream_release(s);
    }
    return rc;
}

/* To the member whose turn it is, or the next one that takes it. */
static int join_any(tnl_name *to, raw *r, tnl_conn *c, const uint8_t *early, size_t n,
                    uint16_t target)
{
    tnl_tried tried = {0};
    int rc = TUNNEL_E_GONE;
    for (tnl_tunnel *t; (t = tnl_pool_pick(to, &tried));) {
        rc = join(t, r, c, early, n, target);
        if (rc == 0)
            return 0;
    }
    return rc;
}

static void turn_away(tnl_conn *c)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_reset(c);
}

/* --- a client that comes back at once --------------------------------------------------------- */

/* A connection whose tunnel is on its way. */
typedef struct waiter {
    tnl_list node;
    tnl_name *name;
    tnl_conn *conn;
    tnl_buf early;
    uint16_t target;
    bool named;
    char host[TNL_HOST_MAX];
} waiter;

static void waiter_free(waiter *w)
{
    tnl_list_remove(&w->node);
    w->name->waiting_count--;
    w->name->server->visitor_count--;
    tnl_drain_changed(w->name->server);
    tnl_buf_free(&w->early);
    tnl_free(w);
}

static void on_waiter_closed(void *user, int error, const char *detail)
{
    (void)error;
    (void)detail;
    waiter_free(user);
}

static const tnl_conn_events waiter_events = {.closed = on_waiter_closed};

static int wait_for(tnl_name *to, tnl_conn *c, const uint8_t *early, size_t n, uint16_t target,
                    const char *name)
{
    waiter *w = to->waiting_count < TNL_RAW_WAITING ? tnl_calloc(1, sizeof(*w)) : NULL;
    if (w)
        tnl_buf_init(&w->early, TNL_FORWARD_EARLY);
    if (!w || (n && tnl_buf_add(&w->early, early, n))) {
        tnl_free(w);
        turn_away(c);
        return TUNNEL_E_LIMIT;
    }
    w->name = to;
    w->conn = c;
    w->target = target;
    w->named = name != NULL;
    snprintf(w->host, sizeof(w->host), "%s", name ? name : "");
    tnl_list_add_tail(&to->waiting, &w->node);
    to->waiting_count++;
    to->server->visitor_count++;
    tnl_conn_set_events(c, &waiter_events, w);
    return 0;
}

void tnl_raw_admit(tnl_name *n)
{
    for (tnl_list *node; n->count && (node = tnl_list_first(&n->waiting));) {
        waiter *w = TNL_CONTAINER(node, waiter, node);
        tnl_conn_set_events(w->conn, &tnl_conn_no_events, NULL);
        (void)tnl_raw_accept(n, w->conn, tnl_buf_bytes(&w->early), tnl_buf_len(&w->early),
                             w->target, w->named ? w->host : NULL);
        waiter_free(w);
    }
}

void tnl_raw_turn_away(tnl_name *n)
{
    for (tnl_list *node; (node = tnl_list_first(&n->waiting));) {
        waiter *w = TNL_CONTAINER(node, waiter, node);
        turn_away(w->conn);
        waiter_free(w);
    }
}

/* --- a connection ----------------------------------------------------------------------------- */

int tnl_raw_accept(tnl_name *to, tnl_conn *c, const uint8_t *early, size_t n, uint16_t target,
                   const char *name)
{
    tnl_server *s = to->server;
    if (to->count == 0 && to->kept && !s->closing)
        return wait_for(to, c, early, n, target, name);
    s->stats.connections++;
    raw *r = tnl_calloc(1, sizeof(*r));
    if (!r) {
        turn_away(c);
        return TUNNEL_E_NOMEM;
    }
    r->server = s;
    r->since = tnl_loop_now(s->loop);
    tnl_list_init(&r->of_tunnel);
    r->method = to->kind == TNL_KIND_TCP ? "TCP" : "TLS";
    r->visitor = tnl_conn_peer(c);
    if (name)
        tnl_log_escape(r->host, sizeof(r->host), name, strlen(name));
    else
        snprintf(r->host, sizeof(r->host), ":%u", to->port);
    s->visitor_count++;
    int rc = join_any(to, r, c, early, n, target);
    if (rc) {
        tnl_forward_end none = {.error = rc};
        turn_away(c);
        on_over(r, &none);
    }
    return rc;
}

/* --- all of them ------------------------------------------------------------------------------ */

static void on_gone(void *user)
{
    tnl_server *s = user;
    s->raw_stopping = false;
    tnl_server_maybe_closed(s);
}

int tnl_raw_start(tnl_server *s)
{
    return tnl_forwarder_new(&s->raw, s->loop);
}

void tnl_raw_stop(tnl_server *s)
{
    tnl_forwarder *f = s->raw;
    s->raw = NULL;
    if (!f)
        return;
    s->raw_stopping = true;
    tnl_forwarder_free(f, on_gone, s);
}
