/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/stream.h>

#include "api/loop.h"
#include "forward/stream_conn.h"
#include "support/certs.h"
#include "support/check.h"
#include "support/fake_server.h"
#include "support/memory.h"

enum { MB = 1024 * 1024 };

/* Moments of the app in which something can be done. */
typedef enum moment {
    IN_NOTHING,
    IN_VISITOR,
    IN_DATA,
    IN_END,
    IN_ROOM,
    IN_CLOSED,
    IN_EVENT, /* CONNECTION */
    MOMENTS,
} moment;

/*
 * An app that listens, and a server whose streams stand for visitors. What is counted is of the
 * app's last stream.
 */
typedef struct rig {
    test_loop l;
    fake_server server;
    struct tunnel_loop loop;
    tunnel_client *client; /* NULL once it is closing */
    unsigned client_closes;
    uint64_t tunnel;
    unsigned published;
    unsigned connections; /* CONNECTION events */
    uint64_t connection_in, connection_out;
    int connection_error;
    /* what the app does */
    bool ignore;      /* takes no stream */
    bool echo;        /* writes back what comes, and ends when the visitor has */
    size_t use;       /* the most that data() uses of what it gets; without echo */
    uint64_t to_send; /* is sent to the visitor, and then the end */
    moment act_in;
    void (*act)(struct rig *r); /* done once */
    /* what happens to it */
    uint64_t stream;
    unsigned visitors;
    uint64_t received, hash, sent;
    unsigned data_calls, ends, rooms, closes;
    unsigned closes_before; /* of streams before that one */
    int error;
    char text[300];
} rig;

static void act(rig *r, moment m)
{
    void (*f)(rig * r) = r->act;
    if (r->act_in != m || !f)
        return;
    r->act = NULL;
    f(r);
}

static void send_some(rig *r)
{
    static uint8_t bytes[50000];
    while (r->sent < r->to_send) {
        uint64_t left = r->to_send - r->sent;
        size_t n = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        test_fill(bytes, n, r->sent);
        int64_t took = tunnel_stream_write(r->client, r->stream, bytes, n);
        if (took < 0)
            return;
        r->sent += (uint64_t)took;
        if ((size_t)took < n)
            return;
    }
    if (r->to_send)
        assert_int_equal(tunnel_stream_end(r->client, r->stream), 0);
}

static size_t on_data(void *user, uint64_t stream, const void *p, size_t n)
{
    rig *r = user;
    assert_true(stream == r->stream && n > 0);
    assert_int_equal(r->closes, 0);
    assert_int_equal(r->ends, 0);
    r->data_calls++;
    act(r, IN_DATA);
    size_t used = n < r->use ? n : r->use;
    if (r->echo && r->client) {
        /* What comes after our own end goes nowhere. */
        int64_t took = tunnel_stream_write(r->client, stream, p, n);
        used = took < 0 ? n : (size_t)took;
    }
    r->hash = test_hash(r->hash, p, used);
    r->received += used;
    return used;
}

static void on_end(void *user, uint64_t stream)
{
    rig *r = user;
    assert_true(stream == r->stream);
    assert_int_equal(r->closes, 0);
    r->ends++;
    act(r, IN_END);
    if (r->echo && r->client)
        (void)tunnel_stream_end(r->client, stream);
}

static void on_room(void *user, uint64_t stream)
{
    rig *r = user;
    assert_true(stream == r->stream);
    assert_int_equal(r->closes, 0);
    r->rooms++;
    act(r, IN_ROOM);
    if (r->echo && r->client)
        (void)tunnel_stream_resume(r->client, stream);
    if (r->client)
        send_some(r);
}

static void on_closed(void *user, uint64_t stream, int error, const char *text)
{
    rig *r = user;
    if (stream != r->stream) {
        r->closes_before += stream < r->stream && error == TUNNEL_E_CANCELED;
        return;
    }
    r->closes++;
    r->error = error;
    snprintf(r->text, sizeof(r->text), "%s", text);
    /* The id is stale already. */
    if (r->client)
        assert_int_equal(tunnel_stream_end(r->client, stream), TUNNEL_E_NOT_FOUND);
    act(r, IN_CLOSED);
}

