/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_EVENT_H
#define TNL_BASE_EVENT_H

#include <stdbool.h>

#include "tunnel/event.h"

/* What a public event handle points to. Strings may be NULL (read as ""); they are escaped for
 * printing already. */
struct tunnel_event {
    tunnel_event_type type;
    uint64_t tunnel;
    int error;
    const char *text;
    const char *url;
    const char *account;
    const char *method;
    const char *host;
    const char *path;
    const char *visitor;
    int status;
    uint64_t duration_us;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t delay_ms;
    bool served;
};

#endif
