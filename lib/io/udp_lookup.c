/* SPDX-License-Identifier: Apache-2.0 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/mem.h"
#include "base/url.h"
#include "io/loop_internal.h"
#include "io/socket.h"
#include "io/udp.h"
#include "tunnel/error.h"

enum { MAX_HOST = 255 };

/* Outlives the lookup when canceled: libuv still has to report. */
typedef struct request {
    uv_getaddrinfo_t uv;
    tnl_udp_lookup *owner;
} request;

struct tnl_udp_lookup {
    tnl_loop *loop;
    tnl_udp_lookup_cb cb;
    void *user;
    tnl_task task;
    request *request;
    tnl_udp_address list[TNL_UDP_ADDRESSES];
    size_t count;
    int error;
    uint16_t port;
    char host[];
};

void tnl_udp_lookup_cancel(tnl_udp_lookup *r)
{
    if (!r)
        return;
    tnl_task_cancel(&r->task);
    if (r->request) {
        r->request->owner = NULL;
        uv_cancel((uv_req_t *)&r->request->uv);
    }
    tnl_free(r);
}

static void report(tnl_udp_lookup *r, int error, const char *what)
{
    char detail[MAX_HOST + 64];
    tnl_udp_address list[TNL_UDP_ADDRESSES];
    tnl_udp_lookup_cb cb = r->cb;
    void *user = r->user;
    size_t n = r->count;
    memcpy(list, r->list, sizeof(list));
    snprintf(detail, sizeof(detail), "%s: %s", r->host, what);
    tnl_udp_lookup_cancel(r);
    cb(user, error, error ? detail : "", list, error ? 0 : n);
}

static void add(tnl_udp_lookup *r, const struct sockaddr *sa)
{
    tnl_udp_address *a = &r->list[r->count];
    *a = (tnl_udp_address){.port = r->port};
    if (sa->sa_family == AF_INET) {
        a->family = 4;
        memcpy(a->address, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        a->family = 6;
        memcpy(a->address, &in6->sin6_addr, 16);
        a->scope = in6->sin6_scope_id;
    }
    r->count += a->family != 0;
}

static bool add_numeric(tnl_udp_lookup *r, const char *host)
{
    struct sockaddr_storage sa;
    if (tnl_address_parse(&sa, host, r->port))
        return false;
    add(r, (const struct sockaddr *)(const void *)&sa);
    return true;
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    request *q = TNL_CONTAINER(req, request, uv);
    tnl_udp_lookup *r = q->owner;
    tnl_free(q);
    if (r) {
        r->request = NULL;
        for (const struct addrinfo *i = status == 0 ? list : NULL;
             i && r->count < TNL_UDP_ADDRESSES; i = i->ai_next)
            add(r, i->ai_addr);
        if (r->count)
            report(r, 0, "");
        else if (status == UV_EAI_MEMORY || status == UV_ENOMEM)
            report(r, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        else
            report(r, TUNNEL_E_RESOLVE,
                   status == UV_EAI_AGAIN ? "the name server does not answer"
                                          : "no such host name");
    }
    uv_freeaddrinfo(list);
}

static int ask(tnl_udp_lookup *r)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
    request *q = tnl_calloc(1, sizeof(*q));
    if (!q)
        return UV_ENOMEM;
    int rc = uv_getaddrinfo(tnl_loop_handle(r->loop), &q->uv, on_resolved, r->host, NULL, &hints);
    if (rc) {
        tnl_free(q);
        return rc;
    }
    q->owner = r;
    r->request = q;
    return 0;
}

/* RFC 6761 section 6.3: localhost is this machine, whatever a resolver says. */
static void begin(void *user)
{
    tnl_udp_lookup *r = user;
    if (!add_numeric(r, r->host) && tnl_host_is_loopback(r->host)) {
        add_numeric(r, "127.0.0.1");
        add_numeric(r, "::1");
    }
    int rc = r->count ? 0 : ask(r);
    if (rc)
        report(r, tnl_io_error(rc), tnl_io_error_text(rc));
    else if (r->count)
        report(r, 0, "");
}

int tnl_udp_lookup_start(tnl_udp_lookup **out, tnl_loop *l, const char *host, uint16_t port,
                         tnl_udp_lookup_cb cb, void *user)
{
    size_t n = strlen(host) + 1;
    *out = NULL;
    if (n == 1 || n > MAX_HOST + 1 || port == 0)
        return TUNNEL_E_INVALID;
    tnl_udp_lookup *r = tnl_calloc(1, sizeof(*r) + n);
    if (!r)
        return TUNNEL_E_NOMEM;
    memcpy(r->host, host, n);
    r->loop = l;
    r->port = port;
    r->cb = cb;
    r->user = user;
    tnl_task_init(&r->task, begin, r);
    tnl_loop_defer(l, &r->task);
    *out = r;
    return 0;
}
