/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fake_server.h"

#include <stdio.h>
#include <string.h>

#include "support/check.h"
#include "tunnel/error.h"

static const tnl_limits limits = {.max_frame = 65536, .max_streams = 0, .window = 16384};

/* --- control ---------------------------------------------------------------------------------- */

static void control(fake_server *s, uint8_t type, const uint8_t *bytes, size_t n)
{
    int rc = 0;
    assert_true(n > 0);
    if (s->session && tnl_session_mux(s->session))
        rc = tnl_mux_control(tnl_session_mux(s->session), type, bytes, n);
    if (rc)
        tnl_session_broken(s->session, rc);
}

void fake_server_publish_failed(fake_server *s, uint64_t tunnel, int code, const char *text)
{
    uint8_t bytes[1024];
    tnl_publish_failed m = {.tunnel = tunnel, .code = (uint32_t)-code, .message = tnl_str_of(text)};
    control(s, TNL_CONTROL_PUBLISH_FAILED, bytes,
            tnl_publish_failed_encode(bytes, sizeof(bytes), &m));
}

static int on_publish(fake_server *s, const uint8_t *p, size_t n)
{
    char url[300];
    uint8_t bytes[1024];
    tnl_publish m;
    assert_true(n <= sizeof(s->last_publish));
    memcpy(s->last_publish, p, n);
    assert_int_equal(tnl_publish_decode(&m, s->last_publish, n), 0);
    s->last = m;
    s->publishes++;
    s->last_tunnel = m.tunnel;
    snprintf(s->last_name, sizeof(s->last_name), "%.*s", (int)m.name.n, m.name.p ? m.name.p : "");
    snprintf(s->last_host_header, sizeof(s->last_host_header), "%.*s", (int)m.host_header.n,
             m.host_header.p ? m.host_header.p : "");
    if (s->ignore_publish)
        return 0;
    if (s->taken && strcmp(s->taken, s->last_name) == 0) {
        fake_server_publish_failed(s, m.tunnel, TUNNEL_E_NAME_TAKEN, "held by another");
        return 0;
    }
    if (s->publish_error) {
        fake_server_publish_failed(s, m.tunnel, s->publish_error, s->publish_text);
        return 0;
    }
    const char *name = s->last_name[0] && !s->chooses ? s->last_name : s->chosen;
    snprintf(url, sizeof(url), "http://%s.test", name);
    tnl_published reply = {.tunnel = m.tunnel, .name = tnl_str_of(name), .url = tnl_str_of(url)};
    if (tnl_str_eq(m.kind, "tcp") || tnl_str_eq(m.kind, "udp")) {
        reply.name = tnl_str_of(NULL);
        reply.port = m.port ? m.port : s->chosen_port;
    }
    control(s, TNL_CONTROL_PUBLISHED, bytes, tnl_published_encode(bytes, sizeof(bytes), &reply));
    return 0;
}

static int on_control(void *user, uint8_t type, const uint8_t *p, size_t n)
{
    fake_server *s = user;
    if (type == TNL_CONTROL_PUBLISH)
        return on_publish(s, p, n);
    s->unpublishes += type == TNL_CONTROL_UNPUBLISH;
    return 0;
}

static void on_open(void *user, tnl_stream *stream, const uint8_t *map, size_t n)
{
    (void)user;
    (void)stream;
    (void)map;
    (void)n;
}

static void on_session_closed(void *user, int error, const char *detail)
{
    fake_server *s = user;
    (void)detail;
    s->session = NULL;
    s->session_closes++;
    s->session_error = error;
}

static void on_datagram(void *user, const tnl_datagram *d)
{
    fake_server *s = user;
    s->datagrams++;
    s->last_flow = d->flow;
}

static const tnl_session_events session_events = {
    .open = on_open, .control = on_control, .datagram = on_datagram, .closed = on_session_closed};

/* --- link ------------------------------------------------------------------------------------- */

