/* SPDX-License-Identifier: Apache-2.0 */
#include "io/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "io/loop_internal.h"
#include "io/socket.h"
#include "tunnel/error.h"

enum {
    IN_COUNT = 16,      /* read with one call */
    IN_LARGE_COUNT = 2, /* the same after large ones, which would be too many bytes */
    LARGE = 8 * 1024,
    IN_SIZE = 64 * 1024,            /* for each */
    IN_ROUNDS = 4,                  /* calls in a turn */
    IN_BYTES = 128 * 1024,          /* and bytes, roughly */
    OUT_COUNT = 64,                 /* sent with one call */
    OUT_BYTES = 128 * 1024,         /* of them in all */
    KERNEL_BOUND = 4 * 1024 * 1024, /* buffers in the kernel, as far as it grants them */
    KERNEL_CONNECTED = 1024 * 1024,
    CONTROL = CMSG_SPACE(sizeof(struct in6_pktinfo)),
};

/* Aligned as control messages must be. */
typedef union control {
    struct cmsghdr head;
    uint8_t bytes[CONTROL];
} control;

/* What one recvmmsg() or sendmmsg() takes. */
typedef struct slot {
    struct sockaddr_storage name;
    struct iovec iov;
    control control;
} slot;

/* Shared by all sockets of a loop, made with the first and freed with the last. */
struct tnl_udp_batch {
    size_t refs;
    tnl_task task;  /* sends at the end of the turn */
    tnl_udp *owner; /* whose datagrams are gathered */
    unsigned out_count;
    size_t out_bytes;
    struct mmsghdr in[IN_COUNT];
    struct mmsghdr out[OUT_COUNT];
    slot in_slots[IN_COUNT];
    slot out_slots[OUT_COUNT];
    uint8_t out_data[OUT_BYTES];
    uint8_t in_data[IN_COUNT * IN_SIZE];
};

struct tnl_udp {
    tnl_loop *loop;
    uv_poll_t poll;
    int fd;
    int family;
    bool wildcard;
    bool connected;
    bool closing;
    bool large; /* the last call brought large ones */
    const tnl_udp_events *events;
    void *user;
    tnl_task refusal;
    tnl_udp_address to; /* connected: the other end */
    tnl_address bound;
    uint64_t dropped;
};

/* --- addresses -------------------------------------------------------------------------------- */

static void set_local(tnl_udp_address *a, const void *p, size_t n)
{
    memcpy(a->local, p, n);
}

static void from_sockaddr(tnl_udp_address *a, const struct sockaddr_storage *sa)
{
    memset(a, 0, sizeof(*a));
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        a->family = 4;
        a->port = ntohs(in->sin_port);
        memcpy(a->address, &in->sin_addr, 4);
        return;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
    a->port = ntohs(in6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        a->family = 4;
        memcpy(a->address, &in6->sin6_addr.s6_addr[12], 4);
        return;
    }
    a->family = 6;
    memcpy(a->address, &in6->sin6_addr, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
        a->scope = in6->sin6_scope_id;
}

/* An IPv4 address as a socket of IPv6 knows it. */
static void map_address(struct in6_addr *out, const uint8_t address[4])
{
    memset(out, 0, sizeof(*out));
    out->s6_addr[10] = out->s6_addr[11] = 0xff;
    memcpy(&out->s6_addr[12], address, 4);
}

static socklen_t to_sockaddr(struct sockaddr_storage *sa, int family, const tnl_udp_address *a)
{
    memset(sa, 0, sizeof(*sa));
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)sa;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->address, 4);
        return sizeof(*in);
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)sa;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    in6->sin6_scope_id = a->scope;
    if (a->family == 4)
        map_address(&in6->sin6_addr, a->address);
    else
        memcpy(&in6->sin6_addr, a->address, 16);
    return sizeof(*in6);
}

tnl_address tnl_udp_text(const tnl_udp_address *a)
{
    struct sockaddr_storage sa;
    to_sockaddr(&sa, a->family == 4 ? AF_INET : AF_INET6, a);
    return tnl_address_of((const struct sockaddr *)(const void *)&sa);
}

