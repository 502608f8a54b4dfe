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

#define HOST "Host: demo.test\r\n"

/* Sends a request; until it is answered or the connection has ended, the service answers what it
 * gets with `text`. */
static void call(test_service *s, test_guest *g, const char *request, const char *text)
{
    test_edge *e = s->edge;
    if (test_guest_ended(g)) {
        test_guest_free(g);
        test_guest_open(g, e);
    }
    test_guest_forget(g);
    test_guest_say(g, request);
    while (!test_guest_hears(g, "tag") && !test_guest_hears(g, "</html>") && !test_guest_ended(g)) {
        for (size_t i = 0; i < s->count; i++) {
            test_call *c = &s->calls[i];
            if (!c->stream || !test_call_has(c, "\r\n\r\n"))
                continue;
            (void)tnl_stream_write(c->stream, text, strlen(text));
            test_call_forget(c);
        }
        if (!test_turn(&e->l))
            fail_msg("neither an answer nor an end to: %s", request);
    }
}

static void begin_failing(void *user)
{
    test_nomem_fail(*(unsigned *)user, 0);
}

/* A server's life, with the nth allocation failing. How many there were. */
static unsigned live(unsigned nth)
{
    static const char request[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    char big[6200];
    test_edge e;
    test_service *s = calloc(1, sizeof(*s));
    test_guest g;
    size_t live_before = test_nomem_live();
    snprintf(big, sizeof(big), "HTTP/1.1 200 OK\r\nContent-Length: 6003\r\n\r\n%06000dtag", 1);
    if (getenv("SHOW"))
        fprintf(stderr, "%u\n", nth);
    if (test_edge_open(&e, &(test_edge_options){.begin = begin_failing, .user = &nth}))
        goto done;
    test_service_start(s, &e, "secret", 1);
    UNTIL(&e.l, s->session || (test_service_over(s) && s->failed));
    test_service_publish(s, 1, "demo");
    test_service_publish(s, 2, "");
    UNTIL(&e.l, s->published + s->refused == 2 || !s->session);
    test_guest_open(&g, &e);
    call(s, &g, request,
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntag\r\n0\r\nA: b\r\n\r\n");
    call(s, &g, request, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntag");
    call(s, &g,
         "POST / HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
         "GET /next HTTP/1.1\r\n" HOST "\r\n",
         big);
    call(s, &g, "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n", big);
    call(s, &g, "GET / HTTP/1.1\r\n" HOST "Connection: upgrade\r\nUpgrade: x\r\n\r\nearly",
         "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\ntag");
    test_guest_shutdown(&g);
    test_service_unpublish(s, 2);
    test_turn(&e.l);
    test_service_close(s);
    UNTIL(&e.l, !e.server || e.server->peer_count == 0);
    UNTIL(&e.l, test_guest_ended(&g));
    test_guest_free(&g);

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
    assert_true(n > 100);
    for (unsigned i = 1; i <= n; i++)
        live(i);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
