/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_HTTP_CHECK_H
#define TNL_HTTP_CHECK_H

#include "http/http.h"
#include "http/scan.h"

/*
 * What a head must be beyond its grammar, and what follows from it: form of the target, Host,
 * framing, persistence. All return 0, or a TUNNEL_E_ code with *f filled.
 */

/* A request line without its CRLF, as soon as it is there: nothing more is read for one that is
 * refused. */
int tnl_http_check_request_line(tnl_http_span line, tnl_http_fault *f);
int tnl_http_check_status_line(tnl_http_span line, tnl_http_fault *f);

/*
 * Fills the head's path, host, framing, lengths and flags from its start line and fields. A target
 * without a path
 * ("http://host?query") leaves path at the query: the caller puts the '/' in front.
 */
int tnl_http_check_request(tnl_http_head *h, tnl_http_fault *f);

/* The same for a response, in the light of the request it answers. */
int tnl_http_check_response(tnl_http_head *h, bool head_request, bool upgrade_asked,
                            tnl_http_fault *f);

/* Trailer fields: none that has a meaning for framing, routing or authentication. */
int tnl_http_check_trailers(const tnl_http_field *fields, size_t n, tnl_http_fault *f);

#endif
