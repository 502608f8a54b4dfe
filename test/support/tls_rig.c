/* SPDX-License-Identifier: Apache-2.0 */
#include "support/tls_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

test_certs tls_rig_certs;

static const test_cert_spec specs[] = {
    {.file = "ca", .cn = "Test CA", .ca = true, .rsa = false},
    {.file = "a", .names = "a.test,localhost,127.0.0.1", .issuer = "ca"},
    {.file = "b", .names = "b.test", .issuer = "ca", .rsa = true},
    {.file = "wild", .names = "*.wild.test", .issuer = "ca"},
    {.file = "cn", .cn = "cn.test", .issuer = "ca"},
    {.file = "old",
     .names = "a.test",
     .issuer = "ca",
     .from = "20200101000000",
     .to = "20210203000000"},
    {.file = "future", .names = "a.test", .issuer = "ca", .from = "20480101000000"},
    {.file = "stranger", .names = "a.test"},
    {.file = "exact-stranger", .names = "x.wild.test"},
};

int tls_rig_make_certs(void **state)
{
    (void)state;
    test_certs_open(&tls_rig_certs);
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++)
        test_certs_make(&tls_rig_certs, &specs[i]);
    return 0;
}

int tls_rig_remove_certs(void **state)
{
    (void)state;
    test_certs_close(&tls_rig_certs);
    return 0;
}

const char *tls_rig_path(const char *base, const char *end)
{
    char name[64];
    snprintf(name, sizeof(name), "%s%s", base, end);
    return test_certs_path(&tls_rig_certs, name);
}

void tls_rig_add(tnl_tls_server *s, const char *base)
{
    char detail[256] = "";
    if (tnl_tls_server_add(s, tls_rig_path(base, ".crt"), tls_rig_path(base, ".key"), detail,
                           sizeof(detail)))
        fail_msg("%s", detail);
}

void tls_rig_open(tls_rig *r, const char *cert, const char *ca)
{
    char detail[256] = "";
    memset(r, 0, sizeof(*r));
    test_loop_open(&r->l);
    assert_int_equal(tnl_tls_server_new(&r->server), 0);
    if (cert)
        tls_rig_add(r->server, cert);
    if (tnl_tls_client_new(&r->client, ca ? tls_rig_path(ca, ".crt") : NULL, ca != NULL, detail,
                           sizeof(detail)))
        fail_msg("%s", detail);
    test_peer_init(&r->c);
    test_peer_init(&r->s);
}

void tls_rig_connect(tls_rig *r, const char *name)
{
    tnl_conn *c;
    test_tcp_pair(&r->l, &r->lower_c, &r->lower_s);
    assert_int_equal(tnl_tls_accept(&c, r->server, r->lower_s.c, NULL, 0, &test_peer_events, &r->s),
                     0);
    r->s.c = c;
    assert_int_equal(tnl_tls_connect(&c, r->client, r->lower_c.c, name, &test_peer_events, &r->c),
                     0);
    r->c.c = c;
    test_peer_free(&r->lower_c);
    test_peer_free(&r->lower_s);
}

void tls_rig_close(tls_rig *r)
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

tnl_tls_ctx *tls_rig_ctx(void *context)
{
    return context; /* its first member */
}

void tls_rig_only(tls_rig *r, mbedtls_ssl_protocol_version version)
{
    mbedtls_ssl_conf_max_tls_version(&tls_rig_ctx(r->server)->conf, version);
    mbedtls_ssl_conf_min_tls_version(&tls_rig_ctx(r->server)->conf, version);
}

const mbedtls_ssl_protocol_version tls_rig_versions[] = {MBEDTLS_SSL_VERSION_TLS1_2,
                                                         MBEDTLS_SSL_VERSION_TLS1_3};

tls_rig *tls_rig_ready(mbedtls_ssl_protocol_version version)
{
    tls_rig *r = malloc(sizeof(*r));
    assert_non_null(r);
    tls_rig_open(r, "a", "ca");
    tls_rig_only(r, version);
    tls_rig_connect(r, "a.test");
    UNTIL(&r->l, r->c.readies && r->s.readies);
    return r;
}

void tls_rig_free(tls_rig *r)
{
    tls_rig_close(r);
    free(r);
}
