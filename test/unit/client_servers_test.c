/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <signal.h>
#include <string.h>

#include "base/event.h"
#include "client/internal.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/servers_rig.h"
#include "tunnel/error.h"

#define REFUSAL(status, more)                                                                      \
    "HTTP/1.1 " status " x\r\n" more "Content-Length: 0\r\nConnection: close\r\n\r\n"

/* --- which server ----------------------------------------------------------------------------- */

static void the_next_one_is_tried_soon(void **state)
{
    (void)state;
    servers_rig r;
    char text[64];
    servers_rig_open(&r, &memory.live);
    servers_rig_take_down(&r, A);
    servers_rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    assert_int_equal(r.servers[B].hellos, 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 1);
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_string_equal(r.retried, servers_rig_address(&r, A, "ws://", text));
    assert_string_equal(r.host, servers_rig_address(&r, B, "ws://", text));
    assert_true(r.delay_ms <= 100);
    /* What worked last comes first, also when the other one is there again. */
    servers_rig_bring_up(&r, A);
    fake_server_drop(&r.servers[B]);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[B].hellos, 2);
    assert_int_equal(r.servers[A].accepted, 0);
    /* But not when it says that it goes. */
    fake_server_end_session(&r.servers[B], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 3);
    assert_int_equal(r.servers[A].hellos, 1);
    servers_rig_close(&r);
}

static void rounds_go_on_until_one_is_there(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_take_down(&r, A);
    servers_rig_take_down(&r, B);
    servers_rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 7);
    assert_int_equal(r.client->attempt.backoff.attempt, 3); /* it grows per round */
    servers_rig_bring_up(&r, B);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    servers_rig_close(&r);
}

static void one_that_refuses_us_is_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int code;
    } cases[] = {{REFUSAL("401", ""), 0},
                 {REFUSAL("403", ""), 0},
                 {NULL, TUNNEL_E_VERSION},
                 {NULL, TUNNEL_E_LIMIT_EXCEEDED}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        servers_rig r;
        servers_rig_open(&r, &memory.live);
        r.servers[A].answer = cases[i].answer;
        r.servers[A].refuse = cases[i].code;
        servers_rig_take_down(&r, B);
        servers_rig_start(&r);
        /* The other one is worth waiting for, and nobody bothers the first one meanwhile. */
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 4);
        assert_int_equal(r.servers[A].accepted, 1);
        servers_rig_bring_up(&r, B);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
        /* Then it may have changed its mind, or not. */
        fake_server_end_session(&r.servers[B], TUNNEL_E_GONE, "bye");
        UNTIL(&r.l, r.servers[A].accepted == 2);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
        servers_rig_close(&r);
    }
}

static void when_all_refuse_us_it_ends(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].answer = REFUSAL("401", "");
    r.servers[B].refuse = TUNNEL_E_VERSION;
    servers_rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_VERSION);
    assert_int_equal(r.servers[A].accepted, 1);
    assert_int_equal(r.servers[B].accepted, 1);
    servers_rig_close(&r);
}

static void who_was_replaced_goes_nowhere(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    fake_server_end_session(&r.servers[A], TUNNEL_E_REPLACED, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_REPLACED);
    servers_rig_turns(&r, 50);
    assert_int_equal(r.servers[B].accepted, 0);
    servers_rig_close(&r);
}

/* Before there is a session there is nobody whom another one could have replaced. */
static void one_that_says_replaced_is_a_refusal(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].refuse = TUNNEL_E_REPLACED;
    servers_rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    assert_int_equal(r.servers[A].hellos, 1);
    assert_int_equal(r.servers[B].hellos, 1);
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    servers_rig_close(&r);
}

typedef enum manner { CUT, ENDED, FORGOTTEN } manner;

/* A ends each session as soon as there is one; whether B was asked by then. */
static bool b_was_asked(servers_rig *r, manner how)
{
    fake_server *a = &r->servers[A];
    if (a->session && tnl_session_mux(a->session) && a->publishes == a->hellos) {
        if (how == ENDED)
            fake_server_end_session(a, TUNNEL_E_LIMIT, "");
        else
            fake_server_drop(a);
    }
    return r->servers[B].hellos > 0;
}

