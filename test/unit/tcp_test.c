/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

/*
 * TCP tunnels at the server: real sockets on one side, streams of a hand-driven session on the
 * other.
 */

typedef struct rig {
    test_edge e;
    test_service s;
    uint16_t port; /* of the tunnel */
    bool left;     /* the service was closed */
} rig;

static void configure(tnl_server_config *c, void *user)
{
    const char *hosts = user;
    tnl_ports_parse(&c->tcp_ports, "1024-65535");
    for (size_t n; hosts && *hosts; hosts += n) {
        n = strcspn(hosts, " ");
        snprintf(c->listen[c->listen_count++].address, sizeof(c->listen[0].address), "%.*s:0",
                 (int)n, hosts);
        n += hosts[n] == ' ';
    }
}

static void publish(test_service *s, uint64_t id, uint16_t port)
{
    tnl_publish m = {.tunnel = id, .kind = tnl_str_of("tcp"), .port = port};
    test_service_publish_as(s, &m);
}

static void publish_and_wait(test_service *s, uint64_t id, uint16_t port)
{
    unsigned before = s->published + s->refused;
    publish(s, id, port);
    UNTIL(&s->edge->l, s->published + s->refused > before);
}

static rig *rig_open_on(const char *more_hosts)
{
    rig *r = calloc(1, sizeof(*r));
    test_edge_options o = {.configure = configure, .user = (void *)(uintptr_t)more_hosts};
    assert_non_null(r);
    assert_int_equal(test_edge_open(&r->e, &o), 0);
    test_service_start(&r->s, &r->e, "secret", 1);
    UNTIL(&r->e.l, r->s.session);
    publish_and_wait(&r->s, 1, 0);
    assert_int_equal(r->s.published, 1);
    r->port = r->s.port;
    assert_true(r->port >= 1024);
    return r;
}

static rig *rig_open(void)
{
    return rig_open_on(NULL);
}

static void rig_close(rig *r)
{
    if (!r->left)
        test_service_close(&r->s);
    test_edge_close(&r->e);
    free(r);
}

/* The call of a visitor who has just connected. */
static test_call *await(rig *r, size_t n)
{
    UNTIL(&r->e.l, r->s.count >= n);
    return &r->s.calls[n - 1];
}

static test_call *visit(rig *r, test_guest *g)
{
    size_t n = r->s.count;
    test_guest_open_at(g, &r->e, r->port);
    return await(r, n + 1);
}

static bool refused(uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 && errno == ECONNREFUSED;
    close(fd);
    return is;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void bytes_pass_both_ways_and_are_told(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    char host[32], url[64];
    struct sockaddr_in own;
    socklen_t size = sizeof(own);
    test_call *c = visit(r, &g);
    assert_int_equal(getsockname(g.fd, (struct sockaddr *)&own, &size), 0);
    assert_int_equal(c->open.tunnel, 1);
    assert_string_equal(c->visitor, "127.0.0.1");
    assert_int_equal(c->open.port, ntohs(own.sin_port));
    assert_string_equal(c->server, "127.0.0.1");
    assert_int_equal(c->open.server_port, r->port);
    assert_int_equal(c->open.target, 0);
    snprintf(url, sizeof(url), "tcp://test:%u", r->port);
    assert_string_equal(r->s.url, url);

    test_guest_say(&g, "hello");
    UNTIL(&r->e.l, test_call_has(c, "hello"));
    test_call_answer(c, "SSH-2.0-server\r\n");
    UNTIL(&r->e.l, test_guest_hears(&g, "SSH-2.0-server\r\n"));
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, c->fins == 1);
    assert_false(test_guest_ended(&g));
    test_call_answer(c, "bye");
    test_call_fin(c);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.ended && !g.reset);
    assert_true(test_guest_hears(&g, "server\r\nbye"));

    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_ACCESS] == 1);
    snprintf(host, sizeof(host), ":%u", r->port);
    assert_string_equal(r->e.method, "TCP");
    assert_string_equal(r->e.host, host);
    assert_string_equal(r->e.visitor, "127.0.0.1");
    assert_true(r->e.bytes_in == 5 && r->e.bytes_out == 19);
    assert_true(tnl_server_get_stats(r->e.server)->connections == 1);
    assert_int_equal(r->e.server->visitor_count, 0);
    test_guest_free(&g);
    rig_close(r);
}

