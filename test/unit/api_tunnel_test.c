/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/loop.h>
#include <unistd.h>

#include "support/certs.h"
#include "support/check.h"
#include "support/memory.h"

/* What can be published where, and with which options. */

typedef struct rig {
    tunnel_loop *loop;
    tunnel_client *client;
    char detail[400];
} rig;

static void rig_open(rig *r)
{
    tunnel_client_config *c;
    *r = (rig){.loop = NULL};
    assert_int_equal(tunnel_loop_new(&r->loop, NULL), 0);
    assert_int_equal(tunnel_client_config_new(&c), 0);
    assert_int_equal(tunnel_client_config_set_server(c, "ws://127.0.0.1:1"), 0);
    assert_int_equal(tunnel_client_new(&r->client, r->loop, c, NULL, 0), 0);
    tunnel_client_config_free(c);
}

static void rig_close(rig *r)
{
    tunnel_client_close(r->client, NULL, NULL);
    tunnel_loop_run(r->loop);
    tunnel_loop_free(r->loop);
    assert_int_equal(memory.live, 0);
}

/* A line for people: not empty, one line, within reason, on what this is about. */
static void assert_line(const char *line, const char *part)
{
    size_t n = strlen(line);
    assert_true(n > 10 && n < 300);
    assert_null(strchr(line, '\n'));
    if (!strstr(line, part))
        fail_msg("'%s' does not say '%s'", line, part);
}

static void nobody(void *user, uint64_t stream)
{
    (void)user;
    (void)stream;
}

static void nothing(void *user, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    (void)user;
    (void)tunnel;
    (void)flow;
    (void)p;
    (void)n;
}

typedef struct attempt {
    const char *what, *upstream;
    int error;
    const char *part; /* of the line */
} attempt;

static void try_all(rig *r, const attempt *a, size_t n, const tunnel_options *o)
{
    uint64_t last = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = 0;
        int rc = tunnel_client_forward(r->client, a[i].what, a[i].upstream, o, &id, r->detail,
                                       sizeof(r->detail));
        if (rc != a[i].error)
            fail_msg("'%s' to '%s': %d instead of %d: %s", a[i].what, a[i].upstream, rc, a[i].error,
                     r->detail);
        assert_int_equal(
            tunnel_client_forward(r->client, a[i].what, a[i].upstream, o, NULL, NULL, 0),
            a[i].error);
        if (rc) {
            assert_line(r->detail, a[i].part);
            continue;
        }
        assert_true(id > last);
        last = id + 1;
        assert_int_equal(tunnel_client_unpublish(r->client, id), 0);
        assert_int_equal(tunnel_client_unpublish(r->client, id), TUNNEL_E_NOT_FOUND);
        assert_int_equal(tunnel_client_unpublish(r->client, last), 0);
    }
}

#define TRY(r, list, o) try_all((r), (list), sizeof(list) / sizeof(*(list)), (o))

