/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_WIRE_MESSAGE_H
#define TNL_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/*
 * The msgpack maps of the protocol (docs/protocol.md section "Messages"): keys are strings, every
 * map has a fixed schema, unknown keys are skipped, missing optional keys read as 0 / false /
 * empty. Before anything is unpacked a scan proves depth (4), element counts (64 per container) and
 * lengths against the bytes at hand; a duplicate key, a wrong type, a value out of range, trailing
 * bytes or an unset required key is TUNNEL_E_PROTOCOL. Texts must be UTF-8 without control
 * characters (wire/text.h). Texts of a decoded message point into the bytes it was decoded from;
 * empty ones are {NULL, 0}.
 *
 * Encoders write canonical msgpack (shortest forms, keys in the order given here, optional keys
 * that read as their default left out) and return the length; 0 when it does not fit, or when a
 * member is not what a decoder accepts (clean and cut foreign text with tnl_text_clean() first).
 * Decoders return 0 or TUNNEL_E_PROTOCOL, and then the message is all zeros. Neither allocates.
 */
enum {
    TNL_PROTOCOL_VERSION = 1,
    TNL_ID_SIZE = 16,     /* session ids, instance ids, nonces */
    TNL_SECRET_SIZE = 32, /* session secrets, MACs */
    TNL_MESSAGE_MAX = 16384,
};

/* What one end accepts; agreed values are what the receiver of the data has stated. */
typedef struct tnl_limits {
    uint32_t max_frame;   /* "max_frame": greatest DATA payload accepted, 1024 to 65536 */
    uint32_t max_streams; /* "max_streams": streams the peer may have open at once, 0 to 65536 */
    uint32_t window; /* "window": first credit of each direction of a stream, 16384 to 1048576 */
} tnl_limits;

/* HELLO, client to server, first frame of a first link. */
typedef struct tnl_hello {
    uint32_t version_min;          /* "version_min", required, from 1 */
    uint32_t version_max;          /* "version_max", required, from 1 */
    uint8_t instance[TNL_ID_SIZE]; /* "instance" bin 16, required */
    bool force;                    /* "force" */
    tnl_str agent;                 /* "agent", at most 64 bytes, e.g. "libtunnel/0.1.0" */
    tnl_limits limits;             /* "limits": map, required */
} tnl_hello;

/* WELCOME, the server's answer; from here on the session exists. */
typedef struct tnl_welcome {
    uint32_t version;                /* "version", required: the one chosen */
    uint8_t session[TNL_ID_SIZE];    /* "session", required */
    uint8_t secret[TNL_SECRET_SIZE]; /* "secret", required */
    uint64_t
        generation;    /* "generation", required, from 1: grows with every session of an instance */
    uint32_t grace_ms; /* "grace_ms": how long the server keeps the session without a link */
    tnl_str agent;     /* "agent", at most 64 bytes */
    tnl_limits limits; /* "limits", required */
} tnl_welcome;

/* ATTACH, client to server, first frame of a further link (or of the first one after all were
 * lost). */
typedef struct tnl_attach {
    uint8_t session[TNL_ID_SIZE]; /* "session", required */
    uint64_t generation;          /* "generation", required */
    uint64_t link;                /* "link", required: never used before in this session, from 1 */
    uint8_t nonce[TNL_ID_SIZE];   /* "nonce", required */
    uint8_t mac[TNL_SECRET_SIZE]; /* "mac", required: HMAC-SHA256, see tnl_attach_mac_input() */
} tnl_attach;

/* ATTACHED, the server's answer. */
typedef struct tnl_attached {
    uint8_t mac[TNL_SECRET_SIZE]; /* "mac", required: over the same input with the server's role */
} tnl_attached;

/*
 * What both MACs are computed over with the session's secret: the ASCII bytes "tunnel v1 attach",
 * one byte role ('C' in ATTACH, 'S' in ATTACHED), session, generation:64, link:64, nonce. Fixed
 * length.
 */
enum { TNL_ATTACH_MAC_INPUT = 16 + 1 + 16 + 8 + 8 + 16 };
void tnl_attach_mac_input(uint8_t out[TNL_ATTACH_MAC_INPUT], char role, const tnl_attach *a);

/* The map in an OPEN frame. */
typedef struct tnl_open {
    uint64_t tunnel; /* "tunnel", required: the id the client gave it in PUBLISH */
    tnl_str visitor; /* "visitor": the visitor's address, "192.0.2.1" or "2001:db8::1"; at most 64
                        bytes */
    uint32_t port;   /* "port": the visitor's port */
    tnl_str server;  /* "server": the address that the visitor came to; at most 64 bytes */
    uint32_t server_port; /* "server_port": and its port */
    uint32_t target;      /* "target": the port wanted of a tunnel with `ports`; else 0 */
} tnl_open;

/* The map in an EVENT frame: a request finished (event "request"). Other events may come and are
 * skipped. */
typedef struct tnl_event {
    tnl_str event;        /* "event", required, 1 to 32 bytes */
    uint64_t tunnel;      /* "tunnel" */
    tnl_str method;       /* "method", at most 32 bytes */
    tnl_str path;         /* "path", at most 1024 bytes, cut by the sender */
    uint32_t status;      /* "status", at most 999; 0: the visitor left before an answer */
    uint64_t duration_us; /* "duration_us" */
    uint64_t received;    /* "received": body bytes from the visitor */
    uint64_t sent;        /* "sent": body bytes to the visitor */
    tnl_str visitor;      /* "visitor", at most 64 bytes */
} tnl_event;