static void on_visitor(void *user, uint64_t stream)
{
    rig *r = user;
    assert_true(stream > r->stream);
    r->visitors++;
    r->stream = stream;
    r->received = r->hash = r->sent = 0;
    r->data_calls = r->ends = r->rooms = r->closes = 0;
    if (r->ignore)
        return;
    assert_int_equal(tunnel_stream_on_closed(r->client, stream, on_closed, r), 0);
    assert_int_equal(tunnel_stream_on_end(r->client, stream, on_end, r), 0);
    assert_int_equal(tunnel_stream_on_room(r->client, stream, on_room, r), 0);
    assert_int_equal(tunnel_stream_on_data(r->client, stream, on_data, r), 0);
    act(r, IN_VISITOR);
    if (r->client)
        send_some(r);
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    r->published += tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED;
    if (tunnel_event_get_type(e) != TUNNEL_EVENT_CONNECTION)
        return;
    assert_true(tunnel_event_tunnel(e) > 0);
    assert_string_equal(tunnel_event_visitor(e), "192.0.2.1");
    r->connections++;
    r->connection_in = tunnel_event_bytes_in(e);
    r->connection_out = tunnel_event_bytes_out(e);
    r->connection_error = tunnel_event_error(e);
    act(r, IN_EVENT);
}

static void on_client_closed(void *user)
{
    rig *r = user;
    r->client_closes++;
}

static void close_client(rig *r)
{
    tunnel_client *c = r->client;
    r->client = NULL;
    tunnel_client_close(c, on_client_closed, r);
}

