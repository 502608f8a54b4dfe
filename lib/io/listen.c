/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "io/conn.h"
#include "io/loop_internal.h"
#include "io/socket.h"
#include "tunnel/error.h"

enum {
    BACKLOG = 1024,
    ACCEPTS_PER_TURN = 64,
    NOMEM_RETRY_MS = 100,
};

struct tnl_listener {
    tnl_loop *loop;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    tnl_accept_cb cb;
    void *user;
    tnl_timer *again; /* takes the connection that was left waiting */
    int family;
    uint32_t turn;
    uint32_t turn_count;
    bool closing;
    tnl_address address;
    dev_t path_device; /* of the socket file, so that another one's is not removed */
    ino_t path_inode;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static void on_closed(uv_handle_t *h)
{
    tnl_listener *l = h->data;
    tnl_loop_unref(l->loop);
    tnl_free(l);
}

void tnl_listener_free(tnl_listener *l)
{
    if (!l || l->closing)
        return;
    struct stat st;
    if (l->path[0] && lstat(l->path, &st) == 0 && st.st_dev == l->path_device &&
        st.st_ino == l->path_inode)
        unlink(l->path);
    l->closing = true;
    tnl_timer_free(l->again);
    uv_close(&l->u.handle, on_closed);
}

static void accept_one(tnl_listener *l)
{
    tnl_conn *c;
    if (tnl_socket_new(&c, l->loop, l->family)) {
        tnl_timer_start(l->again, NOMEM_RETRY_MS);
        return;
    }
    if (uv_accept(&l->u.stream, tnl_socket_stream(c))) {
        tnl_conn_close(c);
        return;
    }
    tnl_socket_opened(c);
    l->cb(l->user, c);
}

static void on_again(void *user)
{
    accept_one(user);
}

static void on_connection(uv_stream_t *h, int status)
{
    tnl_listener *l = h->data;
    /* Out of descriptors: libuv has dropped the visitor. */
    if (status < 0 || l->closing)
        return;
    uint32_t turn = tnl_loop_turn(l->loop);
    if (l->turn != turn) {
        l->turn = turn;
        l->turn_count = 0;
    }
    /* A connection left with libuv stops its loop of accepts. */
    if (++l->turn_count > ACCEPTS_PER_TURN)
        tnl_timer_start(l->again, 0);
    else
        accept_one(l);
}

/* --- binding ---------------------------------------------------------------------------------- */

typedef struct binding {
    const char *text; /* as the user wrote it */
    char *detail;
    size_t size;
} binding;

static int explain(const binding *b, int error, const char *what)
{
    if (b->size)
        snprintf(b->detail, b->size, "cannot listen on %s: %s", b->text, what);
    return error;
}

static int explain_errno(const binding *b, int number)
{
    int uv_error = uv_translate_sys_error(number);
    int error = tnl_io_error(uv_error);
    switch (uv_error) {
    case UV_EADDRINUSE:
        return explain(b, error, "another program listens there; stop it or choose another port");
    case UV_EACCES:
        return explain(b, error,
                       "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE, a "
                       "socket file a writable directory");
    case UV_EADDRNOTAVAIL:
        return explain(b, TUNNEL_E_INVALID,
                       "this machine has no such address; 0.0.0.0 or [::] mean all it has");
    case UV_ENOENT:
        return explain(b, TUNNEL_E_INVALID, "the directory does not exist");
    default:
        return explain(b, error == TUNNEL_E_UNREACHABLE ? TUNNEL_E_INVALID : error,
                       tnl_io_error_text(uv_error));
    }
}

/* A socket file that nobody listens on any more is left over from a crash. */
static bool is_stale(const struct sockaddr_un *sa, socklen_t size)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool stale = connect(fd, (const struct sockaddr *)(const void *)sa, size) != 0 &&
                 errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int bind_unix(tnl_listener *l, const binding *b, const char *path, int *out_fd)
{
    struct sockaddr_un sa;
    struct stat st;
    socklen_t size = tnl_address_unix(&sa, path);
    if (size == 0)
        return explain(b, TUNNEL_E_INVALID, "a socket's path has 1 to 107 bytes");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return explain_errno(b, errno);
    int rc = bind(fd, (struct sockaddr *)(void *)&sa, size);
    if (rc && errno == EADDRINUSE) {
        if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
            close(fd);
            return explain(b, TUNNEL_E_ADDR_IN_USE, "there is a file of that name");
        }
        errno = EADDRINUSE;
        if (is_stale(&sa, size) && unlink(path) == 0)
            rc = bind(fd, (struct sockaddr *)(void *)&sa, size);
        else
            errno = EADDRINUSE;
    }
    if (rc) {
        int saved = errno;
        close(fd);
        return explain_errno(b, saved);
    }
    if (lstat(path, &st) == 0) {
        l->path_device = st.st_dev;
        l->path_inode = st.st_ino;
        memcpy(l->path, sa.sun_path, sizeof(l->path));
    }
    *out_fd = fd;
    return 0;
}

