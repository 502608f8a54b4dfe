/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"
#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

/* A server and a client, both real, on one loop; tunnels whose upstream may be themselves. */

enum { TUNNELS = 4 };

typedef struct rig {
    test_edge e;
    tnl_client *client; /* NULL once closed */
    unsigned closes;
    uint64_t ids[TUNNELS];
    unsigned published;
    unsigned failed;
    uint64_t failed_tunnel;
    int error;
    char text[400];
    unsigned connections;
    bool close_in_failed;
} rig;

static void on_closed(void *user)
{
    rig *r = user;
    r->client = NULL;
    r->closes++;
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    r->published += e->type == TUNNEL_EVENT_PUBLISHED;
    r->connections += e->type == TUNNEL_EVENT_CONNECTION;
    if (e->type != TUNNEL_EVENT_FAILED)
        return;
    r->failed++;
    r->failed_tunnel = e->tunnel;
    r->error = e->error;
    snprintf(r->text, sizeof(r->text), "%s", e->text);
    if (r->close_in_failed)
        tnl_client_close(r->client, on_closed, r);
}

static void configure(tnl_server_config *c, void *user)
{
    const char *address = user;
    snprintf(c->listen[0].address, sizeof(c->listen[0].address), "%s", address);
    tnl_ports_parse(&c->tcp_ports, "1024-65535");
}

static rig *rig_open(const char *address)
{
    char detail[200], url[64];
    tnl_client_config config = {.silence_ms = 60000, .token = "secret"};
    rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    test_edge_options o = {.configure = configure, .user = (void *)(uintptr_t)address};
    assert_int_equal(test_edge_open(&r->e, &o), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u", r->e.port);
    assert_int_equal(tnl_url_parse(&config.servers[0], url), 0);
    assert_int_equal(tnl_client_new(&r->client, r->e.l.loop, &config, detail, sizeof(detail)), 0);
    tnl_client_on_event(r->client, on_event, r);
    assert_int_equal(tnl_client_start(r->client), 0);
    return r;
}

static void rig_close(rig *r)
{
    if (r->client)
        tnl_client_close(r->client, on_closed, r);
    UNTIL(&r->e.l, r->closes);
    test_edge_close(&r->e);
    free(r);
}

/* Publishes port `port` (0: any) to an upstream. */
static void publish(rig *r, size_t i, tnl_kind kind, uint16_t port, const char *upstream)
{
    char detail[200];
    tnl_tunnel_spec spec = {.kind = kind, .port = port};
    if (kind == TNL_KIND_HTTP)
        snprintf(spec.name, sizeof(spec.name), "demo");
    assert_int_equal(tnl_upstream_parse(&spec.upstream, upstream, NULL, detail, sizeof(detail)), 0);
    assert_int_equal(tnl_client_publish(r->client, &spec, &r->ids[i]), 0);
}

static const char *at(const char *host, uint16_t port)
{
    static char text[80];
    snprintf(text, sizeof(text), "%s:%u", host, port);
    return text;
}

static void failed_as_loop(rig *r, size_t i)
{
    assert_int_equal(r->failed, 1);
    assert_int_equal(r->error, TUNNEL_E_LOOP);
    assert_true(r->failed_tunnel == r->ids[i]);
    assert_non_null(strstr(r->text, "the tunnel's own public address"));
}

/* --- found out -------------------------------------------------------------------------------- */

static void by_the_address_that_was_reached(void **state)
{
    (void)state;
    rig *r = rig_open("127.0.0.1:0");
    test_guest g;
    uint16_t port = test_free_port();
    publish(r, 0, TNL_KIND_TCP, port, at("127.0.0.1", port));
    UNTIL(&r->e.l, r->published == 1);
    test_guest_open_at(&g, &r->e, port);
    UNTIL(&r->e.l, r->failed);
    failed_as_loop(r, 0);
    assert_non_null(strstr(r->text, at("127.0.0.1", port)));
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);
    rig_close(r);
}

/* The server has many addresses, and the upstream is another one than that of the link. */
static void by_a_visitor_that_is_a_connection_of_ours(void **state)
{
    (void)state;
    rig *r = rig_open("0.0.0.0:0");
    test_guest g;
    uint16_t port = test_free_port();
    publish(r, 0, TNL_KIND_TCP, port, at("127.0.0.2", port));
    UNTIL(&r->e.l, r->published == 1);
    test_guest_open_at(&g, &r->e, port);
    UNTIL(&r->e.l, r->failed);
    failed_as_loop(r, 0);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);
    rig_close(r);
}

static void by_the_url(void **state)
{
    (void)state;
    rig *r = rig_open("127.0.0.1:0");
    uint16_t port = test_free_port();
    publish(r, 0, TNL_KIND_TCP, port, at("TEST", port));
    UNTIL(&r->e.l, r->failed);
    failed_as_loop(r, 0);
    assert_int_equal(r->published, 0);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    r->failed = 0;
    publish(r, 1, TNL_KIND_HTTP, 0, at("demo.test", r->e.port));
    UNTIL(&r->e.l, r->failed);
    failed_as_loop(r, 1);
    /* Another name of the same server is another service. */
    publish(r, 2, TNL_KIND_HTTP, 0, at("other.test", r->e.port));
    UNTIL(&r->e.l, r->published == 1);
    rig_close(r);
}

