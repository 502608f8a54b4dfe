/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "tunnel/error.h"

#define GET     "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n"
#define OK      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define UPGRADE "GET /ws HTTP/1.1\r\nHost: demo.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
#define SWITCH  "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

static void open_both(test_edge *e, test_service *s)
{
    assert_int_equal(test_edge_open(e, NULL), 0);
    test_service_open(s, e, "demo");
}

static void close_both(test_edge *e, test_service *s)
{
    test_service_close(s);
    test_edge_close(e);
}

static void turns(test_edge *e, int n)
{
    while (n--)
        test_turn(&e->l);
}

/* --- the basics ------------------------------------------------------------------------------- */

static void a_request_is_answered(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    open_both(&e, &s);
    test_guest_open(&g, &e);
    test_guest_say(&g, GET);
    test_call *c = test_service_await(&s, 1);
    assert_true(test_call_has(c, "Host: demo.test\r\n"));
    assert_true(test_call_has(c, "X-Forwarded-For: 127.0.0.1\r\n"));
    test_call_answer(c, OK);
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    UNTIL(&e.l, s.event_count == 1);
    assert_string_equal(s.last_event, "GET / 200");
    /* Another one over the same two connections. */
    test_guest_forget(&g);
    test_call_forget(c);
    test_guest_say(&g, GET);
    test_service_await(&s, 1);
    test_call_answer(c, OK);
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    assert_int_equal(e.events[TUNNEL_EVENT_ACCESS], 2);
    test_guest_free(&g);
    close_both(&e, &s);
}

/* --- visitors who leave ----------------------------------------------------------------------- */

/* Resets the visitor's connection two steps before what the service writes at the same time arrives
 * at the server. */
typedef struct trigger {
    test_guest *guest;
    tnl_conn *conn;
    int fd;
    tnl_task task;
    uint8_t buffer[8];
} trigger;

static void trigger_pull(void *user)
{
    trigger *t = user;
    assert_int_equal(write(t->fd, "x", 1), 1);
}

static size_t trigger_space(void *user, uint8_t **p)
{
    *p = ((trigger *)user)->buffer;
    return sizeof(((trigger *)user)->buffer);
}

static void trigger_data(void *user, uint8_t *p, size_t n)
{
    trigger *t = user;
    (void)p;
    (void)n;
    test_guest_leave(t->guest, true);
    tnl_conn_close(t->conn);
}

static void trigger_closed(void *user, int error, const char *detail)
{
    (void)error;
    (void)detail;
    ((trigger *)user)->conn = NULL;
}

static void reset_ahead_of_answer(trigger *t, test_guest *g)
{
    static const tnl_conn_events events = {
        .space = trigger_space, .data = trigger_data, .closed = trigger_closed};
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    t->guest = g;
    t->fd = fd[0];
    assert_int_equal(tnl_conn_from_fd(&t->conn, g->edge->l.loop, fd[1], &events, t), 0);
    tnl_conn_resume(t->conn);
    turns(g->edge, 2);
    tnl_task_init(&t->task, trigger_pull, t);
    tnl_loop_defer(g->edge->l.loop, &t->task);
}

/* The server learns that the visitor has gone just before it gets the answer, in the same turn. */
static void visitor_is_gone_when_the_answer_comes(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n%05000d\r\n1388\r\n%05000d\r\n1388\r\n%05000d\r\n",
        "HTTP/1.1 200 OK\r\n\r\n%020000d%020000d%020000d",
        "HTTP/1.1 103 Early Hints\r\nX: %016353d\r\n\r\n" SWITCH "%05000d%05000d",
        SWITCH "%010000d%05000d%05000d",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n%05000d\r\n0\r\nA: b\r\n\r\n%d%d",
        "HTTP/1.1 103 Early Hints\r\nX: %016353d\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc%d%d",
    };
    char *text = malloc(80000);
    test_edge e;
    test_service s;
    open_both(&e, &s);
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        test_guest g;
        trigger t;
        test_guest_open(&g, &e);
        test_guest_say(&g, UPGRADE);
        test_call *c = test_service_await(&s, i + 1);
        turns(&e, 5);
        reset_ahead_of_answer(&t, &g);
        snprintf(text, 80000, answers[i], 1, 1, 1);
        test_call_answer(c, text);
        UNTIL(&e.l, c->resets && !t.conn);
        close(t.fd);
        test_guest_free(&g);
    }
    close_both(&e, &s);
    free(text);
}

