/* SPDX-License-Identifier: Apache-2.0 */
#include "link/dial.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"
#include "tunnel/error.h"

static test_certs certs;

static int make_certs(void **state)
{
    (void)state;
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "ca", .cn = "ca", .ca = true});
    test_certs_make(&certs, &(test_cert_spec){
                                .file = "good", .names = "server.test,localhost", .issuer = "ca"});
    return 0;
}

static int remove_certs(void **state)
{
    (void)state;
    test_certs_close(&certs);
    return 0;
}

/* A dial, and the other end: a server, or a proxy that becomes one. */
typedef struct rig {
    test_loop l;
    tnl_dial *dial;
    unsigned calls;
    int error;
    char detail[400];
    test_peer mine; /* what the dial gave */
    test_peer far;  /* the other end, while it is plain */
    test_peer tls;  /* the other end's TLS */
    tnl_listener *listener;
    tnl_tls_server *server;
    tnl_tls_client *client;
    const char *answer; /* of the proxy; NULL: it is none */
    bool tls_at_once;   /* the other end speaks TLS from the beginning */
    bool answered;
    tnl_url proxy;
    tnl_dial_target target;
} rig;

static void accept_tls(rig *r)
{
    tnl_conn *lower = r->far.c;
    r->far.c = NULL;
    if (tnl_tls_accept(&r->tls.c, r->server, lower, NULL, 0, &test_peer_events, &r->tls) == 0)
        tnl_conn_resume(r->tls.c);
}

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    test_peer_attach(&r->far, c);
    if (r->tls_at_once)
        accept_tls(r);
    else
        tnl_conn_resume(c);
}

static void on_dialed(void *user, int error, const char *detail, tnl_conn *c)
{
    rig *r = user;
    r->dial = NULL;
    r->calls++;
    r->error = error;
    snprintf(r->detail, sizeof(r->detail), "%s", detail);
    assert_int_equal(error == 0, c != NULL);
    if (c) {
        test_peer_attach(&r->mine, c);
        tnl_conn_resume(c);
    }
}

static void rig_open(rig *r)
{
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    test_peer_init(&r->mine);
    test_peer_init(&r->far);
    test_peer_init(&r->tls);
    assert_int_equal(
        tnl_listener_new(&r->listener, r->l.loop, "127.0.0.1:0", on_accept, r, NULL, 0), 0);
    r->target = (tnl_dial_target){
        .host = "127.0.0.1", .port = tnl_listener_address(r->listener).port, .timeout_ms = 8000};
}

/* What is dialed is behind the listener, which is a proxy. */
static void rig_use_proxy(rig *r, const char *host, uint16_t port, const char *userinfo)
{
    char text[300];
    snprintf(text, sizeof(text), "http://%s%s127.0.0.1:%u", userinfo ? userinfo : "",
             userinfo ? "@" : "", r->target.port);
    assert_int_equal(tnl_url_parse(&r->proxy, text), 0);
    r->target.proxy = &r->proxy;
    r->target.host = host;
    r->target.port = port;
}

static void rig_use_tls(rig *r)
{
    char detail[200];
    assert_int_equal(tnl_tls_server_new(&r->server), 0);
    assert_int_equal(tnl_tls_server_add(r->server, test_certs_path(&certs, "good.crt"),
                                        test_certs_path(&certs, "good.key"), detail,
                                        sizeof(detail)),
                     0);
    assert_int_equal(tnl_tls_client_new(&r->client, test_certs_path(&certs, "ca.crt"), true, detail,
                                        sizeof(detail)),
                     0);
    r->target.tls = r->client;
}

