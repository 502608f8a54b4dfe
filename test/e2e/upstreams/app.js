/* SPDX-License-Identifier: Apache-2.0 */
'use strict';
/* The developer's web app of the end-to-end tests. It says what it saw, and does on request
 * what real apps do: chunked and close-delimited bodies, 1xx, trailers, early answers, events,
 * answers that never come. A second port (control) tells the tests what happened here, past
 * the tunnel. Usage: app.js [--host H] [--port N] [--unix PATH] [--cert FILE --key FILE] */
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const https = require('https');

const options = {host: '127.0.0.1', port: '0', unix: '', cert: '', key: ''};
for (let i = 2; i + 1 < process.argv.length; i += 2)
    options[process.argv[i].replace(/^--/, '')] = process.argv[i + 1];

const stats = {connections: 0, open: 0, requests: 0};
const visits = new Map(); // id -> {seen, closed, ended, bytes, res}
const waiting = [];       // responses held back by /barrier
const reports = [];       // what the browser's page posted

function visit(id) {
    if (!visits.has(id))
        visits.set(id, {seen: 0, closed: 0, ended: 0, bytes: 0, res: null});
    return visits.get(id);
}

/* Counts one request under an id, and its connection closing before the answer was complete. */
function track(id, req, res) {
    const v = visit(id);
    v.seen++;
    v.res = res;
    res.on('close', () => {
        if (!res.writableFinished)
            v.closed++;
    });
    return v;
}

/* n bytes: blocks of 64 KiB, each with its number in front, so that no two are alike. */
const PATTERN = Buffer.alloc(65536, 0);
for (let i = 0; i < PATTERN.length; i++)
    PATTERN[i] = (i * 31 + 7) & 255;

function* blocks(n) {
    for (let index = 0; n > 0; index++) {
        const block = Buffer.from(PATTERN.subarray(0, Math.min(n, PATTERN.length)));
        if (block.length >= 8)
            block.writeBigUInt64BE(BigInt(index), 0);
        n -= block.length;
        yield block;
    }
}

function pour(res, source) {
    const step = () => {
        for (;;) {
            const next = source.next();
            if (next.done)
                return res.end();
            if (!res.write(next.value))
                return void res.once('drain', step);
        }
    };
    step();
}

function json(res, value, status = 200) {
    const text = JSON.stringify(value);
    res.writeHead(status, {'Content-Type': 'application/json',
                           'Content-Length': Buffer.byteLength(text)});
    res.end(text);
}

function echo(req, res) {
    const hash = crypto.createHash('sha256');
    let bytes = 0;
    req.on('data', (d) => { hash.update(d); bytes += d.length; });
    req.on('end', () => json(res, {
        method: req.method, url: req.url, version: req.httpVersion, headers: req.rawHeaders,
        trailers: req.rawTrailers, bytes, sha256: hash.digest('hex'), conn: req.socket.number,
    }));
}

