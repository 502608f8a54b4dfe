/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wan - a long, slow or bad network between two network namespaces: a pair of TUN devices and the
 * packets between them, late, limited, lost or held as told. What runs over it is the kernel's own
 * TCP. Needs root (CAP_NET_ADMIN and /dev/net/tun).
 *
 *   wan A B [COMMAND ...]     each COMMAND is one argument: wan new new "delay 50" "ab rate 1"
 *
 * A and B say where each end is: `new` (a namespace of its own, which goes when wan and what runs
 * in it have ended), `host` (where wan was started), a name of `ip netns`, or the path of a
 * namespace. Three lines say that it is ready; programs are started in a namespace with `nsenter
 * --net=PATH`:
 *
 *   a: PATH 10.99.0.1
 *   b: PATH 10.99.0.2
 *   ready
 *
 * Further commands are read from the input, one a line, and answered each with "ok" or "error:
 * WHY". At the end of the input, or at SIGTERM, wan ends, and the devices with it. Commands, all of
 * which touch both directions, or with `ab` or `ba` in front of them one:
 *
 *   delay MS        how long a packet is under way, one way (0)
 *   rate MBIT       how many of them pass in a second, 10^6 bits each; 0: all (0)
 *   buffer KIB      what may wait for its turn when there is a rate; what is more is dropped (256)
 *   loss PERCENT    how many packets are lost (0)
 *   cut             drops all, also what is under way; nobody is told
 *   stall           holds all; up to 64 MiB, or what the buffer takes if there is a rate
 *   heal            ends cut and stall
 *   reset MS        for so long, both ends of every TCP connection that sends something get a reset
 *   stats           answers with a line of JSON before the "ok"
 *
 * At the start alone: `net 10.99.0` (the first three numbers of the addresses) and `mtu 1500`.
 */
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <arpa/inet.h>

#define MTU_MAX     9000
#define QUEUE_BYTES (64.0 * 1024 * 1024) /* under way, each direction */
#define BURST       64                   /* packets, before the other direction's turn */

struct packet {
    struct packet *next;
    double due;
    size_t len;
    unsigned char data[];
};

/* One direction. */
struct way {
    const char *name;
    int in;
    int out;
    struct packet *first;
    struct packet *last;
    double queued; /* bytes under way */
    double free_at;
    double delay; /* seconds */
    double rate;  /* bytes a second, 0: no limit */
    double buffer;
    double loss; /* 0 to 1 */
    double reset_until;
    int cut;
    int stalled;
    unsigned long long packets, bytes, lost, dropped;
};

