/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "mux/internal.h"
#include "tunnel/error.h"

enum { MOST_PACE_MS = 60000 };

/* --- input ------------------------------------------------------------------------------------ */

static bool is_far(const tnl_mux *m)
{
    return m->config.far_window > m->config.max_window && m->rtt >= TNL_MUX_FAR_MS;
}

static void grow_window(tnl_stream *s)
{
    tnl_mux *m = s->mux;
    uint32_t more = s->in.window;
    uint32_t most = is_far(m) ? m->config.far_window : m->config.max_window;
    s->in.paced = s->in.ring.start;
    s->in.paced_at = m->now;
    if (s->id == 0 || s->in.window > most / 2 || m->surplus_used + more > m->config.surplus)
        return;
    m->surplus_used += more;
    s->in.window += more;
}

/* The user of a far stream needs half of the window for each round trip. It may have waited for
 * something in between: bytes that come at once are not all taken at once. */
static bool keeps_pace(tnl_stream *s)
{
    const tnl_mux *m = s->mux;
    recv_half *in = &s->in;
    uint64_t ms = m->now - in->paced_at, used = in->ring.start - in->paced;
    if (!is_far(m) || in->discard || (ms < m->rtt && m->now >= in->paced_at))
        return false;
    in->paced = in->ring.start;
    in->paced_at = m->now;
    return ms <= MOST_PACE_MS && used * m->rtt >= in->window / 2 * ms;
}

void tnl_mux_used_up(tnl_stream *s, size_t n)
{
    recv_half *in = &s->in;
    if (n == 0 || in->end != TERMINAL_NONE)
        return;
    if (!in->discard && in->ring.start == in->ring.end && in->ring.end == in->probe)
        grow_window(s);
    else if (keeps_pace(s))
        grow_window(s);
    if (in->ring.end >= in->probe)
        in->probe = 0;
    uint64_t limit = in->ring.start + in->window;
    if (limit > in->limit)
        in->limit = limit;
    if (in->limit - in->limit_sent >= in->window / 4)
        tnl_mux_mark_ack(s, true);
}

int tnl_mux_take(tnl_stream *s, const uint8_t *p, size_t n)
{
    recv_half *in = &s->in;
    size_t used = 0;
    if (in->ring.start == in->ring.end && !s->delivering && !in->range_count && s->events &&
        s->events->data) {
        s->busy++;
        s->delivering = true;
        used = s->events->data(s->user, p, n);
        s->delivering = false;
        s->busy--;
        if (in->discard || used == n) {
            in->ring.start = in->ring.end = in->ring.end + n;
            tnl_mux_used_up(s, n);
            return 0;
        }
        in->ring.start = in->ring.end = in->ring.end + used;
        in->blocked = true;
        in->probe = 0;
    }
    if (tnl_ring_put(&in->ring, in->ring.end, p + used, n - used)) {
        /* Counted as arrived, so that the offsets stay right while the stream is reset. */
        in->ring.start = in->ring.end = in->ring.end + (n - used);
        return TUNNEL_E_NOMEM;
    }
    tnl_ring_commit(&in->ring, n - used);
    tnl_mux_used_up(s, used);
    return 0;
}

static void deliver_ring(tnl_stream *s)
{
    recv_half *in = &s->in;
    while (!in->discard && !in->blocked && s->events && s->events->data) {
        const uint8_t *p;
        size_t n = tnl_ring_peek(&in->ring, in->ring.start, &p);
        if (n == 0)
            break;
        if (n > TNL_MUX_MAX_PIECE)
            n = TNL_MUX_MAX_PIECE;
        size_t used = s->events->data(s->user, p, n);
        if (in->discard)
            break;
        tnl_ring_drop(&in->ring, in->ring.start + used);
        tnl_mux_used_up(s, used);
        in->blocked = used < n;
        if (in->blocked) {
            in->probe = 0;
            return;
        }
    }
    if (!in->range_count)
        tnl_ring_trim(&in->ring);
}

void tnl_mux_deliver(tnl_stream *s)
{
    recv_half *in = &s->in;
    bool fin = in->end == TERMINAL_FIN || in->reset_waits;
    if (s->delivering || (in->ring.start == in->ring.end && !fin))
        return;
    s->delivering = true;
    s->busy++;
    deliver_ring(s);
    if (fin && in->ring.start == in->final && !in->fin_told && !in->discard) {
        in->fin_told = true;
        if (s->events && s->events->fin)
            s->events->fin(s->user);
        if (in->reset_waits)
            tnl_mux_tell_reset(s, in->reset_code, "", 0);
    }
    s->busy--;
    s->delivering = false;
}

