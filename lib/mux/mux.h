/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_MUX_MUX_H
#define TNL_MUX_MUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/datagram.h"
#include "wire/frame.h"
#include "wire/message.h"

/*
 * One end of a session: streams with offsets, credit, acknowledgement and retention, over one or
 * more links that come and go (docs/protocol.md section "Streams"). No I/O and no clock: frames
 * come in through tnl_mux_frame(), bytes go out through tnl_mux_pull(), the time is an argument.
 *
 * What is sent is kept until the peer acknowledged it, so a stream whose link is lost goes on over
 * another link, or waits without one until the session has a link again.
 *
 * Memory: a stream's send ring holds at most TNL_MUX_MAX_SEND bytes, its receive ring at most its
 * window; the windows of all streams together never exceed what max_streams first windows need plus
 * the configured surplus.
 *
 * Datagrams pass it too, and are the opposite: ahead of stream data, never kept, never sent again,
 * and dropped, the oldest first, when they wait for too long or are too many.
 *
 * Callbacks may call every function here except tnl_mux_free() and, for what is on the stack
 * already, tnl_mux_frame(), tnl_mux_pull() and tnl_mux_tick(). wake() may call nothing here.
 */
typedef struct tnl_mux tnl_mux;
typedef struct tnl_stream tnl_stream;
typedef struct tnl_mux_link tnl_mux_link;

enum {
    TNL_MUX_MAX_UNSENT = 128 * 1024,   /* written by the user and not yet sent, per stream */
    TNL_MUX_MAX_SEND = 256 * 1024,     /* unsent and unacknowledged, per stream, */
    TNL_MUX_MAX_FAR = 8 * 1024 * 1024, /* and of one whose far peer grants a greater window */
    TNL_MUX_MAX_FLIGHT = 16 * 1024 *
                         1024,     /* unacknowledged bytes on a link, see tnl_mux_link_add() */
    TNL_MUX_FAR_MS = 5,            /* round trip from which on a peer is far */
    TNL_MUX_MAX_PIECE = 64 * 1024, /* most that one data() brings */
    TNL_MUX_QUANTUM = 16 * 1024,   /* what a stream may send before it is another one's turn */
    TNL_MUX_JUMP = 64 * 1024, /* what streams that begin may send ahead of a turn of the others */
    TNL_MUX_CONTROL_WINDOW = 64 * 1024, /* credit of stream 0, never more */
    TNL_MUX_ID_WINDOW = 4096, /* how far ids may run ahead of the oldest unacknowledged open */
    TNL_MUX_MAX_LINKS = 32,
    TNL_MUX_MAX_RANGES = 16,        /* pieces of out-of-order bytes held, per stream */
    TNL_MUX_MAX_EVENTS = 64 * 1024, /* bytes of droppable events waiting */
    TNL_MUX_MAX_EVENT = 1536,       /* the greatest event: it fits into the smallest batch */
    TNL_MUX_ACK_DELAY_MS = 50,      /* how long an acknowledgement that is not urgent may wait */
    TNL_MUX_MAX_RESET_TEXT = 256,
    TNL_MUX_MAX_OPEN_MAP = 1024,
    TNL_MUX_MAX_DATAGRAMS = 256 * 1024, /* bytes of datagrams waiting, their upkeep included */
    TNL_MUX_DATAGRAM_AGE_MS = 500,      /* how long one may wait until its first byte is sent */
};

typedef struct tnl_stream_events {
    /*
     * n > 0 bytes of the stream in order. Returns how many were used up, 0 to n; what is not is
     * kept and comes again after tnl_stream_resume(). Only used-up bytes give the peer new credit.
     */
    size_t (*data)(void *user, const uint8_t *p, size_t n);
    /* The peer ended its direction; all its data has been used up. Once. */
    void (*fin)(void *user);
    /* The stream was aborted by the peer, or by this end for want of memory. Once, last; only
     * release it. code: a TUNNEL_E_ code without its sign, or whatever else the peer sent; text
     * likewise: meant to be UTF-8 but not checked, up to TNL_MUX_MAX_RESET_TEXT bytes, not
     * NUL-terminated. */
    void (*reset)(void *user, uint32_t code, const char *text, size_t n);
    /* tnl_stream_room() is at least TNL_MUX_MAX_UNSENT / 2 again, after tnl_stream_space() had
     * returned 0, or tnl_stream_write() less than asked, or tnl_stream_want_room(). */
    void (*room)(void *user);
} tnl_stream_events;

