/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_HTTP_SPLIT_H
#define FUZZ_HTTP_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/head_write.h"
#include "http/http.h"
#include "tunnel/error.h"

/*
 * What the two HTTP fuzzers share: an input is parsed in pieces of several sizes, and what comes
 * out, reduced to a number, must be the same each time.
 */
typedef struct split_run {
    bool is_request;
    bool head_request;
    bool upgrade_asked;
    uint64_t digest;
    bool in_body;
    bool check_heads; /* once is enough */
} split_run;

#define SPLIT_REQUIRE(condition)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static inline void split_mix(split_run *r, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        r->digest = (r->digest ^ bytes[i]) * 0x100000001b3u;
}

static inline void split_mix_number(split_run *r, uint64_t n)
{
    split_mix(r, &n, sizeof n);
}

static inline void split_mix_span(split_run *r, tnl_http_span s)
{
    split_mix_number(r, s.n);
    split_mix(r, s.p, s.n);
}

static inline void split_event(split_run *r, char tag)
{
    r->in_body = false;
    split_mix(r, &tag, 1);
}

/* What no reader may find in anything that was accepted. */
static inline void split_check_text(tnl_http_span s)
{
    for (size_t i = 0; i < s.n; i++)
        SPLIT_REQUIRE(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
}

static inline void split_mix_fields(split_run *r, const tnl_http_field *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        split_check_text(f[i].name);
        split_check_text(f[i].value);
        SPLIT_REQUIRE(f[i].name.n > 0);
        SPLIT_REQUIRE(!memchr(f[i].name.p, ' ', f[i].name.n) &&
                      !memchr(f[i].name.p, ':', f[i].name.n));
        split_mix_span(r, f[i].name);
        split_mix_span(r, f[i].value);
    }
}

/* --- a head written anew must be read the same ------------------------------------------------ */

typedef struct split_again {
    const tnl_http_head *head;
    tnl_http_framing framing;
    bool seen;
} split_again;

