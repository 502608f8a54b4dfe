/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_MUX_INTERNAL_H
#define TNL_MUX_INTERNAL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "base/ring.h"
#include "mux/flight.h"
#include "mux/mux.h"

enum {
    TNL_MUX_ACK_SIZE = TNL_FRAME_HEADER + 16,
    TNL_MUX_ACK_BYTES =
        16 * 1024, /* so much may arrive, on all streams together, before it is acknowledged */
};

/*
 * Streams that one end opened and the other has not retired, when the first keeps to the maximum of
 * the second: some it has retired, and the second does not know that its own terminal arrived.
 */
static inline size_t tnl_mux_max_unretired(uint32_t max_streams)
{
    return (size_t)4 * max_streams + 16;
}

/* How a direction ends. Reset outranks fin. A terminal takes virtual bytes behind the final offset:
 * ACK.received is final + 1 when a FIN arrived and final + 2 when a RESET did. */
typedef enum terminal { TERMINAL_NONE = 0, TERMINAL_FIN = 1, TERMINAL_RESET = 2 } terminal;

/* A piece [from, to) of out-of-order bytes in the receive ring. */
typedef struct range {
    uint64_t from;
    uint64_t to;
} range;

typedef struct send_half {
    tnl_ring ring;     /* start: acknowledged; end: written */
    uint64_t sent;     /* next offset to send */
    uint64_t max_sent; /* highest offset ever sent */
    size_t dropped;    /* bytes that a reset left in flight, until it is acknowledged */
    uint64_t limit;    /* the peer's credit */
    terminal end;      /* what ends our direction, wanted by the user */
    terminal end_sent; /* highest terminal sent on the current link */
    terminal end_max;  /* highest terminal ever sent */
    terminal end_acked;
    uint64_t final; /* valid with end */
    size_t peak;    /* most bytes the ring has held since it was empty */
    size_t hint;    /* and before that: what to allocate at once next time */
    size_t lately;  /* bytes sent since nothing was unacknowledged */
    bool want_room;
    size_t held;   /* bytes in the ring, as counted in the session's */
    bool breaking; /* reset_code and reset_text wait until all before them was acknowledged */
} send_half;

typedef struct recv_half {
    tnl_ring ring; /* start: used up by the user; end: contiguous */
    range *ranges; /* beyond ring.end, sorted, apart; TNL_MUX_MAX_RANGES of them, allocated on first
                      use */
    size_t range_count;
    uint32_t window; /* reserved in the session's budget */
    uint64_t limit;  /* granted, as last sent or about to be sent */
    uint64_t limit_sent;
    uint64_t acked; /* contiguous offset last acknowledged, terminal bytes included */
    /*
     * A limit the peer was given; 0: the next one given is taken. Data that ends exactly there was
     * held back by the window: when the user has nothing waiting either, the window grows.
     */
    uint64_t probe;
    /* Where the user was a round trip ago: what it has used up since then is what it needs. */
    uint64_t paced;
    uint64_t paced_at;
    terminal end;
    uint64_t final; /* valid with end */
    bool fin_told;
    bool reset_waits; /* a RESET came behind a complete FIN: it is told after what that covers */
    uint32_t reset_code;
    bool blocked; /* data() left something: wait for tnl_stream_resume() */
    bool discard; /* the user does not want more: count and drop */
} recv_half;

