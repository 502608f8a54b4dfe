/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/hello.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"

enum {
    RECORD_HEAD = 5,
    RECORD_MAX = 16 * 1024,
    MESSAGE_HEAD = 4,
    TYPE_ALERT = 21,
    TYPE_HANDSHAKE = 22,
    CLIENT_HELLO = 1,
    VERSION_MAJOR = 3,
    EXTENSION_SERVER_NAME = 0,
    NAME_TYPE_HOST = 0,
    LABEL_MAX = 63,
};

static tnl_tls_hello_state bad(tnl_tls_hello *h, uint8_t alert)
{
    h->alert = alert;
    return TNL_TLS_HELLO_BAD;
}

/* --- the message ------------------------------------------------------------------------------ */

static bool is_name_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool is_name(const char *name, size_t n)
{
    size_t label = 0;
    for (size_t i = 0; i < n; i++) {
        if (name[i] != '.' && !is_name_char((uint8_t)name[i]))
            return false;
        label = name[i] == '.' ? 0 : label + 1;
        if (label > LABEL_MAX || (name[i] == '.' && (i == 0 || name[i - 1] == '.')))
            return false;
    }
    return label > 0;
}

static bool is_address(const char *text)
{
    uint8_t address[16];
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static bool take_name(tnl_tls_hello *h, const uint8_t *p, size_t n)
{
    if (n == 0)
        return false;
    if (p[n - 1] == '.')
        n--;
    if (n == 0 || n >= sizeof(h->name))
        return false;
    for (size_t i = 0; i < n; i++)
        h->name[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] - 'A' + 'a' : p[i]);
    h->name[n] = '\0';
    if (memchr(h->name, '\0', n) == NULL && is_address(h->name)) {
        h->name[0] = '\0';
        return true;
    }
    return is_name(h->name, n);
}

/* A vector with a length of `size` bytes before it. */
static tnl_reader vector(tnl_reader *r, size_t size, size_t least, size_t most)
{
    size_t n = (size_t)tnl_read_uint(r, size);
    const uint8_t *p = tnl_read_bytes(r, n);
    if (n < least || n > most)
        r->failed = true;
    return tnl_reader_of(p, r->failed ? 0 : n);
}

/* 0 or an alert. */
static uint8_t read_names(tnl_tls_hello *h, tnl_reader extension)
{
    bool found = false;
    tnl_reader list = vector(&extension, 2, 1, UINT16_MAX);
    if (extension.failed || extension.left)
        return TNL_ALERT_DECODE_ERROR;
    while (list.left && !list.failed) {
        uint64_t type = tnl_read_uint(&list, 1);
        tnl_reader name = vector(&list, 2, 1, UINT16_MAX);
        if (list.failed)
            break;
        if (type != NAME_TYPE_HOST)
            continue;
        if (found)
            return TNL_ALERT_ILLEGAL_PARAMETER;
        found = true;
        if (!take_name(h, name.p, name.left))
            return TNL_ALERT_UNRECOGNIZED_NAME;
    }
    return list.failed ? TNL_ALERT_DECODE_ERROR : 0;
}

static uint8_t read_extensions(tnl_tls_hello *h, tnl_reader *r)
{
    bool found = false;
    tnl_reader all = vector(r, 2, 0, UINT16_MAX);
    if (r->failed || r->left)
        return TNL_ALERT_DECODE_ERROR;
    while (all.left && !all.failed) {
        uint64_t type = tnl_read_uint(&all, 2);
        tnl_reader extension = vector(&all, 2, 0, UINT16_MAX);
        if (all.failed || type != EXTENSION_SERVER_NAME)
            continue;
        if (found)
            return TNL_ALERT_ILLEGAL_PARAMETER;
        found = true;
        uint8_t alert = read_names(h, extension);
        if (alert)
            return alert;
    }
    return all.failed ? TNL_ALERT_DECODE_ERROR : 0;
}

/* RFC 8446 section 4.1.2 and RFC 5246 section 7.4.1.2: what both have in common. */
static tnl_tls_hello_state read_message(tnl_tls_hello *h, const uint8_t *p, size_t n)
{
    tnl_reader r = tnl_reader_of(p, n);
    uint64_t major = tnl_read_uint(&r, 1);
    tnl_read_bytes(&r, 1 + 32); /* the minor version, the random bytes */
    vector(&r, 1, 0, 32);       /* session id */
    tnl_reader suites = vector(&r, 2, 2, UINT16_MAX - 1);
    vector(&r, 1, 1, UINT8_MAX); /* compression methods */
    if (r.failed || suites.left % 2)
        return bad(h, TNL_ALERT_DECODE_ERROR);
    if (major != VERSION_MAJOR)
        return bad(h, TNL_ALERT_PROTOCOL_VERSION);
    uint8_t alert = r.left ? read_extensions(h, &r) : 0;
    return alert ? bad(h, alert) : TNL_TLS_HELLO_DONE;
}