static int bind_tcp(tnl_listener *l, const binding *b, int *out_fd)
{
    char host[64];
    uint16_t port;
    struct sockaddr_storage sa;
    if (tnl_address_split(b->text, host, sizeof(host), &port))
        return explain(b, TUNNEL_E_INVALID,
                       "an address is written like 127.0.0.1:8080, [::1]:8080 or unix:/path");
    if (tnl_address_parse(&sa, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, port))
        return explain(
            b, TUNNEL_E_INVALID,
            "not a numeric address; 127.0.0.1 is this machine, 0.0.0.0 all its networks");
    l->family = sa.ss_family;
    int fd = socket(l->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return explain_errno(b, errno);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    tnl_socket_keep_alive(fd); /* inherited by what is accepted */
    socklen_t size = sizeof(sa);
    if (bind(fd, (struct sockaddr *)(void *)&sa, tnl_address_size(&sa)) ||
        getsockname(fd, (struct sockaddr *)(void *)&sa, &size)) {
        int saved = errno;
        close(fd);
        return explain_errno(b, saved);
    }
    l->address = tnl_address_of((struct sockaddr *)(void *)&sa);
    *out_fd = fd;
    return 0;
}

/* From here on the handle exists, so that l is to be freed by closing it. */
static int begin_listening(tnl_listener *l, const binding *b, int fd)
{
    int rc = l->family == AF_UNIX ? uv_pipe_open(&l->u.pipe, fd) : uv_tcp_open(&l->u.tcp, fd);
    if (rc) {
        close(fd);
        return explain_errno(b, -rc);
    }
    rc = uv_listen(&l->u.stream, BACKLOG, on_connection);
    return rc ? explain_errno(b, -rc) : 0;
}

int tnl_listener_new(tnl_listener **out, tnl_loop *loop, const char *address, tnl_accept_cb cb,
                     void *user, char *detail, size_t detail_size)
{
    *out = NULL;
    binding b = {.text = address, .detail = detail, .size = detail ? detail_size : 0};
    tnl_listener *l = tnl_calloc(1, sizeof(*l));
    if (!l)
        return explain(&b, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
    l->loop = loop;
    l->cb = cb;
    l->user = user;
    l->family = AF_UNIX;
    int fd = -1;
    int rc = strncmp(address, "unix:", 5) == 0 ? bind_unix(l, &b, address + 5, &fd)
                                               : bind_tcp(l, &b, &fd);
    if (rc == 0 && tnl_timer_new(&l->again, loop, on_again, l)) {
        rc = explain(&b, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        close(fd);
    }
    if (rc) {
        tnl_free(l);
        return rc;
    }
    if (l->family == AF_UNIX)
        uv_pipe_init(tnl_loop_handle(loop), &l->u.pipe, 0);
    else
        uv_tcp_init(tnl_loop_handle(loop), &l->u.tcp);
    l->u.handle.data = l;
    tnl_loop_ref(loop);
    rc = begin_listening(l, &b, fd);
    if (rc) {
        tnl_listener_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

tnl_address tnl_listener_address(const tnl_listener *l)
{
    return l->address;
}

bool tnl_descriptors_scarce(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return false;
    /* The lowest free one tells how many there are, as there are hardly holes. */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool scarce = fd < 0 || (rlim_t)fd >= limit.rlim_cur - limit.rlim_cur / 4;
    if (fd >= 0)
        close(fd);
    return scarce;
}