static void visitor_leaves_and_the_stream_ends(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    open_both(&e, &s);
    for (int i = 0; i < 4; i++) {
        test_guest g;
        test_guest_open(&g, &e);
        test_guest_say(
            &g,
            i < 2 ? GET : "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 10\r\n\r\n12345");
        test_call *c = test_service_await(&s, (size_t)i + 1);
        test_guest_leave(&g, i % 2);
        UNTIL(&e.l, c->resets);
        test_guest_free(&g);
    }
    close_both(&e, &s);
}

/* What was written is sent, although the visitor has ended its direction meanwhile. */
static void half_closed_visitor_gets_all_of_the_answer(void **state)
{
    (void)state;
    enum { SIZE = 16000 };
    test_edge e;
    test_service s;
    test_guest g;
    char text[SIZE + 100];
    open_both(&e, &s);
    test_guest_open_narrow(&g, &e);
    g.slow = true;
    test_guest_say(&g, GET);
    snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d", SIZE, SIZE,
             1);
    test_call_answer(test_service_await(&s, 1), text);
    UNTIL(&e.l, e.events[TUNNEL_EVENT_ACCESS] == 1);
    turns(&e, 3);
    test_guest_shutdown(&g);
    turns(&e, 10);
    g.slow = false;
    UNTIL(&e.l, test_guest_ended(&g));
    assert_false(g.reset);
    assert_int_equal(g.n, strlen(text));
    test_guest_free(&g);
    close_both(&e, &s);
}

/* --- pipelining ------------------------------------------------------------------------------- */

/* A visitor who asks and asks and does not read is slowed down, not cut off. */
static void pipelined_answers_wait_for_the_visitor(void **state)
{
    (void)state;
    enum { REQUESTS = 1200 };
    static const char request[] = "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n";
    test_edge e;
    test_guest g;
    char *all = malloc(REQUESTS * sizeof(request));
    size_t n = 0, sent = 0;
    assert_int_equal(test_edge_open(&e, NULL), 0);
    for (int i = 0; i < REQUESTS; i++, n += sizeof(request) - 1)
        memcpy(all + n, request, sizeof(request) - 1);
    test_guest_open_narrow(&g, &e);
    g.slow = true;
    for (int idle = 0; idle < 50;) {
        size_t done = test_guest_say_some(&g, all + sent, n - sent);
        sent += done;
        idle = done ? 0 : idle + 1;
        test_turn(&e.l);
    }
    g.slow = false;
    while (sent < n) {
        sent += test_guest_say_some(&g, all + sent, n - sent);
        test_guest_hears(&g, "x");
        assert_false(test_guest_ended(&g));
        test_turn(&e.l);
    }
    test_guest_say(&g, "GET / HTTP/1.1\r\nHost: last.test\r\n\r\n");
    UNTIL(&e.l, test_guest_ended(&g) || test_guest_hears(&g, "last.test"));
    assert_false(g.ended || g.reset);
    assert_int_equal(test_guest_counts(&g, "HTTP/1.1 404 "), REQUESTS + 1);
    test_guest_free(&g);
    test_edge_close(&e);
    free(all);
}

/* --- what comes back -------------------------------------------------------------------------- */

