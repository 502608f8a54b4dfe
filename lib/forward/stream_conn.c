/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/stream_conn.h"

#include <limits.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "tunnel/error.h"
#include "wire/text.h"

typedef struct stream_conn {
    tnl_conn base;
    tnl_stream *stream; /* NULL once released */
    tnl_address peer;
    tnl_buf queue; /* what the send ring had no room for */
    tnl_task work; /* goes on reading */
    tnl_task end;  /* closed() */
    int error;
    char text[TNL_MUX_MAX_RESET_TEXT + 1];
    bool wanted;   /* the user reads */
    bool fin_seen; /* the peer's; eof() may be owed */
    bool shut;     /* the user has ended our direction */
    bool fin_sent; /* and the stream has been told */
    bool closing;
} stream_conn;

static stream_conn *of(tnl_conn *c)
{
    return TNL_CONTAINER(c, stream_conn, base);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_end(void *user)
{
    stream_conn *s = user;
    if (s->base.events->closed)
        s->base.events->closed(s->base.user, s->error, s->text);
    tnl_buf_free(&s->queue);
    tnl_free(s);
}

/* The stream has been let go; the user learns it at the end of the turn. */
static void finish(stream_conn *s, int error, const char *text, size_t n)
{
    s->stream = NULL;
    s->closing = true;
    s->error = error;
    tnl_text_clean(s->text, sizeof(s->text), text, n);
    tnl_task_cancel(&s->work);
    tnl_loop_defer(s->base.loop, &s->end);
}

static void fail(stream_conn *s, int error)
{
    const char *text = tunnel_strerror(error);
    tnl_stream_reset(s->stream, error, text);
    tnl_stream_release(s->stream);
    finish(s, error, text, strlen(text));
}

/* --- what a closed one leaves: its end is on the way, the peer's is awaited --------------------
 */

static size_t left_data(void *user, const uint8_t *p, size_t n)
{
    tnl_stream *s = user;
    (void)p;
    tnl_stream_break(s, TUNNEL_E_CANCELED, NULL);
    tnl_stream_release(s);
    return n;
}

static void left_fin(void *user)
{
    tnl_stream_release(user);
}

static void left_reset(void *user, uint32_t code, const char *text, size_t n)
{
    (void)code;
    (void)text;
    (void)n;
    tnl_stream_release(user);
}

static const tnl_stream_events left_events = {
    .data = left_data, .fin = left_fin, .reset = left_reset};

static void stream_conn_close(tnl_conn *c, bool reset)
{
    stream_conn *s = of(c);
    tnl_stream *stream = s->stream;
    if (s->closing)
        return;
    finish(s, 0, "", 0);
    if (!reset && s->fin_sent && !s->fin_seen) {
        tnl_stream_set_events(stream, &left_events, stream);
        tnl_stream_resume(stream);
        return;
    }
    if (reset)
        tnl_stream_reset(stream, TUNNEL_E_RESET, NULL);
    else if (!s->fin_sent)
        tnl_stream_break(stream, TUNNEL_E_CANCELED, NULL);
    tnl_stream_release(stream);
}

/* --- stream to user --------------------------------------------------------------------------- */

static size_t on_data(void *user, const uint8_t *bytes, size_t n)
{
    stream_conn *s = user;
    size_t used = 0;
    while (used < n && s->wanted && !s->closing) {
        uint8_t *p = NULL;
        size_t room = s->base.events->space(s->base.user, &p);
        if (s->closing || !s->wanted)
            break;
        if (room == 0) {
            s->wanted = false;
            break;
        }
        if (room > n - used)
            room = n - used;
        memcpy(p, bytes + used, room);
        used += room;
        s->base.events->data(s->base.user, p, room);
    }
    return s->closing ? n : used;
}

static void tell_eof(stream_conn *s)
{
    if (!s->wanted || s->base.ended || s->closing)
        return;
    s->base.ended = true;
    if (s->base.events->eof)
        s->base.events->eof(s->base.user);
}

static void on_fin(void *user)
{
    stream_conn *s = user;
    s->fin_seen = true;
    tell_eof(s);
}

static void on_reset(void *user, uint32_t code, const char *text, size_t n)
{
    stream_conn *s = user;
    tnl_stream_release(s->stream);
    int error = code && code <= INT_MAX ? -(int)code : TUNNEL_E_RESET;
    if (n == 0) {
        text = tunnel_strerror(error);
        n = strlen(text);
    }
    finish(s, error, text, n);
}

static void on_work(void *user)
{
    stream_conn *s = user;
    if (s->closing || !s->wanted)
        return;
    if (s->fin_seen)
        tell_eof(s);
    else
        tnl_stream_resume(s->stream);
}

static void stream_conn_resume(tnl_conn *c)
{
    stream_conn *s = of(c);
    if (s->closing || c->ended)
        return;
    s->wanted = true;
    tnl_loop_defer(c->loop, &s->work);
}

static void stream_conn_pause(tnl_conn *c)
{
    of(c)->wanted = false;
}

/* --- user to stream --------------------------------------------------------------------------- */

static void send_fin(stream_conn *s)
{
    s->fin_sent = true;
    tnl_stream_fin(s->stream);
}

static void on_room(void *user)
{
    stream_conn *s = user;
    size_t n = tnl_buf_len(&s->queue);
    if (s->closing || n == 0)
        return;
    tnl_buf_consume(&s->queue, tnl_stream_write(s->stream, tnl_buf_bytes(&s->queue), n));
    if (tnl_buf_len(&s->queue))
        return;
    tnl_buf_free(&s->queue);
    if (s->shut)
        send_fin(s);
    if (s->base.events->drained)
        s->base.events->drained(s->base.user);
}

static int stream_conn_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    stream_conn *s = of(c);
    size_t total = 0;
    if (s->shut)
        return TUNNEL_E_STATE;
    if (s->closing)
        return s->error ? 0 : TUNNEL_E_STATE;
    for (size_t i = 0; i < n; i++)
        total += v[i].n;
    size_t held = tnl_buf_len(&s->queue);
    size_t room = TNL_CONN_MAX_PENDING - held + (held ? 0 : tnl_stream_room(s->stream));
    int rc = total > room ? TUNNEL_E_LIMIT : 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t done = held ? 0 : tnl_stream_write(s->stream, v[i].p, v[i].n);
        held += v[i].n - done;
        if (done < v[i].n)
            rc = tnl_buf_add(&s->queue, (const uint8_t *)v[i].p + done, v[i].n - done);
    }
    if (rc)
        fail(s, rc);
    return rc;
}

