/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/splice.h"

#include <stdio.h>
#include <string.h>

#include "forward/stream_conn.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/sessions.h"
#include "support/tls_rig.h"
#include "tunnel/error.h"

/*
 * A visitor that speaks TLS through two sessions, a forwarder that ends it at the client's end, and
 * a local service that gets what is within.
 */
typedef struct rig {
    test_loop l;
    test_sessions sessions;
    tnl_forwarder *forwarder;
    tnl_tls_server *tls;
    tnl_tls_client *trust;
    tnl_upstream upstream;
    tnl_listener *listener;
    test_peer up;
    bool up_mute;
    test_peer v;    /* the visitor, within TLS */
    test_peer bare; /* or without */
    tnl_forward_options options;
    int take_error; /* what connected() returns */
    unsigned connects, overs, gone;
    int connect_error;
    tnl_forward_end end;
    char why[200];
} rig;

static const tnl_address address = {.host = "192.0.2.9", .port = 999};

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    assert_null(r->up.c);
    test_peer_attach(&r->up, c);
    if (!r->up_mute)
        tnl_conn_resume(c);
}

static int on_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    rig *r = user;
    assert_non_null(detail);
    assert_int_equal(c == NULL, error != 0);
    r->connects++;
    r->connect_error = error;
    return r->take_error;
}

static void on_over(void *user, const tnl_forward_end *end)
{
    rig *r = user;
    r->overs++;
    r->end = *end;
    snprintf(r->why, sizeof(r->why), "%s", end->text);
}

static const tnl_forward_events forward_events = {.connected = on_connected, .over = on_over};

/* A stream that is not taken is refused. */
static void on_open(void *user, tnl_stream *s)
{
    rig *r = user;
    int rc = r->forwarder
                 ? tnl_forward_tls(r->forwarder, s, r->tls, &address, &r->upstream, &r->options)
                 : 0;
    assert_true(rc == 0 || memory.fail_at);
}

static void on_gone(void *user)
{
    rig *r = user;
    r->gone++;
}

static void rig_open(rig *r)
{
    char detail[200], text[16];
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    test_peer_init(&r->up);
    test_peer_init(&r->v);
    test_peer_init(&r->bare);
    r->options = (tnl_forward_options){.patient = true, .events = &forward_events, .user = r};
    test_sessions_open(&r->sessions, &r->l, on_open, r);
    assert_int_equal(tnl_tls_server_new_any(&r->tls), 0);
    tls_rig_add(r->tls, "a");
    assert_int_equal(
        tnl_tls_client_new(&r->trust, tls_rig_path("ca", ".crt"), true, detail, sizeof(detail)), 0);
    assert_int_equal(tnl_forwarder_new(&r->forwarder, r->l.loop), 0);
    assert_int_equal(
        tnl_listener_new(&r->listener, r->l.loop, "127.0.0.1:0", on_accept, r, NULL, 0), 0);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(r->listener).port);
    assert_int_equal(tnl_upstream_parse(&r->upstream, text, NULL, detail, sizeof(detail)), 0);
}

/* The visitor's connection before TLS. */
static tnl_conn *lower(rig *r)
{
    tnl_stream *s;
    tnl_conn *c;
    static const tnl_stream_events none = {.data = NULL};
    tnl_mux *m = tnl_session_mux(r->sessions.server.session);
    assert_int_equal(tnl_mux_open(m, &s, (const uint8_t *)"x", 1, &none, NULL), 0);
    assert_int_equal(tnl_stream_conn(&c, r->l.loop, s, NULL, &tnl_conn_no_events, NULL), 0);
    return c;
}

static void visit(rig *r)
{
    assert_int_equal(
        tnl_tls_connect(&r->v.c, r->trust, lower(r), "a.test", &test_peer_events, &r->v), 0);
    tnl_conn_resume(r->v.c);
}

