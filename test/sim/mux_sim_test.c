/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends of a session under random schedules: links that deliver in random pieces, die at any
 * byte and come back, drain and overtake one another; streams that are written, stalled,
 * half-closed, reset and released at random; control messages, events, datagrams, a clock that
 * jumps, memory that fails; and, in runs of its own, a peer that lies.
 *
 * SIM_SEED=N   the first schedule (printed with every failure; default: another one every time)
 * SIM_COUNT=N  how many schedules (default: 10000; a quarter as many with a lying peer)
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sim/mux_world.h"
#include "tunnel/error.h"

/* --- streams ---------------------------------------------------------------------------------- */

static void act(world *w);

/* Something else happens from inside a callback. */
static void reenter(world *w)
{
    if (!w->reentrant || w->quiet || w->depth >= 2 || !one_in(w, 6))
        return;
    w->depth++;
    act(w);
    w->depth--;
}

static side *other(side *s)
{
    return &s->conv->side[!s->end];
}

static void release(side *s)
{
    tnl_stream *stream = s->stream;
    s->stream = NULL;
    s->over = true;
    bool complete = s->fin_called && s->fin_got;
    if (!complete && !s->reset_got && !s->aborted)
        s->aborted = TUNNEL_E_CANCELED;
    tnl_stream_release(stream);
}

static size_t on_data(void *user, const uint8_t *p, size_t n)
{
    side *s = user;
    world *w = s->conv->w;
    CHECK(w, n > 0 && s->stream && !s->aborted && !s->reset_got && !s->fin_got);
    if (!w->hostile)
        CHECK(w, matches(p, n, s->conv->key + (uint64_t)!s->end, s->got));
    size_t used = n;
    if (s->stuck)
        used = 0;
    else if (!w->quiet && s->greed && one_in(w, 4))
        used = s->greed > 1 ? below(w, (uint32_t)n + 1) : 0;
    s->got += used;
    w->delivered += used;
    reenter(w);
    s->stalled = used < n;
    return used;
}

static void on_fin(void *user)
{
    side *s = user;
    world *w = s->conv->w;
    CHECK(w, s->stream && !s->aborted && !s->reset_got && !s->fin_got);
    CHECK(w, w->hostile || (other(s)->fin_called && s->got == other(s)->written));
    s->fin_got = true;
    reenter(w);
}

static bool reset_is_due(const side *s, uint32_t code)
{
    const world *w = s->conv->w;
    const side *peer = &s->conv->side[!s->end];
    if (w->hostile || w->broken || (w->failing && code == (uint32_t)-TUNNEL_E_NOMEM))
        return true;
    if (code == (uint32_t)-TUNNEL_E_LIMIT && !s->conv->arrived)
        return true;
    return peer->aborted && code == (uint32_t)-peer->aborted;
}

/* What was said before a stream broke has come; without an end only as far as it was taken. */
static bool broken_in_order(const side *s)
{
    const side *peer = &s->conv->side[!s->end];
    const world *w = s->conv->w;
    if (!peer->broke || w->hostile || w->broken || w->failing)
        return true;
    if (peer->fin_called)
        return s->fin_got && s->got == peer->written;
    return s->stalled || s->got == peer->written;
}

static void on_reset(void *user, uint32_t code, const char *text, size_t n)
{
    side *s = user;
    world *w = s->conv->w;
    CHECK(w, s->stream && !s->aborted && !s->reset_got);
    CHECK(w, reset_is_due(s, code));
    CHECK(w, w->hostile || w->broken || n == 0 || code == (uint32_t)-TUNNEL_E_NOMEM ||
                 memcmp(text, "why", n) == 0);
    CHECK(w, broken_in_order(s));
    s->reset_got = true;
    if (one_in(w, 2))
        release(s);
    reenter(w);
}

static void on_room(void *user)
{
    side *s = user;
    world *w = s->conv->w;
    CHECK(w, s->stream && !s->aborted && !s->reset_got);
    CHECK(w, tnl_stream_room(s->stream) >= TNL_MUX_MAX_UNSENT / 2);
    reenter(w);
}

static const tnl_stream_events stream_events = {
    .data = on_data, .fin = on_fin, .reset = on_reset, .room = on_room};

