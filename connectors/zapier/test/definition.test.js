'use strict';

// What Zapier's own schema says of the integration; needs no gateway.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const zapier = require('zapier-platform-core');

const App = require('../index');

// What `zapier-platform validate` runs before it asks Zapier's servers.
const validate = async (app) => (await zapier.createAppHandler(app)({ command: 'validate' })).results;

test('the integration passes the schema of Zapier', async () => {
  assert.deepEqual(await validate(App), []);
});

test('the schema would have found a fault', async () => {
  const broken = { ...App, triggers: { other_key: { ...App.triggers.new_event, noun: 42 } } };
  assert.notDeepEqual(await validate(broken), []);
});

test('a person sees one trigger, which can be subscribed to, ended and tested', () => {
  const visible = Object.values(App.triggers).filter(({ display }) => !display.hidden);
  assert.deepEqual(visible.map(({ key }) => key), ['new_event']);
  for (const part of ['performSubscribe', 'performUnsubscribe', 'perform', 'performList']) {
    assert.equal(typeof visible[0].operation[part], 'function', part);
  }
  assert.match(visible[0].display.description, /^Triggers when .*\.$/);
});

test('the static samples have the fields that are announced', () => {
  for (const { key, operation } of Object.values(App.triggers)) {
    const announced = operation.outputFields.filter(({ key: name }) => name).map(({ key: name }) => name);
    assert.deepEqual(Object.keys(operation.sample).sort(), announced.sort(), key);
  }
});

test('the key is asked for as a password, and where the gateway is only when it is not known', () => {
  const fields = App.authentication.fields;
  assert.deepEqual(fields.map(({ key, type }) => [key, type]), [['gateway_url', 'string'], ['api_key', 'password']]);
  process.env.GATEWAY_URL = 'https://events.example.com/';
  try {
    delete require.cache[require.resolve('../authentication')];
    assert.deepEqual(require('../authentication').fields.map(({ key }) => key), ['api_key']);
    assert.equal(require('../http').gateway({ authData: {} }), 'https://events.example.com');
  } finally {
    delete process.env.GATEWAY_URL;
    delete require.cache[require.resolve('../authentication')];
  }
});
