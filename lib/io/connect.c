/* SPDX-License-Identifier: Apache-2.0 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <uv.h>

#include "base/mem.h"
#include "io/conn.h"
#include "io/loop_internal.h"
#include "io/socket.h"
#include "tunnel/error.h"

enum {
    MAX_ADDRESSES = 8,
    MAX_ATTEMPTS = 24,
    STAGGER_MS = 250, /* RFC 8305 section 5 */
    INSIST_MS = 500,
    MAX_HOST = 255,
};

/* One address being tried. Outlives the tnl_connect when canceled: libuv still has to report. */
typedef struct attempt {
    uv_connect_t req;
    struct tnl_connect *owner;
    tnl_conn *conn;
} attempt;

typedef struct resolution {
    uv_getaddrinfo_t req;
    struct tnl_connect *owner;
} resolution;

struct tnl_connect {
    tnl_loop *loop;
    tnl_connect_cb cb;
    void *user;
    tnl_task task; /* begins; or reports what failed at once */
    tnl_timer *stagger;
    tnl_timer *limit;
    uint64_t timeout_ms;
    resolution *resolution;
    struct sockaddr_storage addresses[MAX_ADDRESSES];
    size_t count;
    size_t next; /* attempt: the addresses in turn */
    size_t running;
    attempt *attempts[MAX_ATTEMPTS];
    bool insists;
    int error; /* libuv's, of the failure that tells most so far */
    uint16_t port;
    char host[]; /* or the path */
};

static bool is_unix(const tnl_connect *c)
{
    return c->port == 0;
}

static void target(const tnl_connect *c, char *out, size_t size)
{
    if (is_unix(c))
        snprintf(out, size, "unix:%s", c->host);
    else
        tnl_address_text(out, size, c->host, c->port);
}

static void abandon(tnl_connect *c, size_t i)
{
    attempt *a = c->attempts[i];
    if (!a)
        return;
    a->owner = NULL;
    tnl_conn_close(a->conn);
    c->attempts[i] = NULL;
}

static void release(tnl_connect *c)
{
    tnl_task_cancel(&c->task);
    tnl_timer_free(c->stagger);
    tnl_timer_free(c->limit);
    for (size_t i = 0; i < MAX_ATTEMPTS; i++)
        abandon(c, i);
    if (c->resolution) {
        c->resolution->owner = NULL;
        uv_cancel((uv_req_t *)&c->resolution->req);
    }
    tnl_free(c);
}

void tnl_connect_cancel(tnl_connect *c)
{
    if (c)
        release(c);
}

static void report(tnl_connect *c, int error, const char *what)
{
    char place[MAX_HOST + 16];
    char detail[MAX_HOST + 128];
    target(c, place, sizeof(place));
    snprintf(detail, sizeof(detail), "connect to %s: %s", place, what);
    tnl_connect_cb cb = c->cb;
    void *user = c->user;
    release(c);
    cb(user, error, detail, NULL);
}

static void report_failure(tnl_connect *c)
{
    report(c, tnl_io_error(c->error), tnl_io_error_text(c->error));
}

static void on_limit(void *user)
{
    tnl_connect *c = user;
    char what[64];
    bool seconds = c->timeout_ms >= 1000;
    snprintf(what, sizeof(what), "%s after %llu %s",
             c->resolution ? "the name server did not answer" : "timed out",
             (unsigned long long)(seconds ? c->timeout_ms / 1000 : c->timeout_ms),
             seconds ? "s" : "ms");
    report(c, c->resolution ? TUNNEL_E_RESOLVE : TUNNEL_E_TIMEOUT, what);
}

/* --- attempts --------------------------------------------------------------------------------- */

/* "Refused" is worth more to the reader than "unreachable", which other families of addresses often
 * give. */
static void note_error(tnl_connect *c, int uv_error)
{
    if (c->error == 0 || tnl_io_error(c->error) == TUNNEL_E_UNREACHABLE)
        c->error = uv_error;
}

