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
    STABLE_MS = 10000, /* a lane that is cut sooner after it has joined was a short one */
    MOST_SHORT = 3,
};

typedef struct lane {
    tnl_list node;
    tnl_client *client;
    tnl_dial *dial;
    tnl_link *link;
    tnl_attach attach;
    bool joined;
    uint64_t joined_at;
} lane;

static void lane_free(lane *n)
{
    tnl_client *c = n->client;
    tnl_list_remove(&n->node);
    c->lane_count--;
    tnl_free(n);
    tnl_client_release(c);
}

/* The path does not carry lanes now. Nothing is said of it by what ended with the link. */
static void failed(tnl_client *c)
{
    if (c->state != TNL_CLIENT_LIVE)
        return;
    c->lanes_short = 0;
    c->lanes_wait_ms = c->lanes_wait_ms ? c->lanes_wait_ms * 2 : WAIT_MS;
    if (c->lanes_wait_ms > MOST_WAIT_MS)
        c->lanes_wait_ms = MOST_WAIT_MS;
    c->lanes_not_before = tnl_loop_now(c->loop) + c->lanes_wait_ms;
}

/*
 * A lane that had joined is gone. Something on the way may have passed what it took to join and
 * then lost everything, or cut it: whoever opened the next one at once would come by no bytes.
 */
static void ended(const lane *n, int error)
{
    tnl_client *c = n->client;
    bool is_short = error && tnl_loop_now(c->loop) - n->joined_at < STABLE_MS;
    if (!c->session || !tnl_session_mux(c->session) || c->state != TNL_CLIENT_LIVE)
        return;
    if (error == TUNNEL_E_TIMEOUT || (is_short && ++c->lanes_short >= MOST_SHORT)) {
        failed(c);
    } else if (!is_short) {
        c->lanes_short = 0;
        c->lanes_wait_ms = 0;
    }
}

void tnl_lanes_forgive(tnl_client *c)
{
    c->lanes_short = 0;
    c->lanes_wait_ms = 0;
    c->lanes_not_before = 0;
}

/* --- link ------------------------------------------------------------------------------------- */

static void on_opened(void *user, tnl_link *l)
{
    lane *n = user;
    if (!n->client->session || tnl_client_send_attach(n->client, l, &n->attach))
        tnl_link_close(l, 0, NULL);
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    lane *n = user;
    int rc = tnl_client_join(n->client, l, &n->attach, f);
    n->joined = rc == 0;
    n->joined_at = tnl_loop_now(n->client->loop);
    return rc;
}

static void on_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    lane *n = user;
    (void)l;
    (void)http_status;
    (void)detail;
    tnl_client *c = n->client;
    if (n->joined)
        ended(n, error);
    else
        failed(c);
    lane_free(n);
    tnl_lanes_resume(c);
}

static const tnl_link_events link_events = {
    .opened = on_opened, .handshake = on_handshake, .closed = on_closed};

/* --- dialing ---------------------------------------------------------------------------------- */

static int open_link(lane *n, tnl_conn *conn)
{
    char host[TNL_CLIENT_HOST];
    char bearer[TNL_CLIENT_BEARER];
    tnl_client *c = n->client;
    tnl_transport *t;
    tnl_link_config config = tnl_client_link_config(c);
    config.unproven = true;
    int rc = tnl_link_new(&n->link, c->loop, &config, &link_events, n);
    if (rc) {
        tnl_conn_close(conn);
        return rc;
    }
    rc = tnl_lane_connect(&t, conn, tnl_client_host(c, host), "/__tunnel__/lane",
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
        failed(n->client);
        lane_free(n);
    }
}

static void open_lane(tnl_client *c)
{
    tnl_dial_target target = tnl_client_target(c);
    lane *n = tnl_calloc(1, sizeof(*n));
    if (!n)
        return;
    n->client = c;
    if (tnl_dial_start(&n->dial, c->loop, &target, on_dialed, n)) {
        tnl_free(n);
        return;
    }
    tnl_list_add_tail(&c->lanes, &n->node);
    c->lane_count++;
    tnl_client_hold(c);
}

void tnl_lanes_want(tnl_client *c)
{
    uint64_t now = tnl_loop_now(c->loop);
    const tnl_mux *m = c->session ? tnl_session_mux(c->session) : NULL;
    c->lanes_busy_at = now;
    if (m && c->config.lanes && !tnl_timer_active(c->lane_timer))
        tnl_timer_start(c->lane_timer, LOOK_MS);
    if (!m || c->state != TNL_CLIENT_LIVE || now < c->lanes_not_before)
        return;
    size_t wanted = 1 + tnl_mux_stream_count(m) / STREAMS_PER_LANE;
    if (c->lane_count < wanted && c->lane_count < c->config.lanes)
        open_lane(c);
}

void tnl_lanes_resume(tnl_client *c)
{
    const tnl_mux *m = c->session ? tnl_session_mux(c->session) : NULL;
    if (m && tnl_mux_stream_count(m))
        tnl_lanes_want(c);
}

/* --- idle ------------------------------------------------------------------------------------- */

void tnl_lanes_look(void *user)
{
    tnl_client *c = user;
    uint64_t now = tnl_loop_now(c->loop);
    tnl_lanes_resume(c);
    if (now - c->lanes_busy_at >= IDLE_MS)
        for (tnl_list *n = c->lanes.next; n != &c->lanes; n = n->next)
            if (TNL_CONTAINER(n, lane, node)->joined)
                tnl_link_close(TNL_CONTAINER(n, lane, node)->link, 0, NULL);
    if (c->lane_count && !tnl_timer_active(c->lane_timer))
        tnl_timer_start(c->lane_timer, LOOK_MS);
}

void tnl_lanes_cancel(tnl_client *c)
{
    for (tnl_list *node = c->lanes.next, *next; node != &c->lanes; node = next) {
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
