'use strict';

const { gateway } = require('../http');

/** The event types, for the drop-down of "New Event"; no person sees this trigger. */
const perform = async (z, bundle) => {
  const response = await z.request({ url: `${gateway(bundle)}/v1/event-types` });
  return response.data.items.map(({ type, description }) => ({ id: type, description }));
};

module.exports = {
  key: 'event_type',
  noun: 'Event Type',
  display: {
    label: 'New Event Type',
    description: 'Lists the event types of the gateway, for the drop-down of New Event.',
    hidden: true,
  },
  operation: {
    perform,
    sample: { id: 'lead.captured', description: 'A visitor left an email address or a phone number.' },
    outputFields: [
      { key: 'id', label: 'Event Type', type: 'string', primary: true },
      { key: 'description', label: 'Description', type: 'string' },
    ],
  },
};
