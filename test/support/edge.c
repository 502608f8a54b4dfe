/* SPDX-License-Identifier: Apache-2.0 */
#include "support/edge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "auth/token.h"
#include "support/check.h"
#include "tunnel/error.h"

/* --- the server ------------------------------------------------------------------------------- */

static void on_server_closed(void *user)
{
    test_edge *e = user;
    e->server_gone = true;
}

void test_edge_close_server(test_edge *e)
{
    tnl_server *s = e->server;
    e->server = NULL;
    if (s)
        tnl_server_close(s, on_server_closed, e);
}

static void on_event(void *user, const tunnel_event *ev)
{
    test_edge *e = user;
    const char *port = ev->url ? strrchr(ev->url, ':') : NULL;
    e->events[ev->type]++;
    if (ev->type == TUNNEL_EVENT_LISTENING && port && !e->port)
        e->port = (uint16_t)atoi(port + 1);
    if (ev->type == TUNNEL_EVENT_ACCESS) {
        e->status = ev->status;
        snprintf(e->method, sizeof(e->method), "%s", ev->method);
        snprintf(e->host, sizeof(e->host), "%s", ev->host);
        snprintf(e->path, sizeof(e->path), "%s", ev->path ? ev->path : "");
        snprintf(e->visitor, sizeof(e->visitor), "%s", ev->visitor);
        e->bytes_in = ev->bytes_in;
        e->bytes_out = ev->bytes_out;
    }
    if (ev->type == e->close_in)
        test_edge_close_server(e);
}

static int make_server(test_edge *e, const tnl_server_config *config)
{
    char detail[256];
    int rc = tnl_server_new(&e->server, e->l.loop, config, detail, sizeof(detail));
    if (rc)
        return rc;
    tnl_server_on_event(e->server, on_event, e);
    return tnl_server_start(e->server, detail, sizeof(detail));
}

int test_edge_open(test_edge *e, const test_edge_options *o)
{
    memset(e, 0, sizeof(*e));
    e->close_in = (tunnel_event_type)-1;
    test_loop_open(&e->l);
    if (o && o->begin)
        o->begin(o->user);
    tnl_server_config *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    c->listen_count = 1;
    snprintf(c->listen[0].address, sizeof(c->listen[0].address), "127.0.0.1:0");
    snprintf(c->domain, sizeof(c->domain), "test");
    c->silence_ms = o && o->silence_ms ? o->silence_ms : 60000;
    c->answer_timeout_ms = o && o->answer_timeout_ms ? o->answer_timeout_ms : 60000;
    c->access_events = true;
    if (o && o->configure)
        o->configure(c, o->user);
    int rc = tnl_tokens_new(&c->tokens);
    if (rc == 0)
        rc = tnl_tokens_add(c->tokens, "secret");
    if (rc == 0)
        rc = tnl_tokens_add(c->tokens, "other");
    if (rc == 0)
        rc = make_server(e, c);
    if (rc && !e->server)
        tnl_tokens_free(c->tokens);
    free(c);
    return rc;
}

void test_edge_close(test_edge *e)
{
    bool made = e->server != NULL || e->server_gone;
    test_edge_close_server(e);
    UNTIL(&e->l, e->server_gone || !made);
    test_loop_close(&e->l);
}

/* --- calls ------------------------------------------------------------------------------------ */

static size_t call_data(void *user, const uint8_t *p, size_t n)
{
    test_call *c = user;
    if (c->deaf)
        return 0;
    c->text = realloc(c->text, c->n + n + 1);
    assert_non_null(c->text);
    memcpy(c->text + c->n, p, n);
    c->n += n;
    c->text[c->n] = '\0';
    return n;
}

static void call_fin(void *user)
{
    ((test_call *)user)->fins++;
}

static void call_reset(void *user, uint32_t code, const char *text, size_t n)
{
    test_call *c = user;
    tnl_stream *s = c->stream;
    (void)code;
    (void)text;
    (void)n;
    c->resets++;
    c->stream = NULL;
    tnl_stream_release(s);
}

static const tnl_stream_events call_events = {
    .data = call_data, .fin = call_fin, .reset = call_reset};

