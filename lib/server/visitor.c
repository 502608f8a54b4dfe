/* SPDX-License-Identifier: Apache-2.0 */
#include "server/visitor.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "tunnel/error.h"

enum {
    /* What a chunk of a body may grow by when it is framed anew, for one read. */
    FRAMING_SLACK = 1024,
    AHEAD_MAX = TNL_LOOP_SCRATCH + TNL_PIPELINE_MAX,
    OUT_MAX = 2 * AHEAD_MAX,
};

uint64_t tnl_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void drop_up(tnl_visitor *v)
{
    tnl_up *u = v->up;
    v->up = NULL;
    if (u)
        tnl_up_drop(u);
}

static void end(tnl_visitor *v)
{
    v->closing = true;
    tnl_turns_leave(&v->server->newcomers, &v->newcomer);
    tnl_await_leave(v);
    tnl_timer_stop(v->timer);
    tnl_exchange_tell(v);
    drop_up(v);
}

void tnl_visitor_finish(tnl_visitor *v)
{
    if (v->closing)
        return;
    end(v);
    tnl_conn_finish(v->conn);
}

void tnl_visitor_abort(tnl_visitor *v)
{
    if (v->closing)
        return;
    end(v);
    tnl_conn_reset(v->conn);
}

void tnl_visitor_close(tnl_list *node)
{
    tnl_visitor *v = TNL_CONTAINER(node, tnl_visitor, node);
    end(v);
    tnl_conn_close(v->conn);
}

bool tnl_visitor_is_busy(const tnl_list *node)
{
    const tnl_visitor *v = TNL_CONTAINER(node, const tnl_visitor, node);
    return !v->closing && (v->in_request || !tnl_http_idle(v->parser) || tnl_buf_len(&v->ahead));
}

void tnl_visitor_leave_idle(tnl_list *node)
{
    if (!tnl_visitor_is_busy(node))
        tnl_visitor_finish(TNL_CONTAINER(node, tnl_visitor, node));
}

static void visitor_free(tnl_visitor *v)
{
    tnl_server *s = v->server;
    tnl_task_cancel(&v->go_on);
    tnl_list_remove(&v->node);
    s->visitor_count--;
    tnl_timer_free(v->timer);
    tnl_http_parser_free(v->parser);
    tnl_buf_free(&v->ahead);
    tnl_buf_free(&v->out);
    tnl_free(v);
    tnl_server_maybe_closed(s);
}

static void on_closed(void *user, int error, const char *detail)
{
    tnl_visitor *v = user;
    tnl_up *u = v->up;
    if (u && u->upgraded && error) {
        tnl_exchange_tell(v);
        v->up = NULL;
        tnl_up_break(u, error, detail);
    }
    if (v->tls && !v->ready && error)
        v->server->stats.bad_handshakes++;
    end(v);
    visitor_free(v);
}

/* --- answers of our own ----------------------------------------------------------------------- */

void tnl_visitor_write(tnl_visitor *v, const tnl_iov *iov, size_t n)
{
    if (!v->closing && tnl_conn_write(v->conn, iov, n))
        tnl_visitor_abort(v);
}

static void send_own(tnl_visitor *v, tnl_buf *out, int rc)
{
    tnl_iov iov = {tnl_buf_bytes(out), tnl_buf_len(out)};
    tnl_await_leave(v);
    if (rc == 0)
        tnl_visitor_write(v, &iov, 1);
    tnl_buf_free(out);
    v->answered = true;
    v->response_done = true;
    tnl_exchange_tell(v);
    drop_up(v);
    if (rc) {
        tnl_visitor_abort(v);
        return;
    }
    tnl_loop_defer(v->server->loop, &v->go_on);
}

static tnl_http_reply reply_of(tnl_visitor *v, int status)
{
    /* A body that was not read to its end would be taken for the next request. */
    if (v->request_framing != TNL_HTTP_NO_BODY && !v->request_done)
        v->close_after = true;
    v->note.status = status;
    return (tnl_http_reply){
        .status = status, .minor = 1, .head_request = v->head_request, .close = v->close_after};
}

void tnl_visitor_answer(tnl_visitor *v, int status, const char *text)
{
    tnl_buf out;
    tnl_buf_init(&out, OUT_MAX);
    tnl_http_reply r = reply_of(v, status);
    send_own(v, &out, tnl_http_write_page(&out, &r, text));
}

void tnl_visitor_reply(tnl_visitor *v, const tnl_http_reply *given, const void *body, size_t n)
{
    tnl_buf out;
    tnl_buf_init(&out, OUT_MAX);
    tnl_http_reply r = reply_of(v, given->status);
    r.content_type = given->content_type;
    r.fields = given->fields;
    r.field_count = given->field_count;
    send_own(v, &out, tnl_http_write_reply(&out, &r, body, n));
}