static void rig_close(rig *r)
{
    test_peer *peers[] = {&r->mine, &r->far, &r->tls};
    tnl_listener_free(r->listener);
    for (int i = 0; i < 3; i++) {
        if (peers[i]->c)
            tnl_conn_close(peers[i]->c);
        UNTIL(&r->l, !peers[i]->c);
        test_peer_free(peers[i]);
    }
    if (r->server)
        tnl_tls_server_unref(r->server);
    if (r->client)
        tnl_tls_client_unref(r->client);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

static bool head_is_here(const rig *r)
{
    return r->far.received < r->far.keep && memmem(r->far.bytes, r->far.received, "\r\n\r\n", 4);
}

static void start(rig *r)
{
    assert_int_equal(tnl_dial_start(&r->dial, r->l.loop, &r->target, on_dialed, r), 0);
    assert_int_equal(r->calls, 0);
}

static void run(rig *r)
{
    start(r);
    while (!r->calls) {
        if (!test_turn(&r->l))
            fail_msg("no callback came");
        if (r->answer && !r->answered && head_is_here(r)) {
            r->answered = true;
            assert_int_equal(test_send(r->far.c, r->answer, strlen(r->answer)), 0);
            if (r->server && strstr(r->answer, " 200 "))
                accept_tls(r);
        }
    }
    assert_int_equal(r->calls, 1);
}

static void turns(rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

/* Bytes go both ways over what was dialed. */
static void check_bytes(rig *r)
{
    test_peer *other = r->server ? &r->tls : &r->far;
    UNTIL(&r->l, other->c && (!r->server || other->readies));
    size_t before = other->received;
    assert_int_equal(test_send(r->mine.c, "ping", 4), 0);
    UNTIL(&r->l, other->received == before + 4);
    assert_int_equal(test_send(other->c, "pong", 4), 0);
    UNTIL(&r->l, r->mine.received == 4);
    assert_memory_equal(r->mine.bytes, "pong", 4);
}

/* --- straight --------------------------------------------------------------------------------- */

static void a_straight_dial_connects(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        rig r;
        rig_open(&r);
        r.target.host = hosts[i];
        run(&r);
        assert_int_equal(r.error, 0);
        assert_string_equal(r.detail, "");
        check_bytes(&r);
        rig_close(&r);
    }
}

static void a_refused_dial_says_so(void **state)
{
    (void)state;
    rig r;
    char want[100];
    rig_open(&r);
    tnl_listener_free(r.listener);
    snprintf(want, sizeof(want), "connect to 127.0.0.1:%u: connection refused", r.target.port);
    run(&r);
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_string_equal(r.detail, want);
    assert_int_equal(tnl_listener_new(&r.listener, r.l.loop, "127.0.0.1:0", on_accept, &r, NULL, 0),
                     0);
    rig_close(&r);
}

static void a_path_can_be_dialed(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        rig r;
        char path[64], text[80];
        rig_open(&r);
        snprintf(path, sizeof(path), "/tmp/tnl-dial-%d.sock", (int)getpid());
        snprintf(text, sizeof(text), "unix:%s", path);
        tnl_listener_free(r.listener);
        assert_int_equal(tnl_listener_new(&r.listener, r.l.loop, text, on_accept, &r, NULL, 0), 0);
        r.target.host = NULL;
        r.target.port = 0;
        r.target.unix_path = path;
        if (tls) {
            rig_use_tls(&r); /* for the name "localhost" */
            r.tls_at_once = true;
        }
        /* A proxy is not asked for what lies on this machine. */
        assert_int_equal(tnl_url_parse(&r.proxy, "http://127.0.0.1:1"), 0);
        r.target.proxy = &r.proxy;
        run(&r);
        assert_int_equal(r.error, 0);
        check_bytes(&r);
        rig_close(&r);
    }
}

static void bad_targets_are_refused(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    tnl_dial_target t = r.target;
    t.port = 0;
    assert_int_equal(tnl_dial_start(&r.dial, r.l.loop, &t, on_dialed, &r), TUNNEL_E_INVALID);
    t = r.target;
    t.host = NULL;
    assert_int_equal(tnl_dial_start(&r.dial, r.l.loop, &t, on_dialed, &r), TUNNEL_E_INVALID);
    t.host = "";
    assert_int_equal(tnl_dial_start(&r.dial, r.l.loop, &t, on_dialed, &r), TUNNEL_E_INVALID);
    turns(&r, 2);
    assert_int_equal(r.calls, 0);
    rig_close(&r);
}

/* --- through a proxy -------------------------------------------------------------------------- */

static void a_proxy_is_asked_properly(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        uint16_t port;
        const char *userinfo;
        const char *request;
    } cases[] = {
        {"server.test", 443, NULL,
         "CONNECT server.test:443 HTTP/1.1\r\nHost: server.test:443\r\n\r\n"},
        {"2001:db8::1", 8443, NULL,
         "CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"},
        {"192.0.2.1", 1, "user:p%40ss",
         "CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: 192.0.2.1:1\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        rig_open(&r);
        rig_use_proxy(&r, cases[i].host, cases[i].port, cases[i].userinfo);
        r.answer = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        run(&r);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.far.received, strlen(cases[i].request));
        assert_memory_equal(r.far.bytes, cases[i].request, r.far.received);
        check_bytes(&r);
        rig_close(&r);
    }
}

static void its_answer_may_come_in_pieces(void **state)
{
    (void)state;
    static const char answer[] = "HTTP/1.0 299 OK\r\nA: b\r\n\r\n";
    rig r;
    rig_open(&r);
    rig_use_proxy(&r, "server.test", 443, NULL);
    start(&r);
    UNTIL(&r.l, head_is_here(&r));
    for (size_t i = 0; answer[i]; i++) {
        assert_int_equal(r.calls, 0);
        assert_int_equal(test_send(r.far.c, answer + i, 1), 0);
        turns(&r, 2);
    }
    UNTIL(&r.l, r.calls);
    assert_int_equal(r.error, 0);
    check_bytes(&r);
    rig_close(&r);
}

