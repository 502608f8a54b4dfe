/* SPDX-License-Identifier: Apache-2.0 */
/* Visitors who ask for another protocol: what is HTTP until a 101, and bytes after it. */
#include <string.h>

#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

#define ASK     " HTTP/1.1\r\nHost: demo.test\r\nConnection: upgrade\r\nUpgrade: x\r\n"
#define UPGRADE "GET /ws" ASK "\r\n"
#define SWITCH  "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

typedef struct rig {
    test_edge e;
    test_service s;
    test_guest g;
} rig;

static void rig_open(rig *r)
{
    assert_int_equal(test_edge_open(&r->e, NULL), 0);
    test_service_open(&r->s, &r->e, "demo");
    test_guest_open(&r->g, &r->e);
}

static void rig_close(rig *r)
{
    test_guest_free(&r->g);
    test_service_close(&r->s);
    test_edge_close(&r->e);
}

static void turns(rig *r, int n)
{
    while (n--)
        test_turn(&r->e.l);
}

/* --- before the 101 --------------------------------------------------------------------------- */

static void a_visitor_may_end_before_the_101(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_guest_say(&r.g, UPGRADE "all of it");
    test_guest_shutdown(&r.g);
    test_call *c = test_service_await(&r.s, 1);
    turns(&r, 10);
    assert_int_equal(c->fins + c->resets, 0);
    assert_false(test_call_has(c, "all of it"));
    test_call_answer(c, SWITCH);
    UNTIL(&r.e.l, c->fins);
    assert_true(test_call_has(c, "\r\n\r\nall of it"));
    test_call_answer(c, "and an answer");
    UNTIL(&r.e.l, test_guest_hears(&r.g, "and an answer"));
    assert_false(test_guest_ended(&r.g));
    test_call_fin(c);
    UNTIL(&r.e.l, test_guest_ended(&r.g));
    assert_false(r.g.reset);
    assert_int_equal(c->resets, 0);
    rig_close(&r);
}

