/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/condition.h"
#include "files/date.h"
#include "files/range.h"
#include "support/check.h"
#include "support/files_rig.h"

/* Dates, conditional requests and ranges, each as RFC 9110 has them. */

static const int64_t when = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */
#define WHEN   "Sun, 06 Nov 1994 08:49:37 GMT"
#define SOONER "Sun, 06 Nov 1994 08:49:36 GMT"
#define LATER  "Sun, 06 Nov 1994 08:49:38 GMT"

static tnl_http_span span(const char *s)
{
    return (tnl_http_span){s, strlen(s)};
}

/* --- dates ------------------------------------------------------------------------------------ */

static void dates(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t t; /* -1: not a date */
    } cases[] = {
        {WHEN, 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Wed Nov 16 08:49:37 1994", 784975777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Thu, 29 Feb 2024 23:59:59 GMT", 1709251199},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
        {"Tuesday, 06-Nov-35 08:49:37 GMT", 2077951777},
        {"Wed, 29 Feb 2023 00:00:00 GMT", -1},
        {"Wed, 31 Apr 2024 00:00:00 GMT", -1},
        {"Wed, 00 Apr 2024 00:00:00 GMT", -1},
        {"Sun, 06 Nov 1994 24:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:60:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:61 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:37 UTC", -1},
        {"Sun, 06 Nov 1994 08:49:37", -1},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", -1},
        {"Sun, 06 nov 1994 08:49:37 GMT", -1},
        {"Sun, 6 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Nov 94 08:49:37 GMT", -1},
        {"06 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Nov 19 4 08:49:37 GMT", -1},
        {"Sun Nov 6 08:49:37 1994", -1},
        {"784111777", -1},
        {"S", -1},
        {"", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t n = strlen(cases[i].text);
        char *copy = malloc(n ? n : 1);
        int64_t t = -2;
        memcpy(copy, cases[i].text, n);
        bool ok = tnl_files_date_parse((tnl_http_span){copy, n}, 1800000000, &t);
        free(copy);
        if (ok != (cases[i].t >= 0) || (ok && t != cases[i].t))
            fail_msg("%s: %d %lld", cases[i].text, ok, (long long)t);
    }
    char out[TNL_FILES_DATE];
    assert_true(tnl_files_date(out, when));
    assert_string_equal(out, WHEN);
    assert_true(tnl_files_date(out, 253402300799));
    assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_false(tnl_files_date(out, 253402300800));
    assert_string_equal(out, "");
    assert_false(tnl_files_date(out, -1));
    assert_true(tnl_files_date_plain(out, when));
    assert_string_equal(out, "1994-11-06 08:49");
    int64_t t;
    for (int64_t day = 0; day < 40000; day += 17) {
        assert_true(tnl_files_date(out, day * 86400 + 4711));
        assert_true(tnl_files_date_parse(span(out), 0, &t));
        assert_int_equal(t, day * 86400 + 4711);
    }
}

/* --- conditions ------------------------------------------------------------------------------- */

