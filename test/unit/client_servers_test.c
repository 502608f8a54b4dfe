/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/internal.h"
#include "support/check.h"
#include "support/fake_server.h"
#include "support/memory.h"
#include "tunnel/error.h"

/* One client and two servers that do as they are told, A and B, and a local service that sends back
 * what it gets. */
enum { EVENTS = 32, A = 0, B = 1, PEERS = 8 };

#define REFUSAL(status, more)                                                                      \
    "HTTP/1.1 " status " x\r\n" more "Content-Length: 0\r\nConnection: close\r\n\r\n"

typedef struct rig {
    test_loop l;
    fake_server servers[2];
    bool down[2];
    tnl_client *client; /* NULL once closed */
    tnl_client_config config;
    tnl_upstream upstream;
    tnl_listener *service;
    test_peer up[PEERS];
    uint64_t tunnel;
    unsigned closes;
    unsigned count[EVENTS];
    int error; /* of the last event that had one */
    uint64_t delay_ms;
    uint64_t trip_us;
    char host[300]; /* of the last event that had one */
    char retried[300];
    char url[300];
    unsigned datagrams; /* that came to the app */
    uint64_t flows[4];
    tunnel_event_type leave_in; /* the event in whose callback the client is closed; 0: none */
    unsigned leave_at;          /* which one of them */
    bool drains;                /* is told to drain instead */
} rig;

static void on_client_closed(void *user)
{
    rig *r = user;
    r->closes++;
    r->client = NULL;
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    tunnel_event_type type = tunnel_event_get_type(e);
    r->count[type]++;
    if (tunnel_event_error(e))
        r->error = tunnel_event_error(e);
    if (tunnel_event_host(e)[0])
        snprintf(r->host, sizeof(r->host), "%s", tunnel_event_host(e));
    if (type == TUNNEL_EVENT_PUBLISHED)
        snprintf(r->url, sizeof(r->url), "%s", tunnel_event_url(e));
    if (type == TUNNEL_EVENT_RETRYING) {
        snprintf(r->retried, sizeof(r->retried), "%s", tunnel_event_host(e));
        r->delay_ms = tunnel_event_delay_ms(e);
    }
    if (type == TUNNEL_EVENT_ROUND_TRIP)
        r->trip_us = tunnel_event_duration_us(e);
    if (r->leave_in != type || r->count[type] != r->leave_at)
        return;
    r->leave_in = 0;
    if (r->drains)
        tnl_client_drain(r->client, 10000, on_client_closed, r);
    else
        tnl_client_close(r->client, on_client_closed, r);
    assert_int_equal(r->closes, 0);
}

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    for (int i = 0; i < PEERS; i++) {
        if (r->up[i].c)
            continue;
        r->up[i].eofs = r->up[i].closes = 0;
        test_peer_attach(&r->up[i], c);
        tnl_conn_resume(c);
        return;
    }
    tnl_conn_close(c);
}

static const char *address(const rig *r, int i, const char *scheme, char out[64])
{
    snprintf(out, 64, "%s127.0.0.1:%u", scheme, r->config.servers[i].port);
    return out;
}

static void rig_open(rig *r)
{
    char text[64], detail[200];
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    for (int i = 0; i < PEERS; i++) {
        test_peer_init(&r->up[i]);
        r->up[i].echo = r->up[i].echo_end = true;
    }
    assert_int_equal(tnl_listener_new(&r->service, r->l.loop, "127.0.0.1:0", on_accept, r, NULL, 0),
                     0);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(r->service).port);
    assert_int_equal(tnl_upstream_parse(&r->upstream, text, NULL, detail, sizeof(detail)), 0);
    for (int i = 0; i < 2; i++) {
        fake_server_open(&r->servers[i], &r->l, NULL);
        snprintf(text, sizeof(text), "ws://127.0.0.1:%u", fake_server_port(&r->servers[i]));
        assert_int_equal(tnl_url_parse(&r->config.servers[i], text), 0);
    }
    r->config.server_count = 2;
    snprintf(r->config.token, sizeof(r->config.token), "SECRET");
    r->config.silence_ms = 20000;
}

static void take_down(rig *r, int i)
{
    fake_server_close(&r->servers[i]);
    r->down[i] = true;
}

static void bring_up(rig *r, int i)
{
    char text[64];
    r->servers[i] = (fake_server){.l = NULL};
    fake_server_open(&r->servers[i], &r->l, address(r, i, "", text));
    r->down[i] = false;
}

