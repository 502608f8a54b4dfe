/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <tunnel/error.h>

#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* Names among accounts that do not know each other: what one has, another one cannot get at. */

enum { FIRST = 1, SECOND, THIRD };

static void allow_any_domain(tnl_server_config *c, void *user)
{
    (void)user;
    snprintf(c->domain, sizeof(c->domain), "tunnel.example.org");
    c->allowed = tnl_calloc(1, sizeof(*c->allowed));
    assert_non_null(c->allowed);
    snprintf(c->allowed[0].pattern, sizeof(c->allowed[0].pattern), "*");
    c->allowed_count = 1;
}

static void route_by_path(tnl_server_config *c, void *user)
{
    (void)user;
    c->path_routing = true;
}

static void start(test_service *s, test_edge *e, const char *token, uint8_t instance)
{
    test_service_start(s, e, token, instance);
    UNTIL(&e->l, s->session);
}

static void publish(test_service *s, uint64_t id, const char *kind, const char *name,
                    const char *domain, const char *path_id)
{
    tnl_publish m = {.tunnel = id,
                     .kind = tnl_str_of(kind),
                     .name = tnl_str_of(name),
                     .domain = tnl_str_of(domain),
                     .path_id = tnl_str_of(path_id)};
    test_service_publish_as(s, &m);
}

/* Every form of a name is its holder's account's. */
static void a_name_is_taken_in_all_forms(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *name, *path_id;
        bool ports;
    } forms[] = {{"http", "demo", "", false},   {"http", "DEMO", "", true},
                 {"http", "*.demo", "", false}, {"tls", "demo", "", false},
                 {"tls", "demo", "", true},     {"tls", "*.Demo", "", false},
                 {"http", "", "demo", false}};
    enum { FORMS = sizeof(forms) / sizeof(*forms) };
    test_edge e;
    test_service one, other;
    test_edge_options o = {.configure = route_by_path};
    assert_int_equal(test_edge_open(&e, &o), 0);
    start(&one, &e, "secret", FIRST);
    start(&other, &e, "other", SECOND);
    for (size_t i = 0; i < FORMS; i++) {
        for (size_t k = 0; k < FORMS; k++) {
            const size_t which[] = {i, k};
            for (size_t n = 0; n < 2; n++) {
                tnl_publish m = {.tunnel = i * FORMS + k + 1,
                                 .kind = tnl_str_of(forms[which[n]].kind),
                                 .name = tnl_str_of(forms[which[n]].name),
                                 .path_id = tnl_str_of(forms[which[n]].path_id),
                                 .ports = forms[which[n]].ports};
                test_service_publish_as(n ? &other : &one, &m);
                UNTIL(&e.l, n ? other.refused : one.published);
            }
            assert_int_equal(other.published, 0);
            assert_int_equal(other.code, TUNNEL_E_NAME_TAKEN);
            test_service_unpublish(&one, i * FORMS + k + 1);
            one.published = other.refused = 0;
        }
    }
    test_service_close(&one);
    test_service_close(&other);
    test_edge_close(&e);
}

static void assert_nobody(test_edge *e, const char *host, const char *path)
{
    test_guest g;
    char text[300];
    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host);
    test_guest_open(&g, e);
    test_guest_say(&g, text);
    UNTIL(&e->l, test_guest_hears(&g, "\r\n\r\n"));
    assert_true(test_guest_hears(&g, "HTTP/1.1 404"));
    test_guest_free(&g);
}

typedef struct race {
    const char *kind, *name, *path_id; /* held, and wanted by the same account */
    const char *other_kind, *other_name;
} race;

