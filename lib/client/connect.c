/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "client/internal.h"
#include "crypto/crypto.h"
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
    MAX_GRACE_MS = 3600 * 1000,
};

static const tnl_limits local_limits = {
    .max_frame = MAX_FRAME, .max_streams = MAX_STREAMS, .window = FIRST_WINDOW};

/* --- handshake -------------------------------------------------------------------------------- */

static int send_hello(tnl_client *c, tnl_link *l)
{
    uint8_t bytes[512];
    tnl_hello hello = {.version_min = TNL_PROTOCOL_VERSION,
                       .version_max = TNL_PROTOCOL_VERSION,
                       .force = c->config.force,
                       .agent = tnl_str_of("libtunnel/" TUNNEL_VERSION),
                       .limits = local_limits};
    memcpy(hello.instance, c->config.instance, sizeof(hello.instance));
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = bytes};
    f.rest_len = tnl_hello_encode(bytes, sizeof(bytes), &hello);
    return f.rest_len ? tnl_link_send(l, &f) : TUNNEL_E_NOMEM;
}

int tnl_client_send_attach(tnl_client *c, tnl_link *l, tnl_attach *a)
{
    uint8_t bytes[256];
    *a = (tnl_attach){.generation = c->generation, .link = ++c->last_link};
    memcpy(a->session, c->session_id, sizeof(a->session));
    int rc = tnl_random(a->nonce, sizeof(a->nonce));
    if (rc == 0)
        rc = tnl_attach_prove(a->mac, c->secret, 'C', a);
    if (rc)
        return rc;
    tnl_frame f = {.type = TNL_FRAME_ATTACH, .rest = bytes};
    f.rest_len = tnl_attach_encode(bytes, sizeof(bytes), a);
    return f.rest_len ? tnl_link_send(l, &f) : TUNNEL_E_NOMEM;
}

static void on_link_opened(void *user, tnl_link *l)
{
    tnl_client *c = user;
    c->attaching = c->session != NULL;
    if (c->attaching ? tnl_client_send_attach(c, l, &c->attach) : send_hello(c, l))
        tnl_link_close(l, TUNNEL_E_NOMEM, NULL);
}

static void go_live(tnl_client *c)
{
    c->live_since = tnl_loop_now(c->loop);
    tnl_client_set_state(c, TNL_CLIENT_LIVE);
}

