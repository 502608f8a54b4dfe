/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_LOOP_H
#define TNL_IO_LOOP_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

/*
 * One loop, one thread: the only clock, timers, end-of-turn tasks and signals libtunnel uses, on a
 * uv_loop_t that is the host's or its own. Nothing here may be called from another thread.
 */
typedef struct tnl_loop tnl_loop;

/* uv_loop: a uv_loop_t * of the host, or NULL to make and own one. 0 or TUNNEL_E_NOMEM. */
int tnl_loop_new(tnl_loop **out, void *uv_loop);

/*
 * Frees a loop on which nothing is open any more. An own uv loop is run until its handles are
 * closed and then freed; on a host's loop the internal handles finish closing in the host's next
 * turns.
 */
void tnl_loop_free(tnl_loop *l);

/*
 * Runs until tnl_loop_stop() or nothing is left to do. SIGPIPE is blocked in this thread meanwhile
 * (on a host's loop the host must ignore it, as with all use of libuv).
 */
void tnl_loop_run(tnl_loop *l);
void tnl_loop_stop(tnl_loop *l);

/*
 * Keeps the loop running while nothing is open, as when only a timer is awaited. Counted; a hold
 * must be released before the loop is freed.
 */
void tnl_loop_hold(tnl_loop *l);
void tnl_loop_release(tnl_loop *l);

/* The uv_loop_t *, for a library that takes one (as void * so that uv.h stays inside io/). */
void *tnl_loop_uv(tnl_loop *l);

/* Milliseconds of a monotonic clock, as of the start of this turn. */
uint64_t tnl_loop_now(const tnl_loop *l);

/* Microseconds of the same clock, as of now: for measuring how long things took. */
uint64_t tnl_loop_clock_us(void);

/*
 * A 64 KiB scratch buffer for reads whose bytes are used up before the callback returns. Shared by
 * everything on the loop: never keep a pointer into it.
 */
enum { TNL_LOOP_SCRATCH = 64 * 1024 };
uint8_t *tnl_loop_scratch(tnl_loop *l);

/*
 * Tasks: run once at the end of this loop turn (before the loop polls again), in the order added.
 * Adding one that waits is a no-op. A task may be added from inside a task; it then runs in the
 * same turn at most 8 rounds deep, else in the next one.
 */
typedef struct tnl_task {
    tnl_list node;
    void (*run)(void *user);
    void *user;
} tnl_task;

void tnl_task_init(tnl_task *t, void (*run)(void *user), void *user);
void tnl_loop_defer(tnl_loop *l, tnl_task *t);
void tnl_task_cancel(tnl_task *t);

/* One-shot timers. Freeing one from inside its own callback is fine. Timers do not keep the loop
 * alive. */
typedef struct tnl_timer tnl_timer;
int tnl_timer_new(tnl_timer **out, tnl_loop *l, void (*fired)(void *user), void *user);
void tnl_timer_start(tnl_timer *t, uint64_t ms);
void tnl_timer_stop(tnl_timer *t);
int tnl_timer_active(const tnl_timer *t);
void tnl_timer_free(tnl_timer *t); /* NULL is fine */

/* Signals, delivered on the loop. They do not keep the loop alive. */
typedef struct tnl_signal tnl_signal;
int tnl_signal_new(tnl_signal **out, tnl_loop *l, int signum,
                   void (*caught)(void *user, int signum), void *user);
void tnl_signal_free(tnl_signal *s);

#endif
