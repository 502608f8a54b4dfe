/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"
#include "support/raw_end.h"
#include "tunnel/error.h"

/* --- a user of a link and a session ----------------------------------------------------------- */

typedef enum moment {
    NEVER,
    IN_OPENED,
    IN_HANDSHAKE,
    IN_OPEN,
    IN_CONTROL,
    IN_EVENT,
    IN_DATA,
    IN_FIN,
    IN_RESET,
    IN_RETIRED,
    IN_SESSION_CLOSED,
    MOMENTS,
} moment;

typedef struct side {
    test_loop *loop;
    bool server;
    tnl_link *link;       /* NULL once closed */
    tnl_session *session; /* NULL once closed */
    tnl_stream *stream;
    int answer;        /* of the handshake; not 0: no session is made */
    bool bind_at_once; /* a session is bound as soon as the link is open, without a handshake */
    uint32_t window;
    /* what happened */
    unsigned opens, controls, events, retired, fins, resets;
    unsigned link_closes, session_closes;
    int link_error, session_error;
    char link_detail[512], session_detail[512];
    char order[32]; /* r: stream reset, s: session closed, l: link closed */
    uint64_t received;
    uint64_t hash;
    uint64_t to_send, sent;
    moment close_in;
    bool close_link; /* the link is closed there, not the session */
} side;

static const tnl_limits limits = {.max_frame = 65536, .max_streams = 100, .window = 16384};

static void note(side *s, char c)
{
    size_t n = strlen(s->order);
    if (n + 1 < sizeof(s->order))
        s->order[n] = c;
}

static void at(side *s, moment m)
{
    if (s->close_in != m)
        return;
    s->close_in = NEVER;
    if (s->session && !s->close_link)
        tnl_session_close(s->session, TUNNEL_E_GONE, "the test said so");
    else if (s->link)
        tnl_link_close(s->link, TUNNEL_E_GONE, "the test said so");
}

static void pump(side *s)
{
    uint8_t *p;
    while (s->stream && s->sent < s->to_send) {
        size_t n = tnl_stream_space(s->stream, 8192, &p);
        if (n == 0)
            return;
        if (n > s->to_send - s->sent)
            n = (size_t)(s->to_send - s->sent);
        test_fill(p, n, s->sent);
        tnl_stream_commit(s->stream, n);
        s->sent += n;
    }
    if (s->stream)
        tnl_stream_fin(s->stream);
}

static size_t stream_data(void *user, const uint8_t *p, size_t n)
{
    side *s = user;
    s->hash = test_hash(s->hash, p, n);
    s->received += n;
    at(s, IN_DATA);
    return n;
}

static void stream_fin(void *user)
{
    side *s = user;
    s->fins++;
    at(s, IN_FIN);
}

static void stream_reset(void *user, uint32_t code, const char *text, size_t n)
{
    side *s = user;
    tnl_stream *stream = s->stream;
    (void)code;
    (void)text;
    (void)n;
    s->resets++;
    s->stream = NULL;
    note(s, 'r');
    tnl_stream_release(stream);
    at(s, IN_RESET);
}

static void stream_room(void *user)
{
    pump(user);
}

static const tnl_stream_events stream_events = {
    .data = stream_data, .fin = stream_fin, .reset = stream_reset, .room = stream_room};

static void session_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    side *s = user;
    if (n != 3 || memcmp(map, "map", 3) != 0)
        return;
    s->opens++;
    s->stream = stream;
    tnl_stream_set_events(stream, &stream_events, s);
    pump(s);
    at(s, IN_OPEN);
}

static int session_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    side *s = user;
    (void)p;
    (void)n;
    s->controls++;
    at(s, IN_CONTROL);
    return type == 0xff ? TUNNEL_E_UNSUPPORTED : 0;
}

static void session_event(void *user, const uint8_t *map, size_t n)
{
    side *s = user;
    (void)map;
    (void)n;
    s->events++;
    at(s, IN_EVENT);
}

static void session_retired(void *user)
{
    side *s = user;
    s->retired++;
    at(s, IN_RETIRED);
}

