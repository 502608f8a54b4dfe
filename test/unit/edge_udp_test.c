/* SPDX-License-Identifier: Apache-2.0 */
/* UDP tunnels at the server: a real server, a client driven by hand, visitors that are sockets. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/edge.h"
#include "support/memory.h"
#include "tunnel/error.h"

enum { SEEN = 600, RANGE = 100 };

/* What the client's end sees, and what it does. */
typedef struct far_end {
    test_service service;
    bool echo;
    unsigned count;
    tnl_datagram d[SEEN]; /* without their bytes */
    char text[SEEN][32];  /* which begin so */
    uint64_t hash;        /* of the last one */
} far_end;

static void answer(far_end *f, uint64_t tunnel, uint64_t flow, const void *p, size_t n)
{
    tnl_datagram d = {.tunnel = tunnel, .flow = flow, .p = p, .n = n};
    (void)tnl_session_datagram(f->service.session, &d);
}

static void on_datagram(void *user, const tnl_datagram *d)
{
    far_end *f = user;
    unsigned i = f->count++ % SEEN;
    f->d[i] = *d;
    f->d[i].p = NULL;
    f->hash = test_hash(0, d->p, d->n);
    snprintf(f->text[i], sizeof(f->text[i]), "%.*s", (int)d->n, (const char *)d->p);
    if (f->echo)
        answer(f, d->tunnel, d->flow, d->p, d->n);
}

static const tnl_datagram *last(const far_end *f)
{
    return &f->d[(f->count - 1) % SEEN];
}

static const char *last_text(const far_end *f)
{
    return f->text[(f->count - 1) % SEEN];
}

/* --- the rig ---------------------------------------------------------------------------------- */

typedef struct rig {
    test_edge edge;
    far_end f;
    const char *listen[3];
    uint32_t flows;
    uint32_t flows_per_source;
    uint16_t first; /* of the range of ports */
    uint16_t port;  /* of the tunnel */
} rig;

/* A range of ports of which the most are free. */
static uint16_t some_range(void)
{
    static uint16_t offset;
    offset = (uint16_t)(offset + RANGE);
    return (uint16_t)(10000 + (unsigned)getpid() % 15000 + offset % 7000);
}

static void configure(tnl_server_config *c, void *user)
{
    char ports[32];
    rig *r = user;
    r->first = some_range();
    snprintf(ports, sizeof(ports), "%u-%u", r->first, r->first + RANGE - 1);
    assert_int_equal(tnl_ports_parse(&c->udp_ports, ports), 0);
    c->udp_flows = r->flows;
    c->udp_flows_per_source = r->flows_per_source;
    for (size_t i = 0; i < 3 && r->listen[i]; i++) {
        snprintf(c->listen[i].address, sizeof(c->listen[i].address), "%s:0", r->listen[i]);
        c->listen_count = i + 1;
    }
}

static void publish(rig *r, uint64_t id, uint16_t port, uint32_t idle_ms)
{
    tnl_publish m = {.tunnel = id, .kind = tnl_str_of("udp"), .port = port, .idle_ms = idle_ms};
    test_service_publish_as(&r->f.service, &m);
}

static void rig_open(rig *r, uint32_t idle_ms)
{
    test_edge_options o = {.configure = configure, .user = r};
    r->flows = r->flows ? r->flows : 1024;
    r->flows_per_source = r->flows_per_source ? r->flows_per_source : 512;
    memset(&r->f, 0, sizeof(r->f));
    assert_int_equal(test_edge_open(&r->edge, &o), 0);
    test_service_start(&r->f.service, &r->edge, "secret", 1);
    r->f.service.on_datagram = on_datagram;
    r->f.service.datagram_user = &r->f;
    UNTIL(&r->edge.l, r->f.service.session);
    publish(r, 1, 0, idle_ms);
    UNTIL(&r->edge.l, r->f.service.published);
    r->port = r->f.service.port;
}

static void rig_close(rig *r)
{
    test_service_close(&r->f.service);
    test_edge_close(&r->edge);
}

static const tnl_server_stats *stats(const rig *r)
{
    return tnl_server_get_stats(r->edge.server);
}

/* --- visitors --------------------------------------------------------------------------------- */