/* --- requests --------------------------------------------------------------------------------- */

static void take_note(tnl_visitor *v, const tnl_http_head *h)
{
    tnl_request_note *n = &v->note;
    *n = (tnl_request_note){.started_us = tnl_now_us()};
    tnl_log_escape(n->method, sizeof(n->method), h->method.p, h->method.n);
    tnl_log_escape(n->host, sizeof(n->host), h->host.p, h->host.n);
    tnl_log_escape(n->path, sizeof(n->path), h->path.p, h->path.n);
}

static int on_head(void *user, const tnl_http_head *h)
{
    tnl_visitor *v = user;
    v->server->stats.requests++;
    v->in_request = true;
    v->request_done = v->answered = v->response_done = false;
    v->awaits_since = 0;
    v->head = h;
    v->minor = h->minor;
    v->head_request = tnl_http_is(h->method, "HEAD");
    v->close_after = !h->keep_alive || v->server->closing || v->server->drain;
    v->request_framing = h->framing;
    v->upgrade_asked = h->upgrade;
    v->head_sent = v->told = v->trailers_sent = v->request_trailers_sent = v->eof_seen = false;
    take_note(v, h);
    tnl_timer_start(v->timer, TNL_BODY_TIMEOUT_MS);
    if (tnl_reserved_is(h))
        tnl_reserved_answer(v);
    else if (v->server->drain > TNL_DRAIN_MOVE)
        tnl_visitor_answer(v, 503, "This server is stopping.\nTry again in a moment.");
    else
        tnl_exchange_start(v);
    return 0;
}

static int on_body(void *user, const uint8_t *p, size_t n)
{
    tnl_visitor *v = user;
    v->note.bytes_in += n;
    if (!v->up)
        return 0; /* answered already: the rest is dropped */
    if (!v->answered)
        tnl_timer_start(v->timer, TNL_BODY_TIMEOUT_MS);
    return tnl_exchange_request_body(v, p, n);
}

static int on_trailers(void *user, const tnl_http_field *f, size_t n)
{
    tnl_visitor *v = user;
    return v->up ? tnl_exchange_request_trailers(v, f, n) : 0;
}

static int on_end(void *user)
{
    tnl_visitor *v = user;
    v->request_done = true;
    if (!v->answered)
        tnl_timer_start(v->timer, v->server->config.answer_timeout_ms);
    return v->up ? tnl_exchange_request_end(v) : 0;
}

static const tnl_http_events parser_events = {
    .head = on_head, .body = on_body, .trailers = on_trailers, .end = on_end};

/* Answers what is no request, or not all of one; the connection is of no use any more. */
static void refuse(tnl_visitor *v, int status, const char *text)
{
    v->close_after = true;
    if (!v->in_request) {
        /* There is no head: of the request it was to be nothing is known, but it counts as one. */
        v->note = (tnl_request_note){
            .method = "-", .host = "-", .path = "-", .started_us = tnl_now_us()};
        v->in_request = true;
        v->head_request = v->told = v->head_sent = false;
        v->request_framing = TNL_HTTP_NO_BODY;
    }
    tnl_visitor_answer(v, status, text);
}

static void bad_request(tnl_visitor *v)
{
    int status = tnl_http_error_status(v->parser);
    v->server->stats.bad_requests++;
    if (v->answered || v->closing)
        tnl_visitor_abort(v);
    else
        refuse(v, status ? status : 400, tnl_http_why(v->parser));
}

static bool upgraded(const tnl_visitor *v)
{
    return v->up && v->up->upgraded;
}

/* The present request is complete and its answer is not: what comes now is the next request. */
static bool waiting(const tnl_visitor *v)
{
    return v->in_request && v->request_done && !upgraded(v);
}

/* Parses what it can of p[0..n); returns how much. */
static size_t parse(tnl_visitor *v, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n && !waiting(v) && !v->closing && !upgraded(v)) {
        size_t used = 0;
        int rc = tnl_http_feed(v->parser, p + done, n - done, &used);
        done += used;
        if (v->link_taken)
            return done;
        if (rc) {
            bad_request(v);
            return n;
        }
    }
    return v->closing ? n : done;
}

static void hand_over_link(tnl_visitor *v, const uint8_t *rest, size_t n);

static void consume(tnl_visitor *v, const uint8_t *p, size_t n)
{
    size_t done = parse(v, p, n);
    if (v->link_taken) {
        hand_over_link(v, p + done, n - done);
        return;
    }
    if (done < n && tnl_buf_add(&v->ahead, p + done, n - done))
        tnl_visitor_abort(v);
}

/* The answer is complete: the next request, of which much may have been read already, or the end.
 */