static void write_some(side *s)
{
    world *w = s->conv->w;
    uint8_t bytes[20000];
    uint64_t left = s->total - s->written;
    size_t n = 1 + below(w, one_in(w, 3) ? sizeof(bytes) : 300);
    if (n > left)
        n = (size_t)left;
    if (n && one_in(w, 2)) {
        uint8_t *p;
        size_t space = tnl_stream_space(s->stream, n, &p);
        n = space < n ? space : n;
        if (n) {
            fill(p, n, s->conv->key + (uint64_t)s->end, s->written);
            tnl_stream_commit(s->stream, n);
        }
        s->written += n;
    } else if (n) {
        fill(bytes, n, s->conv->key + (uint64_t)s->end, s->written);
        s->written += tnl_stream_write(s->stream, bytes, n);
    }
    if (s->written == s->total && !s->fin_called && (w->quiet || one_in(w, 3))) {
        s->fin_called = true;
        tnl_stream_fin(s->stream);
    }
}

static void abort_side(side *s)
{
    world *w = s->conv->w;
    if (one_in(w, 2)) {
        release(s);
        return;
    }
    static const int codes[] = {TUNNEL_E_REFUSED, TUNNEL_E_TIMEOUT, TUNNEL_E_UPSTREAM,
                                TUNNEL_E_RESET};
    if (s->aborted || s->reset_got)
        return;
    s->aborted = codes[below(w, sizeof(codes) / sizeof(*codes))];
    s->broke = one_in(w, 2);
    (s->broke ? tnl_stream_break : tnl_stream_reset)(s->stream, s->aborted,
                                                     one_in(w, 2) ? "why" : NULL);
}

static void use(side *s)
{
    world *w = s->conv->w;
    if (!s->stream)
        return;
    if (s->aborted || s->reset_got || (s->fin_called && s->fin_got)) {
        if (w->quiet || one_in(w, 4))
            release(s);
    } else if (!w->quiet && one_in(w, 60)) {
        abort_side(s);
    } else if (s->stalled && !s->stuck && one_in(w, 2)) {
        s->stalled = false;
        tnl_stream_resume(s->stream);
    } else {
        write_some(s);
    }
}

static void open_one(world *w)
{
    if (w->convs == MAX_CONVS || w->quiet)
        return;
    conv *c = &w->conv[w->convs];
    int end = (int)below(w, ENDS);
    uint32_t most = w->one_byte ? 2000 : one_in(w, 25) ? 300000 : one_in(w, 3) ? 30000 : 2000;
    *c = (conv){.w = w, .index = (uint32_t)w->convs, .key = next_random(w), .opener = end};
    for (int i = 0; i < ENDS; i++)
        c->side[i] = (side){.conv = c, .end = i, .total = below(w, most), .greed = below(w, 3)};
    if (one_in(w, 8))
        c->side[below(w, ENDS)].stuck = true;
    uint8_t map[4 + 60];
    memcpy(map, &c->index, 4);
    fill(map + 4, sizeof(map) - 4, c->key, 0);
    size_t n = 4 + below(w, sizeof(map) - 3);
    side *s = &c->side[end];
    int rc = tnl_mux_open(w->mux[end], &s->stream, map, n, &stream_events, s);
    CHECK(w, rc == 0 || rc == TUNNEL_E_LIMIT || (rc == TUNNEL_E_NOMEM && w->failing));
    if (rc)
        return;
    w->convs++;
    write_some(s);
}

/* --- the session ------------------------------------------------------------------------------ */

typedef struct end_user {
    world *w;
    int end;
} end_user;

static void on_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    const end_user *u = user;
    world *w = u->w;
    uint32_t index = UINT32_MAX;
    if (n >= 4)
        memcpy(&index, map, 4);
    if (w->hostile &&
        (index >= w->convs || w->conv[index].arrived || w->conv[index].opener == u->end))
        return;
    CHECK(w, index < MAX_CONVS);
    conv *c = &w->conv[index];
    side *s = &c->side[u->end];
    CHECK(w, !c->arrived && !s->stream);
    CHECK(w, w->hostile || matches(map + 4, n - 4, c->key, 0));
    c->arrived = true;
    if (one_in(w, 20)) {
        s->aborted = TUNNEL_E_DENIED;
        s->over = true;
        return;
    }
    s->stream = stream;
    tnl_stream_set_events(stream, &stream_events, s);
    if (one_in(w, 20))
        abort_side(s);
    else if (one_in(w, 3))
        write_some(s);
    reenter(w);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    const end_user *u = user;
    world *w = u->w;
    if (w->hostile)
        return 0;
    uint32_t seq = w->control_got[u->end]++;
    CHECK(w, seq < w->control_sent[!u->end] && type == (uint8_t)seq);
    CHECK(w, matches(p, n, w->seed + seq, 0));
    reenter(w);
    return 0;
}

