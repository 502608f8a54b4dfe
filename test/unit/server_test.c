/* SPDX-License-Identifier: Apache-2.0 */
/* Server and clients in one process, through the public headers: names, takeover, requests, ends,
 * want of memory. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/tunnel.h>
#include <uv.h>

#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
enum { CALLS = 8 };

/* --- a local service that answers every request with "ok" ------------------------------------- */

typedef struct call {
    tnl_conn *c;
    size_t n;
    char text[8192];
} call;

typedef struct service {
    tnl_listener *listener;
    call calls[CALLS];
    unsigned accepted;
    unsigned requests;
    bool mute;
} service;

static size_t call_space(void *user, uint8_t **p)
{
    call *k = user;
    *p = (uint8_t *)k->text + k->n;
    return sizeof(k->text) - 1 - k->n;
}

/* calls[] is the beginning of what matters; the service is found by the connection's slot. */
static service *current;

static void call_data(void *user, uint8_t *p, size_t n)
{
    call *k = user;
    (void)p;
    k->n += n;
    k->text[k->n] = '\0';
    if (!strstr(k->text, "\r\n\r\n"))
        return;
    k->n = 0;
    current->requests++;
    if (!current->mute)
        (void)test_send(k->c, ANSWER, sizeof(ANSWER) - 1);
}

static void call_eof(void *user)
{
    call *k = user;
    tnl_conn_close(k->c);
}

static void call_closed(void *user, int error, const char *detail)
{
    call *k = user;
    (void)error;
    (void)detail;
    k->c = NULL;
}

static const tnl_conn_events call_events = {
    .space = call_space, .data = call_data, .eof = call_eof, .closed = call_closed};

static void on_accept(void *user, tnl_conn *c)
{
    service *s = user;
    s->accepted++;
    for (size_t i = 0; i < CALLS; i++) {
        if (!s->calls[i].c) {
            s->calls[i] = (call){.c = c};
            tnl_conn_set_events(c, &call_events, &s->calls[i]);
            tnl_conn_resume(c);
            return;
        }
    }
    tnl_conn_close(c);
}

/* --- the rig ---------------------------------------------------------------------------------- */

enum { EVENTS = 32, CLIENTS = 3 };

typedef struct agent {
    struct rig *r;
    tunnel_client *client; /* NULL once closed */
    tunnel_loop *loop;     /* NULL: the rig's */
    uint64_t tunnel;
    unsigned closes;
    unsigned count[EVENTS];
    int error;
    uint64_t failed_tunnel;
    char text[600];
    char url[300];
    int close_in;
} agent;

typedef struct rig {
    test_loop l;
    tunnel_loop *loop;
    tunnel_server *server; /* NULL once closed */
    unsigned closes;
    unsigned count[EVENTS];
    char listening[128];
    char account[64];
    int access_status;
    char access_path[600];
    uint16_t port;
    service service;
    agent agents[CLIENTS];
} rig;

static unsigned type_of(const tunnel_event *e)
{
    unsigned type = (unsigned)tunnel_event_get_type(e);
    assert_true(type < EVENTS);
    assert_string_not_equal(tunnel_event_name(tunnel_event_get_type(e)), "unknown");
    return type;
}

static void on_server_event(void *user, const tunnel_event *e)
{
    rig *r = user;
    r->count[type_of(e)]++;
    if (type_of(e) == TUNNEL_EVENT_LISTENING)
        snprintf(r->listening, sizeof(r->listening), "%s", tunnel_event_url(e));
    if (type_of(e) == TUNNEL_EVENT_CLIENT_JOINED)
        snprintf(r->account, sizeof(r->account), "%s", tunnel_event_account(e));
    if (type_of(e) == TUNNEL_EVENT_ACCESS) {
        r->access_status = tunnel_event_status(e);
        snprintf(r->access_path, sizeof(r->access_path), "%s", tunnel_event_path(e));
    }
}

static void on_server_closed(void *user)
{
    rig *r = user;
    r->server = NULL;
    r->closes++;
}

