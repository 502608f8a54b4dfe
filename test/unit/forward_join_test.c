/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "forward/forward.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/memory_conn.h"
#include "support/sessions.h"
#include "tunnel/error.h"

/* Streams joined to connections that are there already, and what an owner is told. */

typedef struct rig {
    test_loop l;
    test_sessions sessions;
    tnl_forwarder *forwarder;
    test_visitor v; /* the stream's far end */
    test_peer near; /* the connection; joined, it belongs to the forwarder */
    test_peer far;  /* its other end */
    tnl_forward_options options;
    uint8_t early[TNL_FORWARD_EARLY + 1];
    size_t early_n;
    tnl_upstream upstream; /* with a port: streams are started, not joined */
    int rc;
    unsigned opens, gone;
    /* told */
    unsigned connects, overs;
    int connected_error;
    bool connected_conn;
    int refuse;
    int error;
    char text[300];
    uint64_t to_conn, to_stream;
    bool free_in_over;
} rig;

static void on_gone(void *user)
{
    ((rig *)user)->gone++;
}

static int on_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    rig *r = user;
    (void)detail;
    r->connects++;
    r->connected_error = error;
    r->connected_conn = c && tnl_conn_peer(c).port;
    return r->refuse;
}

static void free_forwarder(rig *r)
{
    tnl_forwarder *f = r->forwarder;
    r->forwarder = NULL;
    if (f)
        tnl_forwarder_free(f, on_gone, r);
}

static void on_over(void *user, const tnl_forward_end *end)
{
    rig *r = user;
    r->overs++;
    r->error = end->error;
    snprintf(r->text, sizeof(r->text), "%s", end->text);
    r->to_conn = end->to_conn;
    r->to_stream = end->to_stream;
    if (r->free_in_over)
        free_forwarder(r);
}

static const tnl_forward_events events = {.connected = on_connected, .over = on_over};

static void on_open(void *user, tnl_stream *s)
{
    rig *r = user;
    r->opens++;
    r->options.events = &events;
    r->options.user = r;
    r->rc = r->upstream.port
                ? tnl_forward_start(r->forwarder, s, &r->upstream, &r->options)
                : tnl_forward_join(r->forwarder, s, r->near.c, r->early, r->early_n, &r->options);
}

static void rig_open(rig *r)
{
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    test_sessions_open(&r->sessions, &r->l, on_open, r);
    assert_int_equal(tnl_forwarder_new(&r->forwarder, r->l.loop), 0);
    test_tcp_pair(&r->l, &r->near, &r->far);
    test_fill(r->early, sizeof(r->early), 0);
    r->far.keep = 1000;
    tnl_conn_resume(r->far.c);
}

/* Opens the stream from the other end and waits until it was joined. */
static void join(rig *r)
{
    assert_int_equal(test_visitor_open(&r->v, &r->sessions), 0);
    UNTIL(&r->l, r->opens);
    if (r->rc == 0 && !r->upstream.port)
        r->near.c = NULL;
}

