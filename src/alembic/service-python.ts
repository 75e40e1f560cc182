import { delimiter, dirname, resolve } from 'node:path';

/** The service's Python: a bare name is found on PATH, everything else lies in the checkout unless it is absolute. */
export const servicePython = (checkout: string, python: string): string =>
  python.includes('/') ? resolve(checkout, python) : python;

/** PATH for the service's own processes: its Python and the programs installed beside it (pytest, uvicorn) come first. */
export const pathWithPython = (checkout: string, python: string): string =>
  [...(python.includes('/') ? [dirname(resolve(checkout, python))] : []), process.env['PATH'] ?? '/usr/bin:/bin'].join(
    delimiter,
  );
