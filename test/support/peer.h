/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_PEER_H
#define TEST_SUPPORT_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/conn.h"

/* A loop for tests, and a user of a connection that writes down what happens to it. */
typedef struct test_loop {
    tnl_loop *loop;
    tnl_timer *tick;
    double deadline;
} test_loop;

void test_loop_open(test_loop *l);
void test_loop_close(test_loop *l);
/* One turn, at most a few milliseconds; false once the test as a whole has taken too long. */
bool test_turn(test_loop *l);

/* Turns until cond holds; fails the test when it does not within the loop's 30 s. */
#define UNTIL(l, cond)                                                                             \
    do {                                                                                           \
        while (!(cond))                                                                            \
            if (!test_turn(l))                                                                     \
                fail_msg("never came true: %s", #cond);                                            \
    } while (0)

typedef enum test_moment {
    TEST_NEVER,
    TEST_IN_SPACE,
    TEST_IN_DATA,
    TEST_IN_EOF,
    TEST_IN_DRAINED,
    TEST_IN_READY,
} test_moment;

typedef struct test_peer {
    tnl_conn *c; /* NULL once closed */
    size_t room; /* what space() gives; 0: no room */
    size_t keep; /* the first so many bytes received are kept in `bytes` */
    uint8_t *bytes;
    size_t received;
    uint64_t hash; /* of all bytes received, in order */
    unsigned data_calls;
    unsigned eofs;
    unsigned drains;
    unsigned readies;
    unsigned closes;
    int error;
    char detail[256];
    bool echo;     /* writes back what comes, with backpressure */
    bool echo_end; /* and ends its direction when the other one did */
    test_moment act_in;
    void (*act)(tnl_conn *c); /* done once, in that callback */
    uint8_t buffer[64 * 1024];
} test_peer;

extern const tnl_conn_events test_peer_events;

void test_peer_init(test_peer *p);
void test_peer_attach(test_peer *p, tnl_conn *c);
void test_peer_free(test_peer *p);

/* The hash that a peer makes, continued over n bytes; begins with 0. */
uint64_t test_hash(uint64_t hash, const uint8_t *p, size_t n);
/* n bytes of a known sequence from `offset` on. */
void test_fill(uint8_t *p, size_t n, uint64_t offset);

/* 0 or what tnl_conn_write() said. */
int test_send(tnl_conn *c, const void *p, size_t n);

/* Sends `total` bytes of the sequence as fast as the queue empties: call it until it returns true.
 */
bool test_pump(tnl_conn *c, uint64_t *sent, uint64_t total, size_t chunk);

/* Two connected AF_UNIX sockets as connections. */
void test_pair(test_loop *l, test_peer *a, test_peer *b);
/* Two connected TCP sockets over loopback. */
void test_tcp_pair(test_loop *l, test_peer *a, test_peer *b);

#endif
