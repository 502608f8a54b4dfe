/* SPDX-License-Identifier: Apache-2.0 */
/* UDP tunnels through a server and a client in one process, by the public headers. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <tunnel/tunnel.h>
#include <unistd.h>

#include "io/udp.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"

enum { EVENTS = 32, RANGE = 100 };

typedef struct rig {
    test_loop l;
    tunnel_loop *loop;
    tunnel_server *server; /* NULL once closed */
    tunnel_client *client; /* NULL once closed */
    uint64_t tunnel;
    unsigned server_events[EVENTS];
    unsigned events[EVENTS];
    int error;
    char text[400];
    char visitor[80];
    uint64_t bytes_in, bytes_out;
    char listening[100];
    uint16_t first; /* of the server's ports */
    uint16_t port;  /* of the tunnel */
    /* an upstream that sends back what it gets; NULL: none */
    tnl_udp *udp;
    unsigned asked;
    /* of a tunnel that listens */
    unsigned heard;
    uint64_t flow;
    char words[64];
} rig;

/* --- the ends --------------------------------------------------------------------------------- */

static void on_server_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    r->server_events[tunnel_event_get_type(e)]++;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_LISTENING)
        snprintf(r->listening, sizeof(r->listening), "%s", tunnel_event_url(e));
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    const char *colon = strrchr(tunnel_event_url(e), ':');
    r->events[tunnel_event_get_type(e)]++;
    switch (tunnel_event_get_type(e)) {
    case TUNNEL_EVENT_PUBLISHED:
        r->port = (uint16_t)atoi(colon + 1);
        break;
    case TUNNEL_EVENT_CONNECTION:
        assert_int_equal(tunnel_event_tunnel(e), r->tunnel);
        snprintf(r->visitor, sizeof(r->visitor), "%s", tunnel_event_visitor(e));
        r->bytes_in = tunnel_event_bytes_in(e);
        r->bytes_out = tunnel_event_bytes_out(e);
        r->error = tunnel_event_error(e);
        break;
    case TUNNEL_EVENT_FAILED:
    case TUNNEL_EVENT_WARNING:
        r->error = tunnel_event_error(e);
        snprintf(r->text, sizeof(r->text), "%s", tunnel_event_text(e));
        break;
    default:
        break;
    }
}

static void on_server_closed(void *user)
{
    ((rig *)user)->server = NULL;
}

static void on_client_closed(void *user)
{
    ((rig *)user)->client = NULL;
}

static int start_server(rig *r)
{
    char ports[32];
    tunnel_server_config *c;
    int rc = tunnel_server_config_new(&c);
    if (rc)
        return rc;
    snprintf(ports, sizeof(ports), "%u-%u", r->first, r->first + RANGE - 1);
    rc = tunnel_server_config_add_listen(c, "127.0.0.1:0");
    if (rc == 0)
        rc = tunnel_server_config_set_domain(c, "test");
    if (rc == 0)
        rc = tunnel_server_config_add_token(c, "SECRET");
    if (rc == 0)
        rc = tunnel_server_config_set_udp_ports(c, ports);
    if (rc == 0)
        rc = tunnel_server_config_set_access_events(c, 1);
    if (rc == 0)
        rc = tunnel_server_new(&r->server, r->loop, c, NULL, 0);
    tunnel_server_config_free(c);
    if (rc)
        return rc;
    tunnel_server_on_event(r->server, on_server_event, r);
    return tunnel_server_start(r->server, NULL, 0);
}

static int start_client(rig *r)
{
    char url[100];
    tunnel_client_config *c;
    int rc = tunnel_client_config_new(&c);
    if (rc)
        return rc;
    snprintf(url, sizeof(url), "ws://127.0.0.1%s", strrchr(r->listening, ':'));
    rc = tunnel_client_config_set_server(c, url);
    if (rc == 0)
        rc = tunnel_client_config_set_token(c, "SECRET");
    if (rc == 0)
        rc = tunnel_client_new(&r->client, r->loop, c, NULL, 0);
    tunnel_client_config_free(c);
    if (rc)
        return rc;
    tunnel_client_on_event(r->client, on_event, r);
    return tunnel_client_start(r->client);
}

static void rig_prepare(rig *r)
{
    static uint16_t offset;
    memset(r, 0, sizeof(*r));
    offset = (uint16_t)((offset + RANGE) % 7000);
    r->first = (uint16_t)(25000 + (unsigned)getpid() % 7000 + offset);
    test_loop_open(&r->l);
    assert_int_equal(tunnel_loop_new(&r->loop, tnl_loop_uv(r->l.loop)), 0);
}

static void rig_open(rig *r)
{
    rig_prepare(r);
    assert_int_equal(start_server(r), 0);
    assert_int_equal(start_client(r), 0);
}

