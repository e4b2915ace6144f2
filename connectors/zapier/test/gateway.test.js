'use strict';

// The integration as Zapier runs it, against a running gateway.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const zapier = require('zapier-platform-core');

const App = require('../index');
const { url, operatorKey, call, makeTenant, openZap } = require('./support');

const appTester = zapier.createAppTester(App);
const { operation } = App.triggers.new_event;
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

let acme;
let other;
let zap;

before(async () => {
  acme = await makeTenant('acme');
  other = await makeTenant('other');
  zap = await openZap();
});
after(() => zap.close());

const bundle = (more) => ({
  // Someone may well leave a slash at the end.
  authData: { gateway_url: `${url}/`, api_key: acme.zapierKey },
  inputData: { event: 'lead.captured' },
  ...more,
});

const lead = (id) => ({
  id,
  type: 'lead.captured',
  source: 'bot_1',
  data: { conversation_id: 'conv_1', lead: { name: 'Ada Lovelace', email: 'Ada@Example.com' } },
});

const publish = (tenant, event) => call(tenant.platformKey, 'POST', '/v1/events', event);
const subscribe = (targetUrl) => appTester(operation.performSubscribe, bundle({ targetUrl }));
const unsubscribe = (subscribeData) => appTester(operation.performUnsubscribe, bundle({ subscribeData }));
const samples = (inputData) => appTester(operation.performList, bundle({ inputData }));
const listed = async () => (await call(operatorKey, 'GET', `/v1/hooks?tenant=${acme.id}`)).items;
const types = (object) => Object.entries(object).map(([key, value]) => [key, value === null ? null : typeof value]);

test('an account is named by its customer and key, without the key', async () => {
  const me = await appTester(App.authentication.test, bundle());
  assert.equal(me.label, 'Acme Plumbing (Zapier)');
  assert.ok(!JSON.stringify(me).includes(acme.zapierKey));
});

test('a wrong key is told in words', async () => {
  const wrong = bundle({ authData: { gateway_url: url, api_key: 'pb_wrong' } });
  await assert.rejects(appTester(App.authentication.test, wrong), (error) => {
    const { message, code, status } = JSON.parse(error.message);
    assert.deepEqual([code, status], ['AuthenticationError', 401]);
    assert.match(message, /no such key/);
    return true;
  });
});

test('the drop-down has every event type once, described', async () => {
  const found = await appTester(App.triggers.event_type.operation.perform, bundle());
  assert.ok(found.some(({ id }) => id === 'lead.captured'));
  assert.equal(new Set(found.map(({ id }) => id)).size, found.length);
  assert.ok(found.every(({ description }) => description.length > 0));
});

test('without history there is a made-up sample, and never that of another customer', async () => {
  await publish(other, lead('lead-of-other'));
  const found = await samples({ event: 'lead.captured' });
  assert.equal(found.length, 1);
  assert.ok(!JSON.stringify(found).includes('Lovelace'));
});

test('the address that stands for a Zap in the editor is taken, and given back twice', async () => {
  const hook = await subscribe('https://hooks.zapier.com/fake-subscription-url');
  assert.ok(hook.id);
  await unsubscribe(hook);
  await unsubscribe(hook);
  assert.ok((await listed()).every(({ id }) => id !== hook.id));
});

test('a Zap receives what its samples showed, until it is turned off', async () => {
  const [madeUp] = await samples({ event: 'lead.captured' });
  const [mine, twin] = [await subscribe(zap.targetUrl), await subscribe(`${zap.targetUrl}twin`)];
  assert.notEqual(mine.id, twin.id);
  await publish(acme, lead('lead-1'));
  await zap.next(2);
  const [posted, alike] = zap.arrived.map(({ body }) => body);
  assert.deepEqual(posted, alike);

  // Zapier hands the body over as it came.
  const results = await appTester(operation.perform, bundle({ cleanedRequest: posted }));
  assert.deepEqual(results, [posted]);

  const [newest, ...older] = await samples({ event: 'lead.captured' });
  assert.deepEqual(newest, posted, 'the sample of an event is what was posted for it');
  assert.deepEqual(older, []);
  assert.deepEqual(Object.keys(madeUp), Object.keys(posted), 'a made-up sample has the same keys');
  const known = new Map(types(posted).filter(([, type]) => type));
  for (const [key, type] of types(madeUp)) {
    assert.ok(!type || !known.has(key) || known.get(key) === type, `${key} is of one type`);
  }
  for (const key of Object.keys(operation.sample)) {
    assert.equal(typeof posted[key], typeof operation.sample[key], `the static sample's ${key}`);
  }
  assert.match(posted.occurred_at, ISO_TIME);

  const makeFields = operation.outputFields.find((field) => typeof field === 'function');
  const fields = await appTester(makeFields, bundle());
  for (const { key } of fields) {
    assert.ok(key in posted, `the announced field ${key} is there`);
  }

  await unsubscribe(mine);
  await publish(acme, lead('lead-2'));
  const { body } = await zap.next(3);
  assert.equal(body.id, 'lead-2');
  await unsubscribe(twin);
  assert.equal(zap.arrived.length, 3, 'the Zap that was turned off received nothing more');
  const ids = (await samples({ event: 'lead.captured' })).map(({ id }) => id);
  assert.deepEqual(ids, ['lead-2', 'lead-1'], 'newest first, each once');
});

test('a Zap that is gone is forgotten', async () => {
  const gone = await openZap();
  gone.status = 410;
  const hook = await subscribe(gone.targetUrl);
  await publish(acme, lead('lead-3'));
  await gone.next(1);
  const deadline = Date.now() + 20_000;
  const state = async () => (await listed()).find(({ id }) => id === hook.id)?.state.status;
  while ((await state()) !== 'closed') {
    assert.ok(Date.now() < deadline, 'it was not closed');
  }
  gone.close();
});

test('what can not be subscribed to is told in words that help', async () => {
  const unknown = bundle({ targetUrl: zap.targetUrl, inputData: { event: 'lead.capturd' } });
  await assert.rejects(appTester(operation.performSubscribe, unknown), (error) => {
    const { message, status } = JSON.parse(error.message);
    assert.equal(status, 422);
    assert.match(message, /lead\.captured/);
    return true;
  });
  await assert.rejects(subscribe('not a URL'), /422/);
});
