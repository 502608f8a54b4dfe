/* SPDX-License-Identifier: Apache-2.0 */
#include "client/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"

enum { TUNNELS_MAX = 64, LABEL_MAX = 64 };

/* --- finding ---------------------------------------------------------------------------------- */

static char *user_file(void)
{
    const char *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char *out = NULL;
    int n = -1;
    if (folder && *folder == '/')
        n = asprintf(&out, "%s/libtunnel/tunnel.yml", folder);
    else if (home && *home)
        n = asprintf(&out, "%s/.config/libtunnel/tunnel.yml", home);
    return n < 0 ? NULL : out;
}

char *find_config_file(bool here)
{
    if (here && access("tunnel.yml", F_OK) == 0)
        return strdup("tunnel.yml");
    char *out = user_file();
    if (out && access(out, F_OK) == 0)
        return out;
    free(out);
    return NULL;
}

/* --- tunnels ---------------------------------------------------------------------------------- */

static bool is_good_label(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n <= LABEL_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

/* NULL: a mistake was added. */
static const command_row *type_of(config_reader *r, const document_node *key,
                                  const document_node *map, const char *where)
{
    const char *names[TYPE_COUNT];
    char name[LABEL_MAX + 32];
    const document_node *value = find_value(r->document, map, "type");
    if (!value) {
        add_key_mistake(r, node_line(key), where,
                        "has no 'type': give http, tcp, udp, tls, files or ports");
        return NULL;
    }
    snprintf(name, sizeof(name), "%s.type", where);
    const char *text = text_of(r, value, value, name);
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        names[i] = r->command->commands[i].name;
        if (text && strcmp(text, names[i]) == 0)
            return &r->command->commands[i];
    }
    const char *nearest = text ? nearest_name(text, names, TYPE_COUNT) : NULL;
    if (text)
        add_mistake(r->mistakes, node_line(value),
                    "%s: '%.80s' is no type: give http, tcp, udp, tls, files or ports%s%s%s", name,
                    text, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                    nearest ? "'?" : "");
    return NULL;
}

/* Was read before the other keys, see type_of(). */
static void skip(config_reader *r, const document_node *key, const document_node *value,
                 const char *where, bool overridden)
{
    (void)r;
    (void)key;
    (void)value;
    (void)where;
    (void)overridden;
}

/* A new text: what the user wrote, with paths behind the file's folder. */
static char *resolve(const config_reader *r, const plan *p, const char *to)
{
    char *path = NULL, *out = NULL;
    if (p->type == TYPE_FILES)
        return path_in(r->folder, to);
    if (strncmp(to, "unix:", 5) != 0 || !to[5])
        return strdup(to);
    path = path_in(r->folder, to + 5);
    if (!path || asprintf(&out, "unix:%s", path) < 0)
        out = NULL;
    free(path);
    return out;
}

static void read_to(config_reader *r, const document_node *key, const document_node *value,
                    const char *where, bool overridden)
{
    plan *p = ((settings *)r->user)->current;
    (void)overridden;
    const char *text = text_of(r, key, value, where);
    if (text && p->type == TYPE_PORTS) {
        add_key_mistake(r, node_line(key), where,
                        "does not go with type ports, whose ports are in 'allow-ports'");
        return;
    }
    if (!text)
        return;
    char *to = resolve(r, p, text);
    if (!to || !text_set(&p->fields[PLAN_TO], to))
        add_key_mistake(r, node_line(key), where, "out of memory");
    p->lines[PLAN_TO] = node_line(key);
    free(to);
}

/* good: nothing is wrong with its keys, so that what is missing was forgotten. */
static void check_plan(config_reader *r, plan *p, const char *where, bool good)
{
    char line[300];
    const char *error = NULL;
    if (p->type != TYPE_PORTS && !p->fields[PLAN_TO])
        error = p->type == TYPE_FILES ? "has no 'to': give a folder"
                                      : "has no 'to': give an address to forward to";
    else
        error = plan_complete(p, line, sizeof(line));
    if (error && good)
        add_key_mistake(r, p->line, where, error);
}

