/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swarm - many idle clients of a tunnel server in one thread on epoll: each has a connection, plain
 * or TLS (OpenSSL), a session and one published http tunnel, answers pings, and does nothing else.
 *
 *   swarm PORT HOST TOKEN COUNT AT_ONCE plain|tls LIMIT
 *
 * AT_ONCE clients shake hands at the same time, the next begins when one has joined. Who is turned
 * away or cut off comes again a second later. When all have joined it prints one line of JSON and
 * keeps them until a line, or the end, of the input; then it prints another one and ends:
 *
 *   {"joined": clients, "refused": with 429 or 503, "cut": lost before they had joined,
 *    "lost": after that, "seconds": from the first connect to the last publication}
 *
 * It fails when that takes more than LIMIT seconds. TUNNEL's protocol: docs/protocol.md.
 */
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define AGAIN_S    1.0
#define IN_MAX     4096 /* of a client: a head, or frames that wait for their rest */

enum { FRAME_HEAD = 12, DATA = 0x82, ACK = 0x85, HELLO = 0x90, WELCOME = 0x91, CLOSE = 0x94 };
enum { PING = 0x15, PONG = 0x16, PUBLISH = 0x81, PUBLISHED = 0x82 };

enum state { WAITING, CONNECTING, SHAKING, UPGRADING, GREETING, JOINED };

struct client {
    int fd;
    SSL *tls;
    enum state state;
    double again;
    uint64_t received; /* of the control stream */
    size_t have;
    char *in; /* IN_MAX bytes, while something waits there */
    uint32_t index;
};

struct swarm {
    struct client *clients;
    size_t count, at_once, begun, joined;
    size_t refused, cut, lost;
    struct sockaddr_in addr;
    SSL_CTX *tls;
    int epoll;
    char request[1024];
    uint32_t seed;
};

/* --- bytes --------------------------------------------------------------------------------------
 */

static void put(unsigned char **p, uint64_t value, int bytes)
{
    while (bytes-- > 0)
        *(*p)++ = (unsigned char)(value >> (8 * bytes));
}

static void put_text(unsigned char **p, const char *text)
{
    size_t n = strlen(text);

    *(*p)++ = (unsigned char)(0xa0 | n); /* msgpack: less than 32 bytes */
    memcpy(*p, text, n);
    *p += n;
}

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value = value << 8 | p[i];
    return value;
}

/* --- a client's end -----------------------------------------------------------------------------
 */

static void client_end(struct swarm *swarm, struct client *client)
{
    if (client->state == JOINED) {
        swarm->lost++;
        swarm->joined--;
    } else {
        swarm->cut++;
    }
    SSL_free(client->tls);
    close(client->fd);
    free(client->in);
    client->in = NULL;
    client->tls = NULL;
    client->fd = -1;
    client->have = 0;
    client->received = 0;
    client->state = WAITING;
    client->again = bench_now() + AGAIN_S;
}