static void on_event(void *user, const uint8_t *map, size_t n)
{
    const end_user *u = user;
    world *w = u->w;
    uint32_t seq;
    if (w->hostile)
        return;
    CHECK(w, n >= sizeof(seq));
    memcpy(&seq, map, sizeof(seq));
    CHECK(w, seq < w->events_sent[!u->end] && !w->event_seen[u->end][seq]);
    CHECK(w, matches(map + 4, n - 4, w->seed, seq));
    w->event_seen[u->end][seq] = true;
}

/* What number n from `end` must be: so that a datagram shows where it belongs. */
static tnl_datagram datagram_of(const world *w, int end, uint32_t n)
{
    uint64_t mixed = w->seed + n * 2 + (uint64_t)end;
    tnl_datagram d = {.tunnel = 1 + mixed % 5, .flow = 1 + n, .port = (uint16_t)mixed};
    d.family = (uint8_t)(mixed % 3 ? (mixed % 3) * 2 + 2 : 0);
    d.n = w->datagram_size[end][n];
    if (d.family == 0)
        d.port = 0;
    else
        fill(d.address, d.family == 4 ? 4 : 16, w->seed, n);
    return d;
}

/* Whole, of its own tunnel and flow, once, and behind the others of its link. */
static void on_datagram(void *user, const tnl_datagram *d)
{
    const end_user *u = user;
    world *w = u->w;
    if (w->hostile)
        return;
    CHECK(w, d->flow >= 1 && d->flow <= w->datagrams_sent[!u->end]);
    uint32_t n = (uint32_t)d->flow - 1;
    tnl_datagram is = datagram_of(w, !u->end, n);
    CHECK(w, !w->datagram_seen[u->end][n]);
    w->datagram_seen[u->end][n] = true;
    CHECK(w, d->tunnel == is.tunnel && d->family == is.family && d->port == is.port);
    CHECK(w, memcmp(d->address, is.address, sizeof(is.address)) == 0);
    CHECK(w, d->n == is.n && matches(d->p, d->n, w->seed + n, (uint64_t)!u->end));
    wire_end *e = w->feeding[u->end];
    CHECK(w, w->shuffle || n >= e->datagrams_to);
    e->datagrams_to = n + 1;
    w->datagrams++;
    reenter(w);
}

static void on_wake(void *user, void *link_user)
{
    const end_user *u = user;
    wire_end *e = link_user;
    CHECK(u->w, e->end == u->end && !e->woken);
    e->woken = true;
}

static void on_retired(void *user)
{
    const end_user *u = user;
    reenter(u->w);
}

static const tnl_mux_events mux_events = {.open = on_open,
                                          .control = on_control,
                                          .event = on_event,
                                          .datagram = on_datagram,
                                          .wake = on_wake,
                                          .retired = on_retired};

static void send_control(world *w)
{
    int end = (int)below(w, ENDS);
    uint8_t body[2000];
    size_t n = below(w, one_in(w, 4) ? sizeof(body) : 50);
    uint32_t seq = w->control_sent[end];
    fill(body, n, w->seed + seq, 0);
    int rc = tnl_mux_control(w->mux[end], (uint8_t)seq, body, n);
    CHECK(w, rc == 0 || rc == TUNNEL_E_LIMIT || (rc == TUNNEL_E_NOMEM && w->failing));
    w->control_sent[end] += rc == 0;
}

static void send_event(world *w)
{
    int end = (int)below(w, ENDS);
    uint8_t map[TNL_MUX_MAX_EVENT];
    uint32_t seq = w->events_sent[end];
    size_t n = 4 + below(w, sizeof(map) - 3);
    if (seq == MAX_EVENTS_SENT)
        return;
    memcpy(map, &seq, 4);
    fill(map + 4, n - 4, w->seed, seq);
    uint64_t dropped = tnl_mux_get_stats(w->mux[end])->events_dropped;
    tnl_mux_event(w->mux[end], map, n);
    w->events_sent[end] += tnl_mux_get_stats(w->mux[end])->events_dropped == dropped;
}

