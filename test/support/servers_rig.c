/* SPDX-License-Identifier: Apache-2.0 */
#include "support/servers_rig.h"

#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "support/check.h"
#include "tunnel/error.h"

void servers_rig_closed(void *user)
{
    servers_rig *r = user;
    r->closes++;
    r->client = NULL;
}

static void on_event(void *user, const tunnel_event *e)
{
    servers_rig *r = user;
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
        tnl_client_drain(r->client, 10000, servers_rig_closed, r);
    else
        tnl_client_close(r->client, servers_rig_closed, r);
    assert_int_equal(r->closes, 0);
}

static void on_accept(void *user, tnl_conn *c)
{
    servers_rig *r = user;
    for (int i = 0; i < SERVERS_PEERS; i++) {
        if (r->up[i].c)
            continue;
        r->up[i].eofs = r->up[i].closes = 0;
        test_peer_attach(&r->up[i], c);
        tnl_conn_resume(c);
        return;
    }
    tnl_conn_close(c);
}

const char *servers_rig_address(const servers_rig *r, int i, const char *scheme, char out[64])
{
    snprintf(out, 64, "%s127.0.0.1:%u", scheme, r->config.servers[i].port);
    return out;
}

void servers_rig_open(servers_rig *r, size_t *live)
{
    char text[64], detail[200];
    memset(r, 0, sizeof(*r));
    r->live = live;
    *live = 0;
    test_loop_open(&r->l);
    for (int i = 0; i < SERVERS_PEERS; i++) {
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

void servers_rig_take_down(servers_rig *r, int i)
{
    fake_server_close(&r->servers[i]);
    r->down[i] = true;
}

void servers_rig_bring_up(servers_rig *r, int i)
{
    char text[64];
    r->servers[i] = (fake_server){.l = NULL};
    fake_server_open(&r->servers[i], &r->l, servers_rig_address(r, i, "", text));
    r->down[i] = false;
}

void servers_rig_publish(servers_rig *r, const char *name)
{
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = r->upstream};
    snprintf(spec.name, sizeof(spec.name), "%s", name);
    assert_int_equal(tnl_client_publish(r->client, &spec, &r->tunnel), 0);
}

void servers_rig_make(servers_rig *r)
{
    char detail[300] = "";
    assert_int_equal(tnl_client_new(&r->client, r->l.loop, &r->config, detail, sizeof(detail)), 0);
    tnl_client_on_event(r->client, on_event, r);
    servers_rig_publish(r, "demo");
}

void servers_rig_start(servers_rig *r)
{
    servers_rig_make(r);
    assert_int_equal(tnl_client_start(r->client), 0);
}

void servers_rig_live(servers_rig *r)
{
    servers_rig_start(r);
    UNTIL(&r->l, r->count[TUNNEL_EVENT_PUBLISHED] == 1);
    assert_int_equal(r->servers[A].publishes, 1);
}

void servers_rig_close(servers_rig *r)
{
    if (r->client)
        tnl_client_close(r->client, servers_rig_closed, r);
    UNTIL(&r->l, !r->client);
    for (int i = 0; i < SERVERS_PEERS; i++) {
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
    assert_int_equal(*r->live, 0);
}

void servers_rig_turns(servers_rig *r, unsigned n)
{
    while (n--)
        assert_true(test_turn(&r->l));
}

void servers_rig_wait(servers_rig *r, uint64_t ms)
{
    uint64_t until = tnl_loop_now(r->l.loop) + ms;
    while (tnl_loop_now(r->l.loop) < until)
        servers_rig_turns(r, 1);
}

/* --- a visitor's stream ----------------------------------------------------------------------- */

static size_t visitor_data(void *user, const uint8_t *p, size_t n)
{
    (void)p;
    ((guest *)user)->received += n;
    return n;
}

static void visitor_fin(void *user)
{
    ((guest *)user)->fins++;
}

static void visitor_reset(void *user, uint32_t code, const char *text, size_t n)
{
    guest *v = user;
    (void)code;
    (void)text;
    (void)n;
    v->resets++;
    tnl_stream_release(v->stream);
    v->stream = NULL;
}

static const tnl_stream_events visitor_events = {
    .data = visitor_data, .fin = visitor_fin, .reset = visitor_reset};

void guest_open(guest *v, servers_rig *r, int server)
{
    *v = (guest){.received = 0};
    assert_int_equal(
        fake_server_open_stream(&r->servers[server], r->tunnel, &v->stream, &visitor_events, v), 0);
    assert_int_equal(tnl_stream_write(v->stream, "hello", 5), 5);
    UNTIL(&r->l, v->received == 5 || v->resets);
}

void guest_asks(guest *v, servers_rig *r)
{
    uint64_t had = v->received;
    assert_non_null(v->stream);
    assert_int_equal(tnl_stream_write(v->stream, "more", 4), 4);
    UNTIL(&r->l, v->received == had + 4);
}

void guest_leaves(guest *v, servers_rig *r)
{
    tnl_stream_fin(v->stream);
    UNTIL(&r->l, v->fins);
    tnl_stream_release(v->stream);
    v->stream = NULL;
}

void guest_release(guest *v)
{
    if (v->stream)
        tnl_stream_release(v->stream);
    v->stream = NULL;
}