static void session_closed(void *user, int error, const char *detail)
{
    side *s = user;
    assert_null(tnl_session_mux(s->session));
    note(s, 's');
    s->session_closes++;
    s->session_error = error;
    snprintf(s->session_detail, sizeof(s->session_detail), "%s", detail);
    at(s, IN_SESSION_CLOSED);
    s->session = NULL;
}

static const tnl_session_events session_events = {.open = session_open,
                                                  .control = session_control,
                                                  .event = session_event,
                                                  .retired = session_retired,
                                                  .closed = session_closed};

static int begin_session(side *s)
{
    tnl_mux_config config = {.server = s->server,
                             .local = limits,
                             .remote = limits,
                             .max_window = s->window ? s->window : 262144,
                             .surplus = 1 << 20};
    int rc = tnl_session_new(&s->session, s->loop->loop, &config, &session_events, s);
    if (rc)
        return rc;
    rc = tnl_link_bind(s->link, s->session);
    if (rc)
        tnl_session_close(s->session, rc, NULL);
    return rc;
}

static void link_opened(void *user, tnl_link *l)
{
    side *s = user;
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = (const uint8_t *)"hello", .rest_len = 5};
    assert_ptr_equal(l, s->link);
    at(s, IN_OPENED);
    if (s->bind_at_once)
        (void)begin_session(s);
    else if (!s->server)
        (void)tnl_link_send(l, &f);
}

static int link_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    side *s = user;
    tnl_frame reply = {
        .type = TNL_FRAME_WELCOME, .rest = (const uint8_t *)"welcome", .rest_len = 7};
    at(s, IN_HANDSHAKE);
    if (s->answer)
        return s->answer;
    if (f->type != (s->server ? TNL_FRAME_HELLO : TNL_FRAME_WELCOME) || s->session)
        return TUNNEL_E_PROTOCOL;
    int rc = begin_session(s);
    return rc || !s->server ? rc : tnl_link_send(l, &reply);
}

static void link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    side *s = user;
    (void)http_status;
    assert_ptr_equal(l, s->link);
    note(s, 'l');
    s->link = NULL;
    s->link_closes++;
    s->link_error = error;
    snprintf(s->link_detail, sizeof(s->link_detail), "%s", detail);
}

static const tnl_link_events link_events = {
    .opened = link_opened, .handshake = link_handshake, .closed = link_closed};

static const tnl_link_config usual = {
    .handshake_ms = 10000, .silence_ms = 20000, .max_data = 65536, .inflight = 1 << 20};

static int side_open(side *s, test_loop *l, bool server, const tnl_link_config *config)
{
    s->loop = l;
    s->server = server;
    return tnl_link_new(&s->link, l->loop, config, &link_events, s);
}

/* --- two links back to back ------------------------------------------------------------------- */

typedef struct both {
    test_loop l;
    side client, server;
} both;

static int both_open(both *b)
{
    tnl_transport *t, *u;
    int rc = side_open(&b->client, &b->l, false, &usual);
    if (rc)
        return rc;
    rc = side_open(&b->server, &b->l, true, &usual);
    if (rc == 0)
        rc = tnl_pair_new(&t, tnl_link_transport_events(), b->client.link, &u,
                          tnl_link_transport_events(), b->server.link, b->l.loop);
    if (rc) {
        tnl_link_discard(b->client.link);
        if (b->server.link)
            tnl_link_discard(b->server.link);
        b->client.link = b->server.link = NULL;
        return rc;
    }
    tnl_link_set_transport(b->client.link, t);
    tnl_link_set_transport(b->server.link, u);
    return 0;
}

static void both_start(both *b)
{
    test_loop_open(&b->l);
    assert_int_equal(both_open(b), 0);
    UNTIL(&b->l, b->client.session && b->server.session);
}

static int open_stream(side *s)
{
    tnl_mux *m = s->session ? tnl_session_mux(s->session) : NULL;
    int rc = m ? tnl_mux_open(m, &s->stream, (const uint8_t *)"map", 3, &stream_events, s)
               : TUNNEL_E_GONE;
    if (rc == 0)
        pump(s);
    return rc;
}

