/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/pool.h"
#include "tunnel/error.h"

/* Pools: who may join one, and pools behind a port. */

/* --- who may join ----------------------------------------------------------------------------- */

static void expect_refused(test_service *s, int code, const char *why)
{
    UNTIL(&s->edge->l, s->refused);
    assert_int_equal(s->code, code);
    if (!strstr(s->text, why))
        fail_msg("not '%s': %s", why, s->text);
    s->refused = 0;
}

static void not_everybody_may_join(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(2, "round-robin");
    test_service *s = &r->s[2];
    test_service_start(s, &r->e, "other", 3);
    UNTIL(&r->e.l, s->session);
    r->count = 3;
    test_pool_publish(s, "http", 0, "round-robin");
    expect_refused(s, TUNNEL_E_NAME_TAKEN, "another account");
    test_pool_publish(s, "http", 0, "random");
    expect_refused(s, TUNNEL_E_UNSUPPORTED, "least-loaded");
    test_pool_publish(s, "udp", 5353, "round-robin");
    expect_refused(s, TUNNEL_E_INVALID, "one client");
    tnl_publish again = {.tunnel = 2,
                         .kind = tnl_str_of("http"),
                         .name = tnl_str_of("demo"),
                         .pool = tnl_str_of("round-robin")};
    test_service_publish_as(&r->s[0], &again);
    expect_refused(&r->s[0], TUNNEL_E_NAME_TAKEN, "this client already");
    test_pool_start(&r->s[3], &r->e, 4);
    r->count = 4;
    test_pool_publish(&r->s[3], "http", 0, "");
    expect_refused(&r->s[3], TUNNEL_E_NAME_TAKEN, "a pool of this account");
    test_pool_expect_served(r, "abab");
    test_pool_close(r);
}

static void who_does_not_share_keeps_it(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(1, "");
    test_pool_start(&r->s[1], &r->e, 2);
    r->count = 2;
    test_pool_publish(&r->s[1], "http", 0, "round-robin");
    expect_refused(&r->s[1], TUNNEL_E_NAME_TAKEN, "does not share it");
    test_pool_expect_served(r, "aa");
    /* Who is away does not keep it. */
    test_pool_cut(r, 0);
    test_pool_publish(&r->s[1], "http", 0, "round-robin");
    assert_int_equal(r->s[1].published, 1);
    test_pool_expect_served(r, "bb");
    test_pool_close(r);
}

/* Asked for twice while a holder was asked whether it lives: that makes one member. */
static void a_client_is_a_member_once(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(1, "");
    test_service *s = &r->s[1];
    test_pool_start(s, &r->e, 2);
    r->count = 2;
    tnl_publish m = {.tunnel = 1,
                     .kind = tnl_str_of("http"),
                     .name = tnl_str_of("demo"),
                     .pool = tnl_str_of("round-robin")};
    test_service_publish_as(s, &m);
    UNTIL(&r->e.l, r->e.server->peer_count == 2);
    for (int i = 0; i < 20; i++)
        test_turn(&r->e.l);
    test_service_unpublish(&r->s[0], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE]);
    m.tunnel = 2;
    test_service_publish_as(s, &m);
    UNTIL(&r->e.l, s->published + s->refused == 2);
    assert_int_equal(s->published, 1);
    assert_int_equal(s->code, TUNNEL_E_NAME_TAKEN);
    assert_int_equal(r->e.events[TUNNEL_EVENT_NAME_PUBLISHED], 2);
    test_pool_close(r);
}

static void force_displaces_all(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(3, "round-robin");
    test_service_start(&r->s[3], &r->e, "secret", 4);
    r->s[3].hello.force = true;
    UNTIL(&r->e.l, r->s[3].session);
    r->count = 4;
    test_pool_publish(&r->s[3], "http", 0, "");
    assert_int_equal(r->s[3].published, 1);
    for (size_t i = 0; i < 3; i++)
        expect_refused(&r->s[i], TUNNEL_E_REPLACED, "another client");
    test_pool_expect_served(r, "dd");
    assert_int_equal(r->e.events[TUNNEL_EVENT_NAME_GONE], 3);
    test_pool_close(r);
}

/* --- ports ------------------------------------------------------------------------------------ */

