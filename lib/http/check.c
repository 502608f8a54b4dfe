/* SPDX-License-Identifier: Apache-2.0 */
#include "http/check.h"

#include <arpa/inet.h>
#include <string.h>

#include "tunnel/error.h"

enum {
    VERSION_LEN = sizeof "HTTP/1.1" - 1,
    MAX_LENGTH_DIGITS = 19,
    MAX_NAME = 253,
    MAX_PORT_DIGITS = 5
};

static int malformed(tnl_http_fault *f, const char *why)
{
    return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 400, why);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_token(tnl_http_span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!tnl_http_is_token_char((uint8_t)s.p[i]))
            return false;
    return s.n > 0;
}

/* --- start lines ------------------------------------------------------------------------------ */

static bool starts_with(tnl_http_span s, const char *text)
{
    size_t n = strlen(text);
    return s.n >= n && tnl_http_is((tnl_http_span){s.p, n}, text);
}

/* "HTTP/d.d" exactly; 505 for a version that is not ours, 400 for what is none. */
static int check_version(tnl_http_span v, tnl_http_fault *f)
{
    if (v.n != VERSION_LEN || memcmp(v.p, "HTTP/", 5) != 0 || !is_digit(v.p[5]) || v.p[6] != '.' ||
        !is_digit(v.p[7]))
        return malformed(f, "malformed HTTP version");
    if (v.p[5] != '1' || v.p[7] > '1')
        return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 505, "HTTP version not supported");
    return 0;
}

/* The authority and the rest of an absolute-form target; false when it is not of that form with
 * http or https. */
static bool split_absolute(tnl_http_span target, tnl_http_span *authority, tnl_http_span *path)
{
    size_t begin = starts_with(target, "http://") ? 7 : starts_with(target, "https://") ? 8 : 0;
    if (!begin)
        return false;
    size_t end = begin;
    while (end < target.n && target.p[end] != '/' && target.p[end] != '?')
        end++;
    *authority = (tnl_http_span){target.p + begin, end - begin};
    *path = (tnl_http_span){target.p + end, target.n - end};
    return true;
}

static int check_target(tnl_http_span method, tnl_http_span target, tnl_http_fault *f)
{
    tnl_http_span authority, path;
    for (size_t i = 0; i < target.n; i++) {
        uint8_t c = (uint8_t)target.p[i];
        if (c <= 0x20 || c > 0x7e || c == '#')
            return malformed(f, "invalid character in the request target");
    }
    if (tnl_http_is(method, "CONNECT"))
        return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 501, "CONNECT is not supported");
    if (target.n == 0)
        return malformed(f, "no request target");
    if (target.p[0] == '/' || split_absolute(target, &authority, &path))
        return 0;
    if (target.n == 1 && target.p[0] == '*')
        return tnl_http_is(method, "OPTIONS") ? 0 : malformed(f, "target * is for OPTIONS only");
    return malformed(f, "invalid request target");
}

int tnl_http_check_request_line(tnl_http_span line, tnl_http_fault *f)
{
    const char *first = line.n ? memchr(line.p, ' ', line.n) : NULL;
    if (!first)
        return malformed(f, "malformed request line");
    const char *end = line.p + line.n;
    const char *second = memchr(first + 1, ' ', (size_t)(end - first - 1));
    if (!second)
        return malformed(f, "request line without an HTTP version");

    tnl_http_span method = {line.p, (size_t)(first - line.p)};
    tnl_http_span target = {first + 1, (size_t)(second - first - 1)};
    tnl_http_span version = {second + 1, (size_t)(end - second - 1)};
    if (!is_token(method))
        return malformed(f, "malformed method");
    if (version.n && memchr(version.p, ' ', version.n))
        return malformed(f, "malformed request line");
    int rc = check_version(version, f);
    return rc ? rc : check_target(method, target, f);
}

int tnl_http_check_status_line(tnl_http_span line, tnl_http_fault *f)
{
    enum { CODE = VERSION_LEN + 1, REASON = CODE + 3 };
    if (line.n < REASON || line.p[VERSION_LEN] != ' ')
        return malformed(f, "malformed status line");
    int rc = check_version((tnl_http_span){line.p, VERSION_LEN}, f);
    if (rc)
        return rc;
    const char *code = line.p + CODE;
    if (code[0] < '1' || code[0] > '9' || !is_digit(code[1]) || !is_digit(code[2]))
        return malformed(f, "invalid status code");
    if (line.n > REASON && line.p[REASON] != ' ')
        return malformed(f, "malformed status line");
    return 0;
}

/* --- host ------------------------------------------------------------------------------------- */

static bool is_ipv6(tnl_http_span s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* Registered names are narrower here than in RFC 3986: what is in names that are served, nothing to
 * be decoded. */
static bool is_reg_name(tnl_http_span s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !is_digit(c) && c != '-' && c != '_' && c != '.')
            return false;
        if (c == '.' && (i == 0 || s.p[i - 1] == '.'))
            return false;
    }
    return s.n > 0 && s.n <= MAX_NAME + 1; /* one for a trailing dot */
}

