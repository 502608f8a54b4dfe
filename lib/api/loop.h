/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_API_LOOP_H
#define TNL_API_LOOP_H

#include "base/list.h"
#include "io/loop.h"
#include "tunnel/loop.h"

typedef struct api_signal {
    tnl_list node;
    tnl_signal *handle;
    int signum;
    void (*caught)(void *user, int signum);
    void *user;
} api_signal;

struct tunnel_loop {
    tnl_loop *loop;
    tnl_list signals;
};

#endif