static bool over(const side *s)
{
    return !s->link && !s->session;
}

static void release(side *s)
{
    if (s->stream)
        tnl_stream_release(s->stream);
    s->stream = NULL;
}

static void both_end(both *b)
{
    if (b->client.session)
        tnl_session_close(b->client.session, 0, NULL);
    if (b->client.link)
        tnl_link_close(b->client.link, 0, NULL);
    UNTIL(&b->l, over(&b->client) && over(&b->server));
    test_loop_close(&b->l);
}

static void bytes_go_both_ways(void **state)
{
    (void)state;
    enum { TOTAL = 3000000 };
    both b = {.client = {.to_send = TOTAL}, .server = {.to_send = TOTAL / 3}};
    both_start(&b);
    assert_int_equal(open_stream(&b.server), 0);
    UNTIL(&b.l, b.client.fins && b.server.fins);
    assert_int_equal(b.server.received, TOTAL);
    assert_int_equal(b.client.received, TOTAL / 3);
    uint8_t byte;
    uint64_t hash = 0, third = 0;
    for (uint64_t i = 0; i < TOTAL; i++) {
        test_fill(&byte, 1, i);
        hash = test_hash(hash, &byte, 1);
        third = i == TOTAL / 3 - 1 ? hash : third;
    }
    assert_true(b.server.hash == hash && b.client.hash == third);
    release(&b.client);
    release(&b.server);
    UNTIL(&b.l, b.client.retired == 1 && b.server.retired == 1);
    tnl_mux_event(tnl_session_mux(b.server.session), (const uint8_t *)"e", 1);
    assert_int_equal(tnl_mux_control(tnl_session_mux(b.client.session), 7, (const uint8_t *)"c", 1),
                     0);
    UNTIL(&b.l, b.client.events == 1 && b.server.controls == 1);
    both_end(&b);
    assert_int_equal(memory.live, 0);
}

static void an_end_is_told_in_order(void **state)
{
    (void)state;
    both b = {.client = {.to_send = 100}, .server = {.to_send = 1 << 30}};
    both_start(&b);
    assert_int_equal(open_stream(&b.server), 0);
    UNTIL(&b.l, b.client.opens && b.client.received > 200000);
    tnl_session_close(b.server.session, TUNNEL_E_REPLACED, "a newer one");
    tnl_session_close(b.server.session, TUNNEL_E_DENIED, "too late");
    assert_null(tnl_session_mux(b.server.session));
    assert_int_equal(b.server.session_closes, 0); /* never from inside the call */
    UNTIL(&b.l, over(&b.client) && over(&b.server));
    assert_true(strchr(b.server.order, 'r') < strchr(b.server.order, 's'));
    assert_int_equal(strlen(b.server.order), 3);
    assert_int_equal(b.server.session_error, 0);
    assert_int_equal(b.server.link_error, 0);
    assert_int_equal(b.client.session_error, TUNNEL_E_REPLACED);
    assert_int_equal(b.client.link_error, TUNNEL_E_REPLACED);
    assert_string_equal(b.client.session_detail, "a newer one");
    assert_string_equal(b.client.link_detail, "a newer one");
    assert_true(strchr(b.client.order, 'r') < strchr(b.client.order, 's'));
    assert_int_equal(b.client.session_closes + b.client.link_closes, 2);
    test_loop_close(&b.l);
}

static void a_plain_end_is_an_end(void **state)
{
    (void)state;
    both b = {.server = {.server = true}};
    both_start(&b);
    tnl_session_close(b.client.session, 0, NULL);
    UNTIL(&b.l, over(&b.client) && over(&b.server));
    assert_int_equal(b.client.session_error, 0);
    assert_int_equal(b.server.session_error, TUNNEL_E_EOF);
    test_loop_close(&b.l);
}

static void a_refused_handshake_is_told(void **state)
{
    (void)state;
    both b = {.server = {.answer = TUNNEL_E_VERSION}};
    test_loop_open(&b.l);
    assert_int_equal(both_open(&b), 0);
    UNTIL(&b.l, !b.client.link && !b.server.link);
    assert_int_equal(b.client.link_error, TUNNEL_E_VERSION);
    assert_int_equal(b.server.link_error, TUNNEL_E_VERSION);
    assert_string_equal(b.client.link_detail, tunnel_strerror(TUNNEL_E_VERSION));
    assert_string_equal(b.client.order, "l");
    test_loop_close(&b.l);
}

