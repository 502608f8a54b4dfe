/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP service inside the program: no local port, visitors come as callbacks. For example:
 *
 *   expose_tcp wss://tunnel.example.com SECRET 20022      and then: nc tunnel.example.com 20022
 *
 * Visitors send lines: "who" (who is here), "say WORDS" (to everyone), "quit"; anything else is
 * said back to them.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/tunnel.h>

typedef struct visit visit;

typedef struct service {
    tunnel_loop *loop;
    tunnel_client *client;
    visit *visits;
    int exit_code;
} service;

struct visit {
    visit *next;
    service *service;
    uint64_t stream;
    char who[80]; /* "192.0.2.1:4711" */
    char line[1024];
    size_t n;
};

/* Says something to a visitor. Who does not read what he is told has to go: it would have to be
 * kept for him. */
static void tell(visit *v, const char *text)
{
    int64_t n = (int64_t)strlen(text);
    int64_t took = tunnel_stream_write(v->service->client, v->stream, text, (size_t)n);
    if (took >= 0 && took < n)
        tunnel_stream_reset(v->service->client, v->stream, TUNNEL_E_LIMIT, "too slow a reader");
}

static void on_line(visit *v)
{
    char text[sizeof(v->line) + sizeof(v->who) + 8];
    if (strcmp(v->line, "quit") == 0) {
        tell(v, "Good bye.\n");
        tunnel_stream_end(v->service->client, v->stream);
    } else if (strcmp(v->line, "who") == 0) {
        for (const visit *other = v->service->visits; other; other = other->next) {
            snprintf(text, sizeof(text), "%s%s\n", other->who, other == v ? " (you)" : "");
            tell(v, text);
        }
    } else if (strncmp(v->line, "say ", 4) == 0) {
        snprintf(text, sizeof(text), "%s: %s\n", v->who, v->line + 4);
        for (visit *other = v->service->visits; other; other = other->next)
            tell(other, text);
    } else {
        snprintf(text, sizeof(text), "%s\n", v->line);
        tell(v, text);
    }
}

static size_t on_data(void *user, uint64_t stream, const void *p, size_t n)
{
    visit *v = user;
    const char *bytes = p;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n') {
            v->line[v->n] = '\0';
            v->n = 0;
            on_line(v);
        } else if (v->n + 1 == sizeof(v->line)) {
            tunnel_stream_reset(v->service->client, stream, TUNNEL_E_LIMIT, "too long a line");
            break;
        } else if (bytes[i] != '\r') {
            v->line[v->n++] = bytes[i];
        }
    }
    return n;
}

static void on_end(void *user, uint64_t stream)
{
    tunnel_stream_end(((visit *)user)->service->client, stream);
}

static void on_closed(void *user, uint64_t stream, int error, const char *text)
{
    visit *v = user;
    visit **link = &v->service->visits;
    (void)stream;
    while (*link != v)
        link = &(*link)->next;
    *link = v->next;
    fprintf(stderr, "%s left%s%s\n", v->who, error ? ": " : "", text);
    free(v);
}

static void on_visitor(void *user, uint64_t stream)
{
    service *s = user;
    char host[64] = "";
    uint16_t port = 0;
    visit *v = calloc(1, sizeof(*v));
    if (!v)
        return; /* nobody takes the stream, so it is reset */
    v->service = s;
    v->stream = stream;
    v->next = s->visits;
    s->visits = v;
    tunnel_stream_visitor(s->client, stream, host, sizeof(host), &port);
    snprintf(v->who, sizeof(v->who), "%s:%u", host, port);
    fprintf(stderr, "%s came\n", v->who);
    tunnel_stream_on_end(s->client, stream, on_end, v);
    tunnel_stream_on_closed(s->client, stream, on_closed, v);
    tunnel_stream_on_data(s->client, stream, on_data, v);
    tell(v, "Welcome.\n");
}

/* --- the program ------------------------------------------------------------------------------ */

static void on_event(void *user, const tunnel_event *e)
{
    service *s = user;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED) {
        printf("public: %s\n", tunnel_event_url(e));
        fflush(stdout);
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_RETRYING) {
        fprintf(stderr, "expose_tcp: %s; it goes on trying\n", tunnel_event_text(e));
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_FAILED) {
        fprintf(stderr, "expose_tcp: %s\n", tunnel_event_text(e));
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
    char what[64], why[256] = "out of memory";

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: expose_tcp SERVER TOKEN [PORT]\n");
        return 2;
    }
    snprintf(what, sizeof(what), "tcp://:%s", argc == 4 ? argv[3] : "");
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
        fprintf(stderr, "expose_tcp: %s\n", why);
    if (s.client) {
        tunnel_client_close(s.client, NULL, NULL);
        tunnel_loop_run(s.loop); /* until it is closed */
    }
    tunnel_client_config_free(config);
    tunnel_loop_free(s.loop);
    return s.exit_code;
}
