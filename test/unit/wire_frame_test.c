/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "support/vectors.h"
#include "tunnel/error.h"

enum { MAX_FRAME = TNL_FRAME_HEADER + 8 + TNL_FRAME_MAX_DATA };

/* --- memory that can fail: these definitions take the place of those in lib/base/mem.c -------- */

static size_t live, allocations;
static bool no_memory;

void *tnl_malloc(size_t size)
{
    if (no_memory)
        return NULL;
    live++;
    allocations++;
    return malloc(size ? size : 1);
}

void *tnl_calloc(size_t count, size_t size)
{
    void *p = tnl_malloc(count * size);
    return p ? memset(p, 0, count * size) : NULL;
}

void *tnl_realloc(void *p, size_t size)
{
    if (!p)
        return tnl_malloc(size);
    return no_memory ? NULL : realloc(p, size ? size : 1);
}

void tnl_free(void *p)
{
    if (!p)
        return;
    live--;
    free(p);
}

/* --- what a decoder delivers ------------------------------------------------------------------ */

typedef struct result {
    size_t count; /* frames; pieces of one DATA frame count once */
    tnl_frame first;
    uint8_t *rest; /* of the first frame */
    size_t rest_len;
    uint64_t hash;     /* of everything, the same however the input was cut */
    uint64_t data_end; /* where the last piece of DATA ended */
    uint64_t data_stream;
    bool data_open;
} result;

static void mix(result *r, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        r->hash = (r->hash ^ bytes[i]) * 1099511628211U;
}

static int collect(void *user, const tnl_frame *f)
{
    result *r = user;
    bool data = f->type == TNL_FRAME_DATA;
    bool more = data && r->data_open && r->data_stream == f->stream && r->data_end == f->offset;
    r->count += !more;
    if (!more) {
        mix(r, &f->type, sizeof(f->type));
        mix(r, &f->stream, sizeof(f->stream));
        mix(r, &f->offset, sizeof(f->offset));
        mix(r, &f->limit, sizeof(f->limit));
        mix(r, &f->code, sizeof(f->code));
    }
    mix(r, f->rest, f->rest_len);
    if (r->count == 1) {
        if (!more)
            r->first = *f;
        assert_true(r->rest_len + f->rest_len <= MAX_FRAME);
        if (f->rest_len)
            memcpy(r->rest + r->rest_len, f->rest, f->rest_len);
        r->rest_len += f->rest_len;
    }
    r->data_open = data;
    r->data_stream = f->stream;
    r->data_end = f->offset + f->rest_len;
    return 0;
}

static void result_init(result *r)
{
    uint8_t *rest = r->rest ? r->rest : malloc(MAX_FRAME);
    assert_non_null(rest);
    *r = (result){.rest = rest, .hash = 14695981039346656037U};
}

/* Decodes p[0..n) cut at `at` (and at every byte when `each`), every piece in memory of exactly its
 * size. */
static int decode(result *r, uint32_t max_data, const uint8_t *p, size_t n, size_t at, bool each)
{
    tnl_decoder d;
    int rc = 0;
    result_init(r);
    tnl_decoder_init(&d, max_data);
    for (size_t done = 0; done < n && rc == 0;) {
        size_t take = each ? 1 : done < at ? at - done : n - done;
        uint8_t *piece = malloc(take);
        assert_non_null(piece);
        memcpy(piece, p + done, take);
        rc = tnl_decoder_feed(&d, piece, take, collect, r);
        free(piece);
        done += take;
        if (rc == 0)
            assert_int_equal(tnl_decoder_feed(&d, NULL, 0, collect, r), 0);
    }
    tnl_decoder_free(&d);
    assert_int_equal(live, 0);
    return rc;
}

/* --- vectors ---------------------------------------------------------------------------------- */

static result whole, cut;
static uint8_t all[65536];
static size_t all_len, all_count;

static uint64_t member(const vector *v, const char *key, uint64_t otherwise)
{
    return vector_get(v, key) ? vector_uint(v, key) : otherwise;
}

/* The frame that the record says. */
static tnl_frame said(const vector *v, uint8_t **rest)
{
    tnl_frame f = {.stream = vector_uint(v, ".stream")};
    for (unsigned type = 0; type < 256; type++)
        if (strcmp(tnl_frame_name((uint8_t)type), vector_get(v, "frame")) == 0)
            f.type = (uint8_t)type;
    f.offset = member(v, ".offset",
                      member(v, ".final", member(v, ".received", member(v, ".opaque", 0))));
    f.limit = member(v, ".limit", 0);
    f.code = (uint32_t)member(v, ".code", 0);
    *rest = NULL;
    if (vector_get(v, ".rest"))
        *rest = vector_hex(v, ".rest", &f.rest_len);
    else if (vector_get(v, ".text"))
        *rest = (uint8_t *)vector_text(v, ".text", &f.rest_len);
    f.rest = *rest;
    return f;
}