void test_call_answer_bytes(test_call *c, const void *p, size_t n)
{
    const char *from = p;
    while (n && c->stream) {
        size_t done = tnl_stream_write(c->stream, from, n);
        from += done;
        n -= done;
        if (n && !test_turn(&c->service->edge->l))
            fail_msg("the answer is not taken");
    }
}

void test_call_answer(test_call *c, const char *text)
{
    test_call_answer_bytes(c, text, strlen(text));
}

void test_call_fin(test_call *c)
{
    if (c->stream)
        tnl_stream_fin(c->stream);
}

void test_call_reset(test_call *c, int code, const char *text)
{
    tnl_stream *s = c->stream;
    c->stream = NULL;
    if (!s)
        return;
    tnl_stream_reset(s, code, text);
    tnl_stream_release(s);
}

void test_call_listen(test_call *c)
{
    c->deaf = false;
    if (c->stream)
        tnl_stream_resume(c->stream);
}

bool test_call_has(const test_call *c, const char *text)
{
    return c->n && memmem(c->text, c->n, text, strlen(text));
}

void test_call_forget(test_call *c)
{
    c->skipped += c->n;
    c->n = 0;
    if (c->text)
        c->text[0] = '\0';
}

/* --- the client ------------------------------------------------------------------------------- */

static void session_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    test_service *s = user;
    tnl_open o;
    if (s->count == TEST_CALLS || tnl_open_decode(&o, map, n))
        return;
    test_call *c = &s->calls[s->count++];
    *c = (test_call){.service = s, .stream = stream, .open = o};
    snprintf(c->visitor, sizeof(c->visitor), "%.*s", (int)o.visitor.n, o.visitor.p);
    snprintf(c->server, sizeof(c->server), "%.*s", (int)o.server.n, o.server.p);
    c->open.visitor = c->open.server = (tnl_str){NULL, 0};
    tnl_stream_set_events(stream, &call_events, c);
}

static int session_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    test_service *s = user;
    tnl_published published;
    tnl_publish_failed failed;
    tnl_goaway goaway;
    if (type == TNL_CONTROL_PUBLISHED && tnl_published_decode(&published, p, n) == 0) {
        s->published++;
        snprintf(s->name, sizeof(s->name), "%.*s", (int)published.name.n, published.name.p);
        snprintf(s->url, sizeof(s->url), "%.*s", (int)published.url.n, published.url.p);
        s->port = (uint16_t)published.port;
    } else if (type == TNL_CONTROL_PUBLISH_FAILED &&
               tnl_publish_failed_decode(&failed, p, n) == 0) {
        s->refused++;
        s->code = -(int)failed.code;
        snprintf(s->text, sizeof(s->text), "%.*s", (int)failed.message.n, failed.message.p);
    } else if (type == TNL_CONTROL_GOAWAY && tnl_goaway_decode(&goaway, p, n) == 0) {
        s->goaways[goaway.final]++;
    }
    return 0;
}

static void session_event(void *user, const uint8_t *map, size_t n)
{
    test_service *s = user;
    tnl_event e;
    if (tnl_event_decode(&e, map, n))
        return;
    s->event_count++;
    snprintf(s->last_event, sizeof(s->last_event), "%.*s %.*s %u", (int)e.method.n, e.method.p,
             (int)e.path.n, e.path.p, e.status);
}

static void session_datagram(void *user, const tnl_datagram *d)
{
    const test_service *s = user;
    if (s->on_datagram)
        s->on_datagram(s->datagram_user, d);
}

static void session_closed(void *user, int error, const char *detail)
{
    test_service *s = user;
    (void)error;
    (void)detail;
    s->session = NULL;
}

static const tnl_session_events session_events = {.open = session_open,
                                                  .control = session_control,
                                                  .event = session_event,
                                                  .datagram = session_datagram,
                                                  .closed = session_closed};

static void link_opened(void *user, tnl_link *l)
{
    test_service *s = user;
    uint8_t bytes[512];
    tnl_frame f = {.type = TNL_FRAME_HELLO, .rest = bytes};
    f.rest_len = tnl_hello_encode(bytes, sizeof(bytes), &s->hello);
    assert_true(f.rest_len > 0);
    (void)tnl_link_send(l, &f);
}

