/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/forward.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/sessions.h"
#include "tunnel/error.h"

/* A forwarder at the client's end of two sessions, and a local service. */
typedef struct rig {
    test_loop l;
    test_sessions sessions;
    tnl_forwarder *forwarder;
    tnl_upstream upstream;
    tnl_listener *listener;
    test_peer up;      /* the service's end of the first connection */
    test_peer more[2]; /* and of others */
    unsigned accepted;
    bool up_mute; /* reads nothing at first */
    int rc;       /* of the last tnl_forward_start() */
    unsigned gone;
} rig;

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    test_peer *p = r->accepted == 0 ? &r->up : &r->more[r->accepted - 1];
    assert_true(++r->accepted <= 3);
    test_peer_attach(p, c);
    if (!r->up_mute)
        tnl_conn_resume(c);
}

static void on_open(void *user, tnl_stream *s)
{
    rig *r = user;
    r->rc = tnl_forward_start(r->forwarder, s, &r->upstream, NULL);
}

static void on_gone(void *user)
{
    rig *r = user;
    r->gone++;
}

static void rig_open(rig *r)
{
    char detail[200], text[16];
    *r = (rig){.gone = 0};
    memory.live = 0;
    test_loop_open(&r->l);
    test_peer_init(&r->up);
    test_peer_init(&r->more[0]);
    test_peer_init(&r->more[1]);
    test_sessions_open(&r->sessions, &r->l, on_open, r);
    assert_int_equal(tnl_forwarder_new(&r->forwarder, r->l.loop), 0);
    assert_int_equal(
        tnl_listener_new(&r->listener, r->l.loop, "127.0.0.1:0", on_accept, r, NULL, 0), 0);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(r->listener).port);
    assert_int_equal(tnl_upstream_parse(&r->upstream, text, NULL, detail, sizeof(detail)), 0);
}

static void rig_close(rig *r)
{
    if (r->forwarder) {
        tnl_forwarder_free(r->forwarder, on_gone, r);
        assert_int_equal(r->gone, 0); /* never from inside the call */
    }
    tnl_upstream_clear(&r->upstream);
    UNTIL(&r->l, r->gone == 1);
    test_peer *peers[] = {&r->up, &r->more[0], &r->more[1]};
    for (int i = 0; i < 3; i++) {
        if (peers[i]->c)
            tnl_conn_close(peers[i]->c);
        UNTIL(&r->l, !peers[i]->c);
        test_peer_free(peers[i]);
    }
    test_sessions_close(&r->sessions, &r->l);
    if (r->listener)
        tnl_listener_free(r->listener);
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
    test_visitor v = {.to_send = TOTAL};
    rig_open(&r);
    r.up.echo = r.up.echo_end = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, v.fins);
    assert_int_equal(v.received, TOTAL);
    assert_true(v.hash == test_hash_of(TOTAL));
    assert_int_equal(r.up.received, TOTAL);
    assert_true(r.up.hash == v.hash);
    assert_int_equal(v.resets, 0);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    assert_int_equal(r.up.eofs, 1);
    assert_int_equal(r.up.error, 0);
    test_visitor_release(&v);
    rig_close(&r);
}

/* The service listens on a path instead; a socket there holds about 200 KiB. */
static void use_unix(rig *r)
{
    char text[80], detail[200];
    tnl_listener_free(r->listener);
    snprintf(text, sizeof(text), "unix:/tmp/tnl-forward-%d.sock", (int)getpid());
    assert_int_equal(tnl_listener_new(&r->listener, r->l.loop, text, on_accept, r, NULL, 0), 0);
    assert_int_equal(tnl_upstream_parse(&r->upstream, text, NULL, detail, sizeof(detail)), 0);
}

