/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/stream.h>
#include <unistd.h>

#include "api/loop.h"
#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* Apps that listen, with a whole server and visitors that are plain sockets. */

enum { MB = 1024 * 1024 };

typedef struct rig {
    test_edge e;
    struct tunnel_loop loop;
    tunnel_client *client;
    bool client_closed;
    uint64_t tunnel;
    unsigned published;
    uint16_t port; /* public */
    unsigned connections;
    int connection_error;
    /* the last stream */
    uint64_t stream;
    unsigned visitors, ends, closes;
    int error;
    char host[64];
    uint16_t from;
    char asked[4096];
    size_t n;
    uint64_t received;
    /* datagrams */
    unsigned datagrams;
    uint64_t flow;
    uint64_t flows[4];
    size_t flow_count;
} rig;

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    const char *colon = strrchr(tunnel_event_url(e), ':');
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED) {
        r->published++;
        r->port = colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 0;
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_CONNECTION) {
        r->connections++;
        r->connection_error = tunnel_event_error(e);
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_FAILED) {
        fail_msg("%s", tunnel_event_text(e));
    }
}

static void configure(tnl_server_config *c, void *user)
{
    (void)user;
    tnl_ports_parse(&c->tcp_ports, "20000-29999");
    tnl_ports_parse(&c->udp_ports, "30000-39999");
    c->udp_flows = c->udp_flows_per_source = 64;
}

static void on_client_closed(void *user)
{
    ((rig *)user)->client_closed = true;
}

