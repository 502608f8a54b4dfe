/* SPDX-License-Identifier: Apache-2.0 */
#include "server/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

enum { TOKENS_MAX = 1024, DOMAINS_MAX = 1024 };

static bool is_list(config_reader *r, const document_node *key, const document_node *value,
                    const char *where, size_t most)
{
    if (node_kind_of(value) != NODE_LIST)
        add_key_mistake(r, node_line(key), where, "must be a list");
    else if (node_count(value) > most)
        add_mistake(r->mistakes, node_line(key), "%s: has at most %zu items", where, most);
    else
        return true;
    return false;
}

/* Sets an option as the file would by a key of its own. */
static void set_option(config_reader *r, settings *s, const char *option, const document_node *key,
                       const char *text, const char *where)
{
    const option_row *row = find_option(r->command, option);
    r->line = node_line(key);
    char *path = row->path ? path_in(r->folder, text) : NULL;
    const char *error = row->path && !path ? "out of memory" : row->set(s, path ? path : text);
    if (error)
        add_key_mistake(r, node_line(key), where, error);
    free(path);
}

/* Mistakes for the keys of an item that are not among these. */
static bool only_keys(config_reader *r, const document_node *item, const char *const *names,
                      size_t n, const char *where)
{
    bool good = true;
    for (size_t i = 0; i < node_count(item) && i <= n; i++) {
        const document_node *key = node_key(r->document, item, i);
        const char *name = node_kind_of(key) == NODE_TEXT ? node_text(key) : "";
        size_t known = 0;
        while (known < n && strcmp(names[known], name) != 0)
            known++;
        const char *nearest = nearest_name(name, names, n);
        bool twice = known < n &&
                     find_value(r->document, item, name) != node_value(r->document, item, i);
        if (known == n)
            add_mistake(r->mistakes, node_line(key), "%s.%.80s: there is no such key%s%s%s", where,
                        name, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
        else if (twice)
            add_mistake(r->mistakes, node_line(key), "%s.%.80s: stands twice", where, name);
        good &= known < n && !twice;
    }
    return good;
}

/* --- certificates ----------------------------------------------------------------------------- */

static void read_certificate(config_reader *r, settings *s, const document_node *item,
                             const char *where)
{
    static const char *const names[] = {"cert", "key"};
    static const char *const options[] = {"tls-cert", "tls-key"};
    const char *texts[2] = {NULL, NULL};
    char name[64];
    if (node_kind_of(item) != NODE_MAP) {
        add_key_mistake(r, node_line(item), where, "must hold two keys: {cert: FILE, key: FILE}");
        return;
    }
    bool good = only_keys(r, item, names, 2, where);
    for (size_t i = 0; i < 2; i++) {
        const document_node *value = find_value(r->document, item, names[i]);
        snprintf(name, sizeof(name), "%s.%s", where, names[i]);
        if (!value)
            add_mistake(r->mistakes, node_line(item), "%s: has no '%s'", where, names[i]);
        texts[i] = value ? text_of(r, value, value, name) : NULL;
        good &= texts[i] != NULL;
    }
    for (size_t i = 0; i < 2 && good; i++)
        set_option(r, s, options[i], item, texts[i], where);
}

static void read_certificates(config_reader *r, const document_node *key,
                              const document_node *value, const char *where, bool overridden)
{
    settings *s = overridden ? r->shadow : r->user;
    if (!is_list(r, key, value, where, CERTS_MAX))
        return;
    for (size_t i = 0; i < node_count(value); i++)
        read_certificate(r, s, node_item(r->document, value, i), where);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static void allow_domain(config_reader *r, settings *s, const document_node *node,
                         const char *token, const char *where)
{
    const char *text = text_of(r, node, node, where);
    if (!text || !tunnel_server_config_allow_domain(s->config, token, text))
        return;
    const char *line = tunnel_server_config_error(s->config);
    add_key_mistake(r, node_line(node), where, *line ? line : "out of memory");
}

static void read_domains(config_reader *r, settings *s, const document_node *value,
                         const char *token, const char *where)
{
    if (node_kind_of(value) == NODE_LIST && node_count(value) > DOMAINS_MAX)
        add_mistake(r->mistakes, node_line(value), "%s: has at most %d items", where, DOMAINS_MAX);
    else if (node_kind_of(value) == NODE_LIST)
        for (size_t i = 0; i < node_count(value); i++)
            allow_domain(r, s, node_item(r->document, value, i), token, where);
    else
        allow_domain(r, s, value, token, where);
}

static void read_token(config_reader *r, settings *s, const document_node *item, const char *where)
{
    static const char *const names[] = {"token", "domains"};
    char name[64];
    if (node_kind_of(item) == NODE_TEXT) {
        const char *text = text_of(r, item, item, where);
        if (text)
            set_option(r, s, "token", item, text, where);
        return;
    }
    if (node_kind_of(item) != NODE_MAP) {
        add_key_mistake(r, node_line(item), where, "must be a token or {token: X, domains: [...]}");
        return;
    }
    bool good = only_keys(r, item, names, 2, where);
    const document_node *token = find_value(r->document, item, "token");
    const document_node *domains = find_value(r->document, item, "domains");
    snprintf(name, sizeof(name), "%s.token", where);
    if (!token)
        add_mistake(r->mistakes, node_line(item), "%s: has no 'token'", where);
    const char *text = token ? text_of(r, token, token, name) : NULL;
    if (!text || !good)
        return;
    set_option(r, s, "token", token, text, name);
    snprintf(name, sizeof(name), "%s.domains", where);
    if (domains)
        read_domains(r, s, domains, text, name);
}

static void read_tokens(config_reader *r, const document_node *key, const document_node *value,
                        const char *where, bool overridden)
{
    settings *s = overridden ? r->shadow : r->user;
    r->has_secret = true;
    if (!is_list(r, key, value, where, TOKENS_MAX))
        return;
    for (size_t i = 0; i < node_count(value); i++)
        read_token(r, s, node_item(r->document, value, i), where);
}

/* --- the file --------------------------------------------------------------------------------- */

/* The pairs of options must come from one place. */
static void check_pairs(config_reader *r, const document_node *root)
{
    static const char *const pairs[][2] = {
        {"tokens", "token"}, {"certificates", "tls-cert"}, {"certificates", "tls-key"}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        const document_node *second = find_value(r->document, root, pairs[i][1]);
        if (second && find_value(r->document, root, pairs[i][0]))
            add_mistake(r->mistakes, node_line(second), "%s: give either this or '%s', not both",
                        pairs[i][1], pairs[i][0]);
    }
    const document_node *cert = find_value(r->document, root, "tls-cert");
    const document_node *key = find_value(r->document, root, "tls-key");
    size_t certs = !cert ? 0 : node_kind_of(cert) == NODE_LIST ? node_count(cert) : 1;
    size_t keys = !key ? 0 : node_kind_of(key) == NODE_LIST ? node_count(key) : 1;
    if (certs != keys)
        add_mistake(r->mistakes, node_line(cert ? cert : key),
                    "tls-cert, tls-key: come in pairs: give as many of one as of the other");
}

void read_config(settings *s, const command_line *c, document *d, const char *path, mistakes *m)
{
    static const special_key special[] = {
        {.name = "certificates", .group = 'C', .read = read_certificates},
        {.name = "tokens", .group = 'T', .read = read_tokens}};
    config_reader r = {
        .command = c, .document = d, .mistakes = m, .user = s, .shadow = settings_new()};
    char *folder = folder_of(path);
    r.folder = folder;
    const document_node *root = d ? document_root(d) : NULL;
    if (!r.shadow || !folder) {
        add_mistake(m, 0, "out of memory");
        root = NULL;
    }
    s->reading = &r.line;
    if (root && node_kind_of(root) == NODE_MAP) {
        read_map(&r, root, IN_FILE, NULL, special, 2, "");
        check_pairs(&r, root);
    } else if (root && !node_is_null(root)) {
        add_mistake(m, node_line(root), "a configuration file holds keys, such as 'domain: NAME'");
    }
    s->reading = NULL;
    if (d && r.has_secret && document_is_open(d))
        fprintf(stderr, "%s: a secret stands in it, and others can read it: chmod 600 it\n", path);
    document_free(d);
    settings_free(r.shadow);
    free(folder);
}

void read_config_file(settings *s, const command_line *c, const char *path, mistakes *m)
{
    read_config(s, c, document_read(path, m), path, m);
}
