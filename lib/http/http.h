/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_HTTP_HTTP_H
#define TNL_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/*
 * A strict HTTP/1.1 message parser (RFC 9110, RFC 9112) on llhttp plus the rules llhttp leaves out: whatever two parsers
 * could read differently is an error. No I/O, no clock. Heads are collected whole (bounded); bodies are passed through
 * as spans of the input, decoded from chunked.
 */
typedef struct tnl_http_span {
    const char *p;
    size_t n;
} tnl_http_span;

typedef struct tnl_http_field {
    tnl_http_span name; /* as received */
    tnl_http_span value; /* without surrounding white space */
} tnl_http_field;

typedef enum tnl_http_framing {
    TNL_HTTP_NO_BODY,      /* none: no Content-Length/Transfer-Encoding in a request; HEAD, 1xx, 204, 304 responses */
    TNL_HTTP_LENGTH,       /* Content-Length */
    TNL_HTTP_CHUNKED,
    TNL_HTTP_UNTIL_CLOSE,  /* responses only */
    TNL_HTTP_TUNNEL        /* after a 101 (or 2xx to CONNECT): bytes, no longer HTTP */
} tnl_http_framing;

enum { TNL_HTTP_MAX_FIELDS = 128 };

typedef struct tnl_http_head {
    /* request */
    tnl_http_span method;
    tnl_http_span target;    /* as received: origin-form "/path?query", "*", or absolute-form as it came */
    tnl_http_span path;      /* origin-form to forward (absolute-form reduced to path and query; "*" stays) */
    tnl_http_span host;      /* authority: absolute-form's if there is one, else the Host field; port included */
    bool upgrade;            /* Connection: upgrade together with an Upgrade field */
    bool expect_continue;
    /* response */
    int status;
    tnl_http_span reason;
    /* both */
    int minor;               /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;         /* what the message says about its connection */
    tnl_http_framing framing;
    uint64_t content_length; /* TNL_HTTP_LENGTH; for HEAD/304 answers what the field said, if has_content_length */
    bool has_content_length;
    tnl_http_field fields[TNL_HTTP_MAX_FIELDS];
    size_t field_count;
} tnl_http_head;

typedef struct tnl_http_events {
    /* The head is complete and passed all checks. Spans are valid until the message ends. Responses: called for each
     * 1xx too (framing NO_BODY; the parser then goes on to the next head by itself, except after 101). Return 0, or a
     * TUNNEL_E_ code to stop with it. */
    int (*head)(void *user, const tnl_http_head *h);
    /* Decoded body bytes, a span of the input given to tnl_http_feed(). */
    int (*body)(void *user, const uint8_t *p, size_t n);
    /* Trailer fields of a chunked message, just before end(); only those that may be forwarded (no framing, routing,
     * authentication fields, RFC 9110 section 6.5.1: such a one is an error). Optional. */
    int (*trailers)(void *user, const tnl_http_field *f, size_t n);
    /* The message is complete. The parser stops right behind it; tnl_http_next() makes it ready for another. */
    int (*end)(void *user);
} tnl_http_events;

typedef struct tnl_http_parser tnl_http_parser;

typedef struct tnl_http_limits {
    size_t max_head;   /* bytes of start line and fields, 1 KiB to 1 MiB; default 32 KiB */
    size_t max_fields; /* 1 to TNL_HTTP_MAX_FIELDS; default 100 */
} tnl_http_limits;

/* is_request: which kind it parses. limits may be NULL (defaults). */
int tnl_http_parser_new(tnl_http_parser **out, bool is_request, const tnl_http_limits *limits,
                        const tnl_http_events *ev, void *user);
void tnl_http_parser_free(tnl_http_parser *p);

/*
 * Parses p[0..n). *used gets how many bytes were taken: all, unless the message ended before (the rest belongs to the
 * next one) or switched to TNL_HTTP_TUNNEL (the rest is not HTTP). Errors: TUNNEL_E_PROTOCOL (malformed or ambiguous),
 * TUNNEL_E_LIMIT (head too large or too many fields), what a callback returned, TUNNEL_E_NOMEM. After an error the
 * parser is dead; tnl_http_why() says in a few words what was wrong.
 */
int tnl_http_feed(tnl_http_parser *p, const uint8_t *bytes, size_t n, size_t *used);
const char *tnl_http_why(const tnl_http_parser *p);
/* The status to answer a failed request with: 400, 413, 414, 431, 501 or 505. */
int tnl_http_error_status(const tnl_http_parser *p);

/* The input ended. 0 when that is a proper end (between messages, or it ends a TNL_HTTP_UNTIL_CLOSE body: then end() is
 * called from here); TUNNEL_E_EOF when it cuts a message. */
int tnl_http_eof(tnl_http_parser *p);

/* Ready for the next message on the same connection. */
void tnl_http_next(tnl_http_parser *p);

/* Responses only: the next response answers a HEAD request (it has no body), or a CONNECT/upgrade request. Call before
 * its first byte. upgrade_asked false makes a 101 an error. */
void tnl_http_expect(tnl_http_parser *p, bool head_request, bool upgrade_asked);

/* True before the first byte of a message. */
bool tnl_http_idle(const tnl_http_parser *p);

/* --- helpers on heads ---------------------------------------------------------------------------------------------- */

bool tnl_http_is(tnl_http_span s, const char *text);       /* equal, ASCII case-insensitive */
const tnl_http_field *tnl_http_find(const tnl_http_head *h, const char *name); /* first field of that name or NULL */
/* Whether a comma-separated list field (all occurrences) has the token, case-insensitive. */
bool tnl_http_has_token(const tnl_http_head *h, const char *name, const char *token);
/* Hop-by-hop: Connection and what it nominates, Keep-Alive, Proxy-*, TE, Trailer?, Transfer-Encoding, Upgrade. */
bool tnl_http_is_hop_by_hop(const tnl_http_head *h, tnl_http_span name);
/* Equal after case folding and '_' counted as '-': for "X_Forwarded_For" look-alikes. */
bool tnl_http_looks_like(tnl_http_span name, const char *canonical);
/* The standard reason phrase ("Bad Gateway"). */
const char *tnl_http_reason(int status);

#endif