static rig *rig_open(void)
{
    char url[64];
    tunnel_client_config *c;
    rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    assert_int_equal(test_edge_open(&r->e, &(test_edge_options){.configure = configure}), 0);
    r->loop.loop = r->e.l.loop;
    tnl_list_init(&r->loop.signals);
    assert_int_equal(tunnel_client_config_new(&c), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u", r->e.port);
    assert_int_equal(tunnel_client_config_set_server(c, url), 0);
    assert_int_equal(tunnel_client_config_set_token(c, "secret"), 0);
    assert_int_equal(tunnel_client_new(&r->client, &r->loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
    tunnel_client_on_event(r->client, on_event, r);
    assert_int_equal(tunnel_client_start(r->client), 0);
    return r;
}

static void rig_close(rig *r)
{
    tunnel_client_close(r->client, on_client_closed, r);
    UNTIL(&r->e.l, r->client_closed);
    test_edge_close(&r->e);
    free(r);
    assert_int_equal(memory.live, 0);
}

static void listen_for(rig *r, const char *what, void (*visitor)(void *user, uint64_t stream))
{
    unsigned before = r->published;
    char detail[300];
    if (tunnel_client_listen(r->client, what, NULL, visitor, r, &r->tunnel, detail, sizeof(detail)))
        fail_msg("%s", detail);
    UNTIL(&r->e.l, r->published > before);
}

static void on_closed(void *user, uint64_t stream, int error, const char *text)
{
    rig *r = user;
    assert_true(stream == r->stream);
    assert_true(error == 0 || strlen(text) > 0);
    r->closes++;
    r->error = error;
}

static void take(rig *r, uint64_t stream)
{
    r->visitors++;
    r->stream = stream;
    r->received = r->n = 0;
    r->ends = r->closes = 0;
    assert_int_equal(tunnel_stream_visitor(r->client, stream, r->host, sizeof(r->host), &r->from),
                     0);
    assert_int_equal(tunnel_stream_on_closed(r->client, stream, on_closed, r), 0);
}

/* --- tcp -------------------------------------------------------------------------------------- */

static size_t echo_data(void *user, uint64_t stream, const void *p, size_t n)
{
    rig *r = user;
    int64_t took = tunnel_stream_write(r->client, stream, p, n);
    assert_true(took >= 0);
    r->received += (uint64_t)took;
    return (size_t)took;
}

static void echo_room(void *user, uint64_t stream)
{
    assert_int_equal(tunnel_stream_resume(((rig *)user)->client, stream), 0);
}

static void echo_end(void *user, uint64_t stream)
{
    rig *r = user;
    r->ends++;
    assert_int_equal(tunnel_stream_end(r->client, stream), 0);
}

static void echo_visitor(void *user, uint64_t stream)
{
    rig *r = user;
    take(r, stream);
    assert_int_equal(tunnel_stream_on_end(r->client, stream, echo_end, r), 0);
    assert_int_equal(tunnel_stream_on_room(r->client, stream, echo_room, r), 0);
    assert_int_equal(tunnel_stream_on_data(r->client, stream, echo_data, r), 0);
}

/* A visitor of the tunnel's own port. */
static void guest_open(rig *r, test_guest *g)
{
    uint16_t port = r->e.port;
    unsigned before = r->visitors;
    r->e.port = r->port;
    test_guest_open(g, &r->e);
    r->e.port = port;
    UNTIL(&r->e.l, r->visitors > before);
}

static void megabytes_through_a_port(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    enum { TOTAL = 6 * MB };
    uint8_t *bytes = malloc(TOTAL);
    size_t sent = 0, last = 1;
    assert_non_null(bytes);
    test_fill(bytes, TOTAL, 0);
    listen_for(r, "tcp://:", echo_visitor);
    guest_open(r, &g);
    /* One who reads nothing is not read from in the end: everything between is full. */
    g.slow = true;
    for (int idle = 0; idle < 50 && sent < TOTAL; idle = sent == last ? idle + 1 : 0) {
        last = sent;
        sent += test_guest_say_some(&g, bytes + sent, TOTAL - sent);
        test_turn(&r->e.l);
    }
    size_t peak = memory.bytes;
    assert_true(peak < 4 * MB);
    g.slow = false;
    while (g.n < sent || sent < TOTAL) {
        sent += test_guest_say_some(&g, bytes + sent, TOTAL - sent);
        (void)test_guest_ended(&g);
        if (!test_turn(&r->e.l))
            fail_msg("stuck at %zu", g.n);
    }
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, test_guest_ended(&g) && r->closes);
    assert_true(g.ended && !g.reset);
    assert_int_equal(g.n, TOTAL);
    assert_memory_equal(g.text, bytes, TOTAL);
    assert_true(r->received == TOTAL && r->ends == 1 && r->error == 0);
    assert_string_equal(r->host, "127.0.0.1");
    assert_true(r->from > 0);
    assert_int_equal(r->connections, 1);
    test_guest_free(&g);
    free(bytes);
    rig_close(r);
}

static void resets_pass_both_ways(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    listen_for(r, "tcp://:", echo_visitor);
    guest_open(r, &g);
    test_guest_say(&g, "hello");
    UNTIL(&r->e.l, test_guest_hears(&g, "hello"));
    test_guest_leave(&g, true);
    UNTIL(&r->e.l, r->closes);
    assert_int_equal(r->error, TUNNEL_E_RESET);
    assert_int_equal(r->connection_error, TUNNEL_E_RESET);
    test_guest_free(&g);
    guest_open(r, &g);
    assert_int_equal(tunnel_stream_reset(r->client, r->stream, TUNNEL_E_DENIED, "no"), 0);
    UNTIL(&r->e.l, test_guest_ended(&g) && r->closes);
    assert_true(g.reset);
    test_guest_free(&g);
    rig_close(r);
}

static void half_closed_by_the_app(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    listen_for(r, "tcp://:", echo_visitor);
    guest_open(r, &g);
    assert_int_equal(tunnel_stream_write(r->client, r->stream, "that is all", 11), 11);
    assert_int_equal(tunnel_stream_end(r->client, r->stream), 0);
    UNTIL(&r->e.l, test_guest_ended(&g));
    assert_true(g.ended && test_guest_hears(&g, "that is all"));
    assert_int_equal(r->closes, 0);
    test_guest_shutdown(&g);
    UNTIL(&r->e.l, r->closes);
    assert_int_equal(r->error, 0);
    test_guest_free(&g);
    rig_close(r);
}

/* --- http ------------------------------------------------------------------------------------- */

static size_t page_data(void *user, uint64_t stream, const void *p, size_t n)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
    rig *r = user;
    assert_true(r->n + n < sizeof(r->asked));
    memcpy(r->asked + r->n, p, n);
    r->n += n;
    r->asked[r->n] = '\0';
    if (strstr(r->asked, "\r\n\r\n")) {
        r->n = 0;
        assert_int_equal(tunnel_stream_write(r->client, stream, answer, strlen(answer)),
                         strlen(answer));
    }
    return n;
}

static void page_visitor(void *user, uint64_t stream)
{
    rig *r = user;
    take(r, stream);
    assert_int_equal(tunnel_stream_on_data(r->client, stream, page_data, r), 0);
}

static void requests_share_a_stream(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    listen_for(r, "http://demo", page_visitor);
    test_guest_open(&g, &r->e);
    for (size_t i = 1; i <= 3; i++) {
        test_guest_say(&g, "GET /x HTTP/1.1\r\nHost: demo.test\r\n\r\n");
        UNTIL(&r->e.l, test_guest_counts(&g, "page") == i);
    }
    assert_int_equal(test_guest_counts(&g, "HTTP/1.1 200"), 3);
    assert_int_equal(r->visitors, 1);
    assert_non_null(strstr(r->asked, "GET /x HTTP/1.1\r\n"));
    assert_int_equal(r->connections, 0);
    test_guest_free(&g);
    assert_int_equal(tunnel_client_unpublish(r->client, r->tunnel), 0);
    UNTIL(&r->e.l, r->closes);
    rig_close(r);
}

static void bad_visitor(void *user, uint64_t stream)
{
    ((rig *)user)->visitors++;
    (void)stream;
}

static void whom_nobody_takes_gets_a_502(void **state)
{
    (void)state;
    rig *r = rig_open();
    test_guest g;
    listen_for(r, "http://demo", bad_visitor);
    test_guest_open(&g, &r->e);
    test_guest_say(&g, "GET /x HTTP/1.1\r\nHost: demo.test\r\n\r\n");
    UNTIL(&r->e.l, test_guest_hears(&g, "HTTP/1.1 502"));
    test_guest_free(&g);
    rig_close(r);
}

/* --- udp -------------------------------------------------------------------------------------- */

static void on_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    rig *r = user;
    uint8_t back[65507];
    assert_true(tunnel == r->tunnel && n <= sizeof(back));
    r->datagrams++;
    r->flow = flow;
    r->n = n;
    bool known = false;
    for (size_t i = 0; i < r->flow_count; i++)
        known |= r->flows[i] == flow;
    if (!known && r->flow_count < 4)
        r->flows[r->flow_count++] = flow;
    assert_int_equal(
        tunnel_datagram_visitor(r->client, tunnel, flow, r->host, sizeof(r->host), &r->from), 0);
    memcpy(back, p, n);
    if (n)
        back[0] ^= 0x20;
    assert_int_equal(tunnel_datagram_send(r->client, tunnel, flow, back, n), 0);
}