static bool is_port(tnl_http_span s)
{
    unsigned port = 0;
    if (s.n == 0 || s.n > MAX_PORT_DIGITS)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        port = port * 10 + (unsigned)(s.p[i] - '0');
    }
    return port > 0 && port <= UINT16_MAX;
}

static bool is_authority(tnl_http_span s)
{
    tnl_http_span rest;
    if (s.n && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (!close || !is_ipv6((tnl_http_span){s.p + 1, (size_t)(close - s.p - 1)}))
            return false;
        rest = (tnl_http_span){close + 1, (size_t)(s.p + s.n - close - 1)};
    } else {
        const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
        size_t name = colon ? (size_t)(colon - s.p) : s.n;
        if (!is_reg_name((tnl_http_span){s.p, name}))
            return false;
        rest = (tnl_http_span){s.p + name, s.n - name};
    }
    return rest.n == 0 || (rest.p[0] == ':' && is_port((tnl_http_span){rest.p + 1, rest.n - 1}));
}

static int check_host(tnl_http_head *h, tnl_http_fault *f)
{
    size_t count = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        if (!tnl_http_is(h->fields[i].name, "Host"))
            continue;
        h->host = h->fields[i].value;
        count++;
    }
    if (count > 1)
        return malformed(f, "several Host fields");
    if (count == 0 && h->minor > 0)
        return malformed(f, "no Host field");
    if (count && !is_authority(h->host))
        return malformed(f, "invalid Host field");

    tnl_http_span authority;
    h->path = h->target;
    if (!split_absolute(h->target, &authority, &h->path))
        return 0;
    if (!is_authority(authority))
        return malformed(f, "invalid authority in the request target");
    h->host = authority; /* RFC 9112 section 3.2.2: Host is ignored then */
    if (h->path.n == 0)
        h->path = tnl_http_is(h->method, "OPTIONS") ? (tnl_http_span){"*", 1}
                                                    : (tnl_http_span){"/", 1};
    return 0;
}

/* --- framing ---------------------------------------------------------------------------------- */

static int parse_length(tnl_http_span s, uint64_t *value, tnl_http_fault *f)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s.n; i++)
        if (!is_digit(s.p[i]))
            return malformed(f, "invalid Content-Length");
    if (s.n == 0)
        return malformed(f, "invalid Content-Length");
    if (s.n > MAX_LENGTH_DIGITS)
        return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 413, "Content-Length too large");
    for (size_t i = 0; i < s.n; i++)
        sum = sum * 10 + (unsigned)(s.p[i] - '0');
    if (sum > INT64_MAX)
        return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 413, "Content-Length too large");
    *value = sum;
    return 0;
}

/* A coding we do not know is 501, as RFC 9112 section 6.1 asks; what is not a list of codings is
 * malformed. */
static int refuse_coding(tnl_http_span list, tnl_http_fault *f)
{
    tnl_http_span coding;
    bool known = false;
    while (tnl_http_list_next(&list, &coding)) {
        if (!is_token(coding) || known) /* chunked must be the last, and once */
            return malformed(f, "invalid Transfer-Encoding");
        known = tnl_http_is(coding, "chunked");
    }
    return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 501, "transfer coding not supported");
}

/* Sets framing to LENGTH, CHUNKED or NO_BODY (neither field is there). */
static int read_framing(tnl_http_head *h, tnl_http_fault *f)
{
    const tnl_http_field *length = NULL, *coding = NULL;
    for (size_t i = 0; i < h->field_count; i++) {
        const tnl_http_field *field = &h->fields[i];
        if (tnl_http_is(field->name, "Content-Length")) {
            if (length)
                return malformed(f, "several Content-Length fields");
            length = field;
        } else if (tnl_http_is(field->name, "Transfer-Encoding")) {
            if (coding)
                return malformed(f, "several Transfer-Encoding fields");
            coding = field;
        }
    }
    h->framing = TNL_HTTP_NO_BODY;
    if (length && coding)
        return malformed(f, "both Content-Length and Transfer-Encoding");
    if (coding) {
        if (h->minor == 0)
            return malformed(f, "Transfer-Encoding in HTTP/1.0");
        if (!tnl_http_is(coding->value, "chunked"))
            return refuse_coding(coding->value, f);
        h->framing = TNL_HTTP_CHUNKED;
    }
    if (length) {
        int rc = parse_length(length->value, &h->content_length, f);
        if (rc)
            return rc;
        h->has_content_length = true;
        h->framing = TNL_HTTP_LENGTH;
    }
    return 0;
}

/* --- connection ------------------------------------------------------------------------------- */

/* The Connection fields: their elements are tokens (empty ones are allowed by RFC 9110
 * section 5.6.1.2), and few. */
