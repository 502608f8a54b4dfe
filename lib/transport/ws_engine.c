/* SPDX-License-Identifier: Apache-2.0 */
#include <libwebsockets.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "transport/transport.h"
#include "transport/ws.h"
#include "tunnel/error.h"

enum {
    CLIENT_DESCRIPTORS = 1024,
    CLIENT_BUFFER = 8 * 1024,
    SERVE_BUFFER = TNL_TRANSPORT_BATCH + LWS_PRE +
                   32, /* a batch and its frame header in one read */
    WIND_UP_TURNS = 1000,
};

static uint64_t id_of(struct lws *wsi)
{
    return (uint64_t)(uintptr_t)lws_get_opaque_user_data(wsi);
}

static tnl_ws_side *side_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

static tnl_ws_transport *transport_of(struct lws *wsi)
{
    tnl_ws_side *s = side_of(wsi);
    return s ? tnl_ws_find(s->engine, id_of(wsi)) : NULL;
}

static int add_authorization(struct lws *wsi, unsigned char **p, size_t n)
{
    tnl_ws_transport *t = transport_of(wsi);
    if (!t || !t->hello || !t->hello->authorization)
        return 0;
    return lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION,
                                        (const unsigned char *)t->hello->authorization,
                                        (int)strlen(t->hello->authorization), p, *p + n);
}

/* Reasons about a connection that has a transport. */
static void on_transport(tnl_ws_transport *t, enum lws_callback_reasons reason, void *in, size_t n)
{
    switch ((int)reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        tnl_ws_on_open(t);
        return;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        tnl_ws_on_data(t, in, n);
        return;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        tnl_ws_on_writable(t);
        return;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        tnl_ws_on_peer_close(t, in, n);
        return;
    case LWS_CALLBACK_CLIENT_CLOSED:
        tnl_ws_on_closed(t);
        return;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        tnl_ws_fail(t, TUNNEL_E_PROTOCOL, "the WebSocket handshake failed");
        return;
    case LWS_CALLBACK_WSI_DESTROY:
        tnl_ws_on_gone(t);
        return;
    default:
        return;
    }
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *unused, void *in,
                  size_t n)
{
    (void)unused;
    tnl_ws_transport *t;
    switch ((int)reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return add_authorization(wsi, in, n);
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
    case LWS_CALLBACK_CLIENT_RECEIVE:
    case LWS_CALLBACK_CLIENT_WRITEABLE:
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_WSI_DESTROY:
        t = transport_of(wsi);
        if (t)
            on_transport(t, reason, in, n);
        return 0;
    case LWS_CALLBACK_HTTP:
        return -1;
    default:
        return 0;
    }
}

static void emit(struct lws_log_cx *cx, int level, const char *line, size_t n)
{
    (void)level;
    const tnl_ws_side *s = cx->opaque;
    char text[256];
    while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        n--;
    if (n >= sizeof(text))
        n = sizeof(text) - 1;
    memcpy(text, line, n);
    text[n] = '\0';
    if (s->engine->log)
        s->engine->log(s->engine->log_user, text);
}

static const struct lws_protocols client_protocols[] = {
    {.name = TNL_WS_PROTOCOL,
     .callback = on_lws,
     .rx_buffer_size = CLIENT_BUFFER,
     .tx_packet_size = TNL_TRANSPORT_BATCH},
    LWS_PROTOCOL_LIST_TERM,
};

/* No pings, no idle timeouts: keepalive is the business of the layers above. */
static const lws_retry_bo_t no_keepalive = {0};

int tnl_ws_side_open(tnl_ws_side *s)
{
    if (s->vhost)
        return 0;
    if (s->context)
        return TUNNEL_E_NOMEM; /* an earlier attempt got no further */
    void *loops[] = {tnl_loop_uv(s->engine->loop)};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS,
        .foreign_loops = loops,
        .pcontext = &s->context,
        .protocols = client_protocols,
        .retry_and_idle_policy = &no_keepalive,
        .pt_serv_buf_size = SERVE_BUFFER,
        .fd_limit_per_thread = CLIENT_DESCRIPTORS,
        .user = s,
        .vhost_name = "tunnel",
    };
    /* What has no context is logged process-wide, to stderr, and cannot be told whose it is. */
    lws_set_log_level(0, NULL);
    if (!s->log)
        s->log = tnl_calloc(1, sizeof(*s->log));
    if (!s->log)
        return TUNNEL_E_NOMEM;
    s->log->u.emit_cx = emit;
    s->log->lll_flags = LLLF_LOG_CONTEXT_AWARE | LLL_ERR | LLL_WARN;
    s->log->opaque = s;
    info.log_cx = s->log;
    s->context = lws_create_context(&info);
    if (!s->context)
        return TUNNEL_E_NOMEM;
    s->wake_fd = tnl_guest_last_poll(s->engine->loop);
    s->vhost = lws_create_vhost(s->context, &info);
    return s->vhost ? 0 : TUNNEL_E_NOMEM;
}

static void side_init(tnl_ws_side *s, tnl_ws *w)
{
    s->engine = w;
    s->wake_fd = -1;
}

/*
 * With a loop of others, libwebsockets wants to be told again until it is done: at first it closes
 * its handles, and when they have closed, it frees the rest and clears s->context. 4.3 forgets its
 * event descriptor on the way.
 */
static bool side_wind_up(tnl_ws_side *s)
{
    if (!s->log)
        return true;
    if (s->context)
        lws_context_destroy(s->context);
    if (s->context)
        return false;
#if LWS_LIBRARY_VERSION_MAJOR == 4 && LWS_LIBRARY_VERSION_MINOR == 3
    if (s->wake_fd >= 0)
        close(s->wake_fd);
#endif
    tnl_free(s->log);
    s->log = NULL;
    return true;
}

static bool wind_up(void *user)
{
    tnl_ws *w = user;
    if (!side_wind_up(&w->client))
        return ++w->wind_up_turns >= WIND_UP_TURNS; /* better a leak than a spin */
    tnl_map_free(&w->transports);
    tnl_free(w->bridge_buffer);
    tnl_free(w->out);
    tnl_free(w);
    return true;
}

int tnl_ws_new(tnl_ws **out, tnl_loop *l, tnl_ws_log log, void *user)
{
    *out = NULL;
    tnl_ws *w = tnl_calloc(1, sizeof(*w));
    if (!w)
        return TUNNEL_E_NOMEM;
    w->loop = l;
    w->log = log;
    w->log_user = user;
    tnl_map_init(&w->transports, 0);
    side_init(&w->client, w);
    w->out = tnl_malloc(LWS_PRE + TNL_TRANSPORT_BATCH);
    if (!w->out || tnl_guest_new(&w->guest, l)) {
        tnl_free(w->out);
        tnl_free(w);
        return TUNNEL_E_NOMEM;
    }
    *out = w;
    return 0;
}

void tnl_ws_free(tnl_ws *w)
{
    if (!w)
        return;
    w->log = NULL;
    if (w->client.context)
        lws_context_destroy(w->client.context);
    tnl_guest_retire(w->guest, wind_up, w);
}
