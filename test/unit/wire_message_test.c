/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/vectors.h"
#include "tunnel/error.h"
#include "wire/text.h"

/* --- what members the messages have, for comparing them with what the vectors say ------------- */

typedef enum kind { NUMBER, FLAG, BYTES, TEXT } kind;

typedef struct row {
    const char *message;
    const char *key;
    kind kind;
    size_t offset;
    size_t size;
} row;

#define ROW(message, member, kind)                                                                 \
    {                                                                                              \
#message, "." #member, (kind), offsetof(tnl_##message, member),                            \
            sizeof(((tnl_##message *)0)->member)                                                   \
    }
#define LIMITS(message)                                                                            \
    ROW(message, limits.max_frame, NUMBER), ROW(message, limits.max_streams, NUMBER),              \
        ROW(message, limits.window, NUMBER)

static const row rows[] = {
    ROW(hello, version_min, NUMBER),
    ROW(hello, version_max, NUMBER),
    ROW(hello, instance, BYTES),
    ROW(hello, force, FLAG),
    ROW(hello, agent, TEXT),
    LIMITS(hello),
    ROW(welcome, version, NUMBER),
    ROW(welcome, session, BYTES),
    ROW(welcome, secret, BYTES),
    ROW(welcome, generation, NUMBER),
    ROW(welcome, grace_ms, NUMBER),
    ROW(welcome, agent, TEXT),
    LIMITS(welcome),
    ROW(attach, session, BYTES),
    ROW(attach, generation, NUMBER),
    ROW(attach, link, NUMBER),
    ROW(attach, nonce, BYTES),
    ROW(attach, mac, BYTES),
    ROW(attached, mac, BYTES),
    ROW(open, tunnel, NUMBER),
    ROW(open, visitor, TEXT),
    ROW(open, port, NUMBER),
    ROW(open, server, TEXT),
    ROW(open, server_port, NUMBER),
    ROW(open, target, NUMBER),
    ROW(event, event, TEXT),
    ROW(event, tunnel, NUMBER),
    ROW(event, method, TEXT),
    ROW(event, path, TEXT),
    ROW(event, status, NUMBER),
    ROW(event, duration_us, NUMBER),
    ROW(event, received, NUMBER),
    ROW(event, sent, NUMBER),
    ROW(event, visitor, TEXT),
    ROW(publish, tunnel, NUMBER),
    ROW(publish, kind, TEXT),
    ROW(publish, name, TEXT),
    ROW(publish, domain, TEXT),
    ROW(publish, path_id, TEXT),
    ROW(publish, port, NUMBER),
    ROW(publish, ports, FLAG),
    ROW(publish, fresh, FLAG),
    ROW(publish, idle_ms, NUMBER),
    ROW(publish, host_header, TEXT),
    ROW(publish, credential, TEXT),
    ROW(publish, pool, TEXT),
    ROW(published, tunnel, NUMBER),
    ROW(published, name, TEXT),
    ROW(published, url, TEXT),
    ROW(published, port, NUMBER),
    ROW(publish_failed, tunnel, NUMBER),
    ROW(publish_failed, code, NUMBER),
    ROW(publish_failed, message, TEXT),
    ROW(unpublish, tunnel, NUMBER),
    ROW(goaway, final, FLAG),
    ROW(goaway, last, NUMBER),
    ROW(goaway, message, TEXT),
    ROW(reauth, token, TEXT),
    ROW(reauth_result, code, NUMBER),
    ROW(reauth_result, message, TEXT),
};

typedef union any {
#define MEMBER(name) tnl_##name name;
    TNL_MESSAGE_MAP(MEMBER)
#undef MEMBER
    uint8_t bytes[1];
} any;

typedef struct codec {
    const char *name;
    size_t size;
    size_t (*encode)(uint8_t *out, size_t cap, const any *m);
    int (*decode)(any *m, const uint8_t *p, size_t n);
} codec;

#define WRAP(name)                                                                                 \
    static size_t name##_encode(uint8_t *out, size_t cap, const any *m)                            \
    {                                                                                              \
        return tnl_##name##_encode(out, cap, &m->name);                                            \
    }                                                                                              \
    static int name##_decode(any *m, const uint8_t *p, size_t n)                                   \
    {                                                                                              \
        return tnl_##name##_decode(&m->name, p, n);                                                \
    }
TNL_MESSAGE_MAP(WRAP)

static const codec codecs[] = {
#define CODEC(name) {#name, sizeof(tnl_##name), name##_encode, name##_decode},
    TNL_MESSAGE_MAP(CODEC)};

static const struct {
    const char *message;
    uint8_t type;
} controls[] = {
    {"publish", TNL_CONTROL_PUBLISH},
    {"published", TNL_CONTROL_PUBLISHED},
    {"unpublish", TNL_CONTROL_UNPUBLISH},
    {"publish_failed", TNL_CONTROL_PUBLISH_FAILED},
    {"goaway", TNL_CONTROL_GOAWAY},
    {"reauth", TNL_CONTROL_REAUTH},
    {"reauth_result", TNL_CONTROL_REAUTH_RESULT},
};

static uint64_t number_at(const uint8_t *p, size_t size)
{
    uint32_t u32;
    uint64_t u64 = 0;
    if (size == sizeof(u64)) {
        memcpy(&u64, p, size);
        return u64;
    }
    assert_int_equal(size, sizeof(u32));
    memcpy(&u32, p, size);
    return u32;
}

/* Compares a member with what the record says, or with its default when it says nothing. */
static void check_member(const row *r, const any *m, const vector *v)
{
    const uint8_t *p = m->bytes + r->offset;
    const char *value = vector_get(v, r->key);
    size_t n = 0;
    if (r->kind == NUMBER) {
        assert_int_equal(number_at(p, r->size), value ? vector_uint(v, r->key) : 0);
    } else if (r->kind == FLAG) {
        assert_int_equal(*(const bool *)p, value && strcmp(value, "true") == 0);
    } else if (r->kind == BYTES) {
        uint8_t *bytes = vector_hex(v, r->key, &n);
        assert_int_equal(n, r->size);
        assert_memory_equal(p, bytes, n);
        free(bytes);
    } else {
        tnl_str s;
        memcpy(&s, p, sizeof(s));
        char *text = value ? vector_text(v, r->key, &n) : NULL;
        assert_int_equal(s.n, n);
        if (n)
            assert_memory_equal(s.p, text, n);
        else
            assert_null(s.p);
        free(text);
    }
}

/* Texts that set_member() has made; freed after each record. */
static char *texts[16];
static size_t text_count;

static void set_member(const row *r, any *m, const vector *v)
{
    uint8_t *p = m->bytes + r->offset;
    const char *value = vector_get(v, r->key);
    if (!value)
        return;
    if (r->kind == NUMBER) {
        uint64_t u64 = vector_uint(v, r->key);
        uint32_t u32 = (uint32_t)u64;
        memcpy(p, r->size == sizeof(u64) ? (void *)&u64 : (void *)&u32, r->size);
    } else if (r->kind == FLAG) {
        *(bool *)p = strcmp(value, "true") == 0;
    } else if (r->kind == BYTES) {
        size_t n;
        uint8_t *bytes = vector_hex(v, r->key, &n);
        memcpy(p, bytes, r->size);
        free(bytes);
    } else {
        size_t n;
        char *text = vector_text(v, r->key, &n);
        tnl_str s = {text, n};
        assert_true(text_count < sizeof(texts) / sizeof(*texts));
        texts[text_count++] = text;
        memcpy(p, &s, sizeof(s));
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

static bool all_zero(const any *m, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (m->bytes[i])
            return false;
    return true;
}

/* Decodes from memory of exactly n bytes. */
static void check_refused(const codec *c, const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    any m;
    assert_non_null(copy);
    if (n)
        memcpy(copy, p, n);
    memset(&m, 0xee, sizeof(m));
    assert_int_equal(c->decode(&m, copy, n), TUNNEL_E_PROTOCOL);
    assert_true(all_zero(&m, c->size));
    free(copy);
}

static void check_encoded(const codec *c, const any *m, const uint8_t *p, size_t n)
{
    uint8_t *out = malloc(n);
    assert_non_null(out);
    assert_int_equal(c->encode(out, n, m), n);
    assert_memory_equal(out, p, n);
    for (size_t cap = 0; cap < n; cap++)
        assert_int_equal(c->encode(out, cap, m), 0);
    free(out);
}

static void check_good(const vector *v, const codec *c, uint8_t *p, size_t n)
{
    bool canonical = !vector_get(v, "only");
    any decoded, said;
    size_t members = 3U + !canonical + (vector_get(v, "control") ? 1U : 0U);
    memset(&decoded, 0xee, sizeof(decoded));
    memset(&said, 0, sizeof(said));
    assert_int_equal(c->decode(&decoded, p, n), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (strcmp(rows[i].message, c->name) != 0)
            continue;
        check_member(&rows[i], &decoded, v);
        set_member(&rows[i], &said, v);
        members += vector_get(v, rows[i].key) != NULL;
    }
    assert_int_equal(members, v->count);
    if (canonical) {
        check_encoded(c, &decoded, p, n);
        check_encoded(c, &said, p, n);
    }
    for (size_t i = 0; i < text_count; i++)
        free(texts[i]);
    text_count = 0;

    size_t step = n < 600 ? 1 : 97;
    for (size_t cut = 0; cut < n; cut += step)
        check_refused(c, p, cut);
    uint8_t *longer = malloc(n + 1);
    assert_non_null(longer);
    memcpy(longer, p, n);
    longer[n] = 0xc0;
    check_refused(c, longer, n + 1);
    free(longer);
}

static void message_vector(const vector *v)
{
    const codec *c = NULL;
    const char *control = vector_get(v, "control");
    for (size_t i = 0; i < sizeof(codecs) / sizeof(*codecs); i++)
        if (strcmp(codecs[i].name, vector_get(v, "message")) == 0)
            c = &codecs[i];
    assert_non_null(c);
    for (size_t i = 0; i < sizeof(controls) / sizeof(*controls); i++)
        if (control && strcmp(controls[i].message, c->name) == 0)
            assert_int_equal(controls[i].type, vector_uint(v, "control"));
    size_t n;
    uint8_t *p = vector_hex(v, "hex", &n);
    if (vector_get(v, "error"))
        check_refused(c, p, n);
    else
        check_good(v, c, p, n);
    free(p);
}

static void test_vectors(void **state)
{
    (void)state;
    assert_in_range(vectors_each("messages.txt", message_vector), 500, 5000);
}

static void attach_vector(const vector *v)
{
    tnl_attach a = {.generation = vector_uint(v, ".generation"), .link = vector_uint(v, ".link")};
    static const struct {
        const char *key;
        size_t offset;
    } parts[] = {{".session", offsetof(tnl_attach, session)},
                 {".nonce", offsetof(tnl_attach, nonce)}};
    size_t n;
    for (size_t i = 0; i < 2; i++) {
        uint8_t *bytes = vector_hex(v, parts[i].key, &n);
        assert_int_equal(n, TNL_ID_SIZE);
        memcpy((uint8_t *)&a + parts[i].offset, bytes, n);
        free(bytes);
    }
    for (size_t i = 0; i < 2; i++) {
        uint8_t *expected = vector_hex(v, i ? "server_input" : "client_input", &n),
                out[TNL_ATTACH_MAC_INPUT];
        assert_int_equal(n, sizeof(out));
        tnl_attach_mac_input(out, i ? 'S' : 'C', &a);
        assert_memory_equal(out, expected, n);
        free(expected);
    }
}

static void test_attach(void **state)
{
    (void)state;
    assert_in_range(vectors_each("attach.txt", attach_vector), 3, 100);
}

/* --- the rest --------------------------------------------------------------------------------- */

/* The encoder writes nothing that a decoder refuses. */
static void test_encoder_refuses(void **state)
{
    (void)state;
    uint8_t out[2048];
    char path[1025];
    memset(path, 'p', sizeof(path));
    tnl_hello hello = {.version_min = 1,
                       .version_max = 1,
                       .limits = {.max_frame = 1024, .max_streams = 0, .window = 16384}};
    assert_int_not_equal(tnl_hello_encode(out, sizeof(out), &hello), 0);
    hello.version_min = 0;
    assert_int_equal(tnl_hello_encode(out, sizeof(out), &hello), 0);
    hello.version_min = 1;
    hello.limits.window = 16383;
    assert_int_equal(tnl_hello_encode(out, sizeof(out), &hello), 0);
    hello.limits.window = 1048577;
    assert_int_equal(tnl_hello_encode(out, sizeof(out), &hello), 0);

    tnl_event event = {.event = tnl_str_of("request"), .path = {path, 1024}};
    assert_int_not_equal(tnl_event_encode(out, sizeof(out), &event), 0);
    event.path.n = 1025;
    assert_int_equal(tnl_event_encode(out, sizeof(out), &event), 0);
    event.path = tnl_str_of("/\x1b[2J");
    assert_int_equal(tnl_event_encode(out, sizeof(out), &event), 0);
    event.path = tnl_str_of("/\xff");
    assert_int_equal(tnl_event_encode(out, sizeof(out), &event), 0);
    event.path = tnl_str_of("");
    event.event = tnl_str_of("");
    assert_int_equal(tnl_event_encode(out, sizeof(out), &event), 0);
}

static void check_clean(const char *in, size_t cap, const char *expected)
{
    char *out = malloc(cap);
    assert_non_null(out);
    assert_int_equal(tnl_text_clean(out, cap, in, strlen(in)), strlen(expected));
    assert_string_equal(out, expected);
    assert_true(tnl_text_valid(out, strlen(out)));
    free(out);
}

static void test_text_clean(void **state)
{
    (void)state;
    check_clean("", 1, "");
    check_clean("abc", 1, "");
    check_clean("abc", 4, "abc");
    check_clean("abc", 3, "ab");
    check_clean("a\x1b[2Jb\r\n", 64, "a?[2Jb??");
    check_clean("\xff\xc3+\xe2\x82", 64, "??+??");
    check_clean("\xc2\x9b", 64, "??");
    check_clean("na\xc3\xafve \xf0\x9f\x9a\xa7", 64, "na\xc3\xafve \xf0\x9f\x9a\xa7");
    check_clean("na\xc3\xafve", 4, "na");
    check_clean("na\xc3\xafve", 5, "na\xc3\xaf");
    assert_true(tnl_text_valid(NULL, 0));
    assert_false(tnl_text_valid("a\0b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_encoder_refuses),
        cmocka_unit_test(test_text_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
