/* SPDX-License-Identifier: Apache-2.0 */
#include "io/wake.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "io/loop_internal.h"

struct tnl_wake {
    uv_poll_t poll;
    tnl_loop *loop;
    int fd;
    void (*woke)(void *user);
    void *user;
};

/* A moment that never comes: what is waited for is the clock being set, which every resume from
 * sleep counts as. */
static bool arm(int fd)
{
    struct itimerspec never = {.it_value = {.tv_sec = 0}};
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return false;
    never.it_value.tv_sec = now.tv_sec + (time_t)100 * 366 * 24 * 3600;
    return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) == 0;
}

static void on_closed(uv_handle_t *handle)
{
    tnl_wake *w = handle->data;
    tnl_loop_unref(w->loop);
    tnl_free(w);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    tnl_wake *w = poll->data;
    uint64_t expired;
    (void)status;
    (void)events;
    bool set = read(w->fd, &expired, sizeof(expired)) < 0 && errno == ECANCELED;
    if (!arm(w->fd))
        uv_poll_stop(poll);
    if (set)
        w->woke(w->user);
}

tnl_wake *tnl_wake_new(tnl_loop *l, void (*woke)(void *user), void *user)
{
    tnl_wake *w = tnl_calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->loop = l;
    w->woke = woke;
    w->user = user;
    w->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (w->fd < 0 || !arm(w->fd) || uv_poll_init(tnl_loop_handle(l), &w->poll, w->fd)) {
        if (w->fd >= 0)
            close(w->fd);
        tnl_free(w);
        return NULL;
    }
    tnl_loop_ref(l);
    w->poll.data = w;
    uv_unref((uv_handle_t *)&w->poll);
    if (uv_poll_start(&w->poll, UV_READABLE, on_poll)) {
        tnl_wake_free(w);
        return NULL;
    }
    return w;
}

void tnl_wake_free(tnl_wake *w)
{
    if (!w)
        return;
    uv_poll_stop(&w->poll);
    close(w->fd);
    uv_close((uv_handle_t *)&w->poll, on_closed);
}
