'use strict';
// Functions that try to get out of their worker. What this file does not have itself, a Python of the system does
// for it in a child process, with hostile.py as main.py beside this one.

const childProcess = require('child_process');
const fs = require('fs');

const PYTHON = `
import json, sys
sys.path.insert(0, sys.argv[1])
import main
print(json.dumps(main.main(**json.loads(sys.argv[2]))))
`;

const own = {
  echo: ({ value = null }) => value,
  environment: () => process.env,
  sleep: ({ seconds }) => new Promise((done) => setTimeout(done, seconds * 1000)),
  spin() {
    for (;;);
  },
  eat_memory({ size }) {
    return Buffer.alloc(size, 'x').length;
  },
  eat_heap() {
    for (const kept = []; ; ) kept.push(new Array(1000).fill(kept.length));
  },
  kill_all() {
    for (const pid of fs.readdirSync('/proc').filter(Number).map(Number)) {
      if (pid !== process.pid) attempt(() => process.kill(pid, 'SIGKILL'));
    }
    process.kill(process.pid, 'SIGKILL');
  },
  descriptors() {
    const names = fs.readdirSync('/proc/self/fd');
    const found = names.map((name) => [name, attempt(() => fs.readlinkSync(`/proc/self/fd/${name}`).split(':')[0])]);
    return Object.fromEntries(found);
  },
  list: ({ path }) => fs.readdirSync(path).sort(),
  // Leave processes behind, with a session and an environment of their own.
  daemonize() {
    for (let count = 0; count < 3; count++) {
      childProcess.spawnSync('/usr/bin/setsid', ['sh', '-c', 'sleep 3600 & sleep 3600 &'], { stdio: 'ignore', env: {} });
    }
    return 3;
  },
  // What could be done to the supervisor, the parent of this process.
  peek_at_node() {
    const parent = process.ppid;
    return {
      mem: attempt(() => fs.closeSync(fs.openSync(`/proc/${parent}/mem`, 'r+'))),
      environ: attempt(() => fs.readFileSync(`/proc/${parent}/environ`)),
      fd: attempt(() => fs.readdirSync(`/proc/${parent}/fd`)),
      signal: attempt(() => process.kill(parent, 'SIGUSR1')), // it would open a debugger
      setuid: attempt(() => process.setuid(0)),
    };
  },
  init: () => ({
    command: fs.readFileSync('/proc/1/comm', 'latin1').trim(),
    zombies: fs.readdirSync('/proc').filter((name) => Number(name) && state(name) === 'Z').length,
  }),
};

function state(pid) {
  return attempt(() => fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1][0]);
}

/** What a call returns (nothing: null), or the code of its error. */
function attempt(call) {
  try {
    return call() ?? null;
  } catch (error) {
    return error.code;
  }
}

function python(given) {
  const command = ['-I', '-c', PYTHON, __dirname, JSON.stringify(given)];
  const { status, signal, stdout, stderr, error } = childProcess.spawnSync('/usr/bin/python3', command);
  if (error) throw error;
  if (status !== 0) {
    process.stderr.write(stderr);
    const code = { 'No space left on device': 'ENOSPC' }[/Errno \d+\] ([^:\n]*)/.exec(stderr)?.[1]];
    throw Object.assign(new Error(`Python ended with ${status ?? signal}`), { code });
  }
  return JSON.parse(stdout);
}

exports.main = (context, given) => {
  const { action, ...rest } = given;
  return action in own ? own[action](rest) : python(given);
};
