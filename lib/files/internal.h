/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_FILES_INTERNAL_H
#define TNL_FILES_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "files/files.h"
#include "files/folder.h"
#include "files/range.h"
#include "http/http.h"
#include "io/conn.h"

enum {
    TNL_FILES_MAX_OPEN = 256,        /* connections that are not being closed */
    TNL_FILES_MAX_ALL = 512,         /* and with those that are */
    TNL_FILES_HEAD_MS = 15000,       /* for a head to be complete */
    TNL_FILES_BODY_MS = 60000,       /* for the body of a request, which is dropped */
    TNL_FILES_IDLE_MS = 75000,       /* between two requests */
    TNL_FILES_STALL_MS = 300000,     /* without anything of an answer being taken */
    TNL_FILES_AHEAD = 16 * 1024,     /* bytes read ahead of the request being answered */
    TNL_FILES_MAX_DROP = 256 * 1024, /* a body beyond that is not read */
    TNL_FILES_PIECE = TNL_LOOP_SCRATCH,
    TNL_FILES_BOUNDARY = 40,
};

struct tnl_files {
    tnl_loop *loop;
    tnl_folder folder;
    tnl_list conns;
    tnl_list idle; /* those between two requests, the longest idle first */
    size_t open;
    size_t count;
    size_t listings; /* bytes of pages that are held */
    uint64_t head_ms, body_ms, idle_ms, stall_ms;
    bool freed;
    tnl_task ending;
    void (*gone)(void *user);
    void *gone_user;
};

/* What of a file is still to be sent. */
typedef struct tnl_files_body {
    int fd;                /* -1: none */
    const char *type;      /* static; of the parts */
    uint64_t size;         /* of the file */
    uint64_t offset, left; /* of the present range */
    tnl_files_range ranges[TNL_FILES_RANGES];
    size_t count, at;
    char boundary[TNL_FILES_BOUNDARY]; /* "": a single part */
} tnl_files_body;

/*
 * A connection. One request after the other:
 *
 *   reading    asked false
 *   asked      the request is complete, or is not read any further (then the connection ends)
 *   answering  `out` and `body` hold what is still to be sent
 */
typedef struct tnl_files_conn {
    tnl_list node;
    tnl_list idle; /* in tnl_files.idle */
    tnl_files *owner;
    tnl_conn *conn;
    tnl_http_parser *parser;
    tnl_timer *timer;
    tnl_task go_on;
    tnl_buf ahead; /* read ahead of the present request's answer */
    tnl_buf out;   /* head and text of the answer, the head of a part */
    tnl_files_body body;
    const tnl_http_head *head; /* of the present request; NULL before, and when there is none */
    int refusal;               /* the status for what is no request; 0: it is one */
    uint64_t dropped;          /* of the request's body */
    uint64_t written, taken;   /* in all; by the peer, at the last look */
    size_t listing;            /* what of tnl_files.listings is its */
    bool asked, answering, complete, close_after, eof, closing;
} tnl_files_conn;

/*
 * answer.c: makes the answer to the present request; the folder is asked. 0, or a TUNNEL_E_ code
 * when there is not even memory for an excuse.
 */
int tnl_files_answer(tnl_files_conn *c);

/* body.c */
/* Begins to send these ranges of the file; takes the descriptor. */
void tnl_files_body_begin(tnl_files_body *b, int fd, const char *type, uint64_t size,
                          const tnl_files_range *ranges, size_t n);
/* Makes it one of several parts; before tnl_files_body_first(). */
void tnl_files_body_split(tnl_files_body *b);
/* Bytes of all that will be sent, with what stands between the parts. */
uint64_t tnl_files_body_length(const tnl_files_body *b);
/* Appends the head of the first part to out, if it has one. 0 or TUNNEL_E_NOMEM, LIMIT. */
int tnl_files_body_first(tnl_files_body *b, tnl_buf *out);
/* Reads up to n > 0 bytes of what is left of the present range. How many; 0: the file ends before
 * the range does, or cannot be read. */
size_t tnl_files_body_read(tnl_files_body *b, uint8_t *p, size_t n);
/* After the bytes that were read were sent: what comes behind a range is appended to out. */
int tnl_files_body_next(tnl_files_body *b, tnl_buf *out);
void tnl_files_body_end(tnl_files_body *b);

#endif
