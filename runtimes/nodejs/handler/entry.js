'use strict';
// The user's function: found, called, and its result written as JSON.

const { existsSync, readFileSync, readdirSync, statSync } = require('fs');
const { createRequire } = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const util = require('util');

const ENDINGS = ['.js', '.mjs', '.cjs'];
const NO_SPACE = ['ENOSPC', 'EDQUOT', 'EFBIG'];
const RESOURCES_TEXT = 'Function execution failed because of too much resource consumption';
const MAX_TEXT = 16 * 1024; // characters of an exception's text in a result
const MAX_NAMES = 20; // names shown where an entry is not found
// What Node.js says of an ES module that it takes for a CommonJS one.
const ES_MODULE =
  /^(?:Cannot use (?:import statement|'import\.meta')|Unexpected token 'export'|await is only valid)/;
const OWN_FRAME = new RegExp(
  `^ +at .*(?:${path.dirname(__dirname).replace(/[^\w/]/g, '\\$&')}|\\(?node:internal/)`,
);

/** An execution or import that failed: the text of its result, its reason and message. */
class Failure extends Error {
  constructor(text, reason, message) {
    super(text);
    this.reason = reason;
    this.explanation = message;
  }
}

/**
 * The function that `entry`, module.function, names in the package in the directory `root`; its module is
 * imported, and `seen` is told the module's file before. Throws Failure where there is no such module or
 * function, and whatever the import throws.
 */
async function find(root, entry, seen) {
  const dot = entry.lastIndexOf('.');
  const [module, name] = [entry.slice(0, dot), entry.slice(dot + 1)];
  const file = locate(root, module);
  if (file === null) throw notFound(`The package has no module '${module}'`, root);
  seen(file);
  const exported = await load(root, file);
  const found = exported?.[name] ?? exported?.default?.[name];
  if (typeof found !== 'function') {
    const what = found === undefined || found === null ? 'no function' : 'something that is not a function';
    const own = listed(functions({ ...exported?.default, ...exported }));
    throw notFound(`The module '${module}' exports ${what} named '${name}'; it has ${own}`, root);
  }
  return found;
}

/** The file of a module, whose dots stand for slashes, or for themselves. */
function locate(root, module) {
  for (const name of [module.replaceAll('.', '/'), module]) {
    if (name.split('/').some((part) => part === '' || part === '.' || part === '..')) continue;
    for (const place of [name, `${name}/index`]) {
      const found = ENDINGS.map((ending) => path.join(root, place + ending)).find(isFile);
      if (found !== undefined) return found;
    }
  }
  return null;
}

async function load(root, file) {
  if (isEsModule(root, file)) return import(pathToFileURL(file).href);
  try {
    return createRequire(file)(file);
  } catch (error) {
    const other = error?.code === 'ERR_REQUIRE_ESM' || error?.code === 'ERR_REQUIRE_ASYNC_MODULE';
    const syntax =
      util.types.isNativeError(error) && error.name === 'SyntaxError' && ES_MODULE.test(error.message);
    if (!other && !syntax) throw error;
    return import(pathToFileURL(file).href); // newer versions find out by themselves
  }
}

/** By the rules of Node.js: the ending, else the type in the nearest package.json. */
function isEsModule(root, file) {
  if (!file.endsWith('.js')) return file.endsWith('.mjs');
  for (let place = path.dirname(file); place.startsWith(root); place = path.dirname(place)) {
    const description = path.join(place, 'package.json');
    if (existsSync(description)) return JSON.parse(readFileSync(description, 'utf8'))?.type === 'module';
    if (place === path.dirname(place)) break;
  }
  return false;
}

function isFile(place) {
  return statSync(place, { throwIfNoEntry: false })?.isFile() ?? false;
}

function functions(exported) {
  return Object.keys(exported).filter((key) => typeof exported[key] === 'function');
}

function notFound(what, root) {
  const contents = readdirSync(root).filter((name) => !name.startsWith('.') && name !== 'node_modules');
  return new Failure(
    `${what}.`,
    'entry_not_found',
    `${what}. The package holds ${listed(contents)}. An entry is module.function, with the module's path ` +
      'from the top of the package.',
  );
}

function listed(names) {
  const shown = names.sort().slice(0, MAX_NAMES).join(', ');
  return shown + (names.length > MAX_NAMES ? ', ...' : '') || 'nothing';
}

