/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "tunnel/error.h"

enum { DATA_FIXED = 8 };

typedef struct layout {
    uint8_t type;
    uint8_t fixed;
    uint32_t rest_max;
    const char *name;
} layout;

static const layout layouts[] = {
#define ROW(name, type, fixed, rest_max) {(type), (fixed), (rest_max), #name},
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

/* Stream 0, the control stream, is open from the start and never ends. */
static bool stream_fits(uint8_t type, uint64_t stream)
{
    switch (type) {
    case TNL_FRAME_DATA:
    case TNL_FRAME_ACK:
        return true;
    case TNL_FRAME_OPEN:
    case TNL_FRAME_FIN:
    case TNL_FRAME_RESET:
    case TNL_FRAME_DATAGRAM:
        return stream != 0;
    default:
        return stream == 0;
    }
}

static bool offsets_fit(const tnl_frame *f)
{
    switch (f->type) {
    case TNL_FRAME_DATA:
        return f->offset <= TNL_FRAME_MAX_OFFSET && f->rest_len <= TNL_FRAME_MAX_OFFSET - f->offset;
    case TNL_FRAME_FIN:
    case TNL_FRAME_RESET:
        return f->offset <= TNL_FRAME_MAX_OFFSET;
    case TNL_FRAME_ACK:
        /* The end of a direction counts as up to two bytes behind it. */
        return f->offset <= TNL_FRAME_MAX_OFFSET + 2 && f->limit <= TNL_FRAME_MAX_OFFSET;
    default:
        return true;
    }
}

size_t tnl_frame_size(const tnl_frame *f)
{
    const layout *l = layout_of(f->type);
    return (size_t)TNL_FRAME_HEADER + (l ? l->fixed : 0U) + f->rest_len;
}

size_t tnl_frame_encode(uint8_t *out, size_t cap, const tnl_frame *f)
{
    const layout *l = layout_of(f->type);
    if (!l || f->rest_len > l->rest_max || !stream_fits(f->type, f->stream) || !offsets_fit(f))
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

size_t tnl_frame_encode_head(uint8_t *out, size_t cap, const tnl_frame *f)
{
    const layout *l = layout_of(f->type);
    if (!l || l->fixed || f->rest_len > l->rest_max || !stream_fits(f->type, f->stream))
        return 0;
    tnl_writer w = tnl_writer_of(out, cap);
    tnl_write_uint(&w, f->type, 1);
    tnl_write_uint(&w, f->rest_len, 3);
    tnl_write_uint(&w, f->stream, 8);
    return w.failed ? 0 : (size_t)TNL_FRAME_HEADER;
}

size_t tnl_frame_encode_data_head(uint8_t *out, size_t cap, uint64_t stream, uint64_t offset,
                                  size_t n)
{
    tnl_frame f = {.type = TNL_FRAME_DATA, .stream = stream, .offset = offset, .rest_len = n};
    if (n == 0 || n > TNL_FRAME_MAX_DATA || !offsets_fit(&f))
        return 0;
    tnl_writer w = tnl_writer_of(out, cap);
    tnl_write_uint(&w, f.type, 1);
    tnl_write_uint(&w, n + DATA_FIXED, 3);
    tnl_write_uint(&w, stream, 8);
    tnl_write_uint(&w, offset, 8);
    return w.failed ? 0 : (size_t)TNL_FRAME_HEADER + DATA_FIXED;
}

void tnl_decoder_init(tnl_decoder *d, uint32_t max_data)
{
    *d = (tnl_decoder){.max_data = max_data};
}

void tnl_decoder_free(tnl_decoder *d)
{
    tnl_free(d->body);
    d->body = NULL;
    d->body_len = 0;
}

static bool fill_head(tnl_decoder *d, size_t want, const uint8_t **p, size_t *n)
{
    size_t take = want - d->head_len;
    if (take > *n)
        take = *n;
    if (take)
        memcpy(d->head + d->head_len, *p, take);
    d->head_len += take;
    *p += take;
    *n -= take;
    return d->head_len == want;
}

static int check_head(tnl_decoder *d)
{
    tnl_reader r = tnl_reader_of(d->head, TNL_FRAME_HEADER);
    d->type = (uint8_t)tnl_read_uint(&r, 1);
    d->length = (size_t)tnl_read_uint(&r, 3);
    d->stream = tnl_read_uint(&r, 8);

    const layout *l = layout_of(d->type);
    if (!l) {
        if (d->type & TNL_FRAME_CRITICAL)
            return TUNNEL_E_UNSUPPORTED;
        return d->length > TNL_FRAME_MAX_DATA ? TUNNEL_E_PROTOCOL : 0;
    }
    if (!stream_fits(d->type, d->stream) || d->length < l->fixed)
        return TUNNEL_E_PROTOCOL;
    size_t rest = d->length - l->fixed;
    if (d->type == TNL_FRAME_DATA && (rest == 0 || rest > d->max_data))
        return TUNNEL_E_PROTOCOL;
    return rest > l->rest_max ? TUNNEL_E_PROTOCOL : 0;
}

static int check_data_offset(tnl_decoder *d)
{
    tnl_reader r = tnl_reader_of(d->head + TNL_FRAME_HEADER, DATA_FIXED);
    d->offset = tnl_read_uint(&r, DATA_FIXED);
    d->length -= DATA_FIXED;
    tnl_frame f = {.type = TNL_FRAME_DATA, .offset = d->offset, .rest_len = d->length};
    return offsets_fit(&f) ? 0 : TUNNEL_E_PROTOCOL;
}

/* Reads what precedes a frame's body and sets *begun when that is complete. */
static int take_head(tnl_decoder *d, const uint8_t **p, size_t *n, bool *begun)
{
    int rc = 0;
    *begun = false;
    if (d->head_len < TNL_FRAME_HEADER) {
        if (!fill_head(d, TNL_FRAME_HEADER, p, n))
            return 0;
        rc = check_head(d);
    }
    if (!rc && d->type == TNL_FRAME_DATA) {
        if (!fill_head(d, TNL_FRAME_HEADER + DATA_FIXED, p, n))
            return 0;
        rc = check_data_offset(d);
    }
    if (rc)
        return rc;
    *begun = true;
    d->left = d->length;
    d->body_len = 0;
    return 0;
}

static int deliver_data(tnl_decoder *d, const uint8_t **p, size_t *n, tnl_frame_cb cb, void *user)
{
    size_t take = d->left < *n ? d->left : *n;
    if (take == 0)
        return 0;
    tnl_frame f = {
        .type = d->type, .stream = d->stream, .offset = d->offset, .rest = *p, .rest_len = take};
    *p += take;
    *n -= take;
    d->left -= take;
    d->offset += take;
    return cb(user, &f);
}

static int deliver_whole(const tnl_decoder *d, const uint8_t *body, size_t len, tnl_frame_cb cb,
                         void *user)
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
    return offsets_fit(&f) ? cb(user, &f) : TUNNEL_E_PROTOCOL;
}

/* Collects a frame that is cut into pieces, or takes it from the input in place. */
static int take_body(tnl_decoder *d, const uint8_t **p, size_t *n, tnl_frame_cb cb, void *user)
{
    size_t take = d->left < *n ? d->left : *n;
    const uint8_t *from = *p;
    *p += take;
    *n -= take;
    d->left -= take;
    if (!layout_of(d->type))
        return 0;
    if (d->body_len == 0 && d->left == 0)
        return deliver_whole(d, from, take, cb, user);
    if (take == 0)
        return 0;
    if (!d->body) {
        d->body = tnl_malloc(d->length);
        if (!d->body)
            return TUNNEL_E_NOMEM;
    }
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
    if (n == 0)
        return 0;
    for (;;) {
        if (d->left == 0) {
            bool begun;
            int rc = take_head(d, &p, &n, &begun);
            if (rc || !begun)
                return rc;
        }
        int rc = d->type == TNL_FRAME_DATA ? deliver_data(d, &p, &n, cb, user)
                                           : take_body(d, &p, &n, cb, user);
        if (rc || d->left)
            return rc;
        d->head_len = 0;
    }
}