static void live(rig *r)
{
    visit(r);
    UNTIL(&r->l, r->v.readies && r->connects && r->up.c);
    assert_int_equal(r->connect_error, 0);
}

static void rig_close(rig *r)
{
    if (r->forwarder)
        tnl_forwarder_free(r->forwarder, on_gone, r);
    assert_int_equal(r->gone, 0); /* never from inside the call */
    UNTIL(&r->l, r->gone == 1);
    test_peer *peers[] = {&r->up, &r->v, &r->bare};
    for (int i = 0; i < 3; i++) {
        if (peers[i]->c)
            tnl_conn_close(peers[i]->c);
        UNTIL(&r->l, !peers[i]->c);
        test_peer_free(peers[i]);
    }
    test_sessions_close(&r->sessions, &r->l);
    tnl_listener_free(r->listener);
    tnl_upstream_clear(&r->upstream);
    tnl_tls_client_unref(r->trust);
    tnl_tls_server_unref(r->tls);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

static void turns(rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void bytes_go_both_ways(void **state)
{
    (void)state;
    enum { TOTAL = 3 << 20 };
    rig r;
    uint64_t sent = 0;
    rig_open(&r);
    r.up.echo = r.up.echo_end = true;
    live(&r);
    UNTIL(&r.l, test_pump(r.v.c, &sent, TOTAL, 50000));
    tnl_conn_shutdown(r.v.c);
    UNTIL(&r.l, r.v.eofs);
    assert_int_equal(r.v.received, TOTAL);
    assert_true(r.v.hash == test_hash_of(TOTAL));
    assert_int_equal(r.up.received, TOTAL);
    UNTIL(&r.l, r.overs);
    assert_int_equal(r.end.error, 0);
    assert_string_equal(r.why, "");
    assert_int_equal(r.end.to_conn, TOTAL);
    assert_int_equal(r.end.to_stream, TOTAL);
    assert_int_equal(tnl_forwarder_count(r.forwarder), 0);
    assert_int_equal(r.up.error, 0);
    rig_close(&r);
    assert_int_equal(r.overs, 1);
}

static void a_head_goes_first(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.options.head = (const uint8_t *)"PROXY UNKNOWN\r\n";
    r.options.head_n = 15;
    live(&r);
    assert_int_equal(test_send(r.v.c, "hello", 5), 0);
    UNTIL(&r.l, r.up.received == 20);
    assert_memory_equal(r.up.bytes, "PROXY UNKNOWN\r\nhello", 20);
    tnl_conn_reset(r.v.c);
    UNTIL(&r.l, r.overs);
    assert_int_equal(r.end.to_conn, 5);
    rig_close(&r);
}

static void who_does_not_read_is_waited_for(void **state)
{
    (void)state;
    enum { TOTAL = 12 << 20 };
    for (int slow = 0; slow < 2; slow++) {
        rig r;
        uint64_t sent = 0, before = 1;
        rig_open(&r);
        r.up_mute = slow == 0;
        live(&r);
        test_peer *reader = slow == 0 ? &r.up : &r.v;
        tnl_conn *writer = slow == 0 ? r.v.c : r.up.c;
        if (slow)
            tnl_conn_pause(r.v.c);
        /* Until nothing moves any more. */
        while (before != sent) {
            before = sent;
            for (int i = 0; i < 50; i++) {
                turns(&r, 1);
                assert_false(test_pump(writer, &sent, TOTAL, 16384));
            }
        }
        assert_int_equal(reader->received, 0);
        tnl_conn_resume(reader->c);
        UNTIL(&r.l, test_pump(writer, &sent, TOTAL, 16384));
        tnl_conn_shutdown(writer);
        UNTIL(&r.l, reader->eofs);
        assert_int_equal(reader->received, TOTAL);
        assert_true(reader->hash == test_hash_of(TOTAL));
        rig_close(&r);
    }
}

/* --- ends ------------------------------------------------------------------------------------- */

static void each_direction_ends_by_itself(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        rig r;
        uint64_t sent = 0;
        rig_open(&r);
        live(&r);
        test_peer *a = first == 0 ? &r.v : &r.up, *b = first == 0 ? &r.up : &r.v;
        assert_int_equal(test_send(a->c, "bye", 3), 0);
        tnl_conn_shutdown(a->c);
        UNTIL(&r.l, b->eofs);
        assert_int_equal(b->received, 3);
        UNTIL(&r.l, test_pump(b->c, &sent, 300000, 20000));
        tnl_conn_shutdown(b->c);
        UNTIL(&r.l, a->eofs);
        assert_int_equal(a->received, 300000);
        assert_true(a->hash == test_hash_of(300000));
        UNTIL(&r.l, r.overs);
        assert_int_equal(r.end.error, 0);
        assert_int_equal(a->closes + b->closes, b == &r.up ? b->closes : a->closes);
        rig_close(&r);
    }
}

/* Both have ended; the reader is slow, and gets all of it nevertheless. */
static void what_waits_arrives(void **state)
{
    (void)state;
    for (int slow = 0; slow < 2; slow++) {
        rig r;
        uint64_t sent = 0;
        rig_open(&r);
        r.up_mute = slow == 0;
        live(&r);
        test_peer *reader = slow == 0 ? &r.up : &r.v, *writer = slow == 0 ? &r.v : &r.up;
        if (slow)
            tnl_conn_pause(r.v.c);
        tnl_conn_shutdown(reader->c);
        UNTIL(&r.l, writer->eofs);
        UNTIL(&r.l, test_pump(writer->c, &sent, 250000, 16384));
        tnl_conn_shutdown(writer->c);
        turns(&r, 30);
        tnl_conn_resume(reader->c);
        UNTIL(&r.l, reader->eofs || !reader->c);
        assert_int_equal(reader->received, 250000);
        assert_true(reader->hash == test_hash_of(250000));
        UNTIL(&r.l, r.overs);
        assert_int_equal(r.end.error, 0);
        rig_close(&r);
    }
}

static void a_visitor_who_breaks_off(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        rig r;
        rig_open(&r);
        live(&r);
        assert_int_equal(test_send(r.v.c, "half", 4), 0);
        UNTIL(&r.l, r.up.received == 4);
        if (how == 0)
            tnl_conn_reset(r.v.c);
        else
            test_sessions_close(&r.sessions, &r.l); /* all links are lost */
        UNTIL(&r.l, r.overs && !r.up.c);
        assert_int_equal(r.up.error, TUNNEL_E_RESET);
        assert_int_equal(r.up.eofs, 0);
        assert_true(r.end.error < 0);
        assert_string_not_equal(r.why, "");
        rig_close(&r);
    }
}