/* 0, or why there is no server. */
static int start_server(rig *r)
{
    char detail[300] = "";
    tunnel_server_config *c;
    int rc = tunnel_server_config_new(&c);
    if (rc)
        return rc;
    rc = tunnel_server_config_add_listen(c, "127.0.0.1:0");
    if (rc == 0)
        rc = tunnel_server_config_set_domain(c, "test");
    if (rc == 0)
        rc = tunnel_server_config_add_token(c, "SECRET");
    if (rc == 0)
        rc = tunnel_server_config_add_token(c, "OTHER");
    if (rc == 0)
        rc = tunnel_server_config_set_access_events(c, 1);
    if (rc == 0)
        rc = tunnel_server_config_set_silence(c, 60000);
    if (rc == 0)
        rc = tunnel_server_new(&r->server, r->loop, c, detail, sizeof(detail));
    tunnel_server_config_free(c);
    if (rc) {
        r->server = NULL;
        return rc;
    }
    tunnel_server_on_event(r->server, on_server_event, r);
    rc = tunnel_server_start(r->server, detail, sizeof(detail));
    unsigned port = 0;
    if (rc == 0) {
        assert_int_equal(sscanf(r->listening, "http://127.0.0.1:%u", &port), 1);
        r->port = (uint16_t)port;
    }
    return rc;
}

static void rig_prepare(rig *r)
{
    memset(r, 0, sizeof(*r));
    memory.live = 0;
    test_loop_open(&r->l);
    current = &r->service;
    for (int i = 0; i < CLIENTS; i++)
        r->agents[i].r = r;
    assert_int_equal(tunnel_loop_new(&r->loop, tnl_loop_uv(r->l.loop)), 0);
    assert_int_equal(tnl_listener_new(&r->service.listener, r->l.loop, "127.0.0.1:0", on_accept,
                                      &r->service, NULL, 0),
                     0);
}

static void rig_open(rig *r)
{
    rig_prepare(r);
    assert_int_equal(start_server(r), 0);
}

static void on_agent_closed(void *user)
{
    agent *a = user;
    a->client = NULL;
    a->closes++;
}

static void close_agent(agent *a)
{
    if (a->client)
        tunnel_client_close(a->client, on_agent_closed, a);
    UNTIL(&a->r->l, !a->client);
}

static void close_server(rig *r)
{
    if (r->server)
        tunnel_server_close(r->server, on_server_closed, r);
    UNTIL(&r->l, !r->server);
}

static void rig_close(rig *r)
{
    for (int i = 0; i < CLIENTS; i++)
        close_agent(&r->agents[i]);
    close_server(r);
    tnl_listener_free(r->service.listener);
    for (size_t i = 0; i < CALLS; i++)
        if (r->service.calls[i].c)
            tnl_conn_close(r->service.calls[i].c);
    for (size_t i = 0; i < CALLS; i++)
        UNTIL(&r->l, !r->service.calls[i].c);
    tunnel_loop_free(r->loop);
    test_loop_close(&r->l);
    assert_int_equal(memory.live, 0);
}

static void on_agent_event(void *user, const tunnel_event *e)
{
    agent *a = user;
    a->count[type_of(e)]++;
    if (tunnel_event_error(e))
        a->error = tunnel_event_error(e);
    snprintf(a->text, sizeof(a->text), "%s", tunnel_event_text(e));
    if (type_of(e) == TUNNEL_EVENT_PUBLISHED)
        snprintf(a->url, sizeof(a->url), "%s", tunnel_event_url(e));
    if (type_of(e) == TUNNEL_EVENT_FAILED)
        a->failed_tunnel = tunnel_event_tunnel(e);
}

typedef struct who {
    const char *token; /* NULL: "SECRET" */
    char instance;     /* a hex digit, repeated */
    bool force;
} who;

/* 0, or why it could not be made. */
static int make_agent(agent *a, who w, const char *what)
{
    char text[64], hex[33], detail[300];
    tunnel_client_config *c;
    int rc = tunnel_client_config_new(&c);
    if (rc)
        return rc;
    memset(hex, w.instance, 32);
    hex[32] = '\0';
    snprintf(text, sizeof(text), "ws://127.0.0.1:%u", a->r->port);
    rc = tunnel_client_config_set_server(c, text);
    if (rc == 0)
        rc = tunnel_client_config_set_token(c, w.token ? w.token : "SECRET");
    if (rc == 0)
        rc = tunnel_client_config_set_instance(c, hex);
    if (rc == 0)
        rc = tunnel_client_config_set_force(c, w.force);
    if (rc == 0)
        rc = tunnel_client_config_set_silence(c, 60000);
    if (rc == 0)
        rc = tunnel_client_new(&a->client, a->loop ? a->loop : a->r->loop, c, detail,
                               sizeof(detail));
    tunnel_client_config_free(c);
    if (rc) {
        a->client = NULL;
        return rc;
    }
    tunnel_client_on_event(a->client, on_agent_event, a);
    snprintf(text, sizeof(text), "%u", tnl_listener_address(a->r->service.listener).port);
    rc = tunnel_client_forward(a->client, what, text, NULL, &a->tunnel, detail, sizeof(detail));
    return rc ? rc : tunnel_client_start(a->client);
}

