'use strict';
// A worker of its own: node worker.js --listen unix:/path --concurrency 3

const host = require('./supervisor/host');
const supervisor = require('./supervisor/supervisor');

function main(args) {
  let surroundings;
  try {
    surroundings = host.parse(args);
  } catch (error) {
    if (!(error instanceof host.UsageError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
  if (surroundings === null) process.stdout.write(host.HELP);
  else supervisor.serve(surroundings);
}

main(process.argv.slice(2));
