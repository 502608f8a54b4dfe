/* SPDX-License-Identifier: Apache-2.0 */
#include "server/arrival.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/internal.h"
#include "support/certs.h"
#include "support/check.h"
#include "support/edge.h"
#include "support/nomem.h"
#include "tunnel/error.h"

/*
 * What the first bytes of a connection lead to, at a server without certificates: real sockets on
 * one side, streams of a hand-driven session on the other.
 */

#define ALERT "\x15\x03\x01\0\x02\x02"

typedef struct rig {
    test_edge e;
    test_service s;
    bool left; /* the service was closed */
} rig;

static void publish(rig *r, uint64_t id, const char *kind, const char *name)
{
    unsigned before = r->s.published + r->s.refused;
    tnl_publish m = {.tunnel = id, .kind = tnl_str_of(kind), .name = tnl_str_of(name)};
    test_service_publish_as(&r->s, &m);
    UNTIL(&r->e.l, r->s.published + r->s.refused > before || !r->s.session);
}

static rig *rig_open(void)
{
    rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    assert_int_equal(test_edge_open(&r->e, NULL), 0);
    test_service_start(&r->s, &r->e, "secret", 1);
    UNTIL(&r->e.l, r->s.session);
    publish(r, 1, "tls", "secure");
    publish(r, 2, "http", "web");
    assert_int_equal(r->s.published, 2);
    return r;
}

static void rig_close(rig *r)
{
    if (!r->left)
        test_service_close(&r->s);
    test_edge_close(&r->e);
    free(r);
}

static const tnl_server_stats *stats(const rig *r)
{
    return tnl_server_get_stats(r->e.server);
}

/* A ClientHello that asks for the name (NULL: for none), in one record. */
static size_t make_hello(uint8_t *out, const char *name)
{
    size_t k = name ? strlen(name) : 0, extension = name ? k + 9 : 0;
    size_t body = 2 + 32 + 1 + 4 + 2 + 2 + extension, n = 0;
    const uint8_t head[] = {22,
                            3,
                            1,
                            (uint8_t)((body + 4) >> 8),
                            (uint8_t)(body + 4),
                            1,
                            0,
                            (uint8_t)(body >> 8),
                            (uint8_t)body,
                            3,
                            3};
    memcpy(out, head, sizeof(head));
    n = sizeof(head);
    memset(out + n, 7, 32);
    n += 32;
    const uint8_t middle[] = {
        0, 0, 2, 0x13, 0x01, 1, 0, (uint8_t)(extension >> 8), (uint8_t)extension};
    memcpy(out + n, middle, sizeof(middle));
    n += sizeof(middle);
    if (name) {
        const uint8_t sni[] = {0, 0, 0, (uint8_t)(k + 5), 0, (uint8_t)(k + 3), 0, 0, (uint8_t)k};
        memcpy(out + n, sni, sizeof(sni));
        memcpy(out + n + sizeof(sni), name, k);
        n += sizeof(sni) + k;
    }
    return n;
}

static void say(test_guest *g, const void *p, size_t n)
{
    assert_int_equal(test_guest_say_some(g, p, n), n);
}

static void say_hello(test_guest *g, const char *name)
{
    uint8_t hello[400];
    say(g, hello, make_hello(hello, name));
}

static void is_alerted(rig *r, test_guest *g, unsigned alert)
{
    UNTIL(&r->e.l, test_guest_ended(g));
    assert_false(g->reset);
    assert_int_equal(g->n, 7);
    assert_memory_equal(g->text, ALERT, 6);
    assert_int_equal((uint8_t)g->text[6], alert);
    test_guest_free(g);
}

/* The only call there is so far. */
static test_call *await_bytes(rig *r, size_t n)
{
    UNTIL(&r->e.l, r->s.count == 1 && r->s.calls[0].n >= n);
    return &r->s.calls[0];
}

/* --- to a tunnel ------------------------------------------------------------------------------ */

