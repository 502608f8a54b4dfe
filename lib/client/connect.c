/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "tunnel/error.h"
#include "tunnel/version.h"

/*
 * The attempt: dials the server that servers.c chose, upgrades to a WebSocket, and says HELLO, or
 * ATTACH where the current relation waits for a new link of that server.
 */

enum {
    DIAL_MS = 10000,
    DIAL_SOON_MS = 4000,   /* while other servers can be tried */
    DIAL_PARKED_MS = 2000, /* while visitors wait: the path was there a moment ago */
    HANDSHAKE_MS = 10000,
    HANDSHAKE_SOON_MS = 5000,
    HURRY_ROUNDS = 4, /* after so many rounds in vain it may be that the path is slow */
    MAX_FRAME = 65536,
};

/* --- what is asked of a server ---------------------------------------------------------------- */

tnl_link_config tnl_client_link_config(const tnl_client *c)
{
    return (tnl_link_config){.handshake_ms = HANDSHAKE_MS,
                             .silence_ms = c->config.silence_ms,
                             .max_data = MAX_FRAME,
                             .inflight = TNL_MUX_MAX_FLIGHT};
}

const char *tnl_client_host(const tnl_client *c, size_t server, char out[TNL_CLIENT_HOST])
{
    const tnl_url *u = &c->config.servers[server];
    snprintf(out, TNL_CLIENT_HOST, u->ipv6 ? "[%s]:%u" : "%s:%u", u->host, u->port);
    return out;
}

const char *tnl_client_bearer(const tnl_client *c, char out[TNL_CLIENT_BEARER])
{
    snprintf(out, TNL_CLIENT_BEARER, "Bearer %s", c->config.token);
    return c->config.token[0] ? out : NULL;
}

tnl_dial_target tnl_client_target(const tnl_client *c, size_t server)
{
    const tnl_url *u = &c->config.servers[server];
    return (tnl_dial_target){.host = u->host,
                             .port = u->port,
                             .tls = strcmp(u->scheme, "wss") == 0 ? c->tls : NULL,
                             .proxy = c->config.has_proxy ? &c->config.proxy : NULL,
                             .timeout_ms = DIAL_MS,
                             .insists = true};
}

static bool in_a_hurry(const tnl_client *c)
{
    return c->attempt.backoff.attempt <= HURRY_ROUNDS;
}

static uint32_t dial_ms(const tnl_client *c)
{
    if (c->server_count == 1 || !in_a_hurry(c))
        return DIAL_MS;
    return c->current && !c->current->link ? DIAL_PARKED_MS : DIAL_SOON_MS;
}

/* --- ends ------------------------------------------------------------------------------------- */

static void on_abandoned(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    (void)l;
    (void)error;
    (void)http_status;
    (void)detail;
    tnl_client_release(user);
}

static int no_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    (void)user;
    (void)l;
    (void)f;
    return TUNNEL_E_GONE;
}

static const tnl_link_events abandoned_events = {.handshake = no_handshake, .closed = on_abandoned};

void tnl_client_abandon(tnl_client *c, tnl_link **l, int code, const char *text)
{
    if (!*l)
        return;
    tnl_client_hold(c);
    tnl_link_set_events(*l, &abandoned_events, c);
    tnl_link_close(*l, code, text);
    *l = NULL;
}

void tnl_attempt_stop(tnl_client *c)
{
    tnl_attempt *a = &c->attempt;
    tnl_timer_stop(a->timer);
    if (a->dial)
        tnl_dial_cancel(a->dial);
    a->dial = NULL;
    tnl_client_abandon(c, &a->link, TUNNEL_E_GONE, "the client is leaving");
    a->state = TNL_ATTEMPT_NONE;
}

static void failed(tnl_client *c, int error, const char *detail, uint32_t retry_after)
{
    c->attempt.state = TNL_ATTEMPT_NONE;
    tnl_servers_failed(c, c->attempt.server, error, detail, retry_after);
}

