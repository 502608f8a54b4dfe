/* SPDX-License-Identifier: Apache-2.0 */
#include "crypto/crypto.h"

#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "tunnel/error.h"

static void assert_hex(const uint8_t *p, size_t n, const char *want)
{
    char hex[129];
    tnl_hex(hex, p, n);
    assert_string_equal(hex, want);
}

/* FIPS 180-4, the examples published with it. */
static void sha256_as_in_the_standard(void **state)
{
    (void)state;
    enum { MILLION = 1000000 };
    uint8_t out[TNL_SHA256_SIZE];
    static const struct {
        const char *text, *hash;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(tnl_sha256(out, cases[i].text, strlen(cases[i].text)), 0);
        assert_hex(out, sizeof(out), cases[i].hash);
    }
    char *a = malloc(MILLION);
    assert_non_null(a);
    memset(a, 'a', MILLION);
    assert_int_equal(tnl_sha256(out, a, MILLION), 0);
    assert_hex(out, sizeof(out),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(a);
    assert_int_equal(tnl_sha256(out, NULL, 0), 0);
    assert_hex(out, sizeof(out), cases[0].hash);
}

static void hmac_as_in_the_rfc(void **state)
{
    (void)state;
    static const struct {
        uint8_t key_byte; /* 0: the key is the text */
        size_t key_n;
        const char *key;
        uint8_t data_byte;
        size_t data_n;
        const char *data;
        const char *mac;
    } cases[] = {
        /* RFC 4231 sections 4.2 to 4.4, 4.7, 4.8 */
        {0x0b, 20, NULL, 0, 0, "Hi There",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {0, 0, "Jefe", 0, 0, "what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {0xaa, 20, NULL, 0xdd, 50, NULL,
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {0xaa, 131, NULL, 0, 0, "Test Using Larger Than Block-Size Key - Hash Key First",
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {0xaa, 131, NULL, 0, 0,
         "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be "
         "hashed before being used by the HMAC algorithm.",
         "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
        /* no key, no data */
        {0, 0, "", 0, 0, "", "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint8_t key[131], data[256], out[TNL_SHA256_SIZE];
        size_t key_n = cases[i].key ? strlen(cases[i].key) : cases[i].key_n;
        size_t data_n = cases[i].data ? strlen(cases[i].data) : cases[i].data_n;
        memset(key, cases[i].key_byte, sizeof(key));
        memset(data, cases[i].data_byte, sizeof(data));
        if (cases[i].key)
            memcpy(key, cases[i].key, key_n);
        if (cases[i].data)
            memcpy(data, cases[i].data, data_n);
        assert_int_equal(tnl_hmac_sha256(out, key, key_n, data, data_n), 0);
        assert_hex(out, sizeof(out), cases[i].mac);
    }
}

static void comparing_sees_every_bit(void **state)
{
    (void)state;
    uint8_t a[33], b[33];
    for (size_t i = 0; i < sizeof(a); i++)
        a[i] = (uint8_t)(i * 7);
    memcpy(b, a, sizeof(a));
    assert_true(tnl_equal_ct(a, b, sizeof(a)));
    assert_true(tnl_equal_ct(a, b, 0));
    for (size_t bit = 0; bit < 8 * sizeof(a); bit++) {
        b[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(tnl_equal_ct(a, b, sizeof(a)));
        assert_true(tnl_equal_ct(a, b, bit / 8));
        b[bit / 8] = a[bit / 8];
    }
}

static void hex_goes_both_ways(void **state)
{
    (void)state;
    uint8_t all[256], back[256];
    char text[513];
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)i;
    tnl_hex(text, all, sizeof(all));
    assert_int_equal(strlen(text), 512);
    assert_int_equal(tnl_unhex(back, sizeof(back), text, 512), 0);
    assert_memory_equal(all, back, sizeof(all));
    assert_int_equal(tnl_unhex(back, 3, "aBcDeF", 6), 0);
    assert_memory_equal(back, "\xab\xcd\xef", 3);
    tnl_hex(text, NULL, 0);
    assert_string_equal(text, "");
    assert_int_equal(tnl_unhex(back, 0, "", 0), 0);
    static const char *const bad[] = {"",     "a",    "abc",  "abcde", "ab d", "abxd",
                                      "ab:d", "abc/", "abc`", "ab@g",  "0x12"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(tnl_unhex(back, 2, bad[i], strlen(bad[i])), TUNNEL_E_INVALID);
}

static void random_bytes_differ(void **state)
{
    (void)state;
    enum { BIG = 100000 };
    uint8_t a[16], b[16];
    assert_int_equal(tnl_random(a, sizeof(a)), 0);
    assert_int_equal(tnl_random(b, sizeof(b)), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(tnl_random(a, 0), 0);
    uint8_t *big = calloc(1, BIG);
    assert_non_null(big);
    assert_int_equal(tnl_random(big, BIG), 0);
    /* Every value comes, up to the end of the piece. */
    unsigned seen[256] = {0};
    for (size_t i = BIG / 2; i < BIG; i++)
        seen[big[i]]++;
    for (size_t i = 0; i < 256; i++)
        assert_true(seen[i] > 0);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_as_in_the_standard), cmocka_unit_test(hmac_as_in_the_rfc),
        cmocka_unit_test(comparing_sees_every_bit),  cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
