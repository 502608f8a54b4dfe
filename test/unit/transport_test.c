/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/transport.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/ends.h"
#include "tls/tls.h"
#include "tunnel/error.h"

/* One suite for every kind of transport: a is the client's end, b the server's. */
typedef struct rig {
    test_loop l;
    tnl_ws *ws;
    unsigned logs;
    bool lane;
    tnl_tls_server *tls_server;
    tnl_tls_client *tls_client;
    test_acceptor acceptor;
    test_end a, b;
} rig;

typedef struct kind {
    void (*connect)(rig *r);
    unsigned rounds; /* of opening and closing */
    bool lane;
} kind;

static test_certs certs;

static void connect_pair(rig *r)
{
    assert_int_equal(
        tnl_pair_new(&r->a.t, &test_end_events, &r->a, &r->b.t, &test_end_events, &r->b, r->l.loop),
        0);
}

static void accept_end(rig *r, tnl_conn *server)
{
    (r->lane ? test_accept_lane : test_accept)(&r->acceptor, r->ws, server, &r->b);
}

static void connect_end(rig *r, tnl_conn *client)
{
    int rc = r->lane ? tnl_lane_connect(&r->a.t, client, "tunnel.test", "/__tunnel__/lane",
                                        "Bearer secret", &test_end_events, &r->a)
                     : tnl_ws_connect(&r->a.t, r->ws, client, "tunnel.test", "/__tunnel__/link",
                                      "Bearer secret", &test_end_events, &r->a);
    assert_int_equal(rc, 0);
}

static void connect_over(rig *r, tnl_conn *client, tnl_conn *server)
{
    accept_end(r, server);
    connect_end(r, client);
}

static void connect_plain(rig *r)
{
    int fd[2];
    test_tcp_sockets(fd);
    connect_over(r, test_conn(&r->l, fd[0]), test_conn(&r->l, fd[1]));
}

static void connect_wrapped(rig *r)
{
    int fd[2];
    test_tcp_sockets(fd);
    connect_over(r, test_wrap(test_conn(&r->l, fd[0]), 1), test_wrap(test_conn(&r->l, fd[1]), 2));
}

/* The transport is given a connection that is ready, so the client waits for that here. */
static void connect_tls(rig *r)
{
    static const tnl_conn_events none = {0};
    int fd[2];
    tnl_conn *c, *s;
    test_peer ready;
    test_tcp_sockets(fd);
    assert_int_equal(
        tnl_tls_accept(&s, r->tls_server, test_conn(&r->l, fd[1]), NULL, 0, &none, NULL), 0);
    accept_end(r, s);
    test_peer_init(&ready);
    assert_int_equal(tnl_tls_connect(&c, r->tls_client, test_conn(&r->l, fd[0]), "localhost",
                                     &test_peer_events, &ready),
                     0);
    ready.c = c;
    UNTIL(&r->l, ready.readies || ready.closes);
    assert_string_equal(ready.detail, "");
    connect_end(r, c);
    test_peer_free(&ready);
}

static void rig_open(rig *r)
{
    char detail[256] = "";
    memset(r, 0, sizeof(*r));
    test_loop_open(&r->l);
    assert_int_equal(tnl_ws_new(&r->ws, r->l.loop, test_count_log, &r->logs), 0);
    assert_int_equal(tnl_tls_server_new(&r->tls_server), 0);
    assert_int_equal(tnl_tls_server_add(r->tls_server, test_certs_path(&certs, "server.crt"),
                                        test_certs_path(&certs, "server.key"), detail,
                                        sizeof(detail)),
                     0);
    assert_int_equal(tnl_tls_client_new(&r->tls_client, test_certs_path(&certs, "ca.crt"), true,
                                        detail, sizeof(detail)),
                     0);
}

static void rig_close(rig *r)
{
    tnl_tls_server_unref(r->tls_server);
    tnl_tls_client_unref(r->tls_client);
    tnl_ws_free(r->ws);
    test_loop_close(&r->l);
}

static void begin(rig *r, const kind *k)
{
    test_end_init(&r->a);
    test_end_init(&r->b);
    r->lane = k->lane;
    k->connect(r);
}