static void rig_close(rig *r)
{
    if (r->client)
        tunnel_client_close(r->client, on_client_closed, r);
    UNTIL(&r->l, !r->client);
    if (r->server)
        tunnel_server_close(r->server, on_server_closed, r);
    UNTIL(&r->l, !r->server);
    tnl_udp_free(r->udp);
    tunnel_loop_free(r->loop);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

/* --- the service and its visitors ------------------------------------------------------------- */

static void on_asked(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n)
{
    rig *r = user;
    r->asked++;
    tnl_udp_send(r->udp, from, p, n);
}

static const tnl_udp_events service_events = {.datagram = on_asked};

static int forward(rig *r, const tunnel_options *o)
{
    char upstream[32];
    int rc = tnl_udp_new(&r->udp, r->l.loop, "127.0.0.1:0", &service_events, r, NULL, 0);
    if (rc)
        return rc;
    snprintf(upstream, sizeof(upstream), "127.0.0.1:%u", tnl_udp_bound(r->udp).port);
    return tunnel_client_forward(r->client, "udp://", upstream, o, &r->tunnel, NULL, 0);
}

static int visitor(const rig *r)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static bool hears(int fd, const char *text)
{
    char bytes[100];
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
    if (n >= 0)
        assert_true(n == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)n) == 0);
    return n >= 0;
}

static void ask(rig *r, int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
    UNTIL(&r->l, hears(fd, text));
}

/* --- tests ------------------------------------------------------------------------------------ */

static void forwards(void **state)
{
    (void)state;
    static rig r;
    tunnel_options *o;
    rig_open(&r);
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_idle_timeout(o, 1000), 0);
    assert_int_equal(forward(&r, o), 0);
    tunnel_options_free(o);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED]);
    int a = visitor(&r), b = visitor(&r);
    ask(&r, a, "I am a");
    ask(&r, b, "I am b");
    ask(&r, a, "I am a");
    assert_int_equal(r.asked, 3);
    /* Both ends end their flows, each by itself. */
    UNTIL(&r.l, r.events[TUNNEL_EVENT_CONNECTION] == 2);
    assert_int_equal(r.server_events[TUNNEL_EVENT_ACCESS], 2);
    assert_int_equal(r.error, 0);
    assert_string_equal(r.visitor, "127.0.0.1");
    assert_int_equal(r.bytes_in, r.bytes_out);
    assert_int_equal(tunnel_server_counter(r.server, TUNNEL_COUNTER_FLOWS), 2);
    assert_int_equal(tunnel_server_counter(r.server, TUNNEL_COUNTER_DATAGRAMS_DROPPED), 0);
    ask(&r, b, "once more");
    assert_int_equal(tunnel_server_counter(r.server, TUNNEL_COUNTER_FLOWS), 3);
    close(a);
    close(b);
    rig_close(&r);
    assert_int_equal(r.events[TUNNEL_EVENT_CONNECTION], 2); /* nothing is told once it is closed */
}

static void ends_with_its_tunnel(void **state)
{
    (void)state;
    static rig r;
    rig_open(&r);
    assert_int_equal(forward(&r, NULL), 0);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED]);
    int a = visitor(&r);
    ask(&r, a, "hello");
    assert_int_equal(tunnel_client_unpublish(r.client, r.tunnel), 0);
    assert_int_equal(r.events[TUNNEL_EVENT_CONNECTION], 1);
    assert_int_equal(r.error, TUNNEL_E_CANCELED);
    UNTIL(&r.l, r.server_events[TUNNEL_EVENT_NAME_GONE] && r.server_events[TUNNEL_EVENT_ACCESS]);
    close(a);
    rig_close(&r);
}

static void on_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    rig *r = user;
    assert_int_equal(tunnel, r->tunnel);
    r->heard++;
    r->flow = flow;
    snprintf(r->words, sizeof(r->words), "%.*s", (int)n, (const char *)p);
    if (strcmp(r->words, "unpublish") == 0)
        assert_int_equal(tunnel_client_unpublish(r->client, tunnel), 0);
    else if (strcmp(r->words, "close") == 0)
        tunnel_client_close(r->client, on_client_closed, r);
    else
        assert_int_equal(tunnel_datagram_send(r->client, tunnel, flow, p, n), 0);
}