static size_t connect_once(test_pool *r, uint16_t port)
{
    size_t before[TEST_POOL_MOST], who = TEST_POOL_MOST;
    for (size_t i = 0; i < r->count; i++)
        before[i] = r->s[i].count;
    test_guest_open_at(&r->g, &r->e, port);
    test_guest_say(&r->g, "hello");
    while (who == TEST_POOL_MOST) {
        for (size_t i = 0; i < r->count && who == TEST_POOL_MOST; i++)
            if (r->s[i].count > before[i] && test_call_has(&r->s[i].calls[before[i]], "hello"))
                who = i;
        if (who == TEST_POOL_MOST && !test_turn(&r->e.l))
            fail_msg("nobody was asked");
    }
    test_call_answer(&r->s[who].calls[before[who]], "welcome");
    UNTIL(&r->e.l, test_guest_hears(&r->g, "welcome"));
    return who;
}

static void a_port_is_open_as_long_as_there_is_a_member(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(0, "");
    uint16_t port = 0;
    for (r->count = 0; r->count < 3; r->count++) {
        test_pool_start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        port = port ? port : test_free_port();
        test_pool_publish(&r->s[r->count], "tcp", port, "least-loaded");
        assert_int_equal(r->s[r->count].published, 1);
        assert_int_equal(r->s[r->count].port, port);
    }
    test_guest stays;
    assert_int_equal(connect_once(r, port), 0);
    stays = r->g;
    /* He is the only one who has any. */
    for (int i = 0; i < 4; i++) {
        assert_int_not_equal(connect_once(r, port), 0);
        test_guest_leave(&r->g, true);
        test_guest_free(&r->g);
        UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_ACCESS] == (unsigned)i + 1);
    }
    /* Who has opened the port leaves: his connection goes on, and so does the port. */
    test_service_unpublish(&r->s[0], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    assert_int_not_equal(connect_once(r, port), 0);
    test_guest_free(&r->g);
    test_guest_forget(&stays);
    test_call_answer(&r->s[0].calls[0], "still there");
    UNTIL(&r->e.l, test_guest_hears(&stays, "still there"));
    test_guest_free(&stays);
    test_pool_close(r);
}

static void a_dead_service_gets_few_connections(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(0, "");
    uint16_t port = test_free_port();
    for (r->count = 0; r->count < 2; r->count++) {
        test_pool_start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        test_pool_publish(&r->s[r->count], "tcp", port, "round-robin");
    }
    test_guest_open_at(&r->g, &r->e, port);
    UNTIL(&r->e.l, r->s[0].count == 1);
    test_call_reset(&r->s[0].calls[0], TUNNEL_E_REFUSED, "no");
    UNTIL(&r->e.l, test_guest_ended(&r->g));
    test_guest_free(&r->g);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(connect_once(r, port), 1);
        test_guest_free(&r->g);
    }
    test_pool_close(r);
}

/* The listening socket passes from hand to hand. */
static void a_port_moves_without_a_gap(void **state)
{
    (void)state;
    test_pool *r = test_pool_open(0, "");
    uint16_t port = test_free_port();
    test_pool_start(&r->s[0], &r->e, 1);
    test_pool_publish(&r->s[0], "tcp", port, "");
    test_service_start(&r->s[1], &r->e, "secret", 2);
    r->s[1].hello.force = true;
    UNTIL(&r->e.l, r->s[1].session);
    r->count = 2;
    char key[32];
    snprintf(key, sizeof(key), "tcp:%u", port);
    tnl_map_node *node = tnl_map_get(&r->e.server->names, key, strlen(key));
    assert_non_null(node);
    const tnl_port *bound = TNL_CONTAINER(node, tnl_name, by_key)->bound;
    test_pool_publish(&r->s[1], "tcp", port, "");
    assert_int_equal(r->s[1].published, 1);
    node = tnl_map_get(&r->e.server->names, key, strlen(key));
    assert_non_null(node);
    assert_ptr_equal(TNL_CONTAINER(node, tnl_name, by_key)->bound, bound);
    assert_int_equal(connect_once(r, port), 1);
    test_guest_free(&r->g);
    test_pool_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_everybody_may_join),
        cmocka_unit_test(who_does_not_share_keeps_it),
        cmocka_unit_test(a_client_is_a_member_once),
        cmocka_unit_test(force_displaces_all),
        cmocka_unit_test(a_port_is_open_as_long_as_there_is_a_member),
        cmocka_unit_test(a_dead_service_gets_few_connections),
        cmocka_unit_test(a_port_moves_without_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
