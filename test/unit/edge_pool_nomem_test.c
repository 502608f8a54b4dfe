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

/* Pools where memory is short: members that join, fail, take a port over. */

enum { MEMBERS = 3 };

typedef struct rig {
    test_edge e;
    test_service s[MEMBERS];
    uint16_t port;
    test_guest g;
} rig;

static void configure(tnl_server_config *c, void *user)
{
    (void)user;
    (void)tnl_ports_parse(&c->tcp_ports, "1024-65535");
}

static void publish(test_service *s, uint64_t id, const char *kind, uint16_t port)
{
    tnl_publish m = {.tunnel = id,
                     .kind = tnl_str_of(kind),
                     .name = tnl_str_of(port ? "" : "demo"),
                     .port = port,
                     .pool = tnl_str_of(s->hello.force ? "" : "round-robin")};
    unsigned before = s->published + s->refused;
    if (!s->session)
        return;
    test_service_publish_as(s, &m);
    UNTIL(&s->edge->l, s->published + s->refused > before || !s->session);
}

/* The first member refuses what it gets, the others answer, until the visitor has something. */
static void serve(rig *r)
{
    static const char text[] =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\ntag";
    while (!test_guest_hears(&r->g, "tag") && !test_guest_hears(&r->g, "</html>") &&
           !test_guest_ended(&r->g)) {
        for (size_t k = 0; k < MEMBERS; k++) {
            for (size_t i = 0; i < r->s[k].count; i++) {
                test_call *c = &r->s[k].calls[i];
                if (!c->stream || !c->n)
                    continue;
                if (k == 0)
                    test_call_reset(c, TUNNEL_E_REFUSED, "no");
                else
                    (void)tnl_stream_write(c->stream, text, strlen(text));
                test_call_forget(c);
            }
        }
        if (!test_turn(&r->e.l))
            fail_msg("neither an answer nor an end");
    }
    test_guest_free(&r->g);
}

static void start(rig *r, size_t i, bool force)
{
    test_service_start(&r->s[i], &r->e, "secret", (uint8_t)(i + 1));
    r->s[i].hello.force = force;
    UNTIL(&r->e.l, r->s[i].session);
}

static void publish_both(rig *r, size_t i)
{
    publish(&r->s[i], 1, "http", 0);
    publish(&r->s[i], 2, "tcp", r->port);
}

static bool port_is_open(const rig *r)
{
    char key[16];
    int n = snprintf(key, sizeof(key), "tcp:%u", r->port);
    return tnl_map_get(&r->e.server->names, key, (size_t)n) != NULL;
}

/* A pool's life, with the nth allocation failing. How many there were. */
static unsigned live(unsigned nth)
{
    rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    size_t before = test_nomem_live();
    r->port = test_free_port();
    assert_int_equal(test_edge_open(&r->e, &(test_edge_options){.configure = configure}), 0);
    for (size_t i = 0; i < MEMBERS; i++)
        start(r, i, i == MEMBERS - 1);
    test_nomem_fail(nth, 0);
    publish_both(r, 0);
    publish_both(r, 1);
    for (int i = 0; i < 2; i++) {
        test_guest_open(&r->g, &r->e);
        test_guest_say(&r->g, "DELETE / HTTP/1.1\r\nHost: demo.test\r\n\r\n");
        serve(r);
    }
    publish_both(r, 2);
    if (port_is_open(r)) {
        test_guest_open_at(&r->g, &r->e, r->port);
        test_guest_say(&r->g, "hello");
        serve(r);
    }
    unsigned n = test_nomem_count();
    test_nomem_fail(0, 0);
    for (size_t i = 0; i < MEMBERS; i++)
        test_service_close(&r->s[i]);
    test_edge_close(&r->e);
    assert_int_equal(test_nomem_live(), before);
    free(r);
    return n;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    unsigned n = live(0);
    assert_true(n > 30);
    for (unsigned i = 1; i <= n; i++)
        live(i);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
