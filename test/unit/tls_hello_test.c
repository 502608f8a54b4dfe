/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/hello.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support/check.h"

enum { MAX = 128 * 1024 };

/* --- making hellos ---------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t p[MAX];
    size_t n;
} bytes;

static void add(bytes *b, const void *p, size_t n)
{
    assert_true(b->n + n <= MAX);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void add_uint(bytes *b, size_t value, size_t size)
{
    while (size--)
        add(b, &(uint8_t){(uint8_t)(value >> 8 * size)}, 1);
}

static void add_vector(bytes *b, size_t size, const void *p, size_t n)
{
    add_uint(b, n, size);
    add(b, p, n);
}

static void add_extension(bytes *b, unsigned type, const void *p, size_t n)
{
    add_uint(b, type, 2);
    add_vector(b, 2, p, n);
}

static void add_name(bytes *list, unsigned type, const void *name, size_t n)
{
    add_uint(list, type, 1);
    add_vector(list, 2, name, n);
}

/* A server_name extension with one host name. */
static void add_server_name(bytes *b, const void *name, size_t n)
{
    static bytes list, data;
    list.n = data.n = 0;
    add_name(&list, 0, name, n);
    add_vector(&data, 2, list.p, list.n);
    add_extension(b, 0, data.p, data.n);
}

/* The message, its head included. extensions NULL: without any, as TLS 1.0 may have it. */
static void make_message(bytes *m, const bytes *extensions)
{
    static bytes body;
    static const uint8_t random[32] = {7}, session[32] = {9};
    body.n = m->n = 0;
    add_uint(&body, 0x0303, 2);
    add(&body, random, sizeof(random));
    add_vector(&body, 1, session, sizeof(session));
    add_vector(&body, 2, "\x0a\x0a\x13\x01\x13\x02\xc0\x2b", 8);
    add_vector(&body, 1, "\0", 1);
    if (extensions)
        add_vector(&body, 2, extensions->p, extensions->n);
    add_uint(m, 1, 1);
    add_vector(m, 3, body.p, body.n);
}

/* In records of at most `piece` bytes. */
static void make_records(bytes *out, const bytes *message, size_t piece)
{
    out->n = 0;
    for (size_t at = 0; at < message->n; at += piece) {
        add_uint(out, 0x160301, 3);
        add_vector(out, 2, message->p + at, message->n - at < piece ? message->n - at : piece);
    }
}

static void make(bytes *out, const bytes *extensions)
{
    static bytes message;
    make_message(&message, extensions);
    make_records(out, &message, 16384);
}

static void make_named(bytes *out, const char *name)
{
    static bytes extensions;
    extensions.n = 0;
    add_extension(&extensions, 0x2a2a, "", 0); /* GREASE */
    add_server_name(&extensions, name, strlen(name));
    add_extension(&extensions, 0xfe0d, "unknown", 7);
    make(out, &extensions);
}

/* --- looking at them -------------------------------------------------------------------------- */

/* In pieces of `step`, each from memory of exactly its size. */
static tnl_tls_hello_state look(tnl_tls_hello *h, const uint8_t *p, size_t n, size_t step)
{
    tnl_tls_hello_state state = TNL_TLS_HELLO_MORE;
    *h = (tnl_tls_hello){.alert = 0};
    for (size_t at = 0; at < n && state == TNL_TLS_HELLO_MORE;) {
        at += n - at < step ? n - at : step;
        uint8_t *copy = malloc(at);
        assert_non_null(copy);
        memcpy(copy, p, at);
        state = tnl_tls_hello_look(h, copy, at);
        free(copy);
    }
    return state;
}

/* However it is cut into segments. */
static void is_named(const bytes *b, const char *name)
{
    static const size_t steps[] = {MAX, 1, 2, 5, 6, 100};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        tnl_tls_hello h;
        assert_int_equal(look(&h, b->p, b->n, steps[i]), TNL_TLS_HELLO_DONE);
        assert_string_equal(h.name, name);
    }
}

