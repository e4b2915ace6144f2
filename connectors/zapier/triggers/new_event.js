'use strict';

const { gateway } = require('../http');

/** Asks the gateway to post each event of the chosen type to the Zap. What it answers is kept for unsubscribing. */
const performSubscribe = async (z, bundle) => {
  const response = await z.request({
    method: 'POST',
    url: `${gateway(bundle)}/v1/hooks`,
    body: { targetUrl: bundle.targetUrl, event: bundle.inputData.event },
  });
  return response.data;
};

/** Ends it. The gateway answers the same when it had ended already. */
const performUnsubscribe = async (z, bundle) => {
  const id = encodeURIComponent(bundle.subscribeData.id);
  const response = await z.request({ method: 'DELETE', url: `${gateway(bundle)}/v1/hooks/${id}` });
  return response.data || {};
};

/** An event that the gateway posted. */
const perform = (z, bundle) => [bundle.cleanedRequest];

/** The newest events of the type as they would be posted, newest first; a made-up one where there is none yet. */
const performList = async (z, bundle) => {
  const response = await z.request({
    url: `${gateway(bundle)}/v1/hooks/samples`,
    params: { event: bundle.inputData.event },
  });
  return response.data;
};

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const fieldType = (value) => {
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value === 'string' && TIME.test(value) ? 'datetime' : 'string';
};

const title = (key) =>
  key
    .split('_')
    .map((word) => (word === 'id' ? 'ID' : word.charAt(0).toUpperCase() + word.slice(1)))
    .join(' ');

/** Names for the fields of the chosen type, by the gateway's sample of it. Lists and objects name themselves in Zapier. */
const outputFields = async (z, bundle) => {
  const response = await z.request({ url: `${gateway(bundle)}/v1/event-types` });
  const chosen = response.data.items.find(({ type }) => type === bundle.inputData.event);
  return Object.entries((chosen && chosen.sample) || {})
    .filter(([key, value]) => key !== 'id' && (value === null || typeof value !== 'object'))
    .map(([key, value]) => ({ key, label: title(key), type: fieldType(value) }));
};

module.exports = {
  key: 'new_event',
  noun: 'Event',
  display: {
    label: 'New Event',
    description: 'Triggers when an event of the chosen type happens, such as a captured lead.',
  },
  operation: {
    type: 'hook',
    inputFields: [
      {
        key: 'event',
        label: 'Event',
        type: 'string',
        required: true,
        dynamic: 'event_type.id.description',
        altersDynamicFields: true,
        helpText: 'What the Zap waits for.',
      },
    ],
    performSubscribe,
    performUnsubscribe,
    perform,
    performList,
    // What every event has, whatever its type.
    sample: {
      source: 'bot_acme_plumbing',
      id: 'lead_7f3a9c21',
      event: 'lead.captured',
      occurred_at: '2026-05-03T14:22:08Z',
    },
    outputFields: [
      { key: 'id', label: 'ID', type: 'string', primary: true },
      { key: 'event', label: 'Event', type: 'string' },
      { key: 'occurred_at', label: 'Occurred At', type: 'datetime' },
      { key: 'source', label: 'Source', type: 'string' },
      outputFields,
    ],
  },
};
