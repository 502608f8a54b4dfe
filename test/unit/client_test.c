/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/fake_server.h"
#include "support/memory.h"
#include "support/sessions.h"
#include "tunnel/error.h"

#define EVENTS 32

/* A client, a server that does as it is told, and a local service that sends back what it gets. */
typedef struct rig {
    test_loop l;
    fake_server server;
    tnl_client *client; /* NULL once closed */
    tnl_client_config config;
    tnl_upstream upstream;
    tnl_listener *service;
    test_peer up;
    uint64_t tunnel;
    unsigned closes;
    /* events */
    unsigned count[EVENTS];
    int error; /* of the last event that had one */
    char text[1200];
    char url[300];
    char method[64], path[1200], visitor[64];
    uint64_t failed_tunnel;
    int close_in; /* the event in whose callback the client is closed; 0: none */
} rig;

/* Publishes a http tunnel to an address; the upstream is the client's then. */
static int forward(tnl_client *c, const char *name, const tnl_upstream *upstream,
                   const char *host_header, uint64_t *tunnel)
{
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = *upstream};
    snprintf(spec.name, sizeof(spec.name), "%s", name);
    snprintf(spec.host_header, sizeof(spec.host_header), "%s", host_header ? host_header : "");
    return tnl_client_publish(c, &spec, tunnel);
}

static void on_client_closed(void *user)
{
    rig *r = user;
    r->closes++;
    r->client = NULL;
}

static void on_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    assert_non_null(r->client);
    assert_true(tunnel_event_get_type(e) < EVENTS);
    r->count[tunnel_event_get_type(e)]++;
    if (tunnel_event_error(e))
        r->error = tunnel_event_error(e);
    snprintf(r->text, sizeof(r->text), "%s", tunnel_event_text(e));
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED)
        snprintf(r->url, sizeof(r->url), "%s", tunnel_event_url(e));
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_FAILED)
        r->failed_tunnel = tunnel_event_tunnel(e);
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_REQUEST) {
        snprintf(r->method, sizeof(r->method), "%s", tunnel_event_method(e));
        snprintf(r->path, sizeof(r->path), "%s", tunnel_event_path(e));
        snprintf(r->visitor, sizeof(r->visitor), "%s", tunnel_event_visitor(e));
        assert_int_equal(tunnel_event_status(e), 200);
        assert_true(tunnel_event_duration_us(e) == 1234);
        assert_true(tunnel_event_bytes_in(e) == 5 && tunnel_event_bytes_out(e) == 6);
    }
    if (r->close_in == (int)tunnel_event_get_type(e)) {
        r->close_in = 0;
        tnl_client_close(r->client, on_client_closed, r);
        tnl_client_close(r->client, on_client_closed, r);
        assert_int_equal(r->closes, 0); /* never from inside the call */
    }
}

static void on_accept(void *user, tnl_conn *c)
{
    rig *r = user;
    if (r->up.c) {
        tnl_conn_close(c);
        return;
    }
    r->up.eofs = r->up.closes = 0;
    test_peer_attach(&r->up, c);
    tnl_conn_resume(c);
}

static void rig_open(rig *r)
{
    char text[64], detail[200];
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    test_peer_init(&r->up);
    r->up.echo = r->up.echo_end = true;
    assert_int_equal(tnl_listener_new(&r->service, r->l.loop, "127.0.0.1:0", on_accept, r, NULL, 0),
                     0);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(r->service).port);
    assert_int_equal(tnl_upstream_parse(&r->upstream, text, NULL, detail, sizeof(detail)), 0);
    fake_server_open(&r->server, &r->l, NULL);
    snprintf(text, sizeof(text), "ws://127.0.0.1:%u", fake_server_port(&r->server));
    assert_int_equal(tnl_url_parse(&r->config.servers[0], text), 0);
    snprintf(r->config.token, sizeof(r->config.token), "SECRET");
    memset(r->config.instance, 7, sizeof(r->config.instance));
    r->config.silence_ms = 20000;
}

static void rig_make(rig *r)
{
    char detail[300] = "";
    assert_int_equal(tnl_client_new(&r->client, r->l.loop, &r->config, detail, sizeof(detail)), 0);
    tnl_client_on_event(r->client, on_event, r);
}

