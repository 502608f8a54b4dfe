/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tunnel/error.h>
#include <unistd.h>

#include "server/internal.h"
#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"

/* Names and ports that belong to who had them: after the end of a session, and of the server. */

enum { FIRST = 1, SECOND, THIRD, LONG_MS = 3600000 };

typedef struct choice {
    uint32_t hold_ms;
    const char *file;
    uint16_t port;
} choice;

static void configure(tnl_server_config *c, void *user)
{
    const choice *ch = user;
    c->hold_ms = ch->hold_ms;
    c->path_routing = true;
    if (ch->file)
        snprintf(c->state_file, sizeof(c->state_file), "%s", ch->file);
    if (ch->port) {
        char text[16];
        snprintf(text, sizeof(text), "%u", ch->port);
        assert_int_equal(tnl_ports_parse(&c->tcp_ports, text), 0);
    }
}

static void open_edge(test_edge *e, choice *ch)
{
    test_edge_options o = {.configure = configure, .user = ch};
    assert_int_equal(test_edge_open(e, &o), 0);
}

static void start(test_service *s, test_edge *e, const char *token, uint8_t instance)
{
    test_service_start(s, e, token, instance);
    UNTIL(&e->l, s->session);
}

static void ask(test_service *s, uint64_t id, const char *kind, const char *name, uint16_t port)
{
    tnl_publish m = {
        .tunnel = id, .kind = tnl_str_of(kind), .name = tnl_str_of(name), .port = port};
    unsigned before = s->published + s->refused;
    test_service_publish_as(s, &m);
    UNTIL(&s->edge->l, s->published + s->refused > before);
}

static void a_name_is_kept_for_its_account(void **state)
{
    (void)state;
    test_edge e;
    test_service one, other, again;
    choice ch = {.hold_ms = LONG_MS};
    open_edge(&e, &ch);
    test_service_open(&one, &e, "demo");
    test_service_close(&one);
    start(&other, &e, "other", SECOND);
    ask(&other, 1, "http", "demo", 0);
    assert_int_equal(other.code, TUNNEL_E_NAME_TAKEN);
    /* In no form. */
    ask(&other, 2, "tls", "*.demo", 0);
    assert_int_equal(other.refused, 2);
    assert_non_null(strstr(other.text, "another account"));
    start(&again, &e, "secret", THIRD);
    ask(&again, 1, "http", "demo", 0);
    assert_int_equal(again.published, 1);
    test_service_close(&again);
    test_service_close(&other);
    test_edge_close(&e);
}

static void it_is_free_after_a_while(void **state)
{
    (void)state;
    static const uint32_t holds[] = {0, 30};
    for (size_t i = 0; i < 2; i++) {
        test_edge e;
        test_service one, other;
        choice ch = {.hold_ms = holds[i]};
        open_edge(&e, &ch);
        test_service_open(&one, &e, "demo");
        test_service_close(&one);
        start(&other, &e, "other", SECOND);
        for (uint64_t id = 1; !other.published; id++)
            ask(&other, id, "http", "demo", 0);
        test_service_close(&other);
        test_edge_close(&e);
    }
}

static void a_port_is_kept_too(void **state)
{
    (void)state;
    test_edge e;
    test_service one, other;
    choice ch = {.hold_ms = LONG_MS, .port = test_free_port()};
    open_edge(&e, &ch);
    start(&one, &e, "secret", FIRST);
    ask(&one, 1, "tcp", "", ch.port);
    assert_int_equal(one.published, 1);
    test_service_close(&one);
    start(&other, &e, "other", SECOND);
    ask(&other, 1, "tcp", "", ch.port);
    assert_int_equal(other.code, TUNNEL_E_NAME_TAKEN);
    /* It is the only one, and not free. */
    ask(&other, 2, "tcp", "", 0);
    assert_int_equal(other.code, TUNNEL_E_LIMIT);
    test_service_close(&other);
    test_edge_close(&e);
}

/* --- the file --------------------------------------------------------------------------------- */

typedef struct folder {
    char path[64];
    char file[96];
} folder;

