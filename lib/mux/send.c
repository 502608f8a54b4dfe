/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mux/internal.h"

void tnl_mux_wake(tnl_mux_link *l)
{
    if (l->woken)
        return;
    l->woken = true;
    l->mux->events->wake(l->mux->user, l->user);
}

static size_t sendable(const tnl_stream *s)
{
    uint64_t end = s->out.ring.end < s->out.limit ? s->out.ring.end : s->out.limit;
    if (s->out.end == TERMINAL_RESET || end <= s->out.sent)
        return 0;
    return (size_t)(end - s->out.sent);
}

static bool terminal_due(const tnl_stream *s)
{
    if (s->out.end <= s->out.end_sent)
        return false;
    return s->out.end == TERMINAL_RESET || s->out.sent == s->out.final;
}

static bool something_to_send(const tnl_stream *s)
{
    return !s->open_sent || terminal_due(s) || sendable(s) > 0;
}

void tnl_mux_mark_ready(tnl_stream *s)
{
    if (!s->link || s->retired || !tnl_list_empty(&s->ready) || !something_to_send(s))
        return;
    if (s->id == 0)
        tnl_list_add_head(&s->link->ready, &s->ready);
    else
        tnl_list_add_tail(&s->link->ready, &s->ready);
    tnl_mux_wake(s->link);
}

void tnl_mux_mark_ack(tnl_stream *s, bool urgent)
{
    tnl_mux *m = s->mux;
    if (s->retired)
        return;
    s->ack_due = true;
    if (!s->link || !tnl_list_empty(&s->ack_ready))
        return;
    if (urgent) {
        tnl_list_remove(&s->lazy_ack);
        tnl_list_add_tail(&s->link->acks, &s->ack_ready);
        tnl_mux_wake(s->link);
    } else if (tnl_list_empty(&s->lazy_ack)) {
        if (tnl_list_empty(&m->lazy_acks))
            m->lazy_since = m->now;
        tnl_list_add_tail(&m->lazy_acks, &s->lazy_ack);
    }
}

uint64_t tnl_mux_received(const tnl_stream *s)
{
    if (s->in.end == TERMINAL_RESET)
        return s->in.final + TERMINAL_RESET;
    if (s->in.end == TERMINAL_FIN && s->in.ring.end == s->in.final)
        return s->in.final + TERMINAL_FIN;
    return s->in.ring.end;
}

/* The peer has everything before `received` of our direction (already checked against what was ever sent). */
void tnl_mux_acked(tnl_stream *s, uint64_t received)
{
    send_half *o = &s->out;
    size_t before = (size_t)(o->sent - o->ring.start);
    if (o->end_max != TERMINAL_NONE && received > o->final)
        o->end_acked = received - o->final >= TERMINAL_RESET ? TERMINAL_RESET : TERMINAL_FIN;
    if (received > o->ring.end)
        received = o->ring.end;
    if (received > o->ring.start)
        tnl_ring_drop(&o->ring, received);
    if (o->sent < o->ring.start)
        o->sent = o->ring.start;
    if (o->end_sent < o->end_acked)
        o->end_sent = o->end_acked;
    tnl_ring_trim(&o->ring);
    if (s->link) {
        size_t after = (size_t)(o->sent - o->ring.start);
        bool was_full = s->link->inflight >= s->link->max_inflight;
        s->link->inflight = s->link->inflight + after - before;
        if (was_full && !tnl_list_empty(&s->link->ready))
            tnl_mux_wake(s->link);
    }
    tnl_mux_mark_ready(s);
}

/* --- writing a batch --------------------------------------------------------------------------------------------- */

typedef struct batch {
    tnl_mux *mux;
    uint8_t *p;
    size_t left;
} batch;

static bool put(batch *b, const tnl_frame *f)
{
    size_t n = tnl_frame_encode(b->p, b->left, f);
    b->p += n;
    b->left -= n;
    b->mux->stats.frames_out += n > 0;
    return n > 0;
}

static bool put_ack(batch *b, tnl_stream *s)
{
    tnl_frame f = {.type = TNL_FRAME_ACK, .stream = s->id, .offset = tnl_mux_received(s), .limit = s->in.limit};
    if (!put(b, &f))
        return false;
    s->in.acked = f.offset;
    s->in.limit_sent = f.limit;
    s->ack_due = false;
    tnl_list_remove(&s->ack_ready);
    tnl_list_remove(&s->lazy_ack);
    return true;
}

static bool put_open(batch *b, tnl_stream *s)
{
    tnl_frame f = {.type = TNL_FRAME_OPEN, .stream = s->id, .rest = s->open_map, .rest_len = s->open_map_len};
    if (!put(b, &f))
        return false;
    s->open_sent = s->open_ever_sent = true;
    return true;
}

