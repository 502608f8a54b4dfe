/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/conn.h"
#include "support/check.h"
#include "support/nomem.h"
#include "support/peer.h"
#include "support/tls_rig.h"
#include "tls/tls.h"
#include "tunnel/error.h"

/* Every allocation of connecting, listening, TLS and an echo fails once: errors, no leak, no hang,
 * no crash. */

enum { TOTAL = 700 * 1024 };

typedef struct end {
    tnl_conn *c;
    size_t received, sent;
    bool client, begun, gone;
    int error;
    uint8_t buffer[64 * 1024];
} end;

typedef struct scene {
    test_loop l;
    tnl_listener *listener;
    tnl_tls_server *server;
    tnl_tls_client *client;
    end c, s;
    int connect_error;
    bool connected;
} scene;

static size_t on_space(void *user, uint8_t **p)
{
    end *e = user;
    *p = e->buffer;
    return sizeof(e->buffer);
}

static void feed(end *e)
{
    static const uint8_t piece[100 * 1024];
    while (e->sent < TOTAL && tnl_conn_pending(e->c) == 0) {
        if (test_send(e->c, piece, sizeof(piece)))
            return;
        e->sent += sizeof(piece);
    }
    if (e->sent >= TOTAL)
        tnl_conn_shutdown(e->c);
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    end *e = user;
    e->received += n;
    if (e->client)
        return;
    test_send(e->c, p, n);
    if (tnl_conn_pending(e->c))
        tnl_conn_pause(e->c);
}

static void on_eof(void *user)
{
    end *e = user;
    tnl_conn_finish(e->c);
}

static void on_drained(void *user)
{
    end *e = user;
    if (e->client)
        feed(e);
    else
        tnl_conn_resume(e->c);
}

static void on_ready(void *user)
{
    end *e = user;
    tnl_conn_resume(e->c);
    if (e->client)
        feed(e);
}

static void on_closed(void *user, int error, const char *detail)
{
    end *e = user;
    assert_non_null(detail);
    e->error = error;
    e->gone = true;
}

static const tnl_conn_events events = {
    .space = on_space,
    .data = on_data,
    .eof = on_eof,
    .drained = on_drained,
    .ready = on_ready,
    .closed = on_closed,
};

static void begin(end *e, tnl_conn *c)
{
    e->begun = true;
    e->c = c;
    tnl_conn_set_events(c, &events, e);
    on_ready(e);
}

static void on_accept(void *user, tnl_conn *c)
{
    scene *s = user;
    if (!s->server)
        begin(&s->s, c);
    else if (tnl_tls_accept(&s->s.c, s->server, c, NULL, 0, &events, &s->s) == 0)
        s->s.begun = true;
    else
        s->s.begun = s->s.gone = true;
}

static void on_connect(void *user, int error, const char *detail, tnl_conn *c)
{
    scene *s = user;
    assert_non_null(detail);
    s->connected = true;
    s->connect_error = error;
    if (error) {
        assert_null(c);
    } else if (!s->client) {
        begin(&s->c, c);
    } else {
        s->c.begun = true;
        s->c.gone = tnl_tls_connect(&s->c.c, s->client, c, "localhost", &events, &s->c) != 0;
    }
}

static bool prepare(scene *s, bool tls)
{
    char detail[256] = "", cert[256], key[256];
    s->c.client = true;
    if (tls) {
        snprintf(cert, sizeof(cert), "%s", tls_rig_path("a", ".crt"));
        snprintf(key, sizeof(key), "%s", tls_rig_path("a", ".key"));
        if (tnl_tls_server_new(&s->server) ||
            tnl_tls_server_add(s->server, cert, key, detail, sizeof(detail)) ||
            tnl_tls_client_new(&s->client, tls_rig_path("ca", ".crt"), true, detail,
                               sizeof(detail)))
            return false;
    }
    return tnl_listener_new(&s->listener, s->l.loop, "127.0.0.1:0", on_accept, s, detail,
                            sizeof(detail)) == 0;
}

static bool play(scene *s, bool tls)
{
    tnl_connect *c;
    if (!prepare(s, tls) ||
        tnl_connect_start(&c, s->l.loop, "localhost", tnl_listener_address(s->listener).port, NULL,
                          5000, on_connect, s))
        return false;
    UNTIL(&s->l, s->connected);
    if (s->connect_error)
        return false;
    UNTIL(&s->l, s->c.begun && s->c.gone);
    /* The last attempt may have been accepted though it was given up. */
    for (int i = 0; i < 3; i++)
        test_turn(&s->l);
    UNTIL(&s->l, !s->s.begun || s->s.gone);
    return s->c.error == 0 && s->s.error == 0 && s->c.received >= TOTAL;
}

/* Returns whether all went well; *tried is how many allocations there were. */
static bool run(bool tls, unsigned failing, unsigned *tried)
{
    scene *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    test_loop_open(&s->l);
    size_t live = test_nomem_live();
    test_nomem_fail(failing, 0);
    bool well = play(s, tls);
    *tried = test_nomem_count();
    test_nomem_fail(0, 0);
    tnl_listener_free(s->listener);
    if (s->s.begun && !s->s.gone)
        tnl_conn_close(s->s.c);
    for (int i = 0; i < 3; i++)
        test_turn(&s->l);
    tnl_tls_server_unref(s->server);
    tnl_tls_client_unref(s->client);
    /* Connections that end by themselves may be under way. */
    UNTIL(&s->l, test_nomem_live() == live);
    test_loop_close(&s->l);
    free(s);
    return well;
}

static void fail_each(bool tls)
{
    unsigned tried, failed = 0;
    assert_true(run(tls, 0, &tried));
    unsigned all = tried;
    for (unsigned n = 1; n <= all; n++)
        failed += !run(tls, n, &tried);
    /* Some can be survived, most end something. */
    assert_true(failed > 0 && failed <= all);
}

static void sockets_survive_want_of_memory(void **state)
{
    (void)state;
    fail_each(false);
}

static void tls_survives_want_of_memory(void **state)
{
    (void)state;
    fail_each(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_survive_want_of_memory),
        cmocka_unit_test(tls_survives_want_of_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, tls_rig_make_certs, tls_rig_remove_certs);
}