static void it_goes_to_a_unix_socket_too(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 100000};
    rig_open(&r);
    use_unix(&r);
    r.up.echo = r.up.echo_end = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, v.fins);
    assert_true(v.hash == test_hash_of(100000));
    test_visitor_release(&v);
    rig_close(&r);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void the_visitors_end_is_passed_on(void **state)
{
    (void)state;
    rig r;
    uint64_t sent = 0;
    test_visitor v = {.to_send = 10};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.eofs);
    assert_int_equal(r.up.received, 10);
    /* The other direction goes on. */
    UNTIL(&r.l, test_pump(r.up.c, &sent, 300000, 20000));
    UNTIL(&r.l, v.received == 300000);
    assert_int_equal(v.fins, 0);
    tnl_conn_shutdown(r.up.c);
    UNTIL(&r.l, v.fins);
    assert_true(v.hash == test_hash_of(300000));
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    assert_int_equal(v.resets, 0);
    test_visitor_release(&v);
    rig_close(&r);
}

static void the_upstreams_end_is_passed_on(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 10);
    assert_int_equal(test_send(r.up.c, "answer", 6), 0);
    tnl_conn_shutdown(r.up.c);
    UNTIL(&r.l, v.fins);
    assert_int_equal(v.received, 6);
    /* The other direction goes on, and with its end the connection is over. */
    v.to_send = 300000;
    v.keep_open = false;
    test_visitor_send(&v);
    UNTIL(&r.l, r.up.eofs);
    assert_int_equal(r.up.received, 300000);
    assert_true(r.up.hash == test_hash_of(300000));
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    assert_int_equal(v.resets, 0);
    test_visitor_release(&v);
    rig_close(&r);
}

/* Both have ended, but the service is slow to read: it gets all of it. */
static void what_waits_for_the_upstream_arrives(void **state)
{
    (void)state;
    enum { TOTAL = 4 << 20 };
    rig r;
    test_visitor v = {.to_send = TOTAL};
    rig_open(&r);
    r.up_mute = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.c);
    tnl_conn_shutdown(r.up.c);
    UNTIL(&r.l, v.fins);
    tnl_conn_resume(r.up.c);
    UNTIL(&r.l, r.up.eofs);
    assert_int_equal(r.up.received, TOTAL);
    assert_true(r.up.hash == test_hash_of(TOTAL));
    assert_int_equal(v.resets, 0);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    test_visitor_release(&v);
    rig_close(&r);
}

/* Both have ended while the connection's queue is not empty: it is emptied first. */
static void the_last_bytes_are_not_dropped_by_the_upstreams_end(void **state)
{
    (void)state;
    for (uint64_t total = 190000; total < 310000; total += 5000) {
        rig r;
        test_visitor v = {.to_send = total};
        rig_open(&r);
        use_unix(&r);
        r.up_mute = true;
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, r.up.c);
        turns(&r, 10);
        tnl_conn_shutdown(r.up.c);
        UNTIL(&r.l, v.fins);
        turns(&r, 5);
        tnl_conn_resume(r.up.c);
        UNTIL(&r.l, r.up.eofs || !r.up.c);
        assert_int_equal(r.up.received, total);
        assert_int_equal(r.up.error, 0);
        UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
        test_visitor_release(&v);
        rig_close(&r);
    }
}

static void a_reset_of_the_visitor_is_passed_on(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 10);
    test_visitor_release(&v);
    UNTIL(&r.l, !r.up.c);
    assert_int_equal(r.up.error, TUNNEL_E_RESET);
    assert_int_equal(r.up.eofs, 0);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    rig_close(&r);
}

static void a_reset_of_the_upstream_is_passed_on(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 10);
    tnl_conn_reset(r.up.c);
    UNTIL(&r.l, v.resets);
    assert_int_equal(v.code, -TUNNEL_E_RESET);
    assert_int_equal(v.fins, 0);
    assert_string_not_equal(v.text, "");
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    rig_close(&r);
}

