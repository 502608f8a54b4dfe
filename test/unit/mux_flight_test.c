/* SPDX-License-Identifier: Apache-2.0 */
/* How much a link may have in flight, over paths that are simulated: a bottleneck with a buffer
 * without end, a delay, and a receiver that acknowledges late. */
#include <string.h>

#include "mux/flight.h"
#include "mux/mux.h"
#include "support/check.h"

enum { LONGEST = 1024, MOST = 16 * 1024 * 1024, PIECE = TNL_MUX_QUANTUM };

typedef struct path {
    tnl_flight flight;
    uint64_t now;
    uint64_t rate;  /* bytes per ms that the bottleneck lets through */
    uint64_t delay; /* ms, there and back */
    bool stalled;
    uint64_t waiting;        /* bytes in front of the bottleneck */
    uint64_t there[LONGEST]; /* those that arrive in that ms */
    uint64_t back[LONGEST];  /* acknowledgements likewise */
    uint64_t unacknowledged; /* arrived, and not yet acknowledged */
    uint64_t since;          /* when the first of these arrived */
    uint64_t window;         /* more is never sent, whatever the flight allows */
    uint64_t acked;
    uint64_t peak; /* most in flight */
} path;

static void path_init(path *p, uint64_t rate, uint64_t delay)
{
    *p = (path){.now = 100000, .rate = rate, .delay = delay, .window = UINT64_MAX};
    tnl_flight_init(&p->flight, MOST, p->now);
    tnl_flight_trip(&p->flight, (uint32_t)delay, p->now);
}

static uint64_t *slot(uint64_t *ring, uint64_t at)
{
    return &ring[at % LONGEST];
}

static void receive(path *p)
{
    uint64_t *n = slot(p->there, p->now);
    if (*n && !p->unacknowledged)
        p->since = p->now;
    p->unacknowledged += *n;
    *n = 0;
    bool due = p->unacknowledged >= 16 * 1024 || p->now - p->since >= TNL_MUX_ACK_DELAY_MS;
    if (!p->unacknowledged || !due)
        return;
    *slot(p->back, p->now + p->delay - p->delay / 2) += p->unacknowledged;
    p->unacknowledged = 0;
}

/* A ms in which the sender would send so many bytes if it may. */
static void step(path *p, uint64_t wish)
{
    p->now++;
    uint64_t *back = slot(p->back, p->now);
    tnl_flight_landed(&p->flight, (size_t)*back, p->now);
    p->acked += *back;
    *back = 0;
    while (wish && tnl_flight_open(&p->flight) && p->flight.bytes < p->window) {
        size_t n = wish < PIECE ? (size_t)wish : PIECE;
        tnl_flight_sent(&p->flight, n, p->now);
        p->waiting += n;
        wish -= n;
    }
    if (p->peak < p->flight.bytes)
        p->peak = p->flight.bytes;
    uint64_t through = p->stalled ? 0 : p->waiting < p->rate ? p->waiting : p->rate;
    p->waiting -= through;
    *slot(p->there, p->now + p->delay / 2) += through;
    receive(p);
}

static void bulk(path *p, uint64_t ms)
{
    p->peak = p->acked = 0;
    while (ms--)
        step(p, UINT64_MAX);
}

static void assert_busy(const path *p, uint64_t ms, unsigned percent)
{
    assert_in_range(p->acked * 100, p->rate * ms * percent, UINT64_MAX);
}

/* 1 Mbit/s: whatever the bound, there is always something to carry, and never much of it. */
static void test_slow(void **state)
{
    (void)state;
    static const uint64_t delays[] = {2, 20, 100, 300};
    for (size_t i = 0; i < sizeof(delays) / sizeof(*delays); i++) {
        path p;
        path_init(&p, 125, delays[i]);
        bulk(&p, 2000);
        bulk(&p, 60000);
        /* The bytes of half a second, and those that the round trip needs. */
        assert_in_range(p.peak, TNL_FLIGHT_LEAST, 125 * (500 + 2 * delays[i]));
        assert_busy(&p, 60000, 97);
    }
}

