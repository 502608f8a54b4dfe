/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

/*
 * Relations: what is remembered of a session with a server, its links, and what becomes of it when
 * they are lost.
 */

enum {
    FIRST_WINDOW = 16384,
    MAX_FRAME = 65536,
    MAX_STREAMS = 2048,
    MAX_WINDOW = 256 * 1024,
    SURPLUS = 32 * 1024 * 1024,
    MAX_GRACE_MS = 3600 * 1000,
};

const tnl_limits tnl_relation_limits = {
    .max_frame = MAX_FRAME, .max_streams = MAX_STREAMS, .window = FIRST_WINDOW};

tnl_mux *tnl_relation_mux(const tnl_relation *r)
{
    return r->session ? tnl_session_mux(r->session) : NULL;
}

tnl_relation *tnl_relation_find(const tnl_client *c, uint64_t number)
{
    for (const tnl_list *n = c->relations.next; n != &c->relations; n = n->next) {
        tnl_relation *r = TNL_CONTAINER(n, tnl_relation, node);
        if (r->number == number && tnl_relation_mux(r))
            return r;
    }
    return NULL;
}

/* --- the end ---------------------------------------------------------------------------------- */

static bool is_gone(const tnl_relation *r)
{
    return !r->session && !r->link && tnl_list_empty(&r->lanes);
}

static void on_gone(void *user)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    if (!is_gone(r))
        return;
    tnl_list_remove(&r->node);
    tnl_wipe(r, sizeof(*r));
    tnl_free(r);
    tnl_client_maybe_closed(c);
    tnl_client_release(c);
}

void tnl_relation_maybe_gone(tnl_relation *r)
{
    if (is_gone(r))
        tnl_loop_defer(r->client->loop, &r->gone);
}

void tnl_relation_end(tnl_relation *r, int code, const char *text)
{
    tnl_lanes_cancel(r);
    if (r->session)
        tnl_session_close(r->session, code, text);
}

/* --- its links -------------------------------------------------------------------------------- */

static int no_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    (void)user;
    (void)l;
    (void)f;
    return TUNNEL_E_PROTOCOL;
}

static void on_round_trip(void *user, tnl_link *l, uint64_t us)
{
    const tnl_relation *r = user;
    const char *address = r->client->servers[r->server].address;
    (void)l;
    tunnel_event e = {
        .type = TUNNEL_EVENT_ROUND_TRIP, .text = address, .host = address, .duration_us = us};
    tnl_client_tell(r->client, &e);
}

/* Lost beside its lanes, which go on; or with a session that is over. */
static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    (void)l;
    (void)http_status;
    r->link = NULL;
    tnl_lanes_forgive(r);
    tnl_relation_maybe_gone(r);
    if (!tnl_relation_mux(r) || r != c->current)
        return;
    r->lost_at = tnl_loop_now(c->loop);
    tnl_servers_lost(c, error ? error : TUNNEL_E_EOF, detail);
}

static const tnl_link_events link_events = {
    .handshake = no_handshake, .round_trip = on_round_trip, .closed = on_link_closed};

static void take_link(tnl_relation *r, tnl_link *l)
{
    tnl_client *c = r->client;
    r->link = l;
    r->reached = c->attempt.reached;
    r->live_since = tnl_loop_now(c->loop);
    tnl_link_set_events(l, &link_events, r);
    c->attempt.link = NULL;
    c->attempt.state = TNL_ATTEMPT_NONE;
    tnl_servers_worked(c, r->server);
}

int tnl_relation_send_attach(tnl_relation *r, tnl_link *l, tnl_attach *a)
{
    uint8_t bytes[256];
    *a = (tnl_attach){.generation = r->generation, .link = ++r->last_link};
    memcpy(a->session, r->session_id, sizeof(a->session));
    int rc = tnl_random(a->nonce, sizeof(a->nonce));
    if (rc == 0)
        rc = tnl_attach_prove(a->mac, r->secret, 'C', a);
    if (rc)
        return rc;
    tnl_frame f = {.type = TNL_FRAME_ATTACH, .rest = bytes};
    f.rest_len = tnl_attach_encode(bytes, sizeof(bytes), a);
    return f.rest_len ? tnl_link_send(l, &f) : TUNNEL_E_NOMEM;
}