/* What it said just before arrives, and in the order in which it happened. */
static void the_last_words_before_a_reset_arrive(void **state)
{
    (void)state;
    enum { SAID = 60000 }; /* more than the first window, and what sockets hold */
    for (int writing = 0; writing < 2; writing++) {
        rig r;
        test_visitor v = {.to_send = 10, .keep_open = true, .blocked = true};
        rig_open(&r);
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, r.up.received == 10);
        static uint8_t said[SAID];
        test_fill(said, SAID, 0);
        assert_int_equal(test_send(r.up.c, said, SAID), 0);
        assert_int_equal(tnl_conn_pending(r.up.c), 0);
        tnl_conn_reset(r.up.c);
        if (writing) {
            v.to_send = 100000;
            test_visitor_send(&v);
        }
        UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
        turns(&r, 5);
        assert_int_equal(v.resets, 0);
        test_visitor_unblock(&v);
        UNTIL(&r.l, v.resets);
        assert_int_equal(v.code, -TUNNEL_E_RESET);
        assert_int_equal(v.fins, 0);
        assert_int_equal(v.received, SAID);
        assert_true(v.hash == test_hash_of(SAID));
        rig_close(&r);
    }
}

/*
 * The service answers an upload early, ends, and takes nothing more: the connection is reset under
 * it. The answer is whole, and it must arrive so, also when the visitor is slow.
 */
static void an_early_answer_arrives_whole(void **state)
{
    (void)state;
    enum { ANSWER = 150000 };
    rig r;
    uint64_t sent = 0;
    test_visitor v = {.to_send = 1000, .keep_open = true, .blocked = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 1000);
    UNTIL(&r.l, test_pump(r.up.c, &sent, ANSWER, 20000) && tnl_conn_pending(r.up.c) == 0);
    tnl_conn_shutdown(r.up.c);
    turns(&r, 20);
    tnl_conn_reset(r.up.c);
    UNTIL(&r.l, !r.up.c);
    v.to_send = 3 << 20;
    test_visitor_send(&v);
    turns(&r, 20);
    assert_int_equal(v.resets, 0);
    test_visitor_unblock(&v);
    UNTIL(&r.l, v.fins);
    assert_int_equal(v.received, ANSWER);
    assert_true(v.hash == test_hash_of(ANSWER));
    /* Then the visitor learns that nobody takes the upload. */
    UNTIL(&r.l, v.resets);
    assert_int_equal(v.code, -TUNNEL_E_RESET);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    test_visitor_release(&v);
    rig_close(&r);
}

static void a_visitor_may_leave_after_an_early_answer(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 1000, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 1000);
    tnl_conn_shutdown(r.up.c);
    UNTIL(&r.l, v.fins);
    tnl_conn_reset(r.up.c);
    UNTIL(&r.l, !r.up.c);
    turns(&r, 5);
    test_visitor_release(&v);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    rig_close(&r);
}

/* --- upstreams that are not there ------------------------------------------------------------- */

