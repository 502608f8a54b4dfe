/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <unistd.h>

#include "api/loop.h"
#include "support/check.h"
#include "support/fake_server.h"
#include "support/memory.h"

/* Where streams go that a server opens: where the tunnel says, and nowhere else. */

typedef struct rig {
    test_loop l;
    fake_server server;
    struct tunnel_loop loop;
    tunnel_client *client; /* NULL once it is closing */
    unsigned client_closes;
    uint64_t tunnel;
    unsigned published;
    unsigned warnings;
    int warning; /* of the last one */
    char text[600];
    unsigned connections;
    uint64_t bytes_in, bytes_out;
    int error;
    void (*act)(struct rig *r); /* in the next WARNING */
    /* a local service; NULL: none */
    tnl_listener *service;
    uint16_t port;
    test_peer up;
    unsigned accepted;
    /* a visitor's stream; NULL once released */
    tnl_stream *s;
    char heard[600];
    size_t n;
    uint64_t received;
    bool deaf;
    unsigned fins, resets;
    uint32_t code;
} rig;

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    void (*f)(rig *) = r->act;
    switch (tunnel_event_get_type(e)) {
    case TUNNEL_EVENT_PUBLISHED:
        r->published++;
        return;
    case TUNNEL_EVENT_CONNECTION:
        assert_true(tunnel_event_tunnel(e) == r->tunnel);
        assert_string_equal(tunnel_event_visitor(e), "192.0.2.1");
        r->connections++;
        r->bytes_in = tunnel_event_bytes_in(e);
        r->bytes_out = tunnel_event_bytes_out(e);
        r->error = tunnel_event_error(e);
        return;
    case TUNNEL_EVENT_WARNING:
        assert_true(tunnel_event_tunnel(e) == r->tunnel);
        r->warnings++;
        r->warning = tunnel_event_error(e);
        snprintf(r->text, sizeof(r->text), "%s", tunnel_event_text(e));
        r->act = NULL;
        if (f)
            f(r);
        return;
    default:
        return;
    }
}

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    assert_null(r->up.c);
    r->accepted++;
    r->up.eofs = r->up.closes = 0;
    test_peer_attach(&r->up, c);
    tnl_conn_resume(c);
}

static void service_open(rig *r, const char *address)
{
    char detail[200];
    if (tnl_listener_new(&r->service, r->l.loop, address, on_accept, r, detail, sizeof(detail)))
        fail_msg("%s", detail);
    r->port = tnl_listener_address(r->service).port;
}

/* Waits until the service was told that its visitor has gone. */
static void service_idle(rig *r)
{
    UNTIL(&r->l, !r->up.c || r->up.eofs);
    if (r->up.c)
        tnl_conn_close(r->up.c);
    UNTIL(&r->l, !r->up.c);
}

static void service_close(rig *r)
{
    if (r->up.c)
        tnl_conn_close(r->up.c);
    UNTIL(&r->l, !r->up.c);
    tnl_listener_free(r->service);
    r->service = NULL;
}

static void on_client_closed(void *user)
{
    ((rig *)user)->client_closes++;
}

static void close_client(rig *r)
{
    tunnel_client *c = r->client;
    r->client = NULL;
    tunnel_client_close(c, on_client_closed, r);
}

