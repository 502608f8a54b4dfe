/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_CLIENT_HANDLE_H
#define TNL_CLIENT_HANDLE_H

#include <stdint.h>

#include "client/client.h"

/*
 * Streams of tunnels that listen, as the app holds them: by an id. A handle lives from a visitor's
 * coming until closed() was told; in between it carries bytes straight to and from the mux, or
 * through TLS where the client terminates that. What each function promises stands in
 * tunnel/stream.h; all may be called from the handle's own callbacks.
 */
typedef struct tnl_handle tnl_handle;

/* NULL: no such stream (any more). Good until the callback that it was asked for in returns. */
tnl_handle *tnl_handle_find(const tnl_client *c, uint64_t id);

void tnl_handle_on_data(tnl_handle *h,
                        size_t (*data)(void *user, uint64_t id, const void *p, size_t n),
                        void *user);
void tnl_handle_on_end(tnl_handle *h, void (*end)(void *user, uint64_t id), void *user);
void tnl_handle_on_room(tnl_handle *h, void (*room)(void *user, uint64_t id), void *user);
void tnl_handle_on_closed(tnl_handle *h,
                          void (*closed)(void *user, uint64_t id, int error, const char *text),
                          void *user);

/* How many bytes were taken, or TUNNEL_E_STATE. */
int64_t tnl_handle_write(tnl_handle *h, const void *p, size_t n);
size_t tnl_handle_room(const tnl_handle *h);
void tnl_handle_end(tnl_handle *h);
void tnl_handle_reset(tnl_handle *h, int error, const char *text);
void tnl_handle_resume(tnl_handle *h);
const char *tnl_handle_visitor(const tnl_handle *h, uint16_t *port);
uint64_t tnl_handle_tunnel(const tnl_handle *h);

#endif
