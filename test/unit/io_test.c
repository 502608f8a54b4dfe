/* SPDX-License-Identifier: Apache-2.0 */
#include "io/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

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

/* --- the loop --------------------------------------------------------------------------------- */

typedef struct chain {
    tnl_loop *loop;
    tnl_task task;
    int left;
    int runs;
} chain;

static void run_chain(void *user)
{
    chain *c = user;
    c->runs++;
    if (--c->left > 0) {
        tnl_loop_defer(c->loop, &c->task);
        tnl_loop_defer(c->loop, &c->task);
    }
}

static void tasks_run_in_order_and_keep_the_loop(void **state)
{
    (void)state;
    tnl_loop *l;
    assert_int_equal(tnl_loop_new(&l, NULL), 0);
    chain c = {.loop = l, .left = 100}, canceled = {.loop = l, .left = 1};
    tnl_task_init(&c.task, run_chain, &c);
    tnl_task_init(&canceled.task, run_chain, &canceled);
    tnl_loop_defer(l, &c.task);
    tnl_loop_defer(l, &c.task);
    tnl_loop_defer(l, &canceled.task);
    tnl_task_cancel(&canceled.task);
    tnl_task_cancel(&canceled.task);
    tnl_loop_run(l);
    assert_int_equal(c.runs, 100);
    assert_int_equal(canceled.runs, 0);
    tnl_loop_free(l);
}

typedef struct clockwork {
    tnl_loop *loop;
    tnl_timer *timer;
    int fired;
} clockwork;

static void fire(void *user)
{
    clockwork *w = user;
    w->fired++;
    tnl_timer_free(w->timer);
    tnl_loop_release(w->loop);
}

static void a_held_loop_waits_for_its_timer(void **state)
{
    (void)state;
    clockwork w = {0};
    assert_int_equal(tnl_loop_new(&w.loop, NULL), 0);
    assert_int_equal(tnl_timer_new(&w.timer, w.loop, fire, &w), 0);
    tnl_timer_start(w.timer, 20);
    assert_true(tnl_timer_active(w.timer));
    tnl_loop_run(w.loop);
    assert_int_equal(w.fired, 0);
    tnl_loop_hold(w.loop);
    uint64_t before = tnl_loop_now(w.loop);
    tnl_loop_run(w.loop);
    assert_int_equal(w.fired, 1);
    assert_true(tnl_loop_now(w.loop) >= before);
    tnl_loop_free(w.loop);
}

static void on_usr1(void *user, int signum)
{
    *(int *)user = signum;
}

static void signals_arrive_on_the_loop(void **state)
{
    (void)state;
    test_loop l;
    tnl_signal *s;
    int caught = 0;
    test_loop_open(&l);
    assert_int_equal(tnl_signal_new(&s, l.loop, SIGUSR1, on_usr1, &caught), 0);
    raise(SIGUSR1);
    UNTIL(&l, caught == SIGUSR1);
    tnl_signal_free(s);
    assert_int_equal(tnl_signal_new(&s, l.loop, SIGKILL, on_usr1, &caught), TUNNEL_E_INVALID);
    test_loop_close(&l);
}

/* On a host's loop nothing of ours may stay open after tnl_loop_free(), whatever was going on. */
static void a_host_gets_its_loop_back(void **state)
{
    (void)state;
    uv_loop_t host;
    tnl_loop *l;
    int fd[2];
    tnl_conn *c;
    test_peer p;
    assert_int_equal(uv_loop_init(&host), 0);
    assert_int_equal(tnl_loop_new(&l, &host), 0);
    assert_ptr_equal(tnl_loop_uv(l), &host);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    test_peer_init(&p);
    assert_int_equal(tnl_conn_from_fd(&c, l, fd[0], &test_peer_events, &p), 0);
    p.c = c;
    assert_int_equal(test_send(c, "x", 1), 0);
    tnl_conn_finish(c);
    tnl_loop_free(l);
    close(fd[1]);
    uv_run(&host, UV_RUN_DEFAULT);
    assert_int_equal(p.closes, 1);
    assert_int_equal(uv_loop_close(&host), 0);
    test_peer_free(&p);
}

