/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/internal.h"
#include "support/check.h"
#include "support/files_rig.h"
#include "support/memory_conn.h"
#include "tunnel/error.h"

/* The life of the connections of a served folder. */

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

static void hear(files_guest *g, int status, const char *body)
{
    files_guest_hear(g, false);
    assert_int_equal(g->reply.status, status);
    assert_true(files_body_is(g, body));
}

static void pipelined(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "a", "first");
    files_rig_put(&r, "b", "second");
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/a") GET("/b") "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" GET("/b"));
    hear(&g, 200, "first");
    hear(&g, 200, "second");
    files_guest_hear(&g, true);
    assert_int_equal(g.reply.status, 200);
    hear(&g, 200, "second");

    /* Far more than is read ahead; the answers are read meanwhile. */
    enum { MANY = 3000 };
    char *all = malloc(MANY * (sizeof(GET("/a")) - 1) + 1);
    assert_non_null(all);
    all[0] = '\0';
    char *end = all;
    for (int i = 0; i < MANY; i++)
        end = stpcpy(end, GET("/a"));
    size_t n = (size_t)(end - all), said = 0;
    for (int heard = 0; heard < MANY; heard++) {
        ssize_t rc = said < n ? send(g.fd, all + said, n - said, MSG_DONTWAIT) : 0;
        said += rc > 0 ? (size_t)rc : 0;
        hear(&g, 200, "first");
    }
    free(all);

    /* A bad one is answered in its turn. */
    files_guest_say(&g, GET("/a") "GET /b HTTP/1.1\r\nHost: x y\r\n\r\n" GET("/a"));
    hear(&g, 200, "first");
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.status, 400);
    shutdown(g.fd, SHUT_WR);
    files_guest_end(&g);
    assert_int_equal(g.n, g.reply.head_n + g.reply.n);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void in_pieces(void **state)
{
    (void)state;
    static const char requests[] = GET("/a") "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                                             "\r\nabc" GET("/a");
    files_rig r;
    files_rig_open(&r);
    files_rig_put(&r, "a", "first");
    for (size_t piece = 1; piece < 80; piece += 13) {
        memory_conn *here, *there;
        test_peer p;
        test_memory_pair(r.l.loop, &here, &there, piece);
        test_peer_init(&p);
        test_peer_attach(&p, &here->base);
        tnl_conn_resume(&here->base);
        assert_int_equal(tnl_files_serve(r.files, &there->base), 0);
        assert_int_equal(test_send(&here->base, requests, sizeof(requests) - 1), 0);
        tnl_conn_shutdown(&here->base);
        UNTIL(&r.l, p.eofs);
        const char *text = (const char *)p.bytes;
        const char *first = memmem(text, p.received, "\r\n\r\nfirstHTTP/1.1 405 ", 22);
        assert_non_null(first);
        assert_memory_equal(text + p.received - 9, "\r\n\r\nfirst", 9);
        tnl_conn_close(&here->base);
        UNTIL(&r.l, p.closes && tnl_files_count(r.files) == 0);
        test_peer_free(&p);
    }
    files_rig_close(&r);
}

static void persistence(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *connection;
    } cases[] = {
        {"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "close"},
        {"GET /a HTTP/1.0\r\n\r\n", "close"},
        {"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"},
        {"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
    };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "a", "first");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        files_guest_open(&g, &r);
        files_guest_say(&g, cases[i].request);
        hear(&g, 200, "first");
        assert_string_equal(files_field(&g, "Connection"), cases[i].connection);
        if (strcmp(cases[i].connection, "close") != 0) {
            files_guest_say(&g, GET("/a"));
            hear(&g, 200, "first");
        }
        shutdown(g.fd, SHUT_WR);
        files_guest_end(&g);
        assert_false(g.reset);
        files_guest_close(&g);
    }
    files_rig_close(&r);
}