static void read_tunnel(config_reader *r, const document_node *key, const document_node *map)
{
    static const special_key special[] = {{.name = "type", .read = skip},
                                          {.name = "to", .read = read_to}};
    char where[LABEL_MAX + 32];
    settings *s = r->user;
    const char *name = node_kind_of(key) == NODE_TEXT ? node_text(key) : "";
    if (!is_good_label(name) || !node_is_whole(key)) {
        add_mistake(r->mistakes, node_line(key),
                    "tunnels: '%.80s' is no name for a tunnel: use 1 to 64 of a-z, A-Z, 0-9, "
                    "'-', '_' and '.'",
                    name);
        return;
    }
    snprintf(where, sizeof(where), "tunnels.%s", name);
    if (node_kind_of(map) != NODE_MAP) {
        add_key_mistake(r, node_line(key), where, "must hold keys: type, to, ...");
        return;
    }
    size_t before = r->mistakes->count;
    const command_row *command = type_of(r, key, map, where);
    size_t type = command ? (size_t)(command - r->command->commands) : TYPE_HTTP;
    plan *p = settings_add_plan(s, name, (tunnel_type)type);
    if (!p) {
        add_key_mistake(r, node_line(key), where, "out of memory");
        return;
    }
    p->line = node_line(key);
    snprintf(where, sizeof(where), "tunnels.%s.", name);
    read_map(r, map, IN_TUNNEL, command, special, 2, where);
    where[strlen(where) - 1] = '\0';
    if (command)
        check_plan(r, p, where, r->mistakes->count == before);
}

static bool stands_before(document *d, const document_node *map, size_t index)
{
    const document_node *key = node_key(d, map, index);
    for (size_t i = 0; i < index; i++)
        if (node_kind_of(node_key(d, map, i)) == NODE_TEXT && node_kind_of(key) == NODE_TEXT &&
            strcmp(node_text(node_key(d, map, i)), node_text(key)) == 0)
            return true;
    return false;
}

static void read_tunnels(config_reader *r, const document_node *key, const document_node *map,
                         const char *where, bool overridden)
{
    (void)overridden;
    if (node_kind_of(map) != NODE_MAP || node_count(map) == 0) {
        add_key_mistake(r, node_line(key), where,
                        "must hold tunnels, each with a name, as in 'web: {type: http, to: 3000}'");
        return;
    }
    for (size_t i = 0; i < node_count(map); i++) {
        const document_node *name = node_key(r->document, map, i);
        if (i == TUNNELS_MAX) {
            add_mistake(r->mistakes, node_line(name), "tunnels: a client has at most %d tunnels",
                        TUNNELS_MAX);
            return;
        }
        if (stands_before(r->document, map, i))
            add_mistake(r->mistakes, node_line(name), "tunnels.%.80s: stands twice",
                        node_text(name));
        else
            read_tunnel(r, name, node_value(r->document, map, i));
    }
}

/* --- the file --------------------------------------------------------------------------------- */

/* What a file must have that names tunnels. root is a map, or NULL. */
static void check_presence(config_reader *r, const document_node *root)
{
    const option_row *server = find_option(r->command, "server");
    const document_node *value = root ? find_value(r->document, root, "server") : NULL;
    bool empty = value && node_kind_of(value) == NODE_LIST && node_count(value) == 0;
    if (!option_is_given(r->command, server) && (!value || empty))
        add_mistake(r->mistakes, value ? node_line(value) : 0,
                    "server: is missing: give it there, with --server or with TUNNEL_SERVER");
    if (!(root && find_value(r->document, root, "tunnels")))
        add_mistake(r->mistakes, 0, "tunnels: are missing: name some there");
}

void read_config(settings *s, const command_line *c, document *d, const char *path, bool tunnels,
                 mistakes *m)
{
    const special_key special[] = {{.name = "tunnels", .read = tunnels ? read_tunnels : skip}};
    config_reader r = {
        .command = c, .document = d, .mistakes = m, .user = s, .shadow = settings_new()};
    char *folder = folder_of(path);
    r.folder = folder;
    const document_node *root = d ? document_root(d) : NULL;
    if (!r.shadow || !folder) {
        add_mistake(m, 0, "out of memory");
        root = NULL;
    }
    bool map = root && node_kind_of(root) == NODE_MAP;
    s->reading = &r.line;
    if (map)
        read_map(&r, root, IN_FILE, NULL, special, 1, "");
    else if (root && !node_is_null(root))
        add_mistake(m, node_line(root), "a configuration file holds keys, such as 'server: URL'");
    s->reading = NULL;
    if (tunnels && d)
        check_presence(&r, map ? root : NULL);
    if (d && r.has_secret && document_is_open(d))
        fprintf(stderr, "%s: a secret stands in it, and others can read it: chmod 600 it\n", path);
    document_free(d);
    settings_free(r.shadow);
    free(folder);
}

void read_config_file(settings *s, const command_line *c, const char *path, bool tunnels,
                      mistakes *m)
{
    read_config(s, c, document_read(path, m), path, tunnels, m);
}