/* E stands for the file's own tag. */
static const struct {
    const char *lines;
    int status;
} conditions[] = {
    {"", 200},
    {"If-None-Match: E\r\n", 304},
    {"If-None-Match: W/E\r\n", 304},
    {"If-None-Match: \"x\"\r\n", 200},
    {"If-None-Match: *\r\n", 304},
    {"If-None-Match: \"x\", E\r\n", 304},
    {"If-None-Match: \"x\" , ,\t,W/E\r\n", 304},
    {"If-None-Match: \"a,b\",E,\"c\"\r\n", 304},
    {"If-None-Match: \"x\"\r\nIf-None-Match: E\r\n", 304},
    {"If-None-Match: x, E\r\n", 200},
    {"If-None-Match: \"x\r\n", 200},
    {"If-None-Match:\r\n", 200},
    {"If-None-Match: w/E\r\n", 200},
    /* The tag decides, whatever the date says. */
    {"If-None-Match: \"x\"\r\nIf-Modified-Since: " WHEN "\r\n", 200},
    {"If-None-Match: E\r\nIf-Modified-Since: " SOONER "\r\n", 304},
    {"If-Modified-Since: " WHEN "\r\n", 304},
    {"If-Modified-Since: " LATER "\r\n", 304},
    {"If-Modified-Since: " SOONER "\r\n", 200},
    {"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 304},
    {"If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", 304},
    {"If-Modified-Since: yesterday\r\n", 200},
    {"If-Modified-Since: " WHEN "\r\nIf-Modified-Since: " WHEN "\r\n", 200},
    {"If-Match: E\r\n", 200},
    {"If-Match: *\r\n", 200},
    {"If-Match: \"x\", E\r\n", 200},
    {"If-Match: W/E\r\n", 412},
    {"If-Match: \"x\"\r\n", 412},
    {"If-Match:\r\n", 412},
    {"If-Match: E\"x\"\r\n", 200},
    {"If-Unmodified-Since: " WHEN "\r\n", 200},
    {"If-Unmodified-Since: " LATER "\r\n", 200},
    {"If-Unmodified-Since: " SOONER "\r\n", 412},
    {"If-Unmodified-Since: tomorrow\r\n", 200},
    {"If-Match: E\r\nIf-Unmodified-Since: " SOONER "\r\n", 200},
    {"If-Match: \"x\"\r\nIf-Unmodified-Since: " LATER "\r\n", 412},
    /* First the one that protects, then the one that saves. */
    {"If-Match: \"x\"\r\nIf-None-Match: E\r\n", 412},
    {"If-Match: E\r\nIf-None-Match: E\r\n", 304},
    {"If-Unmodified-Since: " SOONER "\r\nIf-None-Match: E\r\n", 412},
    {"If-Unmodified-Since: " WHEN "\r\nIf-Modified-Since: " WHEN "\r\n", 304},
    /* A condition that does not hold comes before the range. */
    {"If-None-Match: E\r\nRange: bytes=0-1\r\n", 304},
    {"If-Match: \"x\"\r\nRange: bytes=0-1\r\n", 412},
    {"If-None-Match: \"x\"\r\nRange: bytes=0-1\r\n", 206},
    {"If-Match: E\r\nRange: bytes=99-\r\n", 416},
    /* If-Range: the part if it is the same file, all of it if not. */
    {"If-Range: E\r\nRange: bytes=0-1\r\n", 206},
    {"If-Range: W/E\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: \"x\"\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: \"x\"\r\nRange: bytes=99-\r\n", 200},
    {"If-Range: E, \"x\"\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: *\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: " WHEN "\r\nRange: bytes=0-1\r\n", 206},
    {"If-Range: " LATER "\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: " SOONER "\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: soon\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: E\r\nIf-Range: E\r\nRange: bytes=0-1\r\n", 200},
    {"If-Range: E\r\n", 200},
    {"Range: bytes=0-1\r\nRange: bytes=0-1\r\n", 200},
};

static void with_tag(char *out, size_t size, const char *lines, const char *tag)
{
    size_t n = 0;
    out[0] = '\0';
    for (; *lines && n + 1 < size; lines++) {
        bool is_tag = *lines == 'E' && (lines[1] == '\r' || lines[1] == ',' || lines[1] == '"');
        n += (size_t)snprintf(out + n, size - n, "%.*s", is_tag ? 48 : 1, is_tag ? tag : lines);
    }
    assert_true(n + 1 < size);
}

static void conditional(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    char tag[64], lines[512];
    files_rig_open(&r);
    files_rig_put(&r, "a.txt", "hello");
    files_rig_touch(&r, "a.txt", when);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/a.txt", ""), 200);
    snprintf(tag, sizeof(tag), "%s", files_field(&g, "ETag"));
    for (size_t i = 0; i < sizeof(conditions) / sizeof(*conditions); i++) {
        int expected = conditions[i].status;
        with_tag(lines, sizeof(lines), conditions[i].lines, tag);
        int status = files_ask(&g, "GET", "/a.txt", lines);
        if (status != expected)
            fail_msg("%d, not %d:\n%s", status, expected, lines);
        assert_true(status != 200 || files_body_is(&g, "hello"));
        assert_true(status != 206 || files_body_is(&g, "he"));
        if (status == 304) {
            assert_string_equal(files_field(&g, "ETag"), tag);
            assert_string_equal(files_field(&g, "Last-Modified"), WHEN);
            assert_string_equal(files_field(&g, "Cache-Control"), "no-cache");
            assert_string_equal(files_field(&g, "Content-Type"), "");
            assert_true(*files_field(&g, "Date"));
        }
        /* HEAD is the same without ranges. */
        status = files_ask(&g, "HEAD", "/a.txt", lines);
        assert_int_equal(status, expected == 206 || expected == 416 ? 200 : expected);
    }
    /* What is not there has no state, and a listing has no tag. */
    assert_int_equal(files_ask(&g, "GET", "/nothing", "If-Match: *\r\n"), 404);
    assert_int_equal(files_ask(&g, "GET", "/nothing", "If-None-Match: *\r\n"), 404);
    assert_int_equal(files_ask(&g, "GET", "/", "If-Match: \"x\"\r\n"), 412);
    assert_int_equal(files_ask(&g, "GET", "/", "If-Modified-Since: " WHEN "\r\n"), 200);
    assert_int_equal(files_ask(&g, "GET", "/", "If-None-Match: \"x\"\r\n"), 200);
    assert_string_equal(files_field(&g, "ETag"), "");
    files_guest_close(&g);
    files_rig_close(&r);
}

/* A date says nothing about a file that may have changed twice within its second. */
static void fresh_dates(void **state)
{
    (void)state;
    tnl_files_state s = tnl_files_state_of(1, 2, when, 3);
    tnl_http_field field = {span("If-Range"), span(WHEN)};
    tnl_http_head h = {.fields = &field, .field_count = 1};
    assert_false(tnl_files_if_range(&h, &s, when));
    assert_false(tnl_files_if_range(&h, &s, when + 1));
    assert_true(tnl_files_if_range(&h, &s, when + 2));
}

static void tags(void **state)
{
    (void)state;
    const tnl_files_state s = tnl_files_state_of(1, 2, 3, 4);
    const tnl_files_state others[] = {
        tnl_files_state_of(2, 2, 3, 4),
        tnl_files_state_of(1, 3, 3, 4),
        tnl_files_state_of(1, 2, 4, 4),
        tnl_files_state_of(1, 2, 3, 5),
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        assert_string_not_equal(s.etag, others[i].etag);
    assert_string_equal(s.etag, tnl_files_state_of(1, 2, 3, 4).etag);
    tnl_files_state widest = tnl_files_state_of(UINT64_MAX, UINT64_MAX, INT64_MAX, 999999999);
    assert_int_equal(widest.etag[strlen(widest.etag) - 1], '"');
}

/* --- ranges ----------------------------------------------------------------------------------- */

/* Of "0123456789": what comes, as "first+length" with blanks between. */
static const struct {
    const char *value;
    const char *parts; /* "-": nothing of it is there; "": the field does not count */
} ranges[] = {
    {"bytes=0-0", "0+1"},
    {"bytes=0-9", "0+10"},
    {"bytes=0-", "0+10"},
    {"bytes=9-", "9+1"},
    {"bytes=3-5", "3+3"},
    {"bytes=3-99", "3+7"},
    {"bytes=3-99999999999999999999999", "3+7"},
    {"bytes=-1", "9+1"},
    {"bytes=-10", "0+10"},
    {"bytes=-11", "0+10"},
    {"bytes=-99999999999999999999999", "0+10"},
    {"BYTES=1-2", "1+2"},
    {"bytes= 1-2 ", "1+2"},
    {"bytes=1-2,", "1+2"},
    {"bytes=,,1-2", "1+2"},
    {"bytes=0-1,4-5", "0+2 4+2"},
    {"bytes=0-1 ,\t4-5", "0+2 4+2"},
    {"bytes=8-9,0-1", "8+2 0+2"},
    {"bytes=-1,0-0", "9+1 0+1"},
    {"bytes=0-1,10-20", "0+2"},
    {"bytes=10-20,0-1", "0+2"},
    {"bytes=0-1,-0", "0+2"},
    /* What overlaps or touches becomes one, where the first of them was. */
    {"bytes=0-4,4-5", "0+6"},
    {"bytes=0-4,5-5", "0+6"},
    {"bytes=4-5,0-4", "0+6"},
    {"bytes=0-0,2-2,1-1", "0+3"},
    {"bytes=6-7,0-0,2-2,1-1", "6+2 0+3"},
    {"bytes=0-0,9-9,0-", "0+10"},
    {"bytes=0-,0-,0-", "0+10"},
    {"bytes=2-3,8-9,3-4", "2+3 8+2"},
    {"bytes=8-9,2-3,3-4", "8+2 2+3"},
    {"bytes=0-0,2-2,4-4,6-6,8-8", "0+1 2+1 4+1 6+1 8+1"},
    {"bytes=0-0,2-2,4-4,6-6,8-8,1-7", "0+9"},
    {"bytes=10-", "-"},
    {"bytes=10-10", "-"},
    {"bytes=99999999999999999999999-", "-"},
    {"bytes=18446744073709551615-", "-"},
    {"bytes=18446744073709551615-18446744073709551615", "-"},
    {"bytes=-0", "-"},
    {"bytes=10-11,12-13", "-"},
    {"", ""},
    {"bytes", ""},
    {"bytes=", ""},
    {"bytes=,", ""},
    {"bytes=-", ""},
    {"bytes=1", ""},
    {"bytes=2-1", ""},
    {"bytes=0-1,2-1", ""},
    {"bytes=a-b", ""},
    {"bytes=1-b", ""},
    {"bytes=0x1-2", ""},
    {"bytes=+1-2", ""},
    {"bytes=--1", ""},
    {"bytes=1--2", ""},
    {"bytes=1-2-3", ""},
    {"bytes=1 - 2", ""},
    {"bytes =1-2", ""},
    {"bytes=1-2;3-4", ""},
    {"lines=1-2", ""},
    {"bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", "0+1"},
    {"bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", ""},
};

static void range_matrix(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        tnl_files_range out[TNL_FILES_RANGES];
        char text[512] = "";
        size_t size = strlen(ranges[i].value);
        char *copy = malloc(size ? size : 1);
        memcpy(copy, ranges[i].value, size);
        int n = tnl_files_ranges((tnl_http_span){copy, size}, 10, out);
        free(copy);
        for (int k = 0; k < n; k++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%llu+%llu", k ? " " : "",
                     (unsigned long long)out[k].first, (unsigned long long)out[k].length);
        if (strcmp(n < 0 ? "-" : text, ranges[i].parts) != 0)
            fail_msg("%s: %s", ranges[i].value, n < 0 ? "-" : text);
    }
    tnl_files_range out[TNL_FILES_RANGES];
    assert_int_equal(tnl_files_ranges(span("bytes=0-"), 0, out), -1);
    assert_int_equal(tnl_files_ranges(span("bytes=-5"), 0, out), 0);
    assert_int_equal(tnl_files_ranges(span("bytes=0-,-5"), UINT64_MAX, out), 1);
    assert_true(out[0].first == 0 && out[0].length == UINT64_MAX);
}

/* Any parts give disjoint ranges that cover what was asked for, and nothing else. */
static void ranges_at_random(void **state)
{
    (void)state;
    unsigned seed = 1;
    for (unsigned round = 0; round < 20000; round++) {
        char text[512];
        bool asked[40] = {false};
        unsigned covered[40] = {0};
        int at = snprintf(text, sizeof(text), "bytes=");
        unsigned count = 1 + (seed = seed * 1103515245 + 12345) / 65536 % 16;
        for (unsigned i = 0; i < count; i++) {
            unsigned a = (seed = seed * 1103515245 + 12345) / 65536 % 40;
            unsigned b = a + (seed = seed * 1103515245 + 12345) / 65536 % 6;
            at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%u-%u", i ? "," : "", a, b);
            for (unsigned k = a; k <= b && k < 40; k++)
                asked[k] = true;
        }
        tnl_files_range out[TNL_FILES_RANGES];
        int n = tnl_files_ranges(span(text), 40, out);
        assert_true(n > 0 && n <= (int)count);
        for (int i = 0; i < n; i++) {
            assert_true(out[i].length > 0 && out[i].first + out[i].length <= 40);
            for (uint64_t k = 0; k < out[i].length; k++)
                covered[out[i].first + k]++;
            /* Nor do they touch. */
            for (int k = 0; k < i; k++)
                assert_true(out[i].first + out[i].length < out[k].first ||
                            out[k].first + out[k].length < out[i].first);
        }
        for (unsigned k = 0; k < 40; k++)
            assert_int_equal(covered[k], asked[k]);
    }
}

static void parts(void **state)
{
    (void)state;
    files_rig r;
    files_guest g;
    char expected[1024], boundary[64];
    files_rig_open(&r);
    files_rig_put(&r, "a.txt", "0123456789");
    files_rig_put(&r, "empty", "");
    files_guest_open(&g, &r);

    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=2-4\r\n"), 206);
    assert_true(files_body_is(&g, "234"));
    assert_string_equal(files_field(&g, "Content-Range"), "bytes 2-4/10");
    assert_string_equal(files_field(&g, "Content-Type"), "text/plain; charset=utf-8");
    assert_string_equal(files_field(&g, "Accept-Ranges"), "bytes");
    assert_true(*files_field(&g, "ETag") && *files_field(&g, "Last-Modified"));
    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=-3\r\n"), 206);
    assert_true(files_body_is(&g, "789"));
    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=0-2,3-4\r\n"), 206);
    assert_true(files_body_is(&g, "01234"));

    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=8-9,0-1\r\n"), 206);
    assert_string_equal(files_field(&g, "Content-Range"), "");
    const char *type = files_field(&g, "Content-Type");
    static const char multipart[] = "multipart/byteranges; boundary=";
    assert_int_equal(strncmp(type, multipart, strlen(multipart)), 0);
    snprintf(boundary, sizeof(boundary), "%s", type + strlen(multipart));
    assert_int_equal(strlen(boundary), 32);
    snprintf(
        expected, sizeof(expected),
        "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 8-9/10\r\n\r\n"
        "89\r\n--%s\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Range: bytes 0-1/10\r\n\r\n01\r\n--%s--\r\n",
        boundary, boundary, boundary);
    assert_true(files_body_is(&g, expected));
    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=8-9,0-1\r\n"), 206);
    assert_string_not_equal(strstr(files_field(&g, "Content-Type"), "=") + 1, boundary);

    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: bytes=10-\r\n"), 416);
    assert_string_equal(files_field(&g, "Content-Range"), "bytes */10");
    assert_true(files_body_has(&g, "the 10 bytes of this file"));
    assert_int_equal(files_ask(&g, "GET", "/empty", "Range: bytes=0-\r\n"), 416);
    assert_string_equal(files_field(&g, "Content-Range"), "bytes */0");
    assert_int_equal(files_ask(&g, "GET", "/empty", "Range: bytes=-1\r\n"), 200);
    assert_int_equal(files_ask(&g, "GET", "/a.txt", "Range: lines=1-2\r\n"), 200);
    assert_string_equal(files_field(&g, "Content-Range"), "");
    assert_int_equal(files_ask(&g, "GET", "/", "Range: bytes=0-1\r\n"), 200);
    files_guest_close(&g);
    files_rig_close(&r);
}

/* Parts that are longer than a piece. */
static void large_parts(void **state)
{
    (void)state;
    enum { SIZE = 1000 * 1000 };
    files_rig r;
    files_guest g;
    files_rig_open(&r);
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(bytes);
    test_fill(bytes, SIZE, 0);
    files_rig_put_bytes(&r, "a.bin", bytes, SIZE);
    files_guest_open(&g, &r);
    assert_int_equal(files_ask(&g, "GET", "/a.bin", "Range: bytes=600000-899999,1-300000\r\n"),
                     206);
    const uint8_t *first = memmem(g.reply.body, g.reply.n, "\r\n\r\n", 4);
    assert_non_null(first);
    assert_memory_equal(first + 4, bytes + 600000, 300000);
    const uint8_t *rest = first + 4 + 300000;
    const uint8_t *second = memmem(rest, g.reply.n - (size_t)(rest - g.reply.body), "\r\n\r\n", 4);
    assert_non_null(second);
    assert_memory_equal(second + 4, bytes + 1, 300000);
    assert_int_equal(second + 4 + 300000 + strlen("\r\n--") + 32 + strlen("--\r\n") - g.reply.body,
                     g.reply.n);
    free(bytes);
    files_guest_close(&g);
    files_rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates), cmocka_unit_test(conditional),  cmocka_unit_test(fresh_dates),
        cmocka_unit_test(tags),  cmocka_unit_test(range_matrix), cmocka_unit_test(ranges_at_random),
        cmocka_unit_test(parts), cmocka_unit_test(large_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