static int read_connection(tnl_http_head *h, tnl_http_fault *f)
{
    size_t count = 0;
    bool close = false, keep = false;
    for (size_t i = 0; i < h->field_count; i++) {
        tnl_http_span list = h->fields[i].value, element;
        if (!tnl_http_is(h->fields[i].name, "Connection"))
            continue;
        while (tnl_http_list_next(&list, &element)) {
            if (++count > TNL_HTTP_MAX_CONNECTION)
                return malformed(f, "too many connection options");
            if (element.n && !is_token(element))
                return malformed(f, "invalid Connection field");
            close |= tnl_http_is(element, "close");
            keep |= tnl_http_is(element, "keep-alive");
        }
    }
    h->keep_alive = !close && (keep || h->minor > 0);
    return 0;
}

/* Elements of Upgrade: token [ "/" token ]. */
static bool is_protocol(tnl_http_span s)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    if (!slash)
        return is_token(s);
    size_t n = (size_t)(slash - s.p);
    return is_token((tnl_http_span){s.p, n}) && is_token((tnl_http_span){slash + 1, s.n - n - 1});
}

static int read_upgrade(tnl_http_head *h, tnl_http_fault *f)
{
    size_t count = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        tnl_http_span list = h->fields[i].value, element;
        if (!tnl_http_is(h->fields[i].name, "Upgrade"))
            continue;
        while (tnl_http_list_next(&list, &element)) {
            if (element.n == 0)
                continue;
            if (!is_protocol(element))
                return malformed(f, "invalid Upgrade field");
            h->h2c |= tnl_http_is(element, "h2c");
            count++;
        }
    }
    h->upgrade = count && !h->h2c && h->minor > 0 && tnl_http_has_token(h, "Connection", "upgrade");
    return 0;
}

static int read_expect(tnl_http_head *h, tnl_http_fault *f)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (!tnl_http_is(h->fields[i].name, "Expect"))
            continue;
        if (!tnl_http_is(h->fields[i].value, "100-continue"))
            return tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 417, "unknown expectation");
        h->expect_continue = true;
    }
    bool empty = h->framing == TNL_HTTP_NO_BODY ||
                 (h->framing == TNL_HTTP_LENGTH && h->content_length == 0);
    if (h->minor == 0 || empty)
        h->expect_continue = false;
    return 0;
}

int tnl_http_check_request(tnl_http_head *h, tnl_http_fault *f)
{
    int rc = check_host(h, f);
    if (!rc)
        rc = read_framing(h, f);
    if (!rc)
        rc = read_connection(h, f);
    if (!rc)
        rc = read_upgrade(h, f);
    if (!rc)
        rc = read_expect(h, f);
    return rc;
}

/* Responses without content by their status: what they say of a length must not be believed by
 * anyone behind us. */
static int check_bodiless(tnl_http_head *h, bool upgrade_asked, tnl_http_fault *f)
{
    if (h->framing == TNL_HTTP_CHUNKED)
        return malformed(f, "Transfer-Encoding in a response without content");
    if (h->content_length > 0)
        return malformed(f, "Content-Length in a response without content");
    h->framing = TNL_HTTP_NO_BODY;
    if (h->status != 101)
        return 0;
    if (!upgrade_asked)
        return malformed(f, "upgrade that was not asked for");
    if (!h->upgrade)
        return malformed(f, "upgrade to no protocol");
    h->framing = TNL_HTTP_TUNNEL;
    return 0;
}

int tnl_http_check_response(tnl_http_head *h, bool head_request, bool upgrade_asked,
                            tnl_http_fault *f)
{
    int rc = read_framing(h, f);
    if (!rc)
        rc = read_connection(h, f);
    if (!rc)
        rc = read_upgrade(h, f);
    if (rc)
        return rc;
    if (h->status < 200 || h->status == 204)
        return check_bodiless(h, upgrade_asked, f);
    if (head_request || h->status == 304) {
        h->framing = TNL_HTTP_NO_BODY;
        return 0;
    }
    if (h->status == 205 && h->content_length > 0)
        return malformed(f, "Content-Length in a response without content");
    if (h->framing == TNL_HTTP_NO_BODY) {
        h->framing = TNL_HTTP_UNTIL_CLOSE;
        h->keep_alive = false;
    }
    return 0;
}

int tnl_http_check_trailers(const tnl_http_field *fields, size_t n, tnl_http_fault *f)
{
    static const char *const forbidden[] = {
        "Age",
        "Authentication-Info",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Encoding",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "Cookie",
        "Date",
        "Expect",
        "Expires",
        "Forwarded",
        "Host",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Keep-Alive",
        "Location",
        "Max-Forwards",
        "Pragma",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Range",
        "Retry-After",
        "Set-Cookie",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Vary",
        "Via",
        "WWW-Authenticate",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
        "X-Real-IP",
    };
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof forbidden / sizeof *forbidden; k++)
            if (tnl_http_looks_like(fields[i].name, forbidden[k]))
                return malformed(f, "field that must not be a trailer");
    return 0;
}
