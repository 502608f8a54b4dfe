/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_FILES_H
#define TNL_FILES_FILES_H

#include <stddef.h>

#include "io/conn.h"

/*
 * A folder that is served over HTTP/1.1, read only: GET and HEAD, ranges, conditional requests,
 * index.html or a plain listing. The connections may be anything that carries bytes.
 *
 * - Nothing outside of the folder is served. Names are looked up beneath the folder by the kernel
 *   (openat2 with RESOLVE_BENEATH), so symbolic links work as long as they stay inside, and only
 *   relative ones do. Where openat2 is missing or forbidden no symbolic link is followed at all.
 * - Hidden files (with a leading dot) are neither served nor listed, except what lies under
 *   /.well-known/. Only regular files and folders are served, no devices, pipes or sockets.
 * - The folder is held open, but its path is looked at again with each request: when another folder
 *   has taken the place, as builds do, that one is served from then on.
 * - Files are read with blocking calls, in pieces of at most 64 KiB, on the loop's thread: a file
 *   system that hangs (a dead network mount) stops the loop. So does making a listing, some
 *   milliseconds for the largest.
 * - A connection holds one piece of 64 KiB at most while a file is sent, however slow its reader
 * is. A listing is held as a whole: 4 MiB at most, and 32 MiB for all of them together.
 */
typedef struct tnl_files tnl_files;

/*
 * Opens the folder; a relative path counts from the current directory of now. 0, or
 * TUNNEL_E_NOT_FOUND, ACCESS, INVALID (not a folder), NOMEM, IO with a line in detail (may be
 * NULL).
 */
int tnl_files_new(tnl_files **out, tnl_loop *loop, const char *path, char *detail, size_t size);

/*
 * Takes over a paused connection: sets its events and starts reading. The requests that come are
 * answered on it until it ends; nobody is told of its end. 0; or TUNNEL_E_NOMEM, or TUNNEL_E_LIMIT
 * when 256 connections are open, none of which is kept idle (the longest idle one would be closed):
 * then c is not taken.
 */
int tnl_files_serve(tnl_files *f, tnl_conn *c);

/* The connections, those that are being closed too. */
size_t tnl_files_count(const tnl_files *f);

/* Takes no more connections: those that are kept idle end, others after the answer that they are
 * busy with. gone() (may be NULL) comes later, when the last one is closed and all is freed. Only
 * tnl_files_free() may be called meanwhile; its gone() comes instead of this one. */
void tnl_files_leave(tnl_files *f, void (*gone)(void *user), void *user);

/* Closes all connections at once. gone() (may be NULL) comes later, when the last one is closed and
 * all is freed. */
void tnl_files_free(tnl_files *f, void (*gone)(void *user), void *user);

#endif
