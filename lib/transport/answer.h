/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TRANSPORT_ANSWER_H
#define TNL_TRANSPORT_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/*
 * Reads the server's answer to a WebSocket upgrade (RFC 6455 section 4.1), so that libwebsockets
 * only ever sees a good one, or to that of a lane. No I/O, no clock; bounded: 16 KiB of head, 4 KiB
 * of the body of a refusal.
 */
enum { TNL_ANSWER_HEAD_MAX = 16 * 1024, TNL_ANSWER_BODY_MAX = 4 * 1024 };

typedef enum tnl_answer_state {
    TNL_ANSWER_MORE,    /* feed it more */
    TNL_ANSWER_UPGRADE, /* 101: head() and rest() are for the WebSocket engine */
    TNL_ANSWER_REFUSED, /* error, status and detail say why */
} tnl_answer_state;

typedef struct tnl_answer {
    tnl_buf in;
    size_t head_n; /* 0: the final head is not complete yet */
    uint64_t body_n;
    bool chunked;
    bool until_end; /* the body ends with the connection */
    bool lane;      /* set by the user: a lane is asked for, not a WebSocket */
    int interim;
    int error;  /* TUNNEL_E_ code of a refusal */
    int status; /* 0: no HTTP answer */
    uint32_t retry_after; /* seconds, up to TNL_RETRY_AFTER_MAX, of a 429 or 503; 0: not said */
    char detail[256];
} tnl_answer;

void tnl_answer_init(tnl_answer *a);
void tnl_answer_free(tnl_answer *a);

/* Takes the next n bytes. */
tnl_answer_state tnl_answer_feed(tnl_answer *a, const uint8_t *p, size_t n);

/* No more bytes will come, because of `error`: what there is makes the refusal. */
void tnl_answer_end(tnl_answer *a, int error, const char *detail);

/* After UPGRADE: a head with what matters of the answer (appended to `out`), and the bytes that
 * followed it. */
int tnl_answer_head(const tnl_answer *a, tnl_buf *out);
tnl_str tnl_answer_rest(const tnl_answer *a);

#endif
