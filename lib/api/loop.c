/* SPDX-License-Identifier: Apache-2.0 */
#include "api/loop.h"

#include <signal.h>

#include "base/mem.h"
#include "tunnel/error.h"

int tunnel_loop_new(tunnel_loop **out, void *uv_loop)
{
    tunnel_loop *l = tnl_calloc(1, sizeof(*l));
    if (!l)
        return TUNNEL_E_NOMEM;
    int rc = tnl_loop_new(&l->loop, uv_loop);
    if (rc) {
        tnl_free(l);
        return rc;
    }
    tnl_list_init(&l->signals);
    *out = l;
    return 0;
}

int tunnel_loop_run(tunnel_loop *loop)
{
    tnl_loop_run(loop->loop);
    return 0;
}

void tunnel_loop_stop(tunnel_loop *loop)
{
    tnl_loop_stop(loop->loop);
}

static void forget_signal(api_signal *s)
{
    tnl_list_remove(&s->node);
    tnl_signal_free(s->handle);
    tnl_free(s);
}

void tunnel_loop_free(tunnel_loop *loop)
{
    if (!loop)
        return;
    for (tnl_list *n; (n = tnl_list_first(&loop->signals));)
        forget_signal(TNL_CONTAINER(n, api_signal, node));
    tnl_loop_free(loop->loop);
    tnl_free(loop);
}

static void on_signal(void *user, int signum)
{
    api_signal *s = user;
    s->caught(s->user, signum);
}

int tunnel_loop_on_signal(tunnel_loop *loop, int signum, void (*caught)(void *user, int signum),
                          void *user)
{
    if (signum <= 0 || signum >= NSIG || signum == SIGKILL || signum == SIGSTOP)
        return TUNNEL_E_INVALID;
    for (tnl_list *n = loop->signals.next; n != &loop->signals; n = n->next) {
        api_signal *s = TNL_CONTAINER(n, api_signal, node);
        if (s->signum == signum) {
            forget_signal(s);
            break;
        }
    }
    if (!caught)
        return 0;
    api_signal *s = tnl_calloc(1, sizeof(*s));
    if (!s)
        return TUNNEL_E_NOMEM;
    s->signum = signum;
    s->caught = caught;
    s->user = user;
    int rc = tnl_signal_new(&s->handle, loop->loop, signum, on_signal, s);
    if (rc) {
        tnl_free(s);
        return rc;
    }
    tnl_list_add_tail(&loop->signals, &s->node);
    return 0;
}
