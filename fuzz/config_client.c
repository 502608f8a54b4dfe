/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files of tunnel-client: any bytes give mistakes, the same ones each time, or
 * settings that are whole. */
#include "config_common.h"

#include "client/file.h"

static size_t read_once(const uint8_t *data, size_t size)
{
    command_line c;
    mistakes m = {.path = "fuzz/tunnel.yml"};
    size_t told = 0;
    client_command_line(&c);
    settings *s = settings_new();
    must(s != NULL);
    read_config(s, &c, document_parse((const char *)data, size, &m), m.path, true, &m);
    for (const plan *p = s->plans; p && m.count == 0; p = p->next) {
        must(p->label && p->name_count > 0 && p->files);
        must(p->type == TYPE_PORTS ? p->fields[PLAN_ALLOW_PORTS] != NULL
                                   : p->fields[PLAN_TO] != NULL);
        for (size_t i = 0; i < p->name_count; i++)
            must(p->names[i].plan == p && plan_same(p, &p->names[i], p, &p->names[i]));
    }
    must(m.count || (s->plans && s->connection[CONNECTION_SERVER]));
    size_t count = m.count;
    tell_mistakes(&m, look_at, &told);
    must(told == m.kept + (m.count > m.kept));
    clear_mistakes(&m);
    settings_free(s);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (names_other_files(data, size))
        return 0;
    size_t count = read_once(data, size);
    must(read_once(data, size) == count);
    return 0;
}
