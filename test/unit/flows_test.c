/* SPDX-License-Identifier: Apache-2.0 */
/* The flows of a udp tunnel at the client, with real sockets. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "forward/datagram.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"
#include "tunnel/error.h"

enum { FLOWS = 16 };

typedef enum where { NOWHERE, IN_SEND, IN_OVER, IN_UPSTREAM, IN_ALLOWED, IN_CYCLE, IN_DATA } where;

typedef struct rig {
    test_loop l;
    tnl_flows *flows; /* NULL once freed */
    where free_in;
    bool forbidden;
    unsigned sent[FLOWS]; /* answers, by flow */
    char last[FLOWS][64]; /* the beginning of the last one */
    size_t last_n;
    uint64_t hash;
    unsigned overs;
    tnl_flow_end end; /* of the last one */
    char end_visitor[64];
    char end_text[100];
    unsigned downs, ups;
    int error;
    char detail[400];
    unsigned cycles, asked;
    unsigned data; /* datagrams of visitors, when it listens */
    uint64_t data_flow;
} rig;

static void free_if(rig *r, where now)
{
    tnl_flows *f = r->flows;
    if (r->free_in != now)
        return;
    r->free_in = NOWHERE;
    r->flows = NULL;
    tnl_flows_free(f);
}

static void on_send(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    rig *r = user;
    assert_true(flow < FLOWS);
    r->sent[flow]++;
    r->last_n = n;
    r->hash = test_hash(0, p, n);
    snprintf(r->last[flow], sizeof(r->last[flow]), "%.*s", (int)n, (const char *)p);
    free_if(r, IN_SEND);
}

static void on_datagram(void *user, uint64_t flow, const uint8_t *p, size_t n)
{
    rig *r = user;
    r->data++;
    r->data_flow = flow;
    r->hash = test_hash(0, p, n);
    if (n == 4 && memcmp(p, "echo", 4) == 0)
        assert_int_equal(tnl_flows_send(r->flows, flow, p, n), 0);
    free_if(r, IN_DATA);
}

static void on_over(void *user, const tnl_flow_end *end)
{
    rig *r = user;
    r->overs++;
    r->end = *end;
    snprintf(r->end_visitor, sizeof(r->end_visitor), "%s", end->visitor->host);
    snprintf(r->end_text, sizeof(r->end_text), "%s", end->text);
    free_if(r, IN_OVER);
}

static void on_upstream(void *user, int error, const char *detail)
{
    rig *r = user;
    r->downs += error != 0;
    r->ups += error == 0;
    r->error = error;
    snprintf(r->detail, sizeof(r->detail), "%s", detail);
    free_if(r, IN_UPSTREAM);
}

static bool on_allowed(void *user, const tnl_udp_address *upstream)
{
    rig *r = user;
    assert_true(upstream->port != 0);
    r->asked++;
    bool allowed = !r->forbidden && r->free_in != IN_ALLOWED;
    free_if(r, IN_ALLOWED);
    return allowed;
}

static void on_cycle(void *user)
{
    rig *r = user;
    r->cycles++;
    free_if(r, IN_CYCLE);
}

static const tnl_flows_events events = {.send = on_send,
                                        .datagram = on_datagram,
                                        .over = on_over,
                                        .upstream = on_upstream,
                                        .allowed = on_allowed,
                                        .cycle = on_cycle};

/* host NULL: it listens. */
static void rig_open(rig *r, const char *host, uint16_t port, uint32_t idle_ms, size_t max)
{
    tnl_flows_config config = {.host = host, .port = port, .idle_ms = idle_ms, .max = max};
    memset(r, 0, sizeof(*r));
    test_loop_open(&r->l);
    assert_int_equal(tnl_flows_new(&r->flows, r->l.loop, &config, &events, r), 0);
}

static void rig_close(rig *r)
{
    tnl_flows_free(r->flows);
    r->flows = NULL;
    test_loop_close(&r->l);
}

