/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "io/conn.h"
#include "io/loop.h"
#include "support/check.h"
#include "support/peer.h"
#include "tunnel/error.h"

static void end_peers(test_loop *l, test_peer *a, test_peer *b)
{
    if (a->c)
        tnl_conn_close(a->c);
    if (b->c)
        tnl_conn_close(b->c);
    UNTIL(l, !a->c && !b->c);
    assert_int_equal(a->closes, 1);
    assert_int_equal(b->closes, 1);
    test_peer_free(a);
    test_peer_free(b);
}

static int plain_connect(const tnl_address *to)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(to->port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void on_accept(void *user, tnl_conn *c)
{
    test_peer_attach(user, c);
}

/* --- connecting ------------------------------------------------------------------------------- */

typedef struct outcome {
    int calls;
    int error;
    char detail[400];
    tnl_conn *c;
} outcome;

static void on_outcome(void *user, int error, const char *detail, tnl_conn *c)
{
    outcome *o = user;
    o->calls++;
    o->error = error;
    o->c = c;
    snprintf(o->detail, sizeof(o->detail), "%s", detail);
}

static outcome try_connect(test_loop *l, const char *host, uint16_t port, const char *unix_path,
                           uint64_t ms)
{
    outcome o = {0};
    tnl_connect *c;
    int rc = tnl_connect_start(&c, l->loop, host, port, unix_path, ms, on_outcome, &o);
    assert_int_equal(rc, 0);
    assert_int_equal(o.calls, 0);
    UNTIL(l, o.calls);
    assert_int_equal(o.calls, 1);
    return o;
}

/* A port of 127.0.0.1 where nobody listens. */
static uint16_t free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t size = sizeof(sa);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    getsockname(fd, (struct sockaddr *)&sa, &size);
    close(fd);
    return ntohs(sa.sin_port);
}

static void what_cannot_be_reached_is_explained(void **state)
{
    (void)state;
    test_loop l;
    char expected[100];
    tnl_connect *c;
    outcome o;
    test_loop_open(&l);
    uint16_t port = free_port();
    o = try_connect(&l, "127.0.0.1", port, NULL, 5000);
    snprintf(expected, sizeof(expected), "connect to 127.0.0.1:%d: connection refused", port);
    assert_int_equal(o.error, TUNNEL_E_REFUSED);
    assert_string_equal(o.detail, expected);
    o = try_connect(&l, "localhost", port, NULL, 5000);
    snprintf(expected, sizeof(expected), "connect to localhost:%d: connection refused", port);
    assert_int_equal(o.error, TUNNEL_E_REFUSED);
    assert_string_equal(o.detail, expected);
    o = try_connect(&l, NULL, 0, "/nonexistent/socket", 5000);
    assert_int_equal(o.error, TUNNEL_E_NOT_FOUND);
    assert_string_equal(o.detail, "connect to unix:/nonexistent/socket: no such file or name");
    o = try_connect(&l, "no-such-name.invalid", 80, NULL, 20000);
    assert_int_equal(o.error, TUNNEL_E_RESOLVE);

    char path[200];
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    o = try_connect(&l, NULL, 0, path, 5000);
    assert_int_equal(o.error, TUNNEL_E_INVALID);
    assert_int_equal(tnl_connect_start(&c, l.loop, "", 80, NULL, 1, on_outcome, &o),
                     TUNNEL_E_INVALID);
    assert_int_equal(tnl_connect_start(&c, l.loop, "a", 0, NULL, 1, on_outcome, &o),
                     TUNNEL_E_INVALID);
    assert_int_equal(tnl_connect_start(&c, l.loop, NULL, 0, NULL, 1, on_outcome, &o),
                     TUNNEL_E_INVALID);
    test_loop_close(&l);
}

