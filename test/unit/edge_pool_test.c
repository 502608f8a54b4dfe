/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

/* Pools: several clients of one account behind one name. */

enum { MOST = 6 };

#define GET "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n"
#define OK  "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

typedef struct rig {
    test_edge e;
    test_service s[MOST];
    size_t count;
    test_guest g;
} rig;

static void with_grace(tnl_server_config *c, void *user)
{
    (void)user;
    c->grace_ms = 600000;
    assert_int_equal(tnl_ports_parse(&c->tcp_ports, "1024-65535"), 0);
}

static void publish(test_service *s, const char *kind, uint16_t port, const char *balance)
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

static void start(test_service *s, test_edge *e, uint8_t instance)
{
    test_service_start(s, e, "secret", instance);
    UNTIL(&e->l, s->session);
}

static rig *rig_new(size_t count, const char *balance)
{
    static const test_edge_options o = {.configure = with_grace};
    rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    assert_int_equal(test_edge_open(&r->e, &o), 0);
    for (r->count = 0; r->count < count; r->count++) {
        start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        publish(&r->s[r->count], "http", 0, balance);
        assert_int_equal(r->s[r->count].published, 1);
    }
    return r;
}

static void rig_free(rig *r)
{
    for (size_t i = 0; i < r->count; i++)
        test_service_close(&r->s[i]);
    test_edge_close(&r->e);
    free(r);
}

static void ask(rig *r, const char *text)
{
    test_guest_open(&r->g, &r->e);
    test_guest_say(&r->g, text);
}

static void expect(rig *r, const char *text)
{
    UNTIL(&r->e.l, test_guest_hears(&r->g, "\r\n\r\n"));
    if (!test_guest_hears(&r->g, text))
        fail_msg("not '%s': %s", text, r->g.text);
    test_guest_free(&r->g);
}

/* Waits for the next call of any service; whose it is. */
static size_t next_of(rig *r, const size_t seen[MOST])
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
static size_t serve(rig *r)
{
    size_t seen[MOST];
    for (size_t i = 0; i < r->count; i++)
        seen[i] = r->s[i].count;
    ask(r, GET);
    size_t i = next_of(r, seen);
    test_call_answer(&r->s[i].calls[seen[i]], OK);
    expect(r, "HTTP/1.1 200");
    return i;
}

static void expect_served(rig *r, const char *order)
{
    char text[64] = "";
    for (size_t i = 0; i < strlen(order); i++)
        text[i] = (char)('a' + serve(r));
    assert_string_equal(text, order);
}

static uint64_t retried(const rig *r)
{
    return tnl_server_get_stats(r->e.server)->retried;
}

/* --- balance ---------------------------------------------------------------------------------- */

