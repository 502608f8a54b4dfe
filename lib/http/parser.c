/* SPDX-License-Identifier: Apache-2.0 */
#include <llhttp.h>
#include <string.h>

#include "base/mem.h"
#include "http/check.h"
#include "http/http.h"
#include "http/scan.h"
#include "tunnel/error.h"

enum { DEFAULT_HEAD = 32 * 1024, MIN_HEAD = 1024, MAX_HEAD = 1024 * 1024, DEFAULT_FIELDS = 100 };

typedef enum state { HEAD, LENGTH, CHUNKED, TRAILERS, UNTIL_CLOSE, DONE, TUNNEL } state;

/* The empty line that may precede a request (RFC 9112 section 2.2). */
enum { LEAD_NONE, LEAD_CR, LEAD_DONE };

/* A head with its fields, in one piece of memory of the right size: made when the head is complete.
 */
typedef struct message {
    tnl_http_head head;
    tnl_http_field fields[];
} message;

struct tnl_http_parser {
    llhttp_t ll;
    tnl_http_events ev;
    void *user;
    tnl_http_limits limits;
    tnl_http_fault fault;
    tnl_http_scan scan;
    tnl_http_chunks chunks;
    tnl_buf text;    /* the head */
    tnl_buf trailer; /* a trailer section that comes in pieces */
    message *msg;
    char *path; /* when it is not a piece of the target */

    /* where llhttp's callbacks put fields */
    tnl_http_field *fields;
    size_t field_count;
    size_t field_max;
    bool in_name;

    uint64_t left;      /* of a body with a length */
    uint64_t delivered; /* body bytes given out by the last call of llhttp */
    uint8_t state;
    uint8_t lead;
    uint8_t interim;
    bool is_request;
    bool head_request;
    bool upgrade_asked;
    bool complete; /* llhttp sees the message's end */
    bool stop;     /* the message has ended in this call */
};

static int refuse(tnl_http_parser *p, const char *why)
{
    return tnl_http_refuse(&p->fault, TUNNEL_E_PROTOCOL, 400, why);
}

static int no_memory(tnl_http_parser *p)
{
    return tnl_http_refuse(&p->fault, TUNNEL_E_NOMEM, 500, "out of memory");
}

/* The fault for what a callback of the owner returned. */
static int from_callback(tnl_http_parser *p, int rc)
{
    return rc ? tnl_http_refuse(&p->fault, rc, 500, "stopped by its owner") : 0;
}

/* --- llhttp's callbacks ----------------------------------------------------------------------- */

/* All text given to llhttp in one head is one piece, so a span given in several parts is
 * contiguous. */
static int extend(tnl_http_span *s, const char *at, size_t n)
{
    if (!s->n)
        s->p = at;
    s->n = (size_t)(at - s->p) + n;
    return 0;
}

static int on_method(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    return extend(&p->msg->head.method, at, n);
}

static int on_url(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    return extend(&p->msg->head.target, at, n);
}

static int on_status(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    return extend(&p->msg->head.reason, at, n);
}

static int on_header_field(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    if (!p->in_name) {
        if (p->field_count == p->field_max) {
            refuse(p, "ambiguous field lines");
            return -1;
        }
        p->in_name = true;
        p->fields[p->field_count++] = (tnl_http_field){.name = {at, 0}};
    }
    tnl_http_field *f = &p->fields[p->field_count - 1];
    extend(&f->name, at, n);
    f->value = (tnl_http_span){at + n, 0};
    return 0;
}

static int on_header_value(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    p->in_name = false;
    if (p->field_count == 0) {
        refuse(p, "ambiguous field lines");
        return -1;
    }
    return extend(&p->fields[p->field_count - 1].value, at, n);
}

static int on_header_value_complete(llhttp_t *ll)
{
    tnl_http_parser *p = ll->data;
    p->in_name = false; /* also after an empty value, for which there may be no span */
    return 0;
}

/* llhttp leaves out the white space before a value, not that behind it. */
static void trim_values(tnl_http_field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tnl_http_span *v = &fields[i].value;
        while (v->n && (v->p[v->n - 1] == ' ' || v->p[v->n - 1] == '\t'))
            v->n--;
    }
}

static int on_headers_complete(llhttp_t *ll)
{
    tnl_http_parser *p = ll->data;
    tnl_http_head *h = &p->msg->head;
    int rc;

    h->fields = p->msg->fields;
    h->field_count = p->field_count;
    h->minor = llhttp_get_http_minor(ll);
    trim_values(p->msg->fields, p->field_count);
    if (p->is_request) {
        rc = tnl_http_check_request(h, &p->fault);
    } else {
        h->status = llhttp_get_status_code(ll);
        rc = tnl_http_check_response(h, p->head_request, p->upgrade_asked, &p->fault);
    }
    if (rc)
        return -1;
    return p->head_request && h->status >= 200 ? 1 : 0; /* 1: no body, whatever the fields say */
}

