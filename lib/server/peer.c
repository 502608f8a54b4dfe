/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/crypto.h"
#include "server/internal.h"
#include "tunnel/error.h"
#include "tunnel/version.h"
#include "wire/message.h"

enum {
    HANDSHAKE_MS = 10000,
    MAX_FRAME = 65536,
    FIRST_WINDOW = 16384,
    MAX_WINDOW = 256 * 1024,
    SURPLUS = 32 * 1024 * 1024,
};

static const tnl_limits local_limits = {
    .max_frame = MAX_FRAME, .max_streams = 0, .window = FIRST_WINDOW};

/* --- end of a client -------------------------------------------------------------------------- */

static void tell_left(tnl_peer *p, int error, const char *detail)
{
    if (p->left_told)
        return;
    p->left_told = true;
    if (error == TUNNEL_E_PROTOCOL || error == TUNNEL_E_UNSUPPORTED)
        p->server->stats.broken_links++;
    tunnel_event e = {
        .type = TUNNEL_EVENT_CLIENT_LEFT, .account = p->account, .error = error, .text = detail};
    if (p->owner) /* it had joined */
        tnl_server_tell(p->server, &e);
}

void tnl_peer_control(tnl_peer *p, uint8_t type, const uint8_t *bytes, size_t n)
{
    tnl_mux *m = p->session ? tnl_session_mux(p->session) : NULL;
    int rc = m && n ? tnl_mux_control(m, type, bytes, n) : 0;
    if (rc)
        tnl_peer_close(p, rc, "the control stream is not read");
}

/* It can neither be attached to nor be replaced any more. */
static void forget(tnl_peer *p)
{
    tnl_server *s = p->server;
    tnl_parked_leave(p);
    if (!p->known)
        return;
    p->known = false;
    tnl_map_remove(&s->sessions, &p->by_id);
    tnl_map_remove(&s->instances, &p->by_instance);
}

static void peer_free_if_over(tnl_peer *p)
{
    tnl_server *s = p->server;
    if (p->links || p->session)
        return;
    tnl_publish_drop_all(p);
    tnl_account_leave(&s->accounts, p->owner);
    tnl_list_remove(&p->node);
    s->peer_count--;
    tnl_wipe(p, sizeof(*p));
    tnl_free(p);
    tnl_server_maybe_closed(s);
}

void tnl_peer_close(tnl_peer *p, int code, const char *text)
{
    if (p->session)
        tnl_session_close(p->session, code, text);
    else if (p->link)
        tnl_link_close(p->link, code, text);
    tell_left(p, code, text ? text : "");
    forget(p);
    /* The names are free at once: whoever displaced this client gets them in the same turn. */
    tnl_publish_drop_all(p);
}

/* --- session ---------------------------------------------------------------------------------- */

static void session_open(void *user, tnl_stream *s, const uint8_t *map, size_t n)
{
    /* Clients open no streams yet (our max_streams is 0): not taking it refuses it. */
    (void)user;
    (void)s;
    (void)map;
    (void)n;
}

static int on_reauth(tnl_peer *p, const uint8_t *bytes, size_t n)
{
    tnl_reauth m;
    char account[TNL_ACCOUNT_SIZE];
    uint8_t out[256];
    if (tnl_reauth_decode(&m, bytes, n))
        return TUNNEL_E_PROTOCOL;
    int rc = tnl_tokens_check(p->server->config.tokens, m.token, account);
    if (rc == 0 && strcmp(account, p->account) != 0)
        rc = TUNNEL_E_DENIED;
    tnl_reauth_result result = {.code = (uint32_t)-rc,
                                .message = tnl_str_of(rc ? tunnel_strerror(rc) : "")};
    tnl_peer_control(p, TNL_CONTROL_REAUTH_RESULT, out,
                     tnl_reauth_result_encode(out, sizeof(out), &result));
    return 0;
}

static int session_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    switch (type) {
    case TNL_CONTROL_PUBLISH:
    case TNL_CONTROL_UNPUBLISH:
        return tnl_publish_control(user, type, p, n);
    case TNL_CONTROL_REAUTH:
        return on_reauth(user, p, n);
    default:
        return type & TNL_FRAME_CRITICAL ? TUNNEL_E_UNSUPPORTED : 0;
    }
}

static void session_datagram(void *user, const tnl_datagram *d)
{
    tnl_udp_answer(user, d);
}

