/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/version.h"

const char *tunnel_version(void)
{
    return TUNNEL_VERSION;
}
