/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/ring.h"
#include "base/str.h"
#include "base/url.h"
#include "support/check.h"
#include "support/memory.h"
#include "tunnel/error.h"

/* The nth allocation from now on fails, or all from there on; 0: none. */
static size_t fail_first;
static bool fail_all;

static bool fails(void)
{
    return fail_first && (fail_all ? memory.count >= fail_first : memory.count == fail_first);
}

static void fail_from(size_t nth, bool all)
{
    memory.count = 0;
    memory.fails = fails;
    fail_first = nth;
    fail_all = all;
}

/* xorshift: the same numbers in every run. */
static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 0x9e3779b97f4a7c15u >> 56);
}

static void fill(uint8_t *p, size_t n, uint64_t offset)
{
    for (size_t i = 0; i < n; i++)
        p[i] = byte_at(offset + i);
}

static int no_leak(void **state)
{
    (void)state;
    fail_from(0, false);
    return memory.live ? -1 : 0;
}

/* --- buf -------------------------------------------------------------------------------------- */

static void buf_holds_up_to_its_maximum(void **state)
{
    (void)state;
    tnl_buf b;
    uint8_t bytes[1000];
    fill(bytes, sizeof(bytes), 0);
    tnl_buf_init(&b, sizeof(bytes));
    assert_int_equal(tnl_buf_len(&b), 0);
    assert_null(tnl_buf_bytes(&b));
    assert_int_equal(tnl_buf_add(&b, NULL, 0), 0);
    assert_null(b.data);
    assert_int_equal(tnl_buf_add(&b, bytes, sizeof(bytes) + 1), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_buf_add(&b, bytes, 1), 0);
    assert_int_equal(tnl_buf_add(&b, bytes + 1, sizeof(bytes) - 1), 0);
    assert_int_equal(tnl_buf_add(&b, bytes, 1), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_buf_add(&b, bytes, SIZE_MAX), TUNNEL_E_LIMIT);
    assert_null(tnl_buf_reserve(&b, 1));
    assert_int_equal(tnl_buf_len(&b), sizeof(bytes));
    assert_memory_equal(tnl_buf_bytes(&b), bytes, sizeof(bytes));
    tnl_buf_consume(&b, 999);
    assert_int_equal(*tnl_buf_bytes(&b), bytes[999]);
    assert_int_equal(tnl_buf_add(&b, bytes, 999), 0);
    assert_int_equal(tnl_buf_bytes(&b)[999], bytes[998]);
    tnl_buf_clear(&b);
    assert_int_equal(tnl_buf_len(&b), 0);
    tnl_buf_free(&b);
    assert_int_equal(b.max, sizeof(bytes));
    assert_int_equal(tnl_buf_adds(&b, "again"), 0);
    assert_memory_equal(tnl_buf_bytes(&b), "again", 5);
    tnl_buf_free(&b);
}

static void buf_agrees_with_a_model(void **state)
{
    (void)state;
    enum { MAX = 5000, STEPS = 40000 };
    uint32_t random = 2463534242u;
    uint64_t in = 0, out = 0;
    uint8_t piece[MAX];
    tnl_buf b;
    tnl_buf_init(&b, MAX);
    for (int i = 0; i < STEPS; i++) {
        uint32_t r = next_random(&random);
        size_t n = (r >> 8) % (r & 4 ? 40 : MAX + 10);
        size_t len = (size_t)(in - out);
        if ((r & 3) == 0) {
            n = n < len ? n : len;
            tnl_buf_consume(&b, n);
            out += n;
        } else if ((r & 3) == 1) {
            uint8_t *p = tnl_buf_reserve(&b, n);
            assert_int_equal(p != NULL, len + (n ? n : 1) <= MAX);
            if (p) {
                fill(p, n, in);
                tnl_buf_commit(&b, n);
                in += n;
            }
        } else {
            fill(piece, n < MAX ? n : MAX, in);
            int rc = tnl_buf_add(&b, piece, n);
            assert_int_equal(rc, len + n <= MAX ? 0 : TUNNEL_E_LIMIT);
            in += rc ? 0 : n;
        }
        assert_int_equal(tnl_buf_len(&b), in - out);
        assert_true(b.cap <= MAX && b.tail <= b.cap);
        fill(piece, tnl_buf_len(&b), out);
        if (in > out)
            assert_memory_equal(tnl_buf_bytes(&b), piece, tnl_buf_len(&b));
        if (r % 997 == 0) {
            tnl_buf_free(&b);
            out = in;
        }
    }
    tnl_buf_free(&b);
}