/* Which address of ours a datagram came to. */
static void read_control(tnl_udp_address *a, struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            set_local(a, &info.ipi_spec_dst, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            if (a->family == 4)
                set_local(a, &info.ipi6_addr.s6_addr[12], 4);
            else if (!IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
                set_local(a, &info.ipi6_addr, 16);
        }
    }
}

/* Lets the datagram leave from the address of ours that is meant. */
static void write_control(struct msghdr *m, control *space, int family, const tnl_udp_address *a)
{
    static const uint8_t zeros[16];
    struct in_pktinfo info4 = {.ipi_ifindex = 0};
    struct in6_pktinfo info6 = {.ipi6_ifindex = a->scope};
    if (memcmp(a->local, zeros, sizeof(zeros)) == 0)
        return;
    memset(space, 0, sizeof(*space));
    m->msg_control = space;
    size_t size = family == AF_INET ? sizeof(info4) : sizeof(info6);
    m->msg_controllen = CMSG_SPACE(size);
    space->head.cmsg_len = CMSG_LEN(size);
    space->head.cmsg_level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    space->head.cmsg_type = family == AF_INET ? IP_PKTINFO : IPV6_PKTINFO;
    if (family == AF_INET) {
        memcpy(&info4.ipi_spec_dst, a->local, 4);
        memcpy(CMSG_DATA(&space->head), &info4, sizeof(info4));
        return;
    }
    if (a->family == 4)
        map_address(&info6.ipi6_addr, a->local);
    else
        memcpy(&info6.ipi6_addr, a->local, 16);
    memcpy(CMSG_DATA(&space->head), &info6, sizeof(info6));
}

/* --- sending ---------------------------------------------------------------------------------- */

static void on_refusal(void *user)
{
    tnl_udp *u = user;
    if (!u->closing && u->events->refused)
        u->events->refused(u->user);
}

/* An error that is told of an earlier datagram has nothing to do with this one: it is sent again.
 */
static void flush(tnl_udp_batch *b)
{
    tnl_udp *u = b->owner;
    unsigned done = 0, retried = UINT_MAX;
    b->owner = NULL;
    while (done < b->out_count) {
        int n = sendmmsg(u->fd, b->out + done, b->out_count - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += (unsigned)n;
        } else if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
            u->dropped += b->out_count - done;
            break;
        } else if (errno == ECONNREFUSED && retried != done) {
            retried = done;
            tnl_loop_defer(u->loop, &u->refusal);
        } else if (errno != EINTR) {
            u->dropped++;
            done++;
        }
    }
    b->out_count = 0;
    b->out_bytes = 0;
}

static void on_turn_ends(void *user)
{
    tnl_udp_batch *b = user;
    if (b->owner)
        flush(b);
}

void tnl_udp_send(tnl_udp *u, const tnl_udp_address *to, const void *p, size_t n)
{
    tnl_udp_batch *b = *tnl_loop_udp(u->loop);
    if (u->closing || n > TNL_UDP_MAX || (to && u->family == AF_INET && to->family != 4)) {
        u->dropped++;
        return;
    }
    if (b->owner && (b->owner != u || b->out_count == OUT_COUNT || OUT_BYTES - b->out_bytes < n))
        flush(b);
    b->owner = u;
    slot *s = &b->out_slots[b->out_count];
    struct msghdr *m = &b->out[b->out_count++].msg_hdr;
    memset(m, 0, sizeof(*m));
    s->iov.iov_base = b->out_data + b->out_bytes;
    s->iov.iov_len = n;
    if (n)
        memcpy(s->iov.iov_base, p, n);
    b->out_bytes += n;
    m->msg_iov = &s->iov;
    m->msg_iovlen = 1;
    if (to) {
        m->msg_name = &s->name;
        m->msg_namelen = to_sockaddr(&s->name, u->family, to);
        if (u->wildcard)
            write_control(m, &s->control, u->family, to);
    }
    tnl_loop_defer(u->loop, &b->task);
}

uint64_t tnl_udp_dropped(const tnl_udp *u)
{
    return u->dropped;
}

/* --- receiving -------------------------------------------------------------------------------- */