static void say_bytes(rig *r, uint64_t flow, const void *p, size_t n)
{
    tnl_datagram d = {.tunnel = 1,
                      .flow = flow,
                      .family = 4,
                      .address = {192, 0, 2, (uint8_t)flow},
                      .port = (uint16_t)(1000 + flow),
                      .p = p,
                      .n = n};
    tnl_flows_receive(r->flows, &d);
}

static void say(rig *r, uint64_t flow, const char *text)
{
    say_bytes(r, flow, text, strlen(text));
}

/* --- upstreams -------------------------------------------------------------------------------- */

typedef struct upstream {
    tnl_udp *udp;
    unsigned count;
    uint16_t ports[64]; /* where they came from */
    char last[64];
    bool mute;
    bool twice;
} upstream;

static void on_asked(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n)
{
    upstream *u = user;
    u->ports[u->count++ % 64] = from->port;
    snprintf(u->last, sizeof(u->last), "%.*s", (int)n, (const char *)p);
    for (int i = 0; i < 1 + u->twice && !u->mute; i++)
        tnl_udp_send(u->udp, from, p, n);
}

static const tnl_udp_events upstream_events = {.datagram = on_asked};

static uint16_t upstream_open(upstream *u, const rig *r, const char *host, uint16_t port)
{
    char address[64];
    memset(u, 0, sizeof(*u));
    snprintf(address, sizeof(address), "%s:%u", host, port);
    assert_int_equal(tnl_udp_new(&u->udp, r->l.loop, address, &upstream_events, u, NULL, 0), 0);
    return tnl_udp_bound(u->udp).port;
}

/* A port of loopback where nobody listens. */
static uint16_t free_port(const char *host)
{
    static upstream u;
    rig r;
    test_loop_open(&r.l);
    uint16_t port = upstream_open(&u, &r, host, 0);
    tnl_udp_free(u.udp);
    test_loop_close(&r.l);
    return port;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_each_its_own_socket(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    u.twice = true;
    for (uint64_t flow = 1; flow < 11; flow++) {
        char word[16];
        snprintf(word, sizeof(word), "flow %u", (unsigned)flow);
        say(&r, flow, word);
    }
    UNTIL(&r.l, r.sent[10] == 2 && u.count == 10);
    for (unsigned flow = 1; flow < 11; flow++) {
        char word[16];
        snprintf(word, sizeof(word), "flow %u", flow);
        UNTIL(&r.l, r.sent[flow] == 2);
        assert_string_equal(r.last[flow], word);
        for (unsigned other = 1; other < flow; other++)
            assert_int_not_equal(u.ports[flow - 1], u.ports[other - 1]);
    }
    assert_int_equal(tnl_flows_count(r.flows), 10);
    assert_int_equal(r.ups, 10);
    tnl_udp_free(u.udp);
    rig_close(&r);
    assert_int_equal(r.overs, 10);
}

static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1472, 2049, 40000, 65507};
    static uint8_t bytes[65507];
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        test_fill(bytes, sizes[i], i);
        say_bytes(&r, 1, bytes, sizes[i]);
        UNTIL(&r.l, r.sent[1] == i + 1);
        assert_int_equal(r.last_n, sizes[i]);
        assert_true(r.hash == test_hash(0, bytes, sizes[i]));
    }
    tnl_udp_free(u.udp);
    rig_close(&r);
    assert_int_equal(r.overs, 1);
    assert_int_equal(r.end.error, TUNNEL_E_CANCELED);
    assert_int_equal(r.end.bytes_in, 1 + 1472 + 2049 + 40000 + 65507);
    assert_int_equal(r.end.bytes_out, r.end.bytes_in);
    assert_string_equal(r.end_visitor, "192.0.2.1");
}