static void rig_open(rig *r, const char *what, const tunnel_options *options)
{
    char url[64];
    tunnel_client_config *c;
    *r = (rig){.use = SIZE_MAX};
    test_loop_open(&r->l);
    fake_server_open(&r->server, &r->l, NULL);
    r->loop.loop = r->l.loop;
    tnl_list_init(&r->loop.signals);
    assert_int_equal(tunnel_client_config_new(&c), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u", fake_server_port(&r->server));
    assert_int_equal(tunnel_client_config_set_server(c, url), 0);
    assert_int_equal(tunnel_client_new(&r->client, &r->loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
    tunnel_client_on_event(r->client, on_event, r);
    assert_int_equal(
        tunnel_client_listen(r->client, what, options, on_visitor, r, &r->tunnel, NULL, 0), 0);
    assert_int_equal(tunnel_client_start(r->client), 0);
    UNTIL(&r->l, r->published);
}

static void rig_close(rig *r)
{
    if (r->client)
        close_client(r);
    UNTIL(&r->l, r->client_closes);
    assert_int_equal(r->client_closes, 1);
    fake_server_close(&r->server);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

/* --- visitors --------------------------------------------------------------------------------- */

typedef struct guest {
    tnl_stream *s; /* NULL once released */
    bool deaf;
    uint64_t received, hash, sent;
    unsigned fins, resets;
    uint32_t code;
    char text[300];
} guest;

static size_t guest_data(void *user, const uint8_t *p, size_t n)
{
    guest *g = user;
    if (g->deaf)
        return 0;
    g->received += n;
    g->hash = test_hash(g->hash, p, n);
    return n;
}

static void guest_fin(void *user)
{
    ((guest *)user)->fins++;
}

static void guest_reset(void *user, uint32_t code, const char *text, size_t n)
{
    guest *g = user;
    tnl_stream *s = g->s;
    g->s = NULL;
    g->resets++;
    g->code = code;
    snprintf(g->text, sizeof(g->text), "%.*s", (int)n, n ? text : "");
    tnl_stream_release(s);
}

static void guest_room(void *user)
{
    (void)user;
}

static const tnl_stream_events guest_events = {
    .data = guest_data, .fin = guest_fin, .reset = guest_reset, .room = guest_room};

static void guest_open(rig *r, guest *g)
{
    unsigned before = r->visitors;
    *g = (guest){.s = NULL};
    assert_int_equal(fake_server_open_stream(&r->server, r->tunnel, &g->s, &guest_events, g), 0);
    UNTIL(&r->l, r->visitors > before || g->resets);
}

/* As much of the sequence as there is room for. */
static void guest_say(guest *g, uint64_t total)
{
    static uint8_t bytes[40000];
    size_t n = 0, took = 0;
    while (g->s && g->sent < total && took == n) {
        uint64_t left = total - g->sent;
        n = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        test_fill(bytes, n, g->sent);
        took = tnl_stream_write(g->s, bytes, n);
        g->sent += took;
    }
}

static void guest_end(guest *g)
{
    tnl_stream_fin(g->s);
}

static void guest_leave(guest *g)
{
    if (g->s)
        tnl_stream_release(g->s);
    g->s = NULL;
}

static uint64_t hash_of(uint64_t total)
{
    uint8_t bytes[4096];
    uint64_t hash = 0;
    for (uint64_t at = 0; at < total;) {
        size_t n = total - at < sizeof(bytes) ? (size_t)(total - at) : sizeof(bytes);
        test_fill(bytes, n, at);
        hash = test_hash(hash, bytes, n);
        at += n;
    }
    return hash;
}

static void turns(rig *r, int n)
{
    for (int i = 0; i < n; i++)
        test_turn(&r->l);
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void both_directions_at_once(void **state)
{
    (void)state;
    rig r;
    guest g;
    enum { TOTAL = 5 * MB + 17 };
    rig_open(&r, "tcp://:", NULL);
    r.echo = true;
    guest_open(&r, &g);
    while (g.sent < TOTAL && test_turn(&r.l))
        guest_say(&g, TOTAL);
    guest_end(&g);
    UNTIL(&r.l, g.fins && r.closes);
    assert_true(r.received == TOTAL && g.received == TOTAL);
    assert_true(r.hash == hash_of(TOTAL) && g.hash == r.hash);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.closes, 1);
    assert_int_equal(r.error, 0);
    assert_string_equal(r.text, "");
    assert_int_equal(r.connections, 1);
    assert_true(r.connection_in == TOTAL && r.connection_out == TOTAL);
    assert_int_equal(r.connection_error, 0);
    guest_leave(&g);
    rig_close(&r);
}

static void who_reads_nothing_is_not_sent_to(void **state)
{
    (void)state;
    rig r;
    guest g;
    enum { TOTAL = 8 * MB };
    rig_open(&r, "tcp://:", NULL);
    r.to_send = TOTAL;
    size_t before = memory.bytes;
    memory.peak = 0;
    guest_open(&r, &g);
    g.deaf = true;
    uint64_t last = UINT64_MAX;
    while (last != r.sent) {
        last = r.sent;
        turns(&r, 20);
    }
    assert_true(r.sent > 0 && r.sent < 2 * MB);
    assert_true(tunnel_stream_room(r.client, r.stream) < 64 * 1024);
    assert_true(memory.peak < before + 3 * MB);
    g.deaf = false;
    tnl_stream_resume(g.s);
    UNTIL(&r.l, g.fins);
    assert_true(r.rooms > 1);
    assert_true(g.received == TOTAL && g.hash == hash_of(TOTAL));
    /* Our end is told; the visitor's is still open. */
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "x", 1), TUNNEL_E_STATE);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    assert_int_equal(r.closes, 0);
    guest_end(&g);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.error, 0);
    guest_leave(&g);
    rig_close(&r);
}

static void what_is_left_comes_again(void **state)
{
    (void)state;
    rig r;
    guest g;
    enum { TOTAL = 2 * MB };
    rig_open(&r, "tcp://:", NULL);
    r.use = 0;
    guest_open(&r, &g);
    uint64_t last = UINT64_MAX;
    while (last != g.sent) {
        last = g.sent;
        guest_say(&g, TOTAL);
        turns(&r, 20);
    }
    /* The visitor is not read from any more: nothing was used up. */
    assert_true(g.sent < TOTAL);
    assert_true(r.data_calls > 0 && r.received == 0);
    unsigned calls = r.data_calls;
    /* In pieces of all sizes, each when it is asked for. */
    for (size_t i = 1; r.received < TOTAL; i++) {
        r.use = i % 7 == 0 ? 100000 : i % 3000;
        assert_int_equal(tunnel_stream_resume(r.client, r.stream), 0);
        guest_say(&g, TOTAL);
        if (g.sent == TOTAL && g.fins == 0)
            guest_end(&g);
        if (!test_turn(&r.l))
            fail_msg("stuck at %lu", (unsigned long)r.received);
    }
    UNTIL(&r.l, r.ends);
    assert_true(r.data_calls > calls + 10);
    assert_true(r.hash == hash_of(TOTAL));
    assert_int_equal(r.closes, 0);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    assert_int_equal(r.closes, 0);
    UNTIL(&r.l, r.closes && g.fins);
    guest_leave(&g);
    rig_close(&r);
}

static size_t second_data(void *user, uint64_t stream, const void *p, size_t n)
{
    rig *r = user;
    assert_true(stream == r->stream);
    r->hash = test_hash(r->hash, p, n);
    r->received += n;
    r->rooms += 1000;
    return n;
}

static void set_second(rig *r)
{
    r->use = 3;
    assert_int_equal(tunnel_stream_on_data(r->client, r->stream, second_data, r), 0);
    assert_int_equal(tunnel_stream_resume(r->client, r->stream), 0);
}

static void set_none(rig *r)
{
    r->use = 3;
    assert_int_equal(tunnel_stream_on_data(r->client, r->stream, NULL, NULL), 0);
}

static void callbacks_can_be_exchanged(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    /* From inside: the new one gets the rest at once. */
    r.act_in = IN_DATA;
    r.act = set_second;
    guest_open(&r, &g);
    guest_say(&g, 1000);
    UNTIL(&r.l, r.received == 1000);
    assert_int_equal(r.data_calls, 1);
    assert_true(r.rooms >= 1000 && r.hash == hash_of(1000));
    tnl_stream_reset(g.s, TUNNEL_E_CANCELED, NULL);
    guest_leave(&g);
    UNTIL(&r.l, r.closes);
    /* None: everything waits, also the end. */
    r.act = set_none;
    r.use = SIZE_MAX;
    guest_open(&r, &g);
    guest_say(&g, 1000);
    guest_end(&g);
    UNTIL(&r.l, r.received == 3);
    turns(&r, 20);
    assert_true(r.received == 3 && r.ends == 0);
    assert_int_equal(tunnel_stream_on_data(r.client, r.stream, second_data, &r), 0);
    UNTIL(&r.l, r.ends);
    assert_true(r.received == 1000 && r.hash == hash_of(1000));
    guest_leave(&g);
    UNTIL(&r.l, r.closes);
    rig_close(&r);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void either_side_may_end_first(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    /* The visitor. */
    guest_open(&r, &g);
    guest_say(&g, 10);
    guest_end(&g);
    UNTIL(&r.l, r.ends);
    turns(&r, 10);
    assert_int_equal(r.closes, 0);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "hello", 5), 5);
    UNTIL(&r.l, g.received == 5);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    assert_int_equal(r.closes, 0); /* not from inside a call */
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, TUNNEL_E_IO, "too late"), 0);
    UNTIL(&r.l, r.closes && g.fins);
    assert_int_equal(r.error, 0);
    assert_int_equal(g.resets, 0);
    guest_leave(&g);
    /* The app. */
    guest_open(&r, &g);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), 0);
    UNTIL(&r.l, g.fins);
    guest_say(&g, 100000);
    UNTIL(&r.l, r.received == 100000);
    assert_true(r.hash == hash_of(100000));
    guest_end(&g);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.error, 0);
    guest_leave(&g);
    rig_close(&r);
}