/* What it said arrives; that it is not all can be seen. */
static void an_upstream_that_breaks_off(void **state)
{
    (void)state;
    enum { SAID = 200000 };
    rig r;
    uint64_t sent = 0;
    rig_open(&r);
    live(&r);
    tnl_conn_pause(r.v.c);
    UNTIL(&r.l, test_pump(r.up.c, &sent, SAID, 16384) && tnl_conn_pending(r.up.c) == 0);
    turns(&r, 20);
    tnl_conn_reset(r.up.c);
    turns(&r, 20);
    tnl_conn_resume(r.v.c);
    UNTIL(&r.l, !r.v.c);
    assert_int_equal(r.v.eofs, 0);
    assert_true(r.v.error < 0);
    assert_true(r.v.received > 0);
    UNTIL(&r.l, r.overs);
    assert_int_equal(r.end.error, TUNNEL_E_RESET);
    rig_close(&r);
}

static void an_upstream_that_is_not_there(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.upstream.port = 1;
    visit(&r);
    UNTIL(&r.l, r.overs && !r.v.c);
    assert_int_equal(r.connects, 1);
    assert_int_equal(r.connect_error, TUNNEL_E_REFUSED);
    assert_int_equal(r.end.error, TUNNEL_E_REFUSED);
    assert_non_null(strstr(r.why, "refused"));
    assert_int_equal(r.v.readies, 1);
    assert_int_equal(r.v.eofs, 0);
    rig_close(&r);
}

