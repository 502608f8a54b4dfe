/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ports.h"

#include <stdio.h>
#include <string.h>

#include "support/check.h"
#include "tunnel/error.h"

static void texts_and_back(void **state)
{
    static const char *const pairs[][2] = {
        {"none", "none"},
        {"22", "22"},
        {"1-65535", "1-65535"},
        {"65535,1", "1,65535"},
        {"22,8000-8100", "22,8000-8100"},
        {"8000-8100,22", "22,8000-8100"},
        {"80,81,82", "80-82"},
        {"80-90,85-95", "80-95"},
        {"80-90,82-83,91", "80-91"},
        {"5,5,5", "5"},
        {"00080", "80"},
        {"65534-65535,65535", "65534-65535"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        tnl_ports p;
        char text[TNL_PORTS_TEXT];
        assert_int_equal(tnl_ports_parse(&p, pairs[i][0]), 0);
        assert_string_equal(tnl_ports_print(&p, text, sizeof(text)), pairs[i][1]);
    }
}

static void what_is_no_set(void **state)
{
    static const char *const texts[] = {
        "",       "0",    "65536", "99999", "100000", "-1",         "1-",      "-",
        ",",      "1,",   ",1",    "1,,2",  "9-8",    "0-5",        "1-65536", "a",
        "1a",     "1 ",   " 1",    "1 2",   "1-2-3",  "1;2",        "1:2",     "none,1",
        "1,none", "None", "+1",    "0x10",  "1.5",    "4294967297", "000080"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        tnl_ports p;
        assert_int_equal(tnl_ports_parse(&p, texts[i]), TUNNEL_E_INVALID);
    }
}

static void at_most_so_many_ranges(void **state)
{
    char text[1024] = "";
    tnl_ports p;
    size_t n = 0;
    (void)state;
    for (unsigned i = 0; i < TNL_PORTS_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%u", i ? "," : "", 2 * i + 60001);
    assert_int_equal(tnl_ports_parse(&p, text), 0);
    assert_int_equal(p.count, TNL_PORTS_MAX);
    char back[TNL_PORTS_TEXT];
    assert_string_equal(tnl_ports_print(&p, back, sizeof(back)), text);
    snprintf(text + n, sizeof(text) - n, ",1");
    assert_int_equal(tnl_ports_parse(&p, text), TUNNEL_E_LIMIT);
}

static void membership(void **state)
{
    tnl_ports p;
    (void)state;
    assert_int_equal(tnl_ports_parse(&p, "22,8000-8002,65535"), 0);
    for (uint32_t port = 0; port < 140000; port++) {
        bool in = port == 22 || (port >= 8000 && port <= 8002) || port == 65535;
        assert_int_equal(tnl_ports_has(&p, port), in);
    }
    static const uint16_t all[] = {22, 8000, 8001, 8002, 65535};
    assert_int_equal(tnl_ports_total(&p), 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(tnl_ports_at(&p, i), all[i]);
    assert_int_equal(tnl_ports_at(&p, 5), 0);
    assert_int_equal(tnl_ports_parse(&p, "1-65535"), 0);
    assert_int_equal(tnl_ports_total(&p), 65535);
    assert_int_equal(tnl_ports_at(&p, 65534), 65535);
    assert_int_equal(tnl_ports_parse(&p, "none"), 0);
    assert_int_equal(tnl_ports_total(&p), 0);
    assert_false(tnl_ports_has(&p, 80));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_and_back),
        cmocka_unit_test(what_is_no_set),
        cmocka_unit_test(at_most_so_many_ranges),
        cmocka_unit_test(membership),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