static void a_refused_control_message_ends_the_session(void **state)
{
    (void)state;
    both b = {.server = {.server = true}};
    both_start(&b);
    assert_int_equal(tnl_mux_control(tnl_session_mux(b.client.session), 0xff, NULL, 0), 0);
    UNTIL(&b.l, over(&b.client) && over(&b.server));
    assert_int_equal(b.server.session_error, TUNNEL_E_UNSUPPORTED);
    assert_int_equal(b.client.session_error, TUNNEL_E_UNSUPPORTED);
    test_loop_close(&b.l);
}

static void it_can_end_in_every_callback(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        for (int m = NEVER + 1; m < MOMENTS; m++) {
            for (int link = 0; link < 2; link++) {
                both b = {.client = {.to_send = 50000}, .server = {.to_send = 50000}};
                side *s = which ? &b.client : &b.server;
                side *other = which ? &b.server : &b.client;
                s->close_in = (moment)m;
                s->close_link = link;
                test_loop_open(&b.l);
                assert_int_equal(both_open(&b), 0);
                UNTIL(&b.l, (b.client.session && b.server.session) || over(s));
                if (b.client.session && b.server.session) {
                    (void)open_stream(other);
                    if (tnl_session_mux(other->session)) {
                        (void)tnl_mux_control(tnl_session_mux(other->session), 7, NULL, 0);
                        tnl_mux_event(tnl_session_mux(other->session), NULL, 0);
                    }
                    if (m != IN_RESET && m != IN_SESSION_CLOSED)
                        UNTIL(&b.l, over(s) || (b.client.fins && b.server.fins));
                    if (m == IN_RETIRED) {
                        release(&b.client);
                        release(&b.server);
                        UNTIL(&b.l, over(s));
                    }
                }
                if (m == IN_RESET || m == IN_SESSION_CLOSED) {
                    UNTIL(&b.l, s->opens);
                    tnl_session_close(other->session, TUNNEL_E_DENIED, "x");
                }
                UNTIL(&b.l, over(&b.client) && over(&b.server));
                assert_int_equal(s->close_in, NEVER);
                assert_int_equal(s->link_closes, 1);
                assert_true(s->session_closes <= 1 && other->session_closes <= 1);
                test_loop_close(&b.l);
                assert_int_equal(memory.live, 0);
            }
        }
    }
}

/* --- one link and an end driven by hand ------------------------------------------------------- */

typedef struct half {
    test_loop l;
    side s;
    raw_end raw;
} half;

static tnl_transport *half_open(half *h, const tnl_link_config *config)
{
    tnl_transport *t;
    memory.live = 0;
    test_loop_open(&h->l);
    raw_end_init(&h->raw);
    assert_int_equal(side_open(&h->s, &h->l, true, config), 0);
    assert_int_equal(tnl_pair_new(&t, tnl_link_transport_events(), h->s.link, &h->raw.transport,
                                  &raw_end_events, &h->raw, h->l.loop),
                     0);
    tnl_link_set_transport(h->s.link, t);
    UNTIL(&h->l, h->raw.opened);
    return t;
}

static void half_end(half *h)
{
    raw_end_close(&h->raw);
    UNTIL(&h->l, over(&h->s) && !h->raw.transport);
    assert_int_equal(h->s.link_closes, 1);
    assert_int_equal(h->raw.closes, 1);
    raw_end_free(&h->raw);
    test_loop_close(&h->l);
    assert_int_equal(memory.live, 0);
}

/* The loop's time is that of its last turn, so one turn goes first. */
static void turns(test_loop *l, uint64_t ms)
{
    assert_true(test_turn(l));
    for (uint64_t from = tnl_loop_now(l->loop); tnl_loop_now(l->loop) - from < ms;)
        assert_true(test_turn(l));
}