static void rig_close(rig *r)
{
    free_forwarder(r);
    UNTIL(&r->l, r->gone == 1);
    test_peer *peers[] = {&r->near, &r->far};
    for (int i = 0; i < 2; i++) {
        if (peers[i]->c)
            tnl_conn_close(peers[i]->c);
        UNTIL(&r->l, !peers[i]->c);
        test_peer_free(peers[i]);
    }
    test_visitor_release(&r->v);
    test_sessions_close(&r->sessions, &r->l);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void a_joined_connection_is_pumped(void **state)
{
    (void)state;
    enum { TOTAL = 2 << 20 };
    rig r;
    uint64_t sent = 0;
    rig_open(&r);
    r.v.to_send = TOTAL;
    join(&r);
    UNTIL(&r.l, test_pump(r.far.c, &sent, TOTAL, 30000));
    tnl_conn_shutdown(r.far.c);
    UNTIL(&r.l, r.v.fins && r.far.eofs);
    assert_int_equal(r.v.received, TOTAL);
    assert_int_equal(r.far.received, TOTAL);
    assert_true(r.v.hash == test_hash_of(TOTAL) && r.far.hash == r.v.hash);
    UNTIL(&r.l, r.overs);
    assert_int_equal(r.error, 0);
    assert_string_equal(r.text, "");
    assert_true(r.to_conn == TOTAL && r.to_stream == TOTAL);
    assert_int_equal(r.connects, 0);
    rig_close(&r);
    assert_int_equal(r.overs, 1);
}

static void early_bytes_go_first(void **state)
{
    (void)state;
    rig r;
    uint64_t sent = TNL_FORWARD_EARLY;
    rig_open(&r);
    r.early_n = TNL_FORWARD_EARLY;
    join(&r);
    UNTIL(&r.l, test_pump(r.far.c, &sent, 300000, 10000));
    UNTIL(&r.l, r.v.received == 300000);
    assert_true(r.v.hash == test_hash_of(300000));
    tnl_conn_shutdown(r.far.c);
    UNTIL(&r.l, r.overs);
    assert_true(r.to_stream == 300000);
    rig_close(&r);
}

static void a_head_goes_first(void **state)
{
    (void)state;
    static const uint8_t head[] = "PROXY UNKNOWN\r\n";
    rig r;
    rig_open(&r);
    r.options.head = head;
    r.options.head_n = sizeof(head) - 1;
    r.v.keep_open = true;
    join(&r);
    /* Also for a visitor who says nothing. */
    UNTIL(&r.l, r.far.received == 15);
    r.v.to_send = 100;
    test_visitor_send(&r.v);
    UNTIL(&r.l, r.far.received == 115);
    assert_memory_equal(r.far.bytes, head, 15);
    test_visitor_release(&r.v);
    UNTIL(&r.l, r.overs);
    assert_true(r.to_conn == 100);
    rig_close(&r);
}

static void a_connection_may_have_ended_before(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    tnl_conn_shutdown(r.far.c);
    tnl_conn_resume(r.near.c);
    UNTIL(&r.l, r.near.eofs);
    r.early_n = 10;
    r.v.to_send = 1000;
    join(&r);
    UNTIL(&r.l, r.v.fins);
    assert_int_equal(r.v.received, 10);
    UNTIL(&r.l, r.far.eofs);
    assert_int_equal(r.far.received, 1000);
    UNTIL(&r.l, r.overs);
    assert_int_equal(r.error, 0);
    rig_close(&r);
}

/* --- ends ------------------------------------------------------------------------------------- */

/* What waits at the end is not given up, and the connection closes once it is gone. */
static void a_slow_reader_gets_the_rest(void **state)
{
    (void)state;
    enum { TOTAL = 8 << 20 };
    for (int patient = 0; patient < 2; patient++) {
        rig r;
        rig_open(&r);
        r.options.patient = patient;
        tnl_conn_pause(r.far.c);
        tnl_conn_shutdown(r.far.c);
        r.v.to_send = TOTAL;
        join(&r);
        UNTIL(&r.l, r.v.fins);
        for (int i = 0; i < 20; i++)
            assert_true(test_turn(&r.l));
        tnl_conn_resume(r.far.c);
        UNTIL(&r.l, r.far.eofs);
        assert_int_equal(r.far.received, TOTAL);
        UNTIL(&r.l, r.overs);
        assert_int_equal(r.error, 0);
        rig_close(&r);
    }
}

static void resets_are_told_with_their_reason(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.v.keep_open = true;
    join(&r);
    tnl_conn_reset(r.far.c);
    UNTIL(&r.l, r.v.resets && r.overs);
    assert_int_equal(r.v.code, -TUNNEL_E_RESET);
    assert_int_equal(r.error, TUNNEL_E_RESET);
    assert_string_equal(r.text, tunnel_strerror(TUNNEL_E_RESET));
    rig_close(&r);

    rig_open(&r);
    r.v.keep_open = true;
    join(&r);
    tnl_stream_reset(r.v.stream, TUNNEL_E_DENIED, "not for \x1byou");
    UNTIL(&r.l, !r.far.c && r.overs);
    assert_int_equal(r.far.error, TUNNEL_E_RESET);
    assert_int_equal(r.error, TUNNEL_E_DENIED);
    assert_string_equal(r.text, "not for \\x1byou");
    rig_close(&r);
}

/* Codes by which the other end knows that nothing has reached the upstream are for failures to
 * connect alone, whatever an old connection dies of. */
static void what_was_connected_is_not_refused(void **state)
{
    (void)state;
    static const int codes[] = {TUNNEL_E_REFUSED, TUNNEL_E_UNREACHABLE, TUNNEL_E_ACCESS,
                                TUNNEL_E_TIMEOUT};
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
        rig r;
        memory_conn *near, *far;
        rig_open(&r);
        r.v.keep_open = true;
        tnl_conn *tcp = r.near.c;
        test_memory_pair(r.l.loop, &near, &far, 1000);
        r.near.c = &near->base;
        join(&r);
        r.near.c = tcp;
        near->error = codes[i];
        tnl_conn_close(&near->base);
        UNTIL(&r.l, r.v.resets && r.overs);
        assert_int_equal(r.v.code, codes[i] == TUNNEL_E_TIMEOUT ? -TUNNEL_E_TIMEOUT : -TUNNEL_E_IO);
        assert_int_equal(r.error, codes[i]);
        tnl_conn_set_events(&far->base, &tnl_conn_no_events, NULL);
        tnl_conn_close(&far->base);
        rig_close(&r);
    }
}

static void freeing_the_forwarder_tells_all(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.v.keep_open = true;
    join(&r);
    free_forwarder(&r);
    UNTIL(&r.l, r.gone);
    assert_int_equal(r.overs, 1);
    assert_int_equal(r.error, TUNNEL_E_GONE);
    UNTIL(&r.l, r.v.resets && !r.far.c);
    assert_int_equal(r.far.error, TUNNEL_E_RESET);
    rig_close(&r);

    rig_open(&r);
    r.v.keep_open = r.free_in_over = true;
    join(&r);
    tnl_conn_reset(r.far.c);
    UNTIL(&r.l, r.gone);
    assert_int_equal(r.overs, 1);
    rig_close(&r);
}