/* Of every rate little waits, and nothing is lost of it. */
static void test_rates(void **state)
{
    (void)state;
    for (uint64_t rate = 250; rate <= 64000; rate *= 4)
        for (uint64_t delay = 1; delay <= 256; delay *= 4) {
            path p;
            path_init(&p, rate, delay);
            bulk(&p, 3000);
            bulk(&p, 60000);
            assert_in_range(p.peak, 0, rate * (300 + 2 * delay) + TNL_FLIGHT_LEAST + PIECE);
            assert_busy(&p, 60000, rate * delay * 2 > MOST ? 90 : 97);
        }
}

static void test_fast(void **state)
{
    (void)state;
    path p;
    path_init(&p, 500000, 1);
    bulk(&p, 100);
    assert_int_equal(p.flight.cap, MOST);
    /* Who has but 256 KiB, and so never reaches the bound, is not held back by it later. */
    path_init(&p, 500000, 1);
    p.window = 256 * 1024;
    bulk(&p, 30000);
    assert_int_equal(p.flight.cap, MOST);
}

/* The bound at least doubles with each round trip. */
static void test_far(void **state)
{
    (void)state;
    path p;
    path_init(&p, 60000, 100);
    uint64_t needed = TNL_FLIGHT_FIRST;
    for (int trips = 0; p.flight.cap < 8 * 1024 * 1024; trips++) {
        assert_in_range(trips, 0, 8);
        bulk(&p, 110);
        if (trips)
            needed *= 2;
        assert_in_range(p.flight.cap, needed, MOST);
    }
    bulk(&p, 60000);
    assert_busy(&p, 60000, 99);
}

/* A connection that has just begun is slow itself. When nothing waits any more, and the bound is
 * what holds the sender back, it doubles, whatever the rate has been. */
static void test_slow_start(void **state)
{
    (void)state;
    tnl_flight f;
    uint64_t now = 1000;
    tnl_flight_init(&f, MOST, now);
    tnl_flight_trip(&f, 100, now);
    for (int i = 0; i < 4; i++)
        tnl_flight_sent(&f, PIECE, now);
    for (int i = 0; i < 4; i++) {
        now += 100;
        tnl_flight_landed(&f, PIECE, now);
        tnl_flight_sent(&f, PIECE, now);
    }
    size_t cap = f.cap;
    assert_in_range(cap, TNL_FLIGHT_LEAST, TNL_FLIGHT_FIRST - 1);
    assert_false(tnl_flight_open(&f));
    for (int i = 0; i < 2; i++) {
        tnl_flight_landed(&f, PIECE + PIECE * (size_t)i, now += 10);
        tnl_flight_sent(&f, PIECE + PIECE * (size_t)i, now);
        assert_false(tnl_flight_open(&f));
        assert_int_equal(f.cap, cap);
    }
    tnl_flight_landed(&f, f.bytes, now += 100);
    assert_in_range(f.cap, 2 * cap, 2 * cap);
}

static void test_a_path_gets_slow(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        path p;
        path_init(&p, 12500, 20);
        /* The bound itself, or a window below it: both fill the buffer. */
        p.window = i ? 256 * 1024 : UINT64_MAX;
        bulk(&p, 30000);
        p.rate = 125;
        bulk(&p, 30000);
        bulk(&p, 30000);
        assert_in_range(p.peak, 0, 125 * 540);
        assert_busy(&p, 30000, 97);
        p.rate = 12500;
        p.window = UINT64_MAX;
        bulk(&p, 5000);
        bulk(&p, 10000);
        assert_busy(&p, 10000, 97);
    }
}

/* The path has become longer, and not the wait in it. */
static void test_a_path_gets_long(void **state)
{
    (void)state;
    path p;
    path_init(&p, 1250, 10);
    bulk(&p, 30000);
    p.delay = 400;
    bulk(&p, 20000);
    assert_in_range(p.flight.trip, 400, 500);
    bulk(&p, 30000);
    assert_busy(&p, 30000, 95);
    p.delay = 10;
    bulk(&p, 20000);
    bulk(&p, 30000);
    assert_in_range(p.peak, 0, 1250 * 320);
}