static void a_hello_goes_to_its_tunnel_untouched(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < 5; cut++) {
        static const size_t cuts[] = {1, 4, 5, 60, 400};
        uint8_t hello[410];
        test_guest g;
        rig *r = rig_open();
        size_t n = make_hello(hello, "Secure.TEST");
        memcpy(hello + n,
               "\x17\x03\x03"
               "early",
               8);
        n += 8;
        test_guest_open(&g, &r->e);
        for (size_t at = 0; at < n; at += cuts[cut]) {
            say(&g, hello + at, n - at < cuts[cut] ? n - at : cuts[cut]);
            assert_true(test_turn(&r->e.l));
        }
        test_call *c = await_bytes(r, n);
        assert_int_equal(c->n, n);
        assert_memory_equal(c->text, hello, n);
        assert_string_equal(c->visitor, "127.0.0.1");
        assert_int_equal(c->open.tunnel, 1);
        test_call_answer_bytes(c, "\x16\x03\x03\0\0", 5);
        UNTIL(&r->e.l, g.n == 5 || (test_guest_hears(&g, "x"), g.n == 5));
        test_guest_shutdown(&g);
        UNTIL(&r->e.l, c->fins);
        test_call_fin(c);
        UNTIL(&r->e.l, test_guest_ended(&g));
        assert_false(g.reset);
        assert_int_equal(stats(r)->connections, 1);
        assert_int_equal(stats(r)->bad_handshakes, 0);
        UNTIL(&r->e.l, r->e.server->visitor_count == 0);
        assert_int_equal(r->e.bytes_in, n);
        assert_string_equal(r->e.host, "secure.test");
        test_guest_free(&g);
        rig_close(r);
    }
}

static void http_is_as_ever(void **state)
{
    (void)state;
    test_guest g;
    rig *r = rig_open();
    test_guest_open(&g, &r->e);
    test_guest_say(&g, "G");
    assert_true(test_turn(&r->e.l));
    test_guest_say(&g, "ET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    test_call_answer(test_service_await(&r->s, 1), "HTTP/1.1 204 No Content\r\n\r\n");
    UNTIL(&r->e.l, test_guest_hears(&g, "204"));
    test_guest_free(&g);
    rig_close(r);
}

/* --- to nobody -------------------------------------------------------------------------------- */

static void what_is_nobodys_gets_an_alert(void **state)
{
    (void)state;
    /* Without certificates also what is the server's own. */
    static const char *const names[] = {"nobody.example", "web.test", "test", "other.test", NULL};
    rig *r = rig_open();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        test_guest g;
        test_guest_open(&g, &r->e);
        say_hello(&g, names[i]);
        is_alerted(r, &g, 112);
        assert_int_equal(stats(r)->bad_handshakes, i + 1);
    }
    assert_int_equal(r->s.count, 0);
    assert_int_equal(stats(r)->connections, 0);
    rig_close(r);
}

static void what_is_no_hello_gets_another_one(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        unsigned alert;
    } cases[] = {
        {"\x16\x03\x01\0\0", 5, 50},
        {"\x16\x03\x01\0\x04\x02\0\0\0", 9, 10},
        {"\x16\x03\x01\x7f\xff", 5, 22},
    };
    rig *r = rig_open();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_guest g;
        test_guest_open(&g, &r->e);
        say(&g, cases[i].bytes, cases[i].n);
        is_alerted(r, &g, cases[i].alert);
    }
    rig_close(r);
}

static void a_tunnel_that_ends_meanwhile(void **state)
{
    (void)state;
    test_guest g;
    uint8_t hello[400];
    size_t n = make_hello(hello, "secure.test");
    rig *r = rig_open();
    test_guest_open(&g, &r->e);
    say(&g, hello, n - 1);
    UNTIL(&r->e.l, r->e.server->visitor_count == 1);
    test_service_close(&r->s);
    r->left = true;
    UNTIL(&r->e.l, r->e.server->peer_count == 0);
    say(&g, hello + n - 1, 1);
    is_alerted(r, &g, 112);
    rig_close(r);
}

static void who_leaves_early_is_forgotten(void **state)
{
    (void)state;
    rig *r = rig_open();
    for (int i = 0; i < 4; i++) {
        test_guest g;
        test_guest_open(&g, &r->e);
        if (i >= 2)
            say(&g, "\x16\x03", 2);
        UNTIL(&r->e.l, r->e.server->visitor_count == 1);
        test_guest_leave(&g, i % 2);
        UNTIL(&r->e.l, r->e.server->visitor_count == 0);
        test_guest_free(&g);
    }
    /* Nothing at all is no handshake. */
    assert_int_equal(stats(r)->bad_handshakes, 2);
    rig_close(r);
}

static void a_server_that_closes_waits_for_nobody(void **state)
{
    (void)state;
    test_guest g[3];
    rig *r = rig_open();
    for (int i = 0; i < 3; i++) {
        test_guest_open(&g[i], &r->e);
        say(&g[i], "\x16\x03\x01", (size_t)i);
    }
    UNTIL(&r->e.l, r->e.server->visitor_count == 3);
    rig_close(r);
    for (int i = 0; i < 3; i++)
        test_guest_free(&g[i]);
}