static void malformed_answer_is_a_502(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "hello\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nnonsense\r\n",
        SWITCH,
    };
    test_edge e;
    test_service s;
    open_both(&e, &s);
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        test_guest g;
        test_guest_open(&g, &e);
        test_guest_say(&g, GET);
        test_call *c = test_service_await(&s, i + 1);
        test_call_answer(c, answers[i]);
        UNTIL(&e.l, test_guest_hears(&g, "</html>"));
        assert_true(test_guest_hears(&g, "HTTP/1.1 502 Bad Gateway\r\n"));
        assert_int_equal(test_guest_counts(&g, "HTTP/1.1 200"), 0);
        UNTIL(&e.l, c->resets);
        test_guest_free(&g);
    }
    close_both(&e, &s);
}

/* A POST that was read to its end leaves the connection usable, whatever became of it. */
static void failed_upload_keeps_the_connection(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    open_both(&e, &s);
    test_guest_open(&g, &e);
    test_guest_say(&g, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 3\r\n\r\nabc");
    test_call *c = test_service_await(&s, 1);
    UNTIL(&e.l, test_call_has(c, "abc"));
    test_call_reset(c, TUNNEL_E_REFUSED, "connection refused");
    UNTIL(&e.l, test_guest_hears(&g, "</html>"));
    assert_true(test_guest_hears(&g, "HTTP/1.1 502 "));
    assert_true(test_guest_hears(&g, "connection refused"));
    test_guest_forget(&g);
    test_guest_say(&g, GET);
    test_call_answer(test_service_await(&s, 2), OK);
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    test_guest_free(&g);
    close_both(&e, &s);
}

/* What is not even a head is answered and told as well, with nothing of the request before it. */
static void malformed_request_is_told(void **state)
{
    (void)state;
    test_edge e;
    test_guest g;
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_guest_open(&g, &e);
    test_guest_say(&g, "HEAD /first HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\n"));
    assert_string_equal(e.path, "/first");
    test_guest_forget(&g);
    test_guest_say(&g, "what is this\r\n\r\n");
    UNTIL(&e.l, test_guest_ended(&g));
    assert_true(test_guest_hears(&g, "HTTP/1.1 400 "));
    assert_true(test_guest_hears(&g, "</html>"));
    assert_int_equal(e.events[TUNNEL_EVENT_ACCESS], 2);
    assert_int_equal(e.status, 400);
    assert_string_equal(e.path, "-");
    test_guest_free(&g);
    test_edge_close(&e);
}

/* --- kept streams ----------------------------------------------------------------------------- */

static void get(test_edge *e, test_service *s, size_t call)
{
    test_guest g;
    test_guest_open(&g, e);
    test_guest_say(&g, GET);
    test_call_answer(test_service_await(s, call), OK);
    UNTIL(&e->l, test_guest_hears(&g, "\r\n\r\nok"));
    test_call_forget(&s->calls[call - 1]);
    test_guest_free(&g);
}