/* A connect to a free local port in the ephemeral range can meet itself. */
static bool is_self_connected(attempt *a, const struct sockaddr_storage *to)
{
    struct sockaddr_storage own;
    int size = sizeof(own);
    const struct sockaddr_in *to4 = (const struct sockaddr_in *)(const void *)to;
    const struct sockaddr_in6 *to6 = (const struct sockaddr_in6 *)(const void *)to;
    bool loopback = to->ss_family == AF_INET ? (ntohl(to4->sin_addr.s_addr) >> 24) == 127
                                             : IN6_IS_ADDR_LOOPBACK(&to6->sin6_addr);
    if (!loopback || uv_tcp_getsockname((const uv_tcp_t *)tnl_socket_stream(a->conn),
                                        (struct sockaddr *)(void *)&own, &size))
        return false;
    const struct sockaddr *own_sa = (const struct sockaddr *)(const void *)&own;
    const struct sockaddr *to_sa = (const struct sockaddr *)(const void *)to;
    return tnl_address_of(own_sa).port == tnl_address_of(to_sa).port;
}

static void next_attempt(tnl_connect *c);

static void on_connected(uv_connect_t *req, int status)
{
    attempt *a = TNL_CONTAINER(req, attempt, req);
    tnl_connect *c = a->owner;
    if (!c) {
        tnl_free(a);
        return;
    }
    size_t i = 0;
    while (c->attempts[i] != a)
        i++;
    if (status == 0 && !is_unix(c) && is_self_connected(a, &c->addresses[i % c->count]))
        status = UV_ECONNREFUSED;
    if (status) {
        abandon(c, i);
        tnl_free(a);
        c->running--;
        note_error(c, status);
        next_attempt(c);
        return;
    }
    tnl_conn *conn = a->conn;
    c->attempts[i] = NULL;
    tnl_free(a);
    uv_os_fd_t fd;
    tnl_socket_opened(conn);
    if (uv_fileno((const uv_handle_t *)tnl_socket_stream(conn), &fd) == 0)
        tnl_socket_keep_alive(fd);
    tnl_connect_cb cb = c->cb;
    void *user = c->user;
    release(c);
    cb(user, 0, "", conn);
}

/* 0 or libuv's error. */
static int begin_attempt(tnl_connect *c, size_t i)
{
    const struct sockaddr_storage *sa = &c->addresses[i % c->count];
    attempt *a = tnl_calloc(1, sizeof(*a));
    if (!a || tnl_socket_new(&a->conn, c->loop, is_unix(c) ? AF_UNIX : sa->ss_family)) {
        tnl_free(a);
        return UV_ENOMEM;
    }
    a->owner = c;
    c->attempts[i] = a;
    uv_stream_t *stream = tnl_socket_stream(a->conn);
    int rc = 0;
    if (is_unix(c))
        uv_pipe_connect(&a->req, (uv_pipe_t *)stream, c->host, on_connected);
    else
        rc = uv_tcp_connect(&a->req, (uv_tcp_t *)stream, (const struct sockaddr *)(const void *)sa,
                            on_connected);
    if (rc) {
        abandon(c, i);
        tnl_free(a);
    }
    return rc;
}

static void next_attempt(tnl_connect *c)
{
    while (c->next < c->count) {
        int rc = begin_attempt(c, c->next++);
        if (rc == 0) {
            c->running++;
            if (c->next < c->count)
                tnl_timer_start(c->stagger, STAGGER_MS);
            else if (c->insists)
                tnl_timer_start(c->stagger, INSIST_MS);
            return;
        }
        note_error(c, rc);
    }
    if (c->running == 0)
        report_failure(c);
}

/* One more of an address that has not answered; those before it go on: the way may be long. */
static void insist(tnl_connect *c)
{
    if (c->next >= MAX_ATTEMPTS || is_unix(c))
        return;
    if (begin_attempt(c, c->next++) == 0)
        c->running++;
    tnl_timer_start(c->stagger, INSIST_MS);
}

static void on_stagger(void *user)
{
    tnl_connect *c = user;
    if (c->next < c->count)
        next_attempt(c);
    else
        insist(c);
}

void tnl_connect_insist(tnl_connect *c)
{
    c->insists = true;
}

/* --- names ------------------------------------------------------------------------------------ */

/* Takes the resolver's addresses in its order, alternating between the families (RFC 8305 section
 * 4). */