static void good(const vector *v, const uint8_t *p, size_t n)
{
    uint8_t *rest;
    tnl_frame f = said(v, &rest);
    assert_int_not_equal(f.type, 0);

    assert_int_equal(decode(&whole, TNL_FRAME_MAX_DATA, p, n, n, false), 0);
    assert_int_equal(whole.count, 1);
    assert_int_equal(whole.first.type, f.type);
    assert_int_equal(whole.first.stream, f.stream);
    assert_int_equal(whole.first.offset, f.offset);
    assert_int_equal(whole.first.limit, f.limit);
    assert_int_equal(whole.first.code, f.code);
    assert_int_equal(whole.rest_len, f.rest_len);
    if (f.rest_len)
        assert_memory_equal(whole.rest, f.rest, f.rest_len);

    uint8_t *out = malloc(n);
    assert_non_null(out);
    assert_int_equal(tnl_frame_size(&f), n);
    assert_int_equal(tnl_frame_encode(out, n, &f), n);
    assert_memory_equal(out, p, n);
    assert_int_equal(tnl_frame_encode(out, n - 1, &f), 0);
    free(out);

    for (size_t at = 0; at < n; at++) {
        assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, p, n, at, false), 0);
        assert_true(cut.count == 1 && cut.hash == whole.hash);
        /* What is cut off delivers nothing, or of DATA what has come. */
        assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, p, at, at, false), 0);
        assert_int_equal(cut.count, f.type == TNL_FRAME_DATA && at > TNL_FRAME_HEADER + 8);
    }
    assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, p, n, 0, true), 0);
    assert_true(cut.count == 1 && cut.hash == whole.hash);
    free(rest);
}

static void bad(const vector *v, const uint8_t *p, size_t n)
{
    uint32_t max_data = (uint32_t)member(v, "max_data", TNL_FRAME_MAX_DATA);
    int error = strcmp(vector_get(v, "error"), "PROTOCOL") == 0 ? TUNNEL_E_PROTOCOL
                                                                : TUNNEL_E_UNSUPPORTED;
    for (size_t at = 0; at <= n; at++) {
        assert_int_equal(decode(&cut, max_data, p, n, at, false), error);
        assert_int_equal(cut.count, 0);
    }
    assert_int_equal(decode(&cut, max_data, p, n, 0, true), error);
    assert_int_equal(cut.count, 0);
}

static void frame_vector(const vector *v)
{
    size_t n;
    uint8_t *p = vector_hex(v, "hex", &n);
    if (vector_get(v, "error")) {
        bad(v, p, n);
        free(p);
        return;
    }
    bool skipped = strcmp(vector_get(v, "frame"), "skipped") == 0;
    if (skipped)
        assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, p, n, 0, true), 0);
    else
        good(v, p, n);
    assert_int_equal(cut.count, !skipped);
    assert_true(all_len + n <= sizeof(all));
    memcpy(all + all_len, p, n);
    all_len += n;
    all_count += !skipped;
    free(p);
}

static void test_vectors(void **state)
{
    (void)state;
    assert_in_range(vectors_each("frames.txt", frame_vector), 100, 1000);

    /* All valid ones behind one another, cut in two at every byte. */
    assert_int_equal(decode(&whole, TNL_FRAME_MAX_DATA, all, all_len, all_len, false), 0);
    assert_int_equal(whole.count, all_count);
    for (size_t at = 0; at < all_len; at += at < 2048 ? 1 : 61) {
        assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, all, all_len, at, false), 0);
        assert_true(cut.count == whole.count && cut.hash == whole.hash);
    }
    assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, all, all_len, 0, true), 0);
    assert_true(cut.count == whole.count && cut.hash == whole.hash);
    free(whole.rest);
    free(cut.rest);
    whole.rest = cut.rest = NULL;
}

/* --- the rest --------------------------------------------------------------------------------- */

static void test_greatest_data(void **state)
{
    (void)state;
    uint8_t *payload = calloc(1, TNL_FRAME_MAX_DATA + 1), *out = malloc(MAX_FRAME + 1), head[20];
    assert_true(payload && out);
    tnl_frame f = {.type = TNL_FRAME_DATA,
                   .stream = 2,
                   .offset = 7,
                   .rest = payload,
                   .rest_len = TNL_FRAME_MAX_DATA};
    assert_int_equal(tnl_frame_encode(out, MAX_FRAME + 1, &f), MAX_FRAME);
    assert_int_equal(tnl_frame_encode_data_head(head, sizeof(head), 2, 7, f.rest_len),
                     sizeof(head));
    assert_memory_equal(head, out, sizeof(head));

    for (size_t at = 0; at < MAX_FRAME; at += 4099) {
        assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA, out, MAX_FRAME, at, false), 0);
        assert_int_equal(cut.count, 1);
        assert_int_equal(cut.rest_len, TNL_FRAME_MAX_DATA);
    }
    assert_int_equal(decode(&cut, TNL_FRAME_MAX_DATA - 1, out, MAX_FRAME, 0, false),
                     TUNNEL_E_PROTOCOL);
    f.rest_len++;
    assert_int_equal(tnl_frame_encode(out, MAX_FRAME + 1, &f), 0);
    free(cut.rest);
    cut.rest = NULL;
    free(payload);
    free(out);
}

