/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "forward/datagram.h"
#include "tunnel/error.h"

/*
 * The flows of udp tunnels: made with the first datagram of a tunnel, gone with it.
 */

struct tnl_client_flows {
    tnl_client *client;
    uint64_t tunnel;
    tnl_flows *flows;
};

/* --- what flows tell -------------------------------------------------------------------------- */

static int send_datagram(const tnl_client *c, uint64_t tunnel, uint64_t flow, const uint8_t *p,
                         size_t n)
{
    tnl_datagram d = {.tunnel = tunnel, .flow = flow, .p = p, .n = n};
    return c->session ? tnl_session_datagram(c->session, &d) : TUNNEL_E_GONE;
}

static void on_send(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    const tnl_client_flows *g = user;
    (void)send_datagram(g->client, g->tunnel, flow, p, n);
}

static void on_datagram(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    const tnl_client_flows *g = user;
    const tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    if (t)
        t->spec.datagram(t->spec.user, t->id, flow, p, n);
}

static void on_over(void *user, const tnl_flow_end *end)
{
    const tnl_client_flows *g = user;
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTION,
                      .tunnel = g->tunnel,
                      .visitor = end->visitor->host,
                      .duration_us = end->duration_us,
                      .bytes_in = end->bytes_in,
                      .bytes_out = end->bytes_out,
                      .error = end->error,
                      .text = end->text};
    tnl_client_tell(g->client, &e);
}

static void on_upstream(void *user, int error, const char *detail)
{
    const tnl_client_flows *g = user;
    tnl_client_tell_upstream(g->client, g->tunnel, error, detail);
}

static void on_cycle(void *user)
{
    const tnl_client_flows *g = user;
    tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    if (t)
        tnl_client_fail_cycle(g->client, t);
}

static bool on_allowed(void *user, const tnl_udp_address *upstream)
{
    const tnl_client_flows *g = user;
    const tnl_client *c = g->client;
    const tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    tnl_address a = tnl_udp_text(upstream);
    if (!t || a.port != t->public_port || strcmp(a.host, c->reached.host) != 0)
        return true;
    on_cycle(user);
    return false;
}

static const tnl_flows_events forward_events = {.send = on_send,
                                                .over = on_over,
                                                .upstream = on_upstream,
                                                .allowed = on_allowed,
                                                .cycle = on_cycle};

static const tnl_flows_events listen_events = {
    .send = on_send, .datagram = on_datagram, .over = on_over};

/* --- what flows are told ---------------------------------------------------------------------- */

static int make_flows(tnl_client *c, tnl_client_tunnel *t)
{
    const tnl_tunnel_spec *s = &t->spec;
    bool listens = s->far_end == TNL_FAR_LISTEN;
    tnl_flows_config config = {
        .host = listens ? NULL : s->upstream.host, .port = s->upstream.port, .idle_ms = s->idle_ms};
    tnl_client_flows *g = tnl_calloc(1, sizeof(*g));
    if (!g)
        return TUNNEL_E_NOMEM;
    g->client = c;
    g->tunnel = t->id;
    int rc = tnl_flows_new(&g->flows, c->loop, &config, listens ? &listen_events : &forward_events,
                           g);
    if (rc)
        tnl_free(g);
    else
        t->flows = g;
    return rc;
}

void tnl_client_on_datagram(void *user, const tnl_datagram *d)
{
    tnl_client *c = user;
    tnl_client_tunnel *t = tnl_client_find(c, d->tunnel);
    if (!t || t->spec.kind != TNL_KIND_UDP || (!t->flows && make_flows(c, t)))
        return;
    tnl_flows_receive(t->flows->flows, d);
}

void tnl_client_flows_free(tnl_client_tunnel *t)
{
    tnl_client_flows *g = t->flows;
    t->flows = NULL;
    if (!g)
        return;
    tnl_flows_free(g->flows);
    tnl_free(g);
}

/* Their ids were those of the session. */
void tnl_client_flows_lost(tnl_client *c)
{
    uint64_t last = 0;
    for (tnl_list *n = c->tunnels.next; n != &c->tunnels;) {
        const tnl_client_tunnel *t = TNL_CONTAINER(n, tnl_client_tunnel, node);
        bool has = t->flows && t->id > last;
        n = n->next;
        if (!has)
            continue;
        last = t->id;
        tnl_flows_end_all(t->flows->flows, TUNNEL_E_GONE, "the session was lost");
        /* What hears of that may take tunnels away. Ids ascend in the list. */
        n = c->tunnels.next;
    }
}

/* --- for apps --------------------------------------------------------------------------------- */

int tnl_client_datagram_send(tnl_client *c, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    const tnl_client_tunnel *t = tnl_client_find(c, tunnel);
    tnl_address unused;
    if (!t || !t->flows || tnl_flows_visitor(t->flows->flows, flow, &unused))
        return TUNNEL_E_NOT_FOUND;
    if (!c->session || !tnl_session_mux(c->session))
        return TUNNEL_E_GONE;
    return tnl_flows_send(t->flows->flows, flow, p, n);
}

int tnl_client_datagram_visitor(tnl_client *c, uint64_t tunnel, uint64_t flow, tnl_address *out)
{
    const tnl_client_tunnel *t = tnl_client_find(c, tunnel);
    return t && t->flows ? tnl_flows_visitor(t->flows->flows, flow, out) : TUNNEL_E_NOT_FOUND;
}