static void publish(rig *r, const char *name)
{
    assert_int_equal(forward(r->client, name, &r->upstream, NULL, &r->tunnel), 0);
}

static void rig_start(rig *r)
{
    rig_make(r);
    publish(r, "demo");
    assert_int_equal(tnl_client_start(r->client), 0);
}

static void rig_live(rig *r)
{
    rig_start(r);
    UNTIL(&r->l, r->count[TUNNEL_EVENT_PUBLISHED] == 1);
}

static void rig_close(rig *r)
{
    if (r->client)
        tnl_client_close(r->client, on_client_closed, r);
    UNTIL(&r->l, !r->client);
    if (r->up.c)
        tnl_conn_close(r->up.c);
    UNTIL(&r->l, !r->up.c);
    test_peer_free(&r->up);
    tnl_listener_free(r->service);
    fake_server_close(&r->server);
    test_loop_close(&r->l);
    assert_int_equal(r->closes, 1);
    assert_int_equal(memory.live, 0);
}

static void turns(rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

/* --- a visitor's stream ----------------------------------------------------------------------- */

typedef struct visitor {
    tnl_stream *stream;
    uint64_t received;
    unsigned fins, resets;
} visitor;

static size_t visitor_data(void *user, const uint8_t *p, size_t n)
{
    visitor *v = user;
    (void)p;
    v->received += n;
    return n;
}

static void visitor_fin(void *user)
{
    visitor *v = user;
    v->fins++;
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

static int visitor_open(visitor *v, rig *r, uint64_t tunnel)
{
    int rc = fake_server_open_stream(&r->server, tunnel, &v->stream, &visitor_events, v);
    if (rc == 0)
        tnl_stream_write(v->stream, "hello", 5);
    return rc;
}

static void visitor_release(visitor *v)
{
    if (v->stream)
        tnl_stream_release(v->stream);
    v->stream = NULL;
}

/* --- the usual -------------------------------------------------------------------------------- */

static void it_connects_publishes_and_forwards(void **state)
{
    (void)state;
    rig r;
    visitor v = {.received = 0};
    rig_open(&r);
    r.config.force = true;
    rig_make(&r);
    assert_int_equal(forward(r.client, "demo", &r.upstream, "app.test:81", &r.tunnel), 0);
    turns(&r, 5);
    assert_int_equal(r.server.accepted, 0);
    assert_int_equal(tnl_client_start(r.client), 0);
    assert_int_equal(tnl_client_start(r.client), TUNNEL_E_STATE);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    assert_string_equal(r.url, "http://demo.test");
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTING], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    /* What the server was told. */
    assert_string_equal(r.server.last_name, "demo");
    assert_string_equal(r.server.last_host_header, "app.test:81");
    assert_true(r.server.force);
    assert_memory_equal(r.server.instance, r.config.instance, TNL_ID_SIZE);
    assert_non_null(
        strcasestr((const char *)r.server.head, "\r\nAuthorization: Bearer SECRET\r\n"));
    assert_memory_equal(r.server.head, "GET /__tunnel__/link HTTP/1.1\r\n", 31);
    /* A visitor comes. */
    assert_int_equal(visitor_open(&v, &r, r.tunnel), 0);
    UNTIL(&r.l, v.received == 5);
    tnl_stream_fin(v.stream);
    UNTIL(&r.l, v.fins);
    visitor_release(&v);
    /* One for a tunnel that is not there is refused. */
    assert_int_equal(visitor_open(&v, &r, r.tunnel + 1), 0);
    UNTIL(&r.l, v.resets);
    /* Tunnels can be added while it is live. */
    publish(&r, "other");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_string_equal(r.url, "http://other.test");
    assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), 0);
    assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), TUNNEL_E_NOT_FOUND);
    UNTIL(&r.l, r.server.unpublishes == 1);
    tnl_client_close(r.client, on_client_closed, &r);
    UNTIL(&r.l, r.server.session_closes == 1);
    assert_int_equal(r.server.session_error, TUNNEL_E_GONE);
    rig_close(&r);
}

