/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_DATAGRAM_H
#define TNL_WIRE_DATAGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The body of DATAGRAM frames (docs/protocol.md section "Datagrams"): a datagram of a flow, or a
 * piece of one that is too long for a frame. All integers big-endian:
 *
 *   tunnel:64 number:32 total:16 offset:16 family:8 [address, port:16] payload
 */
enum {
    TNL_DATAGRAM_MAX = 65507,                           /* bytes of a datagram: UDP over IPv4 */
    TNL_DATAGRAM_HEAD_MAX = 8 + 4 + 2 + 2 + 1 + 16 + 2, /* before the payload */
};

typedef struct tnl_datagram {
    uint64_t tunnel;     /* the client's id, from 1 */
    uint64_t flow;       /* from 1; the frame's stream */
    uint8_t family;      /* of the visitor's address: 4, 6; 0 when it is not told */
    uint8_t address[16]; /* 4 or 16 bytes of it */
    uint16_t port;
    const uint8_t *p; /* borrowed */
    size_t n;
} tnl_datagram;

typedef struct tnl_datagram_piece {
    tnl_datagram d;  /* p and n are the piece's */
    uint32_t number; /* of the datagram: the same in all of its pieces */
    uint16_t total;  /* bytes of the whole datagram */
    uint16_t offset; /* of the piece in it */
} tnl_datagram_piece;

/* Bytes before the payload for this family. */
size_t tnl_datagram_head_size(uint8_t family);

/* The head of the body into out[0..cap), the payload is put behind it by the caller. Its length; 0
 * when it does not fit or is not what a decoder accepts. */
size_t tnl_datagram_encode_head(uint8_t *out, size_t cap, const tnl_datagram_piece *m);

/* Decodes the body of a DATAGRAM frame with that stream. 0 or TUNNEL_E_PROTOCOL, and then all
 * zeros. */
int tnl_datagram_decode(tnl_datagram_piece *m, uint64_t stream, const uint8_t *p, size_t n);

/*
 * Puts the pieces that arrive on one link together again. They come in order and those of one
 * datagram one after the other: whatever does not continue what was collected drops that. Holds at
 * most one datagram. All zeros is one that has seen nothing.
 */
typedef struct tnl_joiner {
    uint8_t *bytes; /* d.n bytes collected of total; NULL: nothing */
    tnl_datagram d; /* of the first piece, without p */
    uint32_t number;
    uint16_t total;
    bool skipping; /* the other pieces of `number` mean nothing any more */
} tnl_joiner;

void tnl_joiner_free(tnl_joiner *j);

/*
 * One more piece. True: *out is a whole datagram. Its bytes are the piece's, or, when *owned is
 * set, a buffer that the caller frees. *lost grows by the datagrams given up.
 */
bool tnl_joiner_feed(tnl_joiner *j, const tnl_datagram_piece *m, tnl_datagram *out, uint8_t **owned,
                     uint64_t *lost);

#endif
