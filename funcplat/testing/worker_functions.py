"""The functions that the contract of workers runs, in the languages of the platform's own workers.

A module has one function, ``main``, and takes *steps*: its input is ``{"steps": [[name, argument, ...]]}``;
it does one after the other and returns the value of the last.  When it is imported it does those in the
environment variable ``ON_IMPORT``, as JSON, if there is one.  So a test says what a function does, in any
language, and a worker's author writes each step once.  The page "Testing a worker" lists the steps.
"""

from __future__ import annotations

PYTHON = """\
import json
import os
import subprocess
import sys
import threading
import time

calls = 0
told = None


def value(given):
    return given


def repeat(text, times):
    return text * times


def odd():
    return object()


def count():
    global calls
    calls += 1
    return calls


def pid():
    return os.getpid()


def context():
    return [told["execution_id"], told["function_id"], told["function_version"]]


def environment():
    return dict(os.environ)


def here():
    return os.path.dirname(__file__)


def write(text):
    sys.stdout.write(text)


def complain(text):
    sys.stderr.write(text)


def write_bytes(digits):
    sys.stdout.buffer.write(bytes.fromhex(digits))


def later(seconds, text):
    threading.Timer(seconds, print, [text]).start()


def chatter():
    def run():
        while True:
            print("chatter" * 10)

    threading.Thread(target=run, daemon=True).start()


def sleep(seconds):
    time.sleep(seconds)


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def fail(text):
    raise ValueError(text)


def kill(number, pid=None):
    os.kill(pid or os.getpid(), number)


def save(path, text):
    with open(path, "w") as file:
        file.write(text)


def allocate(size):
    bytearray(b"x") * size


def run(*command):
    subprocess.run(command, check=True)


def ask(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout


def spawn(*command):
    return subprocess.Popen(command).pid


STEPS = {**globals(), "exit": sys.exit}


def main(steps=(), context=None):
    global told
    told = context
    result = None
    for name, *arguments in steps:
        result = STEPS[name](*arguments)
    return result


main(json.loads(os.environ.get("ON_IMPORT", "[]")))
"""

NODEJS = """\
const { spawn, spawnSync } = require("child_process");
const fs = require("fs");
const { Worker } = require("worker_threads");

let calls = 0;
let told = null;

function finished(command, stdio) {
  const ended = spawnSync(command[0], command.slice(1), { stdio, maxBuffer: Infinity });
  if (ended.error) throw ended.error;
  return ended;
}

const STEPS = {
  value: (given) => given,
  repeat: (text, times) => text.repeat(times),
  odd: () => 1n,
  count: () => ++calls,
  pid: () => process.pid,
  context: () => [told.executionId, told.functionId, told.functionVersion],
  environment: () => process.env,
  here: () => __dirname,
  write(text) {
    process.stdout.write(text);
  },
  complain(text) {
    process.stderr.write(text);
  },
  write_bytes(digits) {
    process.stdout.write(Buffer.from(digits, "hex"));
  },
  later(seconds, text) {
    setTimeout(() => console.log(text), seconds * 1000);
  },
  chatter() {
    new Worker(`for (;;) require("fs").writeSync(1, "chatter".repeat(10));`, { eval: true });
  },
  sleep: (seconds) => new Promise((done) => setTimeout(done, seconds * 1000)),
  spin(seconds) {
    for (const end = performance.now() + seconds * 1000; performance.now() < end; );
  },
  fail(text) {
    throw new Error(text);
  },
  exit: (code) => process.exit(code),
  kill(number, pid = process.pid) {
    process.kill(pid, number);
  },
  save: (path, text) => fs.writeFileSync(path, text),
  allocate(size) {
    const kept = []; // on the heap, which is what the worker bounds
    for (let bytes = 0; bytes < size; bytes += 8192) kept.push(new Array(1024).fill(0.5));
  },
  run(...command) {
    const { status } = finished(command, "inherit");
    if (status !== 0) throw new Error(`exit status ${status}`);
  },
  ask: (...command) => finished(command, ["inherit", "pipe", "inherit"]).stdout.toString(),
  spawn: (...command) => spawn(command[0], command.slice(1), { stdio: "inherit" }).pid,
};

exports.main = async (context, input) => {
  told = context;
  let result = null;
  for (const [name, ...given] of input?.steps ?? []) result = await STEPS[name](...given);
  return result;
};

for (const [name, ...given] of JSON.parse(process.env.ON_IMPORT ?? "[]")) STEPS[name](...given);
"""