static void start_agent(agent *a, who w, const char *what)
{
    assert_int_equal(make_agent(a, w, what), 0);
}

static bool settled(const agent *a)
{
    return a->count[TUNNEL_EVENT_PUBLISHED] || a->count[TUNNEL_EVENT_FAILED];
}

/* --- visitors --------------------------------------------------------------------------------- */

typedef struct guest {
    test_peer peer;
    tnl_connect *connect;
    bool failed;
} guest;

static void on_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    guest *g = user;
    (void)detail;
    g->connect = NULL;
    g->failed = error != 0;
    if (c) {
        test_peer_attach(&g->peer, c);
        tnl_conn_resume(c);
    }
}

static void guest_open(guest *g, rig *r)
{
    *g = (guest){.failed = false};
    test_peer_init(&g->peer);
    assert_int_equal(tnl_connect_start(&g->connect, r->l.loop, "127.0.0.1", r->port, NULL, 5000,
                                       on_connected, g),
                     0);
    UNTIL(&r->l, g->peer.c || g->failed);
    assert_false(g->failed);
}

static void guest_close(guest *g, rig *r)
{
    if (g->peer.c)
        tnl_conn_close(g->peer.c);
    UNTIL(&r->l, !g->peer.c);
    test_peer_free(&g->peer);
}

static bool heard(const guest *g, const char *what)
{
    return memmem(g->peer.bytes, g->peer.received < g->peer.keep ? g->peer.received : g->peer.keep,
                  what, strlen(what));
}

/* One request on a connection of its own; the status. */
static int get(rig *r, const char *host)
{
    guest g;
    char text[300];
    int status = 0;
    guest_open(&g, r);
    snprintf(text, sizeof(text), "GET /x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    assert_int_equal(test_send(g.peer.c, text, strlen(text)), 0);
    UNTIL(&r->l, g.peer.eofs || !g.peer.c);
    g.peer.bytes[g.peer.received] = '\0';
    assert_int_equal(sscanf((const char *)g.peer.bytes, "HTTP/1.1 %d", &status), 1);
    guest_close(&g, r);
    return status;
}

/* --- the usual -------------------------------------------------------------------------------- */

static void visitors_reach_the_service(void **state)
{
    (void)state;
    rig r;
    char url[64];
    agent *a = &r.agents[0];
    rig_open(&r);
    assert_int_equal(get(&r, "demo.test"), 404);
    start_agent(a, (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(a));
    snprintf(url, sizeof(url), "http://demo.test:%u", r.port);
    assert_string_equal(a->url, url);
    assert_int_equal(r.count[TUNNEL_EVENT_CLIENT_JOINED], 1);
    assert_int_equal(r.count[TUNNEL_EVENT_NAME_PUBLISHED], 1);
    assert_int_equal(memcmp(r.account, "token:", 6), 0);
    assert_int_equal(get(&r, "demo.test"), 200);
    UNTIL(&r.l, a->count[TUNNEL_EVENT_REQUEST] == 1);
    assert_int_equal(r.access_status, 200);
    assert_string_equal(r.access_path, "/x");
    /* Hosts are compared without case, port and one trailing dot, and in no looser way. */
    assert_int_equal(get(&r, "DEMO.Test.:99"), 200);
    static const char *const others[] = {"demo.test..", "xdemo.test", "demo.testx", "a.demo.test",
                                         "test",        "demo",       "[::1]"};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        int status = get(&r, others[i]);
        assert_true(status == 404 || status == 400);
    }
    assert_int_equal(r.service.requests, 2);
    tunnel_client_close(a->client, on_agent_closed, a);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_CLIENT_LEFT] == 1);
    assert_int_equal(r.count[TUNNEL_EVENT_NAME_GONE], 1);
    assert_int_equal(get(&r, "demo.test"), 404);
    rig_close(&r);
}