static void publish(rig *r, const char *name)
{
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = r->upstream};
    snprintf(spec.name, sizeof(spec.name), "%s", name);
    assert_int_equal(tnl_client_publish(r->client, &spec, &r->tunnel), 0);
}

static void rig_make(rig *r)
{
    char detail[300] = "";
    assert_int_equal(tnl_client_new(&r->client, r->l.loop, &r->config, detail, sizeof(detail)), 0);
    tnl_client_on_event(r->client, on_event, r);
    publish(r, "demo");
}

static void rig_start(rig *r)
{
    rig_make(r);
    assert_int_equal(tnl_client_start(r->client), 0);
}

/* With a session at A. */
static void rig_live(rig *r)
{
    rig_start(r);
    UNTIL(&r->l, r->count[TUNNEL_EVENT_PUBLISHED] == 1);
    assert_int_equal(r->servers[A].publishes, 1);
}

static void rig_close(rig *r)
{
    if (r->client)
        tnl_client_close(r->client, on_client_closed, r);
    UNTIL(&r->l, !r->client);
    for (int i = 0; i < PEERS; i++) {
        if (r->up[i].c)
            tnl_conn_close(r->up[i].c);
        UNTIL(&r->l, !r->up[i].c);
        test_peer_free(&r->up[i]);
    }
    tnl_listener_free(r->service);
    for (int i = 0; i < 2; i++)
        if (!r->down[i])
            fake_server_close(&r->servers[i]);
    test_loop_close(&r->l);
    assert_int_equal(r->closes, 1);
    assert_int_equal(memory.live, 0);
}

static void turns(rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

static void wait_ms(rig *r, uint64_t ms)
{
    uint64_t until = tnl_loop_now(r->l.loop) + ms;
    while (tnl_loop_now(r->l.loop) < until)
        turns(r, 1);
}

/* --- a visitor's stream ----------------------------------------------------------------------- */

typedef struct visitor {
    tnl_stream *stream;
    uint64_t received;
    unsigned fins, resets;
} visitor;

static size_t visitor_data(void *user, const uint8_t *p, size_t n)
{
    (void)p;
    ((visitor *)user)->received += n;
    return n;
}

static void visitor_fin(void *user)
{
    ((visitor *)user)->fins++;
}

static void visitor_reset(void *user, uint32_t code, const char *text, size_t n)
{
    visitor *v = user;
    (void)code;
    (void)text;
    (void)n;
    v->resets++;
    tnl_stream_release(v->stream);
    v->stream = NULL;
}

static const tnl_stream_events visitor_events = {
    .data = visitor_data, .fin = visitor_fin, .reset = visitor_reset};

/* Comes to a server, and is served. */
static void visitor_open(visitor *v, rig *r, int server)
{
    *v = (visitor){.received = 0};
    assert_int_equal(
        fake_server_open_stream(&r->servers[server], r->tunnel, &v->stream, &visitor_events, v), 0);
    assert_int_equal(tnl_stream_write(v->stream, "hello", 5), 5);
    UNTIL(&r->l, v->received == 5 || v->resets);
}

/* Says something more, and hears it. */
static void visitor_asks(visitor *v, rig *r)
{
    uint64_t had = v->received;
    assert_non_null(v->stream);
    assert_int_equal(tnl_stream_write(v->stream, "more", 4), 4);
    UNTIL(&r->l, v->received == had + 4);
}

static void visitor_leaves(visitor *v, rig *r)
{
    tnl_stream_fin(v->stream);
    UNTIL(&r->l, v->fins);
    tnl_stream_release(v->stream);
    v->stream = NULL;
}

static void visitor_release(visitor *v)
{
    if (v->stream)
        tnl_stream_release(v->stream);
    v->stream = NULL;
}

/* --- which server ----------------------------------------------------------------------------- */

static void the_next_one_is_tried_soon(void **state)
{
    (void)state;
    rig r;
    char text[64];
    rig_open(&r);
    take_down(&r, A);
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    assert_int_equal(r.servers[B].hellos, 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 1);
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_string_equal(r.retried, address(&r, A, "ws://", text));
    assert_string_equal(r.host, address(&r, B, "ws://", text));
    assert_true(r.delay_ms <= 100);
    /* What worked last comes first, also when the other one is there again. */
    bring_up(&r, A);
    fake_server_drop(&r.servers[B]);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[B].hellos, 2);
    assert_int_equal(r.servers[A].accepted, 0);
    /* But not when it says that it goes. */
    fake_server_end_session(&r.servers[B], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 3);
    assert_int_equal(r.servers[A].hellos, 1);
    rig_close(&r);
}