/* False: the machine was so slow that the probe was over before the name was free. */
static bool race_ends_well(const race *r)
{
    test_edge e;
    test_service holder, wants, other;
    test_edge_options o = {.configure = route_by_path};
    assert_int_equal(test_edge_open(&e, &o), 0);
    start(&holder, &e, "secret", FIRST);
    start(&wants, &e, "secret", SECOND);
    start(&other, &e, "other", THIRD);
    publish(&holder, 1, r->kind, r->name, "", r->path_id);
    UNTIL(&e.l, holder.published);
    publish(&wants, 1, r->kind, r->name, "", r->path_id);
    /* Its probe has begun when what comes behind it is answered. */
    publish(&wants, 2, "http", "marker", "", "");
    UNTIL(&e.l, wants.published);
    test_service_unpublish(&holder, 1);
    publish(&holder, 2, "http", "another", "", "");
    UNTIL(&e.l, holder.published == 2);
    publish(&other, 1, r->other_kind, r->other_name, "", "");
    UNTIL(&e.l, other.published + other.refused);
    bool in_time = wants.refused == 0 && other.published == 1;
    UNTIL(&e.l, wants.published + wants.refused == 2);
    if (in_time) {
        assert_int_equal(wants.refused, 1);
        assert_int_equal(wants.code, TUNNEL_E_NAME_TAKEN);
        assert_non_null(strstr(wants.text, "another account"));
    }
    test_service_close(&holder);
    test_service_close(&wants);
    test_service_close(&other);
    test_edge_close(&e);
    return in_time;
}

/* A name is asked of its holder, who gives it up; meanwhile another account gets it as one of
 * another kind, and keeps it. */
static void a_freed_name_is_whose_it_became(void **state)
{
    (void)state;
    static const race races[] = {
        {"http", "demo", "", "tls", "demo"},
        {"http", "demo", "", "http", "*.demo"},
        {"http", "", "demo", "http", "demo"},
    };
    for (size_t i = 0; i < sizeof(races) / sizeof(*races); i++) {
        int tries = 10;
        while (!race_ends_well(&races[i]) && --tries)
            continue;
        assert_true(tries > 0);
    }
}

/* A client's own domain lies above the server's: what is under the server's stays the server's. */
static void a_wildcard_above_the_server_is_not_the_server(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g;
    test_edge_options o = {.configure = allow_any_domain};
    assert_int_equal(test_edge_open(&e, &o), 0);
    start(&s, &e, "other", FIRST);
    publish(&s, 1, "http", "", "*.example.org", "");
    publish(&s, 2, "http", "*.mine", "", "");
    UNTIL(&e.l, s.published == 2);
    assert_nobody(&e, "tunnel.example.org", "/");
    assert_nobody(&e, "TUNNEL.example.org.:80", "/");
    assert_nobody(&e, "nobody.tunnel.example.org", "/");
    assert_nobody(&e, "mine.tunnel.example.org", "/");
    assert_nobody(&e, "p80.tunnel.example.org", "/");
    assert_int_equal(s.count, 0);
    static const char *const theirs[] = {"app.example.org", "a.b.example.org",
                                         "xtunnel.example.org", "a.b.mine.tunnel.example.org"};
    for (size_t i = 0; i < sizeof(theirs) / sizeof(*theirs); i++) {
        char text[200];
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", theirs[i]);
        test_guest_open(&g, &e);
        test_guest_say(&g, text);
        (void)test_service_await(&s, i + 1);
        test_guest_free(&g);
    }
    test_service_close(&s);
    test_edge_close(&e);
}

/* Paths name tunnels by their label alone. */
static void a_path_names_no_wildcard(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_edge_options o = {.configure = route_by_path};
    assert_int_equal(test_edge_open(&e, &o), 0);
    start(&s, &e, "secret", FIRST);
    tnl_publish ports = {
        .tunnel = 1, .kind = tnl_str_of("http"), .name = tnl_str_of("shop"), .ports = true};
    test_service_publish_as(&s, &ports);
    publish(&s, 2, "http", "*.demo", "", "");
    UNTIL(&e.l, s.published == 2);
    assert_nobody(&e, "test", "/*.demo/");
    assert_nobody(&e, "test", "/shop/");
    assert_nobody(&e, "test", "/demo/");
    assert_int_equal(s.count, 0);
    test_service_close(&s);
    test_edge_close(&e);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_taken_in_all_forms),
        cmocka_unit_test(a_freed_name_is_whose_it_became),
        cmocka_unit_test(a_wildcard_above_the_server_is_not_the_server),
        cmocka_unit_test(a_path_names_no_wildcard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
