/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_IO_SOCKET_H
#define TNL_IO_SOCKET_H

#include <sys/socket.h>
#include <uv.h>

#include "io/conn.h"

/* Socket connections in the making, for the listener and the connector. */

/*
 * A connection of family AF_INET, AF_INET6 or AF_UNIX around a libuv handle without a descriptor.
 * It has no events; to be opened by uv_accept() or a connect, or closed.
 */
int tnl_socket_new(tnl_conn **out, tnl_loop *l, int family);
uv_stream_t *tnl_socket_stream(tnl_conn *c);
/* To be called once the handle has its descriptor. */
void tnl_socket_opened(tnl_conn *c);

/* A peer that vanished without a word is found within two minutes, also when there is nothing to
 * say to it. */
void tnl_socket_keep_alive(int fd);

/* Socket addresses and text. */
tnl_address tnl_address_of(const struct sockaddr *sa);
/* "1.2.3.4:80", "[::1]:80". */
void tnl_address_text(char *out, size_t size, const char *host, uint16_t port);
/* Fills *out from a numeric host. 0 or TUNNEL_E_INVALID. */
int tnl_address_parse(struct sockaddr_storage *out, const char *host, uint16_t port);
socklen_t tnl_address_size(const struct sockaddr_storage *sa);
/* Fills *out; returns the size to give to bind(), or 0 when the path is too long or empty. */
struct sockaddr_un;
socklen_t tnl_address_unix(struct sockaddr_un *out, const char *path);

#endif
