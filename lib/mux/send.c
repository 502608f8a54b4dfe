/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mux/internal.h"
#include "tunnel/error.h"

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

/*
 * A FIN goes after the data; but one that is sent again goes before it: the peer may have retired
 * the stream, and then it acknowledges the FIN alone, never the data that would fill the link's
 * bound.
 */
static bool terminal_due(const tnl_stream *s)
{
    const send_half *o = &s->out;
    if (o->end <= o->end_sent)
        return false;
    return o->end == TERMINAL_RESET || o->end <= o->end_max || o->sent == o->final;
}

void tnl_mux_mark_ready(tnl_stream *s)
{
    tnl_mux_link *l = s->link;
    if (!l || s->retired)
        return;
    bool frames = !s->open_sent || terminal_due(s);
    if (!frames && sendable(s) == 0)
        return;
    bool capped = !frames && s->id != 0 && !tnl_flight_open(&l->flight);
    if (!tnl_list_empty(&s->ready)) {
        if (!s->capped || !frames)
            return;
        tnl_list_remove(&s->ready);
    }
    bool begins = s->out.lately < TNL_MUX_QUANTUM;
    s->capped = capped;
    s->begins = begins;
    if (s->id == 0)
        tnl_list_add_head(&l->ready[1], &s->ready);
    else
        tnl_list_add_tail(capped ? &l->capped[begins] : &l->ready[begins], &s->ready);
    if (!capped)
        tnl_mux_wake(l);
}

void tnl_mux_mark_ack(tnl_stream *s, bool urgent)
{
    tnl_mux *m = s->mux;
    tnl_mux_link *l = s->link;
    /* Terminals have been acknowledged already, and all before them with that. */
    if (s->retired || tnl_mux_in_complete(s))
        return;
    s->ack_due = true;
    if (!l)
        return;
    if (!tnl_list_empty(&s->ack_ready))
        return;
    if (urgent) {
        tnl_list_remove(&s->lazy_ack);
        tnl_list_add_tail(&l->acks, &s->ack_ready);
        tnl_mux_wake(l);
    } else if (tnl_list_empty(&s->lazy_ack)) {
        if (tnl_list_empty(&m->lazy_acks))
            m->lazy_since = m->now;
        tnl_list_add_tail(&m->lazy_acks, &s->lazy_ack);
    }
}

void tnl_mux_flush_acks(tnl_mux *m)
{
    m->lazy_bytes = 0;
    for (tnl_list *n; (n = tnl_list_first(&m->lazy_acks));) {
        tnl_list_remove(n);
        tnl_mux_mark_ack(TNL_CONTAINER(n, tnl_stream, lazy_ack), true);
    }
}

size_t tnl_mux_in_flight(const tnl_stream *s)
{
    return (size_t)(s->out.sent - s->out.ring.start) + s->out.dropped;
}

void tnl_mux_landed(tnl_stream *s, size_t before)
{
    tnl_mux_link *l = s->link;
    if (!l)
        return;
    tnl_flight_landed(&l->flight, before - tnl_mux_in_flight(s), s->mux->now);
    if (tnl_flight_open(&l->flight) &&
        (!tnl_list_empty(&l->capped[0]) || !tnl_list_empty(&l->capped[1])))
        tnl_mux_wake(l);
}

int tnl_mux_ack_end(tnl_mux_link *l, uint64_t stream, uint64_t received)
{
    tnl_frame ack = {.type = TNL_FRAME_ACK, .stream = stream, .offset = received};
    uint8_t bytes[TNL_MUX_ACK_SIZE];
    int rc = tnl_buf_add(&l->end_acks, bytes, tnl_frame_encode(bytes, sizeof(bytes), &ack));
    if (rc)
        return rc == TUNNEL_E_LIMIT ? TUNNEL_E_PROTOCOL : rc;
    tnl_mux_wake(l);
    return 0;
}

bool tnl_mux_in_complete(const tnl_stream *s)
{
    const recv_half *in = &s->in;
    return in->end == TERMINAL_RESET || (in->end == TERMINAL_FIN && in->ring.end == in->final);
}

uint64_t tnl_mux_received(const tnl_stream *s)
{
    return tnl_mux_in_complete(s) ? s->in.final + (uint64_t)s->in.end : s->in.ring.end;
}

/* The peer has everything before `received` of our direction (already checked against what was ever
 * sent). */
void tnl_mux_acked(tnl_stream *s, uint64_t received)
{
    send_half *o = &s->out;
    size_t before = tnl_mux_in_flight(s);
    if (o->end_max != TERMINAL_NONE && received > o->final) {
        terminal end = received - o->final >= TERMINAL_RESET ? TERMINAL_RESET : TERMINAL_FIN;
        if (o->end_acked < end)
            o->end_acked = end;
        o->dropped = 0;
    }
    if (received > o->ring.end)
        received = o->ring.end;
    if (received > o->ring.start)
        tnl_ring_drop(&o->ring, received);
    tnl_mux_count_held(s);
    if (o->sent < o->ring.start)
        o->sent = o->ring.start;
    if (o->end_sent < o->end_acked)
        o->end_sent = o->end_acked;
    if (o->ring.start == o->ring.end) {
        o->hint = o->peak;
        o->peak = 0;
        o->lately = 0;
        tnl_ring_free(&o->ring);
    }
    tnl_mux_landed(s, before);
    tnl_mux_go_on_breaking(s);
    tnl_mux_mark_ready(s);
}

