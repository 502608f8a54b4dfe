/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/stream.h>

#include "api/loop.h"
#include "forward/stream_conn.h"
#include "support/certs.h"
#include "support/check.h"
#include "support/fake_server.h"
#include "support/memory.h"

/* Listening where the client ends TLS: the same promises as without. */

enum { MB = 1024 * 1024 };

typedef enum moment { IN_NOTHING, IN_VISITOR, IN_DATA, IN_END, IN_ROOM, IN_CLOSED, MOMENTS } moment;

typedef struct rig {
    test_loop l;
    fake_server server;
    struct tunnel_loop loop;
    tunnel_client *client; /* NULL once it is closing */
    unsigned client_closes;
    uint64_t tunnel;
    unsigned published, connections;
    int connection_error;
    /* the app */
    bool echo;
    size_t use;
    moment act_in;
    void (*act)(struct rig *r);
    uint64_t stream;
    unsigned visitors, ends, rooms, closes, data_calls;
    uint64_t received, hash;
    int error;
    /* the visitor */
    tnl_tls_client *tls;
    test_peer v;
    uint64_t sent;
} rig;

static void act(rig *r, moment m)
{
    void (*f)(rig *) = r->act;
    if (r->act_in != m || !f)
        return;
    r->act = NULL;
    f(r);
}

static size_t on_data(void *user, uint64_t stream, const void *p, size_t n)
{
    rig *r = user;
    assert_true(stream == r->stream && n > 0);
    assert_int_equal(r->ends + r->closes, 0);
    r->data_calls++;
    act(r, IN_DATA);
    size_t used = n < r->use ? n : r->use;
    if (r->echo && r->client) {
        int64_t took = tunnel_stream_write(r->client, stream, p, n);
        used = took < 0 ? n : (size_t)took;
    }
    r->hash = test_hash(r->hash, p, used);
    r->received += used;
    return used;
}

static void on_end(void *user, uint64_t stream)
{
    rig *r = user;
    r->ends++;
    act(r, IN_END);
    if (r->echo && r->client)
        (void)tunnel_stream_end(r->client, stream);
}

static void on_room(void *user, uint64_t stream)
{
    rig *r = user;
    r->rooms++;
    act(r, IN_ROOM);
    if (r->client)
        (void)tunnel_stream_resume(r->client, stream);
}

static void on_closed(void *user, uint64_t stream, int error, const char *text)
{
    rig *r = user;
    assert_true(stream == r->stream);
    assert_true(error == 0 || strlen(text) > 0);
    r->closes++;
    r->error = error;
    act(r, IN_CLOSED);
}

static void on_visitor(void *user, uint64_t stream)
{
    rig *r = user;
    r->visitors++;
    r->stream = stream;
    assert_int_equal(tunnel_stream_on_end(r->client, stream, on_end, r), 0);
    assert_int_equal(tunnel_stream_on_room(r->client, stream, on_room, r), 0);
    assert_int_equal(tunnel_stream_on_closed(r->client, stream, on_closed, r), 0);
    assert_int_equal(tunnel_stream_on_data(r->client, stream, on_data, r), 0);
    act(r, IN_VISITOR);
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    r->published += tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_CONNECTION) {
        r->connections++;
        r->connection_error = tunnel_event_error(e);
    }
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