static void resets(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    guest_open(&r, &g);
    guest_say(&g, 10);
    UNTIL(&r.l, r.received == 10);
    tnl_stream_reset(g.s, TUNNEL_E_TIMEOUT, "the visitor\nwent away");
    guest_leave(&g);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.error, TUNNEL_E_TIMEOUT);
    assert_string_equal(r.text, "the visitor?went away");
    assert_int_equal(r.ends, 0);
    assert_int_equal(r.connection_error, TUNNEL_E_TIMEOUT);
    assert_true(r.connection_in == 10 && r.connection_out == 0);
    /* A code that nobody knows. */
    guest_open(&r, &g);
    tnl_stream_reset(g.s, -999, NULL);
    guest_leave(&g);
    UNTIL(&r.l, r.closes);
    assert_int_equal(r.error, TUNNEL_E_RESET);
    assert_true(strlen(r.text) > 0);
    /* By the app: told at the end of the turn, once. */
    guest_open(&r, &g);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "lost", 4), 4);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, TUNNEL_E_DENIED, "go away"), 0);
    assert_int_equal(r.closes, 0);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, TUNNEL_E_IO, "again"), 0);
    assert_int_equal(tunnel_stream_write(r.client, r.stream, "x", 1), TUNNEL_E_STATE);
    assert_int_equal(tunnel_stream_room(r.client, r.stream), 0);
    assert_int_equal(tunnel_stream_resume(r.client, r.stream), 0);
    UNTIL(&r.l, r.closes && g.resets);
    turns(&r, 10);
    assert_int_equal(r.closes, 1);
    assert_int_equal(r.error, TUNNEL_E_DENIED);
    assert_string_equal(r.text, "go away");
    assert_int_equal(g.code, -TUNNEL_E_DENIED);
    assert_string_equal(g.text, "go away");
    /* Without a code or a text. */
    guest_open(&r, &g);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, 0, NULL), 0);
    UNTIL(&r.l, r.closes && g.resets);
    assert_int_equal(r.error, TUNNEL_E_CANCELED);
    assert_int_equal(g.code, -TUNNEL_E_CANCELED);
    rig_close(&r);
}