static void rig_open(rig *r)
{
    char url[64];
    tunnel_client_config *c;
    memset(r, 0, sizeof(*r));
    test_loop_open(&r->l);
    test_peer_init(&r->up);
    r->up.echo = r->up.echo_end = true;
    r->up.keep = sizeof(r->up.buffer);
    fake_server_open(&r->server, &r->l, NULL);
    r->loop.loop = r->l.loop;
    tnl_list_init(&r->loop.signals);
    assert_int_equal(tunnel_client_config_new(&c), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u", fake_server_port(&r->server));
    assert_int_equal(tunnel_client_config_set_server(c, url), 0);
    assert_int_equal(tunnel_client_new(&r->client, &r->loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
    tunnel_client_on_event(r->client, on_event, r);
    assert_int_equal(tunnel_client_start(r->client), 0);
}

static void publish(rig *r, const char *what, const char *upstream, const tunnel_options *o)
{
    unsigned before = r->published;
    char detail[300];
    if (tunnel_client_forward(r->client, what, upstream, o, &r->tunnel, detail, sizeof(detail)))
        fail_msg("%s", detail);
    UNTIL(&r->l, r->published > before);
}

static void rig_close(rig *r)
{
    if (r->client)
        close_client(r);
    UNTIL(&r->l, r->client_closes);
    if (r->service)
        service_close(r);
    test_peer_free(&r->up);
    fake_server_close(&r->server);
    test_loop_close(&r->l);
    assert_int_equal(r->client_closes, 1);
    assert_int_equal(memory.live, 0);
}

static size_t visitor_data(void *user, const uint8_t *p, size_t n)
{
    rig *r = user;
    if (r->deaf)
        return 0;
    for (size_t i = 0; i < n && r->n + 1 < sizeof(r->heard); i++)
        r->heard[r->n++] = (char)p[i];
    r->received += n;
    return n;
}

static void visitor_fin(void *user)
{
    ((rig *)user)->fins++;
}

static void visitor_reset(void *user, uint32_t code, const char *text, size_t n)
{
    rig *r = user;
    tnl_stream *s = r->s;
    (void)text;
    (void)n;
    r->s = NULL;
    r->resets++;
    r->code = code;
    tnl_stream_release(s);
}

static void visitor_room(void *user)
{
    (void)user;
}

static const tnl_stream_events visitor_events = {
    .data = visitor_data, .fin = visitor_fin, .reset = visitor_reset, .room = visitor_room};

/* A visitor for a port behind the client (0: of a tunnel to an address) says something. */
static void visit(rig *r, uint32_t target, const char *text)
{
    if (r->s)
        tnl_stream_release(r->s);
    memset(r->heard, 0, sizeof(r->heard));
    r->n = r->received = r->fins = r->resets = r->code = 0;
    assert_int_equal(
        fake_server_open_port(&r->server, r->tunnel, target, &r->s, &visitor_events, r), 0);
    assert_int_equal(tnl_stream_write(r->s, text, strlen(text)), strlen(text));
}

static void leave(rig *r)
{
    if (r->s)
        tnl_stream_release(r->s);
    r->s = NULL;
}

static void assert_served(rig *r, uint32_t target)
{
    visit(r, target, "hello");
    UNTIL(&r->l, r->received == 5 || r->resets);
    assert_string_equal(r->heard, "hello");
    leave(r);
    service_idle(r);
}

static void assert_refused(rig *r, uint32_t target, int code)
{
    visit(r, target, "hello");
    UNTIL(&r->l, r->resets);
    assert_int_equal(r->code, -code);
    assert_int_equal(r->received, 0);
}

/* --- what is asked for ------------------------------------------------------------------------ */

static void assert_asked(const rig *r, const char *kind, const char *name, const char *domain,
                         const char *path_id, uint32_t port)
{
    const tnl_publish *m = &r->server.last;
    assert_true(m->tunnel == r->tunnel);
    assert_true(tnl_str_eq(m->kind, kind));
    assert_true(tnl_str_eq(m->name, name));
    assert_true(tnl_str_eq(m->domain, domain));
    assert_true(tnl_str_eq(m->path_id, path_id));
    assert_int_equal(m->port, port);
}

static void publications_say_what_was_given(void **state)
{
    (void)state;
    static const struct {
        const char *what, *upstream, *kind, *name, *domain;
        uint32_t port;
        bool ports;
    } cases[] = {
        {"http://", "1", "http", "", "", 0, false},
        {"http://@", "1", "http", "@", "", 0, false},
        {"http://*.demo", "files:.", "http", "*.demo", "", 0, false},
        {"http://app.example.org", "1", "http", "", "app.example.org", 0, false},
        {"http://*.example.org", "1", "http", "", "*.example.org", 0, false},
        {"http://demo", "ports:22", "http", "demo", "", 0, true},
        {"tls://secure", "1", "tls", "secure", "", 0, false},
        {"tls://secure", "ports:22", "tls", "secure", "", 0, true},
        {"tcp://:", "1", "tcp", "", "", 0, false},
        {"tcp://:20022", "1", "tcp", "", "", 20022, false},
        {"udp://:5353", "1", "udp", "", "", 5353, false},
    };
    rig r;
    tunnel_options *o;
    rig_open(&r);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        publish(&r, cases[i].what, cases[i].upstream, NULL);
        assert_asked(&r, cases[i].kind, cases[i].name, cases[i].domain, "", cases[i].port);
        assert_int_equal(r.server.last.ports, cases[i].ports);
        assert_false(r.server.last.fresh);
        assert_int_equal(r.server.last.idle_ms, 0);
        assert_int_equal(r.server.last.host_header.n, 0);
    }
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_path_id(o, "My.id"), 0);
    assert_int_equal(tunnel_options_set_host_header(o, "app.test:3000"), 0);
    assert_int_equal(tunnel_options_set_proxy_protocol(o, 1), 0);
    publish(&r, "http://", "1", o);
    assert_asked(&r, "http", "", "", "My.id", 0);
    assert_true(tnl_str_eq(r.server.last.host_header, "app.test:3000"));
    assert_true(r.server.last.fresh); /* one visitor for each connection */
    tunnel_options_free(o);
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_idle_timeout(o, 7000), 0);
    publish(&r, "udp://:", "1", o);
    assert_int_equal(r.server.last.idle_ms, 7000);
    tunnel_options_free(o);
    rig_close(&r);
}