static void listen_for_datagrams(rig *r)
{
    char detail[300];
    if (tunnel_client_listen_datagrams(r->client, "udp://:", NULL, on_datagram, r, &r->tunnel,
                                       detail, sizeof(detail)))
        fail_msg("%s", detail);
    UNTIL(&r->e.l, r->published);
}

static int udp_guest(const rig *r)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in sa;
    socklen_t n = sizeof(sa);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    return ntohs(sa.sin_port);
}

/* Asks until there is an answer, since datagrams may be lost; its length. */
static size_t ask(rig *r, int fd, const void *p, size_t n, void *out, size_t size)
{
    for (unsigned turns = 0;; turns++) {
        if (turns % 100 == 0)
            assert_int_equal(send(fd, p, n, 0), n);
        ssize_t got = recv(fd, out, size, MSG_DONTWAIT);
        if (got >= 0)
            return (size_t)got;
        assert_int_equal(errno, EAGAIN);
        if (!test_turn(&r->e.l))
            fail_msg("no answer to %zu bytes", n);
    }
}

static void datagrams_to_callbacks(void **state)
{
    (void)state;
    static uint8_t bytes[65507], back[65536];
    rig *r = rig_open();
    listen_for_datagrams(r);
    int one = udp_guest(r), two = udp_guest(r);
    assert_int_equal(ask(r, one, "abc", 3, back, sizeof(back)), 3);
    assert_memory_equal(back, "Abc", 3);
    assert_string_equal(r->host, "127.0.0.1");
    assert_int_equal(r->from, port_of(one));
    uint64_t first = r->flow;
    assert_int_equal(ask(r, two, "xyz", 3, back, sizeof(back)), 3);
    assert_memory_equal(back, "Xyz", 3);
    assert_int_equal(r->from, port_of(two));
    assert_true(r->flow != first);
    assert_int_equal(r->flow_count, 2);
    /* Boundaries and lengths. */
    static const size_t sizes[] = {0, 1, 1400, 65507};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        test_fill(bytes, sizes[i], i);
        assert_int_equal(ask(r, one, bytes, sizes[i], back, sizeof(back)), sizes[i]);
        if (sizes[i])
            back[0] ^= 0x20;
        assert_memory_equal(back, bytes, sizes[i]);
        assert_true(r->flow == first);
    }
    assert_int_equal(r->flow_count, 2);
    char host[64];
    assert_int_equal(tunnel_datagram_visitor(r->client, r->tunnel, first, host, 9, NULL),
                     TUNNEL_E_LIMIT);
    assert_int_equal(tunnel_datagram_send(r->client, r->tunnel, first, bytes, 65507), 0);
    assert_int_equal(tunnel_datagram_send(r->client, r->tunnel, first, bytes, 65508),
                     TUNNEL_E_LIMIT);
    const uint64_t stale[][2] = {
        {r->tunnel, 0}, {r->tunnel, 4711}, {r->tunnel + 1, first}, {0, first}};
    for (size_t i = 0; i < sizeof(stale) / sizeof(*stale); i++) {
        assert_int_equal(tunnel_datagram_send(r->client, stale[i][0], stale[i][1], "x", 1),
                         TUNNEL_E_NOT_FOUND);
        assert_int_equal(
            tunnel_datagram_visitor(r->client, stale[i][0], stale[i][1], host, 64, NULL),
            TUNNEL_E_NOT_FOUND);
    }
    assert_int_equal(tunnel_client_unpublish(r->client, r->tunnel), 0);
    assert_int_equal(tunnel_datagram_send(r->client, r->tunnel, first, "x", 1), TUNNEL_E_NOT_FOUND);
    close(one);
    close(two);
    rig_close(r);
}

