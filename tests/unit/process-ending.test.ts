import { expect, it } from 'vitest';
import { endingText } from '../../src/process/errors.ts';
import type { ProcessResult } from '../../src/process/options.ts';

const killed: ProcessResult = {
  kind: 'signaled',
  signal: 'SIGKILL',
  stdoutTail: '',
  stderrTail: '',
  durationMilliseconds: 1,
};

it('a process that was killed and said nothing is told so, without an empty quotation', () => {
  expect(endingText('alembic upgrade head on staging', killed, '')).toBe(
    'alembic upgrade head on staging was ended by SIGKILL and said nothing',
  );
  expect(endingText('pytest', { ...killed, kind: 'exited', code: 3 }, '2 failed')).toBe(
    'pytest exited with code 3: 2 failed',
  );
});
