/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/error.h>

#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* A client that begins anew takes its names and ports with it: visitors of that moment wait. */

static const char get_demo[] = "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n";

typedef struct rig {
    test_edge e;
    test_service old, fresh;
    uint16_t port;
} rig;

static void with_ports(tnl_server_config *c, void *user)
{
    char text[16];
    snprintf(text, sizeof(text), "%u", *(const uint16_t *)user);
    assert_int_equal(tnl_ports_parse(&c->tcp_ports, text), 0);
    assert_int_equal(tnl_ports_parse(&c->udp_ports, text), 0);
}

static void publish(test_service *s, uint64_t id, const char *kind, const char *name, uint16_t port)
{
    unsigned before = s->published;
    tnl_publish m = {
        .tunnel = id, .kind = tnl_str_of(kind), .name = tnl_str_of(name), .port = port};
    test_service_publish_as(s, &m);
    UNTIL(&s->edge->l, s->published > before);
}

static test_call *find(test_service *s, const char *text)
{
    for (size_t i = 0; i < s->count; i++)
        if (test_call_has(&s->calls[i], text))
            return &s->calls[i];
    return NULL;
}

/* The old one is gone, and the new one has published nothing yet. */
static void begin(rig *r)
{
    r->port = test_free_port();
    test_edge_options o = {.configure = with_ports, .user = &r->port};
    assert_int_equal(test_edge_open(&r->e, &o), 0);
    test_service_start(&r->old, &r->e, "secret", 1);
    UNTIL(&r->e.l, r->old.session);
    publish(&r->old, 1, "http", "demo", 0);
    publish(&r->old, 2, "tcp", "", r->port);
    publish(&r->old, 3, "udp", "", r->port);
    test_service_start(&r->fresh, &r->e, "secret", 1);
    UNTIL(&r->e.l, r->fresh.session && !r->old.session);
}

static void end(rig *r)
{
    test_service_close(&r->fresh);
    test_service_close(&r->old);
    test_edge_close(&r->e);
}

static void names_and_ports_move_without_a_gap(void **state)
{
    (void)state;
    rig r;
    test_guest web, tcp, left;
    begin(&r);
    test_guest_open(&web, &r.e);
    test_guest_say(&web, get_demo);
    test_guest_open_at(&tcp, &r.e, r.port);
    test_guest_say(&tcp, "hello");
    test_guest_open_at(&left, &r.e, r.port);
    test_guest_leave(&left, true);
    for (int i = 0; i < 20; i++)
        assert_true(test_turn(&r.e.l));
    publish(&r.fresh, 7, "tcp", "", r.port);
    publish(&r.fresh, 8, "http", "demo", 0);
    publish(&r.fresh, 9, "udp", "", r.port);
    UNTIL(&r.e.l, find(&r.fresh, "hello") && find(&r.fresh, "GET"));
    test_call_answer(find(&r.fresh, "GET"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    UNTIL(&r.e.l, test_guest_hears(&web, "hi"));
    assert_false(tcp.reset);
    test_guest_free(&web);
    test_guest_free(&tcp);
    test_guest_free(&left);
    end(&r);
}

/* It does not publish them again: nobody waits for longer than for a client that is away. */
static void what_is_not_taken_along_goes(void **state)
{
    (void)state;
    for (int close = 0; close < 2; close++) {
        rig r;
        test_guest web, tcp;
        begin(&r);
        test_guest_open(&web, &r.e);
        test_guest_say(&web, get_demo);
        test_guest_open_at(&tcp, &r.e, r.port);
        if (close) {
            assert_true(test_turn(&r.e.l));
            test_edge_close_server(&r.e);
        } else {
            UNTIL(&r.e.l, test_guest_hears(&web, " 503 "));
        }
        UNTIL(&r.e.l, tcp.reset || test_guest_ended(&tcp));
        test_guest_free(&web);
        test_guest_free(&tcp);
        end(&r);
    }
}

/* Who had a name in a pool with others leaves it to them. */
static void a_pool_goes_on_without_it(void **state)
{
    (void)state;
    test_edge e;
    test_service one, two, again;
    test_guest g;
    tnl_publish m = {.tunnel = 1,
                     .kind = tnl_str_of("http"),
                     .name = tnl_str_of("demo"),
                     .pool = tnl_str_of("round-robin")};
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_service_start(&one, &e, "secret", 1);
    UNTIL(&e.l, one.session);
    test_service_publish_as(&one, &m);
    test_service_start(&two, &e, "secret", 2);
    UNTIL(&e.l, two.session);
    test_service_publish_as(&two, &m);
    UNTIL(&e.l, one.published && two.published);
    test_service_start(&again, &e, "secret", 1);
    UNTIL(&e.l, again.session && !one.session);
    test_guest_open(&g, &e);
    test_guest_say(&g, get_demo);
    test_call_answer(test_service_await(&two, 1), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    test_guest_free(&g);
    test_service_close(&again);
    test_service_close(&two);
    test_service_close(&one);
    test_edge_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_ports_move_without_a_gap),
        cmocka_unit_test(what_is_not_taken_along_goes),
        cmocka_unit_test(a_pool_goes_on_without_it),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
