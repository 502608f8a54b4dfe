/* SPDX-License-Identifier: Apache-2.0 */
#include "http/scan.h"

#include "http/http.h"
#include "tunnel/error.h"

enum { START, START_LF, LINE, NAME, VALUE, VALUE_LF, END_LF };
enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF };

enum { MAX_SIZE_DIGITS = 16 };

int tnl_http_refuse(tnl_http_fault *f, int rc, int status, const char *why)
{
    *f = (tnl_http_fault){.rc = rc, .status = status, .why = why};
    return rc;
}

/*
 * What a byte may be part of: a field value (RFC 9110 section 5.5; obs-text too, it is in real use)
 * and a token (section 5.6.2). Beyond ASCII there are values only.
 */
enum { TEXT = 1, TOKEN = 2 };
static const uint8_t classes[128] = {
    /* clang-format off */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 3, 1, 3, 3, 3, 3, 3, 1, 1, 3, 3, 1, 3, 3, 1,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1,
    1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 3, 3,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 3, 1, 3, 0,
    /* clang-format on */
};

bool tnl_http_is_token_char(uint8_t c)
{
    return c < 128 && (classes[c] & TOKEN);
}

static bool is_text(uint8_t c)
{
    return c >= 128 || (classes[c] & TEXT);
}

static bool is_start_text(const tnl_http_scan *s, uint8_t c)
{
    return s->ascii_start ? c >= 0x20 && c < 0x7f : is_text(c);
}

void tnl_http_scan_head(tnl_http_scan *s, bool request, size_t max_bytes, size_t max_fields)
{
    *s = (tnl_http_scan){
        .state = START, .ascii_start = request, .max_bytes = max_bytes, .max_fields = max_fields};
}

void tnl_http_scan_trailers(tnl_http_scan *s, size_t max_bytes, size_t max_fields)
{
    *s = (tnl_http_scan){.state = LINE, .max_bytes = max_bytes, .max_fields = max_fields};
}

static const char *bad_text(uint8_t c)
{
    if (c == '\n')
        return "line feed without carriage return";
    return c == 0     ? "NUL byte"
           : c < 0x80 ? "control character"
                      : "character outside ASCII in the start line";
}

/* Each of these takes one byte in its state and gives NULL, or what is wrong with it. */

static const char *in_line(tnl_http_scan *s, uint8_t c)
{
    if (c == '\r') {
        s->state = END_LF;
        return NULL;
    }
    if (c == ' ' || c == '\t')
        return s->fields ? "folded field line" : "white space before the first field";
    if (!tnl_http_is_token_char(c))
        return c == '\n'  ? bad_text(c)
               : c == ':' ? "empty field name"
                          : "invalid character in a field name";
    s->fields++;
    s->state = NAME;
    return NULL;
}

static const char *in_name(tnl_http_scan *s, uint8_t c)
{
    if (tnl_http_is_token_char(c))
        return NULL;
    if (c == ':') {
        s->state = VALUE;
        return NULL;
    }
    if (c == ' ' || c == '\t')
        return "white space in or after a field name";
    return c == '\r' || c == '\n' ? "field line without a colon"
                                  : "invalid character in a field name";
}

static const char *in_text(tnl_http_scan *s, uint8_t c)
{
    if (c == '\r')
        s->state = s->state == START ? START_LF : VALUE_LF;
    else if (s->state == START ? !is_start_text(s, c) : !is_text(c))
        return bad_text(c);
    return NULL;
}

static const char *step(tnl_http_scan *s, uint8_t c)
{
    switch (s->state) {
    case START:
    case VALUE:
        return in_text(s, c);
    case NAME:
        return in_name(s, c);
    case LINE:
        return in_line(s, c);
    default: /* the *_LF states; that of END is left to the caller */
        if (c != '\n')
            return "carriage return without line feed";
        if (s->state != END_LF)
            s->state = LINE;
        return NULL;
    }
}

/* The bytes that step() would take one by one without any effect: most of a head. */
static size_t plain_run(const tnl_http_scan *s, const uint8_t *p, size_t n)
{
    size_t i = 0;
    if (s->state == VALUE)
        while (i < n && is_text(p[i]))
            i++;
    else if (s->state == NAME)
        while (i < n && tnl_http_is_token_char(p[i]))
            i++;
    return i;
}

