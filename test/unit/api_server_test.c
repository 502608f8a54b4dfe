/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <tunnel/error.h>
#include <tunnel/loop.h>
#include <tunnel/server.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/memory.h"

static void assert_line(const char *line)
{
    assert_true(strlen(line) > 10 && strlen(line) < 400);
    assert_null(strchr(line, '\n'));
}

static tunnel_server_config *config_new(void)
{
    tunnel_server_config *c;
    assert_int_equal(tunnel_server_config_new(&c), 0);
    return c;
}

static void listeners(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:8080", "0.0.0.0:0", "[::1]:443", "[::]:80",
                                       "localhost:1"};
    static const char *const bad[] = {"",
                                      "8080",
                                      ":8080",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:x",
                                      "::1:80",
                                      "[::1]",
                                      "[::1:80",
                                      "name.test:80",
                                      "256.0.0.1:80",
                                      "http://127.0.0.1:80"};
    tunnel_server_config *c = config_new();
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(tunnel_server_config_add_listen(c, good[i]), 0);
        assert_string_equal(tunnel_server_config_error(c), "");
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        if (tunnel_server_config_add_tls_listen(c, bad[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", bad[i]);
        assert_line(tunnel_server_config_error(c));
    }
    for (size_t i = sizeof(good) / sizeof(*good); i < 32; i++)
        assert_int_equal(tunnel_server_config_add_tls_listen(c, good[0]), 0);
    assert_int_equal(tunnel_server_config_add_listen(c, good[0]), TUNNEL_E_LIMIT);
    assert_line(tunnel_server_config_error(c));
    tunnel_server_config_free(c);
    tunnel_server_config_free(NULL);
}

static void names_tokens_and_times(void **state)
{
    (void)state;
    char text[5000];
    tunnel_server_config *c = config_new();
    static const char *const domains[] = {"localhost", "Tunnel.Example.COM", "a-b.test"};
    static const char *const no_domains[] = {"",    ".",         "a..b", "a.",   "-a",
                                             "a b", "127.0.0.1", "x/y",  "h:80", "a_b"};
    for (size_t i = 0; i < sizeof(domains) / sizeof(*domains); i++)
        assert_int_equal(tunnel_server_config_set_domain(c, domains[i]), 0);
    for (size_t i = 0; i < sizeof(no_domains) / sizeof(*no_domains); i++) {
        if (tunnel_server_config_set_domain(c, no_domains[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", no_domains[i]);
        assert_line(tunnel_server_config_error(c));
    }
    static const char *const urls[] = {"https://tunnel.example.com", "http://h:8080",
                                       "https://h:443/"};
    static const char *const no_urls[] = {
        "", "h", "ws://h", "https://h/x", "https://u:p@h", "https://1.2.3.4", "https://[::1]"};
    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++)
        assert_int_equal(tunnel_server_config_set_public_url(c, urls[i]), 0);
    for (size_t i = 0; i < sizeof(no_urls) / sizeof(*no_urls); i++) {
        if (tunnel_server_config_set_public_url(c, no_urls[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", no_urls[i]);
        assert_line(tunnel_server_config_error(c));
    }
    memset(text, 'x', sizeof(text));
    text[4999] = '\0';
    assert_int_equal(tunnel_server_config_set_domain(c, text), TUNNEL_E_INVALID);
    text[4097] = '\0';
    assert_int_equal(tunnel_server_config_add_token(c, text), TUNNEL_E_INVALID);
    assert_line(tunnel_server_config_error(c));
    assert_int_equal(tunnel_server_config_add_token(c, ""), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_server_config_add_token(c, "a\tb"), TUNNEL_E_INVALID);
    text[4096] = '\0';
    assert_int_equal(tunnel_server_config_add_token(c, text), 0);
    for (int i = 1; i < 1024; i++) {
        snprintf(text, sizeof(text), "t%d", i);
        assert_int_equal(tunnel_server_config_add_token(c, text), 0);
    }
    assert_int_equal(tunnel_server_config_add_token(c, "x"), TUNNEL_E_LIMIT);
    assert_int_equal(tunnel_server_config_set_silence(c, 999), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_server_config_set_silence(c, 600001), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_server_config_set_silence(c, 1000), 0);
    assert_int_equal(tunnel_server_config_set_answer_timeout(c, 99), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_server_config_set_answer_timeout(c, 86400001), TUNNEL_E_INVALID);
    assert_line(tunnel_server_config_error(c));
    assert_int_equal(tunnel_server_config_set_answer_timeout(c, 100), 0);
    for (int i = 0; i < 256; i++)
        assert_int_equal(tunnel_server_config_add_certificate(c, "/a", "/b"), 0);
    assert_int_equal(tunnel_server_config_add_certificate(c, "/a", "/b"), TUNNEL_E_LIMIT);
    tunnel_server_config_free(c);
    assert_int_equal(memory.live, 0);
}

static void on_closed(void *user)
{
    ++*(unsigned *)user;
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    char detail[300];
    unsigned closes = 0;
    tunnel_loop *loop;
    tunnel_server *server, *second;
    tunnel_server_config *c = config_new();
    assert_int_equal(tunnel_loop_new(&loop, NULL), 0);
    for (int i = 0; i < 4; i++) {
        int rc = tunnel_server_new(&server, loop, c, detail, sizeof(detail));
        assert_int_equal(rc, i < 3 ? TUNNEL_E_INVALID : 0);
        if (rc) {
            assert_line(detail);
            assert_null(server);
            assert_int_equal(tunnel_server_new(&server, loop, c, NULL, 0), rc);
        }
        if (i == 0)
            assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
        if (i == 1)
            assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
        if (i == 2)
            assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    }
    assert_int_equal(tunnel_server_start(server, detail, sizeof(detail)), 0);
    assert_int_equal(tunnel_server_start(server, detail, sizeof(detail)), TUNNEL_E_STATE);
    assert_int_equal(tunnel_server_reload_certificates(server, NULL, 0), 0);
    /* A certificate is read without a TLS listener too; such a listener needs one. */
    assert_int_equal(
        tunnel_server_config_add_certificate(c, "/nonexistent.crt", "/nonexistent.key"), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tunnel_server_new(&second, loop, c, detail, sizeof(detail)),
                         TUNNEL_E_NOT_FOUND);
        assert_non_null(strstr(detail, "/nonexistent.crt"));
        assert_int_equal(tunnel_server_config_add_tls_listen(c, "127.0.0.1:0"), 0);
    }
    tunnel_server_config_free(c);
    c = config_new();
    assert_int_equal(tunnel_server_config_add_tls_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    assert_int_equal(tunnel_server_new(&second, loop, c, detail, sizeof(detail)), TUNNEL_E_INVALID);
    assert_line(detail);
    tunnel_server_config_free(c);
    tunnel_server_close(server, on_closed, &closes);
    tunnel_server_close(NULL, on_closed, &closes);
    tunnel_loop_run(loop);
    assert_int_equal(closes, 1);
    tunnel_loop_free(loop);
    assert_int_equal(memory.live, 0);
}

typedef struct started {
    char urls[8][64];
    unsigned count;
    tunnel_server *close; /* in the first event */
    unsigned closes;
} started;

static void on_start_closed(void *user)
{
    started *s = user;
    s->closes++;
}

static void on_event(void *user, const tunnel_event *e)
{
    started *s = user;
    assert_int_equal(tunnel_event_get_type(e), TUNNEL_EVENT_LISTENING);
    assert_true(s->count < 8);
    snprintf(s->urls[s->count++], sizeof(s->urls[0]), "%s", tunnel_event_url(e));
    if (s->close)
        tunnel_server_close(s->close, on_start_closed, s);
    s->close = NULL;
}

static void it_listens_on_all_or_nothing(void **state)
{
    (void)state;
    char detail[300], address[64];
    unsigned port;
    started a = {.count = 0}, b = {.count = 0};
    tunnel_loop *loop;
    tunnel_server *one, *two;
    tunnel_server_config *c = config_new();
    assert_int_equal(tunnel_loop_new(&loop, NULL), 0);
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_new(&one, loop, c, detail, sizeof(detail)), 0);
    tunnel_server_on_event(one, on_event, &a);
    assert_int_equal(tunnel_server_start(one, detail, sizeof(detail)), 0);
    assert_int_equal(a.count, 2);
    assert_string_not_equal(a.urls[0], a.urls[1]);
    assert_int_equal(sscanf(a.urls[1], "http://127.0.0.1:%u", &port), 1);
    /* The second of its listeners is taken: the first one does not stay. */
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    assert_int_equal(tunnel_server_config_add_listen(c, address), 0);
    assert_int_equal(tunnel_server_new(&two, loop, c, detail, sizeof(detail)), 0);
    tunnel_server_on_event(two, on_event, &b);
    assert_int_equal(tunnel_server_start(two, detail, sizeof(detail)), TUNNEL_E_ADDR_IN_USE);
    assert_non_null(strstr(detail, address));
    assert_int_equal(b.count, 0);
    tunnel_server_config_free(c);
    tunnel_server_close(one, on_start_closed, &a);
    tunnel_server_close(two, on_start_closed, &b);
    tunnel_loop_run(loop);
    assert_int_equal(a.closes + b.closes, 2);
    tunnel_loop_free(loop);
    assert_int_equal(memory.live, 0);
}

static void it_can_be_closed_while_it_starts(void **state)
{
    (void)state;
    char detail[300];
    started a = {.count = 0};
    tunnel_loop *loop;
    tunnel_server_config *c = config_new();
    assert_int_equal(tunnel_loop_new(&loop, NULL), 0);
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_new(&a.close, loop, c, detail, sizeof(detail)), 0);
    tunnel_server_on_event(a.close, on_event, &a);
    (void)tunnel_server_start(a.close, detail, sizeof(detail));
    tunnel_server_config_free(c);
    tunnel_loop_run(loop);
    assert_int_equal(a.closes, 1);
    tunnel_loop_free(loop);
    assert_int_equal(memory.live, 0);
}

static void certificates_are_read_again(void **state)
{
    (void)state;
    test_certs certs;
    char detail[300];
    started a = {.count = 0};
    tunnel_loop *loop;
    tunnel_server *server;
    tunnel_server_config *c = config_new();
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "a", .names = "test"});
    assert_int_equal(tunnel_loop_new(&loop, NULL), 0);
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    assert_int_equal(tunnel_server_config_add_tls_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_config_add_certificate(c, test_certs_path(&certs, "a.crt"),
                                                          test_certs_path(&certs, "a.key")),
                     0);
    assert_int_equal(tunnel_server_new(&server, loop, c, detail, sizeof(detail)), 0);
    tunnel_server_config_free(c);
    tunnel_server_on_event(server, on_event, &a);
    assert_int_equal(tunnel_server_start(server, detail, sizeof(detail)), 0);
    assert_int_equal(memcmp(a.urls[0], "https://127.0.0.1:", 18), 0);
    assert_int_equal(tunnel_server_reload_certificates(server, detail, sizeof(detail)), 0);
    assert_int_equal(remove(test_certs_path(&certs, "a.key")), 0);
    assert_int_equal(tunnel_server_reload_certificates(server, detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_line(detail);
    test_certs_make(&certs, &(test_cert_spec){.file = "a", .names = "test"});
    assert_int_equal(tunnel_server_reload_certificates(server, NULL, 0), 0);
    /* Without TLS from the next start on: until then it speaks with what it has. */
    c = config_new();
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "x"), 0);
    assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
    assert_int_equal(tunnel_server_reload(server, c, detail, sizeof(detail)), TUNNEL_E_STATE);
    tunnel_server_config_free(c);
    assert_int_equal(tunnel_server_reload_certificates(server, NULL, 0), 0);
    assert_int_equal(remove(test_certs_path(&certs, "a.key")), 0);
    assert_int_equal(tunnel_server_reload_certificates(server, NULL, 0), TUNNEL_E_NOT_FOUND);
    tunnel_server_close(server, on_start_closed, &a);
    tunnel_loop_run(loop);
    tunnel_loop_free(loop);
    test_certs_close(&certs);
    assert_int_equal(memory.live, 0);
}

static void tokens_are_made(void **state)
{
    (void)state;
    char a[33], b[33];
    assert_int_equal(tunnel_make_token(a), 0);
    assert_int_equal(tunnel_make_token(b), 0);
    assert_int_equal(strlen(a), 32);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners),
        cmocka_unit_test(names_tokens_and_times),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(it_listens_on_all_or_nothing),
        cmocka_unit_test(it_can_be_closed_while_it_starts),
        cmocka_unit_test(certificates_are_read_again),
        cmocka_unit_test(tokens_are_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