/* --- handshake -------------------------------------------------------------------------------- */

static int send_hello(tnl_client *c, tnl_link *l)
{
    uint8_t bytes[512];
    tnl_hello hello = {.version_min = TNL_PROTOCOL_VERSION,
                       .version_max = TNL_PROTOCOL_VERSION,
                       .force = c->config.force,
                       .agent = tnl_str_of("libtunnel/" TUNNEL_VERSION),
                       .limits = tnl_relation_limits};
    memcpy(hello.instance, c->config.instance, sizeof(hello.instance));
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = bytes};
    f.rest_len = tnl_hello_encode(bytes, sizeof(bytes), &hello);
    return f.rest_len ? tnl_link_send(l, &f) : TUNNEL_E_NOMEM;
}

/*
 * Streams wait at one server, and another one answers now that did not before: it was our own
 * network that was away, and their server may be back as well. It is asked once more, before they
 * are given up for a new session.
 */
static bool looks_back(tnl_client *c, const tnl_relation *r)
{
    tnl_attempt *a = &c->attempt;
    if (!r || r->link || a->server == r->server || !a->others_failed)
        return false;
    tnl_client_abandon(c, &a->link, 0, NULL);
    a->others_failed = false;
    a->server = r->server;
    tnl_attempt_now(c);
    return true;
}

static void on_link_opened(void *user, tnl_link *l)
{
    tnl_client *c = user;
    tnl_attempt *a = &c->attempt;
    tnl_relation *r = c->current;
    if (looks_back(c, r))
        return;
    bool joins = r && !r->link && a->server == r->server;
    a->joins = joins ? r->number : 0;
    if (joins ? tnl_relation_send_attach(r, l, &a->attach) : send_hello(c, l))
        tnl_link_close(l, TUNNEL_E_NOMEM, NULL);
}