static void a_handshake_must_come_in_time(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    config.handshake_ms = 150;
    half h = {.s = {.server = true}};
    half_open(&h, &config);
    UNTIL(&h.l, !h.s.link);
    assert_int_equal(h.s.link_error, TUNNEL_E_TIMEOUT);
    assert_string_equal(h.s.link_detail, "no handshake within 0.15 s");
    assert_int_equal(h.raw.seen[TNL_FRAME_CLOSE], 1);
    assert_int_equal(h.raw.code, -TUNNEL_E_TIMEOUT);
    half_end(&h);
}

/* Signs of life are not a handshake. */
static void pings_do_not_prolong_a_handshake(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    tnl_frame ping = {.type = TNL_FRAME_PING, .offset = 1};
    config.handshake_ms = 150;
    half h = {.s = {.server = true}};
    half_open(&h, &config);
    while (h.s.link) {
        raw_end_frame(&h.raw, &ping);
        if (!test_turn(&h.l))
            fail_msg("the link lives on");
    }
    assert_int_equal(h.s.link_error, TUNNEL_E_TIMEOUT);
    assert_true(h.raw.seen[TNL_FRAME_PONG] > 1);
    half_end(&h);
}

/* A polite end is awaited, by streams that could go on over another link. */
static void no_polite_end(tnl_transport *t)
{
    (void)t;
    fail_msg("a polite end for a silent peer");
}

static void a_silent_peer_is_not_waited_for(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    config.silence_ms = 200;
    half h = {.s = {.bind_at_once = true}};
    tnl_transport *t = half_open(&h, &config);
    tnl_transport_ops ops = *t->ops;
    ops.close = no_polite_end;
    t->ops = &ops;
    h.raw.mute = true;
    UNTIL(&h.l, over(&h.s));
    assert_int_equal(h.s.session_error, TUNNEL_E_TIMEOUT);
    half_end(&h);
}

static void a_silent_peer_is_asked_and_then_given_up(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    config.silence_ms = 200;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &config);
    UNTIL(&h.l, h.s.session);
    /* The first one goes at once, for the round trip; each of them is answered. */
    UNTIL(&h.l, tnl_link_rtt(h.s.link) != UINT32_MAX);
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 1);
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_PING] == 4);
    assert_non_null(h.s.link);
    assert_true(tnl_link_rtt(h.s.link) < 10000);
    h.raw.mute = true;
    UNTIL(&h.l, over(&h.s));
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 5);
    assert_int_equal(h.s.session_error, TUNNEL_E_TIMEOUT);
    assert_int_equal(h.s.link_error, TUNNEL_E_TIMEOUT);
    assert_string_equal(h.s.session_detail, "nothing heard for 0.2 s");
    half_end(&h);
}

static void pings_go_only_into_silence(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    tnl_frame ping = {.type = TNL_FRAME_PING, .offset = 1};
    config.silence_ms = 4000;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &config);
    for (uint64_t from = tnl_loop_now(h.l.loop); tnl_loop_now(h.l.loop) - from < 2500;) {
        raw_end_frame(&h.raw, &ping);
        assert_true(test_turn(&h.l));
    }
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 1); /* the one for the round trip */
    half_end(&h);
}

/* This process was stopped for longer than the silence: the peer is not to blame. */
static void a_sleep_does_not_kill_the_link(void **state)
{
    (void)state;
    tnl_link_config config = usual;
    config.silence_ms = 400;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &config);
    UNTIL(&h.l, h.s.session && tnl_link_rtt(h.s.link) != UINT32_MAX);
    h.raw.mute = true;
    nanosleep(&(struct timespec){.tv_nsec = 900000000}, NULL);
    turns(&h.l, 50);
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 2);
    assert_non_null(h.s.session);
    h.raw.mute = false;
    tnl_frame pong = {.type = TNL_FRAME_PONG, .offset = h.raw.offset};
    raw_end_frame(&h.raw, &pong);
    /* And again, with a ping under way whose answer lies waiting. */
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_PING] == 3);
    nanosleep(&(struct timespec){.tv_nsec = 900000000}, NULL);
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_PING] == 4);
    assert_non_null(h.s.session);
    half_end(&h);
}