static void on_go_on(void *user)
{
    tnl_visitor *v = user;
    if (v->closing)
        return;
    if (tnl_conn_pending(v->conn)) {
        /* Who does not read what he asked for gets nothing further; on_drained() comes back here.
         */
        tnl_visitor_watch(v);
        return;
    }
    if (v->close_after || v->server->drain > TNL_DRAIN_MOVE) {
        tnl_visitor_finish(v);
        return;
    }
    v->in_request = v->request_done = v->answered = v->response_done = false;
    v->head = NULL;
    tnl_http_next(v->parser);
    tnl_timer_start(v->timer, TNL_IDLE_TIMEOUT_MS);
    size_t n = tnl_buf_len(&v->ahead);
    if (n) {
        tnl_timer_start(v->timer, TNL_HEAD_TIMEOUT_MS);
        size_t done = parse(v, tnl_buf_bytes(&v->ahead), n);
        if (v->link_taken) {
            hand_over_link(v, tnl_buf_bytes(&v->ahead) + done, n - done);
            return;
        }
        tnl_buf_consume(&v->ahead, done);
        if (tnl_buf_len(&v->ahead) == 0)
            tnl_buf_free(&v->ahead);
    }
    if (!v->closing)
        tnl_conn_resume(v->conn);
}

/* --- connection ------------------------------------------------------------------------------- */

static size_t on_space(void *user, uint8_t **p)
{
    tnl_visitor *v = user;
    *p = tnl_loop_scratch(v->server->loop);
    if (v->closing)
        return TNL_LOOP_SCRATCH;
    if (waiting(v)) {
        /* Reading on shows when the visitor leaves; what he sends ahead is bounded. */
        size_t held = tnl_buf_len(&v->ahead);
        return held < TNL_PIPELINE_MAX ? TNL_PIPELINE_MAX - held : 0;
    }
    if (!v->up)
        return TNL_LOOP_SCRATCH;
    if (upgraded(v))
        return tnl_stream_space(v->up->stream, TNL_LOOP_SCRATCH / 2, p);
    size_t room = tnl_stream_room(v->up->stream);
    if (room <= 2 * FRAMING_SLACK) {
        tnl_stream_want_room(v->up->stream);
        return 0;
    }
    room -= FRAMING_SLACK;
    return room < TNL_LOOP_SCRATCH ? room : TNL_LOOP_SCRATCH;
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    tnl_visitor *v = user;
    if (v->closing)
        return;
    if (v->link_taken) {
        if (tnl_buf_add(&v->out, p, n))
            tnl_visitor_abort(v);
        return;
    }
    if (upgraded(v)) {
        v->note.bytes_in += n;
        tnl_stream_commit(v->up->stream, n);
        return;
    }
    if (!v->in_request && tnl_http_idle(v->parser) && tnl_buf_len(&v->ahead) == 0)
        tnl_timer_start(v->timer, TNL_HEAD_TIMEOUT_MS);
    if (waiting(v)) {
        if (tnl_buf_add(&v->ahead, p, n))
            tnl_visitor_abort(v);
        return;
    }
    consume(v, p, n);
}

static void on_ready(void *user)
{
    ((tnl_visitor *)user)->ready = true;
}

static void on_eof(void *user)
{
    tnl_visitor *v = user;
    if (v->closing)
        return;
    if (v->link_taken) {
        tnl_visitor_abort(v);
        return;
    }
    if (upgraded(v)) {
        v->eof_seen = true;
        tnl_stream_fin(v->up->stream);
        tnl_visitor_maybe_over(v);
        return;
    }
    if (v->upgrade_asked && v->up && v->request_done && !v->answered) {
        /* It may have said all there is to say in the new protocol already. */
        v->eof_seen = v->close_after = true;
        return;
    }
    /* A visitor who ends its direction has left, as for nginx; an answer that is complete still
     * goes out. */
    if (v->response_done)
        tnl_visitor_finish(v);
    else
        tnl_visitor_close(&v->node);
}

static void on_drained(void *user)
{
    tnl_visitor *v = user;
    if (v->up) {
        tnl_stream_resume(v->up->stream);
        if (upgraded(v))
            tnl_visitor_maybe_over(v);
    } else if (v->response_done) {
        tnl_loop_defer(v->server->loop, &v->go_on);
    }
}

/* Bytes of the answer that have left this process, but for a constant. */
static uint64_t taken(const tnl_visitor *v)
{
    return v->note.bytes_out - tnl_conn_pending(v->conn);
}

void tnl_visitor_watch(tnl_visitor *v)
{
    v->taken = taken(v);
    tnl_timer_start(v->timer, TNL_STALL_TIMEOUT_MS);
}