static void members_take_turns(void **state)
{
    (void)state;
    rig *r = rig_new(3, "round-robin");
    expect_served(r, "abcabcabc");
    /* One that joins comes behind the others; one that leaves is not missed. */
    start(&r->s[3], &r->e, 4);
    publish(&r->s[3], "http", 0, "round-robin");
    r->count = 4;
    expect_served(r, "dabcdab");
    test_service_unpublish(&r->s[1], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    expect_served(r, "cdacda");
    assert_int_equal(retried(r), 0);
    rig_free(r);
}

static void the_least_loaded_is_taken(void **state)
{
    (void)state;
    rig *r = rig_new(3, "least-loaded");
    test_guest waiting;
    test_guest_open(&waiting, &r->e);
    test_guest_say(&waiting, GET);
    test_call *c = test_service_await(&r->s[0], 1);
    expect_served(r, "bcbcbc");
    test_call_answer(c, OK);
    UNTIL(&r->e.l, test_guest_hears(&waiting, "ok"));
    expect_served(r, "abcabc");
    test_guest_free(&waiting);
    rig_free(r);
}

static void the_newest_says_how(void **state)
{
    (void)state;
    rig *r = rig_new(2, "least-loaded");
    start(&r->s[2], &r->e, 3);
    publish(&r->s[2], "http", 0, "round-robin");
    r->count = 3;
    test_guest waiting;
    test_guest_open(&waiting, &r->e);
    test_guest_say(&waiting, GET);
    test_service_await(&r->s[0], 1);
    expect_served(r, "bcabca");
    test_guest_free(&waiting);
    rig_free(r);
}

/* Streams are kept for each member. */
static void kept_streams_are_a_members_own(void **state)
{
    (void)state;
    rig *r = rig_new(2, "round-robin");
    for (size_t i = 0; i < 6; i++) {
        ask(r, GET);
        test_call *c = test_service_await(&r->s[i % 2], 1);
        test_call_answer(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        expect(r, "HTTP/1.1 200");
        test_call_forget(c);
    }
    /* Closed by the service at the same moment: that is no failure, the member is asked again. */
    ask(r, GET);
    test_call_fin(test_service_await(&r->s[0], 1));
    test_call_answer(test_service_await(&r->s[0], 2), OK);
    expect(r, "HTTP/1.1 200");
    assert_int_equal(retried(r), 0);
    /* Unless he is gone altogether. */
    ask(r, GET);
    test_service_await(&r->s[1], 1);
    tnl_session_close(r->s[1].session, TUNNEL_E_GONE, NULL);
    test_call_answer(test_service_await(&r->s[0], 3), OK);
    expect(r, "HTTP/1.1 200");
    assert_int_equal(retried(r), 1);
    rig_free(r);
}

/* --- failures --------------------------------------------------------------------------------- */

static const char *const repeatable[] = {
    GET,
    "OPTIONS * HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "DELETE /x HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "PUT /x HTTP/1.1\r\nHost: demo.test\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: demo.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
};

static void another_answers_what_may_be_repeated(void **state)
{
    (void)state;
    static const int codes[] = {TUNNEL_E_REFUSED,
                                TUNNEL_E_TIMEOUT,
                                TUNNEL_E_IO,
                                TUNNEL_E_UPSTREAM,
                                TUNNEL_E_LIMIT,
                                TUNNEL_E_DENIED,
                                0};
    for (size_t i = 0; i < sizeof(repeatable) / sizeof(*repeatable); i++) {
        for (size_t k = 0; k < sizeof(codes) / sizeof(*codes); k++) {
            rig *r = rig_new(2, "round-robin");
            ask(r, repeatable[i]);
            test_call *c = test_service_await(&r->s[0], 1);
            if (codes[k])
                test_call_reset(c, codes[k], "no");
            else
                test_call_fin(c);
            test_call_answer(test_service_await(&r->s[1], 1), OK);
            expect(r, "HTTP/1.1 200");
            assert_int_equal(retried(r), 1);
            /* Who has failed is passed over for a while. */
            expect_served(r, "bbb");
            rig_free(r);
        }
    }
}

static void nothing_is_done_twice(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int code;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi", TUNNEL_E_REFUSED},
        {"PUT / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi", TUNNEL_E_REFUSED},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_IO},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n", TUNNEL_E_RESET},
        {"PATCH / HTTP/1.1\r\nHost: demo.test\r\n\r\n", TUNNEL_E_UPSTREAM},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig *r = rig_new(2, "round-robin");
        ask(r, cases[i].request);
        test_call *c = test_service_await(&r->s[0], 1);
        if (cases[i].code)
            test_call_reset(c, cases[i].code, "no");
        else
            test_call_fin(c);
        expect(r, "HTTP/1.1 502");
        assert_int_equal(r->s[1].count, 0);
        assert_int_equal(retried(r), 0);
        rig_free(r);
    }
}

/* The client says that its service never saw it. */
static void what_nobody_saw_goes_elsewhere(void **state)
{
    (void)state;
    static const int codes[] = {TUNNEL_E_REFUSED,   TUNNEL_E_UNREACHABLE, TUNNEL_E_RESOLVE,
                                TUNNEL_E_NOT_FOUND, TUNNEL_E_ACCESS,      TUNNEL_E_DENIED};
    for (size_t k = 0; k < sizeof(codes) / sizeof(*codes); k++) {
        rig *r = rig_new(2, "round-robin");
        ask(r, "POST /once HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 0\r\n\r\n");
        test_call_reset(test_service_await(&r->s[0], 1), codes[k], "no");
        test_call *c = test_service_await(&r->s[1], 1);
        assert_true(test_call_has(c, "POST /once "));
        test_call_answer(c, OK);
        expect(r, "HTTP/1.1 200");
        rig_free(r);
    }
}