/* Where there is doubt the silence is not waited for, but a sign of life ends the doubt. */
static void a_doubt_is_settled_soon(void **state)
{
    (void)state;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &usual); /* silence of 20 s */
    UNTIL(&h.l, h.s.session && tnl_link_rtt(h.s.link) != UINT32_MAX);
    tnl_session_check(h.s.session, 100);
    turns(&h.l, 400);
    assert_non_null(h.s.session);
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 2);
    h.raw.mute = true;
    tnl_session_check(h.s.session, 100);
    tnl_session_check(h.s.session, 100);
    UNTIL(&h.l, over(&h.s));
    assert_int_equal(h.s.link_error, TUNNEL_E_TIMEOUT);
    assert_int_equal(h.raw.seen[TNL_FRAME_PING], 3);
    half_end(&h);
}

static void only_the_newest_ping_is_answered(void **state)
{
    (void)state;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &usual);
    for (uint64_t i = 1; i <= 20000; i++) {
        tnl_frame ping = {.type = TNL_FRAME_PING, .offset = i};
        raw_end_frame(&h.raw, &ping);
    }
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_PONG] && h.raw.offset == 20000);
    assert_true(h.raw.seen[TNL_FRAME_PONG] < 20);
    assert_int_equal(tnl_session_last_heard(h.s.session), tnl_link_last_heard(h.s.link));
    tnl_session_ping(h.s.session);
    tnl_session_ping(h.s.session);
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_PING] == 1 && tnl_link_rtt(h.s.link) != UINT32_MAX);
    half_end(&h);
}

static void the_peers_close_is_passed_on_clean(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        const char *text;
        int error;
        const char *detail;
    } cases[] = {
        {23, "replaced by a newer client", TUNNEL_E_REPLACED, "replaced by a newer client"},
        {0, "", TUNNEL_E_EOF, ""},
        {999, "x", -999, "x"},
        {1000, "x", TUNNEL_E_EOF, "x"},
        {UINT32_MAX, "x", TUNNEL_E_EOF, "x"},
        {25, "a\x1b[2Jb\r\nc\xff", TUNNEL_E_GONE, "a?[2Jb??c?"},
    };
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(*cases); i++) {
        size_t c = i / 2;
        half h = {.s = {.bind_at_once = i % 2}};
        tnl_frame f = {.type = TNL_FRAME_CLOSE,
                       .code = cases[c].code,
                       .rest = (const uint8_t *)cases[c].text,
                       .rest_len = strlen(cases[c].text)};
        half_open(&h, &usual);
        raw_end_frame(&h.raw, &f);
        UNTIL(&h.l, over(&h.s));
        assert_int_equal(h.s.link_error, cases[c].error);
        assert_string_equal(h.s.link_detail, cases[c].detail);
        assert_int_equal(h.s.session_closes, i % 2);
        if (i % 2) {
            assert_int_equal(h.s.session_error, cases[c].error);
            assert_string_equal(h.s.session_detail, cases[c].detail);
        }
        half_end(&h);
    }
}

static void our_close_reaches_the_peer(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    half h = {.s = {.server = true}};
    half_open(&h, &usual);
    tnl_link_close(h.s.link, TUNNEL_E_DENIED, text);
    tnl_link_close(h.s.link, TUNNEL_E_IO, "again");
    UNTIL(&h.l, !h.s.link);
    assert_int_equal(h.s.link_error, 0);
    assert_int_equal(h.raw.seen[TNL_FRAME_CLOSE], 1);
    assert_int_equal(h.raw.code, -TUNNEL_E_DENIED);
    assert_int_equal(h.raw.rest_len, 200);
    half_end(&h);
}

static void a_lost_transport_ends_the_session(void **state)
{
    (void)state;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &usual);
    UNTIL(&h.l, h.s.session);
    raw_end_close(&h.raw);
    UNTIL(&h.l, over(&h.s));
    assert_int_equal(h.s.session_error, TUNNEL_E_EOF);
    assert_int_equal(h.s.link_error, TUNNEL_E_EOF);
    half_end(&h);
}