static void buf_takes_formatted_text(void **state)
{
    (void)state;
    tnl_buf b;
    tnl_buf_init(&b, 10);
    assert_int_equal(tnl_buf_addf(&b, "%s", ""), 0);
    assert_int_equal(tnl_buf_addf(&b, "%d-%s", 12, "ab"), 0);
    assert_int_equal(tnl_buf_addf(&b, "%06d", 1), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_buf_len(&b), 5);
    /* A text that fills it to the last byte fits, and so it does after something was consumed. */
    assert_int_equal(tnl_buf_addf(&b, "%05d", 1), 0);
    assert_memory_equal(tnl_buf_bytes(&b), "12-ab00001", 10);
    tnl_buf_consume(&b, 8);
    assert_int_equal(tnl_buf_addf(&b, "%s", "abcdefgh"), 0);
    assert_memory_equal(tnl_buf_bytes(&b), "01abcdefgh", 10);
    assert_int_equal(tnl_buf_addf(&b, "%s", "x"), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_buf_addf(&b, "%s", ""), 0);
    tnl_buf_free(&b);
}

static void buf_survives_want_of_memory(void **state)
{
    (void)state;
    tnl_buf b;
    uint8_t bytes[300] = {0};
    tnl_buf_init(&b, 4096);
    fail_from(1, false);
    assert_int_equal(tnl_buf_add(&b, bytes, 10), TUNNEL_E_NOMEM);
    assert_int_equal(tnl_buf_add(&b, "0123456789", 10), 0);
    fail_from(1, true);
    assert_int_equal(tnl_buf_add(&b, bytes, sizeof(bytes)), TUNNEL_E_NOMEM);
    assert_int_equal(tnl_buf_addf(&b, "%300d", 1), TUNNEL_E_NOMEM);
    assert_null(tnl_buf_reserve(&b, sizeof(bytes)));
    assert_int_equal(tnl_buf_len(&b), 10);
    assert_memory_equal(tnl_buf_bytes(&b), "0123456789", 10);
    fail_from(0, false);
    tnl_buf_free(&b);
}

/* --- ring ------------------------------------------------------------------------------------- */

static void ring_rounds_its_maximum(void **state)
{
    (void)state;
    static const struct {
        size_t asked, got;
    } cases[] = {{0, 1024},      {1, 1024},       {1024, 1024},      {1025, 2048},
                 {65536, 65536}, {65537, 131072}, {1 << 30, 1 << 30}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        tnl_ring r;
        tnl_ring_init(&r, cases[i].asked);
        assert_int_equal(r.max, cases[i].got);
        assert_null(r.data);
        tnl_ring_free(&r);
    }
}

static void ring_fills_to_the_last_byte_and_wraps(void **state)
{
    (void)state;
    enum { MAX = 4096 };
    tnl_ring r;
    uint8_t *p;
    const uint8_t *q;
    tnl_ring_init(&r, MAX);
    r.start = r.end = UINT64_MAX / 2 - 100; /* offsets of any size */
    assert_int_equal(tnl_ring_peek(&r, r.start, &q), 0);
    assert_int_equal(tnl_ring_space(&r, 0, &p), 0);
    for (size_t done = 0; done < MAX;) {
        size_t n = tnl_ring_space(&r, MAX - done, &p);
        assert_true(n > 0 && n <= MAX - done);
        fill(p, n, r.end);
        tnl_ring_commit(&r, n);
        done += n;
    }
    assert_int_equal(tnl_ring_space(&r, 1, &p), 0);
    assert_int_equal(tnl_ring_len(&r), MAX);
    for (uint64_t at = r.start; at < r.end;) {
        size_t n = tnl_ring_peek(&r, at, &q);
        assert_true(n > 0 && at + n <= r.end);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(q[i], byte_at(at + i));
        at += n;
    }
    tnl_ring_drop(&r, r.start + 1);
    assert_int_equal(tnl_ring_space(&r, 100, &p), 1);
    tnl_ring_drop(&r, r.end);
    tnl_ring_trim(&r);
    assert_null(r.data);
    assert_int_equal(tnl_ring_len(&r), 0);
}

static void ring_keeps_what_lies_beyond_its_end(void **state)
{
    (void)state;
    enum { MAX = 8192 };
    tnl_ring r;
    uint8_t bytes[MAX];
    const uint8_t *q;
    tnl_ring_init(&r, MAX);
    r.start = r.end = 1000; /* so that growing moves bytes */
    fill(bytes, MAX, 1000);
    assert_int_equal(tnl_ring_put(&r, 1900, bytes + 900, 100), 0);
    assert_int_equal(r.cap, 1024);
    assert_int_equal(tnl_ring_put(&r, 3000, bytes + 2000, 500), 0);
    assert_int_equal(tnl_ring_put(&r, 1000 + MAX - 10, bytes + MAX - 10, 10), 0);
    assert_int_equal(tnl_ring_put(&r, 1000 + MAX - 10, bytes + MAX - 10, 11), TUNNEL_E_LIMIT);
    assert_int_equal(tnl_ring_put(&r, 1000 + MAX, bytes, 0), 0);
    assert_int_equal(r.end, 1000);
    tnl_ring_put(&r, 1000, bytes, 900);
    tnl_ring_put(&r, 2000, bytes + 1000, 1000);
    tnl_ring_put(&r, 3500, bytes + 2500, MAX - 2500 - 10);
    tnl_ring_commit(&r, MAX);
    for (uint64_t at = r.start; at < r.end;) {
        size_t n = tnl_ring_peek(&r, at, &q);
        assert_memory_equal(q, bytes + (at - 1000), n);
        at += n;
    }
    tnl_ring_free(&r);
}