static tnl_http_scanned too_large(const tnl_http_scan *s, tnl_http_fault *f)
{
    if (s->state == START || s->state == START_LF)
        tnl_http_refuse(f, TUNNEL_E_LIMIT, 414, "start line too long");
    else
        tnl_http_refuse(f, TUNNEL_E_LIMIT, 431, "header fields too large");
    return TNL_HTTP_SCAN_REFUSED;
}

tnl_http_scanned tnl_http_scan_run(tnl_http_scan *s, const uint8_t *p, size_t n, size_t *used,
                                   tnl_http_fault *f)
{
    tnl_http_scanned result = TNL_HTTP_SCAN_MORE;
    size_t i = 0;

    while (result == TNL_HTTP_SCAN_MORE && i < n) {
        size_t room = s->max_bytes - s->bytes;
        size_t plain = plain_run(s, p + i, n - i < room ? n - i : room);
        i += plain;
        s->bytes += plain;
        if (i == n)
            break;
        if (s->bytes == s->max_bytes) {
            result = too_large(s, f);
            break;
        }
        uint8_t before = s->state;
        const char *why = step(s, p[i]);
        if (why) {
            tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 400, why);
            result = TNL_HTTP_SCAN_REFUSED;
            break;
        }
        if (s->fields > s->max_fields) {
            tnl_http_refuse(f, TUNNEL_E_LIMIT, 431, "too many header fields");
            result = TNL_HTTP_SCAN_REFUSED;
            break;
        }
        s->bytes++;
        i++;
        if (before == START_LF)
            result = TNL_HTTP_SCAN_START_LINE;
        else if (before == END_LF)
            result = TNL_HTTP_SCAN_END;
    }
    *used = i;
    return result;
}

void tnl_http_chunks_init(tnl_http_chunks *c)
{
    *c = (tnl_http_chunks){.state = SIZE};
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *in_size(tnl_http_chunks *c, uint8_t byte)
{
    int digit = hex_value(byte);
    if (digit >= 0) {
        if (c->digits == MAX_SIZE_DIGITS || c->left > (uint64_t)INT64_MAX >> 4)
            return "chunk size too large";
        c->digits++;
        c->left = c->left << 4 | (unsigned)digit;
        return NULL;
    }
    if (c->digits == 0 || (byte != '\r' && byte != ';'))
        return "invalid chunk size";
    c->state = byte == ';' ? EXTENSION : SIZE_LF;
    return NULL;
}

static const char *in_extension(tnl_http_chunks *c, uint8_t byte)
{
    if (byte == '\r') {
        c->state = SIZE_LF;
        return NULL;
    }
    if (byte < 0x20 || byte > 0x7e)
        return "invalid character in a chunk extension";
    if (c->extensions == TNL_HTTP_MAX_EXTENSIONS)
        return "too many chunk extensions";
    c->extensions++;
    return NULL;
}

static const char *chunk_step(tnl_http_chunks *c, uint8_t byte)
{
    switch (c->state) {
    case SIZE:
        return in_size(c, byte);
    case EXTENSION:
        return in_extension(c, byte);
    case SIZE_LF:
        c->state = DATA;
        return byte == '\n' ? NULL : "carriage return without line feed";
    case DATA_CR:
        c->state = DATA_LF;
        return byte == '\r' ? NULL : "chunk data longer than its size";
    default: /* DATA_LF */
        c->state = SIZE;
        c->digits = 0;
        return byte == '\n' ? NULL : "carriage return without line feed";
    }
}

tnl_http_scanned tnl_http_chunks_run(tnl_http_chunks *c, const uint8_t *p, size_t n, size_t *used,
                                     uint64_t *data, tnl_http_fault *f)
{
    tnl_http_scanned result = TNL_HTTP_SCAN_MORE;
    size_t i = 0;

    while (i < n) {
        if (c->state == DATA) {
            size_t take = c->left < n - i ? (size_t)c->left : n - i;
            i += take;
            *data += take;
            c->left -= take;
            if (c->left == 0)
                c->state = DATA_CR;
            continue;
        }
        bool line_end = c->state == SIZE_LF;
        const char *why = chunk_step(c, p[i]);
        if (why) {
            tnl_http_refuse(f, TUNNEL_E_PROTOCOL, 400, why);
            result = TNL_HTTP_SCAN_REFUSED;
            break;
        }
        i++;
        if (line_end && c->left == 0) {
            result = TNL_HTTP_SCAN_END;
            break;
        }
    }
    *used = i;
    return result;
}
