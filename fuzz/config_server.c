/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files of tunnel-server: any bytes give mistakes, the same ones each time, or
 * settings. */
#include "config_common.h"

#include "server/file.h"

static size_t read_once(const uint8_t *data, size_t size)
{
    command_line c;
    mistakes m = {.path = "fuzz/server.yml"};
    size_t told = 0;
    server_command_line(&c);
    settings *s = settings_new();
    must(s != NULL);
    read_config(s, &c, document_parse((const char *)data, size, &m), m.path, &m);
    must(m.count || (s->certs.count == s->keys.count && settings_complete(s) == NULL));
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