/* Random writes in order and out of order, reads and drops, against what the bytes must be. */
static void ring_agrees_with_a_model(void **state)
{
    (void)state;
    enum { MAX = 16384, STEPS = 60000 };
    uint32_t random = 88675123u;
    tnl_ring r;
    uint8_t piece[MAX];
    uint64_t ahead = 0; /* [end, ahead) was put beyond end */
    tnl_ring_init(&r, MAX);
    for (int i = 0; i < STEPS; i++) {
        uint32_t x = next_random(&random);
        size_t n = (x >> 8) % (x & 8 ? 50 : 6000);
        uint8_t *p;
        const uint8_t *q;
        ahead = ahead > r.end ? ahead : r.end;
        switch (x & 7) {
        case 0:
        case 1: /* in order, without a copy; what was put ahead is written over with the same */
            n = tnl_ring_space(&r, n, &p) < n ? tnl_ring_space(&r, n, &p) : n;
            if (n)
                fill(p, n, r.end);
            tnl_ring_commit(&r, n);
            break;
        case 2: /* ahead */
            if (n > r.start + MAX - ahead)
                n = (size_t)(r.start + MAX - ahead);
            fill(piece, n, ahead);
            assert_int_equal(tnl_ring_put(&r, ahead, piece, n), 0);
            ahead += n;
            break;
        case 3: /* what was ahead has become contiguous */
            tnl_ring_commit(&r, (size_t)(ahead - r.end));
            break;
        case 4:
            n = n < tnl_ring_len(&r) ? n : tnl_ring_len(&r);
            tnl_ring_drop(&r, r.start + n);
            break;
        case 5: {
            uint64_t at = r.start + (tnl_ring_len(&r) ? n % tnl_ring_len(&r) : 0);
            size_t got = tnl_ring_peek(&r, at, &q);
            assert_true(at + got <= r.end && (got > 0 || at == r.end));
            fill(piece, got, at);
            if (got)
                assert_memory_equal(q, piece, got);
            break;
        }
        default:
            if (x % 61 == 0 && ahead == r.end)
                tnl_ring_trim(&r);
            if (x % 67 == 0 && ahead == r.end) {
                tnl_ring_drop(&r, r.end);
                tnl_ring_trim(&r);
                assert_null(r.data);
            }
            break;
        }
        assert_true(r.cap <= MAX && tnl_ring_len(&r) <= MAX);
    }
    tnl_ring_free(&r);
}

static void ring_survives_want_of_memory(void **state)
{
    (void)state;
    tnl_ring r;
    uint8_t *p;
    const uint8_t *q;
    uint8_t bytes[2000] = {0};
    tnl_ring_init(&r, 4096);
    fail_from(1, true);
    assert_int_equal(tnl_ring_space(&r, 10, &p), 0);
    assert_int_equal(tnl_ring_put(&r, 0, bytes, 10), TUNNEL_E_NOMEM);
    fail_from(0, false);
    assert_int_equal(tnl_ring_space(&r, 10, &p), 1024);
    fill(p, 1000, 0);
    tnl_ring_commit(&r, 1000);
    fail_from(1, true);
    /* Growing fails: what room there is is given. */
    assert_int_equal(tnl_ring_space(&r, 500, &p), 24);
    assert_int_equal(tnl_ring_put(&r, 1000, bytes, sizeof(bytes)), TUNNEL_E_NOMEM);
    fill(p, 24, 1000);
    tnl_ring_commit(&r, 24);
    assert_int_equal(tnl_ring_space(&r, 1, &p), 0);
    fail_from(0, false);
    assert_int_equal(tnl_ring_peek(&r, 0, &q), 1024);
    fill(bytes, 1024, 0);
    assert_memory_equal(q, bytes, 1024);
    tnl_ring_free(&r);
}

/* --- map -------------------------------------------------------------------------------------- */

typedef struct member {
    tnl_map_node node;
    char key[24];
    uint64_t id;
    bool in;
    bool seen;
} member;

static member *member_of(tnl_map_node *n)
{
    return n ? TNL_CONTAINER(n, member, node) : NULL;
}

enum { MEMBERS = 3000 };