static void the_root_and_random_names(void **state)
{
    (void)state;
    rig r;
    char host[300];
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://@");
    start_agent(&r.agents[1], (who){.instance = 'b'}, "http://");
    UNTIL(&r.l, settled(&r.agents[0]) && settled(&r.agents[1]));
    assert_int_equal(get(&r, "test"), 200);
    assert_int_equal(get(&r, "demo.test"), 404);
    assert_int_equal(sscanf(r.agents[1].url, "http://%299[^:]", host), 1);
    assert_int_equal(get(&r, host), 200);
    /* The name is kept when the session is lost. */
    snprintf(host, sizeof(host), "%s", r.agents[1].url);
    uint16_t port = r.port;
    close_server(&r);
    UNTIL(&r.l, r.agents[1].count[TUNNEL_EVENT_RETRYING]);
    char address[32], detail[200];
    tunnel_server_config *c;
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    assert_int_equal(tunnel_server_config_new(&c), 0);
    assert_int_equal(tunnel_server_config_add_listen(c, address), 0);
    assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
    assert_int_equal(tunnel_server_config_add_token(c, "SECRET"), 0);
    assert_int_equal(tunnel_server_new(&r.server, r.loop, c, detail, sizeof(detail)), 0);
    tunnel_server_config_free(c);
    assert_int_equal(tunnel_server_start(r.server, detail, sizeof(detail)), 0);
    UNTIL(&r.l, r.agents[1].count[TUNNEL_EVENT_PUBLISHED] == 2);
    assert_string_equal(r.agents[1].url, host);
    rig_close(&r);
}

static void a_wrong_token_is_final(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a', .token = "WRONG"}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    assert_int_equal(r.agents[0].error, TUNNEL_E_AUTH_FAILED);
    assert_int_equal(r.agents[0].failed_tunnel, 0);
    assert_int_equal(r.count[TUNNEL_EVENT_CLIENT_JOINED], 0);
    rig_close(&r);
}

/* --- who gets the name ------------------------------------------------------------------------ */

static void the_same_instance_takes_over_at_once(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    start_agent(&r.agents[1], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[1]));
    assert_int_equal(r.agents[1].count[TUNNEL_EVENT_PUBLISHED], 1);
    /* The older one is told for good and does not come back. */
    UNTIL(&r.l, r.agents[0].count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.agents[0].error, TUNNEL_E_REPLACED);
    assert_int_equal(r.agents[0].failed_tunnel, 0);
    assert_int_equal(r.agents[0].count[TUNNEL_EVENT_RETRYING], 0);
    assert_int_equal(get(&r, "demo.test"), 200);
    assert_int_equal(r.agents[1].count[TUNNEL_EVENT_FAILED], 0);
    rig_close(&r);
}

/* An instance of another account is another one, whatever its id. */
static void an_instance_belongs_to_its_account(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    start_agent(&r.agents[1], (who){.instance = 'a', .token = "OTHER", .force = true},
                "http://demo");
    UNTIL(&r.l, settled(&r.agents[1]));
    assert_int_equal(r.agents[1].error, TUNNEL_E_NAME_TAKEN);
    assert_true(r.agents[1].failed_tunnel == r.agents[1].tunnel);
    assert_int_equal(r.agents[0].count[TUNNEL_EVENT_FAILED], 0);
    assert_int_equal(get(&r, "demo.test"), 200);
    /* It is kept for who had it. */
    close_agent(&r.agents[0]);
    start_agent(&r.agents[2], (who){.instance = 'b', .token = "OTHER"}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[2]));
    assert_int_equal(r.agents[2].error, TUNNEL_E_NAME_TAKEN);
    rig_close(&r);
}

static void a_live_holder_keeps_the_name(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    start_agent(&r.agents[1], (who){.instance = 'b'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[1]));
    assert_int_equal(r.agents[1].error, TUNNEL_E_NAME_TAKEN);
    assert_non_null(strstr(r.agents[1].text, "demo"));
    assert_int_equal(r.agents[0].count[TUNNEL_EVENT_FAILED], 0);
    assert_int_equal(get(&r, "demo.test"), 200);
    rig_close(&r);
}

static void force_takes_it(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    start_agent(&r.agents[1], (who){.instance = 'b', .force = true}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[1]));
    assert_int_equal(r.agents[1].count[TUNNEL_EVENT_PUBLISHED], 1);
    UNTIL(&r.l, r.agents[0].count[TUNNEL_EVENT_FAILED]);
    assert_int_equal(r.agents[0].error, TUNNEL_E_REPLACED);
    assert_true(r.agents[0].failed_tunnel == r.agents[0].tunnel);
    assert_int_equal(get(&r, "demo.test"), 200);
    rig_close(&r);
}

