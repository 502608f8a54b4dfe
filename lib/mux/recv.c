/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "mux/internal.h"
#include "tunnel/error.h"

/* --- ids --------------------------------------------------------------------------------------------------------- */

static bool is_local(const tnl_mux *m, uint64_t id)
{
    return (id % 2 == 0) == m->config.server;
}

/* 1, 2, 3, ... for the ids an end opens one after the other. */
static uint64_t index_of(uint64_t id)
{
    return (id + 1) / 2;
}

static bool was_opened(const tnl_mux *m, uint64_t id)
{
    uint64_t i = index_of(id);
    if (is_local(m, id))
        return i < m->next_index;
    if (i < m->seen_floor)
        return true;
    if (i >= m->seen_floor + TNL_MUX_ID_WINDOW)
        return false;
    return m->seen[i % TNL_MUX_ID_WINDOW / 8] >> (i % 8) & 1;
}

static void mark_opened(tnl_mux *m, uint64_t id)
{
    uint64_t i = index_of(id);
    m->seen[i % TNL_MUX_ID_WINDOW / 8] |= (uint8_t)(1 << (i % 8));
    for (i = m->seen_floor; m->seen[i % TNL_MUX_ID_WINDOW / 8] >> (i % 8) & 1; i++)
        m->seen[i % TNL_MUX_ID_WINDOW / 8] &= (uint8_t) ~(1 << (i % 8));
    m->seen_floor = i;
}

static tnl_stream *find(const tnl_mux *m, uint64_t id)
{
    if (id == 0)
        return m->control;
    tnl_map_node *n = tnl_map_get_id(&m->streams, id);
    return n ? TNL_CONTAINER(n, tnl_stream, by_id) : NULL;
}

/* --- out-of-order bytes ------------------------------------------------------------------------------------------ */

/* Notes [from, to) beyond ring.end. TUNNEL_E_PROTOCOL when the pieces are too many. */
static int add_range(recv_half *in, uint64_t from, uint64_t to)
{
    if (!in->ranges) {
        in->ranges = tnl_calloc(TNL_MUX_MAX_RANGES, sizeof(*in->ranges));
        if (!in->ranges)
            return TUNNEL_E_NOMEM;
    }
    size_t i = 0;
    while (i < in->range_count && in->ranges[i].to < from)
        i++;
    size_t j = i;
    while (j < in->range_count && in->ranges[j].from <= to) {
        from = from < in->ranges[j].from ? from : in->ranges[j].from;
        to = to > in->ranges[j].to ? to : in->ranges[j].to;
        j++;
    }
    if (i == j && in->range_count == TNL_MUX_MAX_RANGES)
        return TUNNEL_E_PROTOCOL;
    size_t count = in->range_count - (j - i) + 1;
    memmove(in->ranges + i + 1, in->ranges + j, (in->range_count - j) * sizeof(*in->ranges));
    in->ranges[i] = (range){from, to};
    in->range_count = count;
    return 0;
}

/* Ranges that have become contiguous move ring.end on. */
static void join_ranges(recv_half *in)
{
    while (in->range_count && in->ranges[0].from <= in->ring.end) {
        if (in->ranges[0].to > in->ring.end)
            in->ring.end = in->ranges[0].to;
        in->range_count--;
        memmove(in->ranges, in->ranges + 1, in->range_count * sizeof(*in->ranges));
    }
    if (in->discard)
        in->ring.start = in->ring.end;
}

static uint64_t highest_received(const recv_half *in)
{
    return in->range_count ? in->ranges[in->range_count - 1].to : in->ring.end;
}