/* A listener whose queue is full leaves further connects without an answer. */
static void connecting_takes_no_longer_than_allowed(void **state)
{
    (void)state;
    test_loop l;
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t size = sizeof(sa);
    int fill[8];
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 0), 0);
    getsockname(fd, (struct sockaddr *)&sa, &size);
    for (size_t i = 0; i < 8; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&sa, sizeof(sa));
    }
    test_loop_open(&l);
    outcome o = try_connect(&l, "127.0.0.1", ntohs(sa.sin_port), NULL, 300);
    assert_int_equal(o.error, TUNNEL_E_TIMEOUT);
    assert_non_null(strstr(o.detail, "timed out after 300 ms"));
    test_loop_close(&l);
    for (size_t i = 0; i < 8; i++)
        close(fill[i]);
    close(fd);
}

static size_t descriptors(void)
{
    size_t n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

/* A listener whose queue is full answers nobody, as a network that is away. */
static void who_insists_asks_again(void **state)
{
    (void)state;
    enum { WAITING = 4 };
    test_loop l;
    tnl_connect *c;
    outcome o = {0};
    int waiting[WAITING];
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t size = sizeof(sa);
    test_loop_open(&l);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &size), 0);
    for (int i = 0; i < WAITING; i++) {
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(waiting[i], (struct sockaddr *)&sa, sizeof(sa));
    }
    (void)try_connect(&l, NULL, 0, "/nonexistent/socket", 5000); /* libuv opens one of its own */
    size_t before = descriptors();
    assert_int_equal(
        tnl_connect_start(&c, l.loop, "127.0.0.1", ntohs(sa.sin_port), NULL, 60000, on_outcome, &o),
        0);
    tnl_connect_insist(c);
    UNTIL(&l, descriptors() >= before + 3);
    assert_int_equal(o.calls, 0);
    tnl_connect_cancel(c);
    UNTIL(&l, descriptors() == before);
    for (int i = 0; i < WAITING; i++)
        close(waiting[i]);
    close(fd);
    test_loop_close(&l);
}

static void localhost_is_both_families(void **state)
{
    (void)state;
    test_loop l;
    tnl_listener *listener;
    test_peer *p = malloc(sizeof(*p));
    test_loop_open(&l);
    test_peer_init(p);
    if (tnl_listener_new(&listener, l.loop, "[::1]:0", on_accept, p, NULL, 0)) {
        print_message("no IPv6 here\n");
    } else {
        const char *const names[] = {"localhost", "LOCALHOST.", "demo.localhost", "::1"};
        tnl_address a = tnl_listener_address(listener);
        assert_string_equal(a.host, "::1");
        assert_true(a.ipv6);
        for (size_t i = 0; i < 4; i++) {
            outcome o = try_connect(&l, names[i], a.port, NULL, 5000);
            assert_int_equal(o.error, 0);
            UNTIL(&l, p->c);
            assert_string_equal(tnl_conn_peer(p->c).host, "::1");
            tnl_conn_close(o.c);
            tnl_conn_close(p->c);
            UNTIL(&l, !p->c);
        }
        tnl_listener_free(listener);
    }
    test_loop_close(&l);
    test_peer_free(p);
    free(p);
}

static void canceled_connects_say_nothing(void **state)
{
    (void)state;
    test_loop l;
    outcome o = {0};
    tnl_connect *c;
    test_loop_open(&l);
    for (int turns = 0; turns < 3; turns++) {
        const char *const hosts[] = {"127.0.0.1", "localhost", "no-such-name.invalid"};
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(tnl_connect_start(&c, l.loop, hosts[i], 9, NULL, 5000, on_outcome, &o),
                             0);
            for (int t = 0; t < turns && !o.calls; t++)
                uv_run(tnl_loop_uv(l.loop), UV_RUN_NOWAIT);
            if (!o.calls)
                tnl_connect_cancel(c);
            o.calls = 0;
        }
    }
    tnl_connect_cancel(NULL);
    for (int i = 0; i < 5; i++)
        test_turn(&l);
    assert_int_equal(o.calls, 0);
    test_loop_close(&l);
}