static void opened(rig *r, const kind *k)
{
    begin(r, k);
    UNTIL(&r->l, r->a.opens && r->b.opens);
}

static bool gone(const test_end *e)
{
    return e->closes > 0;
}

/* --- the suite -------------------------------------------------------------------------------- */

static void bytes_both_ways(void **state)
{
    enum { TOTAL = 3 * 1024 * 1024 + 17 };
    rig r;
    rig_open(&r);
    opened(&r, *state);
    r.a.ragged = r.b.ragged = true;
    test_end_send(&r.a, TOTAL);
    test_end_send(&r.b, TOTAL);
    UNTIL(&r.l, r.a.received == TOTAL && r.b.received == TOTAL);
    assert_int_equal(r.a.hash, test_sequence_hash(TOTAL));
    assert_int_equal(r.b.hash, test_sequence_hash(TOTAL));

    r.a.ragged = r.b.ragged = false;
    test_end_send(&r.a, TOTAL);
    test_end_send(&r.b, TOTAL);
    UNTIL(&r.l, r.a.received == 2 * TOTAL && r.b.received == 2 * TOTAL);
    assert_int_equal(r.a.hash, test_sequence_hash(2 * TOTAL));
    assert_int_equal(r.b.hash, test_sequence_hash(2 * TOTAL));

    test_end_close(&r.a);
    UNTIL(&r.l, gone(&r.a) && gone(&r.b));
    assert_int_equal(r.a.error, 0);
    assert_int_equal(r.b.error, TUNNEL_E_EOF);
    rig_close(&r);
}

static void messages_to_and_fro(void **state)
{
    rig r;
    rig_open(&r);
    opened(&r, *state);
    r.b.echo = true;
    uint64_t n = 0;
    for (size_t size = 1; size <= TNL_TRANSPORT_BATCH; size = size * 3 / 2 + 1) {
        n += size;
        test_end_send(&r.a, size);
        UNTIL(&r.l, r.a.received == n);
    }
    for (int i = 0; i < 200; i++) {
        test_end_send(&r.a, ++n * 0 + 1);
        UNTIL(&r.l, r.a.received == n);
    }
    assert_int_equal(r.a.hash, test_sequence_hash(n));
    test_end_wake(&r.a); /* with nothing to send */
    test_end_wake(&r.a);
    for (int i = 0; i < 5; i++)
        test_turn(&r.l);
    assert_int_equal(r.a.received, n);
    test_end_close(&r.b);
    test_end_close(&r.b);
    UNTIL(&r.l, gone(&r.a) && gone(&r.b));
    assert_int_equal(r.b.error, 0);
    assert_int_equal(r.a.error, TUNNEL_E_EOF);
    rig_close(&r);
}

/* What is ready when an end closes still goes out, from either side. */
static void last_batch(void **state)
{
    rig r;
    rig_open(&r);
    for (int i = 0; i < 2; i++) {
        opened(&r, *state);
        test_end *from = i ? &r.b : &r.a;
        test_end *to = i ? &r.a : &r.b;
        from->total = 60000;
        test_end_close(from);
        UNTIL(&r.l, gone(from) && gone(to));
        assert_int_equal(from->error, 0);
        assert_int_equal(to->error, TUNNEL_E_EOF);
        assert_int_equal(to->received, 60000);
        assert_int_equal(to->hash, test_sequence_hash(60000));
    }
    rig_close(&r);
}

static void close_in_callbacks(void **state)
{
    rig r;
    rig_open(&r);
    for (test_when when = TEST_WHEN_OPENED; when <= TEST_WHEN_PULL; when++) {
        for (int i = 0; i < 2; i++) {
            begin(&r, *state);
            test_end *closer = i ? &r.b : &r.a;
            test_end *other = i ? &r.a : &r.b;
            closer->close_when = when;
            UNTIL(&r.l, (r.a.opens && r.b.opens) || gone(closer));
            test_end_send(other, 1000);
            test_end_send(closer, 1000);
            UNTIL(&r.l, gone(closer) && (gone(other) || !other->t));
            assert_int_equal(closer->error, 0);
        }
    }
    rig_close(&r);
}

