/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/answer.h"

#include <stdio.h>
#include <string.h>

#include "transport/head.h"
#include "transport/json.h"
#include "transport/transport.h"
#include "transport/ws.h"
#include "tunnel/error.h"

enum {
    FEED_MAX = 64 * 1024, /* frames may follow the head in the same read */
    INTERIM_MAX = 8,
};

void tnl_answer_init(tnl_answer *a)
{
    memset(a, 0, sizeof(*a));
    tnl_buf_init(&a->in, TNL_ANSWER_HEAD_MAX + FEED_MAX);
}

void tnl_answer_free(tnl_answer *a)
{
    tnl_buf_free(&a->in);
}

static tnl_str text_of(const tnl_answer *a)
{
    return (tnl_str){(const char *)tnl_buf_bytes(&a->in), tnl_buf_len(&a->in)};
}

static tnl_str head_of(const tnl_answer *a)
{
    return (tnl_str){text_of(a).p, a->head_n};
}

tnl_str tnl_answer_rest(const tnl_answer *a)
{
    tnl_str all = text_of(a);
    return (tnl_str){all.p + a->head_n, all.n - a->head_n};
}

static tnl_answer_state refuse(tnl_answer *a, int error, const char *detail)
{
    a->error = error;
    if (detail)
        snprintf(a->detail, sizeof(a->detail), "%s", detail);
    return TNL_ANSWER_REFUSED;
}

/* What a status without a better reason in the body stands for. */
static int error_of_status(int status)
{
    switch (status) {
    case 401:
        return TUNNEL_E_AUTH_FAILED;
    case 403:
        return TUNNEL_E_DENIED;
    case 407:
        return TUNNEL_E_PROXY;
    case 426:
        return TUNNEL_E_VERSION;
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        return TUNNEL_E_REFUSED;
    default:
        return TUNNEL_E_NOT_TUNNEL;
    }
}

