/* SPDX-License-Identifier: Apache-2.0 */
#include "support/peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <uv.h>

#include "support/check.h"

enum { TICK_MS = 5, SECONDS = 30 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_tick(void *user)
{
    (void)user;
}

void test_loop_open(test_loop *l)
{
    assert_int_equal(tnl_loop_new(&l->loop, NULL), 0);
    assert_int_equal(tnl_timer_new(&l->tick, l->loop, on_tick, NULL), 0);
    tnl_loop_hold(l->loop);
    l->deadline = seconds() + (double)SECONDS;
}

void test_loop_close(test_loop *l)
{
    tnl_timer_free(l->tick);
    tnl_loop_release(l->loop);
    tnl_loop_free(l->loop);
}

bool test_turn(test_loop *l)
{
    /* By the time that passed since the last turn the timer could fire before the poll, which then
     * never ends. */
    uv_update_time(tnl_loop_uv(l->loop));
    tnl_timer_start(l->tick, TICK_MS);
    uv_run(tnl_loop_uv(l->loop), UV_RUN_ONCE);
    return seconds() < l->deadline;
}

/* --- the user of a connection ----------------------------------------------------------------- */

static void act(test_peer *p, test_moment now)
{
    if (p->act_in != now)
        return;
    p->act_in = TEST_NEVER;
    p->act(p->c);
}

static size_t on_space(void *user, uint8_t **b)
{
    test_peer *p = user;
    act(p, TEST_IN_SPACE);
    *b = p->buffer;
    return p->room;
}

static void on_data(void *user, uint8_t *b, size_t n)
{
    test_peer *p = user;
    assert_ptr_equal(b, p->buffer);
    assert_true(n > 0 && n <= p->room);
    assert_int_equal(p->eofs, 0);
    assert_int_equal(p->closes, 0);
    if (p->received < p->keep) {
        size_t cut = p->keep - p->received < n ? p->keep - p->received : n;
        memcpy(p->bytes + p->received, b, cut);
    }
    p->received += n;
    p->data_calls++;
    p->hash = test_hash(p->hash, b, n);
    act(p, TEST_IN_DATA);
    if (p->echo) {
        assert_int_equal(test_send(p->c, b, n), 0);
        if (tnl_conn_pending(p->c))
            tnl_conn_pause(p->c);
    }
}

static void on_eof(void *user)
{
    test_peer *p = user;
    p->eofs++;
    act(p, TEST_IN_EOF);
    if (p->echo_end)
        tnl_conn_shutdown(p->c);
}

static void on_drained(void *user)
{
    test_peer *p = user;
    p->drains++;
    assert_int_equal(tnl_conn_pending(p->c), 0);
    act(p, TEST_IN_DRAINED);
    if (p->echo)
        tnl_conn_resume(p->c);
}

static void on_ready(void *user)
{
    test_peer *p = user;
    p->readies++;
    act(p, TEST_IN_READY);
}

static void on_closed(void *user, int error, const char *detail)
{
    test_peer *p = user;
    p->c = NULL;
    p->closes++;
    p->error = error;
    snprintf(p->detail, sizeof(p->detail), "%s", detail);
}

const tnl_conn_events test_peer_events = {
    .space = on_space,
    .data = on_data,
    .eof = on_eof,
    .drained = on_drained,
    .ready = on_ready,
    .closed = on_closed,
};

void test_peer_init(test_peer *p)
{
    memset(p, 0, sizeof(*p));
    p->room = sizeof(p->buffer);
    p->keep = 64 * 1024;
    p->bytes = malloc(p->keep);
    assert_non_null(p->bytes);
}

void test_peer_attach(test_peer *p, tnl_conn *c)
{
    p->c = c;
    tnl_conn_set_events(c, &test_peer_events, p);
}

void test_peer_free(test_peer *p)
{
    free(p->bytes);
    p->bytes = NULL;
}

/* --- bytes ------------------------------------------------------------------------------------ */

uint64_t test_hash(uint64_t hash, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u + 0x9e3779b9u;
    return hash;
}

void test_fill(uint8_t *p, size_t n, uint64_t offset)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((offset + i) * 0x9e3779b97f4a7c15u >> 56);
}

int test_send(tnl_conn *c, const void *p, size_t n)
{
    tnl_iov v = {p, n};
    return tnl_conn_write(c, &v, 1);
}

bool test_pump(tnl_conn *c, uint64_t *sent, uint64_t total, size_t chunk)
{
    uint8_t piece[64 * 1024];
    while (*sent < total && tnl_conn_pending(c) == 0) {
        size_t n = chunk < sizeof(piece) ? chunk : sizeof(piece);
        if (n > total - *sent)
            n = (size_t)(total - *sent);
        test_fill(piece, n, *sent);
        assert_int_equal(test_send(c, piece, n), 0);
        *sent += n;
    }
    return *sent == total;
}

/* --- pairs ------------------------------------------------------------------------------------ */

void test_pair(test_loop *l, test_peer *a, test_peer *b)
{
    int fd[2];
    tnl_conn *c;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    test_peer_init(a);
    test_peer_init(b);
    assert_int_equal(tnl_conn_from_fd(&c, l->loop, fd[0], &test_peer_events, a), 0);
    a->c = c;
    assert_int_equal(tnl_conn_from_fd(&c, l->loop, fd[1], &test_peer_events, b), 0);
    b->c = c;
}

static void on_accept(void *user, tnl_conn *c)
{
    test_peer_attach(user, c);
}

static void on_connect(void *user, int error, const char *detail, tnl_conn *c)
{
    (void)detail;
    assert_int_equal(error, 0);
    test_peer_attach(user, c);
}

void test_tcp_pair(test_loop *l, test_peer *a, test_peer *b)
{
    tnl_listener *listener;
    tnl_connect *connect;
    test_peer_init(a);
    test_peer_init(b);
    assert_int_equal(tnl_listener_new(&listener, l->loop, "127.0.0.1:0", on_accept, b, NULL, 0), 0);
    assert_int_equal(tnl_connect_start(&connect, l->loop, "127.0.0.1",
                                       tnl_listener_address(listener).port, NULL, 5000, on_connect,
                                       a),
                     0);
    UNTIL(l, a->c && b->c);
    tnl_listener_free(listener);
}