/* A kept stream is used by other visitors too; whatever else comes over it ends it. */
static void surplus_bytes_never_reach_another_visitor(void **state)
{
    (void)state;
    static const char evil[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    test_edge e;
    test_service s;
    open_both(&e, &s);
    get(&e, &s, 1);
    get(&e, &s, 1);
    /* Right behind an answer, */
    test_guest g;
    test_guest_open(&g, &e);
    test_guest_say(&g, GET);
    test_call_answer(test_service_await(&s, 1),
                     OK "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    get(&e, &s, 2);
    assert_int_equal(s.calls[0].fins + s.calls[0].resets, 1);
    assert_false(test_guest_hears(&g, "evil"));
    test_guest_free(&g);
    /* and while it is idle. */
    test_call_answer(&s.calls[1], evil);
    UNTIL(&e.l, s.calls[1].resets);
    get(&e, &s, 3);
    /* An answer before the request is complete ends it as well. */
    test_guest_open(&g, &e);
    test_guest_say(&g, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 9\r\n\r\nabc");
    test_call_answer(test_service_await(&s, 4), OK);
    test_call_forget(&s.calls[3]);
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    assert_true(test_guest_hears(&g, "Connection: close\r\n"));
    test_guest h;
    test_guest_open(&h, &e);
    test_guest_say(&h, GET);
    UNTIL(&e.l, test_call_has(&s.calls[2], "GET / "));
    test_guest i;
    test_guest_open(&i, &e);
    test_guest_say(&i, GET);
    test_service_await(&s, 5);
    assert_int_equal(s.calls[3].resets, 1);
    UNTIL(&e.l, test_guest_ended(&g));
    test_guest_free(&g);
    test_guest_free(&h);
    test_guest_free(&i);
    close_both(&e, &s);
}

/* Of a name that is given up nothing stays, also not of streams whose polite end the service does
 * not answer. */
static void unpublishing_drops_the_streams_that_serve_nobody(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    open_both(&e, &s);
    get(&e, &s, 1);
    test_guest_open(&g, &e);
    test_guest_say(&g, "POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n");
    test_call_answer(test_service_await(&s, 2),
                     "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    UNTIL(&e.l, s.calls[1].fins);
    test_guest_say(&g, "POST / HTTP/1.1\r\nHost: demo.test\r\n\r\n");
    test_service_await(&s, 3);
    test_service_unpublish(&s, 1);
    UNTIL(&e.l, s.calls[0].resets && s.calls[1].resets);
    /* What a visitor waits for is not cut off. */
    test_guest_forget(&g);
    test_call_answer(&s.calls[2], OK);
    UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
    test_guest_forget(&g);
    test_guest_say(&g, GET);
    UNTIL(&e.l, test_guest_hears(&g, "HTTP/1.1 404 "));
    test_guest_free(&g);
    close_both(&e, &s);
}

/* When the client takes no more streams, what cannot be repeated goes over a kept one rather than
 * nowhere. */
/* Each request has a stream of its own, which ends with it and tells whose it is. */
static void fresh_streams_are_not_kept(void **state)
{
    (void)state;
    test_edge e;
    test_service s = {.edge = NULL};
    test_guest g;
    assert_int_equal(test_edge_open(&e, NULL), 0);
    test_service_start(&s, &e, "secret", 1);
    UNTIL(&e.l, s.session);
    tnl_publish m = {
        .tunnel = 1, .kind = tnl_str_of("http"), .name = tnl_str_of("demo"), .fresh = true};
    test_service_publish_as(&s, &m);
    UNTIL(&e.l, s.published);
    const tnl_peer *p = TNL_CONTAINER(e.server->peers.next, const tnl_peer, node);
    const tnl_tunnel *t = TNL_CONTAINER(p->tunnels.next, const tnl_tunnel, of_peer);
    test_guest_open(&g, &e);
    for (size_t i = 1; i <= 3; i++) {
        test_guest_say(&g, GET);
        test_call *c = test_service_await(&s, i);
        assert_string_equal(c->visitor, "127.0.0.1");
        assert_string_equal(c->server, "127.0.0.1");
        assert_int_equal(c->open.server_port, e.port);
        test_call_answer(c, OK);
        UNTIL(&e.l, test_guest_hears(&g, "\r\n\r\nok"));
        test_guest_forget(&g);
        assert_int_equal(t->idle_count, 0);
        UNTIL(&e.l, c->fins == 1);
        assert_int_equal(c->resets, 0);
    }
    test_guest_free(&g);
    close_both(&e, &s);
}

static void kept_streams_are_used_at_the_limit(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g[TEST_CALLS];
    open_both(&e, &s);
    for (size_t i = 0; i < TEST_CALLS; i++) {
        test_guest_open(&g[i], &e);
        test_guest_say(&g[i], GET);
        test_service_await(&s, i + 1);
    }
    test_guest more;
    test_guest_open(&more, &e);
    test_guest_say(&more, GET);
    UNTIL(&e.l, test_guest_hears(&more, "HTTP/1.1 503 "));
    test_call_answer(&s.calls[5], OK);
    UNTIL(&e.l, test_guest_hears(&g[5], "\r\n\r\nok"));
    test_call_forget(&s.calls[5]);
    test_guest_say(&more, "POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 3\r\n\r\nabc");
    UNTIL(&e.l, test_call_has(&s.calls[5], "\r\n\r\nabc"));
    test_guest_free(&more);
    for (size_t i = 0; i < TEST_CALLS; i++)
        test_guest_free(&g[i]);
    close_both(&e, &s);
}

/* --- upgrades --------------------------------------------------------------------------------- */

static test_call *upgraded(test_edge *e, test_service *s, test_guest *g)
{
    test_guest_open(g, e);
    test_guest_say(g, UPGRADE "early");
    test_call *c = test_service_await(s, s->count + 1 > 1 && s->count ? s->count + 1 : 1);
    test_call_answer(c, SWITCH "surplus");
    UNTIL(&e->l, test_guest_hears(g, "surplus"));
    UNTIL(&e->l, test_call_has(c, "\r\n\r\nearly"));
    return c;
}

static void upgrade_ends_from_either_side(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    open_both(&e, &s);
    for (int service_first = 0; service_first < 2; service_first++) {
        test_guest g;
        test_call *c = upgraded(&e, &s, &g);
        if (service_first)
            test_call_fin(c);
        else
            test_guest_shutdown(&g);
        if (service_first) {
            UNTIL(&e.l, test_guest_ended(&g));
            assert_false(g.reset);
            test_guest_say(&g, "more");
            UNTIL(&e.l, test_call_has(c, "earlymore"));
            test_guest_shutdown(&g);
        } else {
            UNTIL(&e.l, c->fins);
            test_call_answer(c, "more");
            UNTIL(&e.l, test_guest_hears(&g, "surplusmore"));
            test_call_fin(c);
            UNTIL(&e.l, test_guest_ended(&g));
            assert_false(g.reset);
        }
        UNTIL(&e.l, c->fins);
        /* The request is over: told to the client, and nothing of it is left. */
        UNTIL(&e.l, s.event_count == (unsigned)service_first + 1);
        assert_string_equal(s.last_event, "GET /ws 101");
        assert_int_equal(c->resets, 0);
        tnl_stream_release(c->stream);
        c->stream = NULL;
        test_guest_free(&g);
    }
    close_both(&e, &s);
}

static void upgrade_dies(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    open_both(&e, &s);
    test_call *c = upgraded(&e, &s, &g);
    test_guest_leave(&g, true);
    UNTIL(&e.l, c->resets);
    c = upgraded(&e, &s, (test_guest_free(&g), &g));
    test_call_reset(c, TUNNEL_E_RESET, "gone");
    UNTIL(&e.l, test_guest_ended(&g));
    assert_true(g.reset);
    c = upgraded(&e, &s, (test_guest_free(&g), &g));
    test_service_close(&s);
    UNTIL(&e.l, test_guest_ended(&g));
    assert_true(g.reset);
    test_guest_free(&g);
    test_edge_close(&e);
}

/* --- the server closed in the middle of things ------------------------------------------------ */

static void server_closes_inside_an_event(void **state)
{
    (void)state;
    static const tunnel_event_type types[] = {TUNNEL_EVENT_ACCESS, TUNNEL_EVENT_NAME_PUBLISHED,
                                              TUNNEL_EVENT_CLIENT_JOINED, TUNNEL_EVENT_NAME_GONE,
                                              TUNNEL_EVENT_CLIENT_LEFT};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        for (int how = 0; how < 4; how++) {
            test_edge e;
            test_service s;
            test_guest g, h;
            assert_int_equal(test_edge_open(&e, NULL), 0);
            e.close_in = types[i];
            test_service_start(&s, &e, "secret", 1);
            test_guest_open(&g, &e);
            test_guest_open(&h, &e);
            UNTIL(&e.l, s.session || s.failed);
            test_service_publish(&s, 1, "demo");
            test_service_publish(&s, 2, "second");
            UNTIL(&e.l, s.published == 2 || e.server_gone);
            test_guest_say(&g, e.server_gone ? "" : GET);
            UNTIL(&e.l, s.count || e.server_gone);
            if (s.count && how == 0)
                test_call_answer(&s.calls[0], OK);
            else if (s.count && how == 1)
                test_call_answer(&s.calls[0], "HTTP/1.1 200 OK\r\n\r\n"),
                    test_call_fin(&s.calls[0]);
            else if (s.count && how == 2)
                test_call_reset(&s.calls[0], TUNNEL_E_REFUSED, "no");
            else if (s.count)
                test_guest_leave(&g, true);
            turns(&e, 5);
            test_service_unpublish(&s, 1);
            turns(&e, 5);
            test_service_close(&s);
            test_guest_free(&g);
            test_guest_free(&h);
            test_edge_close(&e);
        }
    }
}

/* --- names ------------------------------------------------------------------------------------ */

/* A name that is given up while its holder is still being asked is not published afterwards. */
static void unpublished_while_the_holder_is_probed(void **state)
{
    (void)state;
    test_edge e;
    test_service s, t;
    open_both(&e, &s);
    test_service_start(&t, &e, "secret", 99);
    UNTIL(&e.l, t.session);
    test_service_publish(&t, 7, "demo");
    test_service_publish(&t, 8, "mine");
    UNTIL(&e.l, t.published == 1);
    test_service_unpublish(&t, 7);
    test_service_publish(&t, 7, "again");
    UNTIL(&e.l, t.published == 2 || !t.session);
    assert_string_equal(t.name, "again");
    test_service_close(&s);
    UNTIL(&e.l, e.events[TUNNEL_EVENT_CLIENT_LEFT] == 1);
    /* Longer than the probe takes. */
    for (int i = 0; i < 500; i++)
        test_turn(&e.l);
    assert_int_equal(t.published, 2);
    close_both(&e, &t);
}

/* Two want the name at the same time; the one who got it was never asked by the other, and keeps
 * it. */
static void probed_name_changes_hands(void **state)
{
    (void)state;
    test_edge e;
    test_service s, t, u;
    open_both(&e, &s);
    test_service_start(&t, &e, "secret", 98);
    test_service_start(&u, &e, "secret", 99);
    UNTIL(&e.l, t.session && u.session);
    uint64_t start = tnl_loop_now(e.l.loop);
    test_service_publish(&t, 1, "demo");
    /* Nothing is heard of the first one any more when the second one asks. */
    UNTIL(&e.l, tnl_loop_now(e.l.loop) - start > 20);
    test_service_publish(&u, 1, "demo");
    test_service_close(&s);
    UNTIL(&e.l, t.published + t.refused && u.published + u.refused);
    turns(&e, 20);
    assert_int_equal(t.published + u.published, 1);
    assert_int_equal(t.refused + u.refused, 1);
    assert_int_equal(t.refused ? t.code : u.code, TUNNEL_E_NAME_TAKEN);
    test_service_close(&u);
    close_both(&e, &t);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered),
        cmocka_unit_test(visitor_is_gone_when_the_answer_comes),
        cmocka_unit_test(visitor_leaves_and_the_stream_ends),
        cmocka_unit_test(half_closed_visitor_gets_all_of_the_answer),
        cmocka_unit_test(pipelined_answers_wait_for_the_visitor),
        cmocka_unit_test(malformed_answer_is_a_502),
        cmocka_unit_test(failed_upload_keeps_the_connection),
        cmocka_unit_test(malformed_request_is_told),
        cmocka_unit_test(surplus_bytes_never_reach_another_visitor),
        cmocka_unit_test(unpublishing_drops_the_streams_that_serve_nobody),
        cmocka_unit_test(fresh_streams_are_not_kept),
        cmocka_unit_test(kept_streams_are_used_at_the_limit),
        cmocka_unit_test(upgrade_ends_from_either_side),
        cmocka_unit_test(upgrade_dies),
        cmocka_unit_test(server_closes_inside_an_event),
        cmocka_unit_test(unpublished_while_the_holder_is_probed),
        cmocka_unit_test(probed_name_changes_hands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