static void a_refused_connection_resets_the_stream(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int error;
        const char *says;
    } cases[] = {
        {NULL, TUNNEL_E_REFUSED, "refused"},
        {"unix:/nonexistent/socket", TUNNEL_E_NOT_FOUND, "unix:/nonexistent/socket"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        char detail[200];
        test_visitor v = {.to_send = 50000};
        rig_open(&r);
        tnl_listener_free(r.listener);
        r.listener = NULL;
        if (cases[i].text)
            assert_int_equal(
                tnl_upstream_parse(&r.upstream, cases[i].text, NULL, detail, sizeof(detail)), 0);
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, v.resets);
        assert_int_equal(v.code, -cases[i].error);
        if (!strstr(v.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", v.text, cases[i].says);
        assert_int_equal(tnl_forwarder_count(r.forwarder), 0);
        rig_close(&r);
    }
}

static void a_visitor_may_leave_while_it_is_dialed(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    tnl_loop_hold(r.l.loop);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    while (tnl_forwarder_count(r.forwarder) == 0)
        turns(&r, 1);
    test_visitor_release(&v);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    tnl_loop_release(r.l.loop);
    rig_close(&r);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void nothing_grows_without_bound(void **state)
{
    (void)state;
    enum { TOTAL = 32 << 20, MOST = 6 << 20 };
    rig r;
    uint64_t sent = 0;
    test_visitor v = {.to_send = TOTAL, .blocked = true};
    rig_open(&r);
    r.up_mute = true;
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.c);
    memory.peak = memory.bytes;
    for (uint64_t before = 1, at = 0; before != at;) {
        before = at;
        for (int i = 0; i < 30; i++) {
            test_pump(r.up.c, &sent, TOTAL, 65536);
            test_visitor_send(&v);
            turns(&r, 1);
        }
        at = sent + v.sent;
    }
    assert_true(memory.peak < MOST);
    assert_true(sent < TOTAL && v.sent < TOTAL);
    /* And then it all goes on. */
    test_visitor_unblock(&v);
    tnl_conn_resume(r.up.c);
    UNTIL(&r.l, test_pump(r.up.c, &sent, TOTAL, 65536));
    tnl_conn_shutdown(r.up.c);
    UNTIL(&r.l, v.fins && r.up.eofs);
    assert_true(v.received == TOTAL && r.up.received == TOTAL);
    assert_true(v.hash == test_hash_of(TOTAL) && r.up.hash == v.hash);
    UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 0);
    assert_true(memory.peak < MOST);
    test_visitor_release(&v);
    rig_close(&r);
}

/* --- the forwarder's end ---------------------------------------------------------------------- */

enum { DIALING, CONNECTED, VISITOR_ENDED, UPSTREAM_ENDED, UPSTREAM_GONE, PHASES };

static void it_can_end_at_any_time(void **state)
{
    (void)state;
    for (int phase = DIALING; phase < PHASES; phase++) {
        rig r;
        test_visitor v[3] = {{.to_send = 100000, .keep_open = true},
                             {.to_send = 100000, .keep_open = true},
                             {.to_send = 100000, .keep_open = phase != VISITOR_ENDED}};
        rig_open(&r);
        r.up_mute = true;
        /* Others live beside it. */
        for (int i = 2; i >= 0; i--)
            assert_int_equal(test_visitor_open(&v[i], &r.sessions), 0);
        UNTIL(&r.l, tnl_forwarder_count(r.forwarder) == 3);
        if (phase != DIALING) {
            UNTIL(&r.l, r.up.c);
            turns(&r, 5);
        }
        if (phase >= UPSTREAM_ENDED) {
            tnl_conn_shutdown(r.up.c);
            UNTIL(&r.l, v[0].fins || v[1].fins || v[2].fins);
        }
        if (phase == UPSTREAM_GONE) {
            tnl_conn_reset(r.up.c);
            turns(&r, 5);
        }
        tnl_forwarder_free(r.forwarder, on_gone, &r);
        r.forwarder = NULL;
        for (int i = 0; i < 3; i++)
            UNTIL(&r.l, v[i].resets);
        UNTIL(&r.l, r.gone == 1);
        rig_close(&r);
    }
}

static void an_idle_forwarder_ends_as_well(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    assert_int_equal(tnl_forwarder_count(r.forwarder), 0);
    rig_close(&r);
}

static void the_sessions_end_ends_its_streams(void **state)
{
    (void)state;
    rig r;
    test_visitor v = {.to_send = 10, .keep_open = true};
    rig_open(&r);
    assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
    UNTIL(&r.l, r.up.received == 10);
    test_sessions_close(&r.sessions, &r.l);
    assert_int_equal(v.resets, 1);
    UNTIL(&r.l, !r.up.c && tnl_forwarder_count(r.forwarder) == 0);
    assert_int_equal(r.up.error, TUNNEL_E_RESET);
    rig_close(&r);
}

/* --- TLS -------------------------------------------------------------------------------------- */

typedef struct tls_service {
    tnl_tls_server *tls;
    rig *r;
} tls_service;

