/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <signal.h>
#include <string.h>

#include "base/event.h"
#include "client/internal.h"
#include "support/check.h"
#include "support/memory.h"
#include "support/servers_rig.h"
#include "tunnel/error.h"

#define REFUSAL(status, more)                                                                      \
    "HTTP/1.1 " status " x\r\n" more "Content-Length: 0\r\nConnection: close\r\n\r\n"

/* --- the client leaves ------------------------------------------------------------------------ */

enum { LONG_MS = 3600 * 1000 };

static void streams_go_on_to_their_ends(void **state)
{
    (void)state;
    servers_rig r;
    guest v, crossing;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    guest_open(&v, &r, A);
    tnl_client_drain(r.client, LONG_MS, servers_rig_closed, &r);
    tnl_client_drain(r.client, LONG_MS, servers_rig_closed, &r);
    assert_int_equal(r.closes, 0);
    tnl_tunnel_spec spec = {.kind = TNL_KIND_HTTP, .upstream = r.upstream};
    assert_int_equal(tnl_client_publish(r.client, &spec, NULL), TUNNEL_E_STATE);
    guest_open(&crossing, &r, A); /* the server may not know yet */
    UNTIL(&r.l, r.servers[A].unpublishes == 1);
    guest_leaves(&v, &r);
    servers_rig_wait(&r, 600);
    guest_asks(&crossing, &r);
    assert_int_equal(r.closes, 0);
    guest_leaves(&crossing, &r);
    UNTIL(&r.l, !r.client);
    UNTIL(&r.l, r.servers[A].session_closes == 1);
    assert_int_equal(r.servers[A].session_error, TUNNEL_E_GONE);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 0);
    servers_rig_close(&r);
}

static void without_streams_it_leaves_soon(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        servers_rig r;
        servers_rig_open(&r, &memory.live);
        switch (i) {
        case 0:
            servers_rig_live(&r);
            break;
        case 1: /* not started */
            servers_rig_make(&r);
            break;
        case 2: /* nobody is there */
            servers_rig_take_down(&r, A);
            servers_rig_take_down(&r, B);
            servers_rig_start(&r);
            UNTIL(&r.l, r.count[TUNNEL_EVENT_RETRYING] == 2);
            break;
        case 3: /* failed */
            r.servers[A].refuse = r.servers[B].refuse = TUNNEL_E_DENIED;
            servers_rig_start(&r);
            UNTIL(&r.l, r.count[TUNNEL_EVENT_FAILED]);
            break;
        default: /* the server goes away meanwhile */
            servers_rig_live(&r);
            tnl_client_drain(r.client, LONG_MS, servers_rig_closed, &r);
            fake_server_end_session(&r.servers[A], TUNNEL_E_GONE, "bye");
            break;
        }
        tnl_client_drain(r.client, LONG_MS, servers_rig_closed, &r);
        UNTIL(&r.l, !r.client);
        assert_int_equal(r.servers[B].publishes, 0);
        servers_rig_close(&r);
    }
}

static void it_leaves_in_time_or_when_it_must(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        servers_rig r;
        guest v;
        servers_rig_open(&r, &memory.live);
        servers_rig_live(&r);
        guest_open(&v, &r, A);
        tnl_client_drain(r.client, i == 0 ? 0 : i == 1 ? 300 : LONG_MS, servers_rig_closed, &r);
        if (i == 2) {
            servers_rig_turns(&r, 20);
            tnl_client_close(r.client, NULL, NULL); /* the first callback counts */
        }
        UNTIL(&r.l, !r.client);
        UNTIL(&r.l, v.resets);
        servers_rig_close(&r);
    }
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
        servers_rig r;
        guest v = {.received = 0};
        servers_rig_open(&r, &memory.live);
        servers_rig_take_down(&r, A);
        r.leave_in = cases[i / 2].type;
        r.leave_at = cases[i / 2].nth;
        r.drains = i % 2;
        servers_rig_start(&r);
        /* From nobody to B, from there to A, and B ends. */
        UNTIL(&r.l, !r.client || (r.count[TUNNEL_EVENT_PUBLISHED] == 1 &&
                                  r.count[TUNNEL_EVENT_ROUND_TRIP] == 1));
        if (r.client && r.leave_in) {
            servers_rig_bring_up(&r, A);
            guest_open(&v, &r, B);
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
        guest_release(&v);
        assert_int_equal(r.leave_in, 0);
        servers_rig_close(&r);
    }
}

/* --- asleep, and round trips ------------------------------------------------------------------ */

static void waking_ends_a_wait(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    r.config.server_count = 1;
    servers_rig_make(&r);
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
    servers_rig_wait(&r, 100);
    assert_int_equal(r.count[TUNNEL_EVENT_RETRYING], 1);
    servers_rig_close(&r);
}

static void round_trips_are_told(void **state)
{
    (void)state;
    servers_rig r;
    servers_rig_open(&r, &memory.live);
    servers_rig_live(&r);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_ROUND_TRIP]);
    assert_true(r.trip_us > 0);
    unsigned had = r.count[TUNNEL_EVENT_ROUND_TRIP];
    tnl_session_ping(r.client->current->session);
    UNTIL(&r.l, r.count[TUNNEL_EVENT_ROUND_TRIP] == had + 1);
    servers_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_go_on_to_their_ends),
        cmocka_unit_test(without_streams_it_leaves_soon),
        cmocka_unit_test(it_leaves_in_time_or_when_it_must),
        cmocka_unit_test(it_can_leave_in_every_event),
        cmocka_unit_test(waking_ends_a_wait),
        cmocka_unit_test(round_trips_are_told),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
