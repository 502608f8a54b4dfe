/* SPDX-License-Identifier: Apache-2.0 */
#include "io/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/mem.h"
#include "io/conn.h"
#include "io/hangup.h"
#include "io/loop_internal.h"
#include "tunnel/error.h"

#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44 /* newer than many a system's headers */
#endif

enum {
    READ_PER_TURN = 256 * 1024, /* one connection's share of a turn, so that others get theirs */
    READ_MAX = 256 * 1024,
    WRITE_VECTOR = 16,
    DEAF_MS = 30000,
};

/* What waits to be sent; exists only while something does. One half is with libuv, the other one
 * collects. */
typedef struct outq {
    uv_write_t req;
    tnl_buf sending;
    tnl_buf next;
} outq;

typedef struct sock {
    tnl_conn base;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    outq *out;
    tnl_timer *deaf_timer;
    tnl_hangup *hangup; /* while only our own direction is open */
    int error;          /* libuv's or one of ours, told in closed() */
    bool own_error;
    uint32_t turn;
    uint32_t turn_bytes;
    bool tcp;
    bool wanted;   /* the user wants to read */
    bool full;     /* the user had no room: not wanted until resumed, but waiting for room */
    bool reading;  /* libuv reads */
    bool in_alloc; /* libuv stands no stop and no close in there */
    bool resumed;  /* in there: by a new user, who has room */
    bool shut;     /* shutdown was asked for */
    bool deaf; /* the peer takes no more: what is written is dropped, what it sent is still read */
    bool torn; /* by a reset, where it ended nothing: the end that reading shows is no FIN */
    bool closing;
} sock;

static const tnl_conn_ops sock_ops;

static sock *of(tnl_conn *c)
{
    return TNL_CONTAINER(c, sock, base);
}