static void whom_nobody_takes_is_reset(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    r.ignore = true;
    guest_open(&r, &g);
    UNTIL(&r.l, g.resets);
    assert_int_equal(g.code, -TUNNEL_E_DENIED);
    assert_int_equal(r.visitors, 1);
    assert_int_equal(tunnel_stream_end(r.client, r.stream), TUNNEL_E_NOT_FOUND);
    rig_close(&r);
}

static void ids(void **state)
{
    (void)state;
    rig r;
    guest g;
    char host[64];
    uint16_t port = 0;
    uint64_t tunnel = 0;
    rig_open(&r, "tcp://:", NULL);
    guest_open(&r, &g);
    assert_int_equal(tunnel_stream_visitor(r.client, r.stream, host, sizeof(host), &port), 0);
    assert_string_equal(host, "192.0.2.1");
    assert_int_equal(port, 4711);
    assert_int_equal(tunnel_stream_visitor(r.client, r.stream, host, 10, NULL), 0);
    assert_int_equal(tunnel_stream_visitor(r.client, r.stream, host, 9, NULL), TUNNEL_E_LIMIT);
    assert_string_equal(host, "192.0.2.");
    assert_int_equal(tunnel_stream_tunnel(r.client, r.stream, &tunnel), 0);
    assert_true(tunnel == r.tunnel);
    assert_int_equal(tunnel_stream_reset(r.client, r.stream, TUNNEL_E_IO, NULL), 0);
    UNTIL(&r.l, r.closes);
    const uint64_t stale[] = {0, r.stream, r.stream + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof(stale) / sizeof(*stale); i++) {
        tunnel_client *c = r.client;
        uint64_t s = stale[i];
        assert_int_equal(tunnel_stream_on_data(c, s, on_data, &r), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_on_end(c, s, on_end, &r), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_on_room(c, s, on_room, &r), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_on_closed(c, s, on_closed, &r), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_write(c, s, "x", 1), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_room(c, s), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_end(c, s), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_reset(c, s, TUNNEL_E_IO, NULL), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_resume(c, s), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_visitor(c, s, host, sizeof(host), NULL), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_stream_tunnel(c, s, &tunnel), TUNNEL_E_NOT_FOUND);
    }
    guest_leave(&g);
    rig_close(&r);
}

