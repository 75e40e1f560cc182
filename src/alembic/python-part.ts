import { fileURLToPath } from 'node:url';

/** The files of this project that run inside the service's own Python. */
export function pythonPart(name: 'graph.py' | 'launch.py'): string {
  return fileURLToPath(new URL(`./python/${name}`, import.meta.url));
}