const routes = {
    '/hello': (req, res) => {
        res.writeHead(200, {'Content-Type': 'text/plain', 'Content-Length': 6});
        res.end('hello\n');
    },
    '/echo': echo,
    '/bytes': (req, res, q) => {
        const n = Number(q.get('n'));
        res.writeHead(200, {'Content-Type': 'application/octet-stream', 'Content-Length': n});
        pour(res, blocks(n));
    },
    '/chunked': (req, res, q) => {
        res.writeHead(200, {'Content-Type': 'application/octet-stream'});
        pour(res, blocks(Number(q.get('n'))));
    },
    '/close': (req, res, q) => {
        res.shouldKeepAlive = false;
        res.useChunkedEncodingByDefault = false;
        res.writeHead(200, {'Content-Type': 'application/octet-stream', 'Connection': 'close'});
        pour(res, blocks(Number(q.get('n'))));
    },
    '/status': (req, res, q) => {
        res.writeHead(Number(q.get('code')), {'X-Answer': 'status'});
        res.end();
    },
    '/notmodified': (req, res) => {
        res.writeHead(304, {'ETag': '"e2e"', 'Content-Length': '12345'});
        res.end();
    },
    '/hints': (req, res) => {
        res.writeEarlyHints({'link': '</style.css>; rel=preload; as=style'});
        setImmediate(() => routes['/hello'](req, res));
    },
    '/trailers': (req, res) => {
        res.writeHead(200, {'Trailer': 'X-Checksum', 'Content-Type': 'text/plain'});
        res.write('body with');
        res.addTrailers({'X-Checksum': 'abc123'});
        res.end(' trailers');
    },
    '/early': (req, res) => { // answers an upload without reading it, then hangs up
        res.writeHead(413, {'Content-Length': 9, 'Connection': 'close'});
        res.end('too large');
    },
    '/early-keep': (req, res) => { // answers at once, reads the rest all the same
        res.writeHead(403, {'Content-Length': 6});
        res.end('denied');
        req.resume();
    },
    '/hopheaders': (req, res) => {
        res.writeHead(200, {'Connection': 'X-Hop', 'X-Hop': 'must not travel',
                            'Keep-Alive': 'timeout=5', 'Proxy-Authenticate': 'Basic',
                            'X-End': 'must travel', 'Set-Cookie': ['a=1', 'b=2'],
                            'Content-Length': 2});
        res.end('ok');
    },
    '/barrier': (req, res, q) => { // holds n requests until all n are here
        waiting.push(res);
        if (waiting.length < Number(q.get('n')))
            return;
        for (const held of waiting.splice(0))
            routes['/hello'](req, held);
    },
    '/sse': (req, res, q) => {
        track(q.get('id'), req, res);
        res.writeHead(200, {'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache'});
        res.write(': hi\n\n');
    },
    '/hang': (req, res, q) => {
        track(q.get('id'), req, res);
        req.resume();
    },
    '/stall': (req, res, q) => { // a head, some of the body, then silence
        track(q.get('id'), req, res);
        res.writeHead(200, {'Content-Length': 1000000});
        res.write('some');
    },
    '/pour': (req, res, q) => { // a body without an end, as fast as it is taken
        const v = track(q.get('id'), req, res);
        res.writeHead(200, {'Content-Type': 'application/octet-stream'});
        const endless = (function* () {
            for (;;) {
                v.bytes += PATTERN.length;
                yield PATTERN;
            }
        })();
        pour(res, endless);
    },
    '/sink': (req, res, q) => { // counts what it gets
        const v = track(q.get('id'), req, res);
        req.on('data', (d) => { v.bytes += d.length; });
        req.on('end', () => { v.ended++; json(res, {bytes: v.bytes}); });
        req.on('error', () => {});
    },
    '/report': (req, res) => {
        let text = '';
        req.on('data', (d) => { text += d; });
        req.on('end', () => { reports.push(JSON.parse(text)); json(res, {}); });
    },
    '/browse': (req, res, q) => page(res, q.get('id')),
    '/step': (req, res, q) => { // the page asks for the next event over its EventSource
        const v = visit(q.get('id'));
        v.res.write(`data: event ${q.get('n')}\n\n`);
        json(res, {});
    },
};

/* A page with a hundred subresources and an EventSource whose next event is only sent after the
 * page has seen the one before; it reports what arrived. */
