/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_FRAME_H
#define TNL_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The frame codec (docs/protocol.md section "Frames"). Every frame starts with 12 bytes, all integers big-endian:
 *
 *   type:8  length:24  stream:64
 *
 * length counts what follows these 12 bytes. A type with the bit TNL_FRAME_CRITICAL must be understood; other unknown
 * types are skipped.
 */
enum {
    TNL_FRAME_HEADER = 12,
    TNL_FRAME_CRITICAL = 0x80,
    /* Greatest payload of DATA in bytes that version 1 may ever agree on, and of every other frame. */
    TNL_FRAME_MAX_DATA = 65536,
    TNL_FRAME_MAX_OTHER = 16384,
};

/* The rows: X(NAME, type, fixed bytes before the rest, whether a rest may follow). */
#define TNL_FRAME_MAP(X)                                                                           \
    X(OPEN, 0x81, 0, 1)     /* rest: a msgpack map, what is opened */                              \
    X(DATA, 0x82, 8, 1)     /* offset:64, rest: bytes */                                           \
    X(FIN, 0x83, 8, 0)      /* final offset:64 */                                                  \
    X(RESET, 0x84, 12, 1)   /* final offset:64, code:32, rest: UTF-8 text for people */            \
    X(ACK, 0x85, 16, 0)     /* received:64, limit:64 */                                            \
    X(HELLO, 0x90, 0, 1)    /* link scope, stream 0; rest: a msgpack map */                        \
    X(WELCOME, 0x91, 0, 1)  /* likewise */                                                         \
    X(ATTACH, 0x92, 0, 1)   /* likewise */                                                         \
    X(ATTACHED, 0x93, 0, 1) /* likewise */                                                         \
    X(CLOSE, 0x94, 4, 1)    /* link scope: code:32, rest: UTF-8 text; ends the session */          \
    X(PING, 0x15, 8, 0)     /* link scope: opaque:64 */                                            \
    X(PONG, 0x16, 8, 0)     /* link scope: the ping's opaque:64 */                                 \
    X(EVENT, 0x17, 0, 1)    /* droppable; rest: a msgpack map */

typedef enum tnl_frame_type {
#define TNL_FRAME_ENUM(name, type, fixed, rest) TNL_FRAME_##name = (type),
    TNL_FRAME_MAP(TNL_FRAME_ENUM)
#undef TNL_FRAME_ENUM
} tnl_frame_type;

/* One decoded frame, or a piece of a DATA frame. Which members mean something depends on the type. */
typedef struct tnl_frame {
    uint8_t type;
    uint64_t stream;
    uint64_t offset;   /* DATA: of the first byte at `rest`; FIN, RESET: final; ACK: received; PING, PONG: opaque */
    uint64_t limit;    /* ACK */
    uint32_t code;     /* RESET, CLOSE */
    const uint8_t *rest;
    size_t rest_len;
} tnl_frame;

const char *tnl_frame_name(uint8_t type);

/*
 * Encodes a whole frame into out[0..cap). Returns its length, or 0 when it does not fit or its rest is longer than the
 * type allows.
 */
size_t tnl_frame_encode(uint8_t *out, size_t cap, const tnl_frame *f);

/* The length tnl_frame_encode() would return, without its limits. */
size_t tnl_frame_size(const tnl_frame *f);

/*
 * The incremental decoder. DATA is passed on in pieces as it comes, without a copy; every other frame is handed over
 * whole (from the input when it lies there in one piece, else from a small buffer of at most TNL_FRAME_MAX_OTHER bytes).
 * Unknown types are skipped or refused as their critical bit says, and the skipped length is bounded too.
 */
typedef struct tnl_decoder {
    uint32_t max_data;      /* agreed maximum of a DATA payload, without its offset */
    uint8_t head[TNL_FRAME_HEADER + 8];
    size_t head_len;
    uint8_t type;
    uint64_t stream;
    uint64_t offset;
    size_t left;            /* bytes of the current frame still to come */
    uint8_t *body;          /* a frame cut into pieces is collected here */
    size_t body_len;
    size_t body_cap;
} tnl_decoder;

typedef int (*tnl_frame_cb)(void *user, const tnl_frame *f);

void tnl_decoder_init(tnl_decoder *d, uint32_t max_data);
void tnl_decoder_free(tnl_decoder *d);

/*
 * Decodes p[0..n), calling cb for each frame or piece. 0; TUNNEL_E_PROTOCOL (a length beyond its limit, a fixed part cut
 * short, a stream id where none may be), TUNNEL_E_UNSUPPORTED (unknown critical frame), TUNNEL_E_NOMEM, or what cb
 * returned (it stops there). After an error the decoder is useless.
 */
int tnl_decoder_feed(tnl_decoder *d, const uint8_t *p, size_t n, tnl_frame_cb cb, void *user);

#endif
