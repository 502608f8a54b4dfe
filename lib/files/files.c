/* SPDX-License-Identifier: Apache-2.0 */
#include "files/files.h"

#include "base/mem.h"
#include "files/internal.h"
#include "files/listing.h"
#include "tunnel/error.h"

enum {
    AHEAD_MAX = TNL_LOOP_SCRATCH + TNL_FILES_AHEAD,
    OUT_MAX = TNL_LISTING_BYTES + 64 * 1024,
};

/* --- the end ---------------------------------------------------------------------------------- */

static void end_answer(tnl_files_conn *c)
{
    tnl_files_body_end(&c->body);
    tnl_buf_free(&c->out);
    c->owner->listings -= c->listing;
    c->listing = 0;
}

static void end(tnl_files_conn *c)
{
    if (c->closing)
        return;
    c->closing = true;
    c->owner->open--;
    tnl_list_remove(&c->idle);
    tnl_timer_stop(c->timer);
    tnl_task_cancel(&c->go_on);
    end_answer(c);
    tnl_buf_free(&c->ahead);
}

/* What was written arrives. */
static void finish(tnl_files_conn *c)
{
    if (c->closing)
        return;
    end(c);
    tnl_conn_finish(c->conn);
}

/* An answer that was cut short must not be taken for a whole one. */
static void break_off(tnl_files_conn *c)
{
    if (c->closing)
        return;
    end(c);
    tnl_conn_reset(c->conn);
}

static void on_closed(void *user, int error, const char *detail)
{
    tnl_files_conn *c = user;
    tnl_files *f = c->owner;
    (void)error;
    (void)detail;
    end(c);
    tnl_list_remove(&c->node);
    tnl_timer_free(c->timer);
    tnl_http_parser_free(c->parser);
    tnl_free(c);
    f->count--;
    if (f->freed && f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
}

/* --- requests --------------------------------------------------------------------------------- */

static void ask(tnl_files_conn *c)
{
    c->asked = true;
    c->close_after = c->close_after || !c->complete;
    tnl_loop_defer(c->owner->loop, &c->go_on);
}

static int on_head(void *user, const tnl_http_head *h)
{
    tnl_files_conn *c = user;
    c->head = h;
    c->close_after = !h->keep_alive;
    c->dropped = 0;
    tnl_timer_start(c->timer, c->owner->body_ms);
    /* Nobody is asked for a body, and a large one is not waited for. */
    if (h->expect_continue ||
        (h->framing == TNL_HTTP_LENGTH && h->content_length > TNL_FILES_MAX_DROP))
        ask(c);
    return 0;
}

static int on_body(void *user, const uint8_t *p, size_t n)
{
    tnl_files_conn *c = user;
    (void)p;
    c->dropped += n;
    if (!c->asked && c->dropped > TNL_FILES_MAX_DROP)
        ask(c);
    return 0;
}

static int on_end(void *user)
{
    tnl_files_conn *c = user;
    if (c->asked)
        return 0;
    c->complete = true;
    ask(c);
    return 0;
}

static const tnl_http_events parser_events = {.head = on_head, .body = on_body, .end = on_end};

static void refuse(tnl_files_conn *c, int status)
{
    c->refusal = status;
    c->complete = false;
    ask(c);
}

/* Parses up to the end of a request; how much it took. Of one that is not read any further the rest
 * goes nowhere. */
static size_t parse(tnl_files_conn *c, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n && !c->asked) {
        size_t used = 0;
        if (tnl_http_feed(c->parser, p + done, n - done, &used) && !c->asked)
            refuse(c, tnl_http_error_status(c->parser));
        done += used;
    }
    return c->asked && !c->complete ? n : done;
}

/* --- answers ---------------------------------------------------------------------------------- */

/* Until a reader takes something: one who takes nothing for very long is given up. */
static void watch(tnl_files_conn *c)
{
    c->taken = c->written - tnl_conn_pending(c->conn);
    tnl_timer_start(c->timer, c->owner->stall_ms);
}

