/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "tunnel/error.h"
#include "tunnel/version.h"

enum {
    DIAL_MS = 10000,
    HANDSHAKE_MS = 10000,
    MAX_FRAME = 65536,
    MAX_STREAMS = 2048,
    FIRST_WINDOW = 16384,
    MAX_WINDOW = 256 * 1024,
    SURPLUS = 32 * 1024 * 1024,
    IN_FLIGHT = 4 * 1024 * 1024,
};

static const tnl_limits local_limits = {
    .max_frame = MAX_FRAME, .max_streams = MAX_STREAMS, .window = FIRST_WINDOW};

/* --- handshake -------------------------------------------------------------------------------- */

static void on_link_opened(void *user, tnl_link *l)
{
    tnl_client *c = user;
    uint8_t bytes[512];
    tnl_hello hello = {.version_min = TNL_PROTOCOL_VERSION,
                       .version_max = TNL_PROTOCOL_VERSION,
                       .force = c->config.force,
                       .agent = tnl_str_of("libtunnel/" TUNNEL_VERSION),
                       .limits = local_limits};
    memcpy(hello.instance, c->config.instance, sizeof(hello.instance));
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = bytes};
    f.rest_len = tnl_hello_encode(bytes, sizeof(bytes), &hello);
    if (f.rest_len == 0 || tnl_link_send(l, &f))
        tnl_link_close(l, TUNNEL_E_NOMEM, NULL);
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    tnl_client *c = user;
    tnl_welcome w;
    if (f->type != TNL_FRAME_WELCOME || c->session || tnl_welcome_decode(&w, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (w.version != TNL_PROTOCOL_VERSION)
        return TUNNEL_E_VERSION;
    tnl_mux_config config = {
        .local = local_limits, .remote = w.limits, .max_window = MAX_WINDOW, .surplus = SURPLUS};
    tnl_wipe(&w, sizeof(w));
    int rc = tnl_session_new(&c->session, c->loop, &config, &tnl_client_session_events, c);
    if (rc == 0)
        rc = tnl_link_bind(l, c->session);
    if (rc) {
        if (c->session)
            tnl_session_broken(c->session, rc);
        return rc;
    }
    c->live_since = tnl_loop_now(c->loop);
    tnl_client_set_state(c, TNL_CLIENT_LIVE);
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTED, .text = c->address};
    tnl_client_tell(c, &e);
    tnl_client_publish_all(c);
    return 0;
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

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    tnl_client *c = user;
    char text[512];
    (void)l;
    c->link = NULL;
    if (c->state == TNL_CLIENT_CLOSED) {
        tnl_client_maybe_closed(c);
        return;
    }
    if (c->session)
        return; /* its own closed() follows */
    if (c->state == TNL_CLIENT_BACKOFF) {
        /* The session ended before its link. */
        if (!tnl_timer_active(c->timer))
            tnl_client_connect(c);
        return;
    }
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
    tnl_client_lost(c, error ? error : TUNNEL_E_EOF, detail);
}

static const tnl_link_events link_events = {
    .opened = on_link_opened, .handshake = on_handshake, .closed = on_link_closed};

/* --- dialing ---------------------------------------------------------------------------------- */

static int open_link(tnl_client *c, tnl_conn *conn)
{
    char host[TNL_URL_HOST + 16];
    char bearer[sizeof(c->config.token) + 8];
    tnl_transport *t;
    const tnl_url *u = &c->config.server;
    tnl_link_config config = {.handshake_ms = HANDSHAKE_MS,
                              .silence_ms = c->config.silence_ms,
                              .max_data = MAX_FRAME,
                              .inflight = IN_FLIGHT};
    int rc = tnl_link_new(&c->link, c->loop, &config, &link_events, c);
    if (rc) {
        tnl_conn_close(conn);
        return rc;
    }
    snprintf(host, sizeof(host), u->ipv6 ? "[%s]:%u" : "%s:%u", u->host, u->port);
    snprintf(bearer, sizeof(bearer), "Bearer %s", c->config.token);
    rc = tnl_ws_connect(&t, c->ws, conn, host, "/__tunnel__/link",
                        c->config.token[0] ? bearer : NULL, tnl_link_transport_events(), c->link);
    tnl_wipe(bearer, sizeof(bearer));
    if (rc) {
        tnl_link_discard(c->link);
        c->link = NULL;
        return rc;
    }
    tnl_link_set_transport(c->link, t);
    tnl_client_set_state(c, TNL_CLIENT_HANDSHAKE);
    return 0;
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *conn)
{
    tnl_client *c = user;
    c->dial = NULL;
    if (error == 0) {
        memset(&c->reached, 0, sizeof(c->reached));
        if (!c->config.has_proxy)
            c->reached = tnl_conn_peer(conn);
        error = open_link(c, conn);
        detail = NULL;
    }
    if (error)
        tnl_client_lost(c, error, detail);
}

void tnl_client_connect(tnl_client *c)
{
    tnl_dial_target target = {.host = c->config.server.host,
                              .port = c->config.server.port,
                              .tls = c->tls,
                              .proxy = c->config.has_proxy ? &c->config.proxy : NULL,
                              .timeout_ms = DIAL_MS};
    tnl_client_set_state(c, TNL_CLIENT_DIALING);
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTING, .text = c->address};
    tnl_client_tell(c, &e);
    if (c->state == TNL_CLIENT_CLOSED)
        return;
    int rc = tnl_dial_start(&c->dial, c->loop, &target, on_dialed, c);
    if (rc)
        tnl_client_lost(c, rc, NULL);
}