static void listens(void **state)
{
    (void)state;
    static const char large[65508];
    static rig r;
    char host[64];
    uint16_t port = 0;
    struct sockaddr_in own;
    socklen_t size = sizeof(own);
    rig_open(&r);
    assert_int_equal(tunnel_client_listen_datagrams(r.client, "udp://:0", NULL, on_datagram, &r,
                                                    &r.tunnel, NULL, 0),
                     0);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED]);
    int a = visitor(&r);
    ask(&r, a, "hello");
    assert_string_equal(r.words, "hello");
    assert_int_equal(getsockname(a, (struct sockaddr *)&own, &size), 0);
    assert_int_equal(tunnel_datagram_visitor(r.client, r.tunnel, r.flow, host, sizeof(host), &port),
                     0);
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, ntohs(own.sin_port));
    assert_int_equal(tunnel_datagram_visitor(r.client, r.tunnel, r.flow, host, 4, NULL),
                     TUNNEL_E_LIMIT);
    /* Unasked. */
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel, r.flow, "later", 5), 0);
    UNTIL(&r.l, hears(a, "later"));
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel, r.flow, large, sizeof(large)),
                     TUNNEL_E_LIMIT);
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel, r.flow + 1, "x", 1),
                     TUNNEL_E_NOT_FOUND);
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel + 1, r.flow, "x", 1),
                     TUNNEL_E_NOT_FOUND);
    /* The tunnel, and then the client, go inside the callback. */
    assert_int_equal(send(a, "unpublish", 9, 0), 9);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_CONNECTION]);
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel, r.flow, "x", 1), TUNNEL_E_NOT_FOUND);
    close(a);
    assert_int_equal(tunnel_client_listen_datagrams(r.client, "udp://:0", NULL, on_datagram, &r,
                                                    &r.tunnel, NULL, 0),
                     0);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED] == 2);
    a = visitor(&r);
    assert_int_equal(send(a, "close", 5, 0), 5);
    UNTIL(&r.l, !r.client);
    close(a);
    rig_close(&r);
}

/* The server goes and comes back: flows are gone, the port is asked for again. */
static void comes_back(void **state)
{
    (void)state;
    static rig r;
    rig_open(&r);
    assert_int_equal(tunnel_client_listen_datagrams(r.client, "udp://:0", NULL, on_datagram, &r,
                                                    &r.tunnel, NULL, 0),
                     0);
    UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED]);
    int a = visitor(&r);
    uint16_t port = r.port;
    ask(&r, a, "before");
    uint64_t flow = r.flow;
    tunnel_server_close(r.server, on_server_closed, &r);
    UNTIL(&r.l, !r.server && r.events[TUNNEL_EVENT_RETRYING]);
    assert_int_equal(r.events[TUNNEL_EVENT_CONNECTION], 1);
    assert_int_equal(r.error, TUNNEL_E_GONE);
    assert_int_equal(tunnel_datagram_send(r.client, r.tunnel, flow, "x", 1), TUNNEL_E_NOT_FOUND);
    close(a);
    rig_close(&r);
    assert_true(port >= r.first && port < r.first + RANGE);
}

/* Forwarded to itself: by its name, and by its address. */
static void circles(void **state)
{
    (void)state;
    static rig r;
    char what[32], upstream[32];
    for (int i = 0; i < 2; i++) {
        rig_open(&r);
        snprintf(what, sizeof(what), "udp://:%u", r.first);
        snprintf(upstream, sizeof(upstream), "%s:%u", i ? "127.0.0.1" : "test", r.first);
        assert_int_equal(tunnel_client_forward(r.client, what, upstream, NULL, &r.tunnel, NULL, 0),
                         0);
        UNTIL(&r.l, r.events[TUNNEL_EVENT_PUBLISHED] || r.events[TUNNEL_EVENT_FAILED]);
        if (i) {
            int a = visitor(&r);
            assert_int_equal(send(a, "round", 5, 0), 5);
            UNTIL(&r.l, r.events[TUNNEL_EVENT_FAILED]);
            close(a);
        }
        assert_int_equal(r.error, TUNNEL_E_LOOP);
        assert_non_null(strstr(r.text, "own public address"));
        UNTIL(&r.l, r.server_events[TUNNEL_EVENT_NAME_GONE]);
        assert_true(tunnel_server_counter(r.server, TUNNEL_COUNTER_FLOWS) <= 1);
        rig_close(&r);
    }
}

/* Each allocation of a tunnel's life fails once: what is lost is a datagram, a tunnel or a session,
 * and never memory. */
static void without_memory(void **state)
{
    (void)state;
    static rig r;
    bool done = false;
    for (size_t fail = 1; !done; fail++) {
        rig_prepare(&r);
        assert_int_equal(start_server(&r), 0);
        int rc = start_client(&r);
        UNTIL(&r.l, r.events[TUNNEL_EVENT_CONNECTED]);
        memory.count = 0;
        memory.fail_at = fail;
        if (rc == 0)
            rc = forward(&r, NULL);
        for (int i = 0; i < 20 && rc == 0 && !r.events[TUNNEL_EVENT_PUBLISHED]; i++)
            test_turn(&r.l);
        int fd = r.port ? visitor(&r) : -1;
        bool heard = false;
        for (int i = 0; i < 10 && fd >= 0 && !heard; i++) {
            (void)send(fd, "x", 1, 0);
            test_turn(&r.l);
            heard = hears(fd, "x");
        }
        done = memory.count < fail;
        memory.fail_at = 0;
        if (done)
            assert_true(heard);
        if (fd >= 0)
            close(fd);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forwards), cmocka_unit_test(ends_with_its_tunnel),
        cmocka_unit_test(listens),  cmocka_unit_test(comes_back),
        cmocka_unit_test(circles),  cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
