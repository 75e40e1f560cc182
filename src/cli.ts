#!/usr/bin/env node
import { processOutput } from './commands/output.ts';
import { runCommandLine } from './commands/program.ts';

// Connections that are still being closed must not keep a finished command from ending.
process.exit(await runCommandLine(process.argv.slice(2), processOutput()));
