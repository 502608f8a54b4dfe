/* SPDX-License-Identifier: Apache-2.0 */
#include "server/server.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "crypto/crypto.h"
#include "server/arrival.h"
#include "server/internal.h"
#include "server/raw.h"
#include "server/visitor.h"
#include "tunnel/error.h"

enum { SWEEP_MS = 500 };

void tnl_server_tell(tnl_server *s, const tunnel_event *e)
{
    if (s->event)
        s->event(s->event_user, e);
}

void tnl_server_on_event(tnl_server *s, tnl_server_event_cb cb, void *user)
{
    s->event = cb;
    s->event_user = user;
}

/* --- making ----------------------------------------------------------------------------------- */

static void free_certs(tnl_server_config *c)
{
    for (size_t i = 0; i < c->cert_count; i++) {
        tnl_free(c->certs[i].cert_file);
        tnl_free(c->certs[i].key_file);
    }
    c->cert_count = 0;
}

static int copy_certs(tnl_server_config *to, const tnl_server_config *from)
{
    to->cert_count = 0;
    for (size_t i = 0; i < from->cert_count; i++) {
        tnl_server_cert *c = &to->certs[i];
        c->cert_file = tnl_strdup(from->certs[i].cert_file);
        c->key_file = tnl_strdup(from->certs[i].key_file);
        to->cert_count++;
        if (!c->cert_file || !c->key_file)
            return TUNNEL_E_NOMEM;
    }
    return 0;
}

static int load_certificates(const tnl_server_config *c, tnl_tls_server **out, char *detail,
                             size_t size)
{
    tnl_tls_server *tls;
    int rc = tnl_tls_server_new(&tls);
    if (rc)
        return rc;
    for (size_t i = 0; i < c->cert_count && rc == 0; i++)
        rc = tnl_tls_server_add(tls, c->certs[i].cert_file, c->certs[i].key_file, detail, size);
    if (rc)
        tnl_tls_server_unref(tls);
    else
        *out = tls;
    return rc;
}

static bool listens_for_tls(const tnl_server_config *c)
{
    for (size_t i = 0; i < c->listen_count; i++)
        if (c->listen[i].tls)
            return true;
    return false;
}

static void sweep(void *user)
{
    tnl_server *s = user;
    uint64_t now = tnl_loop_now(s->loop);
    for (tnl_list *n = s->peers.next; n != &s->peers; n = n->next)
        tnl_up_sweep(TNL_CONTAINER(n, tnl_peer, node), now);
    tnl_publish_sweep(s, now);
    tnl_names_look(s, now);
    tnl_claims_look(s, now);
    tnl_loop_defer(s->loop, &s->await_look);
    tnl_parked_look(s);
    tnl_timer_start(s->sweep, SWEEP_MS);
}

static void on_finish(void *user)
{
    tnl_server *s = user;
    void (*closed)(void *) = s->closed;
    void *closed_user = s->closed_user;
    tnl_timer_free(s->sweep);
    tnl_timer_free(s->drain_timer);
    tnl_turns_end(&s->handshakes);
    tnl_turns_end(&s->newcomers);
    tnl_task_cancel(&s->drain_look);
    tnl_task_cancel(&s->await_look);
    tnl_task_cancel(&s->revoke);
    if (s->ws)
        tnl_ws_free(s->ws);
    if (s->tls)
        tnl_tls_server_unref(s->tls);
    tnl_map_free(&s->names);
    tnl_claims_free(&s->claims);
    tnl_map_free(&s->sessions);
    tnl_map_free(&s->instances);
    tnl_map_free(&s->accounts);
    free_certs(&s->config);
    tnl_tokens_free(s->config.tokens);
    tnl_free(s->config.allowed);
    tnl_free(s);
    if (closed)
        closed(closed_user);
}

/* At the end of the turn: an event in which the server is closed may come from the midst of any
 * visitor or client. */