static int link_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    test_service *s = user;
    tnl_welcome w;
    if (f->type != TNL_FRAME_WELCOME || s->session || tnl_welcome_decode(&w, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    tnl_mux_config config = {
        .local = s->hello.limits, .remote = w.limits, .max_window = 512 * 1024, .surplus = 4 << 20};
    int rc = tnl_session_new(&s->session, s->edge->l.loop, &config, &session_events, s);
    if (rc)
        return rc;
    rc = tnl_link_bind(l, s->session);
    if (rc)
        tnl_session_broken(s->session, rc);
    return rc;
}

static void link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    test_service *s = user;
    (void)l;
    (void)error;
    (void)http_status;
    snprintf(s->why, sizeof(s->why), "%s", detail ? detail : "");
    s->link = NULL;
    s->failed = !s->session;
}

static const tnl_link_events link_events = {
    .opened = link_opened, .handshake = link_handshake, .closed = link_closed};

static void on_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    test_service *s = user;
    tnl_transport *t;
    static const tnl_link_config config = {
        .handshake_ms = 10000, .silence_ms = 60000, .max_data = 65536, .inflight = 1 << 20};
    (void)detail;
    s->dial = NULL;
    s->failed = error != 0;
    if (error)
        return;
    if (tnl_link_new(&s->link, s->edge->l.loop, &config, &link_events, s)) {
        tnl_conn_close(c);
        s->failed = true;
    } else if (tnl_ws_connect(&t, s->ws, c, "test", "/__tunnel__/link", s->authorization,
                              tnl_link_transport_events(), s->link)) {
        tnl_link_discard(s->link);
        s->link = NULL;
        s->failed = true;
    } else {
        tnl_link_set_transport(s->link, t);
    }
}

void test_service_start(test_service *s, test_edge *e, const char *token, uint8_t instance)
{
    memset(s, 0, sizeof(*s));
    s->edge = e;
    s->authorization = strcmp(token, "secret") == 0 ? "Bearer secret" : "Bearer other";
    s->hello = (tnl_hello){
        .version_min = 1,
        .version_max = 1,
        .instance = {instance},
        .limits = {.max_frame = 65536, .max_streams = TEST_CALLS, .window = 16384}};
    s->failed = tnl_ws_new(&s->ws, e->l.loop, NULL, NULL) ||
                tnl_connect_start(&s->dial, e->l.loop, "127.0.0.1", e->port, NULL, 5000,
                                  on_connected, s);
}

void test_service_open(test_service *s, test_edge *e, const char *name)
{
    static uint8_t instance;
    test_service_start(s, e, "secret", ++instance);
    UNTIL(&e->l, s->session);
    test_service_publish(s, 1, name);
    UNTIL(&e->l, s->published);
}

static void control(test_service *s, uint8_t type, const uint8_t *bytes, size_t n)
{
    tnl_mux *m = s->session ? tnl_session_mux(s->session) : NULL;
    int rc = m ? tnl_mux_control(m, type, bytes, n) : 0;
    if (rc)
        tnl_session_broken(s->session, rc);
}

void test_service_publish_as(test_service *s, const tnl_publish *m)
{
    uint8_t bytes[1024];
    control(s, TNL_CONTROL_PUBLISH, bytes, tnl_publish_encode(bytes, sizeof(bytes), m));
}

void test_service_publish(test_service *s, uint64_t id, const char *name)
{
    tnl_publish m = {.tunnel = id, .kind = tnl_str_of("http"), .name = tnl_str_of(name)};
    test_service_publish_as(s, &m);
}

void test_service_unpublish(test_service *s, uint64_t id)
{
    uint8_t bytes[32];
    tnl_unpublish m = {.tunnel = id};
    control(s, TNL_CONTROL_UNPUBLISH, bytes, tnl_unpublish_encode(bytes, sizeof(bytes), &m));
}

bool test_service_over(const test_service *s)
{
    return !s->dial && !s->link && !s->session;
}