static int hold(tnl_stream *s, uint64_t offset, const uint8_t *p, size_t n)
{
    recv_half *in = &s->in;
    if (!in->discard && tnl_ring_put(&in->ring, offset, p, n)) {
        tnl_mux_fail(s);
        return 0;
    }
    return add_range(in, offset, offset + n);
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

/* The input may be complete with this: tells the user, acknowledges what is urgent, retires. */
static void progress(tnl_stream *s)
{
    bool over = tnl_mux_received(s) > s->in.ring.end;
    if (tnl_mux_received(s) != s->in.acked)
        tnl_mux_mark_ack(s, over || s->in.ring.end - s->in.acked >= s->in.window / 4);
    tnl_mux_deliver(s);
    tnl_mux_settle(s);
}

static void peer_ended(tnl_stream *s, terminal end, uint64_t final)
{
    tnl_mux *m = s->mux;
    if (s->in.end == TERMINAL_NONE && s->counted) {
        s->counted = false;
        m->remote_open--;
    }
    s->in.end = end;
    s->in.final = final;
}

static int on_open(tnl_mux *m, tnl_stream *s, const tnl_frame *f)
{
    if (f->stream == 0 || f->rest_len > TNL_MUX_MAX_OPEN_MAP || is_local(m, f->stream))
        return TUNNEL_E_PROTOCOL;
    if (s || was_opened(m, f->stream)) {
        m->stats.late++;
        /* The peer sends it again because it has not seen it acknowledged. */
        if (s)
            tnl_mux_mark_ack(s, true);
        return 0;
    }
    if (index_of(f->stream) >= m->seen_floor + TNL_MUX_ID_WINDOW)
        return TUNNEL_E_PROTOCOL;
    size_t max = m->config.local.max_streams;
    if (m->remote_count >= 4 * max + 16)
        return TUNNEL_E_PROTOCOL;
    s = tnl_mux_stream_new(m, f->stream, false);
    if (!s)
        return TUNNEL_E_NOMEM;
    mark_opened(m, f->stream);
    m->remote_count++;
    m->remote_open++;
    s->counted = true;
    m->stats.opened++;
    tnl_mux_mark_ack(s, false);
    s->busy++;
    bool full = m->remote_open > max || m->remote_count > 2 * max || m->aborted;
    if (!full)
        m->events->open(m->user, s, f->rest, f->rest_len);
    s->busy--;
    if (!s->events) {
        tnl_mux_end_out(s, TERMINAL_RESET, (uint32_t) - (full ? TUNNEL_E_LIMIT : TUNNEL_E_DENIED), NULL);
        s->released = true;
        tnl_mux_discard(s);
    }
    tnl_mux_settle(s);
    return 0;
}

static int on_data(tnl_mux *m, tnl_stream *s, const tnl_frame *f)
{
    recv_half *in = &s->in;
    uint64_t offset = f->offset, end = f->offset + f->rest_len;
    const uint8_t *p = f->rest;
    if (end > in->limit || (in->end != TERMINAL_NONE && end > in->final))
        return TUNNEL_E_PROTOCOL;
    if (in->end == TERMINAL_RESET)
        return 0;
    if (offset < in->ring.end) {
        uint64_t known = (end < in->ring.end ? end : in->ring.end) - offset;
        m->stats.duplicate += known;
        offset += known;
        p += known;
        if (offset == end) {
            /* A duplicate means that the peer does not know it arrived. */
            tnl_mux_mark_ack(s, false);
            return 0;
        }
    }
    m->stats.data_in += end - offset;
    int rc = 0;
    if (offset > in->ring.end) {
        rc = hold(s, offset, p, (size_t)(end - offset));
        return rc;
    }
    if (in->discard)
        in->ring.start = in->ring.end = end;
    else if (tnl_mux_take(s, p, (size_t)(end - offset)))
        tnl_mux_fail(s);
    join_ranges(in);
    if (m->control_error)
        return m->control_error;
    progress(s);
    return 0;
}

static int on_fin(tnl_mux *m, tnl_stream *s, const tnl_frame *f)
{
    recv_half *in = &s->in;
    (void)m;
    if (s->id == 0 || f->offset > in->limit || f->offset < highest_received(in) ||
        (in->end != TERMINAL_NONE && f->offset != in->final))
        return TUNNEL_E_PROTOCOL;
    if (in->end == TERMINAL_NONE)
        peer_ended(s, TERMINAL_FIN, f->offset);
    /* Stated (again) in any case: the peer repeats a FIN only when it has not seen it acknowledged. */
    tnl_mux_mark_ack(s, true);
    progress(s);
    return 0;
}

static int on_reset(tnl_mux *m, tnl_stream *s, const tnl_frame *f)
{
    recv_half *in = &s->in;
    (void)m;
    if (s->id == 0 || f->offset > in->limit || f->offset < highest_received(in) ||
        (in->end != TERMINAL_NONE && f->offset != in->final) || f->rest_len > TNL_MUX_MAX_RESET_TEXT)
        return TUNNEL_E_PROTOCOL;
    tnl_mux_mark_ack(s, true);
    if (in->end == TERMINAL_RESET)
        return 0;
    peer_ended(s, TERMINAL_RESET, f->offset);
    tnl_mux_discard(s);
    if (s->out.end_acked == TERMINAL_NONE)
        tnl_mux_end_out(s, TERMINAL_RESET, f->code, NULL);
    tnl_mux_tell_reset(s, f->code, (const char *)f->rest, f->rest_len);
    tnl_mux_settle(s);
    return 0;
}

static int on_ack(tnl_mux *m, tnl_stream *s, const tnl_frame *f)
{
    send_half *o = &s->out;
    (void)m;
    uint64_t most = o->end_max == TERMINAL_NONE ? o->max_sent : o->final + (uint64_t)o->end_max;
    if (f->offset > most)
        return TUNNEL_E_PROTOCOL;
    if (f->limit > o->limit)
        o->limit = f->limit;
    tnl_mux_acked(s, f->offset);
    s->busy++;
    tnl_mux_tell_room(s);
    s->busy--;
    tnl_mux_settle(s);
    return 0;
}

static int on_retired(tnl_mux *m, tnl_mux_link *l, const tnl_frame *f)
{
    m->stats.late++;
    uint64_t received = f->offset + (f->type == TNL_FRAME_FIN ? TERMINAL_FIN : TERMINAL_RESET);
    tnl_frame ack = {.type = TNL_FRAME_ACK, .stream = f->stream, .offset = received};
    if (f->type != TNL_FRAME_FIN && f->type != TNL_FRAME_RESET)
        return 0;
    size_t size = tnl_frame_size(&ack);
    uint8_t *p = tnl_buf_reserve(&m->re_acks, size);
    if (!p)
        return TUNNEL_E_PROTOCOL;
    tnl_buf_commit(&m->re_acks, tnl_frame_encode(p, size, &ack));
    tnl_mux_wake(l);
    return 0;
}

/* A frame type, and what it does to a stream that lives. OPEN is handled for streams that do not as well. */
static const struct {
    uint8_t type;
    int (*handle)(tnl_mux *m, tnl_stream *s, const tnl_frame *f);
} handlers[] = {
    {TNL_FRAME_DATA, on_data},   {TNL_FRAME_ACK, on_ack},   {TNL_FRAME_OPEN, on_open},
    {TNL_FRAME_FIN, on_fin},     {TNL_FRAME_RESET, on_reset},
};

static void imply_open_acked(tnl_stream *s)
{
    if (s->open_acked)
        return;
    s->open_acked = s->open_sent = true;
    tnl_list_remove(&s->unacked_open);
    tnl_free(s->open_map);
    s->open_map = NULL;
    s->open_map_len = 0;
}

int tnl_mux_frame(tnl_mux *m, tnl_mux_link *l, const tnl_frame *f, uint64_t now_ms)
{
    m->now = now_ms;
    m->stats.frames_in++;
    if (f->type == TNL_FRAME_EVENT) {
        if (m->events->event)
            m->events->event(m->user, f->rest, f->rest_len);
        return 0;
    }
    tnl_stream *s = find(m, f->stream);
    if (!s && f->type != TNL_FRAME_OPEN)
        return was_opened(m, f->stream) ? on_retired(m, l, f) : TUNNEL_E_PROTOCOL;
    if (s && f->type != TNL_FRAME_OPEN) {
        if (!s->open_acked && !s->open_ever_sent)
            return TUNNEL_E_PROTOCOL;
        imply_open_acked(s);
    }
    for (size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++)
        if (handlers[i].type == f->type)
            return handlers[i].handle(m, s, f);
    return TUNNEL_E_UNSUPPORTED;
}