static inline bool split_same(tnl_http_span a, tnl_http_span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline int split_again_head(void *user, const tnl_http_head *h)
{
    split_again *a = user;
    SPLIT_REQUIRE(h->framing == a->framing);
    SPLIT_REQUIRE(h->minor == 1);
    SPLIT_REQUIRE(split_same(h->method, a->head->method));
    SPLIT_REQUIRE(split_same(h->path, a->head->path));
    SPLIT_REQUIRE(a->head->host.n == 0 || split_same(h->host, a->head->host));
    SPLIT_REQUIRE(h->status == a->head->status && split_same(h->reason, a->head->reason));
    SPLIT_REQUIRE(h->framing != TNL_HTTP_LENGTH || h->content_length == a->head->content_length);
    SPLIT_REQUIRE(h->upgrade == a->head->upgrade || h->status);
    a->seen = true;
    return 0;
}

static inline int split_again_body(void *user, const uint8_t *p, size_t n)
{
    (void)user;
    (void)p;
    (void)n;
    abort();
}

static inline int split_again_end(void *user)
{
    (void)user;
    return 0;
}

static inline void split_write_again(const split_run *r, const tnl_http_head *h)
{
    static const tnl_http_events events = {split_again_head, split_again_body, NULL,
                                           split_again_end};
    const tnl_http_limits limits = {1 << 20, TNL_HTTP_MAX_FIELDS};
    split_again again = {.head = h, .framing = h->framing};
    tnl_http_parser *p;
    tnl_buf out;
    size_t used = 0;

    tnl_buf_init(&out, 1 << 20);
    if (r->is_request) {
        tnl_http_request_options o = {.pass_upgrade = true, .pass_expect = true};
        if (!h->host.n)
            o.host = (tnl_http_span){"x", 1};
        SPLIT_REQUIRE(tnl_http_write_request(&out, h, &o) == 0);
    } else {
        tnl_http_response_options o = {.minor = 1};
        again.framing = tnl_http_response_framing(h, &o);
        SPLIT_REQUIRE(tnl_http_write_response(&out, h, &o) == 0);
    }
    SPLIT_REQUIRE(tnl_http_parser_new(&p, r->is_request, &limits, &events, &again) == 0);
    tnl_http_expect(p, r->head_request, r->upgrade_asked);
    SPLIT_REQUIRE(tnl_http_feed(p, tnl_buf_bytes(&out), tnl_buf_len(&out), &used) == 0);
    SPLIT_REQUIRE(again.seen && used == tnl_buf_len(&out));
    tnl_http_parser_free(p);
    tnl_buf_free(&out);
}

/* --- the parser's events ---------------------------------------------------------------------- */

static inline int split_head(void *user, const tnl_http_head *h)
{
    split_run *r = user;
    split_event(r, 'h');
    split_check_text(h->target);
    split_check_text(h->reason);
    split_mix_span(r, h->method);
    split_mix_span(r, h->target);
    split_mix_span(r, h->path);
    split_mix_span(r, h->host);
    split_mix_span(r, h->reason);
    split_mix_number(r,
                     (uint64_t)h->status << 32 | (uint64_t)h->framing << 16 | (uint64_t)h->minor);
    split_mix_number(r, h->content_length);
    split_mix_number(
        r, (uint64_t)(h->keep_alive | h->upgrade << 1 | h->h2c << 2 | h->expect_continue << 3));
    split_mix_fields(r, h->fields, h->field_count);
    if (r->check_heads)
        split_write_again(r, h);
    return 0;
}

static inline int split_body(void *user, const uint8_t *p, size_t n)
{
    split_run *r = user;
    if (!r->in_body)
        split_event(r, 'b');
    r->in_body = true;
    split_mix(r, p, n);
    return 0;
}

static inline int split_trailers(void *user, const tnl_http_field *f, size_t n)
{
    split_run *r = user;
    split_event(r, 't');
    split_mix_fields(r, f, n);
    return 0;
}

static inline int split_end(void *user)
{
    split_event(user, 'e');
    return 0;
}

/* Feeds [p, p + n) to its end, through as many messages as there are; false when no more can be
 * parsed. */
static inline bool split_feed(split_run *r, tnl_http_parser *p, const uint8_t *in, size_t n,
                              size_t rest)
{
    bool stopped = false;
    while (n > 0) {
        size_t used;
        if (tnl_http_feed(p, in, n, &used)) {
            const char *why = tnl_http_why(p);
            split_event(r, 'x');
            split_mix(r, why, strlen(why));
            split_mix_number(r, (uint64_t)tnl_http_error_status(p));
            return false;
        }
        SPLIT_REQUIRE(used <= n);
        in += used;
        n -= used;
        if (used) {
            stopped = false;
            continue;
        }
        SPLIT_REQUIRE(!stopped);
        stopped = true;
        tnl_http_next(p);
        if (!tnl_http_idle(p)) {
            split_event(r, 'u');
            split_mix_number(r, n + rest);
            return false;
        }
        tnl_http_expect(p, r->head_request, r->upgrade_asked);
    }
    return true;
}

/* Parses the input in pieces: the first of size step, then of sizes that change (vary) or stay. */
static inline uint64_t split_digest(split_run r, const uint8_t *in, size_t n, size_t step,
                                    bool vary)
{
    static const tnl_http_events events = {split_head, split_body, split_trailers, split_end};
    const tnl_http_limits limits = {1024, 16};
    tnl_http_parser *p;
    bool alive = true;

    r.digest = 0xcbf29ce484222325u;
    SPLIT_REQUIRE(tnl_http_parser_new(&p, r.is_request, &limits, &events, &r) == 0);
    tnl_http_expect(p, r.head_request, r.upgrade_asked);
    for (size_t at = 0; alive && at < n; at += step) {
        if (vary && at)
            step = step * 7 % 31 + 1;
        if (step > n - at)
            step = n - at;
        alive = split_feed(&r, p, in + at, step, n - at - step);
    }
    if (alive) {
        int rc = tnl_http_eof(p);
        split_event(&r, rc ? 'c' : 'f');
    }
    tnl_http_parser_free(p);
    return r.digest;
}

static inline void split_check(split_run r, const uint8_t *in, size_t n)
{
    r.check_heads = true;
    uint64_t whole = split_digest(r, in, n, n ? n : 1, false);
    r.check_heads = false;
    SPLIT_REQUIRE(split_digest(r, in, n, 1, false) == whole);
    SPLIT_REQUIRE(split_digest(r, in, n, 2, false) == whole);
    for (size_t step = 3; step < 12; step += 4)
        SPLIT_REQUIRE(split_digest(r, in, n, step, true) == whole);
}

#endif
