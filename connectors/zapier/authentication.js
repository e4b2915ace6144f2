'use strict';

const { gateway } = require('./http');

/** Who the key belongs to; a key that is not known is refused with a 401. */
const test = async (z, bundle) => {
  const response = await z.request({ url: `${gateway(bundle)}/v1/me` });
  return response.data;
};

const address = {
  key: 'gateway_url',
  label: 'Gateway address',
  type: 'string',
  required: true,
  placeholder: 'https://events.example.com',
  helpText: 'Where your gateway is reached from the internet, beginning with https://.',
};

const key = {
  key: 'api_key',
  label: 'API key',
  type: 'password',
  required: true,
  helpText: 'A key with the scope `subscribe`. Whoever runs the gateway makes one for you.',
};

module.exports = {
  type: 'custom',
  // An integration that was pushed with GATEWAY_URL knows its gateway and asks for the key alone.
  fields: process.env.GATEWAY_URL ? [key] : [address, key],
  test,
  // The name of the customer and of the key, never the key itself.
  connectionLabel: '{{label}}',
};
