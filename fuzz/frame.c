/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame decoder. Input: one byte that says into what pieces the rest is cut, then what a peer
 * sends. The frames must be the same however they are cut, and encode to the bytes they came from.
 */
#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>

#include "tunnel/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_DATA = 4096, HEAD = TNL_FRAME_HEADER + 8 };

typedef struct trace {
    const uint8_t *input; /* where the next frame lies; NULL: not followed */
    size_t left;
    uint64_t hash;
    uint64_t data_stream; /* of the DATA piece before this one, and where it ended */
    uint64_t data_end;
    bool data;
} trace;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void mix(trace *t, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ bytes[i]) * 1099511628211U;
}

static size_t length_at(const uint8_t *p)
{
    return (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

static void follow(trace *t, const tnl_frame *f)
{
    static uint8_t out[TNL_FRAME_HEADER + 16 + TNL_FRAME_MAX_OTHER];
    while (t->left >= TNL_FRAME_HEADER && strcmp(tnl_frame_name(t->input[0]), "unknown") == 0) {
        size_t skipped = TNL_FRAME_HEADER + length_at(t->input);
        must(skipped <= t->left);
        t->input += skipped;
        t->left -= skipped;
    }
    must(t->left >= TNL_FRAME_HEADER);
    size_t whole = TNL_FRAME_HEADER + length_at(t->input);
    if (f->type == TNL_FRAME_DATA) {
        must(tnl_frame_encode_data_head(out, sizeof(out), f->stream, f->offset, whole - HEAD) ==
             HEAD);
        must(memcmp(out, t->input, HEAD) == 0 && f->rest == t->input + HEAD);
        must(f->rest_len == (whole < t->left ? whole : t->left) - HEAD);
        whole = HEAD + f->rest_len;
    } else {
        must(tnl_frame_encode(out, sizeof(out), f) == whole && whole <= t->left);
        must(memcmp(out, t->input, whole) == 0);
    }
    t->input += whole;
    t->left -= whole;
}

static int on_frame(void *user, const tnl_frame *f)
{
    trace *t = user;
    bool data = f->type == TNL_FRAME_DATA;
    must(!data || f->rest_len > 0);
    if (t->input)
        follow(t, f);
    if (!data || !t->data || t->data_stream != f->stream || t->data_end != f->offset) {
        mix(t, &f->type, sizeof(f->type));
        mix(t, &f->stream, sizeof(f->stream));
        mix(t, &f->offset, sizeof(f->offset));
        mix(t, &f->limit, sizeof(f->limit));
        mix(t, &f->code, sizeof(f->code));
    }
    mix(t, f->rest, f->rest_len);
    t->data = data;
    t->data_stream = f->stream;
    t->data_end = f->offset + f->rest_len;
    return 0;
}

static int run(trace *t, const uint8_t *p, size_t n, size_t step)
{
    tnl_decoder d;
    int rc = 0;
    tnl_decoder_init(&d, MAX_DATA);
    while (n && rc == 0) {
        size_t take = n < step ? n : step;
        rc = tnl_decoder_feed(&d, p, take, on_frame, t);
        p += take;
        n -= take;
    }
    tnl_decoder_free(&d);
    must(rc == 0 || rc == TUNNEL_E_PROTOCOL || rc == TUNNEL_E_UNSUPPORTED);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    trace whole = {.input = data + 1, .left = size - 1}, cut = {0};
    int rc = run(&whole, data + 1, size - 1, size - 1);
    must(run(&cut, data + 1, size - 1, 1U + data[0]) == rc);
    must(cut.hash == whole.hash);
    return 0;
}
