/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_SESSIONS_H
#define TEST_SUPPORT_SESSIONS_H

#include "link/link.h"
#include "support/peer.h"

/* Two sessions over links over the in-memory pair. The server's end opens streams, the client's end
 * takes them. */
typedef struct test_session {
    tnl_link *link;       /* NULL once closed */
    tnl_session *session; /* NULL once closed */
    tnl_loop *loop;
    bool server;
    void (*open)(void *user, tnl_stream *s);
    void *user;
} test_session;

typedef struct test_sessions {
    test_session server, client;
} test_sessions;

void test_sessions_open(test_sessions *t, test_loop *l, void (*open)(void *user, tnl_stream *s),
                        void *user);
/* Closes both and waits for their ends. */
void test_sessions_close(test_sessions *t, test_loop *l);

/* A stream seen from the server's end. */
typedef struct test_visitor {
    tnl_stream *stream; /* NULL once released */
    uint64_t received;
    uint64_t hash;
    unsigned fins;
    unsigned resets;
    uint32_t code;
    char text[300];
    bool blocked;     /* takes nothing */
    uint64_t to_send; /* of the known sequence, and then fin */
    uint64_t sent;
    bool keep_open; /* no fin */
} test_visitor;

/* 0, or why the stream could not be opened. */
int test_visitor_open(test_visitor *v, test_sessions *t);
/* Sends what there is room for. */
void test_visitor_send(test_visitor *v);
void test_visitor_unblock(test_visitor *v);
void test_visitor_release(test_visitor *v);

/* test_hash() of the first n bytes of test_fill()'s sequence. */
uint64_t test_hash_of(uint64_t n);

#endif
