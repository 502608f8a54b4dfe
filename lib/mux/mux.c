/* SPDX-License-Identifier: Apache-2.0 */
#include "mux/mux.h"

#include <string.h>

#include "base/mem.h"
#include "mux/internal.h"
#include "tunnel/error.h"

static size_t control_data(void *user, const uint8_t *p, size_t n);

static const tnl_stream_events control_events = {.data = control_data};

static bool valid(const tnl_limits *l)
{
    return l->max_frame >= 1024 && l->max_frame <= TNL_FRAME_MAX_DATA && l->max_streams <= 65536 &&
           l->window >= 16384 && l->window <= 1048576;
}

int tnl_mux_new(tnl_mux **out, const tnl_mux_config *config, const tnl_mux_events *events,
                void *user)
{
    if (!valid(&config->local) || !valid(&config->remote) || config->far_window > TNL_MUX_MAX_FAR ||
        config->max_window < config->local.window || config->max_window > 1 << 30)
        return TUNNEL_E_INVALID;
    tnl_mux *m = tnl_calloc(1, sizeof(*m));
    if (!m)
        return TUNNEL_E_NOMEM;
    m->config = *config;
    m->events = events;
    m->user = user;
    m->next_index = 1;
    m->seen_floor = 1;
    tnl_map_init(&m->streams, 0);
    tnl_list_init(&m->all);
    tnl_list_init(&m->links);
    tnl_list_init(&m->orphans);
    tnl_list_init(&m->unacked_opens);
    tnl_list_init(&m->lazy_acks);
    tnl_list_init(&m->failed);
    tnl_list_init(&m->datagrams);
    tnl_buf_init(&m->control_in, TNL_CONTROL_HEADER + TNL_MESSAGE_MAX);
    tnl_buf_init(&m->event_queue, TNL_MUX_MAX_EVENTS);
    m->control = tnl_mux_stream_new(m, 0, true);
    if (!m->control) {
        tnl_free(m);
        return TUNNEL_E_NOMEM;
    }
    *out = m;
    return 0;
}

static void stream_free(tnl_stream *s)
{
    tnl_list_remove(&s->all);
    tnl_list_remove(&s->failed);
    s->mux->held -= s->out.held;
    tnl_ring_free(&s->out.ring);
    tnl_ring_free(&s->in.ring);
    tnl_free(s->in.ranges);
    tnl_free(s->open_map);
    tnl_free(s->reset_text);
    tnl_free(s);
}

void tnl_mux_link_free(tnl_mux_link *l)
{
    tnl_buf_free(&l->end_acks);
    tnl_joiner_free(&l->joiner);
    tnl_free(l->cut);
    tnl_free(l);
}

void tnl_mux_free(tnl_mux *m)
{
    if (!m)
        return;
    for (tnl_list *n; (n = tnl_list_first(&m->all));)
        stream_free(TNL_CONTAINER(n, tnl_stream, all));
    for (tnl_list *n; (n = tnl_list_first(&m->links));) {
        tnl_list_remove(n);
        tnl_mux_link_free(TNL_CONTAINER(n, tnl_mux_link, node));
    }
    tnl_map_free(&m->streams);
    tnl_buf_free(&m->control_in);
    tnl_buf_free(&m->event_queue);
    tnl_free(m->seen);
    tnl_mux_free_datagrams(m);
    tnl_free(m);
}

void tnl_mux_abort(tnl_mux *m, int error)
{
    const char *text = tunnel_strerror(error);
    m->aborted = true;
    /* A callback may release any stream, so the list is emptied from its head and put together
     * again. */
    tnl_list told;
    tnl_list_init(&told);
    for (tnl_list *n; (n = tnl_list_first(&m->all));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&told, n);
        if (n != &m->control->all)
            tnl_mux_tell_reset(TNL_CONTAINER(n, tnl_stream, all), (uint32_t)-error, text,
                               strlen(text));
    }
    for (tnl_list *n; (n = tnl_list_first(&told));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&m->all, n);
    }
}

const tnl_mux_stats *tnl_mux_get_stats(const tnl_mux *m)
{
    return &m->stats;
}

size_t tnl_mux_held(const tnl_mux *m)
{
    size_t held = 0;
    for (const tnl_list *n = m->all.next; n != &m->all; n = n->next) {
        const tnl_stream *s = TNL_CONTAINER(n, const tnl_stream, all);
        held += s->out.ring.cap + s->in.ring.cap;
    }
    return held;
}

size_t tnl_mux_stream_count(const tnl_mux *m)
{
    return m->streams.count;
}

/* --- streams come and go ---------------------------------------------------------------------- */