static void a_lost_session_ends_its_streams(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    guest_open(&r, &g);
    guest_say(&g, 10);
    UNTIL(&r.l, r.received == 10);
    fake_server_drop(&r.server);
    UNTIL(&r.l, r.closes);
    assert_true(r.error < 0);
    assert_int_equal(r.closes, 1);
    uint64_t before = r.stream;
    UNTIL(&r.l, r.published == 2);
    guest_open(&r, &g);
    assert_true(r.stream > before);
    guest_leave(&g);
    UNTIL(&r.l, r.closes);
    rig_close(&r);
}

/* Streams that are open go on when their tunnel is unpublished. */
static void a_tunnel_may_go_before_its_streams(void **state)
{
    (void)state;
    rig r;
    guest g, late;
    rig_open(&r, "tcp://:", NULL);
    r.echo = true;
    guest_open(&r, &g);
    assert_int_equal(tunnel_client_unpublish(r.client, r.tunnel), 0);
    guest_say(&g, 300000);
    UNTIL(&r.l, r.server.unpublishes);
    /* One that crossed it. */
    guest_open(&r, &late);
    assert_int_equal(late.resets, 1);
    assert_int_equal(r.visitors, 1);
    while (g.sent < 300000 && test_turn(&r.l))
        guest_say(&g, 300000);
    guest_end(&g);
    UNTIL(&r.l, g.fins && r.closes);
    assert_true(g.hash == hash_of(300000));
    assert_int_equal(r.error, 0);
    guest_leave(&g);
    rig_close(&r);
}

static void a_client_that_closes_tells_its_streams(void **state)
{
    (void)state;
    rig r;
    guest g, h;
    rig_open(&r, "tcp://:", NULL);
    guest_open(&r, &g);
    guest_open(&r, &h);
    close_client(&r);
    assert_int_equal(r.closes, 0);
    UNTIL(&r.l, r.client_closes);
    assert_int_equal(r.closes, 1);
    assert_int_equal(r.closes_before, 1);
    assert_int_equal(r.error, TUNNEL_E_CANCELED);
    UNTIL(&r.l, !r.server.session);
    rig_close(&r);
}

/* --- anything from inside of anything --------------------------------------------------------- */

static void do_reset(rig *r)
{
    assert_int_equal(tunnel_stream_reset(r->client, r->stream, TUNNEL_E_DENIED, "enough"), 0);
}

static void do_reset_softly(rig *r)
{
    (void)tunnel_stream_reset(r->client, r->stream, TUNNEL_E_DENIED, "enough");
}

static void do_end(rig *r)
{
    (void)tunnel_stream_end(r->client, r->stream);
}

static void do_unpublish(rig *r)
{
    (void)tunnel_client_unpublish(r->client, r->tunnel);
}

static void do_all(rig *r)
{
    do_unpublish(r);
    do_end(r);
    (void)tunnel_stream_on_data(r->client, r->stream, on_data, r);
    (void)tunnel_stream_on_closed(r->client, r->stream, on_closed, r);
    (void)tunnel_stream_resume(r->client, r->stream);
    (void)tunnel_stream_write(r->client, r->stream, "x", 1);
    do_reset_softly(r);
    do_end(r);
    (void)tunnel_stream_resume(r->client, r->stream);
    close_client(r);
}

static void do_drop(rig *r)
{
    fake_server_end_session(&r->server, TUNNEL_E_GONE, "over");
}

/* The whole life of a stream, with something done in one moment of it. */
static void live(const char *what, const tunnel_options *o, moment m, void (*f)(rig *r))
{
    rig r;
    guest g;
    rig_open(&r, what, o);
    r.echo = true;
    r.act_in = m;
    r.act = f;
    guest_open(&r, &g);
    g.deaf = true; /* so that there is no room for a while */
    for (int i = 0; i < 60 && !r.closes && g.s; i++) {
        guest_say(&g, MB);
        test_turn(&r.l);
    }
    g.deaf = false;
    if (g.s)
        tnl_stream_resume(g.s);
    while (g.s && g.sent < MB && r.client && !r.closes && test_turn(&r.l))
        guest_say(&g, MB);
    if (g.s && !g.resets)
        guest_end(&g);
    UNTIL(&r.l, r.closes);
    assert_null(r.act);
    assert_int_equal(r.visitors, 1);
    if (r.client)
        UNTIL(&r.l, g.fins || g.resets || !r.server.session);
    turns(&r, 5);
    assert_int_equal(r.closes, 1);
    if (r.server.session)
        guest_leave(&g);
    rig_close(&r);
}