static void its_refusals_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int error;
        const char *says;
    } cases[] = {
        {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", TUNNEL_E_PROXY,
         "put user:password@"},
        {"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", TUNNEL_E_PROXY, "status 403"},
        {"HTTP/1.1 502 Bad Gateway\r\n\r\n", TUNNEL_E_UNREACHABLE, "status 502"},
        {"HTTP/1.1 503 x\r\n\r\n", TUNNEL_E_UNREACHABLE, "status 503"},
        {"HTTP/1.1 504 x\r\n\r\n", TUNNEL_E_UNREACHABLE, "status 504"},
        {"HTTP/1.1 301 x\r\nLocation: y\r\n\r\n", TUNNEL_E_PROXY, "status 301"},
        {"HTTP/1.1 200 OK\r\n\r\nX", TUNNEL_E_PROXY, "more than an answer"},
        {"HTTP/1.1-200 OK\r\n\r\n", TUNNEL_E_PROXY, "not an HTTP proxy"},
        {"HTTP/2.0 200 OK\r\n\r\n", TUNNEL_E_PROXY, "not an HTTP proxy"},
        {"HTTP/1.1 2x0 OK\r\n\r\n", TUNNEL_E_PROXY, "not an HTTP proxy"},
        {"\r\n\r\n", TUNNEL_E_PROXY, "not an HTTP proxy"},
        {"SSH-2.0-OpenSSH\r\n\r\n", TUNNEL_E_PROXY, "not an HTTP proxy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        rig_open(&r);
        rig_use_proxy(&r, "server.test", 443, "user:secret");
        r.answer = cases[i].answer;
        run(&r);
        assert_int_equal(r.error, cases[i].error);
        if (!strstr(r.detail, cases[i].says))
            fail_msg("'%s' does not say '%s'", r.detail, cases[i].says);
        assert_null(strstr(r.detail, "secret"));
        rig_close(&r);
    }
}

static void what_never_ends_is_cut(void **state)
{
    (void)state;
    rig r;
    char much[20000];
    memset(much, 'x', sizeof(much) - 1);
    much[sizeof(much) - 1] = '\0';
    rig_open(&r);
    rig_use_proxy(&r, "server.test", 443, NULL);
    r.answer = much;
    run(&r);
    assert_int_equal(r.error, TUNNEL_E_PROXY);
    assert_string_equal(r.detail, "the proxy's answer is too long");
    rig_close(&r);
}

static void a_proxy_that_goes_or_is_silent_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        rig r;
        rig_open(&r);
        rig_use_proxy(&r, "server.test", 443, NULL);
        r.target.timeout_ms = i == 2 ? 200 : 8000;
        if (i == 3)
            tnl_listener_free(r.listener);
        start(&r);
        if (i < 2) {
            UNTIL(&r.l, head_is_here(&r));
            if (i)
                tnl_conn_reset(r.far.c);
            else
                tnl_conn_shutdown(r.far.c);
        }
        UNTIL(&r.l, r.calls);
        static const int errors[] = {TUNNEL_E_PROXY, TUNNEL_E_RESET, TUNNEL_E_TIMEOUT,
                                     TUNNEL_E_REFUSED};
        assert_int_equal(r.error, errors[i]);
        assert_string_not_equal(r.detail, "");
        if (i == 3) {
            assert_non_null(strstr(r.detail, "proxy"));
            assert_int_equal(
                tnl_listener_new(&r.listener, r.l.loop, "127.0.0.1:0", on_accept, &r, NULL, 0), 0);
        }
        rig_close(&r);
    }
}

/* --- TLS -------------------------------------------------------------------------------------- */

static void tls_is_spoken_straight_and_through_a_proxy(void **state)
{
    (void)state;
    for (int by_proxy = 0; by_proxy < 2; by_proxy++) {
        rig r;
        rig_open(&r);
        r.target.host = "localhost";
        if (by_proxy) {
            rig_use_proxy(&r, "server.test", 443, NULL);
            r.answer = "HTTP/1.1 200 OK\r\n\r\n";
        }
        rig_use_tls(&r);
        r.tls_at_once = !by_proxy;
        run(&r);
        assert_int_equal(r.error, 0);
        assert_string_equal(tnl_tls_server_name(r.tls.c), by_proxy ? "server.test" : "localhost");
        check_bytes(&r);
        rig_close(&r);
    }
}

