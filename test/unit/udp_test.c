/* SPDX-License-Identifier: Apache-2.0 */
#include "io/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"
#include "tunnel/error.h"

/* --- a socket's user -------------------------------------------------------------------------- */

typedef struct end {
    tnl_udp *udp;
    bool echo;
    bool close_in; /* in its next datagram */
    unsigned count;
    unsigned refusals;
    unsigned in_order; /* how many began with their own number */
    size_t n;          /* of the last one */
    tnl_udp_address from;
    uint8_t bytes[65536];
} end;

static void on_datagram(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n)
{
    end *e = user;
    uint32_t number = UINT32_MAX;
    assert_non_null(e->udp);
    if (n >= sizeof(number))
        memcpy(&number, p, sizeof(number));
    e->in_order += number == e->count;
    e->count++;
    e->n = n;
    e->from = *from;
    memcpy(e->bytes, p, n);
    if (e->echo)
        tnl_udp_send(e->udp, from, p, n);
    if (e->close_in) {
        tnl_udp_free(e->udp);
        e->udp = NULL;
    }
}

static void on_refused(void *user)
{
    end *e = user;
    assert_non_null(e->udp);
    e->refusals++;
}

static const tnl_udp_events events = {.datagram = on_datagram, .refused = on_refused};

static void bind_end(end *e, test_loop *l, const char *address)
{
    char detail[200];
    memset(e, 0, sizeof(*e));
    assert_int_equal(tnl_udp_new(&e->udp, l->loop, address, &events, e, detail, sizeof(detail)), 0);
}

static tnl_udp_address address_of(const char *host, uint16_t port)
{
    tnl_udp_address a = {.port = port};
    a.family = inet_pton(AF_INET, host, a.address) == 1 ? 4 : 6;
    if (a.family == 6)
        assert_int_equal(inet_pton(AF_INET6, host, a.address), 1);
    return a;
}

static void connect_end(end *e, test_loop *l, const char *host, uint16_t port)
{
    tnl_udp_address to = address_of(host, port);
    memset(e, 0, sizeof(*e));
    assert_int_equal(tnl_udp_connect(&e->udp, l->loop, &to, &events, e), 0);
}

static uint16_t port_of(const end *e)
{
    return tnl_udp_bound(e->udp).port;
}

/* A plain connected socket of the system. */
static int plain(const char *host, uint16_t port)
{
    struct sockaddr_storage sa = {.ss_family = AF_INET};
    struct sockaddr_in *in = (struct sockaddr_in *)&sa;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&sa;
    in->sin_port = htons(port);
    if (inet_pton(AF_INET, host, &in->sin_addr) != 1) {
        sa.ss_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
    }
    int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void echo_sizes(const char *bound, const char *host)
{
    static const size_t sizes[] = {0, 1, 100, 1472, 1473, 9000, 65000, 65507};
    static uint8_t bytes[65507];
    static end a, b;
    test_loop l;
    test_loop_open(&l);
    bind_end(&a, &l, bound);
    connect_end(&b, &l, host, port_of(&a));
    a.echo = true;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        test_fill(bytes, sizes[i], i);
        tnl_udp_send(b.udp, NULL, bytes, sizes[i]);
        UNTIL(&l, b.count == i + 1);
        assert_int_equal(a.n, sizes[i]);
        assert_int_equal(b.n, sizes[i]);
        assert_memory_equal(b.bytes, bytes, sizes[i]);
        assert_int_equal(a.from.port, port_of(&b));
        assert_string_equal(tnl_udp_text(&a.from).host, host);
    }
    tnl_udp_send(b.udp, NULL, bytes, 65508);
    assert_int_equal(tnl_udp_dropped(b.udp), 1);
    tnl_udp_free(a.udp);
    tnl_udp_free(b.udp);
    test_loop_close(&l);
}

