/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "server/internal.h"
#include "server/visitor.h"
#include "tunnel/error.h"
#include "wire/message.h"
#include "wire/text.h"

/*
 * A stream to a tunnel's local service and the parser of what comes back. It is bound to a visitor
 * for one exchange, and kept idle between two where that is safe: anything that comes while it is
 * idle retires it.
 */

/* --- parser ----------------------------------------------------------------------------------- */

static int on_head(void *user, const tnl_http_head *h)
{
    tnl_up *u = user;
    if (h->status >= 200) {
        const tnl_http_field *f = tnl_http_find(h, "Keep-Alive");
        u->keep_ms = TNL_KEEP_MS;
        u->no_reuse = u->no_reuse || !h->keep_alive || h->framing == TNL_HTTP_UNTIL_CLOSE;
        const char *timeout = f && f->value.n >= 9 ? memmem(f->value.p, f->value.n, "timeout=", 8)
                                                   : NULL;
        if (timeout && timeout + 8 < f->value.p + f->value.n) {
            /* One second less than the upstream says, so that its close and our request do not
             * cross. */
            unsigned seconds = (unsigned)(timeout[8] - '0');
            bool more = timeout + 9 < f->value.p + f->value.n && timeout[9] >= '0' &&
                        timeout[9] <= '9';
            if (seconds < 5 && !more)
                u->keep_ms = seconds > 1 ? (seconds - 1) * 1000 : 0;
        }
        if (tnl_http_find(h, "WWW-Authenticate") || tnl_http_find(h, "Proxy-Authenticate"))
            u->no_reuse = true; /* NTLM and Negotiate authenticate connections, not requests */
    }
    if (u->tunnel)
        tnl_pool_worked(u->tunnel, tnl_loop_now(u->tunnel->peer->server->loop));
    return u->visitor ? tnl_visitor_on_head(u->visitor, h) : TUNNEL_E_CANCELED;
}

static int on_body(void *user, const uint8_t *p, size_t n)
{
    tnl_up *u = user;
    return u->visitor ? tnl_visitor_on_body(u->visitor, p, n) : TUNNEL_E_CANCELED;
}

static int on_trailers(void *user, const tnl_http_field *f, size_t n)
{
    tnl_up *u = user;
    return u->visitor ? tnl_visitor_on_trailers(u->visitor, f, n) : TUNNEL_E_CANCELED;
}

static int on_end(void *user)
{
    tnl_up *u = user;
    u->ended = true;
    return 0;
}

static const tnl_http_events parser_events = {
    .head = on_head, .body = on_body, .trailers = on_trailers, .end = on_end};

/* --- stream ----------------------------------------------------------------------------------- */

static void up_free(tnl_up *u)
{
    if (u->depth) {
        u->dead = true;
        return;
    }
    tnl_http_parser_free(u->parser);
    tnl_free(u);
}

static void leave_idle(tnl_up *u)
{
    if (u->tunnel && !tnl_list_empty(&u->idle))
        u->tunnel->idle_count--;
    tnl_list_remove(&u->idle);
}

void tnl_up_bind(tnl_up *u, tnl_visitor *v)
{
    if (u->tunnel)
        u->tunnel->busy = u->tunnel->busy + (v != NULL) - (u->visitor != NULL);
    u->visitor = v;
}

void tnl_up_drop(tnl_up *u)
{
    tnl_stream *s = u->stream;
    leave_idle(u);
    tnl_up_bind(u, NULL);
    tnl_list_remove(&u->of_tunnel);
    u->stream = NULL;
    if (s)
        tnl_stream_release(s);
    up_free(u);
}

/* The polite end of a stream that is not needed any more: the service sees its connection end, not
 * break. */
static void leave(tnl_up *u)
{
    leave_idle(u);
    tnl_up_bind(u, NULL);
    u->leaving = true;
    u->idle_since = tnl_loop_now(u->tunnel->peer->server->loop);
    tnl_stream_fin(u->stream);
}

static void fail(tnl_up *u, int status, const char *why)
{
    tnl_visitor *v = u->visitor;
    if (v)
        tnl_visitor_on_failure(v, status, why);
    else
        tnl_up_drop(u);
}