static void what_the_server_tells_is_escaped(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_live(&r);
    fake_server_request_event(&r.server, r.tunnel, "/a\"b\\c?d=\xc3\xa4");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_REQUEST]);
    assert_string_equal(r.method, "GET");
    assert_string_equal(r.path, "/a\\x22b\\x5cc?d=\\xc3\\xa4");
    assert_string_equal(r.visitor, "192.0.2.1");
    fake_server_request_event(&r.server, r.tunnel + 1, "/not-mine");
    fake_server_goaway(&r.server, "back in a minute");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_DRAINING]);
    assert_string_equal(r.text, "back in a minute");
    assert_int_equal(r.count[TUNNEL_EVENT_REQUEST], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    rig_close(&r);
}

/* --- trying again ----------------------------------------------------------------------------- */

static void it_waits_for_a_server_that_is_not_there(void **state)
{
    (void)state;
    rig r;
    char address[64];
    rig_open(&r);
    snprintf(address, sizeof(address), "127.0.0.1:%u", fake_server_port(&r.server));
    fake_server_close(&r.server);
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 2);
    assert_int_equal(r.error, TUNNEL_E_REFUSED);
    assert_non_null(strstr(r.text, "refused"));
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTING], 2);
    r.server = (fake_server){.l = NULL};
    fake_server_open(&r.server, &r.l, address);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
    rig_close(&r);
}

static void it_comes_back_with_the_same_name(void **state)
{
    (void)state;
    rig r;
    visitor v = {.received = 0};
    rig_open(&r);
    rig_make(&r);
    publish(&r, "");
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 1);
    assert_string_equal(r.server.last_name, "");
    assert_string_equal(r.url, "http://calm-otter-1.test");
    assert_int_equal(visitor_open(&v, &r, r.tunnel), 0);
    UNTIL(&r.l, v.received == 5);
    r.server.chosen = "another";
    fake_server_end_session(&r.server, TUNNEL_E_GONE, "back soon\x1b[0m");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 1);
    assert_int_equal(r.error, TUNNEL_E_GONE);
    assert_string_equal(r.text, "back soon?[0m");
    assert_int_equal(v.resets, 1);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_string_equal(r.server.last_name, "calm-otter-1");
    assert_string_equal(r.url, "http://calm-otter-1.test");
    /* And it works again. */
    UNTIL(&r.l, !r.up.c);
    assert_int_equal(visitor_open(&v, &r, r.tunnel), 0);
    UNTIL(&r.l, v.received == 10);
    visitor_release(&v);
    rig_close(&r);
}

static void answers_that_are_no_upgrade(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int error;
        bool final;
        const char *says;
    } cases[] = {
        {"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 56\r\n\r\n"
         "{\"error\":\"AUTH_FAILED\",\"message\":\"not a known token: x\"}",
         TUNNEL_E_AUTH_FAILED, true, "not a known token"},
        {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_AUTH_FAILED, true,
         "401"},
        {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_DENIED, true, "403"},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_NOT_TUNNEL, false, "404"},
        {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_NOT_TUNNEL,
         false, "redirect"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_NOT_TUNNEL, false, "200"},
        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_GONE, false,
         "503"},
        {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", TUNNEL_E_GONE, false,
         "429"},
        {"SSH-2.0-OpenSSH_9\r\n", TUNNEL_E_NOT_TUNNEL, false, "HTTP"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        rig_open(&r);
        r.server.answer = cases[i].answer;
        rig_start(&r);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] || r.count[TUNNEL_EVENT_FAILED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], cases[i].final);
        assert_int_equal(r.error, cases[i].error);
        assert_int_equal(r.failed_tunnel, 0);
        if (!strstr(r.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", r.text, cases[i].says);
        if (!cases[i].final)
            UNTIL(&r.l, r.server.accepted == 2);
        rig_close(&r);
    }
}

