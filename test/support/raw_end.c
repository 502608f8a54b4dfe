/* SPDX-License-Identifier: Apache-2.0 */
#include "support/raw_end.h"

#include <string.h>

#include "support/check.h"

enum { MAX_OUT = 1 << 20 };

void raw_end_init(raw_end *r)
{
    memset(r, 0, sizeof(*r));
    tnl_decoder_init(&r->decoder, TNL_FRAME_MAX_DATA);
    tnl_buf_init(&r->out, MAX_OUT);
}

void raw_end_free(raw_end *r)
{
    tnl_decoder_free(&r->decoder);
    tnl_buf_free(&r->out);
}

void raw_end_bytes(raw_end *r, const void *p, size_t n)
{
    if (!r->transport)
        return;
    assert_int_equal(tnl_buf_add(&r->out, p, n), 0);
    tnl_transport_wake(r->transport);
}

void raw_end_frame(raw_end *r, const tnl_frame *f)
{
    uint8_t bytes[TNL_FRAME_HEADER + 16 + TNL_FRAME_MAX_OTHER];
    size_t n = tnl_frame_encode(bytes, sizeof(bytes), f);
    assert_true(n > 0);
    raw_end_bytes(r, bytes, n);
}

void raw_end_close(raw_end *r)
{
    if (r->transport)
        tnl_transport_close(r->transport);
}

static int on_frame(void *user, const tnl_frame *f)
{
    raw_end *r = user;
    r->seen[f->type]++;
    if (f->type == TNL_FRAME_PING || f->type == TNL_FRAME_PONG)
        r->offset = f->offset;
    if (f->type == TNL_FRAME_CLOSE || f->type == TNL_FRAME_RESET)
        r->code = f->code;
    if (f->type != TNL_FRAME_DATA) {
        size_t n = f->rest_len < sizeof(r->rest) - 1 ? f->rest_len : sizeof(r->rest) - 1;
        if (n)
            memcpy(r->rest, f->rest, n);
        r->rest[n] = '\0';
        r->rest_len = f->rest_len;
    }
    if (f->type == TNL_FRAME_PING && !r->mute) {
        tnl_frame pong = {.type = TNL_FRAME_PONG, .offset = f->offset};
        raw_end_frame(r, &pong);
    }
    return 0;
}

static void on_opened(void *user)
{
    raw_end *r = user;
    r->opened = true;
}

static void on_data(void *user, const uint8_t *p, size_t n)
{
    raw_end *r = user;
    if (!r->broken)
        r->broken = tnl_decoder_feed(&r->decoder, p, n, on_frame, r);
}

static size_t on_pull(void *user, uint8_t *out, size_t cap)
{
    raw_end *r = user;
    size_t n = tnl_buf_len(&r->out) < cap ? tnl_buf_len(&r->out) : cap;
    if (n)
        memcpy(out, tnl_buf_bytes(&r->out), n);
    tnl_buf_consume(&r->out, n);
    return n;
}

static void on_closed(void *user, int error, int http_status, const char *detail)
{
    raw_end *r = user;
    (void)http_status;
    (void)detail;
    r->transport = NULL;
    r->closes++;
    r->error = error;
}

const tnl_transport_events raw_end_events = {
    .opened = on_opened, .data = on_data, .pull = on_pull, .closed = on_closed};
