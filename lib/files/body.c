/* SPDX-License-Identifier: Apache-2.0 */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "files/internal.h"

enum { PART_HEAD = 256 };

void tnl_files_body_begin(tnl_files_body *b, int fd, const char *type, uint64_t size,
                          const tnl_files_range *ranges, size_t n)
{
    *b = (tnl_files_body){.fd = fd, .type = type, .size = size, .count = n};
    memcpy(b->ranges, ranges, n * sizeof(*ranges));
}

void tnl_files_body_split(tnl_files_body *b)
{
    uint64_t random[2] = {0, 0};
    /* Only chance must not make a line of the file a boundary. */
    if (getrandom(random, sizeof(random), GRND_NONBLOCK) < 0)
        random[0] = b->size;
    snprintf(b->boundary, sizeof(b->boundary), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
}

/* What stands before part i, or, behind the last one, the end. Its length. */
static size_t part_head(const tnl_files_body *b, size_t i, char out[PART_HEAD])
{
    const char *line = i ? "\r\n" : "";
    if (!b->boundary[0])
        return 0;
    if (i == b->count)
        return (size_t)snprintf(out, PART_HEAD, "\r\n--%s--\r\n", b->boundary);
    const tnl_files_range *r = &b->ranges[i];
    return (size_t)snprintf(out, PART_HEAD,
                            "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %" PRIu64
                            "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
                            line, b->boundary, b->type, r->first, r->first + r->length - 1,
                            b->size);
}

uint64_t tnl_files_body_length(const tnl_files_body *b)
{
    char text[PART_HEAD];
    uint64_t n = part_head(b, b->count, text);
    for (size_t i = 0; i < b->count; i++)
        n += part_head(b, i, text) + b->ranges[i].length;
    return n;
}

static int begin_part(tnl_files_body *b, tnl_buf *out)
{
    char text[PART_HEAD];
    size_t n = part_head(b, b->at, text);
    if (b->at < b->count) {
        b->offset = b->ranges[b->at].first;
        b->left = b->ranges[b->at].length;
    }
    return n ? tnl_buf_add(out, text, n) : 0;
}

int tnl_files_body_first(tnl_files_body *b, tnl_buf *out)
{
    return b->count ? begin_part(b, out) : 0;
}

size_t tnl_files_body_read(tnl_files_body *b, uint8_t *p, size_t n)
{
    ssize_t got;
    if (n > b->left)
        n = (size_t)b->left;
    do {
        got = pread(b->fd, p, n, (off_t)b->offset);
    } while (got < 0 && errno == EINTR);
    if (got <= 0)
        return 0;
    b->offset += (uint64_t)got;
    b->left -= (uint64_t)got;
    return (size_t)got;
}

int tnl_files_body_next(tnl_files_body *b, tnl_buf *out)
{
    if (b->fd < 0 || b->left || b->at >= b->count)
        return 0;
    b->at++;
    return begin_part(b, out);
}

void tnl_files_body_end(tnl_files_body *b)
{
    if (b->fd >= 0)
        close(b->fd);
    *b = (tnl_files_body){.fd = -1};
}