/* The holder's loop stands still: it misses the probe. */
static void a_dead_holder_loses_the_name(void **state)
{
    (void)state;
    rig r;
    uv_loop_t host;
    agent *a = &r.agents[0];
    rig_open(&r);
    assert_int_equal(uv_loop_init(&host), 0);
    assert_int_equal(tunnel_loop_new(&a->loop, &host), 0);
    start_agent(a, (who){.instance = 'a'}, "http://demo");
    while (!settled(a)) {
        uv_run(&host, UV_RUN_NOWAIT);
        assert_true(test_turn(&r.l));
    }
    /* Of another account nobody gets it even now. */
    start_agent(&r.agents[2], (who){.instance = 'c', .token = "OTHER", .force = true},
                "http://demo");
    UNTIL(&r.l, settled(&r.agents[2]));
    assert_int_equal(r.agents[2].error, TUNNEL_E_NAME_TAKEN);
    /* What was heard in the very millisecond in which the probe begins counts as a sign of life. */
    for (int i = 0; i < 5; i++)
        test_turn(&r.l);
    start_agent(&r.agents[1], (who){.instance = 'b'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[1]));
    if (!r.agents[1].count[TUNNEL_EVENT_PUBLISHED])
        fail_msg("%s", r.agents[1].text);
    assert_int_equal(get(&r, "demo.test"), 200);
    /* It wakes up and is told. */
    while (!a->count[TUNNEL_EVENT_FAILED]) {
        uv_run(&host, UV_RUN_NOWAIT);
        assert_true(test_turn(&r.l));
    }
    assert_int_equal(a->error, TUNNEL_E_REPLACED);
    assert_int_equal(r.agents[1].count[TUNNEL_EVENT_FAILED], 0);
    tunnel_client_close(a->client, on_agent_closed, a);
    while (a->client) {
        uv_run(&host, UV_RUN_NOWAIT);
        assert_true(test_turn(&r.l));
    }
    tunnel_loop_free(a->loop);
    while (uv_loop_alive(&host)) {
        uv_run(&host, UV_RUN_NOWAIT);
        assert_true(test_turn(&r.l));
    }
    assert_int_equal(uv_loop_close(&host), 0);
    rig_close(&r);
}

/* --- bad visitors ----------------------------------------------------------------------------- */

static void malformed_visitors_harm_nobody(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *answer;
    } cases[] = {
        {"\r\n\r\n\x16\x03\x01", "400"},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NULL},
        {"SSH-2.0-OpenSSH\r\n", "400"},
        {"GET / HTTP/1.1\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "400"},
        {"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
         "400"},
        {"GET /__tunnel__/link HTTP/1.1\r\nHost: x\r\n\r\n", "401"},
        {"GET /__tunnel__/link HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\r\n\r\n", "426"},
        {"GET /__tunnel__/nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
        {"DELETE /__tunnel__/health/live HTTP/1.1\r\nHost: x\r\n\r\n", "405"},
    };
    rig r;
    rig_open(&r);
    start_agent(&r.agents[0], (who){.instance = 'a'}, "http://demo");
    UNTIL(&r.l, settled(&r.agents[0]));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        guest g;
        char want[32];
        guest_open(&g, &r);
        assert_int_equal(test_send(g.peer.c, cases[i].text, strlen(cases[i].text)), 0);
        snprintf(want, sizeof(want), "HTTP/1.1 %s ", cases[i].answer ? cases[i].answer : "400");
        UNTIL(&r.l, heard(&g, want) || g.peer.eofs || !g.peer.c);
        if (cases[i].answer && !heard(&g, want))
            fail_msg("case %zu: not %s but %.40s", i, want, (const char *)g.peer.bytes);
        guest_close(&g, &r);
        assert_int_equal(get(&r, "demo.test"), 200);
    }
    assert_int_equal(r.count[TUNNEL_EVENT_CLIENT_LEFT], 0);
    rig_close(&r);
}

/* --- ends ------------------------------------------------------------------------------------- */

enum { MADE, STARTED, WITH_VISITOR, WITH_CLIENT, IN_REQUEST, STATES };