static void rig_open(rig *r, test_certs *certs)
{
    char url[64], cert[160], detail[300];
    tunnel_client_config *c;
    tunnel_options *o;
    memset(r, 0, sizeof(*r));
    r->use = SIZE_MAX;
    test_loop_open(&r->l);
    test_peer_init(&r->v);
    fake_server_open(&r->server, &r->l, NULL);
    r->loop.loop = r->l.loop;
    tnl_list_init(&r->loop.signals);
    snprintf(cert, sizeof(cert), "%s", test_certs_path(certs, "one.crt"));
    assert_int_equal(tunnel_client_config_new(&c), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u", fake_server_port(&r->server));
    assert_int_equal(tunnel_client_config_set_server(c, url), 0);
    assert_int_equal(tunnel_client_new(&r->client, &r->loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
    tunnel_client_on_event(r->client, on_event, r);
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_certificate(o, cert, test_certs_path(certs, "one.key")), 0);
    assert_int_equal(
        tunnel_client_listen(r->client, "tls://secure", o, on_visitor, r, &r->tunnel, NULL, 0), 0);
    tunnel_options_free(o);
    assert_int_equal(tunnel_client_start(r->client), 0);
    assert_int_equal(tnl_tls_client_new(&r->tls, cert, true, detail, sizeof(detail)), 0);
    UNTIL(&r->l, r->published);
}

static void rig_close(rig *r)
{
    if (r->client)
        close_client(r);
    UNTIL(&r->l, r->client_closes);
    if (r->v.c)
        tnl_conn_close(r->v.c);
    UNTIL(&r->l, !r->v.c);
    tnl_tls_client_unref(r->tls);
    test_peer_free(&r->v);
    fake_server_close(&r->server);
    test_loop_close(&r->l);
    assert_int_equal(r->client_closes, 1);
    assert_int_equal(memory.live, 0);
}

static const tnl_stream_events no_events = {.data = NULL};

/* A visitor speaks TLS over a stream; with `plain` he does not. */
static void guest_open(rig *r, bool plain)
{
    tnl_stream *s;
    tnl_conn *lower, *c;
    r->v.eofs = r->v.closes = 0;
    assert_int_equal(fake_server_open_stream(&r->server, r->tunnel, &s, &no_events, NULL), 0);
    assert_int_equal(tnl_stream_conn(&lower, r->l.loop, s, NULL, &tnl_conn_no_events, NULL), 0);
    if (plain) {
        test_peer_attach(&r->v, lower);
        tnl_conn_resume(lower);
        return;
    }
    assert_int_equal(tnl_tls_connect(&c, r->tls, lower, "secure.test", &test_peer_events, &r->v),
                     0);
    r->v.c = c;
    UNTIL(&r->l, r->v.readies || r->v.closes);
    assert_int_equal(r->v.closes, 0);
    tnl_conn_resume(c);
    UNTIL(&r->l, r->visitors);
}

static void make_certs(test_certs *certs)
{
    test_certs_open(certs);
    test_certs_make(certs, &(test_cert_spec){.file = "one", .names = "secure.test", .ca = true});
}

static uint64_t hash_of(uint64_t total)
{
    uint8_t bytes[4096];
    uint64_t hash = 0;
    for (uint64_t at = 0; at < total;) {
        size_t n = total - at < sizeof(bytes) ? (size_t)(total - at) : sizeof(bytes);
        test_fill(bytes, n, at);
        hash = test_hash(hash, bytes, n);
        at += n;
    }
    return hash;
}

/* --- bytes and ends --------------------------------------------------------------------------- */

static void both_directions_at_once(void **state)
{
    rig r;
    enum { TOTAL = 2 * MB + 17 };
    rig_open(&r, *state);
    r.echo = true;
    guest_open(&r, false);
    r.v.room = 0; /* reads nothing for a while */
    for (int i = 0; i < 200; i++) {
        (void)test_pump(r.v.c, &r.sent, TOTAL, 30000);
        test_turn(&r.l);
    }
    assert_true(r.sent < TOTAL);
    r.v.room = sizeof(r.v.buffer);
    tnl_conn_resume(r.v.c);
    while (!test_pump(r.v.c, &r.sent, TOTAL, 30000))
        assert_true(test_turn(&r.l));
    tnl_conn_shutdown(r.v.c);
    UNTIL(&r.l, r.v.eofs && r.closes);
    assert_true(r.received == TOTAL && r.v.received == TOTAL);
    assert_true(r.hash == hash_of(TOTAL) && r.v.hash == r.hash);
    assert_true(r.ends == 1 && r.closes == 1 && r.error == 0 && r.rooms > 0);
    assert_true(r.connections == 1 && r.connection_error == 0);
    rig_close(&r);
}

static void what_is_left_comes_again(void **state)
{
    rig r;
    enum { TOTAL = 500000 };
    rig_open(&r, *state);
    r.use = 0;
    guest_open(&r, false);
    for (int i = 0; i < 100; i++) {
        (void)test_pump(r.v.c, &r.sent, TOTAL, 30000);
        test_turn(&r.l);
    }
    assert_true(r.received == 0 && r.data_calls > 0);
    bool sent = false;
    for (size_t i = 1; r.received < TOTAL; i++) {
        r.use = i % 5 == 0 ? 50000 : i % 2000;
        assert_int_equal(tunnel_stream_resume(r.client, r.stream), 0);
        if (!sent && test_pump(r.v.c, &r.sent, TOTAL, 30000)) {
            sent = true;
            tnl_conn_shutdown(r.v.c);
        }
        assert_true(test_turn(&r.l));
    }
    r.use = SIZE_MAX;
    UNTIL(&r.l, r.ends);
    assert_true(r.hash == hash_of(TOTAL));
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "bye", 3), 3);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    UNTIL(&r.l, r.closes && r.v.eofs);
    assert_int_equal(r.error, 0);
    assert_int_equal(r.v.received, 3);
    rig_close(&r);
}