static void is_refused(const bytes *b, tnl_tls_hello_state state, unsigned alert)
{
    static const size_t steps[] = {MAX, 1, 7};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        tnl_tls_hello h;
        assert_int_equal(look(&h, b->p, b->n, steps[i]), state);
        assert_int_equal(h.alert, alert);
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

static void hellos_of_real_clients(void **state)
{
    (void)state;
    static bytes whole, message, cut;
    unsigned seen = 0;
    DIR *dir = opendir("fuzz/corpus/hello");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        char path[512];
        const char *name = strncmp(e->d_name, "real-", 5) == 0         ? "captured.example.test"
                           : strncmp(e->d_name, "no-name-", 8) == 0    ? ""
                           : strncmp(e->d_name, "localhost-", 10) == 0 ? "localhost"
                                                                       : NULL;
        if (!name)
            continue;
        snprintf(path, sizeof(path), "fuzz/corpus/hello/%s", e->d_name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        assert_int_equal(fgetc(f), 0xff);
        whole.n = fread(whole.p, 1, MAX, f);
        fclose(f);
        is_named(&whole, name);
        /* Cut into records as well, and with something behind. */
        message.n = 0;
        add(&message, whole.p + 5, whole.n - 5);
        for (size_t piece = 1; piece < message.n; piece = piece * 2 + 1) {
            make_records(&cut, &message, piece);
            is_named(&cut, name);
            add(&cut,
                "\x17\x03\x03\0\x05"
                "early",
                10);
            is_named(&cut, name);
        }
        /* Every beginning of it wants more. */
        for (size_t n = 1; n < whole.n; n++) {
            tnl_tls_hello h;
            assert_int_equal(look(&h, whole.p, n, MAX), TNL_TLS_HELLO_MORE);
        }
        seen++;
    }
    closedir(dir);
    assert_true(seen >= 10);
}

static void names(void **state)
{
    (void)state;
    static const char label63[] = "a23456789012345678901234567890123456789012345678901234567890123";
    static const struct {
        const char *sent, *name;
    } good[] = {
        {"example.com", "example.com"},
        {"DEMO.Example.COM", "demo.example.com"},
        {"demo.example.com.", "demo.example.com"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"a_b.example", "a_b.example"},
        {"localhost", "localhost"},
        {"p8080.demo.example.com", "p8080.demo.example.com"},
        {"127.0.0.1", ""},
        {"::1", ""},
        {"1.2.3", "1.2.3"},
        {label63, label63},
    };
    static const char *const wrong[] = {
        ".",
        "a..b",
        ".a",
        "a b",
        "a/b",
        "a:443",
        "*.example.com",
        "m\xc3\xbcnchen.example",
        "a..",
        "a\r\nb",
        "[::1]",
        "a23456789012345678901234567890123456789012345678901234567890123x",
    };
    static bytes b, extensions;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        make_named(&b, good[i].sent);
        is_named(&b, good[i].name);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        make_named(&b, wrong[i]);
        is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNRECOGNIZED_NAME);
    }
    /* A NUL in the middle hides nothing. */
    extensions.n = 0;
    add_server_name(&extensions, "good.example\0.evil", 18);
    make(&b, &extensions);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNRECOGNIZED_NAME);
    extensions.n = 0;
    add_server_name(&extensions, "127.0.0.1\0x", 11);
    make(&b, &extensions);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNRECOGNIZED_NAME);
}

static void the_longest_name(void **state)
{
    (void)state;
    static bytes b;
    char name[300];
    for (size_t n = 250; n < 260; n++) {
        for (size_t i = 0; i < n; i++)
            name[i] = i % 50 == 49 ? '.' : 'a';
        name[n - 1] = 'z';
        name[n] = '\0';
        make_named(&b, name);
        if (n <= 253)
            is_named(&b, name);
        else
            is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNRECOGNIZED_NAME);
    }
}

static void without_a_name(void **state)
{
    (void)state;
    static bytes b, extensions;
    make(&b, NULL);
    is_named(&b, "");
    extensions.n = 0;
    make(&b, &extensions);
    is_named(&b, "");
    add_extension(&extensions, 43, "\x02\x03\x04", 3);
    make(&b, &extensions);
    is_named(&b, "");
}

static void several_names(void **state)
{
    (void)state;
    static bytes b, extensions, list, data;
    /* Two extensions. */
    extensions.n = 0;
    add_server_name(&extensions, "a.example", 9);
    add_server_name(&extensions, "a.example", 9);
    make(&b, &extensions);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER);
    /* Two host names in one. */
    static const unsigned types[] = {0, 5};
    for (int i = 0; i < 2; i++) {
        extensions.n = list.n = data.n = 0;
        add_name(&list, types[i], "b.example", 9);
        add_name(&list, 0, "a.example", 9);
        add_vector(&data, 2, list.p, list.n);
        add_extension(&extensions, 0, data.p, data.n);
        make(&b, &extensions);
        if (i == 0)
            is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER);
        else
            is_named(&b, "a.example"); /* other types are left aside, RFC 6066 section 3 */
    }
}

/* Every length that is inside of the message, off by one and at its ends. */
static void wrong_lengths(void **state)
{
    (void)state;
    static bytes message, b, changed;
    static bytes extensions;
    extensions.n = 0;
    add_server_name(&extensions, "demo.example", 12);
    make_message(&message, &extensions);
    enum {
        SESSION = 4 + 2 + 32,
        SUITES = SESSION + 33,
        COMPRESSION = SUITES + 10,
        EXTENSIONS = COMPRESSION + 2,
        EXTENSION = EXTENSIONS + 4,
        LIST = EXTENSION + 2,
        NAME = LIST + 3
    };
    static const struct {
        size_t at, size;
    } lengths[] = {{SESSION, 1},   {SUITES, 2}, {COMPRESSION, 1}, {EXTENSIONS, 2},
                   {EXTENSION, 2}, {LIST, 2},   {NAME, 2}};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t at = lengths[i].at, size = lengths[i].size, value = 0;
        for (size_t k = 0; k < size; k++)
            value = value << 8 | message.p[at + k];
        size_t top = size == 1 ? 0xff : 0xffff;
        const size_t values[] = {value - 1, value + 1, top, 0};
        for (size_t k = 0; k < 4; k++) {
            bool fine = i == 0 && k == 3; /* no session id: what follows is read differently */
            changed = message;
            changed.n = at;
            add_uint(&changed, values[k] & top, size);
            changed.n = message.n;
            make_records(&b, &changed, 16384);
            tnl_tls_hello h;
            tnl_tls_hello_state got = look(&h, b.p, b.n, MAX);
            if (!fine)
                assert_int_equal(got, TNL_TLS_HELLO_BAD);
        }
    }
    /* The length of the whole. */
    changed = message;
    changed.p[3]--;
    make_records(&b, &changed, 16384);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNEXPECTED_MESSAGE);
    changed.p[3] = (uint8_t)(message.p[3] + 1);
    make_records(&b, &changed, 16384);
    is_refused(&b, TNL_TLS_HELLO_MORE, 0);
    add_uint(&changed, 0, 1);
    make_records(&b, &changed, 16384);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_DECODE_ERROR);
}