/* Neither does one that takes us every time keep us from the others. */
static void one_that_ends_all_sessions_does_not_hold_us(void **state)
{
    (void)state;
    for (manner how = CUT; how <= FORGOTTEN; how++) {
        servers_rig r;
        servers_rig_open(&r, &memory.live);
        r.servers[A].grace_ms = how == FORGOTTEN ? 600000 : 0;
        servers_rig_live(&r);
        UNTIL(&r.l, b_was_asked(&r, how));
        assert_true(r.servers[A].hellos >= 3);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
        servers_rig_close(&r);
    }
}

/* Who is sent away again and again does not run. */
static void moves_that_lead_nowhere_become_slow(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    for (unsigned i = 2; i < 9; i++) {
        fake_server_goaway(&r.servers[i % 2 ? B : A], "elsewhere");
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == i);
    }
    assert_true(r.client->attempt.backoff.attempt > 1);
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    servers_rig_close(&r);
}

/* The link of a session is lost, its lanes go on, and its server will not have us any more. */
static void one_that_refuses_a_new_link_is_left(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    tnl_relation *at_a = r.client->current;
    tnl_link *link = at_a->link;
    at_a->link = NULL;
    tnl_servers_failed(r.client, A, TUNNEL_E_AUTH_FAILED, "revoked", 0);
    at_a->link = link;
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[B].hellos, 1);
    servers_rig_close(&r);
}

/* Somebody else has the name at B: that does not end what A has published, and will again. */
static void a_name_taken_elsewhere_is_not_lost(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    r.servers[B].publish_error = TUNNEL_E_NAME_TAKEN;
    servers_rig_take_down(&r, A);
    UNTIL(&r.l, r.servers[B].publishes);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_WARNING]);
    assert_int_equal(r.error, TUNNEL_E_NAME_TAKEN);
    servers_rig_bring_up(&r, A);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    assert_string_equal(r.servers[A].last_name, "demo");
    /* There it would be final. */
    fake_server_publish_failed(&r.servers[A], r.tunnel, TUNNEL_E_NAME_TAKEN, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    servers_rig_close(&r);
}

/* What one server makes of a name is not what the next one is asked for. */
static void a_name_that_was_asked_for_stays(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].chooses = true;
    r.servers[A].chosen = "evil";
    servers_rig_live(&r);
    assert_string_equal(r.servers[A].last_name, "demo");
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_string_equal(r.servers[B].last_name, "demo");
    servers_rig_close(&r);
}

static void patience_is_given_to_whom_asks_for_it(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        uint64_t least, most;
    } cases[] = {{REFUSAL("503", "Retry-After: 7\r\n"), 7000, 7300},
                 {REFUSAL("429", "retry-after:   12  \r\n"), 12000, 12300},
                 {REFUSAL("503", "Retry-After: 86400\r\n"), 300000, 300300},
                 {REFUSAL("503", "Retry-After: 99999999999999999999\r\n"), 300000, 300300},
                 {REFUSAL("503", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n"), 0, 300},
                 {REFUSAL("503", "Retry-After: -5\r\n"), 0, 300},
                 {REFUSAL("503", "Retry-After: \r\n"), 0, 300},
                 {REFUSAL("404", "Retry-After: 7\r\n"), 0, 300}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        servers_rig r;
        servers_rig_open(&r, &memory.live);
        r.servers[A].answer = cases[i].answer;
        r.config.server_count = 1;
        servers_rig_start(&r);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING]);
        if (r.delay_ms < cases[i].least || r.delay_ms > cases[i].most)
            fail_msg("case %zu: waits for %llu ms", i, (unsigned long long)r.delay_ms);
        servers_rig_close(&r);
    }
}

static void others_are_tried_meanwhile(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].answer = REFUSAL("503", "Retry-After: 100\r\n");
    servers_rig_take_down(&r, B);
    servers_rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 4);
    assert_int_equal(r.servers[A].accepted, 1);
    servers_rig_bring_up(&r, B);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    servers_rig_close(&r);
}

/* --- a session without a link ----------------------------------------------------------------- */

