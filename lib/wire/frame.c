/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "tunnel/error.h"

typedef struct layout {
    uint8_t type;
    uint8_t fixed;
    bool rest;
    const char *name;
} layout;

static const layout layouts[] = {
#define ROW(name, type, fixed, rest) {(type), (fixed), (rest), #name},
    TNL_FRAME_MAP(ROW)
#undef ROW
};

static const layout *layout_of(uint8_t type)
{
    for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++)
        if (layouts[i].type == type)
            return &layouts[i];
    return NULL;
}

const char *tnl_frame_name(uint8_t type)
{
    const layout *l = layout_of(type);
    return l ? l->name : "unknown";
}

static bool of_stream(uint8_t type)
{
    return type == TNL_FRAME_OPEN || type == TNL_FRAME_DATA || type == TNL_FRAME_FIN ||
           type == TNL_FRAME_RESET || type == TNL_FRAME_ACK;
}

size_t tnl_frame_size(const tnl_frame *f)
{
    const layout *l = layout_of(f->type);
    return (size_t)TNL_FRAME_HEADER + (l ? l->fixed : 0U) + f->rest_len;
}

size_t tnl_frame_encode(uint8_t *out, size_t cap, const tnl_frame *f)
{
    const layout *l = layout_of(f->type);
    size_t max = f->type == TNL_FRAME_DATA ? TNL_FRAME_MAX_DATA : TNL_FRAME_MAX_OTHER;
    if (!l || f->rest_len > max || (f->rest_len && !l->rest))
        return 0;
    size_t size = tnl_frame_size(f);
    tnl_writer w = tnl_writer_of(out, cap);
    tnl_write_uint(&w, f->type, 1);
    tnl_write_uint(&w, size - TNL_FRAME_HEADER, 3);
    tnl_write_uint(&w, f->stream, 8);
    switch (f->type) {
    case TNL_FRAME_DATA:
    case TNL_FRAME_FIN:
    case TNL_FRAME_PING:
    case TNL_FRAME_PONG:
        tnl_write_uint(&w, f->offset, 8);
        break;
    case TNL_FRAME_RESET:
        tnl_write_uint(&w, f->offset, 8);
        tnl_write_uint(&w, f->code, 4);
        break;
    case TNL_FRAME_ACK:
        tnl_write_uint(&w, f->offset, 8);
        tnl_write_uint(&w, f->limit, 8);
        break;
    case TNL_FRAME_CLOSE:
        tnl_write_uint(&w, f->code, 4);
        break;
    default:
        break;
    }
    tnl_write_bytes(&w, f->rest, f->rest_len);
    return w.failed ? 0 : size;
}

void tnl_decoder_init(tnl_decoder *d, uint32_t max_data)
{
    *d = (tnl_decoder){.max_data = max_data};
}

void tnl_decoder_free(tnl_decoder *d)
{
    tnl_free(d->body);
    d->body = NULL;
    d->body_cap = 0;
}

/* Reads the 12 bytes (20 for DATA) that precede the rest; false while they are incomplete. */
static bool take_head(tnl_decoder *d, const uint8_t **p, size_t *n)
{
    for (;;) {
        size_t need = TNL_FRAME_HEADER;
        if (d->head_len >= 1 && d->head[0] == TNL_FRAME_DATA)
            need += 8;
        if (d->head_len == need)
            return true;
        if (*n == 0)
            return false;
        /* The first byte tells how long the head is, so it is taken alone. */
        size_t take = d->head_len ? need - d->head_len : 1;
        if (take > *n)
            take = *n;
        memcpy(d->head + d->head_len, *p, take);
        d->head_len += take;
        *p += take;
        *n -= take;
    }
}

