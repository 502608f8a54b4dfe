/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/ws.h"

#include <libwebsockets.h>
#include <stdio.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { OPEN_MS = 10000, CLOSE_MS = 2000 };

static const tnl_transport_ops ws_ops;

tnl_ws_transport *tnl_ws_find(tnl_ws *w, uint64_t id)
{
    tnl_map_node *n = id ? tnl_map_get_id(&w->transports, id) : NULL;
    return n ? TNL_CONTAINER(n, tnl_ws_transport, node) : NULL;
}

static void defer(tnl_ws_transport *t)
{
    tnl_loop_defer(t->side->engine->loop, &t->task);
}

void tnl_ws_fail(tnl_ws_transport *t, int error, const char *detail)
{
    if (t->error || t->user_closed)
        return;
    t->error = error;
    snprintf(t->detail, sizeof(t->detail), "%s", detail ? detail : "");
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Everything that can still call back must be gone before the user is told. */
static void check_gone(tnl_ws_transport *t)
{
    if (t->wsi || t->bridge || t->state == TNL_WS_GONE)
        return;
    t->state = TNL_WS_GONE;
    defer(t);
}

static void begin_closing(tnl_ws_transport *t)
{
    if (t->state >= TNL_WS_CLOSING)
        return;
    t->state = TNL_WS_CLOSING;
    tnl_timer_start(t->timer, CLOSE_MS);
}

void tnl_ws_kill(tnl_ws_transport *t)
{
    begin_closing(t);
    t->muted = true;
    if (t->bridge)
        tnl_bridge_close(t->bridge);
    if (t->wsi) {
        lws_set_timeout(t->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
        /* Without this it would look at its timeouts only with the next traffic. */
        lws_cancel_service(t->side->context);
    }
    check_gone(t);
}

static void end(tnl_ws_transport *t)
{
    const tnl_transport_events *events = t->base.events;
    void *user = t->base.user;
    int error = t->error;
    int status = t->status;
    char detail[sizeof(t->detail)];
    if (!error && !t->user_closed) {
        error = TUNNEL_E_EOF;
        snprintf(t->detail, sizeof(t->detail), "%s", tunnel_strerror(error));
    }
    memcpy(detail, t->detail, sizeof(detail));
    tnl_ws_destroy(t);
    events->closed(user, error, status, detail);
}

/* --- sending ---------------------------------------------------------------------------------- */

/* Sends one batch: 1; 0: there is nothing to send; negative: the connection is broken. */
static int send_batch(tnl_ws_transport *t)
{
    uint8_t *out = t->side->engine->out + LWS_PRE;
    size_t n = t->base.events->pull(t->base.user, out, TNL_TRANSPORT_BATCH);
    if (!n)
        return 0;
    if (n > TNL_TRANSPORT_BATCH || lws_write(t->wsi, out, n, LWS_WRITE_BINARY) < 0) {
        tnl_ws_fail(t, TUNNEL_E_IO, "writing to the connection failed");
        return -1;
    }
    return 1;
}

/* Begins the close handshake of WebSocket. Only outside libwebsockets' callbacks, with nothing
 * waiting in it. */
static void say_goodbye(tnl_ws_transport *t)
{
    t->muted = true;
    lws_close_reason(t->wsi, (enum lws_close_status)t->close_code, NULL, 0);
    /* With a reason set this is no kill: it sends the close frame and awaits the other one.
     * (Closing by the result of the writable callback would not, in libwebsockets built without
     * NDEBUG: there that closes twice.) */
    lws_set_timeout(t->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
}

/*
 * At the end of a turn batches are written right away: asking libwebsockets for a callback first
 * would cost four calls of epoll_ctl and one of epoll_wait. What the socket does not take waits in
 * libwebsockets, and while something does, nothing more is pulled: its writable callback follows.
 */
static void flush(tnl_ws_transport *t)
{
    if (t->muted || !t->wsi || lws_partial_buffered(t->wsi))
        return;
    if (lws_get_close_length(t->wsi)) { /* libwebsockets is closing by itself */
        t->muted = true;
        begin_closing(t);
        return;
    }
    bool closing = t->state == TNL_WS_CLOSING;
    int rc = t->last_pulled ? 0 : send_batch(t);
    if (closing)
        t->last_pulled = true;
    if (rc < 0)
        tnl_ws_kill(t);
    else if (rc > 0)
        defer(t);
    else if (t->last_pulled)
        say_goodbye(t);
}

/* --- what libwebsockets and the bridge tell --------------------------------------------------- */

void tnl_ws_on_open(tnl_ws_transport *t)
{
    if (t->state != TNL_WS_OPENING)
        return;
    t->state = TNL_WS_OPEN;
    tnl_timer_stop(t->timer);
    tnl_ws_free_hello(t);
    defer(t);
    t->base.events->opened(t->base.user);
}

/* libwebsockets has sent what waited. */
void tnl_ws_on_writable(tnl_ws_transport *t)
{
    if (!t->muted)
        defer(t);
}

static void violation(tnl_ws_transport *t, enum lws_close_status code, const char *detail)
{
    tnl_ws_fail(t, TUNNEL_E_PROTOCOL, detail);
    t->close_code = (int)code;
    t->last_pulled = true; /* nothing more is pulled, only the close frame goes out */
    begin_closing(t);
    defer(t);
}

void tnl_ws_on_data(tnl_ws_transport *t, const uint8_t *p, size_t n)
{
    if (t->state != TNL_WS_OPEN)
        return;
    if (!lws_frame_is_binary(t->wsi)) {
        violation(t, LWS_CLOSE_STATUS_UNACCEPTABLE_OPCODE, "a text message on the link");
        return;
    }
    t->message_n += n;
    if (t->message_n + lws_remaining_packet_payload(t->wsi) > TNL_TRANSPORT_BATCH) {
        violation(t, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE,
                  "a message greater than 64 KiB on the link");
        return;
    }
    if (lws_is_final_fragment(t->wsi))
        t->message_n = 0;
    if (n)
        t->base.events->data(t->base.user, p, n);
}

void tnl_ws_on_peer_close(tnl_ws_transport *t, const uint8_t *p, size_t n)
{
    char detail[64];
    unsigned code = n >= 2 ? (unsigned)p[0] << 8 | p[1] : 1005;
    snprintf(detail, sizeof(detail), "closed by the peer (WebSocket code %u)", code);
    tnl_ws_fail(t, TUNNEL_E_EOF, detail);
    t->muted = true;
    begin_closing(t);
}

/* What libwebsockets itself has found wrong is known by the close frame it made. */
void tnl_ws_on_closed(tnl_ws_transport *t)
{
    char detail[64];
    const uint8_t *p = lws_get_close_payload(t->wsi);
    if (lws_get_close_length(t->wsi) < 2)
        return;
    snprintf(detail, sizeof(detail), "a WebSocket protocol violation (code %u)",
             (unsigned)p[0] << 8 | p[1]);
    tnl_ws_fail(t, TUNNEL_E_PROTOCOL, detail);
}

void tnl_ws_on_gone(tnl_ws_transport *t)
{
    t->wsi = NULL;
    t->muted = true;
    begin_closing(t);
    check_gone(t);
}

void tnl_ws_on_bridge_closed(void *user, int error, const char *detail)
{
    tnl_ws_transport *t = user;
    t->bridge = NULL;
    if (error)
        tnl_ws_fail(t, error, detail);
    begin_closing(t);
    check_gone(t);
}

/* --- the transport ---------------------------------------------------------------------------- */

static void run(void *user)
{
    tnl_ws_transport *t = user;
    switch (t->state) {
    case TNL_WS_START:
        t->state = TNL_WS_OPENING;
        tnl_ws_start(t);
        break;
    case TNL_WS_OPENING:
        break;
    case TNL_WS_OPEN:
    case TNL_WS_CLOSING:
        flush(t);
        break;
    case TNL_WS_GONE:
        end(t);
        break;
    }
}

static void on_timer(void *user)
{
    tnl_ws_transport *t = user;
    if (t->state == TNL_WS_OPENING && t->hello) {
        static const char text[] = "no answer to the WebSocket upgrade within 10 s";
        tnl_answer *a = &t->hello->answer;
        tnl_answer_end(a, TUNNEL_E_TIMEOUT, text);
        t->status = a->status;
        tnl_ws_fail(t, a->error, a->detail);
    }
    if (t->state != TNL_WS_GONE)
        tnl_ws_kill(t);
}

static void ws_wake(tnl_transport *base)
{
    tnl_ws_transport *t = TNL_CONTAINER(base, tnl_ws_transport, base);
    if (t->state == TNL_WS_OPEN)
        defer(t);
}

static void ws_close(tnl_transport *base)
{
    tnl_ws_transport *t = TNL_CONTAINER(base, tnl_ws_transport, base);
    if (t->user_closed || t->error)
        return;
    t->user_closed = true;
    if (t->state == TNL_WS_OPEN) {
        begin_closing(t);
        defer(t);
    } else if (t->state < TNL_WS_OPEN) {
        tnl_ws_kill(t);
    }
}

static void ws_abort(tnl_transport *base)
{
    tnl_ws_transport *t = TNL_CONTAINER(base, tnl_ws_transport, base);
    if (t->state == TNL_WS_GONE)
        return;
    t->user_closed = true;
    if (t->bridge)
        tnl_bridge_reset(t->bridge);
    tnl_ws_kill(t);
}

static const tnl_transport_ops ws_ops = {.wake = ws_wake, .close = ws_close, .abort = ws_abort};

int tnl_ws_create(tnl_ws_transport **out, tnl_ws_side *s, const tnl_transport_events *ev,
                  void *user)
{
    tnl_ws *w = s->engine;
    int rc = TUNNEL_E_NOMEM;
    *out = NULL;
    tnl_ws_transport *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return rc;
    t->base = (tnl_transport){.ops = &ws_ops, .events = ev, .user = user};
    t->side = s;
    t->close_code = LWS_CLOSE_STATUS_NORMAL;
    tnl_task_init(&t->task, run, t);
    t->hello = tnl_calloc(1, sizeof(*t->hello));
    if (!t->hello)
        goto fail;
    tnl_answer_init(&t->hello->answer);
    rc = tnl_timer_new(&t->timer, w->loop, on_timer, t);
    if (rc)
        goto fail;
    rc = tnl_map_put_id(&w->transports, &t->node, ++w->last_id);
    if (rc)
        goto fail;
    tnl_timer_start(t->timer, OPEN_MS);
    defer(t);
    *out = t;
    return 0;

fail:
    tnl_timer_free(t->timer);
    tnl_ws_free_hello(t);
    tnl_free(t);
    return rc;
}

void tnl_ws_destroy(tnl_ws_transport *t)
{
    tnl_map_remove(&t->side->engine->transports, &t->node);
    tnl_task_cancel(&t->task);
    tnl_timer_free(t->timer);
    tnl_ws_free_hello(t);
    tnl_free(t);
}
