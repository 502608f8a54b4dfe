/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_FILES_RIG_H
#define TEST_SUPPORT_FILES_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files/files.h"
#include "support/peer.h"

/* A temporary folder that is served on a loop, and guests with sockets of their own. */
typedef struct files_rig {
    test_loop l;
    tnl_files *files;
    char top[64]; /* a temporary folder */
    char dir[80]; /* in there: the one that is served */
    bool gone;
} files_rig;

void files_rig_open(files_rig *r);
void files_rig_close(files_rig *r);

/* The path of something in the served folder ("../x" is beside it). Valid until the next call but
 * three. */
const char *files_rig_path(const files_rig *r, const char *name);
/* Writes a file; folders on its way are made. */
void files_rig_put(const files_rig *r, const char *name, const char *text);
void files_rig_put_bytes(const files_rig *r, const char *name, const void *p, size_t n);
void files_rig_mkdir(const files_rig *r, const char *name);
void files_rig_link(const files_rig *r, const char *target, const char *name);
/* Sets the time of the last change. */
void files_rig_touch(const files_rig *r, const char *name, int64_t seconds);

/* One answer, read by the simplest of readers. */
typedef struct files_reply {
    int status;
    size_t head_n; /* with the empty line */
    size_t n;      /* of the body */
    const char *head;
    const uint8_t *body;
} files_reply;

typedef struct files_guest {
    files_rig *rig;
    int fd;
    uint8_t *bytes; /* what came, without the answers that were taken */
    size_t n, room;
    bool ended, reset;
    files_reply reply;
    char value[512];
} files_guest;

void files_guest_open(files_guest *g, files_rig *r);
void files_guest_close(files_guest *g);
void files_guest_say(files_guest *g, const char *text);
/* Reads what is there, once; at most so much. How many bytes. */
size_t files_guest_read(files_guest *g, size_t most);
/* Waits for a whole answer (to a HEAD request, if so) and takes it into g->reply, valid until the
 * next one. */
void files_guest_hear(files_guest *g, bool head_request);
/* Waits until the connection has ended. */
void files_guest_end(files_guest *g);

/* The value of a field of the reply, "" when there is none; fails when there are two. */
const char *files_field(files_guest *g, const char *name);
bool files_body_is(const files_guest *g, const char *text);
bool files_body_has(const files_guest *g, const char *text);

/* A request with more field lines ("" or "A: b\r\n"), on a kept connection; its answer. */
int files_ask(files_guest *g, const char *method, const char *target, const char *lines);
/* The same with a connection of its own: the status. */
int files_status(files_rig *r, const char *target);

#endif
