/* SPDX-License-Identifier: Apache-2.0 */
#include "http/head_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

const char tnl_http_chunk_end[2] = {'\r', '\n'};

/* Appends to a buffer; after the first failure nothing more, and what was appended is taken back at
 * the end. */
typedef struct appender {
    tnl_buf *out;
    size_t start; /* length before */
    int rc;
} appender;

static appender begin(tnl_buf *out)
{
    return (appender){.out = out, .start = tnl_buf_len(out)};
}

static int commit(appender *a)
{
    if (a->rc)
        a->out->tail = a->out->head + a->start;
    return a->rc;
}

static void add(appender *a, const void *p, size_t n)
{
    if (!a->rc)
        a->rc = tnl_buf_add(a->out, p, n);
}

static void add_text(appender *a, const char *s)
{
    add(a, s, strlen(s));
}

static void add_span(appender *a, tnl_http_span s)
{
    add(a, s.p, s.n);
}

static void add_number(appender *a, uint64_t n)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIu64, n);
    add(a, text, (size_t)len);
}

static void add_field(appender *a, tnl_http_span name, tnl_http_span value)
{
    add_span(a, name);
    add(a, ": ", 2);
    add_span(a, value);
    add(a, "\r\n", 2);
}

/* Nothing for an empty value. */
static void add_named(appender *a, const char *name, tnl_http_span value)
{
    if (value.n)
        add_field(a, (tnl_http_span){name, strlen(name)}, value);
}

static void add_length(appender *a, uint64_t n)
{
    add_text(a, "Content-Length: ");
    add_number(a, n);
    add_text(a, "\r\n");
}

/* --- which fields pass ------------------------------------------------------------------------ */

static bool is_one_of(tnl_http_span name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tnl_http_looks_like(name, list[i]))
            return true;
    return false;
}

static bool begins_like(tnl_http_span name, const char *prefix)
{
    size_t n = strlen(prefix);
    return name.n >= n && tnl_http_looks_like((tnl_http_span){name.p, n}, prefix);
}

/* Proxy is no field of HTTP, but becomes HTTP_PROXY in the environment of CGI programs. */
static bool drop_from_request(tnl_http_span name)
{
    static const char *const ours[] = {"Host",      "Content-Length", "Expect",
                                       "Forwarded", "X-Real-IP",      "Proxy"};
    return is_one_of(name, ours, sizeof ours / sizeof *ours) || begins_like(name, "X-Forwarded-");
}

/* The elements of the Connection fields; the parser has seen to it that there are not more. */
typedef struct nominated {
    tnl_http_span names[TNL_HTTP_MAX_CONNECTION];
    size_t count;
} nominated;

static void find_nominated(nominated *n, const tnl_http_head *h)
{
    n->count = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        tnl_http_span list = h->fields[i].value;
        if (!tnl_http_is(h->fields[i].name, "Connection"))
            continue;
        while (n->count < TNL_HTTP_MAX_CONNECTION && tnl_http_list_next(&list, &n->names[n->count]))
            n->count++;
    }
}

static bool is_nominated(const nominated *n, tnl_http_span name)
{
    for (size_t i = 0; i < n->count; i++)
        if (tnl_http_same(n->names[i], name))
            return true;
    return false;
}

static void add_fields(appender *a, const tnl_http_head *h, bool request, bool keep_trailer)
{
    nominated n;
    find_nominated(&n, h);
    for (size_t i = 0; i < h->field_count; i++) {
        tnl_http_span name = h->fields[i].name;
        if (tnl_http_is_hop_by_hop_name(name) || is_nominated(&n, name))
            continue;
        if (request ? drop_from_request(name) : tnl_http_looks_like(name, "Content-Length"))
            continue;
        if (!keep_trailer && tnl_http_is(name, "Trailer"))
            continue;
        add_field(a, name, h->fields[i].value);
    }
}

/* The Upgrade fields as they came, and Connection: Upgrade. */
static void add_upgrade(appender *a, const tnl_http_head *h)
{
    if (!tnl_http_find(h, "Upgrade"))
        return;
    add_text(a, "Connection: Upgrade\r\n");
    for (size_t i = 0; i < h->field_count; i++)
        if (tnl_http_is(h->fields[i].name, "Upgrade"))
            add_named(a, "Upgrade", h->fields[i].value);
}

/* --- forwarded messages ----------------------------------------------------------------------- */

