/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "client/internal.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

/*
 * Which server is tried next, and when. A round goes through all servers, the next one soon after
 * the last one failed, so that one that lives is found quickly; between rounds there is a wait that
 * grows. A server that refuses us for good is left out until there was a session with another one.
 * One that takes us, and ends each session soon after, counts as one that failed.
 */

enum {
    BACKOFF_BASE_MS = 250,
    BACKOFF_CAP_MS = 30000,
    PARKED_CAP_MS = 2000, /* while visitors wait for their streams to go on */
    BACKOFF_FLOOR_MS = 50,
    NEXT_MS = 100,  /* at most, to the next server of a round */
    MOST_BRIEF = 3, /* sessions in a row, before others get their turn */
};

void tnl_servers_init(tnl_client *c)
{
    c->server_count = c->config.server_count ? c->config.server_count : 1;
    c->attempt.backoff = (tnl_backoff){
        .base_ms = BACKOFF_BASE_MS, .cap_ms = BACKOFF_CAP_MS, .floor_ms = BACKOFF_FLOOR_MS};
    for (size_t i = 0; i < c->server_count; i++) {
        const tnl_url *u = &c->config.servers[i];
        tnl_client_server *s = &c->servers[i];
        snprintf(s->address, sizeof(s->address), u->ipv6 ? "%s://[%s]:%u" : "%s://%s:%u", u->scheme,
                 u->host, u->port);
    }
}

void tnl_servers_worked(tnl_client *c, size_t server)
{
    c->last_good = server;
    c->servers[server].worked = true;
    for (size_t i = 0; i < c->server_count; i++)
        c->servers[i].refused = false;
}

bool tnl_servers_over(tnl_client *c, const tnl_relation *r)
{
    tnl_client_server *s = &c->servers[r->server];
    uint64_t end = r->link ? tnl_loop_now(c->loop) : r->lost_at;
    bool brief = end < r->began || end - r->began < TNL_STABLE_MS;
    s->brief = brief ? s->brief + (s->brief < MOST_BRIEF) : 0;
    return s->brief < MOST_BRIEF;
}

/* --- what a failure means --------------------------------------------------------------------- */

/* Whether the server will not have us however often it is asked. */
static bool refuses(const tnl_client_server *s, int error)
{
    switch (error) {
    case TUNNEL_E_AUTH_FAILED:
    case TUNNEL_E_VERSION:
    case TUNNEL_E_REPLACED:
    case TUNNEL_E_DENIED:
    case TUNNEL_E_LIMIT_EXCEEDED:
        return true;
    case TUNNEL_E_CERTIFICATE:
        return !s->worked; /* else it has run out, and somebody will renew it */
    default:
        return false;
    }
}

static bool all_refuse(const tnl_client *c)
{
    for (size_t i = 0; i < c->server_count; i++)
        if (!c->servers[i].refused)
            return false;
    return true;
}

/* --- the next one ----------------------------------------------------------------------------- */

static uint32_t random32(void)
{
    uint32_t r = 0;
    return tnl_random(&r, sizeof(r)) ? UINT32_MAX : r;
}

/* Up to most, at random: many clients lose a server at the same moment. */
static uint64_t jitter(uint32_t most)
{
    return (uint64_t)most * random32() >> 32;
}

/* Only the current relation's own server will do: its lanes are alive, or its streams are all that
 * is still wanted. */
static bool home_only(const tnl_client *c)
{
    const tnl_relation *r = c->current;
    return r &&
           (c->state == TNL_CLIENT_DRAINING || (!r->goaway && !tnl_session_parked(r->session)));
}

/* Where a round begins: where the streams are, or away from who wants us to go. */
static size_t first_of_round(const tnl_client *c)
{
    const tnl_relation *r = c->current;
    if (!r)
        return c->last_good;
    return r->link && r->goaway ? (r->server + 1) % c->server_count : r->server;
}

static bool may_try(const tnl_client *c, size_t server)
{
    const tnl_client_server *s = &c->servers[server];
    return !s->refused && s->not_before <= tnl_loop_now(c->loop);
}