/* The encoder writes nothing that a decoder refuses. */
static void test_encoder_refuses(void **state)
{
    (void)state;
    static const uint8_t rest[TNL_FRAME_MAX_OTHER + 1];
    static const tnl_frame refused[] = {
        {.type = 0},
        {.type = 0xff},
        {.type = TNL_FRAME_OPEN},
        {.type = TNL_FRAME_OPEN, .stream = 2, .rest = rest, .rest_len = 1025},
        {.type = TNL_FRAME_DATA,
         .stream = 2,
         .offset = TNL_FRAME_MAX_OFFSET,
         .rest = rest,
         .rest_len = 1},
        {.type = TNL_FRAME_FIN},
        {.type = TNL_FRAME_FIN, .stream = 2, .offset = TNL_FRAME_MAX_OFFSET + 1},
        {.type = TNL_FRAME_FIN, .stream = 2, .rest = rest, .rest_len = 1},
        {.type = TNL_FRAME_RESET, .code = 1},
        {.type = TNL_FRAME_RESET, .stream = 2, .offset = UINT64_MAX, .code = 1},
        {.type = TNL_FRAME_RESET, .stream = 2, .rest = rest, .rest_len = 257},
        {.type = TNL_FRAME_ACK, .stream = 2, .offset = TNL_FRAME_MAX_OFFSET + 3},
        {.type = TNL_FRAME_ACK, .stream = 2, .limit = TNL_FRAME_MAX_OFFSET + 1},
        {.type = TNL_FRAME_PING, .stream = 1},
        {.type = TNL_FRAME_HELLO, .rest = rest, .rest_len = TNL_FRAME_MAX_OTHER + 1},
        {.type = TNL_FRAME_CLOSE, .rest = rest, .rest_len = 257},
        {.type = TNL_FRAME_EVENT, .rest = rest, .rest_len = 4097},
    };
    static uint8_t out[MAX_FRAME];
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        assert_int_equal(tnl_frame_encode(out, sizeof(out), &refused[i]), 0);
    assert_int_equal(tnl_frame_encode_data_head(out, sizeof(out), 2, 0, 0), 0);
    assert_int_equal(tnl_frame_encode_data_head(out, sizeof(out), 2, 0, TNL_FRAME_MAX_DATA + 1), 0);
    assert_int_equal(tnl_frame_encode_data_head(out, sizeof(out), 2, TNL_FRAME_MAX_OFFSET, 1), 0);
    assert_int_equal(tnl_frame_encode_data_head(out, 19, 2, 0, 1), 0);
}

static int stop(void *user, const tnl_frame *f)
{
    (void)f;
    return --*(int *)user ? 0 : 77;
}

static void test_callback_stops(void **state)
{
    (void)state;
    uint8_t bytes[40];
    tnl_frame ping = {.type = TNL_FRAME_PING, .offset = 1};
    tnl_decoder d;
    int left = 2;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(tnl_frame_encode(bytes + 20 * i, 20, &ping), 20);
    tnl_decoder_init(&d, TNL_FRAME_MAX_DATA);
    assert_int_equal(tnl_decoder_feed(&d, bytes, 15, stop, &left), 0);
    assert_int_equal(tnl_decoder_feed(&d, bytes + 15, 25, stop, &left), 77);
    assert_int_equal(left, 0);
    tnl_decoder_free(&d);
    assert_int_equal(live, 0);
}

static void test_memory(void **state)
{
    (void)state;
    uint8_t bytes[20];
    tnl_frame ping = {.type = TNL_FRAME_PING, .offset = 1};
    tnl_decoder d;
    int left = 100;
    assert_int_equal(tnl_frame_encode(bytes, sizeof(bytes), &ping), sizeof(bytes));

    /* A frame whose body comes in one piece is not copied. */
    allocations = 0;
    tnl_decoder_init(&d, TNL_FRAME_MAX_DATA);
    assert_int_equal(tnl_decoder_feed(&d, bytes, 12, stop, &left), 0);
    assert_int_equal(tnl_decoder_feed(&d, bytes + 12, 8, stop, &left), 0);
    assert_int_equal(left, 99);
    assert_int_equal(allocations, 0);

    no_memory = true;
    assert_int_equal(tnl_decoder_feed(&d, bytes, 13, stop, &left), TUNNEL_E_NOMEM);
    no_memory = false;
    tnl_decoder_free(&d);
    assert_int_equal(left, 99);
    assert_int_equal(live, 0);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(tnl_frame_name(TNL_FRAME_OPEN), "OPEN");
    assert_string_equal(tnl_frame_name(TNL_FRAME_EVENT), "EVENT");
    assert_string_equal(tnl_frame_name(0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),         cmocka_unit_test(test_greatest_data),
        cmocka_unit_test(test_encoder_refuses), cmocka_unit_test(test_callback_stops),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