/* A visitor who ends its direction still gets what it asked for. */
static void half_closed(void **state)
{
    (void)state;
    enum { SIZE = 3 * 1000 * 1000 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    uint8_t *bytes = calloc(1, SIZE);
    assert_non_null(bytes);
    files_rig_put_bytes(&r, "big", bytes, SIZE);
    files_rig_put(&r, "a", "first");
    free(bytes);
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big") GET("/a"));
    shutdown(g.fd, SHUT_WR);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.n, SIZE);
    hear(&g, 200, "first");
    files_guest_end(&g);
    assert_false(g.reset);
    files_guest_close(&g);

    /* One that ends within a request gets nothing. */
    files_guest_open(&g, &r);
    files_guest_say(&g, "GET /a HTTP/1.1\r\nHo");
    shutdown(g.fd, SHUT_WR);
    files_guest_end(&g);
    assert_int_equal(g.n, 0);
    files_guest_close(&g);

    /* One that asks for nothing is let go. */
    files_guest_open(&g, &r);
    shutdown(g.fd, SHUT_WR);
    files_guest_end(&g);
    files_guest_close(&g);
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    files_rig_close(&r);
}

static void make_sparse(const files_rig *r, const char *name, off_t size)
{
    int fd = open(files_rig_path(r, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static tnl_files_conn *only(const files_rig *r)
{
    return TNL_CONTAINER(r->files->conns.next, tnl_files_conn, node);
}

/* Turns until nothing moves any more. */
static void settle(files_rig *r)
{
    uint64_t written;
    do {
        written = only(r)->written;
        for (int i = 0; i < 5; i++)
            assert_true(test_turn(&r->l));
    } while (written != only(r)->written);
}

/* One who reads slowly holds one piece, and gets all of it in the end. */
static void slow_reader(void **state)
{
    (void)state;
    enum { SIZE = 20 * 1024 * 1024 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    make_sparse(&r, "big", SIZE);
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big"));
    settle(&r);
    assert_true(only(&r)->written < 2 * 1024 * 1024);
    assert_in_range(tnl_conn_pending(only(&r)->conn), 1, TNL_FILES_PIECE);
    assert_int_equal(tnl_buf_len(&only(&r)->out), 0);
    while (!files_guest_read(&g, 1000))
        assert_true(test_turn(&r.l));
    settle(&r);
    assert_in_range(tnl_conn_pending(only(&r)->conn), 0, TNL_FILES_PIECE);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.n, SIZE);
    files_guest_close(&g);
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    files_rig_close(&r);
}

/* A long listing goes out in pieces as well, and all of them together are bounded. */
static void slow_listings(void **state)
{
    (void)state;
    enum { GUESTS = 30 };
    files_rig r;
    files_guest g[GUESTS];
    char name[256];
    unsigned refused = 0;
    files_rig_open(&r);
    files_rig_mkdir(&r, "long");
    for (unsigned i = 0; i < 1500; i++) {
        int n = snprintf(name, sizeof(name), "long/%05u", i);
        memset(name + n, '<', 250 - (size_t)n);
        name[250] = '\0';
        make_sparse(&r, name, 0);
    }
    for (unsigned i = 0; i < GUESTS; i++) {
        files_guest_open(&g[i], &r);
        files_guest_say(&g[i], GET("/long/"));
        while (!files_guest_read(&g[i], 16))
            assert_true(test_turn(&r.l));
        assert_true(r.files->listings <= 32 * 1024 * 1024);
    }
    assert_true(r.files->listings > 20 * 1024 * 1024);
    for (unsigned i = 0; i < GUESTS; i++) {
        files_guest_hear(&g[i], false);
        if (g[i].reply.status == 503) {
            refused++;
            assert_true(*files_field(&g[i], "Retry-After"));
        } else {
            assert_int_equal(g[i].reply.status, 200);
            assert_true(g[i].reply.n > 2 * 1024 * 1024);
        }
    }
    assert_in_range(refused, 1, GUESTS - 7);
    UNTIL(&r.l, r.files->listings == 0);
    assert_int_equal(files_ask(&g[0], "GET", "/long/", ""), 200);
    /* One who leaves gives back what it held. */
    files_guest_say(&g[0], GET("/long/"));
    UNTIL(&r.l, r.files->listings > 0);
    for (unsigned i = 0; i < GUESTS; i++)
        files_guest_close(&g[i]);
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    assert_int_equal(r.files->listings, 0);
    files_rig_close(&r);
}

/* A file that becomes shorter ends the connection within the answer: what came is less than was
 * said, and not made up. */
static void file_shrinks(void **state)
{
    (void)state;
    enum { SIZE = 20 * 1024 * 1024 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    make_sparse(&r, "big", SIZE);
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big") GET("/big"));
    settle(&r);
    assert_int_equal(truncate(files_rig_path(&r, "big"), 3 * 1000 * 1000), 0);
    files_guest_end(&g);
    const uint8_t *body = memmem(g.bytes, g.n, "\r\n\r\n", 4);
    assert_non_null(body);
    size_t got = g.n - (size_t)(body + 4 - g.bytes);
    assert_in_range(got, 1, 3 * 1000 * 1000);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void file_grows(void **state)
{
    (void)state;
    enum { SIZE = 20 * 1024 * 1024 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    make_sparse(&r, "big", SIZE);
    files_rig_put(&r, "a", "first");
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big") GET("/a"));
    settle(&r);
    make_sparse(&r, "big", 2 * SIZE);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.n, SIZE);
    hear(&g, 200, "first");
    files_guest_close(&g);
    files_rig_close(&r);
}

/* The file that was opened is sent, whatever takes its name meanwhile. */
static void file_replaced(void **state)
{
    (void)state;
    enum { SIZE = 4 * 1024 * 1024 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    make_sparse(&r, "big", SIZE);
    files_rig_put(&r, "other", "other");
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big"));
    settle(&r);
    assert_int_equal(rename(files_rig_path(&r, "other"), files_rig_path(&r, "big")), 0);
    files_guest_hear(&g, false);
    assert_int_equal(g.reply.n, SIZE);
    files_guest_say(&g, GET("/big"));
    hear(&g, 200, "other");
    files_guest_close(&g);
    files_rig_close(&r);
}

/* Beyond 256 connections the longest idle one goes; when none is idle nobody is taken. */
static void too_many(void **state)
{
    (void)state;
    enum { MOST = 256 };
    files_rig r;
    files_guest *g = calloc(MOST + 2, sizeof(*g));
    int fd[2];
    tnl_conn *c;
    assert_non_null(g);
    files_rig_open(&r);
    files_rig_put(&r, "a", "first");
    for (unsigned i = 0; i < MOST; i++)
        files_guest_open(&g[i], &r);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(tnl_conn_from_fd(&c, r.l.loop, fd[1], &tnl_conn_no_events, NULL), 0);
    /* Those that have asked for nothing yet are not idle: they are about to. */
    assert_int_equal(tnl_files_serve(r.files, c), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_files_count(r.files), MOST);
    assert_int_equal(files_ask(&g[7], "GET", "/a", ""), 200);
    assert_int_equal(files_ask(&g[3], "GET", "/a", ""), 200);
    assert_int_equal(files_ask(&g[5], "GET", "/a", ""), 200);
    files_guest_say(&g[7], "GET"); /* at work again */
    UNTIL(&r.l, tnl_list_first(&r.files->idle) &&
                    TNL_CONTAINER(r.files->idle.next, tnl_files_conn, idle)->written ==
                        g[3].reply.head_n + g[3].reply.n);
    while (r.files->idle.next->next->next != &r.files->idle)
        assert_true(test_turn(&r.l));
    assert_int_equal(tnl_files_serve(r.files, c), 0);
    files_guest_end(&g[3]);
    files_guest_open(&g[MOST], &r);
    files_guest_end(&g[5]);
    UNTIL(&r.l, tnl_files_count(r.files) == MOST);
    assert_int_equal(files_ask(&g[MOST], "GET", "/a", ""), 200);
    files_guest_say(&g[7], " /a HTTP/1.1\r\nHost: x\r\n\r\n");
    files_guest_hear(&g[7], false);
    assert_int_equal(g[7].reply.status, 200);
    close(fd[0]);
    for (unsigned i = 0; i <= MOST; i++)
        files_guest_close(&g[i]);
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    free(g);
    files_rig_close(&r);
}

static void times(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    files_rig_put(&r, "a", "first");
    make_sparse(&r, "big", 20 * 1024 * 1024);

    /* Nothing is asked for, or nothing more: a polite end. */
    r.files->head_ms = r.files->idle_ms = 30;
    files_guest_open(&g, &r);
    files_guest_end(&g);
    assert_int_equal(g.n, 0);
    files_guest_close(&g);
    r.files->head_ms = TNL_FILES_HEAD_MS;
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/a"));
    hear(&g, 200, "first");
    files_guest_end(&g);
    assert_false(g.reset);
    files_guest_close(&g);

    /* A head, or a body, that does not end. */
    r.files->head_ms = r.files->body_ms = 30;
    r.files->idle_ms = TNL_FILES_IDLE_MS;
    static const char *const halves[] = {
        "GET /a HTTP/1.1\r\nHost:",
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
        GET("/a") "GET /a",
    };
    for (size_t i = 0; i < 3; i++) {
        files_guest_open(&g, &r);
        files_guest_say(&g, halves[i]);
        if (i == 2)
            hear(&g, 200, "first");
        files_guest_hear(&g, false);
        assert_int_equal(g.reply.status, 408);
        assert_string_equal(files_field(&g, "Connection"), "close");
        files_guest_close(&g);
    }

    /* One who takes nothing of the answer. */
    r.files->stall_ms = 30;
    files_guest_open(&g, &r);
    files_guest_say(&g, GET("/big"));
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    files_guest_end(&g);
    assert_true(g.n < 20 * 1024 * 1024);
    files_guest_close(&g);
    files_rig_close(&r);
}

static void set(void *user)
{
    *(bool *)user = true;
}

static void freed_with_connections(void **state)
{
    (void)state;
    files_rig r;
    files_guest g[5];
    files_rig_open(&r);
    make_sparse(&r, "big", 20 * 1024 * 1024);
    for (int i = 0; i < 5; i++)
        files_guest_open(&g[i], &r);
    assert_int_equal(files_ask(&g[0], "GET", "/", ""), 200);
    files_guest_say(&g[1], GET("/big"));
    files_guest_say(&g[2], GET("/bi"));
    files_guest_say(&g[3], "GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n");
    files_guest_hear(&g[3], false);
    assert_int_equal(tnl_files_count(r.files), 5);
    tnl_files_free(r.files, NULL, NULL);
    r.files = NULL;
    for (int i = 0; i < 5; i++) {
        files_guest_end(&g[i]);
        files_guest_close(&g[i]);
    }
    files_rig_close(&r);
}

/* Taken leave of, a folder's connections end when they are idle, after what they are busy with. */
static void left(void **state)
{
    (void)state;
    enum { SIZE = 20 * 1024 * 1024 };
    files_rig r;
    files_guest g[4];
    files_rig_open(&r);
    make_sparse(&r, "big", SIZE);
    for (int i = 0; i < 4; i++)
        files_guest_open(&g[i], &r);
    assert_int_equal(files_ask(&g[0], "GET", "/", ""), 200);
    files_guest_say(&g[1], GET("/big") GET("/big"));
    files_guest_say(&g[2], "GET / HTTP/1.1\r\nHo");
    while (!files_guest_read(&g[1], 1))
        assert_true(test_turn(&r.l));
    UNTIL(&r.l, tnl_list_first(&r.files->idle));
    bool gone = false;
    tnl_files_leave(r.files, set, &gone);
    r.files = NULL;
    files_guest_end(&g[0]);
    assert_false(g[0].reset);
    files_guest_hear(&g[1], false);
    assert_int_equal(g[1].reply.n, SIZE);
    files_guest_end(&g[1]);
    assert_int_equal(g[1].n, g[1].reply.head_n + SIZE);
    assert_false(gone);
    for (int i = 2; i < 4; i++) {
        files_guest_say(&g[i], i == 2 ? "st: x\r\n\r\n" : GET("/"));
        files_guest_hear(&g[i], false);
        assert_int_equal(g[i].reply.status, 200);
        assert_string_equal(files_field(&g[i], "Connection"), "close");
        files_guest_end(&g[i]);
    }
    for (int i = 0; i < 4; i++)
        files_guest_close(&g[i]);
    UNTIL(&r.l, gone);
    files_rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined),     cmocka_unit_test(in_pieces),
        cmocka_unit_test(persistence),   cmocka_unit_test(half_closed),
        cmocka_unit_test(slow_reader),   cmocka_unit_test(slow_listings),
        cmocka_unit_test(file_shrinks),  cmocka_unit_test(file_grows),
        cmocka_unit_test(file_replaced), cmocka_unit_test(too_many),
        cmocka_unit_test(times),         cmocka_unit_test(freed_with_connections),
        cmocka_unit_test(left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
