/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hangup.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "io/loop_internal.h"

struct tnl_hangup {
    uv_poll_t poll;
    tnl_loop *loop;
    int fd; /* a descriptor of its own: libuv allows one watcher for each */
    void (*died)(void *user, int error);
    void *user;
};

static void on_closed(uv_handle_t *handle)
{
    tnl_hangup *h = handle->data;
    tnl_loop_unref(h->loop);
    tnl_free(h);
}

void tnl_hangup_free(tnl_hangup *h)
{
    if (!h)
        return;
    uv_poll_stop(&h->poll);
    /* Before the socket itself is closed: a reset is sent with the last descriptor only. */
    close(h->fd);
    uv_close((uv_handle_t *)&h->poll, on_closed);
}

/* An error is told with whatever is waited for. It is that or urgent data, which would be told
 * again and again: either way this was the last call. */
static void on_poll(uv_poll_t *poll, int status, int events)
{
    tnl_hangup *h = poll->data;
    int error = 0;
    socklen_t size = sizeof(error);
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    if (getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error)
        h->died(h->user, uv_translate_sys_error(error));
}

tnl_hangup *tnl_hangup_new(tnl_loop *l, int fd, void (*died)(void *user, int error), void *user)
{
    tnl_hangup *h = tnl_calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->loop = l;
    h->died = died;
    h->user = user;
    h->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (h->fd < 0 || uv_poll_init(tnl_loop_handle(l), &h->poll, h->fd)) {
        if (h->fd >= 0)
            close(h->fd);
        tnl_free(h);
        return NULL;
    }
    tnl_loop_ref(l);
    h->poll.data = h;
    uv_unref((uv_handle_t *)&h->poll); /* the connection itself keeps the loop running */
    if (uv_poll_start(&h->poll, UV_PRIORITIZED, on_poll)) {
        tnl_hangup_free(h);
        return NULL;
    }
    return h;
}