static void on_accept_tls(void *user, tnl_conn *c)
{
    tls_service *s = user;
    if (s->r->up.c) {
        tnl_conn_close(c);
        return;
    }
    assert_int_equal(tnl_tls_accept(&s->r->up.c, s->tls, c, NULL, 0, &test_peer_events, &s->r->up),
                     0);
    tnl_conn_resume(s->r->up.c);
}

static void an_https_upstream_is_verified(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        const char *ca;
        int error;
    } cases[] = {
        {"localhost", NULL, 0}, /* on this machine it need not be signed by anyone */
        {"localhost", "self.crt", 0},
        {"localhost", "other.crt", TUNNEL_E_CERTIFICATE},
        {"127.0.0.1", "self.crt", TUNNEL_E_CERTIFICATE}, /* the certificate is for the name */
    };
    test_certs certs;
    char detail[200] = "", text[64];
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "self", .names = "localhost", .ca = true});
    test_certs_make(&certs, &(test_cert_spec){.file = "other", .names = "localhost", .ca = true});
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        tls_service service = {.r = &r};
        test_visitor v = {.to_send = 100000};
        rig_open(&r);
        tnl_listener_free(r.listener);
        assert_int_equal(tnl_tls_server_new(&service.tls), 0);
        assert_int_equal(tnl_tls_server_add(service.tls, test_certs_path(&certs, "self.crt"),
                                            test_certs_path(&certs, "self.key"), detail,
                                            sizeof(detail)),
                         0);
        assert_int_equal(tnl_listener_new(&r.listener, r.l.loop, "127.0.0.1:0", on_accept_tls,
                                          &service, NULL, 0),
                         0);
        snprintf(text, sizeof(text), "https://%s:%u", cases[i].host,
                 tnl_listener_address(r.listener).port);
        assert_int_equal(
            tnl_upstream_parse(&r.upstream, text,
                               cases[i].ca ? test_certs_path(&certs, cases[i].ca) : NULL, detail,
                               sizeof(detail)),
            0);
        r.up.echo = r.up.echo_end = true;
        assert_int_equal(test_visitor_open(&v, &r.sessions), 0);
        UNTIL(&r.l, v.fins || v.resets);
        assert_int_equal(v.code, -cases[i].error);
        if (cases[i].error == 0)
            assert_true(v.hash == test_hash_of(100000));
        test_visitor_release(&v);
        tnl_tls_server_unref(service.tls);
        rig_close(&r);
    }
    test_certs_close(&certs);
}

/* --- addresses -------------------------------------------------------------------------------- */