static void a_server_that_is_dead_does_not_hold_us(void **state)
{
    (void)state;
    servers_rig r;
    guest v;
    servers_rig_open(&r, &memory.live);
    r.servers[A].grace_ms = 600000;
    servers_rig_live(&r);
    guest_open(&v, &r, A);
    servers_rig_take_down(&r, A);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[B].hellos, 1);
    guest_release(&v);
    /* What was there for visitors of A is gone. */
    UNTIL(&r.l, !r.up[0].c);
    guest_open(&v, &r, B);
    guest_leaves(&v, &r);
    servers_rig_close(&r);
}

static void its_own_server_comes_first(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].grace_ms = 600000;
    servers_rig_live(&r);
    fake_server_drop(&r.servers[A]);
    /* It is asked, knows nothing of us any more, and gets us nevertheless. */
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[A].attaches, 1);
    assert_int_equal(r.servers[A].hellos, 2);
    assert_int_equal(r.servers[B].accepted, 0);
    servers_rig_close(&r);
}

/* Both were out of reach, so it was our own network: whoever answers first, the one that has our
 * streams is asked before they are given up. */
static void it_looks_back_before_it_moves(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.servers[A].grace_ms = 600000;
    servers_rig_live(&r);
    servers_rig_take_down(&r, B);
    servers_rig_take_down(&r, A);
    UNTIL(&r.l, r.client->attempt.others_failed && r.client->attempt.state == TNL_ATTEMPT_DIALING &&
                    r.client->attempt.server == A);
    /* A answers no sooner than B does. */
    servers_rig_bring_up(&r, B);
    UNTIL(&r.l, r.servers[B].accepted);
    assert_int_equal(r.servers[B].hellos, 0);
    servers_rig_bring_up(&r, A);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[A].attaches + r.servers[B].hellos, 1);
    servers_rig_close(&r);
}

/* --- two sessions at once --------------------------------------------------------------------- */

static void it_moves_and_serves_both(void **state)
{
    (void)state;
    servers_rig r;
    guest old, late, new;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    guest_open(&old, &r, A);
    fake_server_goaway(&r.servers[A], "going down");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.count[TUNNEL_EVENT_DRAINING], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    assert_int_equal(r.servers[B].hellos, 1);
    guest_open(&new, &r, B);
    guest_open(&late, &r, A); /* who was sent there before */
    guest_asks(&old, &r);
    guest_leaves(&late, &r);
    guest_leaves(&new, &r);
    /* No more of them will come; the one that is there is served to its end. */
    fake_server_goaway_final(&r.servers[A], "now");
    servers_rig_wait(&r, 400);
    guest_asks(&old, &r);
    assert_int_equal(r.servers[A].session_closes, 0);
    guest_leaves(&old, &r);
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[A].session_error, TUNNEL_E_GONE);
    /* Nothing was lost, and nothing is new. */
    assert_int_equal(r.count[TUNNEL_EVENT_DRAINING], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 2);
    guest_open(&new, &r, B);
    guest_leaves(&new, &r);
    servers_rig_close(&r);
}

static void the_old_one_stays_until_it_says_so(void **state)
{
    (void)state;
    servers_rig r;
    guest v;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    r.servers[B].ignore_publish = true;
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.servers[B].publishes == 1);
    servers_rig_wait(&r, 400);
    assert_int_equal(r.servers[A].session_closes, 0);
    guest_open(&v, &r, A);
    guest_leaves(&v, &r);
    /* What is unpublished is unpublished in both. */
    assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), 0);
    UNTIL(&r.l, r.servers[A].unpublishes == 1 && r.servers[B].unpublishes == 1);
    fake_server_goaway_final(&r.servers[A], "");
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[B].session_closes, 0);
    servers_rig_close(&r);
}

/* A name that one server chose may be another client's at the next; one that was asked for must be
 * that, and is so again where it was. */
static void a_name_of_a_servers_choice_may_change(void **state)
{
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        servers_rig r;
        servers_rig_open(&r, &memory.live);
        r.servers[A].chosen = "calm-otter-1";
        r.servers[B].chosen = "wild-goose-2";
        r.servers[B].taken = "calm-otter-1";
        servers_rig_make(&r);
        assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), 0);
        servers_rig_publish(&r, asked ? "calm-otter-1" : "");
        assert_int_equal(tnl_client_start(r.client), 0);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 1);
        assert_string_equal(r.url, "http://calm-otter-1.test");
        fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "");
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2 || r.count[TUNNEL_EVENT_FAILED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
        assert_int_equal(r.count[TUNNEL_EVENT_WARNING], asked);
        assert_string_equal(r.url, asked ? "http://calm-otter-1.test" : "http://wild-goose-2.test");
        servers_rig_close(&r);
    }
}

