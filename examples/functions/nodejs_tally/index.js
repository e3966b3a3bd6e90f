'use strict';
// Counts the words of a text.

const WORD = /\p{L}+/gu;
let calls = 0; // once a process: it stays between calls

exports.main = async (context, input) => {
  const counts = new Map();
  for (const [word] of (input?.text ?? '').toLowerCase().matchAll(WORD)) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  calls += 1;
  console.log(`call ${calls} of this process, execution ${context.executionId}`); // goes to the execution's log
  return Object.fromEntries([...counts].sort(([, one], [, other]) => other - one));
};
