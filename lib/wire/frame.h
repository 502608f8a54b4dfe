/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_FRAME_H
#define TNL_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The frame codec (docs/protocol.md section "Frames"). Every frame starts with 12 bytes, all
 * integers big-endian:
 *
 *   type:8  length:24  stream:64
 *
 * length counts what follows these 12 bytes. A type with the bit TNL_FRAME_CRITICAL must be
 * understood; other unknown types are skipped.
 */
enum {
    TNL_FRAME_HEADER = 12,
    TNL_FRAME_CRITICAL = 0x80,
    /* Greatest payload of DATA in bytes that version 1 may ever agree on. */
    TNL_FRAME_MAX_DATA = 65536,
    /* Greatest rest of any other frame. */
    TNL_FRAME_MAX_OTHER = 16384,
};

/* A direction of a stream carries at most so many bytes: no offset, final or limit is greater. */
#define TNL_FRAME_MAX_OFFSET ((uint64_t)1 << 62)

/* The rows: X(NAME, type, fixed bytes before the rest, greatest rest). */
#define TNL_FRAME_MAP(X)                                                                           \
    X(OPEN, 0x81, 0, 1024)                   /* rest: a msgpack map, what is opened */             \
    X(DATA, 0x82, 8, TNL_FRAME_MAX_DATA)     /* offset:64, rest: bytes, at least one */            \
    X(FIN, 0x83, 8, 0)                       /* final offset:64 */                                 \
    X(RESET, 0x84, 12, 256)                  /* final offset:64, code:32, rest: text for people */ \
    X(ACK, 0x85, 16, 0)                      /* received:64, limit:64 */                           \
    X(HELLO, 0x90, 0, TNL_FRAME_MAX_OTHER)   /* link scope, stream 0; rest: a msgpack map */       \
    X(WELCOME, 0x91, 0, TNL_FRAME_MAX_OTHER) /* likewise */                                        \
    X(ATTACH, 0x92, 0, TNL_FRAME_MAX_OTHER)  /* likewise */                                        \
    X(ATTACHED, 0x93, 0, TNL_FRAME_MAX_OTHER) /* likewise */                                       \
    X(CLOSE, 0x94, 4, 256)  /* link scope: code:32, rest: text; ends the session */                \
    X(PING, 0x15, 8, 0)     /* link scope: opaque:64 */                                            \
    X(PONG, 0x16, 8, 0)     /* link scope: the ping's opaque:64 */                                 \
    X(EVENT, 0x17, 0, 4096) /* link scope, droppable; rest: a msgpack map */                       \
    X(DATAGRAM, 0x18, 0, TNL_FRAME_MAX_OTHER) /* droppable; stream: a flow; rest: wire/datagram.h  \
                                               */

typedef enum tnl_frame_type {
#define TNL_FRAME_ENUM(name, type, fixed, rest_max) TNL_FRAME_##name = (type),
    TNL_FRAME_MAP(TNL_FRAME_ENUM)
#undef TNL_FRAME_ENUM
} tnl_frame_type;

/* One decoded frame, or a piece of a DATA frame. Which members mean something depends on the type.
 */
typedef struct tnl_frame {
    uint8_t type;
    uint64_t stream;
    uint64_t offset; /* DATA: of the first byte at `rest`; FIN, RESET: final; ACK: received; PING,
                        PONG: opaque */
    uint64_t limit;  /* ACK */
    uint32_t code;   /* RESET, CLOSE */
    const uint8_t *rest;
    size_t rest_len;
} tnl_frame;

const char *tnl_frame_name(uint8_t type);

/*
 * Encodes a whole frame into out[0..cap). Returns its length; 0 when it does not fit, or when a
 * decoder would refuse it (unknown type, rest too long, offset out of range, a stream id where none
 * may be or the other way round). The one exception: a DATA frame without payload is encoded.
 */
size_t tnl_frame_encode(uint8_t *out, size_t cap, const tnl_frame *f);

/* The head of a frame without fixed bytes (OPEN, EVENT, DATAGRAM, ...) whose f->rest_len bytes of
 * rest the caller puts behind it. Its length, or 0 as above. */
size_t tnl_frame_encode_head(uint8_t *out, size_t cap, const tnl_frame *f);

/* The head of a DATA frame whose n bytes of payload the caller puts behind it. Its length, or 0 as
 * above. */
size_t tnl_frame_encode_data_head(uint8_t *out, size_t cap, uint64_t stream, uint64_t offset,
                                  size_t n);

/* The length tnl_frame_encode() would return, without its limits. */
size_t tnl_frame_size(const tnl_frame *f);

/*
 * The incremental decoder. DATA is passed on in pieces as it comes, without a copy; every other
 * frame is handed over whole (from the input when it lies there in one piece, else from a small
 * buffer of at most TNL_FRAME_MAX_OTHER bytes). Unknown types are skipped or refused as their
 * critical bit says, and the skipped length is bounded too.
 */
typedef struct tnl_decoder {
    uint32_t max_data; /* agreed maximum of a DATA payload, without its offset */
    uint8_t head[TNL_FRAME_HEADER + 8];
    size_t head_len;
    uint8_t type;
    uint64_t stream;
    uint64_t offset;
    size_t length; /* bytes of the current frame behind the head */
    size_t left;   /* those of them still to come; 0: the next frame has not begun */
    uint8_t *body; /* a frame cut into pieces is collected here: length bytes, freed when it is
                      complete */
    size_t body_len;
} tnl_decoder;

/* f and what it points to are the callback's until it returns. It must neither free nor feed the
 * decoder; returning anything but 0 stops it. */
typedef int (*tnl_frame_cb)(void *user, const tnl_frame *f);

void tnl_decoder_init(tnl_decoder *d, uint32_t max_data);
void tnl_decoder_free(tnl_decoder *d);

/*
 * Decodes p[0..n), calling cb for each frame or piece. 0; TUNNEL_E_PROTOCOL (a length or offset
 * beyond its limit, a fixed part cut short, an empty DATA, a stream id where none may be or the
 * other way round), TUNNEL_E_UNSUPPORTED (unknown critical frame), TUNNEL_E_NOMEM, or what cb
 * returned. After an error the decoder can only be freed.
 */
int tnl_decoder_feed(tnl_decoder *d, const uint8_t *p, size_t n, tnl_frame_cb cb, void *user);

#endif