static void one_that_moves_is_not_moved_by_its_end(void **state)
{
    (void)state;
    servers_rig r;
    guest v;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    guest_open(&v, &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    fake_server_end_session(&r.servers[A], TUNNEL_E_REPLACED, "");
    UNTIL(&r.l, v.resets);
    servers_rig_turns(&r, 50);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING] + r.count[TUNNEL_EVENT_FAILED], 0);
    guest_open(&v, &r, B);
    guest_leaves(&v, &r);
    servers_rig_close(&r);
}

/* The only one there is drains: it takes no new session, and serves the old one to its end. */
static void with_nowhere_to_go_it_stays(void **state)
{
    (void)state;
    servers_rig r;
    guest v;
    servers_rig_open(&r, &memory.live);
    r.config.server_count = 1;
    servers_rig_live(&r);
    r.servers[A].answer = REFUSAL("503", "");
    guest_open(&v, &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 3);
    guest_asks(&v, &r);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 1);
    /* It starts anew: no long wait is left of the attempts that could not succeed. */
    r.client->attempt.backoff.attempt = 20;
    UNTIL(&r.l, r.client->attempt.state == TNL_ATTEMPT_WAITING);
    r.servers[A].answer = NULL;
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    servers_rig_close(&r);
}

static void a_refusal_elsewhere_does_not_end_what_works(void **state)
{
    (void)state;
    servers_rig r;
    guest v;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    r.servers[B].answer = REFUSAL("401", "");
    r.servers[A].answer = REFUSAL("401", "");
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 3);
    guest_open(&v, &r, A);
    guest_leaves(&v, &r);
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_AUTH_FAILED);
    servers_rig_close(&r);
}

/* Three servers' worth of going away: no more than two are left open. */
static void not_many_are_left_open(void **state)
{
    (void)state;
    servers_rig r;
    guest v[2];
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    guest_open(&v[0], &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    guest_open(&v[1], &r, B);
    for (unsigned i = 3; i < 7; i++) {
        int now = i % 2 ? B : A;
        fake_server_goaway(&r.servers[now], "");
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == i);
        size_t relations = 0;
        for (const tnl_list *n = r.client->relations.next; n != &r.client->relations; n = n->next)
            relations += tnl_relation_mux(TNL_CONTAINER(n, tnl_relation, node)) != NULL;
        assert_true(relations <= 3);
    }
    guest_release(&v[0]);
    guest_release(&v[1]);
    servers_rig_close(&r);
}

/* --- datagrams -------------------------------------------------------------------------------- */

static void app_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    servers_rig *r = user;
    (void)tunnel;
    (void)p;
    (void)n;
    assert_true(r->datagrams < 4);
    r->flows[r->datagrams++] = flow;
}

static void ask(servers_rig *r, int server, uint64_t tunnel, uint64_t flow)
{
    tnl_datagram d = {.tunnel = tunnel, .flow = flow, .p = (const uint8_t *)"?", .n = 1};
    unsigned had = r->datagrams;
    assert_int_equal(tnl_session_datagram(r->servers[server].session, &d), 0);
    UNTIL(&r->l, r->datagrams == had + 1);
}