static socklen_t sockaddr_of(struct sockaddr_storage *sa, const char *host, uint16_t port)
{
    memset(sa, 0, sizeof(*sa));
    struct sockaddr_in *in = (struct sockaddr_in *)sa;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sa;
    in->sin_port = htons(port);
    sa->ss_family = AF_INET;
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1)
        return sizeof(*in);
    sa->ss_family = AF_INET6;
    assert_int_equal(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
    return sizeof(*in6);
}

/* A connected socket of its own port on `from` (NULL: any). */
static int visitor(const rig *r, const char *host, const char *from)
{
    struct sockaddr_storage sa;
    socklen_t n = sockaddr_of(&sa, host, r->port);
    int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (from) {
        struct sockaddr_storage own;
        assert_int_equal(bind(fd, (struct sockaddr *)&own, sockaddr_of(&own, from, 0)), 0);
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, n), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
}

static bool hears(int fd, const char *text)
{
    char bytes[100];
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
    if (n >= 0)
        assert_true(n == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)n) == 0);
    return n >= 0;
}

static bool hears_nothing(int fd)
{
    char bytes[100];
    return recv(fd, bytes, sizeof(bytes), 0) < 0;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_published(void **state)
{
    (void)state;
    static rig r;
    char url[64];
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    assert_in_range(r.port, r.first, r.first + RANGE - 1);
    snprintf(url, sizeof(url), "udp://test:%u", r.port);
    assert_string_equal(r.f.service.url, url);
    /* The same port of tcp is another one's; the same of udp is taken. */
    publish(&r, 2, r.port, 0);
    UNTIL(&r.edge.l, r.f.service.refused == 1);
    assert_int_equal(r.f.service.code, TUNNEL_E_NAME_TAKEN);
    publish(&r, 3, (uint16_t)(r.first - 1), 0);
    UNTIL(&r.edge.l, r.f.service.refused == 2);
    assert_int_equal(r.f.service.code, TUNNEL_E_DENIED);
    /* One that another program holds. */
    struct sockaddr_storage sa;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    uint16_t held = r.first;
    while (bind(fd, (struct sockaddr *)&sa, sockaddr_of(&sa, "127.0.0.1", held)))
        held++;
    publish(&r, 4, held, 0);
    UNTIL(&r.edge.l, r.f.service.refused == 3);
    assert_int_equal(r.f.service.code, TUNNEL_E_ADDR_IN_USE);
    assert_non_null(strstr(r.f.service.text, "in use"));
    close(fd);
    publish(&r, 4, held, 0);
    UNTIL(&r.edge.l, r.f.service.published == 2);
    /* Once it is taken back it can be had again at once. */
    test_service_unpublish(&r.f.service, 4);
    publish(&r, 5, held, 0);
    UNTIL(&r.edge.l, r.f.service.published == 3);
    rig_close(&r);
}

static void test_two_visitors(void **state)
{
    (void)state;
    static rig r;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    r.f.echo = true;
    int a = visitor(&r, "127.0.0.1", NULL), b = visitor(&r, "127.0.0.1", NULL);
    say(a, "I am a");
    say(b, "I am b");
    UNTIL(&r.edge.l, r.f.count == 2);
    assert_int_not_equal(r.f.d[0].flow, r.f.d[1].flow);
    UNTIL(&r.edge.l, hears(a, "I am a"));
    UNTIL(&r.edge.l, hears(b, "I am b"));
    /* Answers without a question, and not in turn. */
    for (int i = 0; i < 3; i++)
        answer(&r.f, 1, r.f.d[1].flow, "for b", 5);
    answer(&r.f, 1, r.f.d[0].flow, "for a", 5);
    for (int i = 0; i < 3; i++)
        UNTIL(&r.edge.l, hears(b, "for b"));
    UNTIL(&r.edge.l, hears(a, "for a"));
    assert_true(hears_nothing(a) && hears_nothing(b));
    assert_int_equal(stats(&r)->flows, 2);
    assert_int_equal(stats(&r)->datagrams_dropped, 0);
    close(a);
    close(b);
    rig_close(&r);
    assert_int_equal(r.edge.events[TUNNEL_EVENT_ACCESS], 2);
    assert_string_equal(r.edge.method, "UDP");
    assert_string_equal(r.edge.visitor, "127.0.0.1");
    assert_int_equal(r.edge.host[0], ':');
    assert_int_equal(atoi(r.edge.host + 1), r.port);
}

/* The visitor's address is told until there was an answer. */
static void test_address_is_told(void **state)
{
    (void)state;
    static rig r;
    struct sockaddr_in own;
    socklen_t n = sizeof(own);
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    int a = visitor(&r, "127.0.0.1", "127.0.0.5");
    assert_int_equal(getsockname(a, (struct sockaddr *)&own, &n), 0);
    for (unsigned i = 1; i < 4; i++) {
        say(a, "?");
        UNTIL(&r.edge.l, r.f.count == i);
        assert_int_equal(last(&r.f)->family, 4);
        assert_memory_equal(last(&r.f)->address, "\x7f\0\0\5", 4);
        assert_int_equal(last(&r.f)->port, ntohs(own.sin_port));
    }
    answer(&r.f, 1, last(&r.f)->flow, "!", 1);
    UNTIL(&r.edge.l, hears(a, "!"));
    say(a, "?");
    UNTIL(&r.edge.l, r.f.count == 4);
    assert_int_equal(last(&r.f)->family, 0);
    assert_int_equal(last(&r.f)->flow, r.f.d[0].flow);
    close(a);
    rig_close(&r);
}

static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1472, 16384, 40000, 65507};
    static uint8_t bytes[65507], back[65536];
    static rig r;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    r.f.echo = true;
    int a = visitor(&r, "127.0.0.1", NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        ssize_t n;
        test_fill(bytes, sizes[i], i);
        assert_int_equal(send(a, bytes, sizes[i], 0), (ssize_t)sizes[i]);
        UNTIL(&r.edge.l, (n = recv(a, back, sizeof(back), 0)) >= 0);
        assert_int_equal(n, sizes[i]);
        assert_memory_equal(back, bytes, sizes[i]);
        assert_int_equal(last(&r.f)->n, sizes[i]);
        assert_true(r.f.hash == test_hash(0, bytes, sizes[i]));
    }
    close(a);
    rig_close(&r);
}