static void who_ended_gets_a_refusal_too(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_guest_say(&r.g, UPGRADE UPGRADE);
    test_guest_shutdown(&r.g);
    test_call *c = test_service_await(&r.s, 1);
    turns(&r, 10);
    test_call_answer(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!\n");
    UNTIL(&r.e.l, test_guest_ended(&r.g));
    assert_true(test_guest_hears(&r.g, "Connection: close\r\n\r\nno!\n"));
    assert_false(r.g.reset);
    assert_int_equal(r.s.count, 1);
    rig_close(&r);
}

static void a_refusal_stays_http(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_guest_say(&r.g, UPGRADE "GET /next HTTP/1.1\r\nHost: demo.test\r\n\r\n");
    test_call *c = test_service_await(&r.s, 1);
    turns(&r, 10);
    assert_false(test_call_has(c, "/next"));
    test_call_answer(c, "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\n"
                        "Upgrade: y/2\r\nContent-Length: 4\r\n\r\nno!\n");
    UNTIL(&r.e.l, test_guest_hears(&r.g, "no!\n"));
    assert_true(test_guest_hears(&r.g, "Connection: Upgrade\r\nUpgrade: y/2\r\n"));
    UNTIL(&r.e.l, test_call_has(c, "GET /next "));
    test_call_answer(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    UNTIL(&r.e.l, test_guest_hears(&r.g, "\r\n\r\nok"));
    assert_int_equal(r.s.count, 1);
    rig_close(&r);
}

static void the_new_protocol_begins_behind_the_body(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_guest_say(&r.g, "POST /exec" ASK "Content-Length: 4\r\n\r\nbodynew");
    test_call *c = test_service_await(&r.s, 1);
    UNTIL(&r.e.l, test_call_has(c, "\r\n\r\nbody"));
    assert_true(test_call_has(c, "Connection: Upgrade\r\nUpgrade: x\r\n"));
    test_call_answer(c, SWITCH "hello");
    UNTIL(&r.e.l, test_guest_hears(&r.g, "\r\n\r\nhello"));
    UNTIL(&r.e.l, test_call_has(c, "\r\n\r\nbodynew"));
    rig_close(&r);
}

static void a_101_before_the_end_of_the_request_is_none(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_guest_say(&r.g, "POST /exec" ASK "Content-Length: 4\r\n\r\nbo");
    test_call *c = test_service_await(&r.s, 1);
    test_call_answer(c, SWITCH);
    UNTIL(&r.e.l, test_guest_ended(&r.g));
    assert_true(test_guest_hears(&r.g, "HTTP/1.1 502 "));
    assert_int_equal(test_guest_counts(&r.g, " 101 "), 0);
    UNTIL(&r.e.l, c->resets);
    rig_close(&r);
}

/* --- after it --------------------------------------------------------------------------------- */

static test_call *upgraded(rig *r)
{
    test_guest_say(&r->g, UPGRADE);
    test_call *c = test_service_await(&r->s, 1);
    test_call_answer(c, SWITCH);
    UNTIL(&r->e.l, test_guest_hears(&r->g, " 101 "));
    test_call_forget(c);
    test_guest_forget(&r->g);
    return c;
}

/* The time for an answer has nothing to do with it any more. */
static void silence_is_no_reason_to_end(void **state)
{
    (void)state;
    rig r;
    assert_int_equal(test_edge_open(&r.e, &(test_edge_options){.answer_timeout_ms = 20}), 0);
    test_service_open(&r.s, &r.e, "demo");
    test_guest_open(&r.g, &r.e);
    test_call *c = upgraded(&r);
    uint64_t begin = tnl_loop_now(r.e.l.loop);
    UNTIL(&r.e.l, tnl_loop_now(r.e.l.loop) - begin > 200);
    assert_int_equal(c->fins + c->resets, 0);
    test_call_answer(c, "still here");
    UNTIL(&r.e.l, test_guest_hears(&r.g, "still here"));
    test_guest_say(&r.g, "so am I");
    UNTIL(&r.e.l, test_call_has(c, "so am I"));
    rig_close(&r);
}

static void the_last_words_before_a_reset_arrive(void **state)
{
    (void)state;
    static char said[60000]; /* more than the first window */
    rig r;
    rig_open(&r);
    test_call *c = upgraded(&r);
    c->deaf = true;
    memset(said, 'w', sizeof(said));
    memcpy(said + sizeof(said) - 6, "done!", 6);
    test_guest_say(&r.g, said);
    turns(&r, 5);
    test_guest_leave(&r.g, true);
    turns(&r, 5);
    assert_int_equal(c->resets, 0);
    test_call_listen(c);
    UNTIL(&r.e.l, c->resets);
    assert_int_equal(c->fins, 0);
    assert_int_equal(c->n, sizeof(said) - 1);
    assert_true(test_call_has(c, "done!"));
    UNTIL(&r.e.l, r.s.event_count == 1);
    assert_string_equal(r.s.last_event, "GET /ws 101");
    rig_close(&r);
}

/* A service that takes nothing does not hold the stream of a visitor who has gone. */
static void the_last_words_do_not_wait_for_ever(void **state)
{
    (void)state;
    static char said[60000];
    rig r;
    rig_open(&r);
    test_call *c = upgraded(&r);
    c->deaf = true;
    memset(said, 'w', sizeof(said) - 1);
    test_guest_say(&r.g, said);
    turns(&r, 5);
    test_guest_leave(&r.g, true);
    UNTIL(&r.e.l, c->resets);
    assert_int_equal(c->n, 0);
    rig_close(&r);
}

/* Both have ended, and the visitor takes the rest later. */
static void the_rest_is_there_for_a_slow_visitor(void **state)
{
    (void)state;
    enum { REST = 400000 };
    static char rest[REST];
    rig r;
    assert_int_equal(test_edge_open(&r.e, NULL), 0);
    test_service_open(&r.s, &r.e, "demo");
    test_guest_open_narrow(&r.g, &r.e);
    test_call *c = upgraded(&r);
    r.g.slow = true;
    memset(rest, 'r', REST);
    size_t said = 0;
    for (int idle = 0; said < REST && idle < 20; idle++) {
        size_t n = tnl_stream_write(c->stream, rest + said, REST - said);
        said += n;
        idle = n ? 0 : idle;
        turns(&r, 1);
    }
    assert_true(said > 128 * 1024 && said < REST); /* bounded */
    test_call_fin(c);
    test_guest_shutdown(&r.g);
    UNTIL(&r.e.l, c->fins);
    turns(&r, 20);
    r.g.slow = false;
    UNTIL(&r.e.l, test_guest_ended(&r.g));
    assert_false(r.g.reset);
    assert_int_equal(r.g.n, said);
    assert_int_equal(c->resets, 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_visitor_may_end_before_the_101),
        cmocka_unit_test(who_ended_gets_a_refusal_too),
        cmocka_unit_test(a_refusal_stays_http),
        cmocka_unit_test(the_new_protocol_begins_behind_the_body),
        cmocka_unit_test(a_101_before_the_end_of_the_request_is_none),
        cmocka_unit_test(silence_is_no_reason_to_end),
        cmocka_unit_test(the_last_words_before_a_reset_arrive),
        cmocka_unit_test(the_last_words_do_not_wait_for_ever),
        cmocka_unit_test(the_rest_is_there_for_a_slow_visitor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
