/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/memory_conn.h"
#include "support/peer.h"
#include "support/tls_rig.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

static void both_versions_shake_hands(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        tls_rig *r = tls_rig_ready(tls_rig_versions[i]);
        assert_string_equal(tnl_tls_server_name(r->s.c), "a.test");
        assert_string_equal(tnl_conn_peer(r->s.c).host, "127.0.0.1");
        assert_int_equal(tnl_conn_local(r->s.c).port, tnl_conn_peer(r->c.c).port);
        assert_int_equal(tnl_conn_dup(r->s.c), TUNNEL_E_UNSUPPORTED);
        tnl_conn_resume(r->c.c);
        tnl_conn_resume(r->s.c);
        assert_int_equal(test_send(r->c.c, "ping", 4), 0);
        UNTIL(&r->l, r->s.received == 4);
        assert_memory_equal(r->s.bytes, "ping", 4);
        assert_int_equal(test_send(r->s.c, "pong!", 5), 0);
        UNTIL(&r->l, r->c.received == 5);
        assert_memory_equal(r->c.bytes, "pong!", 5);
        tls_rig_free(r);
    }
}

static uint64_t hash_of(uint64_t total)
{
    static uint8_t piece[4096];
    uint64_t hash = 0;
    for (uint64_t i = 0; i < total; i += sizeof(piece)) {
        size_t n = total - i < sizeof(piece) ? (size_t)(total - i) : sizeof(piece);
        test_fill(piece, n, i);
        hash = test_hash(hash, piece, n);
    }
    return hash;
}

static void echo_over(mbedtls_ssl_protocol_version version, size_t chunk, size_t room)
{
    tls_rig *r = tls_rig_ready(version);
    const uint64_t total = chunk < 100 ? 5000 : 4u << 20;
    uint64_t sent = 0;
    r->s.echo = r->s.echo_end = true;
    r->s.room = r->c.room = room;
    tnl_conn_resume(r->c.c);
    tnl_conn_resume(r->s.c);
    UNTIL(&r->l, test_pump(r->c.c, &sent, total, chunk));
    tnl_conn_shutdown(r->c.c);
    UNTIL(&r->l, r->c.eofs);
    assert_int_equal(r->s.eofs, 1);
    assert_true(r->s.received == total && r->c.received == total);
    assert_true(r->c.hash == hash_of(total) && r->s.hash == r->c.hash);
    tls_rig_free(r);
}

static void everything_comes_back_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        echo_over(tls_rig_versions[i], 64 * 1024, 64 * 1024);
        echo_over(tls_rig_versions[i], 40000, 777);
        echo_over(tls_rig_versions[i], 3, 64 * 1024);
    }
}

static void pieces_share_records(void **state)
{
    (void)state;
    enum { PIECES = 200, SIZE = 300 };
    static uint8_t data[PIECES * SIZE + 50000];
    tnl_iov v[PIECES + 1];
    tls_rig *r = tls_rig_ready(MBEDTLS_SSL_VERSION_TLS1_3);
    test_fill(data, sizeof(data), 0);
    for (size_t i = 0; i < PIECES; i++)
        v[i] = (tnl_iov){data + i * SIZE, SIZE};
    v[PIECES] = (tnl_iov){data + PIECES * SIZE, 50000};
    tnl_conn_resume(r->s.c);
    assert_int_equal(tnl_conn_write(r->c.c, v, PIECES + 1), 0);
    UNTIL(&r->l, r->s.received == sizeof(data));
    assert_true(r->s.hash == test_hash(0, data, sizeof(data)));
    /* 110,000 bytes are 7 records of 16 KiB; the peer's data() comes once for each. */
    assert_int_equal(r->s.data_calls, 7);
    tls_rig_free(r);
}

/* --- over the in-memory pair ------------------------------------------------------------------ */

typedef struct mem_rig {
    tls_rig r;
    memory_conn *c, *s;
} mem_rig;