static void wrong_records(void **state)
{
    (void)state;
    static bytes b, good;
    make_named(&good, "demo.example");
    static const struct {
        size_t at;
        uint8_t value;
        tnl_tls_hello_state state;
        unsigned alert;
    } cases[] = {
        {0, 21, TNL_TLS_HELLO_OTHER, 0}, /* an alert */
        {0, 23, TNL_TLS_HELLO_OTHER, 0},
        {0, 'G', TNL_TLS_HELLO_OTHER, 0},
        {1, 2, TNL_TLS_HELLO_OTHER, 0},
        {1, 4, TNL_TLS_HELLO_OTHER, 0},
        {3, 0xff, TNL_TLS_HELLO_BAD, TNL_ALERT_RECORD_OVERFLOW},
        {5, 2, TNL_TLS_HELLO_BAD, TNL_ALERT_UNEXPECTED_MESSAGE},
        {6, 1, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER},
        {9, 2, TNL_TLS_HELLO_BAD, TNL_ALERT_PROTOCOL_VERSION},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        b = good;
        b.p[cases[i].at] = cases[i].value;
        is_refused(&b, cases[i].state, cases[i].alert);
    }
    b.n = 0;
    add(&b, "\x16\x03\x01\0\0", 5);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_DECODE_ERROR);
    /* An SSL 2 hello that offers more. */
    b.n = 0;
    add(&b, "\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", 11);
    is_refused(&b, TNL_TLS_HELLO_OTHER, 0);
    /* Something else between two records of the message. */
    static bytes message, extensions;
    extensions.n = 0;
    add_server_name(&extensions, "demo.example", 12);
    make_message(&message, &extensions);
    make_records(&b, &message, 50);
    b.p[55] = 23;
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_UNEXPECTED_MESSAGE);
    b.p[55] = 22;
    b.p[56] = 2;
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_PROTOCOL_VERSION);
    b.p[56] = 3;
    is_named(&b, "demo.example");
}

static void big_ones(void **state)
{
    (void)state;
    static bytes message, extensions, b;
    static const uint8_t zeros[16384];
    /* As large as it may be, and one more. */
    extensions.n = 0;
    add_extension(&extensions, 21, zeros, 16000);
    add_server_name(&extensions, "demo.example", 12);
    make_message(&message, &extensions);
    size_t rest = TNL_TLS_HELLO_MAX_MESSAGE - message.n - 4;
    add_extension(&extensions, 0xaaaa, zeros, rest);
    make_message(&message, &extensions);
    assert_int_equal(message.n, TNL_TLS_HELLO_MAX_MESSAGE);
    make_records(&b, &message, 16384);
    is_named(&b, "demo.example");
    make_records(&b, &message, 6);
    is_named(&b, "demo.example");
    /* In so many records that their heads are more than the message. */
    make_records(&b, &message, 1);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER);
    b.n = TNL_TLS_HELLO_MAX - 1;
    is_refused(&b, TNL_TLS_HELLO_MORE, 0);
    b.n = TNL_TLS_HELLO_MAX;
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER);
    extensions.n -= rest + 4;
    add_extension(&extensions, 0xaaaa, zeros, rest + 1);
    make_message(&message, &extensions);
    make_records(&b, &message, 16384);
    is_refused(&b, TNL_TLS_HELLO_BAD, TNL_ALERT_ILLEGAL_PARAMETER);
}

static void an_alert_is_a_record(void **state)
{
    (void)state;
    uint8_t out[TNL_TLS_HELLO_ALERT];
    tnl_tls_hello_write_alert(out, TNL_ALERT_UNRECOGNIZED_NAME);
    assert_memory_equal(out, "\x15\x03\x01\0\x02\x02\x70", sizeof(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hellos_of_real_clients), cmocka_unit_test(names),
        cmocka_unit_test(the_longest_name),       cmocka_unit_test(without_a_name),
        cmocka_unit_test(several_names),          cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(wrong_records),          cmocka_unit_test(big_ones),
        cmocka_unit_test(an_alert_is_a_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
