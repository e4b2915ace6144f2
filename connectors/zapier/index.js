'use strict';

const authentication = require('./authentication');
const { addKey, explainProblem } = require('./http');
const eventType = require('./triggers/event_type');
const newEvent = require('./triggers/new_event');

module.exports = {
  version: require('./package.json').version,
  platformVersion: require('zapier-platform-core').version,
  flags: { cleanInputData: false },
  authentication,
  beforeRequest: [addKey],
  afterResponse: [explainProblem],
  triggers: {
    [newEvent.key]: newEvent,
    [eventType.key]: eventType,
  },
};