tnl_stream *tnl_mux_stream_new(tnl_mux *m, uint64_t id, bool local)
{
    tnl_stream *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->mux = m;
    s->id = id;
    s->local = local;
    s->open_sent = s->open_acked = !local || id == 0;
    tnl_list_init(&s->all);
    tnl_list_init(&s->unacked_open);
    tnl_list_init(&s->on_link);
    tnl_list_init(&s->ready);
    tnl_list_init(&s->ack_ready);
    tnl_list_init(&s->lazy_ack);
    tnl_list_init(&s->failed);
    uint32_t window = id ? m->config.local.window : TNL_MUX_CONTROL_WINDOW;
    uint32_t far = m->config.far_window;
    uint32_t most = far > m->config.max_window ? far : m->config.max_window;
    tnl_ring_init(&s->out.ring, far ? TNL_MUX_MAX_FAR : TNL_MUX_MAX_SEND);
    tnl_ring_init(&s->in.ring, id ? most : TNL_MUX_CONTROL_WINDOW);
    s->out.limit = id ? m->config.remote.window : TNL_MUX_CONTROL_WINDOW;
    s->in.window = window;
    s->in.limit = s->in.limit_sent = s->in.probe = window;
    if (id == 0) {
        s->events = &control_events;
        s->user = m;
    } else if (tnl_map_put_id(&m->streams, &s->by_id, id)) {
        tnl_free(s);
        return NULL;
    }
    tnl_list_add_tail(&m->all, &s->all);
    tnl_mux_pin(s);
    return s;
}

static bool both_ended(const tnl_stream *s)
{
    if (s->out.end == TERMINAL_NONE || s->out.end_acked < s->out.end)
        return false;
    return tnl_mux_in_complete(s) && s->in.ring.start == s->in.ring.end;
}

static void retire(tnl_stream *s)
{
    tnl_mux *m = s->mux;
    tnl_list_remove(&s->unacked_open);
    tnl_list_remove(&s->on_link);
    tnl_list_remove(&s->ready);
    tnl_list_remove(&s->ack_ready);
    tnl_list_remove(&s->lazy_ack);
    tnl_mux_discard(s);
    tnl_map_remove(&m->streams, &s->by_id);
    s->link = NULL;
    s->retired = true;
    if (s->local)
        m->local_count--;
    else
        m->remote_count--;
    if (m->events->retired && !m->aborted)
        m->events->retired(m->user);
}

void tnl_mux_settle(tnl_stream *s)
{
    if (s->busy || s->id == 0)
        return;
    if (!s->retired && both_ended(s)) {
        s->busy++;
        retire(s);
        s->busy--;
    }
    if (s->retired && s->released)
        stream_free(s);
}

int tnl_mux_open(tnl_mux *m, tnl_stream **out, const uint8_t *map, size_t n,
                 const tnl_stream_events *ev, void *user)
{
    if (n > TNL_MUX_MAX_OPEN_MAP)
        return TUNNEL_E_INVALID;
    if (m->aborted)
        return TUNNEL_E_GONE;
    tnl_list *oldest = tnl_list_first(&m->unacked_opens);
    /* The ids an end opens one after the other have the indices 1, 2, 3, ... */
    uint64_t oldest_index = oldest ? (TNL_CONTAINER(oldest, tnl_stream, unacked_open)->id + 1) / 2
                                   : m->next_index;
    if (m->local_count >= m->config.remote.max_streams ||
        m->next_index - oldest_index >= TNL_MUX_ID_WINDOW)
        return TUNNEL_E_LIMIT;
    uint64_t id = m->config.server ? m->next_index * 2 : m->next_index * 2 - 1;
    uint8_t *copy = tnl_malloc(n);
    tnl_stream *s = copy ? tnl_mux_stream_new(m, id, true) : NULL;
    if (!s) {
        tnl_free(copy);
        return TUNNEL_E_NOMEM;
    }
    if (n)
        memcpy(copy, map, n);
    s->open_map = copy;
    s->open_map_len = n;
    s->taken = true;
    s->events = ev;
    s->user = user;
    m->next_index++;
    m->local_count++;
    m->stats.opened++;
    tnl_list_add_tail(&m->unacked_opens, &s->unacked_open);
    *out = s;
    return 0;
}

/* --- links ------------------------------------------------------------------------------------ */

/* The lower the better. */
static int rank(const tnl_mux_link *l)
{
    return l->unproven ? 2 : l->draining;
}

tnl_mux_link *tnl_mux_best_link(const tnl_mux *m)
{
    tnl_mux_link *best = NULL;
    for (tnl_list *n = m->links.next; n != &m->links; n = n->next) {
        tnl_mux_link *l = TNL_CONTAINER(n, tnl_mux_link, node);
        bool better = best && (rank(l) == rank(best) ? l->flight.bytes < best->flight.bytes
                                                     : rank(l) < rank(best));
        if (!best || better)
            best = l;
    }
    return best;
}