static void through_another_tunnel(void **state)
{
    (void)state;
    rig *r = rig_open("127.0.0.1:0");
    test_guest g;
    uint16_t a = test_free_port(), b = test_free_port();
    publish(r, 0, TNL_KIND_TCP, a, at("127.0.0.1", b));
    publish(r, 1, TNL_KIND_TCP, b, at("127.0.0.1", a));
    UNTIL(&r->e.l, r->published == 2);
    test_guest_open_at(&g, &r->e, a);
    UNTIL(&r->e.l, r->failed);
    assert_int_equal(r->error, TUNNEL_E_LOOP);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    assert_true(tnl_server_get_stats(r->e.server)->connections < 16);
    test_guest_free(&g);
    rig_close(r);
}

/* --- not one ---------------------------------------------------------------------------------- */

static void on_accept(void *user, tnl_conn *c)
{
    test_peer_attach(user, c);
    tnl_conn_resume(c);
}

static void a_tunnel_behind_another_one_is_none(void **state)
{
    (void)state;
    rig *r = rig_open("127.0.0.1:0");
    test_guest g;
    tnl_listener *service;
    test_peer up;
    uint16_t a = test_free_port(), b = test_free_port();
    test_peer_init(&up);
    up.echo = up.echo_end = true;
    assert_int_equal(
        tnl_listener_new(&service, r->e.l.loop, "127.0.0.1:0", on_accept, &up, NULL, 0), 0);
    publish(r, 0, TNL_KIND_TCP, a, at("127.0.0.1", b));
    publish(r, 1, TNL_KIND_TCP, b, at("127.0.0.1", tnl_listener_address(service).port));
    UNTIL(&r->e.l, r->published == 2);
    test_guest_open_at(&g, &r->e, a);
    test_guest_say(&g, "there and back");
    UNTIL(&r->e.l, test_guest_hears(&g, "there and back"));
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.ended);
    UNTIL(&r->e.l, r->connections == 2);
    assert_int_equal(r->failed, 0);
    test_guest_free(&g);
    tnl_listener_free(service);
    tnl_conn_close(up.c);
    UNTIL(&r->e.l, !up.c);
    test_peer_free(&up);
    rig_close(r);
}

static tnl_open visitor_of(const char *host, uint32_t port, const char *server, uint32_t at_port)
{
    return (tnl_open){.visitor = tnl_str_of(host),
                      .port = port,
                      .server = tnl_str_of(server),
                      .server_port = at_port};
}

/* A host uses the same port for connections to different places at the same time. */
static void a_visitor_with_the_port_of_a_connection_of_ours_is_none(void **state)
{
    (void)state;
    unsigned hops;
    tnl_client c = {.tunnel_count = 1};
    tnl_client_tunnel t = {.id = 7, .spec = {.kind = TNL_KIND_TCP}};
    tnl_client_visit v = {.tunnel = 7,
                          .local = {.host = "127.0.0.1", .port = 40000},
                          .remote = {.host = "127.0.0.1", .port = 5432}};
    tnl_open other = visitor_of("127.0.0.1", 40000, "127.0.0.1", 20000);
    tnl_open another = visitor_of("127.0.0.1", 40000, "127.0.0.2", 5432);
    tnl_open untold = visitor_of("127.0.0.1", 40000, "", 0);
    tnl_open same = visitor_of("127.0.0.1", 40000, "127.0.0.1", 5432);
    tnl_list_init(&c.visits);
    tnl_list_add_tail(&c.visits, &v.node);
    assert_false(tnl_client_visits_itself(&c, &t, &other, &hops));
    assert_false(tnl_client_visits_itself(&c, &t, &another, &hops));
    assert_false(tnl_client_visits_itself(&c, &t, &untold, &hops));
    assert_true(tnl_client_visits_itself(&c, &t, &same, &hops));
}

/* --- the end ---------------------------------------------------------------------------------- */

static void the_client_may_be_closed_when_it_is_told(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "test"};
    for (size_t i = 0; i < 3; i++) {
        rig *r = rig_open("0.0.0.0:0");
        test_guest g;
        uint16_t port = test_free_port();
        r->close_in_failed = true;
        publish(r, 0, TNL_KIND_TCP, port, at(hosts[i], port));
        UNTIL(&r->e.l, r->published || r->failed);
        if (r->published)
            test_guest_open_at(&g, &r->e, port);
        UNTIL(&r->e.l, r->closes);
        failed_as_loop(r, 0);
        if (r->published) {
            UNTIL(&r->e.l, test_guest_ended(&g));
            test_guest_free(&g);
        }
        rig_close(r);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_the_address_that_was_reached),
        cmocka_unit_test(by_a_visitor_that_is_a_connection_of_ours),
        cmocka_unit_test(by_the_url),
        cmocka_unit_test(through_another_tunnel),
        cmocka_unit_test(a_tunnel_behind_another_one_is_none),
        cmocka_unit_test(a_visitor_with_the_port_of_a_connection_of_ours_is_none),
        cmocka_unit_test(the_client_may_be_closed_when_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
