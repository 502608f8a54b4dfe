/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "server/visitor.h"
#include "tunnel/error.h"
#include "wire/message.h"

enum {
    REQUEST_HEAD_MAX = 64 * 1024,
    GATHER_MAX = 4096,        /* pieces of a body up to this size are copied together */
    OUT_GATHERED = 16 * 1024, /* and sent when they have become so many */
};

/* --- events ----------------------------------------------------------------------------------- */

static void tell_client(const tnl_visitor *v, const tnl_tunnel *t, uint64_t duration)
{
    uint8_t map[TNL_LOG_PATH + 512];
    tnl_mux *m = t->peer->session ? tnl_session_mux(t->peer->session) : NULL;
    if (!m)
        return;
    tnl_event e = {.event = tnl_str_of("request"),
                   .tunnel = t->id,
                   .method = tnl_str_of(v->note.method),
                   .path = tnl_str_of(v->note.path),
                   .status = (uint32_t)v->note.status,
                   .duration_us = duration,
                   .received = v->note.bytes_in,
                   .sent = v->note.bytes_out,
                   .visitor = tnl_str_of(v->peer.host)};
    size_t n = tnl_event_encode(map, sizeof(map), &e);
    if (n)
        tnl_mux_event(m, map, n);
}

void tnl_exchange_tell(tnl_visitor *v)
{
    if (!v->in_request || v->told)
        return;
    v->told = true;
    uint64_t duration = tnl_now_us() - v->note.started_us;
    const tnl_tunnel *t = v->up ? v->up->tunnel : v->tunnel;
    if (t)
        tell_client(v, t, duration);
    if (!v->server->config.access_events)
        return;
    tunnel_event e = {.type = TUNNEL_EVENT_ACCESS,
                      .method = v->note.method,
                      .host = v->note.host,
                      .path = v->note.path,
                      .visitor = v->peer.host,
                      .status = v->note.status,
                      .duration_us = duration,
                      .bytes_in = v->note.bytes_in,
                      .bytes_out = v->note.bytes_out};
    tnl_server_tell(v->server, &e);
}

/* --- request ---------------------------------------------------------------------------------- */

static int write_all(tnl_visitor *v, const void *p, size_t n)
{
    if (tnl_stream_write(v->up->stream, p, n) == n)
        return 0;
    tnl_visitor_abort(v);
    return TUNNEL_E_CANCELED;
}

static int write_head(tnl_visitor *v, const tnl_tunnel *t)
{
    tnl_buf head;
    char loop[TNL_LOOP_MARK];
    const char *mark = tnl_route_mark(t, loop);
    tnl_buf_init(&head, REQUEST_HEAD_MAX);
    const tnl_server *s = v->server;
    const char *proto = v->tls ? "https" : s->config.has_public_url ? s->public_scheme : "http";
    tnl_http_request_options o = {.host = {t->host_header, strlen(t->host_header)},
                                  .forwarded_for = {v->peer.host, strlen(v->peer.host)},
                                  .forwarded_host = v->head->host,
                                  .forwarded_proto = {proto, strlen(proto)},
                                  .forwarded_prefix = v->prefix,
                                  .loop = {mark, strlen(mark)},
                                  .path = v->path,
                                  .pass_upgrade = true,
                                  .pass_expect = true};
    int rc = tnl_http_write_request(&head, v->head, &o);
    if (rc == 0)
        rc = write_all(v, tnl_buf_bytes(&head), tnl_buf_len(&head));
    tnl_buf_free(&head);
    return rc;
}

static bool authenticates_connection(const tnl_http_head *h)
{
    const tnl_http_field *f = tnl_http_find(h, "Authorization");
    return f && (strncasecmp(f->value.p, "NTLM", f->value.n < 4 ? f->value.n : 4) == 0 ||
                 strncasecmp(f->value.p, "Negotiate", f->value.n < 9 ? f->value.n : 9) == 0);
}