static void prepare_in(tnl_udp_batch *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        slot *s = &b->in_slots[i];
        s->iov.iov_base = b->in_data + i * IN_SIZE;
        s->iov.iov_len = IN_SIZE;
        b->in[i].msg_hdr = (struct msghdr){.msg_name = &s->name,
                                           .msg_namelen = sizeof(s->name),
                                           .msg_iov = &s->iov,
                                           .msg_iovlen = 1,
                                           .msg_control = &s->control,
                                           .msg_controllen = sizeof(s->control)};
    }
}

/* One call's worth. How many bytes came; 0: there is nothing more. */
static size_t receive_some(tnl_udp *u, tnl_udp_batch *b)
{
    size_t bytes = 0;
    unsigned count = u->large ? IN_LARGE_COUNT : IN_COUNT;
    prepare_in(b, count);
    int n = recvmmsg(u->fd, b->in, count, MSG_DONTWAIT, NULL);
    if (n < 0 && errno == ECONNREFUSED)
        tnl_loop_defer(u->loop, &u->refusal);
    if (n < 0)
        return errno == EAGAIN ? 0 : 1;
    u->large = false;
    for (int i = 0; i < n && !u->closing; i++) {
        tnl_udp_address from = u->to;
        size_t len = b->in[i].msg_len;
        if (!u->connected) {
            from_sockaddr(&from, &b->in_slots[i].name);
            if (u->wildcard)
                read_control(&from, &b->in[i].msg_hdr);
        }
        bytes += len + 1;
        u->large = u->large || len > LARGE;
        if (len <= TNL_UDP_MAX)
            u->events->datagram(u->user, &from, b->in_data + (size_t)i * IN_SIZE, len);
    }
    return (unsigned)n < count ? 0 : bytes;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    tnl_udp *u = h->data;
    size_t bytes = 0;
    (void)events;
    if (status < 0) {
        /* libuv stops polling a socket with an error on it, such as what an ICMP message said. */
        int error = 0;
        socklen_t size = sizeof(error);
        getsockopt(u->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error == ECONNREFUSED)
            tnl_loop_defer(u->loop, &u->refusal);
        uv_poll_start(&u->poll, UV_READABLE, on_poll);
    }
    for (int i = 0; i < IN_ROUNDS && bytes < IN_BYTES && !u->closing; i++) {
        size_t n = receive_some(u, *tnl_loop_udp(u->loop));
        if (n == 0)
            return;
        bytes += n;
    }
}

/* --- life ------------------------------------------------------------------------------------- */

static int batch_ref(tnl_loop *l)
{
    tnl_udp_batch **b = tnl_loop_udp(l);
    if (!*b) {
        *b = tnl_malloc(sizeof(**b));
        if (!*b)
            return TUNNEL_E_NOMEM;
        (*b)->refs = 0;
        (*b)->owner = NULL;
        (*b)->out_count = 0;
        (*b)->out_bytes = 0;
        tnl_task_init(&(*b)->task, on_turn_ends, *b);
    }
    (*b)->refs++;
    return 0;
}

static void batch_unref(tnl_loop *l)
{
    tnl_udp_batch **b = tnl_loop_udp(l);
    if (--(*b)->refs)
        return;
    tnl_task_cancel(&(*b)->task);
    tnl_free(*b);
    *b = NULL;
}

static void on_closed(uv_handle_t *h)
{
    tnl_udp *u = h->data;
    batch_unref(u->loop);
    tnl_loop_unref(u->loop);
    tnl_free(u);
}

void tnl_udp_free(tnl_udp *u)
{
    if (!u || u->closing)
        return;
    tnl_udp_batch *b = *tnl_loop_udp(u->loop);
    if (b->owner == u)
        flush(b);
    u->closing = true;
    tnl_task_cancel(&u->refusal);
    uv_close((uv_handle_t *)&u->poll, on_closed);
    close(u->fd);
}