function page(res, id) {
    const parts = [];
    for (let i = 0; i < 40; i++)
        parts.push(`<img src="/res/${i}.svg?id=${id}" onload="ok('img')" onerror="bad(this.src)">`);
    for (let i = 40; i < 75; i++)
        parts.push(`<script src="/res/${i}.js?id=${id}" onerror="bad(this.src)"></script>`);
    for (let i = 75; i < 100; i++)
        parts.push(`<link rel="stylesheet" href="/res/${i}.css?id=${id}" onload="ok('css')"` +
                   ` onerror="bad(this.href)">`);
    const html = `<!doctype html><meta charset="utf-8"><title>e2e</title><script>
const count = {img: 0, js: 0, css: 0}, failed = [], events = [];
let sent = false;
function ok(kind) { count[kind]++; done(); }
function bad(url) { failed.push(url); done(); }
function done() {
    const all = count.img + count.js + count.css + failed.length;
    if (sent || all < 100 || events.length < 5)
        return;
    sent = true;
    const width = getComputedStyle(document.body).getPropertyValue('--last');
    fetch('/report', {method: 'POST', body: JSON.stringify(
        {id: ${JSON.stringify(id)}, count, failed, events, width: width.trim(),
         origin: location.origin})});
}
const source = new EventSource('/sse?id=${id}');
const step = (n) => fetch('/step?id=${id}&n=' + n, {method: 'POST'});
source.onopen = () => step(1);
source.onmessage = (e) => {
    events.push(e.data);
    if (events.length < 5) step(events.length + 1); else { source.close(); done(); }
};
</script><body>${parts.join('\n')}</body>`;
    res.writeHead(200, {'Content-Type': 'text/html; charset=utf-8',
                        'Content-Length': Buffer.byteLength(html)});
    res.end(html);
}

function resource(res, path) {
    const n = Number(/\d+/.exec(path)[0]);
    const filler = 'x'.repeat(n * 131 % 20000);
    let type = 'image/svg+xml';
    let text = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4">' +
               `<!--${filler}--></svg>`;
    if (path.endsWith('.js')) {
        type = 'text/javascript';
        text = `/*${filler}*/ok('js');`;
    } else if (path.endsWith('.css')) {
        type = 'text/css';
        text = `/*${filler}*/ body { --last: ${n}px; }`;
    }
    res.writeHead(200, {'Content-Type': type}); // chunked on purpose
    res.end(text);
}

function handle(req, res) {
    stats.requests++;
    const [path, query] = req.url.split('?', 2); // as it came: nothing normalised
    if (path.startsWith('/res/'))
        return resource(res, path);
    const route = routes[path];
    if (!route)
        return json(res, {error: 'no such page'}, 404);
    route(req, res, new URLSearchParams(query));
}

function handleExpect(req, res) {
    if (req.url.startsWith('/expect/refuse')) {
        res.writeHead(417, {'Content-Length': 7, 'Connection': 'close'});
        return res.end('refused');
    }
    res.writeContinue();
    handle(req, res);
}

const app = options.cert
    ? https.createServer({cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key)})
    : http.createServer();
app.requestTimeout = 0;
app.headersTimeout = 0;
app.timeout = 0;
app.on('request', handle);
app.on('checkContinue', handleExpect);
app.on(options.cert ? 'secureConnection' : 'connection', (socket) => {
    socket.number = ++stats.connections;
    stats.open++;
    socket.on('close', () => { stats.open--; });
    socket.on('error', () => {});
});
app.on('clientError', (error, socket) => socket.destroy());

const control = http.createServer((req, res) => {
    const url = new URL(req.url, 'http://control');
    const id = url.searchParams.get('id');
    if (url.pathname === '/stats')
        return json(res, {...stats, waiting: waiting.length});
    if (url.pathname === '/reports')
        return json(res, reports.filter((r) => r.id === id));
    const v = visit(id);
    if (url.pathname === '/emit')
        v.res.write(`data: ${url.searchParams.get('data')}\n\n`);
    else if (url.pathname === '/finish')
        v.res.end();
    json(res, {seen: v.seen, closed: v.closed, ended: v.ended, bytes: v.bytes});
});

const where = options.unix ? {path: options.unix}
    : {host: options.host, port: Number(options.port), backlog: 2048};
app.listen(where, () => control.listen(0, '127.0.0.1', () => {
    const address = app.address();
    console.log(`ready ${options.unix ? 0 : address.port} ${control.address().port}`);
}));