static void take_addresses(tnl_connect *c, const struct addrinfo *list)
{
    const struct addrinfo *of[2] = {list, list};
    int first = list ? list->ai_family : AF_INET6;
    int families[2] = {first, first == AF_INET6 ? AF_INET : AF_INET6};
    for (size_t turn = 0; c->count < MAX_ADDRESSES && (of[0] || of[1]); turn ^= 1) {
        while (of[turn] && of[turn]->ai_family != families[turn])
            of[turn] = of[turn]->ai_next;
        if (!of[turn])
            continue;
        struct sockaddr_storage *sa = &c->addresses[c->count++];
        memset(sa, 0, sizeof(*sa));
        memcpy(sa, of[turn]->ai_addr, of[turn]->ai_addrlen);
        of[turn] = of[turn]->ai_next;
    }
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    resolution *r = TNL_CONTAINER(req, resolution, req);
    tnl_connect *c = r->owner;
    tnl_free(r);
    if (c) {
        c->resolution = NULL;
        if (status == 0)
            take_addresses(c, list);
        if (c->count)
            next_attempt(c);
        else if (status == UV_EAI_MEMORY || status == UV_ENOMEM)
            report(c, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        else
            report(c, TUNNEL_E_RESOLVE,
                   status == UV_EAI_AGAIN ? "the name server does not answer"
                                          : "no such host name");
    }
    uv_freeaddrinfo(list);
}

static int resolve(tnl_connect *c)
{
    char port[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    hints.ai_flags = AI_NUMERICSERV;
    resolution *r = tnl_calloc(1, sizeof(*r));
    if (!r)
        return UV_ENOMEM;
    snprintf(port, sizeof(port), "%u", (unsigned)c->port);
    int rc = uv_getaddrinfo(tnl_loop_handle(c->loop), &r->req, on_resolved, c->host, port, &hints);
    if (rc) {
        tnl_free(r);
        return rc;
    }
    r->owner = c;
    c->resolution = r;
    return 0;
}

/* RFC 6761 section 6.3: localhost and all names below it are this machine, whatever a resolver
 * says. */
static bool is_localhost(const char *host)
{
    size_t n = strlen(host);
    if (n && host[n - 1] == '.')
        n--;
    static const char name[] = "localhost";
    size_t len = sizeof(name) - 1;
    return n >= len && strncasecmp(host + n - len, name, len) == 0 &&
           (n == len || host[n - len - 1] == '.');
}

static void begin(void *user)
{
    tnl_connect *c = user;
    struct sockaddr_un sa;
    int rc = 0;
    if (is_unix(c)) {
        c->count = 1;
        if (tnl_address_unix(&sa, c->host) == 0)
            rc = UV_ENAMETOOLONG;
    } else if (is_localhost(c->host)) {
        tnl_address_parse(&c->addresses[0], "127.0.0.1", c->port);
        tnl_address_parse(&c->addresses[1], "::1", c->port);
        c->count = 2;
    } else if (tnl_address_parse(&c->addresses[0], c->host, c->port) == 0) {
        c->count = 1;
    } else {
        rc = resolve(c);
    }
    if (rc) {
        c->error = rc;
        report_failure(c);
    } else if (c->count) {
        next_attempt(c);
    }
}

int tnl_connect_start(tnl_connect **out, tnl_loop *l, const char *host, uint16_t port,
                      const char *unix_path, uint64_t timeout_ms, tnl_connect_cb cb, void *user)
{
    *out = NULL;
    const char *name = host ? host : unix_path;
    if (!name || !*name || strlen(name) > MAX_HOST || (host && port == 0))
        return TUNNEL_E_INVALID;
    size_t n = strlen(name) + 1;
    tnl_connect *c = tnl_calloc(1, sizeof(*c) + n);
    if (!c)
        return TUNNEL_E_NOMEM;
    memcpy(c->host, name, n);
    c->port = host ? port : 0;
    c->loop = l;
    c->cb = cb;
    c->user = user;
    c->timeout_ms = timeout_ms;
    tnl_task_init(&c->task, begin, c);
    if (tnl_timer_new(&c->stagger, l, on_stagger, c) || tnl_timer_new(&c->limit, l, on_limit, c)) {
        release(c);
        return TUNNEL_E_NOMEM;
    }
    tnl_timer_start(c->limit, timeout_ms);
    tnl_loop_defer(l, &c->task);
    *out = c;
    return 0;
}