/* --- turns of TLS ----------------------------------------------------------------------------- */

static void with_certificate(tnl_server_config *c, void *user)
{
    char(*files)[200] = user;
    c->certs[0].cert_file = files[0];
    c->certs[0].key_file = files[1];
    c->cert_count = 1;
}

/* Handshakes that come all at once are begun a few in a turn; none is lost by that, whoever leaves
 * or whatever ends meanwhile. */
static void handshakes_take_turns(void **state)
{
    (void)state;
    enum { GUESTS = 24 };
    test_certs certs;
    test_guest g[GUESTS];
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "own", .names = "test"});
    char files[2][200];
    snprintf(files[0], sizeof(files[0]), "%s", test_certs_path(&certs, "own.crt"));
    snprintf(files[1], sizeof(files[1]), "%s", test_certs_path(&certs, "own.key"));
    for (int close = 0; close < 2; close++) {
        rig *r = calloc(1, sizeof(*r));
        assert_non_null(r);
        test_edge_options o = {.configure = with_certificate, .user = files};
        assert_int_equal(test_edge_open(&r->e, &o), 0);
        for (int i = 0; i < GUESTS; i++) {
            test_guest_open(&g[i], &r->e);
            say_hello(&g[i], "test");
        }
        UNTIL(&r->e.l, r->e.server->handshakes.count >= GUESTS / 2);
        assert_true(r->e.server->handshakes.begun <= TNL_HANDSHAKES_TURN);
        if (close)
            test_edge_close_server(&r->e);
        for (int i = 0; i < GUESTS; i++) {
            UNTIL(&r->e.l, test_guest_ended(&g[i]) || g[i].reset);
            /* It has nothing in common with the server, and is told so. */
            assert_true(close || (g[i].n == 7 && g[i].text[0] == 21));
            test_guest_free(&g[i]);
        }
        test_edge_close(&r->e);
        free(r);
    }
    test_certs_close(&certs);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void begin_failing(void *user)
{
    test_nomem_fail(*(unsigned *)user, 0);
}

/* A hello in three pieces to a tunnel, with the nth allocation failing; how many there were. */
static unsigned live(unsigned nth)
{
    rig *r = calloc(1, sizeof(*r));
    test_guest g;
    uint8_t hello[400];
    size_t n = make_hello(hello, "secure.test"), live_before = test_nomem_live();
    assert_non_null(r);
    if (test_edge_open(&r->e, &(test_edge_options){.begin = begin_failing, .user = &nth}))
        goto done;
    test_service_start(&r->s, &r->e, "secret", 1);
    UNTIL(&r->e.l, r->s.session || (test_service_over(&r->s) && r->s.failed));
    if (r->s.session)
        publish(r, 1, "tls", "secure");
    test_guest_open(&g, &r->e);
    for (size_t i = 0; i < 3; i++) {
        (void)test_guest_say_some(&g, hello + i * (n / 3), i == 2 ? n - 2 * (n / 3) : n / 3);
        assert_true(test_turn(&r->e.l));
    }
    while (!test_guest_ended(&g) && !(r->s.count && r->s.calls[0].n == n))
        if (!test_turn(&r->e.l))
            fail_msg("allocation %u: the hello leads nowhere", nth);
    test_service_close(&r->s);
    UNTIL(&r->e.l, test_guest_ended(&g));
    test_guest_free(&g);

done:
    test_edge_close(&r->e);
    unsigned count = test_nomem_count();
    test_nomem_fail(0, 0);
    assert_int_equal(test_nomem_live(), live_before);
    free(r);
    return count;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    unsigned n = live(0);
    assert_true(n > 50);
    for (unsigned i = 1; i <= n; i++)
        live(i);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_goes_to_its_tunnel_untouched),
        cmocka_unit_test(http_is_as_ever),
        cmocka_unit_test(what_is_nobodys_gets_an_alert),
        cmocka_unit_test(what_is_no_hello_gets_another_one),
        cmocka_unit_test(a_tunnel_that_ends_meanwhile),
        cmocka_unit_test(who_leaves_early_is_forgotten),
        cmocka_unit_test(a_server_that_closes_waits_for_nobody),
        cmocka_unit_test(handshakes_take_turns),
        cmocka_unit_test(each_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
