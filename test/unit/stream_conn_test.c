/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/stream_conn.h"

#include <string.h>

#include "support/check.h"
#include "support/memory.h"
#include "support/sessions.h"
#include "tunnel/error.h"

/* Streams as connections at the client's end of two sessions. */
typedef struct rig {
    test_loop l;
    test_sessions sessions;
    test_peer p;
    bool mute; /* reads nothing at first */
    bool taken;
} rig;

static const tnl_address address = {.host = "192.0.2.7", .port = 4711};

static void on_open(void *user, tnl_stream *s)
{
    rig *r = user;
    tnl_conn *c;
    assert_int_equal(tnl_stream_conn(&c, r->l.loop, s, &address, &tnl_conn_no_events, NULL), 0);
    test_peer_attach(&r->p, c);
    r->taken = true;
    if (!r->mute)
        tnl_conn_resume(c);
}

static void rig_open(rig *r)
{
    *r = (rig){.mute = false};
    memory.live = 0;
    test_loop_open(&r->l);
    test_peer_init(&r->p);
    test_sessions_open(&r->sessions, &r->l, on_open, r);
}

static size_t streams(rig *r)
{
    return tnl_mux_stream_count(tnl_session_mux(r->sessions.client.session));
}

static void rig_close(rig *r)
{
    if (r->p.c)
        tnl_conn_close(r->p.c);
    UNTIL(&r->l, !r->p.c);
    assert_int_equal(r->p.closes, r->taken);
    test_sessions_close(&r->sessions, &r->l);
    test_peer_free(&r->p);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

static void turns(rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

static void bytes_go_both_ways(void **state)
{
    (void)state;
    enum { TOTAL = 3 << 20 };
    static const size_t rooms[] = {65536, 777, 1 << 14};
    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        rig r;
        test_visitor v = {.to_send = TOTAL};
        rig_open(&r);
        r.p.echo = r.p.echo_end = true;
        r.p.room = rooms[i];
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, v.fins);
        assert_int_equal(v.received, TOTAL);
        assert_true(v.hash == test_hash_of(TOTAL));
        assert_true(r.p.hash == v.hash);
        assert_int_equal(r.p.eofs, 1);
        assert_string_equal(tnl_conn_peer(r.p.c).host, "192.0.2.7");
        assert_int_equal(tnl_conn_peer(r.p.c).port, 4711);
        assert_int_equal(tnl_conn_dup(r.p.c), TUNNEL_E_UNSUPPORTED);
        /* Both directions have ended: closing takes nothing back. */
        tnl_conn_close(r.p.c);
        UNTIL(&r.l, !r.p.c);
        turns(&r, 5);
        assert_int_equal(v.resets, 0);
        test_visitor_release(&v);
        rig_close(&r);
    }
}

static void what_is_not_read_gives_no_credit(void **state)
{
    (void)state;
    enum { TOTAL = 4 << 20 };
    rig r;
    test_visitor v = {.to_send = TOTAL};
    rig_open(&r);
    r.mute = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.taken);
    turns(&r, 50);
    assert_int_equal(r.p.received, 0);
    assert_true(v.sent <= 512 * 1024);
    /* No room is like a pause. */
    r.p.room = 0;
    tnl_conn_resume(r.p.c);
    turns(&r, 10);
    assert_int_equal(r.p.received, 0);
    r.p.room = 1000;
    tnl_conn_resume(r.p.c);
    assert_int_equal(r.p.received, 0); /* never from inside the call */
    r.p.act_in = TEST_IN_DATA;
    r.p.act = tnl_conn_pause;
    UNTIL(&r.l, r.p.received);
    turns(&r, 10);
    assert_int_equal(r.p.received, 1000);
    r.p.act_in = TEST_NEVER;
    r.p.room = sizeof(r.p.buffer);
    tnl_conn_resume(r.p.c);
    UNTIL(&r.l, r.p.eofs);
    assert_int_equal(r.p.received, TOTAL);
    assert_true(r.p.hash == test_hash_of(TOTAL));
    test_visitor_release(&v);
    rig_close(&r);
}

static void an_end_waits_for_the_reader(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 0};
    rig_open(&r);
    r.mute = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.taken);
    turns(&r, 10);
    assert_int_equal(r.p.eofs, 0);
    tnl_conn_resume(r.p.c);
    assert_int_equal(r.p.eofs, 0);
    UNTIL(&r.l, r.p.eofs);
    tnl_conn_resume(r.p.c);
    turns(&r, 10);
    assert_int_equal(r.p.eofs, 1);
    test_visitor_release(&v);
    rig_close(&r);
}