static bool put_terminal(batch *b, tnl_stream *s)
{
    tnl_frame f = {.type = TNL_FRAME_FIN, .stream = s->id, .offset = s->out.final};
    if (s->out.end == TERMINAL_RESET) {
        f.type = TNL_FRAME_RESET;
        f.code = s->reset_code;
        f.rest = (const uint8_t *)s->reset_text;
        f.rest_len = s->reset_text ? strlen(s->reset_text) : 0;
    }
    if (!put(b, &f))
        return false;
    s->out.end_sent = s->out.end;
    if (s->out.end_max < s->out.end)
        s->out.end_max = s->out.end;
    return true;
}

/* One DATA frame of at most max bytes, gathered from the ring. Returns how many bytes went. */
static size_t put_data(batch *b, tnl_stream *s, size_t max)
{
    enum { HEAD = TNL_FRAME_HEADER + 8 };
    send_half *o = &s->out;
    size_t n = sendable(s);
    if (n > max)
        n = max;
    if (b->left <= HEAD)
        return 0;
    if (n > b->left - HEAD)
        n = b->left - HEAD;
    if (n == 0)
        return 0;
    const uint8_t *piece;
    size_t first = tnl_ring_peek(&o->ring, o->sent, &piece);
    tnl_frame f = {.type = TNL_FRAME_DATA, .stream = s->id, .offset = o->sent, .rest = piece, .rest_len = n};
    if (first >= n) {
        if (!put(b, &f))
            return 0;
    } else {
        /* The ring wraps: the head says n, the payload is copied in two pieces. */
        f.rest_len = 0;
        tnl_frame_encode(b->p, b->left, &f);
        size_t length = n + 8;
        b->p[1] = (uint8_t)(length >> 16);
        b->p[2] = (uint8_t)(length >> 8);
        b->p[3] = (uint8_t)length;
        memcpy(b->p + HEAD, piece, first);
        tnl_ring_peek(&o->ring, o->sent + first, &piece);
        memcpy(b->p + HEAD + first, piece, n - first);
        b->p += HEAD + n;
        b->left -= HEAD + n;
        b->mux->stats.frames_out++;
    }
    o->sent += n;
    if (o->max_sent < o->sent)
        o->max_sent = o->sent;
    s->link->inflight += n;
    b->mux->stats.data_out += n;
    return n;
}

/* One turn of one stream. False: the batch is full, its turn goes on with the next batch. */
static bool take_turn(batch *b, tnl_stream *s)
{
    tnl_mux_link *l = s->link;
    if (!s->open_sent && !put_open(b, s))
        return false;
    size_t quantum = TNL_MUX_QUANTUM;
    while (quantum && sendable(s) && (l->inflight < l->max_inflight || s->id == 0)) {
        size_t max = quantum < s->mux->config.remote.max_frame ? quantum : s->mux->config.remote.max_frame;
        size_t n = put_data(b, s, max);
        if (n == 0)
            return false;
        quantum -= n;
    }
    return !terminal_due(s) || put_terminal(b, s);
}

static void put_queued(batch *b, tnl_buf *queue)
{
    while (tnl_buf_len(queue)) {
        const uint8_t *p = tnl_buf_bytes(queue);
        size_t n = TNL_FRAME_HEADER + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
        if (n > b->left)
            return;
        memcpy(b->p, p, n);
        b->p += n;
        b->left -= n;
        b->mux->stats.frames_out++;
        tnl_buf_consume(queue, n);
    }
    tnl_buf_free(queue);
}

static void put_acks(batch *b, tnl_mux_link *l)
{
    for (tnl_list *n; (n = tnl_list_first(&l->acks));) {
        tnl_stream *s = TNL_CONTAINER(n, tnl_stream, ack_ready);
        if (!put_ack(b, s))
            return;
        tnl_mux_settle(s);
    }
}

static void put_streams(batch *b, tnl_mux_link *l)
{
    /* Streams that only wait for the link's in-flight bound are set aside, so that small ones behind them get through. */
    tnl_list blocked;
    tnl_list_init(&blocked);
    for (tnl_list *n; (n = tnl_list_first(&l->ready));) {
        tnl_stream *s = TNL_CONTAINER(n, tnl_stream, ready);
        size_t before = b->left;
        bool fits = take_turn(b, s);
        if (!fits)
            break;
        tnl_list_remove(n);
        if (something_to_send(s))
            tnl_list_add_tail(before == b->left ? &blocked : &l->ready, n);
        tnl_mux_tell_room(s);
    }
    for (tnl_list *n; (n = tnl_list_first(&blocked));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&l->ready, n);
    }
}

size_t tnl_mux_pull(tnl_mux *m, tnl_mux_link *l, uint8_t *out, size_t cap)
{
    batch b = {.mux = m, .p = out, .left = cap};
    put_queued(&b, &m->re_acks);
    if (m->control->link == l && !tnl_list_empty(&m->control->ready) && take_turn(&b, m->control)) {
        tnl_list_remove(&m->control->ready);
        tnl_mux_mark_ready(m->control);
    }
    put_acks(&b, l);
    put_queued(&b, &m->event_queue);
    put_streams(&b, l);
    size_t n = cap - b.left;
    if (n == 0)
        l->woken = false;
    return n;
}
