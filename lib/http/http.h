/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_HTTP_HTTP_H
#define TNL_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/*
 * A strict HTTP/1.1 message parser (RFC 9110, RFC 9112) on llhttp plus the rules llhttp leaves out:
 * whatever two parsers could read differently is an error. No I/O, no clock. Heads are collected
 * whole (bounded); bodies are passed through as spans of the input, decoded from chunked.
 *
 * Two readers look at every byte: a scanner of our own goes first and lets through only what has
 * one meaning, llhttp parses what was let through, and a message on which the two do not agree
 * about where it ends is an error.
 */
typedef struct tnl_http_span {
    const char *p;
    size_t n;
} tnl_http_span;

typedef struct tnl_http_field {
    tnl_http_span name;  /* as received */
    tnl_http_span value; /* without surrounding white space */
} tnl_http_field;

typedef enum tnl_http_framing {
    TNL_HTTP_NO_BODY, /* none: no Content-Length/Transfer-Encoding in a request; HEAD, 1xx, 204, 304
                         responses */
    TNL_HTTP_LENGTH,  /* Content-Length */
    TNL_HTTP_CHUNKED,
    TNL_HTTP_UNTIL_CLOSE, /* responses only */
    TNL_HTTP_TUNNEL /* after a 101: bytes, no longer HTTP (a CONNECT request is refused with 501) */
} tnl_http_framing;

enum {
    TNL_HTTP_MAX_FIELDS = 128,
    TNL_HTTP_MAX_CONNECTION = 32,     /* elements of all Connection fields of a message */
    TNL_HTTP_MAX_INTERIM = 16,        /* 1xx responses before the one that counts */
    TNL_HTTP_MAX_EXTENSIONS = 1024,   /* bytes of chunk extensions in a message; they are dropped */
    TNL_HTTP_MAX_TRAILERS = 8 * 1024, /* bytes of a trailer section */
    TNL_HTTP_MAX_TRAILER_FIELDS = 64
};

typedef struct tnl_http_head {
    /* --- requests */
    tnl_http_span method;
    /* As received: origin-form "/path?query", "*", or absolute-form as it came. */
    tnl_http_span target;
    /* The origin-form to forward: absolute-form reduced to path and query; "*" stays. */
    tnl_http_span path;
    /* The authority: absolute-form's if there is one, else the Host field; port included. Always a
     * valid name or address; empty only in HTTP/1.0 without a Host. */
    tnl_http_span host;
    bool expect_continue; /* HTTP/1.1 with a body only: else there is nothing to wait for */

    /* --- responses */
    int status;
    tnl_http_span reason;

    /* --- both */
    int minor;       /* HTTP/1.minor: 0 or 1 */
    bool keep_alive; /* what the message says about its connection */
    bool upgrade;    /* Connection: upgrade and an Upgrade field, in HTTP/1.1. A new protocol
                        begins behind the request's body (RFC 9110 section 7.8) */
    bool h2c;        /* that Upgrade offers h2c: then upgrade is false, as if it were not there */
    tnl_http_framing framing;
    bool has_content_length;
    uint64_t content_length; /* TNL_HTTP_LENGTH; of answers to HEAD and 304 what the field said */
    size_t field_count;
    const tnl_http_field *fields; /* in the order received */
} tnl_http_head;

/* A callback may call tnl_http_next() from end(), and nothing else of the parser; it must not free
 * the parser. */
typedef struct tnl_http_events {
    /* The head is complete and passed all checks. Spans are valid until tnl_http_next(), those of a
     * 1xx until this returns. Responses: called for each 1xx too (framing NO_BODY; the parser then
     * goes on to the next head by itself, except after 101: then framing is TUNNEL, and end() is
     * not called). Return 0, or a TUNNEL_E_ code to stop with. */
    int (*head)(void *user, const tnl_http_head *h);
    /* Decoded body bytes, a span of the input given to tnl_http_feed(). */
    int (*body)(void *user, const uint8_t *p, size_t n);
    /* Trailer fields of a chunked message, just before end(); only those that may be forwarded (no
     * framing, routing, authentication fields, RFC 9110 section 6.5.1: such a one is an error).
     * Valid until this returns. Optional. */
    int (*trailers)(void *user, const tnl_http_field *f, size_t n);
    /* The message is complete. The parser stops right behind it; tnl_http_next() makes it ready for
     * another. */
    int (*end)(void *user);
} tnl_http_events;

