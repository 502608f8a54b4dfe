/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"

#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <uv.h>

#include "base/mem.h"
#include "io/loop_internal.h"
#include "tunnel/error.h"

enum { MAX_TASK_ROUNDS = 8 };

struct tnl_loop {
    uv_loop_t *uv;
    uv_idle_t
        idle; /* active while tasks wait: runs them before the poll and keeps it from blocking */
    uv_check_t check; /* runs the tasks that the poll's callbacks added */
    tnl_list tasks;
    uint8_t *scratch;
    tnl_udp_batch *udp;
    size_t refs; /* the user's, one per internal handle, one per object that outlives its user's
                    call */
    size_t holds;
    uint32_t turn;
    bool closing;
    bool owned;
    uv_loop_t own;
};

static void run_tasks(tnl_loop *l)
{
    for (int round = 0; round < MAX_TASK_ROUNDS && !tnl_list_empty(&l->tasks); round++) {
        tnl_list batch;
        tnl_list_init(&batch);
        /* Takes the whole list over, so that what is added meanwhile waits for the next round. */
        tnl_list_add_tail(&l->tasks, &batch);
        tnl_list_remove(&l->tasks);
        while (!tnl_list_empty(&batch)) {
            tnl_task *t = TNL_CONTAINER(batch.next, tnl_task, node);
            tnl_list_remove(&t->node);
            t->run(t->user);
        }
    }
    if (tnl_list_empty(&l->tasks) && !l->closing)
        uv_idle_stop(&l->idle);
}

static void on_idle(uv_idle_t *h)
{
    run_tasks(h->data);
}

static void on_check(uv_check_t *h)
{
    tnl_loop *l = h->data;
    l->turn++;
    run_tasks(l);
}

int tnl_loop_new(tnl_loop **out, void *uv_loop)
{
    *out = NULL;
    tnl_loop *l = tnl_calloc(1, sizeof(*l));
    if (!l)
        return TUNNEL_E_NOMEM;
    l->scratch = tnl_malloc(TNL_LOOP_SCRATCH);
    if (!l->scratch)
        goto fail;
    l->uv = uv_loop;
    if (!uv_loop) {
        if (uv_loop_init(&l->own))
            goto fail;
        l->uv = &l->own;
        l->owned = true;
    }
    tnl_list_init(&l->tasks);
    uv_idle_init(l->uv, &l->idle);
    uv_check_init(l->uv, &l->check);
    l->idle.data = l->check.data = l;
    l->refs = 3;
    uv_check_start(&l->check, on_check);
    uv_unref((uv_handle_t *)&l->check);
    *out = l;
    return 0;

fail:
    tnl_free(l->scratch);
    tnl_free(l);
    return TUNNEL_E_NOMEM;
}

void tnl_loop_ref(tnl_loop *l)
{
    l->refs++;
}

void tnl_loop_unref(tnl_loop *l)
{
    if (--l->refs)
        return;
    tnl_free(l->scratch);
    tnl_free(l);
}

static void on_handle_closed(uv_handle_t *h)
{
    tnl_loop_unref(h->data);
}

void tnl_loop_free(tnl_loop *l)
{
    if (!l)
        return;
    if (l->owned)
        uv_run(l->uv, UV_RUN_DEFAULT);
    l->closing = true;
    while (!tnl_list_empty(&l->tasks))
        tnl_list_remove(l->tasks.next);
    uv_close((uv_handle_t *)&l->idle, on_handle_closed);
    uv_close((uv_handle_t *)&l->check, on_handle_closed);
    if (l->owned) {
        uv_run(l->uv, UV_RUN_DEFAULT);
        (void)uv_loop_close(l->uv);
    }
    tnl_loop_unref(l);
}

/* A socket that libuv writes to may raise SIGPIPE; the disposition is the process's, the mask is
 * this thread's. */
void tnl_loop_run(tnl_loop *l)
{
    sigset_t pipe_set, before, pending;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_set, &before);

    uv_run(l->uv, UV_RUN_DEFAULT);

    sigpending(&pending);
    if (!was_pending && sigismember(&pending, SIGPIPE) == 1) {
        struct timespec none = {0, 0};
        sigtimedwait(&pipe_set, NULL, &none);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void tnl_loop_stop(tnl_loop *l)
{
    uv_stop(l->uv);
}

void tnl_loop_hold(tnl_loop *l)
{
    if (l->holds++ == 0)
        uv_ref((uv_handle_t *)&l->check);
}

void tnl_loop_release(tnl_loop *l)
{
    if (l->holds && --l->holds == 0)
        uv_unref((uv_handle_t *)&l->check);
}

void *tnl_loop_uv(tnl_loop *l)
{
    return l->uv;
}

uv_loop_t *tnl_loop_handle(tnl_loop *l)
{
    return l->uv;
}

tnl_udp_batch **tnl_loop_udp(tnl_loop *l)
{
    return &l->udp;
}

uint32_t tnl_loop_turn(const tnl_loop *l)
{
    return l->turn;
}

uint64_t tnl_loop_now(const tnl_loop *l)
{
    return uv_now(l->uv);
}

uint64_t tnl_loop_clock_us(void)
{
    return uv_hrtime() / 1000;
}

uint8_t *tnl_loop_scratch(tnl_loop *l)
{
    return l->scratch;
}

void tnl_task_init(tnl_task *t, void (*run)(void *user), void *user)
{
    tnl_list_init(&t->node);
    t->run = run;
    t->user = user;
}

void tnl_loop_defer(tnl_loop *l, tnl_task *t)
{
    if (l->closing || !tnl_list_empty(&t->node))
        return;
    tnl_list_add_tail(&l->tasks, &t->node);
    uv_idle_start(&l->idle, on_idle);
}

void tnl_task_cancel(tnl_task *t)
{
    tnl_list_remove(&t->node);
}
