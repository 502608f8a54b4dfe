/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "transport/cutter.h"

enum { MAX = 1000 };

typedef struct seen {
    uint8_t payload[8192];
    size_t payload_n;
    uint8_t passed[8192];
    size_t passed_n;
    bool ready;
} seen;

static bool is_ready(void *user)
{
    return ((seen *)user)->ready;
}

static bool on_payload(void *user, const uint8_t *p, size_t n)
{
    seen *s = user;
    memcpy(s->payload + s->payload_n, p, n);
    s->payload_n += n;
    return true;
}

static bool on_pass(void *user, const uint8_t *p, size_t n)
{
    seen *s = user;
    memcpy(s->passed + s->passed_n, p, n);
    s->passed_n += n;
    return true;
}

static const tnl_cutter_events events = {.ready = is_ready, .payload = on_payload, .pass = on_pass};

/* A frame of n bytes 'fill'; returns its length. */
static size_t frame(uint8_t *out, uint8_t first, bool masked, size_t n, uint8_t fill)
{
    size_t at = 0;
    out[at++] = first;
    uint8_t mask = masked ? 0x80 : 0;
    if (n < 126) {
        out[at++] = (uint8_t)(mask | n);
    } else {
        out[at++] = (uint8_t)(mask | 126);
        out[at++] = (uint8_t)(n >> 8);
        out[at++] = (uint8_t)n;
    }
    for (int i = 0; masked && i < 4; i++)
        out[at++] = 0;
    memset(out + at, fill, n);
    return at + n;
}

/* Feeds whole, and cut at every byte: expects the same of both. */
static void expect(const uint8_t *p, size_t n, const char *payload, size_t passed_n, bool ready)
{
    for (size_t cut = 0; cut <= n; cut++) {
        tnl_cutter c = {.left = 0};
        seen s = {.ready = ready};
        assert_true(tnl_cutter_feed(&c, p, cut, MAX, &events, &s));
        assert_true(tnl_cutter_feed(&c, p + cut, n - cut, MAX, &events, &s));
        assert_int_equal(s.payload_n, strlen(payload));
        assert_memory_equal(s.payload, payload, s.payload_n);
        assert_int_equal(s.passed_n, passed_n);
    }
}

static void plain_frames_are_cut_out(void **state)
{
    uint8_t b[4096];
    (void)state;
    size_t n = frame(b, 0x82, false, 3, 'a');
    n += frame(b + n, 0x82, false, 0, 'x');
    n += frame(b + n, 0x82, false, 2, 'b');
    expect(b, n, "aaabb", 0, true);
}

static void pings_pass_and_change_nothing(void **state)
{
    uint8_t b[4096];
    (void)state;
    size_t n = frame(b, 0x82, false, 1, 'a');
    size_t ping = frame(b + n, 0x89, false, 4, 'p');
    n += ping;
    size_t pong = frame(b + n, 0x8a, false, 0, 'p');
    n += pong;
    n += frame(b + n, 0x82, false, 1, 'b');
    expect(b, n, "ab", ping + pong, true);
}

static void from_the_first_other_frame_on_all_passes(void **state)
{
    static const struct {
        uint8_t first;
        bool masked;
        size_t n;
    } others[] = {
        {0x02, false, 3},                           /* a fragment */
        {0x80, false, 3},                           /* a continuation */
        {0x81, false, 3},                           /* text */
        {0xc2, false, 3},                           /* a reserved bit */
        {0x82, true, 3},                            /* masked */
        {0x82, false, MAX + 1}, {0x88, false, 2},   /* close */
        {0x09, false, 1},                           /* a ping in pieces */
        {0x89, true, 1},        {0x89, false, 126}, /* a ping that is too long */
        {0x83, false, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        uint8_t b[4096];
        size_t before = frame(b, 0x82, false, 1, 'a');
        size_t n = before + frame(b + before, others[i].first, others[i].masked, others[i].n, 'o');
        n += frame(b + n, 0x82, false, 5, 'b');
        expect(b, n, "a", n - before, true);
    }
}

static void nothing_is_cut_out_before_it_is_wanted(void **state)
{
    uint8_t b[64];
    (void)state;
    size_t n = frame(b, 0x82, false, 3, 'a');
    expect(b, n, "", n, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frames_are_cut_out),
        cmocka_unit_test(pings_pass_and_change_nothing),
        cmocka_unit_test(from_the_first_other_frame_on_all_passes),
        cmocka_unit_test(nothing_is_cut_out_before_it_is_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
