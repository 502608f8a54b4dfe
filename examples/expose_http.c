/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A web service inside the program: no local port, the requests come as callbacks. For example:
 *
 *   expose_http wss://tunnel.example.com SECRET demo
 *
 *   GET  /            a few words
 *   GET  /bytes/1000  that many bytes, made as fast as the visitor takes them
 *   POST /count       how many bytes the body had
 *
 * What arrives was checked by the server: each request is complete and well-formed (RFC 9112), one
 * after another on a stream, so that this little is enough to read it.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <tunnel/tunnel.h>

typedef struct service {
    tunnel_loop *loop;
    tunnel_client *client;
    int exit_code;
} service;

/* One stream: a connection over which requests come. */
typedef struct visit {
    service *service;
    char head[16384]; /* of the request that is being read */
    size_t head_n;
    uint64_t body_left; /* of its body, yet to come */
    uint64_t body;      /* in all */
    int counting;       /* POST /count */
    int head_only;      /* HEAD: the answer has no body */
    char answer[512];   /* head and text, */
    size_t answer_n, answer_sent;
    uint64_t bytes_left; /* and then so many bytes, */
    int answering;       /* until then no other request is looked at */
    int last;            /* the stream ends after it, */
    int ended;           /* and has */
} visit;

/* --- answering -------------------------------------------------------------------------------- */

static void answer(visit *v, const char *status, uint64_t length, const char *text)
{
    int n = snprintf(v->answer, sizeof(v->answer),
                     "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %llu\r\n%s\r\n%s",
                     status, (unsigned long long)length, v->last ? "Connection: close\r\n" : "",
                     v->head_only ? "" : text);
    v->answer_n = (size_t)n;
    v->answer_sent = 0;
    v->answering = 1;
}

static void answer_text(visit *v, const char *status, const char *text)
{
    answer(v, status, strlen(text), text);
}

/* Sends what there is room for. When that was all, the next request may come. */
static void go_on(visit *v, uint64_t stream)
{
    static const char line[] = "All work and no play makes a dull byte. 0123456789 abcdefghijkl\n";
    tunnel_client *client = v->service->client;
    int64_t n = 1;
    while (n > 0 && v->answer_sent < v->answer_n) {
        n = tunnel_stream_write(client, stream, v->answer + v->answer_sent,
                                v->answer_n - v->answer_sent);
        v->answer_sent += n > 0 ? (size_t)n : 0;
    }
    while (n > 0 && v->bytes_left) {
        /* The line again and again, wherever the last write stopped. */
        size_t skip = (sizeof(line) - 1 - v->bytes_left % (sizeof(line) - 1)) % (sizeof(line) - 1);
        size_t size = sizeof(line) - 1 - skip;
        n = tunnel_stream_write(client, stream, line + skip,
                                size < v->bytes_left ? size : (size_t)v->bytes_left);
        v->bytes_left -= n > 0 ? (uint64_t)n : 0;
    }
    if (n <= 0)
        return; /* on_room() goes on */
    v->answering = 0;
    v->ended = v->last;
    if (v->ended)
        tunnel_stream_end(client, stream);
}

static void on_room(void *user, uint64_t stream)
{
    visit *v = user;
    go_on(v, stream);
    if (!v->answering)
        tunnel_stream_resume(v->service->client, stream);
}

/* --- reading requests ------------------------------------------------------------------------- */

/* The value of a field, up to the end of its line; NULL: it is not there. */
static const char *field(const char *head, const char *name)
{
    for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (strncasecmp(p + 2, name, strlen(name)) == 0 && p[2 + strlen(name)] == ':')
            return p + 2 + strlen(name) + 1 + strspn(p + 2 + strlen(name) + 1, " ");
    return NULL;
}

static void on_request_complete(visit *v)
{
    char text[64];
    const char *path = strchr(v->head, ' ') + 1;
    int get = v->head_only || strncmp(v->head, "GET ", 4) == 0;
    uint64_t bytes = get && strncmp(path, "/bytes/", 7) == 0 ? strtoull(path + 7, NULL, 10) : 0;
    snprintf(text, sizeof(text), "%llu bytes\n", (unsigned long long)v->body);
    v->bytes_left = v->head_only ? 0 : bytes;
    if (v->counting)
        answer_text(v, "200 OK", text);
    else if (get && strncmp(path, "/ ", 2) == 0)
        answer_text(v, "200 OK", "Hello from inside the program.\n");
    else if (bytes)
        answer(v, "200 OK", bytes, "");
    else
        answer_text(v, "404 Not Found", "There is /, /bytes/NUMBER and /count.\n");
}

