/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends with a path between them that has a rate, a delay and a buffer, over which the one sends
 * as much as it may. */
#include <stdlib.h>
#include <string.h>

#include "mux/internal.h"
#include "support/check.h"
#include "tunnel/error.h"

enum {
    ENDS = 2,
    STREAMS = 12,
    WINDOW = 16 * 1024,
    SURPLUS = 32 * 1024 * 1024,
    BATCH = 64 * 1024,
    PATH_BYTES = 128 * 1024 * 1024,
    PATH_PIECES = 1024 * 1024,
};

typedef struct piece {
    uint64_t at; /* when it may go on, after its delay */
    size_t n;
} piece;

/* One direction. */
typedef struct way {
    uint8_t *bytes;
    size_t head, tail;
    piece *pieces;
    size_t first, count;
} way;

typedef struct world {
    tnl_mux *mux[ENDS];
    tnl_mux_link *link[ENDS];
    bool woken[ENDS];
    tnl_decoder decoder[ENDS];
    way to[ENDS];
    uint64_t now;
    uint64_t rate; /* bytes per ms from end 0 to end 1; 0: without bound */
    uint64_t delay;
    tnl_stream *stream[STREAMS]; /* end 0's */
    size_t count;
    uint64_t got[STREAMS]; /* by end 1, of the stream with that number */
    int records;           /* that came to end 1 */
    uint64_t waits;        /* most bytes that ever were on their way to end 1 */
} world;

typedef struct reader {
    world *w;
    size_t number;
} reader;

static reader readers[STREAMS];

static size_t on_data(void *user, const uint8_t *p, size_t n)
{
    const reader *r = user;
    (void)p;
    r->w->got[r->number] += n;
    return n;
}

static const tnl_stream_events stream_events = {.data = on_data};

static void on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n)
{
    world *w = user;
    assert_int_equal(n, 1);
    readers[map[0]] = (reader){w, map[0]};
    tnl_stream_set_events(s, &stream_events, &readers[map[0]]);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    world *w = user;
    (void)p;
    w->records += type == 7 && n == 0;
    return 0;
}

static void on_wake(void *user, void *link_user)
{
    (void)user;
    *(bool *)link_user = true;
}

static const tnl_mux_events events = {.open = on_open, .control = on_control, .wake = on_wake};

static world *world_new(uint64_t rate, uint64_t delay)
{
    world *w = calloc(1, sizeof(*w));
    tnl_limits l = {.max_frame = 65536, .max_streams = 64, .window = WINDOW};
    tnl_mux_config c = {.local = l,
                        .remote = l,
                        .max_window = 256 * 1024,
                        .far_window = TNL_MUX_MAX_FAR,
                        .surplus = SURPLUS};
    w->now = 1000;
    w->rate = rate;
    w->delay = delay;
    for (int end = 0; end < ENDS; end++) {
        c.server = end == 1;
        assert_int_equal(tnl_mux_new(&w->mux[end], &c, &events, w), 0);
        w->link[end] = tnl_mux_link_add(w->mux[end], TNL_MUX_MAX_FLIGHT, false, &w->woken[end]);
        assert_non_null(w->link[end]);
        tnl_mux_set_rtt(w->mux[end], w->link[end], (uint32_t)delay, w->now);
        tnl_decoder_init(&w->decoder[end], 65536);
        w->to[end].bytes = malloc(PATH_BYTES);
        w->to[end].pieces = malloc(PATH_PIECES * sizeof(piece));
    }
    return w;
}

static void world_free(world *w)
{
    for (int end = 0; end < ENDS; end++) {
        tnl_decoder_free(&w->decoder[end]);
        tnl_mux_free(w->mux[end]);
        free(w->to[end].bytes);
        free(w->to[end].pieces);
    }
    free(w);
}

/* --- the path --------------------------------------------------------------------------------- */

typedef struct arrival {
    world *w;
    int end;
} arrival;

static int on_frame(void *user, const tnl_frame *f)
{
    const arrival *a = user;
    world *w = a->w;
    return tnl_mux_frame(w->mux[a->end], w->link[a->end], f, w->now);
}

/* What may arrive at an end in this ms. */
static void arrive(world *w, int end)
{
    way *x = &w->to[end];
    uint64_t left = w->rate && end == 1 ? w->rate : UINT64_MAX;
    arrival a = {w, end};
    while (x->first < x->count && x->pieces[x->first].at <= w->now && left) {
        piece *p = &x->pieces[x->first];
        size_t n = p->n < left ? p->n : (size_t)left;
        assert_int_equal(tnl_decoder_feed(&w->decoder[end], x->bytes + x->head, n, on_frame, &a),
                         0);
        x->head += n;
        p->n -= n;
        left -= n;
        if (p->n == 0)
            x->first++;
    }
    if (x->first == x->count)
        x->first = x->count = x->head = x->tail = 0;
}

/* Makes room behind what is on its way. */
static void tidy(way *x)
{
    memmove(x->bytes, x->bytes + x->head, x->tail - x->head);
    memmove(x->pieces, x->pieces + x->first, (x->count - x->first) * sizeof(*x->pieces));
    x->tail -= x->head;
    x->count -= x->first;
    x->head = x->first = 0;
}