/* Writes one piece, at most. 0, or what keeps the answer from being completed. */
static int send_piece(tnl_files_conn *c)
{
    tnl_iov v[2];
    size_t n = 0, text = tnl_buf_len(&c->out), got = 0;
    bool cut = text > TNL_FILES_PIECE;

    if (cut)
        text = TNL_FILES_PIECE;
    if (text)
        v[n++] = (tnl_iov){tnl_buf_bytes(&c->out), text};
    if (!cut && text < TNL_FILES_PIECE && c->body.left) {
        uint8_t *p = tnl_loop_scratch(c->owner->loop);
        got = tnl_files_body_read(&c->body, p, TNL_FILES_PIECE - text);
        if (!got)
            return TUNNEL_E_IO;
        v[n++] = (tnl_iov){p, got};
    }
    int rc = n ? tnl_conn_write(c->conn, v, n) : 0;
    if (rc)
        return rc;
    c->written += text + got;
    tnl_buf_consume(&c->out, text);
    return tnl_files_body_next(&c->body, &c->out);
}

static bool sent(const tnl_files_conn *c)
{
    return tnl_buf_len(&c->out) == 0 && c->body.left == 0;
}

static void rest(tnl_files_conn *c)
{
    bool between = tnl_http_idle(c->parser);
    if (c->eof) {
        /* Nothing more will come. */
        if (between)
            finish(c);
        else
            break_off(c);
        return;
    }
    tnl_timer_start(c->timer, between ? c->owner->idle_ms : c->owner->head_ms);
    if (between)
        tnl_list_add_tail(&c->owner->idle, &c->idle);
    tnl_conn_resume(c->conn);
}

/* The answer is complete: the next request, which may be there already, or the end. */
static void next_request(tnl_files_conn *c)
{
    end_answer(c);
    if (c->close_after || c->owner->freed) {
        finish(c);
        return;
    }
    c->asked = c->answering = c->complete = false;
    c->head = NULL;
    tnl_http_next(c->parser);
    size_t n = tnl_buf_len(&c->ahead);
    if (n) {
        tnl_buf_consume(&c->ahead, parse(c, tnl_buf_bytes(&c->ahead), n));
        if (tnl_buf_len(&c->ahead) == 0)
            tnl_buf_free(&c->ahead);
    }
    if (!c->asked)
        rest(c);
}

static void on_go_on(void *user)
{
    tnl_files_conn *c = user;
    if (tnl_conn_pending(c->conn)) {
        watch(c); /* drained() comes back here */
        return;
    }
    tnl_timer_stop(c->timer);
    if (!c->answering) {
        c->answering = true;
        if (tnl_files_answer(c)) {
            break_off(c);
            return;
        }
    }
    if (sent(c)) {
        next_request(c);
    } else if (send_piece(c)) {
        break_off(c);
    } else {
        tnl_loop_defer(c->owner->loop, &c->go_on);
    }
}

/* --- connection ------------------------------------------------------------------------------- */

static size_t on_space(void *user, uint8_t **p)
{
    tnl_files_conn *c = user;
    *p = tnl_loop_scratch(c->owner->loop);
    if (!c->asked)
        return TNL_LOOP_SCRATCH;
    /* Reading on shows when the other end leaves; what it sends ahead is bounded. */
    size_t held = tnl_buf_len(&c->ahead);
    return held < TNL_FILES_AHEAD ? TNL_FILES_AHEAD - held : 0;
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    tnl_files_conn *c = user;
    if (c->closing)
        return;
    if (!c->asked) {
        if (tnl_http_idle(c->parser))
            tnl_timer_start(c->timer, c->owner->head_ms);
        tnl_list_remove(&c->idle);
        size_t done = parse(c, p, n);
        p += done;
        n -= done;
    }
    if (n && tnl_buf_add(&c->ahead, p, n))
        break_off(c);
}

static void on_eof(void *user)
{
    tnl_files_conn *c = user;
    c->eof = true;
    if (!c->asked && !c->closing)
        rest(c);
}

static void on_drained(void *user)
{
    tnl_files_conn *c = user;
    if (!c->closing && c->asked)
        tnl_loop_defer(c->owner->loop, &c->go_on);
}

