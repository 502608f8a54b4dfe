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
    IN_FLIGHT = 4 * 1024 * 1024,
    MAX_PROBES = 8,
};

static const tnl_limits local_limits = {
    .max_frame = MAX_FRAME, .max_streams = 0, .window = FIRST_WINDOW};

/* --- end of a client -------------------------------------------------------------------------- */

static void probe_free(tnl_probe *p)
{
    tnl_list_remove(&p->node);
    tnl_timer_free(p->timer);
    if (p->wanted)
        tnl_tunnel_free(p->wanted);
    tnl_free(p);
}

static void drop_tunnels(tnl_peer *p)
{
    for (tnl_list *n; (n = tnl_list_first(&p->probes));)
        probe_free(TNL_CONTAINER(n, tnl_probe, node));
    for (tnl_list *n; (n = tnl_list_first(&p->tunnels));)
        tnl_tunnel_free(TNL_CONTAINER(n, tnl_tunnel, of_peer));
}

static void tell_left(tnl_peer *p, int error, const char *detail)
{
    if (p->left_told)
        return;
    p->left_told = true;
    if (error == TUNNEL_E_PROTOCOL || error == TUNNEL_E_UNSUPPORTED)
        p->server->stats.broken_links++;
    tunnel_event e = {
        .type = TUNNEL_EVENT_CLIENT_LEFT, .account = p->account, .error = error, .text = detail};
    tnl_server_tell(p->server, &e);
}

static void peer_free_if_over(tnl_peer *p)
{
    tnl_server *s = p->server;
    if (p->link || p->session)
        return;
    drop_tunnels(p);
    tnl_list_remove(&p->node);
    s->peer_count--;
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
    /* The names are free at once: whoever displaced this client gets them in the same turn. */
    drop_tunnels(p);
}

/* --- publishing ------------------------------------------------------------------------------- */

static void send_control(tnl_peer *p, uint8_t type, const uint8_t *bytes, size_t n)
{
    tnl_mux *m = p->session ? tnl_session_mux(p->session) : NULL;
    int rc = m && n ? tnl_mux_control(m, type, bytes, n) : 0;
    if (rc)
        tnl_peer_close(p, rc, "the control stream is not read");
}

static void refuse(tnl_peer *p, uint64_t tunnel, int code, const char *message)
{
    uint8_t bytes[512];
    tnl_publish_failed m = {
        .tunnel = tunnel, .code = (uint32_t)-code, .message = tnl_str_of(message)};
    send_control(p, TNL_CONTROL_PUBLISH_FAILED, bytes,
                 tnl_publish_failed_encode(bytes, sizeof(bytes), &m));
}

static void publish(tnl_tunnel *t)
{
    tnl_peer *p = t->peer;
    uint64_t id = t->id;
    uint8_t bytes[1024];
    int rc = tnl_registry_add(t);
    if (rc) {
        tnl_tunnel_free(t);
        refuse(p, id, rc, tunnel_strerror(rc));
        return;
    }
    tnl_published m = {.tunnel = id, .name = tnl_str_of(t->label), .url = tnl_str_of(t->url)};
    send_control(p, TNL_CONTROL_PUBLISHED, bytes, tnl_published_encode(bytes, sizeof(bytes), &m));
}

/* The holder loses the name to another client of the same account, and is told for good. */
static void displace(tnl_tunnel *holder)
{
    tnl_peer *p = holder->peer;
    uint64_t id = holder->id;
    tnl_tunnel_free(holder);
    refuse(p, id, TUNNEL_E_REPLACED, "another client of the same account has taken the name");
}

static tnl_tunnel *holder_of(const tnl_tunnel *wanted)
{
    return tnl_registry_find(wanted->peer->server,
                             (tnl_http_span){wanted->host, strlen(wanted->host)});
}

static void taken(tnl_tunnel *wanted, const char *by)
{
    char text[200 + TNL_HOST_MAX];
    tnl_peer *p = wanted->peer;
    uint64_t id = wanted->id;
    snprintf(text, sizeof(text), "the name '%s' is held by %s", wanted->label, by);
    tnl_tunnel_free(wanted);
    refuse(p, id, TUNNEL_E_NAME_TAKEN, text);
}