static size_t stream_data(void *user, const uint8_t *p, size_t n)
{
    tnl_up *u = user;
    size_t used = 0;
    if (!u->visitor) {
        tnl_up_drop(u); /* bytes that nobody asked for */
        return n;
    }
    if (tnl_visitor_blocked(u->visitor))
        return 0;
    if (u->upgraded)
        return tnl_visitor_tunnel_data(u->visitor, p, n);
    u->got_bytes = true;
    u->depth++;
    int rc = tnl_http_feed(u->parser, p, n, &used);
    u->depth--;
    if (u->dead) {
        up_free(u);
        return n;
    }
    if (rc) {
        fail(u, 502, tnl_http_why(u->parser));
        return n;
    }
    if (u->upgraded && used < n) {
        tnl_visitor_tunnel_data(u->visitor, p + used, n - used);
    } else if (u->ended) {
        u->no_reuse = u->no_reuse || used < n; /* more than one response */
        tnl_visitor_on_end(u->visitor);
    } else {
        tnl_visitor_flush(u->visitor);
    }
    return n;
}

static void stream_fin(void *user)
{
    tnl_up *u = user;
    if (!u->visitor) {
        tnl_up_drop(u);
        return;
    }
    if (u->upgraded) {
        u->ended = true;
        tnl_visitor_tunnel_fin(u->visitor);
        return;
    }
    u->no_reuse = true;
    u->depth++;
    int rc = tnl_http_eof(u->parser);
    u->depth--;
    if (u->dead)
        up_free(u);
    else if (rc || !u->ended)
        fail(u, 502, "the connection ended before the answer was complete");
    else
        tnl_visitor_on_end(u->visitor);
}

/* What a failed open or an aborted stream means for the visitor: 503 the client is gone, 504 too
 * slow, else 502. */
static int status_of(const tnl_up *u, uint32_t code)
{
    if (!u->tunnel || !u->tunnel->peer->session || !tnl_session_mux(u->tunnel->peer->session))
        return 503;
    if (code == (uint32_t)-TUNNEL_E_TIMEOUT)
        return 504;
    return code == (uint32_t)-TUNNEL_E_LIMIT ? 503 : 502;
}

/* Whether the code says that no byte of the stream has reached a service. */
static bool tells_untouched(uint32_t code)
{
    static const int codes[] = {TUNNEL_E_REFUSED,   TUNNEL_E_UNREACHABLE, TUNNEL_E_RESOLVE,
                                TUNNEL_E_NOT_FOUND, TUNNEL_E_ACCESS,      TUNNEL_E_DENIED};
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
        if (code == (uint32_t)-codes[i])
            return true;
    return false;
}

static void stream_reset(void *user, uint32_t code, const char *text, size_t n)
{
    tnl_up *u = user;
    char why[300];
    u->untouched = u->uses == 0 && tells_untouched(code);
    size_t len = tnl_text_clean(why, sizeof(why), text, n);
    fail(u, status_of(u, code), len ? why : tunnel_strerror(code < 1000 ? -(int)code : 0));
}

static void stream_room(void *user)
{
    tnl_up *u = user;
    if (u->visitor)
        tnl_visitor_on_room(u->visitor);
}

static const tnl_stream_events stream_events = {
    .data = stream_data, .fin = stream_fin, .reset = stream_reset, .room = stream_room};

/* --- kept streams ----------------------------------------------------------------------------- */

tnl_up *tnl_up_take(tnl_tunnel *t, uint16_t target)
{
    /* The one used last: the others may age out. */
    tnl_list *n = t->idle.prev;
    while (n != &t->idle && TNL_CONTAINER(n, tnl_up, idle)->target != target)
        n = n->prev;
    if (n == &t->idle)
        return NULL;
    tnl_up *u = TNL_CONTAINER(n, tnl_up, idle);
    leave_idle(u);
    u->got_bytes = false;
    u->ended = false;
    u->uses++;
    return u;
}