/* --- dialing ---------------------------------------------------------------------------------- */

static void on_accept(void *user, tnl_conn *c)
{
    tnl_conn **out = user;
    *out = c;
}

static void an_owner_may_refuse_a_connection(void **state)
{
    (void)state;
    rig r;
    tnl_listener *listener;
    tnl_conn *accepted = NULL;
    char detail[200], text[16];
    test_peer up;
    rig_open(&r);
    assert_int_equal(
        tnl_listener_new(&listener, r.l.loop, "127.0.0.1:0", on_accept, &accepted, NULL, 0), 0);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(listener).port);
    assert_int_equal(tnl_upstream_parse(&r.upstream, text, NULL, detail, sizeof(detail)), 0);
    r.refuse = TUNNEL_E_LOOP;
    r.v.keep_open = true;
    join(&r);
    UNTIL(&r.l, r.v.resets && r.overs && accepted);
    assert_int_equal(r.connects, 1);
    assert_int_equal(r.connected_error, 0);
    assert_true(r.connected_conn);
    assert_int_equal(r.v.code, -TUNNEL_E_LOOP);
    assert_string_equal(r.v.text, tunnel_strerror(TUNNEL_E_LOOP));
    assert_int_equal(r.error, TUNNEL_E_LOOP);
    test_peer_init(&up);
    test_peer_attach(&up, accepted);
    tnl_conn_resume(accepted);
    UNTIL(&r.l, !up.c);
    assert_int_equal(up.error, TUNNEL_E_RESET);
    test_peer_free(&up);
    tnl_listener_free(listener);
    rig_close(&r);
}

static void an_owner_hears_of_a_failure_to_connect(void **state)
{
    (void)state;
    rig r;
    char detail[200], path[100];
    rig_open(&r);
    snprintf(path, sizeof(path), "unix:/nonexistent/socket");
    assert_int_equal(tnl_upstream_parse(&r.upstream, path, NULL, detail, sizeof(detail)), 0);
    r.upstream.port = 1; /* so that it is started */
    r.v.keep_open = true;
    join(&r);
    UNTIL(&r.l, r.v.resets && r.overs);
    assert_int_equal(r.connects, 1);
    assert_int_equal(r.connected_error, TUNNEL_E_NOT_FOUND);
    assert_false(r.connected_conn);
    assert_int_equal(r.error, TUNNEL_E_NOT_FOUND);
    assert_non_null(strstr(r.text, "/nonexistent/socket"));
    assert_non_null(strstr(r.v.text, "/nonexistent/socket"));
    rig_close(&r);
}

/* --- refused ---------------------------------------------------------------------------------- */

static void what_is_too_much_is_not_taken(void **state)
{
    (void)state;
    static const uint8_t head[TNL_FORWARD_HEAD + 1];
    rig r;
    for (int which = 0; which < 2; which++) {
        rig_open(&r);
        r.early_n = which ? 10 : TNL_FORWARD_EARLY + 1;
        r.options.head = head;
        r.options.head_n = which ? sizeof(head) : 0;
        r.v.keep_open = true;
        join(&r);
        assert_int_equal(r.rc, TUNNEL_E_INVALID);
        UNTIL(&r.l, r.v.resets); /* a stream that is not taken is refused */
        assert_int_equal(r.far.closes, 0);
        assert_int_equal(tnl_forwarder_count(r.forwarder), 0);
        rig_close(&r);
        assert_int_equal(r.overs, 0);
    }
}

static size_t join_once(size_t nth)
{
    static const uint8_t head[] = "head";
    rig r;
    rig_open(&r);
    r.early_n = 1000;
    r.options.head = head;
    r.options.head_n = 4;
    r.v.to_send = 50000;
    memory.count = 0;
    memory.fail_at = nth;
    bool opened = test_visitor_open(&r.v, &r.sessions) == 0;
    UNTIL(&r.l, !opened || r.opens || r.v.resets || !r.sessions.server.session);
    if (r.opens && r.rc == 0) {
        r.near.c = NULL;
        if (r.far.c)
            tnl_conn_shutdown(r.far.c);
        UNTIL(&r.l, r.overs || !r.sessions.server.session);
        if (r.overs && !r.error)
            assert_int_equal(r.far.received, 50004);
    }
    size_t n = memory.count;
    memory.fail_at = 0;
    rig_close(&r);
    return n;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = join_once(0);
    assert_true(n > 5);
    for (size_t i = 1; i <= n; i++)
        join_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_joined_connection_is_pumped),
        cmocka_unit_test(early_bytes_go_first),
        cmocka_unit_test(a_head_goes_first),
        cmocka_unit_test(a_connection_may_have_ended_before),
        cmocka_unit_test(a_slow_reader_gets_the_rest),
        cmocka_unit_test(resets_are_told_with_their_reason),
        cmocka_unit_test(what_was_connected_is_not_refused),
        cmocka_unit_test(freeing_the_forwarder_tells_all),
        cmocka_unit_test(an_owner_may_refuse_a_connection),
        cmocka_unit_test(an_owner_hears_of_a_failure_to_connect),
        cmocka_unit_test(what_is_too_much_is_not_taken),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