/* --- listening -------------------------------------------------------------------------------- */

static void listen_fails(test_loop *l, const char *address, int error, const char *words)
{
    char detail[300] = "";
    tnl_listener *listener;
    int rc = tnl_listener_new(&listener, l->loop, address, on_accept, NULL, detail, sizeof(detail));
    if (rc != error || !strstr(detail, words))
        fail_msg("%s: %d, %s", address, rc, detail);
    assert_null(listener);
    assert_int_equal(tnl_listener_new(&listener, l->loop, address, on_accept, NULL, NULL, 0),
                     error);
}

static void what_cannot_be_listened_on_is_explained(void **state)
{
    (void)state;
    test_loop l;
    tnl_listener *first;
    char taken[64];
    test_loop_open(&l);
    assert_int_equal(tnl_listener_new(&first, l.loop, "127.0.0.1:0", on_accept, NULL, NULL, 0), 0);
    snprintf(taken, sizeof(taken), "127.0.0.1:%d", tnl_listener_address(first).port);
    listen_fails(&l, taken, TUNNEL_E_ADDR_IN_USE, "another program listens there");
    listen_fails(&l, taken, TUNNEL_E_ADDR_IN_USE, taken);
    const char *const wrong[] = {"",
                                 "8080",
                                 ":8080",
                                 "127.0.0.1",
                                 "127.0.0.1:",
                                 "127.0.0.1:x",
                                 "127.0.0.1:65536",
                                 "127.0.0.1:-1",
                                 "::1:80",
                                 "[::1]",
                                 "[::1]80",
                                 "[127.0.0.1]:80",
                                 "127.0.0.1:80 ",
                                 "[::1:80"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        listen_fails(&l, wrong[i], TUNNEL_E_INVALID, "an address is written like");
    listen_fails(&l, "example.com:80", TUNNEL_E_INVALID, "not a numeric address");
    listen_fails(&l, "192.0.2.1:80", TUNNEL_E_INVALID, "no such address");
    listen_fails(&l, "unix:", TUNNEL_E_INVALID, "1 to 107 bytes");
    listen_fails(&l, "unix:/nonexistent/x", TUNNEL_E_INVALID, "the directory does not exist");
    listen_fails(&l, "unix:/etc/passwd", TUNNEL_E_ADDR_IN_USE, "there is a file of that name");
    tnl_listener_free(first);
    tnl_listener_free(NULL);
    test_loop_close(&l);
}

typedef struct crowd {
    size_t count;
    tnl_conn *c[512];
} crowd;

static void on_crowd(void *user, tnl_conn *c)
{
    crowd *w = user;
    assert_true(w->count < 512);
    w->c[w->count++] = c;
}

static void socket_files_come_and_go(void **state)
{
    (void)state;
    test_loop l;
    tnl_listener *first, *second;
    crowd w = {0};
    test_peer *p = malloc(sizeof(*p)), *q = malloc(sizeof(*q));
    char folder[] = "/tmp/tnl-io-XXXXXX", path[64], address[80];
    struct stat st;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    snprintf(address, sizeof(address), "unix:%s", path);
    test_loop_open(&l);
    test_peer_init(p);
    test_peer_init(q);

    /* Left over from a crash: replaced. In use: refused. */
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    memcpy(sa.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(fd);
    assert_int_equal(tnl_listener_new(&first, l.loop, address, on_crowd, &w, NULL, 0), 0);
    listen_fails(&l, address, TUNNEL_E_ADDR_IN_USE, "another program");

    /* Trying whether the file is in use has made two connections. */
    outcome o = try_connect(&l, NULL, 0, path, 5000);
    assert_int_equal(o.error, 0);
    test_peer_attach(q, o.c);
    UNTIL(&l, w.count == 3);
    tnl_conn_close(w.c[0]);
    tnl_conn_close(w.c[1]);
    test_peer_attach(p, w.c[2]);
    tnl_conn_resume(p->c);
    assert_int_equal(test_send(q->c, "hi", 2), 0);
    UNTIL(&l, p->received == 2);
    end_peers(&l, p, q);

    /* A file that is no longer ours stays. */
    unlink(path);
    assert_int_equal(tnl_listener_new(&second, l.loop, address, on_accept, p, NULL, 0), 0);
    tnl_listener_free(first);
    assert_int_equal(stat(path, &st), 0);
    tnl_listener_free(second);
    assert_int_equal(stat(path, &st), -1);
    test_loop_close(&l);
    rmdir(folder);
    free(p);
    free(q);
}

static void a_crowd_is_let_in_by_and_by(void **state)
{
    (void)state;
    enum { N = 300 };
    test_loop l;
    tnl_listener *listener;
    crowd w = {0};
    int fd[N];
    size_t most = 0;
    test_loop_open(&l);
    assert_int_equal(tnl_listener_new(&listener, l.loop, "127.0.0.1:0", on_crowd, &w, NULL, 0), 0);
    tnl_address to = tnl_listener_address(listener);
    for (size_t i = 0; i < N; i++)
        fd[i] = plain_connect(&to);
    while (w.count < N) {
        size_t before = w.count;
        assert_true(test_turn(&l));
        if (w.count - before > most)
            most = w.count - before;
    }
    assert_true(most <= 65);
    for (size_t i = 0; i < N; i++) {
        tnl_conn_close(w.c[i]);
        close(fd[i]);
    }
    tnl_listener_free(listener);
    test_loop_close(&l);
}

static void a_listener_can_go_while_visitors_wait(void **state)
{
    (void)state;
    test_loop l;
    tnl_listener *listener;
    crowd w = {0};
    int fd[100];
    test_loop_open(&l);
    assert_int_equal(tnl_listener_new(&listener, l.loop, "127.0.0.1:0", on_crowd, &w, NULL, 0), 0);
    tnl_address to = tnl_listener_address(listener);
    for (size_t i = 0; i < 100; i++)
        fd[i] = plain_connect(&to);
    UNTIL(&l, w.count >= 64);
    tnl_listener_free(listener);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    for (size_t i = 0; i < w.count; i++)
        tnl_conn_close(w.c[i]);
    for (size_t i = 0; i < 100; i++)
        close(fd[i]);
    test_loop_close(&l);
}

static void addresses_split(void **state)
{
    (void)state;
    char host[64];
    uint16_t port;
    assert_int_equal(tnl_address_split("[2001:db8::1]:65535", host, sizeof(host), &port), 0);
    assert_string_equal(host, "2001:db8::1");
    assert_int_equal(port, 65535);
    assert_int_equal(tnl_address_split("example.com:00080", host, sizeof(host), &port), 0);
    assert_string_equal(host, "example.com");
    assert_int_equal(port, 80);
    char text[100];
    memset(text, 'a', sizeof(text));
    memcpy(text + 64, ":80", 4);
    assert_int_equal(tnl_address_split(text, host, sizeof(host), &port), TUNNEL_E_INVALID);
    assert_int_equal(tnl_address_split(text + 1, host, sizeof(host), &port), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_reached_is_explained),
        cmocka_unit_test(connecting_takes_no_longer_than_allowed),
        cmocka_unit_test(who_insists_asks_again),
        cmocka_unit_test(localhost_is_both_families),
        cmocka_unit_test(canceled_connects_say_nothing),
        cmocka_unit_test(what_cannot_be_listened_on_is_explained),
        cmocka_unit_test(socket_files_come_and_go),
        cmocka_unit_test(a_crowd_is_let_in_by_and_by),
        cmocka_unit_test(a_listener_can_go_while_visitors_wait),
        cmocka_unit_test(addresses_split),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