struct tnl_stream {
    tnl_mux *mux;
    tnl_map_node by_id;
    tnl_list all; /* in mux->all */
    uint64_t id;
    tnl_list unacked_open; /* in mux->unacked_opens while the OPEN may be lost */
    tnl_list on_link;      /* in link->streams or mux->orphans */
    tnl_list ready;        /* in one of link->ready or, when capped, link->capped */
    tnl_list ack_ready;    /* in link->acks */
    tnl_list lazy_ack;     /* in mux->lazy_acks */
    tnl_list failed;       /* in mux->failed: a reset for want of memory is to be told */
    tnl_mux_link *link;
    /*
     * The links that brought a FIN which is not complete yet. Each copy of a FIN or RESET is
     * acknowledged on the link it came over: the peer sends it again when that link is lost, but
     * would not learn of the loss of another one that took the acknowledgement of a stream retired
     * here with it.
     */
    uint32_t fin_links;
    const tnl_stream_events *events;
    void *user;
    uint8_t *open_map; /* kept until acknowledged */
    size_t open_map_len;
    bool local;     /* opened by this end */
    bool open_sent; /* on the current link */
    bool open_ever_sent;
    bool open_acked;
    bool retired;
    bool released;
    bool delivering;
    bool ack_due; /* an ACK that is not for a terminal is to go out, at once or lazily */
    bool capped;  /* which line it is in, */
    bool begins;  /* and whether in front of the others */
    bool taken; /* opened by this end, or tnl_stream_set_events() was called: the user will release
                   it */
    bool counted;  /* counts as one of the peer's open streams */
    unsigned busy; /* callbacks of this stream on the stack */
    uint32_t reset_code;
    char *reset_text; /* NULL or NUL-terminated */
    send_half out;
    recv_half in;
};

/* A datagram on its way out. */
typedef struct outgoing {
    tnl_list node;            /* in mux->datagrams; in none while a link cuts it */
    uint64_t since;           /* when it was queued */
    tnl_datagram_piece piece; /* what of it comes next; its payload lies at `bytes` */
    uint8_t bytes[];
} outgoing;

struct tnl_mux_link {
    tnl_mux *mux;
    tnl_list node;
    tnl_list streams; /* all pinned to it */
    /* Streams with frames to send, and those that wait for the in-flight bound alone, each in turn:
     * first [1], those that have sent little since they had nothing unacknowledged, then [0]. */
    tnl_list ready[2];
    tnl_list capped[2];
    size_t jumped;    /* bytes of [1] since the last turn of [0] */
    tnl_list acks;    /* those with an ACK to send */
    tnl_buf end_acks; /* encoded ACK frames for FIN and RESET */
    outgoing *cut;    /* a datagram of which a part has been sent */
    tnl_joiner joiner;
    uint32_t bit; /* in tnl_mux.link_bits */
    tnl_flight flight;
    bool draining;
    bool unproven;
    bool woken;
    bool pulling; /* tnl_mux_pull() is on the stack */
    bool lost;    /* and frees the link at its end */
    void *user;
};

struct tnl_mux {
    tnl_mux_config config;
    const tnl_mux_events *events;
    void *user;
    tnl_map streams;
    tnl_stream *control; /* stream 0, not in the map */
    tnl_buf control_in;
    tnl_list all; /* every stream that has memory, stream 0 included */
    tnl_list links;
    uint32_t link_bits; /* in use */
    tnl_list orphans;   /* streams without a link */
    tnl_list unacked_opens;
    tnl_list lazy_acks;
    tnl_list failed;
    tnl_buf event_queue;   /* encoded EVENT frames */
    tnl_list datagrams;    /* outgoing, the oldest first */
    size_t datagram_bytes; /* of all outgoing, those that are cut included */
    uint32_t datagram_number;
    uint64_t lazy_since;
    size_t lazy_bytes; /* of streams that arrived since lazy ACKs were last sent */
    uint64_t now;
    uint64_t next_index; /* of the next id this end opens, from 1 */
    size_t local_count;  /* opened by this end, not retired */
    size_t remote_count; /* opened by the peer, not retired */
    size_t remote_open;  /* of those: the peer's direction has not ended */
    uint64_t seen_floor; /* peer's indices below it have all been opened */
    uint8_t
        *seen; /* TNL_MUX_ID_WINDOW bits, index % that: opened, from seen_floor on; NULL: none */
    size_t surplus_used;
    size_t held; /* bytes in all send rings */
    uint32_t rtt;
    bool aborted;
    int control_error; /* why the session must end, found while stream 0 was read */
    tnl_mux_stats stats;
};