static void answer_open_failure(tnl_visitor *v, int error)
{
    if (error == TUNNEL_E_LIMIT)
        tnl_visitor_answer(
            v, 503,
            "This tunnel answers as many requests at once as it can.\nTry again in a moment.");
    else if (error == TUNNEL_E_GONE)
        tnl_visitor_answer(v, 503,
                           "The tunnel's client has just left.\nIt may come back in a moment.");
    else
        tnl_visitor_answer(v, 500, tunnel_strerror(error));
}

/* Binds a stream to the visitor and sends the head; fresh: not a kept one. An error: there is no
 * stream to be had, and nothing was answered. */
static int forward(tnl_visitor *v, tnl_tunnel *t, bool fresh)
{
    tnl_open o = {.visitor = tnl_str_of(v->peer.host),
                  .port = v->peer.port,
                  .server = tnl_str_of(v->local.host),
                  .server_port = v->local.port,
                  .target = v->target};
    fresh = fresh || t->fresh;
    tnl_up *u = fresh ? NULL : tnl_up_take(t, v->target);
    int rc = u ? 0 : tnl_up_open(&u, t, &o);
    /* Where the client takes no more streams an idle one may do: that the service closes it just
     * now is unlikely. */
    if (rc == TUNNEL_E_LIMIT && !t->fresh && (u = tnl_up_take(t, v->target)))
        rc = 0;
    if (rc)
        return rc;
    v->up = u;
    tnl_up_bind(u, v);
    u->gap_since = tnl_peer_away(t->peer) ? tnl_loop_now(v->server->loop) : 0;
    u->no_reuse = u->no_reuse || authenticates_connection(v->head);
    tnl_http_expect(u->parser, v->head_request, v->upgrade_asked);
    rc = write_head(v, t);
    if (rc && !v->closing)
        tnl_visitor_answer(v, 500, tunnel_strerror(rc));
    return 0;
}

/* To t, or to the next member of its pool that has room. */
static void start(tnl_visitor *v, tnl_tunnel *t, bool fresh)
{
    int rc;
    for (;;) {
        v->tunnel = t;
        rc = forward(v, t, fresh);
        tnl_tunnel *next = rc ? tnl_route_again(v) : NULL;
        if (!next)
            break;
        v->server->stats.retried++;
        t = next;
    }
    if (rc)
        answer_open_failure(v, rc);
    v->tunnel = NULL;
}

/* RFC 9110 section 9.2.2 */
static bool is_idempotent(const tnl_http_head *h)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
        if (tnl_http_is(h->method, methods[i]))
            return true;
    return false;
}

void tnl_exchange_start(tnl_visitor *v)
{
    const tnl_http_head *h = v->head;
    tnl_tunnel *t = tnl_route(v);
    if (!t)
        return;
    bool safe = tnl_http_is(h->method, "GET") || v->head_request ||
                tnl_http_is(h->method, "OPTIONS");
    v->bodiless = h->framing == TNL_HTTP_NO_BODY ||
                  (h->framing == TNL_HTTP_LENGTH && h->content_length == 0);
    v->repeatable = v->bodiless && is_idempotent(h);
    v->retriable = safe && h->framing == TNL_HTTP_NO_BODY && !v->upgrade_asked;
    start(v, t, !v->retriable);
}

int tnl_exchange_request_body(tnl_visitor *v, const uint8_t *p, size_t n)
{
    if (v->request_framing != TNL_HTTP_CHUNKED)
        return write_all(v, p, n);
    char head[TNL_HTTP_CHUNK_HEAD_MAX];
    int rc = write_all(v, head, tnl_http_chunk_head(head, n));
    if (rc == 0)
        rc = write_all(v, p, n);
    return rc ? rc : write_all(v, tnl_http_chunk_end, 2);
}

