/* SPDX-License-Identifier: Apache-2.0 */
#include "io/guest.h"

#include <uv.h>

#include "base/mem.h"
#include "io/loop_internal.h"
#include "tunnel/error.h"

struct tnl_guest {
    uv_timer_t handle;
    uv_loop_t *uv;
    bool (*done)(void *user);
    void *user;
};

static void note_poll(uv_handle_t *h, void *arg)
{
    uv_os_fd_t fd;
    if (uv_handle_get_type(h) == UV_POLL && !uv_is_closing(h) && uv_fileno(h, &fd) == 0)
        *(int *)arg = fd;
}

int tnl_guest_last_poll(tnl_loop *l)
{
    int fd = -1;
    uv_walk(tnl_loop_handle(l), note_poll, &fd); /* oldest first */
    return fd;
}

int tnl_guest_new(tnl_guest **out, tnl_loop *l)
{
    *out = NULL;
    tnl_guest *g = tnl_calloc(1, sizeof(*g));
    if (!g)
        return TUNNEL_E_NOMEM;
    g->uv = tnl_loop_handle(l);
    uv_timer_init(g->uv, &g->handle);
    g->handle.data = g;
    *out = g;
    return 0;
}

static void on_closed(uv_handle_t *h)
{
    tnl_guest *g = h->data;
    if (g->done(g->user)) {
        tnl_free(g);
        return;
    }
    uv_timer_init(g->uv, &g->handle);
    g->handle.data = g;
    uv_close((uv_handle_t *)&g->handle, on_closed);
}

void tnl_guest_retire(tnl_guest *g, bool (*done)(void *user), void *user)
{
    g->done = done;
    g->user = user;
    uv_close((uv_handle_t *)&g->handle, on_closed);
}
