/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "mux/internal.h"
#include "tunnel/error.h"

/* --- ids -------------------------------------------------------------------------------------- */

static bool is_local(const tnl_mux *m, uint64_t id)
{
    return (id % 2 == 0) == m->config.server;
}

/* 1, 2, 3, ... for the ids an end opens one after the other. */
static uint64_t index_of(uint64_t id)
{
    return id / 2 + id % 2;
}

static bool was_opened(const tnl_mux *m, uint64_t id)
{
    uint64_t i = index_of(id);
    if (is_local(m, id))
        return i < m->next_index;
    if (i < m->seen_floor)
        return true;
    if (!m->seen || i >= m->seen_floor + TNL_MUX_ID_WINDOW)
        return false;
    return m->seen[i % TNL_MUX_ID_WINDOW / 8] >> (i % 8) & 1;
}

/* Memory for what comes after others that have not come: few sessions ever need it. */
static bool may_mark_opened(tnl_mux *m, uint64_t id)
{
    if (!m->seen && index_of(id) != m->seen_floor)
        m->seen = tnl_calloc(1, TNL_MUX_ID_WINDOW / 8);
    return m->seen || index_of(id) == m->seen_floor;
}

static void mark_opened(tnl_mux *m, uint64_t id)
{
    uint64_t i = index_of(id);
    if (!m->seen) {
        m->seen_floor = i + 1;
        return;
    }
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

/* --- out-of-order bytes ----------------------------------------------------------------------- */

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
    int rc = in->discard ? 0 : tnl_ring_put(&in->ring, offset, p, n);
    if (rc == 0)
        rc = add_range(in, offset, offset + n);
    if (rc != TUNNEL_E_NOMEM)
        return rc;
    tnl_mux_fail(s);
    return s->mux->control_error;
}

/* --- frames ----------------------------------------------------------------------------------- */

/* Acknowledges a FIN that is complete wherever it came from. */
static int ack_fin(tnl_stream *s)
{
    int rc = 0;
    /* It covers what was to be acknowledged before. */
    tnl_list_remove(&s->ack_ready);
    tnl_list_remove(&s->lazy_ack);
    for (tnl_list *n = s->mux->links.next; n != &s->mux->links && !rc; n = n->next) {
        tnl_mux_link *l = TNL_CONTAINER(n, tnl_mux_link, node);
        if (s->fin_links & l->bit)
            rc = tnl_mux_ack_end(l, s->id, tnl_mux_received(s));
    }
    s->fin_links = 0;
    return rc;
}

/* Something has arrived; with it the input may be complete. */
static int progress(tnl_stream *s)
{
    int rc = 0;
    if (tnl_mux_in_complete(s))
        rc = ack_fin(s);
    else if (s->in.ring.end != s->in.acked)
        tnl_mux_mark_ack(s, false);
    tnl_mux_deliver(s);
    tnl_mux_settle(s);
    return rc;
}

/* False: it contradicts what the peer has sent before. */
static bool final_fits(const recv_half *in, uint64_t final)
{
    if (in->end != TERMINAL_NONE)
        return final == in->final;
    return final <= in->limit_sent && final >= highest_received(in);
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

static int on_open(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f)
{
    (void)l;
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
    if (m->remote_count >= tnl_mux_max_unretired(m->config.local.max_streams))
        return TUNNEL_E_PROTOCOL;
    s = may_mark_opened(m, f->stream) ? tnl_mux_stream_new(m, f->stream, false) : NULL;
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
    if (!s->taken) {
        tnl_mux_end_out(s, TERMINAL_RESET, (uint32_t) - (full ? TUNNEL_E_LIMIT : TUNNEL_E_DENIED),
                        NULL);
        s->released = true;
        tnl_mux_discard(s);
    }
    tnl_mux_settle(s);
    return 0;
}

static int on_data(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f)
{
    (void)l;
    recv_half *in = &s->in;
    uint64_t offset = f->offset, end = f->offset + f->rest_len;
    const uint8_t *p = f->rest;
    if (end > in->limit_sent || (in->end != TERMINAL_NONE && end > in->final))
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
    if (offset > in->ring.end)
        return hold(s, offset, p, (size_t)(end - offset));
    if (in->discard)
        in->ring.start = in->ring.end = end;
    else if (tnl_mux_take(s, p, (size_t)(end - offset)))
        tnl_mux_fail(s);
    join_ranges(in);
    if (s->out.breaking)
        tnl_mux_used_up(s, (size_t)(end - offset));
    m->lazy_bytes += (size_t)(end - offset);
    int rc = progress(s);
    if (m->lazy_bytes >= TNL_MUX_ACK_BYTES)
        tnl_mux_flush_acks(m);
    return rc ? rc : m->control_error;
}

static int on_fin(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f)
{
    (void)m;
    if (s->id == 0 || !final_fits(&s->in, f->offset))
        return TUNNEL_E_PROTOCOL;
    if (s->in.end == TERMINAL_NONE)
        peer_ended(s, TERMINAL_FIN, f->offset);
    /* After a RESET, or complete before: stated again, since the peer has not seen it. */
    s->fin_links |= l->bit;
    return progress(s);
}

static int on_reset(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f)
{
    (void)m;
    if (s->id == 0 || !final_fits(&s->in, f->offset) || f->rest_len > TNL_MUX_MAX_RESET_TEXT)
        return TUNNEL_E_PROTOCOL;
    int rc = tnl_mux_ack_end(l, s->id, f->offset + TERMINAL_RESET);
    if (rc || s->in.end == TERMINAL_RESET)
        return rc;
    recv_half *in = &s->in;
    in->reset_waits = tnl_mux_in_complete(s) && !in->fin_told && !in->discard;
    in->reset_code = f->code;
    peer_ended(s, TERMINAL_RESET, f->offset);
    if (!in->reset_waits)
        tnl_mux_discard(s);
    if (s->out.end_acked == TERMINAL_NONE)
        tnl_mux_end_out(s, TERMINAL_RESET, f->code, NULL);
    if (!in->reset_waits)
        tnl_mux_tell_reset(s, f->code, (const char *)f->rest, f->rest_len);
    tnl_mux_settle(s);
    return 0;
}

static int on_ack(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f)
{
    send_half *o = &s->out;
    (void)m;
    (void)l;
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
    if (f->type == TNL_FRAME_FIN)
        return tnl_mux_ack_end(l, f->stream, f->offset + TERMINAL_FIN);
    if (f->type == TNL_FRAME_RESET)
        return tnl_mux_ack_end(l, f->stream, f->offset + TERMINAL_RESET);
    return 0;
}

/* A frame type, and what it does to a stream that lives. OPEN is handled for streams that do not as
 * well. */
static const struct {
    uint8_t type;
    int (*handle)(tnl_mux *m, tnl_mux_link *l, tnl_stream *s, const tnl_frame *f);
} handlers[] = {
    {TNL_FRAME_DATA, on_data}, {TNL_FRAME_ACK, on_ack},     {TNL_FRAME_OPEN, on_open},
    {TNL_FRAME_FIN, on_fin},   {TNL_FRAME_RESET, on_reset},
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
    tnl_mux_set_now(m, now_ms);
    m->stats.frames_in++;
    if (f->type == TNL_FRAME_EVENT) {
        if (m->events->event)
            m->events->event(m->user, f->rest, f->rest_len);
        return 0;
    }
    if (f->type == TNL_FRAME_DATAGRAM) {
        tnl_mux_on_datagram(m, l, f);
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
            return handlers[i].handle(m, l, s, f);
    return TUNNEL_E_UNSUPPORTED;
}
