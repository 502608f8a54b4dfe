/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { FIRST_CAP = 256 };

void tnl_buf_init(tnl_buf *b, size_t max)
{
    *b = (tnl_buf){.max = max};
}

void tnl_buf_free(tnl_buf *b)
{
    tnl_free(b->data);
    tnl_buf_init(b, b->max);
}

size_t tnl_buf_len(const tnl_buf *b)
{
    return b->tail - b->head;
}

uint8_t *tnl_buf_bytes(const tnl_buf *b)
{
    return b->data ? b->data + b->head : NULL;
}

static int make_room(tnl_buf *b, size_t n)
{
    size_t len = tnl_buf_len(b);
    if (n > b->max || len > b->max - n)
        return TUNNEL_E_LIMIT;
    if (b->data && n <= b->cap - b->tail)
        return 0;
    if (b->data && len + n <= b->cap && b->head >= len) {
        memcpy(b->data, b->data + b->head, len);
    } else {
        size_t cap = b->cap ? b->cap : FIRST_CAP;
        while (cap < len + n)
            cap *= 2;
        if (cap > b->max)
            cap = b->max;
        /* One byte more, for the NUL that vsnprintf() puts behind a text that fills the buffer. */
        uint8_t *data = tnl_malloc(cap + 1);
        if (!data)
            return TUNNEL_E_NOMEM;
        if (b->data)
            memcpy(data, b->data + b->head, len);
        tnl_free(b->data);
        b->data = data;
        b->cap = cap;
    }
    b->head = 0;
    b->tail = len;
    return 0;
}

int tnl_buf_add(tnl_buf *b, const void *p, size_t n)
{
    if (n == 0)
        return 0;
    int rc = make_room(b, n);
    if (rc)
        return rc;
    memcpy(b->data + b->tail, p, n);
    b->tail += n;
    return 0;
}

int tnl_buf_adds(tnl_buf *b, const char *s)
{
    return tnl_buf_add(b, s, strlen(s));
}

int tnl_buf_addf(tnl_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return TUNNEL_E_INVALID;

    int rc = make_room(b, (size_t)n);
    if (rc)
        return rc;
    va_start(args, format);
    vsnprintf((char *)b->data + b->tail, (size_t)n + 1, format, args);
    va_end(args);
    b->tail += (size_t)n;
    return 0;
}

uint8_t *tnl_buf_reserve(tnl_buf *b, size_t n)
{
    if (make_room(b, n ? n : 1))
        return NULL;
    return b->data + b->tail;
}

void tnl_buf_commit(tnl_buf *b, size_t n)
{
    b->tail += n;
}

void tnl_buf_consume(tnl_buf *b, size_t n)
{
    b->head += n;
    if (b->head >= b->tail)
        b->head = b->tail = 0;
}

void tnl_buf_clear(tnl_buf *b)
{
    b->head = b->tail = 0;
}