static void violations_end_the_link(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        bool bound;
        int error;
    } cases[] = {
        {"\xf0\0\0\0\0\0\0\0\0\0\0\0", 12, false, TUNNEL_E_UNSUPPORTED}, /* unknown and critical */
        {"\x15\0\0\x07\0\0\0\0\0\0\0\0", 12, false, TUNNEL_E_PROTOCOL},  /* a short PING */
        {"\x15\0\0\x08\0\0\0\0\0\0\0\1", 12, false, TUNNEL_E_PROTOCOL},  /* a PING of a stream */
        {"\x90\xff\xff\xff\0\0\0\0\0\0\0\0", 12, false, TUNNEL_E_PROTOCOL}, /* a HELLO of 16 MiB */
        {"\x82\0\0\x09\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0x", 21, false,
         TUNNEL_E_PROTOCOL},                                          /* DATA before a session */
        {"\x91\0\0\0\0\0\0\0\0\0\0\0", 12, false, TUNNEL_E_PROTOCOL}, /* WELCOME to a server */
        {"\x90\0\0\0\0\0\0\0\0\0\0\0", 12, true, TUNNEL_E_PROTOCOL},  /* a second handshake */
        {"\x82\0\0\x09\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0x", 21, true,
         TUNNEL_E_PROTOCOL}, /* DATA of no stream */
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, false,
         TUNNEL_E_PROTOCOL}, /* an unknown type, and long */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        half h = {.s = {.bind_at_once = cases[i].bound}};
        half_open(&h, &usual);
        raw_end_bytes(&h.raw, cases[i].bytes, cases[i].n);
        UNTIL(&h.l, !h.s.link);
        if (cases[i].bound)
            UNTIL(&h.l, !h.s.session);
        assert_int_equal(cases[i].bound ? h.s.session_error : h.s.link_error, cases[i].error);
        assert_int_equal(h.raw.seen[TNL_FRAME_CLOSE], 1);
        assert_int_equal(h.raw.code, -cases[i].error);
        half_end(&h);
    }
}

static void garbage_ends_nothing_but_the_link(void **state)
{
    (void)state;
    uint32_t random = 2463534242u;
    for (int round = 0; round < 300; round++) {
        static const uint8_t types[] = {0x81, 0x82, 0x83, 0x84, 0x85, 0x90,
                                        0x94, 0x15, 0x16, 0x17, 0x20, 0xf0};
        uint8_t bytes[400];
        half h = {.s = {.bind_at_once = round % 2}};
        half_open(&h, &usual);
        for (size_t i = 0; i < sizeof(bytes); i++) {
            random = random * 1664525u + 1013904223u;
            bytes[i] = (uint8_t)(random >> 24);
        }
        /* Half of them begin like a frame. */
        if (round & 2) {
            memset(bytes, 0, 12);
            bytes[0] = types[(uint32_t)round / 4 % sizeof(types)];
            bytes[3] = (uint8_t)(random >> 16 & 31);
            bytes[11] = (uint8_t)(random >> 8 & 3);
        }
        for (size_t i = 0; i < sizeof(bytes); i += 37)
            raw_end_bytes(&h.raw, bytes + i, i + 37 < sizeof(bytes) ? 37 : sizeof(bytes) - i);
        turns(&h.l, 5);
        half_end(&h);
    }
}

static void queued_frames_are_bounded(void **state)
{
    (void)state;
    static const uint8_t rest[10000];
    half h = {.s = {.server = true}};
    half_open(&h, &usual);
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = rest, .rest_len = sizeof(rest)};
    unsigned sent = 0;
    while (tnl_link_send(h.s.link, &f) == 0)
        assert_true(++sent < 100);
    assert_true(sent >= 2);
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_HELLO] == sent);
    assert_int_equal(tnl_link_send(h.s.link, &f), 0);
    UNTIL(&h.l, h.raw.seen[TNL_FRAME_HELLO] == sent + 1);
    half_end(&h);
}

