/* SPDX-License-Identifier: Apache-2.0 */
/* Publishes a local web service, e.g.: expose wss://tunnel.example.com SECRET 3000 */
#include <signal.h>
#include <stdio.h>
#include <tunnel/tunnel.h>

typedef struct expose {
    tunnel_loop *loop;
    int exit_code;
} expose;

static void on_event(void *user, const tunnel_event *e)
{
    expose *x = user;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_PUBLISHED) {
        printf("public: %s\n", tunnel_event_url(e));
        fflush(stdout);
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_RETRYING) {
        fprintf(stderr, "expose: %s; it goes on trying\n", tunnel_event_text(e));
    } else if (tunnel_event_get_type(e) == TUNNEL_EVENT_FAILED) {
        fprintf(stderr, "expose: %s\n", tunnel_event_text(e)); /* final: nothing more will come */
        x->exit_code = 1;
        tunnel_loop_stop(x->loop);
    }
}

static void on_interrupt(void *user, int signum)
{
    (void)signum;
    tunnel_loop_stop(((expose *)user)->loop);
}

int main(int argc, char **argv)
{
    expose x = {.loop = NULL, .exit_code = 1};
    tunnel_client_config *config = NULL;
    tunnel_client *client = NULL;
    char why[256] = "out of memory";

    if (argc != 4) {
        fprintf(stderr, "usage: expose SERVER TOKEN UPSTREAM\n");
        return 2;
    }
    if (tunnel_loop_new(&x.loop, NULL) || tunnel_client_config_new(&config))
        goto done;
    if (tunnel_client_config_set_server(config, argv[1]) ||
        tunnel_client_config_set_token(config, argv[2])) {
        snprintf(why, sizeof(why), "%s", tunnel_client_config_error(config));
        goto done;
    }
    if (tunnel_client_new(&client, x.loop, config, why, sizeof(why)))
        goto done;
    tunnel_client_on_event(client, on_event, &x);
    /* "http://" leaves the name to the server; "http://demo" asks for that one. */
    if (tunnel_client_forward(client, "http://", argv[3], NULL, NULL, why, sizeof(why)))
        goto done;
    tunnel_loop_on_signal(x.loop, SIGINT, on_interrupt, &x);
    tunnel_client_start(client);
    x.exit_code = 0;
    tunnel_loop_run(x.loop);
    why[0] = '\0';

done:
    if (why[0])
        fprintf(stderr, "expose: %s\n", why);
    if (client) {
        tunnel_client_close(client, NULL, NULL);
        tunnel_loop_run(x.loop); /* until it is closed */
    }
    tunnel_client_config_free(config);
    tunnel_loop_free(x.loop);
    return x.exit_code;
}