static int on_handshake(void *user, tnl_link *l, const tnl_frame *f)
{
    fake_server *s = user;
    uint8_t bytes[512];
    tnl_hello hello;
    if (f->type == TNL_FRAME_ATTACH) {
        s->attaches++;
        return TUNNEL_E_GONE;
    }
    if (f->type != TNL_FRAME_HELLO || tnl_hello_decode(&hello, f->rest, f->rest_len))
        return TUNNEL_E_PROTOCOL;
    s->hellos++;
    s->force = hello.force;
    memcpy(s->instance, hello.instance, sizeof(s->instance));
    if (s->refuse || s->no_welcome)
        return s->refuse;
    tnl_mux_config config = {.server = true,
                             .local = limits,
                             .remote = hello.limits,
                             .max_window = 512 * 1024,
                             .surplus = 4 << 20};
    tnl_welcome w = {.version = s->bad_welcome ? 99 : 1, .generation = 1, .limits = limits};
    w.grace_ms = s->grace_ms;
    tnl_frame reply = {.type = TNL_FRAME_WELCOME, .rest = bytes};
    reply.rest_len = tnl_welcome_encode(bytes, sizeof(bytes), &w);
    int rc = tnl_session_new(&s->session, s->l->loop, &config, &session_events, s);
    if (rc) {
        s->session = NULL;
        return rc;
    }
    rc = tnl_link_bind(l, s->session);
    if (rc)
        tnl_session_broken(s->session, rc);
    return rc ? rc : tnl_link_send(l, &reply);
}

static void on_link_closed(void *user, tnl_link *l, int error, int http_status, const char *detail)
{
    fake_server *s = user;
    (void)error;
    (void)http_status;
    (void)detail;
    if (s->link == l)
        s->link = NULL;
}

static const tnl_link_events link_events = {.handshake = on_handshake, .closed = on_link_closed};

static void upgrade(fake_server *s)
{
    static const tnl_link_config config = {
        .handshake_ms = 20000, .silence_ms = 20000, .max_data = 65536, .inflight = 4 << 20};
    tnl_conn *c = s->conn;
    tnl_transport *t;
    s->conn = NULL;
    tnl_conn_pause(c);
    if (tnl_link_new(&s->link, s->l->loop, &config, &link_events, s)) {
        s->link = NULL;
        s->conn = c;
        tnl_conn_close(c);
        return;
    }
    if (tnl_ws_accept(&t, s->ws, c, s->head, s->head_n, tnl_link_transport_events(), s->link)) {
        tnl_link_discard(s->link);
        s->link = NULL;
        return;
    }
    tnl_link_set_transport(s->link, t);
}

/* --- connection ------------------------------------------------------------------------------- */

static size_t conn_space(void *user, uint8_t **p)
{
    fake_server *s = user;
    *p = s->head + s->head_n;
    return sizeof(s->head) - 1 - s->head_n;
}

static void conn_data(void *user, uint8_t *p, size_t n)
{
    fake_server *s = user;
    (void)p;
    s->head_n += n;
    s->head[s->head_n] = '\0';
    if (s->mute || !memmem(s->head, s->head_n, "\r\n\r\n", 4))
        return;
    if (s->answer) {
        test_send(s->conn, s->answer, strlen(s->answer));
        tnl_conn_finish(s->conn);
        return;
    }
    upgrade(s);
}

static void conn_eof(void *user)
{
    fake_server *s = user;
    if (s->conn)
        tnl_conn_close(s->conn);
}

static void conn_closed(void *user, int error, const char *detail)
{
    fake_server *s = user;
    (void)error;
    (void)detail;
    s->conn = NULL;
}

static const tnl_conn_events conn_events = {
    .space = conn_space, .data = conn_data, .eof = conn_eof, .closed = conn_closed};

static void ignore_closed(void *user, int error, const char *detail)
{
    (void)user;
    (void)error;
    (void)detail;
}

static const tnl_conn_events no_events = {.closed = ignore_closed};

