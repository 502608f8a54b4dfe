/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_POOL_H
#define TEST_SUPPORT_POOL_H

#include "server/internal.h"
#include "support/edge.h"

/*
 * A server with several services of one account behind the name "demo", and one visitor at a time.
 * Members are told apart by letters, "a" the first.
 */
enum { TEST_POOL_MOST = 6 };

/* A request, and an answer that keeps no stream for the next one. */
#define GET "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n"
#define OK  "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

typedef struct test_pool {
    test_edge e;
    test_service s[TEST_POOL_MOST];
    size_t count;
    test_guest g;
} test_pool;

/* With so many members, all of them http and published. */
test_pool *test_pool_open(size_t count, const char *balance);
void test_pool_close(test_pool *r);
/* Waits for the session. */
void test_pool_start(test_service *s, test_edge *e, uint8_t instance);
/* Asks for tunnel 1, "demo" or with a port that, and waits for the answer. */
void test_pool_publish(test_service *s, const char *kind, uint16_t port, const char *balance);
/* A new visitor says that. */
void test_pool_ask(test_pool *r, const char *text);
/* He gets a head with that in it, and leaves. */
void test_pool_expect(test_pool *r, const char *text);
/* Visitors ask one after the other, and are answered by these members. */
void test_pool_expect_served(test_pool *r, const char *order);
/* Requests that went to another member, so far. */
uint64_t test_pool_retried(const test_pool *r);
/* A client whose session is parked; NULL: none. */
tnl_peer *test_pool_away(const test_pool *r);
/* A member loses its connection, and its session is parked. */
void test_pool_cut(test_pool *r, size_t i);

#endif