static void the_app_may_end_first(void **state)
{
    rig r;
    rig_open(&r, *state);
    guest_open(&r, false);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "hello", 5), 5);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "x", 1), TUNNEL_E_STATE);
    UNTIL(&r.l, r.v.eofs);
    assert_int_equal(r.v.received, 5);
    assert_int_equal(test_send(r.v.c, "abc", 3), 0);
    UNTIL(&r.l, r.received == 3);
    tnl_conn_shutdown(r.v.c);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.error, 0);
    rig_close(&r);
}

static void resets(void **state)
{
    rig r;
    rig_open(&r, *state);
    guest_open(&r, false);
    tnl_conn_reset(r.v.c);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.error, TUNNEL_E_RESET);
    UNTIL(&r.l, !r.v.c);
    r.visitors = r.closes = r.v.readies = 0;
    guest_open(&r, false);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, TUNNEL_E_DENIED, "no"), 0);
    assert_int_equal(r.closes, 0);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "x", 1), TUNNEL_E_STATE);
    UNTIL(&r.l, r.closes && !r.v.c);
    assert_int_equal(r.error, TUNNEL_E_DENIED);
    rig_close(&r);
}

/* The app never hears of who does not get through the handshake. */
static void who_speaks_no_tls_is_no_visitor(void **state)
{
    rig r;
    rig_open(&r, *state);
    guest_open(&r, true);
    assert_int_equal(test_send(r.v.c, "GET / HTTP/1.1\r\n\r\n", 18), 0);
    UNTIL(&r.l, r.connections && (r.v.eofs || r.v.closes));
    assert_true(r.connection_error < 0);
    assert_int_equal(r.visitors, 0);
    rig_close(&r);
}

static void a_handshake_outlives_nothing(void **state)
{
    for (int how = 0; how < 3; how++) {
        rig r;
        rig_open(&r, *state);
        guest_open(&r, true); /* and says nothing */
        for (int i = 0; i < 20; i++)
            test_turn(&r.l);
        if (how == 0)
            close_client(&r);
        else if (how == 1)
            tnl_conn_reset(r.v.c);
        else
            fake_server_end_session(&r.server, TUNNEL_E_GONE, NULL);
        UNTIL(&r.l, r.v.closes || r.client_closes);
        assert_int_equal(r.visitors, 0);
        rig_close(&r);
    }
}

/* --- anything from inside of anything --------------------------------------------------------- */

static void do_reset(rig *r)
{
    (void)tunnel_stream_reset(r->client, r->stream, TUNNEL_E_DENIED, "enough");
}

static void do_end(rig *r)
{
    (void)tunnel_stream_end(r->client, r->stream);
}

static void do_all(rig *r)
{
    (void)tunnel_client_unpublish(r->client, r->tunnel);
    do_end(r);
    (void)tunnel_stream_resume(r->client, r->stream);
    (void)tunnel_stream_on_data(r->client, r->stream, on_data, r);
    (void)tunnel_stream_write(r->client, r->stream, "x", 1);
    do_reset(r);
    close_client(r);
}

static void do_drop(rig *r)
{
    fake_server_end_session(&r->server, TUNNEL_E_GONE, "over");
}

