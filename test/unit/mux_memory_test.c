/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation fails in its turn: there is an error or a reset, never a crash, a leak or a
 * wrong byte. */
#include "unit/mux_bench.h"

#include "mux/internal.h"
#include "support/memory.h"

enum { BIG = 40000, CONTROLS = 40 };

typedef struct story {
    tnl_mux *mux[2];
    tnl_mux_link *link[2];
    bool woken[2];
    tnl_stream *stream[2];
    size_t got[2];
    size_t accept; /* what the second end uses up before it is told to go on */
    int ends[2];   /* fin or reset was told */
    int records;
    int error;
    uint64_t now;
} story;

typedef struct story_end {
    story *t;
    int end;
} story_end;

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static size_t on_data(void *arg, const uint8_t *p, size_t n)
{
    story_end *e = arg;
    story *t = e->t;
    size_t used = n;
    if (e->end == 1 && used > t->accept)
        used = t->accept;
    if (e->end == 1)
        t->accept -= used;
    for (size_t i = 0; i < used; i++)
        assert_int_equal(p[i], byte_at(t->got[e->end]++));
    return used;
}

static void on_fin(void *arg)
{
    story_end *e = arg;
    assert_int_equal(e->t->got[e->end], BIG);
    e->t->ends[e->end]++;
}

static void on_reset(void *arg, uint32_t code, const char *text, size_t n)
{
    story_end *e = arg;
    (void)text;
    (void)n;
    assert_int_equal(code, -TUNNEL_E_NOMEM);
    e->t->ends[e->end]++;
}

static const tnl_stream_events stream_events = {.data = on_data, .fin = on_fin, .reset = on_reset};

static void on_open(void *arg, tnl_stream *s, const uint8_t *map, size_t n)
{
    story_end *e = arg;
    (void)map;
    assert_int_equal(n, 100);
    e->t->stream[e->end] = s;
    tnl_stream_set_events(s, &stream_events, e);
}

static int on_control(void *arg, uint8_t type, const uint8_t *p, size_t n)
{
    story_end *e = arg;
    assert_int_equal(type, 7);
    assert_int_equal(n, 900);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p[i], byte_at(i));
    e->t->records++;
    return 0;
}

static void on_wake(void *arg, void *link_user)
{
    (void)arg;
    *(bool *)link_user = true;
}

static const tnl_mux_events mux_events = {.open = on_open, .control = on_control, .wake = on_wake};

static int on_frame(void *arg, const tnl_frame *f)
{
    story_end *e = arg;
    return tnl_mux_frame(e->t->mux[e->end], e->t->link[e->end], f, e->t->now);
}

/* One batch from that end to the other; frames of one stream come in the wrong order. False:
 * nothing, or it failed. */
static bool carry(story *t, int from, story_end *to)
{
    static uint8_t batch[8192];
    if (!t->woken[from] || t->error)
        return false;
    size_t n = tnl_mux_pull(t->mux[from], t->link[from], batch, sizeof(batch), t->now);
    size_t at = 0, last = 0;
    t->woken[from] = n > 0;
    for (size_t next = 0; next < n;
         next += TNL_FRAME_HEADER + ((size_t)batch[next + 2] << 8 | batch[next + 3])) {
        last = next;
        if (batch[next] == TNL_FRAME_OPEN)
            at = next + TNL_FRAME_HEADER + batch[next + 3];
    }
    tnl_decoder d;
    tnl_decoder_init(&d, 65536);
    t->error = tnl_decoder_feed(&d, batch, at, on_frame, to);
    if (!t->error && last > at)
        t->error = tnl_decoder_feed(&d, batch + last, n - last, on_frame, to);
    if (!t->error)
        t->error = tnl_decoder_feed(&d, batch + at, (last > at ? last : n) - at, on_frame, to);
    tnl_decoder_free(&d);
    return n > 0;
}

static void tell(story *t, story_end *e)
{
    uint8_t bytes[BIG];
    for (size_t i = 0; i < BIG; i++)
        bytes[i] = byte_at(i);
    t->error = tnl_mux_open(t->mux[0], &t->stream[0], bytes, 100, &stream_events, &e[0]);
    int records = 0;
    size_t written[2] = {0, 0};
    for (int i = 0; i < 400 && !t->error; i++) {
        /* A record that found no memory may be tried again: it has left no trace. */
        if (records < CONTROLS)
            records += tnl_mux_control(t->mux[0], 7, bytes, 900) == 0;
        tnl_mux_event(t->mux[1], bytes, 300);
        for (int k = 0; k < 2; k++) {
            if (!t->stream[k])
                continue;
            written[k] += tnl_stream_write(t->stream[k], bytes + written[k],
                                           (BIG - written[k]) / 2 + (i > 50));
            if (written[k] == BIG)
                tnl_stream_fin(t->stream[k]);
        }
        t->accept += 100;
        if (t->stream[1])
            tnl_stream_resume(t->stream[1]);
        carry(t, 0, &e[1]);
        carry(t, 1, &e[0]);
        t->now += 20;
        for (int k = 0; k < 2; k++)
            tnl_mux_tick(t->mux[k], t->now);
    }
    if (t->error)
        return;
    assert_int_equal(t->records, CONTROLS);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(t->ends[k], t->stream[k] ? 1 : 0);
        assert_int_equal(tnl_mux_stream_count(t->mux[k]), 0);
        assert_int_equal(t->mux[k]->surplus_used, 0);
    }
}