/* --- records ---------------------------------------------------------------------------------- */

/* The message in one piece. Its records are complete and good. */
static void gather(uint8_t *out, size_t need, const uint8_t *p)
{
    size_t at = 0, done = 0;
    while (done < need) {
        size_t n = (size_t)p[at + 3] << 8 | p[at + 4];
        memcpy(out + done, p + at + RECORD_HEAD, n);
        at += RECORD_HEAD + n;
        done += n;
    }
}

static tnl_tls_hello_state complete(tnl_tls_hello *h, const uint8_t *p)
{
    if (h->records == 1)
        return read_message(h, p + RECORD_HEAD + MESSAGE_HEAD, h->need - MESSAGE_HEAD);
    uint8_t *whole = tnl_malloc(h->need);
    if (!whole)
        return bad(h, TNL_ALERT_INTERNAL_ERROR);
    gather(whole, h->need, p);
    tnl_tls_hello_state state = read_message(h, whole + MESSAGE_HEAD, h->need - MESSAGE_HEAD);
    tnl_free(whole);
    return state;
}

/* The head of a record, at h->at; what of it has come is checked already. */
static tnl_tls_hello_state begin_record(tnl_tls_hello *h, const uint8_t *p, size_t n)
{
    const uint8_t *head = p + h->at;
    size_t have = n - h->at;
    bool first = h->records == 0;
    if (have >= 1 && head[0] != TYPE_HANDSHAKE)
        return first ? TNL_TLS_HELLO_OTHER : bad(h, TNL_ALERT_UNEXPECTED_MESSAGE);
    if (have >= 2 && head[1] != VERSION_MAJOR)
        return first ? TNL_TLS_HELLO_OTHER : bad(h, TNL_ALERT_PROTOCOL_VERSION);
    if (have < RECORD_HEAD)
        return TNL_TLS_HELLO_MORE;
    h->left = (size_t)head[3] << 8 | head[4];
    if (h->left == 0)
        return bad(h, TNL_ALERT_DECODE_ERROR);
    if (h->left > RECORD_MAX)
        return bad(h, TNL_ALERT_RECORD_OVERFLOW);
    h->at += RECORD_HEAD;
    h->records++;
    return TNL_TLS_HELLO_DONE;
}

/* Up to the end of the present record, or of what there is. */
static tnl_tls_hello_state read_fragment(tnl_tls_hello *h, const uint8_t *p, size_t n)
{
    size_t take = n - h->at < h->left ? n - h->at : h->left;
    for (size_t i = 0; i < take && h->got + i < MESSAGE_HEAD; i++)
        h->head[h->got + i] = p[h->at + i];
    h->at += take;
    h->left -= take;
    h->got += take;
    if (h->got && h->head[0] != CLIENT_HELLO)
        return bad(h, TNL_ALERT_UNEXPECTED_MESSAGE);
    if (!h->need && h->got >= MESSAGE_HEAD) {
        h->need = MESSAGE_HEAD + ((size_t)h->head[1] << 16 | (size_t)h->head[2] << 8 | h->head[3]);
        if (h->need > TNL_TLS_HELLO_MAX_MESSAGE)
            return bad(h, TNL_ALERT_ILLEGAL_PARAMETER);
    }
    /* Nothing may follow in the same record: keys change here, RFC 8446 section 5.1. */
    if (h->need && h->got + h->left > h->need)
        return bad(h, TNL_ALERT_UNEXPECTED_MESSAGE);
    return TNL_TLS_HELLO_MORE;
}

tnl_tls_hello_state tnl_tls_hello_look(tnl_tls_hello *h, const uint8_t *p, size_t n)
{
    if (n > TNL_TLS_HELLO_MAX)
        n = TNL_TLS_HELLO_MAX;
    while (h->at < n) {
        tnl_tls_hello_state state = h->left ? TNL_TLS_HELLO_DONE : begin_record(h, p, n);
        if (state == TNL_TLS_HELLO_DONE)
            state = read_fragment(h, p, n);
        else if (state == TNL_TLS_HELLO_MORE)
            break;
        if (state != TNL_TLS_HELLO_MORE)
            return state;
        if (h->need && h->got == h->need)
            return complete(h, p);
    }
    return n < TNL_TLS_HELLO_MAX ? TNL_TLS_HELLO_MORE : bad(h, TNL_ALERT_ILLEGAL_PARAMETER);
}

void tnl_tls_hello_write_alert(uint8_t out[TNL_TLS_HELLO_ALERT], uint8_t alert)
{
    /* The oldest version is understood by all at this point. */
    static const uint8_t record[TNL_TLS_HELLO_ALERT] = {TYPE_ALERT, VERSION_MAJOR, 1, 0, 2, 2, 0};
    memcpy(out, record, sizeof(record));
    out[TNL_TLS_HELLO_ALERT - 1] = alert;
}