static void test_families(void **state)
{
    (void)state;
    static rig r;
    static const struct {
        const char *listen[3];
        const char *hosts[4];
    } rows[] = {{{"127.0.0.1", "[::1]"}, {"127.0.0.1", "::1"}},
                {{"[::]"}, {"127.0.0.1", "127.0.0.2", "::1"}},
                {{"0.0.0.0", "[::1]"}, {"127.0.0.3", "::1"}},
                {{"0.0.0.0", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        r = (rig){.flows = 0};
        memcpy(r.listen, rows[i].listen, sizeof(r.listen));
        rig_open(&r, 0);
        r.f.echo = true;
        for (size_t k = 0; k < 4 && rows[i].hosts[k]; k++) {
            int fd = visitor(&r, rows[i].hosts[k], NULL);
            unsigned before = r.f.count;
            say(fd, "hello");
            UNTIL(&r.edge.l, hears(fd, "hello"));
            assert_int_equal(r.f.count, before + 1);
            assert_int_equal(last(&r.f)->family, strchr(rows[i].hosts[k], ':') ? 6 : 4);
            close(fd);
        }
        rig_close(&r);
    }
}

/* --- what a client may not do ----------------------------------------------------------------- */

static void test_wrong_flows(void **state)
{
    (void)state;
    static rig r;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    test_service_publish(&r.f.service, 2, "demo");
    publish(&r, 3, 0, 0);
    UNTIL(&r.edge.l, r.f.service.published == 3);
    int a = visitor(&r, "127.0.0.1", NULL);
    say(a, "?");
    UNTIL(&r.edge.l, r.f.count == 1);
    uint64_t flow = last(&r.f)->flow;
    answer(&r.f, 1, flow + 1, "x", 1);
    answer(&r.f, 2, flow, "x", 1);
    answer(&r.f, 3, flow, "x", 1);
    answer(&r.f, 9, flow, "x", 1);
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 4);
    answer(&r.f, 1, flow, "right", 5);
    UNTIL(&r.edge.l, hears(a, "right"));
    close(a);
    rig_close(&r);
}

/* Another client's flow: the same ids mean nothing there. */
static void test_other_clients_flow(void **state)
{
    (void)state;
    static rig r;
    static far_end other;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    memset(&other, 0, sizeof(other));
    test_service_start(&other.service, &r.edge, "other", 2);
    UNTIL(&r.edge.l, other.service.session);
    tnl_publish m = {.tunnel = 1, .kind = tnl_str_of("udp")};
    test_service_publish_as(&other.service, &m);
    UNTIL(&r.edge.l, other.service.published);
    int a = visitor(&r, "127.0.0.1", NULL);
    say(a, "?");
    UNTIL(&r.edge.l, r.f.count == 1);
    answer(&other, 1, last(&r.f)->flow, "stolen", 6);
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 1);
    assert_true(hears_nothing(a));
    close(a);
    test_service_close(&other.service);
    rig_close(&r);
}