static void rounds_go_on_until_one_is_there(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    take_down(&r, A);
    take_down(&r, B);
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 7);
    assert_int_equal(r.client->attempt.backoff.attempt, 3); /* it grows per round */
    bring_up(&r, B);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    rig_close(&r);
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
        rig r;
        rig_open(&r);
        r.servers[A].answer = cases[i].answer;
        r.servers[A].refuse = cases[i].code;
        take_down(&r, B);
        rig_start(&r);
        /* The other one is worth waiting for, and nobody bothers the first one meanwhile. */
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 4);
        assert_int_equal(r.servers[A].accepted, 1);
        bring_up(&r, B);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
        /* Then it may have changed its mind, or not. */
        fake_server_end_session(&r.servers[B], TUNNEL_E_GONE, "bye");
        UNTIL(&r.l, r.servers[A].accepted == 2);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
        rig_close(&r);
    }
}

static void when_all_refuse_us_it_ends(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.servers[A].answer = REFUSAL("401", "");
    r.servers[B].refuse = TUNNEL_E_VERSION;
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_VERSION);
    assert_int_equal(r.servers[A].accepted, 1);
    assert_int_equal(r.servers[B].accepted, 1);
    rig_close(&r);
}

static void who_was_replaced_goes_nowhere(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_live(&r);
    fake_server_end_session(&r.servers[A], TUNNEL_E_REPLACED, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_REPLACED);
    turns(&r, 50);
    assert_int_equal(r.servers[B].accepted, 0);
    rig_close(&r);
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
        rig r;
        rig_open(&r);
        r.servers[A].answer = cases[i].answer;
        r.config.server_count = 1;
        rig_start(&r);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING]);
        if (r.delay_ms < cases[i].least || r.delay_ms > cases[i].most)
            fail_msg("case %zu: waits for %llu ms", i, (unsigned long long)r.delay_ms);
        rig_close(&r);
    }
}

static void others_are_tried_meanwhile(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.servers[A].answer = REFUSAL("503", "Retry-After: 100\r\n");
    take_down(&r, B);
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 4);
    assert_int_equal(r.servers[A].accepted, 1);
    bring_up(&r, B);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    rig_close(&r);
}

/* --- a session without a link ----------------------------------------------------------------- */

static void a_server_that_is_dead_does_not_hold_us(void **state)
{
    (void)state;
    rig r;
    visitor v;
    rig_open(&r);
    r.servers[A].grace_ms = 600000;
    rig_live(&r);
    visitor_open(&v, &r, A);
    take_down(&r, A);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[B].hellos, 1);
    visitor_release(&v);
    /* What was there for visitors of A is gone. */
    UNTIL(&r.l, !r.up[0].c);
    visitor_open(&v, &r, B);
    visitor_leaves(&v, &r);
    rig_close(&r);
}

static void its_own_server_comes_first(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.servers[A].grace_ms = 600000;
    rig_live(&r);
    fake_server_drop(&r.servers[A]);
    /* It is asked, knows nothing of us any more, and gets us nevertheless. */
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[A].attaches, 1);
    assert_int_equal(r.servers[A].hellos, 2);
    assert_int_equal(r.servers[B].accepted, 0);
    rig_close(&r);
}

/* Both were out of reach, so it was our own network: whoever answers first, the one that has our
 * streams is asked before they are given up. */
static void it_looks_back_before_it_moves(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.servers[A].grace_ms = 600000;
    rig_live(&r);
    take_down(&r, B);
    take_down(&r, A);
    UNTIL(&r.l, r.client->attempt.others_failed && r.client->attempt.state == TNL_ATTEMPT_DIALING &&
                    r.client->attempt.server == A);
    /* A answers no sooner than B does. */
    bring_up(&r, B);
    UNTIL(&r.l, r.servers[B].accepted);
    assert_int_equal(r.servers[B].hellos, 0);
    bring_up(&r, A);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.servers[A].attaches + r.servers[B].hellos, 1);
    rig_close(&r);
}

/* --- two sessions at once --------------------------------------------------------------------- */

