/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "forward/datagram.h"
#include "tunnel/error.h"

/*
 * The flows of udp tunnels: made with the first datagram of a tunnel in a session, gone with
 * either. Sessions number their flows each for itself; apps see the session in the upper bits.
 */

enum { FLOW_BITS = 48 };

typedef struct flow_group {
    tnl_list node; /* in its relation's */
    tnl_relation *relation;
    tnl_client *client;
    uint64_t tunnel;
    tnl_flows *flows;
} flow_group;

static flow_group *find_group(const tnl_relation *r, uint64_t tunnel)
{
    for (tnl_list *n = r->flows.next; n != &r->flows; n = n->next) {
        flow_group *g = TNL_CONTAINER(n, flow_group, node);
        if (g->tunnel == tunnel)
            return g;
    }
    return NULL;
}

/* Those of the first session look as they are. */
static uint64_t app_flow(const flow_group *g, uint64_t flow)
{
    return (g->relation->number - 1) << FLOW_BITS | flow;
}

static flow_group *find_app_flow(const tnl_client *c, uint64_t tunnel, uint64_t *flow)
{
    uint64_t upper = *flow >> FLOW_BITS;
    *flow &= ((uint64_t)1 << FLOW_BITS) - 1;
    /* Of a session's number there is the lower part only. */
    for (const tnl_list *n = c->relations.prev; n != &c->relations; n = n->prev) {
        const tnl_relation *r = TNL_CONTAINER(n, const tnl_relation, node);
        if (tnl_relation_mux(r) && (r->number - 1) << FLOW_BITS >> FLOW_BITS == upper)
            return find_group(r, tunnel);
    }
    return NULL;
}

static void group_free(flow_group *g)
{
    tnl_list_remove(&g->node);
    tnl_flows_free(g->flows);
    tnl_free(g);
}

/* --- what flows tell -------------------------------------------------------------------------- */

static void on_send(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    const flow_group *g = user;
    tnl_datagram d = {.tunnel = g->tunnel, .flow = flow, .p = p, .n = n};
    if (g->relation->session)
        (void)tnl_session_datagram(g->relation->session, &d);
}

static void on_datagram(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    const flow_group *g = user;
    const tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    if (t)
        t->spec.datagram(t->spec.user, t->id, app_flow(g, flow), p, n);
}

static void on_over(void *user, const tnl_flow_end *end)
{
    const flow_group *g = user;
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
    const flow_group *g = user;
    tnl_client_tell_upstream(g->client, g->tunnel, error, detail);
}

static void on_cycle(void *user)
{
    const flow_group *g = user;
    tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    if (t)
        tnl_client_fail_cycle(g->client, t);
}

static bool on_allowed(void *user, const tnl_udp_address *upstream)
{
    const flow_group *g = user;
    const tnl_client *c = g->client;
    const tnl_client_tunnel *t = tnl_client_find(g->client, g->tunnel);
    tnl_address a = tnl_udp_text(upstream);
    if (!t || a.port != t->public_port || !tnl_client_is_server(c, a.host))
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

static flow_group *make_group(tnl_relation *r, const tnl_client_tunnel *t)
{
    const tnl_tunnel_spec *s = &t->spec;
    bool listens = s->far_end == TNL_FAR_LISTEN;
    tnl_flows_config config = {
        .host = listens ? NULL : s->upstream.host, .port = s->upstream.port, .idle_ms = s->idle_ms};
    flow_group *g = tnl_calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->relation = r;
    g->client = r->client;
    g->tunnel = t->id;
    if (tnl_flows_new(&g->flows, r->client->loop, &config,
                      listens ? &listen_events : &forward_events, g)) {
        tnl_free(g);
        return NULL;
    }
    tnl_list_add_tail(&r->flows, &g->node);
    return g;
}

void tnl_client_on_datagram(void *user, const tnl_datagram *d)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    const tnl_client_tunnel *t = tnl_client_find(c, d->tunnel);
    if (!t || t->spec.kind != TNL_KIND_UDP || d->flow >> FLOW_BITS ||
        c->state == TNL_CLIENT_DRAINING)
        return;
    flow_group *g = find_group(r, t->id);
    if (!g)
        g = make_group(r, t);
    if (g)
        tnl_flows_receive(g->flows, d);
}

void tnl_client_flows_free(tnl_client *c, uint64_t tunnel)
{
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next) {
        flow_group *g = find_group(TNL_CONTAINER(n, tnl_relation, node), tunnel);
        if (g)
            group_free(g);
    }
}

/* Who hears of their ends may take tunnels away, but not these flows: they are in no list then. */
void tnl_client_flows_lost(tnl_relation *r)
{
    for (tnl_list *n; (n = tnl_list_first(&r->flows));) {
        flow_group *g = TNL_CONTAINER(n, flow_group, node);
        tnl_list_remove(n);
        tnl_flows_end_all(g->flows, TUNNEL_E_GONE, "the session was lost");
        group_free(g);
    }
}

/* --- for apps --------------------------------------------------------------------------------- */

int tnl_client_datagram_send(tnl_client *c, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    const flow_group *g = find_app_flow(c, tunnel, &flow);
    tnl_address unused;
    if (!g || tnl_flows_visitor(g->flows, flow, &unused))
        return TUNNEL_E_NOT_FOUND;
    return tnl_flows_send(g->flows, flow, p, n);
}

int tnl_client_datagram_visitor(tnl_client *c, uint64_t tunnel, uint64_t flow, tnl_address *out)
{
    const flow_group *g = find_app_flow(c, tunnel, &flow);
    return g ? tnl_flows_visitor(g->flows, flow, out) : TUNNEL_E_NOT_FOUND;
}
