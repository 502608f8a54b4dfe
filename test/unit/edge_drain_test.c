/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <tunnel/error.h>
#include <unistd.h>

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

/* The server ended by itself. s may be NULL. */
static void close_edge(test_edge *e, const ending *end, test_service *s)
{
    UNTIL(&e->l, end->closes);
    assert_int_equal(end->closes, 1);
    e->server = NULL;
    e->server_gone = true;
    if (s)
        test_service_close(s);
    test_edge_close(e);
}

static void with_port(tnl_server_config *c, void *user)
{
    char text[16];
    snprintf(text, sizeof(text), "%u", *(const uint16_t *)user);
    assert_int_equal(tnl_ports_parse(&c->tcp_ports, text), 0);
}

static bool refuses_connections(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    bool refused = connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
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
    close_edge(&e, &end, NULL);
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
    close_edge(&e, &end, NULL);
}

static void what_is_under_way_is_finished(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g, idle, half, silent;
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
    UNTIL(&e.l, refuses_connections(e.port));
    /* What had begun to ask is answered as well, and last. */
    test_guest_say(&half, "st: demo.test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&half, "HTTP/1.1 503"));
    assert_int_equal(end.closes, 0);
    test_call_answer(c, ok);
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    UNTIL(&e.l, test_guest_ended(&g));
    test_guest_free(&g);
    test_guest_free(&idle);
    test_guest_free(&half);
    test_guest_free(&silent);
    close_edge(&e, &end, &s);
    assert_int_equal(s.code, 0);
}

/* A service that hangs has its time, and no more. */
static void patience_ends(void **state)
{
    (void)state;
    for (int by_close = 0; by_close < 2; by_close++) {
        test_edge e;
        test_service s;
        test_guest g;
        ending end = {0}, other = {0};
        assert_int_equal(test_edge_open(&e, NULL), 0);
        test_service_open(&s, &e, "demo");
        ask(&g, &e);
        (void)test_service_await(&s, 1);
        drain(&e, 0, by_close ? LONG_MS : 20, &end);
        UNTIL(&e.l, s.goaways[true]);
        if (by_close)
            tnl_server_close(e.server, on_closed, &other);
        UNTIL(&e.l, test_guest_ended(&g) || g.reset);
        test_guest_free(&g);
        UNTIL(&e.l, end.closes);
        assert_int_equal(e.events[TUNNEL_EVENT_WARNING], !by_close); /* that somebody was cut */
        close_edge(&e, &end, &s);
        assert_int_equal(other.closes, 0);
    }
}

static void no_session_begins(void **state)
{
    (void)state;
    test_edge e;
    test_service s, late;
    ending end = {0};
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_service_open(&s, &e, "demo");
    drain(&e, LONG_MS, LONG_MS, &end);
    UNTIL(&e.l, s.goaways[false]);
    test_service_start(&late, &e, "secret", SECOND);
    UNTIL(&e.l, late.failed);
    assert_null(late.session);
    assert_string_equal(late.why, "the server is about to stop");
    test_service_close(&late);
    /* Not even the one that it would have replaced has noticed. */
    test_service_start(&late, &e, "secret", 1);
    UNTIL(&e.l, late.failed);
    assert_non_null(s.session);
    test_service_close(&late);
    test_service_close(&s);
    close_edge(&e, &end, NULL);
}

/* Bytes that are no requests come to their end as well; the port takes no more. */
static void a_tcp_connection_is_waited_for(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    ending end = {0};
    uint16_t port = test_free_port();
    test_edge_options o = {.configure = with_port, .user = &port};
    assert_int_equal(test_edge_open(&e, &o), 0);
    test_service_open(&s, &e, "demo");
    tnl_publish m = {.tunnel = 2, .kind = tnl_str_of("tcp"), .port = port};
    test_service_publish_as(&s, &m);
    UNTIL(&e.l, s.published == 2);
    test_guest_open_at(&g, &e, port);
    test_guest_say(&g, "hello");
    UNTIL(&e.l, s.count == 1 && test_call_has(&s.calls[0], "hello"));
    drain(&e, 0, LONG_MS, &end);
    UNTIL(&e.l, s.goaways[true]);
    UNTIL(&e.l, refuses_connections(port));
    test_guest_say(&g, " and more");
    UNTIL(&e.l, test_call_has(&s.calls[0], "and more"));
    test_call_answer(&s.calls[0], "bye");
    test_call_fin(&s.calls[0]);
    UNTIL(&e.l, test_guest_hears(&g, "bye") && test_guest_ended(&g));
    assert_int_equal(end.closes, 0);
    test_guest_shutdown(&g);
    test_guest_free(&g);
    close_edge(&e, &end, &s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_server_ends_at_once),
        cmocka_unit_test(all_goes_on_at_first),
        cmocka_unit_test(what_is_under_way_is_finished),
        cmocka_unit_test(patience_ends),
        cmocka_unit_test(no_session_begins),
        cmocka_unit_test(a_tcp_connection_is_waited_for),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