static void it_moves_and_serves_both(void **state)
{
    (void)state;
    rig r;
    visitor old, late, new;
    rig_open(&r);
    rig_live(&r);
    visitor_open(&old, &r, A);
    fake_server_goaway(&r.servers[A], "going down");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_int_equal(r.count[TUNNEL_EVENT_DRAINING], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    assert_int_equal(r.servers[B].hellos, 1);
    visitor_open(&new, &r, B);
    visitor_open(&late, &r, A); /* who was sent there before */
    visitor_asks(&old, &r);
    visitor_leaves(&late, &r);
    visitor_leaves(&new, &r);
    /* No more of them will come; the one that is there is served to its end. */
    fake_server_goaway_final(&r.servers[A], "now");
    wait_ms(&r, 400);
    visitor_asks(&old, &r);
    assert_int_equal(r.servers[A].session_closes, 0);
    visitor_leaves(&old, &r);
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[A].session_error, TUNNEL_E_GONE);
    /* Nothing was lost, and nothing is new. */
    assert_int_equal(r.count[TUNNEL_EVENT_DRAINING], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 2);
    visitor_open(&new, &r, B);
    visitor_leaves(&new, &r);
    rig_close(&r);
}

static void the_old_one_stays_until_it_says_so(void **state)
{
    (void)state;
    rig r;
    visitor v;
    rig_open(&r);
    rig_live(&r);
    r.servers[B].ignore_publish = true;
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.servers[B].publishes == 1);
    wait_ms(&r, 400);
    assert_int_equal(r.servers[A].session_closes, 0);
    visitor_open(&v, &r, A);
    visitor_leaves(&v, &r);
    /* What is unpublished is unpublished in both. */
    assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), 0);
    UNTIL(&r.l, r.servers[A].unpublishes == 1 && r.servers[B].unpublishes == 1);
    fake_server_goaway_final(&r.servers[A], "");
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[B].session_closes, 0);
    rig_close(&r);
}

/* A name that one server chose may be another client's at the next; one that was asked for must be
 * that. */
static void a_name_of_a_servers_choice_may_change(void **state)
{
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        rig r;
        rig_open(&r);
        r.servers[A].chosen = "calm-otter-1";
        r.servers[B].chosen = "wild-goose-2";
        r.servers[B].taken = "calm-otter-1";
        rig_make(&r);
        assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), 0);
        publish(&r, asked ? "calm-otter-1" : "");
        assert_int_equal(tnl_client_start(r.client), 0);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 1);
        assert_string_equal(r.url, "http://calm-otter-1.test");
        fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "");
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2 || r.count[TUNNEL_EVENT_FAILED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], asked);
        if (!asked)
            assert_string_equal(r.url, "http://wild-goose-2.test");
        rig_close(&r);
    }
}

static void one_that_moves_is_not_moved_by_its_end(void **state)
{
    (void)state;
    rig r;
    visitor v;
    rig_open(&r);
    rig_live(&r);
    visitor_open(&v, &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    fake_server_end_session(&r.servers[A], TUNNEL_E_REPLACED, "");
    UNTIL(&r.l, v.resets);
    turns(&r, 50);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING] + r.count[TUNNEL_EVENT_FAILED], 0);
    visitor_open(&v, &r, B);
    visitor_leaves(&v, &r);
    rig_close(&r);
}

/* The only one there is drains: it takes no new session, and serves the old one to its end. */
static void with_nowhere_to_go_it_stays(void **state)
{
    (void)state;
    rig r;
    visitor v;
    rig_open(&r);
    r.config.server_count = 1;
    rig_live(&r);
    r.servers[A].answer = REFUSAL("503", "");
    visitor_open(&v, &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 3);
    visitor_asks(&v, &r);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 1);
    /* It starts anew: no long wait is left of the attempts that could not succeed. */
    r.client->attempt.backoff.attempt = 20;
    UNTIL(&r.l, r.client->attempt.state == TNL_ATTEMPT_WAITING);
    r.servers[A].answer = NULL;
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    rig_close(&r);
}

static void a_refusal_elsewhere_does_not_end_what_works(void **state)
{
    (void)state;
    rig r;
    visitor v;
    rig_open(&r);
    rig_live(&r);
    r.servers[B].answer = REFUSAL("401", "");
    r.servers[A].answer = REFUSAL("401", "");
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 3);
    visitor_open(&v, &r, A);
    visitor_leaves(&v, &r);
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_AUTH_FAILED);
    rig_close(&r);
}

