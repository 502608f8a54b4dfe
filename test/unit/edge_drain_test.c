/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/error.h>

#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* A server that stops politely. */

enum { SECOND = 2, LONG_MS = 3600000 };

static const char get_demo[] = "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n";
static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

typedef struct ending {
    unsigned closes;
} ending;

static void on_closed(void *user)
{
    ((ending *)user)->closes++;
}

static void drain(test_edge *e, uint32_t delay_ms, uint32_t timeout_ms, ending *end)
{
    tnl_server_drain(e->server, delay_ms, timeout_ms, on_closed, end);
}

/* The server ended by itself. */
static void close_edge(test_edge *e, const ending *end)
{
    UNTIL(&e->l, end->closes);
    assert_int_equal(end->closes, 1);
    e->server = NULL;
    e->server_gone = true;
    test_edge_close(e);
}

static void ask(test_guest *g, test_edge *e)
{
    test_guest_open(g, e);
    test_guest_say(g, get_demo);
}

static void an_idle_server_ends_at_once(void **state)
{
    (void)state;
    test_edge e;
    ending end = {0}, other = {0};
    assert_int_equal(test_edge_open(&e, NULL), 0);
    drain(&e, LONG_MS, LONG_MS, &end);
    drain(&e, LONG_MS, LONG_MS, &other);
    close_edge(&e, &end);
    assert_int_equal(other.closes, 0);
    assert_int_equal(e.events[TUNNEL_EVENT_DRAINING], 1);
}

/* While clients are told to move, visitors are served as ever. */
static void all_goes_on_at_first(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g, health;
    ending end = {0};
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_service_open(&s, &e, "demo");
    test_guest_open(&health, &e);
    test_guest_say(&health, "GET /__tunnel__/health/ready HTTP/1.1\r\nHost: test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&health, " 200 "));
    drain(&e, LONG_MS, LONG_MS, &end);
    UNTIL(&e.l, s.goaways[false]);
    ask(&g, &e);
    test_call_answer(test_service_await(&s, 1), ok);
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    assert_true(test_guest_hears(&g, "Connection: close"));
    test_guest_say(&health, "GET /__tunnel__/health/ready HTTP/1.1\r\nHost: test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&health, " 503 "));
    assert_int_equal(s.goaways[true], 0);
    assert_int_equal(end.closes, 0);
    /* The last client has gone elsewhere: nobody could be served any more. */
    test_guest_free(&g);
    test_guest_free(&health);
    test_service_close(&s);
    close_edge(&e, &end);
}

static void what_is_under_way_is_finished(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g, idle, half, silent, late;
    ending end = {0};
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_service_open(&s, &e, "demo");
    test_guest_open(&silent, &e);
    ask(&idle, &e);
    test_call_answer(test_service_await(&s, 1), ok);
    UNTIL(&e.l, test_guest_hears(&idle, "hi"));
    test_guest_open(&half, &e);
    test_guest_say(&half, "GET /half HTTP/1.1\r\nHo");
    ask(&g, &e);
    test_call *c = test_service_await(&s, 1);
    UNTIL(&e.l, test_call_has(c, "GET /"));
    drain(&e, 1, LONG_MS, &end);
    UNTIL(&e.l, s.goaways[true]);
    UNTIL(&e.l, test_guest_ended(&idle) && test_guest_ended(&silent));
    test_guest_open(&late, &e);
    UNTIL(&e.l, test_guest_ended(&late) || late.reset);
    /* What had begun to ask is answered as well, and last. */
    test_guest_say(&half, "st: demo.test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&half, "HTTP/1.1 503"));
    assert_int_equal(end.closes, 0);
    test_call_answer(c, ok);
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    UNTIL(&e.l, test_guest_ended(&g));
    close_edge(&e, &end);
    test_service_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_server_ends_at_once),
        cmocka_unit_test(all_goes_on_at_first),
        cmocka_unit_test(what_is_under_way_is_finished),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
