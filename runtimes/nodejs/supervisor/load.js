'use strict';
// What /load brings: the revision that a worker serves.

const MAX_LINE = 1024 * 1024; // bytes of the line of JSON before the package, with its line feed
const MAX_CONCURRENCY = 1024;

/** The body of /load cannot be used. */
class LoadError extends Error {}

/**
 * Parse the first line of /load (a Buffer): {secret, revision}. `concurrency` is for a line that has none,
 * `carried` ({entry, path} or null) for one whose entry is null. Throws LoadError. Handlers get parts of the
 * revision: the secret is none of it.
 */
function parseLine(line, concurrency, carried) {
  let fields;
  try {
    fields = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line));
  } catch (error) {
    throw new LoadError(`the first line is not JSON: ${error.message}`);
  }
  if (!isObject(fields)) throw new LoadError('the first line is not a JSON object');
  if (fields.entry === null) Object.assign(fields, carriedBy(fields, carried));
  const take = (name, valid, otherwise) => field(fields, name, valid, otherwise);
  const labels = take('labels', isObject, {});
  return {
    secret: Buffer.from(take('secret', isHeaderValue), 'latin1'),
    revision: {
      entry: take('entry', isEntry),
      concurrency: take('concurrency', isInteger(1, MAX_CONCURRENCY), concurrency),
      path: take('path', isPath, null), // directory of the unpacked package; null: the package follows
      importTimeout: take('import_timeout', (value) => typeof value === 'number' && value > 0 && value < 1e9),
      maxResult: take('max_result', isInteger(1, 2 ** 31 - 1)), // bytes
      maxLog: take('max_log', isInteger(0, 2 ** 31 - 1)), // bytes
      environment: take('environment', isEnvironment, {}),
      functionId: labels.function_id ?? null,
      functionVersion: labels.function_version ?? null,
    },
  };
}

function carriedBy(fields, carried) {
  if ((fields.path ?? null) !== null) throw new LoadError('there is a path and no entry');
  if (carried === null) {
    throw new LoadError('this worker carries no function: what it was made of names no entry of one');
  }
  return carried;
}

function field(fields, name, valid, otherwise) {
  const value = Object.hasOwn(fields, name) ? fields[name] : otherwise;
  if (value === undefined) throw new LoadError(`'${name}' is missing`);
  if (!valid(value)) throw new LoadError(`'${name}' has a value that cannot be used`);
  return value;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isHeaderValue(value) {
  return typeof value === 'string' && /^[!-~]{1,255}$/.test(value);
}

function isEntry(value) {
  return typeof value === 'string' && /^.+\.[^.]+$/s.test(value);
}

function isPath(value) {
  return value === null || (typeof value === 'string' && value.startsWith('/') && !value.includes('\0'));
}

function isInteger(least, most) {
  return (value) => Number.isInteger(value) && value >= least && value <= most;
}

function isEnvironment(value) {
  return (
    isObject(value) &&
    Object.entries(value).every(
      ([name, text]) => /^[^=\0]+$/.test(name) && typeof text === 'string' && !text.includes('\0'),
    )
  );
}

module.exports = { LoadError, MAX_LINE, parseLine };
