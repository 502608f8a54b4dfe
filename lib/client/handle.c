/* SPDX-License-Identifier: Apache-2.0 */
#include "client/handle.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "client/internal.h"
#include "forward/stream_conn.h"
#include "tunnel/error.h"
#include "wire/text.h"

enum {
    CHUNK = 16 * 1024, /* of what is written to a connection at once */
    ROOM = 64 * 1024,  /* what an empty connection takes */
    WHY = 200,
};

struct tnl_handle {
    tnl_map_node by_id; /* in the client's handles, until closed() is told */
    tnl_list node;
    tnl_client *client;
    uint64_t id;
    uint64_t tunnel;
    tnl_kind kind;
    tnl_stream *stream; /* the far side of the bytes, or */
    tnl_conn *conn;     /* TLS over it, terminated here; both NULL: gone */
    tnl_buf held;       /* what came of conn and was not used up */
    bool known;         /* visitor() was told */
    bool delivering;    /* data() is on the stack */
    bool again;         /* another data() was set from there */
    bool wants_room;    /* a write to conn was cut */
    bool eof;           /* of conn; what is held comes before it is told */
    bool ended_in;      /* the visitor's direction, and the app was told */
    bool ended_out;
    bool over; /* closed() will be told at the end of this turn */
    int error;
    char text[WHY];
    tnl_task task;
    uint64_t started_us;
    uint64_t bytes_in;
    uint64_t bytes_out;
    char visitor[80];
    uint16_t port;
    size_t (*data)(void *user, uint64_t id, const void *p, size_t n);
    void *data_user;
    void (*end)(void *user, uint64_t id);
    void *end_user;
    void (*room)(void *user, uint64_t id);
    void *room_user;
    void (*closed)(void *user, uint64_t id, int error, const char *text);
    void *closed_user;
};