static void check_walk(const tnl_map *m, member *all)
{
    size_t seen = 0;
    for (size_t i = 0; i < MEMBERS; i++)
        all[i].seen = false;
    for (tnl_map_node *n = tnl_map_next(m, NULL); n; n = tnl_map_next(m, n)) {
        assert_true(member_of(n)->in);
        assert_false(member_of(n)->seen);
        member_of(n)->seen = true;
        seen++;
    }
    assert_int_equal(seen, m->count);
}

static void use_map(bool by_id, uint64_t seed)
{
    tnl_map m;
    uint32_t random = 123456789u;
    size_t count = 0;
    member *all = calloc(MEMBERS, sizeof(*all));
    assert_non_null(all);
    tnl_map_init(&m, seed);
    assert_null(tnl_map_get(&m, "x", 1));
    assert_null(tnl_map_get_id(&m, 1));
    assert_null(tnl_map_next(&m, NULL));
    for (size_t i = 0; i < MEMBERS; i++) {
        all[i].id = i % 2 ? i << 40 : i;
        snprintf(all[i].key, sizeof(all[i].key), "%.*s%zu", (int)(i % 12), "aaaaaaaaaaaa", i);
    }
    for (int step = 0; step < 60000; step++) {
        member *e = &all[next_random(&random) % MEMBERS];
        size_t len = strlen(e->key);
        member *found = member_of(by_id ? tnl_map_get_id(&m, e->id) : tnl_map_get(&m, e->key, len));
        assert_ptr_equal(found, e->in ? e : NULL);
        if (e->in) {
            tnl_map_remove(&m, &e->node);
            count--;
        } else {
            assert_int_equal(by_id ? tnl_map_put_id(&m, &e->node, e->id)
                                   : tnl_map_put(&m, &e->node, e->key, len),
                             0);
            count++;
        }
        e->in = !e->in;
        assert_int_equal(m.count, count);
        if (step % 5000 == 0)
            check_walk(&m, all);
    }
    check_walk(&m, all);
    tnl_map_free(&m);
    assert_int_equal(m.count, 0);
    free(all);
}

static void map_agrees_with_a_model(void **state)
{
    (void)state;
    use_map(true, 0);
    use_map(false, 0);
    use_map(false, 0x123456789abcdef);
}

static void map_tells_keys_apart(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        size_t n;
    } keys[] = {{"", 0},          {"\0", 1},        {"\0\0", 2},      {"a", 1},
                {"a\0", 2},       {"\0a", 2},       {"aaaaaaaa", 8},  {"aaaaaaaa\0", 9},
                {"aaaaaaaaa", 9}, {"baaaaaaaa", 9}, {"aaaaaaaab", 9}, {"A", 1}};
    enum { COUNT = sizeof(keys) / sizeof(*keys) };
    tnl_map m;
    tnl_map_node nodes[COUNT];
    tnl_map_init(&m, 7);
    for (size_t i = 0; i < COUNT; i++) {
        assert_null(tnl_map_get(&m, keys[i].p, keys[i].n));
        assert_int_equal(tnl_map_put(&m, &nodes[i], keys[i].p, keys[i].n), 0);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_ptr_equal(tnl_map_get(&m, keys[i].p, keys[i].n), &nodes[i]);
    tnl_map_free(&m);
}

static void map_can_be_emptied_while_walking(void **state)
{
    (void)state;
    tnl_map m;
    tnl_map_node nodes[100];
    tnl_map_init(&m, 0);
    for (uint64_t i = 0; i < 100; i++)
        tnl_map_put_id(&m, &nodes[i], i * 1024);
    size_t count = 0;
    for (tnl_map_node *n = tnl_map_next(&m, NULL), *next; n; n = next, count++) {
        next = tnl_map_next(&m, n);
        tnl_map_remove(&m, n);
    }
    assert_int_equal(count, 100);
    assert_int_equal(m.count, 0);
    tnl_map_free(&m);
}

static void map_goes_on_without_memory_to_grow(void **state)
{
    (void)state;
    tnl_map m;
    static tnl_map_node nodes[500];
    tnl_map_init(&m, 0);
    fail_from(1, true);
    assert_int_equal(tnl_map_put_id(&m, &nodes[0], 1), TUNNEL_E_NOMEM);
    assert_int_equal(m.count, 0);
    fail_from(2, true);
    for (uint64_t i = 0; i < 500; i++)
        assert_int_equal(tnl_map_put_id(&m, &nodes[i], i), 0);
    assert_int_equal(m.bucket_count, 16);
    for (uint64_t i = 0; i < 500; i++)
        assert_ptr_equal(tnl_map_get_id(&m, i), &nodes[i]);
    fail_from(0, false);
    tnl_map_remove(&m, &nodes[3]);
    assert_int_equal(tnl_map_put_id(&m, &nodes[3], 3), 0);
    assert_int_equal(m.bucket_count, 32);
    tnl_map_free(&m);
}

