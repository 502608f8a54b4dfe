/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams through a mux: cut and joined, ahead of streams but not for ever, few and young. */
#include "mux/internal.h"
#include "support/memory.h"
#include "unit/mux_bench.h"

static uint8_t bytes[TNL_DATAGRAM_MAX + 1];

static int send_some(bench *b, uint64_t flow, size_t n)
{
    tnl_datagram d = {.tunnel = 1, .flow = flow, .family = 4, .port = 53, .p = bytes, .n = n};
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 + flow);
    return tnl_mux_datagram(b->mux, &d, b->now);
}

static uint64_t sum_of(size_t n, uint64_t flow)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + (uint8_t)(i * 7 + flow);
    return sum;
}

static const tnl_mux_stats *stats(const bench *b)
{
    return tnl_mux_get_stats(b->mux);
}

/* --- between two ends ------------------------------------------------------------------------- */

typedef struct pipe_sink {
    bench *to;
    size_t frames;
} pipe_sink;

static int take(void *arg, const tnl_frame *f)
{
    pipe_sink *k = arg;
    k->frames++;
    return f->type == TNL_FRAME_DATAGRAM ? tnl_mux_frame(k->to->mux, k->to->link[0], f, k->to->now)
                                         : 0;
}

/* One batch from one end to the other; how many bytes. */
static size_t carry(bench *from, bench *to, size_t cap)
{
    static uint8_t batch[65536];
    pipe_sink k = {.to = to};
    tnl_decoder d;
    tnl_decoder_init(&d, 65536);
    size_t n = tnl_mux_pull(from->mux, from->link[0], batch, cap, from->now);
    from->woken[0] = n > 0;
    assert_int_equal(tnl_decoder_feed(&d, batch, n, take, &k), 0);
    tnl_decoder_free(&d);
    return n;
}

static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 511, 512, 2000, 16383, 16384, 40000, 65506, 65507};
    static const size_t caps[] = {2048, 5000, 65536};
    bench *a = bench_new(NULL), *b = bench_new(NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        for (size_t k = 0; k < 3; k++) {
            int before = b->datagrams;
            assert_int_equal(send_some(a, i + 1, sizes[i]), 0);
            while (carry(a, b, caps[k]))
                ;
            assert_int_equal(b->datagrams, before + 1);
            assert_int_equal(b->datagram.n, sizes[i]);
            assert_int_equal(b->datagram.flow, i + 1);
            assert_int_equal(b->datagram.tunnel, 1);
            assert_int_equal(b->datagram.family, 4);
            assert_int_equal(b->datagram.port, 53);
            assert_true(b->datagram_sum == sum_of(sizes[i], i + 1));
        }
    }
    assert_int_equal(send_some(a, 1, TNL_DATAGRAM_MAX + 1), TUNNEL_E_INVALID);
    assert_int_equal(send_some(a, 0, 1), TUNNEL_E_INVALID);
    assert_int_equal(stats(a)->datagrams_out, 30);
    assert_int_equal(stats(b)->datagrams_in, 30);
    assert_int_equal(a->dropped + b->dropped, 0);
    assert_int_equal(a->mux->datagram_bytes, 0);
    bench_free(a);
    bench_free(b);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void test_oldest_go_first(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    for (uint64_t flow = 1; flow <= 100; flow++) {
        assert_int_equal(send_some(b, flow, 10000), 0);
        assert_true(b->mux->datagram_bytes <= TNL_MUX_MAX_DATAGRAMS);
    }
    uint64_t left = TNL_MUX_MAX_DATAGRAMS / (10000 + sizeof(outgoing));
    assert_int_equal(b->dropped, 100 - left);
    assert_int_equal(stats(b)->datagrams_dropped, 100 - left);
    out(b);
    assert_int_equal(stats(b)->datagrams_out, left);
    for (uint64_t flow = 1; flow <= 100; flow++)
        assert_int_equal(frame_of(b, TNL_FRAME_DATAGRAM, flow) != NULL, flow > 100 - left);
    /* Empty ones cost something too. */
    for (int i = 0; i < 100000; i++)
        assert_int_equal(send_some(b, 1, 0), 0);
    assert_true(b->mux->datagram_bytes <= TNL_MUX_MAX_DATAGRAMS);
    bench_free(b);
}

