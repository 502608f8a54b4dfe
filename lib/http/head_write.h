/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_HTTP_HEAD_WRITE_H
#define TNL_HTTP_HEAD_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "http/http.h"

/*
 * Writes heads: those of forwarded messages, made from what the parser gave, and those of answers
 * of our own. Every function here appends to out all or nothing: 0, or TUNNEL_E_LIMIT (out is
 * full), TUNNEL_E_NOMEM.
 *
 * Whatever is about the connection or the framing is left out of what came (look-alikes with '_'
 * too) and written afresh, so that no two readings of it survive.
 */

typedef struct tnl_http_request_options {
    tnl_http_span host; /* the Host to send; empty: the one the visitor asked for */
    tnl_http_span
        path; /* path and query to send, a missing first slash is added; NULL: the head's */
    /* The values of X-Forwarded-For, -Host, -Proto and -Prefix; empty: not sent. The visitor's own
     * never pass. */
    tnl_http_span forwarded_for;
    tnl_http_span forwarded_host;
    tnl_http_span forwarded_proto;
    tnl_http_span forwarded_prefix;
    tnl_http_span loop; /* one more CDN-Loop field (RFC 8586); empty: none */
    bool close;         /* say "Connection: close" instead of "keep-alive" */
    bool pass_upgrade; /* pass the upgrade on, if the request has one (never h2c: see tnl_http_head)
                        */
    bool pass_expect;  /* pass on "Expect: 100-continue", if the request has it */
} tnl_http_request_options;

/*
 * The request head as the upstream gets it, in HTTP/1.1. Its body must then be sent with the
 * framing of h: as it is for TNL_HTTP_LENGTH, chunked anew for TNL_HTTP_CHUNKED.
 */
int tnl_http_write_request(tnl_buf *out, const tnl_http_head *h, const tnl_http_request_options *o);

typedef struct tnl_http_response_options {
    int minor;  /* of the visitor's request: what it understands */
    bool close; /* the visitor's connection ends after this response */
} tnl_http_response_options;

/*
 * The framing a response's body must be sent to the visitor with: where its end was the
 * connection's it becomes chunked, for HTTP/1.0 the other way round. When it gives
 * TNL_HTTP_UNTIL_CLOSE the visitor's connection must end with the body, and the head says so
 * whatever o->close is.
 */
tnl_http_framing tnl_http_response_framing(const tnl_http_head *h,
                                           const tnl_http_response_options *o);

/*
 * The response head as the visitor gets it. A 101 keeps its upgrade. Writes nothing for another 1xx
 * to an HTTP/1.0 visitor, who must not be sent one.
 */
int tnl_http_write_response(tnl_buf *out, const tnl_http_head *h,
                            const tnl_http_response_options *o);

/* An answer of our own. */
typedef struct tnl_http_reply {
    int status;
    const char *content_type;     /* NULL: text/plain; charset=utf-8 */
    const tnl_http_field *fields; /* more fields (Allow, Retry-After, Date); written as they are */
    size_t field_count;
    int minor;         /* of the request */
    bool head_request; /* no body, but its length */
    bool close;
} tnl_http_reply;

/* Head and body. The body is not sent with 1xx, 204, 205 and 304. */
int tnl_http_write_reply(tnl_buf *out, const tnl_http_reply *r, const void *body, size_t n);

/* The head alone, for a body of so many bytes that is sent apart (not for a HEAD request). */
int tnl_http_write_reply_head(tnl_buf *out, const tnl_http_reply *r, uint64_t length);

/*
 * The same with a small HTML page for a body: the status and its reason as heading, and a paragraph
 * for each line of text, which is escaped. content_type is ignored; the page must not be stored.
 */
int tnl_http_write_page(tnl_buf *out, const tnl_http_reply *r, const char *text);

/* --- chunked ---------------------------------------------------------------------------------- */

enum { TNL_HTTP_CHUNK_HEAD_MAX = 18 }; /* 16 digits, CRLF */

/*
 * The line before n > 0 bytes of body, into head; returns its length. Behind the bytes goes
 * tnl_http_chunk_end, 2 bytes.
 */
size_t tnl_http_chunk_head(char head[TNL_HTTP_CHUNK_HEAD_MAX], size_t n);
extern const char tnl_http_chunk_end[2];

/* A whole chunk; nothing for n = 0, which would end the body. */
int tnl_http_write_chunk(tnl_buf *out, const void *body, size_t n);

/* The end of the body with its trailer fields, as the parser gave them (fields may be NULL when
 * there are none). */
int tnl_http_write_last_chunk(tnl_buf *out, const tnl_http_field *fields, size_t n);

#endif
