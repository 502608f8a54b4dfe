/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_VERSION_H
#define TUNNEL_VERSION_H

#include <tunnel/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TUNNEL_VERSION_MAJOR 0
#define TUNNEL_VERSION_MINOR 1
#define TUNNEL_VERSION_PATCH 0
#define TUNNEL_VERSION       "0.1.0"

/*
 * The version of the library that is running ("MAJOR.MINOR.PATCH"), which may be newer than
 * TUNNEL_VERSION, the version of the headers compiled against. Static string. Any thread.
 */
TUNNEL_EXPORT const char *tunnel_version(void);

#ifdef __cplusplus
}
#endif

#endif
