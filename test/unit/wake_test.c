/* SPDX-License-Identifier: Apache-2.0 */
#include "io/wake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "support/check.h"
#include "support/memory.h"
#include "support/peer.h"

typedef struct rig {
    test_loop l;
    tnl_wake *wake;
    unsigned woke;
    bool leave; /* freed in its own callback */
} rig;

static void on_woke(void *user)
{
    rig *r = user;
    r->woke++;
    if (r->leave) {
        tnl_wake_free(r->wake);
        r->wake = NULL;
    }
}

/* Sets the clock to what it is: for the kernel a clock that was set, as after a sleep. */
static void set_clock(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    if (clock_settime(CLOCK_REALTIME, &now) == 0)
        return;
    if (errno != EPERM)
        fail_msg("clock_settime: %s", strerror(errno));
    print_message("not permitted to set the clock here: whether a wake is told was not tested\n");
    skip();
}

static void a_clock_that_is_set_is_told(void **state)
{
    (void)state;
    rig r = {.woke = 0};
    memory.live = 0;
    test_loop_open(&r.l);
    r.wake = tnl_wake_new(r.l.loop, on_woke, &r);
    assert_non_null(r.wake);
    for (int i = 0; i < 20; i++)
        assert_true(test_turn(&r.l));
    assert_int_equal(r.woke, 0);
    set_clock();
    UNTIL(&r.l, r.woke == 1);
    set_clock();
    UNTIL(&r.l, r.woke == 2);
    r.leave = true;
    set_clock();
    UNTIL(&r.l, !r.wake);
    test_loop_close(&r.l);
    assert_int_equal(memory.live, 0);
}

static void it_comes_and_goes(void **state)
{
    (void)state;
    rig r = {.woke = 0};
    memory.live = 0;
    test_loop_open(&r.l);
    for (int i = 0; i < 50; i++) {
        tnl_wake *w = tnl_wake_new(r.l.loop, on_woke, &r);
        assert_non_null(w);
        tnl_wake_free(w);
    }
    tnl_wake_free(NULL);
    memory.count = 0;
    memory.fail_at = 1;
    assert_null(tnl_wake_new(r.l.loop, on_woke, &r));
    memory.fail_at = 0;
    /* One that is left to the loop's end. */
    r.wake = tnl_wake_new(r.l.loop, on_woke, &r);
    tnl_wake_free(r.wake);
    test_loop_close(&r.l);
    assert_int_equal(memory.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clock_that_is_set_is_told),
        cmocka_unit_test(it_comes_and_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
