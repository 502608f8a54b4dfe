/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <tunnel/error.h>

#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* A client that takes all the ports it gets leaves descriptors to others. */

enum { DESCRIPTORS = 160 };

static void many_ports(tnl_server_config *c, void *user)
{
    (void)user;
    assert_int_equal(tnl_ports_parse(&c->tcp_ports, "1024-65535"), 0);
    assert_int_equal(tnl_ports_parse(&c->udp_ports, "1024-65535"), 0);
}

static void ports_leave_descriptors_to_others(void **state)
{
    (void)state;
    enum { CLIENTS = 3, EACH = 64 };
    test_edge e;
    test_service s[CLIENTS], other;
    test_guest g[4];
    struct rlimit before, few;
    unsigned opened = 0, refused = 0;
    test_edge_options o = {.configure = many_ports};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = DESCRIPTORS;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(test_edge_open(&e, &o), 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        test_service_start(&s[i], &e, "secret", (uint8_t)(i + 1));
        UNTIL(&e.l, s[i].session);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        for (unsigned k = 1; k <= EACH; k++) {
            tnl_publish m = {.tunnel = k, .kind = tnl_str_of(k % 2 ? "tcp" : "udp")};
            test_service_publish_as(&s[i], &m);
        }
        UNTIL(&e.l, s[i].published + s[i].refused == EACH);
        opened += s[i].published;
        refused += s[i].refused;
        if (s[i].refused)
            assert_int_equal(s[i].code, TUNNEL_E_LIMIT);
    }
    assert_true(opened > EACH);
    assert_true(refused > 0);
    test_service_start(&other, &e, "other", 99);
    UNTIL(&e.l, other.session || other.failed);
    assert_non_null(other.session);
    test_service_publish(&other, 1, "demo");
    UNTIL(&e.l, other.published);
    for (size_t i = 0; i < 4; i++) {
        test_guest_open(&g[i], &e);
        test_guest_say(&g[i], "GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n");
        (void)test_service_await(&other, i + 1);
    }
    for (size_t i = 0; i < 4; i++)
        test_guest_free(&g[i]);
    for (unsigned i = 0; i < CLIENTS; i++)
        test_service_close(&s[i]);
    test_service_close(&other);
    test_edge_close(&e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_leave_descriptors_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
