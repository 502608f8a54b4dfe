/* SPDX-License-Identifier: Apache-2.0 */
#include "client/internal.h"
#include "tunnel/error.h"

/*
 * Leaving without losing anybody: relations whose server goes away, and the client itself. Nothing
 * new is asked for, what is there goes on to its end, and then some time is given to streams whose
 * OPEN was on its way.
 */

enum {
    LOOK_MS = 50,
    FINAL_MS = 250, /* for what a server opened before it said that there will be no more */
    CROSSING_MS = 200,
    CROSSING_MOST_MS = 3000,
    MOST_LEAVING = 2,
};

static size_t streams_of(const tnl_relation *r)
{
    const tnl_mux *m = tnl_relation_mux(r);
    return m ? tnl_mux_stream_count(m) : 0;
}

static bool is_leaving(const tnl_relation *r)
{
    return r != r->client->current && tnl_relation_mux(r);
}

static void look_later(tnl_client *c)
{
    if (!tnl_timer_active(c->leave_timer))
        tnl_timer_start(c->leave_timer, LOOK_MS);
}

/* --- a relation ------------------------------------------------------------------------------- */

void tnl_leave_begin(tnl_relation *r)
{
    tnl_client *c = r->client;
    size_t leaving = 0;
    r->busy_at = tnl_loop_now(c->loop);
    if (tnl_relation_mux(r) && tnl_session_parked(r->session)) {
        tnl_relation_end(r, TUNNEL_E_GONE, NULL);
        return;
    }
    for (tnl_list *n = c->relations.prev; n != &c->relations; n = n->prev) {
        tnl_relation *other = TNL_CONTAINER(n, tnl_relation, node);
        if (is_leaving(other) && ++leaving > MOST_LEAVING)
            tnl_relation_end(other, TUNNEL_E_GONE, "the client has moved on");
    }
    look_later(c);
}

/* The old server says when no more visitors find it. */
static bool may_go(tnl_relation *r, uint64_t now)
{
    if (streams_of(r) || !r->final)
        r->busy_at = now;
    return now - r->busy_at >= FINAL_MS;
}

/* --- the client ------------------------------------------------------------------------------- */

static size_t all_streams(const tnl_client *c)
{
    size_t count = tnl_forwarder_count(c->forwarder) + !tnl_list_empty(&c->handle_list);
    for (const tnl_list *n = c->relations.next; n != &c->relations; n = n->next)
        count += streams_of(TNL_CONTAINER(n, const tnl_relation, node));
    return count;
}

/* A few round trips, for OPENs that cross our UNPUBLISH. */
static uint64_t crossing(const tnl_client *c)
{
    const tnl_relation *r = c->current;
    uint64_t rtt = r && r->link ? tnl_link_rtt(r->link) : UINT32_MAX;
    uint64_t wait = rtt == UINT32_MAX || rtt * 4 < CROSSING_MS ? CROSSING_MS : rtt * 4;
    return wait < CROSSING_MOST_MS ? wait : CROSSING_MOST_MS;
}

static bool is_drained(tnl_client *c, uint64_t now)
{
    if (now >= c->drain_until)
        return true;
    if (all_streams(c))
        c->drain_busy_at = now;
    return now - c->drain_busy_at >= crossing(c);
}

void tnl_client_drain(tnl_client *c, uint32_t timeout_ms, void (*closed)(void *user), void *user)
{
    tnl_relation *r = c->current;
    if (c->state == TNL_CLIENT_CLOSED || c->state == TNL_CLIENT_DRAINING)
        return;
    if (!timeout_ms || !r || !tnl_relation_mux(r) || c->state == TNL_CLIENT_FAILED) {
        tnl_client_close(c, closed, user);
        return;
    }
    tnl_attempt_stop(c);
    tnl_client_set_state(c, TNL_CLIENT_DRAINING);
    c->closed = closed;
    c->closed_user = user;
    c->drain_busy_at = tnl_loop_now(c->loop);
    c->drain_until = c->drain_busy_at + timeout_ms;
    for (tnl_list *n = c->tunnels.next; n != &c->tunnels; n = n->next) {
        const tnl_client_tunnel *t = TNL_CONTAINER(n, tnl_client_tunnel, node);
        tnl_client_send_unpublish(c, t);
        tnl_client_flows_free(c, t->id);
    }
    look_later(c);
    if (!r->link)
        tnl_attempt_start(c, r->server, 0);
}

/* --- both ------------------------------------------------------------------------------------- */

void tnl_leave_look(void *user)
{
    tnl_client *c = user;
    uint64_t now = tnl_loop_now(c->loop);
    bool leaving = false;
    if (!tnl_client_active(c))
        return;
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next) {
        tnl_relation *r = TNL_CONTAINER(n, tnl_relation, node);
        if (!is_leaving(r))
            continue;
        leaving = true;
        if (may_go(r, now))
            tnl_relation_end(r, TUNNEL_E_GONE, "the client has moved on");
    }
    if (c->state == TNL_CLIENT_DRAINING && is_drained(c, now)) {
        tnl_client_close(c, NULL, NULL);
        return;
    }
    if (leaving || c->state == TNL_CLIENT_DRAINING)
        look_later(c);
}