static void on_accept(void *user, tnl_conn *c)
{
    fake_server *s = user;
    s->accepted++;
    if (s->conn) {
        tnl_conn_set_events(s->conn, &no_events, NULL);
        tnl_conn_close(s->conn);
    }
    s->head_n = 0;
    s->conn = c;
    if (s->tls) {
        if (tnl_tls_accept(&s->conn, s->tls, c, NULL, 0, &conn_events, s))
            return;
    } else {
        tnl_conn_set_events(c, &conn_events, s);
    }
    tnl_conn_resume(s->conn);
}

/* --- life ------------------------------------------------------------------------------------- */

void fake_server_open(fake_server *s, test_loop *l, const char *address)
{
    s->l = l;
    s->chosen = s->chosen ? s->chosen : "calm-otter-1";
    s->publish_text = s->publish_text ? s->publish_text : "";
    assert_int_equal(tnl_ws_new(&s->ws, l->loop, NULL, NULL), 0);
    assert_int_equal(tnl_listener_new(&s->listener, l->loop, address ? address : "127.0.0.1:0",
                                      on_accept, s, NULL, 0),
                     0);
}

uint16_t fake_server_port(const fake_server *s)
{
    return tnl_listener_address(s->listener).port;
}

void fake_server_end_session(fake_server *s, int code, const char *text)
{
    if (s->session)
        tnl_session_close(s->session, code, text);
}

void fake_server_drop(fake_server *s)
{
    if (s->conn)
        tnl_conn_close(s->conn);
    if (s->session)
        tnl_session_close(s->session, 0, NULL);
    else if (s->link)
        tnl_link_close(s->link, 0, NULL);
    UNTIL(s->l, !s->conn && !s->link && !s->session);
}

void fake_server_close(fake_server *s)
{
    tnl_listener_free(s->listener);
    fake_server_drop(s);
    if (s->tls)
        tnl_tls_server_unref(s->tls);
    tnl_ws_free(s->ws);
}

static void goaway(fake_server *s, bool final, const char *text)
{
    uint8_t bytes[1024];
    tnl_goaway m = {.final = final, .message = tnl_str_of(text)};
    control(s, TNL_CONTROL_GOAWAY, bytes, tnl_goaway_encode(bytes, sizeof(bytes), &m));
}

void fake_server_goaway(fake_server *s, const char *text)
{
    goaway(s, false, text);
}

void fake_server_goaway_final(fake_server *s, const char *text)
{
    goaway(s, true, text);
}

void fake_server_request_event(fake_server *s, uint64_t tunnel, const char *path)
{
    uint8_t bytes[2048];
    tnl_event e = {.event = tnl_str_of("request"),
                   .tunnel = tunnel,
                   .method = tnl_str_of("GET"),
                   .path = tnl_str_of(path),
                   .status = 200,
                   .duration_us = 1234,
                   .received = 5,
                   .sent = 6,
                   .visitor = tnl_str_of("192.0.2.1")};
    size_t n = tnl_event_encode(bytes, sizeof(bytes), &e);
    assert_true(n > 0);
    tnl_mux_event(tnl_session_mux(s->session), bytes, n);
}

int fake_server_open_stream(fake_server *s, uint64_t tunnel, tnl_stream **out,
                            const tnl_stream_events *ev, void *user)
{
    return fake_server_open_port(s, tunnel, 0, out, ev, user);
}

int fake_server_open_port(fake_server *s, uint64_t tunnel, uint32_t target, tnl_stream **out,
                          const tnl_stream_events *ev, void *user)
{
    uint8_t bytes[256];
    tnl_open m = {.tunnel = tunnel,
                  .visitor = tnl_str_of("192.0.2.1"),
                  .port = 4711,
                  .server = tnl_str_of("198.51.100.7"),
                  .server_port = 20022,
                  .target = target};
    size_t n = tnl_open_encode(bytes, sizeof(bytes), &m);
    assert_true(n > 0);
    tnl_mux *mux = s->session ? tnl_session_mux(s->session) : NULL;
    return mux ? tnl_mux_open(mux, out, bytes, n, ev, user) : TUNNEL_E_GONE;
}