static void send_datagrams(world *w)
{
    static uint8_t bytes[TNL_DATAGRAM_MAX];
    int end = (int)below(w, ENDS);
    for (uint32_t burst = one_in(w, 4) ? below(w, 20) : 1; burst; burst--) {
        uint32_t n = w->datagrams_sent[end];
        if (n == MAX_DATAGRAMS_SENT)
            return;
        uint32_t most = one_in(w, 10) ? TNL_DATAGRAM_MAX : one_in(w, 3) ? 20000 : 1500;
        w->datagram_size[end][n] = (uint16_t)below(w, w->one_byte ? 1500 : most + 1);
        tnl_datagram d = datagram_of(w, end, n);
        fill(bytes, d.n, w->seed + n, (uint64_t)end);
        d.p = bytes;
        w->datagrams_sent[end]++;
        int rc = tnl_mux_datagram(w->mux[end], &d, w->now);
        CHECK(w, rc == 0 || rc == TUNNEL_E_GONE || (rc == TUNNEL_E_NOMEM && w->failing));
    }
}

static void tick(world *w)
{
    if (w->jumps && !w->quiet && one_in(w, 10))
        w->now += next_random(w) % 7200000 - 3600000;
    else
        w->now += below(w, 60);
    for (int end = 0; end < ENDS; end++)
        if (tnl_mux_expiry(w->mux[end]) <= w->now || one_in(w, 4))
            tnl_mux_tick(w->mux[end], w->now);
}

/* --- wires ------------------------------------------------------------------------------------ */

static void wire_add(world *w)
{
    if (w->parked && !w->quiet)
        return;
    for (size_t i = 0; i < MAX_WIRES; i++) {
        wire *x = &w->wire[i];
        if (x->end[0].state != AWAY || x->end[1].state != AWAY || x->end[0].busy || x->end[1].busy)
            continue;
        x->w = w;
        x->up = true;
        for (int end = 0; end < ENDS; end++) {
            x->end[end] = (wire_end){
                .wire = x, .end = end, .state = JOINING, .queue = queues[i][end]};
        }
        return;
    }
}

static void wire_join(world *w, wire_end *e)
{
    static const size_t flights[] = {1, 1500, 20000, 1 << 20};
    if (e->state != JOINING)
        return;
    tnl_mux_link *l = tnl_mux_link_add(w->mux[e->end], flights[below(w, 4)], false, e);
    CHECK(w, l || w->failing);
    if (!l)
        return;
    e->link = l;
    e->state = JOINED;
    tnl_mux_set_rtt(w->mux[e->end], l, w->rtt[e->end], w->now);
    tnl_decoder_init(&e->decoder, w->config[e->end].local.max_frame);
}

/* The path breaks: of what is on its way some may still arrive. */
static void wire_cut(world *w, wire *x)
{
    if (!x->up)
        return;
    x->up = false;
    for (int end = 0; end < ENDS; end++) {
        wire_end *e = &x->end[end];
        e->tail = e->head + below(w, (uint32_t)(e->tail - e->head) + 1);
    }
}

/* An end learns that the path broke. */
static void wire_leave(world *w, wire_end *e)
{
    if (e->state == AWAY || e->wire->up)
        return;
    e->state = AWAY;
    if (!e->link)
        return;
    tnl_mux_link *l = e->link;
    e->link = NULL;
    tnl_mux_link_lost(w->mux[e->end], l);
    if (!e->busy)
        tnl_decoder_free(&e->decoder);
}

static void session_failed(world *w, int rc)
{
    CHECK(w, w->hostile || (w->failing && rc == TUNNEL_E_NOMEM));
    w->broken = true;
}

typedef struct feeding {
    world *w;
    wire_end *e;
    tnl_mux_link *link;
} feeding;

static int on_frame(void *user, const tnl_frame *f)
{
    feeding *d = user;
    world *w = d->w;
    w->feeding[d->e->end] = d->e;
    if (f->type != TNL_FRAME_EVENT && f->type != TNL_FRAME_DATAGRAM &&
        (f->type < TNL_FRAME_OPEN || f->type > TNL_FRAME_ACK))
        return 0;
    int rc = tnl_mux_frame(w->mux[d->e->end], d->link, f, w->now);
    if (rc)
        session_failed(w, rc);
    if (w->broken || d->e->link != d->link)
        return STOP;
    return 0;
}