static void add_request_connection(appender *a, const tnl_http_head *h,
                                   const tnl_http_request_options *o)
{
    if (o->pass_upgrade && h->upgrade) {
        add_upgrade(a, h);
        return;
    }
    bool te = h->minor > 0 && tnl_http_has_token(h, "TE", "trailers");
    add_text(a, o->close ? "Connection: close" : "Connection: keep-alive");
    add_text(a, te ? ", TE\r\nTE: trailers\r\n" : "\r\n");
}

int tnl_http_write_request(tnl_buf *out, const tnl_http_head *h, const tnl_http_request_options *o)
{
    appender a = begin(out);
    tnl_http_span host = o->host.n ? o->host : h->host;

    add_span(&a, h->method);
    add(&a, " ", 1);
    if (o->path.p && (o->path.n == 0 || o->path.p[0] != '/'))
        add(&a, "/", 1);
    add_span(&a, o->path.p ? o->path : h->path);
    add_text(&a,
             " HTTP/1.1\r\nHost: "); /* an HTTP/1.0 visitor may have sent none: then it is empty */
    add_span(&a, host);
    add_text(&a, "\r\n");
    add_fields(&a, h, true, h->framing == TNL_HTTP_CHUNKED);
    add_named(&a, "X-Forwarded-For", o->forwarded_for);
    add_named(&a, "X-Forwarded-Host", o->forwarded_host);
    add_named(&a, "X-Forwarded-Proto", o->forwarded_proto);
    add_named(&a, "X-Forwarded-Prefix", o->forwarded_prefix);
    add_named(&a, "CDN-Loop", o->loop);
    if (o->pass_expect && h->expect_continue)
        add_text(&a, "Expect: 100-continue\r\n");
    if (h->framing == TNL_HTTP_LENGTH)
        add_length(&a, h->content_length);
    else if (h->framing == TNL_HTTP_CHUNKED)
        add_text(&a, "Transfer-Encoding: chunked\r\n");
    add_request_connection(&a, h, o);
    add_text(&a, "\r\n");
    return commit(&a);
}

tnl_http_framing tnl_http_response_framing(const tnl_http_head *h,
                                           const tnl_http_response_options *o)
{
    if (h->framing == TNL_HTTP_CHUNKED || h->framing == TNL_HTTP_UNTIL_CLOSE)
        return o->minor > 0 ? TNL_HTTP_CHUNKED : TNL_HTTP_UNTIL_CLOSE;
    return h->framing;
}

static void add_status_line(appender *a, int status, tnl_http_span reason)
{
    add_text(a, "HTTP/1.1 ");
    add_number(a, (uint64_t)status);
    add(a, " ", 1);
    add_span(a, reason);
    add_text(a, "\r\n");
}

static void add_response_connection(appender *a, int minor, bool close)
{
    if (close)
        add_text(a, "Connection: close\r\n");
    else if (minor == 0)
        add_text(a, "Connection: keep-alive\r\n");
}

int tnl_http_write_response(tnl_buf *out, const tnl_http_head *h,
                            const tnl_http_response_options *o)
{
    appender a = begin(out);
    tnl_http_framing framing = tnl_http_response_framing(h, o);
    bool interim = h->status < 200;

    if (interim && framing != TNL_HTTP_TUNNEL && o->minor == 0)
        return 0;
    add_status_line(&a, h->status, h->reason);
    add_fields(&a, h, false, framing == TNL_HTTP_CHUNKED || framing == TNL_HTTP_NO_BODY);
    if (framing == TNL_HTTP_TUNNEL) {
        add_upgrade(&a, h);
    } else if (!interim) {
        bool bodiless = h->status == 204;
        /* What it takes is the point of that answer (RFC 9110 section 15.5.22). */
        if (h->status == 426 && o->minor > 0 && !h->h2c)
            add_upgrade(&a, h);
        if (h->has_content_length && !bodiless)
            add_length(&a, h->content_length);
        else if (framing == TNL_HTTP_CHUNKED)
            add_text(&a, "Transfer-Encoding: chunked\r\n");
        add_response_connection(&a, o->minor, o->close || framing == TNL_HTTP_UNTIL_CLOSE);
    }
    add_text(&a, "\r\n");
    return commit(&a);
}

/* --- answers of our own ----------------------------------------------------------------------- */

static bool may_have_content(int status)
{
    return status >= 200 && status != 204 && status != 205 && status != 304;
}