static void test_sizes(void **state)
{
    (void)state;
    echo_sizes("127.0.0.1:0", "127.0.0.1");
    echo_sizes("[::1]:0", "::1");
    echo_sizes("0.0.0.0:0", "127.0.0.1");
    echo_sizes("[::]:0", "::1");
}

/* On a socket of all addresses: a connected visitor hears an answer only from where it asked. */
static void test_answers_leave_from_where_they_were_asked(void **state)
{
    (void)state;
    static const struct {
        const char *bound;
        const char *host;
        uint8_t family;
    } rows[] = {{"0.0.0.0:0", "127.0.0.1", 4}, {"0.0.0.0:0", "127.0.0.2", 4},
                {"0.0.0.0:0", "127.1.2.3", 4}, {"[::]:0", "127.0.0.2", 4},
                {"[::]:0", "127.0.0.1", 4},    {"[::]:0", "::1", 6}};
    static end a;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char bytes[16];
        test_loop l;
        test_loop_open(&l);
        bind_end(&a, &l, rows[i].bound);
        a.echo = true;
        int fd = plain(rows[i].host, port_of(&a));
        assert_int_equal(send(fd, "hello", 5, 0), 5);
        UNTIL(&l, recv(fd, bytes, sizeof(bytes), 0) == 5);
        assert_int_equal(a.from.family, rows[i].family);
        assert_true(a.from.local[0] || a.from.local[15]);
        close(fd);
        tnl_udp_free(a.udp);
        test_loop_close(&l);
    }
}

static void test_strangers_are_not_heard(void **state)
{
    (void)state;
    static end a, b, stranger;
    test_loop l;
    test_loop_open(&l);
    bind_end(&a, &l, "127.0.0.1:0");
    bind_end(&stranger, &l, "127.0.0.1:0");
    connect_end(&b, &l, "127.0.0.1", port_of(&a));
    tnl_udp_address to = address_of("127.0.0.1", port_of(&b));
    for (int i = 0; i < 10; i++)
        tnl_udp_send(stranger.udp, &to, "forged", 6);
    tnl_udp_send(a.udp, &to, "true", 4);
    UNTIL(&l, b.count);
    assert_int_equal(b.count, 1);
    assert_memory_equal(b.bytes, "true", 4);
    tnl_udp_free(a.udp);
    tnl_udp_free(b.udp);
    tnl_udp_free(stranger.udp);
    test_loop_close(&l);
}

/* Nobody listens there; later somebody does. */
static void test_refused(void **state)
{
    (void)state;
    static end a, b;
    char address[32];
    test_loop l;
    test_loop_open(&l);
    bind_end(&a, &l, "127.0.0.1:0");
    uint16_t port = port_of(&a);
    connect_end(&b, &l, "127.0.0.1", port);
    tnl_udp_free(a.udp);
    for (unsigned i = 1; i < 4; i++) {
        tnl_udp_send(b.udp, NULL, "x", 1);
        UNTIL(&l, b.refusals >= i);
    }
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    bind_end(&a, &l, address);
    a.echo = true;
    tnl_udp_send(b.udp, NULL, "y", 1);
    UNTIL(&l, b.count == 1);
    assert_int_equal(a.count, 1);
    tnl_udp_free(a.udp);
    tnl_udp_free(b.udp);
    test_loop_close(&l);
}

/* All in order, and no turn takes more than its share. */
static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    static end a, b;
    uint8_t bytes[100] = {0};
    unsigned turns = 0;
    test_loop l;
    test_loop_open(&l);
    bind_end(&a, &l, "127.0.0.1:0");
    connect_end(&b, &l, "127.0.0.1", port_of(&a));
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(bytes, &i, sizeof(i));
        tnl_udp_send(b.udp, NULL, bytes, sizeof(bytes));
    }
    for (unsigned before = 0; a.count < COUNT; before = a.count, turns++) {
        assert_true(test_turn(&l));
        assert_true(a.count - before <= 64);
    }
    assert_int_equal(a.in_order, COUNT);
    assert_true(turns >= COUNT / 64);
    assert_int_equal(tnl_udp_dropped(b.udp), 0);
    tnl_udp_free(a.udp);
    tnl_udp_free(b.udp);
    test_loop_close(&l);
}