int tnl_relation_join(tnl_relation *r, tnl_link *l, const tnl_attach *a, const tnl_frame *f)
{
    tnl_attached m;
    if (f->type != TNL_FRAME_ATTACHED || tnl_attached_decode(&m, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (!tnl_relation_mux(r))
        return TUNNEL_E_GONE;
    if (!tnl_attach_verify(m.mac, r->secret, 'S', a))
        return TUNNEL_E_AUTH_FAILED;
    return tnl_link_bind(l, r->session);
}

void tnl_relation_resume(tnl_relation *r, tnl_link *l)
{
    tnl_client *c = r->client;
    const char *address = c->servers[r->server].address;
    tunnel_event e = {.type = TUNNEL_EVENT_RESUMED,
                      .text = address,
                      .host = address,
                      .delay_ms = tnl_loop_now(c->loop) - r->lost_at};
    take_link(r, l);
    tnl_lanes_resume(r);
    tnl_client_tell(c, &e);
    if (r->goaway && r == c->current && tnl_client_active(c))
        tnl_servers_move(c);
}

/* --- its session ------------------------------------------------------------------------------ */

/* The last link is gone; visitors wait for the next one. */
static void on_parked(void *user, int error, const char *detail)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    bool had_link = r->link != NULL; /* else it was lost before its lanes */
    tnl_client_abandon(c, &r->link, 0, NULL);
    tnl_lanes_forgive(r);
    if (r != c->current) {
        tnl_relation_end(r, TUNNEL_E_GONE, NULL);
        return;
    }
    if (!had_link)
        return;
    r->lost_at = tnl_loop_now(c->loop);
    tnl_servers_lost(c, error, detail);
}

/* The current one is over, and another one must come. */
static void lost_for_good(tnl_client *c, const tnl_relation *r, int error, const char *detail)
{
    tnl_attempt *a = &c->attempt;
    if (!tnl_client_active(c))
        return;
    /* Its grace is over: attempts go on, and the next one begins anew. */
    if (!r->link && a->state != TNL_ATTEMPT_NONE)
        return;
    /* We are on our way elsewhere. That may be the same server, under another address: it takes the
     * HELLO for the end of this session. */
    if (a->state == TNL_ATTEMPT_HANDSHAKE ||
        (a->state == TNL_ATTEMPT_DIALING && error != TUNNEL_E_REPLACED))
        return;
    /* Final, so that two that are one never fight. */
    if (error == TUNNEL_E_REPLACED && c->state == TNL_CLIENT_RUNNING) {
        tnl_client_give_up(c, r->server, error, detail);
        return;
    }
    bool again = tnl_servers_over(c, r);
    if (tnl_loop_now(c->loop) - r->live_since >= TNL_STABLE_MS || (r->goaway && again))
        tnl_backoff_reset(&a->backoff);
    /* Who says that it stops has failed; whose connection was cut is asked first. */
    if (error != TUNNEL_E_GONE && again)
        a->tried = c->server_count;
    tnl_servers_failed(c, r->server, error ? error : TUNNEL_E_EOF, detail, 0);
}

static void on_closed(void *user, int error, const char *detail)
{
    tnl_relation *r = user;
    tnl_client *c = r->client;
    bool current = r == c->current;
    r->session = NULL;
    if (current)
        c->current = NULL;
    tnl_client_flows_lost(r);
    tnl_wipe(r->secret, sizeof(r->secret));
    if (current)
        lost_for_good(c, r, error, detail);
    tnl_relation_maybe_gone(r);
}

static const tnl_session_events session_events = {.open = tnl_client_on_open,
                                                  .control = tnl_client_on_control,
                                                  .event = tnl_client_on_event_frame,
                                                  .datagram = tnl_client_on_datagram,
                                                  .parked = on_parked,
                                                  .closed = on_closed};

/* --- the beginning ---------------------------------------------------------------------------- */

static tnl_relation *relation_new(tnl_client *c, const tnl_welcome *w)
{
    tnl_relation *r = tnl_calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->client = c;
    r->number = ++c->last_relation;
    r->server = c->attempt.server;
    r->generation = w->generation;
    r->began = tnl_loop_now(c->loop);
    memcpy(r->session_id, w->session, sizeof(r->session_id));
    memcpy(r->secret, w->secret, sizeof(r->secret));
    tnl_list_init(&r->flows);
    tnl_list_init(&r->lanes);
    tnl_task_init(&r->gone, on_gone, r);
    tnl_list_add_tail(&c->relations, &r->node);
    tnl_client_hold(c);
    return r;
}

int tnl_relation_begin(tnl_client *c, tnl_link *l, const tnl_welcome *w)
{
    tnl_mux_config config = {.local = tnl_relation_limits,
                             .remote = w->limits,
                             .max_window = MAX_WINDOW,
                             .far_window = TNL_MUX_MAX_FAR,
                             .surplus = SURPLUS};
    const char *address = c->servers[c->attempt.server].address;
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTED, .text = address, .host = address};
    tnl_relation *old = c->current;
    tnl_relation *r = relation_new(c, w);
    if (!r)
        return TUNNEL_E_NOMEM;
    int rc = tnl_session_new(&r->session, c->loop, &config, &session_events, r);
    if (rc == 0)
        rc = tnl_link_bind(l, r->session);
    if (rc) {
        if (r->session)
            tnl_session_broken(r->session, rc);
        tnl_relation_maybe_gone(r);
        return rc;
    }
    tnl_session_set_grace(r->session, w->grace_ms < MAX_GRACE_MS ? w->grace_ms : MAX_GRACE_MS);
    take_link(r, l);
    c->current = r;
    if (old)
        tnl_leave_begin(old);
    tnl_client_publish_all(c);
    tnl_client_tell(c, &e);
    return 0;
}