void test_service_close(test_service *s)
{
    if (s->session)
        tnl_session_close(s->session, TUNNEL_E_GONE, NULL);
    else if (s->link)
        tnl_link_close(s->link, 0, NULL);
    UNTIL(&s->edge->l, test_service_over(s));
    if (s->ws)
        tnl_ws_free(s->ws);
    for (size_t i = 0; i < s->count; i++)
        free(s->calls[i].text);
}

test_call *test_service_await(test_service *s, size_t n)
{
    UNTIL(&s->edge->l, s->count >= n && test_call_has(&s->calls[n - 1], "\r\n\r\n"));
    assert_int_equal(s->count, n);
    return &s->calls[n - 1];
}

/* --- visitors --------------------------------------------------------------------------------- */

uint16_t test_free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    close(fd);
    return ntohs(sa.sin_port);
}

static void connect_guest(test_guest *g, test_edge *e, uint16_t port, bool narrow)
{
    static const int least = 1;
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    *g = (test_guest){.edge = e};
    g->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(g->fd >= 0);
    if (narrow)
        setsockopt(g->fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    assert_int_equal(connect(g->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

void test_guest_open(test_guest *g, test_edge *e)
{
    connect_guest(g, e, e->port, false);
}

void test_guest_open_at(test_guest *g, test_edge *e, uint16_t port)
{
    connect_guest(g, e, port, false);
}

/* The server's end of it is in this very process. */
static bool narrow_other_end(const test_guest *g)
{
    static const int least = 1;
    struct sockaddr_in own, peer;
    socklen_t n = sizeof(own);
    assert_int_equal(getsockname(g->fd, (struct sockaddr *)&own, &n), 0);
    for (int fd = 3; fd < 1024; fd++) {
        n = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &n) == 0 && peer.sin_family == AF_INET &&
            peer.sin_port == own.sin_port)
            return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)) == 0;
    }
    return false;
}

void test_guest_open_narrow(test_guest *g, test_edge *e)
{
    connect_guest(g, e, e->port, true);
    UNTIL(&e->l, narrow_other_end(g));
}

size_t test_guest_say_some(test_guest *g, const void *p, size_t n)
{
    ssize_t done = send(g->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return done > 0 ? (size_t)done : 0;
}

void test_guest_say(test_guest *g, const char *text)
{
    size_t n = strlen(text);
    while (n) {
        size_t done = test_guest_say_some(g, text, n);
        text += done;
        n -= done;
        if (n && !test_turn(&g->edge->l))
            fail_msg("what the visitor says is not read");
    }
}

void test_guest_shutdown(test_guest *g)
{
    shutdown(g->fd, SHUT_WR);
}

void test_guest_leave(test_guest *g, bool reset)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    if (g->fd < 0)
        return;
    if (reset)
        setsockopt(g->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(g->fd);
    g->fd = -1;
}

void test_guest_free(test_guest *g)
{
    test_guest_leave(g, false);
    free(g->text);
    g->text = NULL;
}

static void hear(test_guest *g)
{
    static char piece[64 * 1024];
    while (g->fd >= 0 && !g->slow && !g->ended && !g->reset) {
        ssize_t n = recv(g->fd, piece, sizeof(piece), MSG_DONTWAIT);
        g->ended = n == 0;
        g->reset = n < 0 && errno != EAGAIN;
        if (n <= 0)
            return;
        g->text = realloc(g->text, g->n + (size_t)n + 1);
        assert_non_null(g->text);
        memcpy(g->text + g->n, piece, (size_t)n);
        g->n += (size_t)n;
        g->text[g->n] = '\0';
    }
}

bool test_guest_hears(test_guest *g, const char *text)
{
    hear(g);
    return g->n && memmem(g->text, g->n, text, strlen(text));
}

bool test_guest_ended(test_guest *g)
{
    hear(g);
    return g->ended || g->reset;
}

size_t test_guest_counts(test_guest *g, const char *text)
{
    size_t count = 0;
    hear(g);
    for (const char *p = g->text;
         p && (p = memmem(p, g->n - (size_t)(p - g->text), text, strlen(text))); p++)
        count++;
    return count;
}

void test_guest_forget(test_guest *g)
{
    g->n = 0;
    if (g->text)
        g->text[0] = '\0';
}