/* After a reconnect the same is asked for, and what the server chose. */
static void publications_come_again(void **state)
{
    (void)state;
    static const struct {
        const char *what, *name, *domain, *path_id;
        uint32_t port;
    } cases[] = {
        {"http://", "calm-otter-1", "", "", 0},
        {"tls://", "calm-otter-1", "", "", 0},
        {"http://demo", "demo", "", "", 0},
        {"http://app.example.org", "", "app.example.org", "", 0},
        {"http://", "", "", "My.id", 0},
        {"tcp://:", "", "", "", 20022},
        {"udp://:", "", "", "", 20022},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        tunnel_options *o;
        rig_open(&r);
        r.server.chosen_port = 20022;
        assert_int_equal(tunnel_options_new(&o), 0);
        if (cases[i].path_id[0])
            assert_int_equal(tunnel_options_set_path_id(o, cases[i].path_id), 0);
        publish(&r, cases[i].what, "1", o);
        tunnel_options_free(o);
        fake_server_drop(&r.server);
        UNTIL(&r.l, r.published == 2);
        assert_true(tnl_str_eq(r.server.last.name, cases[i].name));
        assert_true(tnl_str_eq(r.server.last.domain, cases[i].domain));
        assert_true(tnl_str_eq(r.server.last.path_id, cases[i].path_id));
        assert_int_equal(r.server.last.port, cases[i].port);
        rig_close(&r);
    }
}

/* --- ports ------------------------------------------------------------------------------------ */

static void only_ports_that_are_allowed(void **state)
{
    (void)state;
    static const char *const whats[] = {"http://demo", "tls://demo"};
    for (size_t i = 0; i < 2; i++) {
        rig r;
        char upstream[64];
        rig_open(&r);
        service_open(&r, "127.0.0.1:0");
        /* All but one above it. */
        snprintf(upstream, sizeof(upstream), "ports:1-%u,%u-65535", r.port, r.port + 2);
        publish(&r, whats[i], upstream, NULL);
        assert_served(&r, r.port);
        assert_refused(&r, r.port + 1U, TUNNEL_E_DENIED);
        assert_refused(&r, 0, TUNNEL_E_DENIED);
        snprintf(upstream, sizeof(upstream), "ports:1-%u,%u-65535", r.port - 1, r.port + 1);
        publish(&r, whats[i], upstream, NULL);
        unsigned before = r.accepted;
        assert_refused(&r, r.port, TUNNEL_E_DENIED);
        assert_int_equal(r.accepted, before);
        rig_close(&r);
    }
}

static void an_address_is_not_the_servers_to_choose(void **state)
{
    (void)state;
    rig r;
    char upstream[64];
    rig_open(&r);
    service_open(&r, "127.0.0.1:0");
    snprintf(upstream, sizeof(upstream), "%u", r.port);
    publish(&r, "http://demo", upstream, NULL);
    assert_served(&r, 0);
    /* A port is of no account here. */
    assert_served(&r, 1);
    /* No such tunnel. */
    r.tunnel += 100;
    assert_refused(&r, 0, TUNNEL_E_DENIED);
    r.tunnel -= 100;
    rig_close(&r);
}

static void ignore_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    (void)user;
    (void)tunnel;
    (void)flow;
    (void)p;
    (void)n;
}

