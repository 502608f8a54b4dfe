/* SPDX-License-Identifier: Apache-2.0 */
#include "server/server.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "crypto/crypto.h"
#include "server/internal.h"
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

static int copy_certs(tnl_server *s, const tnl_server_config *from)
{
    for (size_t i = 0; i < from->cert_count; i++) {
        tnl_server_cert *c = &s->config.certs[i];
        c->cert_file = tnl_strdup(from->certs[i].cert_file);
        c->key_file = tnl_strdup(from->certs[i].key_file);
        s->config.cert_count++;
        if (!c->cert_file || !c->key_file)
            return TUNNEL_E_NOMEM;
    }
    return 0;
}

static int load_certificates(const tnl_server *s, tnl_tls_server **out, char *detail, size_t size)
{
    tnl_tls_server *tls;
    int rc = tnl_tls_server_new(&tls);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->config.cert_count && rc == 0; i++)
        rc = tnl_tls_server_add(tls, s->config.certs[i].cert_file, s->config.certs[i].key_file,
                                detail, size);
    if (rc)
        tnl_tls_server_unref(tls);
    else
        *out = tls;
    return rc;
}

static bool wants_tls(const tnl_server_config *c)
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
    for (tnl_map_node *n = tnl_map_next(&s->tunnels, NULL); n; n = tnl_map_next(&s->tunnels, n))
        tnl_up_sweep(TNL_CONTAINER(n, tnl_tunnel, by_host), now);
    tnl_timer_start(s->sweep, SWEEP_MS);
}

static void on_finish(void *user)
{
    tnl_server *s = user;
    void (*closed)(void *) = s->closed;
    void *closed_user = s->closed_user;
    tnl_timer_free(s->sweep);
    if (s->ws)
        tnl_ws_free(s->ws);
    if (s->tls)
        tnl_tls_server_unref(s->tls);
    tnl_map_free(&s->tunnels);
    free_certs(&s->config);
    tnl_tokens_free(s->config.tokens);
    tnl_free(s);
    if (closed)
        closed(closed_user);
}

/* At the end of the turn: an event in which the server is closed may come from the midst of any
 * visitor or client. */
static void on_shutdown(void *user)
{
    tnl_server *s = user;
    for (tnl_list *n = s->visitors.next, *next; n != &s->visitors; n = next) {
        next = n->next;
        tnl_visitor_close(n);
    }
    for (tnl_list *n = s->peers.next, *next; n != &s->peers; n = next) {
        next = n->next;
        tnl_peer_close(TNL_CONTAINER(n, tnl_peer, node), TUNNEL_E_GONE,
                       "the server is shutting down");
    }
    tnl_server_maybe_closed(s);
}

static void ws_log(void *user, const char *line)
{
    (void)user;
    (void)line;
}

int tnl_server_new(tnl_server **out, tnl_loop *loop, const tnl_server_config *config, char *detail,
                   size_t size)
{
    uint64_t seed;
    tnl_server *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->loop = loop;
    s->config = *config;
    s->config.cert_count = 0; /* until they are copied */
    s->config.tokens = NULL;
    s->generation = (uint64_t)time(NULL) << 20;
    tnl_list_init(&s->visitors);
    tnl_list_init(&s->peers);
    tnl_task_init(&s->shutdown, on_shutdown, s);
    tnl_task_init(&s->finish, on_finish, s);
    int rc = tnl_random(&seed, sizeof(seed));
    tnl_map_init(&s->tunnels, seed);
    if (rc == 0)
        rc = copy_certs(s, config);
    if (rc == 0 && wants_tls(config))
        rc = load_certificates(s, &s->tls, detail, size);
    if (rc == 0)
        rc = tnl_timer_new(&s->sweep, loop, sweep, s);
    if (rc == 0)
        rc = tnl_ws_new(&s->ws, loop, ws_log, s);
    if (rc) {
        on_finish(s);
        return rc;
    }
    s->config.tokens = config->tokens;
    *out = s;
    return 0;
}

/* --- listening -------------------------------------------------------------------------------- */

static void on_accept_plain(void *user, tnl_conn *c)
{
    tnl_visitor_accept(user, c, false);
}

static void on_accept_tls(void *user, tnl_conn *c)
{
    tnl_visitor_accept(user, c, true);
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
}

int tnl_server_start(tnl_server *s, char *detail, size_t size)
{
    if (s->ready || s->closing)
        return TUNNEL_E_STATE;
    for (size_t i = 0; i < s->config.listen_count; i++) {
        const tnl_server_listen *l = &s->config.listen[i];
        int rc = tnl_listener_new(&s->listeners[i], s->loop, l->address,
                                  l->tls ? on_accept_tls : on_accept_plain, s, detail, size);
        if (rc) {
            while (i-- > 0) {
                tnl_listener_free(s->listeners[i]);
                s->listeners[i] = NULL;
            }
            return rc;
        }
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
    int rc = load_certificates(s, &fresh, detail, size);
    if (rc)
        return rc;
    tnl_tls_server_unref(s->tls);
    s->tls = fresh;
    return 0;
}

const tnl_server_stats *tnl_server_get_stats(const tnl_server *s)
{
    return &s->stats;
}

/* --- the end ---------------------------------------------------------------------------------- */

void tnl_server_maybe_closed(tnl_server *s)
{
    if (s->closing && tnl_list_empty(&s->visitors) && tnl_list_empty(&s->peers))
        tnl_loop_defer(s->loop, &s->finish);
}

void tnl_server_close(tnl_server *s, void (*closed)(void *user), void *user)
{
    if (s->closing)
        return;
    s->closing = true;
    s->ready = false;
    s->closed = closed;
    s->closed_user = user;
    for (size_t i = 0; i < s->config.listen_count; i++) {
        if (s->listeners[i])
            tnl_listener_free(s->listeners[i]);
        s->listeners[i] = NULL;
    }
    tnl_loop_defer(s->loop, &s->shutdown);
}