void tnl_mux_discard(tnl_stream *s)
{
    recv_half *in = &s->in;
    uint32_t first = s->id ? s->mux->config.local.window : TNL_MUX_CONTROL_WINDOW;
    s->mux->surplus_used -= in->window - first;
    in->window = first;
    in->discard = true;
    in->reset_waits = false;
    in->ring.start = in->ring.end;
    tnl_ring_free(&in->ring);
}

void tnl_stream_resume(tnl_stream *s)
{
    if (s->retired)
        return;
    s->in.blocked = false;
    tnl_mux_deliver(s);
    tnl_mux_settle(s);
}

/* --- output ----------------------------------------------------------------------------------- */

void tnl_mux_count_held(tnl_stream *s)
{
    size_t len = tnl_ring_len(&s->out.ring);
    s->mux->held += len - s->out.held;
    s->out.held = len;
}

/* A peer that grants more than the usual window needs it for its distance: as much is kept for it,
 * out of the session's surplus. */
static size_t may_hold(const tnl_stream *s)
{
    const send_half *o = &s->out;
    const tnl_mux *m = s->mux;
    uint64_t credit = o->limit > o->ring.start ? o->limit - o->ring.start : 0;
    if (credit <= TNL_MUX_MAX_SEND || !m->config.far_window || m->held >= m->config.surplus)
        return TNL_MUX_MAX_SEND;
    size_t left = m->config.surplus - m->held + o->held;
    size_t most = left < TNL_MUX_MAX_FAR ? left : TNL_MUX_MAX_FAR;
    if (most < TNL_MUX_MAX_SEND)
        most = TNL_MUX_MAX_SEND;
    return credit < most ? (size_t)credit : most;
}

size_t tnl_stream_room(const tnl_stream *s)
{
    const send_half *o = &s->out;
    if (o->end != TERMINAL_NONE || s->retired)
        return 0;
    size_t unsent = (size_t)(o->ring.end - o->sent);
    size_t held = tnl_ring_len(&o->ring);
    size_t room = unsent < TNL_MUX_MAX_UNSENT ? TNL_MUX_MAX_UNSENT - unsent : 0;
    size_t most = may_hold(s);
    if (held >= most)
        return 0;
    return room < most - held ? room : most - held;
}

size_t tnl_stream_space(tnl_stream *s, size_t want, uint8_t **p)
{
    size_t room = tnl_stream_room(s);
    if (room == 0) {
        s->out.want_room = true;
        return 0;
    }
    if (want == 0)
        want = 1;
    if (want > room)
        want = room;
    tnl_ring *ring = &s->out.ring;
    size_t n = ring->cap ? 0 : tnl_ring_space(ring, want > s->out.hint ? want : s->out.hint, p);
    if (n == 0)
        n = tnl_ring_space(ring, want, p);
    if (n == 0)
        tnl_mux_fail(s);
    return n < room ? n : room;
}

void tnl_stream_commit(tnl_stream *s, size_t n)
{
    if (s->out.end != TERMINAL_NONE || s->retired)
        return;
    tnl_ring_commit(&s->out.ring, n);
    tnl_mux_count_held(s);
    if (s->out.peak < tnl_ring_len(&s->out.ring))
        s->out.peak = tnl_ring_len(&s->out.ring);
    tnl_mux_mark_ready(s);
}

size_t tnl_stream_write(tnl_stream *s, const void *data, size_t n)
{
    const uint8_t *from = data;
    size_t done = 0;
    while (done < n) {
        uint8_t *p;
        size_t space = tnl_stream_space(s, n - done, &p);
        if (space == 0)
            break;
        if (space > n - done)
            space = n - done;
        memcpy(p, from + done, space);
        tnl_stream_commit(s, space);
        done += space;
    }
    return done;
}

void tnl_stream_want_room(tnl_stream *s)
{
    s->out.want_room = true;
}

bool tnl_stream_flushed(const tnl_stream *s)
{
    return s->out.sent == s->out.ring.end;
}

void tnl_mux_tell_room(tnl_stream *s)
{
    if (!s->out.want_room || s->released || tnl_stream_room(s) < TNL_MUX_MAX_UNSENT / 2)
        return;
    s->out.want_room = false;
    if (!s->events || !s->events->room)
        return;
    s->busy++;
    s->events->room(s->user);
    s->busy--;
}

/* --- ends ------------------------------------------------------------------------------------- */