/* The holder had its time to answer the ping. */
static void on_probe_over(void *user)
{
    tnl_probe *probe = user;
    tnl_tunnel *wanted = probe->wanted;
    tnl_tunnel *holder = holder_of(wanted);
    probe->wanted = NULL;
    /* Who has got the name meanwhile was never asked. */
    bool asked = holder && holder->number == probe->asked;
    bool alive = holder &&
                 (!asked || (holder->peer->session &&
                             tnl_session_last_heard(holder->peer->session) >= probe->started));
    bool same_account = holder && strcmp(holder->peer->account, wanted->peer->account) == 0;
    probe_free(probe);
    if (holder && (alive || !same_account)) {
        taken(wanted, same_account ? "another live client of this account" : "another account");
        return;
    }
    if (holder)
        displace(holder);
    publish(wanted);
}

static int start_probe(tnl_tunnel *wanted, tnl_tunnel *holder)
{
    tnl_peer *p = wanted->peer;
    size_t running = 0;
    for (tnl_list *n = p->probes.next; n != &p->probes; n = n->next)
        running++;
    tnl_probe *probe = running < MAX_PROBES ? tnl_calloc(1, sizeof(*probe)) : NULL;
    if (!probe)
        return TUNNEL_E_NOMEM;
    if (tnl_timer_new(&probe->timer, p->server->loop, on_probe_over, probe)) {
        tnl_free(probe);
        return TUNNEL_E_NOMEM;
    }
    probe->peer = p;
    probe->wanted = wanted;
    probe->asked = holder->number;
    /* Heard in this very turn is alive as well: on a fast path the answer comes within the same
     * millisecond. */
    probe->started = tnl_loop_now(p->server->loop);
    tnl_list_add_tail(&p->probes, &probe->node);
    tnl_timer_start(probe->timer, TNL_PROBE_MS);
    if (holder->peer->session)
        tnl_session_ping(holder->peer->session);
    return 0;
}

static bool id_in_use(const tnl_peer *p, uint64_t id)
{
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next)
        if (TNL_CONTAINER(n, tnl_tunnel, of_peer)->id == id)
            return true;
    for (tnl_list *n = p->probes.next; n != &p->probes; n = n->next)
        if (TNL_CONTAINER(n, tnl_probe, node)->wanted->id == id)
            return true;
    return false;
}

static int on_publish(tnl_peer *p, const uint8_t *bytes, size_t n)
{
    tnl_publish m;
    tnl_tunnel *t;
    int rc = tnl_publish_decode(&m, bytes, n);
    if (rc || id_in_use(p, m.tunnel))
        return TUNNEL_E_PROTOCOL;
    if (!tnl_str_eq(m.kind, "http")) {
        refuse(p, m.tunnel, TUNNEL_E_UNSUPPORTED, "this server publishes http only");
        return 0;
    }
    if (p->tunnel_count >= TNL_MAX_TUNNELS) {
        refuse(p, m.tunnel, TUNNEL_E_LIMIT_EXCEEDED, "a client may publish 64 tunnels");
        return 0;
    }
    rc = tnl_tunnel_new(&t, p, m.tunnel, m.name, m.host_header);
    if (rc) {
        refuse(p, m.tunnel, rc,
               rc == TUNNEL_E_NAME_INVALID
                   ? "not a DNS label: use 1 to 63 of a-z, 0-9 and '-', or '@' for the root domain"
                   : tunnel_strerror(rc));
        return 0;
    }
    tnl_tunnel *holder = holder_of(t);
    if (!holder) {
        publish(t);
    } else if (strcmp(holder->peer->account, p->account) != 0) {
        taken(t, "another account");
    } else if (holder->peer == p) {
        taken(t, "this client already");
    } else if (p->force) {
        displace(holder);
        publish(t);
    } else if (start_probe(t, holder)) {
        taken(t, "another client of this account");
    }
    return 0;
}