static void refusals_by_close(void **state)
{
    (void)state;
    static const struct {
        int code;
        bool final;
    } cases[] = {{TUNNEL_E_VERSION, true},        {TUNNEL_E_AUTH_FAILED, true},
                 {TUNNEL_E_REPLACED, true},       {TUNNEL_E_DENIED, true},
                 {TUNNEL_E_LIMIT_EXCEEDED, true}, {TUNNEL_E_GONE, false},
                 {TUNNEL_E_PROTOCOL, false},      {TUNNEL_E_NOMEM, false}};
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(*cases); i++) {
        rig r;
        bool live = i % 2;
        rig_open(&r);
        if (live) {
            rig_live(&r);
            fake_server_end_session(&r.server, cases[i / 2].code,
                                    tunnel_strerror(cases[i / 2].code));
        } else {
            r.server.refuse = cases[i / 2].code;
            rig_start(&r);
        }
        UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] || r.count[TUNNEL_EVENT_FAILED]);
        assert_int_equal(r.count[TUNNEL_EVENT_FAILED], cases[i / 2].final);
        assert_int_equal(r.error, cases[i / 2].code);
        assert_int_equal(r.failed_tunnel, 0);
        assert_string_equal(r.text, tunnel_strerror(cases[i / 2].code));
        if (cases[i / 2].final) {
            /* It stays like that. */
            unsigned accepted = r.server.accepted;
            turns(&r, 80);
            assert_int_equal(r.server.accepted, accepted);
            assert_int_equal(forward(r.client, "x", &r.upstream, NULL, NULL), TUNNEL_E_STATE);
        } else {
            UNTIL(&r.l, r.server.accepted == 2);
        }
        rig_close(&r);
    }
}

static void a_bad_welcome_is_not_taken(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.server.bad_welcome = true;
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.error, TUNNEL_E_VERSION);
    assert_int_equal(r.count[TUNNEL_EVENT_CONNECTED], 0);
    rig_close(&r);
}

/* --- tunnels ---------------------------------------------------------------------------------- */

static void a_tunnel_can_fail_alone(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    r.server.publish_error = TUNNEL_E_NAME_TAKEN;
    r.server.publish_text = "held by another";
    rig_start(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED] == 1);
    assert_int_equal(r.error, TUNNEL_E_NAME_TAKEN);
    assert_string_equal(r.text, "held by another");
    assert_int_equal(r.failed_tunnel, r.tunnel);
    assert_int_equal(tnl_client_unpublish(r.client, r.tunnel), TUNNEL_E_NOT_FOUND);
    /* The session lives; others can be published. */
    r.server.publish_error = 0;
    publish(&r, "other");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 1);
    /* One that was published may be taken away, with or without words. */
    fake_server_publish_failed(&r.server, r.tunnel, TUNNEL_E_REPLACED, "");
    fake_server_publish_failed(&r.server, 4711, TUNNEL_E_REPLACED, "not mine");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED] == 2);
    assert_int_equal(r.failed_tunnel, r.tunnel);
    assert_string_equal(r.text, tunnel_strerror(TUNNEL_E_REPLACED));
    /* After a reconnect neither is asked for again. */
    publish(&r, "third");
    UNTIL(&r.l, r.server.publishes == 3);
    fake_server_end_session(&r.server, TUNNEL_E_GONE, "");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_CONNECTED] == 2 && r.server.publishes == 4);
    turns(&r, 5);
    assert_int_equal(r.server.publishes, 4);
    assert_string_equal(r.server.last_name, "third");
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 2);
    rig_close(&r);
}

/* Taken out of its pool while it was away: that is no failure, once. */
static void it_joins_its_pool_again(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_make(&r);
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = r.upstream};
    snprintf(spec.name, sizeof(spec.name), "demo");
    snprintf(spec.pool, sizeof(spec.pool), "least-loaded");
    assert_int_equal(tnl_client_publish(r.client, &spec, &r.tunnel), 0);
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 1);
    assert_true(tnl_str_eq(r.server.last.pool, "least-loaded"));
    fake_server_publish_failed(&r.server, r.tunnel, TUNNEL_E_GONE, "away for too long");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_true(tnl_str_eq(r.server.last.pool, "least-loaded"));
    assert_int_equal(r.count[TUNNEL_EVENT_FAILED], 0);
    /* A server that answers so when it is asked is not asked for ever. */
    r.server.publish_error = TUNNEL_E_GONE;
    fake_server_publish_failed(&r.server, r.tunnel, TUNNEL_E_GONE, "away for too long");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED] == 1);
    assert_int_equal(r.server.publishes, 3);
    rig_close(&r);
}