static void test_closing(void **state)
{
    (void)state;
    static end a, b;
    char address[32], bytes[16];
    test_loop l;
    test_loop_open(&l);
    /* Inside its own datagram, with more behind it. */
    bind_end(&a, &l, "127.0.0.1:0");
    uint16_t port = port_of(&a);
    a.close_in = true;
    int fd = plain("127.0.0.1", port);
    for (int i = 0; i < 5; i++)
        assert_int_equal(send(fd, "x", 1, 0), 1);
    UNTIL(&l, !a.udp);
    assert_int_equal(a.count, 1);
    /* The port is free at once. */
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    bind_end(&b, &l, address);
    /* What was given is sent. */
    b.echo = b.close_in = true;
    assert_int_equal(send(fd, "last", 4, 0), 4);
    UNTIL(&l, !b.udp);
    UNTIL(&l, recv(fd, bytes, sizeof(bytes), 0) == 4);
    tnl_udp_free(NULL);
    close(fd);
    test_loop_close(&l);
}

static void test_addresses(void **state)
{
    (void)state;
    static end a;
    char detail[200], address[32];
    test_loop l;
    tnl_udp *u;
    test_loop_open(&l);
    bind_end(&a, &l, "127.0.0.1:0");
    snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(&a));
    assert_int_equal(tnl_udp_new(&u, l.loop, address, &events, &a, detail, sizeof(detail)),
                     TUNNEL_E_ADDR_IN_USE);
    assert_non_null(strstr(detail, address));
    assert_non_null(strstr(detail, "another program"));
    assert_int_equal(tnl_udp_new(&u, l.loop, "nonsense", &events, &a, detail, sizeof(detail)),
                     TUNNEL_E_INVALID);
    assert_int_equal(tnl_udp_new(&u, l.loop, "unix:/x", &events, &a, NULL, 0), TUNNEL_E_INVALID);
    assert_int_equal(tnl_udp_new(&u, l.loop, "192.0.2.1:0", &events, &a, detail, sizeof(detail)),
                     TUNNEL_E_INVALID);
    assert_int_equal(tnl_udp_bound(a.udp).port, port_of(&a));
    assert_string_equal(tnl_udp_bound(a.udp).host, "127.0.0.1");
    tnl_udp_free(a.udp);
    test_loop_close(&l);
}

static void test_descriptors_are_not_inherited(void **state)
{
    (void)state;
    static end a, b;
    unsigned count = 0;
    test_loop l;
    test_loop_open(&l);
    bind_end(&a, &l, "127.0.0.1:0");
    connect_end(&b, &l, "127.0.0.1", port_of(&a));
    for (int fd = 0; fd < 256; fd++) {
        int type;
        socklen_t n = sizeof(type);
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_DGRAM) {
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            count++;
        }
    }
    assert_true(count >= 2);
    tnl_udp_free(a.udp);
    tnl_udp_free(b.udp);
    test_loop_close(&l);
}

/* --- names ------------------------------------------------------------------------------------ */

typedef struct answer {
    unsigned count;
    int error;
    char detail[400];
    size_t n;
    tnl_udp_address list[TNL_UDP_ADDRESSES];
} answer;

static void on_found(void *user, int error, const char *detail, const tnl_udp_address *list,
                     size_t n)
{
    answer *a = user;
    a->count++;
    a->error = error;
    a->n = n;
    snprintf(a->detail, sizeof(a->detail), "%s", detail);
    memcpy(a->list, list, n * sizeof(*list));
}

static answer look_up(test_loop *l, const char *host)
{
    answer a = {.count = 0};
    tnl_udp_lookup *r;
    assert_int_equal(tnl_udp_lookup_start(&r, l->loop, host, 53, on_found, &a), 0);
    assert_int_equal(a.count, 0);
    UNTIL(l, a.count);
    return a;
}