/* --- the life of flows ------------------------------------------------------------------------ */

static void test_idle_end(void **state)
{
    (void)state;
    static rig r;
    r = (rig){.flows = 0};
    rig_open(&r, 1);
    r.f.echo = true;
    int a = visitor(&r, "127.0.0.1", NULL), b = visitor(&r, "127.0.0.1", NULL);
    say(a, "12345");
    UNTIL(&r.edge.l, hears(a, "12345"));
    r.f.echo = false;
    say(b, "123");
    UNTIL(&r.edge.l, r.f.count == 2);
    uint64_t flow = r.f.d[0].flow;
    UNTIL(&r.edge.l, r.edge.events[TUNNEL_EVENT_ACCESS] == 2);
    answer(&r.f, 1, flow, "late", 4);
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 1);
    assert_true(hears_nothing(a));
    /* Their next datagrams are new flows, whose ids were never used. */
    say(a, "again");
    UNTIL(&r.edge.l, r.f.count == 3);
    assert_true(last(&r.f)->flow > r.f.d[1].flow);
    assert_int_equal(last(&r.f)->family, 4);
    assert_int_equal(stats(&r)->flows, 3);
    close(a);
    close(b);
    rig_close(&r);
}

/* Each visitor asks once more until the client has heard of him. */
static void ask_all(rig *r, const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char word[16];
        unsigned before = r->f.count;
        snprintf(word, sizeof(word), "v%zu", i);
        say(fds[i], word);
        UNTIL(&r->edge.l, r->f.count > before);
        assert_string_equal(last_text(&r->f), word);
    }
}

static void test_flows_of_a_tunnel(void **state)
{
    (void)state;
    static rig r;
    int fds[6];
    r = (rig){.flows = 4};
    rig_open(&r, 0);
    for (size_t i = 0; i < 6; i++)
        fds[i] = visitor(&r, "127.0.0.1", NULL);
    /* Never answered: the one that was silent for longest makes room. */
    ask_all(&r, fds, 5);
    assert_int_equal(r.edge.events[TUNNEL_EVENT_ACCESS], 1);
    answer(&r.f, 1, r.f.d[0].flow, "too late", 8);
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 1);
    /* Those that talk with the service stay, and who comes then is turned away. */
    for (unsigned i = 1; i < 5; i++) {
        for (int turn = 0; turn < 2; turn++) {
            answer(&r.f, 1, r.f.d[i].flow, "yes", 3);
            UNTIL(&r.edge.l, hears(fds[i], "yes"));
        }
    }
    say(fds[5], "nobody hears me");
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 2);
    assert_int_equal(r.f.count, 5);
    assert_int_equal(stats(&r)->flows, 5);
    say(fds[1], "I am still here");
    UNTIL(&r.edge.l, r.f.count == 6);
    assert_int_equal(last(&r.f)->flow, r.f.d[1].flow);
    for (size_t i = 0; i < 6; i++)
        close(fds[i]);
    rig_close(&r);
}