static void on_timer(void *user)
{
    tnl_files_conn *c = user;
    if (c->answering || (c->asked && tnl_conn_pending(c->conn))) {
        if (c->taken == c->written - tnl_conn_pending(c->conn))
            break_off(c);
        else
            watch(c);
    } else if (!c->head && tnl_http_idle(c->parser)) {
        finish(c);
    } else if (!c->asked) {
        refuse(c, 408);
    }
}

static const tnl_conn_events conn_events = {
    .space = on_space, .data = on_data, .eof = on_eof, .drained = on_drained, .closed = on_closed};

/* --- owner ------------------------------------------------------------------------------------ */

/* Makes room for another connection; false when there is none to be made. */
static bool make_room(tnl_files *f)
{
    tnl_list *longest = tnl_list_first(&f->idle);
    if (f->open >= TNL_FILES_MAX_OPEN && longest) {
        tnl_files_conn *c = TNL_CONTAINER(longest, tnl_files_conn, idle);
        end(c);
        tnl_conn_close(c->conn);
    }
    return f->open < TNL_FILES_MAX_OPEN && f->count < TNL_FILES_MAX_ALL;
}

int tnl_files_serve(tnl_files *f, tnl_conn *conn)
{
    tnl_files_conn *c = NULL;
    if (!make_room(f))
        return TUNNEL_E_LIMIT;
    c = tnl_calloc(1, sizeof(*c));
    if (!c)
        return TUNNEL_E_NOMEM;
    c->owner = f;
    c->conn = conn;
    c->body.fd = -1;
    tnl_list_init(&c->idle);
    tnl_buf_init(&c->ahead, AHEAD_MAX);
    tnl_buf_init(&c->out, OUT_MAX);
    tnl_task_init(&c->go_on, on_go_on, c);
    if (tnl_timer_new(&c->timer, f->loop, on_timer, c) ||
        tnl_http_parser_new(&c->parser, true, NULL, &parser_events, c)) {
        tnl_timer_free(c->timer);
        tnl_free(c);
        return TUNNEL_E_NOMEM;
    }
    tnl_list_add_tail(&f->conns, &c->node);
    f->open++;
    f->count++;
    tnl_conn_set_events(conn, &conn_events, c);
    tnl_timer_start(c->timer, c->owner->head_ms);
    tnl_conn_resume(conn);
    return 0;
}

static void on_ending(void *user)
{
    tnl_files *f = user;
    void (*gone)(void *) = f->gone;
    void *gone_user = f->gone_user;
    tnl_folder_close(&f->folder);
    tnl_free(f);
    if (gone)
        gone(gone_user);
}

int tnl_files_new(tnl_files **out, tnl_loop *loop, const char *path, char *detail, size_t size)
{
    tnl_files *f = tnl_calloc(1, sizeof(*f));
    *out = NULL;
    if (!f)
        return TUNNEL_E_NOMEM;
    int rc = tnl_folder_open(&f->folder, path, detail, detail ? size : 0);
    if (rc) {
        tnl_free(f);
        return rc;
    }
    f->loop = loop;
    f->head_ms = TNL_FILES_HEAD_MS;
    f->body_ms = TNL_FILES_BODY_MS;
    f->idle_ms = TNL_FILES_IDLE_MS;
    f->stall_ms = TNL_FILES_STALL_MS;
    tnl_list_init(&f->conns);
    tnl_list_init(&f->idle);
    tnl_task_init(&f->ending, on_ending, f);
    *out = f;
    return 0;
}

size_t tnl_files_count(const tnl_files *f)
{
    return f->count;
}

void tnl_files_leave(tnl_files *f, void (*gone)(void *user), void *user)
{
    f->freed = true;
    f->gone = gone;
    f->gone_user = user;
    if (f->count == 0)
        tnl_loop_defer(f->loop, &f->ending);
    for (tnl_list *n; (n = tnl_list_first(&f->idle));)
        finish(TNL_CONTAINER(n, tnl_files_conn, idle));
}

void tnl_files_free(tnl_files *f, void (*gone)(void *user), void *user)
{
    tnl_files_leave(f, gone, user);
    for (tnl_list *n = f->conns.next, *next; n != &f->conns; n = next) {
        tnl_files_conn *c = TNL_CONTAINER(n, tnl_files_conn, node);
        next = n->next;
        end(c);
        tnl_conn_close(c->conn);
    }
}
