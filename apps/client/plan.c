/* SPDX-License-Identifier: Apache-2.0 */
#include "client/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tunnel/error.h>

plan *plan_new(const char *label, tunnel_type type)
{
    plan *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->type = type;
    p->label = label ? strdup(label) : NULL;
    if (label && !p->label) {
        free(p);
        return NULL;
    }
    return p;
}

void plan_free(plan *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < PLAN_FIELDS; i++)
        free(p->fields[i]);
    for (size_t i = 0; i < p->name_count; i++) {
        free(p->names[i].what);
        free(p->names[i].url);
    }
    text_clear(&p->subdomains);
    text_clear(&p->domains);
    free(p->files);
    free(p->names);
    free(p->label);
    free(p);
}

void file_version(const char *path, char *out, size_t size)
{
    struct stat st;
    *out = '\0';
    if (path && stat(path, &st) == 0)
        snprintf(out, size, "%llu %lld %lld.%09ld", (unsigned long long)st.st_ino,
                 (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* --- completing ------------------------------------------------------------------------------- */

static bool by_name(const plan *p)
{
    return p->type != TYPE_TCP && p->type != TYPE_UDP;
}

static const char *scheme(const plan *p)
{
    bool tls = p->type == TYPE_TLS ||
               (p->type == TYPE_PORTS && (p->fields[PLAN_TLS] || p->fields[PLAN_TLS_CERT]));
    return tls ? "tls" : p->type == TYPE_TCP ? "tcp" : p->type == TYPE_UDP ? "udp" : "http";
}

static bool add_name(plan *p, const char *name)
{
    published_name *n = &p->names[p->name_count];
    n->plan = p;
    if (asprintf(&n->what, "%s://%s", scheme(p), name) < 0) {
        n->what = NULL;
        return false;
    }
    p->name_count++;
    return true;
}

static bool make_names(plan *p)
{
    char port[16];
    size_t most = p->subdomains.count + p->domains.count + 1;
    p->names = calloc(most, sizeof(*p->names));
    if (!p->names)
        return false;
    if (!by_name(p)) {
        const char *remote = p->fields[PLAN_REMOTE_PORT];
        snprintf(port, sizeof(port), ":%s", remote ? remote : "0");
        return add_name(p, port);
    }
    for (size_t i = 0; i < p->subdomains.count; i++)
        if (!add_name(p, p->subdomains.items[i]))
            return false;
    for (size_t i = 0; i < p->domains.count; i++)
        if (!add_name(p, p->domains.items[i]))
            return false;
    return p->name_count || add_name(p, "");
}

static bool note_files(plan *p)
{
    char cert[80], key[80], ca[80];
    file_version(p->fields[PLAN_TLS_CERT], cert, sizeof(cert));
    file_version(p->fields[PLAN_TLS_KEY], key, sizeof(key));
    file_version(p->fields[PLAN_UPSTREAM_CA], ca, sizeof(ca));
    if (asprintf(&p->files, "%s/%s/%s", cert, key, ca) < 0) {
        p->files = NULL;
        return false;
    }
    return true;
}

/* Who shares a name must know which. */
static const char *check_pool(const plan *p, const char *dashes, char *line, size_t size)
{
    bool named = p->subdomains.count + p->domains.count > 0 || p->fields[PLAN_PATH_ID];
    if (!p->fields[PLAN_POOL] && p->fields[PLAN_BALANCE])
        snprintf(line, size, "%sbalance says how a pool is served: add %s, or leave it out", dashes,
                 *dashes ? "--pool" : "pool: true");
    else if (p->fields[PLAN_POOL] && by_name(p) && !named)
        snprintf(line, size,
                 "%spool needs a name that all its clients give: add %ssubdomain or %sdomain",
                 dashes, dashes, dashes);
    else if (p->fields[PLAN_POOL] && !by_name(p) && !p->fields[PLAN_REMOTE_PORT])
        snprintf(line, size, "%spool needs a port that all its clients give: add %sremote-port",
                 dashes, dashes);
    else
        return NULL;
    return line;
}

const char *plan_complete(plan *p, char *line, size_t size)
{
    bool file = p->label != NULL;
    const char *dashes = file ? "" : "--";
    size_t names = p->subdomains.count + p->domains.count;
    if (!p->fields[PLAN_TLS_CERT] != !p->fields[PLAN_TLS_KEY]) {
        snprintf(line, size, "%stls-cert and %stls-key come in pairs: give the other one too",
                 dashes, dashes);
        return line;
    }
    if (p->type == TYPE_PORTS && !p->fields[PLAN_ALLOW_PORTS]) {
        snprintf(line, size, "give the ports that visitors may reach: %sallow-ports%s 22,8000-8100",
                 dashes, file ? ":" : "");
        return line;
    }
    if (p->fields[PLAN_PATH_ID] && names > 0) {
        snprintf(line, size,
                 "%spath-id takes the place of a name: leave out %ssubdomain and %sdomain", dashes,
                 dashes, dashes);
        return line;
    }
    const char *error = check_pool(p, dashes, line, size);
    if (error)
        return error;
    return make_names(p) && note_files(p) ? NULL : "out of memory";
}

/* --- publishing ------------------------------------------------------------------------------- */

/* 0 or a TUNNEL_E_ code; the values were checked when they were given. */
static int make_options(const plan *p, tunnel_options **out)
{
    char *const *f = p->fields;
    tunnel_options *o;
    int rc = tunnel_options_new(&o);
    if (rc)
        return rc;
    if (f[PLAN_HOST_HEADER])
        rc = tunnel_options_set_host_header(o, f[PLAN_HOST_HEADER]);
    if (rc == 0 && f[PLAN_UPSTREAM_CA])
        rc = tunnel_options_set_upstream_ca_file(o, f[PLAN_UPSTREAM_CA]);
    if (rc == 0 && f[PLAN_PATH_ID])
        rc = tunnel_options_set_path_id(o, f[PLAN_PATH_ID]);
    if (rc == 0 && f[PLAN_PROXY_PROTOCOL])
        rc = tunnel_options_set_proxy_protocol(o, f[PLAN_PROXY_PROTOCOL][1] - '0');
    if (rc == 0 && f[PLAN_TLS_CERT])
        rc = tunnel_options_set_certificate(o, f[PLAN_TLS_CERT], f[PLAN_TLS_KEY]);
    if (rc == 0 && f[PLAN_IDLE_TIMEOUT])
        rc = tunnel_options_set_idle_timeout(o, (uint32_t)strtoul(f[PLAN_IDLE_TIMEOUT], NULL, 10));
    if (rc == 0 && f[PLAN_POOL])
        rc = tunnel_options_set_pool(o, f[PLAN_BALANCE] ? f[PLAN_BALANCE] : "round-robin");
    *out = o;
    return rc;
}

/* A new text: the upstream as the library takes it. */
static char *make_upstream(const plan *p)
{
    char *out = NULL, *folder = NULL;
    int n = 0;
    switch (p->type) {
    case TYPE_FILES:
        folder = path_in(NULL, p->fields[PLAN_TO]);
        n = folder ? asprintf(&out, "files:%s", folder) : -1;
        break;
    case TYPE_PORTS:
        n = asprintf(&out, "ports:%s", p->fields[PLAN_ALLOW_PORTS]);
        break;
    default:
        out = strdup(p->fields[PLAN_TO]);
    }
    free(folder);
    return n < 0 ? NULL : out;
}

int plan_publish(plan *p, published_name *name, tunnel_client *client, char *detail, size_t size)
{
    tunnel_options *options = NULL;
    char *upstream = make_upstream(p);
    int rc = upstream ? make_options(p, &options) : TUNNEL_E_NOMEM;
    snprintf(detail, size, "%s",
             rc && options ? tunnel_options_error(options)
             : rc          ? tunnel_strerror(rc)
                           : "");
    if (rc == 0)
        rc = tunnel_client_forward(client, name->what, upstream, options, &name->id, detail, size);
    if (rc && !*detail)
        snprintf(detail, size, "%s", tunnel_strerror(rc));
    tunnel_options_free(options);
    free(upstream);
    return rc;
}

/* A name or port that the server chooses says nothing about whose it is. */
static bool chosen_by_server(const char *what)
{
    size_t n = strlen(what);
    return strcmp(what + n - 2, "//") == 0 || strcmp(what + n - 3, "/:0") == 0;
}

bool plan_same(const plan *a, const published_name *one, const plan *b, const published_name *two)
{
    if (a->type != b->type || strcmp(one->what, two->what) != 0 || !text_equal(a->files, b->files))
        return false;
    if (chosen_by_server(one->what) && !text_equal(a->label, b->label))
        return false;
    for (size_t i = 0; i < PLAN_FIELDS; i++)
        if (!text_equal(a->fields[i], b->fields[i]))
            return false;
    return true;
}

const char *plan_target(const plan *p, char *out, size_t size)
{
    bool ports = p->type == TYPE_PORTS;
    snprintf(out, size, "%s%s", ports ? "ports " : "",
             p->fields[ports ? PLAN_ALLOW_PORTS : PLAN_TO]);
    return out;
}