/* Neither the TCP port of the same number, nor an app that takes datagrams only. */
static void a_udp_tunnel_takes_no_streams(void **state)
{
    (void)state;
    rig r;
    char upstream[64];
    rig_open(&r);
    service_open(&r, "127.0.0.1:0");
    snprintf(upstream, sizeof(upstream), "%u", r.port);
    publish(&r, "udp://:", upstream, NULL);
    assert_refused(&r, 0, TUNNEL_E_DENIED);
    assert_int_equal(tunnel_client_listen_datagrams(r.client, "udp://:", NULL, ignore_datagram,
                                                    NULL, &r.tunnel, NULL, 0),
                     0);
    UNTIL(&r.l, r.published == 2);
    assert_refused(&r, 0, TUNNEL_E_DENIED);
    assert_int_equal(r.accepted, 0);
    rig_close(&r);
}

/* --- events ----------------------------------------------------------------------------------- */

static void an_upstream_that_is_not_there_is_told_once(void **state)
{
    (void)state;
    rig r;
    char folder[] = "/tmp/tunnel-open-XXXXXX", upstream[64];
    assert_non_null(mkdtemp(folder));
    rig_open(&r);
    snprintf(upstream, sizeof(upstream), "unix:%s/s", folder);
    publish(&r, "http://demo", upstream, NULL);
    assert_int_equal(r.warnings, 0);
    for (int i = 0; i < 3; i++) {
        visit(&r, 0, "hello");
        UNTIL(&r.l, r.resets);
        assert_int_equal(r.warnings, 1);
    }
    assert_true(r.warning < 0);
    assert_int_equal(r.code, -r.warning);
    assert_non_null(strstr(r.text, upstream + 5));
    assert_non_null(strstr(r.text, "502"));
    /* It comes up, and goes again. */
    service_open(&r, upstream);
    assert_served(&r, 0);
    assert_served(&r, 0);
    assert_int_equal(r.warnings, 1);
    service_close(&r);
    for (int i = 0; i < 3; i++) {
        visit(&r, 0, "hello");
        UNTIL(&r.l, r.resets);
        assert_int_equal(r.warnings, 2);
    }
    assert_int_equal(r.connections, 0); /* these are requests */
    rig_close(&r);
    rmdir(folder);
}

static void do_unpublish(rig *r)
{
    assert_int_equal(tunnel_client_unpublish(r->client, r->tunnel), 0);
}

static void a_warning_may_be_answered_with_the_end(void **state)
{
    (void)state;
    static void (*const actions[])(rig *) = {do_unpublish, close_client};
    for (size_t i = 0; i < 2; i++) {
        rig r;
        rig_open(&r);
        publish(&r, "tcp://:", "unix:/there/is/nothing", NULL);
        r.act = actions[i];
        visit(&r, 0, "hello");
        UNTIL(&r.l, r.resets);
        assert_int_equal(r.warnings, 1);
        rig_close(&r);
    }
}

static void connections_are_told_of(void **state)
{
    (void)state;
    rig r;
    char upstream[64];
    rig_open(&r);
    service_open(&r, "127.0.0.1:0");
    snprintf(upstream, sizeof(upstream), "%u", r.port);
    publish(&r, "tcp://:", upstream, NULL);
    visit(&r, 0, "hello");
    tnl_stream_fin(r.s);
    UNTIL(&r.l, r.fins && r.connections);
    assert_string_equal(r.heard, "hello");
    assert_true(r.bytes_in == 5 && r.bytes_out == 5);
    assert_int_equal(r.error, 0);
    service_idle(&r);
    /* One that the visitor breaks off. */
    visit(&r, 0, "hello");
    UNTIL(&r.l, r.received == 5);
    tnl_stream_reset(r.s, TUNNEL_E_RESET, NULL);
    leave(&r);
    UNTIL(&r.l, r.connections == 2);
    assert_true(r.error < 0);
    service_idle(&r);
    /* One whose upstream is not there. */
    service_close(&r);
    visit(&r, 0, "hello");
    UNTIL(&r.l, r.connections == 3);
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_int_equal(r.warnings, 1);
    assert_null(strstr(r.text, "502"));
    rig_close(&r);
}