static void depart(world *w, int end)
{
    way *x = &w->to[!end];
    while (w->woken[end]) {
        if (PATH_BYTES - x->tail < BATCH || x->count == PATH_PIECES)
            tidy(x);
        assert_true(PATH_BYTES - x->tail >= BATCH && x->count < PATH_PIECES);
        size_t n = tnl_mux_pull(w->mux[end], w->link[end], x->bytes + x->tail, BATCH, w->now);
        if (n == 0)
            w->woken[end] = false;
        else
            x->pieces[x->count++] = (piece){w->now + w->delay / 2, n};
        x->tail += n;
    }
}

/* A ms; the streams that are bulk write as much as they may. */
static void step(world *w, size_t bulk)
{
    static const uint8_t zeros[TNL_MUX_MAX_UNSENT];
    w->now++;
    for (int end = 0; end < ENDS; end++) {
        arrive(w, end);
        tnl_mux_tick(w->mux[end], w->now);
    }
    /* As often as a loop would turn meanwhile. */
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < bulk; i++)
            more = tnl_stream_write(w->stream[i], zeros, sizeof(zeros)) || more;
        for (int end = 0; end < ENDS; end++)
            depart(w, end);
    }
    size_t waits = w->to[1].tail - w->to[1].head;
    if (w->waits < waits)
        w->waits = waits;
}

static void open_stream(world *w)
{
    uint8_t number = (uint8_t)w->count;
    assert_int_equal(
        tnl_mux_open(w->mux[0], &w->stream[w->count++], &number, 1, &stream_events, NULL), 0);
}

static void run(world *w, size_t bulk, int ms)
{
    w->waits = 0;
    while (ms--)
        step(w, bulk);
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Over a long and fast path one stream has twice as much in flight with every round trip, up to its
 * window. */
static void test_one_far_stream(void **state)
{
    (void)state;
    static const uint64_t delays[] = {20, 100, 300};
    for (size_t i = 0; i < sizeof(delays) / sizeof(*delays); i++) {
        world *w = world_new(0, delays[i]);
        open_stream(w);
        uint64_t needed = WINDOW / 2;
        while (needed < TNL_MUX_MAX_FAR) {
            size_t peak = 0;
            needed *= 2;
            for (uint64_t ms = 0; ms < delays[i] + 3; ms++) {
                step(w, 1);
                if (peak < w->link[0]->flight.bytes)
                    peak = w->link[0]->flight.bytes;
            }
            assert_in_range(peak, needed, TNL_MUX_MAX_FAR);
        }
        world_free(w);
    }
}

/* They share what a session has, and what the link may carry. */
static void test_ten_far_streams(void **state)
{
    (void)state;
    world *w = world_new(50000, 100);
    for (int i = 0; i < 10; i++)
        open_stream(w);
    run(w, 10, 3000);
    uint64_t before[10], all = 0;
    memcpy(before, w->got, sizeof(before));
    run(w, 10, 3000);
    assert_in_range(w->link[0]->flight.bytes, 0, TNL_MUX_MAX_FLIGHT + TNL_MUX_QUANTUM);
    assert_in_range(w->mux[1]->surplus_used, 0, SURPLUS);
    assert_in_range(w->mux[0]->held, 0, SURPLUS + 10 * TNL_MUX_MAX_SEND);
    for (int i = 0; i < 10; i++)
        all += w->got[i] - before[i];
    assert_in_range(all, 3000 * w->rate * 97 / 100, 3000 * w->rate);
    for (int i = 0; i < 10; i++)
        assert_in_range((w->got[i] - before[i]) * 30, all, all * 10);
    world_free(w);
}

/* At 1 Mbit/s, with a buffer without end on the way: half a second of bytes is all that waits
 * there, so that nothing new has to wait for longer. */
static void test_slow_uplink(void **state)
{
    (void)state;
    for (size_t bulk = 1; bulk <= 10; bulk += 9) {
        world *w = world_new(125, 20);
        for (size_t i = 0; i < bulk; i++)
            open_stream(w);
        run(w, bulk, 3000);
        run(w, bulk, 60000);
        assert_in_range(w->waits, 125 * 100, 125 * 500);
        /* A record of the control stream has these before it and nothing else. */
        assert_int_equal(tnl_mux_control(w->mux[0], 7, NULL, 0), 0);
        /* Nor has a stream that begins, which goes ahead of those that have had their turns. */
        open_stream(w);
        assert_int_equal(tnl_stream_write(w->stream[bulk], "small", 5), 5);
        run(w, bulk, 600);
        assert_int_equal(w->records, 1);
        assert_int_equal(w->got[bulk], 5);
        world_free(w);
    }
}

/* Half of the streams end, one way or the other, and others take their place: what they leave
 * behind in the path is not forgotten. */
static void test_resets_on_a_slow_uplink(void **state)
{
    (void)state;
    world *w = world_new(125, 20);
    for (int i = 0; i < 100; i++) {
        open_stream(w);
        run(w, 1, 250);
        tnl_stream *s = w->stream[0];
        w->count = 0;
        tnl_stream_reset(s, TUNNEL_E_CANCELED, NULL);
        tnl_stream_release(s);
        if (i > 5)
            assert_in_range(w->waits, 0, 125 * 600);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_far_stream),
        cmocka_unit_test(test_ten_far_streams),
        cmocka_unit_test(test_slow_uplink),
        cmocka_unit_test(test_resets_on_a_slow_uplink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