static void deliver(world *w, wire_end *e, size_t most)
{
    size_t n = e->tail - e->head;
    if (e->state != JOINED || n == 0)
        return;
    if (n > most)
        n = most;
    /* A copy of just these bytes, so that a sanitizer sees a read past them; callbacks may add to
     * the queue. */
    uint8_t *piece = malloc(n);
    memcpy(piece, e->queue + e->head, n);
    e->head += n;
    feeding d = {w, e, e->link};
    e->busy = true;
    int rc = tnl_decoder_feed(&e->decoder, piece, n, on_frame, &d);
    e->busy = false;
    free(piece);
    if (e->link != d.link) {
        tnl_decoder_free(&e->decoder);
        return;
    }
    if (rc == TUNNEL_E_NOMEM && w->failing) {
        wire_cut(w, e->wire);
        wire_leave(w, e);
    } else if (rc && rc != STOP) {
        session_failed(w, rc);
    }
}

/* Frames that are not OPEN may overtake one another, as if they had gone over several links. */
static void shuffle(world *w, uint8_t *p, size_t n)
{
    static uint8_t copy[65536];
    size_t at[9], lengths[9], order[9];
    memcpy(copy, p, n);
    for (size_t from = 0; from < n;) {
        size_t count = 0, end = from;
        while (count < 8 && end < n && (count == 0 || copy[end] != TNL_FRAME_OPEN)) {
            at[count] = end;
            lengths[count] = TNL_FRAME_HEADER + ((size_t)copy[end + 1] << 16 |
                                                 (size_t)copy[end + 2] << 8 | copy[end + 3]);
            order[count] = count;
            end += lengths[count++];
        }
        size_t fixed = copy[from] == TNL_FRAME_OPEN;
        for (size_t i = count; i > fixed + 1; i--) {
            size_t k = fixed + below(w, (uint32_t)(i - fixed));
            size_t swap = order[i - 1];
            order[i - 1] = order[k];
            order[k] = swap;
        }
        for (size_t i = 0; i < count; i++) {
            memcpy(p, copy + at[order[i]], lengths[order[i]]);
            p += lengths[order[i]];
        }
        from = end;
    }
}

static void mutate(world *w, uint8_t *p, size_t n);

static bool pull(world *w, wire_end *e)
{
    static uint8_t batch[65536];
    if (e->state != JOINED || !e->woken)
        return false;
    wire_end *to = &e->wire->end[!e->end];
    if (to->head && MAX_QUEUE - to->tail < sizeof(batch)) {
        memmove(to->queue, to->queue + to->head, to->tail - to->head);
        to->tail -= to->head;
        to->head = 0;
    }
    size_t room = MAX_QUEUE - to->tail;
    size_t cap = one_in(w, 2) ? sizeof(batch) : 2048 + below(w, 6000);
    if (room < cap)
        return false;
    tnl_mux_link *l = e->link;
    e->busy = true;
    size_t n = tnl_mux_pull(w->mux[e->end], l, batch, cap, w->now);
    e->busy = false;
    CHECK(w, n <= cap);
    if (e->link != l) {
        CHECK(w, n == 0);
        tnl_decoder_free(&e->decoder);
        return true;
    }
    if (n == 0)
        e->woken = false;
    if (w->shuffle && n)
        shuffle(w, batch, n);
    if (w->hostile && n && e->end == 0)
        mutate(w, batch, n);
    if (e->wire->up) {
        memcpy(to->queue + to->tail, batch, n);
        to->tail += n;
    }
    return n > 0;
}

static wire_end *any_end(world *w)
{
    return &w->wire[below(w, MAX_WIRES)].end[below(w, ENDS)];
}

/* All wires are lost, and no other comes for a while. Not everybody learns of it at once. */
static void park(world *w)
{
    w->parked = 1 + below(w, one_in(w, 2) ? 20 : 200);
    for (size_t i = 0; i < MAX_WIRES; i++) {
        wire_cut(w, &w->wire[i]);
        for (int end = 0; end < ENDS; end++)
            if (w->wire[i].end[end].wire && !one_in(w, 4))
                wire_leave(w, &w->wire[i].end[end]);
    }
}