static int on_unpublish(tnl_peer *p, const uint8_t *bytes, size_t n)
{
    tnl_unpublish m;
    if (tnl_unpublish_decode(&m, bytes, n))
        return TUNNEL_E_PROTOCOL;
    for (tnl_list *node = p->tunnels.next; node != &p->tunnels; node = node->next) {
        tnl_tunnel *t = TNL_CONTAINER(node, tnl_tunnel, of_peer);
        if (t->id == m.tunnel) {
            tnl_tunnel_free(t);
            return 0;
        }
    }
    for (tnl_list *node = p->probes.next; node != &p->probes; node = node->next) {
        tnl_probe *probe = TNL_CONTAINER(node, tnl_probe, node);
        if (probe->wanted->id == m.tunnel) {
            probe_free(probe);
            return 0;
        }
    }
    return 0;
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
    send_control(p, TNL_CONTROL_REAUTH_RESULT, out,
                 tnl_reauth_result_encode(out, sizeof(out), &result));
    return 0;
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

static int session_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    switch (type) {
    case TNL_CONTROL_PUBLISH:
        return on_publish(user, p, n);
    case TNL_CONTROL_UNPUBLISH:
        return on_unpublish(user, p, n);
    case TNL_CONTROL_REAUTH:
        return on_reauth(user, p, n);
    default:
        return type & TNL_FRAME_CRITICAL ? TUNNEL_E_UNSUPPORTED : 0;
    }
}

static void session_closed(void *user, int error, const char *detail)
{
    tnl_peer *p = user;
    p->session = NULL;
    tell_left(p, error, detail);
    drop_tunnels(p);
    peer_free_if_over(p);
}

static const tnl_session_events session_events = {
    .open = session_open, .control = session_control, .closed = session_closed};

/* --- link ------------------------------------------------------------------------------------- */

static void replace_older(const tnl_peer *p)
{
    tnl_server *s = p->server;
    for (tnl_list *n = s->peers.next, *next; n != &s->peers; n = next) {
        tnl_peer *old = TNL_CONTAINER(n, tnl_peer, node);
        next = n->next;
        if (old != p && old->session && strcmp(old->account, p->account) == 0 &&
            memcmp(old->instance, p->instance, TNL_ID_SIZE) == 0)
            tnl_peer_close(old, TUNNEL_E_REPLACED,
                           "a newer connection of the same client has taken over");
    }
}

static int welcome(tnl_peer *p, const tnl_hello *hello)
{
    tnl_server *s = p->server;
    uint8_t bytes[512];
    tnl_welcome w = {.version = TNL_PROTOCOL_VERSION,
                     .generation = ++s->generation,
                     .agent = tnl_str_of("libtunnel/" TUNNEL_VERSION),
                     .limits = local_limits};
    tnl_mux_config config = {.server = true,
                             .local = local_limits,
                             .remote = hello->limits,
                             .max_window = MAX_WINDOW,
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
    tnl_wipe(&w, sizeof(w));
    return rc;
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    tnl_peer *p = user;
    tnl_hello hello;
    (void)l;
    if (f->type == TNL_FRAME_ATTACH)
        return TUNNEL_E_GONE;
    if (f->type != TNL_FRAME_HELLO || tnl_hello_decode(&hello, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (hello.version_min > TNL_PROTOCOL_VERSION || hello.version_max < TNL_PROTOCOL_VERSION)
        return TUNNEL_E_VERSION;
    memcpy(p->instance, hello.instance, sizeof(p->instance));
    p->force = hello.force;
    replace_older(p);
    int rc = welcome(p, &hello);
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
    (void)l;
    (void)http_status;
    p->link = NULL;
    if (!p->session)
        tell_left(p, error, detail);
    peer_free_if_over(p);
}

static const tnl_link_events link_events = {.handshake = on_handshake, .closed = on_link_closed};

void tnl_peer_accept(tnl_server *s, tnl_conn *c, const char *account, const char *from,
                     const uint8_t *head, size_t n)
{
    tnl_transport *t = NULL;
    tnl_link_config config = {.handshake_ms = HANDSHAKE_MS,
                              .silence_ms = s->config.silence_ms,
                              .max_data = MAX_FRAME,
                              .inflight = IN_FLIGHT};
    tnl_peer *p = tnl_calloc(1, sizeof(*p));
    if (!p)
        goto fail;
    p->server = s;
    tnl_list_init(&p->tunnels);
    tnl_list_init(&p->probes);
    snprintf(p->account, sizeof(p->account), "%s", account);
    snprintf(p->from, sizeof(p->from), "%s", from);
    if (tnl_link_new(&p->link, s->loop, &config, &link_events, p))
        goto fail;
    if (tnl_ws_accept(&t, s->ws, c, head, n, tnl_link_transport_events(), p->link)) {
        tnl_link_discard(p->link);
        tnl_free(p);
        return;
    }
    tnl_list_add_tail(&s->peers, &p->node);
    s->peer_count++;
    tnl_link_set_transport(p->link, t);
    return;
fail:
    tnl_free(p);
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_close(c);
}
