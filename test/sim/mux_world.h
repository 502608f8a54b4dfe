/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SIM_MUX_WORLD_H
#define TEST_SIM_MUX_WORLD_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mux/internal.h"
#include "mux/mux.h"
#include "support/check.h"
#include "support/memory.h"

/*
 * What mux_sim_test.c simulates: its state, where chance comes from, and what must be true of it at
 * any time.
 */
enum {
    ENDS = 2,
    MAX_WIRES = 3,
    MAX_CONVS = 40,
    MAX_QUEUE = 256 * 1024,
    MAX_STEPS = 1200,
    MAX_ROUNDS = 20000,
    MAX_EVENTS_SENT = 64,
    MAX_DATAGRAMS_SENT = 400,
    STOP = 1, /* from a frame callback: its link is gone */
};

typedef struct world world;
typedef struct conv conv;

/* One end's view of a conversation, which is a stream. */
typedef struct side {
    conv *conv;
    int end;
    tnl_stream *stream;
    uint64_t total;
    uint64_t written;
    uint64_t got;
    bool fin_called;
    bool fin_got;
    bool reset_got;
    bool stalled;
    bool stuck;     /* uses up nothing until all others have finished */
    unsigned greed; /* how its consumer behaves */
    bool broke;     /* not at once, but behind what it had written */
    int aborted;    /* the code it reset its stream with */
    bool over;      /* released */
} side;

struct conv {
    world *w;
    uint32_t index;
    uint64_t key;
    int opener;
    bool arrived;
    side side[ENDS];
};

typedef enum wire_state { AWAY = 0, JOINING, JOINED } wire_state;

/* One end of a wire, and what is on its way to it. */
typedef struct wire_end {
    struct wire *wire;
    int end;
    wire_state state;
    tnl_mux_link *link;
    bool woken;
    bool drained;
    bool busy; /* fed or pulled from right now */
    tnl_decoder decoder;
    uint32_t datagrams_to; /* the number of the last datagram that came over it, + 1 */
    uint8_t *queue;
    size_t head;
    size_t tail;
} wire_end;

typedef struct wire {
    world *w;
    bool up;
    wire_end end[ENDS];
} wire;

struct world {
    uint64_t seed;
    uint64_t random;
    bool one_byte;
    bool shuffle;
    bool failing;
    bool reentrant;
    bool jumps;
    bool hostile;
    uint32_t truth;  /* for one lie */
    bool quiet;      /* the chaos is over: all is to end well */
    uint32_t parked; /* for so many actions no new wire comes */
    bool broken;     /* the session has failed, as it may in this schedule */
    unsigned depth;  /* of actions from callbacks */
    uint64_t now;
    tnl_mux_config config[ENDS];
    tnl_mux *mux[ENDS];
    uint32_t rtt[ENDS];
    size_t convs;
    conv conv[MAX_CONVS];
    wire wire[MAX_WIRES];
    uint32_t control_sent[ENDS];
    uint32_t control_got[ENDS];
    uint32_t events_sent[ENDS];
    bool event_seen[ENDS][MAX_EVENTS_SENT];
    uint32_t datagrams_sent[ENDS];
    uint16_t datagram_size[ENDS][MAX_DATAGRAMS_SENT];
    bool datagram_seen[ENDS][MAX_DATAGRAMS_SENT];
    wire_end *feeding[ENDS]; /* what is delivered to the end right now comes over it */
    uint64_t datagrams;
    uint64_t delivered;
};

static world the_world;
static uint8_t queues[MAX_WIRES][ENDS][MAX_QUEUE];

/* What is left of streams, for finding out why a schedule does not end. */
static void dump(const world *w, int end)
{
    const tnl_mux *m = w->mux[end];
    for (const tnl_list *n = m->all.next; n != &m->all; n = n->next) {
        const tnl_stream *s = TNL_CONTAINER(n, tnl_stream, all);
        const send_half *o = &s->out;
        const recv_half *in = &s->in;
        print_error("end %d stream %" PRIu64 "%s%s: out %" PRIu64 "/%" PRIu64 "/%" PRIu64
                    " limit %" PRIu64 " ends %d/%d/%d, in %" PRIu64 "/%" PRIu64 " limit %" PRIu64
                    " end %d at %" PRIu64 "%s%s\n",
                    end, s->id, s->retired ? " retired" : "", s->link ? "" : " orphan",
                    o->ring.start, o->sent, o->ring.end, o->limit, o->end, o->end_sent,
                    o->end_acked, in->ring.start, in->ring.end, in->limit, in->end, in->final,
                    s->ack_due ? " ack due" : "", s->events ? "" : " without events");
    }
}

static void report(const world *w, const char *what, int line)
{
    for (int end = 0; end < ENDS; end++)
        dump(w, end);
    print_error("mux_sim_test.c:%d: %s\nreplay with SIM_SEED=%" PRIu64 " SIM_COUNT=1 SIM_MODE=%s\n",
                line, what, w->seed, w->hostile ? "hostile" : "honest");
    fail();
}

#define CHECK(w, condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            report((w), #condition, __LINE__);                                                     \
    } while (0)

/* --- chance ----------------------------------------------------------------------------------- */

