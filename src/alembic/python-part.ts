import { fileURLToPath } from 'node:url';

/** The files of this project that run inside the service's own Python; `wrapped` is a folder for PYTHONPATH. */
export function pythonPart(name: 'graph.py' | 'launch.py' | 'wrapped'): string {
  return fileURLToPath(new URL(`./python/${name}`, import.meta.url));
}