static int check_head(tnl_decoder *d)
{
    tnl_reader r = tnl_reader_of(d->head, d->head_len);
    d->type = (uint8_t)tnl_read_uint(&r, 1);
    size_t length = (size_t)tnl_read_uint(&r, 3);
    d->stream = tnl_read_uint(&r, 8);
    d->body_len = 0;
    d->left = length;

    const layout *l = layout_of(d->type);
    if (!l) {
        if (d->type & TNL_FRAME_CRITICAL)
            return TUNNEL_E_UNSUPPORTED;
        return length > TNL_FRAME_MAX_DATA ? TUNNEL_E_PROTOCOL : 0;
    }
    if (!of_stream(d->type) && d->stream != 0)
        return TUNNEL_E_PROTOCOL;
    if (length < l->fixed || (!l->rest && length != l->fixed))
        return TUNNEL_E_PROTOCOL;
    if (d->type != TNL_FRAME_DATA)
        return length - l->fixed > TNL_FRAME_MAX_OTHER ? TUNNEL_E_PROTOCOL : 0;
    d->offset = tnl_read_uint(&r, 8);
    d->left = length - 8;
    if (d->left == 0 || d->left > d->max_data || d->offset > UINT64_MAX / 2)
        return TUNNEL_E_PROTOCOL;
    return 0;
}

static int deliver_data(tnl_decoder *d, const uint8_t **p, size_t *n, tnl_frame_cb cb, void *user)
{
    size_t take = d->left < *n ? d->left : *n;
    if (take == 0)
        return 0;
    tnl_frame f = {.type = d->type, .stream = d->stream, .offset = d->offset, .rest = *p, .rest_len = take};
    *p += take;
    *n -= take;
    d->left -= take;
    d->offset += take;
    return cb(user, &f);
}

static int deliver_whole(const tnl_decoder *d, const uint8_t *body, size_t len, tnl_frame_cb cb, void *user)
{
    tnl_frame f = {.type = d->type, .stream = d->stream};
    tnl_reader r = tnl_reader_of(body, len);
    switch (d->type) {
    case TNL_FRAME_FIN:
    case TNL_FRAME_PING:
    case TNL_FRAME_PONG:
        f.offset = tnl_read_uint(&r, 8);
        break;
    case TNL_FRAME_RESET:
        f.offset = tnl_read_uint(&r, 8);
        f.code = (uint32_t)tnl_read_uint(&r, 4);
        break;
    case TNL_FRAME_ACK:
        f.offset = tnl_read_uint(&r, 8);
        f.limit = tnl_read_uint(&r, 8);
        break;
    case TNL_FRAME_CLOSE:
        f.code = (uint32_t)tnl_read_uint(&r, 4);
        break;
    default:
        break;
    }
    f.rest = r.p;
    f.rest_len = r.left;
    return cb(user, &f);
}

/* Collects a frame that is cut into pieces, or takes it from the input in place. */
static int take_body(tnl_decoder *d, const uint8_t **p, size_t *n, tnl_frame_cb cb, void *user)
{
    bool known = layout_of(d->type) != NULL;
    size_t take = d->left < *n ? d->left : *n;
    const uint8_t *from = *p;
    *p += take;
    *n -= take;
    d->left -= take;
    if (!known)
        return 0;
    if (d->body_len == 0 && d->left == 0)
        return deliver_whole(d, from, take, cb, user);
    size_t need = d->body_len + take + d->left;
    if (need > d->body_cap) {
        uint8_t *body = tnl_realloc(d->body, need);
        if (!body)
            return TUNNEL_E_NOMEM;
        d->body = body;
        d->body_cap = need;
    }
    if (take)
        memcpy(d->body + d->body_len, from, take);
    d->body_len += take;
    if (d->left)
        return 0;
    int rc = deliver_whole(d, d->body, d->body_len, cb, user);
    tnl_decoder_free(d);
    return rc;
}

int tnl_decoder_feed(tnl_decoder *d, const uint8_t *p, size_t n, tnl_frame_cb cb, void *user)
{
    for (;;) {
        if (d->left == 0) {
            if (!take_head(d, &p, &n))
                return 0;
            int rc = check_head(d);
            if (rc)
                return rc;
        }
        int rc = d->type == TNL_FRAME_DATA ? deliver_data(d, &p, &n, cb, user)
                                           : take_body(d, &p, &n, cb, user);
        if (rc)
            return rc;
        if (d->left)
            return 0;
        d->head_len = 0;
    }
}