static void end_waiting(tnl_visitor *v)
{
    /* An upload that does not get on may as well be the service's fault, which does not read. */
    tnl_up *u = v->up;
    bool service = v->request_done || (u && tnl_stream_room(u->stream) <= 2 * FRAMING_SLACK);
    if (service && u && u->tunnel && !u->got_bytes)
        tnl_pool_failed(u->tunnel);
    if (!v->in_request && tnl_http_idle(v->parser))
        tnl_visitor_finish(v);
    else if (service)
        refuse(v, 504,
               "The tunnel works, but the local service did not answer in time.\n"
               "See whether it hangs, or raise the server's answer timeout.");
    else
        refuse(v, 408, "The request was not complete in time."); /* RFC 9110 section 15.5.9 */
}

static void on_timer(void *user)
{
    tnl_visitor *v = user;
    if (v->closing)
        return;
    if (v->link_taken)
        tnl_visitor_abort(v);
    else if (!v->answered)
        end_waiting(v);
    else if (tnl_conn_pending(v->conn) && v->taken == taken(v))
        tnl_visitor_abort(v);
    else
        tnl_visitor_watch(v);
}

static const tnl_conn_events conn_events = {.space = on_space,
                                            .data = on_data,
                                            .eof = on_eof,
                                            .drained = on_drained,
                                            .ready = on_ready,
                                            .closed = on_closed};

/* The head of the upgrade was written afresh into out, so that libwebsockets sees a well-formed one
 * only. */
static void begin_link(tnl_visitor *v, const uint8_t *rest, size_t n)
{
    char from[sizeof(v->peer.host) + 8];
    snprintf(from, sizeof(from), v->peer.ipv6 ? "[%s]:%u" : "%s:%u", v->peer.host, v->peer.port);
    if (v->is_lane) {
        tnl_iov answer = {tnl_buf_bytes(&v->out), tnl_buf_len(&v->out)};
        tnl_visitor_write(v, &answer, 1);
        if (v->closing)
            return;
        tnl_peer_accept_lane(v->server, v->conn, v->account, from, rest, n);
    } else {
        tnl_peer_accept(v->server, v->conn, v->account, from, tnl_buf_bytes(&v->out),
                        tnl_buf_len(&v->out));
    }
    visitor_free(v);
}

void tnl_visitor_turn(tnl_list *node)
{
    tnl_visitor *v = TNL_CONTAINER(node, tnl_visitor, newcomer);
    if (tnl_tokens_has(v->server->config.tokens, v->account))
        begin_link(v, NULL, 0);
    else
        tnl_visitor_abort(v); /* taken away while it waited */
}

static void hand_over_link(tnl_visitor *v, const uint8_t *rest, size_t n)
{
    tnl_turns *turns = &v->server->newcomers;
    tnl_conn_pause(v->conn);
    if (v->is_lane)
        begin_link(v, rest, n); /* its client is here already */
    else if (tnl_buf_add(&v->out, rest, n))
        tnl_visitor_abort(v);
    else if (tnl_turns_take(turns))
        begin_link(v, NULL, 0);
    else if (!tnl_turns_wait(turns, &v->newcomer))
        tnl_visitor_abort(v);
}

void tnl_visitor_accept(tnl_server *s, tnl_conn *c, bool tls, const uint8_t *early, size_t n)
{
    tnl_visitor *v = NULL;
    if (s->closing)
        goto fail;
    v = tnl_calloc(1, sizeof(*v));
    if (!v)
        goto fail;
    v->server = s;
    v->peer = tnl_conn_peer(c);
    v->local = tnl_conn_local(c);
    v->tls = tls;
    tnl_list_init(&v->node);
    tnl_list_init(&v->awaiting);
    tnl_list_init(&v->newcomer);
    tnl_buf_init(&v->ahead, AHEAD_MAX);
    tnl_buf_init(&v->out, OUT_MAX);
    tnl_task_init(&v->go_on, on_go_on, v);
    if (tnl_timer_new(&v->timer, s->loop, on_timer, v) ||
        tnl_http_parser_new(&v->parser, true, NULL, &parser_events, v))
        goto fail;
    if (tls) {
        if (tnl_tls_accept(&v->conn, s->tls, c, early, n, &conn_events, v)) {
            c = NULL;
            goto fail;
        }
    } else {
        v->conn = c;
        tnl_conn_set_events(c, &conn_events, v);
    }
    tnl_list_add_tail(&s->visitors, &v->node);
    s->visitor_count++;
    tnl_timer_start(v->timer, TNL_HEAD_TIMEOUT_MS);
    tnl_conn_resume(v->conn);
    if (!tls)
        consume(v, early, n);
    return;
fail:
    if (v) {
        tnl_timer_free(v->timer);
        tnl_http_parser_free(v->parser);
        tnl_free(v);
    }
    if (c) {
        tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
        tnl_conn_close(c);
    }
}
