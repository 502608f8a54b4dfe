/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/loop.h>
#include <tunnel/version.h>
#include <unistd.h>

#include "base/event.h"
#include "support/check.h"
#include "support/memory.h"

/* A line for people: not empty, one line, within reason. */
static void assert_line(const char *line)
{
    assert_true(strlen(line) > 10 && strlen(line) < 400);
    assert_null(strchr(line, '\n'));
}

static void server_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {
        "ws://127.0.0.1:8080", "wss://tunnel.example.com", "http://h",
        "https://h/",          "WSS://[2001:db8::1]:1",    "ws://localhost"};
    static const char *const bad[] = {"",
                                      "h",
                                      "h:80",
                                      "ftp://h",
                                      "ws://",
                                      "ws://h/path",
                                      "ws://h?q",
                                      "ws://h:0",
                                      "ws://h:port",
                                      "ws:///",
                                      "unix:/x",
                                      "ws://u:secret@h",
                                      "ws://u:secret@h:port",
                                      "ws://secret@",
                                      "wss//h"};
    tunnel_client_config *c;
    assert_int_equal(tunnel_client_config_new(&c), 0);
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(tunnel_client_config_set_server(c, good[i]), 0);
        assert_string_equal(tunnel_client_config_error(c), "");
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        if (tunnel_client_config_set_server(c, bad[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", bad[i]);
        assert_line(tunnel_client_config_error(c));
        assert_null(strstr(tunnel_client_config_error(c), "secret"));
    }
    assert_int_equal(tunnel_client_config_set_server(c, good[0]), 0);
    assert_string_equal(tunnel_client_config_error(c), "");
    tunnel_client_config_free(c);
    tunnel_client_config_free(NULL);
}

static void the_other_settings(void **state)
{
    (void)state;
    char text[5000];
    tunnel_client_config *c;
    assert_int_equal(tunnel_client_config_new(&c), 0);
    memset(text, 'x', sizeof(text));
    text[4097] = '\0';
    assert_int_equal(tunnel_client_config_set_token(c, text), TUNNEL_E_INVALID);
    assert_line(tunnel_client_config_error(c));
    assert_int_equal(tunnel_client_config_set_token(c, ""), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_client_config_set_token(c, "a b"), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_client_config_set_token(c, "se\ncret"), TUNNEL_E_INVALID);
    assert_null(strstr(tunnel_client_config_error(c), "cret"));
    text[4096] = '\0';
    assert_int_equal(tunnel_client_config_set_token(c, text), 0);

    static const char *const proxies[] = {"http://p", "http://p:3128/", "http://u:secret@p:1",
                                          "http://[::1]:1", ""};
    static const char *const no_proxies[] = {"p:3128",     "https://p",        "socks5://p",
                                             "http://p/x", "http://u:secret@", "http://"};
    for (size_t i = 0; i < sizeof(proxies) / sizeof(*proxies); i++)
        assert_int_equal(tunnel_client_config_set_proxy(c, proxies[i]), 0);
    for (size_t i = 0; i < sizeof(no_proxies) / sizeof(*no_proxies); i++) {
        assert_int_equal(tunnel_client_config_set_proxy(c, no_proxies[i]), TUNNEL_E_INVALID);
        assert_line(tunnel_client_config_error(c));
        assert_null(strstr(tunnel_client_config_error(c), "secret"));
    }
    assert_int_equal(tunnel_client_config_set_instance(c, "00112233445566778899aabbccddeeFF"), 0);
    assert_int_equal(tunnel_client_config_set_instance(c, "00112233445566778899aabbccddeef"),
                     TUNNEL_E_INVALID);
    assert_int_equal(tunnel_client_config_set_instance(c, "00112233445566778899aabbccddeefg"),
                     TUNNEL_E_INVALID);
    assert_line(tunnel_client_config_error(c));
    assert_int_equal(tunnel_client_config_set_silence(c, 999), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_client_config_set_silence(c, 600001), TUNNEL_E_INVALID);
    assert_line(tunnel_client_config_error(c));
    assert_int_equal(tunnel_client_config_set_silence(c, 1000), 0);
    assert_int_equal(tunnel_client_config_set_silence(c, 600000), 0);
    assert_int_equal(tunnel_client_config_set_ca_file(c, ""), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_client_config_set_ca_file(c, text), TUNNEL_E_INVALID);
    assert_line(tunnel_client_config_error(c));
    assert_int_equal(tunnel_client_config_set_ca_file(c, "/x"), 0);
    assert_int_equal(tunnel_client_config_set_force(c, 1), 0);
    assert_int_equal(tunnel_client_config_set_insecure(c, 1), 0);
    tunnel_client_config_free(c);
    memory.fail_at = memory.count + 1;
    assert_int_equal(tunnel_client_config_new(&c), TUNNEL_E_NOMEM);
    memory.fail_at = 0;
    assert_int_equal(memory.live, 0);
}

static void options_of_a_tunnel(void **state)
{
    (void)state;
    char text[600];
    tunnel_options *o;
    assert_int_equal(tunnel_options_new(&o), 0);
    static const char *const good[] = {"localhost", "app.test:3000", "[::1]:80", "127.0.0.1",
                                       "a_b"};
    static const char *const bad[] = {"",   " ",  "a b", "a\r\nX: y", "a/b",     "u@h",
                                      "@h", "h:", "h:0", "h?q",       "\xc3\xa4"};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_int_equal(tunnel_options_set_host_header(o, good[i]), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        if (tunnel_options_set_host_header(o, bad[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", bad[i]);
        assert_true(strlen(tunnel_options_error(o)) > 10);
    }
    memset(text, 'x', sizeof(text));
    text[256] = '\0';
    assert_int_equal(tunnel_options_set_host_header(o, text), TUNNEL_E_INVALID);
    text[255] = '\0';
    assert_int_equal(tunnel_options_set_host_header(o, text), 0);
    memset(text, 'x', sizeof(text) - 1);
    text[599] = '\0';
    assert_int_equal(tunnel_options_set_upstream_ca_file(o, text), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_options_set_upstream_ca_file(o, "/x"), 0);
    assert_string_equal(tunnel_options_error(o), "");
    tunnel_options_free(o);
    tunnel_options_free(NULL);
}

static void on_closed(void *user)
{
    ++*(unsigned *)user;
}

static void what_a_client_refuses(void **state)
{
    (void)state;
    tunnel_loop *loop;
    tunnel_client_config *c;
    tunnel_client *client;
    char detail[300];
    unsigned closes = 0;
    assert_int_equal(tunnel_loop_new(&loop, NULL), 0);
    assert_int_equal(tunnel_client_config_new(&c), 0);
    assert_int_equal(tunnel_client_new(&client, loop, c, detail, sizeof(detail)), TUNNEL_E_INVALID);
    assert_line(detail);
    assert_null(client);
    assert_int_equal(tunnel_client_new(&client, loop, c, NULL, 0), TUNNEL_E_INVALID);
    /* Plain WebSockets stay on this machine, unless one insists. */
    static const char *const far[] = {"ws://192.0.2.1", "ws://localhost.example.com",
                                      "http://[2001:db8::1]", "ws://127.1"};
    for (size_t i = 0; i < sizeof(far) / sizeof(*far); i++) {
        assert_int_equal(tunnel_client_config_set_server(c, far[i]), 0);
        assert_int_equal(tunnel_client_new(&client, loop, c, detail, sizeof(detail)),
                         TUNNEL_E_INVALID);
        assert_line(detail);
    }
    assert_int_equal(tunnel_client_config_set_insecure(c, 1), 0);
    assert_int_equal(tunnel_client_new(&client, loop, c, detail, sizeof(detail)), 0);
    tunnel_client_close(client, on_closed, &closes);
    assert_int_equal(tunnel_client_config_set_insecure(c, 0), 0);
    assert_int_equal(tunnel_client_config_set_server(c, "ws://localhost:1"), 0);
    /* What it would not heed it does not take. */
    assert_int_equal(tunnel_client_config_set_ca_file(c, "/x"), 0);
    assert_int_equal(tunnel_client_new(&client, loop, c, detail, sizeof(detail)), TUNNEL_E_INVALID);
    assert_line(detail);
    assert_int_equal(tunnel_client_config_set_server(c, "wss://localhost:1"), 0);
    assert_int_equal(tunnel_client_new(&client, loop, c, detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_line(detail);
    tunnel_client_config_free(c);
    tunnel_client_close(NULL, on_closed, &closes);
    tunnel_loop_run(loop);
    assert_int_equal(closes, 1);
    tunnel_loop_free(loop);
    assert_int_equal(memory.live, 0);
}

typedef struct signals {
    tunnel_loop *loop;
    int caught;
    int signum;
} signals;

static void on_signal(void *user, int signum)
{
    signals *s = user;
    s->caught++;
    s->signum = signum;
    tunnel_loop_stop(s->loop);
}

static void on_second(void *user, int signum)
{
    signals *s = user;
    s->caught += 100;
    s->signum = signum;
    tunnel_loop_on_signal(s->loop, signum, NULL, NULL);
    tunnel_loop_stop(s->loop);
}

static void loops_catch_signals(void **state)
{
    (void)state;
    signals s = {.caught = 0};
    tunnel_client_config *c;
    tunnel_client *client;
    unsigned closes = 0;
    assert_int_equal(tunnel_loop_new(&s.loop, NULL), 0);
    static const int bad[] = {-1, 0, SIGKILL, SIGSTOP, 1000};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(tunnel_loop_on_signal(s.loop, bad[i], on_signal, &s), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_loop_on_signal(s.loop, SIGUSR1, NULL, NULL), 0);
    assert_int_equal(tunnel_loop_on_signal(s.loop, SIGUSR1, on_signal, &s), 0);
    /* Something that keeps the loop running: a client whose server is not there. */
    assert_int_equal(tunnel_client_config_new(&c), 0);
    assert_int_equal(tunnel_client_config_set_server(c, "ws://127.0.0.1:1"), 0);
    assert_int_equal(tunnel_client_new(&client, s.loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
    assert_int_equal(tunnel_client_start(client), 0);
    raise(SIGUSR1);
    tunnel_loop_run(s.loop);
    assert_int_equal(s.caught, 1);
    assert_int_equal(s.signum, SIGUSR1);
    /* Another one in its place, which takes itself away. */
    assert_int_equal(tunnel_loop_on_signal(s.loop, SIGUSR1, on_second, &s), 0);
    raise(SIGUSR1);
    tunnel_loop_run(s.loop);
    assert_int_equal(s.caught, 101);
    tunnel_client_close(client, on_closed, &closes);
    tunnel_loop_run(s.loop);
    assert_int_equal(closes, 1);
    tunnel_loop_free(s.loop);
    tunnel_loop_free(NULL);
    assert_int_equal(memory.live, 0);
}

static void events_have_defaults(void **state)
{
    (void)state;
    tunnel_event e = {.type = TUNNEL_EVENT_REQUEST, .status = 7, .delay_ms = 8};
    assert_int_equal(tunnel_event_get_type(&e), TUNNEL_EVENT_REQUEST);
    assert_int_equal(tunnel_event_status(&e), 7);
    assert_int_equal(tunnel_event_delay_ms(&e), 8);
    assert_int_equal(tunnel_event_served(&e), 0);
    assert_string_equal(tunnel_event_text(&e), "");
    assert_string_equal(tunnel_event_url(&e), "");
    assert_string_equal(tunnel_event_account(&e), "");
    assert_string_equal(tunnel_event_method(&e), "");
    assert_string_equal(tunnel_event_host(&e), "");
    assert_string_equal(tunnel_event_path(&e), "");
    assert_string_equal(tunnel_event_visitor(&e), "");
    assert_string_equal(tunnel_event_name(TUNNEL_EVENT_CONNECTING), "connecting");
    assert_string_equal(tunnel_event_name((tunnel_event_type)9999), "unknown");
    assert_string_equal(tunnel_version(), TUNNEL_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_addresses),    cmocka_unit_test(the_other_settings),
        cmocka_unit_test(options_of_a_tunnel), cmocka_unit_test(what_a_client_refuses),
        cmocka_unit_test(loops_catch_signals), cmocka_unit_test(events_have_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
