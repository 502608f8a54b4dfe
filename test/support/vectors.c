/* SPDX-License-Identifier: Apache-2.0 */
#include "support/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *read_file(const char *file)
{
    char path[256];
    snprintf(path, sizeof(path), "test/vectors/%s", file);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s cannot be opened (run from the top of the source tree)", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    assert_true(size >= 0);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    text[size] = '\0';
    fclose(f);
    return text;
}

static void add_line(vector *v, char *line)
{
    char *colon = strchr(line, ':');
    if (!colon)
        fail_msg("not a record's line: %s", line);
    assert_true(v->count < VECTOR_MAX_PAIRS);
    *colon = '\0';
    char *value = colon + 1;
    while (*value == ' ')
        value++;
    v->keys[v->count] = line;
    v->values[v->count++] = value;
    if (strcmp(line, "name") == 0)
        v->name = value;
}

size_t vectors_each(const char *file, void (*each)(const vector *v))
{
    char *text = read_file(file);
    vector v = {0};
    size_t count = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (*line && *line != '#')
            add_line(&v, line);
        if (v.count && (!*line || !next)) {
            assert_non_null(v.name);
            each(&v);
            v = (vector){0};
            count++;
        }
    }
    free(text);
    return count;
}

const char *vector_get(const vector *v, const char *key)
{
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->keys[i], key) == 0)
            return v->values[i];
    return NULL;
}

static const char *get(const vector *v, const char *key)
{
    const char *value = vector_get(v, key);
    if (!value)
        fail_msg("%s has no %s", v->name, key);
    return value;
}

uint64_t vector_uint(const vector *v, const char *key)
{
    char *end;
    uint64_t n = strtoull(get(v, key), &end, 10);
    assert_int_equal(*end, '\0');
    return n;
}

uint8_t *vector_hex(const vector *v, const char *key, size_t *n)
{
    const char *value = get(v, key);
    size_t digits = strlen(value);
    assert_int_equal(digits % 2, 0);
    *n = digits / 2;
    uint8_t *bytes = malloc(*n ? *n : 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < *n; i++) {
        char pair[3] = {value[2 * i], value[2 * i + 1], '\0'}, *end;
        bytes[i] = (uint8_t)strtoul(pair, &end, 16);
        assert_int_equal(*end, '\0');
    }
    return bytes;
}

char *vector_text(const vector *v, const char *key, size_t *n)
{
    const char *value = get(v, key);
    size_t len = strlen(value);
    assert_true(len >= 2 && value[0] == '"' && value[len - 1] == '"');
    char *text = malloc(len);
    assert_non_null(text);
    *n = 0;
    for (size_t i = 1; i < len - 1; i++) {
        if (value[i] == '\\')
            i++;
        text[(*n)++] = value[i];
    }
    text[*n] = '\0';
    return text;
}