static void session_dropped(void *user, uint64_t count)
{
    tnl_peer *p = user;
    p->server->stats.datagrams_dropped += count;
}

static void session_closed(void *user, int error, const char *detail)
{
    tnl_peer *p = user;
    p->session = NULL;
    tell_left(p, error, detail);
    forget(p);
    tnl_publish_drop_all(p);
    peer_free_if_over(p);
}

static void session_parked(void *user, int error, const char *detail)
{
    tnl_peer *p = user;
    if (p->server->closing || p->server->drain > TNL_DRAIN_MOVE || !tnl_parked_add(p)) {
        tnl_peer_close(p, error, detail);
        return;
    }
    tunnel_event e = {.type = TUNNEL_EVENT_CLIENT_PARKED,
                      .account = p->account,
                      .error = error,
                      .text = detail,
                      .delay_ms = p->server->config.grace_ms};
    tnl_server_tell(p->server, &e);
}

bool tnl_peer_away(const tnl_peer *p)
{
    return p->session && tnl_session_parked(p->session);
}

static const tnl_session_events session_events = {.open = session_open,
                                                  .control = session_control,
                                                  .datagram = session_datagram,
                                                  .dropped = session_dropped,
                                                  .parked = session_parked,
                                                  .closed = session_closed};

/* --- link ------------------------------------------------------------------------------------- */

enum { INSTANCE_KEY = TNL_ACCOUNT_SIZE + TNL_ID_SIZE };
_Static_assert(offsetof(tnl_peer, instance) == offsetof(tnl_peer, account) + TNL_ACCOUNT_SIZE,
               "the account and the instance are a key together");

/* A client that comes back takes the place of its former session. */
static bool has_room(const tnl_peer *p)
{
    return p->server->sessions.count < TNL_MAX_CLIENTS ||
           tnl_map_get(&p->server->instances, p->account, INSTANCE_KEY);
}

static void replace_older(const tnl_peer *p)
{
    tnl_map_node *n = tnl_map_get(&p->server->instances, p->account, INSTANCE_KEY);
    tnl_peer *old = n ? TNL_CONTAINER(n, tnl_peer, by_instance) : NULL;
    if (!old)
        return;
    tnl_names_keep(old);
    tnl_peer_close(old, TUNNEL_E_REPLACED, "a newer connection of the same client has taken over");
}

/* It can be attached to, and be replaced, from here on. */
static int make_known(tnl_peer *p)
{
    tnl_server *s = p->server;
    if (tnl_map_put(&s->sessions, &p->by_id, p->id, sizeof(p->id)))
        return TUNNEL_E_NOMEM;
    if (tnl_map_put(&s->instances, &p->by_instance, p->account, INSTANCE_KEY)) {
        tnl_map_remove(&s->sessions, &p->by_id);
        return TUNNEL_E_NOMEM;
    }
    p->known = true;
    return 0;
}

