/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_ENDS_H
#define TEST_SUPPORT_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/peer.h"
#include "transport/transport.h"

typedef enum test_when {
    TEST_WHEN_NEVER,
    TEST_WHEN_OPENED,
    TEST_WHEN_DATA,
    TEST_WHEN_PULL,
} test_when;

/* A user of a transport that sends a known sequence and writes down what happens. */
typedef struct test_end {
    tnl_transport *t; /* NULL before and after */
    uint64_t sent;
    uint64_t total; /* pull() gives the sequence up to here */
    size_t most;    /* in one batch; 0: what fits */
    bool ragged;    /* batches of all sizes */
    bool echo;      /* what came is sent back, instead of the sequence */
    uint8_t *back;  /* what is to be sent back: at most 64 KiB */
    size_t back_n;
    uint64_t received;
    uint64_t hash;
    unsigned opens;
    unsigned closes;
    int error;
    int status;
    char detail[256];
    unsigned logs;
    bool in_call;
    test_when close_when;
    uint32_t seed;
} test_end;

extern const tnl_transport_events test_end_events;

void test_end_init(test_end *e);
void test_end_wake(test_end *e);
void test_end_close(test_end *e);
/* Lets it send n more bytes of the sequence. */
void test_end_send(test_end *e, uint64_t n);
/* The hash of the sequence's first n bytes. */
uint64_t test_sequence_hash(uint64_t n);

/* Two connected TCP sockets over loopback, not blocking. */
void test_tcp_sockets(int fd[2]);

/* A socket as a connection without events. */
tnl_conn *test_conn(test_loop *l, int fd);

/* A connection that hides what it stands on (no descriptor to be had) and cuts what arrives at
 * random. */
tnl_conn *test_wrap(tnl_conn *lower, uint32_t seed);

/* Reads a request's head from a connection and hands it to tnl_ws_accept(). */
typedef struct test_acceptor {
    tnl_ws *ws;
    tnl_conn *c;
    test_end *end;
    bool lane;
    bool done;
    int result;
    size_t n;
    uint8_t head[8192];
} test_acceptor;

void test_accept(test_acceptor *a, tnl_ws *ws, tnl_conn *c, test_end *end);
/* The same for a lane: answers the request with 101. */
void test_accept_lane(test_acceptor *a, tnl_ws *ws, tnl_conn *c, test_end *end);

/* Lines that the WebSocket engine logs are counted in *user (unsigned). */
void test_count_log(void *user, const char *line);

unsigned test_open_descriptors(void);

/* A WebSocket frame: first byte (FIN and opcode) as given; returns its length. */
size_t test_frame(uint8_t *out, uint8_t first, bool masked, const void *payload, size_t n);

#endif