/* --- list ------------------------------------------------------------------------------------- */

static void list_keeps_order(void **state)
{
    (void)state;
    struct item {
        int before;
        tnl_list node;
    } items[5] = {{.before = 0}, {.before = 1}, {.before = 2}, {.before = 3}, {.before = 4}};
    tnl_list head;
    tnl_list_init(&head);
    assert_true(tnl_list_empty(&head));
    assert_null(tnl_list_first(&head));
    for (int i = 0; i < 5; i++)
        tnl_list_init(&items[i].node);
    tnl_list_add_tail(&head, &items[2].node);
    tnl_list_add_head(&head, &items[1].node);
    tnl_list_add_tail(&head, &items[3].node);
    tnl_list_add_head(&head, &items[0].node);
    tnl_list_add_tail(&head, &items[4].node);
    int i = 0;
    for (tnl_list *n = head.next; n != &head; n = n->next)
        assert_int_equal(TNL_CONTAINER(n, struct item, node)->before, i++);
    assert_int_equal(i, 5);
    tnl_list_remove(&items[2].node);
    assert_true(tnl_list_empty(&items[2].node));
    tnl_list_remove(&items[2].node);
    assert_ptr_equal(items[1].node.next, &items[3].node);
    assert_ptr_equal(items[3].node.prev, &items[1].node);
    for (tnl_list *n; (n = tnl_list_first(&head));)
        tnl_list_remove(n);
    assert_true(tnl_list_empty(&head));
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void bytes_are_read_within_bounds(void **state)
{
    (void)state;
    static const uint8_t in[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    tnl_reader r = tnl_reader_of(in, sizeof(in));
    assert_int_equal(tnl_read_uint(&r, 1), 1);
    assert_int_equal(tnl_read_uint(&r, 3), 0x020304);
    assert_ptr_equal(tnl_read_bytes(&r, 2), in + 4);
    assert_int_equal(tnl_read_uint(&r, 5), 0);
    assert_true(r.failed);
    /* Once failed, it gives nothing more, even what would fit. */
    assert_int_equal(tnl_read_uint(&r, 1), 0);
    assert_null(tnl_read_bytes(&r, 1));
    r = tnl_reader_of(in, 8);
    assert_true(tnl_read_uint(&r, 8) == 0x0102030405060708u);
    assert_int_equal(r.left, 0);
    assert_false(r.failed);
    assert_non_null(tnl_read_bytes(&r, 0));
    assert_false(r.failed);
    assert_null(tnl_read_bytes(&r, SIZE_MAX));
    assert_true(r.failed);
    r = tnl_reader_of(NULL, 0);
    assert_int_equal(tnl_read_uint(&r, 1), 0);
    assert_true(r.failed);
}

static void bytes_are_written_within_bounds(void **state)
{
    (void)state;
    uint8_t out[10] = {0};
    tnl_writer w = tnl_writer_of(out, 8);
    tnl_write_uint(&w, 0x010203, 3);
    tnl_write_bytes(&w, "ab", 2);
    tnl_write_bytes(&w, NULL, 0);
    tnl_write_uint(&w, UINT64_MAX, 8);
    assert_true(w.failed);
    tnl_write_uint(&w, 1, 1);
    assert_int_equal(w.left, 3);
    assert_memory_equal(out, "\1\2\3ab\0\0\0\0\0", 10);
    w = tnl_writer_of(out, 8);
    tnl_write_uint(&w, 0xf1f2f3f4f5f6f7f8u, 8);
    assert_false(w.failed);
    assert_memory_equal(out, "\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\0\0", 10);
}

/* --- url -------------------------------------------------------------------------------------- */

static void urls_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text, *scheme, *userinfo, *host;
        unsigned port;
        const char *path;
        bool ipv6;
    } cases[] = {
        {"ws://h", "ws", "", "h", 0, "", false},
        {"WSS://Tunnel.Example.COM:443/", "wss", "", "tunnel.example.com", 443, "/", false},
        {"http://a_b-c.d:65535?x=1", "http", "", "a_b-c.d", 65535, "?x=1", false},
        {"http://h#top", "http", "", "h", 0, "#top", false},
        {"http://h:00080/a/b", "http", "", "h", 80, "/a/b", false},
        {"http://[::1]", "http", "", "::1", 0, "", true},
        {"http://[2001:DB8::1]:8080/x", "http", "", "2001:db8::1", 8080, "/x", true},
        {"http://[::ffff:1.2.3.4]:1", "http", "", "::ffff:1.2.3.4", 1, "", true},
        {"http://user:pass@h:1", "http", "user:pass", "h", 1, "", false},
        {"http://user%40corp:p%3Aw%2f@h", "http", "user@corp:p:w/", "h", 0, "", false},
        {"http://u@x:p@h", "http", "u@x:p", "h", 0, "", false},
        {"http://@h", "http", "", "h", 0, "", false},
        {"http://u:p@[::1]:9", "http", "u:p", "::1", 9, "", true},
        {"http://h/@x", "http", "", "h", 0, "/@x", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        tnl_url u;
        assert_int_equal(tnl_url_parse(&u, cases[i].text), 0);
        assert_string_equal(u.scheme, cases[i].scheme);
        assert_string_equal(u.userinfo, cases[i].userinfo);
        assert_string_equal(u.host, cases[i].host);
        assert_int_equal(u.port, cases[i].port);
        assert_string_equal(u.path, cases[i].path);
        assert_int_equal(u.ipv6, cases[i].ipv6);
    }
}

static void bad_urls_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {"",
                                        "h",
                                        "h:80",
                                        "://h",
                                        "http:/h",
                                        "http:h",
                                        "http://",
                                        "http:///x",
                                        "http://:80",
                                        "http://h:",
                                        "http://h:0",
                                        "http://h:65536",
                                        "http://h:99999999999999999999",
                                        "http://h:8o",
                                        "http://h:+8",
                                        "http://h:8 ",
                                        "http://h:-1",
                                        "http://h h",
                                        "http://h\n",
                                        "http://h\x7f",
                                        "http://\xc3\xa4",
                                        "http://a,b",
                                        "http://a%41",
                                        "http://[::1",
                                        "http://::1",
                                        "http://[]",
                                        "http://[::1]x",
                                        "http://[::1]:",
                                        "http://[h]",
                                        "http://[1.2.3.4]",
                                        "http://[:::]",
                                        "http://[::1%25eth0]",
                                        "http://u:p@",
                                        "http://u:p@:80",
                                        "http://%@h",
                                        "http://%4@h",
                                        "http://%4g@h",
                                        "http://%00@h",
                                        "http://%0d%0a@h",
                                        "http://%7f@h",
                                        "averyveryverylongscheme://h",
                                        "http://h:1:2"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        tnl_url u;
        if (tnl_url_parse(&u, cases[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", cases[i]);
    }
}

/* A part of n bytes between two texts. */
static int parse_long(tnl_url *u, const char *before, size_t n, const char *after)
{
    char text[2048];
    size_t len = strlen(before);
    memcpy(text, before, len);
    memset(text + len, 'a', n);
    strcpy(text + len + n, after);
    return tnl_url_parse(u, text);
}

static void parts_of_urls_are_bounded(void **state)
{
    (void)state;
    tnl_url u;
    assert_int_equal(parse_long(&u, "http://", TNL_URL_HOST - 1, ":80/"), 0);
    assert_int_equal(strlen(u.host), TNL_URL_HOST - 1);
    assert_int_equal(parse_long(&u, "http://", TNL_URL_HOST, ""), TUNNEL_E_INVALID);
    assert_int_equal(parse_long(&u, "http://", TNL_URL_USERINFO - 1, "@h"), 0);
    assert_int_equal(strlen(u.userinfo), TNL_URL_USERINFO - 1);
    assert_int_equal(parse_long(&u, "http://", TNL_URL_USERINFO, "@h"), TUNNEL_E_INVALID);
    assert_int_equal(parse_long(&u, "http://h/", TNL_URL_PATH - 2, ""), 0);
    assert_int_equal(parse_long(&u, "http://h/", TNL_URL_PATH - 1, ""), TUNNEL_E_INVALID);
    assert_int_equal(parse_long(&u, "", 15, "://h"), 0);
    assert_int_equal(parse_long(&u, "", 16, "://h"), TUNNEL_E_INVALID);
}

static void loopback_is_known(void **state)
{
    (void)state;
    static const char *const yes[] = {"localhost",   "a.localhost", "b.a.localhost",  "127.0.0.1",
                                      "127.255.0.9", "::1",         "0:0:0:0:0:0:0:1"};
    /* What is not a proper address may be a name that some resolver knows. */
    static const char *const no[] = {"",
                                     "localhost.example.com",
                                     "notlocalhost",
                                     ".localhost",
                                     "128.0.0.1",
                                     "127.0.0",
                                     "127.1",
                                     "127.0.0.256",
                                     "127.0.0.1.5",
                                     "127.0.0.1.example.com",
                                     "127.300",
                                     "::2",
                                     "::",
                                     "1::1",
                                     "0.0.0.0",
                                     "localhos"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++)
        if (!tnl_host_is_loopback(yes[i]))
            fail_msg("not loopback: '%s'", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
        if (tnl_host_is_loopback(no[i]))
            fail_msg("loopback: '%s'", no[i]);
}

static void names_are_checked(void **state)
{
    (void)state;
    char text[300];
    static const char *const labels[] = {"a", "0", "a-b", "xn--bcher-kva", "a--b"};
    static const char *const not_labels[] = {"",    "-a",  "a-",       "-", "A",  "a.b",
                                             "a_b", "a b", "\xc3\xa4", "@", "a\n"};
    static const char *const domains[] = {"localhost", "a.b", "tunnel.example.com", "1.2"};
    static const char *const not_domains[] = {"",    ".",    "a.",    ".a", "a..b",
                                              "A.b", "a.-b", "a b.c", "a/b"};
    for (size_t i = 0; i < sizeof(labels) / sizeof(*labels); i++)
        assert_true(tnl_is_label(labels[i]) && tnl_is_domain(labels[i]));
    for (size_t i = 0; i < sizeof(not_labels) / sizeof(*not_labels); i++)
        assert_false(tnl_is_label(not_labels[i]));
    for (size_t i = 0; i < sizeof(domains) / sizeof(*domains); i++)
        assert_true(tnl_is_domain(domains[i]));
    for (size_t i = 0; i < sizeof(not_domains) / sizeof(*not_domains); i++)
        assert_false(tnl_is_domain(not_domains[i]));
    memset(text, 'a', sizeof(text));
    text[63] = '\0';
    assert_true(tnl_is_label(text) && tnl_is_domain(text));
    text[63] = 'a', text[64] = '\0';
    assert_false(tnl_is_label(text) || tnl_is_domain(text));
    memset(text, 'a', sizeof(text));
    for (size_t i = 50; i < sizeof(text); i += 51)
        text[i] = '.';
    text[253] = '\0';
    assert_true(tnl_is_domain(text));
    text[253] = 'a', text[254] = '\0';
    assert_false(tnl_is_domain(text));
}

/* --- the rest --------------------------------------------------------------------------------- */

static void backoff_grows_to_its_cap(void **state)
{
    (void)state;
    tnl_backoff b = {.base_ms = 250, .cap_ms = 30000, .floor_ms = 50};
    uint32_t want = 250;
    for (int i = 0; i < 100; i++) {
        unsigned attempt = b.attempt;
        tnl_backoff same = b;
        assert_int_equal(tnl_backoff_next(&b, UINT32_MAX), want < 30000 ? want : 30000);
        assert_int_equal(tnl_backoff_next(&same, 0), 50);
        same.attempt = attempt;
        /* Half of the random numbers give half of the way. */
        uint32_t half = tnl_backoff_next(&same, UINT32_MAX / 2 + 1);
        assert_int_equal(half, ((want < 30000 ? want : 30000) + 1) / 2);
        if (want < 30000)
            want *= 2;
    }
    tnl_backoff_reset(&b);
    assert_int_equal(tnl_backoff_next(&b, UINT32_MAX), 250);
    b = (tnl_backoff){.base_ms = UINT32_MAX, .cap_ms = UINT32_MAX, .attempt = UINT32_MAX};
    assert_int_equal(tnl_backoff_next(&b, UINT32_MAX), UINT32_MAX);
    assert_int_equal(tnl_backoff_next(&b, UINT32_MAX), UINT32_MAX);
    b = (tnl_backoff){0};
    assert_int_equal(tnl_backoff_next(&b, UINT32_MAX), 0);
}

static void take_line(void *user, tnl_level level, const char *text)
{
    assert_int_equal(level, TNL_LOG_WARN);
    snprintf(user, TNL_LOG_LINE + 10, "%s", text);
}

static void log_lines_are_cut_and_filtered(void **state)
{
    (void)state;
    char line[TNL_LOG_LINE + 10] = "";
    tnl_log log = {.line = take_line, .user = line, .least = TNL_LOG_WARN};
    tnl_log_write(NULL, TNL_LOG_ERROR, "x");
    tnl_log_write(&log, TNL_LOG_INFO, "too low");
    assert_string_equal(line, "");
    tnl_log_write(&log, TNL_LOG_WARN, "%s %d", "x", 7);
    assert_string_equal(line, "x 7");
    tnl_log_write(&log, TNL_LOG_WARN, "%2000d", 7);
    assert_int_equal(strlen(line), TNL_LOG_LINE - 1);
    log.line = NULL;
    tnl_log_write(&log, TNL_LOG_WARN, "x");
}

static void text_is_escaped_for_logs(void **state)
{
    (void)state;
    char out[64];
    static const struct {
        const char *in;
        size_t n, size;
        const char *out;
    } cases[] = {
        {"plain ~!", 8, 64, "plain ~!"},
        {"a\"b\\c", 5, 64, "a\\x22b\\x5cc"},
        {"\r\n\t\0\x1b[31m", 9, 64, "\\x0d\\x0a\\x09\\x00\\x1b[31m"},
        {"\x7f\x80\xff", 3, 64, "\\x7f\\x80\\xff"},
        {"abcd", 4, 4, "abc"},
        {"abc\n", 4, 7, "abc"}, /* an escape is never cut */
        {"abc\n", 4, 8, "abc\\x0a"},
        {"\n\n", 2, 5, "\\x0a"},
        {"a", 1, 1, ""},
        {NULL, 0, 8, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        memset(out, '#', sizeof(out));
        assert_ptr_equal(tnl_log_escape(out, cases[i].size, cases[i].in, cases[i].n), out);
        assert_string_equal(out, cases[i].out);
        for (size_t j = cases[i].size; j < sizeof(out); j++)
            assert_int_equal(out[j], '#');
    }
    out[0] = '#';
    tnl_log_escape(out, 0, "x", 1);
    assert_int_equal(out[0], '#');
}

static void base64_as_in_the_rfc(void **state)
{
    (void)state;
    /* RFC 4648 section 10 */
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t n = strlen(cases[i][0]);
        char out[16];
        memset(out, '#', sizeof(out));
        tnl_base64(out, cases[i][0], n);
        assert_string_equal(out, cases[i][1]);
        assert_int_equal(strlen(out) + 1, TNL_BASE64_SIZE(n));
    }
    char out[TNL_BASE64_SIZE(3)];
    tnl_base64(out, "\xfb\xff\xfe", 3);
    assert_string_equal(out, "+//+");
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *s = tnl_strdup("abc");
    assert_string_equal(s, "abc");
    tnl_free(s);
    s = tnl_strndup("a\0bc", 3);
    assert_memory_equal(s, "a\0b", 4);
    tnl_free(s);
    s = tnl_strndup(NULL, 0);
    assert_string_equal(s, "");
    tnl_free(s);
    tnl_free(NULL);
    fail_from(1, false);
    assert_null(tnl_strdup("x"));
    fail_from(0, false);
    char secret[4] = "abc";
    tnl_wipe(secret, sizeof(secret));
    assert_memory_equal(secret, "\0\0\0", 4);
    assert_true(tnl_str_eq((tnl_str){NULL, 0}, ""));
    assert_true(tnl_str_eq(tnl_str_of("ab"), "ab"));
    assert_false(tnl_str_eq(tnl_str_of("ab"), "abc"));
    assert_false(tnl_str_eq(tnl_str_of("ab"), "aB"));
    assert_int_equal(tnl_str_of(NULL).n, 0);
}

static void codes_have_names_and_classes(void **state)
{
    (void)state;
    assert_string_equal(tunnel_strerror(0), "success");
    assert_string_equal(tunnel_error_name(0), "OK");
    assert_int_equal(tunnel_error_is_final(0), 0);
    assert_string_equal(tunnel_strerror(TUNNEL_E_NAME_TAKEN), "the name is held by another");
    assert_string_equal(tunnel_error_name(TUNNEL_E_NAME_TAKEN), "NAME_TAKEN");
    assert_int_equal(tunnel_error_is_final(TUNNEL_E_NAME_TAKEN), 1);
    assert_int_equal(tunnel_error_is_final(TUNNEL_E_ADDR_IN_USE), 1);
    assert_int_equal(tunnel_error_is_final(TUNNEL_E_REFUSED), 0);
    for (int code = 1; code > -2000; code--) {
        assert_non_null(tunnel_strerror(code));
        assert_non_null(tunnel_error_name(code));
    }
    assert_string_equal(tunnel_strerror(-1999), "unknown error");
    assert_string_equal(tunnel_error_name(1), "UNKNOWN");
    assert_int_equal(tunnel_error_is_final(-1999), 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, no_leak)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(buf_holds_up_to_its_maximum),
        TEST(buf_agrees_with_a_model),
        TEST(buf_takes_formatted_text),
        TEST(buf_survives_want_of_memory),
        TEST(ring_rounds_its_maximum),
        TEST(ring_fills_to_the_last_byte_and_wraps),
        TEST(ring_keeps_what_lies_beyond_its_end),
        TEST(ring_agrees_with_a_model),
        TEST(ring_survives_want_of_memory),
        TEST(map_agrees_with_a_model),
        TEST(map_tells_keys_apart),
        TEST(map_can_be_emptied_while_walking),
        TEST(map_goes_on_without_memory_to_grow),
        TEST(list_keeps_order),
        TEST(bytes_are_read_within_bounds),
        TEST(bytes_are_written_within_bounds),
        TEST(urls_are_taken_apart),
        TEST(bad_urls_are_refused),
        TEST(parts_of_urls_are_bounded),
        TEST(loopback_is_known),
        TEST(names_are_checked),
        TEST(backoff_grows_to_its_cap),
        TEST(log_lines_are_cut_and_filtered),
        TEST(text_is_escaped_for_logs),
        TEST(base64_as_in_the_rfc),
        TEST(strings_are_copied),
        TEST(codes_have_names_and_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
