/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "support/nomem.h"
#include "tunnel/error.h"

static void begin_failing(void *user)
{
    test_nomem_fail(*(unsigned *)user, 0);
}

static void configure(tnl_server_config *c, void *user)
{
    (void)user;
    tnl_ports_parse(&c->tcp_ports, "1024-65535");
}

/* Whether the tunnel is still there: where memory is short, its session may have ended. */
static bool published(const test_edge *e)
{
    const tnl_list *n = tnl_list_first(&e->server->peers);
    return n && TNL_CONTAINER(n, const tnl_peer, node)->tunnel_count == 1;
}

/* A visitor says something, gets it back, and both end; or either is cut off. */
static void visit(test_service *s, test_edge *e)
{
    test_guest g;
    size_t before = s->count;
    if (!published(e))
        return;
    test_guest_open_at(&g, e, s->port);
    test_guest_say(&g, "hello");
    test_guest_shutdown(&g);
    UNTIL(&e->l, s->count > before || test_guest_ended(&g) || !s->session);
    test_call *c = s->count > before ? &s->calls[before] : NULL;
    UNTIL(&e->l, !c || c->fins || c->resets || test_guest_ended(&g) || !s->session);
    if (c && c->fins) {
        assert_true(test_call_has(c, "hello"));
        if (c->stream)
            (void)tnl_stream_write(c->stream, "bye", 3);
        test_call_fin(c);
        UNTIL(&e->l, test_guest_ended(&g));
        if (g.ended)
            assert_true(test_guest_hears(&g, "bye"));
    }
    test_guest_free(&g);
}

/* A server's life with a tcp tunnel, with the nth allocation failing. How many there were. */
static unsigned live(unsigned nth)
{
    test_edge e;
    test_service *s = calloc(1, sizeof(*s));
    size_t live_before = test_nomem_live();
    tnl_publish m = {.tunnel = 1, .kind = tnl_str_of("tcp")};
    if (getenv("SHOW"))
        fprintf(stderr, "%u\n", nth);
    if (test_edge_open(
            &e, &(test_edge_options){.begin = begin_failing, .configure = configure, .user = &nth}))
        goto done;
    test_service_start(s, &e, "secret", 1);
    UNTIL(&e.l, s->session || (test_service_over(s) && s->failed));
    test_service_publish_as(s, &m);
    UNTIL(&e.l, s->published + s->refused || !s->session);
    if (s->published) {
        visit(s, &e);
        visit(s, &e);
    }
    test_service_close(s);
    UNTIL(&e.l, !e.server || (e.server->peer_count == 0 && e.server->visitor_count == 0));

done:
    test_edge_close(&e);
    unsigned n = test_nomem_count();
    test_nomem_fail(0, 0);
    assert_int_equal(test_nomem_live(), live_before);
    free(s);
    return n;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    unsigned n = live(0);
    assert_true(n > 50);
    for (unsigned i = 1; i <= n; i++)
        live(i);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