static int on_body(llhttp_t *ll, const char *at, size_t n)
{
    tnl_http_parser *p = ll->data;
    p->delivered += n;
    int rc = p->msg->head.status == 205
                 ? refuse(p, "content in a response without content")
                 : from_callback(p, p->ev.body(p->user, (const uint8_t *)at, n));
    return rc ? -1 : 0;
}

static int on_message_complete(llhttp_t *ll)
{
    tnl_http_parser *p = ll->data;
    p->complete = true;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_status = on_status,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* --- feeding llhttp --------------------------------------------------------------------------- */

static int refuse_for_llhttp(tnl_http_parser *p, llhttp_errno_t e)
{
    const char *why = llhttp_get_error_reason(&p->ll);
    int status = 400;
    /* Method and version had passed our own check of the start line: llhttp does not know this
     * method for HTTP. */
    if (p->is_request && (e == HPE_INVALID_METHOD || e == HPE_INVALID_CONSTANT)) {
        status = 501;
        why = "unknown method";
    }
    return tnl_http_refuse(&p->fault, TUNNEL_E_PROTOCOL, status,
                           why && *why ? why : llhttp_errno_name(e));
}

/* Gives llhttp bytes that hold exactly this much body. */
static int execute(tnl_http_parser *p, const void *bytes, size_t n, uint64_t body)
{
    p->delivered = 0;
    if (n == 0)
        return 0;
    llhttp_errno_t e = llhttp_execute(&p->ll, bytes, n);
    if (p->fault.rc)
        return p->fault.rc;
    /* Upgrades are ours to decide on: to llhttp's pause the message is just complete. */
    if (e != HPE_OK && !(e == HPE_PAUSED_UPGRADE && p->complete))
        return refuse_for_llhttp(p, e);
    if (p->delivered != body)
        return refuse(p, "ambiguous body length");
    return 0;
}

static void release(tnl_http_parser *p)
{
    tnl_buf_free(&p->text);
    tnl_buf_free(&p->trailer);
    tnl_free(p->msg);
    tnl_free(p->path);
    p->msg = NULL;
    p->path = NULL;
    p->fields = NULL;
}

static void begin_head(tnl_http_parser *p)
{
    release(p);
    llhttp_reset(&p->ll);
    tnl_http_scan_head(&p->scan, p->is_request, p->limits.max_head, p->limits.max_fields);
    p->state = HEAD;
    p->complete = false;
}

static int finish(tnl_http_parser *p)
{
    if (!p->complete)
        return refuse(p, "ambiguous end of the message");
    p->state = DONE;
    p->stop = true;
    return from_callback(p, p->ev.end(p->user));
}

/* --- heads ------------------------------------------------------------------------------------ */

/* Whether llhttp expects the same to come after the head as we do. */
static bool agrees(const tnl_http_parser *p)
{
    const tnl_http_head *h = &p->msg->head;
    bool chunked = (p->ll.flags & F_CHUNKED) != 0;
    if (h->field_count != p->scan.fields)
        return false;
    switch (h->framing) {
    case TNL_HTTP_LENGTH:
        return !chunked && p->complete == (h->content_length == 0) &&
               p->ll.content_length == h->content_length;
    case TNL_HTTP_CHUNKED:
        return !p->complete && chunked;
    case TNL_HTTP_UNTIL_CLOSE:
        return !p->complete && !chunked && llhttp_message_needs_eof(&p->ll);
    default:
        return p->complete;
    }
}

/* The one target whose path is no piece of it: "http://host?query". */
static int complete_path(tnl_http_parser *p)
{
    tnl_http_span *path = &p->msg->head.path;
    if (!path->n || path->p[0] != '?')
        return 0;
    p->path = tnl_malloc(path->n + 1);
    if (!p->path)
        return no_memory(p);
    p->path[0] = '/';
    memcpy(p->path + 1, path->p, path->n);
    *path = (tnl_http_span){p->path, path->n + 1};
    return 0;
}

static int begin_body(tnl_http_parser *p)
{
    const tnl_http_head *h = &p->msg->head;
    switch (h->framing) {
    case TNL_HTTP_TUNNEL:
        p->state = TUNNEL;
        p->stop = true;
        return 0;
    case TNL_HTTP_CHUNKED:
        tnl_http_chunks_init(&p->chunks);
        p->state = CHUNKED;
        return 0;
    case TNL_HTTP_UNTIL_CLOSE:
        p->state = UNTIL_CLOSE;
        return 0;
    case TNL_HTTP_LENGTH:
        if (h->content_length == 0)
            return finish(p);
        p->left = h->content_length;
        p->state = LENGTH;
        return 0;
    default:
        if (p->is_request || h->status >= 200)
            return finish(p);
        begin_head(p);
        return 0;
    }
}

static int head_complete(tnl_http_parser *p)
{
    p->msg = tnl_malloc(sizeof *p->msg + p->scan.fields * sizeof *p->msg->fields);
    if (!p->msg)
        return no_memory(p);
    p->msg->head = (tnl_http_head){0};
    p->fields = p->msg->fields;
    p->field_max = p->scan.fields;
    p->field_count = 0;
    p->in_name = false;

    int rc = execute(p, tnl_buf_bytes(&p->text), tnl_buf_len(&p->text), 0);
    if (rc)
        return rc;
    if (!agrees(p))
        return refuse(p, "ambiguous head");
    rc = complete_path(p);
    if (rc)
        return rc;
    const tnl_http_head *h = &p->msg->head;
    if (!p->is_request && h->status < 200 && h->framing != TNL_HTTP_TUNNEL &&
        ++p->interim > TNL_HTTP_MAX_INTERIM)
        return refuse(p, "too many interim responses");
    rc = from_callback(p, p->ev.head(p->user, h));
    return rc ? rc : begin_body(p);
}

static int check_start_line(tnl_http_parser *p, const void *line, size_t n)
{
    tnl_http_span s = {line, n - 2};
    return p->is_request ? tnl_http_check_request_line(s, &p->fault)
                         : tnl_http_check_status_line(s, &p->fault);
}

/* True when the byte belongs to the empty line before a request (or to none). */
static bool take_lead(tnl_http_parser *p, uint8_t c)
{
    if (p->lead == LEAD_CR) {
        if (c != '\n')
            refuse(p, "carriage return without line feed");
        p->lead = LEAD_DONE;
        return true;
    }
    if (c != '\r' || !p->is_request || p->lead != LEAD_NONE || p->scan.bytes)
        return false;
    p->lead = LEAD_CR;
    return true;
}

static int feed_head(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    size_t kept = 0; /* bytes that are in text already */
    tnl_http_scanned event;

    *used = 0;
    if (take_lead(p, bytes[0])) {
        *used = 1;
        return p->fault.rc;
    }
    do {
        size_t took;
        event = tnl_http_scan_run(&p->scan, bytes + *used, n - *used, &took, &p->fault);
        *used += took;
        if (event == TNL_HTTP_SCAN_REFUSED)
            return p->fault.rc;
        if (event == TNL_HTTP_SCAN_START_LINE && tnl_buf_len(&p->text) == 0) {
            if (check_start_line(p, bytes, *used))
                return p->fault.rc;
            continue;
        }
        if (tnl_buf_add(&p->text, bytes + kept, *used - kept))
            return no_memory(p);
        kept = *used;
        if (event == TNL_HTTP_SCAN_START_LINE &&
            check_start_line(p, tnl_buf_bytes(&p->text), tnl_buf_len(&p->text)))
            return p->fault.rc;
    } while (event == TNL_HTTP_SCAN_START_LINE);
    return event == TNL_HTTP_SCAN_END ? head_complete(p) : 0;
}

/* --- bodies ----------------------------------------------------------------------------------- */

static int feed_length(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    *used = p->left < n ? (size_t)p->left : n;
    p->left -= *used;
    int rc = execute(p, bytes, *used, *used);
    return rc || p->left ? rc : finish(p);
}

static int feed_until_close(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    *used = n;
    return execute(p, bytes, n, n);
}

static int feed_chunked(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    tnl_http_fault fault = {0};
    uint64_t body = 0;
    tnl_http_scanned event = tnl_http_chunks_run(&p->chunks, bytes, n, used, &body, &fault);
    /* What is good before a bad byte goes out first, as it does when the bad byte comes in another
     * call. */
    int rc = execute(p, bytes, *used, body);
    if (rc)
        return rc;
    if (p->complete)
        return refuse(p, "ambiguous end of the message");
    if (event == TNL_HTTP_SCAN_REFUSED) {
        p->fault = fault;
    } else if (event == TNL_HTTP_SCAN_END) {
        tnl_http_scan_trailers(&p->scan, TNL_HTTP_MAX_TRAILERS, TNL_HTTP_MAX_TRAILER_FIELDS);
        p->state = TRAILERS;
    }
    return p->fault.rc;
}

static int trailers_complete(tnl_http_parser *p, const void *text, size_t n)
{
    size_t count = p->scan.fields;
    tnl_http_field *fields = NULL;
    int rc = 0;

    if (count) {
        fields = tnl_calloc(count, sizeof *fields);
        if (!fields)
            return no_memory(p);
    }
    p->fields = fields;
    p->field_max = count;
    p->field_count = 0;
    p->in_name = false;
    rc = execute(p, text, n, 0);
    if (rc)
        goto done;
    if (p->field_count != count) {
        rc = refuse(p, "ambiguous trailer section");
        goto done;
    }
    trim_values(fields, count);
    rc = tnl_http_check_trailers(fields, count, &p->fault);
    if (!rc && count && p->ev.trailers)
        rc = from_callback(p, p->ev.trailers(p->user, fields, count));
done:
    p->fields = NULL;
    tnl_free(fields);
    tnl_buf_free(&p->trailer);
    return rc ? rc : finish(p);
}

static int feed_trailers(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    tnl_http_scanned event = tnl_http_scan_run(&p->scan, bytes, n, used, &p->fault);
    if (event == TNL_HTTP_SCAN_REFUSED)
        return p->fault.rc;
    if (event == TNL_HTTP_SCAN_END && tnl_buf_len(&p->trailer) == 0)
        return trailers_complete(p, bytes, *used);
    if (tnl_buf_add(&p->trailer, bytes, *used))
        return no_memory(p);
    if (event != TNL_HTTP_SCAN_END)
        return 0;
    return trailers_complete(p, tnl_buf_bytes(&p->trailer), tnl_buf_len(&p->trailer));
}

/* --- the interface ---------------------------------------------------------------------------- */

int tnl_http_parser_new(tnl_http_parser **out, bool is_request, const tnl_http_limits *limits,
                        const tnl_http_events *ev, void *user)
{
    tnl_http_limits l = limits ? *limits : (tnl_http_limits){0};
    if (!l.max_head)
        l.max_head = DEFAULT_HEAD;
    if (!l.max_fields)
        l.max_fields = DEFAULT_FIELDS;
    if (l.max_head < MIN_HEAD || l.max_head > MAX_HEAD || l.max_fields > TNL_HTTP_MAX_FIELDS)
        return TUNNEL_E_INVALID;
    tnl_http_parser *p = tnl_calloc(1, sizeof *p);
    if (!p)
        return TUNNEL_E_NOMEM;
    llhttp_init(&p->ll, is_request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    p->ll.data = p;
    p->ev = *ev;
    p->user = user;
    p->limits = l;
    p->is_request = is_request;
    tnl_buf_init(&p->text, l.max_head);
    tnl_buf_init(&p->trailer, TNL_HTTP_MAX_TRAILERS);
    begin_head(p);
    *out = p;
    return 0;
}

void tnl_http_parser_free(tnl_http_parser *p)
{
    if (!p)
        return;
    release(p);
    tnl_free(p);
}

static int feed_some(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    switch ((state)p->state) {
    case HEAD:
        return feed_head(p, bytes, n, used);
    case LENGTH:
        return feed_length(p, bytes, n, used);
    case CHUNKED:
        return feed_chunked(p, bytes, n, used);
    case TRAILERS:
        return feed_trailers(p, bytes, n, used);
    case UNTIL_CLOSE:
        return feed_until_close(p, bytes, n, used);
    case DONE:
    case TUNNEL:
        break;
    }
    *used = 0;
    p->stop = true;
    return 0;
}

int tnl_http_feed(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used)
{
    *used = 0;
    p->stop = false;
    while (!p->fault.rc && !p->stop && *used < n) {
        size_t took = 0;
        feed_some(p, bytes + *used, n - *used, &took);
        *used += took;
    }
    return p->fault.rc;
}

const char *tnl_http_why(const tnl_http_parser *p)
{
    return p->fault.rc ? p->fault.why : "";
}

int tnl_http_error_status(const tnl_http_parser *p)
{
    if (!p->fault.rc || p->is_request || p->fault.status == 500)
        return p->fault.status;
    return 502;
}

int tnl_http_eof(tnl_http_parser *p)
{
    if (p->fault.rc)
        return p->fault.rc;
    if (p->state == DONE || p->state == TUNNEL || tnl_http_idle(p))
        return 0;
    if (p->state != UNTIL_CLOSE)
        return tnl_http_refuse(&p->fault, TUNNEL_E_EOF, 400,
                               "the connection ended within a message");
    p->delivered = 0;
    llhttp_errno_t e = llhttp_finish(&p->ll);
    if (e != HPE_OK)
        return refuse_for_llhttp(p, e);
    return finish(p);
}

void tnl_http_next(tnl_http_parser *p)
{
    if (p->fault.rc || p->state != DONE)
        return;
    begin_head(p);
    p->lead = LEAD_NONE;
    p->interim = 0;
    p->head_request = false;
    p->upgrade_asked = false;
}

void tnl_http_expect(tnl_http_parser *p, bool head_request, bool upgrade_asked)
{
    p->head_request = head_request;
    p->upgrade_asked = upgrade_asked;
}

bool tnl_http_idle(const tnl_http_parser *p)
{
    return p->state == HEAD && p->scan.bytes == 0 && p->lead != LEAD_CR && p->interim == 0 &&
           !p->fault.rc;
}
