/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_TLS_HELLO_H
#define TNL_TLS_HELLO_H

#include <stddef.h>
#include <stdint.h>

/*
 * Looks at the first bytes of a connection without touching them: is it a TLS ClientHello, and for
 * which name (SNI, RFC 6066 section 3)? The hello may come in any number of segments and records
 * (RFC 8446 section 5.1).
 */
enum {
    TNL_TLS_HELLO_MAX_MESSAGE = 16 * 1024, /* the ClientHello */
    TNL_TLS_HELLO_MAX = 32 * 1024,         /* with the heads of its records */
    TNL_TLS_HELLO_ALERT = 7,               /* bytes of an alert record */
};

/* Alerts, RFC 8446 section 6. */
enum {
    TNL_ALERT_UNEXPECTED_MESSAGE = 10,
    TNL_ALERT_RECORD_OVERFLOW = 22,
    TNL_ALERT_HANDSHAKE_FAILURE = 40,
    TNL_ALERT_ILLEGAL_PARAMETER = 47,
    TNL_ALERT_DECODE_ERROR = 50,
    TNL_ALERT_PROTOCOL_VERSION = 70,
    TNL_ALERT_INTERNAL_ERROR = 80,
    TNL_ALERT_UNRECOGNIZED_NAME = 112,
};

typedef enum tnl_tls_hello_state {
    TNL_TLS_HELLO_MORE, /* so far it may become one */
    TNL_TLS_HELLO_DONE,
    TNL_TLS_HELLO_OTHER, /* no TLS (also SSL 2) */
    TNL_TLS_HELLO_BAD,   /* TLS, but no proper ClientHello: `alert` says why */
} tnl_tls_hello_state;

typedef struct tnl_tls_hello {
    /*
     * DONE: the host name asked for, lower case, without a final dot, a valid DNS name; "" when
     * there is none. A numeric address counts as none: RFC 6066 does not allow it, some clients
     * send it.
     */
    char name[254];
    uint8_t alert; /* BAD */
    /* private: */
    size_t at;      /* bytes looked at */
    size_t left;    /* of the present record */
    size_t got;     /* of the message */
    size_t need;    /* the whole message; 0: not known yet */
    size_t records; /* begun */
    uint8_t head[4];
} tnl_tls_hello;

/*
 * p[0..n): all that has come since the connection began, at least as much as in the last call. h is
 * zeroed before the first one. MORE is not the answer to TNL_TLS_HELLO_MAX bytes. What follows the
 * hello's last record is not looked at.
 */
tnl_tls_hello_state tnl_tls_hello_look(tnl_tls_hello *h, const uint8_t *p, size_t n);

/* A record with a fatal alert, as it goes to a client whose hello was not answered. */
void tnl_tls_hello_write_alert(uint8_t out[TNL_TLS_HELLO_ALERT], uint8_t alert);

#endif