static void mem_connect(mem_rig *m, size_t piece, size_t client_limit, size_t server_limit)
{
    tnl_conn *c;
    test_memory_pair(m->r.l.loop, &m->c, &m->s, piece);
    m->c->limit = client_limit;
    m->s->limit = server_limit;
    test_peer_init(&m->r.c);
    test_peer_init(&m->r.s);
    assert_int_equal(
        tnl_tls_accept(&c, m->r.server, &m->s->base, NULL, 0, &test_peer_events, &m->r.s), 0);
    m->r.s.c = c;
    assert_int_equal(
        tnl_tls_connect(&c, m->r.client, &m->c->base, "a.test", &test_peer_events, &m->r.c), 0);
    m->r.c.c = c;
}

static void mem_disconnect(mem_rig *m)
{
    if (m->r.c.c)
        tnl_conn_close(m->r.c.c);
    if (m->r.s.c)
        tnl_conn_close(m->r.s.c);
    UNTIL(&m->r.l, !m->r.c.c && !m->r.s.c);
    test_peer_free(&m->r.c);
    test_peer_free(&m->r.s);
}

static void any_split_will_do(void **state)
{
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        mem_rig *m = malloc(sizeof(*m));
        tls_rig_open(&m->r, "a", "ca");
        test_peer_free(&m->r.c);
        test_peer_free(&m->r.s);
        tls_rig_only(&m->r, tls_rig_versions[v]);
        for (size_t piece = 1; piece < 200; piece = piece * 3 + 1) {
            mem_connect(m, piece, SIZE_MAX, SIZE_MAX);
            UNTIL(&m->r.l, m->r.c.readies && m->r.s.readies);
            m->r.s.echo = m->r.s.echo_end = true;
            tnl_conn_resume(m->r.c.c);
            tnl_conn_resume(m->r.s.c);
            uint64_t sent = 0;
            assert_true(test_pump(m->r.c.c, &sent, 20000, 7000));
            tnl_conn_shutdown(m->r.c.c);
            UNTIL(&m->r.l, m->r.c.eofs);
            assert_true(m->r.c.received == 20000 && m->r.c.hash == hash_of(20000));
            mem_disconnect(m);
        }
        test_peer_init(&m->r.c);
        test_peer_init(&m->r.s);
        tls_rig_close(&m->r);
        free(m);
    }
}

/* Each flight of a handshake leaves in one write, so that it can travel in one packet. */
static void flights_are_written_whole(void **state)
{
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        mem_rig *m = malloc(sizeof(*m));
        tls_rig_open(&m->r, "a", "ca");
        test_peer_free(&m->r.c);
        test_peer_free(&m->r.s);
        tls_rig_only(&m->r, tls_rig_versions[v]);
        mem_connect(m, SIZE_MAX, SIZE_MAX, SIZE_MAX);
        UNTIL(&m->r.l, m->r.c.readies && m->r.s.readies);
        /* Both: hello, then keys and Finished. Server: its half; then Finished (1.2), the ticket
         * (1.3). */
        assert_int_equal(m->c->writes, 2);
        assert_int_equal(m->s->writes, 2);
        static const uint8_t data[65536];
        assert_int_equal(test_send(m->r.c.c, data, sizeof(data)), 0);
        assert_int_equal(m->c->writes, 3);
        mem_disconnect(m);
        test_peer_init(&m->r.c);
        test_peer_init(&m->r.s);
        tls_rig_close(&m->r);
        free(m);
    }
}

static void cut_at(mem_rig *m, size_t client_limit, size_t server_limit)
{
    mem_connect(m, SIZE_MAX, client_limit, server_limit);
    m->r.s.echo = m->r.s.echo_end = true;
    tnl_conn_resume(m->r.c.c);
    tnl_conn_resume(m->r.s.c);
    bool sent = false;
    while (!m->r.c.closes && !m->r.s.closes) {
        assert_true(test_turn(&m->r.l));
        if (m->r.c.readies && m->r.c.c && !sent) {
            sent = true;
            test_send(m->r.c.c, "0123456789", 10);
            tnl_conn_shutdown(m->r.c.c);
        }
        if (m->r.c.eofs)
            break;
    }
    if (m->r.c.eofs) {
        assert_int_equal(m->r.c.received, 10);
    } else {
        test_peer *p = m->r.c.closes ? &m->r.c : &m->r.s;
        assert_true(p->error == TUNNEL_E_EOF || p->error == TUNNEL_E_RESET);
        assert_int_equal(p->error == TUNNEL_E_RESET, p->readies);
        assert_true(p->detail[0] != '\0');
    }
    mem_disconnect(m);
}