static int descriptor(const sock *s)
{
    uv_os_fd_t fd;
    return uv_fileno(&s->u.handle, &fd) == 0 ? fd : -1;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void drop_queue(sock *s)
{
    if (!s->out)
        return;
    tnl_buf_free(&s->out->sending);
    tnl_buf_free(&s->out->next);
    tnl_free(s->out);
    s->out = NULL;
}

static void on_closed(uv_handle_t *h)
{
    sock *s = h->data;
    tnl_loop *l = s->base.loop;
    drop_queue(s);
    int code = s->own_error ? s->error : tnl_io_error(s->error);
    const char *detail = "";
    if (code)
        detail = s->own_error ? tunnel_strerror(code) : tnl_io_error_text(s->error);
    if (s->base.events->closed)
        s->base.events->closed(s->base.user, code, detail);
    tnl_free(s);
    tnl_loop_unref(l);
}

static void stop_watching(sock *s)
{
    tnl_hangup_free(s->hangup);
    s->hangup = NULL;
}

static void begin_close(sock *s)
{
    if (s->closing)
        return;
    stop_watching(s);
    s->closing = true;
    s->wanted = false;
    tnl_timer_free(s->deaf_timer);
    s->deaf_timer = NULL;
    if (!s->in_alloc)
        uv_close(&s->u.handle, on_closed);
}

static void fail(sock *s, int uv_error)
{
    if (!s->closing)
        s->error = uv_error;
    begin_close(s);
}

static void fail_own(sock *s, int error)
{
    if (!s->closing) {
        s->error = error;
        s->own_error = true;
    }
    begin_close(s);
}

static void sock_close(tnl_conn *c, bool reset)
{
    sock *s = of(c);
    if (reset && s->tcp && !s->closing) {
        struct linger hard = {.l_onoff = 1, .l_linger = 0};
        setsockopt(descriptor(s), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    begin_close(s);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    sock *s = h->data;
    *buf = uv_buf_init(NULL, 0);
    uint32_t turn = tnl_loop_turn(s->base.loop);
    if (s->turn != turn) {
        s->turn = turn;
        s->turn_bytes = 0;
    }
    /* An empty buffer ends libuv's loop of reads; the socket stays polled and goes on in the next
     * turn. */
    if (s->turn_bytes >= READ_PER_TURN)
        return;

    uint8_t *p = NULL;
    s->in_alloc = true;
    s->resumed = false;
    size_t n = s->base.events->space(s->base.user, &p);
    s->in_alloc = false;
    if (s->closing || !s->wanted)
        return;
    if (n == 0) {
        s->wanted = s->resumed;
        s->full = !s->resumed;
        return;
    }
    *buf = uv_buf_init((char *)p, (unsigned)(n < READ_MAX ? n : READ_MAX));
}

/* After an empty buffer: does what could not be done while libuv asked for one. */
static void settle(sock *s)
{
    if (s->closing) {
        uv_close(&s->u.handle, on_closed);
    } else if (!s->wanted) {
        s->reading = false;
        uv_read_stop(&s->u.stream);
    }
}

/* libuv takes a hang-up right behind some bytes for the end without looking further, and gives no
 * buffer then: it may be a reset. */
static int hung_up(const sock *s)
{
    char byte;
    ssize_t n = recv(descriptor(s), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 && errno != EAGAIN ? uv_translate_sys_error(errno) : UV_EOF;
}

static void on_death(void *user, int uv_error)
{
    /* After a FIN the kernel says so of a reset. */
    fail(user, uv_error == UV_EPIPE ? UV_ECONNRESET : uv_error);
}

static void on_read(uv_stream_t *h, ssize_t nread, const uv_buf_t *buf)
{
    sock *s = h->data;
    if (nread == UV_EOF && !buf->base)
        nread = hung_up(s);
    if (nread > 0) {
        s->turn_bytes += (uint32_t)nread;
        if (s->deaf_timer)
            tnl_timer_start(s->deaf_timer, DEAF_MS);
        s->base.events->data(s->base.user, (uint8_t *)buf->base, (size_t)nread);
    } else if (nread == UV_ENOBUFS && buf->len == 0) {
        settle(s);
    } else if (nread == UV_EOF) {
        s->reading = false;
        s->base.ended = true;
        uv_read_stop(&s->u.stream);
        if (s->base.events->eof && !s->torn)
            s->base.events->eof(s->base.user);
        if (s->deaf)
            fail(s, UV_ECONNRESET);
        else if (s->tcp && !s->shut && !s->closing)
            s->hangup = tnl_hangup_new(s->base.loop, descriptor(s), on_death, s);
    } else if (nread < 0) {
        fail(s, (int)nread);
    }
}

static void sock_resume(tnl_conn *c)
{
    sock *s = of(c);
    if (s->closing || c->ended)
        return;
    s->wanted = s->resumed = true;
    s->full = false;
    if (s->reading)
        return;
    int rc = uv_read_start(&s->u.stream, on_alloc, on_read);
    if (rc)
        fail(s, rc);
    else
        s->reading = true;
}

static void sock_pause(tnl_conn *c)
{
    sock *s = of(c);
    s->wanted = s->full = false;
    if (s->closing || s->in_alloc || !s->reading)
        return;
    s->reading = false;
    uv_read_stop(&s->u.stream);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void on_deaf_timer(void *user)
{
    fail(user, UV_ECONNRESET);
}

/*
 * The peer takes nothing more. It may have answered before it went (a server that refuses an
 * upload), so what lies unread is delivered first, if anyone wants it.
 */
static void write_failed(sock *s, int uv_error)
{
    char byte;
    drop_queue(s);
    if (s->base.ended || !(s->wanted || s->full) ||
        recv(descriptor(s), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 ||
        tnl_timer_new(&s->deaf_timer, s->base.loop, on_deaf_timer, s)) {
        fail(s, uv_error);
        return;
    }
    s->deaf = true;
    /* After a FIN it would be EPIPE. */
    s->torn = uv_error == UV_ECONNRESET;
    tnl_timer_start(s->deaf_timer, DEAF_MS);
}

static void send_fin(sock *s)
{
    /* The queue is empty, so that nothing of libuv's is in the way. ENOTCONN: the peer is gone;
     * reading will tell. */
    shutdown(descriptor(s), SHUT_WR);
}

static void on_written(uv_write_t *req, int status);

static int start_write(sock *s)
{
    outq *q = s->out;
    tnl_buf empty = q->sending;
    q->sending = q->next;
    q->next = empty;
    uv_buf_t b = uv_buf_init((char *)tnl_buf_bytes(&q->sending),
                             (unsigned)tnl_buf_len(&q->sending));
    return uv_write(&q->req, &s->u.stream, &b, 1, on_written);
}

static void on_written(uv_write_t *req, int status)
{
    sock *s = req->handle->data;
    if (s->closing)
        return;
    if (status == 0) {
        tnl_buf_clear(&s->out->sending);
        if (tnl_buf_len(&s->out->next)) {
            status = start_write(s);
            if (status == 0)
                return;
        }
    }
    if (status) {
        write_failed(s, status);
    } else {
        drop_queue(s);
        if (s->shut)
            send_fin(s);
    }
    if (!s->closing && s->base.events->drained)
        s->base.events->drained(s->base.user);
}

/* Bytes of memory in the queue: what libuv has sent of its half is freed with the whole of it. */
static size_t queued(const sock *s)
{
    return s->out ? tnl_buf_len(&s->out->sending) + tnl_buf_len(&s->out->next) : 0;
}

static size_t sock_pending(const tnl_conn *c)
{
    const sock *s = TNL_CONTAINER(c, const sock, base);
    if (!s->out)
        return 0;
    return uv_stream_get_write_queue_size(&s->u.stream) + tnl_buf_len(&s->out->next);
}

static size_t total(const tnl_iov *v, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (v[i].n > SIZE_MAX - sum)
            return SIZE_MAX;
        sum += v[i].n;
    }
    return sum;
}

/* Queues v[0..n) without its first `skip` bytes. */
static int enqueue(sock *s, const tnl_iov *v, size_t n, size_t skip)
{
    size_t rest = total(v, n) - skip;
    if (rest > TNL_CONN_MAX_PENDING - queued(s))
        return TUNNEL_E_LIMIT;
    if (!s->out) {
        s->out = tnl_calloc(1, sizeof(*s->out));
        if (!s->out)
            return TUNNEL_E_NOMEM;
        tnl_buf_init(&s->out->sending, TNL_CONN_MAX_PENDING);
        tnl_buf_init(&s->out->next, TNL_CONN_MAX_PENDING);
    }
    bool idle = tnl_buf_len(&s->out->sending) == 0;
    if (!tnl_buf_reserve(&s->out->next, rest))
        return TUNNEL_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t cut = v[i].n < skip ? v[i].n : skip;
        skip -= cut;
        int rc = tnl_buf_add(&s->out->next, (const uint8_t *)v[i].p + cut, v[i].n - cut);
        if (rc)
            return rc;
    }
    if (!idle)
        return 0;
    int rc = start_write(s);
    return rc ? tnl_io_error(rc) : 0;
}

/* Writes what the socket takes now; the number of bytes, or a libuv error other than EAGAIN. */
static ssize_t write_now(sock *s, const tnl_iov *v, size_t n)
{
    ssize_t done = 0;
    for (size_t i = 0; i < n;) {
        uv_buf_t b[WRITE_VECTOR];
        unsigned count = 0;
        size_t want = 0;
        for (; i < n && count < WRITE_VECTOR; i++) {
            /* libuv counts in int */
            if (v[i].n > INT32_MAX - want)
                return done;
            if (v[i].n == 0)
                continue;
            want += v[i].n;
            b[count++] = (uv_buf_t){.base = (char *)(uintptr_t)v[i].p, .len = v[i].n};
        }
        if (count == 0)
            break;
        int rc = uv_try_write(&s->u.stream, b, count);
        if (rc < 0)
            return rc == UV_EAGAIN ? done : rc;
        done += rc;
        if ((size_t)rc < want)
            break;
    }
    return done;
}

static int sock_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    sock *s = of(c);
    if (s->closing || s->shut)
        return TUNNEL_E_STATE;
    if (s->deaf)
        return 0;
    ssize_t done = 0;
    if (!s->out) {
        done = write_now(s, v, n);
        if (done < 0) {
            write_failed(s, (int)done);
            return 0;
        }
        if ((size_t)done == total(v, n))
            return 0;
    }
    int rc = enqueue(s, v, n, (size_t)done);
    if (rc)
        fail_own(s, rc);
    return rc;
}

static void sock_shutdown(tnl_conn *c)
{
    sock *s = of(c);
    if (s->closing || s->shut)
        return;
    s->shut = true;
    stop_watching(s);
    if (!s->out && !s->deaf)
        send_fin(s);
}

/* --- birth ------------------------------------------------------------------------------------ */

static int sock_dup(tnl_conn *c)
{
    int fd = fcntl(descriptor(of(c)), F_DUPFD_CLOEXEC, 3);
    return fd >= 0 ? fd : tnl_io_error(uv_translate_sys_error(errno));
}

static tnl_address sock_peer(const tnl_conn *c)
{
    const sock *s = TNL_CONTAINER(c, const sock, base);
    struct sockaddr_storage sa = {.ss_family = AF_UNSPEC};
    int size = sizeof(sa);
    if (s->tcp)
        uv_tcp_getpeername(&s->u.tcp, (struct sockaddr *)(void *)&sa, &size);
    return tnl_address_of((const struct sockaddr *)(const void *)&sa);
}

static tnl_address sock_local(const tnl_conn *c)
{
    const sock *s = TNL_CONTAINER(c, const sock, base);
    struct sockaddr_storage sa = {.ss_family = AF_UNSPEC};
    int size = sizeof(sa);
    if (s->tcp)
        uv_tcp_getsockname(&s->u.tcp, (struct sockaddr *)(void *)&sa, &size);
    return tnl_address_of((const struct sockaddr *)(const void *)&sa);
}

static void sock_keep_little(tnl_conn *c)
{
    static const int most = TNL_CONN_UNSENT, again_ms = 1000;
    if (!of(c)->tcp)
        return;
    setsockopt(descriptor(of(c)), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof(most));
    setsockopt(descriptor(of(c)), IPPROTO_TCP, TCP_RTO_MAX_MS, &again_ms, sizeof(again_ms));
}

static const tnl_conn_ops sock_ops = {
    .write = sock_write,
    .pending = sock_pending,
    .resume = sock_resume,
    .pause = sock_pause,
    .shutdown = sock_shutdown,
    .close = sock_close,
    .dup = sock_dup,
    .peer = sock_peer,
    .local = sock_local,
    .keep_little = sock_keep_little,
};

int tnl_socket_new(tnl_conn **out, tnl_loop *l, int family)
{
    *out = NULL;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return TUNNEL_E_INVALID;
    sock *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->tcp = family != AF_UNIX;
    int rc = s->tcp ? uv_tcp_init(tnl_loop_handle(l), &s->u.tcp)
                    : uv_pipe_init(tnl_loop_handle(l), &s->u.pipe, 0);
    if (rc) {
        tnl_free(s);
        return tnl_io_error(rc);
    }
    s->u.handle.data = s;
    s->base.ops = &sock_ops;
    s->base.loop = l;
    tnl_conn_set_events(&s->base, &tnl_conn_no_events, NULL);
    tnl_loop_ref(l);
    *out = &s->base;
    return 0;
}

uv_stream_t *tnl_socket_stream(tnl_conn *c)
{
    return &of(c)->u.stream;
}

void tnl_socket_opened(tnl_conn *c)
{
    if (of(c)->tcp)
        uv_tcp_nodelay(&of(c)->u.tcp, 1);
}

void tnl_socket_keep_alive(int fd)
{
    static const int on = 1, idle_s = 60, interval_s = 15, probes = 4;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

int tnl_conn_from_fd(tnl_conn **out, tnl_loop *l, int fd, const tnl_conn_events *ev, void *user)
{
    *out = NULL;
    int family, type;
    socklen_t size = sizeof(int);
    tnl_conn *c = NULL;
    int rc = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size)) {
        rc = tnl_io_error(uv_translate_sys_error(errno));
        goto done;
    }
    rc = type == SOCK_STREAM ? tnl_socket_new(&c, l, family) : TUNNEL_E_INVALID;
    if (rc)
        goto done;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    sock *s = of(c);
    rc = tnl_io_error(s->tcp ? uv_tcp_open(&s->u.tcp, fd) : uv_pipe_open(&s->u.pipe, fd));
    if (rc) {
        tnl_conn_close(c);
        goto done;
    }
    fd = -1;
    tnl_socket_opened(c);
    tnl_conn_set_events(c, ev, user);
    *out = c;

done:
    if (fd >= 0)
        close(fd);
    return rc;
}