static void their_number_is_bounded_not_their_sum(void **state)
{
    (void)state;
    rig r;
    uint64_t first = 0, id = 0;
    rig_open(&r);
    rig_make(&r);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(forward(r.client, "x", &r.upstream, NULL, &id), 0);
        assert_int_equal(tnl_client_unpublish(r.client, id), 0);
    }
    for (int i = 0; i < TNL_CLIENT_MAX_TUNNELS; i++) {
        assert_int_equal(forward(r.client, "x", &r.upstream, NULL, &id), 0);
        first = first ? first : id;
    }
    assert_int_equal(forward(r.client, "x", &r.upstream, NULL, &id), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_client_start(r.client), 0);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == TNL_CLIENT_MAX_TUNNELS);
    assert_int_equal(tnl_client_unpublish(r.client, first), 0);
    publish(&r, "last");
    assert_true(r.tunnel > id); /* ids are never used again */
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == TNL_CLIENT_MAX_TUNNELS + 1);
    rig_close(&r);
}

/* --- TLS -------------------------------------------------------------------------------------- */

static void wss_is_verified(void **state)
{
    (void)state;
    test_certs certs;
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "self", .names = "localhost", .ca = true});
    test_certs_make(&certs, &(test_cert_spec){.file = "other", .names = "localhost", .ca = true});
    for (int good = 0; good < 2; good++) {
        rig r;
        char detail[200], text[64];
        rig_open(&r);
        assert_int_equal(tnl_tls_server_new(&r.server.tls), 0);
        assert_int_equal(tnl_tls_server_add(r.server.tls, test_certs_path(&certs, "self.crt"),
                                            test_certs_path(&certs, "self.key"), detail,
                                            sizeof(detail)),
                         0);
        snprintf(text, sizeof(text), "wss://localhost:%u", fake_server_port(&r.server));
        assert_int_equal(tnl_url_parse(&r.config.servers[0], text), 0);
        snprintf(r.config.ca_file, sizeof(r.config.ca_file), "%s",
                 test_certs_path(&certs, good ? "self.crt" : "other.crt"));
        rig_start(&r);
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] || r.count[TUNNEL_EVENT_FAILED]);
        assert_int_equal(r.count[TUNNEL_EVENT_PUBLISHED], good);
        assert_int_equal(r.error, good ? 0 : TUNNEL_E_CERTIFICATE);
        rig_close(&r);
    }
    test_certs_close(&certs);
}