/* --- writing a batch -------------------------------------------------------------------------- */

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
    tnl_frame f = {.type = TNL_FRAME_ACK,
                   .stream = s->id,
                   .offset = tnl_mux_received(s),
                   .limit = s->in.limit};
    if (!put(b, &f))
        return false;
    if (s->in.probe == 0 && f.limit > s->in.limit_sent)
        s->in.probe = f.limit;
    s->in.acked = f.offset;
    s->in.limit_sent = f.limit;
    s->ack_due = false;
    tnl_list_remove(&s->ack_ready);
    tnl_list_remove(&s->lazy_ack);
    return true;
}

static bool put_open(batch *b, tnl_stream *s)
{
    tnl_frame f = {
        .type = TNL_FRAME_OPEN, .stream = s->id, .rest = s->open_map, .rest_len = s->open_map_len};
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

/* One DATA frame of at most max bytes, gathered from the ring. Returns how many bytes went; 0: the
 * batch is full. */
static size_t put_data(batch *b, tnl_stream *s, size_t max)
{
    enum { HEAD = TNL_FRAME_HEADER + 8, WORTH = 256 };
    send_half *o = &s->out;
    size_t n = sendable(s);
    if (n > max)
        n = max;
    if (b->left < HEAD + (n < WORTH ? n : WORTH))
        return 0;
    if (n > b->left - HEAD)
        n = b->left - HEAD;
    if (!tnl_frame_encode_data_head(b->p, b->left, s->id, o->sent, n))
        return 0;
    const uint8_t *piece;
    size_t first = tnl_ring_peek(&o->ring, o->sent, &piece);
    if (first > n)
        first = n;
    memcpy(b->p + HEAD, piece, first);
    if (first < n) {
        tnl_ring_peek(&o->ring, o->sent + first, &piece);
        memcpy(b->p + HEAD + first, piece, n - first);
    }
    b->p += HEAD + n;
    b->left -= HEAD + n;
    b->mux->stats.frames_out++;
    b->mux->stats.data_out += n;
    o->sent += n;
    o->lately += n;
    if (o->max_sent < o->sent)
        o->max_sent = o->sent;
    tnl_flight_sent(&s->link->flight, n, b->mux->now);
    return n;
}

/* One turn of one stream. False: the batch is full, its turn goes on with the next batch. */
static bool take_turn(batch *b, tnl_stream *s)
{
    tnl_mux_link *l = s->link;
    if (!s->open_sent && !put_open(b, s))
        return false;
    if (terminal_due(s) && !put_terminal(b, s))
        return false;
    size_t quantum = TNL_MUX_QUANTUM;
    while (quantum && sendable(s) && (tnl_flight_open(&l->flight) || s->id == 0)) {
        size_t max = quantum < s->mux->config.remote.max_frame ? quantum
                                                               : s->mux->config.remote.max_frame;
        size_t n = put_data(b, s, max);
        if (n == 0)
            return false;
        quantum -= n;
    }
    return !terminal_due(s) || put_terminal(b, s);
}

static void put_queued(batch *b, tnl_buf *queue)
{
    if (tnl_buf_len(queue) == 0)
        return;
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
    }
}

/*
 * Those that waited for room in flight first, when there is some; and before that, those that
 * begin: a small answer does not wait for a turn of each that has much to say. But they do not keep
 * all others from theirs.
 */
static tnl_stream *next_turn(const tnl_mux_link *l)
{
    bool open = tnl_flight_open(&l->flight);
    for (size_t i = 0; i < 2; i++) {
        bool begins = (i == 0) == (l->jumped < TNL_MUX_JUMP);
        tnl_list *n = open ? tnl_list_first(&l->capped[begins]) : NULL;
        if (!n)
            n = tnl_list_first(&l->ready[begins]);
        if (n)
            return TNL_CONTAINER(n, tnl_stream, ready);
    }
    return NULL;
}

static void put_streams(batch *b, tnl_mux_link *l)
{
    for (tnl_stream *s; (s = next_turn(l));) {
        size_t before = b->left;
        bool begins = s->begins;
        bool done = take_turn(b, s);
        l->jumped = begins ? l->jumped + (before - b->left) : 0;
        if (!done)
            return;
        tnl_list_remove(&s->ready);
        tnl_mux_mark_ready(s);
        tnl_mux_tell_room(s);
    }
}

static void put_datagrams(batch *b, tnl_mux_link *l, size_t most)
{
    size_t n = tnl_mux_put_datagrams(b->mux, l, b->p, most < b->left ? most : b->left);
    b->p += n;
    b->left -= n;
}

size_t tnl_mux_pull(tnl_mux *m, tnl_mux_link *l, uint8_t *out, size_t cap, uint64_t now_ms)
{
    tnl_mux_set_now(m, now_ms);
    batch b = {.mux = m, .p = out, .left = cap};
    l->pulling = true;
    put_queued(&b, &l->end_acks);
    if (m->control->link == l && !tnl_list_empty(&m->control->ready) && take_turn(&b, m->control)) {
        tnl_list_remove(&m->control->ready);
        tnl_mux_mark_ready(m->control);
    }
    put_acks(&b, l);
    if (!tnl_mux_link_aside(l))
        put_queued(&b, &m->event_queue);
    bool streams = next_turn(l) != NULL;
    put_datagrams(&b, l, streams ? cap / 2 : cap);
    put_streams(&b, l);
    if (streams)
        put_datagrams(&b, l, cap);
    /* Callbacks may have made new ones. */
    if (b.left == cap)
        put_acks(&b, l);
    l->pulling = false;
    size_t n = cap - b.left;
    if (n == 0)
        l->woken = false;
    if (l->lost) {
        tnl_mux_link_free(l);
        return 0;
    }
    return n;
}
