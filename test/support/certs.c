/* SPDX-License-Identifier: Apache-2.0 */
#include "support/certs.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/check.h"

enum { MAX_NAMES = 8, PEM = 8192 };

typedef struct maker {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_pk_context key, issuer_key;
    mbedtls_x509_crt issuer;
    mbedtls_x509write_cert cert;
} maker;

void test_certs_open(test_certs *c)
{
    const char *base = getenv("TMPDIR");
    snprintf(c->folder, sizeof(c->folder), "%s/tnl-certs-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(c->folder));
}

const char *test_certs_path(test_certs *c, const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", c->folder, name);
    return path;
}

void test_certs_close(test_certs *c)
{
    DIR *d = opendir(c->folder);
    struct dirent *e;
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.')
            unlink(test_certs_path(c, e->d_name));
    if (d)
        closedir(d);
    rmdir(c->folder);
}

static void write_file(test_certs *c, const char *base, const char *end, const char *text)
{
    char name[128];
    snprintf(name, sizeof(name), "%s%s", base, end);
    FILE *f = fopen(test_certs_path(c, name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static const char *file_of(test_certs *c, const char *base, const char *end)
{
    char name[128];
    snprintf(name, sizeof(name), "%s%s", base, end);
    return test_certs_path(c, name);
}

static void make_key(maker *m, bool rsa)
{
    mbedtls_pk_type_t type = rsa ? MBEDTLS_PK_RSA : MBEDTLS_PK_ECKEY;
    assert_int_equal(mbedtls_pk_setup(&m->key, mbedtls_pk_info_from_type(type)), 0);
    if (rsa)
        assert_int_equal(mbedtls_rsa_gen_key(mbedtls_pk_rsa(m->key), mbedtls_ctr_drbg_random,
                                             &m->drbg, 2048, 65537),
                         0);
    else
        assert_int_equal(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(m->key),
                                             mbedtls_ctr_drbg_random, &m->drbg),
                         0);
}

static void set_names(maker *m, const char *names)
{
    static mbedtls_x509_san_list list[MAX_NAMES];
    static uint8_t addresses[MAX_NAMES][4];
    static char text[512];
    size_t n = 0;
    snprintf(text, sizeof(text), "%s", names);
    memset(list, 0, sizeof(list));
    for (char *name = strtok(text, ","); name && n < MAX_NAMES; name = strtok(NULL, ","), n++) {
        mbedtls_x509_subject_alternative_name *san = &list[n].node;
        if (inet_pton(AF_INET, name, addresses[n]) == 1) {
            san->type = MBEDTLS_X509_SAN_IP_ADDRESS;
            san->san.unstructured_name.p = addresses[n];
            san->san.unstructured_name.len = 4;
        } else {
            san->type = MBEDTLS_X509_SAN_DNS_NAME;
            san->san.unstructured_name.p = (unsigned char *)name;
            san->san.unstructured_name.len = strlen(name);
        }
        if (n)
            list[n - 1].next = &list[n];
    }
    assert_int_equal(mbedtls_x509write_crt_set_subject_alternative_name(&m->cert, list), 0);
}

static void fill_in(maker *m, const test_cert_spec *s)
{
    char subject[160], issuer[256] = "";
    unsigned char serial[8];
    snprintf(subject, sizeof(subject), "CN=%s", s->cn ? s->cn : s->names);
    subject[strcspn(subject, ",")] = '\0';
    if (s->issuer)
        mbedtls_x509_dn_gets(issuer, sizeof(issuer), &m->issuer.subject);
    mbedtls_ctr_drbg_random(&m->drbg, serial, sizeof(serial));
    serial[0] = (unsigned char)((serial[0] & 0x3f) | 0x40);
    mbedtls_x509write_crt_set_version(&m->cert, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&m->cert, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&m->cert, &m->key);
    mbedtls_x509write_crt_set_issuer_key(&m->cert, s->issuer ? &m->issuer_key : &m->key);
    assert_int_equal(mbedtls_x509write_crt_set_subject_name(&m->cert, subject), 0);
    assert_int_equal(mbedtls_x509write_crt_set_issuer_name(&m->cert, s->issuer ? issuer : subject),
                     0);
    assert_int_equal(mbedtls_x509write_crt_set_serial_raw(&m->cert, serial, sizeof(serial)), 0);
    assert_int_equal(mbedtls_x509write_crt_set_validity(&m->cert,
                                                        s->from ? s->from : "20240101000000",
                                                        s->to ? s->to : "20491231235959"),
                     0);
    assert_int_equal(mbedtls_x509write_crt_set_basic_constraints(&m->cert, s->ca, -1), 0);
    if (s->names)
        set_names(m, s->names);
}

void test_certs_make(test_certs *c, const test_cert_spec *s)
{
    static unsigned char pem[PEM];
    maker m;
    mbedtls_entropy_init(&m.entropy);
    mbedtls_ctr_drbg_init(&m.drbg);
    mbedtls_pk_init(&m.key);
    mbedtls_pk_init(&m.issuer_key);
    mbedtls_x509_crt_init(&m.issuer);
    mbedtls_x509write_crt_init(&m.cert);
    assert_int_equal(mbedtls_ctr_drbg_seed(&m.drbg, mbedtls_entropy_func, &m.entropy, NULL, 0), 0);
    make_key(&m, s->rsa);
    if (s->issuer) {
        assert_int_equal(mbedtls_x509_crt_parse_file(&m.issuer, file_of(c, s->issuer, ".crt")), 0);
        assert_int_equal(mbedtls_pk_parse_keyfile(&m.issuer_key, file_of(c, s->issuer, ".key"),
                                                  NULL, mbedtls_ctr_drbg_random, &m.drbg),
                         0);
    }
    fill_in(&m, s);
    assert_int_equal(
        mbedtls_x509write_crt_pem(&m.cert, pem, sizeof(pem), mbedtls_ctr_drbg_random, &m.drbg), 0);
    write_file(c, s->file, ".crt", (const char *)pem);
    assert_int_equal(mbedtls_pk_write_key_pem(&m.key, pem, sizeof(pem)), 0);
    write_file(c, s->file, ".key", (const char *)pem);
    mbedtls_x509write_crt_free(&m.cert);
    mbedtls_x509_crt_free(&m.issuer);
    mbedtls_pk_free(&m.issuer_key);
    mbedtls_pk_free(&m.key);
    mbedtls_ctr_drbg_free(&m.drbg);
    mbedtls_entropy_free(&m.entropy);
}