static int write_last_chunk(tnl_visitor *v, const tnl_http_field *f, size_t n)
{
    tnl_buf last;
    tnl_buf_init(&last, 16 * 1024);
    int rc = tnl_http_write_last_chunk(&last, f, n);
    if (rc == 0)
        rc = write_all(v, tnl_buf_bytes(&last), tnl_buf_len(&last));
    tnl_buf_free(&last);
    return rc;
}

int tnl_exchange_request_trailers(tnl_visitor *v, const tnl_http_field *f, size_t n)
{
    v->request_trailers_sent = true;
    return write_last_chunk(v, f, n);
}

int tnl_exchange_request_end(tnl_visitor *v)
{
    if (v->request_framing != TNL_HTTP_CHUNKED || v->request_trailers_sent)
        return 0;
    return write_last_chunk(v, NULL, 0);
}

/* --- response --------------------------------------------------------------------------------- */

/* Sends what was gathered, and the pieces behind it. */
static void send(tnl_visitor *v, const tnl_iov *more, size_t n)
{
    tnl_iov iov[4] = {{tnl_buf_bytes(&v->out), tnl_buf_len(&v->out)}};
    for (size_t i = 0; i < n; i++)
        iov[1 + i] = more[i];
    tnl_visitor_write(v, iov, 1 + n);
    tnl_buf_clear(&v->out);
    v->head_sent = v->answered;
}

void tnl_visitor_flush(tnl_visitor *v)
{
    if (tnl_buf_len(&v->out))
        send(v, NULL, 0);
}

bool tnl_visitor_blocked(const tnl_visitor *v)
{
    return tnl_conn_pending(v->conn) > 0;
}

void tnl_visitor_on_room(tnl_visitor *v)
{
    if (!v->closing)
        tnl_conn_resume(v->conn);
}

int tnl_visitor_on_head(tnl_visitor *v, const tnl_http_head *h)
{
    if (h->status == 101 && !v->request_done)
        return TUNNEL_E_PROTOCOL; /* the new protocol begins behind the request */
    if (h->status >= 200 && !v->request_done)
        v->close_after = true; /* an early answer: what is left of the upload is not waited for */
    tnl_http_response_options o = {.minor = v->minor, .close = v->close_after};
    int rc = tnl_http_write_response(&v->out, h, &o);
    if (rc)
        return rc;
    if (h->status == 101) {
        v->up->upgraded = true;
        v->answered = true;
        v->note.status = 101;
        tnl_visitor_watch(v);
        /* What the visitor sent behind its request belongs to the new protocol. */
        rc = write_all(v, tnl_buf_bytes(&v->ahead), tnl_buf_len(&v->ahead));
        tnl_buf_free(&v->ahead);
        if (rc == 0 && v->eof_seen)
            tnl_stream_fin(v->up->stream);
        tnl_conn_resume(v->conn);
        return rc;
    }
    if (h->status < 200) {
        tnl_timer_start(v->timer, v->server->config.answer_timeout_ms);
        return 0;
    }
    v->answered = true;
    v->note.status = h->status;
    v->response_framing = tnl_http_response_framing(h, &o);
    if (v->response_framing == TNL_HTTP_UNTIL_CLOSE)
        v->close_after = true;
    tnl_visitor_watch(v);
    return 0;
}

int tnl_visitor_on_body(tnl_visitor *v, const uint8_t *p, size_t n)
{
    char head[TNL_HTTP_CHUNK_HEAD_MAX];
    bool chunked = v->response_framing == TNL_HTTP_CHUNKED;
    v->note.bytes_out += n;
    if (n <= GATHER_MAX) {
        if (tnl_buf_len(&v->out) > OUT_GATHERED)
            send(v, NULL, 0);
        return chunked ? tnl_http_write_chunk(&v->out, p, n) : tnl_buf_add(&v->out, p, n);
    }
    if (chunked) {
        tnl_iov iov[3] = {{head, tnl_http_chunk_head(head, n)}, {p, n}, {tnl_http_chunk_end, 2}};
        send(v, iov, 3);
    } else {
        tnl_iov iov = {p, n};
        send(v, &iov, 1);
    }
    return 0;
}

