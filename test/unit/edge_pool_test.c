/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/pool.h"
#include "tunnel/error.h"

/* Pools: several clients of one account behind one name. Who is asked, and who when one fails. */

/* --- balance ---------------------------------------------------------------------------------- */

static void members_take_turns(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(3, "round-robin");
    test_pool_expect_served(r, "abcabcabc");
    /* One that joins comes behind the others; one that leaves is not missed. */
    test_pool_start(&r->s[3], &r->e, 4);
    test_pool_publish(&r->s[3], "http", 0, "round-robin");
    r->count = 4;
    test_pool_expect_served(r, "dabcdab");
    test_service_unpublish(&r->s[1], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    test_pool_expect_served(r, "cdacda");
    assert_int_equal(test_pool_retried(r), 0);
    test_pool_close(r);
}

static void the_least_loaded_is_taken(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(3, "least-loaded");
    test_guest waiting;
    test_guest_open(&waiting, &r->e);
    test_guest_say(&waiting, GET);
    test_call *c = test_service_await(&r->s[0], 1);
    test_pool_expect_served(r, "bcbcbc");
    test_call_answer(c, OK);
    UNTIL(&r->e.l, test_guest_hears(&waiting, "ok"));
    test_pool_expect_served(r, "abcabc");
    test_guest_free(&waiting);
    test_pool_close(r);
}

static void the_newest_says_how(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "least-loaded");
    test_pool_start(&r->s[2], &r->e, 3);
    test_pool_publish(&r->s[2], "http", 0, "round-robin");
    r->count = 3;
    test_guest waiting;
    test_guest_open(&waiting, &r->e);
    test_guest_say(&waiting, GET);
    test_service_await(&r->s[0], 1);
    test_pool_expect_served(r, "bcabca");
    test_guest_free(&waiting);
    test_pool_close(r);
}

/* Streams are kept for each member. */
static void kept_streams_are_a_members_own(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    for (size_t i = 0; i < 6; i++) {
        test_pool_ask(r, GET);
        test_call *c = test_service_await(&r->s[i % 2], 1);
        test_call_answer(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        test_pool_expect(r, "HTTP/1.1 200");
        test_call_forget(c);
    }
    /* Closed by the service at the same moment: that is no failure, the member is asked again. */
    test_pool_ask(r, GET);
    test_call_fin(test_service_await(&r->s[0], 1));
    test_call_answer(test_service_await(&r->s[0], 2), OK);
    test_pool_expect(r, "HTTP/1.1 200");
    assert_int_equal(test_pool_retried(r), 0);
    /* Unless he is gone altogether. */
    test_pool_ask(r, GET);
    test_service_await(&r->s[1], 1);
    tnl_session_close(r->s[1].session, TUNNEL_E_GONE, NULL);
    test_call_answer(test_service_await(&r->s[0], 3), OK);
    test_pool_expect(r, "HTTP/1.1 200");
    assert_int_equal(test_pool_retried(r), 1);
    test_pool_close(r);
}

/* --- failures --------------------------------------------------------------------------------- */

static const char *const repeatable[] = {
    GET,
    "OPTIONS * HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "DELETE /x HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "PUT /x HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: demo.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
};

static void another_answers_what_may_be_repeated(void **state)
{
    (void)state;
    static const int codes[] = {TUNNEL_E_REFUSED,
                                TUNNEL_E_TIMEOUT,
                                TUNNEL_E_IO,
                                TUNNEL_E_UPSTREAM,
                                TUNNEL_E_LIMIT,
                                TUNNEL_E_DENIED,
                                0};
    for (size_t i = 0; i < sizeof(repeatable) / sizeof(*repeatable); i++) {
        for (size_t k = 0; k < sizeof(codes) / sizeof(*codes); k++) {
            test_pool *r = test_pool_open(2, "round-robin");
            test_pool_ask(r, repeatable[i]);
            test_call *c = test_service_await(&r->s[0], 1);
            if (codes[k])
                test_call_reset(c, codes[k], "no");
            else
                test_call_fin(c);
            test_call_answer(test_service_await(&r->s[1], 1), OK);
            test_pool_expect(r, "HTTP/1.1 200");
            assert_int_equal(test_pool_retried(r), 1);
            /* Who has failed is passed over for a while. */
            test_pool_expect_served(r, "bbb");
            test_pool_close(r);
        }
    }
}

static void nothing_is_done_twice(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int code;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi", TUNNEL_E_REFUSED},
        {"PUT / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi", TUNNEL_E_REFUSED},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_IO},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n", TUNNEL_E_RESET},
        {"PATCH / HTTP/1.1\r\nHost: demo.test\r\n\r\n", TUNNEL_E_UPSTREAM},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        test_pool *r = test_pool_open(2, "round-robin");
        test_pool_ask(r, cases[i].request);
        test_call *c = test_service_await(&r->s[0], 1);
        if (cases[i].code)
            test_call_reset(c, cases[i].code, "no");
        else
            test_call_fin(c);
        test_pool_expect(r, "HTTP/1.1 502");
        assert_int_equal(r->s[1].count, 0);
        assert_int_equal(test_pool_retried(r), 0);
        test_pool_close(r);
    }
}