/* Three servers' worth of going away: no more than two are left open. */
static void not_many_are_left_open(void **state)
{
    (void)state;
    rig r;
    visitor v[2];
    rig_open(&r);
    rig_live(&r);
    visitor_open(&v[0], &r, A);
    fake_server_goaway(&r.servers[A], "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    visitor_open(&v[1], &r, B);
    for (unsigned i = 3; i < 7; i++) {
        int now = i % 2 ? B : A;
        fake_server_goaway(&r.servers[now], "");
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == i);
        size_t relations = 0;
        for (const tnl_list *n = r.client->relations.next; n != &r.client->relations; n = n->next)
            relations += tnl_relation_mux(TNL_CONTAINER(n, tnl_relation, node)) != NULL;
        assert_true(relations <= 3);
    }
    visitor_release(&v[0]);
    visitor_release(&v[1]);
    rig_close(&r);
}

/* --- datagrams -------------------------------------------------------------------------------- */

static void app_datagram(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    rig *r = user;
    (void)tunnel;
    (void)p;
    (void)n;
    assert_true(r->datagrams < 4);
    r->flows[r->datagrams++] = flow;
}

static void ask(rig *r, int server, uint64_t tunnel, uint64_t flow)
{
    tnl_datagram d = {.tunnel = tunnel, .flow = flow, .p = (const uint8_t *)"?", .n = 1};
    unsigned had = r->datagrams;
    assert_int_equal(tnl_session_datagram(r->servers[server].session, &d), 0);
    UNTIL(&r->l, r->datagrams == had + 1);
}

static void flows_of_two_sessions_are_not_the_same(void **state)
{
    (void)state;
    rig r;
    uint64_t tunnel;
    rig_open(&r);
    rig_make(&r);
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
    rig_close(&r);
}

/* --- the client leaves ------------------------------------------------------------------------ */

enum { LONG_MS = 3600 * 1000 };

static void streams_go_on_to_their_ends(void **state)
{
    (void)state;
    rig r;
    visitor v, crossing;
    rig_open(&r);
    rig_live(&r);
    visitor_open(&v, &r, A);
    tnl_client_drain(r.client, LONG_MS, on_client_closed, &r);
    tnl_client_drain(r.client, LONG_MS, on_client_closed, &r);
    assert_int_equal(r.closes, 0);
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = r.upstream};
    assert_int_equal(tnl_client_publish(r.client, &spec, NULL), TUNNEL_E_STATE);
    visitor_open(&crossing, &r, A); /* the server may not know yet */
    UNTIL(&r.l, r.servers[A].unpublishes == 1);
    visitor_leaves(&v, &r);
    wait_ms(&r, 600);
    visitor_asks(&crossing, &r);
    assert_int_equal(r.closes, 0);
    visitor_leaves(&crossing, &r);
    UNTIL(&r.l, !r.client);
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[A].session_error, TUNNEL_E_GONE);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    rig_close(&r);
}

static void without_streams_it_leaves_soon(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        rig r;
        rig_open(&r);
        switch (i) {
        case 0:
            rig_live(&r);
            break;
        case 1: /* not started */
            rig_make(&r);
            break;
        case 2: /* nobody is there */
            take_down(&r, A);
            take_down(&r, B);
            rig_start(&r);
            UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 2);
            break;
        case 3: /* failed */
            r.servers[A].refuse = r.servers[B].refuse = TUNNEL_E_DENIED;
            rig_start(&r);
            UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
            break;
        default: /* the server goes away meanwhile */
            rig_live(&r);
            tnl_client_drain(r.client, LONG_MS, on_client_closed, &r);
            fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
            break;
        }
        tnl_client_drain(r.client, LONG_MS, on_client_closed, &r);
        UNTIL(&r.l, !r.client);
        assert_int_equal(r.servers[B].publishes, 0);
        rig_close(&r);
    }
}

static void it_leaves_in_time_or_when_it_must(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        rig r;
        visitor v;
        rig_open(&r);
        rig_live(&r);
        visitor_open(&v, &r, A);
        tnl_client_drain(r.client, i == 0 ? 0 : i == 1 ? 300 : LONG_MS, on_client_closed, &r);
        if (i == 2) {
            turns(&r, 20);
            tnl_client_close(r.client, NULL, NULL); /* the first callback counts */
        }
        UNTIL(&r.l, !r.client);
        UNTIL(&r.l, v.resets);
        rig_close(&r);
    }
}