static uint64_t next_random(world *w)
{
    uint64_t x = w->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint32_t below(world *w, uint32_t n)
{
    return (uint32_t)((next_random(w) >> 32) * n >> 32);
}

static bool one_in(world *w, uint32_t n)
{
    return below(w, n) == 0;
}

static uint8_t pattern(uint64_t key, uint64_t offset)
{
    return (uint8_t)((offset + key) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(uint8_t *p, size_t n, uint64_t key, uint64_t offset)
{
    for (size_t i = 0; i < n; i++)
        p[i] = pattern(key, offset + i);
}

static bool matches(const uint8_t *p, size_t n, uint64_t key, uint64_t offset)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(key, offset + i))
            return false;
    return true;
}

static bool memory_is_short(void)
{
    world *w = &the_world;
    return w->failing && !w->quiet && one_in(w, 60);
}

/* --- what must always be true ----------------------------------------------------------------- */

static void check_stream(world *w, const tnl_mux *m, const tnl_stream *s)
{
    const send_half *o = &s->out;
    const recv_half *in = &s->in;
    CHECK(w, o->ring.start <= o->sent && o->sent <= o->ring.end && o->sent <= o->max_sent);
    CHECK(w, o->max_sent <= o->limit && o->end_acked <= o->end_max && o->end_max <= o->end);
    size_t held = o->ring.end - o->ring.start;
    CHECK(w, held <= (m->config.far_window ? TNL_MUX_MAX_FAR : TNL_MUX_MAX_SEND));
    CHECK(w, held == o->held);
    CHECK(w, in->ring.start <= in->ring.end && in->ring.end <= in->limit_sent &&
                 in->limit_sent <= in->limit);
    CHECK(w, in->discard || in->limit <= in->ring.start + in->window);
    bool far = m->rtt >= TNL_MUX_FAR_MS && m->config.far_window > m->config.max_window;
    CHECK(w, s->id == 0 || in->window <= (far ? m->config.far_window : m->config.max_window));
    CHECK(w, !s->retired || (!s->link && tnl_list_empty(&s->on_link)));
    if (!s->link || s->retired)
        return;
    CHECK(w, !s->ack_due || tnl_mux_in_complete(s) || !tnl_list_empty(&s->ack_ready) ||
                 !tnl_list_empty(&s->lazy_ack));
    bool sendable = o->end != TERMINAL_RESET && o->sent < o->ring.end && o->sent < o->limit;
    CHECK(w, !sendable || !tnl_list_empty(&s->ready));
    CHECK(w, s->open_sent || !tnl_list_empty(&s->ready));
    CHECK(w,
          o->end != TERMINAL_RESET || o->end_sent == TERMINAL_RESET || !tnl_list_empty(&s->ready));
}

static void check_links(world *w, const tnl_mux *m)
{
    for (tnl_list *n = m->links.next; n != &m->links; n = n->next) {
        tnl_mux_link *l = TNL_CONTAINER(n, tnl_mux_link, node);
        const wire_end *e = l->user;
        size_t flight = 0;
        for (tnl_list *k = l->streams.next; k != &l->streams; k = k->next) {
            tnl_stream *s = TNL_CONTAINER(k, tnl_stream, on_link);
            CHECK(w, s->link == l);
            flight += tnl_mux_in_flight(s);
        }
        CHECK(w, flight == l->flight.bytes);
        CHECK(w, l->woken == e->woken);
        bool work = !tnl_list_empty(&l->ready[0]) || !tnl_list_empty(&l->ready[1]) ||
                    !tnl_list_empty(&l->acks) || tnl_buf_len(&l->end_acks) ||
                    (tnl_flight_open(&l->flight) &&
                     (!tnl_list_empty(&l->capped[0]) || !tnl_list_empty(&l->capped[1])));
        CHECK(w, !work || l->woken);
    }
}

static void check_datagrams(world *w, const tnl_mux *m)
{
    size_t bytes = 0;
    bool woken = false;
    for (tnl_list *n = m->datagrams.next; n != &m->datagrams; n = n->next) {
        const outgoing *o = TNL_CONTAINER(n, outgoing, node);
        CHECK(w, o->since <= m->now && o->piece.offset == 0);
        bytes += sizeof(*o) + o->piece.total;
    }
    for (tnl_list *n = m->links.next; n != &m->links; n = n->next) {
        tnl_mux_link *l = TNL_CONTAINER(n, tnl_mux_link, node);
        CHECK(w, !l->cut || l->woken);
        bytes += l->cut ? sizeof(*l->cut) + l->cut->piece.total : 0;
        woken = woken || (l->woken && (!l->draining || tnl_mux_best_link(m)->draining));
    }
    CHECK(w, bytes == m->datagram_bytes);
    CHECK(w, tnl_list_empty(&m->datagrams) || woken);
    CHECK(w, bytes <= TNL_MUX_MAX_DATAGRAMS + (MAX_WIRES + 1) * (sizeof(outgoing) + 65507));
}

static void check_end(world *w, int end)
{
    const tnl_mux *m = w->mux[end];
    size_t surplus = 0, count[2] = {0, 0}, open = 0;
    for (tnl_list *n = m->all.next; n != &m->all; n = n->next) {
        tnl_stream *s = TNL_CONTAINER(n, tnl_stream, all);
        check_stream(w, m, s);
        if (s->id == 0 || s->retired)
            continue;
        surplus += s->in.window - m->config.local.window;
        count[s->local]++;
        open += !s->local && s->in.end == TERMINAL_NONE;
    }
    CHECK(w, surplus == m->surplus_used && surplus <= m->config.surplus);
    CHECK(w, count[0] == m->remote_count && count[1] == m->local_count && open == m->remote_open);
    CHECK(w, m->local_count <= m->config.remote.max_streams);
    check_links(w, m);
    check_datagrams(w, m);
}

static void check_world(world *w)
{
    for (int end = 0; end < ENDS && !w->broken; end++)
        check_end(w, end);
}

#endif
