/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/error.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* Clients that come all at once: a few begin in a turn, and none is lost by that. */

enum { CLIENTS = 40 };

static const char link_request[] = "GET /__tunnel__/link HTTP/1.1\r\nHost: test\r\n"
                                   "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                   "Sec-WebSocket-Version: 13\r\n"
                                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                   "Sec-WebSocket-Protocol: tunnel.v1\r\n"
                                   "Authorization: Bearer secret\r\n\r\n";

static void knock(test_guest g[CLIENTS], test_edge *e)
{
    for (int i = 0; i < CLIENTS; i++) {
        test_guest_open(&g[i], e);
        test_guest_say(&g[i], link_request);
    }
    UNTIL(&e->l, e->server->newcomers.count >= CLIENTS / 4);
    assert_true(e->server->newcomers.begun <= TNL_NEWCOMERS_TURN);
}

static void they_take_turns(void **state)
{
    (void)state;
    test_edge e;
    test_guest g[CLIENTS];
    assert_int_equal(test_edge_open(&e, NULL), 0);
    knock(g, &e);
    for (int i = 0; i < CLIENTS; i++)
        UNTIL(&e.l, test_guest_hears(&g[i], " 101 "));
    assert_int_equal(e.server->newcomers.count, 0);
    for (int i = 0; i < CLIENTS; i++)
        test_guest_free(&g[i]);
    UNTIL(&e.l, e.server->peer_count == 0);
    test_edge_close(&e);
}

static void they_may_leave_meanwhile(void **state)
{
    (void)state;
    test_edge e;
    test_guest g[CLIENTS];
    assert_int_equal(test_edge_open(&e, NULL), 0);
    knock(g, &e);
    for (int i = 0; i < CLIENTS; i++) {
        test_guest_leave(&g[i], i % 2);
        test_guest_free(&g[i]);
    }
    UNTIL(&e.l, e.server->peer_count + e.server->visitor_count == 0);
    assert_int_equal(e.server->newcomers.count, 0);
    test_edge_close(&e);
}

static void so_may_the_server(void **state)
{
    (void)state;
    test_edge e;
    test_guest g[CLIENTS];
    assert_int_equal(test_edge_open(&e, NULL), 0);
    knock(g, &e);
    test_edge_close_server(&e);
    for (int i = 0; i < CLIENTS; i++) {
        UNTIL(&e.l, test_guest_ended(&g[i]) || g[i].reset);
        test_guest_free(&g[i]);
    }
    test_edge_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_take_turns),
        cmocka_unit_test(they_may_leave_meanwhile),
        cmocka_unit_test(so_may_the_server),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
