/* SPDX-License-Identifier: Apache-2.0 */
#include "support/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

static void with_grace(tnl_server_config *c, void *user)
{
    (void)user;
    c->grace_ms = 600000;
    assert_int_equal(tnl_ports_parse(&c->tcp_ports, "1024-65535"), 0);
}

void test_pool_publish(test_service *s, const char *kind, uint16_t port, const char *balance)
{
    tnl_publish m = {.tunnel = 1,
                     .kind = tnl_str_of(kind),
                     .name = tnl_str_of(port ? "" : "demo"),
                     .port = port,
                     .pool = tnl_str_of(balance)};
    unsigned before = s->published + s->refused;
    test_service_publish_as(s, &m);
    UNTIL(&s->edge->l, s->published + s->refused > before);
}

void test_pool_start(test_service *s, test_edge *e, uint8_t instance)
{
    test_service_start(s, e, "secret", instance);
    UNTIL(&e->l, s->session);
}

test_pool *test_pool_open(size_t count, const char *balance)
{
    static const test_edge_options o = {.configure = with_grace};
    test_pool *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    assert_int_equal(test_edge_open(&r->e, &o), 0);
    for (r->count = 0; r->count < count; r->count++) {
        test_pool_start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        test_pool_publish(&r->s[r->count], "http", 0, balance);
        assert_int_equal(r->s[r->count].published, 1);
    }
    return r;
}

void test_pool_close(test_pool *r)
{
    for (size_t i = 0; i < r->count; i++)
        test_service_close(&r->s[i]);
    test_edge_close(&r->e);
    free(r);
}

void test_pool_ask(test_pool *r, const char *text)
{
    test_guest_open(&r->g, &r->e);
    test_guest_say(&r->g, text);
}

void test_pool_expect(test_pool *r, const char *text)
{
    UNTIL(&r->e.l, test_guest_hears(&r->g, "\r\n\r\n"));
    if (!test_guest_hears(&r->g, text))
        fail_msg("not '%s': %s", text, r->g.text);
    test_guest_free(&r->g);
}

/* Waits for the next call of any service; whose it is. */
static size_t next_of(test_pool *r, const size_t seen[TEST_POOL_MOST])
{
    for (;;) {
        for (size_t i = 0; i < r->count; i++)
            if (r->s[i].count > seen[i] && test_call_has(&r->s[i].calls[seen[i]], "\r\n\r\n"))
                return i;
        if (!test_turn(&r->e.l))
            fail_msg("nobody was asked");
    }
}

/* A visitor who asks and is answered by a service, over a stream of its own; whose it is. */
static size_t serve(test_pool *r)
{
    size_t seen[TEST_POOL_MOST];
    for (size_t i = 0; i < r->count; i++)
        seen[i] = r->s[i].count;
    test_pool_ask(r, GET);
    size_t i = next_of(r, seen);
    test_call_answer(&r->s[i].calls[seen[i]], OK);
    test_pool_expect(r, "HTTP/1.1 200");
    return i;
}

void test_pool_expect_served(test_pool *r, const char *order)
{
    char text[64] = "";
    for (size_t i = 0; i < strlen(order); i++)
        text[i] = (char)('a' + serve(r));
    assert_string_equal(text, order);
}

uint64_t test_pool_retried(const test_pool *r)
{
    return tnl_server_get_stats(r->e.server)->retried;
}

tnl_peer *test_pool_away(const test_pool *r)
{
    for (tnl_list *n = r->e.server->peers.next; n != &r->e.server->peers; n = n->next)
        if (tnl_peer_away(TNL_CONTAINER(n, tnl_peer, node)))
            return TNL_CONTAINER(n, tnl_peer, node);
    return NULL;
}

void test_pool_cut(test_pool *r, size_t i)
{
    tnl_link_close(r->s[i].link, 0, NULL);
    UNTIL(&r->e.l, test_pool_away(r));
}