/* What is sent is little: a socket that does not take it at once is broken. */
static int client_send(struct client *client, const void *data, size_t n)
{
    if (client->tls != NULL)
        return SSL_write(client->tls, data, (int)n) == (int)n ? 0 : -1;
    return send(client->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n ? 0 : -1;
}

/* One frame of the protocol in one masked message of WebSocket. */
static int send_frame(struct client *client, int type, const unsigned char *body, size_t n)
{
    unsigned char out[256];
    unsigned char *p = out;
    size_t len = FRAME_HEAD + n;

    if (len > 200)
        bench_die("a frame is too long");
    put(&p, 0x82, 1);
    put(&p, 0x80 | (len < 126 ? len : 126), 1);
    if (len >= 126)
        put(&p, len, 2);
    put(&p, 0, 4); /* a mask of zeros changes nothing */
    put(&p, (uint64_t)type, 1);
    put(&p, n, 3);
    put(&p, 0, 8);
    memcpy(p, body, n);
    return client_send(client, out, (size_t)(p - out) + n);
}

/* --- what a client says -------------------------------------------------------------------------
 */

static int say_hello(struct swarm *swarm, struct client *client)
{
    unsigned char out[200];
    unsigned char *p = out;

    *p++ = 0x84; /* a map of four */
    put_text(&p, "version_min");
    *p++ = 1;
    put_text(&p, "version_max");
    *p++ = 1;
    put_text(&p, "instance");
    put(&p, 0xc410, 2);
    put(&p, swarm->seed, 4);
    put(&p, client->index, 4);
    put(&p, 0x62656e63682e2e2e, 8);
    put_text(&p, "limits");
    *p++ = 0x83;
    put_text(&p, "max_frame");
    put(&p, 0xce00010000, 5);
    put_text(&p, "max_streams");
    put(&p, 0xcd0800, 3);
    put_text(&p, "window");
    put(&p, 0xcd4000, 3);
    return send_frame(client, HELLO, out, (size_t)(p - out));
}

static int say_publish(struct client *client)
{
    unsigned char out[160];
    unsigned char *p = out;
    unsigned char *length;
    char name[32];

    put(&p, 0, 8); /* the offset */
    *p++ = PUBLISH;
    length = p;
    p += 3;
    *p++ = 0x83;
    put_text(&p, "tunnel");
    *p++ = 1;
    put_text(&p, "kind");
    put_text(&p, "http");
    put_text(&p, "name");
    snprintf(name, sizeof(name), "idle-%u", client->index);
    put_text(&p, name);
    put(&length, (uint64_t)(p - length) - 3, 3);
    return send_frame(client, DATA, out, (size_t)(p - out));
}

static int say_received(struct client *client)
{
    unsigned char out[16];
    unsigned char *p = out;

    put(&p, client->received, 8);
    put(&p, client->received + 16384, 8);
    return send_frame(client, ACK, out, sizeof(out));
}

/* --- what a client hears ------------------------------------------------------------------------
 */

static int on_control(struct swarm *swarm, struct client *client, const unsigned char *p, size_t n)
{
    if (n < 12 || get(p, 8) != client->received)
        return -1;
    client->received += n - 8;
    if (client->state == GREETING) {
        if (p[8] != PUBLISHED)
            bench_die("a tunnel was not published: %.*s", (int)(n - 12), (const char *)p + 12);
        client->state = JOINED;
        swarm->joined++;
    }
    return say_received(client);
}

static int on_frame(struct swarm *swarm, struct client *client, const unsigned char *p, size_t n)
{
    const unsigned char *body = p + FRAME_HEAD;

    switch (p[0]) {
    case WELCOME:
        return say_publish(client);
    case PING:
        return send_frame(client, PONG, body, 8);
    case DATA:
        return get(p + 4, 8) == 0 ? on_control(swarm, client, body, n - FRAME_HEAD) : -1;
    case CLOSE:
        return -1;
    default:
        return 0;
    }
}

/* A message of the server: whole frames, as long as little is under way. */
static int on_message(struct swarm *swarm, struct client *client, const unsigned char *p, size_t n)
{
    while (n >= FRAME_HEAD) {
        size_t len = FRAME_HEAD + (size_t)get(p + 1, 3);

        if (len > n)
            break;
        if (on_frame(swarm, client, p, len) != 0)
            return -1;
        p += len;
        n -= len;
    }
    return n == 0 ? 0 : -1;
}

/* Takes one message of WebSocket; the bytes used, 0: it is not complete, -1: it is wrong. */
static int take_message(struct swarm *swarm, struct client *client)
{
    const unsigned char *p = (const unsigned char *)client->in;
    size_t head = 2;
    size_t len;

    if (client->have < 4)
        return 0;
    len = p[1] & 0x7f;
    if (len == 126) {
        len = (size_t)get(p + 2, 2);
        head = 4;
    }
    if (head + len > IN_MAX)
        return -1;
    if (client->have < head + len)
        return 0;
    if (p[0] != 0x82 || on_message(swarm, client, p + head, len) != 0)
        return -1;
    return (int)(head + len);
}

static int take_answer(struct swarm *swarm, struct client *client)
{
    size_t head = bench_head_length(client->in, client->have);

    if (head == 0)
        return client->have < IN_MAX ? 0 : -1;
    if (memcmp(client->in, "HTTP/1.1 101", 12) != 0) {
        if (memcmp(client->in, "HTTP/1.1 429", 12) != 0 &&
            memcmp(client->in, "HTTP/1.1 503", 12) != 0)
            bench_die("a client was answered with: %.60s", client->in);
        swarm->refused++;
        swarm->cut--; /* which its end counts */
        return -1;
    }
    client->state = GREETING;
    return say_hello(swarm, client) == 0 ? (int)head : -1;
}

static int take(struct swarm *swarm, struct client *client)
{
    while (client->have > 0) {
        int used = client->state == UPGRADING ? take_answer(swarm, client)
                                              : take_message(swarm, client);

        if (used <= 0)
            return used;
        client->have -= (size_t)used;
        memmove(client->in, client->in + used, client->have);
    }
    return 0;
}

/* --- events -------------------------------------------------------------------------------------
 */

static int client_read(struct swarm *swarm, struct client *client)
{
    for (;;) {
        size_t room;
        ssize_t n;

        if (client->in == NULL && (client->in = malloc(IN_MAX + 1)) == NULL)
            bench_die("out of memory");
        room = IN_MAX - client->have;
        if (client->tls != NULL) {
            n = SSL_read(client->tls, client->in + client->have, (int)room);
            if (n <= 0 && SSL_get_error(client->tls, (int)n) == SSL_ERROR_WANT_READ)
                break;
        } else {
            n = recv(client->fd, client->in + client->have, room, MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR))
                break;
        }
        if (n <= 0)
            return -1;
        client->have += (size_t)n;
        client->in[client->have] = '\0';
        if (take(swarm, client) != 0)
            return -1;
    }
    if (client->have == 0) {
        free(client->in);
        client->in = NULL;
    }
    return 0;
}