static void add_reply_head(appender *a, const tnl_http_reply *r, uint64_t length)
{
    const char *reason = tnl_http_reason(r->status);
    const char *type = r->content_type ? r->content_type : "text/plain; charset=utf-8";

    add_status_line(a, r->status, (tnl_http_span){reason, strlen(reason)});
    for (size_t i = 0; i < r->field_count; i++)
        add_field(a, r->fields[i].name, r->fields[i].value);
    if (may_have_content(r->status)) {
        add_named(a, "Content-Type", (tnl_http_span){type, strlen(type)});
        add_length(a, length);
    } else if (r->status == 205) {
        add_length(a, 0);
    }
    if (r->status >= 200)
        add_response_connection(a, r->minor, r->close);
    add_text(a, "\r\n");
}

static void add_reply(appender *a, const tnl_http_reply *r, const void *body, size_t n)
{
    add_reply_head(a, r, n);
    if (may_have_content(r->status) && !r->head_request)
        add(a, body, n);
}

int tnl_http_write_reply(tnl_buf *out, const tnl_http_reply *r, const void *body, size_t n)
{
    appender a = begin(out);
    add_reply(&a, r, body, n);
    return commit(&a);
}

int tnl_http_write_reply_head(tnl_buf *out, const tnl_http_reply *r, uint64_t length)
{
    appender a = begin(out);
    add_reply_head(&a, r, length);
    return commit(&a);
}

static void add_escaped(appender *a, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '&':
            add_text(a, "&amp;");
            break;
        case '<':
            add_text(a, "&lt;");
            break;
        case '>':
            add_text(a, "&gt;");
            break;
        case '"':
            add_text(a, "&quot;");
            break;
        case '\'':
            add_text(a, "&#39;");
            break;
        default:
            add(a, &s[i], 1);
        }
    }
}

static int add_page(tnl_buf *page, int status, const char *text)
{
    appender a = begin(page);
    char title[64];

    snprintf(title, sizeof title, "%d %s", status, tnl_http_reason(status));
    add_text(&a, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                 "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    add_text(&a, title);
    add_text(
        &a,
        "</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;"
        "padding:0 1em}</style>\n</head>\n<body>\n<h1>");
    add_text(&a, title);
    add_text(&a, "</h1>\n");
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (n) {
            add_text(&a, "<p>");
            add_escaped(&a, text, n);
            add_text(&a, "</p>\n");
        }
        text += n + (text[n] == '\n');
    }
    add_text(&a, "</body>\n</html>\n");
    return commit(&a);
}

int tnl_http_write_page(tnl_buf *out, const tnl_http_reply *r, const char *text)
{
    appender a = begin(out);
    tnl_http_reply with = *r;
    tnl_buf page;
    tnl_http_field *fields = NULL;

    tnl_buf_init(&page, out->max);
    fields = tnl_malloc((r->field_count + 1) * sizeof *fields);
    a.rc = fields ? add_page(&page, r->status, text) : TUNNEL_E_NOMEM;
    if (a.rc)
        goto done;
    if (r->field_count)
        memcpy(fields, r->fields, r->field_count * sizeof *fields);
    fields[r->field_count] = (tnl_http_field){{"Cache-Control", 13}, {"no-store", 8}};
    with.fields = fields;
    with.field_count = r->field_count + 1;
    with.content_type = "text/html; charset=utf-8";
    add_reply(&a, &with, tnl_buf_bytes(&page), tnl_buf_len(&page));
done:
    tnl_free(fields);
    tnl_buf_free(&page);
    return commit(&a);
}

/* --- chunked ---------------------------------------------------------------------------------- */

size_t tnl_http_chunk_head(char head[TNL_HTTP_CHUNK_HEAD_MAX], size_t n)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 1;
    while (len < 16 && n >> (4 * len))
        len++;
    for (size_t i = len; i > 0; i--, n >>= 4)
        head[i - 1] = digits[n & 15];
    memcpy(head + len, tnl_http_chunk_end, sizeof tnl_http_chunk_end);
    return len + sizeof tnl_http_chunk_end;
}

int tnl_http_write_chunk(tnl_buf *out, const void *body, size_t n)
{
    appender a = begin(out);
    char head[TNL_HTTP_CHUNK_HEAD_MAX];
    if (n == 0)
        return 0;
    add(&a, head, tnl_http_chunk_head(head, n));
    add(&a, body, n);
    add(&a, tnl_http_chunk_end, sizeof tnl_http_chunk_end);
    return commit(&a);
}

int tnl_http_write_last_chunk(tnl_buf *out, const tnl_http_field *fields, size_t n)
{
    appender a = begin(out);
    add_text(&a, "0\r\n");
    for (size_t i = 0; i < n; i++)
        add_field(&a, fields[i].name, fields[i].value);
    add_text(&a, "\r\n");
    return commit(&a);
}