static void test_flows_of_a_source(void **state)
{
    (void)state;
    static rig r;
    int greedy[3], modest;
    r = (rig){.flows = 8, .flows_per_source = 2};
    rig_open(&r, 0);
    for (size_t i = 0; i < 3; i++)
        greedy[i] = visitor(&r, "127.0.0.1", "127.0.0.7");
    modest = visitor(&r, "127.0.0.1", "127.0.0.8");
    r.f.echo = true;
    for (size_t i = 0; i < 4; i++) {
        say(greedy[i % 2], "x");
        UNTIL(&r.edge.l, hears(greedy[i % 2], "x"));
    }
    say(greedy[2], "x");
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 1);
    say(modest, "x");
    UNTIL(&r.edge.l, hears(modest, "x"));
    assert_int_equal(stats(&r)->flows, 3);
    for (size_t i = 0; i < 3; i++)
        close(greedy[i]);
    close(modest);
    rig_close(&r);
}

/* The only flow of a source that may have one makes room for the next. */
static void test_one_flow_each(void **state)
{
    (void)state;
    static rig r;
    int fds[3];
    r = (rig){.flows_per_source = 1};
    rig_open(&r, 0);
    for (size_t i = 0; i < 3; i++)
        fds[i] = visitor(&r, "127.0.0.1", NULL);
    ask_all(&r, fds, 3);
    assert_int_equal(r.edge.events[TUNNEL_EVENT_ACCESS], 2);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    rig_close(&r);
}

/* Lookups: asked once, answered once, done. They make room at once, before who waits for an answer;
 * a host may have any number of them one after another. */
static void test_done_flows_make_room(void **state)
{
    (void)state;
    static rig r;
    int waiting, fds[20];
    r = (rig){.flows = 8, .flows_per_source = 2};
    rig_open(&r, 0);
    waiting = visitor(&r, "127.0.0.1", NULL);
    say(waiting, "a question that takes long");
    UNTIL(&r.edge.l, r.f.count == 1);
    r.f.echo = true;
    for (size_t i = 0; i < 20; i++) {
        fds[i] = visitor(&r, "127.0.0.1", NULL);
        say(fds[i], "x");
        UNTIL(&r.edge.l, hears(fds[i], "x"));
    }
    answer(&r.f, 1, r.f.d[0].flow, "at last", 7);
    UNTIL(&r.edge.l, hears(waiting, "at last"));
    assert_int_equal(stats(&r)->datagrams_dropped, 0);
    for (size_t i = 0; i < 20; i++)
        close(fds[i]);
    close(waiting);
    rig_close(&r);
}

/* Forged addresses take each other's places, not that of one who has just shaken hands: his next
 * datagram comes in the same flow. */
static void test_forged_addresses(void **state)
{
    (void)state;
    static rig r;
    char host[32];
    r = (rig){.flows = 4, .flows_per_source = 2};
    rig_open(&r, 0);
    r.f.echo = true;
    int honest = visitor(&r, "127.0.0.1", NULL);
    say(honest, "hello");
    UNTIL(&r.edge.l, hears(honest, "hello"));
    uint64_t flow = last(&r.f)->flow;
    r.f.echo = false;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(host, sizeof(host), "127.0.1.%u", i + 1);
        int fd = visitor(&r, "127.0.0.1", host);
        unsigned before = r.f.count;
        say(fd, "forged");
        UNTIL(&r.edge.l, r.f.count > before);
        close(fd);
    }
    say(honest, "who I am");
    UNTIL(&r.edge.l, strcmp(last_text(&r.f), "who I am") == 0);
    assert_true(last(&r.f)->flow == flow);
    close(honest);
    rig_close(&r);
}

/* One that talked and has been silent for a part of its idle time makes room too. */
static void test_silent_flows_make_room(void **state)
{
    (void)state;
    static rig r;
    r = (rig){.flows = 1};
    rig_open(&r, 2000);
    r.f.echo = true;
    int a = visitor(&r, "127.0.0.1", NULL), b = visitor(&r, "127.0.0.1", NULL);
    for (int turn = 0; turn < 2; turn++) {
        say(a, "x");
        UNTIL(&r.edge.l, hears(a, "x"));
    }
    bool heard = false;
    while (!heard) {
        say(b, "y");
        for (int i = 0; i < 20 && !heard; i++) {
            assert_true(test_turn(&r.edge.l));
            heard = hears(b, "y");
        }
    }
    close(a);
    close(b);
    rig_close(&r);
}

/* --- pressure --------------------------------------------------------------------------------- */

