'use strict';

const http = require('node:http');

const need = (name) => {
  if (!process.env[name]) {
    throw new Error(`${name} is not set: these tests need a running gateway; see README.md, "Test it"`);
  }
  return process.env[name];
};

/** The gateway under test, and the operator's key to it. */
const url = need('PATCHBAY_URL');
const operatorKey = need('PATCHBAY_KEY');

/** One request to the gateway, past the integration; answers the JSON and expects success. */
const call = async (key, method, path, body) => {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`${method} ${path}: ${response.status} ${text}`);
  }
  return text ? JSON.parse(text) : null;
};

/** A customer of its own, with a key for Zapier and one for the platform. */
const makeTenant = async (name) => {
  const id = `${name}-${process.pid}`;
  await call(operatorKey, 'POST', '/v1/tenants', { id, name: 'Acme Plumbing' });
  const makeKey = async (...scopes) => {
    const key = await call(operatorKey, 'POST', '/v1/keys', { tenant: id, scopes, name: 'Zapier' });
    return key.token;
  };
  return { id, zapierKey: await makeKey('subscribe'), platformKey: await makeKey('publish') };
};

/** Plays the part of a Zap's address: keeps what is posted to it and answers with `status`. */
const openZap = async () => {
  const arrived = [];
  const waiting = [];
  const zap = { status: 200, arrived };
  const server = http.createServer((request, response) => {
    let text = '';
    request.on('data', (part) => (text += part));
    request.on('end', () => {
      arrived.push({ method: request.method, body: text && JSON.parse(text) });
      response.writeHead(zap.status).end();
      waiting.splice(0).forEach((wake) => wake());
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  zap.targetUrl = `http://127.0.0.1:${server.address().port}/hooks/standard/42/abc/`;
  zap.close = () => server.close();
  zap.next = async (count) => {
    while (arrived.length < count) {
      await new Promise((resolve) => waiting.push(resolve));
    }
    return arrived[count - 1];
  };
  return zap;
};

module.exports = { url, operatorKey, call, makeTenant, openZap };