/* Not in the middle of a character. */
static size_t text_length(const char *text)
{
    size_t n = strnlen(text, TNL_MUX_MAX_RESET_TEXT + 1);
    if (n <= TNL_MUX_MAX_RESET_TEXT)
        return n;
    do
        n--;
    while (n && ((uint8_t)text[n] & 0xc0) == 0x80);
    return n;
}

void tnl_mux_end_out(tnl_stream *s, terminal end, uint32_t code, const char *text)
{
    send_half *o = &s->out;
    if (o->end >= end || s->retired)
        return;
    if (end == TERMINAL_RESET) {
        /* Nothing is sent again: what the peer lacks, the final offset makes up for. But what is
         * under way stays so. */
        o->dropped = tnl_mux_in_flight(s);
        o->sent = o->ring.start = o->ring.end = o->max_sent;
        tnl_ring_free(&o->ring);
        tnl_mux_count_held(s);
        o->breaking = false;
        tnl_free(s->reset_text);
        s->reset_code = code;
        s->reset_text = text ? tnl_strndup(text, text_length(text)) : NULL;
    }
    o->end = end;
    o->final = o->ring.end;
    tnl_mux_mark_ready(s);
}

void tnl_stream_fin(tnl_stream *s)
{
    tnl_mux_end_out(s, TERMINAL_FIN, 0, NULL);
}

void tnl_stream_reset(tnl_stream *s, int code, const char *text)
{
    s->events = NULL;
    tnl_list_remove(&s->failed);
    if (s->retired)
        return;
    tnl_mux_discard(s);
    tnl_mux_end_out(s, TERMINAL_RESET, (uint32_t)-code, text);
    tnl_mux_settle(s);
}

void tnl_mux_go_on_breaking(tnl_stream *s)
{
    send_half *o = &s->out;
    if (!o->breaking || o->ring.start != o->ring.end || o->end_acked < o->end)
        return;
    char *text = s->reset_text;
    s->reset_text = NULL;
    tnl_mux_end_out(s, TERMINAL_RESET, s->reset_code, text);
    tnl_free(text);
}

void tnl_stream_break(tnl_stream *s, int code, const char *text)
{
    s->events = NULL;
    tnl_list_remove(&s->failed);
    if (s->retired || s->out.end == TERMINAL_RESET)
        return;
    tnl_mux_discard(s);
    tnl_free(s->reset_text);
    s->reset_code = (uint32_t)-code;
    s->reset_text = text ? tnl_strndup(text, text_length(text)) : NULL;
    s->out.breaking = true;
    /* The peer may be breaking too: each waits for the other to take all that was said. */
    tnl_mux_used_up(s, SIZE_MAX);
    tnl_mux_go_on_breaking(s);
    tnl_mux_settle(s);
}

void tnl_mux_fail(tnl_stream *s)
{
    if (s->id == 0)
        s->mux->control_error = TUNNEL_E_NOMEM;
    if (s->id == 0 || s->retired || s->out.end == TERMINAL_RESET)
        return;
    tnl_mux_discard(s);
    tnl_mux_end_out(s, TERMINAL_RESET, (uint32_t)-TUNNEL_E_NOMEM, NULL);
    if (tnl_list_empty(&s->failed))
        tnl_list_add_tail(&s->mux->failed, &s->failed);
}

void tnl_mux_tell_reset(tnl_stream *s, uint32_t code, const char *text, size_t n)
{
    const tnl_stream_events *ev = s->events;
    tnl_list_remove(&s->failed);
    s->events = NULL;
    if (!ev || !ev->reset)
        return;
    s->busy++;
    ev->reset(s->user, code, text, n);
    s->busy--;
}

void tnl_stream_release(tnl_stream *s)
{
    s->released = true;
    s->events = NULL;
    tnl_list_remove(&s->failed);
    if (!s->retired) {
        bool in_over = s->in.end == TERMINAL_RESET ||
                       (s->in.end == TERMINAL_FIN && s->in.ring.start == s->in.final);
        if (!s->out.breaking && (s->out.end == TERMINAL_NONE || !in_over)) {
            tnl_mux_discard(s);
            tnl_mux_end_out(s, TERMINAL_RESET, (uint32_t)-TUNNEL_E_CANCELED, NULL);
        } else if (s->in.reset_waits) {
            tnl_mux_discard(s);
        }
    }
    tnl_mux_settle(s);
}

void tnl_stream_set_events(tnl_stream *s, const tnl_stream_events *ev, void *user)
{
    s->taken = true;
    s->events = ev;
    s->user = user;
}

void *tnl_stream_user(const tnl_stream *s)
{
    return s->user;
}

uint64_t tnl_stream_id(const tnl_stream *s)
{
    return s->id;
}