/* mux.c */
tnl_stream *tnl_mux_stream_new(tnl_mux *m, uint64_t id, bool local);
/* Retires the stream when both directions are over, frees it when it is released too. */
void tnl_mux_settle(tnl_stream *s);
void tnl_mux_set_now(tnl_mux *m, uint64_t now_ms);
void tnl_mux_pin(tnl_stream *s);
void tnl_mux_link_free(tnl_mux_link *l);
/* The link with the least in flight; one that drains only when there is no other, one that is not
 * proven only when there is none that drains either. NULL: none. */
tnl_mux_link *tnl_mux_best_link(const tnl_mux *m);
/* Whether there is a link that what belongs to no link should take in place of this one. */
bool tnl_mux_link_aside(const tnl_mux_link *l);

/* send.c */
/* There may be something new to send: puts the stream in line, wakes its link. */
void tnl_mux_mark_ready(tnl_stream *s);
void tnl_mux_mark_ack(tnl_stream *s, bool urgent);
/* Acknowledges a terminal, of a stream that need not exist any more. 0, TUNNEL_E_PROTOCOL (too
 * many), TUNNEL_E_NOMEM. */
int tnl_mux_ack_end(tnl_mux_link *l, uint64_t stream, uint64_t received);
/* Lazy acknowledgements become urgent. */
void tnl_mux_flush_acks(tnl_mux *m);
size_t tnl_mux_in_flight(const tnl_stream *s);
/* The stream had `before` in flight and has less now: room on its link. */
void tnl_mux_landed(tnl_stream *s, size_t before);
void tnl_mux_wake(tnl_mux_link *l);
void tnl_mux_acked(tnl_stream *s, uint64_t received);
/* The number an ACK states: contiguous bytes and the terminal's virtual ones. */
uint64_t tnl_mux_received(const tnl_stream *s);
/* The peer's direction has ended and nothing of it is missing. */
bool tnl_mux_in_complete(const tnl_stream *s);

/* datagram.c */
/* Frames of datagrams into out[0..cap); returns how many bytes. */
size_t tnl_mux_put_datagrams(tnl_mux *m, tnl_mux_link *l, uint8_t *out, size_t cap);
void tnl_mux_on_datagram(tnl_mux *m, tnl_mux_link *l, const tnl_frame *f);
/* Drops those that wait for too long. */
void tnl_mux_expire_datagrams(tnl_mux *m);
/* When that is due; UINT64_MAX: nothing waits. */
uint64_t tnl_mux_datagram_expiry(const tnl_mux *m);
/* The clock was set back. */
void tnl_mux_redate_datagrams(tnl_mux *m);
/* A link goes: what it has cut is lost, what waits goes over another one, if there is one. */
void tnl_mux_datagrams_leave(tnl_mux *m, tnl_mux_link *l);
/* Drops all that waits, without a word. */
void tnl_mux_free_datagrams(tnl_mux *m);

/* stream.c */
/* Calls data() with what the ring holds, then fin() when it is time. */
void tnl_mux_deliver(tnl_stream *s);
/* The user has used up n bytes: new credit. */
void tnl_mux_used_up(tnl_stream *s, size_t n);
/* Hands new contiguous bytes to the user, keeping what is left in the ring. 0 or TUNNEL_E_NOMEM. */
int tnl_mux_take(tnl_stream *s, const uint8_t *p, size_t n);
/* The send ring has changed: the session's count of what is held follows. */
void tnl_mux_count_held(tnl_stream *s);

/* No more input is wanted: drops what the ring holds and the window's surplus. */
void tnl_mux_discard(tnl_stream *s);
void tnl_mux_end_out(tnl_stream *s, terminal end, uint32_t code, const char *text);
/* Sends the reset of tnl_stream_break() if nothing is in its way any more. */
void tnl_mux_go_on_breaking(tnl_stream *s);
void tnl_mux_tell_reset(tnl_stream *s, uint32_t code, const char *text, size_t n);
void tnl_mux_tell_room(tnl_stream *s);
/* Memory ran out for this stream: resets it; the user is told with the next tick. The control
 * stream ends the session. */
void tnl_mux_fail(tnl_stream *s);

#endif