static void disturb(world *w)
{
    wire_end *e = any_end(w);
    if (one_in(w, 12)) {
        park(w);
    } else if (!e->wire || one_in(w, 3)) {
        wire_add(w);
    } else if (one_in(w, 3)) {
        wire_cut(w, e->wire);
        if (one_in(w, 2))
            wire_leave(w, e);
    } else if (one_in(w, 2) && e->state == JOINED && !e->drained) {
        e->drained = true;
        tnl_mux_link_drain(w->mux[e->end], e->link);
    } else {
        wire_leave(w, e);
    }
}

/* --- a peer that lies ------------------------------------------------------------------------- */

static uint64_t odd_number(world *w)
{
    switch (below(w, 5)) {
    case 0:
        return next_random(w);
    case 1:
        return TNL_FRAME_MAX_OFFSET - below(w, 4);
    case 2:
        return 16384 + below(w, 5);
    default:
        return below(w, 50);
    }
}

static void mutate(world *w, uint8_t *p, size_t n)
{
    if (!one_in(w, w->truth))
        return;
    if (one_in(w, 3)) {
        p[below(w, (uint32_t)n)] ^= (uint8_t)(1 << below(w, 8));
        return;
    }
    /* A number in the head of some frame. */
    size_t at = 0;
    for (;;) {
        size_t length = TNL_FRAME_HEADER +
                        ((size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3]);
        if (at + length >= n || one_in(w, 3))
            break;
        at += length;
    }
    size_t fields = (n - at - 4) / 8;
    size_t field = below(w, fields < 3 ? (uint32_t)fields : 3);
    uint64_t number = odd_number(w);
    for (size_t i = 0; i < 8; i++)
        p[at + 4 + field * 8 + i] = (uint8_t)(number >> (56 - 8 * i));
}

/* The first or another piece of a datagram that may never become whole. */
static void forge_piece(world *w, tnl_frame *f, uint8_t *bytes)
{
    tnl_datagram_piece m = {.d = {.tunnel = 1, .flow = 1 + below(w, 3), .n = below(w, 9000)},
                            .number = below(w, 3),
                            .total = (uint16_t)below(w, TNL_DATAGRAM_MAX + 1)};
    m.offset = one_in(w, 2) ? 0 : (uint16_t)below(w, m.total + 1U);
    size_t head = tnl_datagram_encode_head(bytes, TNL_DATAGRAM_HEAD_MAX, &m);
    f->stream = m.d.flow;
    f->rest_len = one_in(w, 4) ? below(w, 40) : head + m.d.n;
}

/* A frame made up from nothing. */
static void forge(world *w)
{
    static const uint8_t types[] = {TNL_FRAME_OPEN,    TNL_FRAME_DATA, TNL_FRAME_FIN,
                                    TNL_FRAME_RESET,   TNL_FRAME_ACK,  TNL_FRAME_EVENT,
                                    TNL_FRAME_DATAGRAM};
    static uint8_t bytes[20000];
    wire_end *e = &w->wire[below(w, MAX_WIRES)].end[1];
    if (e->state != JOINED || w->depth)
        return;
    tnl_frame f = {.type = types[below(w, sizeof(types))],
                   .stream = below(w, 4) ? below(w, 40) : odd_number(w)};
    f.offset = odd_number(w);
    f.limit = odd_number(w);
    f.code = (uint32_t)next_random(w);
    f.rest = bytes;
    f.rest_len = f.type == TNL_FRAME_DATA ? 1 + below(w, sizeof(bytes) - 1) : below(w, 260);
    if (f.type == TNL_FRAME_DATAGRAM)
        forge_piece(w, &f, bytes);
    feeding d = {w, e, e->link};
    on_frame(&d, &f);
}

/* --- a schedule ------------------------------------------------------------------------------- */

static void act(world *w)
{
    if (w->broken)
        return;
    uint32_t dice = below(w, 100);
    w->parked -= w->parked > 0;
    if (dice < 3 && w->depth == 0)
        tick(w);
    else if (dice < 5)
        send_control(w);
    else if (dice < 7)
        send_event(w);
    else if (dice < 10)
        open_one(w);
    else if (dice < 12)
        send_datagrams(w);
    else if (dice < 15)
        disturb(w);
    else if (dice < 22)
        wire_join(w, any_end(w));
    else if (dice < 42 && w->depth == 0)
        pull(w, any_end(w));
    else if (dice < 70 && w->depth == 0)
        deliver(w, any_end(w),
                w->one_byte ? 1 + below(w, 3) : 1 + below(w, one_in(w, 2) ? 64 : 40000));
    else if (dice < 74 && w->hostile && one_in(w, w->truth))
        forge(w);
    else if (w->convs)
        use(&w->conv[below(w, (uint32_t)w->convs)].side[below(w, ENDS)]);
}

