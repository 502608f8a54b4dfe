/* SPDX-License-Identifier: Apache-2.0 */
#include "common/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool has_colours(FILE *out)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(out)) && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

const char *colour_of_status(bool colours, int status)
{
    static const char *const classes[] = {"\033[31m", "\033[36m", "\033[32m",
                                          "\033[36m", "\033[33m", "\033[31m"};
    return !colours ? "" : classes[status >= 100 && status < 500 ? status / 100 : 5];
}

const char *colour_end(bool colours)
{
    return colours ? "\033[0m" : "";
}

void clock_text(char out[16])
{
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(out, 16, "%H:%M:%S", &tm);
}

bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}