/* The one that may be tried first, counted from there on; *wait is at least until then. */
static size_t soonest(const tnl_client *c, size_t from, size_t count, uint64_t *wait)
{
    uint64_t now = tnl_loop_now(c->loop), best = UINT64_MAX;
    size_t server = from;
    for (size_t i = 0; i < count; i++) {
        const tnl_client_server *s = &c->servers[(from + i) % c->server_count];
        uint64_t in = s->not_before > now ? s->not_before - now : 0;
        if ((s->refused && !home_only(c)) || in >= best)
            continue;
        best = in;
        server = (from + i) % c->server_count;
    }
    if (best != UINT64_MAX && best)
        *wait += best;
    return server;
}

/* The next attempt, after one with `failed`; returns the wait. */
static uint64_t plan(tnl_client *c, size_t failed, size_t *server)
{
    tnl_attempt *a = &c->attempt;
    size_t count = home_only(c) ? 1 : c->server_count;
    a->tried++;
    for (size_t s = (failed + 1) % c->server_count; a->tried < count;
         s = (s + 1) % c->server_count, a->tried++) {
        if (!may_try(c, s))
            continue;
        *server = s;
        return jitter(NEXT_MS);
    }
    a->tried = 0;
    a->backoff.cap_ms = c->current && !c->current->link ? PARKED_CAP_MS : BACKOFF_CAP_MS;
    uint64_t wait = tnl_backoff_next(&a->backoff, random32());
    *server = soonest(c, first_of_round(c), count, &wait);
    return wait;
}

/* --- what happens ----------------------------------------------------------------------------- */

static void retry(tnl_client *c, size_t failed, int error, const char *detail, size_t next,
                  uint64_t wait)
{
    tunnel_event e = {.type = TUNNEL_EVENT_RETRYING,
                      .error = error,
                      .text = detail && detail[0] ? detail : tunnel_strerror(error),
                      .host = c->servers[failed].address,
                      .delay_ms = wait,
                      .served = c->current && c->current->link};
    tnl_attempt_start(c, next, wait);
    tnl_client_tell(c, &e);
}

void tnl_servers_failed(tnl_client *c, size_t server, int error, const char *detail,
                        uint32_t retry_after)
{
    tnl_client_server *s = &c->servers[server];
    tnl_relation *r = c->current;
    size_t next;
    if (!tnl_client_active(c) || (c->state == TNL_CLIENT_DRAINING && !r))
        return;
    if (retry_after)
        s->not_before = tnl_loop_now(c->loop) + (uint64_t)retry_after * 1000;
    /* While there is a server that serves us, nothing another one says is the end. */
    if (refuses(s, error) && !(r && r->link)) {
        s->refused = true;
        if (all_refuse(c) || c->state == TNL_CLIENT_DRAINING) {
            tnl_client_give_up(c, server, error, detail);
            return;
        }
        if (home_only(c)) {
            /* Others may still take us, but not with this session. */
            c->current = NULL;
            tnl_relation_end(r, TUNNEL_E_GONE, NULL);
            r = NULL;
        }
    }
    if (r && server != r->server)
        c->attempt.others_failed = true;
    uint64_t wait = plan(c, server, &next);
    retry(c, server, error, detail, next, wait);
}

void tnl_servers_lost(tnl_client *c, int error, const char *detail)
{
    tnl_attempt *a = &c->attempt;
    const tnl_relation *r = c->current;
    if (!tnl_client_active(c))
        return;
    if (tnl_loop_now(c->loop) - r->live_since >= TNL_STABLE_MS)
        tnl_backoff_reset(&a->backoff);
    /* One that is on its way elsewhere goes on; then the streams are tried to be had back. */
    if (a->state == TNL_ATTEMPT_DIALING || a->state == TNL_ATTEMPT_HANDSHAKE)
        return;
    a->tried = 0;
    a->others_failed = false;
    a->backoff.cap_ms = PARKED_CAP_MS;
    uint64_t wait = tnl_backoff_next(&a->backoff, random32());
    size_t server = soonest(c, r->server, 1, &wait);
    retry(c, r->server, error, detail, server, wait);
}

void tnl_servers_move(tnl_client *c)
{
    uint64_t wait = jitter(NEXT_MS);
    if (!tnl_servers_over(c, c->current)) {
        c->attempt.backoff.cap_ms = BACKOFF_CAP_MS;
        wait += tnl_backoff_next(&c->attempt.backoff, random32());
    }
    c->attempt.tried = 0;
    if (c->attempt.state == TNL_ATTEMPT_NONE)
        tnl_attempt_start(c, soonest(c, first_of_round(c), c->server_count, &wait), wait);
}
