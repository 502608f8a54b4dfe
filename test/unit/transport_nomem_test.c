/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "support/check.h"
#include "support/ends.h"
#include "transport/transport.h"
#include "tunnel/error.h"

/* Stands in for base/mem.c: fails the allocation that the countdown ends at, once. */
static unsigned countdown;
static unsigned allocations;

static bool fails(void)
{
    allocations++;
    return countdown && --countdown == 0;
}

void *tnl_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *tnl_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

void *tnl_realloc(void *p, size_t size)
{
    return fails() ? NULL : realloc(p, size);
}

void tnl_free(void *p)
{
    free(p);
}

/* A whole life of a connection, with the nth allocation from the engine's making on failing. */
static unsigned live(unsigned nth, bool plain)
{
    enum { TOTAL = 300000 };
    test_loop l;
    tnl_ws *ws;
    unsigned logs = 0;
    int fd[2];
    test_end a, b;
    test_acceptor acceptor;

    test_loop_open(&l);
    test_tcp_sockets(fd);
    tnl_conn *client = test_conn(&l, fd[0]);
    tnl_conn *server = test_conn(&l, fd[1]);
    if (!plain)
        server = test_wrap(server, nth);
    test_end_init(&a);
    test_end_init(&b);
    countdown = nth;
    allocations = 0;
    if (tnl_ws_new(&ws, l.loop, test_count_log, &logs)) {
        tnl_conn_close(client);
        tnl_conn_close(server);
        goto done;
    }
    test_accept(&acceptor, ws, server, &b);
    int rc = tnl_ws_connect(&a.t, ws, client, "h", "/", "x", &test_end_events, &a);
    assert_true(rc == 0 || rc == TUNNEL_E_NOMEM);
    UNTIL(&l, acceptor.done);
    UNTIL(&l, (a.opens && b.opens) || !a.t || !b.t);
    test_end_send(&a, TOTAL);
    test_end_send(&b, TOTAL);
    UNTIL(&l, (a.received == TOTAL && b.received == TOTAL) || !a.t || !b.t);
    if (a.t && b.t) {
        assert_int_equal(a.hash, test_sequence_hash(TOTAL));
        assert_int_equal(b.hash, test_sequence_hash(TOTAL));
    }
    test_end_close(&a);
    test_end_close(&b);
    UNTIL(&l, !a.t && !b.t);
    countdown = 0;
    tnl_ws_free(ws);

done:
    if (!a.closes)
        free(a.back);
    if (!b.closes)
        free(b.back);
    unsigned n = allocations;
    countdown = 0;
    test_loop_close(&l);
    return n;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        unsigned n = live(0, plain);
        assert_true(n > 5);
        for (unsigned i = 1; i <= n; i++)
            live(i, plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