static void a_client_without_its_ca_file_is_not_made(void **state)
{
    (void)state;
    rig r;
    char detail[300] = "";
    rig_open(&r);
    snprintf(r.config.servers[0].scheme, sizeof(r.config.servers[0].scheme), "wss");
    snprintf(r.config.ca_file, sizeof(r.config.ca_file), "/nonexistent/ca.pem");
    assert_int_equal(tnl_client_new(&r.client, r.l.loop, &r.config, detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_non_null(strstr(detail, "/nonexistent/ca.pem"));
    r.client = NULL;
    r.closes = 1;
    rig_close(&r);
}

/* --- closing ---------------------------------------------------------------------------------- */

enum {
    NOT_STARTED,
    STARTED,
    DIALED,
    UPGRADED,
    LIVE,
    WITH_STREAM,
    WAITING,
    FAILED,
    DEAD_LINK,
    STATES
};

static void reach(rig *r, int s, visitor *v)
{
    switch (s) {
    case NOT_STARTED:
        rig_make(r);
        publish(r, "demo");
        break;
    case STARTED:
        rig_start(r);
        break;
    case DIALED:
        r->server.mute = true;
        rig_start(r);
        UNTIL(&r->l, r->server.head_n > 0);
        break;
    case UPGRADED:
        r->server.no_welcome = true;
        rig_start(r);
        UNTIL(&r->l, r->server.hellos);
        break;
    case LIVE:
        rig_live(r);
        break;
    case WITH_STREAM:
        rig_live(r);
        assert_int_equal(visitor_open(v, r, r->tunnel), 0);
        UNTIL(&r->l, v->received == 5);
        break;
    case WAITING:
        r->server.answer = "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";
        rig_start(r);
        UNTIL(&r->l, r->count[TUNNEL_EVENT_RETRYING]);
        break;
    case FAILED:
        r->server.refuse = TUNNEL_E_DENIED;
        rig_start(r);
        UNTIL(&r->l, r->count[TUNNEL_EVENT_FAILED]);
        break;
    case DEAD_LINK: /* the session's end is under way */
        rig_live(r);
        fake_server_end_session(&r->server, TUNNEL_E_GONE, "x");
        turns(r, 1);
        break;
    default:
        break;
    }
}

static void it_can_be_closed_in_every_state(void **state)
{
    (void)state;
    for (int s = 0; s < STATES; s++) {
        rig r;
        visitor v = {.received = 0};
        rig_open(&r);
        reach(&r, s, &v);
        tnl_client_close(r.client, on_client_closed, &r);
        tnl_client_close(r.client, on_client_closed, &r);
        assert_int_equal(tnl_client_start(r.client), TUNNEL_E_STATE);
        assert_int_equal(forward(r.client, "x", &r.upstream, NULL, NULL), TUNNEL_E_STATE);
        assert_int_equal(r.closes, 0);
        memset(r.count, 0, sizeof(r.count));
        UNTIL(&r.l, !r.client);
        for (int i = 0; i < EVENTS; i++)
            assert_int_equal(r.count[i], 0);
        if (v.stream)
            UNTIL(&r.l, v.resets);
        rig_close(&r);
    }
}

static void it_can_be_closed_in_every_event(void **state)
{
    (void)state;
    static const int events[] = {
        TUNNEL_EVENT_CONNECTING, TUNNEL_EVENT_CONNECTED, TUNNEL_EVENT_RETRYING,
        TUNNEL_EVENT_PUBLISHED,  TUNNEL_EVENT_FAILED,    TUNNEL_EVENT_REQUEST,
        TUNNEL_EVENT_DRAINING,   -TUNNEL_EVENT_FAILED,   -TUNNEL_EVENT_RETRYING};
    for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++) {
        rig r;
        rig_open(&r);
        r.close_in = events[i] < 0 ? -events[i] : events[i];
        if (events[i] == TUNNEL_EVENT_FAILED)
            r.server.refuse = TUNNEL_E_DENIED;
        if (events[i] == -TUNNEL_EVENT_FAILED)
            r.server.publish_error = TUNNEL_E_NAME_TAKEN;
        if (events[i] == TUNNEL_EVENT_RETRYING)
            r.server.answer = "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";
        rig_start(&r);
        if (events[i] == TUNNEL_EVENT_REQUEST || events[i] == TUNNEL_EVENT_DRAINING ||
            events[i] == -TUNNEL_EVENT_RETRYING) {
            UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
            if (events[i] == TUNNEL_EVENT_REQUEST)
                fake_server_request_event(&r.server, r.tunnel, "/");
            else if (events[i] == TUNNEL_EVENT_DRAINING)
                fake_server_goaway(&r.server, "");
            else
                fake_server_end_session(&r.server, TUNNEL_E_GONE, "");
        }
        UNTIL(&r.l, !r.client);
        assert_int_equal(r.close_in, 0);
        rig_close(&r);
    }
}

/* --- a path that goes dead -------------------------------------------------------------------- */

enum { RELAYS = 4 };

/* Passes bytes on between the client and the server, until it is told to let one more message
 * through and then nothing. */
typedef struct relay {
    struct relays *all;
    tnl_conn *in, *out;
    tnl_connect *connect;
    uint8_t buffer[2][16384];
    bool last; /* one more message of the server */
    bool dead;
} relay;

typedef struct relays {
    rig *r;
    tnl_listener *listener;
    unsigned count;
    relay each[RELAYS];
} relays;

static size_t in_space(void *user, uint8_t **p)
{
    relay *e = user;
    *p = e->buffer[0];
    return sizeof(e->buffer[0]);
}

static size_t out_space(void *user, uint8_t **p)
{
    relay *e = user;
    *p = e->buffer[1];
    return sizeof(e->buffer[1]);
}

static void in_data(void *user, uint8_t *p, size_t n)
{
    relay *e = user;
    if (!e->dead && e->out)
        test_send(e->out, p, n);
}

static void out_data(void *user, uint8_t *p, size_t n)
{
    relay *e = user;
    if (e->dead || !e->in)
        return;
    if (e->last) {
        e->dead = true;
        n = 2 + (size_t)(p[1] & 0x7f); /* RFC 6455 section 5.2, a short message without a mask */
    }
    test_send(e->in, p, n);
}

static void in_eof(void *user)
{
    relay *e = user;
    tnl_conn_close(e->in);
}

static void out_eof(void *user)
{
    relay *e = user;
    tnl_conn_close(e->out);
}

static void in_closed(void *user, int error, const char *detail)
{
    relay *e = user;
    (void)error;
    (void)detail;
    e->in = NULL;
    if (e->out)
        tnl_conn_close(e->out);
}

static void out_closed(void *user, int error, const char *detail)
{
    relay *e = user;
    (void)error;
    (void)detail;
    e->out = NULL;
    if (e->in && !e->dead)
        tnl_conn_close(e->in);
}

static const tnl_conn_events in_events = {
    .space = in_space, .data = in_data, .eof = in_eof, .closed = in_closed};
static const tnl_conn_events out_events = {
    .space = out_space, .data = out_data, .eof = out_eof, .closed = out_closed};

static void on_relay_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    relay *e = user;
    (void)detail;
    assert_int_equal(error, 0);
    e->out = c;
    tnl_conn_set_events(c, &out_events, e);
    tnl_conn_resume(c);
    tnl_conn_resume(e->in);
}