static int client_shake(struct swarm *swarm, struct client *client)
{
    int n = client->tls != NULL ? SSL_connect(client->tls) : 1;

    if (n != 1) {
        int error = SSL_get_error(client->tls, n);

        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    client->state = UPGRADING;
    return client_send(client, swarm->request, strlen(swarm->request));
}

static int client_connected(struct swarm *swarm, struct client *client)
{
    struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = client}};
    socklen_t len = sizeof(int);
    int error = 0;

    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0 ||
        epoll_ctl(swarm->epoll, EPOLL_CTL_MOD, client->fd, &ev) != 0)
        return -1;
    if (swarm->tls != NULL) {
        client->tls = SSL_new(swarm->tls);
        if (client->tls == NULL || SSL_set_fd(client->tls, client->fd) != 1)
            bench_die("out of memory");
    }
    client->state = SHAKING;
    return client_shake(swarm, client);
}

static void client_ready(struct swarm *swarm, struct client *client)
{
    int rc = 0;

    if (client->state == CONNECTING)
        rc = client_connected(swarm, client);
    else if (client->state == SHAKING)
        rc = client_shake(swarm, client);
    if (rc == 0 && client->state >= UPGRADING)
        rc = client_read(swarm, client);
    if (rc != 0)
        client_end(swarm, client);
}

static void client_begin(struct swarm *swarm, struct client *client)
{
    struct epoll_event ev = {.events = EPOLLOUT, .data = {.ptr = client}};
    int one = 1;

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        bench_die("socket: %s", strerror(errno));
    client->state = CONNECTING;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if ((connect(client->fd, (struct sockaddr *)&swarm->addr, sizeof(swarm->addr)) != 0 &&
         errno != EINPROGRESS) ||
        epoll_ctl(swarm->epoll, EPOLL_CTL_ADD, client->fd, &ev) != 0)
        client_end(swarm, client);
}

