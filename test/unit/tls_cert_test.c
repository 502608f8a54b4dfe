/* SPDX-License-Identifier: Apache-2.0 */
#include "tls/tls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/check.h"
#include "support/peer.h"
#include "support/tls_rig.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

/* --- certificates ----------------------------------------------------------------------------- */

/* Connects and waits for both ends to be ready, or closed. */
static tls_rig *attempt(const char *const *server_certs, const char *ca, const char *name)
{
    tls_rig *r = malloc(sizeof(*r));
    assert_non_null(r);
    tls_rig_open(r, NULL, ca);
    while (*server_certs)
        tls_rig_add(r->server, *server_certs++);
    tls_rig_connect(r, name);
    UNTIL(&r->l, (r->c.readies || r->c.closes) && (r->s.readies || r->s.closes));
    for (int i = 0; i < 3; i++)
        test_turn(&r->l);
    return r;
}

#define CERTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void accepted(const char *const *server_certs, const char *ca, const char *name)
{
    tls_rig *r = attempt(server_certs, ca, name);
    if (!r->c.readies || r->c.closes)
        fail_msg("%s: %s", name, r->c.detail);
    tls_rig_free(r);
}

static void refused(const char *const *server_certs, const char *ca, const char *name,
                    const char *words)
{
    tls_rig *r = attempt(server_certs, ca, name);
    assert_int_equal(r->c.readies, 0);
    assert_int_equal(r->c.closes, 1);
    if (r->c.error != TUNNEL_E_CERTIFICATE || !strstr(r->c.detail, words))
        fail_msg("%s: %d, %s", name, r->c.error, r->c.detail);
    UNTIL(&r->l, r->s.closes);
    assert_int_equal(r->s.error, TUNNEL_E_TLS);
    tls_rig_free(r);
}

static void certificates_are_verified(void **state)
{
    (void)state;
    accepted(CERTS("a"), "ca", "a.test");
    accepted(CERTS("a"), "ca", "A.Test.");
    accepted(CERTS("a"), "ca", "localhost");
    accepted(CERTS("a"), "ca", "127.0.0.1");
    accepted(CERTS("b"), "ca", "b.test");
    accepted(CERTS("stranger"), "stranger", "a.test");
    refused(CERTS("a"), "stranger", "a.test", "not signed by an authority trusted here");
    refused(CERTS("stranger"), "ca", "a.test", "not signed by an authority trusted here");
    refused(CERTS("a"), "ca", "other.test", "for another name (127.0.0.1, localhost, a.test)");
    refused(CERTS("a"), "ca", "127.0.0.2", "for another name");
    refused(CERTS("a"), "ca", "::1", "for another name");
    refused(CERTS("b"), "ca", "127.0.0.1", "for another name (b.test)");
    refused(CERTS("old"), "ca", "a.test", "the certificate of a.test expired on 2021-02-03");
    refused(CERTS("future"), "ca", "a.test", "is valid only from 2048-01-01");
    /* Without verification all of them do. */
    accepted(CERTS("stranger"), NULL, "x.test");
    accepted(CERTS("old"), NULL, "127.0.0.1");
}

static void certificates_are_chosen_by_name(void **state)
{
    (void)state;
    const char *const *all = CERTS("a", "b", "wild", "cn");
    accepted(all, "ca", "a.test");
    accepted(all, "ca", "b.test");
    accepted(all, "ca", "B.TEST.");
    accepted(all, "ca", "x.wild.test");
    accepted(all, "ca", "cn.test");
    accepted(all, "ca", "127.0.0.1"); /* sends no name: the first one */
    refused(all, "ca", "wild.test", "for another name (127.0.0.1, localhost, a.test)");
    refused(all, "ca", "x.y.wild.test", "for another name (127.0.0.1, localhost, a.test)");
    refused(all, "ca", "unknown.test", "for another name (127.0.0.1, localhost, a.test)");
    /* A name beats a wildcard. */
    refused(CERTS("a", "wild", "exact-stranger"), "ca", "x.wild.test", "not signed");
}

static void what_is_covered_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool covered;
    } cases[] = {{"a.test", true},         {"localhost", true}, {"x.wild.test", true},
                 {"b.test", true},         {"cn.test", true},   {"wild.test", false},
                 {"x.y.wild.test", false}, {"c.test", false},   {"", false}};
    tnl_tls_server *s;
    assert_int_equal(tnl_tls_server_new_any(&s), 0);
    assert_false(tnl_tls_server_covers(s, "a.test"));
    for (const char *const *cert = CERTS("a", "wild", "b", "cn"); *cert; cert++)
        tls_rig_add(s, *cert);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(tnl_tls_server_covers(s, cases[i].name), cases[i].covered);
    tnl_tls_server_unref(s);
}