/*
 * Control messages travel as records on stream 0, which is reliable and ordered: type:8, length:24,
 * a msgpack map. A type with the bit TNL_FRAME_CRITICAL must be understood, others may be skipped.
 */
enum { TNL_CONTROL_HEADER = 4 };
typedef enum tnl_control_type {
    TNL_CONTROL_PUBLISH = 0x81,
    TNL_CONTROL_PUBLISHED = 0x82,
    TNL_CONTROL_PUBLISH_FAILED = 0x83,
    TNL_CONTROL_UNPUBLISH = 0x84,
    TNL_CONTROL_GOAWAY = 0x05,
    TNL_CONTROL_REAUTH = 0x86,
    TNL_CONTROL_REAUTH_RESULT = 0x87,
} tnl_control_type;

/* What a tunnel carries: "kind" in PUBLISH. */
typedef enum tnl_kind {
    TNL_KIND_HTTP, /* requests, routed by Host (or by path) */
    TNL_KIND_TLS,  /* connections as they are, routed by the name in the ClientHello */
    TNL_KIND_TCP,  /* connections to a port */
    TNL_KIND_UDP,  /* datagrams to a port */
    TNL_KIND_COUNT,
} tnl_kind;

/* "http", ...; and back: TNL_KIND_COUNT for none of them. */
const char *tnl_kind_name(tnl_kind kind);
tnl_kind tnl_kind_of(tnl_str name);

/* PUBLISH, client to server. */
typedef struct tnl_publish {
    uint64_t tunnel; /* "tunnel", required: chosen by the client, from 1, unique in the session */
    tnl_str kind;    /* "kind", required: "http", "tls", "tcp", "udp"; at most 16 bytes */
    tnl_str name; /* "name", http and tls: label wanted, "" any, "@" the root domain, "*.LABEL" all
                     names below one; at most 255 bytes */
    tnl_str domain;   /* "domain", http and tls, instead of a name: a domain that is not under the
                         server's own, "app.example.org" or "*.example.org"; at most 253 bytes */
    tnl_str path_id;  /* "path_id", http: id for routing by path; at most 128 bytes */
    uint32_t port;    /* "port", tcp and udp: public port wanted, 0 any; at most 65535 */
    bool ports;       /* "ports", http and tls: pPORT.NAME names a port behind the client */
    bool fresh;       /* "fresh", http: each request gets a stream of its own */
    uint32_t idle_ms; /* "idle_ms", udp: how long a flow may be idle, 0 the server's default */
    tnl_str host_header; /* "host_header": replaces Host toward the upstream; at most 255 bytes */
    tnl_str credential;  /* "credential": a token that names just this tunnel; at most 4096 bytes */
    tnl_str pool; /* "pool", not udp: shared with other clients, "round-robin" or "least-loaded";
                     "" none; at most 16 bytes */
} tnl_publish;

typedef struct tnl_published {
    uint64_t tunnel; /* "tunnel", required */
    tnl_str name;    /* "name": the label it got, "@" for the root domain; "" with a domain, and for
                        tcp and udp; at most 255 bytes */
    tnl_str url;     /* "url", required: how visitors reach it; 1 to 2048 bytes */
    uint32_t port;   /* "port": the public port of tcp and udp */
} tnl_published;

typedef struct tnl_publish_failed {
    uint64_t tunnel; /* "tunnel", required */
    uint32_t code;   /* "code", required: a TUNNEL_E_ code without its sign */
    tnl_str message; /* "message": one line for people, at most 1024 bytes */
} tnl_publish_failed;

typedef struct tnl_unpublish {
    uint64_t tunnel; /* "tunnel", required */
} tnl_unpublish;

/* GOAWAY, server to client. */
typedef struct tnl_goaway {
    bool final;      /* "final": false: open your next session elsewhere; true: no new streams */
    uint64_t last;   /* "last": with final, streams above it were not and will not be served */
    tnl_str message; /* "message", at most 1024 bytes */
} tnl_goaway;

typedef struct tnl_reauth {
    tnl_str token; /* "token", required, 1 to 4096 bytes */
} tnl_reauth;

typedef struct tnl_reauth_result {
    uint32_t code;   /* "code": 0 accepted, else a TUNNEL_E_ code without its sign */
    tnl_str message; /* "message", at most 1024 bytes */
} tnl_reauth_result;

/* For each message NAME: size_t tnl_NAME_encode(uint8_t *out, size_t cap, const tnl_NAME *m) and
 * int tnl_NAME_decode(tnl_NAME *m, const uint8_t *p, size_t n). */
#define TNL_MESSAGE_MAP(X)                                                                         \
    X(hello)                                                                                       \
    X(welcome)                                                                                     \
    X(attach)                                                                                      \
    X(attached)                                                                                    \
    X(open)                                                                                        \
    X(event)                                                                                       \
    X(publish)                                                                                     \
    X(published)                                                                                   \
    X(publish_failed)                                                                              \
    X(unpublish)                                                                                   \
    X(goaway)                                                                                      \
    X(reauth)                                                                                      \
    X(reauth_result)

#define TNL_MESSAGE_DECLARE(name)                                                                  \
    size_t tnl_##name##_encode(uint8_t *out, size_t cap, const tnl_##name *m);                     \
    int tnl_##name##_decode(tnl_##name *m, const uint8_t *p, size_t n);
TNL_MESSAGE_MAP(TNL_MESSAGE_DECLARE)
#undef TNL_MESSAGE_DECLARE

#endif
