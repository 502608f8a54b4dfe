/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "transport/answer.h"
#include "transport/head.h"
#include "transport/transport.h"
#include "tunnel/error.h"

enum {
    ANSWER_MS = 10000,
    CLOSE_MS = 2000,
    MOST_BATCHES = 8, /* in a row, before others on the loop get their turn */
};

typedef struct lane {
    tnl_transport base;
    tnl_conn *conn;
    tnl_loop *loop;
    tnl_task task;      /* opens it, and flushes */
    tnl_timer *timer;   /* client: of the answer; either: of the end */
    tnl_answer *answer; /* client, until the answer is complete */
    tnl_buf early;      /* what was read before there was an owner for it */
    uint8_t *in;        /* TNL_TRANSPORT_BATCH bytes. Not the loop's scratch: what arrives may go on
                           through a TLS connection, which uses that */
    bool open;
    bool closing;
    int error;
    int status;
    char detail[256];
} lane;

static void lane_free(lane *l)
{
    tnl_task_cancel(&l->task);
    tnl_timer_free(l->timer);
    if (l->answer)
        tnl_answer_free(l->answer);
    tnl_free(l->answer);
    tnl_buf_free(&l->early);
    tnl_free(l->in);
    tnl_free(l);
}

static void fail(lane *l, int error, const char *detail)
{
    if (!l->error) {
        l->error = error;
        snprintf(l->detail, sizeof(l->detail), "%s", detail ? detail : "");
    }
    l->closing = true;
    tnl_conn_close(l->conn);
}

/* --- out -------------------------------------------------------------------------------------- */

/* One batch; false: there is nothing, or no room for more. */
static bool send_batch(lane *l, uint8_t *batch)
{
    if (tnl_conn_pending(l->conn))
        return false;
    size_t n = l->base.events->pull(l->base.user, batch, TNL_TRANSPORT_BATCH);
    tnl_iov v = {batch, n};
    int rc = n ? tnl_conn_write(l->conn, &v, 1) : 0;
    if (rc)
        fail(l, rc, tunnel_strerror(rc));
    return n && !rc;
}

static void flush(lane *l)
{
    int left = MOST_BATCHES;
    if (tnl_conn_pending(l->conn))
        return;
    /* Borrowed for as long as it is filled and written: an idle lane holds none. */
    uint8_t *batch = tnl_malloc(TNL_TRANSPORT_BATCH);
    if (!batch) {
        fail(l, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        return;
    }
    while (left-- > 0 && send_batch(l, batch) && !l->closing)
        ;
    tnl_free(batch);
    if (left < 0 && !l->closing)
        tnl_loop_defer(l->loop, &l->task);
}

static void lane_wake(tnl_transport *t)
{
    lane *l = (lane *)t;
    if (l->open && !l->closing)
        tnl_loop_defer(l->loop, &l->task);
}

static void lane_close(tnl_transport *t)
{
    lane *l = (lane *)t;
    if (l->closing)
        return;
    uint8_t *batch = l->open ? tnl_malloc(TNL_TRANSPORT_BATCH) : NULL;
    if (batch)
        (void)send_batch(l, batch);
    tnl_free(batch);
    if (l->closing)
        return;
    l->closing = true;
    if (!l->open) {
        tnl_conn_close(l->conn);
        return;
    }
    tnl_timer_start(l->timer, CLOSE_MS);
    tnl_conn_finish(l->conn);
}

static void lane_abort(tnl_transport *t)
{
    lane *l = (lane *)t;
    l->closing = true;
    tnl_conn_reset(l->conn);
}

static const tnl_transport_ops lane_ops = {
    .wake = lane_wake, .close = lane_close, .abort = lane_abort};

/* --- in --------------------------------------------------------------------------------------- */

static void deliver(lane *l, const uint8_t *p, size_t n)
{
    if (n && !l->closing)
        l->base.events->data(l->base.user, p, n);
}

static void become_open(lane *l)
{
    l->open = true;
    tnl_timer_stop(l->timer);
    l->base.events->opened(l->base.user);
}

/* The client: bytes of the server's answer. */
static void read_answer(lane *l, const uint8_t *p, size_t n)
{
    tnl_answer *a = l->answer;
    tnl_answer_state state = tnl_answer_feed(a, p, n);
    if (state == TNL_ANSWER_MORE)
        return;
    if (state == TNL_ANSWER_REFUSED) {
        if (a->retry_after && l->base.events->retry_after)
            l->base.events->retry_after(l->base.user, a->retry_after);
        l->status = a->status;
        fail(l, a->error, a->detail);
        return;
    }
    l->answer = NULL;
    become_open(l);
    tnl_str rest = tnl_answer_rest(a);
    deliver(l, (const uint8_t *)rest.p, rest.n);
    tnl_answer_free(a);
    tnl_free(a);
}

/* What there is of it makes the refusal. */
static void no_more_answer(lane *l, int error, const char *detail)
{
    tnl_answer_end(l->answer, error, detail);
    l->status = l->answer->status;
    fail(l, l->answer->error, l->answer->detail);
}

static size_t on_space(void *user, uint8_t **p)
{
    *p = ((lane *)user)->in;
    return TNL_TRANSPORT_BATCH;
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    lane *l = user;
    if (l->closing)
        return;
    if (l->answer)
        read_answer(l, p, n);
    else
        deliver(l, p, n);
}

static void on_eof(void *user)
{
    lane *l = user;
    if (l->closing)
        return;
    if (l->answer)
        no_more_answer(l, TUNNEL_E_EOF, "the server closed the connection without an answer");
    else
        fail(l, TUNNEL_E_EOF, tunnel_strerror(TUNNEL_E_EOF));
}

static void on_drained(void *user)
{
    lane *l = user;
    if (l->open && !l->closing)
        tnl_loop_defer(l->loop, &l->task);
}

static void on_closed(void *user, int error, const char *detail)
{
    lane *l = user;
    if (l->error) {
        error = l->error;
        detail = l->detail;
    } else if (l->closing) {
        error = 0; /* however the connection took it */
        detail = "";
    }
    l->base.events->closed(l->base.user, error, l->status, detail);
    lane_free(l);
}

static const tnl_conn_events conn_events = {
    .space = on_space, .data = on_data, .eof = on_eof, .drained = on_drained, .closed = on_closed};

static void on_task(void *user)
{
    lane *l = user;
    if (l->closing)
        return;
    if (!l->open && !l->answer) {
        become_open(l);
        deliver(l, tnl_buf_bytes(&l->early), tnl_buf_len(&l->early));
        tnl_buf_free(&l->early);
        if (!l->closing)
            tnl_conn_resume(l->conn);
    }
    if (l->open && !l->closing)
        flush(l);
}

static void on_timer(void *user)
{
    lane *l = user;
    if (l->open)
        tnl_conn_close(l->conn); /* it would not end politely */
    else
        no_more_answer(l, TUNNEL_E_TIMEOUT, "no answer from the server in time");
}

/* --- making ----------------------------------------------------------------------------------- */

static int lane_new(lane **out, tnl_conn *c, const tnl_transport_events *ev, void *user)
{
    lane *l = tnl_calloc(1, sizeof(*l));
    if (!l)
        return TUNNEL_E_NOMEM;
    l->base = (tnl_transport){&lane_ops, ev, user};
    l->conn = c;
    l->loop = c->loop;
    tnl_conn_keep_little(c);
    tnl_task_init(&l->task, on_task, l);
    tnl_buf_init(&l->early, TNL_TRANSPORT_BATCH);
    l->in = tnl_malloc(TNL_TRANSPORT_BATCH);
    *out = l;
    return l->in ? tnl_timer_new(&l->timer, l->loop, on_timer, l) : TUNNEL_E_NOMEM;
}

/* It never came to be: the connection goes quietly. */
static int discard(lane *l, tnl_conn *c, int rc)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_close(c);
    if (l)
        lane_free(l);
    return rc;
}