static size_t stream_conn_pending(const tnl_conn *c)
{
    return tnl_buf_len(&TNL_CONTAINER(c, const stream_conn, base)->queue);
}

static void stream_conn_shutdown(tnl_conn *c)
{
    stream_conn *s = of(c);
    if (s->closing || s->shut)
        return;
    s->shut = true;
    if (tnl_buf_len(&s->queue) == 0)
        send_fin(s);
}

static tnl_address stream_conn_peer(const tnl_conn *c)
{
    return TNL_CONTAINER(c, const stream_conn, base)->peer;
}

static const tnl_conn_ops stream_conn_ops = {
    .write = stream_conn_write,
    .pending = stream_conn_pending,
    .resume = stream_conn_resume,
    .pause = stream_conn_pause,
    .shutdown = stream_conn_shutdown,
    .close = stream_conn_close,
    .peer = stream_conn_peer,
};

static const tnl_stream_events stream_events = {
    .data = on_data, .fin = on_fin, .reset = on_reset, .room = on_room};

int tnl_stream_conn(tnl_conn **out, tnl_loop *loop, tnl_stream *s, const tnl_address *peer,
                    const tnl_conn_events *ev, void *user)
{
    stream_conn *c = tnl_calloc(1, sizeof(*c));
    *out = NULL;
    if (!c)
        return TUNNEL_E_NOMEM;
    c->base.ops = &stream_conn_ops;
    c->base.loop = loop;
    tnl_conn_set_events(&c->base, ev, user);
    c->stream = s;
    if (peer)
        c->peer = *peer;
    tnl_buf_init(&c->queue, TNL_CONN_MAX_PENDING);
    tnl_task_init(&c->work, on_work, c);
    tnl_task_init(&c->end, on_end, c);
    tnl_stream_set_events(s, &stream_events, c);
    *out = &c->base;
    return 0;
}