static void the_service_may_end_first(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    test_call *c = visit(r, &g);
    test_call_answer(c, "all of it");
    test_call_fin(c);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.ended && test_guest_hears(&g, "all of it"));
    test_guest_say(&g, "and yet");
    UNTIL(&r->e.l, test_call_has(c, "and yet"));
    assert_int_equal(c->fins, 0);
    test_guest_leave(&g, false);
    UNTIL(&r->e.l, c->fins == 1);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    assert_int_equal(c->resets, 0);
    test_guest_free(&g);
    rig_close(r);
}

static void a_reset_is_a_reset_both_ways(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    test_call *c = visit(r, &g);
    test_guest_say(&g, "x");
    UNTIL(&r->e.l, test_call_has(c, "x"));
    test_guest_leave(&g, true);
    UNTIL(&r->e.l, c->resets == 1);
    assert_int_equal(c->fins, 0);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);

    c = visit(r, &g);
    test_call_reset(c, TUNNEL_E_REFUSED, "127.0.0.1:1: connection refused");
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset && g.n == 0);
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_ACCESS] == 2);
    test_guest_free(&g);
    rig_close(r);
}

/* A visitor who has ended his direction and then gone: the service finds out when it answers. */
static void a_reset_after_the_end_is_passed_on(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    test_call *c = visit(r, &g);
    test_guest_say(&g, "request");
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, c->fins == 1);
    assert_true(test_call_has(c, "request"));
    test_guest_leave(&g, true);
    while (!c->resets) {
        if (c->stream)
            (void)tnl_stream_write(c->stream, "answer", 6);
        if (!test_turn(&r->e.l))
            fail_msg("the service is not told");
    }
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);
    rig_close(r);
}

/* The same, with a service that says nothing. */
static void a_reset_after_the_end_is_passed_on_at_once(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    test_call *c = visit(r, &g);
    test_guest_say(&g, "request");
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, c->fins == 1);
    test_guest_leave(&g, true);
    UNTIL(&r->e.l, c->resets == 1);
    assert_true(test_call_has(c, "request"));
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);
    rig_close(r);
}

/* --- pressure --------------------------------------------------------------------------------- */

static void a_slow_visitor_holds_the_service_back(void **state)
{
    (void)state;
    enum { TOTAL = 24 << 20 };
    rig *r = rig_open();
    test_guest slow, other;
    uint8_t piece[16384];
    uint64_t sent = 0, hash = 0;
    test_call *c = visit(r, &slow);
    slow.slow = true;
    /* The service sends as long as anything moves. */
    for (int still = 0; still < 200;) {
        test_fill(piece, sizeof(piece), sent);
        size_t n = tnl_stream_write(c->stream, piece, sizeof(piece));
        sent += n;
        still = n ? 0 : still + 1;
        assert_true(test_turn(&r->e.l));
    }
    assert_true(sent > 100000 && sent < TOTAL);
    /* Others are not held back by it. */
    test_call *d = visit(r, &other);
    test_call_answer(d, "quick");
    UNTIL(&r->e.l, test_guest_hears(&other, "quick"));
    test_guest_free(&other);
    /* And in the end every byte comes, in order, whatever time it takes after both ends. */
    test_guest_shutdown(&slow);
    UNTIL(&r->e.l, c->fins);
    test_call_fin(c);
    for (int i = 0; i < 50; i++)
        assert_true(test_turn(&r->e.l));
    slow.slow = false;
    UNTIL(&r->e.l, test_guest_ended(&slow));
    assert_true(slow.ended);
    assert_int_equal(slow.n, sent);
    for (uint64_t at = 0; at < sent; at += sizeof(piece)) {
        size_t n = sent - at < sizeof(piece) ? (size_t)(sent - at) : sizeof(piece);
        test_fill(piece, n, at);
        hash = test_hash(hash, piece, n);
    }
    assert_true(test_hash(0, (const uint8_t *)slow.text, slow.n) == hash);
    test_guest_free(&slow);
    rig_close(r);
}

static void a_slow_service_holds_the_visitor_back(void **state)
{
    (void)state;
    enum { TOTAL = 24 << 20 };
    rig *r = rig_open();
    test_guest g;
    uint8_t piece[16384];
    size_t sent = 0;
    test_call *c = visit(r, &g);
    c->deaf = true;
    for (int still = 0; still < 200;) {
        test_fill(piece, sizeof(piece), sent);
        size_t n = test_guest_say_some(&g, piece, sizeof(piece));
        sent += n;
        still = n ? 0 : still + 1;
        assert_true(test_turn(&r->e.l));
    }
    assert_true(sent > 100000 && sent < TOTAL);
    assert_int_equal(c->n, 0);
    test_guest_leave(&g, false);
    for (int i = 0; i < 50; i++)
        assert_true(test_turn(&r->e.l));
    test_call_listen(c);
    UNTIL(&r->e.l, c->fins == 1);
    assert_int_equal(c->n, sent);
    for (size_t at = 0; at < sent; at += sizeof(piece)) {
        size_t n = sent - at < sizeof(piece) ? sent - at : sizeof(piece);
        test_fill(piece, n, at);
        assert_memory_equal(c->text + at, piece, n);
    }
    test_guest_free(&g);
    rig_close(r);
}