/* The connection may end at any byte: told as such, never taken for an end, never a crash. */
static void truncation_is_noticed_at_every_byte(void **state)
{
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        mem_rig *m = malloc(sizeof(*m));
        tls_rig_open(&m->r, "a", "ca");
        test_peer_free(&m->r.c);
        test_peer_free(&m->r.s);
        tls_rig_only(&m->r, tls_rig_versions[v]);
        mem_connect(m, SIZE_MAX, SIZE_MAX, SIZE_MAX);
        m->r.s.echo = m->r.s.echo_end = true;
        UNTIL(&m->r.l, m->r.c.readies && m->r.s.readies);
        tnl_conn_resume(m->r.s.c);
        tnl_conn_resume(m->r.c.c);
        test_send(m->r.c.c, "0123456789", 10);
        tnl_conn_shutdown(m->r.c.c);
        UNTIL(&m->r.l, m->r.c.eofs);
        size_t from_client = m->c->sent, from_server = m->s->sent;
        mem_disconnect(m);
        for (size_t cut = 0; cut < from_client; cut += cut < 20 || cut + 60 > from_client ? 1 : 29)
            cut_at(m, cut, SIZE_MAX);
        for (size_t cut = 0; cut < from_server; cut += cut < 20 || cut + 60 > from_server ? 1 : 29)
            cut_at(m, SIZE_MAX, cut);
        test_peer_init(&m->r.c);
        test_peer_init(&m->r.s);
        tls_rig_close(&m->r);
        free(m);
    }
}

static void a_context_lives_as_long_as_its_connections(void **state)
{
    (void)state;
    tls_rig *r = tls_rig_ready(MBEDTLS_SSL_VERSION_TLS1_3);
    tnl_tls_server_unref(r->server);
    tnl_tls_client_unref(r->client);
    r->server = NULL;
    r->client = NULL;
    tnl_conn_resume(r->s.c);
    assert_int_equal(test_send(r->c.c, "x", 1), 0);
    UNTIL(&r->l, r->s.received == 1);
    tls_rig_free(r);
}

/* --- bad input -------------------------------------------------------------------------------- */

/* A server whose visitor is not TLS but `fd`. */
typedef struct visit {
    test_loop l;
    tnl_tls_server *server;
    test_peer p;
    int fd;
} visit;

static visit *visit_open(const void *early, size_t n)
{
    visit *v = malloc(sizeof(*v));
    int fd[2];
    tnl_conn *c;
    assert_non_null(v);
    test_loop_open(&v->l);
    test_peer_init(&v->p);
    assert_int_equal(tnl_tls_server_new(&v->server), 0);
    tls_rig_add(v->server, "a");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    v->fd = fd[0];
    assert_int_equal(tnl_conn_from_fd(&c, v->l.loop, fd[1], &test_peer_events, &v->p), 0);
    assert_int_equal(tnl_tls_accept(&c, v->server, c, early, n, &test_peer_events, &v->p), 0);
    v->p.c = c;
    return v;
}

static void visit_close(visit *v)
{
    if (v->fd >= 0)
        close(v->fd);
    if (v->p.c)
        tnl_conn_close(v->p.c);
    UNTIL(&v->l, v->p.closes);
    tnl_tls_server_unref(v->server);
    test_loop_close(&v->l);
    test_peer_free(&v->p);
    free(v);
}