/* What is asked of a link before its transport is there is done when it comes. */
static void a_link_can_be_used_before_its_transport(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        half h = {.s = {.server = true}};
        tnl_transport *t;
        tnl_frame f = {.type = TNL_FRAME_HELLO};
        test_loop_open(&h.l);
        raw_end_init(&h.raw);
        assert_int_equal(side_open(&h.s, &h.l, true, &usual), 0);
        assert_int_equal(tnl_link_send(h.s.link, &f), 0);
        if (i)
            tnl_link_close(h.s.link, TUNNEL_E_GONE, NULL);
        assert_int_equal(tnl_pair_new(&t, tnl_link_transport_events(), h.s.link, &h.raw.transport,
                                      &raw_end_events, &h.raw, h.l.loop),
                         0);
        UNTIL(&h.l, h.raw.opened);
        tnl_link_set_transport(h.s.link, t);
        UNTIL(&h.l, h.raw.seen[TNL_FRAME_HELLO] == 1);
        if (i)
            UNTIL(&h.l, !h.s.link && h.raw.seen[TNL_FRAME_CLOSE] == 1);
        half_end(&h);
    }
}

static void a_closing_session_takes_no_link(void **state)
{
    (void)state;
    half h = {.s = {.bind_at_once = true}};
    half_open(&h, &usual);
    UNTIL(&h.l, h.s.session);
    tnl_link *other;
    assert_int_equal(tnl_link_new(&other, h.l.loop, &usual, &link_events, &h.s), 0);
    tnl_session_close(h.s.session, 0, NULL);
    assert_int_equal(tnl_link_bind(other, h.s.session), TUNNEL_E_GONE);
    tnl_link_discard(other);
    UNTIL(&h.l, over(&h.s));
    half_end(&h);
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t live_once(size_t nth)
{
    both b = {.client = {.to_send = 100000}, .server = {.to_send = 100000}};
    test_loop_open(&b.l);
    memory.count = 0;
    memory.fail_at = nth;
    if (both_open(&b) == 0) {
        UNTIL(&b.l, (b.client.session && b.server.session) || (!b.client.link && !b.server.link));
        if (b.client.session && b.server.session && open_stream(&b.server) == 0)
            UNTIL(&b.l, (b.client.fins && b.server.fins) || b.client.resets || b.server.resets ||
                            !b.client.link || !b.server.link);
        if (b.client.session && tnl_session_mux(b.client.session))
            (void)tnl_mux_control(tnl_session_mux(b.client.session), 7, NULL, 0);
        turns(&b.l, 2);
    }
    size_t n = memory.count;
    memory.fail_at = 0;
    both_end(&b);
    assert_int_equal(memory.live, 0);
    return n;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = live_once(0);
    assert_true(n > 20);
    for (size_t i = 1; i <= n; i++)
        live_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(an_end_is_told_in_order),
        cmocka_unit_test(a_plain_end_is_an_end),
        cmocka_unit_test(a_refused_handshake_is_told),
        cmocka_unit_test(a_refused_control_message_ends_the_session),
        cmocka_unit_test(it_can_end_in_every_callback),
        cmocka_unit_test(a_handshake_must_come_in_time),
        cmocka_unit_test(pings_do_not_prolong_a_handshake),
        cmocka_unit_test(a_silent_peer_is_asked_and_then_given_up),
        cmocka_unit_test(a_silent_peer_is_not_waited_for),
        cmocka_unit_test(pings_go_only_into_silence),
        cmocka_unit_test(a_sleep_does_not_kill_the_link),
        cmocka_unit_test(a_doubt_is_settled_soon),
        cmocka_unit_test(only_the_newest_ping_is_answered),
        cmocka_unit_test(the_peers_close_is_passed_on_clean),
        cmocka_unit_test(our_close_reaches_the_peer),
        cmocka_unit_test(a_lost_transport_ends_the_session),
        cmocka_unit_test(violations_end_the_link),
        cmocka_unit_test(garbage_ends_nothing_but_the_link),
        cmocka_unit_test(queued_frames_are_bounded),
        cmocka_unit_test(a_link_can_be_used_before_its_transport),
        cmocka_unit_test(a_closing_session_takes_no_link),
        cmocka_unit_test(each_allocation_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