bool tnl_mux_link_aside(const tnl_mux_link *l)
{
    const tnl_mux_link *best = tnl_mux_best_link(l->mux);
    return best && rank(best) < rank(l);
}

/* What any link may carry: the best one shall. */
static void wake_for_loose(tnl_mux *m)
{
    tnl_mux_link *best = tnl_mux_best_link(m);
    if (best && (tnl_buf_len(&m->event_queue) || !tnl_list_empty(&m->datagrams)))
        tnl_mux_wake(best);
}

void tnl_mux_pin(tnl_stream *s)
{
    tnl_list_remove(&s->on_link);
    s->link = tnl_mux_best_link(s->mux);
    if (!s->link) {
        tnl_list_add_tail(&s->mux->orphans, &s->on_link);
        return;
    }
    tnl_list_add_tail(&s->link->streams, &s->on_link);
    tnl_mux_mark_ready(s);
    if (s->ack_due)
        tnl_mux_mark_ack(s, true);
}

/*
 * Takes a stream off its link. Whatever is not acknowledged is sent again elsewhere, also when the
 * link only drains: so a stream never depends on more than one link, and the peer drops what
 * arrives twice.
 */
static void unpin(tnl_stream *s)
{
    tnl_flight_left(&s->link->flight, tnl_mux_in_flight(s));
    s->out.dropped = 0;
    s->link = NULL;
    tnl_list_remove(&s->ready);
    tnl_list_remove(&s->ack_ready);
    tnl_list_remove(&s->lazy_ack);
    /* Stated again, what was stated may be lost; but never for a stream the peer may not know. */
    s->ack_due = s->open_acked;
    s->out.sent = s->out.ring.start;
    s->out.end_sent = s->out.end_acked;
    s->open_sent = s->open_acked;
}

/* Streams of a link, or those that have none. */
static void move_streams(tnl_list *streams)
{
    tnl_list moving;
    tnl_list_init(&moving);
    for (tnl_list *n; (n = tnl_list_first(streams));) {
        tnl_stream *s = TNL_CONTAINER(n, tnl_stream, on_link);
        if (s->link)
            unpin(s);
        tnl_list_remove(n);
        tnl_list_add_tail(&moving, n);
    }
    for (tnl_list *n; (n = tnl_list_first(&moving));)
        tnl_mux_pin(TNL_CONTAINER(n, tnl_stream, on_link));
}

/* Streams of links that are used for want of a better one take the better one, if it has come. */
static void move_aside(tnl_mux *m)
{
    move_streams(&m->orphans);
    for (tnl_list *n = m->links.next; n != &m->links; n = n->next) {
        tnl_mux_link *l = TNL_CONTAINER(n, tnl_mux_link, node);
        if (tnl_mux_link_aside(l))
            move_streams(&l->streams);
    }
}

tnl_mux_link *tnl_mux_link_add(tnl_mux *m, size_t inflight, bool unproven, void *link_user)
{
    tnl_mux_link *l = m->link_bits == UINT32_MAX ? NULL : tnl_calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->bit = ~m->link_bits & (m->link_bits + 1);
    m->link_bits |= l->bit;
    l->mux = m;
    tnl_flight_init(&l->flight, inflight, m->now);
    l->user = link_user;
    l->unproven = unproven;
    tnl_list_init(&l->streams);
    for (int i = 0; i < 2; i++) {
        tnl_list_init(&l->ready[i]);
        tnl_list_init(&l->capped[i]);
    }
    tnl_list_init(&l->acks);
    /* Both FIN and RESET of every stream the peer may not have retired. */
    size_t streams = m->config.local.max_streams +
                     tnl_mux_max_unretired(m->config.remote.max_streams);
    tnl_buf_init(&l->end_acks, 2 * streams * TNL_MUX_ACK_SIZE);
    tnl_list_add_tail(&m->links, &l->node);
    move_aside(m);
    wake_for_loose(m);
    return l;
}

void tnl_mux_link_lost(tnl_mux *m, tnl_mux_link *l)
{
    tnl_list_remove(&l->node);
    m->link_bits &= ~l->bit;
    for (tnl_list *n = m->all.next; n != &m->all; n = n->next)
        TNL_CONTAINER(n, tnl_stream, all)->fin_links &= ~l->bit;
    move_streams(&l->streams);
    tnl_mux_datagrams_leave(m, l);
    wake_for_loose(m);
    if (l->pulling)
        l->lost = true;
    else
        tnl_mux_link_free(l);
}

void tnl_mux_link_drain(tnl_mux *m, tnl_mux_link *l)
{
    l->draining = true;
    move_aside(m);
    wake_for_loose(m);
}

void tnl_mux_link_proven(tnl_mux *m, tnl_mux_link *l)
{
    l->unproven = false;
    move_aside(m);
    wake_for_loose(m);
}

/* --- control and events ----------------------------------------------------------------------- */