static void what_is_not_tls_is_refused(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    uint8_t byte;
    visit *v = visit_open(NULL, 0);
    assert_int_equal(write(v->fd, http, sizeof(http) - 1), sizeof(http) - 1);
    UNTIL(&v->l, v->p.closes);
    assert_int_equal(v->p.error, TUNNEL_E_TLS);
    assert_non_null(strstr(v->p.detail, "does the other end speak TLS here?"));
    assert_int_equal(recv(v->fd, &byte, 1, 0), 0);
    visit_close(v);

    v = visit_open(http, sizeof(http) - 1);
    UNTIL(&v->l, v->p.closes);
    assert_int_equal(v->p.error, TUNNEL_E_TLS);
    visit_close(v);

    /* Garbage that begins like TLS. */
    for (unsigned seed = 0; seed < 50; seed++) {
        uint8_t bytes[600];
        test_fill(bytes, sizeof(bytes), (uint64_t)seed * 1000003);
        const uint8_t head[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
        memcpy(bytes, head, 5 + seed % 7);
        v = visit_open(bytes, 100);
        send(v->fd, bytes + 100, 500, MSG_NOSIGNAL);
        shutdown(v->fd, SHUT_WR);
        UNTIL(&v->l, v->p.closes);
        assert_true(v->p.error == TUNNEL_E_TLS || v->p.error == TUNNEL_E_EOF);
        assert_int_equal(v->p.readies, 0);
        visit_close(v);
    }
}

static void half_a_hello_runs_into_the_limit(void **state)
{
    (void)state;
    static const uint8_t half[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3};
    visit *v = visit_open(half, sizeof(half));
    assert_int_equal(tls_rig_ctx(v->server)->handshake_ms, 10000);
    visit_close(v);

    test_loop l;
    tnl_conn *lower, *c;
    test_peer p, other;
    test_loop_open(&l);
    test_pair(&l, &p, &other);
    tnl_tls_server *s;
    assert_int_equal(tnl_tls_server_new(&s), 0);
    tls_rig_ctx(s)->handshake_ms = 50;
    lower = p.c;
    assert_int_equal(tnl_tls_accept(&c, s, lower, half, sizeof(half), &test_peer_events, &p), 0);
    p.c = c;
    UNTIL(&l, p.closes);
    assert_int_equal(p.error, TUNNEL_E_TIMEOUT);
    assert_string_equal(p.detail, "the TLS handshake took too long");
    tnl_conn_close(other.c);
    UNTIL(&l, other.closes);
    tnl_tls_server_unref(s);
    test_loop_close(&l);
    test_peer_free(&p);
    test_peer_free(&other);
}

static void early_bytes_are_bounded(void **state)
{
    (void)state;
    static const uint8_t much[TNL_TLS_MAX_EARLY + 1];
    test_loop l;
    tnl_conn *c;
    test_peer p, other;
    tnl_tls_server *s;
    test_loop_open(&l);
    test_pair(&l, &p, &other);
    assert_int_equal(tnl_tls_server_new(&s), 0);
    assert_int_equal(tnl_tls_accept(&c, s, p.c, much, sizeof(much), &test_peer_events, &p),
                     TUNNEL_E_LIMIT);
    assert_null(c);
    tnl_conn_resume(other.c);
    UNTIL(&l, other.eofs || other.closes);
    assert_int_equal(p.closes, 0);
    if (other.c)
        tnl_conn_close(other.c);
    UNTIL(&l, other.closes);
    tnl_tls_server_unref(s);
    test_loop_close(&l);
    test_peer_free(&p);
    test_peer_free(&other);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void each_direction_ends_by_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        tls_rig *r = tls_rig_ready(tls_rig_versions[i]);
        tnl_conn_resume(r->c.c);
        tnl_conn_resume(r->s.c);
        assert_int_equal(test_send(r->c.c, "last", 4), 0);
        tnl_conn_shutdown(r->c.c);
        assert_int_equal(test_send(r->c.c, "x", 1), TUNNEL_E_STATE);
        UNTIL(&r->l, r->s.eofs);
        assert_int_equal(r->s.received, 4);
        assert_true(r->s.c->ended);
        for (int turn = 0; turn < 3; turn++)
            test_turn(&r->l);
        assert_int_equal(test_send(r->s.c, "still here", 10), 0);
        UNTIL(&r->l, r->c.received == 10);
        tnl_conn_shutdown(r->s.c);
        UNTIL(&r->l, r->c.eofs);
        for (int turn = 0; turn < 3; turn++)
            test_turn(&r->l);
        assert_true(r->c.c && r->s.c);
        tls_rig_free(r);
    }
}