static void world_init(world *w, uint64_t seed, bool hostile)
{
    static end_user users[ENDS];
    *w = (world){.seed = seed, .random = seed * 2 + hostile, .hostile = hostile};
    w->one_byte = one_in(w, 8);
    w->shuffle = one_in(w, 4);
    w->failing = one_in(w, 8);
    w->reentrant = one_in(w, 3);
    w->jumps = one_in(w, 4);
    w->truth = 1 + below(w, one_in(w, 2) ? 6 : 60);
    w->now = 10000000 + below(w, 1000000);
    memory.fails = NULL;
    memory.peak = memory.bytes;
    for (int end = 0; end < ENDS; end++) {
        tnl_mux_config *c = &w->config[end];
        tnl_limits *l = &c->local;
        c->server = end == 1;
        l->max_frame = 1024 + below(w, one_in(w, 2) ? 64000 : 1000);
        l->max_streams = one_in(w, 8) ? 0 : 1 + below(w, one_in(w, 3) ? 3 : 30);
        l->window = 16384 + (one_in(w, 2) ? 0 : below(w, 50000));
        c->max_window = l->window << below(w, 4);
        c->surplus = below(w, one_in(w, 3) ? 3000000 : 300000);
        uint32_t far = l->window << below(w, 7);
        c->far_window = one_in(w, 2) ? 0 : far < TNL_MUX_MAX_FAR ? far : TNL_MUX_MAX_FAR;
    }
    for (int end = 0; end < ENDS; end++) {
        w->config[end].remote = w->config[!end].local;
        users[end] = (end_user){w, end};
        CHECK(w, tnl_mux_new(&w->mux[end], &w->config[end], &mux_events, &users[end]) == 0);
        w->rtt[end] = below(w, 3 * TNL_MUX_FAR_MS);
    }
    memory.fails = memory_is_short;
}

static bool conv_done(const conv *c)
{
    for (int end = 0; end < ENDS; end++)
        if (!c->side[end].over && (end == c->opener || c->arrived))
            return false;
    return true;
}

static bool is_stuck(const conv *c)
{
    return c->side[0].stuck || c->side[1].stuck;
}

static bool all_done(const world *w, bool stuck_too)
{
    for (size_t i = 0; i < w->convs; i++)
        if (!conv_done(&w->conv[i]) && (stuck_too || !is_stuck(&w->conv[i])))
            return false;
    return true;
}

static bool at_rest(const world *w)
{
    for (int end = 0; end < ENDS; end++)
        if (tnl_mux_stream_count(w->mux[end]) || w->control_got[end] != w->control_sent[!end])
            return false;
    for (size_t i = 0; i < MAX_WIRES; i++)
        for (int end = 0; end < ENDS; end++) {
            const wire_end *e = &w->wire[i].end[end];
            if (e->state == JOINED && (e->woken || e->head != e->tail || e->link->flight.bytes))
                return false;
        }
    return true;
}

/* Everything that can move moves once. */
static void calm_round(world *w)
{
    bool up = false;
    for (size_t i = 0; i < MAX_WIRES && !w->broken; i++) {
        for (int end = 0; end < ENDS && !w->broken; end++) {
            wire_end *e = &w->wire[i].end[end];
            wire_join(w, e);
            while (e->head < e->tail && e->state == JOINED && !w->broken)
                deliver(w, e, w->one_byte ? 1 + below(w, 3) : 1 + below(w, 40000));
            wire_leave(w, e);
            while (!w->broken && pull(w, e))
                ;
        }
        up = up || w->wire[i].up;
    }
    if (!up)
        wire_add(w);
    for (size_t i = 0; i < w->convs && !w->broken; i++)
        for (int end = 0; end < ENDS; end++)
            use(&w->conv[i].side[end]);
    if (!w->broken)
        tick(w);
}

static void calm_until(world *w, bool (*done)(const world *w))
{
    for (int i = 0; !w->broken && !done(w); i++) {
        CHECK(w, i < MAX_ROUNDS);
        calm_round(w);
        if (i % 64 == 0)
            check_world(w);
    }
}