/* The server or the client is closed, with everything under way; the other one stays well. */
static void each_can_close_in_any_state(void **state)
{
    (void)state;
    for (int s = MADE; s < 2 * STATES; s++) {
        int reached = s / 2;
        bool client_first = s % 2;
        rig r;
        guest g;
        agent *a = &r.agents[0];
        rig_prepare(&r);
        if (reached == MADE) {
            tunnel_server_config *c;
            assert_int_equal(tunnel_server_config_new(&c), 0);
            assert_int_equal(tunnel_server_config_add_listen(c, "127.0.0.1:0"), 0);
            assert_int_equal(tunnel_server_config_set_domain(c, "test"), 0);
            assert_int_equal(tunnel_server_config_add_token(c, "SECRET"), 0);
            assert_int_equal(tunnel_server_new(&r.server, r.loop, c, NULL, 0), 0);
            tunnel_server_config_free(c);
        } else {
            assert_int_equal(start_server(&r), 0);
        }
        if (reached >= WITH_VISITOR)
            guest_open(&g, &r);
        if (reached >= WITH_CLIENT) {
            start_agent(a, (who){.instance = 'a'}, "http://demo");
            UNTIL(&r.l, settled(a));
        }
        if (reached == IN_REQUEST) {
            static const char request[] = "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n";
            r.service.mute = true;
            assert_int_equal(test_send(g.peer.c, request, sizeof(request) - 1), 0);
            UNTIL(&r.l, r.service.requests == 1);
        }
        if (client_first) {
            close_agent(a);
            if (reached == IN_REQUEST)
                UNTIL(&r.l, heard(&g, "HTTP/1.1 503 "));
        }
        tunnel_server_close(r.server, on_server_closed, &r);
        tunnel_server_close(r.server, on_server_closed, &r);
        assert_int_equal(r.closes, 0);
        UNTIL(&r.l, !r.server);
        if (reached >= WITH_VISITOR) {
            UNTIL(&r.l, g.peer.eofs || !g.peer.c);
            guest_close(&g, &r);
        }
        if (reached >= WITH_CLIENT && !client_first) {
            UNTIL(&r.l, a->count[TUNNEL_EVENT_RETRYING]);
            assert_int_equal(a->count[TUNNEL_EVENT_FAILED], 0);
        }
        rig_close(&r);
        assert_int_equal(r.closes, 1);
    }
}

/* --- want of memory --------------------------------------------------------------------------- */

static bool answered(const guest *g)
{
    return g->failed || !g->peer.c || g->peer.eofs || heard(g, "\r\n\r\nok") ||
           heard(g, "HTTP/1.1 5") || heard(g, "HTTP/1.1 4");
}

static size_t live_once(size_t nth)
{
    rig r;
    guest g = {.failed = true};
    agent *a = &r.agents[0];
    static const char request[] = "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n";
    rig_prepare(&r);
    test_peer_init(&g.peer);
    memory.count = 0;
    memory.fail_at = nth;
    int rc = start_server(&r);
    if (rc == 0) {
        rc = make_agent(a, (who){.instance = 'a'}, "http://demo");
        if (rc == 0)
            UNTIL(&r.l, settled(a));
        if (tnl_connect_start(&g.connect, r.l.loop, "127.0.0.1", r.port, NULL, 5000, on_connected,
                              &g) == 0) {
            g.failed = false;
            UNTIL(&r.l, g.peer.c || g.failed);
        }
        if (g.peer.c)
            (void)test_send(g.peer.c, request, sizeof(request) - 1);
        /* The service in this very program may be the one that is short of memory. */
        for (int i = 0; i < 100 && !answered(&g); i++)
            assert_true(test_turn(&r.l));
    } else {
        assert_int_equal(rc, TUNNEL_E_NOMEM);
    }
    size_t n = memory.count;
    memory.fail_at = 0;
    guest_close(&g, &r);
    rig_close(&r);
    return n;
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    size_t n = live_once(0);
    assert_true(n > 60);
    for (size_t i = 1; i <= n; i++)
        live_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visitors_reach_the_service),
        cmocka_unit_test(the_root_and_random_names),
        cmocka_unit_test(a_wrong_token_is_final),
        cmocka_unit_test(the_same_instance_takes_over_at_once),
        cmocka_unit_test(an_instance_belongs_to_its_account),
        cmocka_unit_test(a_live_holder_keeps_the_name),
        cmocka_unit_test(force_takes_it),
        cmocka_unit_test(a_dead_holder_loses_the_name),
        cmocka_unit_test(malformed_visitors_harm_nobody),
        cmocka_unit_test(each_can_close_in_any_state),
        cmocka_unit_test(each_allocation_can_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