static void on_shutdown(void *user)
{
    tnl_server *s = user;
    tnl_claims_close(s);
    tnl_arrival_close_all(s);
    for (tnl_list *n = s->visitors.next, *next; n != &s->visitors; n = next) {
        next = n->next;
        tnl_visitor_close(n);
    }
    tnl_raw_stop(s);
    for (tnl_list *n = s->peers.next, *next; n != &s->peers; n = next) {
        next = n->next;
        tnl_peer_close(TNL_CONTAINER(n, tnl_peer, node), TUNNEL_E_GONE,
                       "the server is shutting down");
    }
    tnl_names_look(s, UINT64_MAX);
    tnl_server_maybe_closed(s);
}

/* Clients whose token is gone. */
static void on_revoke(void *user)
{
    tnl_server *s = user;
    for (tnl_list *n = s->peers.next, *next; n != &s->peers && !s->closing; n = next) {
        tnl_peer *p = TNL_CONTAINER(n, tnl_peer, node);
        next = n->next;
        if (!tnl_tokens_has(s->config.tokens, p->account))
            tnl_peer_close(p, TUNNEL_E_AUTH_FAILED, "the token is not valid any more");
    }
}

static void ws_log(void *user, const char *line)
{
    (void)user;
    (void)line;
}

static int make_loop_id(tnl_server *s)
{
    uint8_t random[8];
    int rc = tnl_random(random, sizeof(random));
    if (rc == 0)
        tnl_hex(s->loop_id, random, sizeof(random));
    return rc;
}

int tnl_server_new(tnl_server **out, tnl_loop *loop, const tnl_server_config *config, char *detail,
                   size_t size)
{
    uint64_t seed = 0;
    tnl_server *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->loop = loop;
    s->config = *config;
    s->config.cert_count = 0; /* until they are copied */
    s->config.tokens = NULL;
    s->config.allowed = NULL;
    s->generation = (uint64_t)time(NULL) << 20;
    tnl_list_init(&s->arrivals);
    tnl_list_init(&s->kept_names);
    tnl_list_init(&s->visitors);
    tnl_list_init(&s->awaiting);
    tnl_task_init(&s->await_look, tnl_await_look, s);
    tnl_list_init(&s->peers);
    tnl_list_init(&s->parked);
    tnl_task_init(&s->shutdown, on_shutdown, s);
    tnl_task_init(&s->finish, on_finish, s);
    tnl_task_init(&s->revoke, on_revoke, s);
    int rc = tnl_drain_init(s);
    if (rc == 0)
        rc = tnl_turns_init(&s->handshakes, loop, TNL_HANDSHAKES_TURN, TNL_HANDSHAKES_MAX,
                            tnl_arrival_turn);
    if (rc == 0)
        rc = tnl_turns_init(&s->newcomers, loop, TNL_NEWCOMERS_TURN, TNL_NEWCOMERS_MAX,
                            tnl_visitor_turn);
    if (rc == 0)
        rc = tnl_random(&seed, sizeof(seed));
    tnl_map_init(&s->names, seed);
    tnl_map_init(&s->sessions, seed + 1);
    tnl_map_init(&s->instances, seed + 2);
    tnl_map_init(&s->accounts, seed + 3);
    tnl_claims_init(&s->claims, seed + 4);
    if (rc == 0)
        rc = make_loop_id(s);
    if (rc == 0)
        rc = copy_certs(&s->config, config);
    if (rc == 0 && config->cert_count)
        rc = load_certificates(&s->config, &s->tls, detail, size);
    if (rc == 0)
        rc = tnl_timer_new(&s->sweep, loop, sweep, s);
    if (rc == 0)
        rc = tnl_ws_new(&s->ws, loop, ws_log, s);
    if (rc == 0)
        rc = tnl_raw_start(s);
    if (rc) {
        on_finish(s);
        return rc;
    }
    s->config.tokens = config->tokens;
    s->config.allowed = config->allowed;
    *out = s;
    return 0;
}

/* --- listening -------------------------------------------------------------------------------- */

static void on_accept_plain(void *user, tnl_conn *c)
{
    tnl_arrival_accept(user, c, false);
}

static void on_accept_tls(void *user, tnl_conn *c)
{
    tnl_arrival_accept(user, c, true);
}