static void add_fails(const char *cert_path, const char *key_path, int error, const char *words)
{
    char detail[256] = "", cert[256], key[256];
    snprintf(cert, sizeof(cert), "%s", cert_path);
    snprintf(key, sizeof(key), "%s", key_path);
    tnl_tls_server *s;
    assert_int_equal(tnl_tls_server_new(&s), 0);
    int rc = tnl_tls_server_add(s, cert, key, detail, sizeof(detail));
    if (rc != error || !strstr(detail, words))
        fail_msg("%d, %s", rc, detail);
    assert_int_equal(tnl_tls_server_add(s, cert, key, NULL, 0), error);
    tls_rig_add(s, "a");
    tnl_tls_server_unref(s);
}

static void write_text(const char *file, const char *text)
{
    FILE *f = fopen(test_certs_path(&tls_rig_certs, file), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void bad_files_are_explained(void **state)
{
    (void)state;
    char detail[256];
    tnl_tls_client *c;
    char crt[256], key[256];
    snprintf(crt, sizeof(crt), "%s", tls_rig_path("a", ".crt"));
    snprintf(key, sizeof(key), "%s", tls_rig_path("a", ".key"));
    add_fails("/nonexistent.crt", key, TUNNEL_E_NOT_FOUND, "/nonexistent.crt: no such file");
    add_fails(crt, "/nonexistent.key", TUNNEL_E_NOT_FOUND, "/nonexistent.key: no such file");
    add_fails(crt, tls_rig_path("b", ".key"), TUNNEL_E_CERTIFICATE,
              "is not the key of the first certificate in");
    add_fails(crt, tls_rig_path("wild", ".key"), TUNNEL_E_CERTIFICATE, "is not the key of");
    add_fails(key, crt, TUNNEL_E_CERTIFICATE, "are the two files exchanged?");
    add_fails(crt, crt, TUNNEL_E_CERTIFICATE, "a certificate, not a private key");
    add_fails("/tmp", key, TUNNEL_E_CERTIFICATE, "/tmp: a directory, not a PEM file");
    add_fails("/dev/zero", key, TUNNEL_E_CERTIFICATE, "too big");
    write_text("empty", "");
    write_text("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    add_fails(tls_rig_path("empty", ""), key, TUNNEL_E_CERTIFICATE,
              "not a certificate in PEM form");
    add_fails(tls_rig_path("garbage", ""), key, TUNNEL_E_CERTIFICATE,
              "not a certificate in PEM form");
    add_fails(crt, tls_rig_path("empty", ""), TUNNEL_E_CERTIFICATE,
              "not a private key in PEM form");
    if (geteuid() != 0) {
        chmod(tls_rig_path("garbage", ""), 0);
        add_fails(tls_rig_path("garbage", ""), key, TUNNEL_E_ACCESS, "check its permissions");
    }
    assert_int_equal(tnl_tls_client_new(&c, "/nonexistent", true, detail, sizeof(detail)),
                     TUNNEL_E_NOT_FOUND);
    assert_string_equal(detail, "/nonexistent: no such file");
    assert_int_equal(
        tnl_tls_client_new(&c, tls_rig_path("empty", ""), true, detail, sizeof(detail)),
        TUNNEL_E_CERTIFICATE);
    /* The system's store, if it has one. */
    int rc = tnl_tls_client_new(&c, NULL, true, detail, sizeof(detail));
    assert_true(rc == 0 || rc == TUNNEL_E_NOT_FOUND);
    tnl_tls_client_unref(c);
}

/* --- the openssl command
 * ---------------------------------------------------------------------------- */

typedef struct openssl {
    test_loop l;
    tnl_listener *listener;
    tnl_tls_server *server;
    test_peer p;
    int accepted;
} openssl;

static void on_openssl(void *user, tnl_conn *lower)
{
    openssl *o = user;
    tnl_conn *c;
    o->accepted++;
    assert_int_equal(tnl_tls_accept(&c, o->server, lower, NULL, 0, &test_peer_events, &o->p), 0);
    o->p.c = c;
    tnl_conn_resume(c);
}

/* Runs openssl s_client with `options` against a server that echoes; its output is in `out`. */
static void s_client(openssl *o, const char *options, char *out, size_t size)
{
    char command[600];
    o->p.received = o->p.eofs = o->p.readies = o->p.closes = 0;
    o->p.echo = o->p.echo_end = true;
    snprintf(
        command, sizeof(command),
        "cd %s && (printf 'hello\\n'; sleep 0.3) | timeout 10 openssl s_client -connect 127.0.0.1:%d "
        "-CAfile ca.crt -verify_return_error -nameopt RFC2253 %s 2>&1",
        tls_rig_certs.folder, tnl_listener_address(o->listener).port, options);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    fcntl(fileno(f), F_SETFL, O_NONBLOCK);
    size_t n = 0;
    for (;;) {
        ssize_t got = read(fileno(f), out + n, size - 1 - n);
        if (got > 0)
            n += (size_t)got;
        else if (got == 0)
            break;
        assert_true(test_turn(&o->l));
    }
    out[n] = '\0';
    pclose(f);
    if (o->p.c)
        tnl_conn_close(o->p.c);
    UNTIL(&o->l, !o->p.c);
}

static void expect(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("no \"%s\" in: %s", words, text);
}

static void openssl_clients_are_served(void **state)
{
    (void)state;
    openssl o = {0};
    char *out = malloc(65536);
    if (system("command -v openssl >/dev/null") != 0)
        skip();
    test_loop_open(&o.l);
    test_peer_init(&o.p);
    assert_int_equal(tnl_tls_server_new(&o.server), 0);
    tls_rig_add(o.server, "a");
    tls_rig_add(o.server, "b");
    assert_int_equal(
        tnl_listener_new(&o.listener, o.l.loop, "127.0.0.1:0", on_openssl, &o, NULL, 0), 0);

    const char *const flags[] = {"-tls1_2", "-tls1_3"};
    for (size_t i = 0; i < 2; i++) {
        char options[200];
        snprintf(options, sizeof(options), "%s -servername b.test -alpn h2,http/1.1 -sess_out s",
                 flags[i]);
        s_client(&o, options, out, 65536);
        expect(out, "Verify return code: 0");
        expect(out, "subject=CN=b.test");
        expect(out, "ALPN protocol: http/1.1");
        expect(out, i ? "TLSv1.3" : "TLSv1.2");
        expect(out, "hello");
        assert_int_equal(o.p.received, 6);
        snprintf(options, sizeof(options), "%s -servername b.test -sess_in s", flags[i]);
        s_client(&o, options, out, 65536);
        expect(out, "Reused, ");
        expect(out, "hello");
    }
    s_client(&o, "-alpn h2", out, 65536);
    expect(out, "no application protocol");
    assert_non_null(strstr(o.p.detail, "does not speak HTTP/1.1"));
    s_client(&o, "-tls1_1 -cipher DEFAULT@SECLEVEL=0", out, 65536);
    expect(out, "alert protocol version");
    s_client(&o, "-tls1_2 -cipher AES128-SHA256", out, 65536);
    expect(out, "handshake failure");
    s_client(&o, "-tls1_3 -groups P-384", out, 65536);
    expect(out, "hello");
    s_client(&o, "-cipher ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256 -tls1_2", out,
             65536);
    expect(out, "ECDHE-ECDSA-CHACHA20-POLY1305");

    tnl_listener_free(o.listener);
    tnl_tls_server_unref(o.server);
    test_loop_close(&o.l);
    test_peer_free(&o.p);
    free(out);
}

static void on_lower(void *user, int error, const char *detail, tnl_conn *c)
{
    (void)detail;
    test_peer *p = user;
    if (error == 0)
        test_peer_attach(p, c);
    else
        p->error = error;
}

static void openssl_servers_are_met(void **state)
{
    (void)state;
    if (system("command -v openssl >/dev/null") != 0)
        skip();
    const char *const flags[] = {"-tls1_2", "-tls1_3"};
    for (size_t i = 0; i < 2; i++) {
        test_loop l;
        test_peer p;
        tnl_tls_client *client;
        tnl_connect *connect;
        tnl_conn *c;
        char command[300];
        test_loop_open(&l);
        test_peer_init(&p);
        /* A port that was free a moment ago. */
        tnl_listener *free_port;
        assert_int_equal(
            tnl_listener_new(&free_port, l.loop, "127.0.0.1:0", on_openssl, NULL, NULL, 0), 0);
        uint16_t port = tnl_listener_address(free_port).port;
        tnl_listener_free(free_port);
        test_turn(&l);
        snprintf(
            command, sizeof(command),
            "cd %s && exec timeout 20 openssl s_server -accept 127.0.0.1:%d -cert a.crt -key a.key "
            "-rev -quiet -naccept 1 %s >/dev/null 2>&1",
            tls_rig_certs.folder, port, flags[i]);
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", command, (char *)NULL);
            _exit(127);
        }
        while (!p.c) {
            p.error = 0;
            assert_int_equal(
                tnl_connect_start(&connect, l.loop, "127.0.0.1", port, NULL, 1000, on_lower, &p),
                0);
            UNTIL(&l, p.c || p.error);
            for (int t = 0; t < 5 && !p.c; t++)
                assert_true(test_turn(&l));
        }
        assert_int_equal(tnl_tls_client_new(&client, tls_rig_path("ca", ".crt"), true, NULL, 0), 0);
        assert_int_equal(tnl_tls_connect(&c, client, p.c, "a.test", &test_peer_events, &p), 0);
        p.c = c;
        UNTIL(&l, p.readies || p.closes);
        if (p.closes)
            fail_msg("%s", p.detail);
        tnl_conn_resume(c);
        assert_int_equal(test_send(c, "hello\n", 6), 0);
        UNTIL(&l, p.received == 6);
        assert_memory_equal(p.bytes, "olleh\n", 6);
        tnl_conn_finish(c);
        UNTIL(&l, p.closes);
        tnl_tls_client_unref(client);
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
        test_loop_close(&l);
        test_peer_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificates_are_verified),
        cmocka_unit_test(certificates_are_chosen_by_name),
        cmocka_unit_test(what_is_covered_is_known),
        cmocka_unit_test(bad_files_are_explained),
        cmocka_unit_test(openssl_clients_are_served),
        cmocka_unit_test(openssl_servers_are_met),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, tls_rig_make_certs, tls_rig_remove_certs);
}