static void test_idle_end(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 1, 0); /* 1 ms is taken for the least */
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "x");
    say(&r, 2, "y");
    UNTIL(&r.l, r.overs == 2);
    assert_int_equal(r.end.error, 0);
    assert_string_equal(r.end_text, "");
    assert_int_equal(r.end.bytes_in, 1);
    assert_int_equal(r.end.bytes_out, 1);
    assert_int_equal(tnl_flows_count(r.flows), 0);
    /* It begins anew, from another socket. */
    say(&r, 1, "z");
    UNTIL(&r.l, u.count == 3);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

static void test_too_many(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 3);
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "a");
    say(&r, 2, "b");
    say(&r, 3, "c");
    UNTIL(&r.l, r.sent[1] && r.sent[2] && r.sent[3]);
    say(&r, 1, "again");
    UNTIL(&r.l, r.sent[1] == 2);
    say(&r, 4, "d");
    assert_int_equal(r.overs, 1);
    assert_int_equal(r.end.flow, 2);
    assert_int_equal(r.end.error, TUNNEL_E_LIMIT);
    assert_int_equal(tnl_flows_count(r.flows), 3);
    UNTIL(&r.l, r.sent[4]);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

/* --- upstreams that are not there ------------------------------------------------------------- */

static void test_upstream_comes_up(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    for (unsigned i = 1; i < 3; i++) {
        say(&r, 1, "early");
        UNTIL(&r.l, r.downs >= i);
    }
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_non_null(strstr(r.detail, "nobody listens"));
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "now");
    UNTIL(&r.l, r.sent[1] == 1 && r.ups);
    assert_int_equal(r.ups, 1);
    /* It goes away and comes back. */
    tnl_udp_free(u.udp);
    unsigned downs = r.downs;
    say(&r, 1, "into the void");
    UNTIL(&r.l, r.downs > downs);
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "again");
    UNTIL(&r.l, r.sent[1] == 2);
    assert_int_equal(r.overs, 0);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

/* "localhost" is 127.0.0.1 and ::1: whichever answers. */
static void test_localhost(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("[::1]");
    rig_open(&r, "localhost", port, 0, 0);
    upstream_open(&u, &r, "[::1]", port);
    say(&r, 1, "first");
    UNTIL(&r.l, r.sent[1] == 1);
    assert_string_equal(r.last[1], "first");
    assert_int_equal(r.downs, 0);
    unsigned asked = r.asked;
    say(&r, 2, "second");
    UNTIL(&r.l, r.sent[2] == 1);
    assert_int_equal(r.asked, asked + 1); /* straight to the one that answered */
    tnl_udp_free(u.udp);
    rig_close(&r);
}

static void test_localhost_comes_up_late(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    for (int i = 0; i < 2; i++) {
        const char *host = i ? "[::1]" : "127.0.0.1";
        uint16_t port = free_port(host);
        rig_open(&r, "localhost", port, 0, 0);
        for (unsigned k = 1; k < 4; k++) {
            say(&r, 1, "nobody");
            UNTIL(&r.l, r.downs >= k);
        }
        upstream_open(&u, &r, host, port);
        say(&r, 1, "somebody");
        UNTIL(&r.l, r.sent[1]);
        assert_string_equal(r.last[1], "somebody");
        assert_int_equal(u.count, 1);
        tnl_udp_free(u.udp);
        rig_close(&r);
    }
}

static void test_no_such_name(void **state)
{
    (void)state;
    static rig r;
    rig_open(&r, "no-such-host.invalid", 53, 1, 0);
    say(&r, 1, "x");
    say(&r, 2, "y");
    UNTIL(&r.l, r.downs);
    assert_int_equal(r.error, TUNNEL_E_RESOLVE);
    assert_non_null(strstr(r.detail, "no-such-host.invalid"));
    say(&r, 1, "x");
    assert_int_equal(tnl_flows_count(r.flows), 2);
    UNTIL(&r.l, r.overs == 2);
    rig_close(&r);
}

