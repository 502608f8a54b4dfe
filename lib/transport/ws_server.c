/* SPDX-License-Identifier: Apache-2.0 */
#include <libwebsockets.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/mem.h"
#include "transport/head.h"
#include "transport/ws.h"
#include "tunnel/error.h"

/*
 * The server's end of a WebSocket. libwebsockets' own would need a socket for itself: under TLS two
 * more descriptors and a bridge for each client, and 5 KiB of memory in any case.
 */

enum {
    CLOSE_MS = 2000,
    MOST_BATCHES = 8, /* in a row, before others on the loop get their turn */
    KEY_MAX = 64,
    HEAD_MAX = 14, /* of a frame: two bytes, eight of length, four of the mask */
    CONTROL_MAX = 125,
    SHA1_SIZE = 20,
};

enum { OP_MORE = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

enum {
    CODE_NORMAL = 1000,
    CODE_PROTOCOL = 1002,
    CODE_UNACCEPTABLE = 1003,
    CODE_NONE = 1005,
    CODE_TOO_LARGE = 1009,
};

/* A control frame of the peer's as it arrives, and the payload of the PONG that is due. */
typedef struct control {
    uint8_t in[CONTROL_MAX];
    uint8_t in_n;
    uint8_t pong[CONTROL_MAX];
    uint8_t pong_n;
    bool pong_due;
} control;

typedef struct server_end {
    tnl_transport base;
    tnl_ws *engine;
    tnl_conn *conn;
    tnl_task task;    /* opens it, and flushes */
    tnl_timer *timer; /* of the end; NULL before */
    tnl_buf early;    /* what came behind the request */
    control *control; /* NULL before the first control frame */
    uint64_t left;    /* of the present frame's payload */
    uint32_t message; /* bytes of the message that is arriving */
    uint8_t head[HEAD_MAX];
    uint8_t head_n;
    uint8_t mask_at;
    uint8_t opcode; /* of the present frame */
    bool final;
    bool in_payload;
    bool in_message; /* more frames of it follow */
    bool open;
    bool user_closed;
    bool told; /* our close frame was sent: nothing follows it */
    bool deaf; /* nothing of the peer counts any more */
    uint16_t peer_code;
    int error;
    const char *why; /* a text that stays */
} server_end;

static void end_free(server_end *e)
{
    tnl_task_cancel(&e->task);
    tnl_timer_free(e->timer);
    tnl_buf_free(&e->early);
    tnl_free(e->control);
    tnl_free(e);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_closed(void *user, int error, const char *detail)
{
    server_end *e = user;
    char text[64];
    if (e->peer_code) {
        snprintf(text, sizeof(text), "closed by the peer (WebSocket code %u)", e->peer_code);
        detail = text;
    } else if (e->error) {
        detail = e->why;
    }
    if (e->error)
        error = e->error;
    if (e->user_closed) {
        error = 0;
        detail = "";
    } else if (!error) {
        error = TUNNEL_E_EOF;
        detail = tunnel_strerror(error);
    }
    const tnl_transport_events *events = e->base.events;
    void *owner = e->base.user;
    end_free(e);
    events->closed(owner, error, 0, detail);
}

static void note(server_end *e, int error, const char *why)
{
    if (e->error || e->user_closed)
        return;
    e->error = error;
    e->why = why;
}

static void fail(server_end *e, int error, const char *why)
{
    note(e, error, why);
    e->deaf = true;
    tnl_conn_close(e->conn);
}

static void on_timer(void *user)
{
    tnl_conn_close(((server_end *)user)->conn);
}

static int write_frame(server_end *e, uint8_t opcode, const uint8_t *p, size_t n)
{
    uint8_t head[2] = {(uint8_t)(0x80 | opcode), (uint8_t)n};
    tnl_iov v[2] = {{head, 2}, {p, n}};
    return tnl_conn_write(e->conn, v, 2);
}

/* From now on it has a while; false: there is no memory for that, and it ends at once. */
static bool limit_end(server_end *e)
{
    if (!e->timer && tnl_timer_new(&e->timer, e->conn->loop, on_timer, e)) {
        tnl_conn_close(e->conn);
        return false;
    }
    tnl_timer_start(e->timer, CLOSE_MS);
    return true;
}

/* Sends the close frame. The peer's, or its end, is awaited for a while, or was there before. */
static void say_goodbye(server_end *e, unsigned code)
{
    uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    if (e->told)
        return;
    e->told = true;
    if (write_frame(e, OP_CLOSE, payload, code == CODE_NONE ? 0 : 2))
        tnl_conn_close(e->conn);
    else
        limit_end(e);
}

static void violation(server_end *e, unsigned code, const char *why)
{
    note(e, TUNNEL_E_PROTOCOL, why);
    e->deaf = true;
    say_goodbye(e, code);
    tnl_conn_finish(e->conn);
}

/* --- out -------------------------------------------------------------------------------------- */

/* One batch; false: there is nothing, or no room for more. */
static bool send_batch(server_end *e)
{
    uint8_t *p = e->engine->out + LWS_PRE;
    if (e->told || tnl_conn_pending(e->conn))
        return false;
    size_t n = e->base.events->pull(e->base.user, p, TNL_TRANSPORT_BATCH);
    if (!n)
        return false;
    size_t head = n < 126 ? 2 : n < 65536 ? 4 : 10;
    uint8_t *out = p - head;
    out[0] = 0x80 | OP_BINARY;
    out[1] = (uint8_t)(n < 126 ? n : head == 4 ? 126 : 127);
    for (size_t i = 2; i < head; i++)
        out[i] = (uint8_t)((uint64_t)n >> (8 * (head - 1 - i)));
    tnl_iov v = {out, head + n};
    int rc = tnl_conn_write(e->conn, &v, 1);
    if (rc)
        fail(e, rc, "writing to the connection failed");
    return rc == 0;
}

static void send_pong(server_end *e)
{
    control *c = e->control;
    if (!c || !c->pong_due || e->told || tnl_conn_pending(e->conn))
        return;
    c->pong_due = false;
    int rc = write_frame(e, OP_PONG, c->pong, c->pong_n);
    if (rc)
        fail(e, rc, "writing to the connection failed");
}

static void flush(server_end *e)
{
    int left = MOST_BATCHES;
    send_pong(e);
    while (left > 0 && !e->deaf && send_batch(e))
        left--;
    if (left == 0)
        tnl_loop_defer(e->conn->loop, &e->task);
}

static void end_wake(tnl_transport *t)
{
    server_end *e = TNL_CONTAINER(t, server_end, base);
    if (e->open && !e->told)
        tnl_loop_defer(e->conn->loop, &e->task);
}

static void end_close(tnl_transport *t)
{
    server_end *e = TNL_CONTAINER(t, server_end, base);
    if (e->user_closed || e->error || e->deaf)
        return;
    e->user_closed = true;
    if (!e->open) {
        tnl_conn_close(e->conn);
        return;
    }
    tnl_loop_defer(e->conn->loop, &e->task);
}

static void end_abort(tnl_transport *t)
{
    server_end *e = TNL_CONTAINER(t, server_end, base);
    e->user_closed = e->told = e->deaf = true;
    tnl_conn_reset(e->conn);
}

static const tnl_transport_ops end_ops = {.wake = end_wake, .close = end_close, .abort = end_abort};

/* --- in --------------------------------------------------------------------------------------- */

/* RFC 6455 section 7.4 */
static bool may_be_sent(unsigned code)
{
    return code >= 1000 && code < 5000 && (code < 1004 || code > 1006) && code != 1015;
}

static void peer_closes(server_end *e, const control *c)
{
    unsigned code = c->in_n >= 2 ? (unsigned)c->in[0] << 8 | c->in[1] : CODE_NONE;
    if (c->in_n == 1 || (c->in_n && !may_be_sent(code))) {
        violation(e, CODE_PROTOCOL, "a WebSocket protocol violation (code 1002)");
        return;
    }
    e->deaf = true;
    if (!e->error && !e->user_closed) {
        e->error = TUNNEL_E_EOF;
        e->peer_code = (uint16_t)code;
    }
    say_goodbye(e, code);
    tnl_conn_finish(e->conn);
}

static void control_complete(server_end *e)
{
    control *c = e->control;
    if (e->opcode == OP_CLOSE) {
        peer_closes(e, c);
    } else if (e->opcode == OP_PING) {
        memcpy(c->pong, c->in, c->in_n);
        c->pong_n = c->in_n;
        c->pong_due = true;
        end_wake(&e->base);
    }
    c->in_n = 0;
}

/* The head is complete: whether the frame may come. */
static bool admit(server_end *e)
{
    static const char wrong[] = "a WebSocket protocol violation (code 1002)";
    bool is_control = e->opcode >= OP_CLOSE;
    bool known = e->opcode <= OP_BINARY || (is_control && e->opcode <= OP_PONG);
    bool begins = e->opcode == OP_TEXT || e->opcode == OP_BINARY;
    if ((e->head[0] & 0x70) || !known || !(e->head[1] & 0x80) ||
        (is_control && (!e->final || e->left > CONTROL_MAX)) || (begins && e->in_message) ||
        (e->opcode == OP_MORE && !e->in_message)) {
        violation(e, CODE_PROTOCOL, wrong);
        return false;
    }
    if (is_control) {
        if (!e->control)
            e->control = tnl_calloc(1, sizeof(*e->control));
        if (!e->control)
            fail(e, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        return e->control != NULL;
    }
    if (e->opcode == OP_TEXT) {
        violation(e, CODE_UNACCEPTABLE, "a text message on the link");
        return false;
    }
    if (begins)
        e->message = 0;
    if (e->left > TNL_TRANSPORT_BATCH - e->message) {
        violation(e, CODE_TOO_LARGE, "a message greater than 64 KiB on the link");
        return false;
    }
    e->message += (uint32_t)e->left;
    e->in_message = !e->final;
    return true;
}

static size_t head_size(const server_end *e)
{
    size_t n = 2;
    if (e->head_n < 2)
        return n;
    unsigned length = e->head[1] & 0x7f;
    n += length == 127 ? 8 : length == 126 ? 2 : 0;
    return n + (e->head[1] & 0x80 ? 4 : 0);
}

/* Takes bytes of the head; the number used. */
static size_t take_head(server_end *e, const uint8_t *p, size_t n)
{
    size_t used = 0;
    while (used < n && e->head_n < head_size(e))
        e->head[e->head_n++] = p[used++];
    if (e->head_n < 2 || e->head_n < head_size(e))
        return used;
    unsigned length = e->head[1] & 0x7f;
    e->left = length < 126 ? length : 0;
    for (size_t i = 2; length >= 126 && i < (length == 126 ? 4u : 10u); i++)
        e->left = e->left << 8 | e->head[i];
    e->opcode = e->head[0] & 0x0f;
    e->final = e->head[0] & 0x80;
    e->mask_at = 0;
    e->in_payload = admit(e);
    return used;
}

static void unmask(server_end *e, uint8_t *p, size_t n)
{
    const uint8_t *key = e->head + e->head_n - 4;
    uint8_t mask[8];
    uint64_t wide;
    size_t i = 0;
    for (size_t k = 0; k < sizeof(mask); k++)
        mask[k] = key[(e->mask_at + k) & 3];
    memcpy(&wide, mask, sizeof(wide));
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        word ^= wide;
        memcpy(p + i, &word, 8);
    }
    for (size_t k = 0; i < n; i++, k++)
        p[i] ^= mask[k];
    e->mask_at = (uint8_t)((e->mask_at + n) & 3);
}

/* Takes bytes of the payload; the number used. */
static size_t take_payload(server_end *e, uint8_t *p, size_t n)
{
    if (n > e->left)
        n = (size_t)e->left;
    unmask(e, p, n);
    e->left -= n;
    if (e->opcode >= OP_CLOSE) {
        memcpy(e->control->in + e->control->in_n, p, n);
        e->control->in_n = (uint8_t)(e->control->in_n + n);
    } else if (n && !e->user_closed) {
        e->base.events->data(e->base.user, p, n);
    }
    return n;
}

static void feed(server_end *e, uint8_t *p, size_t n)
{
    while (!e->deaf) {
        if (e->in_payload && e->left == 0) {
            e->in_payload = false;
            e->head_n = 0;
            if (e->opcode >= OP_CLOSE)
                control_complete(e);
            continue;
        }
        if (n == 0)
            return;
        size_t used = e->in_payload ? take_payload(e, p, n) : take_head(e, p, n);
        p += used;
        n -= used;
    }
}

static size_t on_space(void *user, uint8_t **p)
{
    *p = ((server_end *)user)->engine->bridge_buffer;
    return TNL_BRIDGE_CHUNK;
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    feed(user, p, n);
}

static void on_eof(void *user)
{
    fail(user, TUNNEL_E_EOF, tunnel_strerror(TUNNEL_E_EOF));
}

static void on_drained(void *user)
{
    end_wake(&((server_end *)user)->base);
}

static const tnl_conn_events conn_events = {
    .space = on_space, .data = on_data, .eof = on_eof, .drained = on_drained, .closed = on_closed};

static void become_open(server_end *e)
{
    tnl_buf early = e->early;
    e->early = (tnl_buf){0};
    e->open = true;
    e->base.events->opened(e->base.user);
    feed(e, tnl_buf_bytes(&early), tnl_buf_len(&early));
    tnl_buf_free(&early);
    tnl_conn_resume(e->conn);
}

/* The user's last words go first: they may say why. Where they have to wait, they do so for a
 * while. */
static void end_politely(server_end *e)
{
    if (tnl_conn_pending(e->conn)) {
        if (!e->timer)
            limit_end(e);
        return;
    }
    (void)send_batch(e);
    if (!e->deaf)
        say_goodbye(e, CODE_NORMAL);
}

static void on_task(void *user)
{
    server_end *e = user;
    if (!e->open && e->user_closed)
        return; /* the connection is closing */
    if (!e->open)
        become_open(e);
    if (e->user_closed && !e->told) {
        if (!e->deaf)
            end_politely(e);
    } else if (!e->deaf) {
        flush(e);
    }
}

/* --- making ----------------------------------------------------------------------------------- */

static int answer(tnl_conn *c, tnl_str key)
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[KEY_MAX + sizeof(magic)];
    unsigned char hash[SHA1_SIZE];
    char accept[32];
    char head[256];
    memcpy(text, key.p, key.n);
    memcpy(text + key.n, magic, sizeof(magic) - 1);
    lws_SHA1(text, key.n + sizeof(magic) - 1, hash);
    tnl_base64(accept, hash, sizeof(hash));
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
                     "Sec-WebSocket-Protocol: " TNL_WS_PROTOCOL "\r\n\r\n",
                     accept);
    tnl_iov v = {head, (size_t)n};
    return tnl_conn_write(c, &v, 1);
}

