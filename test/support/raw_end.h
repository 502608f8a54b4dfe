/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_SUPPORT_RAW_END_H
#define TEST_SUPPORT_RAW_END_H

#include <stdbool.h>

#include "base/buf.h"
#include "transport/transport.h"
#include "wire/frame.h"

/*
 * The other end of a link, driven by hand: sends what it is told, and counts and keeps what comes.
 * It answers PINGs unless it is mute.
 */
typedef struct raw_end {
    tnl_transport *transport; /* NULL once closed */
    tnl_decoder decoder;
    tnl_buf out;
    bool mute;
    bool opened;
    unsigned closes;
    int error;
    unsigned seen[256]; /* frames by type */
    uint64_t offset;    /* of the last PING or PONG */
    uint32_t code;      /* of the last CLOSE or RESET */
    size_t rest_len;    /* of the last frame that is not DATA */
    uint8_t rest[1024]; /* its beginning, ended with a NUL */
    int broken;         /* what the decoder said */
} raw_end;

extern const tnl_transport_events raw_end_events;

void raw_end_init(raw_end *r);
void raw_end_free(raw_end *r);
void raw_end_bytes(raw_end *r, const void *p, size_t n);
void raw_end_frame(raw_end *r, const tnl_frame *f);
void raw_end_close(raw_end *r);

#endif
