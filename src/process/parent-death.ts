import { execa } from 'execa';

let prefix: Promise<readonly string[]> | undefined;

/**
 * The command words that let the kernel kill the program when its parent dies: `setpriv --pdeathsig KILL --`, where
 * util-linux offers it, otherwise nothing. It acts even if the watcher was killed, but covers the program alone and not
 * what it starts.
 */
export function parentDeathPrefix(): Promise<readonly string[]> {
  prefix ??= findPrefix();
  return prefix;
}

async function findPrefix(): Promise<readonly string[]> {
  if (process.platform !== 'linux') return [];
  const words = ['setpriv', '--pdeathsig', 'KILL', '--'] as const;
  const [file, ...args] = words;
  const { failed } = await execa(file, [...args, 'true'], { reject: false, stdio: 'ignore' });
  return failed ? [] : words;
}
