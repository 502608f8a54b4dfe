/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_CERTS_H
#define TEST_SUPPORT_CERTS_H

#include <stdbool.h>

/* Certificates for tests, made anew each time in a private folder under $TMPDIR. */
typedef struct test_certs {
    char folder[128];
} test_certs;

typedef struct test_cert_spec {
    const char *file;  /* FILE.crt and FILE.key in the folder */
    const char *cn;    /* NULL: the first name */
    const char *names; /* subjectAltName, comma separated; numeric IPv4 addresses become IP entries;
                          NULL: none */
    const char *from;  /* "20240101000000"; NULL: 2024 to 2049 */
    const char *to;
    const char *issuer; /* FILE of a CA made before; NULL: signed by itself */
    bool rsa;           /* else ECDSA on P-256 */
    bool ca;
} test_cert_spec;

void test_certs_open(test_certs *c);
void test_certs_make(test_certs *c, const test_cert_spec *spec);
/* The path of a file in the folder; valid until the fourth call from now. */
const char *test_certs_path(test_certs *c, const char *name);
void test_certs_close(test_certs *c);

#endif