static void on_relay_accept(void *user, tnl_conn *c)
{
    relays *all = user;
    assert_true(all->count < RELAYS);
    relay *e = &all->each[all->count++];
    e->in = c;
    tnl_conn_set_events(c, &in_events, e);
    assert_int_equal(tnl_connect_start(&e->connect, all->r->l.loop, "127.0.0.1",
                                       fake_server_port(&all->r->server), NULL, 5000,
                                       on_relay_connected, e),
                     0);
}

/* The session is over, but its link takes its time to close: it must not be taken for the next one.
 */
static void an_old_link_does_not_harm_the_new_one(void **state)
{
    (void)state;
    rig r;
    static relays all;
    visitor v = {.received = 0};
    rig_open(&r);
    all = (relays){.r = &r};
    assert_int_equal(
        tnl_listener_new(&all.listener, r.l.loop, "127.0.0.1:0", on_relay_accept, &all, NULL, 0),
        0);
    r.config.servers[0].port = tnl_listener_address(all.listener).port;
    rig_live(&r);
    all.each[0].last = true;
    fake_server_end_session(&r.server, TUNNEL_E_GONE, "x");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED] == 2);
    UNTIL(&r.l, !all.each[0].in);
    turns(&r, 20);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 1);
    assert_int_equal(visitor_open(&v, &r, r.tunnel), 0);
    UNTIL(&r.l, v.received == 5);
    visitor_release(&v);
    tnl_client_close(r.client, on_client_closed, &r);
    UNTIL(&r.l, !r.client);
    tnl_listener_free(all.listener);
    for (unsigned i = 0; i < all.count; i++)
        UNTIL(&r.l, !all.each[i].in && !all.each[i].out);
    rig_close(&r);
}

/* Closed while it waits for that. */
static void it_can_be_closed_while_its_link_closes(void **state)
{
    (void)state;
    rig r;
    static relays all;
    rig_open(&r);
    all = (relays){.r = &r};
    assert_int_equal(
        tnl_listener_new(&all.listener, r.l.loop, "127.0.0.1:0", on_relay_accept, &all, NULL, 0),
        0);
    r.config.servers[0].port = tnl_listener_address(all.listener).port;
    rig_live(&r);
    all.each[0].last = true;
    fake_server_end_session(&r.server, TUNNEL_E_GONE, "x");
    UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 1);
    tnl_client_close(r.client, on_client_closed, &r);
    UNTIL(&r.l, !r.client);
    tnl_listener_free(all.listener);
    UNTIL(&r.l, !all.each[0].in && !all.each[0].out);
    rig_close(&r);
}