static void test_lookup(void **state)
{
    (void)state;
    tnl_udp_lookup *r;
    test_loop l;
    test_loop_open(&l);
    answer a = look_up(&l, "192.0.2.1");
    assert_int_equal(a.n, 1);
    assert_string_equal(tnl_udp_text(&a.list[0]).host, "192.0.2.1");
    assert_int_equal(a.list[0].port, 53);
    a = look_up(&l, "2001:db8::1");
    assert_int_equal(a.n, 1);
    assert_string_equal(tnl_udp_text(&a.list[0]).host, "2001:db8::1");
    a = look_up(&l, "localhost");
    assert_int_equal(a.n, 2);
    assert_string_equal(tnl_udp_text(&a.list[0]).host, "127.0.0.1");
    assert_string_equal(tnl_udp_text(&a.list[1]).host, "::1");
    a = look_up(&l, "no-such-host.invalid");
    assert_int_equal(a.error, TUNNEL_E_RESOLVE);
    assert_int_equal(a.n, 0);
    assert_non_null(strstr(a.detail, "no-such-host.invalid"));
    a.count = 0;
    assert_int_equal(tnl_udp_lookup_start(&r, l.loop, "localhost", 53, on_found, &a), 0);
    tnl_udp_lookup_cancel(r);
    assert_int_equal(tnl_udp_lookup_start(&r, l.loop, "no-such-host.invalid", 53, on_found, &a), 0);
    test_turn(&l);
    if (a.count == 0)
        tnl_udp_lookup_cancel(r);
    assert_int_equal(tnl_udp_lookup_start(&r, l.loop, "", 53, on_found, &a), TUNNEL_E_INVALID);
    assert_int_equal(tnl_udp_lookup_start(&r, l.loop, "x", 0, on_found, &a), TUNNEL_E_INVALID);
    tnl_udp_lookup_cancel(NULL);
    test_loop_close(&l);
}

/* --- without memory --------------------------------------------------------------------------- */

static void test_no_memory(void **state)
{
    (void)state;
    static end a, b;
    answer found = {.count = 0};
    bool done = false;
    for (size_t fail = 1; !done; fail++) {
        test_loop l;
        tnl_udp_lookup *r = NULL;
        test_loop_open(&l);
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        memory.count = 0;
        memory.fail_at = fail;
        int rc = tnl_udp_new(&a.udp, l.loop, "127.0.0.1:0", &events, &a, NULL, 0);
        if (rc == 0) {
            tnl_udp_address to = address_of("127.0.0.1", port_of(&a));
            rc = tnl_udp_connect(&b.udp, l.loop, &to, &events, &b);
        }
        if (rc == 0)
            rc = tnl_udp_lookup_start(&r, l.loop, "localhost", 53, on_found, &found);
        done = memory.count < fail;
        memory.fail_at = 0;
        assert_int_equal(rc, done ? 0 : TUNNEL_E_NOMEM);
        tnl_udp_lookup_cancel(r);
        tnl_udp_free(a.udp);
        tnl_udp_free(b.udp);
        test_loop_close(&l);
        assert_int_equal(memory.live, 0);
    }
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
        cmocka_unit_test_teardown(test_answers_leave_from_where_they_were_asked, all_freed),
        cmocka_unit_test_teardown(test_strangers_are_not_heard, all_freed),
        cmocka_unit_test_teardown(test_refused, all_freed),
        cmocka_unit_test_teardown(test_many, all_freed),
        cmocka_unit_test_teardown(test_closing, all_freed),
        cmocka_unit_test_teardown(test_addresses, all_freed),
        cmocka_unit_test_teardown(test_descriptors_are_not_inherited, all_freed),
        cmocka_unit_test_teardown(test_lookup, all_freed),
        cmocka_unit_test_teardown(test_no_memory, all_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