/* An answer is one, whatever it says; and one that has begun is not begun again. */
static void an_answer_is_final(void **state)
{
    (void)state;
    rig *r = rig_new(2, "round-robin");
    ask(r, GET);
    test_call_answer(test_service_await(&r->s[0], 1),
                     "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    expect(r, "HTTP/1.1 503");
    ask(r, GET);
    test_call *c = test_service_await(&r->s[1], 1);
    test_call_answer(c, "HTTP/1.1 200 OK\r\nContent-");
    UNTIL(&r->e.l, tnl_stream_flushed(c->stream));
    test_call_reset(c, TUNNEL_E_IO, "died");
    expect(r, "HTTP/1.1 502");
    assert_int_equal(retried(r), 0);
    assert_int_equal(r->s[0].count, 1);
    rig_free(r);
}

static void four_are_tried_each_once(void **state)
{
    (void)state;
    rig *r = rig_new(MOST, "round-robin");
    ask(r, GET);
    for (size_t i = 0; i < TNL_POOL_TRIES; i++)
        test_call_reset(test_service_await(&r->s[i], 1), TUNNEL_E_REFUSED, "no");
    expect(r, "HTTP/1.1 502");
    assert_int_equal(retried(r), TNL_POOL_TRIES - 1);
    assert_int_equal(r->s[TNL_POOL_TRIES].count, 0);
    /* With all others passed over the rest does the work; with everybody failing each has his
     * turn. */
    expect_served(r, "efef");
    rig_free(r);
    r = rig_new(2, "round-robin");
    for (size_t n = 1; n < 4; n++) {
        ask(r, GET);
        test_call_reset(test_service_await(&r->s[0], n), TUNNEL_E_REFUSED, "no");
        test_call_reset(test_service_await(&r->s[1], n), TUNNEL_E_REFUSED, "no");
        expect(r, "HTTP/1.1 502");
    }
    rig_free(r);
}

/* A member without room is passed over, also by what may not be repeated: nothing was sent. */
static void a_full_member_is_passed_over(void **state)
{
    (void)state;
    rig *r = rig_new(1, "round-robin");
    test_service_start(&r->s[1], &r->e, "secret", 2);
    r->s[1].hello.limits.max_streams = 0;
    UNTIL(&r->e.l, r->s[1].session);
    publish(&r->s[1], "http", 0, "round-robin");
    r->count = 2;
    expect_served(r, "a");
    ask(r, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi");
    test_call_answer(test_service_await(&r->s[0], 2), OK);
    expect(r, "HTTP/1.1 200");
    assert_int_equal(retried(r), 1);
    rig_free(r);
}

/* --- members come and go ---------------------------------------------------------------------- */

static void who_leaves_ends_what_he_began(void **state)
{
    (void)state;
    rig *r = rig_new(2, "round-robin");
    ask(r, GET);
    test_call *c = test_service_await(&r->s[0], 1);
    test_service_unpublish(&r->s[0], 1);
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    test_call_answer(c, OK);
    expect(r, "HTTP/1.1 200");
    expect_served(r, "bb");
    assert_int_equal(retried(r), 0);
    rig_free(r);
}

/* The session of who has a request ends. */
static void another_goes_on_when_a_session_ends(void **state)
{
    (void)state;
    rig *r = rig_new(2, "round-robin");
    ask(r, GET);
    test_service_await(&r->s[0], 1);
    tnl_session_close(r->s[0].session, TUNNEL_E_GONE, NULL);
    test_call_answer(test_service_await(&r->s[1], 1), OK);
    expect(r, "HTTP/1.1 200");
    expect_served(r, "bb");
    rig_free(r);
}

static tnl_peer *away_peer(const rig *r)
{
    for (tnl_list *n = r->e.server->peers.next; n != &r->e.server->peers; n = n->next)
        if (tnl_peer_away(TNL_CONTAINER(n, tnl_peer, node)))
            return TNL_CONTAINER(n, tnl_peer, node);
    return NULL;
}

static void cut(rig *r, size_t i)
{
    tnl_link_close(r->s[i].link, 0, NULL);
    UNTIL(&r->e.l, away_peer(r));
}

/* The connection of who has requests is lost, and he may come back. */
static void another_goes_on_when_a_link_is_lost(void **state)
{
    (void)state;
    rig *r = rig_new(2, "round-robin");
    test_guest post;
    ask(r, GET);
    test_service_await(&r->s[0], 1);
    test_guest_open(&post, &r->e);
    test_guest_say(&post, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\n\r\nhi");
    test_service_await(&r->s[1], 1);
    cut(r, 0);
    test_call_answer(test_service_await(&r->s[1], 2), OK);
    expect(r, "HTTP/1.1 200");
    assert_int_equal(retried(r), 1);
    /* Nobody new is sent there. */
    expect_served(r, "bbb");
    assert_int_equal(retried(r), 1);
    test_guest_free(&post);
    rig_free(r);
}

static void who_is_silent_for_a_minute_is_removed(void **state)
{
    (void)state;
    rig *r = rig_new(3, "round-robin");
    cut(r, 1);
    away_peer(r)->parked_at -= TNL_POOL_AWAY_MS;
    UNTIL(&r->e.l, r->e.events[TUNNEL_EVENT_NAME_GONE] == 1);
    tnl_peer *p = away_peer(r);
    assert_non_null(p);
    assert_int_equal(p->tunnel_count, 0);
    expect_served(r, "acac");
    rig_free(r);
}

static void the_last_one_is_waited_for(void **state)
{
    (void)state;
    rig *r = rig_new(1, "round-robin");
    cut(r, 0);
    away_peer(r)->parked_at -= TNL_POOL_AWAY_MS;
    for (int i = 0; i < 3; i++)
        tnl_publish_sweep(r->e.server, tnl_loop_now(r->e.l.loop));
    assert_int_equal(r->e.events[TUNNEL_EVENT_NAME_GONE], 0);
    rig_free(r);
}

static void the_oldest_makes_room(void **state)
{
    (void)state;
    rig *r = rig_new(0, "");
    test_service *s = calloc(TNL_POOL_MAX + 1, sizeof(*s));
    assert_non_null(s);
    for (size_t i = 0; i <= TNL_POOL_MAX; i++) {
        assert_int_equal(s[0].refused, 0);
        start(&s[i], &r->e, (uint8_t)(i + 1));
        publish(&s[i], "http", 0, "round-robin");
        assert_int_equal(s[i].published, 1);
    }
    UNTIL(&r->e.l, s[0].refused);
    assert_int_equal(s[0].code, TUNNEL_E_REPLACED);
    for (size_t i = 1; i <= TNL_POOL_MAX; i++) {
        ask(r, GET);
        test_call_answer(test_service_await(&s[i], 1), OK);
        expect(r, "HTTP/1.1 200");
    }
    assert_int_equal(s[0].count, 0);
    for (size_t i = 0; i <= TNL_POOL_MAX; i++)
        test_service_close(&s[i]);
    free(s);
    rig_free(r);
}

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
    rig *r = rig_new(2, "round-robin");
    test_service *s = &r->s[2];
    test_service_start(s, &r->e, "other", 3);
    UNTIL(&r->e.l, s->session);
    r->count = 3;
    publish(s, "http", 0, "round-robin");
    expect_refused(s, TUNNEL_E_NAME_TAKEN, "another account");
    publish(s, "http", 0, "random");
    expect_refused(s, TUNNEL_E_UNSUPPORTED, "least-loaded");
    publish(s, "udp", 5353, "round-robin");
    expect_refused(s, TUNNEL_E_INVALID, "one client");
    tnl_publish again = {.tunnel = 2,
                         .kind = tnl_str_of("http"),
                         .name = tnl_str_of("demo"),
                         .pool = tnl_str_of("round-robin")};
    test_service_publish_as(&r->s[0], &again);
    expect_refused(&r->s[0], TUNNEL_E_NAME_TAKEN, "this client already");
    start(&r->s[3], &r->e, 4);
    r->count = 4;
    publish(&r->s[3], "http", 0, "");
    expect_refused(&r->s[3], TUNNEL_E_NAME_TAKEN, "a pool of this account");
    expect_served(r, "abab");
    rig_free(r);
}

static void who_does_not_share_keeps_it(void **state)
{
    (void)state;
    rig *r = rig_new(1, "");
    start(&r->s[1], &r->e, 2);
    r->count = 2;
    publish(&r->s[1], "http", 0, "round-robin");
    expect_refused(&r->s[1], TUNNEL_E_NAME_TAKEN, "does not share it");
    expect_served(r, "aa");
    /* Who is away does not keep it. */
    cut(r, 0);
    publish(&r->s[1], "http", 0, "round-robin");
    assert_int_equal(r->s[1].published, 1);
    expect_served(r, "bb");
    rig_free(r);
}

static void force_displaces_all(void **state)
{
    (void)state;
    rig *r = rig_new(3, "round-robin");
    test_service_start(&r->s[3], &r->e, "secret", 4);
    r->s[3].hello.force = true;
    UNTIL(&r->e.l, r->s[3].session);
    r->count = 4;
    publish(&r->s[3], "http", 0, "");
    assert_int_equal(r->s[3].published, 1);
    for (size_t i = 0; i < 3; i++)
        expect_refused(&r->s[i], TUNNEL_E_REPLACED, "another client");
    expect_served(r, "dd");
    assert_int_equal(r->e.events[TUNNEL_EVENT_NAME_GONE], 3);
    rig_free(r);
}

/* --- ports ------------------------------------------------------------------------------------ */

static size_t connect_once(rig *r, uint16_t port)
{
    size_t before[MOST], who = MOST;
    for (size_t i = 0; i < r->count; i++)
        before[i] = r->s[i].count;
    test_guest_open_at(&r->g, &r->e, port);
    test_guest_say(&r->g, "hello");
    while (who == MOST) {
        for (size_t i = 0; i < r->count && who == MOST; i++)
            if (r->s[i].count > before[i] && test_call_has(&r->s[i].calls[before[i]], "hello"))
                who = i;
        if (who == MOST && !test_turn(&r->e.l))
            fail_msg("nobody was asked");
    }
    test_call_answer(&r->s[who].calls[before[who]], "welcome");
    UNTIL(&r->e.l, test_guest_hears(&r->g, "welcome"));
    return who;
}

static void a_port_is_open_as_long_as_there_is_a_member(void **state)
{
    (void)state;
    rig *r = rig_new(0, "");
    uint16_t port = 0;
    for (r->count = 0; r->count < 3; r->count++) {
        start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        port = port ? port : test_free_port();
        publish(&r->s[r->count], "tcp", port, "least-loaded");
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
    rig_free(r);
}

static void a_dead_service_gets_few_connections(void **state)
{
    (void)state;
    rig *r = rig_new(0, "");
    uint16_t port = test_free_port();
    for (r->count = 0; r->count < 2; r->count++) {
        start(&r->s[r->count], &r->e, (uint8_t)(r->count + 1));
        publish(&r->s[r->count], "tcp", port, "round-robin");
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
    rig_free(r);
}

/* The listening socket passes from hand to hand. */
static void a_port_moves_without_a_gap(void **state)
{
    (void)state;
    rig *r = rig_new(0, "");
    uint16_t port = test_free_port();
    start(&r->s[0], &r->e, 1);
    publish(&r->s[0], "tcp", port, "");
    test_service_start(&r->s[1], &r->e, "secret", 2);
    r->s[1].hello.force = true;
    UNTIL(&r->e.l, r->s[1].session);
    r->count = 2;
    char key[32];
    snprintf(key, sizeof(key), "tcp:%u", port);
    tnl_map_node *node = tnl_map_get(&r->e.server->names, key, strlen(key));
    assert_non_null(node);
    const tnl_port *bound = TNL_CONTAINER(node, tnl_name, by_key)->bound;
    publish(&r->s[1], "tcp", port, "");
    assert_int_equal(r->s[1].published, 1);
    node = tnl_map_get(&r->e.server->names, key, strlen(key));
    assert_non_null(node);
    assert_ptr_equal(TNL_CONTAINER(node, tnl_name, by_key)->bound, bound);
    assert_int_equal(connect_once(r, port), 1);
    test_guest_free(&r->g);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_take_turns),
        cmocka_unit_test(the_least_loaded_is_taken),
        cmocka_unit_test(the_newest_says_how),
        cmocka_unit_test(kept_streams_are_a_members_own),
        cmocka_unit_test(another_answers_what_may_be_repeated),
        cmocka_unit_test(nothing_is_done_twice),
        cmocka_unit_test(what_nobody_saw_goes_elsewhere),
        cmocka_unit_test(an_answer_is_final),
        cmocka_unit_test(four_are_tried_each_once),
        cmocka_unit_test(a_full_member_is_passed_over),
        cmocka_unit_test(who_leaves_ends_what_he_began),
        cmocka_unit_test(another_goes_on_when_a_session_ends),
        cmocka_unit_test(another_goes_on_when_a_link_is_lost),
        cmocka_unit_test(who_is_silent_for_a_minute_is_removed),
        cmocka_unit_test(the_last_one_is_waited_for),
        cmocka_unit_test(the_oldest_makes_room),
        cmocka_unit_test(not_everybody_may_join),
        cmocka_unit_test(who_does_not_share_keeps_it),
        cmocka_unit_test(force_displaces_all),
        cmocka_unit_test(a_port_is_open_as_long_as_there_is_a_member),
        cmocka_unit_test(a_dead_service_gets_few_connections),
        cmocka_unit_test(a_port_moves_without_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
