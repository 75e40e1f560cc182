#!/usr/bin/env node
import { exitWhenWritten } from './commands/exit.ts';
import { processOutput } from './commands/output.ts';
import { runCommandLine } from './commands/program.ts';

// Connections that are still being closed must not keep a finished command from ending.
await exitWhenWritten(await runCommandLine(process.argv.slice(2), processOutput()));
