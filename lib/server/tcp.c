/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "server/internal.h"
#include "tunnel/error.h"

int tnl_tcp_open(tnl_tunnel *t, char *text, size_t size)
{
    (void)t;
    snprintf(text, size, "tcp tunnels are not built in yet");
    return TUNNEL_E_UNSUPPORTED;
}

void tnl_tcp_close(tnl_tunnel *t)
{
    (void)t;
}