static void flows_end_at_once(void **state)
{
    (void)state;
    rig r;
    uint64_t tunnel;
    visitor v;
    rig_open(&r);
    rig_make(&r);
    tnl_tunnel_spec spec = {
        .kind = TNL_KIND_UDP, .far_end = TNL_FAR_LISTEN, .datagram = app_datagram, .user = &r};
    r.servers[A].chosen_port = 4000;
    assert_int_equal(tnl_client_publish(r.client, &spec, &tunnel), 0);
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    ask(&r, A, tunnel, 5);
    visitor_open(&v, &r, A);
    tnl_client_drain(r.client, LONG_MS, on_client_closed, &r);
    assert_int_equal(tnl_client_datagram_send(r.client, tunnel, 5, "!", 1), TUNNEL_E_NOT_FOUND);
    visitor_leaves(&v, &r);
    UNTIL(&r.l, !r.client);
    rig_close(&r);
}

static void it_can_leave_in_every_event(void **state)
{
    (void)state;
    static const struct {
        tunnel_event_type type;
        unsigned nth;
    } cases[] = {
        {TUNNEL_EVENT_CONNECTING, 1}, {TUNNEL_EVENT_RETRYING, 1},   {TUNNEL_EVENT_CONNECTING, 2},
        {TUNNEL_EVENT_CONNECTED, 1},  {TUNNEL_EVENT_ROUND_TRIP, 1}, {TUNNEL_EVENT_PUBLISHED, 1},
        {TUNNEL_EVENT_DRAINING, 1},   {TUNNEL_EVENT_CONNECTING, 3}, {TUNNEL_EVENT_CONNECTED, 2},
        {TUNNEL_EVENT_ROUND_TRIP, 2}, {TUNNEL_EVENT_PUBLISHED, 2},  {TUNNEL_EVENT_RETRYING, 2}};
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        visitor v = {.received = 0};
        rig_open(&r);
        take_down(&r, A);
        r.leave_in = cases[i / 2].type;
        r.leave_at = cases[i / 2].nth;
        r.drains = i % 2;
        rig_start(&r);
        /* From nobody to B, from there to A, and B ends. */
        UNTIL(&r.l, !r.client || (r.count[TUNNEL_EVENT_PUBLISHED] == 1 &&
                                  r.count[TUNNEL_EVENT_ROUND_TRIP] == 1));
        if (r.client && r.leave_in) {
            bring_up(&r, A);
            visitor_open(&v, &r, B);
            fake_server_goaway(&r.servers[B], "");
            UNTIL(&r.l, !r.client || r.client->state != TNL_CLIENT_RUNNING ||
                            (r.count[TUNNEL_EVENT_PUBLISHED] == 2 &&
                             r.count[TUNNEL_EVENT_ROUND_TRIP] == 2));
        }
        if (r.client && r.leave_in) /* RETRYING */
            fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "");
        if (v.stream && r.drains && r.client)
            tnl_stream_fin(v.stream);
        UNTIL(&r.l, !r.client);
        visitor_release(&v);
        assert_int_equal(r.leave_in, 0);
        rig_close(&r);
    }
}

/* --- asleep, and round trips ------------------------------------------------------------------ */

static void waking_ends_a_wait(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.config.server_count = 1;
    rig_make(&r);
    r.servers[A].answer = REFUSAL("503", "");
    r.client->attempt.backoff.base_ms = r.client->attempt.backoff.floor_ms = 30000;
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING]);
    assert_true(r.delay_ms >= 30000);
    r.servers[A].answer = NULL;
    tnl_client_woke(r.client);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    /* And with a session it does no harm. */
    r.client->woke_at = 0;
    tnl_client_woke(r.client);
    wait_ms(&r, 100);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 1);
    rig_close(&r);
}

static void round_trips_are_told(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_live(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_ROUND_TRIP]);
    assert_true(r.trip_us > 0);
    unsigned had = r.count[TUNNEL_EVENT_ROUND_TRIP];
    tnl_session_ping(r.client->current->session);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_ROUND_TRIP] == had + 1);
    rig_close(&r);
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t moves_once(size_t nth)
{
    rig r;
    rig_open(&r);
    rig_live(&r);
    memory.count = 0;
    memory.fail_at = nth;
    fake_server_goaway(&r.servers[A], "");
    /* Whatever fails, and at whichever end, it comes to be published again in the end. */
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    size_t n = memory.count;
    memory.fail_at = 0;
    rig_close(&r);
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
        cmocka_unit_test(streams_go_on_to_their_ends),
        cmocka_unit_test(without_streams_it_leaves_soon),
        cmocka_unit_test(it_leaves_in_time_or_when_it_must),
        cmocka_unit_test(flows_end_at_once),
        cmocka_unit_test(it_can_leave_in_every_event),
        cmocka_unit_test(waking_ends_a_wait),
        cmocka_unit_test(round_trips_are_told),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