static void folder_make(folder *f)
{
    snprintf(f->path, sizeof(f->path), "/tmp/claim-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(f->file, sizeof(f->file), "%s/state", f->path);
}

static void folder_remove(const folder *f)
{
    unlink(f->file);
    assert_int_equal(rmdir(f->path), 0); /* nothing else was left in it */
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void names_outlive_the_server(void **state)
{
    (void)state;
    test_edge e;
    test_service one, other, again;
    folder f;
    struct stat st;
    folder_make(&f);
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    open_edge(&e, &ch);
    test_service_open(&one, &e, "live");
    ask(&one, 7, "http", "left", 0);
    test_service_unpublish(&one, 7);
    ask(&one, 8, "http", "last", 0);
    test_edge_close_server(&e);
    UNTIL(&e.l, !one.session);
    test_service_close(&one);
    test_edge_close(&e);
    assert_int_equal(stat(f.file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    open_edge(&e, &ch);
    start(&other, &e, "other", SECOND);
    ask(&other, 1, "http", "live", 0);
    ask(&other, 2, "http", "left", 0);
    ask(&other, 3, "http", "last", 0);
    assert_int_equal(other.refused, 3);
    ask(&other, 4, "http", "new", 0);
    assert_int_equal(other.published, 1);
    start(&again, &e, "secret", THIRD);
    ask(&again, 1, "http", "live", 0);
    assert_int_equal(again.published, 1);
    test_service_close(&again);
    test_service_close(&other);
    test_edge_close(&e);
    folder_remove(&f);
}

static void say_get(test_guest *g, test_edge *e, const char *host)
{
    char text[200];
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    test_guest_open(g, e);
    test_guest_say(g, text);
}

/* Whoever asks for what is on its way back waits for it; for anything else there is 404. */
static void visitors_wait_for_clients_to_return(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g, left, other, post;
    folder f;
    folder_make(&f);
    /* The account is the one of the token "secret". */
    put(f.file, "name:live.test token:2bb80d537b1da3e3 0\n");
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    open_edge(&e, &ch);
    say_get(&g, &e, "LIVE.test:80");
    say_get(&left, &e, "live.test");
    say_get(&other, &e, "other.test");
    test_guest_open(&post, &e);
    test_guest_say(&post, "POST / HTTP/1.1\r\nHost: live.test\r\nContent-Length: 2\r\n\r\nhi");
    UNTIL(&e.l, test_guest_hears(&other, " 404 "));
    UNTIL(&e.l, test_guest_hears(&post, " 503 "));
    test_guest_leave(&left, true);
    test_service_open(&s, &e, "live");
    test_call_answer(test_service_await(&s, 1), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    /* It is back, and nobody waits any more when it leaves. */
    test_service_close(&s);
    test_guest_forget(&g);
    test_guest_say(&g, "GET / HTTP/1.1\r\nHost: live.test\r\n\r\n");
    UNTIL(&e.l, test_guest_hears(&g, " 404 "));
    test_guest_free(&g);
    test_guest_free(&left);
    test_guest_free(&other);
    test_guest_free(&post);
    test_edge_close(&e);
    folder_remove(&f);
}

static void patience_is_bounded(void **state)
{
    (void)state;
    test_edge e;
    test_guest g[3];
    folder f;
    folder_make(&f);
    put(f.file, "name:live.test token:1 0\nname:test token:1 0\n");
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    open_edge(&e, &ch);
    test_guest_open(&g[0], &e);
    test_guest_say(&g[0], "GET / HTTP/1.1\r\nHost: p80.live.test\r\n\r\n"
                          "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    say_get(&g[1], &e, "live.test");
    UNTIL(&e.l, test_guest_hears(&g[0], " 503 ") && test_guest_hears(&g[0], " 404 "));
    UNTIL(&e.l, test_guest_hears(&g[1], " 503 "));
    /* The server may end while somebody waits. */
    say_get(&g[2], &e, "test");
    UNTIL(&e.l, !tnl_list_empty(&e.server->awaiting));
    test_edge_close_server(&e);
    for (int i = 0; i < 3; i++) {
        UNTIL(&e.l, test_guest_ended(&g[i]) || g[i].reset);
        test_guest_free(&g[i]);
    }
    test_edge_close(&e);
    folder_remove(&f);
}

/* Each client that returns has all who wait looked at: so they are not too many. */
static void not_too_many_wait(void **state)
{
    (void)state;
    test_edge e;
    test_service s;
    test_guest g, more;
    folder f;
    folder_make(&f);
    put(f.file, "name:live.test token:2bb80d537b1da3e3 0\n");
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    open_edge(&e, &ch);
    e.server->awaiting_count = TNL_MAX_AWAITING - 1;
    say_get(&g, &e, "live.test");
    UNTIL(&e.l, !tnl_list_empty(&e.server->awaiting));
    say_get(&more, &e, "live.test");
    UNTIL(&e.l, test_guest_hears(&more, " 503 "));
    assert_false(tnl_list_empty(&e.server->awaiting));
    test_service_open(&s, &e, "live");
    test_call_answer(test_service_await(&s, 1), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    UNTIL(&e.l, test_guest_hears(&g, "hi"));
    assert_int_equal(e.server->awaiting_count, TNL_MAX_AWAITING - 1);
    test_service_close(&s);
    test_guest_free(&g);
    test_guest_free(&more);
    test_edge_close(&e);
    folder_remove(&f);
}

typedef struct witness {
    tnl_server *server;
    unsigned answers;
    bool waits; /* somebody, when that was told */
} witness;

static void on_answer(void *user, const tunnel_event *ev)
{
    witness *w = user;
    if (ev->type != TUNNEL_EVENT_ACCESS)
        return;
    w->answers++;
    w->waits = w->waits || !tnl_list_empty(&w->server->awaiting);
}

/* Who was answered before what he waited for came does not wait any more: he would be answered
 * twice. */
static void who_was_answered_waits_no_more(void **state)
{
    (void)state;
    test_edge e;
    test_guest g;
    witness w = {.waits = false};
    folder f;
    folder_make(&f);
    put(f.file, "name:live.test token:1 0\n");
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    test_edge_options o = {.configure = configure, .user = &ch, .answer_timeout_ms = 100};
    assert_int_equal(test_edge_open(&e, &o), 0);
    w.server = e.server;
    tnl_server_on_event(e.server, on_answer, &w);
    say_get(&g, &e, "live.test");
    UNTIL(&e.l, test_guest_hears(&g, " 504 ") && w.answers);
    assert_false(w.waits);
    test_guest_free(&g);
    tnl_server_on_event(e.server, NULL, NULL);
    test_edge_close(&e);
    folder_remove(&f);
}

/* What it says of a claim's end binds, but keeps nothing for longer than the server would. */
static void claims_in_the_file_end(void **state)
{
    (void)state;
    test_edge e;
    test_service other;
    folder f;
    folder_make(&f);
    put(f.file, "# a remark\n\nname:past.test token:0123456789abcdef 1000\n"
                "name:far.test token:0123456789abcdef 99999999999\n");
    choice ch = {.hold_ms = 30, .file = f.file};
    open_edge(&e, &ch);
    start(&other, &e, "other", SECOND);
    ask(&other, 1, "http", "past", 0);
    assert_int_equal(other.published, 1);
    for (uint64_t id = 2; other.published < 2; id++)
        ask(&other, id, "http", "far", 0);
    test_service_close(&other);
    test_edge_close(&e);
    folder_remove(&f);
}

static void make_server(tnl_server **s, test_loop *l, const char *file, uint16_t port,
                        char detail[600])
{
    tnl_server_config *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    c->listen_count = 1;
    snprintf(c->listen[0].address, sizeof(c->listen[0].address), "127.0.0.1:%u", port);
    snprintf(c->domain, sizeof(c->domain), "test");
    c->hold_ms = LONG_MS;
    snprintf(c->state_file, sizeof(c->state_file), "%s", file);
    assert_int_equal(tnl_tokens_new(&c->tokens), 0);
    assert_int_equal(tnl_server_new(s, l->loop, c, detail, 600), 0);
    free(c);
    detail[0] = '\0';
}

static int start_with(const char *file, char detail[600])
{
    test_loop l;
    tnl_server *s;
    test_loop_open(&l);
    make_server(&s, &l, file, 0, detail);
    int rc = tnl_server_start(s, detail, 600);
    tnl_server_close(s, NULL, NULL);
    test_loop_close(&l);
    return rc;
}

static void a_file_that_is_of_no_use(void **state)
{
    (void)state;
    static const char *const damaged[] = {
        "nonsense\n",
        "name:a.test token:1\n",
        "name:a.test token:1 x\n",
        "name:a.test token:1 12x\n",
        "name:a.test token:1 -1\n",
        "name:a.test  12\n",
        " token:1 12\n",
        "name:a.test token:0123456789abcdef0123456789abcdef 0\n",
        "name:a.test token:1 0\nname:a.test token:2 0\n",
        "name:a.test token:1 99999999999999999999999\n",
        "name:a.test token:1 0",
    };
    char detail[600], path[200];
    folder f;
    folder_make(&f);
    for (size_t i = 0; i < sizeof(damaged) / sizeof(*damaged); i++) {
        put(f.file, damaged[i]);
        assert_int_equal(start_with(f.file, detail), TUNNEL_E_INVALID);
        assert_non_null(strstr(detail, f.file));
        assert_non_null(strstr(detail, "line "));
    }
    put(f.file, "name:a.test token:1 0\n");
    assert_int_equal(start_with(f.file, detail), 0);
    snprintf(path, sizeof(path), "%s/none/state", f.path);
    assert_int_equal(start_with(path, detail), TUNNEL_E_NOT_FOUND);
    assert_non_null(strstr(detail, path));
    assert_true(start_with(f.path, detail) != 0); /* a folder */
    folder_remove(&f);
}

static void read_whole(const char *path, char out[4096])
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    out[fread(out, 1, 4095, f)] = '\0';
    fclose(f);
}

static bool says(const char *path, const char *word)
{
    char text[4096];
    read_whole(path, text);
    return strstr(text, word) != NULL;
}

/* A server that cannot start has not touched the file of the one that runs, and can try again. */
static void a_server_that_cannot_start_leaves_it_alone(void **state)
{
    (void)state;
    test_edge e;
    tnl_server *s;
    char detail[600], text[4096];
    folder f;
    folder_make(&f);
    choice ch = {.hold_ms = LONG_MS};
    open_edge(&e, &ch);
    put(f.file, "name:a.test token:1 0\n");
    make_server(&s, &e.l, f.file, e.port, detail);
    assert_int_equal(tnl_server_start(s, detail, 600), TUNNEL_E_ADDR_IN_USE);
    read_whole(f.file, text);
    assert_string_equal(text, "name:a.test token:1 0\n");
    test_edge_close_server(&e);
    UNTIL(&e.l, e.server_gone);
    put(f.file, "name:a.test token:1 0\nname:b.test token:1\n");
    assert_int_equal(tnl_server_start(s, detail, 600), TUNNEL_E_INVALID);
    put(f.file, "name:a.test token:1 0\n");
    assert_int_equal(tnl_server_start(s, detail, 600), 0);
    /* What is awaited is so for the next server too, if this one ends before it is back. */
    read_whole(f.file, text);
    assert_non_null(strstr(text, "\nname:a.test token:1 0\n"));
    tnl_server_close(s, NULL, NULL);
    test_edge_close(&e);
    folder_remove(&f);
}

/* Nobody who can write in the folder makes the server wait, or write elsewhere. */
static void what_lies_beside_it_is_no_trap(void **state)
{
    (void)state;
    char detail[600], beside[128], other[128], text[4096];
    folder f;
    folder_make(&f);
    snprintf(beside, sizeof(beside), "%s.new", f.file);
    snprintf(other, sizeof(other), "%s/other", f.path);
    assert_int_equal(mkfifo(beside, 0600), 0);
    alarm(60);
    assert_int_equal(start_with(f.file, detail), 0);
    alarm(0);
    put(other, "mine");
    assert_int_equal(symlink(other, beside), 0);
    assert_int_equal(start_with(f.file, detail), 0);
    read_whole(other, text);
    assert_string_equal(text, "mine");
    unlink(other);
    folder_remove(&f);
}

/* A pipe or a device would be read for ever, and then replaced by a file. */
static void only_a_regular_file_will_do(void **state)
{
    (void)state;
    char detail[600];
    struct stat st;
    folder f;
    folder_make(&f);
    assert_int_equal(mkfifo(f.file, 0600), 0);
    assert_int_equal(start_with(f.file, detail), TUNNEL_E_INVALID);
    assert_non_null(strstr(detail, "not a regular file"));
    assert_int_equal(stat(f.file, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    unlink(f.file);
    assert_int_equal(symlink("/dev/null", f.file), 0);
    assert_int_equal(start_with(f.file, detail), TUNNEL_E_INVALID);
    assert_int_equal(stat(f.file, &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    folder_remove(&f);
}

static void a_file_for_each_server(void **state)
{
    (void)state;
    char detail[600];
    test_edge e;
    test_service one;
    folder f;
    folder_make(&f);
    choice ch = {.hold_ms = LONG_MS, .file = f.file};
    open_edge(&e, &ch);
    assert_int_equal(start_with(f.file, detail), TUNNEL_E_ADDR_IN_USE);
    assert_non_null(strstr(detail, "another server"));
    test_service_open(&one, &e, "live");
    UNTIL(&e.l, says(f.file, "live")); /* the new one in its place, */
    assert_int_equal(start_with(f.file, detail), TUNNEL_E_ADDR_IN_USE); /* is locked as well */
    test_service_close(&one);
    test_edge_close(&e);
    assert_int_equal(start_with(f.file, detail), 0);
    folder_remove(&f);
}

/* --- a client that begins anew
 * -------------------------------------------------------------------- */

static tnl_peer *peer_of(test_edge *e, uint8_t instance)
{
    for (tnl_list *n = e->server->peers.next; n != &e->server->peers; n = n->next) {
        tnl_peer *p = TNL_CONTAINER(n, tnl_peer, node);
        if (p->session && tnl_session_mux(p->session) && p->instance[0] == instance)
            return p;
    }
    return NULL;
}

/* What it had is kept for it, but it reads nothing: its session ends with the very answer. */
static void one_that_does_not_read_loses_what_it_takes_again(void **state)
{
    (void)state;
    test_edge e;
    test_service one, again, more;
    uint8_t bytes[300] = {0};
    choice ch = {.hold_ms = LONG_MS};
    open_edge(&e, &ch);
    test_service_open(&one, &e, "demo");
    uint8_t instance = one.hello.instance[0];
    test_service_start(&again, &e, "secret", instance);
    UNTIL(&e.l, again.session && !one.session);
    assert_false(tnl_list_empty(&e.server->kept_names));
    tnl_peer *p = peer_of(&e, instance);
    assert_non_null(p);
    while (tnl_mux_control(tnl_session_mux(p->session), 0x3f, bytes, sizeof(bytes)) == 0)
        continue;
    while (tnl_mux_control(tnl_session_mux(p->session), 0x3f, bytes, 1) == 0)
        continue;
    tnl_publish m = {.tunnel = 1, .kind = tnl_str_of("http"), .name = tnl_str_of("demo")};
    size_t n = tnl_publish_encode(bytes, sizeof(bytes), &m);
    assert_int_equal(tnl_publish_control(p, TNL_CONTROL_PUBLISH, bytes, n), 0);
    UNTIL(&e.l, !again.session);
    assert_int_equal(e.server->names.count, 0);
    test_service_open(&more, &e, "demo");
    test_service_close(&more);
    test_service_close(&again);
    test_service_close(&one);
    test_edge_close(&e);
}

/* --- a server that is full
 * ------------------------------------------------------------------------ */

/* Those whom it has can come back: their own former sessions do not keep them out. */
static void who_is_known_may_return_to_a_full_server(void **state)
{
    (void)state;
    test_edge e;
    test_service one, again, more;
    choice ch = {.hold_ms = LONG_MS};
    open_edge(&e, &ch);
    test_service_open(&one, &e, "demo");
    e.server->peer_count += TNL_MAX_CLIENTS - 1;
    e.server->sessions.count += TNL_MAX_CLIENTS - 1;
    test_service_start(&more, &e, "secret", SECOND);
    UNTIL(&e.l, more.failed || more.session);
    assert_null(more.session);
    e.server->sessions.count -= TNL_MAX_CLIENTS - 1;
    test_service_start(&again, &e, "secret", FIRST);
    UNTIL(&e.l, again.failed || again.session);
    assert_non_null(again.session);
    e.server->peer_count -= TNL_MAX_CLIENTS - 1;
    test_service_close(&again);
    test_service_close(&more);
    test_service_close(&one);
    test_edge_close(&e);
}

/* --- bounds ----------------------------------------------------------------------------------- */

static bool has(const tnl_claims *c, const char *key)
{
    for (const tnl_claim *k = tnl_claims_next(c, NULL); k; k = tnl_claims_next(c, k))
        if (strcmp(tnl_claim_key(k), key) == 0)
            return true;
    return false;
}

static void restore(tnl_claims *c, const char *account, unsigned i)
{
    char key[64];
    snprintf(key, sizeof(key), "name:%s%u", account, i);
    assert_int_equal(tnl_claims_restore(c, key, account, 1000, 0), 0);
}

static void what_is_kept_is_bounded(void **state)
{
    (void)state;
    tnl_claims c = {.kept_count = 0};
    tnl_claims_init(&c, 1);
    for (unsigned i = 0; i < TNL_CLAIMS_KEPT_ACCOUNT + 2; i++)
        restore(&c, "greedy", i);
    assert_int_equal(c.kept_count, TNL_CLAIMS_KEPT_ACCOUNT);
    assert_false(has(&c, "name:greedy0") || has(&c, "name:greedy1"));
    assert_true(has(&c, "name:greedy2"));
    for (unsigned i = 0; i < TNL_CLAIMS_KEPT; i++) {
        char account[TNL_ACCOUNT_SIZE];
        snprintf(account, sizeof(account), "a%u", i / 16);
        restore(&c, account, i);
    }
    assert_int_equal(c.kept_count, TNL_CLAIMS_KEPT);
    assert_false(has(&c, "name:greedy2"));
    for (int i = 0; i < 100; i++)
        tnl_claims_expire(&c, 1000);
    assert_int_equal(c.kept_count, 0);
    assert_null(tnl_claims_next(&c, NULL));
    tnl_claims_free(&c);
}

/* What many clients of one account had when the server was restarted waits for them all. */
static void what_was_in_use_waits_for_many(void **state)
{
    (void)state;
    char key[64];
    tnl_claims c = {.kept_count = 0};
    tnl_claims_init(&c, 1);
    for (unsigned i = 0; i < TNL_CLAIMS_BACK_ACCOUNT + 1; i++) {
        snprintf(key, sizeof(key), "name:n%u", i);
        assert_int_equal(tnl_claims_restore(&c, key, "one", 1000, 1000), 0);
    }
    assert_int_equal(c.kept_count, TNL_CLAIMS_BACK_ACCOUNT);
    assert_false(has(&c, "name:n0"));
    /* That is no leave to keep more than others do. */
    assert_int_equal(tnl_claims_restore(&c, "name:left", "one", 1000, 0), 0);
    assert_int_equal(c.kept_count, TNL_CLAIMS_BACK_ACCOUNT);
    assert_false(has(&c, "name:n1"));
    tnl_claims_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_kept_for_its_account),
        cmocka_unit_test(it_is_free_after_a_while),
        cmocka_unit_test(a_port_is_kept_too),
        cmocka_unit_test(names_outlive_the_server),
        cmocka_unit_test(visitors_wait_for_clients_to_return),
        cmocka_unit_test(patience_is_bounded),
        cmocka_unit_test(not_too_many_wait),
        cmocka_unit_test(who_was_answered_waits_no_more),
        cmocka_unit_test(a_server_that_cannot_start_leaves_it_alone),
        cmocka_unit_test(what_lies_beside_it_is_no_trap),
        cmocka_unit_test(claims_in_the_file_end),
        cmocka_unit_test(a_file_that_is_of_no_use),
        cmocka_unit_test(only_a_regular_file_will_do),
        cmocka_unit_test(a_file_for_each_server),
        cmocka_unit_test(one_that_does_not_read_loses_what_it_takes_again),
        cmocka_unit_test(who_is_known_may_return_to_a_full_server),
        cmocka_unit_test(what_is_kept_is_bounded),
        cmocka_unit_test(what_was_in_use_waits_for_many),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
