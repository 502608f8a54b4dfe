/* SPDX-License-Identifier: Apache-2.0 */
#include "files/type.h"

#include <stddef.h>
#include <string.h>

#include "http/http.h"

#define UTF8 "; charset=utf-8"

static const struct {
    const char *ending;
    const char *type;
} types[] = {
    {"html", "text/html" UTF8},
    {"htm", "text/html" UTF8},
    {"xhtml", "application/xhtml+xml" UTF8},
    {"css", "text/css" UTF8},
    {"js", "text/javascript" UTF8},
    {"mjs", "text/javascript" UTF8},
    {"json", "application/json"},
    {"map", "application/json"},
    {"jsonld", "application/ld+json"},
    {"webmanifest", "application/manifest+json"},
    {"geojson", "application/geo+json"},
    {"wasm", "application/wasm"},
    {"xml", "application/xml" UTF8},
    {"xsl", "application/xml" UTF8},
    {"atom", "application/atom+xml" UTF8},
    {"rss", "application/rss+xml" UTF8},
    {"txt", "text/plain" UTF8},
    {"text", "text/plain" UTF8},
    {"log", "text/plain" UTF8},
    {"md", "text/markdown" UTF8},
    {"markdown", "text/markdown" UTF8},
    {"csv", "text/csv" UTF8},
    {"tsv", "text/tab-separated-values" UTF8},
    {"vtt", "text/vtt" UTF8},
    {"ics", "text/calendar" UTF8},
    {"vcf", "text/vcard" UTF8},
    {"yaml", "application/yaml"},
    {"yml", "application/yaml"},
    {"toml", "application/toml"},
    {"c", "text/plain" UTF8},
    {"h", "text/plain" UTF8},
    {"py", "text/plain" UTF8},
    {"sh", "text/plain" UTF8},
    {"ini", "text/plain" UTF8},
    {"conf", "text/plain" UTF8},
    {"diff", "text/plain" UTF8},
    {"patch", "text/plain" UTF8},
    {"png", "image/png"},
    {"apng", "image/apng"},
    {"jpg", "image/jpeg"},
    {"jpeg", "image/jpeg"},
    {"gif", "image/gif"},
    {"webp", "image/webp"},
    {"avif", "image/avif"},
    {"svg", "image/svg+xml" UTF8},
    {"ico", "image/x-icon"},
    {"bmp", "image/bmp"},
    {"tif", "image/tiff"},
    {"tiff", "image/tiff"},
    {"heic", "image/heic"},
    {"mp3", "audio/mpeg"},
    {"m4a", "audio/mp4"},
    {"aac", "audio/aac"},
    {"oga", "audio/ogg"},
    {"ogg", "audio/ogg"},
    {"opus", "audio/ogg"},
    {"flac", "audio/flac"},
    {"wav", "audio/wav"},
    {"weba", "audio/webm"},
    {"mid", "audio/midi"},
    {"midi", "audio/midi"},
    {"mp4", "video/mp4"},
    {"m4v", "video/mp4"},
    {"webm", "video/webm"},
    {"ogv", "video/ogg"},
    {"mov", "video/quicktime"},
    {"avi", "video/x-msvideo"},
    {"mkv", "video/x-matroska"},
    {"mpeg", "video/mpeg"},
    {"ts", "video/mp2t"},
    {"m3u8", "application/vnd.apple.mpegurl"},
    {"mpd", "application/dash+xml"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"ttf", "font/ttf"},
    {"otf", "font/otf"},
    {"pdf", "application/pdf"},
    {"epub", "application/epub+zip"},
    {"rtf", "application/rtf"},
    {"doc", "application/msword"},
    {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
    {"xls", "application/vnd.ms-excel"},
    {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
    {"ppt", "application/vnd.ms-powerpoint"},
    {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
    {"odt", "application/vnd.oasis.opendocument.text"},
    {"ods", "application/vnd.oasis.opendocument.spreadsheet"},
    {"odp", "application/vnd.oasis.opendocument.presentation"},
    {"zip", "application/zip"},
    {"gz", "application/gzip"},
    {"tgz", "application/gzip"},
    {"bz2", "application/x-bzip2"},
    {"xz", "application/x-xz"},
    {"zst", "application/zstd"},
    {"7z", "application/x-7z-compressed"},
    {"tar", "application/x-tar"},
    {"jar", "application/java-archive"},
    {"apk", "application/vnd.android.package-archive"},
    {"deb", "application/vnd.debian.binary-package"},
};

const char *tnl_files_type(const char *name)
{
    const char *dot = strrchr(name, '.');
    if (!dot || dot == name)
        return "application/octet-stream";
    tnl_http_span ending = {dot + 1, strlen(dot + 1)};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (tnl_http_is(ending, types[i].ending))
            return types[i].type;
    return "application/octet-stream";
}