static void test_old_ones_go(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    assert_true(tnl_mux_expiry(b->mux) == UINT64_MAX);
    send_some(b, 1, 10);
    b->now += TNL_MUX_DATAGRAM_AGE_MS - 1;
    send_some(b, 2, 10);
    assert_int_equal(b->dropped, 0);
    assert_int_equal(tnl_mux_expiry(b->mux), b->now + 1);
    b->now++;
    tnl_mux_tick(b->mux, b->now);
    assert_int_equal(b->dropped, 1);
    assert_int_equal(tnl_mux_expiry(b->mux), b->now - 1 + TNL_MUX_DATAGRAM_AGE_MS);
    /* A clock that is set back keeps none for longer. */
    b->now -= 900;
    tnl_mux_tick(b->mux, b->now);
    assert_int_equal(tnl_mux_expiry(b->mux), b->now + TNL_MUX_DATAGRAM_AGE_MS);
    out(b);
    ASSERT_TYPES(b, "DATAGRAM");
    assert_int_equal(b->frame[0].f.stream, 2);
    bench_free(b);
}

/* Whose first piece is under way is not too old any more. */
static void test_cut_ones_stay(void **state)
{
    (void)state;
    bench *a = bench_new(NULL), *b = bench_new(NULL);
    send_some(a, 1, 10000);
    assert_true(carry(a, b, 2048) > 0);
    a->now += 10 * TNL_MUX_DATAGRAM_AGE_MS;
    tnl_mux_tick(a->mux, a->now);
    for (uint64_t flow = 2; flow < 50; flow++)
        send_some(a, flow, 10000);
    while (carry(a, b, 2048))
        ;
    assert_int_equal(b->dropped, 0);
    assert_int_equal(b->datagrams, 49 - (int)a->dropped);
    assert_int_equal(stats(a)->datagrams_out, b->datagrams);
    bench_free(a);
    bench_free(b);
}

/* --- links ------------------------------------------------------------------------------------ */

static void test_links_come_and_go(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    bench_link(b, 1, 1000);
    send_some(b, 1, 5000);
    send_some(b, 2, 10);
    size_t first = b->woken[0] ? 0 : 1;
    batch_on(b, first, 2048);
    assert_non_null(b->link[first]->cut);
    bench_lose(b, first);
    assert_int_equal(b->dropped, 1);
    /* What was not begun goes over the other link. */
    assert_true(b->woken[1 - first]);
    out_on(b, 1 - first);
    assert_non_null(frame_of(b, TNL_FRAME_DATAGRAM, 2));
    assert_null(frame_of(b, TNL_FRAME_DATAGRAM, 1));
    send_some(b, 3, 10);
    bench_lose(b, 1 - first);
    assert_int_equal(b->dropped, 2);
    assert_int_equal(send_some(b, 4, 10), TUNNEL_E_GONE);
    assert_int_equal(b->dropped, 3);
    assert_int_equal(b->mux->datagram_bytes, 0);
    bench_link(b, 2, 1000);
    out_on(b, 2);
    assert_null(frame_of(b, TNL_FRAME_DATAGRAM, 4));
    bench_free(b);
}

static void test_a_link_that_drains(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    send_some(b, 1, 10);
    tnl_mux_link_drain(b->mux, b->link[0]);
    bench_link(b, 1, 1000);
    assert_true(b->woken[1]);
    out_on(b, 0);
    assert_null(frame_of(b, TNL_FRAME_DATAGRAM, 1));
    out_on(b, 1);
    assert_non_null(frame_of(b, TNL_FRAME_DATAGRAM, 1));
    bench_free(b);
}

/* --- beside streams --------------------------------------------------------------------------- */

static size_t sent_of(const bench *b, uint8_t type)
{
    size_t n = 0;
    for (size_t i = 0; i < b->frames; i++)
        n += b->frame[i].f.type == type ? b->frame[i].f.rest_len : 0;
    return n;
}

static void test_half_of_each_batch(void **state)
{
    (void)state;
    static uint8_t body[TNL_MUX_MAX_UNSENT];
    tnl_mux_config config = bench_config();
    config.remote.window = 1 << 20;
    bench *b = bench_new(&config);
    user *u = user_new(b);
    assert_int_equal(tnl_stream_write(u->s, body, sizeof(body)), sizeof(body));
    for (uint64_t flow = 1; flow <= 20; flow++)
        send_some(b, flow, 10000);
    /* Both wait: each has its half, and the datagrams are first. */
    for (int i = 0; i < 2; i++) {
        b->frames = 0;
        assert_int_equal(batch_on(b, 0, 65536), 65536);
        assert_in_range(sent_of(b, TNL_FRAME_DATAGRAM), 30000, 32768);
        assert_in_range(sent_of(b, TNL_FRAME_DATA), 30000, 36000);
        const bench_frame *first = &b->frame[b->frame[0].f.type == TNL_FRAME_ACK];
        assert_int_equal(first->f.type, TNL_FRAME_DATAGRAM);
    }
    while (sent_of(b, TNL_FRAME_DATA)) {
        b->frames = 0;
        batch_on(b, 0, 65536);
    }
    /* When one has nothing more to send the other one gets all. */
    b->frames = 0;
    assert_int_equal(b->dropped, 0);
    for (uint64_t flow = 1; flow <= 20; flow++)
        send_some(b, flow, 10000);
    batch_on(b, 0, 65536);
    assert_in_range(sent_of(b, TNL_FRAME_DATAGRAM), 60000, 65536);
    user_free(u);
    bench_free(b);
}

