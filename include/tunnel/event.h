/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNNEL_EVENT_H
#define TUNNEL_EVENT_H

#include <stdint.h>
#include <tunnel/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What clients and servers tell. An event is valid during the callback that brings it; its strings
 * too. Accessors give 0 or "" where a member means nothing for the type. Which members each type
 * has is said in its line.
 */
typedef struct tunnel_event tunnel_event;

typedef enum tunnel_event_type {
    /* client */
    /* All that are about a server have its address as host too, e.g. "wss://example.org:443". */
    TUNNEL_EVENT_CONNECTING = 1, /* text: the server's address */
    TUNNEL_EVENT_CONNECTED = 2,  /* a session is up; text: the server's address */
    TUNNEL_EVENT_RETRYING = 3,   /* error, text: why; host: which server it was; delay_ms: how long
                                    until the next attempt, which may be with another one;
                                    served: whether visitors are served meanwhile */
    TUNNEL_EVENT_PUBLISHED =
        4,                   /* tunnel, url: visitors can come now (again after each reconnect) */
    TUNNEL_EVENT_FAILED = 5, /* error, text: final; tunnel: the one that failed, 0: the client as a
                                whole; then host: the server that said so last */
    TUNNEL_EVENT_REQUEST =
        6, /* tunnel, method, path, status, duration_us, bytes_in, bytes_out, visitor */
    TUNNEL_EVENT_DRAINING = 7,   /* the server is about to go; text. From a server: it is draining
                                    itself; delay_ms: how long at most */
    TUNNEL_EVENT_WARNING = 8,    /* error, text: something went wrong and is being dealt with;
                                    tunnel: which one it is about, 0: none. Also from a
                                    server */
    TUNNEL_EVENT_CONNECTION = 9, /* a visitor's connection of a tcp or tls tunnel, or a flow of a
                                    udp one, is over: tunnel, visitor, duration_us, bytes_in,
                                    bytes_out, error and text: why when it did not end by itself */
    TUNNEL_EVENT_RESUMED = 10, /* the connection is back, and all streams go on; text: the server's
                                  address, delay_ms: how long it was gone */
    TUNNEL_EVENT_ROUND_TRIP = 11, /* a ping was answered; text: the server's address, duration_us */
    /* server */
    TUNNEL_EVENT_LISTENING = 20,      /* url: a listener is ready */
    TUNNEL_EVENT_CLIENT_JOINED = 21,  /* account, text: its address */
    TUNNEL_EVENT_CLIENT_LEFT = 22,    /* account, error, text: why */
    TUNNEL_EVENT_NAME_PUBLISHED = 23, /* account, url; one for each client of a pool */
    TUNNEL_EVENT_NAME_GONE = 24,      /* the same */
    TUNNEL_EVENT_ACCESS = 25, /* method, host, path, status, duration_us, bytes_in, bytes_out,
                                 visitor: one for each request, also refused ones; and one for each
                                 connection of a tcp or tls tunnel and each flow of a udp one:
                                 method is "TCP", "TLS" or "UDP", host the port ":20022" or the
                                 name, path and status mean nothing */
    TUNNEL_EVENT_CLIENT_PARKED = 26, /* account, error, text: why; its streams wait, delay_ms: how
                                        long at most */
    TUNNEL_EVENT_CLIENT_RESUMED =
        27, /* account, text: its address, delay_ms: how long it was gone */
} tunnel_event_type;

/* All accessors: only inside the callback, on its thread. They never fail. */
TUNNEL_EXPORT tunnel_event_type tunnel_event_get_type(const tunnel_event *e);
TUNNEL_EXPORT uint64_t tunnel_event_tunnel(const tunnel_event *e);
TUNNEL_EXPORT int tunnel_event_error(const tunnel_event *e); /* a TUNNEL_E_ code or 0 */
TUNNEL_EXPORT const char *tunnel_event_text(const tunnel_event *e);
TUNNEL_EXPORT const char *tunnel_event_url(const tunnel_event *e);
TUNNEL_EXPORT const char *tunnel_event_account(const tunnel_event *e);
TUNNEL_EXPORT const char *
tunnel_event_method(const tunnel_event *e); /* escaped for printing, as all of these are */
TUNNEL_EXPORT const char *tunnel_event_host(const tunnel_event *e);
TUNNEL_EXPORT const char *tunnel_event_path(const tunnel_event *e);
TUNNEL_EXPORT const char *tunnel_event_visitor(const tunnel_event *e); /* the visitor's address */
TUNNEL_EXPORT int
tunnel_event_status(const tunnel_event *e); /* HTTP status; 0: left before an answer */
TUNNEL_EXPORT uint64_t tunnel_event_duration_us(const tunnel_event *e);
TUNNEL_EXPORT uint64_t
tunnel_event_bytes_in(const tunnel_event *e); /* body bytes from the visitor */
TUNNEL_EXPORT uint64_t
tunnel_event_bytes_out(const tunnel_event *e); /* body bytes to the visitor */
TUNNEL_EXPORT uint64_t tunnel_event_delay_ms(const tunnel_event *e);
TUNNEL_EXPORT int tunnel_event_served(const tunnel_event *e); /* 1 or 0 */

/* "connecting", "published", ... for logs. Static string, never NULL. Any thread. */
TUNNEL_EXPORT const char *tunnel_event_name(tunnel_event_type type);

#ifdef __cplusplus
}
#endif

#endif
