/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_ERROR_H
#define TUNNEL_ERROR_H

#include <tunnel/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Error codes. Every function that can fail returns 0 (or a non-negative value) on success and one
 * of these negative codes otherwise. The class of a code says what the caller can do about it:
 *   RETRY   the same call may succeed later; the library itself retries where it can
 *   CONFIG  something the caller gave must change first
 *   FINAL   give up: trying again cannot help
 * X(NAME, value, class, text)
 */
#define TUNNEL_ERROR_MAP(X)                                                                        \
    X(NOMEM, -1, RETRY, "out of memory")                                                           \
    X(INVALID, -2, CONFIG, "invalid argument")                                                     \
    X(STATE, -3, FINAL, "not possible in this state")                                              \
    X(LIMIT, -4, RETRY, "a limit was reached")                                                     \
    X(IO, -5, RETRY, "input/output error")                                                         \
    X(EOF, -6, RETRY, "connection closed by the peer")                                             \
    X(RESET, -7, RETRY, "connection reset by the peer")                                            \
    X(REFUSED, -8, RETRY, "connection refused")                                                    \
    X(TIMEOUT, -9, RETRY, "timed out")                                                             \
    X(UNREACHABLE, -10, RETRY, "network or host unreachable")                                      \
    X(RESOLVE, -11, RETRY, "name could not be resolved")                                           \
    X(ADDR_IN_USE, -12, CONFIG, "address already in use")                                          \
    X(ACCESS, -13, CONFIG, "permission denied")                                                    \
    X(NOT_FOUND, -14, CONFIG, "no such file or name")                                              \
    X(TLS, -15, CONFIG, "TLS error")                                                               \
    X(CERTIFICATE, -16, CONFIG, "certificate not accepted")                                        \
    X(PROTOCOL, -17, FINAL, "protocol violation by the peer")                                      \
    X(VERSION, -18, FINAL, "no protocol version in common")                                        \
    X(AUTH_FAILED, -19, FINAL, "authentication failed")                                            \
    X(DENIED, -20, FINAL, "not allowed")                                                           \
    X(NAME_TAKEN, -21, FINAL, "the name is held by another")                                       \
    X(NAME_INVALID, -22, CONFIG, "not a valid name")                                               \
    X(REPLACED, -23, FINAL, "replaced by a newer client")                                          \
    X(LIMIT_EXCEEDED, -24, FINAL, "a limit of the account was exceeded")                           \
    X(GONE, -25, RETRY, "the session is gone")                                                     \
    X(CANCELED, -26, RETRY, "canceled")                                                            \
    X(PROXY, -27, CONFIG, "the outbound proxy refused")                                            \
    X(UPSTREAM, -28, RETRY, "the local service could not be reached")                              \
    X(UNSUPPORTED, -29, FINAL, "not supported")                                                    \
    X(WRONG_THREAD, -30, FINAL, "called from the wrong thread or process")                         \
    X(NOT_TUNNEL, -31, RETRY, "the other end is not a tunnel server")                              \
    X(LOOP, -32, CONFIG, "the upstream is the tunnel's own public address")

typedef enum tunnel_error {
    TUNNEL_OK = 0,
#define TUNNEL_ERROR_ENUM(name, value, class_, text) TUNNEL_E_##name = (value),
    TUNNEL_ERROR_MAP(TUNNEL_ERROR_ENUM)
#undef TUNNEL_ERROR_ENUM
} tunnel_error;

/*
 * The text of a code, in English, without a final full stop.
 * Returns a static string, never NULL; "unknown error" for a number that is no code. Any thread.
 */
TUNNEL_EXPORT const char *tunnel_strerror(int code);

/*
 * The symbolic name of a code ("NAME_TAKEN"), as it appears on the wire and in JSON.
 * Returns a static string, never NULL; "UNKNOWN" for a number that is no code. Any thread.
 */
TUNNEL_EXPORT const char *tunnel_error_name(int code);

/*
 * Whether trying again cannot help without the caller changing something (classes CONFIG and
 * FINAL). Returns 1 or 0. Any thread.
 */
TUNNEL_EXPORT int tunnel_error_is_final(int code);

#ifdef __cplusplus
}
#endif

#endif
