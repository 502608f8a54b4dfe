/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/proxy_header.h"

#include <string.h>

#include "support/check.h"

static size_t header(uint8_t *out, unsigned version, const char *visitor, uint16_t port,
                     const char *server, uint16_t server_port)
{
    tnl_proxy_ends e = {tnl_str_of(visitor), port, tnl_str_of(server), server_port};
    memset(out, 0xee, TNL_PROXY_HEADER_MAX);
    return tnl_proxy_header(out, version, &e);
}

/* --- version 1 -------------------------------------------------------------------------------- */

static void check_line(const char *visitor, uint16_t port, const char *server, uint16_t server_port,
                       const char *line)
{
    uint8_t out[TNL_PROXY_HEADER_MAX];
    size_t n = header(out, 1, visitor, port, server, server_port);
    assert_int_equal(n, strlen(line));
    assert_memory_equal(out, line, n);
}

static void version_1_is_a_line(void **state)
{
    (void)state;
    check_line("192.0.2.1", 56324, "198.51.100.9", 443,
               "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n");
    check_line("255.255.255.255", 65535, "255.255.255.255", 65535,
               "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
    check_line("0.0.0.0", 0, "0.0.0.0", 0, "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n");
    check_line("2001:db8::1", 1, "::1", 22, "PROXY TCP6 2001:db8::1 ::1 1 22\r\n");
    /* The longest of section 2.1. */
    check_line("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
               "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    check_line("2001:0DB8:0:0::1", 1, "0::2", 22, "PROXY TCP6 2001:db8::1 ::2 1 22\r\n");
    check_line("::ffff:192.0.2.1", 1, "10.0.0.1", 22, "PROXY TCP4 192.0.2.1 10.0.0.1 1 22\r\n");
}

static void what_is_no_pair_of_addresses_is_unknown(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"192.0.2.1", ""},
        {"", "192.0.2.1"},
        {"192.0.2.1", "2001:db8::1"},
        {"2001:db8::1", "192.0.2.1"},
        {"visitor.example", "192.0.2.1"},
        {"192.0.2.1\r\n", "192.0.2.1"},
        {"192.0.2.1 ", "192.0.2.1"},
        {"192.0.2.256", "192.0.2.1"},
        {"[::1]", "::1"},
        {"fe80::1%eth0", "::1"},
        {"0000:0000:0000:0000:0000:ffff:192.168.100.200:0000:0000:0000:00", "::1"},
    };
    static const uint8_t unspec[16] = "\r\n\r\n\0\r\nQUIT\n\x21\0\0";
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uint8_t out[TNL_PROXY_HEADER_MAX];
        check_line(pairs[i][0], 1, pairs[i][1], 2, "PROXY UNKNOWN\r\n");
        assert_int_equal(header(out, 2, pairs[i][0], 1, pairs[i][1], 2), 16);
        assert_memory_equal(out, unspec, 16);
    }
}

/* --- version 2 -------------------------------------------------------------------------------- */

static void version_2_is_binary(void **state)
{
    (void)state;
    static const uint8_t four[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"
                                  "\xc0\x00\x02\x01\xc6\x33\x64\x09\xdc\x04\x01\xbb";
    static const uint8_t six[] =
        "\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24"
        "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x01\x00\x16";
    uint8_t out[TNL_PROXY_HEADER_MAX];
    assert_int_equal(header(out, 2, "192.0.2.1", 56324, "198.51.100.9", 443), 28);
    assert_memory_equal(out, four, 28);
    assert_int_equal(header(out, 2, "::ffff:192.0.2.1", 56324, "::ffff:198.51.100.9", 443), 28);
    assert_memory_equal(out, four, 28);
    assert_int_equal(header(out, 2, "2001:db8::1", 1, "::1", 22), 52);
    assert_memory_equal(out, six, 52);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1_is_a_line),
        cmocka_unit_test(what_is_no_pair_of_addresses_is_unknown),
        cmocka_unit_test(version_2_is_binary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