/* --- ports ------------------------------------------------------------------------------------ */

static void a_port_of_another_program_is_told_as_such(void **state)
{
    (void)state;
    rig *r = rig_open();
    char text[100];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    publish_and_wait(&r->s, 2, ntohs(sa.sin_port));
    assert_int_equal(r->s.code, TUNNEL_E_ADDR_IN_USE);
    snprintf(text, sizeof(text), "the port %u is in use on the server by another program",
             ntohs(sa.sin_port));
    assert_string_equal(r->s.text, text);
    close(fd);
    publish_and_wait(&r->s, 2, ntohs(sa.sin_port));
    assert_int_equal(r->s.published, 2);
    rig_close(r);
}

/* Open connections go on, new ones are refused. */
static void a_tunnel_that_ends_frees_its_port(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    test_call *c = visit(r, &g);
    test_service_unpublish(&r->s, 1);
    UNTIL(&r->e.l, refused(r->port));
    test_guest_say(&g, "still");
    UNTIL(&r->e.l, test_call_has(c, "still"));
    test_call_answer(c, "here");
    UNTIL(&r->e.l, test_guest_hears(&g, "here"));
    publish_and_wait(&r->s, 1, r->port);
    assert_int_equal(r->s.published, 2);
    test_guest_leave(&g, false);
    UNTIL(&r->e.l, c->fins == 1);
    test_call_fin(c);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_ACCESS] == 1);
    test_guest_free(&g);
    rig_close(r);
}

static void a_newer_client_takes_the_port(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_service newer;
    test_guest g;
    test_call *c = visit(r, &g);
    memset(&newer, 0, sizeof(newer));
    test_service_start(&newer, &r->e, "secret", 1);
    UNTIL(&r->e.l, newer.session);
    publish_and_wait(&newer, 1, r->port);
    assert_int_equal(newer.published, 1);
    /* The older one's session ended, and with it its visitors. */
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset);
    assert_int_equal(c->fins, 0);
    test_guest_free(&g);
    test_guest_open_at(&g, &r->e, r->port);
    UNTIL(&r->e.l, newer.count == 1);
    test_guest_free(&g);
    UNTIL(&r->e.l, newer.calls[0].fins + newer.calls[0].resets);
    test_service_close(&newer);
    rig_close(r);
}

static void all_hosts_or_none(void **state)
{
    (void)state;
    /* 127.0.0.1 is a listener of the server as well, and 0.0.0.0 stands for both. */
    rig *r = rig_open_on("127.0.0.2 0.0.0.0 127.0.0.2");
    test_guest g;
    char host[96];
    assert_true(tnl_port_host(r->e.server, 0, host));
    assert_string_equal(host, "0.0.0.0");
    assert_true(tnl_port_host(r->e.server, 2, host));
    assert_string_equal(host, "127.0.0.2");
    assert_false(tnl_port_host(r->e.server, 3, host));
    assert_false(tnl_port_covered(r->e.server, 0));
    assert_true(tnl_port_covered(r->e.server, 2));
    (void)visit(r, &g);
    test_guest_free(&g);
    rig_close(r);

    r = rig_open_on("127.0.0.2");
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(test_free_port())};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    publish_and_wait(&r->s, 2, ntohs(sa.sin_port));
    assert_int_equal(r->s.code, TUNNEL_E_ADDR_IN_USE);
    assert_true(refused(ntohs(sa.sin_port)));
    close(fd);
    rig_close(r);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void the_clients_end_ends_its_visitors(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    (void)visit(r, &g);
    test_service_close(&r->s);
    r->left = true;
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.reset);
    UNTIL(&r->e.l, refused(r->port));
    UNTIL(&r->e.l, r->e.server->visitor_count == 0);
    test_guest_free(&g);
    rig_close(r);
}