static int welcome(tnl_peer *p, const tnl_hello *hello)
{
    tnl_server *s = p->server;
    uint8_t bytes[512];
    tnl_welcome w = {.version = TNL_PROTOCOL_VERSION,
                     .generation = ++s->generation,
                     .grace_ms = s->config.grace_ms,
                     .agent = tnl_str_of("libtunnel/" TUNNEL_VERSION),
                     .limits = local_limits};
    tnl_mux_config config = {.server = true,
                             .local = local_limits,
                             .remote = hello->limits,
                             .max_window = MAX_WINDOW,
                             .far_window = TNL_MUX_MAX_FAR,
                             .surplus = SURPLUS};
    int rc = tnl_random(w.session, sizeof(w.session));
    if (rc == 0)
        rc = tnl_random(w.secret, sizeof(w.secret));
    if (rc == 0)
        rc = tnl_session_new(&p->session, s->loop, &config, &session_events, p);
    if (rc == 0) {
        rc = tnl_link_bind(p->link, p->session);
        if (rc)
            tnl_session_close(p->session, rc, NULL);
    }
    tnl_frame f = {.type = TNL_FRAME_WELCOME, .rest = bytes};
    f.rest_len = tnl_welcome_encode(bytes, sizeof(bytes), &w);
    if (rc == 0)
        rc = f.rest_len ? tnl_link_send(p->link, &f) : TUNNEL_E_LIMIT;
    if (rc == 0) {
        memcpy(p->id, w.session, sizeof(p->id));
        memcpy(p->secret, w.secret, sizeof(p->secret));
        p->generation = w.generation;
        tnl_session_set_grace(p->session, w.grace_ms);
        rc = make_known(p);
    }
    tnl_wipe(&w, sizeof(w));
    tnl_wipe(bytes, sizeof(bytes));
    return rc;
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    tnl_peer *p = user;
    tnl_hello hello;
    if (f->type == TNL_FRAME_ATTACH)
        return tnl_peer_attach(p, l, f->rest, f->rest_len);
    if (f->type != TNL_FRAME_HELLO || p->is_lane || tnl_hello_decode(&hello, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (hello.version_min > TNL_PROTOCOL_VERSION || hello.version_max < TNL_PROTOCOL_VERSION)
        return TUNNEL_E_VERSION;
    if (p->server->drain) { /* a session that begins now would have to move at once */
        tnl_link_close(l, TUNNEL_E_GONE, "the server is about to stop");
        return 0;
    }
    memcpy(p->instance, hello.instance, sizeof(p->instance));
    p->force = hello.force;
    if (!has_room(p))
        return TUNNEL_E_LIMIT;
    replace_older(p);
    p->owner = tnl_account_join(&p->server->accounts, p->account);
    int rc = p->owner ? welcome(p, &hello) : TUNNEL_E_NOMEM;
    if (rc) {
        if (p->session)
            tnl_session_broken(p->session, rc);
        return rc;
    }
    p->server->stats.sessions++;
    tunnel_event e = {.type = TUNNEL_EVENT_CLIENT_JOINED, .account = p->account, .text = p->from};
    tnl_server_tell(p->server, &e);
    return 0;
}

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    tnl_peer *p = user;
    (void)http_status;
    p->links--;
    if (p->link == l)
        p->link = NULL;
    if (!p->session)
        tell_left(p, error, detail);
    peer_free_if_over(p);
}

const tnl_link_events tnl_peer_link_events = {.handshake = on_handshake, .closed = on_link_closed};

/* A client of which nothing but its connection is known; NULL: no memory. */
static tnl_peer *peer_new(tnl_server *s, const char *account, const char *from, bool lane)
{
    tnl_link_config config = {.handshake_ms = HANDSHAKE_MS,
                              .silence_ms = s->config.silence_ms,
                              .max_data = MAX_FRAME,
                              .inflight = TNL_MUX_MAX_FLIGHT,
                              .fallback = !lane,
                              .unproven = lane};
    tnl_peer *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->server = s;
    p->is_lane = lane;
    tnl_list_init(&p->of_parked);
    tnl_list_init(&p->tunnels);
    tnl_list_init(&p->probes);
    memcpy(p->account, account, strnlen(account, sizeof(p->account) - 1));
    snprintf(p->from, sizeof(p->from), "%s", from);
    if (tnl_link_new(&p->link, s->loop, &config, &tnl_peer_link_events, p)) {
        tnl_free(p);
        return NULL;
    }
    p->links = 1;
    return p;
}

static void begin(tnl_peer *p, tnl_transport *t)
{
    tnl_list_add_tail(&p->server->peers, &p->node);
    p->server->peer_count++;
    tnl_link_set_transport(p->link, t);
}

static void give_up(tnl_peer *p)
{
    tnl_link_discard(p->link);
    tnl_free(p);
}

static void turn_away(tnl_conn *c)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_close(c);
}

void tnl_peer_accept(tnl_server *s, tnl_conn *c, const char *account, const char *from,
                     const uint8_t *head, size_t n)
{
    tnl_transport *t = NULL;
    tnl_peer *p = peer_new(s, account, from, false);
    if (!p)
        turn_away(c);
    else if (tnl_ws_accept(&t, s->ws, c, head, n, tnl_link_transport_events(), p->link))
        give_up(p);
    else
        begin(p, t);
}

void tnl_peer_accept_lane(tnl_server *s, tnl_conn *c, const char *account, const char *from,
                          const uint8_t *early, size_t n)
{
    tnl_transport *t = NULL;
    tnl_peer *p = peer_new(s, account, from, true);
    if (!p)
        turn_away(c);
    else if (tnl_lane_accept(&t, c, early, n, tnl_link_transport_events(), p->link))
        give_up(p);
    else
        begin(p, t);
}
