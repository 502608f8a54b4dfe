/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "unit/http_trace.h"

/* --- the catalogue of requests ---------------------------------------------------------------- */

#define GET     "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST    "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define GOT     "GET / a 1 keep none"
#define POSTED  "POST / a 1 keep chunked"

static const trace_row plain[] = {
    {"nothing", TRACE_IN(""), ""},
    {"smallest", TRACE_IN(GET "\r\n"), GOT " ."},
    {"path and query", TRACE_IN("GET /a/b?c=d&e HTTP/1.1\r\nHost: example.com:8080\r\n\r\n"),
     "GET /a/b?c=d&e example.com:8080 1 keep none ."},
    {"path of two slashes", TRACE_IN("GET //a HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET //a a 1 keep none ."},
    {"query browsers send raw", TRACE_IN("GET /?a[]={b}|c^d`e\"<> HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET /?a[]={b}|c^d`e\"<> a 1 keep none ."},
    {"percent that encodes nothing", TRACE_IN("GET /100%?% HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET /100%?% a 1 keep none ."},
    {"two in a row", TRACE_IN(GET "\r\nHEAD /b HTTP/1.1\r\nHost: b\r\n\r\n"),
     GOT " . HEAD /b b 1 keep none ."},
    {"empty line first", TRACE_IN("\r\n" GET "\r\n"), GOT " ."},
    {"empty line between two", TRACE_IN(GET "\r\n\r\n" GET "\r\n"), GOT " . " GOT " ."},
    {"empty line alone", TRACE_IN("\r\n"), ""},
    {"two empty lines first", TRACE_IN("\r\n\r\n" GET "\r\n"), "!400 malformed request line"},
    {"bare LF first", TRACE_IN("\n" GET "\r\n"), "!400 line feed without carriage return"},
    {"bare CR first", TRACE_IN("\r" GET "\r\n"), "!400 carriage return without line feed"},
    {"HTTP/1.0", TRACE_IN("GET / HTTP/1.0\r\n\r\n"), "GET / - 0 close none ."},
    {"HTTP/1.0 with Host", TRACE_IN("GET / HTTP/1.0\r\nHost: a\r\n\r\n"), "GET / a 0 close none ."},
    {"HTTP/1.0 keep-alive", TRACE_IN("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
     "GET / - 0 keep none ."},
    {"close", TRACE_IN(GET "Connection: close\r\n\r\n"), "GET / a 1 close none ."},
    {"close in a list", TRACE_IN(GET "Connection: foo , CLOSE\r\n\r\n"), "GET / a 1 close none ."},
    {"close beats keep-alive", TRACE_IN(GET "Connection: keep-alive\r\nConnection: close\r\n\r\n"),
     "GET / a 1 close none ."},
    {"close and then more", TRACE_IN(GET "Connection: close\r\n\r\n" GET "\r\n"),
     "GET / a 1 close none . " GOT " ."},
    {"no value", TRACE_IN(GET "X:\r\nY: \t\r\n\r\n"), GOT " ."},
    {"no space before a value", TRACE_IN("GET / HTTP/1.1\r\nHost:a\r\n\r\n"), GOT " ."},
    {"white space around a value", TRACE_IN("GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n"), GOT " ."},
    {"obs-text in a value", TRACE_IN(GET "X: \xc3\xa9\xff\r\n\r\n"), GOT " ."},
    {"every token character", TRACE_IN(GET "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n"), GOT " ."},
    {"options of the server", TRACE_IN("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
     "OPTIONS * a 1 keep none ."},
    {"cut in the request line", TRACE_IN("GET / HT"), "cut"},
    {"cut in a field", TRACE_IN(GET "X: "), "cut"},
    {"cut before the last LF", TRACE_IN(GET "\r"), "cut"},
    {"cut in the empty line", TRACE_IN("\r"), "cut"},
    {"empty connection options", TRACE_IN(GET "Connection: , close,,\r\n\r\n"),
     "GET / a 1 close none ."},
    {"connection option no token", TRACE_IN(GET "Connection: close x\r\n\r\n"),
     "!400 invalid Connection field"},
    {"too many connection options",
     TRACE_IN(GET "Connection: ,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,close\r\n\r\n"),
     "!400 too many connection options"},
};

static const trace_row start_lines[] = {
    {"HTTP/0.9", TRACE_IN("GET /\r\n"), "!400 request line without an HTTP version"},
    {"HTTP/0.9 version", TRACE_IN("GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
     "!505 HTTP version not supported"},
    {"HTTP/1.2", TRACE_IN("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), "!505 HTTP version not supported"},
    {"HTTP/2.0", TRACE_IN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "!505 HTTP version not supported"},
    {"HTTP/1.10", TRACE_IN("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), "!400 malformed HTTP version"},
    {"HTTP/1", TRACE_IN("GET / HTTP/1\r\nHost: a\r\n\r\n"), "!400 malformed HTTP version"},
    {"lower-case http", TRACE_IN("GET / http/1.1\r\nHost: a\r\n\r\n"),
     "!400 malformed HTTP version"},
    {"another protocol", TRACE_IN("GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
     "!400 malformed HTTP version"},
    {"ICE", TRACE_IN("SOURCE / ICE/1.0\r\nHost: a\r\n\r\n"), "!400 malformed HTTP version"},
    {"no version", TRACE_IN("GET / \r\nHost: a\r\n\r\n"), "!400 malformed HTTP version"},
    {"space first", TRACE_IN(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 malformed method"},
    {"space last", TRACE_IN("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), "!400 malformed request line"},
    {"two spaces after the method", TRACE_IN("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 malformed request line"},
    {"two spaces after the target", TRACE_IN("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 malformed request line"},
    {"space in the target", TRACE_IN("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 malformed request line"},
    {"tabs for spaces", TRACE_IN("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"), "!400 control character"},
    {"only a method", TRACE_IN("GET\r\nHost: a\r\n\r\n"), "!400 malformed request line"},
    {"no method", TRACE_IN("/ HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 *"},
    {"method no token", TRACE_IN("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 malformed method"},
    {"unknown method", TRACE_IN("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), "!501 unknown method"},
    {"lower-case method", TRACE_IN("get / HTTP/1.1\r\nHost: a\r\n\r\n"), "!501 unknown method"},
    {"longer than a method", TRACE_IN("GETS / HTTP/1.1\r\nHost: a\r\n\r\n"), "!501 unknown method"},
    {"method of RTSP", TRACE_IN("PLAY / HTTP/1.1\r\nHost: a\r\n\r\n"), "!501 unknown method"},
    {"method of WebDAV", TRACE_IN("MKCALENDAR / HTTP/1.1\r\nHost: a\r\n\r\n"),
     "MKCALENDAR / a 1 keep none ."},
    {"PATCH", TRACE_IN("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n"), "PATCH / a 1 keep none ."},
    {"CONNECT", TRACE_IN("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
     "!501 CONNECT is not supported"},
    {"CONNECT with a path", TRACE_IN("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!501 CONNECT is not supported"},
    {"a TLS hello", TRACE_IN("\x16\x03\x01\x02\x00\x01"), "!400 control character"},
    {"NUL", TRACE_IN("GET /\0 HTTP/1.1\r\n"), "!400 NUL byte"},
    {"bare LF", TRACE_IN("GET / HTTP/1.1\nHost: a\r\n\r\n"),
     "!400 line feed without carriage return"},
    {"bare CR", TRACE_IN("GET / HTTP/1.1\rHost: a\r\n\r\n"),
     "!400 carriage return without line feed"},
    {"CR CR LF", TRACE_IN("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
     "!400 carriage return without line feed"},
    {"UTF-8 in the target", TRACE_IN("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 character outside ASCII in the start line"},
    {"DEL in the target", TRACE_IN("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 control character"},
    {"fragment", TRACE_IN("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid character in the request target"},
    {"fragment of an absolute target", TRACE_IN("GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid character in the request target"},
    {"no slash", TRACE_IN("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 invalid request target"},
    {"authority-form", TRACE_IN("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid request target"},
    {"query alone", TRACE_IN("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 invalid request target"},
    {"* with GET", TRACE_IN("GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 target * is for OPTIONS only"},
    {"* and more", TRACE_IN("OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid request target"},
    {"/* with OPTIONS", TRACE_IN("OPTIONS /* HTTP/1.1\r\nHost: a\r\n\r\n"),
     "OPTIONS /* a 1 keep none ."},
};

static const trace_row hosts[] = {
    {"none", TRACE_IN("GET / HTTP/1.1\r\n\r\n"), "!400 no Host field"},
    {"two", TRACE_IN(GET "Host: b\r\n\r\n"), "!400 several Host fields"},
    {"two equal ones", TRACE_IN(GET "hOST: a\r\n\r\n"), "!400 several Host fields"},
    {"two in HTTP/1.0", TRACE_IN("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
     "!400 several Host fields"},
    {"empty", TRACE_IN("GET / HTTP/1.1\r\nHost: \r\n\r\n"), "!400 invalid Host field"},
    {"user", TRACE_IN("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), "!400 invalid Host field"},
    {"user and password", TRACE_IN("GET / HTTP/1.1\r\nHost: u:p@a\r\n\r\n"),
     "!400 invalid Host field"},
    {"space", TRACE_IN("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), "!400 invalid Host field"},
    {"comma", TRACE_IN("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), "!400 invalid Host field"},
    {"slash", TRACE_IN("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), "!400 invalid Host field"},
    {"percent", TRACE_IN("GET / HTTP/1.1\r\nHost: %61\r\n\r\n"), "!400 invalid Host field"},
    {"URL", TRACE_IN("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"), "!400 invalid Host field"},
    {"UTF-8", TRACE_IN("GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n"), "!400 invalid Host field"},
    {"dot first", TRACE_IN("GET / HTTP/1.1\r\nHost: .a\r\n\r\n"), "!400 invalid Host field"},
    {"empty label", TRACE_IN("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"), "!400 invalid Host field"},
    {"trailing dot", TRACE_IN("GET / HTTP/1.1\r\nHost: a.b.\r\n\r\n"), "GET / a.b. 1 keep none ."},
    {"port without name", TRACE_IN("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
     "!400 invalid Host field"},
    {"empty port", TRACE_IN("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"), "!400 invalid Host field"},
    {"port 0", TRACE_IN("GET / HTTP/1.1\r\nHost: a:0\r\n\r\n"), "!400 invalid Host field"},
    {"port 65535", TRACE_IN("GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n"),
     "GET / a:65535 1 keep none ."},
    {"port 65536", TRACE_IN("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"), "!400 invalid Host field"},
    {"port no number", TRACE_IN("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n"), "!400 invalid Host field"},
    {"port of six digits", TRACE_IN("GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n"),
     "!400 invalid Host field"},
    {"two ports", TRACE_IN("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"), "!400 invalid Host field"},
    {"IPv4", TRACE_IN("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"),
     "GET / 127.0.0.1:80 1 keep none ."},
    {"IPv6", TRACE_IN("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"), "GET / [::1] 1 keep none ."},
    {"IPv6 and port", TRACE_IN("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"),
     "GET / [2001:db8::1]:8080 1 keep none ."},
    {"IPv6 without brackets", TRACE_IN("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
     "!400 invalid Host field"},
    {"IPv6 not closed", TRACE_IN("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
     "!400 invalid Host field"},
    {"no IPv6", TRACE_IN("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n"), "!400 invalid Host field"},
    {"empty brackets", TRACE_IN("GET / HTTP/1.1\r\nHost: []\r\n\r\n"), "!400 invalid Host field"},
    {"name in brackets", TRACE_IN("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n"),
     "!400 invalid Host field"},
    {"IPv6 with a zone", TRACE_IN("GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n"),
     "!400 invalid Host field"},
    {"text behind IPv6", TRACE_IN("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
     "!400 invalid Host field"},
    {"absolute-form", TRACE_IN("GET http://b:81/c?d HTTP/1.1\r\nHost: b:81\r\n\r\n"),
     "GET /c?d b:81 1 keep none ."},
    {"absolute-form beats Host", TRACE_IN("GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET /c b 1 keep none ."},
    {"absolute-form, https", TRACE_IN("GET HTTPS://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET / b 1 keep none ."},
    {"absolute-form without path", TRACE_IN("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET / b 1 keep none ."},
    {"absolute-form, query alone", TRACE_IN("GET http://b?c/d HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET /?c/d b 1 keep none ."},
    {"absolute-form, OPTIONS", TRACE_IN("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "OPTIONS * b 1 keep none ."},
    {"absolute-form, IPv6", TRACE_IN("GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     "GET / [::1]:80 1 keep none ."},
    {"absolute-form needs Host too", TRACE_IN("GET http://b/ HTTP/1.1\r\n\r\n"),
     "!400 no Host field"},
    {"absolute-form, HTTP/1.0", TRACE_IN("GET http://b/ HTTP/1.0\r\n\r\n"),
     "GET / b 0 close none ."},
    {"absolute-form, empty", TRACE_IN("GET http:///c HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 *"},
    {"absolute-form, user", TRACE_IN("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 *"},
    {"absolute-form, bad port", TRACE_IN("GET http://b:x/ HTTP/1.1\r\nHost: a\r\n\r\n"), "!400 *"},
    {"absolute-form, other scheme", TRACE_IN("GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid request target"},
    {"scheme without slashes", TRACE_IN("GET http:b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 invalid request target"},
    {"backslash in the authority", TRACE_IN("GET http://b\\c HTTP/1.1\r\nHost: a\r\n\r\n"),
     "!400 *"},
};

static const trace_row fields[] = {
    {"folded", TRACE_IN(GET "X: a\r\n b\r\n\r\n"), "!400 folded field line"},
    {"folded by a tab", TRACE_IN(GET "X: a\r\n\tb\r\n\r\n"), "!400 folded field line"},
    {"space before the first", TRACE_IN("GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
     "!400 white space before the first field"},
    {"space before the colon", TRACE_IN("GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
     "!400 white space in or after a field name"},
    {"tab before the colon", TRACE_IN(GET "Content-Length\t: 1\r\n\r\n"),
     "!400 white space in or after a field name"},
    {"space in a name", TRACE_IN(GET "Content Length: 1\r\n\r\n"),
     "!400 white space in or after a field name"},
    {"no colon", TRACE_IN(GET "X\r\n\r\n"), "!400 field line without a colon"},
    {"no name", TRACE_IN(GET ": x\r\n\r\n"), "!400 empty field name"},
    {"name no token", TRACE_IN(GET "X(Y): x\r\n\r\n"), "!400 invalid character in a field name"},
    {"name beginning badly", TRACE_IN(GET "\"X\": x\r\n\r\n"),
     "!400 invalid character in a field name"},
    {"UTF-8 in a name", TRACE_IN(GET "X\xc3\xa9: x\r\n\r\n"),
     "!400 invalid character in a field name"},
    {"NUL in a name", TRACE_IN(GET "X\0: x\r\n\r\n"), "!400 invalid character in a field name"},
    {"NUL in a value", TRACE_IN(GET "X: \0\r\n\r\n"), "!400 NUL byte"},
    {"control in a value", TRACE_IN(GET "X: \x01\r\n\r\n"), "!400 control character"},
    {"DEL in a value", TRACE_IN(GET "X: \x7f\r\n\r\n"), "!400 control character"},
    {"bare LF behind a value", TRACE_IN(GET "X: a\nY: b\r\n\r\n"),
     "!400 line feed without carriage return"},
    {"bare CR in a value", TRACE_IN(GET "X: a\rY: b\r\n\r\n"),
     "!400 carriage return without line feed"},
    {"bare LF for the empty line", TRACE_IN(GET "\n"), "!400 line feed without carriage return"},
    {"CR without LF at the end", TRACE_IN(GET "\rX"), "!400 carriage return without line feed"},
    {"expect", TRACE_IN(POST "Content-Length: 1\r\nExpect: 100-Continue\r\n\r\nx"),
     "POST / a 1 keep len=1 expect [x] ."},
    {"expect without a body", TRACE_IN(GET "Expect: 100-continue\r\n\r\n"), GOT " ."},
    {"expect in HTTP/1.0",
     TRACE_IN("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"),
     "POST / - 0 close len=1 [x] ."},
    {"expect something else", TRACE_IN(GET "Expect: tea\r\n\r\n"), "!417 unknown expectation"},
    {"expect more", TRACE_IN(GET "Expect: 100-continue, tea\r\n\r\n"), "!417 unknown expectation"},
    {"upgrade",
     TRACE_IN(GET "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n" GET "\r\n"),
     GOT " upgrade . " GOT " ."},
    {"upgrade with versions",
     TRACE_IN(GET "Connection: upgrade\r\nUpgrade: HTTP/2.0, SHTTP/1.3\r\n\r\n"), GOT " upgrade ."},
    {"upgrade not nominated", TRACE_IN(GET "Upgrade: websocket\r\n\r\n"), GOT " ."},
    {"upgrade to nothing", TRACE_IN(GET "Connection: upgrade\r\n\r\n"), GOT " ."},
    {"upgrade to an empty list", TRACE_IN(GET "Connection: upgrade\r\nUpgrade: ,\r\n\r\n"),
     GOT " ."},
    {"upgrade, malformed", TRACE_IN(GET "Connection: upgrade\r\nUpgrade: a b\r\n\r\n"),
     "!400 invalid Upgrade field"},
    {"upgrade in HTTP/1.0", TRACE_IN("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"),
     "GET / - 0 close none ."},
    {"upgrade with a body",
     TRACE_IN(POST "Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 2\r\n\r\nxy"),
     "POST / a 1 keep len=2 upgrade [xy] ."},
    {"upgrade with a length of 0",
     TRACE_IN(POST "Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n" GET "\r\n"),
     "POST / a 1 keep len=0 upgrade . " GOT " ."},
    {"upgrade with a chunked body",
     TRACE_IN(
         POST
         "Connection: upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n" GET
         "\r\n"),
     POSTED " upgrade [xy] . " GOT " ."},
    {"h2c",
     TRACE_IN(
         GET
         "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" GET
         "\r\n"),
     GOT " h2c . " GOT " ."},
};

static const trace_row bodies[] = {
    {"length", TRACE_IN(POST "Content-Length: 5\r\n\r\nhello"), "POST / a 1 keep len=5 [hello] ."},
    {"length 0", TRACE_IN(POST "Content-Length: 0\r\n\r\n" GET "\r\n"),
     "POST / a 1 keep len=0 . " GOT " ."},
    {"length, then another", TRACE_IN(POST "Content-Length: 2\r\n\r\nhi" GET "\r\n"),
     "POST / a 1 keep len=2 [hi] . " GOT " ."},
    {"length with GET", TRACE_IN(GET "Content-Length: 2\r\n\r\nhi"), "GET / a 1 keep len=2 [hi] ."},
    {"length, cut", TRACE_IN(POST "Content-Length: 5\r\n\r\nhell"),
     "POST / a 1 keep len=5 [hell] cut"},
    {"length with zeros", TRACE_IN(POST "Content-Length: 002\r\n\r\nhi"),
     "POST / a 1 keep len=2 [hi] ."},
    {"length in spaces", TRACE_IN(POST "Content-Length:  2  \r\n\r\nhi"),
     "POST / a 1 keep len=2 [hi] ."},
    {"length before a tab", TRACE_IN(POST "Content-Length: 2\t\r\n\r\nhi"), "!400 *"},
    {"chunked in spaces", TRACE_IN(POST "Transfer-Encoding:  chunked  \r\n\r\n0\r\n\r\n"),
     POSTED " ."},
    {"length, HTTP/1.0", TRACE_IN("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"),
     "POST / - 0 close len=2 [hi] ."},
    {"no length", TRACE_IN(POST "\r\n"), "POST / a 1 keep none ."},
    {"largest length", TRACE_IN(POST "Content-Length: 9223372036854775807\r\n\r\nx"),
     "POST / a 1 keep len=9223372036854775807 [x] cut"},
    {"too large by one", TRACE_IN(POST "Content-Length: 9223372036854775808\r\n\r\n"),
     "!413 Content-Length too large"},
    {"of 20 digits", TRACE_IN(POST "Content-Length: 18446744073709551616\r\n\r\n"), "!*"},
    {"of 20 digits, small", TRACE_IN(POST "Content-Length: 00000000000000000001\r\n\r\nx"),
     "!413 Content-Length too large"},
    {"two lengths", TRACE_IN(POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy"), "!400 *"},
    {"two equal lengths", TRACE_IN(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
     "!400 *"},
    {"list of lengths", TRACE_IN(POST "Content-Length: 1, 1\r\n\r\nx"), "!400 *"},
    {"length +1", TRACE_IN(POST "Content-Length: +1\r\n\r\nx"), "!400 *"},
    {"length -1", TRACE_IN(POST "Content-Length: -1\r\n\r\nx"), "!400 *"},
    {"length in hex", TRACE_IN(POST "Content-Length: 0x1\r\n\r\nx"), "!400 *"},
    {"length with a space", TRACE_IN(POST "Content-Length: 1 1\r\n\r\nx"), "!400 *"},
    {"empty length", TRACE_IN(POST "Content-Length: \r\n\r\n"), "!400 *"},
    {"length no number", TRACE_IN(POST "Content-Length: one\r\n\r\n"), "!400 *"},
    {"chunked", TRACE_IN(CHUNKED "5\r\nhello\r\n0\r\n\r\n"), POSTED " [hello] ."},
    {"chunked, several", TRACE_IN(CHUNKED "2\r\nhe\r\n00a\r\nllo, world\r\n0\r\n\r\n" GET "\r\n"),
     POSTED " [hello, world] . " GOT " ."},
    {"chunked, capitals",
     TRACE_IN(POST "Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"),
     POSTED " [0123456789] ."},
    {"chunked, empty", TRACE_IN(CHUNKED "0\r\n\r\n"), POSTED " ."},
    {"chunked, 16 digits", TRACE_IN(CHUNKED "0000000000000001\r\nx\r\n0000000000000000\r\n\r\n"),
     POSTED " [x] ."},
    {"chunked, cut in a size", TRACE_IN(CHUNKED "5"), POSTED " cut"},
    {"chunked, cut in data", TRACE_IN(CHUNKED "5\r\nhel"), POSTED " [hel] cut"},
    {"chunked, cut before the last CRLF", TRACE_IN(CHUNKED "0\r\n"), POSTED " cut"},
    {"chunked, CR LF as data", TRACE_IN(CHUNKED "4\r\n\r\n\r\n\r\n0\r\n\r\n"),
     POSTED " [\r\n\r\n] ."},
    {"chunked, GET", TRACE_IN(GET "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "GET / a 1 keep chunked ."},
    {"chunk extensions", TRACE_IN(CHUNKED "1;a\r\nx\r\n1;b=c;d=\"e f\"\r\ny\r\n0;g\r\n\r\n"),
     POSTED " [xy] ."},
    {"chunk extension with LF", TRACE_IN(CHUNKED "1;a\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid character in a chunk extension"},
    {"chunk extension with CR", TRACE_IN(CHUNKED "1;a\rb\r\nx\r\n0\r\n\r\n"), POSTED " !400 *"},
    {"chunk extension with LF in quotes", TRACE_IN(CHUNKED "1;a=\"\n\"\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 *"},
    {"chunk extension with NUL", TRACE_IN(CHUNKED "1;a=\0\r\nx\r\n0\r\n\r\n"), POSTED " !400 *"},
    {"no chunk size", TRACE_IN(CHUNKED "\r\nx\r\n0\r\n\r\n"), POSTED " !400 invalid chunk size"},
    {"extension for a size", TRACE_IN(CHUNKED ";a\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"chunk size no number", TRACE_IN(CHUNKED "x\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"chunk size with 0x", TRACE_IN(CHUNKED "0x1\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"chunk size with a sign", TRACE_IN(CHUNKED "+1\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"space before a chunk size", TRACE_IN(CHUNKED " 1\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"space behind a chunk size", TRACE_IN(CHUNKED "1 \r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"space before an extension", TRACE_IN(CHUNKED "1 ;a\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"chunk size, 17 digits", TRACE_IN(CHUNKED "00000000000000001\r\nx\r\n0\r\n\r\n"),
     POSTED " !400 chunk size too large"},
    {"chunk size, 64 bits", TRACE_IN(CHUNKED "ffffffffffffffff\r\nx"),
     POSTED " !400 chunk size too large"},
    {"chunk size, 63 bits", TRACE_IN(CHUNKED "7fffffffffffffff\r\nx"), POSTED " [x] cut"},
    {"bare LF behind a chunk size", TRACE_IN(CHUNKED "1\nx\r\n0\r\n\r\n"),
     POSTED " !400 invalid chunk size"},
    {"bare CR behind a chunk size", TRACE_IN(CHUNKED "1\rx\r\n0\r\n\r\n"),
     POSTED " !400 carriage return without line feed"},
    {"chunk too long", TRACE_IN(CHUNKED "1\r\nxy\r\n0\r\n\r\n"),
     POSTED " [x] !400 chunk data longer than its size"},
    {"chunk too short", TRACE_IN(CHUNKED "3\r\nx\r\n0\r\n\r\n"),
     POSTED " [x\r\n] !400 chunk data longer than its size"},
    {"bare LF behind a chunk", TRACE_IN(CHUNKED "1\r\nx\n0\r\n\r\n"), POSTED " [x] !400 *"},
    {"bare CR behind a chunk", TRACE_IN(CHUNKED "1\r\nx\r0\r\n\r\n"), POSTED " [x] !400 *"},
    {"no CRLF behind a chunk", TRACE_IN(CHUNKED "1\r\nx0\r\n\r\n"), POSTED " [x] !400 *"},
    {"bare LF at the end", TRACE_IN(CHUNKED "0\r\n\n"),
     POSTED " !400 line feed without carriage return"},
    {"both", TRACE_IN(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "!400 *"},
    {"both, other order",
     TRACE_IN(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), "!400 *"},
    {"chunked in HTTP/1.0",
     TRACE_IN("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "!400 Transfer-Encoding in HTTP/1.0"},
    {"chunked twice",
     TRACE_IN(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "!400 *"},
    {"chunked twice in a list",
     TRACE_IN(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), "!400 *"},
    {"gzip", TRACE_IN(POST "Transfer-Encoding: gzip\r\n\r\n"),
     "!501 transfer coding not supported"},
    {"gzip and chunked", TRACE_IN(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
     "!501 transfer coding not supported"},
    {"chunked and gzip", TRACE_IN(POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
     "!400 *"},
    {"identity", TRACE_IN(POST "Transfer-Encoding: identity\r\n\r\n"),
     "!501 transfer coding not supported"},
    {"nearly chunked", TRACE_IN(POST "Transfer-Encoding: xchunked\r\n\r\n"),
     "!501 transfer coding not supported"},
    {"chunked with a parameter", TRACE_IN(POST "Transfer-Encoding: chunked;q=1\r\n\r\n"), "!400 *"},
    {"chunked in quotes", TRACE_IN(POST "Transfer-Encoding: \"chunked\"\r\n\r\n"), "!400 *"},
    {"chunked with a comma", TRACE_IN(POST "Transfer-Encoding: ,chunked\r\n\r\n"), "!400 *"},
    {"empty coding", TRACE_IN(POST "Transfer-Encoding:\r\n\r\n"), "!400 *"},
    {"vertical tab in the coding",
     TRACE_IN(POST "Transfer-Encoding: \x0b"
                   "chunked\r\n\r\n"),
     "!400 control character"},
};

static const trace_row trailers[] = {
    {"one", TRACE_IN(CHUNKED "1\r\nx\r\n0\r\nX-Sum: 1 \r\n\r\n"), POSTED " [x] {X-Sum=1} ."},
    {"two, then another request", TRACE_IN(CHUNKED "0\r\nA:\r\nB: c\r\n\r\n" GET "\r\n"),
     POSTED " {A=-} {B=c} . " GOT " ."},
    {"cut", TRACE_IN(CHUNKED "0\r\nA: b\r\n"), POSTED " cut"},
    {"folded", TRACE_IN(CHUNKED "0\r\nA: b\r\n c\r\n\r\n"), POSTED " !400 folded field line"},
    {"space first", TRACE_IN(CHUNKED "0\r\n A: b\r\n\r\n"),
     POSTED " !400 white space before the first field"},
    {"space before the colon", TRACE_IN(CHUNKED "0\r\nA : b\r\n\r\n"),
     POSTED " !400 white space in or after a field name"},
    {"bare LF", TRACE_IN(CHUNKED "0\r\nA: b\n\r\n"),
     POSTED " !400 line feed without carriage return"},
    {"request for a trailer", TRACE_IN(CHUNKED "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
     POSTED " !400 white space in or after a field name"},
    {"length", TRACE_IN(CHUNKED "0\r\nContent-Length: 5\r\n\r\n"), POSTED " !400 *"},
    {"coding", TRACE_IN(CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n"), POSTED " !400 *"},
    {"look-alike of coding", TRACE_IN(CHUNKED "0\r\ntransfer_encoding: chunked\r\n\r\n"),
     POSTED " !400 field that must not be a trailer"},
    {"Host", TRACE_IN(CHUNKED "0\r\nHost: b\r\n\r\n"),
     POSTED " !400 field that must not be a trailer"},
    {"Authorization", TRACE_IN(CHUNKED "0\r\nAuthorization: b\r\n\r\n"),
     POSTED " !400 field that must not be a trailer"},
    {"X-Forwarded-For", TRACE_IN(CHUNKED "0\r\nX_Forwarded-For: b\r\n\r\n"),
     POSTED " !400 field that must not be a trailer"},
};

#define CHECK(rows)                                                                                \
    trace_check_all((trace){.is_request = true}, NULL, rows, sizeof rows / sizeof *rows)

static void test_plain(void **state)
{
    (void)state;
    CHECK(plain);
}

static void test_start_lines(void **state)
{
    (void)state;
    CHECK(start_lines);
}

static void test_hosts(void **state)
{
    (void)state;
    CHECK(hosts);
}

static void test_fields(void **state)
{
    (void)state;
    CHECK(fields);
}

static void test_bodies(void **state)
{
    (void)state;
    CHECK(bodies);
}

static void test_trailers(void **state)
{
    (void)state;
    CHECK(trailers);
}

/* --- limits ----------------------------------------------------------------------------------- */

/* prefix, n times text, suffix; to be freed by tnl_buf_free(). */
static tnl_buf repeated(const char *prefix, const char *text, size_t n, const char *suffix)
{
    tnl_buf b;
    tnl_buf_init(&b, 1 << 20);
    assert_int_equal(tnl_buf_adds(&b, prefix), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tnl_buf_adds(&b, text), 0);
    assert_int_equal(tnl_buf_adds(&b, suffix), 0);
    return b;
}

static void check_repeated(const tnl_http_limits *limits, const char *prefix, const char *text,
                           size_t n, const char *suffix, const char *expected)
{
    tnl_buf b = repeated(prefix, text, n, suffix);
    trace_row row = {text, (const char *)tnl_buf_bytes(&b), tnl_buf_len(&b), expected};
    trace t = {.is_request = true};
    trace_check(t, limits, &row, 0);
    trace_check(t, limits, &row, SIZE_MAX);
    for (size_t cut = 1; cut < row.size; cut += 61)
        trace_check(t, limits, &row, cut);
    tnl_buf_free(&b);
}

static void test_limits(void **state)
{
    const tnl_http_limits small = {.max_head = 1024, .max_fields = 8};
    const size_t line = strlen("GET / HTTP/1.1\r\n"), head = strlen(GET "X: \r\n\r\n");
    (void)state;

    check_repeated(&small, GET "X: ", "x", 1024 - head, "\r\n\r\n", GOT " .");
    check_repeated(&small, GET "X: ", "x", 1025 - head, "\r\n\r\n", "!431 header fields too large");
    check_repeated(&small, GET, "X: y\r\n", 7, "\r\n", GOT " .");
    check_repeated(&small, GET, "X: y\r\n", 8, "\r\n", "!431 too many header fields");
    check_repeated(&small, "GET /", "x", 1025 - line, " HTTP/1.1\r\n", "!414 start line too long");
    check_repeated(&small, "", "A", 2000, "", "!414 start line too long");
    check_repeated(NULL, GET, "X: y\r\n", 99, "\r\n", GOT " .");
    check_repeated(NULL, GET, "X: y\r\n", 100, "\r\n", "!431 too many header fields");
    check_repeated(NULL, GET "X: ", "x", 32768, "\r\n\r\n", "!431 header fields too large");
    check_repeated(NULL, CHUNKED "1;", "x", 1024, "\r\nx\r\n0\r\n\r\n", POSTED " [x] .");
    check_repeated(NULL, CHUNKED "1;", "x", 1025, "\r\nx\r\n0\r\n\r\n",
                   POSTED " !400 too many chunk extensions");
    check_repeated(NULL, CHUNKED, "1;12345678\r\nx\r\n", 128, "0;a\r\n\r\n", POSTED " [*");
    check_repeated(NULL, CHUNKED "0\r\n", "A: b\r\n", 64, "\r\n", POSTED " {A=b} *");
    check_repeated(NULL, CHUNKED "0\r\n", "A: b\r\n", 65, "\r\n",
                   POSTED " !431 too many header fields");
    check_repeated(NULL, CHUNKED "0\r\nA: ", "x", 8192 - 7, "\r\n\r\n", POSTED " {A=x*");
    check_repeated(NULL, CHUNKED "0\r\nA: ", "x", 8192 - 6, "\r\n\r\n",
                   POSTED " !431 header fields too large");
}

static void test_limits_out_of_range(void **state)
{
    static const tnl_http_limits bad[] = {
        {.max_head = 1023}, {.max_head = (1 << 20) + 1}, {.max_fields = 129}};
    tnl_http_parser *p;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tnl_http_parser_new(&p, true, &bad[i], &trace_events, NULL),
                         TUNNEL_E_INVALID);
}

/* --- the interface ---------------------------------------------------------------------------- */

static tnl_http_parser *new_parser(trace *t)
{
    tnl_http_parser *p;
    tnl_buf_init(&t->text, 1 << 16);
    t->is_request = true;
    assert_int_equal(tnl_http_parser_new(&p, true, NULL, &trace_events, t), 0);
    return p;
}

static void test_idle(void **state)
{
    trace t = {0};
    tnl_http_parser *p = new_parser(&t);
    size_t used;
    (void)state;

    assert_true(tnl_http_idle(p));
    assert_int_equal(tnl_http_eof(p), 0);
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)"\r\n", 2, &used), 0);
    assert_true(tnl_http_idle(p));
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)"G", 1, &used), 0);
    assert_false(tnl_http_idle(p));
    tnl_http_next(p);
    assert_false(tnl_http_idle(p)); /* in mid-message it changes nothing */
    assert_int_equal(
        tnl_http_feed(p, (const uint8_t *)"ET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 29, &used), 0);
    assert_int_equal(used, 26);
    assert_int_equal(tnl_http_error_status(p), 0);
    assert_string_equal(tnl_http_why(p), "");
    assert_false(tnl_http_idle(p));
    assert_int_equal(tnl_http_eof(p), 0);
    tnl_http_next(p);
    assert_true(tnl_http_idle(p));
    tnl_http_parser_free(p);
    tnl_http_parser_free(NULL);
    tnl_buf_free(&t.text);
}

/* Spans of the head stay valid until the next message, and bodies are pieces of the input. */
typedef struct kept {
    const tnl_http_head *head;
    const uint8_t *body;
    int answer;
} kept;

static int keep_head(void *user, const tnl_http_head *h)
{
    kept *k = user;
    k->head = h;
    return 0;
}

static int keep_body(void *user, const uint8_t *p, size_t n)
{
    kept *k = user;
    assert_int_equal(n, 3);
    k->body = p;
    return k->answer;
}

static int keep_end(void *user)
{
    (void)user;
    return 0;
}

static void test_spans(void **state)
{
    static const tnl_http_events events = {.head = keep_head, .body = keep_body, .end = keep_end};
    const char *head = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y z \r\nx: 2\r\n\r\n";
    kept k = {0};
    tnl_http_parser *p;
    size_t used;
    (void)state;

    assert_int_equal(tnl_http_parser_new(&p, true, NULL, &events, &k), 0);
    char *copy = strdup(head);
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)copy, strlen(copy), &used), 0);
    free(copy);
    const uint8_t *body = (const uint8_t *)"abc";
    assert_int_equal(tnl_http_feed(p, body, 3, &used), 0);
    assert_ptr_equal(k.body, body);
    assert_true(tnl_http_is(k.head->method, "PUT"));
    assert_true(tnl_http_is(k.head->target, "/X"));
    assert_int_equal(k.head->field_count, 4);
    assert_true(tnl_http_is(tnl_http_find(k.head, "X")->value, "y z"));
    assert_true(tnl_http_is(k.head->fields[3].name, "x"));
    assert_null(tnl_http_find(k.head, "Y"));
    tnl_http_parser_free(p);
}

static void test_callback_stops(void **state)
{
    static const tnl_http_events events = {.head = keep_head, .body = keep_body, .end = keep_end};
    const char *input = POST "Content-Length: 3\r\n\r\nabc";
    kept k = {.answer = TUNNEL_E_CANCELED};
    tnl_http_parser *p;
    size_t used;
    (void)state;

    assert_int_equal(tnl_http_parser_new(&p, true, NULL, &events, &k), 0);
    assert_int_equal(tnl_http_feed(p, (const uint8_t *)input, strlen(input), &used),
                     TUNNEL_E_CANCELED);
    assert_int_equal(tnl_http_error_status(p), 500);
    assert_int_equal(tnl_http_eof(p), TUNNEL_E_CANCELED);
    tnl_http_parser_free(p);
}

static tnl_http_span span(const char *s)
{
    return (tnl_http_span){s, strlen(s)};
}

static void test_helpers(void **state)
{
    tnl_http_field f[] = {{span("Connection"), span("close, X-Foo")},
                          {span("TE"), span("trailers")},
                          {span("connection"), span("bar")}};
    tnl_http_head h = {.fields = f, .field_count = 3};
    (void)state;

    assert_true(tnl_http_is(span("ABC"), "abc"));
    assert_false(tnl_http_is(span("ABC"), "ab"));
    assert_false(tnl_http_is(span("AB"), "abc"));
    assert_true(tnl_http_looks_like(span("x_Forwarded-FOR"), "X-Forwarded-For"));
    assert_false(tnl_http_looks_like(span("X-Forwarded-Fo"), "X-Forwarded-For"));
    assert_true(tnl_http_has_token(&h, "Connection", "CLOSE"));
    assert_true(tnl_http_has_token(&h, "Connection", "bar"));
    assert_false(tnl_http_has_token(&h, "Connection", "foo"));
    assert_true(tnl_http_is_hop_by_hop(&h, span("x-foo")));
    assert_true(tnl_http_is_hop_by_hop(&h, span("BAR")));
    assert_true(tnl_http_is_hop_by_hop(&h, span("Keep_Alive")));
    assert_true(tnl_http_is_hop_by_hop(&h, span("proxy-authorization")));
    assert_false(tnl_http_is_hop_by_hop(&h, span("Trailer")));
    assert_false(tnl_http_is_hop_by_hop(&h, span("Proxy-Status")));
    assert_string_equal(tnl_http_reason(502), "Bad Gateway");
    assert_string_equal(tnl_http_reason(599), "Server Error");
    assert_string_equal(tnl_http_reason(999), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_start_lines),
        cmocka_unit_test(test_hosts),          cmocka_unit_test(test_fields),
        cmocka_unit_test(test_bodies),         cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_limits_out_of_range),
        cmocka_unit_test(test_idle),           cmocka_unit_test(test_spans),
        cmocka_unit_test(test_callback_stops), cmocka_unit_test(test_helpers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