static void begin_more(struct swarm *swarm)
{
    double now = bench_now();

    while (swarm->begun < swarm->count && swarm->begun < swarm->joined + swarm->at_once)
        client_begin(swarm, &swarm->clients[swarm->begun++]);
    for (size_t i = 0; i < swarm->begun; i++) {
        if (swarm->clients[i].state == WAITING && swarm->clients[i].again <= now)
            client_begin(swarm, &swarm->clients[i]);
    }
}

static void report(const struct swarm *swarm, double start)
{
    printf("{\"joined\": %zu, \"refused\": %zu, \"cut\": %zu, \"lost\": %zu, \"seconds\": %.6f}\n",
           swarm->joined, swarm->refused, swarm->cut, swarm->lost, bench_now() - start);
    fflush(stdout);
}

static void run(struct swarm *swarm, double limit)
{
    struct epoll_event events[EVENTS_MAX];
    struct epoll_event input = {.events = EPOLLIN, .data = {.ptr = NULL}};
    double start = bench_now();
    double looked = 0;
    int told = 0;

    if (epoll_ctl(swarm->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
        bench_die("the input: %s", strerror(errno));
    for (;;) {
        int n;

        /* Looking through all is cheap, but not for every event. */
        if (bench_now() - looked > 0.02 || swarm->begun < swarm->count) {
            begin_more(swarm);
            looked = bench_now();
        }
        n = epoll_wait(swarm->epoll, events, EVENTS_MAX, 20);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) {
                report(swarm, start);
                return;
            }
            client_ready(swarm, events[i].data.ptr);
        }
        if (!told && swarm->joined == swarm->count) {
            told = 1;
            report(swarm, start);
        }
        if (!told && bench_now() > start + limit)
            bench_die("only %zu of %zu clients joined within the time limit", swarm->joined,
                      swarm->count);
    }
}

static void prepare(struct swarm *swarm, char **argv)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    swarm->addr = bench_place(argv[1]);
    snprintf(swarm->request, sizeof(swarm->request),
             "GET /__tunnel__/link HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tunnel.v1\r\n"
             "Authorization: Bearer %s\r\n\r\n",
             argv[2], argv[3]);
    swarm->count = (size_t)bench_number(argv[4], 1, 100000, "COUNT");
    swarm->at_once = (size_t)bench_number(argv[5], 1, 100000, "AT_ONCE");
    swarm->seed = (uint32_t)getpid();
    if (strcmp(argv[6], "tls") == 0) {
        swarm->tls = SSL_CTX_new(TLS_client_method());
        if (swarm->tls == NULL)
            bench_die("OpenSSL cannot be used");
        SSL_CTX_set_mode(swarm->tls, SSL_MODE_RELEASE_BUFFERS);
    } else if (strcmp(argv[6], "plain") != 0) {
        bench_die("'%s' is neither plain nor tls", argv[6]);
    }
    swarm->epoll = epoll_create1(EPOLL_CLOEXEC);
    swarm->clients = calloc(swarm->count, sizeof(*swarm->clients));
    if (swarm->epoll < 0 || swarm->clients == NULL)
        bench_die("out of memory");
    for (size_t i = 0; i < swarm->count; i++)
        swarm->clients[i].index = (uint32_t)i;
}

int main(int argc, char **argv)
{
    struct swarm swarm = {0};

    if (argc != 8)
        bench_die("usage: swarm PORT HOST TOKEN COUNT AT_ONCE plain|tls LIMIT");
    prepare(&swarm, argv);
    run(&swarm, (double)bench_number(argv[7], 1, 3600, "LIMIT"));
    return 0; /* the connections end with the process */
}