static void refuse(tnl_conn *c)
{
    static const char body[] =
        "{\"error\":\"VERSION\",\"message\":\"the WebSocket sub-protocol " TNL_WS_PROTOCOL
        " must be offered\"}\n";
    char text[512];
    int n = snprintf(
        text, sizeof(text),
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
        "Connection: close\r\n\r\n%s",
        sizeof(body) - 1, body);
    tnl_iov v = {text, (size_t)n};
    (void)tnl_conn_write(c, &v, 1);
    tnl_bridge_dismiss(c);
}

static int end_new(server_end **out, tnl_ws *w, tnl_conn *c, const uint8_t *early, size_t n)
{
    if (!w->bridge_buffer)
        w->bridge_buffer = tnl_malloc(TNL_BRIDGE_CHUNK);
    server_end *e = w->bridge_buffer ? tnl_calloc(1, sizeof(*e)) : NULL;
    if (!e)
        return TUNNEL_E_NOMEM;
    e->engine = w;
    e->conn = c;
    tnl_buf_init(&e->early, n);
    tnl_task_init(&e->task, on_task, e);
    int rc = n ? tnl_buf_add(&e->early, early, n) : 0;
    if (rc) {
        end_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

int tnl_ws_accept(tnl_transport **out, tnl_ws *w, tnl_conn *c, const uint8_t *head, size_t n,
                  const tnl_transport_events *ev, void *user)
{
    tnl_str key, list;
    server_end *e = NULL;
    size_t head_n = tnl_head_length((const char *)head, n);
    tnl_str text = {(const char *)head, head_n};
    *out = NULL;
    if (!head_n || !tnl_head_find(text, "sec-websocket-key", &key) || !key.n || key.n > KEY_MAX) {
        tnl_bridge_discard(c);
        return TUNNEL_E_PROTOCOL;
    }
    if (!tnl_head_find(text, "sec-websocket-protocol", &list) ||
        !tnl_head_has_token(list, TNL_WS_PROTOCOL)) {
        refuse(c);
        return TUNNEL_E_VERSION;
    }
    tnl_conn_keep_little(c);
    int rc = end_new(&e, w, c, head + head_n, n - head_n);
    if (rc == 0) {
        rc = answer(c, key);
        if (rc)
            end_free(e);
    }
    if (rc) {
        tnl_bridge_discard(c);
        return rc;
    }
    e->base = (tnl_transport){.ops = &end_ops, .events = ev, .user = user};
    tnl_conn_pause(c); /* what is read in this turn would come before opened() */
    tnl_conn_set_events(c, &conn_events, e);
    tnl_loop_defer(c->loop, &e->task);
    *out = &e->base;
    return 0;
}