/* The client says that its service never saw it. */
static void what_nobody_saw_goes_elsewhere(void **state)
{
    (void)state;
    static const int codes[] = {TUNNEL_E_REFUSED,   TUNNEL_E_UNREACHABLE, TUNNEL_E_RESOLVE,
                                TUNNEL_E_NOT_FOUND, TUNNEL_E_ACCESS,      TUNNEL_E_DENIED};
    for (size_t k = 0; k < sizeof(codes) / sizeof(*codes); k++) {
        test_pool *r = test_pool_open(2, "round-robin");
        test_pool_ask(r, "POST /once HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 0\r\n\r\n");
        test_call_reset(test_service_await(&r->s[0], 1), codes[k], "no");
        test_call *c = test_service_await(&r->s[1], 1);
        assert_true(test_call_has(c, "POST /once "));
        test_call_answer(c, OK);
        test_pool_expect(r, "HTTP/1.1 200");
        test_pool_close(r);
    }
}

/* An answer is one, whatever it says; and one that has begun is not begun again. */
static void an_answer_is_final(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    test_pool_ask(r, GET);
    test_call_answer(test_service_await(&r->s[0], 1),
                     "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    test_pool_expect(r, "HTTP/1.1 503");
    test_pool_ask(r, GET);
    test_call *c = test_service_await(&r->s[1], 1);
    test_call_answer(c, "HTTP/1.1 200 OK\r\nContent-");
    UNTIL(&r->e.l, tnl_stream_flushed(c->stream));
    test_call_reset(c, TUNNEL_E_IO, "died");
    test_pool_expect(r, "HTTP/1.1 502");
    assert_int_equal(test_pool_retried(r), 0);
    assert_int_equal(r->s[0].count, 1);
    test_pool_close(r);
}

static void four_are_tried_each_once(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(TEST_POOL_MOST, "round-robin");
    test_pool_ask(r, GET);
    for (size_t i = 0; i < TNL_POOL_TRIES; i++)
        test_call_reset(test_service_await(&r->s[i], 1), TUNNEL_E_REFUSED, "no");
    test_pool_expect(r, "HTTP/1.1 502");
    assert_int_equal(test_pool_retried(r), TNL_POOL_TRIES - 1);
    assert_int_equal(r->s[TNL_POOL_TRIES].count, 0);
    /* With all others passed over the rest does the work; with everybody failing each has his
     * turn. */
    test_pool_expect_served(r, "efef");
    test_pool_close(r);
    r = test_pool_open(2, "round-robin");
    for (size_t n = 1; n < 4; n++) {
        test_pool_ask(r, GET);
        test_call_reset(test_service_await(&r->s[0], n), TUNNEL_E_REFUSED, "no");
        test_call_reset(test_service_await(&r->s[1], n), TUNNEL_E_REFUSED, "no");
        test_pool_expect(r, "HTTP/1.1 502");
    }
    test_pool_close(r);
}

/* Who does not answer in time keeps that one visitor, and is passed over then. */
static void a_service_that_hangs_is_passed_over(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    r->e.server->config.answer_timeout_ms = 200;
    test_pool_ask(r, GET);
    test_service_await(&r->s[0], 1);
    test_pool_expect(r, "HTTP/1.1 504");
    r->e.server->config.answer_timeout_ms = 60000;
    assert_int_equal(r->s[1].count, 0);
    test_pool_expect_served(r, "bbb");
    test_pool_close(r);
}

/* A member without room is passed over, also by what may not be repeated: nothing was sent. */
static void a_full_member_is_passed_over(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(1, "round-robin");
    test_service_start(&r->s[1], &r->e, "secret", 2);
    r->s[1].hello.limits.max_streams = 0;
    UNTIL(&r->e.l, r->s[1].session);
    test_pool_publish(&r->s[1], "http", 0, "round-robin");
    r->count = 2;
    test_pool_expect_served(r, "a");
    test_pool_ask(r, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi");
    test_call_answer(test_service_await(&r->s[0], 2), OK);
    test_pool_expect(r, "HTTP/1.1 200");
    assert_int_equal(test_pool_retried(r), 1);
    test_pool_close(r);
}

/* --- members come and go ---------------------------------------------------------------------- */

static void who_leaves_ends_what_he_began(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    test_pool_ask(r, GET);
    test_call *c = test_service_await(&r->s[0], 1);
    test_service_unpublish(&r->s[0], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    test_call_answer(c, OK);
    test_pool_expect(r, "HTTP/1.1 200");
    test_pool_expect_served(r, "bb");
    assert_int_equal(test_pool_retried(r), 0);
    test_pool_close(r);
}

/* The session of who has a request ends. */
static void another_goes_on_when_a_session_ends(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    test_pool_ask(r, GET);
    test_service_await(&r->s[0], 1);
    tnl_session_close(r->s[0].session, TUNNEL_E_GONE, NULL);
    test_call_answer(test_service_await(&r->s[1], 1), OK);
    test_pool_expect(r, "HTTP/1.1 200");
    test_pool_expect_served(r, "bb");
    test_pool_close(r);
}

/* The connection of who has requests is lost, and he may come back. */
static void another_goes_on_when_a_link_is_lost(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    test_guest post;
    test_pool_ask(r, GET);
    test_service_await(&r->s[0], 1);
    test_guest_open(&post, &r->e);
    test_guest_say(&post, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi");
    test_service_await(&r->s[1], 1);
    test_pool_cut(r, 0);
    test_call_answer(test_service_await(&r->s[1], 2), OK);
    test_pool_expect(r, "HTTP/1.1 200");
    assert_int_equal(test_pool_retried(r), 1);
    /* Nobody new is sent there. */
    test_pool_expect_served(r, "bbb");
    assert_int_equal(test_pool_retried(r), 1);
    test_guest_free(&post);
    test_pool_close(r);
}

static void who_is_silent_for_a_minute_is_removed(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(3, "round-robin");
    test_pool_cut(r, 1);
    test_pool_away(r)->parked_at -= TNL_POOL_AWAY_MS;
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    tnl_peer *p = test_pool_away(r);
    assert_non_null(p);
    assert_int_equal(p->tunnel_count, 0);
    test_pool_expect_served(r, "acac");
    test_pool_close(r);
}

static void the_last_one_is_waited_for(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(1, "round-robin");
    test_pool_cut(r, 0);
    test_pool_away(r)->parked_at -= TNL_POOL_AWAY_MS;
    for (int i = 0; i < 3; i++)
        tnl_publish_sweep(r->e.server, tnl_loop_now(r->e.l.loop));
    assert_int_equal(r->e.events[TUNNEL_EVENT_NAME_GONE], 0);
    test_pool_close(r);
}

static void the_oldest_makes_room(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(0, "");
    test_service *s = calloc(TNL_POOL_MAX + 1, sizeof(*s));
    assert_non_null(s);
    for (size_t i = 0; i <= TNL_POOL_MAX; i++) {
        assert_int_equal(s[0].refused, 0);
        test_pool_start(&s[i], &r->e, (uint8_t)(i + 1));
        test_pool_publish(&s[i], "http", 0, "round-robin");
        assert_int_equal(s[i].published, 1);
    }
    UNTIL(&r->e.l, s[0].refused);
    assert_int_equal(s[0].code, TUNNEL_E_REPLACED);
    for (size_t i = 1; i <= TNL_POOL_MAX; i++) {
        test_pool_ask(r, GET);
        test_call_answer(test_service_await(&s[i], 1), OK);
        test_pool_expect(r, "HTTP/1.1 200");
    }
    assert_int_equal(s[0].count, 0);
    for (size_t i = 0; i <= TNL_POOL_MAX; i++)
        test_service_close(&s[i]);
    free(s);
    test_pool_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_take_turns),
        cmocka_unit_test(the_least_loaded_is_taken),
        cmocka_unit_test(the_newest_says_how),
        cmocka_unit_test(kept_streams_are_a_members_own),
        cmocka_unit_test(another_answers_what_may_be_repeated),
        cmocka_unit_test(nothing_is_done_twice),
        cmocka_unit_test(what_nobody_saw_goes_elsewhere),
        cmocka_unit_test(an_answer_is_final),
        cmocka_unit_test(four_are_tried_each_once),
        cmocka_unit_test(a_service_that_hangs_is_passed_over),
        cmocka_unit_test(a_full_member_is_passed_over),
        cmocka_unit_test(who_leaves_ends_what_he_began),
        cmocka_unit_test(another_goes_on_when_a_session_ends),
        cmocka_unit_test(another_goes_on_when_a_link_is_lost),
        cmocka_unit_test(who_is_silent_for_a_minute_is_removed),
        cmocka_unit_test(the_last_one_is_waited_for),
        cmocka_unit_test(the_oldest_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