/* A burst: what arrives of it does so in order, and what does not is counted. */
static void test_burst(void **state)
{
    (void)state;
    enum { COUNT = 100, SIZE = 10000 };
    static char bytes[SIZE];
    static rig r;
    unsigned before;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    int a = visitor(&r, "127.0.0.1", NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(bytes, sizeof(bytes), "%u", i);
        (void)send(a, bytes, sizeof(bytes), 0);
    }
    do {
        before = r.f.count;
        for (int i = 0; i < 50; i++)
            test_turn(&r.edge.l);
    } while (r.f.count > before);
    int number = -1;
    for (unsigned i = 0; i < r.f.count; i++) {
        assert_true(atoi(r.f.text[i]) > number);
        number = atoi(r.f.text[i]);
    }
    assert_int_equal(number, COUNT - 1);
    assert_true(r.f.count + stats(&r)->datagrams_dropped <= COUNT);
    close(a);
    rig_close(&r);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void test_tunnel_goes(void **state)
{
    (void)state;
    static rig r;
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    int a = visitor(&r, "127.0.0.1", NULL);
    say(a, "x");
    UNTIL(&r.edge.l, r.f.count == 1);
    test_service_unpublish(&r.f.service, 1);
    UNTIL(&r.edge.l, r.edge.events[TUNNEL_EVENT_ACCESS] == 1);
    answer(&r.f, 1, r.f.d[0].flow, "late", 4);
    UNTIL(&r.edge.l, stats(&r)->datagrams_dropped == 1);
    close(a);
    /* The server goes with flows in it, inside an event of one. */
    publish(&r, 2, 0, 1);
    UNTIL(&r.edge.l, r.f.service.published == 2);
    r.port = r.f.service.port;
    int b = visitor(&r, "127.0.0.1", NULL), c = visitor(&r, "127.0.0.1", NULL);
    r.edge.close_in = TUNNEL_EVENT_ACCESS;
    say(b, "x");
    say(c, "x");
    UNTIL(&r.edge.l, r.edge.server_gone);
    close(b);
    close(c);
    rig_close(&r);
}

static void test_memory_of_idle_flows(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static rig r;
    int fds[COUNT + 1];
    r = (rig){.flows = 0};
    rig_open(&r, 0);
    for (size_t i = 0; i <= COUNT; i++)
        fds[i] = visitor(&r, "127.0.0.1", NULL);
    ask_all(&r, fds, 1);
    for (int i = 0; i < 20; i++)
        test_turn(&r.edge.l);
    size_t before = memory.bytes;
    ask_all(&r, fds + 1, COUNT);
    for (int i = 0; i < 20; i++)
        test_turn(&r.edge.l);
    size_t each = (memory.bytes - before) / COUNT;
    print_message("%zu bytes for each idle flow\n", each);
    assert_true(each < 600);
    for (size_t i = 0; i <= COUNT; i++)
        close(fds[i]);
    rig_close(&r);
}

static int all_freed(void **state)
{
    (void)state;
    return memory.live ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_published, all_freed),
        cmocka_unit_test_teardown(test_two_visitors, all_freed),
        cmocka_unit_test_teardown(test_address_is_told, all_freed),
        cmocka_unit_test_teardown(test_sizes, all_freed),
        cmocka_unit_test_teardown(test_families, all_freed),
        cmocka_unit_test_teardown(test_wrong_flows, all_freed),
        cmocka_unit_test_teardown(test_other_clients_flow, all_freed),
        cmocka_unit_test_teardown(test_idle_end, all_freed),
        cmocka_unit_test_teardown(test_flows_of_a_tunnel, all_freed),
        cmocka_unit_test_teardown(test_flows_of_a_source, all_freed),
        cmocka_unit_test_teardown(test_one_flow_each, all_freed),
        cmocka_unit_test_teardown(test_done_flows_make_room, all_freed),
        cmocka_unit_test_teardown(test_forged_addresses, all_freed),
        cmocka_unit_test_teardown(test_silent_flows_make_room, all_freed),
        cmocka_unit_test_teardown(test_burst, all_freed),
        cmocka_unit_test_teardown(test_tunnel_goes, all_freed),
        cmocka_unit_test_teardown(test_memory_of_idle_flows, all_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