struct wan {
    struct way ways[2];
    char net[32];
    unsigned mtu;
    int home; /* the namespace that wan was started in */
    int started;
    char input[1024];
    size_t have;
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

/* --- packets ------------------------------------------------------------------------------------
 */

static void drop_all(struct way *way)
{
    while (way->first != NULL) {
        struct packet *packet = way->first;

        way->first = packet->next;
        way->dropped++;
        free(packet);
    }
    way->last = NULL;
    way->queued = 0;
    way->free_at = 0;
}

/* When a packet that came now arrives, or 0 if it does not. */
static double arrival(struct way *way, double now, size_t len)
{
    double due = now;

    if (way->cut)
        return 0;
    if (way->loss > 0 && drand48() < way->loss) {
        way->lost++;
        return 0;
    }
    if (way->rate > 0) {
        double start = way->free_at > now ? way->free_at : now;
        double waiting = way->stalled ? way->queued : (start - now) * way->rate;

        if (waiting + (double)len > way->buffer)
            return 0;
        way->free_at = start + (double)len / way->rate;
        due = way->free_at;
    }
    return way->queued + (double)len > QUEUE_BYTES ? 0 : due + way->delay;
}

static uint16_t sum16(const unsigned char *p, size_t n, uint32_t sum)
{
    for (; n > 1; p += 2, n -= 2)
        sum += (uint32_t)(p[0] << 8 | p[1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void put16(unsigned char *p, unsigned value)
{
    p[0] = (unsigned char)(value >> 8);
    p[1] = (unsigned char)value;
}

/* A RST as if from where the packet p goes (back), or from where it came from. */
static void send_reset(int fd, const unsigned char *p, int back)
{
    const unsigned char *tcp = p + (p[0] & 15) * 4;
    unsigned char out[40] = {0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, IPPROTO_TCP};

    memcpy(out + 12, p + (back ? 16 : 12), 4);
    memcpy(out + 16, p + (back ? 12 : 16), 4);
    put16(out + 10, sum16(out, 20, 0));
    memcpy(out + 20, tcp + (back ? 2 : 0), 2);
    memcpy(out + 22, tcp + (back ? 0 : 2), 2);
    memcpy(out + 24, tcp + (back ? 8 : 4), 4);
    out[32] = 0x50;
    out[33] = 0x04;
    put16(out + 36, sum16(out + 12, 28, IPPROTO_TCP + 20));
    (void)!write(fd, out, sizeof(out));
}

/* Whether the packet was of a connection, which is no more. */
static int resets(struct way *way, const unsigned char *p, size_t n)
{
    size_t head = n > 0 ? (size_t)(p[0] & 15) * 4 : 0;

    if (n < 20 || p[0] >> 4 != 4 || p[9] != IPPROTO_TCP || n < head + 20)
        return 0;
    if ((p[head + 13] & 0x06) != 0 || (p[head + 13] & 0x10) == 0)
        return 0; /* SYN, RST, or no ACK */
    send_reset(way->out, p, 0);
    send_reset(way->in, p, 1);
    return 1;
}

static void take(struct way *way, double now)
{
    unsigned char data[MTU_MAX];

    for (int i = 0; i < BURST; i++) {
        ssize_t n = read(way->in, data, sizeof(data));
        struct packet *packet;
        double due;

        if (n <= 0)
            return;
        if (now < way->reset_until && resets(way, data, (size_t)n))
            continue;
        due = arrival(way, now, (size_t)n);
        packet = due > 0 ? malloc(sizeof(*packet) + (size_t)n) : NULL;
        if (packet == NULL) {
            way->dropped++;
            continue;
        }
        packet->next = NULL;
        packet->due = due;
        packet->len = (size_t)n;
        memcpy(packet->data, data, (size_t)n);
        if (way->last != NULL)
            way->last->next = packet;
        else
            way->first = packet;
        way->last = packet;
        way->queued += (double)n;
    }
}

static void hand_on(struct way *way, double now)
{
    for (int i = 0; i < BURST; i++) {
        struct packet *packet = way->first;

        if (packet == NULL || way->stalled || packet->due > now)
            return;
        /* A device that takes nothing (its end is down) loses it, as a cable would. */
        if (write(way->out, packet->data, packet->len) == (ssize_t)packet->len) {
            way->packets++;
            way->bytes += packet->len;
        } else {
            way->dropped++;
        }
        way->first = packet->next;
        if (way->first == NULL)
            way->last = NULL;
        way->queued -= (double)packet->len;
        free(packet);
    }
}

/* --- commands -----------------------------------------------------------------------------------
 */

static int number(const char *text, double max, double *out)
{
    char *end = NULL;
    double value;

    if (text == NULL)
        return -1;
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0) || value > max)
        return -1;
    *out = value;
    return 0;
}

static int set_number(struct way *way, const char *word, const char *text)
{
    double value;

    if (strcmp(word, "delay") == 0 && number(text, 60000, &value) == 0)
        way->delay = value / 1000;
    else if (strcmp(word, "rate") == 0 && number(text, 100000, &value) == 0)
        way->rate = value * 1e6 / 8;
    else if (strcmp(word, "buffer") == 0 && number(text, QUEUE_BYTES / 1024, &value) == 0)
        way->buffer = value * 1024;
    else if (strcmp(word, "loss") == 0 && number(text, 100, &value) == 0)
        way->loss = value / 100;
    else if (strcmp(word, "reset") == 0 && number(text, 60000, &value) == 0)
        way->reset_until = bench_now() + value / 1000;
    else
        return -1;
    return 0;
}

static int set_state(struct way *way, const char *word)
{
    if (strcmp(word, "cut") == 0) {
        way->cut = 1;
        drop_all(way);
    } else if (strcmp(word, "stall") == 0) {
        way->stalled = 1;
    } else if (strcmp(word, "heal") == 0) {
        way->cut = way->stalled = 0;
    } else if (strcmp(word, "stats") == 0) {
        printf("{\"way\": \"%s\", \"packets\": %llu, \"bytes\": %llu, \"lost\": %llu, "
               "\"dropped\": %llu, \"queued\": %.0f}\n",
               way->name, way->packets, way->bytes, way->lost, way->dropped, way->queued);
    } else {
        return -1;
    }
    return 0;
}

/* At the start alone. */
static int set_base(struct wan *wan, const char *word, const char *text)
{
    struct in_addr addr;
    char full[64];
    double value;

    if (wan->started || text == NULL)
        return -1;
    if (strcmp(word, "mtu") == 0 && number(text, MTU_MAX, &value) == 0 && value >= 576) {
        wan->mtu = (unsigned)value;
        return 0;
    }
    snprintf(full, sizeof(full), "%s.1", text);
    if (strcmp(word, "net") != 0 || strlen(text) >= sizeof(wan->net) ||
        inet_pton(AF_INET, full, &addr) != 1)
        return -1;
    snprintf(wan->net, sizeof(wan->net), "%s", text);
    return 0;
}

/* Splits the text. Returns 0, or -1 if it is not a command. */
static int command(struct wan *wan, char *text)
{
    char *save = NULL;
    char *word = strtok_r(text, " \t", &save);
    unsigned which = 3;
    char *value;

    if (word == NULL)
        return 0;
    if (strcmp(word, "ab") == 0 || strcmp(word, "ba") == 0) {
        which = word[0] == 'a' ? 1 : 2;
        word = strtok_r(NULL, " \t", &save);
    }
    value = strtok_r(NULL, " \t", &save);
    if (word == NULL || strtok_r(NULL, " \t", &save) != NULL)
        return -1;
    if (which == 3 && set_base(wan, word, value) == 0)
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        struct way *way = &wan->ways[i];

        if ((which & (1u << i)) == 0)
            continue;
        if (value == NULL ? set_state(way, word) != 0 : set_number(way, word, value) != 0)
            return -1;
    }
    return 0;
}

/* Returns 0 at the end of the input. */
static int read_commands(struct wan *wan)
{
    ssize_t n = read(STDIN_FILENO, wan->input + wan->have, sizeof(wan->input) - 1 - wan->have);
    char *line = wan->input;
    char *eol;

    if (n <= 0)
        return n < 0 && errno == EINTR;
    wan->have += (size_t)n;
    wan->input[wan->have] = '\0';
    while ((eol = strchr(line, '\n')) != NULL) {
        *eol = '\0';
        puts(command(wan, line) == 0 ? "ok"
                                     : "error: not a command, see the head of bench/c/wan.c");
        line = eol + 1;
    }
    fflush(stdout);
    wan->have -= (size_t)(line - wan->input);
    memmove(wan->input, line, wan->have);
    if (wan->have == sizeof(wan->input) - 1)
        bench_die("a command is too long");
    return 1;
}

/* --- namespaces and devices ---------------------------------------------------------------------
 */

/* Enters the namespace and returns a descriptor of it. */
static int enter(struct wan *wan, const char *where)
{
    char path[PATH_MAX];
    int fd;

    if (strcmp(where, "host") == 0)
        return wan->home;
    if (strcmp(where, "new") == 0) {
        if (unshare(CLONE_NEWNET) != 0)
            bench_die("a new network namespace: %s", strerror(errno));
        snprintf(path, sizeof(path), "/proc/thread-self/ns/net");
    } else {
        snprintf(path, sizeof(path), "%s%s", strchr(where, '/') ? "" : "/run/netns/", where);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
        bench_die("the network namespace %s: %s", path, strerror(errno));
    return fd;
}

static void need(int result, const char *what)
{
    if (result < 0)
        bench_die("%s: %s", what, strerror(errno));
}

static void raise_device(int sock, struct ifreq *req)
{
    need(ioctl(sock, SIOCGIFFLAGS, req), req->ifr_name);
    req->ifr_flags |= IFF_UP;
    need(ioctl(sock, SIOCSIFFLAGS, req), req->ifr_name);
}

static void set_address(int sock, struct ifreq *req, unsigned long what, const char *text)
{
    struct sockaddr_in *addr = (struct sockaddr_in *)&req->ifr_addr;

    memset(addr, 0, sizeof(*addr));
    addr->sin_family = AF_INET;
    inet_pton(AF_INET, text, &addr->sin_addr);
    need(ioctl(sock, what, req), text);
}

/* A TUN device in the namespace that was entered. */
static int open_device(struct wan *wan, unsigned end)
{
    struct ifreq req = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    struct ifreq lo = {.ifr_name = "lo"};
    char address[64];
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    need(sock, "socket");
    need(fd, "/dev/net/tun");
    snprintf(req.ifr_name, sizeof(req.ifr_name), "wan%%d");
    need(ioctl(fd, TUNSETIFF, &req), "TUNSETIFF");
    snprintf(address, sizeof(address), "%s.%u", wan->net, end + 1);
    set_address(sock, &req, SIOCSIFADDR, address);
    set_address(sock, &req, SIOCSIFNETMASK, "255.255.255.252");
    req.ifr_mtu = (int)wan->mtu;
    need(ioctl(sock, SIOCSIFMTU, &req), "the MTU");
    req.ifr_qlen = 20000; /* what is dropped is dropped by us */
    need(ioctl(sock, SIOCSIFTXQLEN, &req), "the queue's length");
    raise_device(sock, &req);
    raise_device(sock, &lo);
    close(sock);
    return fd;
}

static void open_ends(struct wan *wan, char **where)
{
    int fds[2];

    wan->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    need(wan->home, "/proc/self/ns/net");
    for (unsigned i = 0; i < 2; i++) {
        int ns = enter(wan, where[i]);

        fds[i] = open_device(wan, i);
        need(setns(wan->home, CLONE_NEWNET), "the first network namespace");
        printf("%c: /proc/%d/fd/%d %s.%u\n", 'a' + (int)i, (int)getpid(), ns, wan->net, i + 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        wan->ways[i].in = fds[i];
        wan->ways[i].out = fds[1 - i];
    }
    puts("ready");
    fflush(stdout);
    wan->started = 1;
}

/* --- main ---------------------------------------------------------------------------------------
 */

/* How long nothing is due; NULL: for ever. */
static struct timespec *time_left(struct wan *wan, double now, struct timespec *out)
{
    double left = -1;

    for (unsigned i = 0; i < 2; i++) {
        struct way *way = &wan->ways[i];
        double own;

        if (way->first == NULL || way->stalled)
            continue;
        own = way->first->due > now ? way->first->due - now : 0;
        if (left < 0 || own < left)
            left = own;
    }
    if (left < 0)
        return NULL;
    out->tv_sec = (time_t)left;
    out->tv_nsec = (long)((left - (double)out->tv_sec) * 1e9);
    return out;
}

static void run(struct wan *wan, const sigset_t *mask)
{
    struct pollfd fds[3] = {{.fd = wan->ways[0].in, .events = POLLIN},
                            {.fd = wan->ways[1].in, .events = POLLIN},
                            {.fd = STDIN_FILENO, .events = POLLIN}};

    while (!ended) {
        struct timespec left;
        double now = bench_now();

        if (ppoll(fds, 3, time_left(wan, now, &left), mask) < 0 && errno != EINTR)
            bench_die("poll: %s", strerror(errno));
        if (ended)
            return;
        now = bench_now();
        for (unsigned i = 0; i < 2; i++) {
            take(&wan->ways[i], now);
            hand_on(&wan->ways[i], now);
        }
        if (fds[2].revents != 0 && !read_commands(wan))
            return;
    }
}

int main(int argc, char **argv)
{
    struct wan wan = {
        .ways = {{.name = "ab", .buffer = 256 * 1024}, {.name = "ba", .buffer = 256 * 1024}},
        .net = "10.99.0",
        .mtu = 1500};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked, before;

    if (argc < 3)
        bench_die("usage: wan A B [COMMAND ...], see the head of bench/c/wan.c");
    for (int i = 3; i < argc; i++) {
        char *text = strdup(argv[i]);

        if (text == NULL || command(&wan, text) != 0)
            bench_die("'%s' is not a command, see the head of bench/c/wan.c", argv[i]);
        free(text);
    }
    /* The signals come only while it waits, so that none is overlooked. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    (void)setpriority(PRIO_PROCESS, 0, -10); /* late packets would not be the network's doing */
    open_ends(&wan, argv + 1);
    run(&wan, &before);
    drop_all(&wan.ways[0]);
    drop_all(&wan.ways[1]);
    return 0;
}