static void the_upstream_learns_who_comes(void **state)
{
    (void)state;
    static const char head[] = "PROXY TCP4 192.0.2.1 198.51.100.7 4711 20022\r\n";
    static const char *const whats[] = {"tcp://:", "http://demo", "tls://demo"};
    for (size_t i = 0; i < 3; i++) {
        rig r;
        char upstream[64];
        tunnel_options *o;
        rig_open(&r);
        service_open(&r, "127.0.0.1:0");
        r.up.echo = false;
        snprintf(upstream, sizeof(upstream), "%u", r.port);
        assert_int_equal(tunnel_options_new(&o), 0);
        assert_int_equal(tunnel_options_set_proxy_protocol(o, 1), 0);
        publish(&r, whats[i], upstream, o);
        visit(&r, 0, "hello");
        UNTIL(&r.l, r.up.received == strlen(head) + 5);
        assert_memory_equal(r.up.bytes, head, strlen(head));
        assert_memory_equal(r.up.bytes + strlen(head), "hello", 5);
        leave(&r);
        service_idle(&r);
        assert_int_equal(tunnel_options_set_proxy_protocol(o, 2), 0);
        publish(&r, whats[i], upstream, o);
        tunnel_options_free(o);
        size_t before = r.up.received;
        visit(&r, 0, "hello");
        UNTIL(&r.l, r.up.received == before + 28 + 5);
        leave(&r);
        rig_close(&r);
    }
}

/* --- folders ---------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024 };

static void make_folder(char *folder)
{
    char path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/big", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < BIG / 16; i++)
        fputs("0123456789abcdef", f);
    fclose(f);
}

static void remove_folder(const char *folder)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/big", folder);
    unlink(path);
    rmdir(folder);
}

static void a_folder_outlives_its_tunnel(void **state)
{
    (void)state;
    rig r;
    char folder[] = "/tmp/tunnel-open-XXXXXX", upstream[64];
    make_folder(folder);
    snprintf(upstream, sizeof(upstream), "files:%s", folder);
    rig_open(&r);
    publish(&r, "http://demo", upstream, NULL);
    r.deaf = true;
    visit(&r, 0, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 50; i++)
        test_turn(&r.l);
    assert_int_equal(tunnel_client_unpublish(r.client, r.tunnel), 0);
    UNTIL(&r.l, r.server.unpublishes);
    r.deaf = false;
    tnl_stream_resume(r.s);
    UNTIL(&r.l, r.received > BIG && r.fins);
    assert_non_null(strstr(r.heard, "HTTP/1.1 200"));
    assert_int_equal(r.resets, 0);
    leave(&r);
    /* And not for ever. */
    size_t before = memory.live;
    UNTIL(&r.l, memory.live < before);
    rig_close(&r);
    remove_folder(folder);
}

static void a_client_closes_its_folders(void **state)
{
    (void)state;
    for (int unpublished = 0; unpublished < 2; unpublished++) {
        rig r;
        char folder[] = "/tmp/tunnel-open-XXXXXX", upstream[64];
        make_folder(folder);
        snprintf(upstream, sizeof(upstream), "files:%s", folder);
        rig_open(&r);
        publish(&r, "http://demo", upstream, NULL);
        publish(&r, "http://other", upstream, NULL);
        r.deaf = true;
        visit(&r, 0, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        for (int i = 0; i < 50; i++)
            test_turn(&r.l);
        if (unpublished)
            assert_int_equal(tunnel_client_unpublish(r.client, r.tunnel), 0);
        close_client(&r);
        UNTIL(&r.l, r.client_closes);
        UNTIL(&r.l, !r.server.session);
        rig_close(&r);
        remove_folder(folder);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publications_say_what_was_given),
        cmocka_unit_test(publications_come_again),
        cmocka_unit_test(only_ports_that_are_allowed),
        cmocka_unit_test(an_address_is_not_the_servers_to_choose),
        cmocka_unit_test(a_udp_tunnel_takes_no_streams),
        cmocka_unit_test(an_upstream_that_is_not_there_is_told_once),
        cmocka_unit_test(a_warning_may_be_answered_with_the_end),
        cmocka_unit_test(connections_are_told_of),
        cmocka_unit_test(the_upstream_learns_who_comes),
        cmocka_unit_test(a_folder_outlives_its_tunnel),
        cmocka_unit_test(a_client_closes_its_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
