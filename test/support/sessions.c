/* SPDX-License-Identifier: Apache-2.0 */
#include "support/sessions.h"

#include <string.h>

#include "support/check.h"
#include "tunnel/error.h"

static const tnl_limits limits = {.max_frame = 65536, .max_streams = 200, .window = 16384};

/* --- sessions --------------------------------------------------------------------------------- */

static void on_open(void *user, tnl_stream *s, const uint8_t *map, size_t n)
{
    test_session *t = user;
    (void)map;
    (void)n;
    if (t->open)
        t->open(t->user, s);
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    (void)user;
    (void)type;
    (void)p;
    (void)n;
    return 0;
}

static void on_session_closed(void *user, int error, const char *detail)
{
    test_session *t = user;
    (void)error;
    (void)detail;
    t->session = NULL;
}

static const tnl_session_events session_events = {
    .open = on_open, .control = on_control, .closed = on_session_closed};

static void on_opened(void *user, tnl_link *l)
{
    test_session *t = user;
    tnl_mux_config config = {.server = t->server,
                             .local = limits,
                             .remote = limits,
                             .max_window = 512 * 1024,
                             .surplus = 4 << 20};
    if (tnl_session_new(&t->session, t->loop, &config, &session_events, t)) {
        t->session = NULL;
        tnl_link_close(l, TUNNEL_E_NOMEM, NULL);
        return;
    }
    int rc = tnl_link_bind(l, t->session);
    if (rc) {
        tnl_session_broken(t->session, rc);
        tnl_link_close(l, TUNNEL_E_NOMEM, NULL);
    }
}

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    (void)user;
    (void)l;
    (void)f;
    return TUNNEL_E_PROTOCOL;
}

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    test_session *t = user;
    (void)l;
    (void)error;
    (void)http_status;
    (void)detail;
    t->link = NULL;
}

static const tnl_link_events link_events = {
    .opened = on_opened, .handshake = on_handshake, .closed = on_link_closed};

static void open_side(test_session *t, test_loop *l, bool server)
{
    static const tnl_link_config config = {
        .handshake_ms = 10000, .silence_ms = 20000, .max_data = 65536, .inflight = 4 << 20};
    t->loop = l->loop;
    t->server = server;
    assert_int_equal(tnl_link_new(&t->link, l->loop, &config, &link_events, t), 0);
}

void test_sessions_open(test_sessions *t, test_loop *l, void (*open)(void *user, tnl_stream *s),
                        void *user)
{
    tnl_transport *a, *b;
    *t = (test_sessions){.client = {.open = open, .user = user}};
    open_side(&t->server, l, true);
    open_side(&t->client, l, false);
    assert_int_equal(tnl_pair_new(&a, tnl_link_transport_events(), t->server.link, &b,
                                  tnl_link_transport_events(), t->client.link, l->loop),
                     0);
    tnl_link_set_transport(t->server.link, a);
    tnl_link_set_transport(t->client.link, b);
    UNTIL(l, t->server.session && t->client.session);
}

void test_sessions_close(test_sessions *t, test_loop *l)
{
    if (t->server.session)
        tnl_session_close(t->server.session, TUNNEL_E_GONE, "the test is over");
    UNTIL(l, !t->server.session && !t->client.session && !t->server.link && !t->client.link);
}

/* --- visitors --------------------------------------------------------------------------------- */

static size_t on_data(void *user, const uint8_t *p, size_t n)
{
    test_visitor *v = user;
    if (v->blocked)
        return 0;
    assert_int_equal(v->fins + v->resets, 0);
    v->hash = test_hash(v->hash, p, n);
    v->received += n;
    return n;
}

static void on_fin(void *user)
{
    test_visitor *v = user;
    v->fins++;
}

static void on_reset(void *user, uint32_t code, const char *text, size_t n)
{
    test_visitor *v = user;
    v->resets++;
    v->code = code;
    size_t len = n < sizeof(v->text) - 1 ? n : sizeof(v->text) - 1;
    memcpy(v->text, text, len);
    v->text[len] = '\0';
    test_visitor_release(v);
}

static void on_room(void *user)
{
    test_visitor_send(user);
}

static const tnl_stream_events events = {
    .data = on_data, .fin = on_fin, .reset = on_reset, .room = on_room};

int test_visitor_open(test_visitor *v, test_sessions *t)
{
    tnl_mux *m = t->server.session ? tnl_session_mux(t->server.session) : NULL;
    int rc = m ? tnl_mux_open(m, &v->stream, (const uint8_t *)"x", 1, &events, v) : TUNNEL_E_GONE;
    if (rc == 0)
        test_visitor_send(v);
    return rc;
}

void test_visitor_send(test_visitor *v)
{
    uint8_t *p;
    while (v->stream && v->sent < v->to_send) {
        size_t n = tnl_stream_space(v->stream, 16384, &p);
        if (n == 0)
            return;
        if (n > v->to_send - v->sent)
            n = (size_t)(v->to_send - v->sent);
        test_fill(p, n, v->sent);
        tnl_stream_commit(v->stream, n);
        v->sent += n;
    }
    if (v->stream && !v->keep_open)
        tnl_stream_fin(v->stream);
}

void test_visitor_unblock(test_visitor *v)
{
    v->blocked = false;
    if (v->stream)
        tnl_stream_resume(v->stream);
}

void test_visitor_release(test_visitor *v)
{
    tnl_stream *s = v->stream;
    v->stream = NULL;
    if (s)
        tnl_stream_release(s);
}

uint64_t test_hash_of(uint64_t n)
{
    uint8_t piece[4096];
    uint64_t hash = 0;
    for (uint64_t at = 0; at < n;) {
        size_t len = n - at < sizeof(piece) ? (size_t)(n - at) : sizeof(piece);
        test_fill(piece, len, at);
        hash = test_hash(hash, piece, len);
        at += len;
    }
    return hash;
}
