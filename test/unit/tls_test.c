/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/peer.h"
#include "tunnel/error.h"

/* Made once for all tests: an authority and what it signed, and what it did not. */
static test_certs certs;

static const test_cert_spec specs[] = {
    {.file = "ca", .cn = "Test CA", .ca = true, .rsa = false},
    {.file = "a", .names = "a.test,localhost,127.0.0.1", .issuer = "ca"},
    {.file = "b", .names = "b.test", .issuer = "ca", .rsa = true},
    {.file = "wild", .names = "*.wild.test", .issuer = "ca"},
    {.file = "cn", .cn = "cn.test", .issuer = "ca"},
    {.file = "old", .names = "a.test", .issuer = "ca", .from = "20200101000000", .to = "20210203000000"},
    {.file = "future", .names = "a.test", .issuer = "ca", .from = "20480101000000"},
    {.file = "stranger", .names = "a.test"},
};

static int make_certs(void **state)
{
    (void)state;
    test_certs_open(&certs);
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++)
        test_certs_make(&certs, &specs[i]);
    return 0;
}

static int remove_certs(void **state)
{
    (void)state;
    test_certs_close(&certs);
    return 0;
}

static const char *path(const char *base, const char *end)
{
    char name[64];
    snprintf(name, sizeof(name), "%s%s", base, end);
    return test_certs_path(&certs, name);
}

static void add(tnl_tls_server *s, const char *base)
{
    char detail[256] = "";
    if (tnl_tls_server_add(s, path(base, ".crt"), path(base, ".key"), detail, sizeof(detail)))
        fail_msg("%s", detail);
}

/* A client and a server over two connected sockets. */
typedef struct rig {
    test_loop l;
    tnl_tls_server *server;
    tnl_tls_client *client;
    test_peer c, s;
    test_peer lower_c, lower_s;
} rig;

static void rig_open(rig *r, const char *cert, const char *ca)
{
    char detail[256] = "";
    memset(r, 0, sizeof(*r));
    test_loop_open(&r->l);
    assert_int_equal(tnl_tls_server_new(&r->server), 0);
    if (cert)
        add(r->server, cert);
    if (tnl_tls_client_new(&r->client, ca ? path(ca, ".crt") : NULL, ca != NULL, detail,
                           sizeof(detail)))
        fail_msg("%s", detail);
    test_peer_init(&r->c);
    test_peer_init(&r->s);
}

/* Also frees the contexts at once: the connections keep them. */
static void rig_connect(rig *r, const char *name)
{
    tnl_conn *c;
    test_tcp_pair(&r->l, &r->lower_c, &r->lower_s);
    assert_int_equal(tnl_tls_accept(&c, r->server, r->lower_s.c, NULL, 0, &test_peer_events, &r->s), 0);
    r->s.c = c;
    assert_int_equal(tnl_tls_connect(&c, r->client, r->lower_c.c, name, &test_peer_events, &r->c), 0);
    r->c.c = c;
    test_peer_free(&r->lower_c);
    test_peer_free(&r->lower_s);
}

static void rig_close(rig *r)
{
    if (r->c.c)
        tnl_conn_close(r->c.c);
    if (r->s.c)
        tnl_conn_close(r->s.c);
    UNTIL(&r->l, !r->c.c && !r->s.c);
    assert_true(r->c.closes <= 1 && r->s.closes <= 1);
    tnl_tls_server_unref(r->server);
    tnl_tls_client_unref(r->client);
    test_loop_close(&r->l);
    test_peer_free(&r->c);
    test_peer_free(&r->s);
}

static void shake_hands(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, "a", "ca");
    rig_connect(&r, "a.test");
    UNTIL(&r.l, r.c.readies && r.s.readies);
    assert_string_equal(tnl_tls_server_name(r.s.c), "a.test");
    tnl_conn_resume(r.c.c);
    tnl_conn_resume(r.s.c);
    assert_int_equal(test_send(r.c.c, "ping", 4), 0);
    UNTIL(&r.l, r.s.received == 4);
    assert_memory_equal(r.s.bytes, "ping", 4);
    assert_int_equal(test_send(r.s.c, "pong!", 5), 0);
    UNTIL(&r.l, r.c.received == 5);
    assert_memory_equal(r.c.bytes, "pong!", 5);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shake_hands),
    };
    return cmocka_run_group_tests(tests, make_certs, remove_certs);
}