int tnl_lane_accept(tnl_transport **out, tnl_conn *c, const uint8_t *early, size_t n,
                    const tnl_transport_events *ev, void *user)
{
    lane *l = NULL;
    *out = NULL;
    int rc = lane_new(&l, c, ev, user);
    if (rc == 0 && n)
        rc = tnl_buf_add(&l->early, early, n);
    if (rc)
        return discard(l, c, rc);
    tnl_conn_pause(c); /* what is read in this turn would come before opened() */
    tnl_conn_set_events(c, &conn_events, l);
    tnl_loop_defer(l->loop, &l->task);
    *out = &l->base;
    return 0;
}

static int send_request(lane *l, const char *host, const char *path, const char *authorization)
{
    enum { HEAD_MAX = 8192 };
    tnl_buf head;
    if (!tnl_head_clean(host) || !tnl_head_clean(path) ||
        (authorization && !tnl_head_clean(authorization)))
        return TUNNEL_E_INVALID;
    tnl_buf_init(&head, HEAD_MAX);
    int rc = tnl_buf_addf(&head,
                          "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: " TNL_LANE_PROTOCOL
                          "\r\nConnection: Upgrade\r\n%s%s%s\r\n",
                          path, host, authorization ? "Authorization: " : "",
                          authorization ? authorization : "", authorization ? "\r\n" : "");
    tnl_iov v = {tnl_buf_bytes(&head), tnl_buf_len(&head)};
    if (rc == 0)
        rc = tnl_conn_write(l->conn, &v, 1);
    if (v.n)
        tnl_wipe(tnl_buf_bytes(&head), v.n);
    tnl_buf_free(&head);
    return rc;
}

int tnl_lane_connect(tnl_transport **out, tnl_conn *c, const char *host, const char *path,
                     const char *authorization, const tnl_transport_events *ev, void *user)
{
    lane *l = NULL;
    *out = NULL;
    int rc = lane_new(&l, c, ev, user);
    if (rc == 0) {
        l->answer = tnl_malloc(sizeof(*l->answer));
        rc = l->answer ? 0 : TUNNEL_E_NOMEM;
    }
    if (rc == 0) {
        tnl_answer_init(l->answer);
        l->answer->lane = true;
        rc = send_request(l, host, path, authorization);
    }
    if (rc)
        return discard(l, c, rc);
    tnl_conn_set_events(c, &conn_events, l);
    tnl_timer_start(l->timer, ANSWER_MS);
    tnl_conn_resume(c);
    *out = &l->base;
    return 0;
}