static void names(void **state)
{
    (void)state;
    static const attempt cases[] = {
        {"http://", "3000", 0, NULL},
        {"http://@", "3000", 0, NULL},
        {"http://demo", "3000", 0, NULL},
        {"http://*.demo", "3000", 0, NULL},
        {"http://app.example.org", "3000", 0, NULL},
        {"http://*.example.org", "3000", 0, NULL},
        {"tls://", "3000", 0, NULL},
        {"tls://@", "3000", 0, NULL},
        {"tls://secure", "3000", 0, NULL},
        {"tls://*.secure", "3000", 0, NULL},
        {"tls://db.example.org", "3000", 0, NULL},
        {"demo", "3000", TUNNEL_E_INVALID, "http://NAME"},
        {"", "3000", TUNNEL_E_INVALID, "http://NAME"},
        {"https://demo", "3000", TUNNEL_E_INVALID, "http://NAME"},
        {"ftp://demo", "3000", TUNNEL_E_INVALID, "http://NAME"},
        {"http:/demo", "3000", TUNNEL_E_INVALID, "http://NAME"},
        {"http://Demo", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://-a", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://a_b", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://@@", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://@.demo", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://*", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://*.", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://*.*.demo", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://a*.example.org", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://demo/", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://demo:80", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://demo\n", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"a\nb", "3000", TUNNEL_E_INVALID, "a?b"},
        {"http://demo", "a\nb", TUNNEL_E_INVALID, "a?b"},
        {"http://demo ", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://app..org", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://app.example.org.", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://192.0.2.1", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
        {"http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "3000",
         TUNNEL_E_NAME_INVALID, "DNS label"},
        {"tls://demo:443", "3000", TUNNEL_E_NAME_INVALID, "DNS label"},
    };
    rig r;
    char what[300] = "http://";
    rig_open(&r);
    TRY(&r, cases, NULL);
    /* The longest domain, and a longer one. */
    for (size_t i = 0; i < 253; i++)
        what[7 + i] = i % 50 == 49 ? '.' : 'a';
    what[7 + 253] = '\0';
    const attempt longest[] = {{what, "3000", 0, NULL}};
    TRY(&r, longest, NULL);
    memcpy(what + 7 + 253, "a", 2);
    const attempt longer[] = {{what, "3000", TUNNEL_E_NAME_INVALID, "DNS label"}};
    TRY(&r, longer, NULL);
    rig_close(&r);
}

static void public_ports(void **state)
{
    (void)state;
    static const attempt cases[] = {
        {"tcp://:20022", "22", 0, NULL},
        {"tcp://:0", "22", 0, NULL},
        {"tcp://:", "22", 0, NULL},
        {"tcp://", "22", 0, NULL},
        {"tcp://:65535", "22", 0, NULL},
        {"udp://:5353", "53", 0, NULL},
        {"udp://:", "53", 0, NULL},
        {"tcp://:65536", "22", TUNNEL_E_INVALID, "1 to 65535"},
        {"tcp://:99999999999999999999", "22", TUNNEL_E_INVALID, "1 to 65535"},
        {"udp://:70000", "53", TUNNEL_E_INVALID, "1 to 65535"},
        {"tcp://20022", "22", TUNNEL_E_INVALID, "tcp://:PORT"},
        {"tcp://host:20022", "22", TUNNEL_E_INVALID, "tcp://:PORT"},
        {"tcp://:-1", "22", TUNNEL_E_INVALID, "tcp://:PORT"},
        {"tcp://:22x", "22", TUNNEL_E_INVALID, "tcp://:PORT"},
        {"tcp://:22/", "22", TUNNEL_E_INVALID, "tcp://:PORT"},
        {"udp://@", "53", TUNNEL_E_INVALID, "udp://:PORT"},
    };
    rig r;
    rig_open(&r);
    TRY(&r, cases, NULL);
    rig_close(&r);
}

static void addresses(void **state)
{
    (void)state;
    static const attempt cases[] = {
        {"http://demo", "host:3000", 0, NULL},
        {"http://demo", "[::1]:80", 0, NULL},
        {"http://demo", "http://host", 0, NULL},
        /* The service may come up later. */
        {"http://demo", "unix:/there/is/nothing", 0, NULL},
        {"tcp://:", "unix:/there/is/nothing", 0, NULL},
        {"tls://demo", "unix:/there/is/nothing", 0, NULL},
        {"http://demo", "https://localhost:3000", 0, NULL},
        {"tcp://:", "https://localhost:3000", 0, NULL},
        {"udp://:", "host:53", 0, NULL},
        {"udp://:", "[::1]:53", 0, NULL},
        {"http://demo", "", TUNNEL_E_INVALID, "host:port"},
        {"http://demo", "host", TUNNEL_E_INVALID, "host:port"},
        {"http://demo", "0", TUNNEL_E_INVALID, "host:port"},
        {"http://demo", "65536", TUNNEL_E_INVALID, "host:port"},
        {"http://demo", "tcp://host:22", TUNNEL_E_INVALID, "host:port"},
        {"http://demo", "unix:relative", TUNNEL_E_INVALID, "unix:/path"},
        {"http://demo", "unix:", TUNNEL_E_INVALID, "unix:/path"},
        {"udp://:", "unix:/x", TUNNEL_E_INVALID, "udp has no unix sockets"},
        {"udp://:", "https://host:53", TUNNEL_E_INVALID, "for udp"},
        {"udp://:", "http://host:53", TUNNEL_E_INVALID, "for udp"},
        {"tls://demo", "https://host:3000", TUNNEL_E_INVALID, "TLS already"},
    };
    rig r;
    rig_open(&r);
    TRY(&r, cases, NULL);
    rig_close(&r);
}

static void ports_behind_a_client(void **state)
{
    (void)state;
    static const attempt cases[] = {
        {"http://demo", "ports:22,8000-8100", 0, NULL},
        {"http://", "ports:22", 0, NULL},
        {"http://app.example.org", "ports:1-65535", 0, NULL},
        {"tls://demo", "ports:443", 0, NULL},
        {"http://demo", "ports:", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:none", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:0", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:22,0", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:65536", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:9-8", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:22, 23", TUNNEL_E_INVALID, "list of ports"},
        {"http://demo", "ports:host:22", TUNNEL_E_INVALID, "list of ports"},
        {"http://@", "ports:22", TUNNEL_E_NAME_INVALID, "name of their own"},
        {"http://*.demo", "ports:22", TUNNEL_E_NAME_INVALID, "name of their own"},
        {"tls://*.example.org", "ports:22", TUNNEL_E_NAME_INVALID, "name of their own"},
        {"tcp://:22", "ports:22", TUNNEL_E_INVALID, "not with tcp://"},
        {"udp://:22", "ports:22", TUNNEL_E_INVALID, "not with udp://"},
    };
    rig r;
    char many[400] = "ports:";
    rig_open(&r);
    TRY(&r, cases, NULL);
    for (unsigned port = 1; port <= 65; port++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "%s%u", port > 1 ? "," : "",
                 port * 2);
    const attempt too_many[] = {{"http://demo", many, TUNNEL_E_INVALID, "at most 64"}};
    TRY(&r, too_many, NULL);
    rig_close(&r);
}

static void folders(void **state)
{
    (void)state;
    char folder[] = "/tmp/tunnel-api-XXXXXX", upstream[64], file[64];
    rig r;
    assert_non_null(mkdtemp(folder));
    snprintf(upstream, sizeof(upstream), "files:%s", folder);
    snprintf(file, sizeof(file), "files:%s/page", folder);
    FILE *f = fopen(file + 6, "w");
    assert_non_null(f);
    fclose(f);
    const attempt cases[] = {
        {"http://demo", upstream, 0, NULL},
        {"http://*.example.org", upstream, 0, NULL},
        {"http://demo", "files:.", 0, NULL},
        {"http://demo", "files:", TUNNEL_E_INVALID, "no folder"},
        {"http://demo", "files:/there/is/nothing", TUNNEL_E_NOT_FOUND, "/there/is/nothing"},
        {"http://demo", file, TUNNEL_E_INVALID, file + 6},
        {"tcp://:", upstream, TUNNEL_E_INVALID, "not with tcp://"},
        {"tls://demo", upstream, TUNNEL_E_INVALID, "not with tls://"},
    };
    rig_open(&r);
    TRY(&r, cases, NULL);
    rig_close(&r);
    unlink(file + 6);
    rmdir(folder);
}

/* Options that a kind of tunnel would take no notice of are refused. */
static void options_go_with_their_kind(void **state)
{
    (void)state;
    rig r;
    tunnel_options *o;
    rig_open(&r);

    static const attempt with_host[] = {
        {"http://demo", "3000", 0, NULL},
        {"http://demo", "ports:22", 0, NULL},
        {"http://demo", "files:.", TUNNEL_E_INVALID, "Host header"},
        {"tcp://:", "22", TUNNEL_E_INVALID, "Host header"},
        {"tls://demo", "22", TUNNEL_E_INVALID, "Host header"},
        {"udp://:", "22", TUNNEL_E_INVALID, "Host header"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_host_header(o, "app.test"), 0);
    TRY(&r, with_host, o);
    tunnel_options_free(o);

    static const attempt with_path[] = {
        {"http://", "3000", 0, NULL},
        {"http://", "files:.", 0, NULL},
        {"http://demo", "3000", TUNNEL_E_INVALID, "'demo'"},
        {"http://@", "3000", TUNNEL_E_INVALID, "'@'"},
        {"http://app.example.org", "3000", TUNNEL_E_INVALID, "'app.example.org'"},
        {"http://", "ports:22", TUNNEL_E_INVALID, "path id"},
        {"tls://", "3000", TUNNEL_E_INVALID, "path id"},
        {"tcp://:", "22", TUNNEL_E_INVALID, "path id"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_path_id(o, "My~id_1.%-"), 0);
    TRY(&r, with_path, o);
    tunnel_options_free(o);

    static const attempt with_proxy[] = {
        {"http://demo", "3000", 0, NULL},
        {"http://demo", "unix:/x", 0, NULL},
        {"http://demo", "ports:22", 0, NULL},
        {"tcp://:", "22", 0, NULL},
        {"tls://demo", "22", 0, NULL},
        {"http://demo", "files:.", TUNNEL_E_INVALID, "PROXY protocol"},
        {"http://demo", "https://localhost:1", TUNNEL_E_INVALID, "PROXY protocol"},
        {"udp://:", "22", TUNNEL_E_INVALID, "PROXY protocol"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_proxy_protocol(o, 2), 0);
    TRY(&r, with_proxy, o);
    tunnel_options_free(o);

    static const attempt with_idle[] = {
        {"udp://:", "22", 0, NULL},
        {"tcp://:", "22", TUNNEL_E_INVALID, "udp"},
        {"http://demo", "22", TUNNEL_E_INVALID, "udp"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_idle_timeout(o, 1000), 0);
    TRY(&r, with_idle, o);
    tunnel_options_free(o);

    rig_close(&r);
}

static void options_with_files(void **state)
{
    (void)state;
    rig r;
    test_certs certs;
    tunnel_options *o;
    char ca[160], cert[160], key[160], other[160];
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "one", .names = "localhost", .ca = true});
    test_certs_make(&certs, &(test_cert_spec){.file = "other", .names = "localhost"});
    snprintf(ca, sizeof(ca), "%s", test_certs_path(&certs, "one.crt"));
    snprintf(cert, sizeof(cert), "%s", test_certs_path(&certs, "one.crt"));
    snprintf(key, sizeof(key), "%s", test_certs_path(&certs, "one.key"));
    snprintf(other, sizeof(other), "%s", test_certs_path(&certs, "other.key"));
    rig_open(&r);

    static const attempt with_ca[] = {
        {"http://demo", "https://host:1", 0, NULL},
        {"tcp://:", "https://host:1", 0, NULL},
        {"http://demo", "host:1", TUNNEL_E_INVALID, "https://host:port"},
        {"http://demo", "http://host:1", TUNNEL_E_INVALID, "https://host:port"},
        {"http://demo", "unix:/x", TUNNEL_E_INVALID, "https://host:port"},
        {"http://demo", "files:.", TUNNEL_E_INVALID, "https://host:port"},
        {"udp://:", "22", TUNNEL_E_INVALID, "https://host:port"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_upstream_ca_file(o, ca), 0);
    TRY(&r, with_ca, o);
    assert_int_equal(tunnel_options_set_upstream_ca_file(o, "/there/is/nothing"), 0);
    static const attempt no_ca[] = {
        {"http://demo", "https://host:1", TUNNEL_E_NOT_FOUND, "/there/is/nothing"}};
    TRY(&r, no_ca, o);
    tunnel_options_free(o);

    static const attempt with_cert[] = {
        {"tls://demo", "22", 0, NULL},
        {"tls://demo", "ports:22", 0, NULL},
        {"http://demo", "22", TUNNEL_E_INVALID, "tls://NAME"},
        {"tcp://:", "22", TUNNEL_E_INVALID, "tls://NAME"},
        {"udp://:", "22", TUNNEL_E_INVALID, "tls://NAME"},
    };
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_certificate(o, cert, key), 0);
    TRY(&r, with_cert, o);
    static const attempt no_cert[] = {
        {"tls://demo", "22", TUNNEL_E_NOT_FOUND, "/there/is/nothing"}};
    assert_int_equal(tunnel_options_set_certificate(o, "/there/is/nothing", key), 0);
    TRY(&r, no_cert, o);
    assert_int_equal(tunnel_options_set_certificate(o, cert, other), 0);
    static const attempt wrong_key[] = {{"tls://demo", "22", TUNNEL_E_CERTIFICATE, ""}};
    TRY(&r, wrong_key, o);
    tunnel_options_free(o);

    rig_close(&r);
    test_certs_close(&certs);
}

static void values_of_options(void **state)
{
    (void)state;
    tunnel_options *o;
    char text[600];
    assert_int_equal(tunnel_options_new(&o), 0);
    static const char *const ids[] = {"a", "...", "%20", "-", "A.b_c~d%-9"};
    static const char *const no_ids[] = {"", ".", "..", "a b", "a/b", "a?", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
        assert_int_equal(tunnel_options_set_path_id(o, ids[i]), 0);
    assert_string_equal(tunnel_options_error(o), "");
    for (size_t i = 0; i < sizeof(no_ids) / sizeof(*no_ids); i++)
        if (tunnel_options_set_path_id(o, no_ids[i]) != TUNNEL_E_INVALID)
            fail_msg("taken: '%s'", no_ids[i]);
    assert_line(tunnel_options_error(o), "path id");
    memset(text, 'x', sizeof(text));
    text[129] = '\0';
    assert_int_equal(tunnel_options_set_path_id(o, text), TUNNEL_E_INVALID);
    text[128] = '\0';
    assert_int_equal(tunnel_options_set_path_id(o, text), 0);

    assert_int_equal(tunnel_options_set_proxy_protocol(o, 0), 0);
    assert_int_equal(tunnel_options_set_proxy_protocol(o, 1), 0);
    assert_int_equal(tunnel_options_set_proxy_protocol(o, 3), TUNNEL_E_INVALID);
    assert_line(tunnel_options_error(o), "PROXY");
    assert_int_equal(tunnel_options_set_proxy_protocol(o, -1), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_options_set_idle_timeout(o, 999), TUNNEL_E_INVALID);
    assert_line(tunnel_options_error(o), "1000 to 3600000");
    assert_int_equal(tunnel_options_set_idle_timeout(o, 3600001), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_options_set_idle_timeout(o, 3600000), 0);
    assert_int_equal(tunnel_options_set_certificate(o, "", "/x"), TUNNEL_E_INVALID);
    assert_int_equal(tunnel_options_set_certificate(o, "/x", ""), TUNNEL_E_INVALID);
    assert_line(tunnel_options_error(o), "certificate");
    assert_int_equal(tunnel_options_set_certificate(o, "/x", "/y"), 0);
    assert_int_equal(tunnel_options_set_certificate(o, "/a", "/b"), 0);
    assert_string_equal(tunnel_options_error(o), "");
    for (unsigned i = 1; i <= 2; i++) {
        memory.fail_at = memory.count + i;
        assert_int_equal(tunnel_options_set_certificate(o, "/c", "/d"), TUNNEL_E_NOMEM);
    }
    memory.fail_at = 0;
    tunnel_options_free(o);
    assert_int_equal(memory.live, 0);
}

static void listening(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int streams, datagrams;
    } cases[] = {
        {"http://demo", 0, TUNNEL_E_INVALID},
        {"tls://", 0, TUNNEL_E_INVALID},
        {"tcp://:", 0, TUNNEL_E_INVALID},
        {"udp://:", TUNNEL_E_INVALID, 0},
        {"demo", TUNNEL_E_INVALID, TUNNEL_E_INVALID},
    };
    rig r;
    tunnel_options *o;
    rig_open(&r);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t id = 0;
        int rc = tunnel_client_listen(r.client, cases[i].what, NULL, nobody, NULL, &id, r.detail,
                                      sizeof(r.detail));
        assert_int_equal(rc, cases[i].streams);
        if (rc)
            assert_line(r.detail, "");
        assert_int_equal(rc == 0, id != 0);
        rc = tunnel_client_listen_datagrams(r.client, cases[i].what, NULL, nothing, NULL, &id,
                                            r.detail, sizeof(r.detail));
        assert_int_equal(rc, cases[i].datagrams);
        if (rc)
            assert_line(r.detail, "");
    }
    assert_int_equal(tunnel_client_listen(r.client, "tcp://:", NULL, NULL, NULL, NULL, r.detail,
                                          sizeof(r.detail)),
                     TUNNEL_E_INVALID);
    assert_line(r.detail, "callback");
    /* Nothing is forwarded that a header could go before. */
    assert_int_equal(tunnel_options_new(&o), 0);
    assert_int_equal(tunnel_options_set_proxy_protocol(o, 1), 0);
    assert_int_equal(tunnel_client_listen(r.client, "tcp://:", o, nobody, NULL, NULL, r.detail,
                                          sizeof(r.detail)),
                     TUNNEL_E_INVALID);
    assert_line(r.detail, "PROXY protocol");
    tunnel_options_free(o);
    rig_close(&r);
}

static void their_number_is_bounded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    for (int i = 0; i < 64; i++)
        assert_int_equal(tunnel_client_forward(r.client, "http://", "files:.", NULL, NULL, NULL, 0),
                         0);
    assert_int_equal(tunnel_client_forward(r.client, "http://", "files:.", NULL, NULL, r.detail,
                                           sizeof(r.detail)),
                     TUNNEL_E_LIMIT);
    assert_line(r.detail, "64 tunnels");
    rig_close(&r);
}

static void each_allocation_can_fail(void **state)
{
    (void)state;
    test_certs certs;
    test_certs_open(&certs);
    test_certs_make(&certs, &(test_cert_spec){.file = "one", .names = "localhost"});
    static const char *const far[] = {"files:.", "https://localhost:1", "22"};
    for (size_t k = 0; k < sizeof(far) / sizeof(*far); k++) {
        for (unsigned long i = 1;; i++) {
            rig r;
            tunnel_options *o;
            rig_open(&r);
            assert_int_equal(tunnel_options_new(&o), 0);
            if (k == 2)
                assert_int_equal(tunnel_options_set_certificate(o,
                                                                test_certs_path(&certs, "one.crt"),
                                                                test_certs_path(&certs, "one.key")),
                                 0);
            memory.fail_at = memory.count + i;
            int rc = tunnel_client_forward(r.client, k == 2 ? "tls://" : "http://", far[k], o, NULL,
                                           r.detail, sizeof(r.detail));
            memory.fail_at = 0;
            if (rc)
                assert_line(r.detail, "");
            tunnel_options_free(o);
            rig_close(&r);
            if (rc == 0)
                break;
        }
    }
    test_certs_close(&certs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(public_ports),
        cmocka_unit_test(addresses),
        cmocka_unit_test(ports_behind_a_client),
        cmocka_unit_test(folders),
        cmocka_unit_test(options_go_with_their_kind),
        cmocka_unit_test(options_with_files),
        cmocka_unit_test(values_of_options),
        cmocka_unit_test(listening),
        cmocka_unit_test(their_number_is_bounded),
        cmocka_unit_test(each_allocation_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