static void an_end_without_close_notify_is_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        tls_rig *r = tls_rig_ready(tls_rig_versions[i]);
        tnl_conn_resume(r->c.c);
        assert_int_equal(test_send(r->s.c, "half an ans", 11), 0);
        tnl_conn_close(r->s.c);
        UNTIL(&r->l, r->c.closes);
        assert_int_equal(r->c.received, 11);
        assert_int_equal(r->c.eofs, 0);
        assert_int_equal(r->c.error, TUNNEL_E_RESET);
        assert_non_null(strstr(r->c.detail, "close_notify"));
        tls_rig_free(r);
    }
}

static void finish_with_unread_input_loses_nothing(void **state)
{
    (void)state;
    static const uint8_t upload[100000];
    for (size_t i = 0; i < 2; i++) {
        tls_rig *r = tls_rig_ready(tls_rig_versions[i]);
        tnl_conn_resume(r->c.c);
        assert_int_equal(test_send(r->c.c, upload, sizeof(upload)), 0);
        assert_int_equal(test_send(r->s.c, "HTTP/1.1 413\r\n", 14), 0);
        tnl_conn_finish(r->s.c);
        UNTIL(&r->l, r->c.eofs);
        assert_int_equal(r->c.received, 14);
        assert_int_equal(r->s.closes, 0);
        tnl_conn_finish(r->c.c);
        UNTIL(&r->l, r->c.closes && r->s.closes);
        assert_int_equal(r->c.error, 0);
        assert_int_equal(r->s.error, 0);
        tls_rig_free(r);
    }
}

static void a_deaf_reader_stops_the_writer(void **state)
{
    (void)state;
    static const uint8_t piece[64 * 1024];
    tls_rig *r = tls_rig_ready(MBEDTLS_SSL_VERSION_TLS1_3);
    size_t sent = 0;
    while (tnl_conn_pending(r->c.c) == 0) {
        assert_int_equal(test_send(r->c.c, piece, sizeof(piece)), 0);
        sent += sizeof(piece);
        test_turn(&r->l);
    }
    assert_int_equal(r->c.drains, 0);
    tnl_conn_resume(r->s.c);
    UNTIL(&r->l, r->s.received == sent && r->c.drains);
    assert_int_equal(r->c.drains, 1);
    /* And beyond the bound it ends. */
    tnl_conn_pause(r->s.c);
    int rc;
    do {
        rc = test_send(r->c.c, piece, sizeof(piece));
        assert_true(tnl_conn_pending(r->c.c) <= TNL_CONN_MAX_PENDING);
    } while (rc == 0);
    assert_int_equal(rc, TUNNEL_E_LIMIT);
    assert_int_equal(test_send(r->c.c, piece, 1), TUNNEL_E_STATE);
    UNTIL(&r->l, r->c.closes);
    assert_int_equal(r->c.error, TUNNEL_E_LIMIT);
    tls_rig_free(r);
}

static void pausing_keeps_what_came(void **state)
{
    (void)state;
    static const uint8_t data[50000];
    tls_rig *r = tls_rig_ready(MBEDTLS_SSL_VERSION_TLS1_3);
    r->s.act_in = TEST_IN_DATA;
    r->s.act = tnl_conn_pause;
    tnl_conn_resume(r->s.c);
    assert_int_equal(test_send(r->c.c, data, sizeof(data)), 0);
    UNTIL(&r->l, r->s.data_calls);
    for (int i = 0; i < 3; i++)
        test_turn(&r->l);
    assert_int_equal(r->s.data_calls, 1);
    r->s.room = 0;
    tnl_conn_resume(r->s.c);
    for (int i = 0; i < 3; i++)
        test_turn(&r->l);
    assert_int_equal(r->s.data_calls, 1);
    r->s.room = 10000;
    tnl_conn_resume(r->s.c);
    UNTIL(&r->l, r->s.received == sizeof(data));
    tls_rig_free(r);
}

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

static void act_write_too_much(tnl_conn *c)
{
    static const uint8_t much[TNL_CONN_MAX_PENDING * 16];
    /* The kernel may take all of it. */
    if (test_send(c, much, sizeof(much)))
        assert_int_equal(test_send(c, much, 1), TUNNEL_E_STATE);
    else
        tnl_conn_close(c);
}

