/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/datagram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "support/vectors.h"
#include "tunnel/error.h"

/* --- vectors ---------------------------------------------------------------------------------- */

static void check_bad(const uint8_t *p, size_t n)
{
    static const tnl_datagram_piece zeros;
    tnl_datagram_piece m;
    memset(&m, 0xee, sizeof(m));
    assert_int_equal(tnl_datagram_decode(&m, 3, p, n), TUNNEL_E_PROTOCOL);
    assert_int_equal(m.total, zeros.total);
    assert_null(m.d.p);
    assert_int_equal(m.d.flow, 0);
}

static void check_good(const vector *v, const uint8_t *p, size_t n)
{
    size_t address_len, payload_len;
    uint8_t head[TNL_DATAGRAM_HEAD_MAX];
    uint8_t *address = vector_hex(v, ".address", &address_len);
    uint8_t *payload = vector_hex(v, ".payload", &payload_len);
    tnl_datagram_piece m;
    assert_int_equal(tnl_datagram_decode(&m, 3, p, n), 0);
    assert_int_equal(m.d.flow, 3);
    assert_int_equal(m.d.tunnel, vector_uint(v, ".tunnel"));
    assert_int_equal(m.number, vector_uint(v, ".number"));
    assert_int_equal(m.total, vector_uint(v, ".total"));
    assert_int_equal(m.offset, vector_uint(v, ".offset"));
    assert_int_equal(m.d.port, vector_uint(v, ".port"));
    assert_int_equal(m.d.family, address_len == 16 ? 6 : address_len);
    assert_memory_equal(m.d.address, address, address_len);
    assert_int_equal(m.d.n, payload_len);
    if (payload_len)
        assert_memory_equal(m.d.p, payload, payload_len);
    size_t len = tnl_datagram_encode_head(head, sizeof(head), &m);
    assert_int_equal(len, n - payload_len);
    assert_int_equal(len, tnl_datagram_head_size(m.d.family));
    assert_memory_equal(head, p, len);
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(tnl_datagram_encode_head(head, cap, &m), 0);
    free(address);
    free(payload);
}

static void datagram_vector(const vector *v)
{
    size_t n;
    uint8_t *p = vector_hex(v, "hex", &n);
    if (vector_get(v, "error"))
        check_bad(p, n);
    else
        check_good(v, p, n);
    free(p);
}

static void test_vectors(void **state)
{
    (void)state;
    assert_in_range(vectors_each("datagrams.txt", datagram_vector), 30, 500);
}

static void test_encoder_refuses(void **state)
{
    (void)state;
    uint8_t out[64];
    const tnl_datagram_piece good = {.d = {.tunnel = 1, .flow = 1, .n = 5}, .total = 5};
    tnl_datagram_piece m = good;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 17);
    m.d.tunnel = 0;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 0);
    m = good;
    m.d.flow = 0;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 0);
    m = good;
    m.d.family = 3;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 0);
    m = good;
    m.offset = 1;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 0);
    m = good;
    m.total = TNL_DATAGRAM_MAX + 1;
    assert_int_equal(tnl_datagram_encode_head(out, sizeof(out), &m), 0);
}

/* --- joining ---------------------------------------------------------------------------------- */

typedef struct rig {
    tnl_joiner j;
    uint64_t lost;
    uint8_t bytes[1000];
    tnl_datagram out;
} rig;

/* Feeds [from, to) of the datagram `number` of `total` bytes; true when one is whole, with its
 * bytes in the rig's buffer. */
static bool feed(rig *r, uint32_t number, size_t from, size_t to, size_t total)
{
    uint8_t bytes[1000];
    uint8_t *owned;
    for (size_t i = 0; i < to - from; i++)
        bytes[i] = (uint8_t)(from + i + number * 7);
    tnl_datagram_piece m = {.d = {.tunnel = 1, .flow = 2, .p = bytes, .n = to - from},
                            .number = number,
                            .total = (uint16_t)total,
                            .offset = (uint16_t)from};
    if (from == 0) {
        m.d.family = 4;
        m.d.port = 53;
    }
    bool whole = tnl_joiner_feed(&r->j, &m, &r->out, &owned, &r->lost);
    assert_true(whole || !owned);
    if (whole && r->out.n)
        memcpy(r->bytes, r->out.p, r->out.n);
    tnl_free(owned);
    return whole;
}

static void check_whole(const rig *r, uint32_t number, size_t total)
{
    assert_int_equal(r->out.n, total);
    assert_int_equal(r->out.flow, 2);
    assert_int_equal(r->out.family, 4);
    assert_int_equal(r->out.port, 53);
    for (size_t i = 0; i < total; i++)
        assert_int_equal(r->bytes[i], (uint8_t)(i + number * 7));
}

static void test_joins(void **state)
{
    (void)state;
    rig r = {.lost = 0};
    assert_true(feed(&r, 1, 0, 10, 10));
    check_whole(&r, 1, 10);
    assert_true(feed(&r, 2, 0, 0, 0));
    check_whole(&r, 2, 0);
    assert_false(feed(&r, 3, 0, 4, 10));
    assert_false(feed(&r, 3, 4, 9, 10));
    assert_true(feed(&r, 3, 9, 10, 10));
    check_whole(&r, 3, 10);
    assert_int_equal(r.lost, 0);
    assert_null(r.j.bytes);
}

/* Whatever is not the next piece drops what was collected, once. */
static void test_gaps(void **state)
{
    (void)state;
    rig r = {.lost = 0};
    assert_false(feed(&r, 1, 0, 4, 10));
    assert_false(feed(&r, 1, 5, 8, 10)); /* a gap */
    assert_false(feed(&r, 1, 8, 10, 10));
    assert_int_equal(r.lost, 1);
    assert_false(feed(&r, 2, 0, 4, 10));
    assert_false(feed(&r, 2, 4, 8, 11)); /* another total */
    assert_int_equal(r.lost, 2);
    assert_false(feed(&r, 3, 4, 10, 10)); /* never begun */
    assert_int_equal(r.lost, 3);
    assert_false(feed(&r, 4, 0, 4, 10));
    assert_false(feed(&r, 4, 0, 4, 10)); /* begun again */
    assert_true(feed(&r, 4, 4, 10, 10));
    check_whole(&r, 4, 10);
    assert_int_equal(r.lost, 4);
    assert_false(feed(&r, 5, 0, 4, 10));
    assert_true(feed(&r, 6, 0, 3, 3)); /* another datagram between */
    check_whole(&r, 6, 3);
    assert_false(feed(&r, 5, 4, 10, 10));
    assert_int_equal(r.lost, 6); /* 5 was given up, and what comes of it later is a stray */
    assert_false(feed(&r, 7, 0, 4, 10));
    assert_non_null(r.j.bytes);
    tnl_joiner_free(&r.j);
    assert_null(r.j.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_encoder_refuses),
        cmocka_unit_test(test_joins),
        cmocka_unit_test(test_gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