static void an_upstream_that_is_not_wanted(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.take_error = TUNNEL_E_LOOP;
    visit(&r);
    UNTIL(&r.l, r.overs && !r.v.c);
    assert_int_equal(r.end.error, TUNNEL_E_LOOP);
    UNTIL(&r.l, r.up.closes);
    assert_int_equal(r.up.received, 0);
    rig_close(&r);
}

/* The service hears nothing of it. */
static void a_visitor_without_tls(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    test_peer_attach(&r.bare, lower(&r));
    tnl_conn_resume(r.bare.c);
    assert_int_equal(test_send(r.bare.c, "GET / HTTP/1.0\r\n\r\n", 18), 0);
    UNTIL(&r.l, r.overs && r.bare.eofs + r.bare.closes);
    assert_int_equal(r.end.error, TUNNEL_E_TLS);
    assert_int_equal(r.connects, 0);
    rig_close(&r);
}

static void it_can_be_ended_at_any_time(void **state)
{
    (void)state;
    for (int when = 0; when < 40; when++) {
        rig r;
        rig_open(&r);
        r.up.echo = true;
        visit(&r);
        turns(&r, (unsigned)when);
        if (r.v.c && r.v.readies)
            (void)test_send(r.v.c, "hello", 5);
        turns(&r, (unsigned)when % 5);
        tnl_forwarder_free(r.forwarder, on_gone, &r);
        r.forwarder = NULL;
        unsigned gone = r.gone;
        assert_int_equal(gone, 0);
        UNTIL(&r.l, r.gone);
        r.gone = 0;
        r.forwarder = NULL;
        assert_int_equal(tnl_forwarder_new(&r.forwarder, r.l.loop), 0);
        if (r.overs)
            assert_int_equal(r.end.error, TUNNEL_E_GONE);
        assert_true(r.overs <= 1);
        rig_close(&r);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Each allocation fails once: no crash, no leak, and an end is told for what was taken. */
static void each_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t i = 1; i < 60; i++) {
        rig r;
        rig_open(&r);
        r.up.echo = r.up.echo_end = true;
        tnl_conn *c = lower(&r);
        assert_int_equal(tnl_tls_connect(&r.v.c, r.trust, c, "a.test", &test_peer_events, &r.v), 0);
        tnl_conn_resume(r.v.c);
        memory.count = 0;
        memory.fail_at = i;
        /* May be refused at once. */
        UNTIL(&r.l, r.v.readies || !r.v.c || r.overs);
        if (r.v.c)
            (void)test_send(r.v.c, "hello", 5);
        for (int k = 0; k < 60 && r.v.c && r.v.received < 5; k++)
            turns(&r, 1);
        if (r.v.c)
            tnl_conn_close(r.v.c);
        UNTIL(&r.l, !r.v.c);
        turns(&r, 20);
        memory.fail_at = 0;
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(a_head_goes_first),
        cmocka_unit_test(who_does_not_read_is_waited_for),
        cmocka_unit_test(each_direction_ends_by_itself),
        cmocka_unit_test(what_waits_arrives),
        cmocka_unit_test(a_visitor_who_breaks_off),
        cmocka_unit_test(an_upstream_that_breaks_off),
        cmocka_unit_test(an_upstream_that_is_not_there),
        cmocka_unit_test(an_upstream_that_is_not_wanted),
        cmocka_unit_test(a_visitor_without_tls),
        cmocka_unit_test(it_can_be_ended_at_any_time),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, tls_rig_make_certs, tls_rig_remove_certs);
}