int tnl_visitor_on_trailers(tnl_visitor *v, const tnl_http_field *f, size_t n)
{
    if (v->response_framing != TNL_HTTP_CHUNKED)
        return 0;
    v->trailers_sent = true;
    return tnl_http_write_last_chunk(&v->out, f, n);
}

void tnl_visitor_on_end(tnl_visitor *v)
{
    tnl_up *u = v->up;
    if (v->response_framing == TNL_HTTP_CHUNKED && !v->trailers_sent &&
        tnl_http_write_last_chunk(&v->out, NULL, 0)) {
        tnl_visitor_abort(v);
        return;
    }
    tnl_visitor_flush(v);
    if (v->closing)
        return;
    v->response_done = true;
    tnl_exchange_tell(v);
    v->up = NULL;
    tnl_up_give_back(u, v->request_done);
    tnl_buf_free(&v->out);
    tnl_loop_defer(v->server->loop, &v->go_on);
}

/* Nothing came back. What may be repeated, or has not reached a service, goes to another member. */
static bool try_another(tnl_visitor *v, tnl_up *u)
{
    if (u->tunnel)
        tnl_pool_failed(u->tunnel);
    if (!v->bodiless || !(v->repeatable || u->untouched))
        return false;
    tnl_tunnel *t = tnl_route_again(v);
    if (!t)
        return false;
    v->server->stats.retried++;
    v->up = NULL;
    tnl_up_drop(u);
    start(v, t, true);
    return true;
}

static bool try_again(tnl_visitor *v, tnl_up *u)
{
    tnl_tunnel *t = u->tunnel;
    if (u->got_bytes)
        return false;
    if (!v->retriable || !u->uses || !t)
        return try_another(v, u);
    /* A kept stream that the upstream closed at the same moment: RFC 9110 section 9.2.2 allows to
     * try again. */
    v->up = NULL;
    tnl_up_drop(u);
    start(v, t, true);
    return true;
}

void tnl_visitor_on_failure(tnl_visitor *v, int status, const char *why)
{
    tnl_up *u = v->up;
    char text[600];
    tnl_buf_clear(&v->out);
    if (v->head_sent) {
        /* What was sent so far must not look complete: where only the end of the connection would
         * tell, a reset does. */
        if (v->response_framing == TNL_HTTP_UNTIL_CLOSE || u->upgraded)
            tnl_visitor_abort(v);
        else
            tnl_visitor_finish(v);
        return;
    }
    if (try_again(v, u))
        return;
    if (status == 503)
        snprintf(text, sizeof(text),
                 "The tunnel's client has just left (%s).\nIt may come back in a moment.", why);
    else if (status == 504)
        snprintf(text, sizeof(text),
                 "The tunnel works, but the local service could not be reached in time: %s.\n"
                 "See whether it runs and is not overloaded.",
                 why);
    else
        snprintf(text, sizeof(text),
                 "The tunnel works, but the local service gave no proper answer: %s.\n"
                 "Start the service, or give tunnel-client its right address; then reload.",
                 why);
    tnl_visitor_answer(v, status, text);
}

/* --- after a 101 ------------------------------------------------------------------------------ */

size_t tnl_visitor_tunnel_data(tnl_visitor *v, const uint8_t *p, size_t n)
{
    tnl_iov iov = {p, n};
    v->note.bytes_out += n;
    send(v, &iov, 1);
    return n;
}

void tnl_visitor_tunnel_fin(tnl_visitor *v)
{
    tnl_visitor_flush(v);
    if (v->closing)
        return;
    tnl_conn_shutdown(v->conn);
    tnl_visitor_maybe_over(v);
}

void tnl_visitor_maybe_over(tnl_visitor *v)
{
    if (v->eof_seen && v->up->ended && !tnl_conn_pending(v->conn))
        tnl_visitor_finish(v);
}