static void tell_listening(tnl_server *s, size_t i)
{
    char url[128];
    tnl_address a = tnl_listener_address(s->listeners[i]);
    const char *scheme = s->config.listen[i].tls ? "https" : "http";
    if (a.host[0] == '\0')
        snprintf(url, sizeof(url), "%.120s", s->config.listen[i].address);
    else
        snprintf(url, sizeof(url), a.ipv6 ? "%s://[%s]:%u" : "%s://%s:%u", scheme, a.host, a.port);
    tunnel_event e = {.type = TUNNEL_EVENT_LISTENING, .url = url};
    tnl_server_tell(s, &e);
}

/* What visitors' URLs are made of: --public-url, else the first TLS listener, else the first one.
 */
static void choose_public(tnl_server *s)
{
    const tnl_server_config *c = &s->config;
    if (c->has_public_url) {
        snprintf(s->public_scheme, sizeof(s->public_scheme), "%s",
                 strcmp(c->public_url.scheme, "https") == 0 ? "https" : "http");
        snprintf(s->public_host, sizeof(s->public_host), "%s", c->public_url.host);
        s->public_port = c->public_url.port;
        s->tls_port = s->public_port ? s->public_port : 443;
        return;
    }
    size_t chosen = 0;
    for (size_t i = 0; i < c->listen_count; i++) {
        if (c->listen[i].tls) {
            chosen = i;
            break;
        }
    }
    bool tls = c->listen[chosen].tls;
    uint16_t port = tnl_listener_address(s->listeners[chosen]).port;
    snprintf(s->public_scheme, sizeof(s->public_scheme), "%s", tls ? "https" : "http");
    snprintf(s->public_host, sizeof(s->public_host), "%s", c->domain);
    s->public_port = port == (tls ? 443 : 80) ? 0 : port;
    s->tls_port = port;
}

int tnl_server_start(tnl_server *s, char *detail, size_t size)
{
    if (s->ready || s->closing)
        return TUNNEL_E_STATE;
    int rc = 0;
    for (size_t i = 0; i < s->config.listen_count && rc == 0; i++) {
        const tnl_server_listen *l = &s->config.listen[i];
        rc = tnl_listener_new(&s->listeners[i], s->loop, l->address,
                              l->tls ? on_accept_tls : on_accept_plain, s, detail, size);
    }
    /* Not before the addresses are this server's: the file may be that of the one that has them. */
    if (rc == 0)
        rc = tnl_claims_open(s, detail, size);
    if (rc) {
        tnl_server_stop_listening(s);
        return rc;
    }
    choose_public(s);
    s->ready = true;
    tnl_timer_start(s->sweep, SWEEP_MS);
    for (size_t i = 0; i < s->config.listen_count && !s->closing; i++)
        tell_listening(s, i);
    return 0;
}

int tnl_server_reload_certificates(tnl_server *s, char *detail, size_t size)
{
    tnl_tls_server *fresh;
    if (!s->tls)
        return 0;
    int rc = load_certificates(&s->config, &fresh, detail, size);
    if (rc)
        return rc;
    tnl_tls_server_unref(s->tls);
    s->tls = fresh;
    return 0;
}

static bool same_listeners(const tnl_server_config *a, const tnl_server_config *b)
{
    bool same = a->listen_count == b->listen_count;
    for (size_t i = 0; i < a->listen_count && same; i++)
        same = a->listen[i].tls == b->listen[i].tls &&
               strcmp(a->listen[i].address, b->listen[i].address) == 0;
    return same;
}

static bool same_public_url(const tnl_server_config *a, const tnl_server_config *b)
{
    if (a->has_public_url != b->has_public_url)
        return false;
    return !a->has_public_url || (strcmp(a->public_url.host, b->public_url.host) == 0 &&
                                  strcmp(a->public_url.scheme, b->public_url.scheme) == 0 &&
                                  a->public_url.port == b->public_url.port);
}