tnl_handle *tnl_handle_find(const tnl_client *c, uint64_t id)
{
    tnl_map_node *n = tnl_map_get_id(&c->handles, id);
    return n ? TNL_CONTAINER(n, tnl_handle, by_id) : NULL;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void handle_free(tnl_handle *h)
{
    tnl_client *c = h->client;
    tnl_list_remove(&h->node);
    tnl_buf_free(&h->held);
    tnl_free(h);
    tnl_client_release(c);
}

static void tell_connection(tnl_handle *h)
{
    char visitor[80], text[WHY];
    tunnel_event e = {
        .type = TUNNEL_EVENT_CONNECTION,
        .tunnel = h->tunnel,
        .visitor = tnl_log_escape(visitor, sizeof(visitor), h->visitor, strlen(h->visitor)),
        .duration_us = tnl_loop_clock_us() - h->started_us,
        .bytes_in = h->bytes_in,
        .bytes_out = h->bytes_out,
        .error = h->error,
        .text = tnl_log_escape(text, sizeof(text), h->text, strlen(h->text))};
    if (h->kind != TNL_KIND_HTTP)
        tnl_client_tell(h->client, &e);
}

/* At the end of the turn, when nothing of the handle is on the stack. */
static void on_over(void *user)
{
    tnl_handle *h = user;
    tnl_map_remove(&h->client->handles, &h->by_id);
    if (h->known && h->closed)
        h->closed(h->closed_user, h->id, h->error, h->text);
    tell_connection(h);
    h->known = false;
    h->id = 0;
    if (!h->conn)
        handle_free(h);
}

static void finish(tnl_handle *h, int error, const char *text, size_t n)
{
    if (h->over)
        return;
    h->over = true;
    h->error = error;
    if (error && n == 0) {
        text = tunnel_strerror(error);
        n = strlen(text);
    }
    tnl_text_clean(h->text, sizeof(h->text), text, n);
    tnl_loop_defer(h->client->loop, &h->task);
}

static void drop_stream(tnl_handle *h)
{
    tnl_stream *s = h->stream;
    h->stream = NULL;
    if (s && h->error)
        tnl_stream_reset(s, h->error, h->text);
    if (s)
        tnl_stream_release(s);
}

/* Both directions have ended. */
static void maybe_over(tnl_handle *h)
{
    if (!h->ended_in || !h->ended_out || h->over)
        return;
    finish(h, 0, "", 0);
    drop_stream(h);
    if (h->conn)
        tnl_conn_finish(h->conn);
}

void tnl_handle_reset(tnl_handle *h, int error, const char *text)
{
    if (h->over)
        return;
    if (error >= 0)
        error = TUNNEL_E_CANCELED;
    finish(h, error, text, text ? strlen(text) : 0);
    /* The bytes that data() is looking at are the stream's. */
    if (!h->delivering)
        drop_stream(h);
    if (h->conn)
        tnl_conn_reset(h->conn);
}

void tnl_handle_close_all(tnl_client *c)
{
    for (tnl_list *n = c->handle_list.next; n != &c->handle_list; n = n->next)
        tnl_handle_reset(TNL_CONTAINER(n, tnl_handle, node), TUNNEL_E_CANCELED,
                         "the client is leaving");
}

/* --- the visitor's bytes ---------------------------------------------------------------------- */

/* Offers p[0..n); how many were used up. */
static size_t deliver(tnl_handle *h, const uint8_t *p, size_t n)
{
    size_t used = 0;
    h->delivering = true;
    do {
        h->again = false;
        if (!h->data)
            break;
        size_t took = h->data(h->data_user, h->id, p + used, n - used);
        used += took < n - used ? took : n - used;
    } while (h->again && used < n && !h->over);
    h->delivering = false;
    h->bytes_in += used;
    return used;
}

static void visitor_ended(tnl_handle *h)
{
    h->ended_in = true;
    if (h->end)
        h->end(h->end_user, h->id);
    maybe_over(h);
}

/* --- straight from the mux -------------------------------------------------------------------- */

static size_t stream_data(void *user, const uint8_t *p, size_t n)
{
    tnl_handle *h = user;
    size_t used = deliver(h, p, n);
    if (h->over)
        drop_stream(h);
    return used;
}

static void stream_fin(void *user)
{
    visitor_ended(user);
}

static void stream_reset(void *user, uint32_t code, const char *text, size_t n)
{
    tnl_handle *h = user;
    tnl_stream *s = h->stream;
    int error = code && code < 1000 ? -(int)code : TUNNEL_E_RESET;
    if (strcmp(tunnel_error_name(error), "UNKNOWN") == 0)
        error = TUNNEL_E_RESET;
    finish(h, error, text, n);
    h->stream = NULL;
    tnl_stream_release(s);
}

static void stream_room(void *user)
{
    tnl_handle *h = user;
    if (h->room)
        h->room(h->room_user, h->id);
}

static const tnl_stream_events stream_events = {
    .data = stream_data, .fin = stream_fin, .reset = stream_reset, .room = stream_room};

/* --- through TLS ------------------------------------------------------------------------------ */

static void tell_visitor(tnl_handle *h, void (*visitor)(void *user, uint64_t id), void *user)
{
    h->known = true;
    visitor(user, h->id);
    if (!h->data)
        tnl_handle_reset(h, TUNNEL_E_DENIED, "nobody took the stream");
}

static size_t conn_space(void *user, uint8_t **p)
{
    tnl_handle *h = user;
    *p = tnl_loop_scratch(h->client->loop);
    return h->over || tnl_buf_len(&h->held) || !h->data ? 0 : TNL_LOOP_SCRATCH;
}

static void conn_data(void *user, uint8_t *p, size_t n)
{
    tnl_handle *h = user;
    size_t used = h->over ? n : deliver(h, p, n);
    if (used < n && !h->over && tnl_buf_add(&h->held, p + used, n - used))
        tnl_handle_reset(h, TUNNEL_E_NOMEM, NULL);
}

static void conn_eof(void *user)
{
    tnl_handle *h = user;
    h->eof = true;
    if (!h->over && tnl_buf_len(&h->held) == 0)
        visitor_ended(h);
}

static void conn_drained(void *user)
{
    tnl_handle *h = user;
    if (h->over || !h->wants_room)
        return;
    h->wants_room = false;
    stream_room(h);
}

static void conn_ready(void *user)
{
    tnl_handle *h = user;
    const tnl_client_tunnel *t = tnl_client_find(h->client, h->tunnel);
    if (h->over)
        return;
    if (!t) {
        tnl_handle_reset(h, TUNNEL_E_GONE, NULL);
        return;
    }
    tell_visitor(h, t->spec.visitor, t->spec.user);
    if (!h->over)
        tnl_conn_resume(h->conn);
}

static void conn_closed(void *user, int error, const char *detail)
{
    tnl_handle *h = user;
    h->conn = NULL;
    if (!h->over)
        finish(h, error ? error : TUNNEL_E_RESET, detail, strlen(detail));
    else if (h->id == 0)
        handle_free(h);
}

static const tnl_conn_events conn_events = {.space = conn_space,
                                            .data = conn_data,
                                            .eof = conn_eof,
                                            .drained = conn_drained,
                                            .ready = conn_ready,
                                            .closed = conn_closed};

static void conn_resume(tnl_handle *h)
{
    size_t n = tnl_buf_len(&h->held);
    if (n) {
        /* The callback may do away with the bytes under it only by way of `over`. */
        size_t used = deliver(h, tnl_buf_bytes(&h->held), n);
        if (h->over)
            return;
        tnl_buf_consume(&h->held, used);
        if (used < n)
            return;
        tnl_buf_free(&h->held);
    }
    if (!h->eof)
        tnl_conn_resume(h->conn);
    else if (!h->ended_in)
        visitor_ended(h);
}

static int start_tls(tnl_handle *h, tnl_tls_server *tls, tnl_stream *s)
{
    tnl_conn *lower;
    tnl_address peer = {.port = h->port};
    snprintf(peer.host, sizeof(peer.host), "%.63s", h->visitor);
    int rc = tnl_stream_conn(&lower, h->client->loop, s, &peer, &tnl_conn_no_events, NULL);
    if (rc)
        return rc;
    /* The stream is taken from here on, and ends with the connection. */
    if (tnl_tls_accept(&h->conn, tls, lower, NULL, 0, &conn_events, h)) {
        h->conn = NULL;
        finish(h, TUNNEL_E_NOMEM, NULL, 0);
    }
    return 0;
}

/* --- a visitor comes -------------------------------------------------------------------------- */

int tnl_handle_accept(tnl_client *c, const tnl_client_tunnel *t, tnl_stream *s, const tnl_open *m)
{
    tnl_handle *h = tnl_calloc(1, sizeof(*h));
    if (!h)
        return TUNNEL_E_NOMEM;
    h->client = c;
    h->id = ++c->next_handle;
    h->tunnel = t->id;
    h->kind = t->spec.kind;
    h->started_us = tnl_loop_clock_us();
    h->port = (uint16_t)m->port;
    tnl_buf_init(&h->held, TNL_LOOP_SCRATCH);
    tnl_task_init(&h->task, on_over, h);
    snprintf(h->visitor, sizeof(h->visitor), "%.*s", (int)m->visitor.n,
             m->visitor.n ? m->visitor.p : "");
    int rc = tnl_map_put_id(&c->handles, &h->by_id, h->id);
    if (rc) {
        tnl_free(h);
        return rc;
    }
    tnl_list_add_tail(&c->handle_list, &h->node);
    tnl_client_hold(c);
    if (t->spec.tls) {
        rc = start_tls(h, t->spec.tls, s);
        if (rc) {
            tnl_map_remove(&c->handles, &h->by_id);
            handle_free(h);
        }
        return rc;
    }
    h->stream = s;
    tnl_stream_set_events(s, &stream_events, h);
    tell_visitor(h, t->spec.visitor, t->spec.user);
    return 0;
}

/* --- what the app does ------------------------------------------------------------------------ */

void tnl_handle_on_data(tnl_handle *h,
                        size_t (*data)(void *user, uint64_t id, const void *p, size_t n),
                        void *user)
{
    h->again = data && (data != h->data || user != h->data_user);
    h->data = data;
    h->data_user = user;
    tnl_handle_resume(h);
}

void tnl_handle_on_end(tnl_handle *h, void (*end)(void *user, uint64_t id), void *user)
{
    h->end = end;
    h->end_user = user;
}

void tnl_handle_on_room(tnl_handle *h, void (*room)(void *user, uint64_t id), void *user)
{
    h->room = room;
    h->room_user = user;
}

void tnl_handle_on_closed(tnl_handle *h,
                          void (*closed)(void *user, uint64_t id, int error, const char *text),
                          void *user)
{
    h->closed = closed;
    h->closed_user = user;
}

/* Reading and writing is for those who know the visitor already. */
static bool usable(const tnl_handle *h)
{
    return !h->over && h->known;
}

static int64_t conn_write(tnl_handle *h, const uint8_t *p, size_t n)
{
    size_t took = 0;
    while (took < n && tnl_conn_pending(h->conn) == 0) {
        tnl_iov v = {p + took, n - took < CHUNK ? n - took : CHUNK};
        /* A failed write is followed by closed(). */
        if (tnl_conn_write(h->conn, &v, 1))
            return (int64_t)n;
        took += v.n;
    }
    h->wants_room = took < n;
    return (int64_t)took;
}

int64_t tnl_handle_write(tnl_handle *h, const void *p, size_t n)
{
    if (!usable(h) || h->ended_out)
        return TUNNEL_E_STATE;
    int64_t took = h->stream ? (int64_t)tnl_stream_write(h->stream, p, n) : conn_write(h, p, n);
    h->bytes_out += (uint64_t)took;
    return took;
}

size_t tnl_handle_room(const tnl_handle *h)
{
    if (!usable(h) || h->ended_out)
        return 0;
    if (h->stream)
        return tnl_stream_room(h->stream);
    return tnl_conn_pending(h->conn) ? 0 : ROOM;
}

void tnl_handle_end(tnl_handle *h)
{
    if (!usable(h) || h->ended_out)
        return;
    h->ended_out = true;
    if (h->stream)
        tnl_stream_fin(h->stream);
    else if (!h->ended_in)
        tnl_conn_shutdown(h->conn);
    maybe_over(h);
}

void tnl_handle_resume(tnl_handle *h)
{
    if (!usable(h) || h->delivering)
        return;
    if (h->stream)
        tnl_stream_resume(h->stream);
    else
        conn_resume(h);
}

const char *tnl_handle_visitor(const tnl_handle *h, uint16_t *port)
{
    if (port)
        *port = h->port;
    return h->visitor;
}

uint64_t tnl_handle_tunnel(const tnl_handle *h)
{
    return h->tunnel;
}