static void addresses_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        unsigned port;
        const char *path;
    } good[] = {
        {"3000", "localhost", 3000, ""},
        {"1", "localhost", 1, ""},
        {"65535", "localhost", 65535, ""},
        {"host:3000", "host", 3000, ""},
        {"127.0.0.1:80", "127.0.0.1", 80, ""},
        {"[::1]:3000", "::1", 3000, ""},
        {"http://Host", "host", 80, ""},
        {"http://host:8080/", "host", 8080, ""},
        {"unix:/run/app.sock", "", 0, "/run/app.sock"},
    };
    static const char *const bad[] = {"",           "0",
                                      "65536",      "99999999999",
                                      "-1",         "30x",
                                      "host",       "host:",
                                      "host:0",     ":3000",
                                      "[::1]",      "::1",
                                      "http://",    "http://h/path",
                                      "http://h?q", "http://u:p@h",
                                      "ftp://h",    "ws://h",
                                      "unix:",      "unix:relative",
                                      "https://",   "host:80:90",
                                      "a b:80",     "h\xc3\xa4:80"};
    tnl_upstream u;
    char detail[300];
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(tnl_upstream_parse(&u, good[i].text, NULL, detail, sizeof(detail)), 0);
        assert_string_equal(u.host, good[i].host);
        assert_int_equal(u.port, good[i].port);
        assert_string_equal(u.unix_path, good[i].path);
        assert_null(u.tls);
        tnl_upstream_clear(&u);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        detail[0] = '\0';
        if (tnl_upstream_parse(&u, bad[i], NULL, detail, sizeof(detail)) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", bad[i]);
        assert_true(strlen(detail) > 10 && !strchr(detail, '\n'));
        assert_null(u.tls);
    }
    char text[1000] = "unix:/";
    memset(text + 6, 'x', sizeof(text) - 7);
    assert_int_equal(tnl_upstream_parse(&u, text, NULL, detail, sizeof(detail)), TUNNEL_E_INVALID);
    text[5 + sizeof(u.unix_path)] = '\0';
    assert_int_equal(tnl_upstream_parse(&u, text, NULL, detail, sizeof(detail)), TUNNEL_E_INVALID);
    text[5 + sizeof(u.unix_path) - 1] = '\0';
    assert_int_equal(tnl_upstream_parse(&u, text, NULL, detail, sizeof(detail)), 0);
    memset(text, 'x', 999);
    assert_int_equal(tnl_upstream_parse(&u, text, NULL, detail, sizeof(detail)), TUNNEL_E_INVALID);
    assert_int_equal(tnl_upstream_parse(&u, "https://h:1", "/nonexistent", detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_non_null(strstr(detail, "/nonexistent"));
    assert_int_equal(tnl_upstream_parse(&u, "https://localhost", NULL, detail, sizeof(detail)), 0);
    assert_int_equal(u.port, 443);
    assert_non_null(u.tls);
    tnl_upstream_clear(&u);
    tnl_upstream_clear(&u);
    assert_int_equal(memory.live, 0);
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t forward_once(size_t nth)
{
    rig r;
    test_visitor v = {.to_send = 200000};
    rig_open(&r);
    r.up.echo = r.up.echo_end = true;
    memory.count = 0;
    memory.fail_at = nth;
    if (test_visitor_open(&v, &r.sessions) == 0) {
        /* The service's end, in the same program, may be the one that is short of memory. */
        UNTIL(&r.l,
              v.fins || v.resets || !r.sessions.server.session || (r.up.closes && r.up.error));
        if (v.fins)
            assert_true(v.hash == test_hash_of(200000));
    }
    size_t n = memory.count;
    memory.fail_at = 0;
    test_visitor_release(&v);
    rig_close(&r);
    return n;
}

/* An accepted connection that is lost for want of memory leaves the other side waiting: it is left
 * out. */
static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = forward_once(0);
    assert_true(n > 10);
    for (size_t i = 1; i <= n; i++)
        forward_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(it_goes_to_a_unix_socket_too),
        cmocka_unit_test(the_visitors_end_is_passed_on),
        cmocka_unit_test(the_upstreams_end_is_passed_on),
        cmocka_unit_test(what_waits_for_the_upstream_arrives),
        cmocka_unit_test(the_last_bytes_are_not_dropped_by_the_upstreams_end),
        cmocka_unit_test(a_reset_of_the_visitor_is_passed_on),
        cmocka_unit_test(a_reset_of_the_upstream_is_passed_on),
        cmocka_unit_test(the_last_words_before_a_reset_arrive),
        cmocka_unit_test(an_early_answer_arrives_whole),
        cmocka_unit_test(a_visitor_may_leave_after_an_early_answer),
        cmocka_unit_test(a_refused_connection_resets_the_stream),
        cmocka_unit_test(a_visitor_may_leave_while_it_is_dialed),
        cmocka_unit_test(nothing_grows_without_bound),
        cmocka_unit_test(it_can_end_at_any_time),
        cmocka_unit_test(an_idle_forwarder_ends_as_well),
        cmocka_unit_test(the_sessions_end_ends_its_streams),
        cmocka_unit_test(an_https_upstream_is_verified),
        cmocka_unit_test(addresses_are_understood),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
