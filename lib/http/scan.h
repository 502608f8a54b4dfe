/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_HTTP_SCAN_H
#define TNL_HTTP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The byte-level guards that go in front of llhttp. They find where a head, a chunk header or a
 * trailer section ends and refuse what has more than one reading: bare CR or LF, control bytes,
 * folded lines, white space before a colon. They keep no bytes and give the same answer however the
 * input was split.
 */

/* Why a message is refused: a TUNNEL_E_ code, the status for a request, and words for a person. */
typedef struct tnl_http_fault {
    int rc;
    int status;
    const char *why; /* static */
} tnl_http_fault;

/* Fills f and returns rc. */
int tnl_http_refuse(tnl_http_fault *f, int rc, int status, const char *why);

bool tnl_http_is_token_char(uint8_t c);

typedef enum tnl_http_scanned {
    TNL_HTTP_SCAN_MORE,       /* all input taken */
    TNL_HTTP_SCAN_START_LINE, /* just behind the CRLF of the start line */
    TNL_HTTP_SCAN_END,        /* just behind the empty line */
    TNL_HTTP_SCAN_REFUSED     /* at the first bad byte */
} tnl_http_scanned;

/* A start line and field lines up to an empty line, or field lines alone (trailers). */
typedef struct tnl_http_scan {
    uint8_t state;
    bool ascii_start; /* the start line is a request's: visible ASCII and spaces */
    size_t bytes;     /* taken */
    size_t max_bytes;
    size_t fields; /* field lines begun */
    size_t max_fields;
} tnl_http_scan;

void tnl_http_scan_head(tnl_http_scan *s, bool request, size_t max_bytes, size_t max_fields);
void tnl_http_scan_trailers(tnl_http_scan *s, size_t max_bytes, size_t max_fields);

/* Takes bytes up to the next event; *used says how many. */
tnl_http_scanned tnl_http_scan_run(tnl_http_scan *s, const uint8_t *p, size_t n, size_t *used,
                                   tnl_http_fault *f);

/* The framing of a chunked body up to its last chunk. */
typedef struct tnl_http_chunks {
    uint8_t state;
    uint8_t digits;
    uint16_t extensions; /* bytes of them so far */
    uint64_t left;       /* of the chunk's data; while its size is read, the size so far */
} tnl_http_chunks;

void tnl_http_chunks_init(tnl_http_chunks *c);

/*
 * Takes input up to its end (MORE) or just behind the line of the last chunk (END), where the
 * trailer section begins. *data is increased by the bytes of body among them.
 */
tnl_http_scanned tnl_http_chunks_run(tnl_http_chunks *c, const uint8_t *p, size_t n, size_t *used,
                                     uint64_t *data, tnl_http_fault *f);

#endif