/* --- a host's loop ---------------------------------------------------------------------------- */

/* With closed() the loop may be freed at once, also when streams and connections were open. */
static void the_loop_can_be_freed_after_closed(void **state)
{
    (void)state;
    rig r;
    visitor v = {.received = 0};
    uv_loop_t host;
    char text[64];
    tnl_loop *loop;
    rig_open(&r);
    assert_int_equal(uv_loop_init(&host), 0);
    assert_int_equal(tnl_loop_new(&loop, &host), 0);
    memset(&r.count, 0, sizeof(r.count));
    assert_int_equal(tnl_client_new(&r.client, loop, &r.config, text, sizeof(text)), 0);
    tnl_client_on_event(r.client, on_event, &r);
    publish(&r, "demo");
    assert_int_equal(tnl_client_start(r.client), 0);
    while (v.received < 5) {
        uv_run(&host, UV_RUN_NOWAIT);
        if (!test_turn(&r.l))
            fail_msg("no visitor was served");
        if (r.count[TUNNEL_EVENT_PUBLISHED] && !v.stream)
            assert_int_equal(visitor_open(&v, &r, r.tunnel), 0);
    }
    tnl_client_close(r.client, on_client_closed, &r);
    while (r.client) {
        uv_run(&host, UV_RUN_NOWAIT);
        if (!test_turn(&r.l))
            fail_msg("never closed");
    }
    tnl_loop_free(loop);
    for (int i = 0; i < 1000 && uv_loop_alive(&host); i++) {
        uv_run(&host, UV_RUN_NOWAIT);
        turns(&r, 1);
    }
    assert_int_equal(uv_loop_close(&host), 0);
    rig_close(&r);
}

/* --- want of memory --------------------------------------------------------------------------- */

static size_t live_once(size_t nth)
{
    rig r;
    visitor v = {.received = 0};
    char detail[200];
    rig_open(&r);
    memory.count = 0;
    memory.fail_at = nth;
    int rc = tnl_client_new(&r.client, r.l.loop, &r.config, detail, sizeof(detail));
    if (rc) {
        assert_int_equal(rc, TUNNEL_E_NOMEM);
        r.client = NULL;
        r.closes = 1;
        goto done;
    }
    tnl_client_on_event(r.client, on_event, &r);
    rc = forward(r.client, "demo", &r.upstream, NULL, &r.tunnel);
    assert_true(rc == 0 || rc == TUNNEL_E_NOMEM);
    if (rc == 0) {
        assert_int_equal(tnl_client_start(r.client), 0);
        /* Whatever fails, and at whichever end, it comes to be published in the end. */
        UNTIL(&r.l, r.count[TUNNEL_EVENT_PUBLISHED]);
        if (visitor_open(&v, &r, r.tunnel) == 0)
            UNTIL(&r.l, v.received == 5 || v.resets || (r.up.closes && r.up.error));
    }
done:;
    size_t n = memory.count;
    memory.fail_at = 0;
    visitor_release(&v);
    rig_close(&r);
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
        cmocka_unit_test(it_connects_publishes_and_forwards),
        cmocka_unit_test(what_the_server_tells_is_escaped),
        cmocka_unit_test(it_waits_for_a_server_that_is_not_there),
        cmocka_unit_test(it_comes_back_with_the_same_name),
        cmocka_unit_test(answers_that_are_no_upgrade),
        cmocka_unit_test(refusals_by_close),
        cmocka_unit_test(a_bad_welcome_is_not_taken),
        cmocka_unit_test(a_tunnel_can_fail_alone),
        cmocka_unit_test(it_joins_its_pool_again),
        cmocka_unit_test(their_number_is_bounded_not_their_sum),
        cmocka_unit_test(wss_is_verified),
        cmocka_unit_test(a_client_without_its_ca_file_is_not_made),
        cmocka_unit_test(it_can_be_closed_in_every_state),
        cmocka_unit_test(it_can_be_closed_in_every_event),
        cmocka_unit_test(an_old_link_does_not_harm_the_new_one),
        cmocka_unit_test(it_can_be_closed_while_its_link_closes),
        cmocka_unit_test(the_loop_can_be_freed_after_closed),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
