/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "client/internal.h"
#include "files/files.h"
#include "forward/proxy_header.h"
#include "forward/splice.h"
#include "forward/stream_conn.h"
#include "tunnel/error.h"

/*
 * Streams that the server opened: where they go is for the client to say. The server names a tunnel
 * and, for one that has ports, one of those.
 */

static const tnl_stream_events no_events = {.data = NULL};

static void refuse(tnl_stream *s, int error, const char *text)
{
    tnl_stream_set_events(s, &no_events, NULL);
    tnl_stream_reset(s, error, text);
    tnl_stream_release(s);
}

/* --- forwarding ------------------------------------------------------------------------------- */

static const char *outcome(tnl_kind kind)
{
    switch (kind) {
    case TNL_KIND_HTTP:
        return "get 502";
    case TNL_KIND_UDP:
        return "get no answer";
    default:
        return "are turned away";
    }
}

void tnl_client_tell_upstream(tnl_client *c, uint64_t tunnel, int error, const char *detail)
{
    char text[512];
    tnl_client_tunnel *t = tnl_client_find(c, tunnel);
    bool told = t && t->down;
    if (!t)
        return;
    t->down = error != 0;
    if (!error || told)
        return;
    snprintf(text, sizeof(text),
             "the local service cannot be reached: %.300s; visitors %s until it is there",
             detail && detail[0] ? detail : tunnel_strerror(error), outcome(t->spec.kind));
    tunnel_event e = {.type = TUNNEL_EVENT_WARNING, .tunnel = tunnel, .error = error, .text = text};
    tnl_client_tell(c, &e);
}

static int on_connected(void *user, int error, const char *detail, tnl_conn *conn)
{
    tnl_client_visit *v = user;
    tnl_client *c = v->client;
    tnl_client_tunnel *t = tnl_client_find(c, v->tunnel);
    if (conn) {
        v->local = tnl_conn_local(conn);
        v->remote = tnl_conn_peer(conn);
    }
    if (conn && t && tnl_client_reached_itself(c, t, conn)) {
        tnl_client_fail_cycle(c, t);
        return TUNNEL_E_LOOP;
    }
    tnl_client_tell_upstream(c, v->tunnel, error, detail);
    return 0;
}

static void on_over(void *user, const tnl_forward_end *end)
{
    tnl_client_visit *v = user;
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTION,
                      .tunnel = v->tunnel,
                      .visitor = v->visitor,
                      .duration_us = end->duration_us,
                      .bytes_in = end->to_conn,
                      .bytes_out = end->to_stream,
                      .error = end->error,
                      .text = end->text};
    tnl_list_remove(&v->node);
    if (v->kind != TNL_KIND_HTTP)
        tnl_client_tell(v->client, &e);
    tnl_free(v);
}

static const tnl_forward_events forward_events = {.connected = on_connected, .over = on_over};

static int forward(tnl_client *c, tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m,
                   const tnl_upstream *u)
{
    unsigned hops;
    if (tnl_client_visits_itself(c, t, m, &hops)) {
        refuse(s, TUNNEL_E_LOOP, tunnel_strerror(TUNNEL_E_LOOP));
        tnl_client_fail_cycle(c, t);
        return 0;
    }
    tnl_client_visit *v = tnl_calloc(1, sizeof(*v));
    if (!v)
        return TUNNEL_E_NOMEM;
    *v = (tnl_client_visit){.client = c, .tunnel = t->id, .kind = t->spec.kind, .hops = hops};
    tnl_log_escape(v->visitor, sizeof(v->visitor), m->visitor.p, m->visitor.n);
    uint8_t head[TNL_PROXY_HEADER_MAX];
    tnl_proxy_ends ends = {.visitor = m->visitor,
                           .port = (uint16_t)m->port,
                           .server = m->server,
                           .server_port = (uint16_t)m->server_port};
    unsigned version = t->spec.proxy_protocol;
    tnl_forward_options o = {.head = head,
                             .head_n = version ? tnl_proxy_header(head, version, &ends) : 0,
                             .patient = t->spec.kind != TNL_KIND_HTTP,
                             .events = &forward_events,
                             .user = v};
    tnl_address peer = {.port = (uint16_t)m->port};
    snprintf(peer.host, sizeof(peer.host), "%.63s", v->visitor);
    int rc = t->spec.tls ? tnl_forward_tls(c->forwarder, s, t->spec.tls, &peer, u, &o)
                         : tnl_forward_start(c->forwarder, s, u, &o);
    if (rc)
        tnl_free(v);
    else
        tnl_list_add_tail(&c->visits, &v->node);
    return rc;
}

static void deny_port(tnl_client *c, const tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m)
{
    char visitor[80], text[96];
    snprintf(text, sizeof(text), "the port %u is not one of the client's --allow-ports",
             (unsigned)m->target);
    tunnel_event e = {
        .type = TUNNEL_EVENT_CONNECTION,
        .tunnel = t->id,
        .visitor = tnl_log_escape(visitor, sizeof(visitor), m->visitor.p, m->visitor.n),
        .error = TUNNEL_E_DENIED,
        .text = text};
    refuse(s, TUNNEL_E_DENIED, text);
    if (t->spec.kind != TNL_KIND_HTTP)
        tnl_client_tell(c, &e);
}

/* The visitor names a port, and the client has said which ones it may be. */
static int forward_port(tnl_client *c, tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m)
{
    tnl_upstream u = {.host = "localhost", .port = (uint16_t)m->target};
    if (!tnl_ports_has(&t->spec.ports, m->target)) {
        deny_port(c, t, s, m);
        return 0;
    }
    return forward(c, t, s, m, &u);
}

/* --- folders ---------------------------------------------------------------------------------- */

static int serve_files(const tnl_client *c, const tnl_client_tunnel *t, tnl_stream *s)
{
    tnl_conn *conn;
    int rc = tnl_stream_conn(&conn, c->loop, s, NULL, &tnl_conn_no_events, NULL);
    if (rc)
        return rc;
    rc = tnl_files_serve(t->spec.files, conn);
    if (rc) {
        bool full = rc == TUNNEL_E_LIMIT;
        tnl_stream_reset(s, rc, full ? "the folder has as many visitors as it takes" : NULL);
        tnl_conn_close(conn);
    }
    return 0;
}

/* --- all of them ------------------------------------------------------------------------------ */

void tnl_client_on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    tnl_open m;
    tnl_client_tunnel *t = tnl_open_decode(&m, map, n) == 0 ? tnl_client_find(c, m.tunnel) : NULL;
    /* A stream that is not taken is refused. Who gives away an UDP port gives no TCP port. */
    if (!t || t->spec.kind == TNL_KIND_UDP)
        return;
    tnl_lanes_want(r);
    switch (t->spec.far_end) {
    case TNL_FAR_ADDRESS:
        (void)forward(c, t, s, &m, &t->spec.upstream);
        break;
    case TNL_FAR_PORTS:
        (void)forward_port(c, t, s, &m);
        break;
    case TNL_FAR_FILES:
        (void)serve_files(c, t, s);
        break;
    case TNL_FAR_LISTEN:
        (void)tnl_handle_accept(c, t, s, &m);
        break;
    }
}