/* Names what differs that only a new server can take over. false: nothing does. */
static bool needs_restart(const tnl_server_config *a, const tnl_server_config *b, char *detail,
                          size_t size)
{
    const char *const changed[] = {
        same_listeners(a, b) ? NULL : "the addresses to listen on",
        strcmp(a->domain, b->domain) == 0 ? NULL : "the domain",
        same_public_url(a, b) ? NULL : "the public URL",
        a->path_routing == b->path_routing ? NULL : "routing by path",
        strcmp(a->state_file, b->state_file) == 0 ? NULL : "the state file",
    };
    char names[128] = "";
    size_t n = 0;
    for (size_t i = 0; i < sizeof(changed) / sizeof(*changed); i++)
        if (changed[i])
            n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", n ? ", " : "", changed[i]);
    if (n)
        snprintf(detail, size, "a change of %s takes effect with a restart only", names);
    return n > 0;
}

/* The one that takes what can change from `fresh` and keeps the rest of `old`. */
static void take_over(tnl_server_config *old, const tnl_server_config *fresh)
{
    tnl_tokens_free(old->tokens);
    tnl_free(old->allowed);
    old->tokens = fresh->tokens;
    old->allowed = fresh->allowed;
    old->allowed_count = fresh->allowed_count;
    old->silence_ms = fresh->silence_ms;
    old->answer_timeout_ms = fresh->answer_timeout_ms;
    old->grace_ms = fresh->grace_ms;
    old->hold_ms = fresh->hold_ms;
    old->access_events = fresh->access_events;
    old->tcp_ports = fresh->tcp_ports;
    old->udp_ports = fresh->udp_ports;
    old->udp_flows = fresh->udp_flows;
    old->udp_flows_per_source = fresh->udp_flows_per_source;
}

int tnl_server_reload(tnl_server *s, const tnl_server_config *config, char *detail, size_t size)
{
    tnl_tls_server *tls = NULL;
    tnl_server_config *copy = tnl_malloc(sizeof(*copy));
    if (!copy)
        return TUNNEL_E_NOMEM;
    int rc = copy_certs(copy, config);
    if (rc == 0 && copy->cert_count)
        rc = load_certificates(copy, &tls, detail, size);
    if (rc) {
        free_certs(copy);
        tnl_free(copy);
        return rc;
    }
    /* A listener for TLS stays until the restart, and with it what it speaks with. */
    if (tls || !listens_for_tls(&s->config)) {
        tnl_tls_server_unref(s->tls);
        s->tls = tls;
        free_certs(&s->config);
        memcpy(s->config.certs, copy->certs, sizeof(copy->certs));
        s->config.cert_count = copy->cert_count;
    }
    tnl_free(copy); /* it has none that the server does not have now */
    bool restart = needs_restart(&s->config, config, detail, size);
    take_over(&s->config, config);
    tnl_loop_defer(s->loop, &s->revoke);
    return restart ? TUNNEL_E_STATE : 0;
}

const tnl_server_stats *tnl_server_get_stats(const tnl_server *s)
{
    return &s->stats;
}

/* --- the end ---------------------------------------------------------------------------------- */

void tnl_server_maybe_closed(tnl_server *s)
{
    if (s->closing && tnl_list_empty(&s->arrivals) && tnl_list_empty(&s->visitors) &&
        tnl_list_empty(&s->peers) && !s->raw && !s->raw_stopping)
        tnl_loop_defer(s->loop, &s->finish);
    tnl_drain_changed(s);
}

void tnl_server_stop_listening(tnl_server *s)
{
    for (size_t i = 0; i < s->config.listen_count; i++) {
        if (s->listeners[i])
            tnl_listener_free(s->listeners[i]);
        s->listeners[i] = NULL;
    }
}

void tnl_server_close(tnl_server *s, void (*closed)(void *user), void *user)
{
    if (s->closing)
        return;
    s->closing = true;
    s->ready = false;
    if (!s->drain) {
        s->closed = closed;
        s->closed_user = user;
    }
    tnl_timer_stop(s->drain_timer);
    tnl_server_stop_listening(s);
    tnl_loop_defer(s->loop, &s->shutdown);
}
