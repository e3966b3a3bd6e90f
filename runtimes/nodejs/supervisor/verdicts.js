'use strict';
// What became of an execution, and how that is told.
//
// `result` is a text for people which keeps the strings that clients of the API know; `reason` is one of the
// codes in the documentation, `message` says what happened, which limit it was and what to do.

const os = require('os');

const TIMEOUT_TEXT = 'Function execution timeout.';
const RESOURCES_TEXT = 'Function execution failed because of too much resource consumption';

/** The end of an execution: {success, result (a Buffer of JSON), reason, message}. */
function failed(text, reason, message) {
  return { success: false, result: Buffer.from(JSON.stringify(text)), reason, message };
}

function succeeded(result, [reason, message] = ['', '']) {
  return { success: true, result, reason, message };
}

/** `timeout` in seconds. */
function timedOut(timeout) {
  return failed(
    TIMEOUT_TEXT,
    'timeout',
    `The execution ran into its timeout of ${timeout} seconds and was killed. ` +
      'Make the function faster or raise its timeout.',
  );
}

function cancelled() {
  return failed('Function execution cancelled.', 'cancelled', 'It was cancelled while it ran.');
}

/** `timeout` in seconds. */
function importTimedOut(timeout, entry) {
  return failed(
    `Importing the function's module took longer than ${timeout} seconds.`,
    'import_timeout',
    `The import of the module of '${entry}' was killed after ${timeout} seconds, the operator's limit. ` +
      'Do less work at module level.',
  );
}

/**
 * What a handler's end means for the execution in it. `death` is {signal (a name or null), code, importing,
 * oomKilled, pidsRefused: what the kernel counted meanwhile, heapExhausted: V8 said so}.
 */
function died(death) {
  const when = death.importing ? 'while its module was imported' : 'during the execution';
  if (death.signal === 'SIGKILL' && death.oomKilled) {
    return failed(
      RESOURCES_TEXT,
      'memory_exceeded',
      "The worker reached its memory limit, the function's memory_size, and the kernel killed the " +
        `function ${when}. Executions in the same worker share the limit and may end together. ` +
        'Use less memory or raise memory_size.',
    );
  }
  if (death.signal && death.heapExhausted) {
    return failed(
      RESOURCES_TEXT,
      'memory_exceeded',
      `The function's heap reached its limit ${when}, and V8 ended the process (${how(death)}). ` +
        'Use less memory or raise memory_size.',
    );
  }
  if (death.pidsRefused) return tooManyProcesses(`The function's process ended ${when} (${how(death)}).`);
  if (death.signal) {
    // what the old wire says of every process that ended; the reason tells the truth
    return failed(RESOURCES_TEXT, 'function_crashed', `The function's process was ${how(death)} ${when}.`);
  }
  return failed(
    RESOURCES_TEXT,
    'function_exited',
    `The function ended its process ${when} with exit code ${death.code} instead of returning.`,
  );
}

function tooManyProcesses(end) {
  return failed(RESOURCES_TEXT, 'pids_exceeded', pidsMessage(end));
}

/** The same end, during which the kernel refused to make processes or threads. */
function withPidsRefused(outcome) {
  return { ...outcome, reason: 'pids_exceeded', message: pidsMessage(outcome.message) };
}

/** The same end, during which the kernel killed a process of the worker for its memory. */
function withOomKill(outcome) {
  return {
    ...outcome,
    reason: 'memory_exceeded',
    message:
      "The worker reached its memory limit, the function's memory_size, and the kernel killed a " +
      `process in it. ${outcome.message} Use less memory or raise memory_size.`,
  };
}

/** The handler broke the rules between it and the supervisor, which only user code can make it do. */
function hijacked(what) {
  return failed(
    'The function broke the process that it runs in.',
    'function_crashed',
    `The function ${what}; its process was killed.`,
  );
}

/** No handler process could be made. */
function notStarted(error, pidsRefused) {
  if (pidsRefused || error.code === 'EAGAIN') {
    return tooManyProcesses(`No process could be started for the function (${error.code}).`);
  }
  return failed(
    'Function execution failed.',
    'platform_error',
    `No process could be started for the function: ${error.message}.`,
  );
}

/** Reason and message for an execution that ended of itself; empty where there is nothing to say. */
function remark(leftProcesses, log) {
  if (leftProcesses) {
    return [
      'processes_killed',
      'The function left processes behind, which were killed. Wait for them before you return.',
    ];
  }
  if (log.dropped) {
    return [
      'log_truncated',
      `The log keeps the first ${log.cap} bytes of output; ${log.dropped} more were dropped.`,
    ];
  }
  return ['', ''];
}

function pidsMessage(end) {
  return (
    'The worker reached its limit of processes and threads, and the kernel refused to make more. ' +
    `${end} Use fewer of them, or ask the operator to raise the limit.`
  );
}

function how(death) {
  if (!death.signal) return `exit code ${death.code}`;
  return `killed by signal ${os.constants.signals[death.signal]} (${death.signal})`;
}

module.exports = {
  cancelled,
  died,
  failed,
  hijacked,
  importTimedOut,
  notStarted,
  remark,
  succeeded,
  timedOut,
  withOomKill,
  withPidsRefused,
};
