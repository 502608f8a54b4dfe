/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/ends.h"
#include "support/nomem.h"
#include "transport/transport.h"
#include "tunnel/error.h"

/* A whole life of a connection, with the nth allocation from the engine's making on failing. */
static unsigned live(unsigned nth, bool plain, bool lane)
{
    enum { TOTAL = 300000 };
    test_loop l;
    tnl_ws *ws;
    unsigned logs = 0;
    int fd[2];
    test_end a, b;
    test_acceptor acceptor;

    size_t live_before = test_nomem_live();
    test_loop_open(&l);
    test_tcp_sockets(fd);
    tnl_conn *client = test_conn(&l, fd[0]);
    tnl_conn *server = test_conn(&l, fd[1]);
    if (!plain)
        server = test_wrap(server, nth);
    test_end_init(&a);
    test_end_init(&b);
    test_nomem_fail(nth, 0);
    if (tnl_ws_new(&ws, l.loop, test_count_log, &logs)) {
        tnl_conn_close(client);
        tnl_conn_close(server);
        goto done;
    }
    (lane ? test_accept_lane : test_accept)(&acceptor, ws, server, &b);
    int rc = lane ? tnl_lane_connect(&a.t, client, "h", "/", "x", &test_end_events, &a)
                  : tnl_ws_connect(&a.t, ws, client, "h", "/", "x", &test_end_events, &a);
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
    tnl_ws_free(ws);

done:
    if (!a.closes)
        free(a.back);
    if (!b.closes)
        free(b.back);
    unsigned n = test_nomem_count();
    test_nomem_fail(0, 0);
    test_loop_close(&l);
    assert_int_equal(test_nomem_live(), live_before);
    return n;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        unsigned n = live(0, way & 1, way & 2);
        assert_true(n > 5);
        for (unsigned i = 1; i <= n; i++)
            live(i, way & 1, way & 2);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
