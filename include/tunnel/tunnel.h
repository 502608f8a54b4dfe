/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_TUNNEL_H
#define TUNNEL_TUNNEL_H

/* Everything. */
#include <tunnel/client.h>
#include <tunnel/error.h>
#include <tunnel/event.h>
#include <tunnel/loop.h>
#include <tunnel/server.h>
#include <tunnel/stream.h>
#include <tunnel/version.h>

#endif