typedef struct tnl_http_parser tnl_http_parser;

typedef struct tnl_http_limits {
    size_t max_head;   /* bytes of start line and fields, 1 KiB to 1 MiB; default 32 KiB */
    size_t max_fields; /* 1 to TNL_HTTP_MAX_FIELDS; default 100 */
} tnl_http_limits;

/* is_request: which kind it parses. limits may be NULL (defaults), a 0 in it is the default; ev is
 * copied. TUNNEL_E_INVALID for limits out of range, TUNNEL_E_NOMEM. An idle parser holds a few
 * hundred bytes. */
int tnl_http_parser_new(tnl_http_parser **out, bool is_request, const tnl_http_limits *limits,
                        const tnl_http_events *ev, void *user);
void tnl_http_parser_free(tnl_http_parser *p);

/*
 * Parses p[0..n). *used gets how many bytes were taken: all, unless the message ended before (the
 * rest belongs to the next one) or switched to TNL_HTTP_TUNNEL (the rest is not HTTP). Errors:
 * TUNNEL_E_PROTOCOL (malformed or ambiguous), TUNNEL_E_LIMIT (head too large or too many fields),
 * what a callback returned, TUNNEL_E_NOMEM. After an error the parser is dead (feeding it again
 * gives the same error); tnl_http_why() says in a few words what was wrong.
 */
int tnl_http_feed(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used);
const char *tnl_http_why(const tnl_http_parser *p);
/* The status to answer a failed request with: 400, 413, 414, 417, 431, 501 or 505; 502 for a failed
 * response; 500 when it was our fault (memory, a callback's error). 0: it did not fail. */
int tnl_http_error_status(const tnl_http_parser *p);

/* The input ended. 0 when that is a proper end (between messages, or it ends a TNL_HTTP_UNTIL_CLOSE
 * body: then end() is called from here); TUNNEL_E_EOF when it cuts a message. */
int tnl_http_eof(tnl_http_parser *p);

/* Ready for the next message on the same connection; frees the last one's head. Does nothing in
 * mid-message, in a tunnel and after an error. */
void tnl_http_next(tnl_http_parser *p);

/* Responses only: the next response answers a HEAD request (it has no body), or an upgrade request.
 * Call before its first byte. upgrade_asked false makes a 101 an error. Holds until the final
 * response. */
void tnl_http_expect(tnl_http_parser *p, bool head_request, bool upgrade_asked);

/* True before the first byte of a message (the one empty line that may precede a request does not
 * count, and neither do the 1xx before a response: then it is false). */
bool tnl_http_idle(const tnl_http_parser *p);

/* --- helpers on heads
 * ---------------------------------------------------------------------------------------------- */

bool tnl_http_same(tnl_http_span a, tnl_http_span b); /* equal, ASCII case-insensitive */
bool tnl_http_is(tnl_http_span s, const char *text);  /* equal, ASCII case-insensitive */
const tnl_http_field *tnl_http_find(const tnl_http_head *h,
                                    const char *name); /* first field of that name or NULL */
/* Whether a comma-separated list field (all occurrences) has the token, case-insensitive. */
bool tnl_http_has_token(const tnl_http_head *h, const char *name, const char *token);
/* Takes the next element of a comma-separated list without the white space around it (it may be
 * empty; commas inside quoted strings are not understood). False at the end of the list. */
bool tnl_http_list_next(tnl_http_span *list, tnl_http_span *element);
/* Hop-by-hop: Connection and what it nominates, Keep-Alive, TE, Transfer-Encoding, Upgrade,
 * HTTP2-Settings, and the Proxy- fields that speak to the next hop. Trailer is not: it describes
 * the message. */
bool tnl_http_is_hop_by_hop(const tnl_http_head *h, tnl_http_span name);
/* The same without what Connection nominates. */
bool tnl_http_is_hop_by_hop_name(tnl_http_span name);
/* Equal after case folding and '_' counted as '-': for "X_Forwarded_For" look-alikes. */
bool tnl_http_looks_like(tnl_http_span name, const char *canonical);
/* The standard reason phrase ("Bad Gateway"); of an unknown status that of its class ("Server
 * Error"). */
const char *tnl_http_reason(int status);

#endif