static void the_certificate_must_fit(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_use_proxy(&r, "other.test", 443, NULL);
    r.answer = "HTTP/1.1 200 OK\r\n\r\n";
    rig_use_tls(&r);
    run(&r);
    assert_int_equal(r.error, TUNNEL_E_CERTIFICATE);
    assert_string_not_equal(r.detail, "");
    rig_close(&r);
}

/* The other end closes, is silent, or speaks something else, instead of TLS. */
static void a_failed_handshake_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        rig r;
        rig_open(&r);
        r.target.host = "localhost";
        r.target.timeout_ms = i == 1 ? 300 : 8000;
        rig_use_tls(&r);
        start(&r);
        UNTIL(&r.l, r.far.received > 0);
        if (i == 0)
            tnl_conn_close(r.far.c);
        if (i == 2)
            assert_int_equal(test_send(r.far.c, "HTTP/1.1 400 Bad Request\r\n\r\n", 28), 0);
        UNTIL(&r.l, r.calls);
        assert_true(r.error < 0);
        if (i == 1)
            assert_int_equal(r.error, TUNNEL_E_TIMEOUT);
        assert_string_not_equal(r.detail, "");
        rig_close(&r);
    }
}

/* --- canceling -------------------------------------------------------------------------------- */

enum { AT_ONCE, ASKED, ANSWERING, IN_TLS, FAILING, MOMENTS };

static void it_can_be_canceled_at_any_time(void **state)
{
    (void)state;
    for (int m = AT_ONCE; m < MOMENTS; m++) {
        for (int by_proxy = 0; by_proxy < 2; by_proxy++) {
            rig r;
            if (!by_proxy && (m == ASKED || m == ANSWERING || m == FAILING))
                continue;
            rig_open(&r);
            r.target.host = "localhost";
            if (by_proxy)
                rig_use_proxy(&r, "server.test", 443, "user:secret");
            rig_use_tls(&r);
            start(&r);
            if (m != AT_ONCE && by_proxy)
                UNTIL(&r.l, head_is_here(&r));
            if (m == ANSWERING) {
                assert_int_equal(test_send(r.far.c, "HTTP/1.1 200", 12), 0);
                turns(&r, 3);
            }
            if (m == FAILING)
                assert_int_equal(test_send(r.far.c, "HTTP/1.1 500\r\n\r\n", 16), 0);
            if (m == IN_TLS) {
                size_t before = r.far.received;
                if (by_proxy)
                    assert_int_equal(test_send(r.far.c, "HTTP/1.1 200 OK\r\n\r\n", 19), 0);
                UNTIL(&r.l, r.far.received > before);
            }
            tnl_dial_cancel(r.dial);
            turns(&r, 10);
            assert_int_equal(r.calls, 0);
            rig_close(&r);
        }
    }
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t dial_once(size_t nth)
{
    rig r;
    size_t n = 0;
    rig_open(&r);
    rig_use_proxy(&r, "server.test", 443, "user:secret");
    rig_use_tls(&r);
    r.answer = "HTTP/1.1 200 OK\r\n\r\n";
    r.target.timeout_ms = 300; /* the other end may be the one that is short of memory */
    memory.count = 0;
    memory.fail_at = nth;
    int rc = tnl_dial_start(&r.dial, r.l.loop, &r.target, on_dialed, &r);
    assert_true(rc == 0 || rc == TUNNEL_E_NOMEM);
    while (rc == 0 && !r.calls) {
        if (!test_turn(&r.l))
            fail_msg("no callback came");
        if (r.far.c && !r.answered && head_is_here(&r)) {
            r.answered = true;
            (void)test_send(r.far.c, r.answer, strlen(r.answer));
            accept_tls(&r);
        }
    }
    n = memory.count;
    memory.fail_at = 0;
    rig_close(&r);
    return n;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = dial_once(0);
    assert_true(n > 10);
    for (size_t i = 1; i <= n; i++)
        dial_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_straight_dial_connects),
        cmocka_unit_test(a_refused_dial_says_so),
        cmocka_unit_test(a_path_can_be_dialed),
        cmocka_unit_test(bad_targets_are_refused),
        cmocka_unit_test(a_proxy_is_asked_properly),
        cmocka_unit_test(its_answer_may_come_in_pieces),
        cmocka_unit_test(its_refusals_are_told),
        cmocka_unit_test(what_never_ends_is_cut),
        cmocka_unit_test(a_proxy_that_goes_or_is_silent_is_told),
        cmocka_unit_test(tls_is_spoken_straight_and_through_a_proxy),
        cmocka_unit_test(the_certificate_must_fit),
        cmocka_unit_test(a_failed_handshake_is_told),
        cmocka_unit_test(it_can_be_canceled_at_any_time),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, make_certs, remove_certs);
}