static int error_of_name(const char *name)
{
#define TNL_MATCH_NAME(id, value, class_, text)                                                    \
    if (strcmp(name, #id) == 0)                                                                    \
        return TUNNEL_E_##id;
    TUNNEL_ERROR_MAP(TNL_MATCH_NAME)
#undef TNL_MATCH_NAME
    return 0;
}

/* What there is of the body (still in chunks, if it comes in chunks), and whether more is awaited.
 */
static tnl_str body_of(const tnl_answer *a, bool *complete)
{
    static const char last[] = "\r\n0\r\n\r\n";
    tnl_str body = tnl_answer_rest(a);
    size_t end = TNL_ANSWER_BODY_MAX;
    if (a->chunked) {
        /* The CRLF before the last chunk is the head's own when there is no other chunk. */
        const char *from = body.p - 2;
        const char *at = memmem(from, body.n + 2, last, sizeof(last) - 1);
        if (at && (size_t)(at - body.p + 2) < end)
            end = (size_t)(at - body.p + 2);
    } else if (!a->until_end && a->body_n < end) {
        end = (size_t)a->body_n;
    }
    *complete = body.n >= end;
    if (body.n > end)
        body.n = end;
    return body;
}

/* The body is as complete as it gets: takes the reason out of it. */
static tnl_answer_state refused_with_body(tnl_answer *a)
{
    char name[64];
    char message[160];
    bool complete;
    tnl_str body = body_of(a, &complete);
    const char *brace = body.n ? memchr(body.p, '{', body.n)
                               : NULL; /* after the first chunk's size, if any */
    tnl_str object = brace ? (tnl_str){brace, body.n - (size_t)(brace - body.p)}
                           : (tnl_str){NULL, 0};
    a->error = error_of_status(a->status);
    if (tnl_json_member(object, "error", name, sizeof(name)) &&
        tnl_json_member(object, "message", message, sizeof(message))) {
        int error = error_of_name(name);
        if (error)
            a->error = error;
        snprintf(a->detail, sizeof(a->detail), "%s: %s", name, message);
        return TNL_ANSWER_REFUSED;
    }
    tnl_str start = tnl_head_start(head_of(a));
    char reason[64];
    size_t n = 0;
    for (size_t i = 13; i < start.n && n < sizeof(reason) - 1; i++)
        reason[n++] = (char)(start.p[i] >= ' ' && start.p[i] <= '~' ? start.p[i] : '?');
    reason[n] = '\0';
    snprintf(a->detail, sizeof(a->detail), "HTTP %d%s%s", a->status, n ? " " : "", reason);
    return TNL_ANSWER_REFUSED;
}

static bool body_complete(const tnl_answer *a)
{
    bool complete;
    (void)body_of(a, &complete);
    return complete;
}

static uint64_t number(tnl_str s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n && s.p[i] >= '0' && s.p[i] <= '9' && v < UINT32_MAX; i++)
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    return v;
}

/* delay-seconds (RFC 9110 section 10.2.3). A date is not looked at: clocks differ. */
static uint32_t retry_after(const tnl_answer *a)
{
    tnl_str v;
    if ((a->status != 429 && a->status != 503) || !tnl_head_find(head_of(a), "retry-after", &v))
        return 0;
    for (size_t i = 0; i < v.n; i++)
        if (v.p[i] < '0' || v.p[i] > '9')
            return 0;
    uint64_t seconds = number(v);
    return seconds < TNL_RETRY_AFTER_MAX ? (uint32_t)seconds : TNL_RETRY_AFTER_MAX;
}

static tnl_answer_state begin_refusal(tnl_answer *a)
{
    tnl_str head = head_of(a);
    tnl_str v;
    a->retry_after = retry_after(a);
    if (!tnl_head_find(head, "content-type", &v) || v.n < 16 ||
        !tnl_head_is((tnl_str){v.p, 16}, "application/json"))
        return refused_with_body(a);
    if (tnl_head_find(head, "transfer-encoding", &v))
        a->chunked = true;
    else if (tnl_head_find(head, "content-length", &v))
        a->body_n = number(v);
    else
        a->until_end = true;
    return body_complete(a) ? refused_with_body(a) : TNL_ANSWER_MORE;
}

static tnl_answer_state begin_upgrade(tnl_answer *a)
{
    tnl_str head = head_of(a);
    tnl_str v;
    if (a->lane)
        return tnl_head_find(head, "upgrade", &v) && tnl_head_is(v, TNL_LANE_PROTOCOL)
                   ? TNL_ANSWER_UPGRADE
                   : refuse(a, TUNNEL_E_NOT_TUNNEL, "the answer is not a lane's");
    if (!tnl_head_find(head, "upgrade", &v) || !tnl_head_is(v, "websocket") ||
        !tnl_head_find(head, "connection", &v) || !tnl_head_has_token(v, "upgrade") ||
        !tnl_head_find(head, "sec-websocket-accept", &v) || v.n > 64)
        return refuse(a, TUNNEL_E_NOT_TUNNEL, "the answer is not a WebSocket upgrade");
    if (!tnl_head_find(head, "sec-websocket-protocol", &v) || !tnl_str_eq(v, TNL_WS_PROTOCOL))
        return refuse(a, TUNNEL_E_NOT_TUNNEL,
                      "the WebSocket at the other end is not a tunnel server's");
    if (tnl_head_find(head, "sec-websocket-extensions", &v))
        return refuse(a, TUNNEL_E_PROTOCOL,
                      "the server uses a WebSocket extension that was not offered");
    return TNL_ANSWER_UPGRADE;
}

/* "HTTP/1.x NNN" (RFC 9112 section 4); as far as it has come. */
static bool status_line_fits(tnl_str s)
{
    static const char pattern[] = "HTTP/1.# ###";
    for (size_t i = 0; i < s.n && i < sizeof(pattern) - 1; i++) {
        bool digit = s.p[i] >= '0' && s.p[i] <= '9';
        if (pattern[i] == '#' ? !digit : s.p[i] != pattern[i])
            return false;
    }
    return s.n < sizeof(pattern) || s.p[12] == ' ' || s.p[12] == '\r';
}

static tnl_answer_state look_for_head(tnl_answer *a)
{
    for (;;) {
        tnl_str all = text_of(a);
        if (!status_line_fits(all))
            return refuse(a, TUNNEL_E_NOT_TUNNEL, "the other end does not speak HTTP");
        size_t n = tnl_head_length(all.p, all.n);
        if (n > TNL_ANSWER_HEAD_MAX || (!n && all.n >= TNL_ANSWER_HEAD_MAX))
            return refuse(a, TUNNEL_E_NOT_TUNNEL, "the answer's head is too long");
        if (!n)
            return TNL_ANSWER_MORE;
        if (n < 16)
            return refuse(a, TUNNEL_E_NOT_TUNNEL, "the other end does not speak HTTP");
        a->status = (all.p[9] - '0') * 100 + (all.p[10] - '0') * 10 + (all.p[11] - '0');
        a->head_n = n;
        if (a->status == 101)
            return begin_upgrade(a);
        if (a->status >= 200)
            return begin_refusal(a);
        if (++a->interim > INTERIM_MAX)
            return refuse(a, TUNNEL_E_NOT_TUNNEL, "too many interim answers");
        tnl_buf_consume(&a->in, n);
        a->head_n = 0;
        a->status = 0;
    }
}

tnl_answer_state tnl_answer_feed(tnl_answer *a, const uint8_t *p, size_t n)
{
    if (a->head_n && n > TNL_ANSWER_BODY_MAX)
        n = TNL_ANSWER_BODY_MAX;
    int rc = tnl_buf_add(&a->in, p, n);
    if (rc)
        return refuse(a, rc, tunnel_strerror(rc));
    if (!a->head_n)
        return look_for_head(a);
    return body_complete(a) ? refused_with_body(a) : TNL_ANSWER_MORE;
}

void tnl_answer_end(tnl_answer *a, int error, const char *detail)
{
    if (a->head_n)
        refused_with_body(a);
    else
        refuse(a, error, detail);
}

int tnl_answer_head(const tnl_answer *a, tnl_buf *out)
{
    tnl_str accept;
    if (!tnl_head_find(head_of(a), "sec-websocket-accept", &accept))
        return TUNNEL_E_STATE;
    return tnl_buf_addf(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %.*s\r\nSec-WebSocket-Protocol: " TNL_WS_PROTOCOL "\r\n\r\n",
        (int)accept.n, accept.p);
}
