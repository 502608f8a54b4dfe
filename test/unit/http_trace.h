/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_UNIT_HTTP_TRACE_H
#define TEST_UNIT_HTTP_TRACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "http/http.h"
#include "tunnel/error.h"

/*
 * What a parser makes of an input, as a line of text:
 *   requests   "METHOD PATH HOST MINOR keep|close FRAMING [upgrade] [h2c] [expect]"
 *   responses  "STATUS MINOR keep|close FRAMING [upgrade]"
 * with FRAMING one of none, len=N, chunked, eof, tunnel; then " [body]", " {name=value}" for each
 * trailer field, " ." at the end of the message; " +N" for N bytes left over, " !STATUS why" for an
 * error, " cut" when the input ended within the message. Adjacent pieces of body are one. All
 * messages of the input are parsed.
 */
typedef struct trace {
    tnl_buf text;
    bool in_body;
    bool is_request;
    bool head_request; /* the responses' request was this */
    bool upgrade_asked;
    size_t events;
} trace;

typedef struct trace_row {
    const char *name;
    const char *input;
    size_t size;
    const char *expected; /* when it ends in '*', the beginning */
} trace_row;

#define TRACE_IN(text) (text), sizeof(text) - 1

static inline void trace_add(trace *t, const char *s)
{
    assert_int_equal(tnl_buf_adds(&t->text, s), 0);
}

static inline void trace_add_span(trace *t, tnl_http_span s)
{
    if (s.n)
        assert_int_equal(tnl_buf_add(&t->text, s.p, s.n), 0);
    else
        trace_add(t, "-");
}

static inline void trace_leave_body(trace *t)
{
    if (t->in_body)
        trace_add(t, "]");
    t->in_body = false;
}

static inline void trace_framing(trace *t, const tnl_http_head *h)
{
    char text[64];
    static const char *const names[] = {
        [TNL_HTTP_NO_BODY] = "none",    [TNL_HTTP_LENGTH] = "len",
        [TNL_HTTP_CHUNKED] = "chunked", [TNL_HTTP_UNTIL_CLOSE] = "eof",
        [TNL_HTTP_TUNNEL] = "tunnel",
    };
    trace_add(t, names[h->framing]);
    if (h->has_content_length) {
        snprintf(text, sizeof text, "=%llu", (unsigned long long)h->content_length);
        trace_add(t, text);
    }
}

static inline int trace_head(void *user, const tnl_http_head *h)
{
    trace *t = user;
    char text[32];

    if (tnl_buf_len(&t->text))
        trace_add(t, " ");
    if (t->is_request) {
        trace_add_span(t, h->method);
        trace_add(t, " ");
        trace_add_span(t, h->path);
        trace_add(t, " ");
        trace_add_span(t, h->host);
    } else {
        snprintf(text, sizeof text, "%d", h->status);
        trace_add(t, text);
    }
    trace_add(t, h->minor ? " 1" : " 0");
    trace_add(t, h->keep_alive ? " keep " : " close ");
    trace_framing(t, h);
    trace_add(t, h->upgrade ? " upgrade" : "");
    trace_add(t, h->h2c ? " h2c" : "");
    trace_add(t, h->expect_continue ? " expect" : "");
    t->events++;
    return 0;
}

static inline int trace_body(void *user, const uint8_t *p, size_t n)
{
    trace *t = user;
    assert_true(n > 0);
    if (!t->in_body)
        trace_add(t, " [");
    t->in_body = true;
    assert_int_equal(tnl_buf_add(&t->text, p, n), 0);
    return 0;
}

static inline int trace_trailers(void *user, const tnl_http_field *f, size_t n)
{
    trace *t = user;
    trace_leave_body(t);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        trace_add(t, " {");
        trace_add_span(t, f[i].name);
        trace_add(t, "=");
        trace_add_span(t, f[i].value);
        trace_add(t, "}");
    }
    return 0;
}

static inline int trace_end(void *user)
{
    trace *t = user;
    trace_leave_body(t);
    trace_add(t, " .");
    t->events++;
    return 0;
}

