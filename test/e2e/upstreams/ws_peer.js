// SPDX-License-Identifier: Apache-2.0
// A WebSocket server, and a client that tries everything with one, on the `ws` of npm. ws_peer.py
// is the same in Python: both say the same words and report in the same form.
//
//   node ws_peer.js serve               prints "ready PORT", then a line for each closed connection
//   node ws_peer.js talk URL PORT [CA]  connects to 127.0.0.1 and URL's port, which PORT is too;
//                                       prints one line of JSON
'use strict';
const http = require('http');
const fs = require('fs');
const crypto = require('crypto');
const WebSocket = require('ws');

const deflate = { threshold: 0 };
const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 8 << 20];

function serve() {
  const server = http.createServer((request, answer) => answer.end('a page\n'));
  const wss = new WebSocket.Server({
    noServer: true, perMessageDeflate: deflate,
    handleProtocols: (offered) => ['three', 'two'].find((p) => offered.has(p)) || false,
  });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {});
    if (request.url === '/refuse') {
      socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n');
      return;
    }
    wss.handleUpgrade(request, socket, head, (ws) => welcome(ws, request.url));
  });
  server.listen(0, '127.0.0.1', () => console.log(`ready ${server.address().port}`));
}

function welcome(ws, path) {
  ws.on('error', () => {});
  ws.on('close', (code, reason) => console.log(`closed ${path} ${code} ${reason}`));
  if (path === '/say') {
    for (const text of ['one', 'two', 'three']) ws.send(text);
    ws.close(1000, 'said');
  }
  ws.on('message', (data, binary) => {
    if (path === '/close') ws.close(4001, 'grüße ☃');
    else if (path === '/die') ws.terminate();
    else if (path === '/fragments') {
      for (const piece of ['a', 'bc', '']) ws.send(piece, { fin: false });
      ws.send('d', { fin: true });
    } else ws.send(data, { binary });
  });
}

function dial(path, options = {}, protocols = []) {
  const [, , , base, , ca] = process.argv;
  const ws = new WebSocket(base + path, protocols, {
    perMessageDeflate: false,
    ca: ca && fs.readFileSync(ca),
    lookup: (host, how, done) => (how.all ? done(null, [{ address: '127.0.0.1', family: 4 }])
      : done(null, '127.0.0.1', 4)),
    ...options,
  });
  ws.inbox = [];
  ws.waiting = [];
  ws.on('message', (data, binary) => {
    const message = binary ? data : data.toString();
    if (ws.waiting.length) ws.waiting.shift()(message);
    else ws.inbox.push(message);
  });
  ws.closed = new Promise((done) => ws.on('close', (code, why) => done([code, why.toString()])));
  return new Promise((done, fail) => {
    ws.on('open', () => done(ws));
    ws.on('error', fail);
    ws.on('unexpected-response', (request, answer) => {
      let body = '';
      answer.on('data', (piece) => { body += piece; });
      answer.on('end', () => {
        done([answer.statusCode, body]);
        request.socket.destroy(); // the connection is kept for further requests
      });
    });
  });
}

const next = (ws) => new Promise((done) => {
  if (ws.inbox.length) done(ws.inbox.shift());
  else ws.waiting.push(done);
});

async function echoes(ws, message) {
  ws.send(message);
  const got = await next(ws);
  return typeof message === 'string' ? got === message : Buffer.compare(got, message) === 0;
}

async function echo(options) {
  const ws = await dial('/echo', options);
  const all = [];
  for (const size of SIZES) {
    all.push(await echoes(ws, 'ü'.repeat(size / 2)));
    all.push(await echoes(ws, options.perMessageDeflate ? Buffer.alloc(size, 'abcd')
      : crypto.randomBytes(size)));
  }
  ws.close(3001, 'done');
  return [all.length, all.every(Boolean), ws.extensions, ...(await ws.closed)];
}

const tries = {
  plain: () => echo({}),
  deflate: () => echo({ perMessageDeflate: deflate }),
  bounded_deflate: () => echo({ perMessageDeflate: { ...deflate, serverNoContextTakeover: true,
    clientNoContextTakeover: true } }),
  async subprotocol() {
    const ws = await dial('/echo', {}, ['one', 'two']);
    ws.close(1000);
    return [ws.protocol, ...(await ws.closed)];
  },
  async said_at_once() {
    const ws = await dial('/say');
    const words = [await next(ws), await next(ws), await next(ws)];
    return [...words, ...(await ws.closed)];
  },
  async fragments() {
    const ws = await dial('/fragments');
    ws.send('please');
    const got = await next(ws);
    ws.send('in', { fin: false });
    ws.send('', { fin: false });
    ws.send('pieces', { fin: true });
    const again = await next(ws);
    ws.close(1000);
    return [got, again, ...(await ws.closed)];
  },
  async closed_by_the_server() {
    const ws = await dial('/close');
    ws.send('close');
    return ws.closed;
  },
  async server_dies() {
    const ws = await dial('/die');
    ws.send('die');
    return ws.closed;
  },
  async client_dies() {
    const ws = await dial('/echo');
    await echoes(ws, 'alive');
    ws.terminate();
    return [true];
  },
  async ping() {
    const ws = await dial('/echo');
    const pong = new Promise((done) => ws.on('pong', (data) => done(data.toString())));
    ws.ping('are you there');
    const got = await pong;
    ws.close(1000);
    return [got, ...(await ws.closed)];
  },
  refused: () => dial('/refuse'),
  async many() {
    const one = async (n) => {
      const ws = await dial('/echo');
      const all = [];
      for (let i = 0; i < 20; i++) all.push(await echoes(ws, `${n} ${i} ${'x'.repeat(n * i)}`));
      ws.close(1000);
      return all.every(Boolean) && (await ws.closed)[0] === 1000;
    };
    const all = await Promise.all([...Array(50).keys()].map(one));
    return [all.length, all.every(Boolean)];
  },
};

async function talk() {
  const report = {};
  for (const [name, attempt] of Object.entries(tries)) report[name] = await attempt();
  console.log(JSON.stringify(report));
}

if (process.argv[2] === 'serve') serve();
else talk().catch((error) => { console.error(error); process.exit(1); });
