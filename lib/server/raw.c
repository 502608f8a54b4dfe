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

static void on_over(void *user, const tnl_forward_end *end)
{
    raw *r = user;
    r->server->visitor_count--;
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
    int rc = t->peer->server->raw ? open_stream(t, r, &local, target, &s) : TUNNEL_E_GONE;
    if (rc)
        return rc;
    rc = tnl_forward_join(t->peer->server->raw, s, c, early, n, &o);
    if (rc) {
        tnl_stream_reset(s, rc, NULL);
        tnl_stream_release(s);
    }
    return rc;
}

static void turn_away(tnl_conn *c)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_reset(c);
}

int tnl_raw_accept(tnl_tunnel *t, tnl_conn *c, const uint8_t *early, size_t n, uint16_t target,
                   const char *name)
{
    tnl_server *s = t->peer->server;
    s->stats.connections++;
    raw *r = tnl_calloc(1, sizeof(*r));
    if (!r) {
        turn_away(c);
        return TUNNEL_E_NOMEM;
    }
    r->server = s;
    r->method = t->kind == TNL_KIND_TCP ? "TCP" : "TLS";
    r->visitor = tnl_conn_peer(c);
    if (name)
        tnl_log_escape(r->host, sizeof(r->host), name, strlen(name));
    else
        snprintf(r->host, sizeof(r->host), ":%u", t->port);
    s->visitor_count++;
    int rc = join(t, r, c, early, n, target);
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