static void closing_is_possible_in_every_callback(void **state)
{
    (void)state;
    void (*const acts[])(tnl_conn *) = {tnl_conn_close,         tnl_conn_reset,
                                        tnl_conn_finish,        act_shutdown_then_close,
                                        act_pause_resume_close, act_write_too_much};
    const test_moment moments[] = {TEST_IN_SPACE, TEST_IN_DATA, TEST_IN_EOF, TEST_IN_DRAINED,
                                   TEST_IN_READY};
    static const uint8_t piece[64 * 1024];
    for (size_t i = 0; i < 2 * 6 * 5; i++) {
        tls_rig *r = malloc(sizeof(*r));
        tls_rig_open(r, "a", "ca");
        tls_rig_only(r, tls_rig_versions[i % 2]);
        r->c.act = acts[i / 2 % 6];
        r->c.act_in = moments[i / 12];
        bool in_ready = r->c.act_in == TEST_IN_READY;
        tls_rig_connect(r, "a.test");
        tnl_conn_resume(r->c.c);
        if (!in_ready) {
            UNTIL(&r->l, r->c.readies && r->s.readies);
            while (tnl_conn_pending(r->c.c) == 0)
                assert_int_equal(test_send(r->c.c, piece, sizeof(piece)), 0);
            assert_int_equal(test_send(r->s.c, piece, 40000), 0);
            tnl_conn_shutdown(r->s.c);
        }
        tnl_conn_resume(r->s.c);
        UNTIL(&r->l, r->c.act_in == TEST_NEVER);
        if (r->s.c)
            tnl_conn_close(r->s.c);
        UNTIL(&r->l, r->c.closes);
        tls_rig_free(r);
    }
}

static void closing_before_the_handshake_is_done(void **state)
{
    (void)state;
    void (*const acts[])(tnl_conn *) = {tnl_conn_close, tnl_conn_reset, tnl_conn_finish,
                                        tnl_conn_shutdown};
    for (int turns = 0; turns < 4; turns++) {
        for (size_t i = 0; i < 4; i++) {
            tls_rig *r = malloc(sizeof(*r));
            tls_rig_open(r, "a", "ca");
            tls_rig_connect(r, "a.test");
            assert_int_equal(test_send(r->c.c, "x", 1), TUNNEL_E_STATE);
            for (int t = 0; t < turns; t++)
                test_turn(&r->l);
            if (r->c.c)
                acts[i](r->c.c);
            if (r->s.c)
                tnl_conn_resume(r->s.c);
            UNTIL(&r->l, r->s.closes || r->s.eofs);
            tls_rig_free(r);
        }
    }
}

/* --- TLS inside TLS, as through a TLS proxy, of one context
 * ----------------------------------------- */

static void tls_goes_through_tls(void **state)
{
    (void)state;
    tls_rig *r = tls_rig_ready(MBEDTLS_SSL_VERSION_TLS1_3);
    test_peer *c = malloc(sizeof(*c)), *s = malloc(sizeof(*s));
    tnl_conn *conn;
    uint64_t sent = 0;
    test_peer_init(c);
    test_peer_init(s);
    assert_int_equal(tnl_tls_accept(&conn, r->server, r->s.c, NULL, 0, &test_peer_events, s), 0);
    s->c = conn;
    assert_int_equal(tnl_tls_connect(&conn, r->client, r->c.c, "localhost", &test_peer_events, c),
                     0);
    c->c = conn;
    UNTIL(&r->l, c->readies && s->readies);
    s->echo = s->echo_end = true;
    tnl_conn_resume(c->c);
    tnl_conn_resume(s->c);
    UNTIL(&r->l, test_pump(c->c, &sent, 3 << 20, 60000));
    tnl_conn_shutdown(c->c);
    UNTIL(&r->l, c->eofs);
    assert_true(c->received == 3 << 20 && c->hash == hash_of(3 << 20));
    tnl_conn_close(c->c);
    tnl_conn_close(s->c);
    UNTIL(&r->l, c->closes && s->closes);
    r->c.c = r->s.c = NULL;
    tls_rig_free(r);
    test_peer_free(c);
    test_peer_free(s);
    free(c);
    free(s);
}