/* What comes before the name is looked up waits, in order and not without bound. */
static void test_what_waits(void **state)
{
    (void)state;
    static uint8_t large[65507];
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "one");
    say(&r, 2, "two");
    say(&r, 1, "three");
    size_t before = memory.bytes;
    for (int i = 0; i < 100; i++)
        say_bytes(&r, 1, large, sizeof(large));
    assert_true(memory.bytes < before + 128 * 1024);
    UNTIL(&r.l, u.count >= 3 && r.sent[1] >= 2 && r.sent[2]);
    assert_string_equal(r.last[2], "two");
    tnl_udp_free(u.udp);
    rig_close(&r);
    /* And a large one alone may wait. */
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    say_bytes(&r, 3, large, sizeof(large));
    UNTIL(&r.l, r.sent[3] == 1);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

/* --- circles ---------------------------------------------------------------------------------- */

static void test_circles(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    say(&r, 1, "x");
    UNTIL(&r.l, u.count == 1);
    /* A visitor that is the first flow's own socket. */
    tnl_datagram d = {.tunnel = 1,
                      .flow = 2,
                      .family = 4,
                      .address = {127, 0, 0, 1},
                      .port = u.ports[0],
                      .p = (const uint8_t *)"x",
                      .n = 1};
    tnl_flows_receive(r.flows, &d);
    assert_int_equal(r.cycles, 1);
    assert_int_equal(tnl_flows_count(r.flows), 1);
    d.address[3] = 2;
    tnl_flows_receive(r.flows, &d);
    assert_int_equal(r.cycles, 1);
    assert_int_equal(tnl_flows_count(r.flows), 2);
    UNTIL(&r.l, u.count == 2);
    /* An address that may not be used is not. */
    r.forbidden = true;
    say(&r, 3, "x");
    for (int i = 0; i < 5; i++)
        test_turn(&r.l);
    assert_int_equal(u.count, 2);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

/* --- without an upstream ---------------------------------------------------------------------- */

static void test_listening(void **state)
{
    (void)state;
    static const uint8_t large[65508];
    static rig r;
    tnl_address a;
    rig_open(&r, NULL, 0, 0, 0);
    say(&r, 7, "hello");
    assert_int_equal(r.data, 1);
    assert_int_equal(r.data_flow, 7);
    assert_int_equal(tnl_flows_visitor(r.flows, 7, &a), 0);
    assert_string_equal(a.host, "192.0.2.7");
    assert_int_equal(a.port, 1007);
    assert_int_equal(tnl_flows_visitor(r.flows, 8, &a), TUNNEL_E_NOT_FOUND);
    assert_int_equal(tnl_flows_send(r.flows, 8, "x", 1), TUNNEL_E_NOT_FOUND);
    assert_int_equal(tnl_flows_send(r.flows, 7, large, sizeof(large)), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_flows_send(r.flows, 7, "answer", 6), 0);
    assert_string_equal(r.last[7], "answer");
    say(&r, 8, "echo");
    assert_int_equal(r.sent[8], 1);
    tnl_flows_end_all(r.flows, TUNNEL_E_GONE, "the session was lost");
    assert_int_equal(r.overs, 2);
    assert_int_equal(r.end.error, TUNNEL_E_GONE);
    assert_string_equal(r.end_text, "the session was lost");
    assert_int_equal(tnl_flows_send(r.flows, 7, "x", 1), TUNNEL_E_NOT_FOUND);
    /* An id that is known begins anew; whose it is may not be told any more. */
    tnl_datagram d = {.tunnel = 1, .flow = 7, .p = (const uint8_t *)"x", .n = 1};
    tnl_flows_receive(r.flows, &d);
    assert_int_equal(tnl_flows_visitor(r.flows, 7, &a), 0);
    assert_string_equal(a.host, "");
    rig_close(&r);
}

/* --- freed in the midst of it ----------------------------------------------------------------- */

static void test_freed_inside(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    for (int w = IN_SEND; w <= IN_DATA; w++) {
        uint16_t port = free_port("127.0.0.1");
        bool listens = w == IN_DATA;
        rig_open(&r, listens ? NULL : "127.0.0.1", port, 0, 2);
        if (w != IN_UPSTREAM)
            upstream_open(&u, &r, "127.0.0.1", port);
        r.free_in = (where)w;
        say(&r, 1, "echo");
        if (w == IN_OVER || w == IN_CYCLE)
            UNTIL(&r.l, r.sent[1]);
        if (w == IN_OVER) {
            say(&r, 2, "x");
            say(&r, 3, "x");
        } else if (w == IN_CYCLE) {
            tnl_datagram d = {
                .tunnel = 1, .flow = 2, .family = 4, .address = {127, 0, 0, 1}, .port = u.ports[0]};
            tnl_flows_receive(r.flows, &d);
        }
        UNTIL(&r.l, !r.flows);
        if (w != IN_UPSTREAM)
            tnl_udp_free(u.udp);
        rig_close(&r);
        assert_int_equal(memory.live, 0);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    static rig r;
    static upstream u;
    bool done = false;
    for (size_t fail = 1; !done; fail++) {
        uint16_t port = free_port("127.0.0.1");
        tnl_flows_config config = {.host = "localhost", .port = port};
        memset(&r, 0, sizeof(r));
        test_loop_open(&r.l);
        upstream_open(&u, &r, "127.0.0.1", port);
        memory.count = 0;
        memory.fail_at = fail;
        int rc = tnl_flows_new(&r.flows, r.l.loop, &config, &events, &r);
        if (rc == 0) {
            say(&r, 1, "x");
            for (int i = 0; i < 4; i++)
                test_turn(&r.l);
        }
        done = memory.count < fail;
        memory.fail_at = 0;
        if (rc)
            assert_int_equal(rc, TUNNEL_E_NOMEM);
        else if (done)
            UNTIL(&r.l, r.sent[1]);
        tnl_udp_free(u.udp);
        rig_close(&r);
        assert_int_equal(memory.live, 0);
    }
}

/* What a flow costs that says nothing. */
static void test_memory_of_idle_flows(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static rig r;
    static upstream u;
    uint16_t port = free_port("127.0.0.1");
    rig_open(&r, "127.0.0.1", port, 0, 0);
    upstream_open(&u, &r, "127.0.0.1", port);
    u.mute = true;
    say(&r, 1000, "x");
    UNTIL(&r.l, u.count == 1);
    size_t before = memory.bytes;
    for (uint64_t flow = 1; flow <= COUNT; flow++)
        say(&r, 1000 + flow, "x");
    UNTIL(&r.l, u.count == 1 + COUNT);
    print_message("%zu bytes for each idle flow\n", (memory.bytes - before) / COUNT);
    assert_true((memory.bytes - before) / COUNT < 1000);
    tnl_udp_free(u.udp);
    rig_close(&r);
}

static int all_freed(void **state)
{
    (void)state;
    return memory.live ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_each_its_own_socket, all_freed),
        cmocka_unit_test_teardown(test_sizes, all_freed),
        cmocka_unit_test_teardown(test_idle_end, all_freed),
        cmocka_unit_test_teardown(test_too_many, all_freed),
        cmocka_unit_test_teardown(test_upstream_comes_up, all_freed),
        cmocka_unit_test_teardown(test_localhost, all_freed),
        cmocka_unit_test_teardown(test_localhost_comes_up_late, all_freed),
        cmocka_unit_test_teardown(test_no_such_name, all_freed),
        cmocka_unit_test_teardown(test_what_waits, all_freed),
        cmocka_unit_test_teardown(test_circles, all_freed),
        cmocka_unit_test_teardown(test_listening, all_freed),
        cmocka_unit_test_teardown(test_freed_inside, all_freed),
        cmocka_unit_test_teardown(test_no_memory, all_freed),
        cmocka_unit_test_teardown(test_memory_of_idle_flows, all_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