static const tnl_http_events trace_events = {trace_head, trace_body, trace_trailers, trace_end};

/* Feeds one piece, with rest bytes of input behind it; false when the parser stopped for good. */
static inline bool trace_feed(trace *t, tnl_http_parser *p, const uint8_t *in, size_t n,
                              size_t rest)
{
    char text[128];
    while (n > 0) {
        size_t used, events = t->events;
        int rc = tnl_http_feed(p, in, n, &used);
        assert_true(used <= n);
        if (rc) {
            size_t again;
            trace_leave_body(t);
            snprintf(text, sizeof text, " !%d %s", tnl_http_error_status(p), tnl_http_why(p));
            trace_add(t, tnl_buf_len(&t->text) ? text : text + 1);
            assert_int_equal(tnl_http_feed(p, in, n, &again), rc);
            assert_int_equal(again, 0);
            return false;
        }
        in += used;
        n -= used;
        if (n == 0)
            break;
        /* It stopped early: a message ended, or HTTP did. */
        if (used == 0 && events == t->events) {
            tnl_http_next(p);
            if (!tnl_http_idle(p)) {
                snprintf(text, sizeof text, " +%zu", n + rest);
                trace_add(t, text);
                return false;
            }
            tnl_http_expect(p, t->head_request, t->upgrade_asked);
        }
    }
    return true;
}

/*
 * The text for an input fed in two pieces cut at an offset (0: everything at once, SIZE_MAX: byte
 * by byte). To be freed by tnl_buf_free(&t->text).
 */
static inline void trace_run(trace *t, const tnl_http_limits *limits, const void *input, size_t n,
                             size_t cut)
{
    tnl_http_parser *p;
    const uint8_t *in = input;
    size_t at = 0;
    bool alive = true;

    tnl_buf_init(&t->text, 1 << 20);
    t->in_body = false;
    assert_int_equal(tnl_http_parser_new(&p, t->is_request, limits, &trace_events, t), 0);
    assert_true(tnl_http_idle(p));
    tnl_http_expect(p, t->head_request, t->upgrade_asked);
    while (alive && at < n) {
        size_t step = cut == SIZE_MAX ? 1 : cut && at == 0 && cut < n ? cut : n - at;
        /* A copy of its own for each piece, so that a look beyond it is found out. */
        uint8_t *piece = test_malloc(step);
        memcpy(piece, in + at, step);
        alive = trace_feed(t, p, piece, step, n - at - step);
        test_free(piece);
        at += step;
    }
    if (alive) {
        int rc = tnl_http_eof(p);
        trace_leave_body(t);
        assert_true(rc == 0 || rc == TUNNEL_E_EOF);
        if (rc)
            trace_add(t, tnl_buf_len(&t->text) ? " cut" : "cut");
    }
    tnl_http_parser_free(p);
    assert_int_equal(tnl_buf_add(&t->text, "", 1), 0);
}

/* Like trace_run(), checked against what was expected. */
static inline void trace_check(trace t, const tnl_http_limits *limits, const trace_row *row,
                               size_t cut)
{
    trace_run(&t, limits, row->input, row->size, cut);
    const char *text = (const char *)tnl_buf_bytes(&t.text);
    size_t n = strlen(row->expected);
    bool prefix = n && row->expected[n - 1] == '*';
    if (prefix ? strncmp(text, row->expected, n - 1) != 0 : strcmp(text, row->expected) != 0)
        fail_msg("%s, cut at %zd\n  expected %s\n  got      %s", row->name, (ssize_t)cut,
                 row->expected, text);
    tnl_buf_free(&t.text);
}

/* Whole, in two pieces cut at every place, and byte by byte: always the same. */
static inline void trace_check_all(trace t, const tnl_http_limits *limits, const trace_row *rows,
                                   size_t n)
{
    for (size_t i = 0; i < n; i++) {
        trace_check(t, limits, &rows[i], 0);
        for (size_t cut = 1; cut < rows[i].size; cut++)
            trace_check(t, limits, &rows[i], cut);
        trace_check(t, limits, &rows[i], SIZE_MAX);
    }
}

#endif