/* Nothing comes through for a while, and then all at once. */
static void test_stalls(void **state)
{
    (void)state;
    path p;
    path_init(&p, 1250, 20);
    for (int i = 0; i < 50; i++) {
        bulk(&p, 1000);
        assert_in_range(p.peak, 0, 1250 * 320);
        p.stalled = true;
        bulk(&p, 500);
        p.stalled = false;
    }
    /* Acknowledgements that come in bursts do not look like a fast path. */
    path_init(&p, 125, 20);
    for (int i = 0; i < 100; i++) {
        for (int k = 1; k < 500; k++) {
            uint64_t *back = slot(p.back, p.now + 1);
            *slot(p.back, p.now + 2) += *back;
            *back = 0;
            step(&p, UINT64_MAX);
        }
        step(&p, UINT64_MAX);
        assert_in_range(p.flight.rate, 0, 140 * 1000);
    }
}

/* Who sends little, or pauses, learns nothing of the path, and forgets nothing. */
static void test_little_to_send(void **state)
{
    (void)state;
    path p;
    path_init(&p, 12500, 20);
    bulk(&p, 5000);
    size_t cap = p.flight.cap;
    for (int i = 0; i < 60000; i++)
        step(&p, i % 500 == 0 ? 3000 : 0);
    assert_in_range(p.flight.cap, cap, MOST);
    for (int i = 0; i < 60000; i++)
        step(&p, 0);
    assert_int_equal(p.flight.bytes, 0);
    bulk(&p, 100);
    assert_in_range(p.peak, cap, 2 * cap);
    /* Small things alone do not lower it either. */
    path_init(&p, 12500, 20);
    for (int i = 0; i < 60000; i++)
        step(&p, i % 100 == 0 ? 500 : 0);
    assert_int_equal(p.flight.cap, TNL_FLIGHT_FIRST);
}

/* A PONG into silence is the truth; one behind bytes may only be better than what was known. */
static void test_pongs(void **state)
{
    (void)state;
    tnl_flight f;
    tnl_flight_init(&f, MOST, 1000);
    tnl_flight_trip(&f, 40, 1000);
    assert_int_equal(f.trip, 40);
    tnl_flight_trip(&f, 60, 1000);
    assert_int_equal(f.trip, 60);
    tnl_flight_sent(&f, 1000, 1000);
    tnl_flight_trip(&f, 70, 1000);
    assert_int_equal(f.trip, 60);
    tnl_flight_trip(&f, 50, 1000);
    assert_int_equal(f.trip, 50);
}

/* A small maximum is kept to, and streams that leave take their bytes with them. */
static void test_bounds(void **state)
{
    (void)state;
    tnl_flight f;
    tnl_flight_init(&f, 1000, 1000);
    assert_int_equal(f.cap, 1000);
    tnl_flight_sent(&f, 1500, 1000);
    assert_false(tnl_flight_open(&f));
    tnl_flight_left(&f, 1500);
    assert_true(tnl_flight_open(&f));
    tnl_flight_sent(&f, 1500, 1100);
    tnl_flight_landed(&f, 1500, 1200);
    assert_int_equal(f.cap, 1000);
    assert_int_equal(f.bytes, 0);
}

/* The clock jumps, both ways: what is measured then may be wrong, but not for long. */
static void test_clock(void **state)
{
    (void)state;
    path p;
    path_init(&p, 125, 20);
    for (int i = 0; i < 20; i++) {
        bulk(&p, 2000);
        /* LONGEST divides the jump: what is on its way stays so. */
        p.now += i % 2 ? -(uint64_t)LONGEST * 60 : (uint64_t)LONGEST * 50;
        p.since = p.now;
    }
    bulk(&p, 20000);
    assert_in_range(p.peak, TNL_FLIGHT_LEAST, 125 * 540);
    assert_busy(&p, 20000, 95);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_fast),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_a_path_gets_slow),
        cmocka_unit_test(test_a_path_gets_long),
        cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_little_to_send),
        cmocka_unit_test(test_pongs),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