/* --- idle ones
 * -------------------------------------------------------------------------------------- */

static bool both_lent(const tls_rig *r)
{
    return tls_rig_ctx(r->server)->spares.count == 1 && tls_rig_ctx(r->client)->spares.count == 1;
}

static void idle_connections_lend_their_buffers(void **state)
{
    (void)state;
    if (!tnl_tls_lends())
        skip();
    for (size_t v = 0; v < 2; v++) {
        tls_rig *r = tls_rig_ready(tls_rig_versions[v]);
        r->s.echo = true;
        tnl_conn_resume(r->c.c);
        tnl_conn_resume(r->s.c);
        for (uint64_t i = 1; i <= 20; i++) {
            tnl_iov piece = {"some bytes", 10};
            assert_int_equal(tnl_conn_write(r->c.c, &piece, 1), 0);
            UNTIL(&r->l, r->c.received == 10 * i && both_lent(r));
        }
        tls_rig_free(r);
    }
}

/* --- many at once
 * --------------------------------------------------------------------------------- */

static void many_handshakes_at_once(void **state)
{
    (void)state;
    enum { N = 60 };
    test_loop l;
    tnl_tls_server *server;
    tnl_tls_client *client;
    test_peer *p = calloc(2 * N, sizeof(*p));
    assert_non_null(p);
    test_loop_open(&l);
    assert_int_equal(tnl_tls_server_new(&server), 0);
    tls_rig_add(server, "a");
    assert_int_equal(tnl_tls_client_new(&client, tls_rig_path("ca", ".crt"), true, NULL, 0), 0);
    for (size_t i = 0; i < N; i++) {
        int fd[2];
        tnl_conn *c;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        for (size_t k = 0; k < 2; k++) {
            test_peer *q = &p[2 * i + k];
            test_peer_init(q);
            assert_int_equal(tnl_conn_from_fd(&c, l.loop, fd[k], &test_peer_events, q), 0);
            if (k == 0)
                assert_int_equal(tnl_tls_connect(&c, client, c, "a.test", &test_peer_events, q), 0);
            else
                assert_int_equal(tnl_tls_accept(&c, server, c, NULL, 0, &test_peer_events, q), 0);
            q->c = c;
        }
    }
    for (size_t i = 0; i < 2 * N; i++)
        UNTIL(&l, p[i].readies);
    for (size_t i = 0; i < 2 * N; i++)
        tnl_conn_close(p[i].c);
    for (size_t i = 0; i < 2 * N; i++) {
        UNTIL(&l, p[i].closes);
        test_peer_free(&p[i]);
    }
    tnl_tls_server_unref(server);
    tnl_tls_client_unref(client);
    test_loop_close(&l);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_shake_hands),
        cmocka_unit_test(everything_comes_back_in_order),
        cmocka_unit_test(pieces_share_records),
        cmocka_unit_test(any_split_will_do),
        cmocka_unit_test(flights_are_written_whole),
        cmocka_unit_test(truncation_is_noticed_at_every_byte),
        cmocka_unit_test(a_context_lives_as_long_as_its_connections),
        cmocka_unit_test(what_is_not_tls_is_refused),
        cmocka_unit_test(half_a_hello_runs_into_the_limit),
        cmocka_unit_test(early_bytes_are_bounded),
        cmocka_unit_test(each_direction_ends_by_itself),
        cmocka_unit_test(an_end_without_close_notify_is_none),
        cmocka_unit_test(finish_with_unread_input_loses_nothing),
        cmocka_unit_test(a_deaf_reader_stops_the_writer),
        cmocka_unit_test(pausing_keeps_what_came),
        cmocka_unit_test(closing_is_possible_in_every_callback),
        cmocka_unit_test(closing_before_the_handshake_is_done),
        cmocka_unit_test(tls_goes_through_tls),
        cmocka_unit_test(idle_connections_lend_their_buffers),
        cmocka_unit_test(many_handshakes_at_once),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, tls_rig_make_certs, tls_rig_remove_certs);
}
