/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/mem.h"
#include "client/internal.h"
#include "tunnel/error.h"

/*
 * Lanes: connections beside the WebSocket link that carry frames without any framing of others. Not
 * every path lets them through, so a failure says nothing but that the link goes on carrying all.
 */

enum {
    STREAMS_PER_LANE = 128, /* beyond that another one is of use */
    LOOK_MS = 10000,
    IDLE_MS = 60000,
    WAIT_MS = 30000, /* after a failure; doubles */
    MOST_WAIT_MS = 3600 * 1000,
    MOST_SHORT = 3, /* lanes in a row that were cut before they were TNL_STABLE_MS old */
};

typedef struct lane {
    tnl_list node;
    tnl_relation *relation;
    tnl_dial *dial;
    tnl_link *link;
    tnl_attach attach;
    bool joined;
    uint64_t joined_at;
} lane;

static void lane_free(lane *n)
{
    tnl_relation *r = n->relation;
    tnl_list_remove(&n->node);
    r->lane_count--;
    tnl_free(n);
    tnl_relation_maybe_gone(r);
}

/* Whether a failure says something of the path, and not just that all of it has ended. */
static bool is_live(const tnl_relation *r)
{
    return tnl_relation_mux(r) && r->link;
}

/* The path does not carry lanes now. Nothing is said of it by what ended with the link. */
static void failed(tnl_relation *r)
{
    if (!is_live(r))
        return;
    r->lanes_short = 0;
    r->lanes_wait_ms = r->lanes_wait_ms ? r->lanes_wait_ms * 2 : WAIT_MS;
    if (r->lanes_wait_ms > MOST_WAIT_MS)
        r->lanes_wait_ms = MOST_WAIT_MS;
    r->lanes_not_before = tnl_loop_now(r->client->loop) + r->lanes_wait_ms;
}

/*
 * A lane that had joined is gone. Something on the way may have passed what it took to join and
 * then lost everything, or cut it: whoever opened the next one at once would come by no bytes.
 */
static void ended(const lane *n, int error)
{
    tnl_relation *r = n->relation;
    bool is_short = error && tnl_loop_now(r->client->loop) - n->joined_at < TNL_STABLE_MS;
    if (!is_live(r))
        return;
    if (error == TUNNEL_E_TIMEOUT || (is_short && ++r->lanes_short >= MOST_SHORT)) {
        failed(r);
    } else if (!is_short) {
        r->lanes_short = 0;
        r->lanes_wait_ms = 0;
    }
}

void tnl_lanes_forgive(tnl_relation *r)
{
    r->lanes_short = 0;
    r->lanes_wait_ms = 0;
    r->lanes_not_before = 0;
}

/* --- link ------------------------------------------------------------------------------------- */

static void on_opened(void *user, tnl_link *l)
{
    lane *n = user;
    if (!tnl_relation_mux(n->relation) || tnl_relation_send_attach(n->relation, l, &n->attach))
        tnl_link_close(l, 0, NULL);
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    lane *n = user;
    int rc = tnl_relation_join(n->relation, l, &n->attach, f);
    n->joined = rc == 0;
    n->joined_at = tnl_loop_now(n->relation->client->loop);
    return rc;
}

static void on_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    lane *n = user;
    (void)l;
    (void)http_status;
    (void)detail;
    tnl_relation *r = n->relation;
    if (n->joined)
        ended(n, error);
    else
        failed(r);
    lane_free(n);
    tnl_lanes_resume(r);
}

static const tnl_link_events link_events = {
    .opened = on_opened, .handshake = on_handshake, .closed = on_closed};

/* --- dialing ---------------------------------------------------------------------------------- */

static int open_link(lane *n, tnl_conn *conn)
{
    char host[TNL_CLIENT_HOST];
    char bearer[TNL_CLIENT_BEARER];
    const tnl_relation *r = n->relation;
    const tnl_client *c = r->client;
    tnl_transport *t;
    tnl_link_config config = tnl_client_link_config(c);
    config.unproven = true;
    int rc = tnl_link_new(&n->link, c->loop, &config, &link_events, n);
    if (rc) {
        tnl_conn_close(conn);
        return rc;
    }
    rc = tnl_lane_connect(&t, conn, tnl_client_host(c, r->server, host), "/__tunnel__/lane",
                          tnl_client_bearer(c, bearer), tnl_link_transport_events(), n->link);
    tnl_wipe(bearer, sizeof(bearer));
    if (rc)
        tnl_link_discard(n->link);
    else
        tnl_link_set_transport(n->link, t);
    return rc;
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *conn)
{
    lane *n = user;
    (void)detail;
    n->dial = NULL;
    if (error == 0)
        error = open_link(n, conn);
    if (error) {
        failed(n->relation);
        lane_free(n);
    }
}

static void open_lane(tnl_relation *r)
{
    tnl_dial_target target = tnl_client_target(r->client, r->server);
    lane *n = tnl_calloc(1, sizeof(*n));
    if (!n)
        return;
    n->relation = r;
    if (tnl_dial_start(&n->dial, r->client->loop, &target, on_dialed, n)) {
        tnl_free(n);
        return;
    }
    tnl_list_add_tail(&r->lanes, &n->node);
    r->lane_count++;
}

void tnl_lanes_want(tnl_relation *r)
{
    tnl_client *c = r->client;
    uint64_t now = tnl_loop_now(c->loop);
    const tnl_mux *m = tnl_relation_mux(r);
    r->lanes_busy_at = now;
    if (m && c->config.lanes && !tnl_timer_active(c->lane_timer))
        tnl_timer_start(c->lane_timer, LOOK_MS);
    /* Who is leaving makes do with what it has. */
    if (!m || !r->link || r != c->current || now < r->lanes_not_before)
        return;
    size_t wanted = 1 + tnl_mux_stream_count(m) / STREAMS_PER_LANE;
    if (r->lane_count < wanted && r->lane_count < c->config.lanes)
        open_lane(r);
}

void tnl_lanes_resume(tnl_relation *r)
{
    const tnl_mux *m = tnl_relation_mux(r);
    if (m && tnl_mux_stream_count(m))
        tnl_lanes_want(r);
}

/* --- idle ------------------------------------------------------------------------------------- */

static void look_at(tnl_relation *r)
{
    tnl_lanes_resume(r);
    if (tnl_loop_now(r->client->loop) - r->lanes_busy_at < IDLE_MS)
        return;
    for (tnl_list *n = r->lanes.next; n != &r->lanes; n = n->next)
        if (TNL_CONTAINER(n, lane, node)->joined)
            tnl_link_close(TNL_CONTAINER(n, lane, node)->link, 0, NULL);
}

void tnl_lanes_look(void *user)
{
    tnl_client *c = user;
    size_t lanes = 0;
    for (tnl_list *n = c->relations.next; n != &c->relations; n = n->next) {
        tnl_relation *r = TNL_CONTAINER(n, tnl_relation, node);
        look_at(r);
        lanes += r->lane_count;
    }
    if (lanes && !tnl_timer_active(c->lane_timer))
        tnl_timer_start(c->lane_timer, LOOK_MS);
}

void tnl_lanes_cancel(tnl_relation *r)
{
    for (tnl_list *node = r->lanes.next, *next; node != &r->lanes; node = next) {
        lane *n = TNL_CONTAINER(node, lane, node);
        next = node->next;
        if (n->dial) {
            tnl_dial_cancel(n->dial);
            lane_free(n);
        } else if (!n->joined) {
            tnl_link_close(n->link, 0, NULL);
        }
    }
}
