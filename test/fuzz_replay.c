/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A main for a fuzz target without a fuzzer: runs every file of the folders that are named, and the
 * empty input. Fails when there is nothing to run, so that a lost corpus is noticed.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int failed(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return -1;
}

/* Runs one file from memory of exactly its size, so that a sanitizer sees a read past the end. */
static int run_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return failed(path);
    int rc = -1;
    uint8_t *data = malloc(size ? size : 1);
    if (data && fread(data, 1, size, f) == size) {
        LLVMFuzzerTestOneInput(data, size);
        rc = 0;
    } else {
        failed(path);
    }
    free(data);
    fclose(f);
    return rc;
}

static int run_folder(const char *folder, size_t *count)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return failed(folder);
    int rc = 0;
    for (struct dirent *e; !rc && (e = readdir(dir));) {
        char path[4096];
        struct stat st;
        if (snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) >= (int)sizeof(path))
            continue;
        if (stat(path, &st) || !S_ISREG(st.st_mode))
            continue;
        rc = run_file(path, (size_t)st.st_size);
        if (rc)
            fprintf(stderr, "input: %s\n", path);
        ++*count;
    }
    closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    uint8_t *nothing = malloc(1);
    if (!nothing)
        return 1;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    LLVMFuzzerTestOneInput(nothing, 0);
    free(nothing);
    for (int i = 1; i < argc; i++)
        if (run_folder(argv[i], &count))
            return 1;
    printf("%zu inputs\n", count);
    return count ? 0 : 1;
}
