import { execFileSync } from 'node:child_process';
import { accessSync, chownSync, constants, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * How a server gets rid of root, which PostgreSQL refuses to run as.
 * - `as-is`: we are an ordinary user.
 * - `namespace`: a user namespace in which root is user 1000. Files need no new owner and folders only root may enter stay reachable.
 * - `drop`: user and group ids are changed and the server's own folder is handed over; where user namespaces are forbidden.
 */
export type Privileges =
  | { readonly kind: 'as-is' }
  | { readonly kind: 'namespace'; readonly prefix: readonly string[] }
  | { readonly kind: 'drop'; readonly uid: number; readonly gid: number };

let chosen: Privileges | undefined;

/** The best way on this machine, found out once. */
export function unprivileged(): Privileges {
  chosen ??= choose();
  return chosen;
}

function choose(): Privileges {
  if (process.getuid?.() !== 0) return { kind: 'as-is' };
  const prefix = ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--'];
  return runs([...prefix, 'true']) ? { kind: 'namespace', prefix } : { kind: 'drop', ...nobody() };
}

export function runs(command: readonly string[]): boolean {
  try {
    execFileSync(command[0] ?? '', command.slice(1), { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function nobody(): { readonly uid: number; readonly gid: number } {
  const id = (flag: string): number => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/**
 * Hands a server's own folder to the user it will run as; needed for `drop` only.
 * @throws Error naming the folder on the way that this user may not enter.
 */
export function handOver(directory: string, privileges: Privileges): void {
  if (privileges.kind !== 'drop') return;
  for (let parent = dirname(directory); parent !== dirname(parent); parent = dirname(parent)) {
    const { mode, uid } = statSync(parent);
    if ((mode & (uid === privileges.uid ? 0o100 : 0o001)) === 0) {
      throw new Error(
        `PostgreSQL refuses to run as root, user namespaces are not available here, and ${parent} may be entered by root only: ` +
          'start the stack as an ordinary user, or from a folder that others may enter',
      );
    }
  }
  chownTree(directory, privileges.uid, privileges.gid);
}

function chownTree(path: string, uid: number, gid: number): void {
  chownSync(path, uid, gid);
  if (!statSync(path).isDirectory()) return;
  accessSync(path, constants.R_OK);
  for (const entry of readdirSync(path)) chownTree(join(path, entry), uid, gid);
}