static void the_queue_is_bounded_and_told_empty(void **state)
{
    (void)state;
    enum { PIECE = 64 * 1024 };
    static uint8_t piece[PIECE];
    rig r;
    uint64_t sent = 0;
    test_visitor v = {.to_send = 1, .keep_open = true, .blocked = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.p.c && r.p.eofs == 0 && r.taken);
    while (tnl_conn_pending(r.p.c) + PIECE <= TNL_CONN_MAX_PENDING) {
        test_fill(piece, PIECE, sent);
        assert_int_equal(test_send(r.p.c, piece, PIECE), 0);
        sent += PIECE;
        assert_true(sent <= (1 << 20));
    }
    turns(&r, 10);
    assert_true(tnl_conn_pending(r.p.c) > 0);
    assert_int_equal(r.p.drains, 0);
    /* The end goes behind what waits. */
    tnl_conn_shutdown(r.p.c);
    assert_int_equal(test_send(r.p.c, "x", 1), TUNNEL_E_STATE);
    turns(&r, 10);
    assert_int_equal(v.fins, 0);
    test_visitor_unblock(&v);
    UNTIL(&r.l, v.fins);
    assert_int_equal(v.received, sent);
    assert_true(v.hash == test_hash_of(sent));
    assert_int_equal(r.p.drains, 1);
    assert_int_equal(tnl_conn_pending(r.p.c), 0);
    test_visitor_release(&v);
    rig_close(&r);
}

static void too_much_ends_it(void **state)
{
    (void)state;
    static uint8_t much[TNL_MUX_MAX_SEND + TNL_CONN_MAX_PENDING + 1];
    rig r;
    test_visitor v = {.to_send = 1, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.taken);
    assert_int_equal(test_send(r.p.c, much, sizeof(much)), TUNNEL_E_LIMIT);
    assert_int_equal(r.p.closes, 0);
    assert_int_equal(test_send(r.p.c, "x", 1), 0); /* into the void */
    UNTIL(&r.l, !r.p.c && v.resets);
    assert_int_equal(r.p.error, TUNNEL_E_LIMIT);
    assert_int_equal(v.code, -TUNNEL_E_LIMIT);
    assert_int_equal(v.received, 0);
    rig_close(&r);
}

static void a_reset_tells_why(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *text;
        int error;
        const char *told;
    } cases[] = {
        {TUNNEL_E_TIMEOUT, "no \x1b[31manswer", TUNNEL_E_TIMEOUT, "no ?[31manswer"},
        {TUNNEL_E_REFUSED, NULL, TUNNEL_E_REFUSED, "connection refused"},
        {0, NULL, TUNNEL_E_RESET, "connection reset by the peer"},
        {INT32_MIN + 1, "far out", INT32_MIN + 1, "far out"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig r;
        test_visitor v = {.to_send = 10, .keep_open = true};
        rig_open(&r);
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, r.p.received == 10);
        tnl_stream_reset(v.stream, cases[i].code, cases[i].text);
        test_visitor_release(&v);
        UNTIL(&r.l, !r.p.c);
        assert_int_equal(r.p.error, cases[i].error);
        assert_string_equal(r.p.detail, cases[i].told);
        assert_int_equal(r.p.eofs, 0);
        rig_close(&r);
    }
}

static void closing_early_resets(void **state)
{
    (void)state;
    static void (*const ways[])(tnl_conn *) = {tnl_conn_close, tnl_conn_reset};
    static const int codes[] = {-TUNNEL_E_CANCELED, -TUNNEL_E_RESET};
    static const test_moment moments[] = {TEST_NEVER, TEST_IN_SPACE, TEST_IN_DATA};
    for (int i = 0; i < 6; i++) {
        rig r;
        test_visitor v = {.to_send = 100000, .keep_open = true};
        rig_open(&r);
        r.p.act_in = moments[i / 2];
        r.p.act = ways[i % 2];
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, r.taken);
        if (i < 2) {
            ways[i](r.p.c);
            assert_int_equal(r.p.closes, 0);
            ways[i](r.p.c); /* again is nothing */
        }
        UNTIL(&r.l, !r.p.c && v.resets);
        assert_int_equal(v.code, codes[i % 2]);
        assert_int_equal(r.p.error, 0);
        UNTIL(&r.l, streams(&r) == 0);
        rig_close(&r);
    }
}

/* What was written before arrives, however slow the reader, and then what came too early is known.
 */
static void what_was_written_arrives_before_a_close(void **state)
{
    (void)state;
    enum { ANSWER = 120000 };
    static uint8_t answer[ANSWER];
    test_fill(answer, ANSWER, 0);
    for (int shut = 0; shut < 2; shut++) {
        rig r;
        test_visitor v = {.to_send = 1000, .keep_open = true, .blocked = shut};
        rig_open(&r);
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, r.p.received == 1000);
        assert_int_equal(test_send(r.p.c, answer, ANSWER), 0);
        assert_int_equal(tnl_conn_pending(r.p.c), 0);
        if (shut)
            tnl_conn_shutdown(r.p.c);
        tnl_conn_close(r.p.c);
        UNTIL(&r.l, !r.p.c);
        assert_int_equal(r.p.error, 0);
        v.to_send = 2 << 20;
        test_visitor_send(&v);
        turns(&r, 20);
        if (shut) {
            assert_int_equal(v.resets, 0);
            test_visitor_unblock(&v);
        }
        UNTIL(&r.l, v.resets);
        assert_int_equal(v.fins, shut);
        assert_int_equal(v.received, ANSWER);
        assert_true(v.hash == test_hash_of(ANSWER));
        assert_int_equal(v.code, -TUNNEL_E_CANCELED);
        UNTIL(&r.l, streams(&r) == 0);
        rig_close(&r);
    }
}