static void on_head(visit *v)
{
    const char *length = field(v->head, "Content-Length");
    const char *connection = field(v->head, "Connection");
    v->last = connection && strncasecmp(connection, "close", 5) == 0;
    v->head_only = strncmp(v->head, "HEAD ", 5) == 0;
    v->counting = strncmp(v->head, "POST /count ", 12) == 0;
    v->body = v->body_left = length ? strtoull(length, NULL, 10) : 0;
    if (field(v->head, "Transfer-Encoding")) {
        /* A body of unknown length would have to be parsed: not in a small example. */
        v->last = 1;
        answer_text(v, "411 Length Required", "Send a Content-Length.\n");
    } else if (v->body_left == 0) {
        on_request_complete(v);
    }
}

/* Takes of p[0..n) what belongs to the head; how much. */
static size_t take_head(visit *v, uint64_t stream, const char *p, size_t n)
{
    size_t before = v->head_n, room = sizeof(v->head) - 1 - before;
    size_t took = n < room ? n : room;
    memcpy(v->head + before, p, took);
    v->head[before + took] = '\0';
    char *end = strstr(v->head, "\r\n\r\n");
    if (end) {
        v->head_n = 0;
        end[2] = '\0';
        took = (size_t)(end + 4 - v->head) - before;
        on_head(v);
    } else if (took < n) {
        tunnel_stream_reset(v->service->client, stream, TUNNEL_E_LIMIT, "the head is too long");
        return n;
    } else {
        v->head_n += took;
    }
    return took;
}

/* Uses nothing while an answer is on its way: then the visitor, too, has to wait. */
static size_t on_data(void *user, uint64_t stream, const void *p, size_t n)
{
    visit *v = user;
    size_t used = 0;
    if (v->ended)
        return n;
    while (used < n && !v->answering) {
        if (v->body_left) {
            size_t body = n - used < v->body_left ? n - used : (size_t)v->body_left;
            used += body;
            v->body_left -= body;
            if (v->body_left == 0)
                on_request_complete(v);
        } else {
            used += take_head(v, stream, (const char *)p + used, n - used);
        }
        if (v->answering)
            go_on(v, stream);
    }
    return used;
}

static void on_end(void *user, uint64_t stream)
{
    tunnel_stream_end(((visit *)user)->service->client, stream);
}

static void on_closed(void *user, uint64_t stream, int error, const char *text)
{
    if (error)
        fprintf(stderr, "stream %llu: %s\n", (unsigned long long)stream, text);
    free(user);
}

static void on_visitor(void *user, uint64_t stream)
{
    service *s = user;
    visit *v = calloc(1, sizeof(*v));
    if (!v)
        return; /* nobody takes the stream, so it is reset */
    v->service = s;
    tunnel_stream_on_end(s->client, stream, on_end, v);
    tunnel_stream_on_room(s->client, stream, on_room, v);
    tunnel_stream_on_closed(s->client, stream, on_closed, v);
    tunnel_stream_on_data(s->client, stream, on_data, v);
}

/* --- the program ------------------------------------------------------------------------------ */

static void on_event(void *user, const tunnel_event *e)
{
    service *s = user;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED) {
        printf("public: %s\n", tunnel_event_url(e));
        fflush(stdout);
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_RETRYING) {
        fprintf(stderr, "expose_http: %s; it goes on trying\n", tunnel_event_text(e));
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_FAILED) {
        fprintf(stderr, "expose_http: %s\n", tunnel_event_text(e));
        s->exit_code = 1;
        tunnel_loop_stop(s->loop);
    }
}

static void on_interrupt(void *user, int signum)
{
    (void)signum;
    tunnel_loop_stop(((service *)user)->loop);
}

int main(int argc, char **argv)
{
    service s = {.exit_code = 1};
    tunnel_client_config *config = NULL;
    char what[300], why[256] = "out of memory";

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: expose_http SERVER TOKEN [NAME]\n");
        return 2;
    }
    snprintf(what, sizeof(what), "http://%s", argc == 4 ? argv[3] : "");
    if (tunnel_loop_new(&s.loop, NULL) || tunnel_client_config_new(&config))
        goto done;
    if (tunnel_client_config_set_server(config, argv[1]) ||
        tunnel_client_config_set_token(config, argv[2])) {
        snprintf(why, sizeof(why), "%s", tunnel_client_config_error(config));
        goto done;
    }
    if (tunnel_client_new(&s.client, s.loop, config, why, sizeof(why)))
        goto done;
    tunnel_client_on_event(s.client, on_event, &s);
    if (tunnel_client_listen(s.client, what, NULL, on_visitor, &s, NULL, why, sizeof(why)))
        goto done;
    tunnel_loop_on_signal(s.loop, SIGINT, on_interrupt, &s);
    tunnel_loop_on_signal(s.loop, SIGTERM, on_interrupt, &s);
    tunnel_client_start(s.client);
    s.exit_code = 0;
    tunnel_loop_run(s.loop);
    why[0] = '\0';

done:
    if (why[0])
        fprintf(stderr, "expose_http: %s\n", why);
    if (s.client) {
        tunnel_client_close(s.client, NULL, NULL);
        tunnel_loop_run(s.loop); /* until it is closed */
    }
    tunnel_client_config_free(config);
    tunnel_loop_free(s.loop);
    return s.exit_code;
}