/* Takes the descriptor, also on failure. 0 or libuv's error. */
static int wrap(tnl_udp **out, tnl_loop *l, int fd, tnl_udp *values)
{
    tnl_udp *u = tnl_malloc(sizeof(*u));
    if (!u || batch_ref(l)) {
        tnl_free(u);
        close(fd);
        return UV_ENOMEM;
    }
    *u = *values;
    u->loop = l;
    u->fd = fd;
    tnl_task_init(&u->refusal, on_refusal, u);
    int rc = uv_poll_init(tnl_loop_handle(l), &u->poll, fd);
    if (rc) {
        batch_unref(l);
        tnl_free(u);
        close(fd);
        return rc;
    }
    u->poll.data = u;
    tnl_loop_ref(l);
    uv_poll_start(&u->poll, UV_READABLE, on_poll);
    *out = u;
    return 0;
}

static void widen(int fd, int size)
{
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int tnl_udp_connect(tnl_udp **out, tnl_loop *l, const tnl_udp_address *to, const tnl_udp_events *ev,
                    void *user)
{
    struct sockaddr_storage sa;
    tnl_udp u = {.family = to->family == 4 ? AF_INET : AF_INET6,
                 .connected = true,
                 .events = ev,
                 .user = user,
                 .to = *to};
    int fd = socket(u.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tnl_io_error(uv_translate_sys_error(errno));
    widen(fd, KERNEL_CONNECTED);
    socklen_t size = to_sockaddr(&sa, u.family, to);
    if (connect(fd, (const struct sockaddr *)(const void *)&sa, size)) {
        int saved = errno;
        close(fd);
        return tnl_io_error(uv_translate_sys_error(saved));
    }
    size = sizeof(sa);
    if (getsockname(fd, (struct sockaddr *)(void *)&sa, &size) == 0)
        u.bound = tnl_address_of((const struct sockaddr *)(const void *)&sa);
    return tnl_io_error(wrap(out, l, fd, &u));
}

/* 0 or libuv's error. */
static int open_bound(tnl_udp *u, struct sockaddr_storage *sa, int *out_fd)
{
    static const int on = 1;
    socklen_t size = sizeof(*sa);
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
    int fd = socket(sa->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return uv_translate_sys_error(errno);
    u->family = sa->ss_family;
    widen(fd, KERNEL_BOUND);
    if (u->family == AF_INET6) {
        u->wildcard = IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
    } else {
        u->wildcard = in->sin_addr.s_addr == htonl(INADDR_ANY);
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    }
    if (bind(fd, (struct sockaddr *)(void *)sa, tnl_address_size(sa)) ||
        getsockname(fd, (struct sockaddr *)(void *)sa, &size)) {
        int saved = errno;
        close(fd);
        return uv_translate_sys_error(saved);
    }
    u->bound = tnl_address_of((const struct sockaddr *)(const void *)sa);
    *out_fd = fd;
    return 0;
}

static int explain(char *detail, size_t size, const char *address, int error, const char *what)
{
    if (detail)
        snprintf(detail, size, "cannot open UDP %s: %s", address, what);
    return error;
}

int tnl_udp_new(tnl_udp **out, tnl_loop *l, const char *address, const tnl_udp_events *ev,
                void *user, char *detail, size_t detail_size)
{
    char host[64];
    uint16_t port;
    struct sockaddr_storage sa;
    tnl_udp u = {.events = ev, .user = user};
    int fd = -1;
    if (tnl_address_split(address, host, sizeof(host), &port) ||
        tnl_address_parse(&sa, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, port))
        return explain(detail, detail_size, address, TUNNEL_E_INVALID,
                       "an address is written like 127.0.0.1:5353 or [::1]:5353");
    int rc = open_bound(&u, &sa, &fd);
    if (rc == 0)
        rc = wrap(out, l, fd, &u);
    if (rc == 0)
        return 0;
    const char *what = rc == UV_EADDRINUSE ? "another program holds the port; choose another one"
                       : rc == UV_EACCES
                           ? "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                           : tnl_io_error_text(rc);
    int error = tnl_io_error(rc);
    return explain(detail, detail_size, address,
                   error == TUNNEL_E_UNREACHABLE ? TUNNEL_E_INVALID : error, what);
}

tnl_address tnl_udp_bound(const tnl_udp *u)
{
    return u->bound;
}
