'use strict';

/**
 * The gateway's address without a slash at its end: the one that this integration was pushed with, else the one that the
 * person who connects an account typed.
 */
const gateway = (bundle) =>
  (process.env.GATEWAY_URL || bundle.authData.gateway_url || '').trim().replace(/\/+$/, '');

/** Sends the key with every request, and names what is accepted. */
const addKey = (request, z, bundle) => {
  request.headers = {
    Accept: 'application/json',
    ...request.headers,
    Authorization: `Bearer ${bundle.authData.api_key}`,
  };
  return request;
};

/**
 * Shows a person the gateway's own words: its errors are problem+json (RFC 9457) with a detail, and a hint where there is
 * one. A 429 is left to Zapier, which waits as long as `Retry-After` says.
 */
const explainProblem = (response, z) => {
  if (response.status < 400 || response.status === 429) {
    return response;
  }
  let problem = {};
  try {
    problem = response.data || {};
  } catch (error) {
    // Something between Zapier and the gateway answered, not in JSON.
  }
  const faults = (problem.errors || []).map((fault) => fault.hint && `${fault.message} (${fault.hint})`);
  const words = [problem.detail || `The gateway answered ${response.status}`, problem.hint, ...faults];
  const code = response.status === 401 ? 'AuthenticationError' : problem.code || 'GatewayError';
  throw new z.errors.Error(words.filter(Boolean).join('. '), code, response.status);
};

module.exports = { gateway, addKey, explainProblem };
