/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_API_SPEC_H
#define TNL_API_SPEC_H

#include "client/client.h"
#include "tunnel/client.h"

/*
 * What a tunnel shall be, from what people write (tunnel/client.h says how). upstream: NULL for one
 * that listens; options may be NULL. 0, or TUNNEL_E_INVALID, NAME_INVALID, NOT_FOUND, ACCESS,
 * CERTIFICATE, NOMEM with a line in detail; then the spec holds nothing.
 */
int tnl_spec_make(tnl_tunnel_spec *spec, tnl_loop *loop, const char *what, const char *upstream,
                  const tunnel_options *options, char *detail, size_t size);

#endif