static void close_both_at_once(void **state)
{
    rig r;
    rig_open(&r);
    for (int turns = 0; turns < 4; turns++) {
        opened(&r, *state);
        test_end_close(&r.a);
        for (int i = 0; i < turns; i++)
            test_turn(&r.l);
        test_end_close(&r.b);
        UNTIL(&r.l, gone(&r.a) && gone(&r.b));
        assert_int_equal(r.a.error, 0);
        assert_true(r.b.error == 0 || r.b.error == TUNNEL_E_EOF);
    }
    rig_close(&r);
}

/* Closed by one end after any number of turns, before and while it is opened. */
static void close_while_opening(void **state)
{
    rig r;
    rig_open(&r);
    for (int i = 0; i < 24; i++) {
        begin(&r, *state);
        for (int turn = 0; turn < i / 2; turn++)
            test_turn(&r.l);
        test_end *closer = i % 2 && r.b.t ? &r.b : &r.a;
        test_end_close(closer);
        UNTIL(&r.l, gone(closer));
        assert_int_equal(closer->error, 0);
        test_end *other = closer == &r.a ? &r.b : &r.a;
        UNTIL(&r.l, !other->t);
        if (other == &r.b && r.acceptor.ws)
            UNTIL(&r.l, r.acceptor.done);
        assert_true(other->closes <= 1);
        if (!other->closes)
            free(other->back);
    }
    rig_close(&r);
}

/* The other end goes on sending as much as it can. */
static void close_against_a_flood(void **state)
{
    rig r;
    rig_open(&r);
    for (int i = 0; i < 2; i++) {
        opened(&r, *state);
        test_end *closer = i ? &r.b : &r.a;
        test_end *other = i ? &r.a : &r.b;
        test_end_send(other, (uint64_t)1 << 40);
        UNTIL(&r.l, closer->received > 1000000);
        test_end_close(closer);
        UNTIL(&r.l, gone(closer) && gone(other));
        assert_int_equal(closer->error, 0);
        assert_true(other->error < 0);
    }
    rig_close(&r);
}

/* In the middle of everything, both directions full: gone for the one, an error for the other. */
static void give_up(void **state)
{
    rig r;
    rig_open(&r);
    for (int i = 0; i < 4; i++) {
        opened(&r, *state);
        test_end *quitter = i % 2 ? &r.b : &r.a;
        test_end *other = i % 2 ? &r.a : &r.b;
        test_end_send(&r.a, (uint64_t)1 << 40);
        test_end_send(&r.b, (uint64_t)1 << 40);
        UNTIL(&r.l, quitter->received > 1000000 && other->received > 1000000);
        if (i >= 2)
            tnl_transport_close(quitter->t); /* politely first, and then not */
        uint64_t received = quitter->received;
        tnl_transport_abort(quitter->t);
        UNTIL(&r.l, gone(quitter) && gone(other));
        assert_int_equal(quitter->error, 0);
        assert_int_equal(quitter->received, received);
        assert_true(other->error < 0);
    }
    rig_close(&r);
}

static size_t heap(void)
{
    return mallinfo2().uordblks;
}

static void rounds(void **state)
{
    const kind *k = *state;
    rig r;
    unsigned descriptors = 0;
    size_t bytes = 0;
    rig_open(&r);
    r.l.deadline += 60;
    for (unsigned i = 0; i < k->rounds; i++) {
        if (i == k->rounds / 10) {
            descriptors = test_open_descriptors();
            bytes = heap();
        }
        opened(&r, k);
        test_end_send(&r.a, 100);
        test_end_send(&r.b, 100);
        UNTIL(&r.l, r.a.received == 100 && r.b.received == 100);
        test_end_close(i % 2 ? &r.a : &r.b);
        UNTIL(&r.l, gone(&r.a) && gone(&r.b));
    }
    assert_int_equal(test_open_descriptors(), descriptors);
    assert_true(heap() <= bytes + 64 * 1024);
    assert_int_equal(r.logs, 0);
    rig_close(&r);
}