static void the_server_waits_for_its_visitors_to_be_closed(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g[3];
    for (size_t i = 0; i < 3; i++)
        (void)visit(r, &g[i]);
    assert_int_equal(r->e.server->visitor_count, 3);
    test_edge_close_server(&r->e);
    UNTIL(&r->e.l, r->e.server_gone);
    assert_int_equal(r->e.events[TUNNEL_EVENT_ACCESS], 3);
    for (size_t i = 0; i < 3; i++) {
        UNTIL(&r->e.l, test_guest_ended(&g[i]));
        test_guest_free(&g[i]);
    }
    rig_close(r);
}

static void the_server_may_be_closed_in_the_event_of_a_connection(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g[2];
    (void)visit(r, &g[0]);
    test_call *c = visit(r, &g[1]);
    r->e.close_in = TUNNEL_EVENT_ACCESS;
    test_guest_leave(&g[1], true);
    UNTIL(&r->e.l, r->e.server_gone);
    assert_int_equal(c->resets, 1);
    UNTIL(&r->e.l, test_guest_ended(&g[0]));
    test_guest_free(&g[0]);
    test_guest_free(&g[1]);
    rig_close(r);
}

/* More than the session has streams for: the others are turned away, and have their turn later. */
static void visitors_beyond_the_streams_of_a_session_are_turned_away(void **state)
{
    (void)state;
    enum { STREAMS = 3 };
    rig *r = rig_open();
    test_service few;
    test_guest g[STREAMS + 1];
    memset(&few, 0, sizeof(few));
    test_service_start(&few, &r->e, "other", 2);
    few.hello.limits.max_streams = STREAMS;
    UNTIL(&r->e.l, few.session);
    publish_and_wait(&few, 1, 0);
    for (size_t i = 0; i < STREAMS; i++) {
        test_guest_open_at(&g[i], &r->e, few.port);
        UNTIL(&r->e.l, few.count == i + 1);
    }
    test_guest_open_at(&g[STREAMS], &r->e, few.port);
    UNTIL(&r->e.l, test_guest_ended(&g[STREAMS]));
    assert_true(g[STREAMS].reset);
    assert_int_equal(few.count, STREAMS);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_ACCESS] == 1);
    assert_int_equal(r->e.server->visitor_count, STREAMS);
    test_guest_free(&g[STREAMS]);
    test_call_reset(&few.calls[0], TUNNEL_E_CANCELED, NULL);
    UNTIL(&r->e.l, test_guest_ended(&g[0]));
    do {
        test_guest_open_at(&g[STREAMS], &r->e, few.port);
        UNTIL(&r->e.l, few.count > STREAMS || test_guest_ended(&g[STREAMS]));
        test_guest_free(&g[STREAMS]);
    } while (few.count == STREAMS);
    for (size_t i = 0; i < STREAMS; i++)
        test_guest_free(&g[i]);
    test_service_close(&few);
    rig_close(r);
}

static void visitors_beyond_the_servers_limit_are_turned_away(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g, h;
    (void)visit(r, &g);
    r->e.server->visitor_count += TNL_MAX_VISITORS - 1;
    test_guest_open_at(&h, &r->e, r->port);
    UNTIL(&r->e.l, test_guest_ended(&h));
    assert_true(h.reset);
    assert_int_equal(r->s.count, 1);
    test_guest_free(&h);
    r->e.server->visitor_count -= TNL_MAX_VISITORS - 1;
    (void)visit(r, &h);
    test_guest_free(&g);
    test_guest_free(&h);
    rig_close(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_both_ways_and_are_told),
        cmocka_unit_test(the_service_may_end_first),
        cmocka_unit_test(a_reset_is_a_reset_both_ways),
        cmocka_unit_test(a_reset_after_the_end_is_passed_on),
        cmocka_unit_test(a_reset_after_the_end_is_passed_on_at_once),
        cmocka_unit_test(a_slow_visitor_holds_the_service_back),
        cmocka_unit_test(a_slow_service_holds_the_visitor_back),
        cmocka_unit_test(a_port_of_another_program_is_told_as_such),
        cmocka_unit_test(a_tunnel_that_ends_frees_its_port),
        cmocka_unit_test(a_newer_client_takes_the_port),
        cmocka_unit_test(all_hosts_or_none),
        cmocka_unit_test(the_clients_end_ends_its_visitors),
        cmocka_unit_test(the_server_waits_for_its_visitors_to_be_closed),
        cmocka_unit_test(the_server_may_be_closed_in_the_event_of_a_connection),
        cmocka_unit_test(visitors_beyond_the_streams_of_a_session_are_turned_away),
        cmocka_unit_test(visitors_beyond_the_servers_limit_are_turned_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