/* before: sessions that the client has had. */
static void flows_of_two_sessions(uint64_t before)
{
    servers_rig r;
    uint64_t tunnel;
    servers_rig_open(&r, &memory.live);
    servers_rig_make(&r);
    r.client->last_relation = before;
    tnl_tunnel_spec spec = {
        .kind = TNL_KIND_UDP, .far_end = TNL_FAR_LISTEN, .datagram = app_datagram, .user = &r};
    r.servers[A].chosen_port = r.servers[B].chosen_port = 4000;
    assert_int_equal(tnl_client_publish(r.client, &spec, &tunnel), 0);
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    ask(&r, A, tunnel, 5);
    assert_true(r.flows[0] == 5);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 4);
    ask(&r, B, tunnel, 5);
    assert_true(r.flows[1] != 5);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, r.flows[0], "!", 1), 0);
    UNTIL(&r.l, r.servers[A].datagrams == 1);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, r.flows[1], "!", 1), 0);
    UNTIL(&r.l, r.servers[B].datagrams == 1);
    assert_true(r.servers[A].last_flow == 5 && r.servers[B].last_flow == 5);
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_CONNECTION] == 1);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, r.flows[0], "!", 1),
                     TUNNEL_E_NOT_FOUND);
    assert_int_equal(tnl_client_unpublish(r.client, tunnel), 0);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, r.flows[1], "!", 1),
                     TUNNEL_E_NOT_FOUND);
    servers_rig_close(&r);
}

static void flows_of_two_sessions_are_not_the_same(void **state)
{
    (void)state;
    flows_of_two_sessions(0);
    flows_of_two_sessions(65536); /* more than the ids of flows can tell */
}

static void flows_end_at_once(void **state)
{
    (void)state;
    servers_rig r;
    uint64_t tunnel;
    guest v;
    servers_rig_open(&r, &memory.live);
    servers_rig_make(&r);
    tnl_tunnel_spec spec = {
        .kind = TNL_KIND_UDP, .far_end = TNL_FAR_LISTEN, .datagram = app_datagram, .user = &r};
    r.servers[A].chosen_port = 4000;
    assert_int_equal(tnl_client_publish(r.client, &spec, &tunnel), 0);
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    ask(&r, A, tunnel, 5);
    guest_open(&v, &r, A);
    tnl_client_drain(r.client, 3600 * 1000, servers_rig_closed, &r);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, 5, "!", 1), TUNNEL_E_NOT_FOUND);
    guest_leaves(&v, &r);
    UNTIL(&r.l, !r.client);
    servers_rig_close(&r);
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t moves_once(size_t nth)
{
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    memory.count = 0;
    memory.fail_at = nth;
    fake_server_goaway(&r.servers[A], "");
    /* Whatever fails, and at whichever end, it comes to be published again in the end. */
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    size_t n = memory.count;
    memory.fail_at = 0;
    servers_rig_close(&r);
    return n;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = moves_once(0);
    assert_true(n > 20);
    for (size_t i = 2; i <= n; i++) /* the first is the GOAWAY itself */
        moves_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_one_is_tried_soon),
        cmocka_unit_test(rounds_go_on_until_one_is_there),
        cmocka_unit_test(one_that_refuses_us_is_left_out),
        cmocka_unit_test(when_all_refuse_us_it_ends),
        cmocka_unit_test(who_was_replaced_goes_nowhere),
        cmocka_unit_test(one_that_says_replaced_is_a_refusal),
        cmocka_unit_test(one_that_ends_all_sessions_does_not_hold_us),
        cmocka_unit_test(moves_that_lead_nowhere_become_slow),
        cmocka_unit_test(one_that_refuses_a_new_link_is_left),
        cmocka_unit_test(a_name_taken_elsewhere_is_not_lost),
        cmocka_unit_test(a_name_that_was_asked_for_stays),
        cmocka_unit_test(patience_is_given_to_whom_asks_for_it),
        cmocka_unit_test(others_are_tried_meanwhile),
        cmocka_unit_test(a_server_that_is_dead_does_not_hold_us),
        cmocka_unit_test(its_own_server_comes_first),
        cmocka_unit_test(it_looks_back_before_it_moves),
        cmocka_unit_test(it_moves_and_serves_both),
        cmocka_unit_test(the_old_one_stays_until_it_says_so),
        cmocka_unit_test(a_name_of_a_servers_choice_may_change),
        cmocka_unit_test(one_that_moves_is_not_moved_by_its_end),
        cmocka_unit_test(with_nowhere_to_go_it_stays),
        cmocka_unit_test(a_refusal_elsewhere_does_not_end_what_works),
        cmocka_unit_test(not_many_are_left_open),
        cmocka_unit_test(flows_of_two_sessions_are_not_the_same),
        cmocka_unit_test(flows_end_at_once),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