/* --- what arrives ----------------------------------------------------------------------------- */

static int piece_in(bench *b, uint32_t number, size_t from, size_t to, size_t total)
{
    uint8_t body[TNL_DATAGRAM_HEAD_MAX + 4096];
    tnl_datagram_piece m = {.d = {.tunnel = 1, .flow = 9, .n = to - from},
                            .number = number,
                            .total = (uint16_t)total,
                            .offset = (uint16_t)from};
    memset(body, 0, sizeof(body));
    size_t head = tnl_datagram_encode_head(body, sizeof(body), &m);
    assert_true(head > 0);
    return in_on(b, 0, TNL_FRAME_DATAGRAM, 9, 0, body, head + to - from);
}

static void test_hostile_pieces(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    size_t before = memory.bytes;
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATAGRAM, 9, 0, "short", 5), 0);
    assert_int_equal(b->dropped, 1);
    /* Many that are begun and never ended: one buffer. */
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(piece_in(b, i, 0, 1, TNL_DATAGRAM_MAX), 0);
    assert_true(memory.bytes < before + TNL_DATAGRAM_MAX + 4096);
    assert_int_equal(b->dropped, 1000);
    assert_int_equal(piece_in(b, 2000, 100, 200, 200), 0);
    assert_int_equal(piece_in(b, 2001, 0, 100, 200), 0);
    assert_int_equal(b->datagrams, 0);
    assert_int_equal(piece_in(b, 2001, 100, 200, 200), 0);
    assert_int_equal(b->datagrams, 1);
    /* Without memory it is lost, and the session goes on. */
    memory.count = 0;
    memory.fail_at = 1;
    assert_int_equal(piece_in(b, 3000, 0, 100, 200), 0);
    memory.fail_at = 0;
    uint64_t dropped = b->dropped;
    assert_int_equal(piece_in(b, 3000, 100, 200, 200), 0);
    assert_int_equal(b->dropped, dropped);
    assert_int_equal(b->datagrams, 1);
    assert_int_equal(piece_in(b, 3001, 0, 1000, 1000), 0);
    assert_int_equal(b->datagrams, 2);
    bench_free(b);
}

/* The link goes in the middle of what its datagram says. */
static void lose_link(user *u, moment m)
{
    if (m == ON_DATAGRAM && u->b->link[0])
        bench_lose(u->b, 0);
}

static void test_lost_inside(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->user[0].b = b;
    b->hook = lose_link;
    assert_int_equal(piece_in(b, 1, 0, 100, 200), 0);
    assert_int_equal(piece_in(b, 1, 100, 200, 200), 0);
    assert_int_equal(b->datagrams, 1);
    assert_null(b->link[0]);
    bench_free(b);
}

static void test_no_memory_to_send(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    memory.count = 0;
    memory.fail_at = 1;
    assert_int_equal(send_some(b, 1, 100), TUNNEL_E_NOMEM);
    memory.fail_at = 0;
    assert_int_equal(b->dropped, 1);
    assert_int_equal(b->mux->datagram_bytes, 0);
    /* And after an abort nothing is taken. */
    tnl_mux_abort(b->mux, TUNNEL_E_GONE);
    assert_int_equal(send_some(b, 1, 100), TUNNEL_E_GONE);
    bench_free(b);
}

static int all_freed(void **state)
{
    (void)state;
    return memory.live ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_sizes, all_freed),
        cmocka_unit_test_teardown(test_oldest_go_first, all_freed),
        cmocka_unit_test_teardown(test_old_ones_go, all_freed),
        cmocka_unit_test_teardown(test_cut_ones_stay, all_freed),
        cmocka_unit_test_teardown(test_links_come_and_go, all_freed),
        cmocka_unit_test_teardown(test_a_link_that_drains, all_freed),
        cmocka_unit_test_teardown(test_half_of_each_batch, all_freed),
        cmocka_unit_test_teardown(test_hostile_pieces, all_freed),
        cmocka_unit_test_teardown(test_lost_inside, all_freed),
        cmocka_unit_test_teardown(test_no_memory_to_send, all_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
