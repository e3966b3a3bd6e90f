'use strict';
// The subset of HTTP/1.1 that workers speak; see the page "The worker protocol".

const MAX_HEAD = 8 * 1024; // bytes of request line and headers, with the empty line after them
const MAX_INPUT = 16 * 1024 * 1024; // bytes of an /invoke body
const MAX_LOAD = 64 * 1024 * 1024 + 1024 * 1024; // bytes of a /load body: a package and the line before it
const MAX_QUOTED = 6 * 1024; // bytes of an x-message, so that the head of an answer stays below MAX_HEAD
const LONGEST_QUOTED = 12; // bytes of a character: four escapes

const PHRASES = {
  200: 'OK',
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Content Too Large',
  429: 'Too Many Requests',
  503: 'Service Unavailable',
};
const LINE = /^(?:GET|POST) \/[!-~]* HTTP\/1\.1$/;
const NAME = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;
const LENGTH = /^[0-9]{1,10}$/;
const STRANGE = /[^\t -~]/; // also CR and LF that are not the end of a line
const FORBIDDEN = ['transfer-encoding', 'expect', 'upgrade'];
const EMPTY = Buffer.alloc(0);

/** The request breaks the rules of the protocol. */
class BadRequest extends Error {}

/**
 * Parse all before the empty line (a string, one character a byte).
 * Returns {line: 'POST /invoke', headers: Map, length}; throws BadRequest that says what is wrong.
 */
function parse(head) {
  const [line, ...entries] = head.split('\r\n');
  if (!LINE.test(line)) {
    throw new BadRequest('the request line is not: GET or POST, a path, HTTP/1.1');
  }
  const headers = new Map();
  for (const entry of entries) addHeader(headers, entry);
  if (FORBIDDEN.some((name) => headers.has(name))) {
    throw new BadRequest('transfer-encoding, expect and upgrade are not part of the protocol');
  }
  const length = headers.get('content-length');
  if (length === undefined || !LENGTH.test(length)) {
    throw new BadRequest('content-length is missing or not a number');
  }
  return { line: line.slice(0, -' HTTP/1.1'.length), headers, length: Number(length) };
}

function addHeader(headers, entry) {
  const colon = entry.indexOf(':');
  const name = entry.slice(0, Math.max(colon, 0));
  if (STRANGE.test(entry)) {
    throw new BadRequest('the head has bytes other than printable ASCII, or lines that do not end in CR LF');
  }
  if (!NAME.test(name)) {
    throw new BadRequest('a header line is malformed, or its name is not lower case');
  }
  if (headers.has(name)) throw new BadRequest('a header comes twice');
  headers.set(name, entry.slice(colon + 1).trim());
}

/** A whole answer; `body` is a string or a Buffer, `headers` are complete lines. */
function answer(status, body = EMPTY, headers = '') {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  const head = `HTTP/1.1 ${status} ${PHRASES[status]}\r\ncontent-length: ${bytes.length}\r\n${headers}\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), bytes]);
}

/** The answer to an execution: `outcome` of verdicts.js, the log, and seconds that it took. */
function executed(outcome, log, duration) {
  const result = outcome.result;
  let headers = `x-status: ${outcome.success ? 'success' : 'failed'}\r\n`;
  headers += `x-duration: ${duration.toFixed(6)}\r\nx-result-length: ${result.length}\r\n`;
  if (outcome.reason) {
    headers += `x-reason: ${outcome.reason}\r\nx-message: ${quote(outcome.message)}\r\n`;
  }
  if (log.dropped) headers += `x-log-dropped: ${log.dropped}\r\n`;
  return answer(200, Buffer.concat([result, log.bytes()]), headers);
}

/** Percent-encoded UTF-8, cut to MAX_QUOTED: printable ASCII stays, except the percent sign. */
function quote(text) {
  let characters = Array.from(text.slice(0, MAX_QUOTED));
  for (;;) {
    const quoted = escaped(characters.join(''));
    if (quoted.length <= MAX_QUOTED) return quoted;
    // By characters, so that what is left is UTF-8.
    characters = characters.slice(0, -Math.ceil((quoted.length - MAX_QUOTED) / LONGEST_QUOTED));
  }
}

function escaped(text) {
  return Buffer.from(text, 'utf8')
    .toString('latin1')
    .replace(/[^!-$&-~ ]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
}

module.exports = { BadRequest, MAX_HEAD, MAX_INPUT, MAX_LOAD, answer, executed, parse, quote };