int tnl_up_open(tnl_up **out, tnl_tunnel *t, const tnl_open *o)
{
    uint8_t map[512];
    tnl_mux *m = t->peer->session ? tnl_session_mux(t->peer->session) : NULL;
    if (!m)
        return TUNNEL_E_GONE;
    tnl_up *u = tnl_calloc(1, sizeof(*u));
    if (!u)
        return TUNNEL_E_NOMEM;
    tnl_list_init(&u->idle);
    tnl_list_init(&u->of_tunnel);
    u->tunnel = t;
    u->keep_ms = TNL_KEEP_MS;
    int rc = tnl_http_parser_new(&u->parser, false, NULL, &parser_events, u);
    tnl_open open = *o;
    open.tunnel = t->id;
    u->target = (uint16_t)o->target;
    size_t n = tnl_open_encode(map, sizeof(map), &open);
    if (rc == 0)
        rc = n ? tnl_mux_open(m, &u->stream, map, n, &stream_events, u) : TUNNEL_E_INVALID;
    if (rc) {
        tnl_http_parser_free(u->parser);
        tnl_free(u);
        return rc;
    }
    tnl_list_add_tail(&t->ups, &u->of_tunnel);
    *out = u;
    return 0;
}

void tnl_up_give_back(tnl_up *u, bool request_done)
{
    tnl_tunnel *t = u->tunnel;
    tnl_up_bind(u, NULL);
    if (!t || !u->ended || !request_done || !tnl_stream_flushed(u->stream)) {
        tnl_up_drop(u);
    } else if (u->no_reuse || t->fresh || !u->keep_ms || t->idle_count >= TNL_KEEP_MAX) {
        leave(u);
    } else {
        tnl_http_next(u->parser); /* it holds no memory then */
        u->idle_since = tnl_loop_now(t->peer->server->loop);
        tnl_list_add_tail(&t->idle, &u->idle);
        t->idle_count++;
    }
}

void tnl_up_break(tnl_up *u, int error, const char *text)
{
    tnl_stream_break(u->stream, error, text);
    if (!u->tunnel) {
        tnl_up_drop(u); /* nobody looks after it any more */
        return;
    }
    tnl_up_bind(u, NULL);
    u->leaving = true;
    u->idle_since = tnl_loop_now(u->tunnel->peer->server->loop);
}

/* A visitor whose client is away: it comes back, another one can take the request, or that was too
 * long. */
static void look_at_gap(tnl_up *u, uint64_t now)
{
    tnl_visitor *v = u->visitor;
    const tnl_peer *p = u->tunnel->peer;
    if (!tnl_peer_away(p)) {
        u->gap_since = 0;
        return;
    }
    uint64_t since = u->gap_since ? u->gap_since : p->parked_at;
    bool other = v->repeatable && !u->got_bytes && tnl_pool_has_other(u->tunnel->name, &v->tried);
    bool over = u->gap_since && now - since >= TNL_GAP_MS;
    if (!over && !(other && now - since >= TNL_POOL_GAP_MS))
        return;
    v->retriable = false;
    if (!other)
        v->tried.count = TNL_POOL_TRIES; /* those who are away as well would only be waited for */
    tnl_visitor_on_failure(v, 503, "its connection was lost");
}

static void sweep(tnl_tunnel *t, uint64_t now)
{
    for (tnl_list *n = t->ups.next, *next; n != &t->ups; n = next) {
        tnl_up *u = TNL_CONTAINER(n, tnl_up, of_tunnel);
        next = n->next;
        if (u->leaving && now - u->idle_since >= TNL_LEAVE_MS) {
            tnl_stream_reset(u->stream, TUNNEL_E_CANCELED, NULL);
            tnl_up_drop(u);
        } else if (!tnl_list_empty(&u->idle) && now - u->idle_since >= u->keep_ms) {
            leave(u);
        } else if (u->visitor) {
            look_at_gap(u, now);
        }
    }
}

void tnl_up_sweep(tnl_peer *p, uint64_t now)
{
    for (tnl_list *n = p->tunnels.next; n != &p->tunnels; n = n->next)
        sweep(TNL_CONTAINER(n, tnl_tunnel, of_peer), now);
}