// -- input and result ---------------------------------------------------------------------------------

/** The input of a call, of its JSON: an object or null. Throws Failure. */
function decode(body) {
  let value;
  try {
    value = JSON.parse(body.toString());
  } catch (error) {
    throw badArguments(`it is not JSON: ${error.message}`);
  }
  if (typeof value !== 'object' || Array.isArray(value)) throw badArguments('it is not a JSON object');
  return value;
}

function badArguments(complaint) {
  const text = `The input does not fit the function: ${complaint}.`;
  return new Failure(text, 'bad_arguments', text);
}

/** The result as JSON, a Buffer; throws Failure where it is none or is longer than `limit` bytes. */
function encode(result, limit) {
  let text;
  try {
    text = result === undefined ? 'null' : JSON.stringify(result);
  } catch (error) {
    throw notJson(textOf(error));
  }
  if (text === undefined) throw notJson(`it is a ${typeof result}`);
  const data = Buffer.from(text);
  if (data.length > limit) {
    throw new Failure(
      `The result is ${data.length} bytes of JSON, more than the ${limit} that are allowed.`,
      'result_too_large',
      `The function returned ${data.length} bytes of JSON; the operator allows ${limit}. Return less.`,
    );
  }
  return data;
}

function notJson(complaint) {
  return new Failure(
    `The result cannot be written as JSON: ${complaint}`,
    'result_not_json',
    `The function's return value cannot be written as JSON: ${complaint}`,
  );
}

/** What is told of a promise, of the function or of its module, that nothing can settle any more. */
function neverSettled(importing) {
  const [what, reason] = importing
    ? ['The import of the module', 'import_failed']
    : ['The promise that the function returned', 'function_raised'];
  const text = `${what} is never settled: nothing is left that it could wait for.`;
  return new Failure(text, reason, text);
}

// -- exceptions ---------------------------------------------------------------------------------------

/** Text, reason and message for what the user's code let out. */
function explain(error, importing) {
  if (error instanceof Failure)
    return { text: error.message, reason: error.reason, message: error.explanation };
  const text = textOf(error);
  const name = nameOf(error);
  const summary = (name ? `${name}: ${text}` : text).slice(0, 300);
  const what = importing ? "The import of the function's module" : 'The function';
  const code = guarded(() => error?.code, undefined);
  if (code === 'ERR_WORKER_OUT_OF_MEMORY' || text === 'Array buffer allocation failed') {
    const message = `${what} ran out of memory (${summary}). Use less memory or raise memory_size.`;
    return { text: RESOURCES_TEXT, reason: 'memory_exceeded', message };
  }
  if (NO_SPACE.includes(code)) {
    const advice = 'Write less, or ask the operator for more.';
    const message = `${what} filled its scratch space (${summary}). ${advice}`;
    return { text, reason: 'disk_full', message };
  }
  const reason = importing ? 'import_failed' : 'function_raised';
  return { text, reason, message: `${what} threw ${summary}. The stack is in the log.` };
}

/**
 * The message of an error, or its name where that is empty; of anything else that was thrown, what it looks
 * like.
 */
function textOf(error) {
  const look = () => {
    if (!(error instanceof Error) && !util.types.isNativeError(error)) {
      return typeof error === 'string' ? error : util.inspect(error);
    }
    return typeof error.message === 'string' && error.message ? error.message : nameOf(error);
  };
  return guarded(look, 'Error').slice(0, MAX_TEXT);
}

function nameOf(error) {
  return guarded(() => (error instanceof Error ? String(error.name).slice(0, MAX_TEXT) : ''), 'Error');
}

/** What is written to the log of an error: its stack, as far as it is the user's, and its causes. */
function trace(error) {
  const full = guarded(() => util.inspect(error), textOf(error));
  const lines = full.split('\n').filter((line) => !OWN_FRAME.test(line));
  return error instanceof Error ? `${lines.join('\n')}\n` : `Uncaught ${lines.join('\n')}\n`;
}

/** The value of code that may be the user's: a getter, a toString, a Proxy. */
function guarded(look, otherwise) {
  try {
    return look();
  } catch {
    return otherwise;
  }
}

module.exports = { Failure, decode, encode, explain, find, neverSettled, trace };