/* A peer that is gone must cost an error, not the process. */
static void writing_to_the_dead_is_no_signal(void **state)
{
    (void)state;
    tnl_loop *l;
    test_peer p;
    int fd[2];
    tnl_conn *c;
    struct sigaction dfl = {.sa_handler = SIG_DFL}, before;
    sigaction(SIGPIPE, &dfl, &before);
    assert_int_equal(tnl_loop_new(&l, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    test_peer_init(&p);
    assert_int_equal(tnl_conn_from_fd(&c, l, fd[0], &test_peer_events, &p), 0);
    p.c = c;
    static uint8_t big[TNL_CONN_MAX_PENDING];
    assert_int_equal(test_send(c, big, sizeof(big)), 0);
    assert_true(tnl_conn_pending(c) > 0);
    close(fd[1]);
    tnl_loop_run(l);
    assert_int_equal(p.closes, 1);
    assert_int_equal(p.error, TUNNEL_E_RESET);
    sigset_t pending, blocked;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    assert_false(sigismember(&blocked, SIGPIPE));
    tnl_loop_free(l);
    sigaction(SIGPIPE, &before, NULL);
    test_peer_free(&p);
}

/* --- bytes ------------------------------------------------------------------------------------ */

typedef void (*make_pair)(test_loop *l, test_peer *a, test_peer *b);

static const make_pair pairs[] = {test_pair, test_tcp_pair};

static void echo_over(make_pair make, size_t chunk, size_t room)
{
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    const uint64_t total = chunk < 100 ? 20000 : 8u << 20;
    uint64_t sent = 0, hash = 0;
    uint8_t piece[4096];
    test_loop_open(&l);
    make(&l, a, b);
    b->echo = b->echo_end = true;
    b->room = room;
    a->room = room;
    tnl_conn_resume(a->c);
    tnl_conn_resume(b->c);
    UNTIL(&l, test_pump(a->c, &sent, total, chunk));
    tnl_conn_shutdown(a->c);
    tnl_conn_shutdown(a->c);
    assert_int_equal(test_send(a->c, "x", 1), TUNNEL_E_STATE);
    UNTIL(&l, a->eofs);
    assert_int_equal(b->eofs, 1);
    assert_true(a->c->ended && b->c->ended);
    for (uint64_t i = 0; i < total; i += sizeof(piece)) {
        size_t n = total - i < sizeof(piece) ? (size_t)(total - i) : sizeof(piece);
        test_fill(piece, n, i);
        hash = test_hash(hash, piece, n);
    }
    assert_true(b->received == total && a->received == total);
    assert_true(b->hash == hash && a->hash == hash);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

static void everything_comes_back_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        echo_over(pairs[i], 64 * 1024, 64 * 1024);
        echo_over(pairs[i], 10000, 1000);
        echo_over(pairs[i], 1, 64 * 1024);
    }
}

static void many_pieces_go_in_order(void **state)
{
    (void)state;
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    enum { PIECES = 100, SIZE = 2500 };
    static uint8_t data[PIECES * SIZE];
    tnl_iov v[PIECES + 1];
    test_fill(data, sizeof(data), 0);
    test_loop_open(&l);
    test_pair(&l, a, b);
    for (size_t i = 0; i < PIECES; i++)
        v[i] = (tnl_iov){data + i * SIZE, SIZE};
    v[PIECES] = (tnl_iov){NULL, 0};
    assert_int_equal(tnl_conn_write(a->c, v + PIECES, 1), 0);
    assert_int_equal(tnl_conn_write(a->c, v, PIECES + 1), 0);
    tnl_conn_resume(b->c);
    UNTIL(&l, b->received == sizeof(data));
    assert_true(b->hash == test_hash(0, data, sizeof(data)));
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

static void a_deaf_reader_stops_the_writer(void **state)
{
    (void)state;
    static const uint8_t piece[TNL_CONN_MAX_PENDING / 2];
    for (size_t i = 0; i < 2; i++) {
        test_loop l;
        test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        size_t sent = 0;
        test_loop_open(&l);
        pairs[i](&l, a, b);
        while (tnl_conn_pending(a->c) == 0) {
            assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
            sent += sizeof(piece);
        }
        for (int turn = 0; turn < 3; turn++)
            test_turn(&l);
        size_t pending = tnl_conn_pending(a->c);
        assert_true(pending > 0 && pending <= TNL_CONN_MAX_PENDING);
        assert_int_equal(a->drains, 0);
        /* Room again: all of it arrives, and the writer is told once. */
        tnl_conn_resume(b->c);
        UNTIL(&l, b->received == sent);
        UNTIL(&l, a->drains);
        assert_int_equal(a->drains, 1);
        end_peers(&l, a, b);
        test_loop_close(&l);
        free(a);
        free(b);
    }
}

/* What the kernel has taken and cannot send would be in the way of what is written next. */
static void little_waits_in_the_kernel(void **state)
{
    (void)state;
    static const uint8_t piece[4096];
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    size_t sent = 0;
    int unsent = 0;
    test_loop_open(&l);
    test_tcp_pair(&l, a, b);
    tnl_conn_keep_little(a->c);
    while (tnl_conn_pending(a->c) == 0) {
        assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
        sent += sizeof(piece);
    }
    int fd = tnl_conn_dup(a->c);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, SIOCOUTQNSD, &unsent), 0);
    close(fd);
    assert_true(unsent <= 2 * TNL_CONN_UNSENT);
    for (size_t i = 0; i < 30; i++, sent += sizeof(piece))
        assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
    tnl_conn_resume(b->c);
    UNTIL(&l, b->received == sent);
    UNTIL(&l, a->drains);
    end_peers(&l, a, b);
    test_loop_close(&l);
    /* Where there is no such thing, nothing happens. */
    test_loop_open(&l);
    test_pair(&l, a, b);
    tnl_conn_keep_little(a->c);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

static void the_queue_has_an_end(void **state)
{
    (void)state;
    static const uint8_t piece[100000];
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    int rc;
    test_loop_open(&l);
    test_pair(&l, a, b);
    do {
        rc = test_send(a->c, piece, sizeof(piece));
        assert_true(tnl_conn_pending(a->c) <= TNL_CONN_MAX_PENDING);
    } while (rc == 0);
    assert_int_equal(rc, TUNNEL_E_LIMIT);
    assert_int_equal(a->closes, 0);
    assert_int_equal(test_send(a->c, piece, 1), TUNNEL_E_STATE);
    UNTIL(&l, a->closes);
    assert_int_equal(a->error, TUNNEL_E_LIMIT);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

static void no_room_is_backpressure(void **state)
{
    (void)state;
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    test_loop_open(&l);
    test_pair(&l, a, b);
    b->room = 0;
    tnl_conn_resume(b->c);
    assert_int_equal(test_send(a->c, "hello", 5), 0);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    assert_int_equal(b->data_calls, 0);
    b->room = 2;
    tnl_conn_resume(b->c);
    UNTIL(&l, b->received == 5);
    assert_int_equal(b->data_calls, 3);
    assert_memory_equal(b->bytes, "hello", 5);
    tnl_conn_pause(b->c);
    assert_int_equal(test_send(a->c, "again", 5), 0);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    assert_int_equal(b->received, 5);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* A connection that floods must leave the turn to others after its share. */
static void one_reader_does_not_take_the_whole_turn(void **state)
{
    (void)state;
    static uint8_t piece[64 * 1024];
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    int size = 4 << 20;
    test_loop_open(&l);
    test_tcp_pair(&l, a, b);
    int fd = tnl_conn_dup(a->c), fd_b = tnl_conn_dup(b->c);
    setsockopt(fd_b, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    size_t sent = 0;
    while (sent < (2u << 20) && tnl_conn_pending(a->c) == 0) {
        assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
        sent += sizeof(piece);
    }
    tnl_conn_resume(b->c);
    size_t before = 0, most = 0;
    while (b->received < sent) {
        assert_true(test_turn(&l));
        if (b->received - before > most)
            most = b->received - before;
        before = b->received;
    }
    assert_true(most <= 256 * 1024 + 64 * 1024);
    close(fd);
    close(fd_b);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void each_direction_ends_by_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        test_loop l;
        test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        test_loop_open(&l);
        pairs[i](&l, a, b);
        tnl_conn_resume(a->c);
        tnl_conn_resume(b->c);
        /* The end comes after what is still queued. */
        static const uint8_t piece[200000];
        size_t sent = 0;
        while (tnl_conn_pending(a->c) == 0) {
            assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
            sent += sizeof(piece);
        }
        tnl_conn_shutdown(a->c);
        UNTIL(&l, b->eofs);
        assert_int_equal(b->received, sent);
        assert_int_equal(a->eofs, 0);
        assert_int_equal(test_send(b->c, "still here", 10), 0);
        UNTIL(&l, a->received == 10);
        tnl_conn_shutdown(b->c);
        UNTIL(&l, a->eofs);
        for (int turn = 0; turn < 3; turn++)
            test_turn(&l);
        assert_true(a->c && b->c && a->eofs == 1 && b->eofs == 1);
        end_peers(&l, a, b);
        assert_int_equal(a->error, 0);
        test_loop_close(&l);
        free(a);
        free(b);
    }
}

static void a_reset_is_told(void **state)
{
    (void)state;
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    test_loop_open(&l);
    test_tcp_pair(&l, a, b);
    tnl_conn_resume(b->c);
    tnl_conn_reset(a->c);
    UNTIL(&l, b->closes);
    assert_int_equal(b->error, TUNNEL_E_RESET);
    assert_string_equal(b->detail, "connection reset by the peer");
    assert_int_equal(b->eofs, 0);
    UNTIL(&l, a->closes);
    assert_int_equal(a->error, 0);
    assert_string_equal(a->detail, "");
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* A server that answers an upload early and goes away resets the rest of it; its answer must still
 * arrive. */
static void an_early_answer_survives_the_reset(void **state)
{
    (void)state;
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    test_loop_open(&l);
    test_tcp_pair(&l, a, b);
    assert_int_equal(test_send(a->c, "upload", 6), 0);
    for (int i = 0; i < 2; i++)
        test_turn(&l);
    assert_int_equal(test_send(b->c, "413", 3), 0);
    tnl_conn_close(b->c); /* with "upload" unread: a reset */
    UNTIL(&l, b->closes);
    a->room = 0;
    tnl_conn_resume(a->c);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    assert_int_equal(test_send(a->c, "more", 4), 0);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    assert_int_equal(a->closes, 0);
    assert_int_equal(test_send(a->c, "and more", 8), 0);
    a->room = sizeof(a->buffer);
    tnl_conn_resume(a->c);
    UNTIL(&l, a->closes);
    assert_int_equal(a->received, 3);
    assert_memory_equal(a->bytes, "413", 3);
    assert_int_equal(a->error, TUNNEL_E_RESET);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* Without an end before it, whoever finds out: the write that fails, or reading. */
static void a_reset_is_no_end(void **state)
{
    (void)state;
    for (int writing = 0; writing < 2; writing++) {
        test_loop l;
        test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        test_loop_open(&l);
        test_tcp_pair(&l, a, b);
        a->keep = 16;
        assert_int_equal(test_send(b->c, "last words", 10), 0);
        tnl_conn_reset(b->c);
        UNTIL(&l, b->closes);
        tnl_conn_resume(a->c);
        if (writing)
            assert_int_equal(test_send(a->c, "x", 1), 0);
        UNTIL(&l, a->closes);
        assert_int_equal(a->error, TUNNEL_E_RESET);
        assert_int_equal(a->received, 10);
        assert_memory_equal(a->bytes, "last words", 10);
        assert_int_equal(a->eofs, 0);
        end_peers(&l, a, b);
        test_loop_close(&l);
        free(a);
        free(b);
    }
}

static void a_gone_reader_is_noticed_at_once(void **state)
{
    (void)state;
    static const uint8_t piece[60000];
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    test_loop_open(&l);
    test_tcp_pair(&l, a, b);
    tnl_conn_reset(b->c);
    UNTIL(&l, b->closes);
    /* Not reading: only the write can find out. */
    while (a->c && test_send(a->c, piece, sizeof(piece)) == 0)
        assert_true(test_turn(&l));
    UNTIL(&l, a->closes);
    assert_int_equal(a->error, TUNNEL_E_RESET);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* --- the polite end --------------------------------------------------------------------------- */

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

typedef struct front {
    test_loop l;
    tnl_listener *listener;
    test_peer p;
    int fd;
} front;

static front *front_open(void)
{
    front *f = malloc(sizeof(*f));
    assert_non_null(f);
    test_loop_open(&f->l);
    test_peer_init(&f->p);
    assert_int_equal(
        tnl_listener_new(&f->listener, f->l.loop, "127.0.0.1:0", on_accept, &f->p, NULL, 0), 0);
    tnl_address to = tnl_listener_address(f->listener);
    assert_string_equal(to.host, "127.0.0.1");
    f->fd = plain_connect(&to);
    UNTIL(&f->l, f->p.c);
    return f;
}

static void front_close(front *f)
{
    if (f->fd >= 0)
        close(f->fd);
    if (f->p.c)
        tnl_conn_close(f->p.c);
    UNTIL(&f->l, !f->p.c);
    tnl_listener_free(f->listener);
    test_loop_close(&f->l);
    test_peer_free(&f->p);
    free(f);
}

static void finish_with_unread_input_loses_nothing(void **state)
{
    (void)state;
    static uint8_t upload[100000];
    uint8_t answer[32];
    front *f = front_open();
    assert_int_equal(send(f->fd, upload, sizeof(upload), 0), sizeof(upload));
    assert_int_equal(test_send(f->p.c, "HTTP/1.1 413\r\n", 14), 0);
    tnl_conn_finish(f->p.c);
    tnl_conn_finish(f->p.c);
    assert_int_equal(test_send(f->p.c, "x", 1), TUNNEL_E_STATE);
    for (int i = 0; i < 5; i++)
        test_turn(&f->l);
    assert_int_equal(f->p.closes, 0);
    assert_int_equal(send(f->fd, upload, sizeof(upload), MSG_NOSIGNAL), sizeof(upload));
    for (int i = 0; i < 5; i++)
        test_turn(&f->l);
    assert_int_equal(recv(f->fd, answer, sizeof(answer), MSG_WAITALL), 14);
    assert_memory_equal(answer, "HTTP/1.1 413\r\n", 14);
    close(f->fd);
    f->fd = -1;
    UNTIL(&f->l, f->p.closes);
    assert_int_equal(f->p.error, 0);
    assert_int_equal(f->p.received, 0);
    assert_int_equal(f->p.eofs, 0);
    front_close(f);
}

/* The peer neither reads nor ends: the time limit ends it; a flood is not read without end. */
static void finish_has_an_end(void **state)
{
    (void)state;
    static uint8_t flood[64 * 1024];
    front *f = front_open();
    size_t sent = 0;
    fcntl(f->fd, F_SETFL, O_NONBLOCK);
    uint64_t began = tnl_loop_now(f->l.loop);
    assert_int_equal(test_send(f->p.c, "bye", 3), 0);
    tnl_conn_finish(f->p.c);
    while (!f->p.closes) {
        ssize_t n = send(f->fd, flood, sizeof(flood), MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        assert_true(test_turn(&f->l));
    }
    assert_true(tnl_loop_now(f->l.loop) - began >= 1900);
    assert_true(sent > 256 * 1024);
    front_close(f);
}

static void finish_sends_the_queue_first(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        static const uint8_t piece[200000];
        test_loop l;
        test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        size_t sent = 0;
        test_loop_open(&l);
        pairs[i](&l, a, b);
        while (tnl_conn_pending(a->c) == 0) {
            assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
            sent += sizeof(piece);
        }
        tnl_conn_finish(a->c);
        tnl_conn_resume(b->c);
        UNTIL(&l, b->eofs);
        assert_int_equal(b->received, sent);
        tnl_conn_close(b->c);
        UNTIL(&l, a->closes);
        assert_int_equal(a->error, 0);
        assert_int_equal(a->drains, 0);
        end_peers(&l, a, b);
        test_loop_close(&l);
        free(a);
        free(b);
    }
}

/* --- everything in every callback ------------------------------------------------------------- */

static void act_shutdown_then_close(tnl_conn *c)
{
    tnl_conn_shutdown(c);
    tnl_conn_close(c);
}

static void act_pause_resume_close(tnl_conn *c)
{
    tnl_conn_pause(c);
    tnl_conn_resume(c);
    tnl_conn_close(c);
    tnl_conn_resume(c);
    tnl_conn_finish(c);
    tnl_conn_close(c);
}

static void closing_is_possible_in_every_callback(void **state)
{
    (void)state;
    void (*const acts[])(tnl_conn *) = {tnl_conn_close, tnl_conn_reset, tnl_conn_finish,
                                        act_shutdown_then_close, act_pause_resume_close};
    const test_moment moments[] = {TEST_IN_SPACE, TEST_IN_DATA, TEST_IN_EOF, TEST_IN_DRAINED};
    static const uint8_t piece[200000];
    for (size_t i = 0; i < 2 * 5 * 4; i++) {
        test_loop l;
        test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        test_loop_open(&l);
        pairs[i % 2](&l, a, b);
        a->act = acts[i / 2 % 5];
        a->act_in = moments[i / 10];
        while (tnl_conn_pending(a->c) == 0)
            assert_int_equal(test_send(a->c, piece, sizeof(piece)), 0);
        assert_int_equal(test_send(b->c, piece, 1000), 0);
        tnl_conn_shutdown(b->c);
        tnl_conn_resume(a->c);
        tnl_conn_resume(b->c);
        UNTIL(&l, a->act_in == TEST_NEVER);
        if (b->c)
            tnl_conn_close(b->c);
        UNTIL(&l, a->closes);
        assert_int_equal(a->closes, 1);
        end_peers(&l, a, b);
        test_loop_close(&l);
        free(a);
        free(b);
    }
}

static void pausing_in_space_holds(void **state)
{
    (void)state;
    test_loop l;
    test_peer *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
    test_loop_open(&l);
    test_pair(&l, a, b);
    a->act = tnl_conn_pause;
    a->act_in = TEST_IN_SPACE;
    tnl_conn_resume(a->c);
    assert_int_equal(test_send(b->c, "x", 1), 0);
    UNTIL(&l, a->act_in == TEST_NEVER);
    for (int i = 0; i < 3; i++)
        test_turn(&l);
    assert_int_equal(a->received, 0);
    tnl_conn_resume(a->c);
    UNTIL(&l, a->received == 1);
    end_peers(&l, a, b);
    test_loop_close(&l);
    free(a);
    free(b);
}

/* --- descriptors ------------------------------------------------------------------------------ */

static void descriptors_are_taken_and_lent(void **state)
{
    (void)state;
    test_loop l;
    int fd[2], on = 0;
    socklen_t size = sizeof(on);
    tnl_conn *c;
    test_peer *p = malloc(sizeof(*p)), *q = malloc(sizeof(*q));
    test_loop_open(&l);
    /* No stream socket: refused, and closed all the same. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
    assert_int_equal(tnl_conn_from_fd(&c, l.loop, fd[0], &test_peer_events, p), TUNNEL_E_INVALID);
    assert_int_equal(fcntl(fd[0], F_GETFD), -1);
    close(fd[1]);
    assert_int_equal(
        tnl_conn_from_fd(&c, l.loop, open("/dev/null", O_RDONLY), &test_peer_events, p),
        TUNNEL_E_IO);
    assert_int_equal(tnl_conn_from_fd(&c, l.loop, -1, &test_peer_events, p), TUNNEL_E_IO);

    test_tcp_pair(&l, p, q);
    int copy = tnl_conn_dup(p->c);
    assert_true(copy > 2);
    assert_true(fcntl(copy, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(getsockopt(copy, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    assert_true(on);
    /* Both the one that was connected and the one that was accepted. */
    on = 0;
    assert_int_equal(getsockopt(copy, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    assert_true(on);
    close(copy);
    copy = tnl_conn_dup(q->c);
    on = 0;
    assert_int_equal(getsockopt(copy, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    assert_true(on);
    tnl_address peer = tnl_conn_peer(q->c);
    assert_string_equal(peer.host, "127.0.0.1");
    assert_true(peer.port > 0 && !peer.ipv6);
    tnl_address local = tnl_conn_local(p->c);
    assert_string_equal(local.host, "127.0.0.1");
    assert_int_equal(local.port, peer.port);
    assert_int_equal(tnl_conn_local(q->c).port, tnl_conn_peer(p->c).port);
    close(copy);
    end_peers(&l, p, q);

    test_pair(&l, p, q);
    assert_string_equal(tnl_conn_peer(p->c).host, "");
    assert_string_equal(tnl_conn_local(p->c).host, "");
    end_peers(&l, p, q);
    test_loop_close(&l);
    free(p);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_run_in_order_and_keep_the_loop),
        cmocka_unit_test(a_held_loop_waits_for_its_timer),
        cmocka_unit_test(signals_arrive_on_the_loop),
        cmocka_unit_test(a_host_gets_its_loop_back),
        cmocka_unit_test(writing_to_the_dead_is_no_signal),
        cmocka_unit_test(everything_comes_back_in_order),
        cmocka_unit_test(many_pieces_go_in_order),
        cmocka_unit_test(a_deaf_reader_stops_the_writer),
        cmocka_unit_test(little_waits_in_the_kernel),
        cmocka_unit_test(the_queue_has_an_end),
        cmocka_unit_test(no_room_is_backpressure),
        cmocka_unit_test(one_reader_does_not_take_the_whole_turn),
        cmocka_unit_test(each_direction_ends_by_itself),
        cmocka_unit_test(a_reset_is_told),
        cmocka_unit_test(an_early_answer_survives_the_reset),
        cmocka_unit_test(a_reset_is_no_end),
        cmocka_unit_test(a_gone_reader_is_noticed_at_once),
        cmocka_unit_test(finish_with_unread_input_loses_nothing),
        cmocka_unit_test(finish_has_an_end),
        cmocka_unit_test(finish_sends_the_queue_first),
        cmocka_unit_test(closing_is_possible_in_every_callback),
        cmocka_unit_test(pausing_in_space_holds),
        cmocka_unit_test(descriptors_are_taken_and_lent),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