/* Returns whether the allocation that was to fail came. */
static bool run(size_t fail_at)
{
    story t = {.now = 1000};
    story_end e[2] = {{&t, 0}, {&t, 1}};
    memory.count = 0;
    memory.fail_at = fail_at;
    for (int k = 0; k < 2 && !t.error; k++) {
        tnl_mux_config c = bench_config();
        c.server = k == 0;
        t.error = tnl_mux_new(&t.mux[k], &c, &mux_events, &e[k]);
        if (!t.error && !(t.link[k] = tnl_mux_link_add(t.mux[k], 1 << 20, false, &t.woken[k])))
            t.error = TUNNEL_E_NOMEM;
    }
    if (!t.error)
        tell(&t, e);
    bool failed = memory.count >= fail_at;
    assert_true(t.error == 0 || (failed && t.error == TUNNEL_E_NOMEM));
    for (int k = 0; k < 2; k++) {
        if (t.mux[k] && t.stream[k] && t.error)
            tnl_mux_abort(t.mux[k], TUNNEL_E_NOMEM);
        if (t.stream[k])
            tnl_stream_release(t.stream[k]);
        tnl_mux_free(t.mux[k]);
    }
    memory.fail_at = 0;
    assert_int_equal(memory.live, 0);
    return failed;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    size_t n = 1;
    while (run(n))
        n++;
    assert_true(n > 40);
    print_message("%zu allocations\n", n - 1);
}

/* A stream that lost its bytes is reset, both users learn it once, and it goes away; the session
 * lives on. */
static void test_one_stream_fails(void **state)
{
    (void)state;
    for (int release_first = 0; release_first < 2; release_first++) {
        bench *b = bench_new(NULL);
        assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
        user *u = &b->user[0];
        u->accept = 0;
        memory.count = 0;
        memory.fail_at = 1;
        assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "abc"), 0);
        memory.fail_at = 0;
        assert_int_equal(u->resets, 0);
        assert_true(tnl_mux_expiry(b->mux) <= b->now);
        out(b);
        assert_int_equal(frame_of(b, TNL_FRAME_RESET, 1)->code, -TUNNEL_E_NOMEM);
        assert_int_equal(in_ack(b, 1, 2, 0), 0);
        /* The wire is done with it before its user has been told. */
        assert_int_equal(in(b, TNL_FRAME_FIN, 1, 3, NULL), 0);
        assert_int_equal(b->retired, 1);
        if (release_first) {
            user_release(u);
        } else {
            tnl_mux_tick(b->mux, b->now);
            assert_int_equal(u->resets, 1);
            assert_int_equal(u->code, -TUNNEL_E_NOMEM);
            user_release(u);
        }
        assert_int_equal(tnl_mux_expiry(b->mux), UINT64_MAX);
        assert_int_equal(b->mux->control->all.next == &b->mux->all, 1);
        assert_int_equal(in(b, TNL_FRAME_OPEN, 3, 0, NULL), 0);
        bench_free(b);
    }
}

static void release_on_reset(user *u, moment m)
{
    if (m == ON_RESET)
        user_release(u);
}

/* Released from inside the late reset() of a retired stream: its memory goes too. */
static void test_release_inside_the_late_reset(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    b->hook = release_on_reset;
    assert_int_equal(in(b, TNL_FRAME_OPEN, 1, 0, NULL), 0);
    user *u = &b->user[0];
    u->accept = 0;
    memory.count = 0;
    memory.fail_at = 1;
    assert_int_equal(in(b, TNL_FRAME_DATA, 1, 0, "abc"), 0);
    memory.fail_at = 0;
    out(b);
    assert_int_equal(in_ack(b, 1, 2, 0), 0);
    assert_int_equal(in(b, TNL_FRAME_FIN, 1, 3, NULL), 0);
    out(b);
    size_t before = memory.live;
    tnl_mux_tick(b->mux, b->now);
    assert_int_equal(u->resets, 1);
    assert_null(u->s);
    assert_true(memory.live < before);
    bench_free(b);
}

/* The control stream cannot do without a byte. */
static void test_control_fails(void **state)
{
    (void)state;
    bench *b = bench_new(NULL);
    memory.count = 0;
    memory.fail_at = 1;
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 2, "\0\0", 2), TUNNEL_E_NOMEM);
    memory.fail_at = 0;
    bench_free(b);
    b = bench_new(NULL);
    static uint8_t body[900];
    assert_int_equal(tnl_mux_control(b->mux, 7, body, 500), 0);
    memory.count = 0;
    memory.fail_at = 1;
    assert_int_equal(tnl_mux_control(b->mux, 7, body, 900), TUNNEL_E_NOMEM);
    memory.fail_at = 0;
    out(b);
    assert_int_equal(frame_of(b, TNL_FRAME_DATA, 0)->rest_len, 504);
    bench_free(b);
}

/* A session that does nothing holds its mux, its control stream and its link; what was said takes
 * no memory any more. */
static void test_idle(void **state)
{
    (void)state;
    memory.fail_at = 0;
    size_t before = memory.bytes;
    bench *b = bench_new(NULL);
    size_t idle = memory.bytes - before;
    assert_in_range(idle, 0, 1536);
    assert_int_equal(tnl_mux_control(b->mux, 1, (const uint8_t *)"abc", 3), 0);
    tnl_mux_event(b->mux, (const uint8_t *)"event", 5);
    out(b);
    assert_int_equal(in_ack(b, 0, 7, TNL_MUX_CONTROL_WINDOW), 0);
    assert_int_equal(in_on(b, 0, TNL_FRAME_DATA, 0, 0, "\x01\0\0\003abc", 7), 0);
    b->now += TNL_MUX_ACK_DELAY_MS;
    tnl_mux_tick(b->mux, b->now);
    out(b);
    assert_int_equal(memory.bytes - before, idle);
    bench_free(b);
    assert_int_equal(memory.bytes, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_one_stream_fails),
        cmocka_unit_test(test_release_inside_the_late_reset),
        cmocka_unit_test(test_control_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