static void anything_from_anywhere(void **state)
{
    (void)state;
    static void (*const actions[])(rig *) = {do_reset_softly, do_end, do_unpublish,
                                             close_client,    do_all, do_drop};
    for (moment m = IN_VISITOR; m < MOMENTS; m++)
        for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++)
            live("tcp://:", NULL, m, actions[i]);
}

/* What the callback was given stays good while it runs, whatever it does. */
static size_t reset_and_look(void *user, uint64_t stream, const void *p, size_t n)
{
    rig *r = user;
    assert_true(stream == r->stream);
    do_reset(r);
    r->hash = test_hash(0, p, n);
    r->received += n;
    return n;
}

static void bytes_outlive_a_reset(void **state)
{
    (void)state;
    rig r;
    guest g;
    rig_open(&r, "tcp://:", NULL);
    r.use = 0;
    guest_open(&r, &g);
    guest_say(&g, 5000);
    UNTIL(&r.l, r.data_calls);
    turns(&r, 10);
    /* What waited in the ring. */
    assert_int_equal(tunnel_stream_on_data(r.client, r.stream, reset_and_look, &r), 0);
    assert_true(r.received == 5000 && r.hash == hash_of(5000));
    assert_int_equal(r.closes, 0);
    UNTIL(&r.l, r.closes && g.resets);
    rig_close(&r);
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool nth_fails;
static size_t nth, seen;
static bool fails(void)
{
    return nth_fails && ++seen == nth;
}

/* With the nth allocation failing from the visitor's coming on: the stream lives or is aborted, and
 * is told of once. */
static bool live_without_memory(size_t n)
{
    rig r;
    guest g = {.s = NULL};
    rig_open(&r, "tcp://:", NULL);
    r.echo = true;
    memory.fails = fails;
    nth = n;
    seen = 0;
    nth_fails = true;
    int rc = fake_server_open_stream(&r.server, r.tunnel, &g.s, &guest_events, &g);
    unsigned closes = r.server.session_closes;
    while (rc == 0 && !r.visitors && !g.resets && r.server.session_closes == closes)
        assert_true(test_turn(&r.l));
    while (g.s && r.server.session && g.sent < 100000 && test_turn(&r.l))
        guest_say(&g, 100000);
    if (g.s && r.server.session)
        guest_end(&g);
    while (rc == 0 && r.server.session && !g.resets && !(g.fins && r.closes))
        assert_true(test_turn(&r.l));
    nth_fails = false;
    if (r.visitors)
        UNTIL(&r.l, r.closes);
    assert_true(r.closes == (r.visitors ? 1U : 0U));
    if (g.s && r.server.session)
        guest_leave(&g);
    bool all = seen < n;
    if (all)
        assert_true(g.received == 100000 && g.hash == hash_of(100000));
    rig_close(&r);
    memory.fails = NULL;
    return all;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = 1;
    while (!live_without_memory(n))
        n++;
    assert_true(n > 5);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_directions_at_once),
        cmocka_unit_test(who_reads_nothing_is_not_sent_to),
        cmocka_unit_test(what_is_left_comes_again),
        cmocka_unit_test(callbacks_can_be_exchanged),
        cmocka_unit_test(either_side_may_end_first),
        cmocka_unit_test(resets),
        cmocka_unit_test(whom_nobody_takes_is_reset),
        cmocka_unit_test(ids),
        cmocka_unit_test(a_lost_session_ends_its_streams),
        cmocka_unit_test(a_tunnel_may_go_before_its_streams),
        cmocka_unit_test(a_client_that_closes_tells_its_streams),
        cmocka_unit_test(anything_from_anywhere),
        cmocka_unit_test(bytes_outlive_a_reset),
        cmocka_unit_test(each_allocation_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