static bool others_done(const world *w)
{
    return all_done(w, false);
}

static bool everything_done(const world *w)
{
    return all_done(w, true) && at_rest(w);
}

static void calm_down(world *w)
{
    w->quiet = true;
    calm_until(w, others_done);
    for (size_t i = 0; i < w->convs && !w->broken; i++)
        for (int end = 0; end < ENDS; end++) {
            side *s = &w->conv[i].side[end];
            if (s->stuck && s->stream && one_in(w, 2))
                abort_side(s);
            s->stuck = false;
            s->stalled = true;
        }
    calm_until(w, everything_done);
    check_world(w);
    for (int end = 0; end < ENDS && !w->broken; end++) {
        const tnl_mux *m = w->mux[end];
        CHECK(w, m->surplus_used == 0 && m->local_count == 0 && m->remote_count == 0 &&
                     m->remote_open == 0);
        CHECK(w, tnl_list_first(&m->all) == &m->control->all && m->all.next->next == &m->all);
        CHECK(w, w->hostile ||
                     tnl_mux_get_stats(m)->data_in <= tnl_mux_get_stats(w->mux[!end])->data_out);
    }
}

static void world_free(world *w)
{
    for (int end = 0; end < ENDS; end++) {
        if (!w->broken)
            continue;
        /* What is left is told, and let go from there or not at all. */
        w->quiet = true;
        tnl_mux_abort(w->mux[end], TUNNEL_E_GONE);
        for (size_t i = 0; i < w->convs; i++)
            CHECK(w, !w->conv[i].side[end].stream || w->conv[i].side[end].reset_got ||
                         w->conv[i].side[end].aborted);
    }
    for (size_t i = 0; i < MAX_WIRES; i++)
        for (int end = 0; end < ENDS; end++) {
            wire_end *e = &w->wire[i].end[end];
            if (e->link)
                tnl_decoder_free(&e->decoder);
        }
    for (int end = 0; end < ENDS; end++)
        tnl_mux_free(w->mux[end]);
}

/* What two ends may ever hold in these schedules, where the users write little: far less than what
 * a liar may ask for. */
enum { MEMORY_BOUND = 8 * 1024 * 1024 };

static void run(uint64_t seed, bool hostile)
{
    world *w = &the_world;
    world_init(w, seed, hostile);
    uint32_t steps = 50 + below(w, MAX_STEPS);
    wire_add(w);
    wire_join(w, &w->wire[0].end[0]);
    wire_join(w, &w->wire[0].end[1]);
    for (uint32_t i = 0; i < steps && !w->broken; i++) {
        act(w);
        if (i % 32 == 0)
            check_world(w);
    }
    if (!hostile)
        calm_down(w);
    else
        w->broken = true;
    world_free(w);
    memory.fails = NULL;
    CHECK(w, memory.live == 0 && memory.bytes == 0);
    CHECK(w, memory.peak < MEMORY_BOUND);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void run_many(bool hostile)
{
    const char *mode = getenv("SIM_MODE");
    if (mode && (strcmp(mode, "hostile") == 0) != hostile)
        skip();
    uint64_t seed = number_of("SIM_SEED", (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
    uint64_t count = number_of("SIM_COUNT", 10000);
    uint64_t failed = 0, delivered = 0, datagrams = 0;
    if (hostile && count >= 4)
        count /= 4;
    print_message("%s: SIM_SEED=%" PRIu64 " SIM_COUNT=%" PRIu64 "\n",
                  hostile ? "hostile" : "honest", seed, count);
    for (uint64_t i = 0; i < count; i++) {
        run(seed + i, hostile);
        failed += the_world.broken;
        delivered += the_world.delivered;
        datagrams += the_world.datagrams;
    }
    print_message("%" PRIu64 " bytes and %" PRIu64 " datagrams delivered; %" PRIu64
                  " sessions ended before their streams\n",
                  delivered, datagrams, failed);
    if (!hostile)
        assert_true(count < 100 || (failed < count / 4 && delivered > count && datagrams > count));
}

static void test_honest_ends(void **state)
{
    (void)state;
    run_many(false);
}

static void test_lying_peer(void **state)
{
    (void)state;
    run_many(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honest_ends),
        cmocka_unit_test(test_lying_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