static void live(test_certs *certs, moment m, void (*f)(rig *r))
{
    rig r;
    enum { TOTAL = 900000 };
    rig_open(&r, certs);
    r.echo = true;
    r.act_in = m;
    r.act = f;
    guest_open(&r, false);
    r.v.room = 0;
    for (int i = 0; i < 100 && r.v.c && !r.closes; i++) {
        (void)test_pump(r.v.c, &r.sent, TOTAL, 30000);
        test_turn(&r.l);
    }
    r.v.room = sizeof(r.v.buffer);
    if (r.v.c)
        tnl_conn_resume(r.v.c);
    bool sent = false;
    while (!r.closes) {
        if (r.v.c && !sent && test_pump(r.v.c, &r.sent, TOTAL, 30000)) {
            sent = true;
            tnl_conn_shutdown(r.v.c);
        }
        assert_true(test_turn(&r.l));
    }
    assert_null(r.act);
    for (int i = 0; i < 5; i++)
        test_turn(&r.l);
    assert_int_equal(r.closes, 1);
    rig_close(&r);
}

static void anything_from_anywhere(void **state)
{
    static void (*const actions[])(rig *) = {do_reset, do_end, close_client, do_all, do_drop};
    for (moment m = IN_VISITOR; m < MOMENTS; m++)
        for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++)
            live(*state, m, actions[i]);
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool failing;
static size_t nth, seen;

static bool fails(void)
{
    return failing && ++seen == nth;
}

/* As test_pump(), with writes that may fail: closed() follows then. */
static bool say(rig *r, uint64_t total)
{
    uint8_t bytes[10000];
    while (r->sent < total && tnl_conn_pending(r->v.c) == 0) {
        uint64_t left = total - r->sent;
        tnl_iov v = {bytes, left < sizeof(bytes) ? (size_t)left : sizeof(bytes)};
        test_fill(bytes, v.n, r->sent);
        if (tnl_conn_write(r->v.c, &v, 1))
            return false;
        r->sent += v.n;
    }
    return r->sent == total;
}

/* With the nth allocation failing from the visitor's coming on: all arrives, or both sides hear of
 * the end, and the app at most once. True: there were fewer. */
static bool live_without_memory(test_certs *certs, size_t n)
{
    rig r;
    tnl_stream *s;
    tnl_conn *lower = NULL;
    enum { TOTAL = 40000 };
    rig_open(&r, certs);
    r.echo = true;
    memory.fails = fails;
    nth = n;
    seen = 0;
    failing = true;
    int rc = fake_server_open_stream(&r.server, r.tunnel, &s, &no_events, NULL);
    if (rc == 0 && tnl_stream_conn(&lower, r.l.loop, s, NULL, &tnl_conn_no_events, NULL)) {
        tnl_stream_release(s);
        rc = TUNNEL_E_NOMEM;
    }
    if (rc == 0)
        rc = tnl_tls_connect(&r.v.c, r.tls, lower, "secure.test", &test_peer_events, &r.v);
    if (rc)
        r.v.c = NULL;
    bool sent = false;
    while (r.v.c && !r.v.eofs && r.server.session) {
        if (r.v.readies && !sent && say(&r, TOTAL)) {
            sent = true;
            tnl_conn_shutdown(r.v.c);
        }
        if (r.v.readies && r.v.c)
            tnl_conn_resume(r.v.c);
        assert_true(test_turn(&r.l));
    }
    failing = false;
    bool all = seen < n;
    if (all)
        assert_true(r.v.received == TOTAL && r.v.hash == hash_of(TOTAL));
    if (r.v.c)
        tnl_conn_close(r.v.c);
    if (r.visitors)
        UNTIL(&r.l, r.closes);
    assert_true(r.closes == (r.visitors ? 1U : 0U));
    rig_close(&r);
    memory.fails = NULL;
    return all;
}

static void each_allocation_can_fail(void **state)
{
    size_t n = 1;
    while (!live_without_memory(*state, n))
        n++;
    assert_true(n > 8);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    test_certs certs;
    make_certs(&certs);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(both_directions_at_once, &certs),
        cmocka_unit_test_prestate(what_is_left_comes_again, &certs),
        cmocka_unit_test_prestate(the_app_may_end_first, &certs),
        cmocka_unit_test_prestate(resets, &certs),
        cmocka_unit_test_prestate(who_speaks_no_tls_is_no_visitor, &certs),
        cmocka_unit_test_prestate(a_handshake_outlives_nothing, &certs),
        cmocka_unit_test_prestate(anything_from_anywhere, &certs),
        cmocka_unit_test_prestate(each_allocation_can_fail, &certs),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    test_certs_close(&certs);
    return failed;
}