int tnl_mux_control(tnl_mux *m, uint8_t type, const uint8_t *p, size_t n)
{
    uint8_t head[TNL_CONTROL_HEADER] = {type, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    if (n > TNL_MESSAGE_MAX)
        return TUNNEL_E_INVALID;
    tnl_ring *ring = &m->control->out.ring;
    if (tnl_stream_room(m->control) < sizeof(head) + n)
        return TUNNEL_E_LIMIT;
    /* Memory for all of it first: half a record would spoil what follows. */
    uint8_t *unused;
    tnl_ring_space(ring, sizeof(head) + n, &unused);
    if (ring->cap - tnl_ring_len(ring) < sizeof(head) + n)
        return TUNNEL_E_NOMEM;
    tnl_stream_write(m->control, head, sizeof(head));
    tnl_stream_write(m->control, p, n);
    return 0;
}

/* Cuts stream 0 into records. Everything is used up at once, so its credit never runs dry. */
static size_t control_data(void *user, const uint8_t *p, size_t n)
{
    tnl_mux *m = user;
    size_t done = 0;
    while (done < n && !m->control_error) {
        size_t have = tnl_buf_len(&m->control_in);
        size_t need = TNL_CONTROL_HEADER;
        const uint8_t *head = tnl_buf_bytes(&m->control_in);
        if (have >= TNL_CONTROL_HEADER) {
            size_t length = (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
            if (length > TNL_MESSAGE_MAX) {
                m->control_error = TUNNEL_E_PROTOCOL;
                break;
            }
            need += length;
        }
        size_t take = need - have < n - done ? need - have : n - done;
        if (tnl_buf_add(&m->control_in, p + done, take)) {
            m->control_error = TUNNEL_E_NOMEM;
            break;
        }
        done += take;
        have += take;
        head = tnl_buf_bytes(&m->control_in);
        if (have < TNL_CONTROL_HEADER || have < need ||
            (need == TNL_CONTROL_HEADER && (head[1] | head[2] | head[3])))
            continue;
        m->control_error = m->events->control(m->user, head[0], head + TNL_CONTROL_HEADER,
                                              have - TNL_CONTROL_HEADER);
        tnl_buf_free(&m->control_in);
    }
    return n;
}

void tnl_mux_event(tnl_mux *m, const uint8_t *map, size_t n)
{
    tnl_frame f = {.type = TNL_FRAME_EVENT, .rest = map, .rest_len = n};
    size_t size = tnl_frame_size(&f);
    tnl_mux_link *link = tnl_mux_best_link(m);
    uint8_t *p = link && n <= TNL_MUX_MAX_EVENT ? tnl_buf_reserve(&m->event_queue, size) : NULL;
    if (!p || !tnl_frame_encode(p, size, &f)) {
        m->stats.events_dropped++;
        return;
    }
    tnl_buf_commit(&m->event_queue, size);
    tnl_mux_wake(link);
}

/* --- time ------------------------------------------------------------------------------------- */

void tnl_mux_set_rtt(tnl_mux *m, tnl_mux_link *l, uint32_t ms, uint64_t now_ms)
{
    tnl_mux_set_now(m, now_ms);
    m->rtt = ms;
    tnl_flight_trip(&l->flight, ms, now_ms);
}

uint64_t tnl_mux_expiry(const tnl_mux *m)
{
    if (!tnl_list_empty(&m->failed))
        return m->now;
    uint64_t datagrams = tnl_mux_datagram_expiry(m);
    uint64_t acks = tnl_list_empty(&m->lazy_acks) ? UINT64_MAX
                                                  : m->lazy_since + TNL_MUX_ACK_DELAY_MS;
    return datagrams < acks ? datagrams : acks;
}

void tnl_mux_set_now(tnl_mux *m, uint64_t now_ms)
{
    bool back = now_ms < m->now;
    m->now = now_ms;
    /* A clock that was set back must not make acknowledgements late. */
    if (m->lazy_since > now_ms)
        m->lazy_since = now_ms;
    if (back)
        tnl_mux_redate_datagrams(m);
}

void tnl_mux_tick(tnl_mux *m, uint64_t now_ms)
{
    tnl_mux_set_now(m, now_ms);
    for (tnl_list *n; (n = tnl_list_first(&m->failed));) {
        tnl_stream *s = TNL_CONTAINER(n, tnl_stream, failed);
        tnl_list_remove(n);
        const char *text = tunnel_strerror(TUNNEL_E_NOMEM);
        tnl_mux_tell_reset(s, (uint32_t)-TUNNEL_E_NOMEM, text, strlen(text));
        tnl_mux_settle(s);
    }
    if (now_ms - m->lazy_since >= TNL_MUX_ACK_DELAY_MS)
        tnl_mux_flush_acks(m);
    tnl_mux_expire_datagrams(m);
}