static int on_welcome(tnl_client *c, tnl_link *l, const tnl_frame *f)
{
    tnl_attempt *a = &c->attempt;
    tnl_welcome w;
    if (a->joins || tnl_welcome_decode(&w, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    int rc = w.version == TNL_PROTOCOL_VERSION ? tnl_relation_begin(c, l, &w) : TUNNEL_E_VERSION;
    tnl_wipe(&w, sizeof(w));
    return rc;
}

static int on_attached(tnl_client *c, tnl_link *l, const tnl_frame *f)
{
    tnl_attempt *a = &c->attempt;
    tnl_relation *r = a->joins ? tnl_relation_find(c, a->joins) : NULL;
    if (!a->joins)
        return TUNNEL_E_PROTOCOL;
    if (!r)
        return TUNNEL_E_GONE; /* the grace ended meanwhile */
    int rc = tnl_relation_join(r, l, &a->attach, f);
    if (rc == 0)
        tnl_relation_resume(r, l);
    return rc;
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    if (f->type == TNL_FRAME_WELCOME)
        return on_welcome(user, l, f);
    return f->type == TNL_FRAME_ATTACHED ? on_attached(user, l, f) : TUNNEL_E_PROTOCOL;
}

/* What an answer that is not 101 means. */
static int error_of(int http_status, int error)
{
    if (http_status == 401 || http_status == 403)
        return http_status == 401 ? TUNNEL_E_AUTH_FAILED : TUNNEL_E_DENIED;
    if (http_status == 429 || http_status >= 500)
        return TUNNEL_E_GONE;
    return http_status ? TUNNEL_E_NOT_TUNNEL : error;
}

/* The server does not know the session any more: another one begins. */
static void begin_anew(tnl_client *c)
{
    tnl_relation *r = c->current;
    bool again = !r || tnl_servers_over(c, r);
    c->current = NULL;
    if (r)
        tnl_relation_end(r, TUNNEL_E_GONE, NULL);
    if (c->state == TNL_CLIENT_DRAINING)
        c->attempt.state = TNL_ATTEMPT_NONE; /* there is nothing left to wait for */
    else if (again)
        tnl_attempt_now(c);
    else
        failed(c, TUNNEL_E_GONE, "its sessions end soon after they began", 0);
}

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    tnl_client *c = user;
    char text[512];
    c->attempt.link = NULL;
    if (http_status) {
        error = error_of(http_status, error);
        const char *what = error == TUNNEL_E_NOT_TUNNEL ? "no tunnel server answers there: " : "";
        const char *hint = http_status >= 300 && http_status < 400
                               ? "; give the address it redirects to"
                               : "";
        snprintf(text, sizeof(text), "%s%s%s", what,
                 detail && detail[0] ? detail : tunnel_strerror(error), hint);
        detail = text;
    }
    if (!http_status && error == TUNNEL_E_GONE && c->attempt.joins) {
        begin_anew(c);
        return;
    }
    failed(c, error ? error : TUNNEL_E_EOF, detail, tnl_link_retry_after(l));
}

static const tnl_link_events link_events = {
    .opened = on_link_opened, .handshake = on_handshake, .closed = on_link_closed};

/* --- dialing ---------------------------------------------------------------------------------- */

static int open_link(tnl_client *c, tnl_conn *conn)
{
    char host[TNL_CLIENT_HOST];
    char bearer[TNL_CLIENT_BEARER];
    tnl_attempt *a = &c->attempt;
    tnl_transport *t;
    tnl_link_config config = tnl_client_link_config(c);
    config.fallback = true;
    if (c->server_count > 1 && in_a_hurry(c))
        config.handshake_ms = HANDSHAKE_SOON_MS;
    int rc = tnl_link_new(&a->link, c->loop, &config, &link_events, c);
    if (rc) {
        a->link = NULL;
        tnl_conn_close(conn);
        return rc;
    }
    rc = tnl_ws_connect(&t, c->ws, conn, tnl_client_host(c, a->server, host), "/__tunnel__/link",
                        tnl_client_bearer(c, bearer), tnl_link_transport_events(), a->link);
    tnl_wipe(bearer, sizeof(bearer));
    if (rc) {
        tnl_link_discard(a->link);
        a->link = NULL;
        return rc;
    }
    tnl_link_set_transport(a->link, t);
    a->joins = 0;
    a->state = TNL_ATTEMPT_HANDSHAKE;
    return 0;
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *conn)
{
    tnl_client *c = user;
    tnl_attempt *a = &c->attempt;
    a->dial = NULL;
    if (error == 0) {
        memset(&a->reached, 0, sizeof(a->reached));
        if (!c->config.has_proxy)
            a->reached = tnl_conn_peer(conn);
        error = open_link(c, conn);
        detail = NULL;
    }
    if (error)
        failed(c, error, detail, 0);
}

void tnl_attempt_now(tnl_client *c)
{
    tnl_attempt *a = &c->attempt;
    tnl_dial_target target = tnl_client_target(c, a->server);
    target.timeout_ms = dial_ms(c);
    a->state = TNL_ATTEMPT_DIALING;
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTING,
                      .text = c->servers[a->server].address,
                      .host = c->servers[a->server].address};
    tnl_client_tell(c, &e);
    if (!tnl_client_active(c) || a->state != TNL_ATTEMPT_DIALING || a->dial)
        return;
    int rc = tnl_dial_start(&a->dial, c->loop, &target, on_dialed, c);
    if (rc)
        failed(c, rc, NULL, 0);
}

void tnl_attempt_timer_fired(void *user)
{
    tnl_client *c = user;
    if (c->attempt.state == TNL_ATTEMPT_WAITING)
        tnl_attempt_now(c);
}

void tnl_attempt_start(tnl_client *c, size_t server, uint64_t delay_ms)
{
    tnl_attempt *a = &c->attempt;
    a->server = server;
    a->state = TNL_ATTEMPT_WAITING;
    tnl_timer_start(a->timer, delay_ms);
}