/* Many at a time: an idle one holds little. */
static void many_idle(void **state)
{
    enum { MANY = 50 };
    static test_end ends[MANY][2];
    const kind *k = *state;
    rig r;
    rig_open(&r);
    for (int i = 0; i < MANY; i++) {
        opened(&r, k);
        /* The transports know their ends by address. */
        r.a.t->user = &ends[i][0];
        r.b.t->user = &ends[i][1];
        ends[i][0] = r.a;
        ends[i][1] = r.b;
        test_end_send(&ends[i][0], 1000);
        test_end_send(&ends[i][1], 1000);
        UNTIL(&r.l, ends[i][0].received == 1000 && ends[i][1].received == 1000);
    }
    for (int i = 0; i < MANY; i++)
        test_end_close(&ends[i][i % 2]);
    for (int i = 0; i < MANY; i++)
        UNTIL(&r.l, gone(&ends[i][0]) && gone(&ends[i][1]));
    rig_close(&r);
}

/* --- the engine ------------------------------------------------------------------------------- */

static void engines_come_and_go(void **state)
{
    (void)state;
    unsigned descriptors = 0;
    for (int i = 0; i < 20; i++) {
        rig r;
        rig_open(&r);
        if (i) {
            opened(&r, &(kind){connect_plain, 0, false});
            test_end_close(&r.a);
            UNTIL(&r.l, gone(&r.a) && gone(&r.b));
        }
        rig_close(&r);
        if (i == 1)
            descriptors = test_open_descriptors();
    }
    assert_int_equal(test_open_descriptors(), descriptors);
}

/* The loop is the host's and goes on after everything of ours was freed. */
static void on_a_loop_of_the_host(void **state)
{
    (void)state;
    uv_loop_t uv;
    unsigned descriptors = test_open_descriptors();
    assert_int_equal(uv_loop_init(&uv), 0);
    for (int i = 0; i < 3; i++) {
        rig r;
        memset(&r, 0, sizeof(r));
        assert_int_equal(tnl_loop_new(&r.l.loop, &uv), 0);
        assert_int_equal(tnl_ws_new(&r.ws, r.l.loop, NULL, NULL), 0);
        test_end_init(&r.a);
        test_end_init(&r.b);
        connect_plain(&r);
        while (!r.a.opens || !r.b.opens)
            uv_run(&uv, UV_RUN_ONCE);
        test_end_close(&r.b);
        while (!gone(&r.a) || !gone(&r.b))
            uv_run(&uv, UV_RUN_ONCE);
        tnl_ws_free(r.ws);
        tnl_loop_free(r.l.loop);
    }
    while (uv_run(&uv, UV_RUN_ONCE))
        ;
    assert_int_equal(uv_loop_close(&uv), 0);
    assert_int_equal(test_open_descriptors(), descriptors);
}

/* ------------------------------------------------------------------------------------------------
 */

static int set_up(void **state)
{
    (void)state;
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "ca", .cn = "Test CA", .ca = true});
    test_certs_make(&certs,
                    &(test_cert_spec){.file = "server", .names = "localhost", .issuer = "ca"});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_certs_close(&certs);
    return 0;
}

#define SUITE(name, k)                                                                             \
    {                                                                                              \
#name ", " #k, name, NULL, NULL, (void *)(uintptr_t)&kind_##k                              \
    }
#define SUITES(k)                                                                                  \
    SUITE(bytes_both_ways, k), SUITE(messages_to_and_fro, k), SUITE(last_batch, k),                \
        SUITE(close_in_callbacks, k), SUITE(close_both_at_once, k), SUITE(close_while_opening, k), \
        SUITE(close_against_a_flood, k), SUITE(give_up, k), SUITE(many_idle, k), SUITE(rounds, k)

static const kind kind_pair = {connect_pair, 1000, false};
static const kind kind_plain = {connect_plain, 1000, false};
static const kind kind_wrapped = {connect_wrapped, 1000, false};
static const kind kind_tls = {connect_tls, 100, false};
static const kind kind_lane = {connect_plain, 1000, true};
static const kind kind_lane_wrapped = {connect_wrapped, 1000, true};
static const kind kind_lane_tls = {connect_tls, 100, true};

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        SUITES(pair),
        SUITES(plain),
        SUITES(wrapped),
        SUITES(tls),
        SUITES(lane),
        SUITES(lane_wrapped),
        SUITES(lane_tls),
        cmocka_unit_test(engines_come_and_go),
        cmocka_unit_test(on_a_loop_of_the_host),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