/* Nothing more comes: the peer's own end is waited for. */
static void a_peer_that_is_silent_sees_no_reset(void **state)
{
    (void)state;
    static uint8_t answer[120000];
    rig r;
    test_visitor v = {.to_send = 1000, .keep_open = true, .blocked = true};
    rig_open(&r);
    test_fill(answer, sizeof(answer), 0);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.p.received == 1000);
    assert_int_equal(test_send(r.p.c, answer, sizeof(answer)), 0);
    tnl_conn_shutdown(r.p.c);
    tnl_conn_close(r.p.c);
    UNTIL(&r.l, !r.p.c);
    test_visitor_unblock(&v);
    UNTIL(&r.l, v.fins);
    assert_int_equal(v.received, sizeof(answer));
    turns(&r, 20);
    assert_int_equal(v.resets, 0);
    assert_int_equal(streams(&r), 1);
    tnl_stream_fin(v.stream);
    UNTIL(&r.l, streams(&r) == 0);
    assert_int_equal(v.resets, 0);
    test_visitor_release(&v);
    rig_close(&r);
}

/* Closed from inside the very callback that brings the bytes, with more behind it. */
static void shut_and_close(tnl_conn *c)
{
    tnl_conn_shutdown(c);
    tnl_conn_close(c);
}

static void closing_after_the_end_from_a_callback(void **state)
{
    (void)state;
    static const test_moment moments[] = {TEST_IN_SPACE, TEST_IN_DATA, TEST_IN_EOF};
    for (int i = 0; i < 3; i++) {
        rig r;
        test_visitor v = {.to_send = 100000};
        rig_open(&r);
        r.p.act_in = moments[i];
        r.p.act = shut_and_close;
        r.p.room = 500;
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, v.fins && r.taken && !r.p.c);
        UNTIL(&r.l, streams(&r) == 0);
        test_visitor_release(&v);
        rig_close(&r);
    }
}

static void a_lost_session_ends_it(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.p.received == 10);
    test_sessions_close(&r.sessions, &r.l);
    UNTIL(&r.l, !r.p.c);
    assert_true(r.p.error < 0);
    rig_close(&r);
}

/* Also what nobody holds any more. */
static void a_lost_session_ends_a_closed_one_that_still_sends(void **state)
{
    (void)state;
    static uint8_t answer[120000];
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true, .blocked = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.p.received == 10);
    assert_int_equal(test_send(r.p.c, answer, sizeof(answer)), 0);
    shut_and_close(r.p.c);
    UNTIL(&r.l, !r.p.c);
    assert_int_equal(streams(&r), 1);
    rig_close(&r);
}

static void a_polite_end_arrives(void **state)
{
    (void)state;
    enum { ANSWER = 300000 };
    static uint8_t answer[ANSWER];
    rig r;
    test_visitor v = {.to_send = 10, .blocked = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.p.eofs);
    test_fill(answer, ANSWER, 0);
    assert_int_equal(test_send(r.p.c, answer, ANSWER), 0);
    assert_true(tnl_conn_pending(r.p.c) > 0);
    tnl_conn_finish(r.p.c);
    turns(&r, 10);
    test_visitor_unblock(&v);
    UNTIL(&r.l, v.fins && !r.p.c);
    assert_int_equal(v.received, ANSWER);
    assert_true(v.hash == test_hash_of(ANSWER));
    assert_int_equal(v.resets, 0);
    test_visitor_release(&v);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(what_is_not_read_gives_no_credit),
        cmocka_unit_test(an_end_waits_for_the_reader),
        cmocka_unit_test(the_queue_is_bounded_and_told_empty),
        cmocka_unit_test(too_much_ends_it),
        cmocka_unit_test(a_reset_tells_why),
        cmocka_unit_test(closing_early_resets),
        cmocka_unit_test(what_was_written_arrives_before_a_close),
        cmocka_unit_test(a_peer_that_is_silent_sees_no_reset),
        cmocka_unit_test(closing_after_the_end_from_a_callback),
        cmocka_unit_test(a_lost_session_ends_it),
        cmocka_unit_test(a_lost_session_ends_a_closed_one_that_still_sends),
        cmocka_unit_test(a_polite_end_arrives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