typedef struct tnl_mux_events {
    /* The peer opened a stream; map[0..n) is the OPEN's map. Take it with tnl_stream_set_events(),
     * else it is refused. */
    void (*open)(void *user, tnl_stream *s, const uint8_t *map, size_t n);
    /* A control record arrived, complete and in order. A TUNNEL_E_ code ends the session with it.
     */
    int (*control)(void *user, uint8_t type, const uint8_t *p, size_t n);
    /* An EVENT frame's map. Optional. */
    void (*event)(void *user, const uint8_t *map, size_t n);
    /* A datagram arrived, of whatever tunnel and flow the peer says; d is the callback's until it
     * returns. Optional. */
    void (*datagram)(void *user, const tnl_datagram *d);
    /* So many datagrams were dropped, of ours that waited or of the peer's that came incomplete.
     * May call nothing here. Optional. */
    void (*dropped)(void *user, uint64_t count);
    /* The link has something to send: pull from it soon, but not from here, since it comes out of
     * the middle of anything. Comes again only after a pull that returned 0. */
    void (*wake)(void *user, void *link_user);
    /* A stream is fully retired (its slot is free again); opening may succeed that was refused
     * before. Optional. */
    void (*retired)(void *user);
} tnl_mux_events;

typedef struct tnl_mux_config {
    bool server;         /* opens even stream ids; a client opens odd ones */
    tnl_limits local;    /* what this end accepts: what it said in HELLO or WELCOME */
    tnl_limits remote;   /* what the peer accepts: what it said */
    uint32_t max_window; /* greatest receive window of a stream, local.window to 1 GiB */
    uint32_t
        far_window; /* the same when the peer is far, up to TNL_MUX_MAX_FAR; 0: as max_window */
    /* Bytes all receive windows together may grow beyond their first size, and all send rings
     * beyond TNL_MUX_MAX_SEND. */
    size_t surplus;
} tnl_mux_config;

typedef struct tnl_mux_stats {
    uint64_t frames_in;
    uint64_t frames_out;
    uint64_t data_in;   /* stream bytes, first arrival */
    uint64_t data_out;  /* stream bytes, retransmissions counted */
    uint64_t duplicate; /* stream bytes that had arrived before */
    uint64_t late;      /* frames of retired streams */
    uint64_t events_dropped;
    uint64_t opened; /* streams, by either end */
    uint64_t datagrams_in;
    uint64_t datagrams_out;
    uint64_t datagrams_dropped; /* by this end, on the way out or in */
} tnl_mux_stats;

/* 0, TUNNEL_E_NOMEM, TUNNEL_E_INVALID (a limit outside its range). */
int tnl_mux_new(tnl_mux **out, const tnl_mux_config *config, const tnl_mux_events *events,
                void *user);

/* Frees everything, streams included; no callback comes any more. Streams not yet released must not
 * be touched. */
void tnl_mux_free(tnl_mux *m);

/* Before freeing: tells every stream that still has events reset(code); they may be released from
 * there. */
void tnl_mux_abort(tnl_mux *m, int error);

const tnl_mux_stats *tnl_mux_get_stats(const tnl_mux *m);

/* Memory of the buffers of all streams; walks them. */
size_t tnl_mux_held(const tnl_mux *m);

/* Streams not yet retired, opened by either end. */
size_t tnl_mux_stream_count(const tnl_mux *m);

/* --- links ------------------------------------------------------------------------------------ */

/* A link is usable: streams without one move to it. inflight: most unacknowledged bytes on it,
 * however fast and far it is; else it is as mux/flight.h says.
 * unproven: nobody knows yet whether the path brings what is sent, so that it is used only for want
 * of any other, until tnl_mux_link_proven(). NULL: no memory, or there are TNL_MUX_MAX_LINKS. */
tnl_mux_link *tnl_mux_link_add(tnl_mux *m, size_t inflight, bool unproven, void *link_user);
void tnl_mux_link_proven(tnl_mux *m, tnl_mux_link *l);

/* The link is gone: its streams move, and what it had not delivered for sure is sent again. Frees
 * the link; from a callback of a pull from this very link too, which then returns 0. */
void tnl_mux_link_lost(tnl_mux *m, tnl_mux_link *l);

/* Moves the link's streams to other links, now or as soon as there is one. What the link has not
 * delivered for sure is sent again there, so that it may be lost at any time. It still receives,
 * and has acknowledgements to send. */
void tnl_mux_link_drain(tnl_mux *m, tnl_mux_link *l);

/*
 * One frame, or piece of a DATA frame, that arrived on the link: OPEN, DATA, FIN, RESET, ACK, EVENT
 * or DATAGRAM. 0, or why the session must end: TUNNEL_E_PROTOCOL, TUNNEL_E_NOMEM, or what control()
 * returned.
 */