static int on_welcome(tnl_client *c, tnl_link *l, const tnl_frame *f)
{
    tnl_welcome w;
    if (c->attaching || c->session || tnl_welcome_decode(&w, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (w.version != TNL_PROTOCOL_VERSION)
        return TUNNEL_E_VERSION;
    tnl_mux_config config = {.local = local_limits,
                             .remote = w.limits,
                             .max_window = MAX_WINDOW,
                             .far_window = TNL_MUX_MAX_FAR,
                             .surplus = SURPLUS};
    memcpy(c->session_id, w.session, sizeof(c->session_id));
    memcpy(c->secret, w.secret, sizeof(c->secret));
    c->generation = w.generation;
    c->last_link = 0;
    uint32_t grace = w.grace_ms < MAX_GRACE_MS ? w.grace_ms : MAX_GRACE_MS;
    tnl_wipe(&w, sizeof(w));
    int rc = tnl_session_new(&c->session, c->loop, &config, &tnl_client_session_events, c);
    if (rc == 0)
        rc = tnl_link_bind(l, c->session);
    if (rc) {
        if (c->session)
            tnl_session_broken(c->session, rc);
        return rc;
    }
    tnl_session_set_grace(c->session, grace);
    go_live(c);
    tnl_client_publish_all(c);
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTED, .text = c->address};
    tnl_client_tell(c, &e);
    return 0;
}

int tnl_client_join(tnl_client *c, tnl_link *l, const tnl_attach *a, const tnl_frame *f)
{
    tnl_attached m;
    if (f->type != TNL_FRAME_ATTACHED || tnl_attached_decode(&m, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    if (!c->session)
        return TUNNEL_E_GONE; /* the grace ended meanwhile */
    if (!tnl_attach_verify(m.mac, c->secret, 'S', a))
        return TUNNEL_E_AUTH_FAILED;
    return tnl_link_bind(l, c->session);
}

static int on_attached(tnl_client *c, tnl_link *l, const tnl_frame *f)
{
    int rc = c->attaching ? tnl_client_join(c, l, &c->attach, f) : TUNNEL_E_PROTOCOL;
    if (rc)
        return rc;
    go_live(c);
    tunnel_event e = {.type = TUNNEL_EVENT_RESUMED,
                      .text = c->address,
                      .delay_ms = tnl_loop_now(c->loop) - c->parked_at};
    tnl_lanes_resume(c);
    tnl_client_tell(c, &e);
    return 0;
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

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    tnl_client *c = user;
    char text[512];
    (void)l;
    c->link = NULL;
    tnl_lanes_forgive(c);
    if (c->state == TNL_CLIENT_CLOSED) {
        tnl_client_maybe_closed(c);
        return;
    }
    if (c->session && !tnl_session_mux(c->session))
        return; /* its own closed() follows */
    if (c->state == TNL_CLIENT_LIVE)
        c->parked_at = tnl_loop_now(c->loop); /* its lanes go on */
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
    if (c->session && c->state == TNL_CLIENT_HANDSHAKE && !http_status && error == TUNNEL_E_GONE &&
        c->attaching) {
        /* The server does not know the session any more. */
        c->anew = true;
        tnl_session_close(c->session, TUNNEL_E_GONE, NULL);
        return;
    }
    tnl_client_lost(c, error ? error : TUNNEL_E_EOF, detail);
}

static const tnl_link_events link_events = {
    .opened = on_link_opened, .handshake = on_handshake, .closed = on_link_closed};

/* --- dialing ---------------------------------------------------------------------------------- */

tnl_link_config tnl_client_link_config(const tnl_client *c)
{
    return (tnl_link_config){.handshake_ms = HANDSHAKE_MS,
                             .silence_ms = c->config.silence_ms,
                             .max_data = MAX_FRAME,
                             .inflight = TNL_MUX_MAX_FLIGHT};
}

const char *tnl_client_host(const tnl_client *c, char out[TNL_CLIENT_HOST])
{
    const tnl_url *u = &c->config.servers[0];
    snprintf(out, TNL_CLIENT_HOST, u->ipv6 ? "[%s]:%u" : "%s:%u", u->host, u->port);
    return out;
}

const char *tnl_client_bearer(const tnl_client *c, char out[TNL_CLIENT_BEARER])
{
    snprintf(out, TNL_CLIENT_BEARER, "Bearer %s", c->config.token);
    return c->config.token[0] ? out : NULL;
}

static int open_link(tnl_client *c, tnl_conn *conn)
{
    char host[TNL_CLIENT_HOST];
    char bearer[TNL_CLIENT_BEARER];
    tnl_transport *t;
    tnl_link_config config = tnl_client_link_config(c);
    config.fallback = true;
    int rc = tnl_link_new(&c->link, c->loop, &config, &link_events, c);
    if (rc) {
        tnl_conn_close(conn);
        return rc;
    }
    rc = tnl_ws_connect(&t, c->ws, conn, tnl_client_host(c, host), "/__tunnel__/link",
                        tnl_client_bearer(c, bearer), tnl_link_transport_events(), c->link);
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

tnl_dial_target tnl_client_target(const tnl_client *c)
{
    return (tnl_dial_target){.host = c->config.servers[0].host,
                             .port = c->config.servers[0].port,
                             .tls = c->tls,
                             .proxy = c->config.has_proxy ? &c->config.proxy : NULL,
                             .timeout_ms = DIAL_MS,
                             .insists = true};
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
    tnl_dial_target target = tnl_client_target(c);
    tnl_client_set_state(c, TNL_CLIENT_DIALING);
    tunnel_event e = {.type = TUNNEL_EVENT_CONNECTING, .text = c->address};
    tnl_client_tell(c, &e);
    if (c->state == TNL_CLIENT_CLOSED)
        return;
    int rc = tnl_dial_start(&c->dial, c->loop, &target, on_dialed, c);
    if (rc)
        tnl_client_lost(c, rc, NULL);
}
