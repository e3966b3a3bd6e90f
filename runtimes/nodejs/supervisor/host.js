'use strict';
// What whoever starts a worker gives to it: the options of its command line.

const { parseArgs } = require('util');

const OPTIONS = {
  listen: { type: 'string' },
  concurrency: { type: 'string', default: '3' },
  'code-dir': { type: 'string', default: '/function/code' },
  scratch: { type: 'string', default: '/tmp' },
  entry: { type: 'string', default: process.env.FUNCPLAT_ENTRY ?? '' },
  function: { type: 'string', default: '/code' },
  user: { type: 'string' },
  memory: { type: 'string' },
  lifeline: { type: 'string' },
  'oom-kills': { type: 'string' },
  'pids-hits': { type: 'string' },
  help: { type: 'boolean', default: false },
};

const HELP = `A function server for Node.js.

  --listen unix:/PATH | tcp:ADDRESS:PORT | fd:N   what to serve on; N is a listening socket
  --concurrency N       executions at once, where /load does not say (3)
  --code-dir PATH       where a pushed package is unpacked (/function/code); its parent takes the upload
  --scratch PATH        working directory of functions (/tmp)
  --entry ENTRY         of the function that the worker carries, as an image of a user does ($FUNCPLAT_ENTRY)
  --function PATH       directory of that function (/code)
  --user UID:GID        run functions as this user; needs root
  --memory BYTES        memory of the whole worker: bounds the heap of each handler to three quarters of it
  --lifeline N          a descriptor, pipe or socket: when its other end closes, the worker ends
  --oom-kills FILE      memory.events (or memory.oom_control) of the worker's control group; a path or fd:N
  --pids-hits FILE      pids.events of it, likewise; both are found by the worker itself where /sys shows them
`;

/** The arguments of the command line cannot be used. */
class UsageError extends Error {}

/**
 * The surroundings of one worker, of command line arguments; null where help was asked for. Throws
 * UsageError.
 */
function parse(args) {
  let values;
  try {
    ({ values } = parseArgs({ args, options: OPTIONS }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  if (values.help) return null;
  const [, uid, gid] = match(values, 'user', /^([0-9]{1,10}):([0-9]{1,10})$/) ?? [];
  const concurrency = number(values, 'concurrency');
  if (concurrency < 1) throw new UsageError('--concurrency must be at least 1');
  return {
    listen: address(values.listen ?? ''),
    concurrency,
    codeDir: values['code-dir'],
    scratch: values.scratch,
    carried: values.entry === '' ? null : { entry: values.entry, path: values.function },
    user: uid === undefined ? {} : { uid: Number(uid), gid: Number(gid) },
    memory: number(values, 'memory'), // bytes
    lifeline: number(values, 'lifeline'), // descriptor
    oomKills: values['oom-kills'],
    pidsHits: values['pids-hits'],
  };
}

function match(values, name, pattern) {
  if (values[name] === undefined) return null;
  const found = pattern.exec(values[name]);
  if (found === null) throw new UsageError(`--${name} cannot be ${values[name]}`);
  return found;
}

function number(values, name) {
  const found = match(values, name, /^[0-9]{1,15}$/);
  return found === null ? null : Number(found[0]);
}

/** What net.Server.listen() takes. */
function address(text) {
  const [, kind, rest] = /^(unix|tcp|fd):(.+)$/s.exec(text) ?? [];
  if (kind === 'unix') return { path: rest };
  if (kind === 'fd' && /^[0-9]+$/.test(rest)) return { fd: Number(rest) };
  const [, host, port] = /^\[?(.*?)\]?:([0-9]{1,5})$/.exec(kind === 'tcp' ? rest : '') ?? [];
  if (port !== undefined) return { host, port: Number(port) };
  throw new UsageError(
    `--listen must be unix:/path, tcp:address:port or fd:number, not ${JSON.stringify(text)}`,
  );
}

module.exports = { HELP, UsageError, parse };