int tnl_mux_frame(tnl_mux *m, tnl_mux_link *l, const tnl_frame *f, uint64_t now_ms);

/* Frames for the link into out[0..cap), cap at least 2 KiB. Returns how many bytes; 0: nothing to
 * send now. */
size_t tnl_mux_pull(tnl_mux *m, tnl_mux_link *l, uint8_t *out, size_t cap, uint64_t now_ms);

/* A PONG on the link showed this round trip: it decides how far windows may grow, and how much may
 * be in flight. */
void tnl_mux_set_rtt(tnl_mux *m, tnl_mux_link *l, uint32_t ms, uint64_t now_ms);

/* Delayed work is due at this time (UINT64_MAX: none); then call tnl_mux_tick(). */
uint64_t tnl_mux_expiry(const tnl_mux *m);
void tnl_mux_tick(tnl_mux *m, uint64_t now_ms);

/* --- control and events ----------------------------------------------------------------------- */

/* Sends a control record, reliably. 0; TUNNEL_E_LIMIT (the peer does not read its control stream),
 * TUNNEL_E_NOMEM. */
int tnl_mux_control(tnl_mux *m, uint8_t type, const uint8_t *p, size_t n);

/* Sends an event of at most TNL_MUX_MAX_EVENT bytes if there is a link and room for it, else drops
 * and counts it. */
void tnl_mux_event(tnl_mux *m, const uint8_t *map, size_t n);

/* --- datagrams -------------------------------------------------------------------------------- */

/*
 * Sends a datagram if it can: it is copied and waits for the next batches of a link, where it goes
 * ahead of stream data but leaves that half of each. When too much waits, the oldest are dropped.
 * 0; TUNNEL_E_GONE (there is no link), NOMEM: then it was dropped too; INVALID (no tunnel or flow,
 * too long).
 */
int tnl_mux_datagram(tnl_mux *m, const tnl_datagram *d, uint64_t now_ms);

/* --- streams ---------------------------------------------------------------------------------- */

/* Opens a stream; data may be written at once. map: at most TNL_MUX_MAX_OPEN_MAP bytes. 0;
 * TUNNEL_E_LIMIT (the peer's max_streams, or too many opens not yet acknowledged), TUNNEL_E_NOMEM,
 * TUNNEL_E_INVALID. */
int tnl_mux_open(tnl_mux *m, tnl_stream **out, const uint8_t *map, size_t n,
                 const tnl_stream_events *ev, void *user);

void tnl_stream_set_events(tnl_stream *s, const tnl_stream_events *ev, void *user);
void *tnl_stream_user(const tnl_stream *s);
uint64_t tnl_stream_id(const tnl_stream *s);

/* Copies up to n bytes into the send ring; returns how many (0 to n). After fin or reset: 0. */
size_t tnl_stream_write(tnl_stream *s, const void *data, size_t n);

/* How many bytes tnl_stream_write() would take now. */
size_t tnl_stream_room(const tnl_stream *s);

/* The same without a copy: where up to the returned number of bytes may be put (0: no room now,
 * room() will tell), then how many of them were. want: a wish for how many. *p is good until any
 * other call on this mux. */
size_t tnl_stream_space(tnl_stream *s, size_t want, uint8_t **p);
void tnl_stream_commit(tnl_stream *s, size_t n);

/* Asks for room() without writing. It comes when room has been made, so ask only with less than
 * TNL_MUX_MAX_UNSENT / 2. */
void tnl_stream_want_room(tnl_stream *s);

/* Everything written so far has been sent (nothing waits for a link or credit). */
bool tnl_stream_flushed(const tnl_stream *s);

/* Ends our direction after what was written. Again, or after reset: no-op. */
void tnl_stream_fin(tnl_stream *s);

/* Aborts both directions; no event comes any more. code: a negative TUNNEL_E_ code; text: UTF-8,
 * cut to TNL_MUX_MAX_RESET_TEXT bytes, may be NULL. */
void tnl_stream_reset(tnl_stream *s, int code, const char *text);

/*
 * As tnl_stream_reset(), but what was written goes first, and so does the end if there was one: the
 * reset follows when the peer has acknowledged it all. For a connection that broke after it had
 * said something. The stream may be released meanwhile; to give up waiting reset it before that.
 */
void tnl_stream_break(tnl_stream *s, int code, const char *text);

/* Offers again what data() had left, if anything. Not from inside data() of the same stream
 * (returns at once). */
void tnl_stream_resume(tnl_stream *s);

/* The user is done with the pointer; no event comes any more. A stream not properly ended in both
 * directions is reset with TUNNEL_E_CANCELED. Exactly once for each stream that was opened or
 * taken. */
void tnl_stream_release(tnl_stream *s);

#endif