static void unpublishing_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p,
                                  size_t n)
{
    rig *r = user;
    (void)p;
    (void)n;
    r->datagrams++;
    assert_int_equal(tunnel_datagram_send(r->client, tunnel, flow, "bye", 3), 0);
    assert_int_equal(tunnel_client_unpublish(r->client, tunnel), 0);
    assert_int_equal(tunnel_datagram_send(r->client, tunnel, flow, "x", 1), TUNNEL_E_NOT_FOUND);
}

static void a_tunnel_may_go_from_inside_its_datagram(void **state)
{
    (void)state;
    rig *r = rig_open();
    assert_int_equal(tunnel_client_listen_datagrams(r->client, "udp://:", NULL,
                                                    unpublishing_datagram, r, &r->tunnel, NULL, 0),
                     0);
    UNTIL(&r->e.l, r->published);
    int fd = udp_guest(r);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    UNTIL(&r->e.l, r->datagrams);
    close(fd);
    rig_close(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(megabytes_through_a_port),
        cmocka_unit_test(resets_pass_both_ways),
        cmocka_unit_test(half_closed_by_the_app),
        cmocka_unit_test(requests_share_a_stream),
        cmocka_unit_test(whom_nobody_takes_gets_a_502),
        cmocka_unit_test(datagrams_to_callbacks),
        cmocka_unit_test(a_tunnel_may_go_from_inside_its_datagram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
