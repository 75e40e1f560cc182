import { describe, expect, test } from 'vitest';
import { backupKeys } from '../../src/archive/backup-names.ts';
import { describeOwner, ownership } from '../../src/archive/object-owner.ts';

const service = 'whisper-transcriber';
const object = (runId: string, step: string, noted: { runId: string; step: string }) => ({
  key: backupKeys(`prefix/${service}/${runId}`, step).dump,
  bytes: 1,
  modifiedAt: '',
  metadata: ownership({ service, ...noted }),
});

describe('the owner noted on an object of a backup', () => {
  test.each(['backup.capture', 'backup.capture#2', 'apply.refresh-backup/capture', 'eigener-schritt.größe'])(
    'is the one its key names: %s',
    (step) => {
      expect(describeOwner(object('run-1', step, { runId: 'run-1', step }))).toBeUndefined();
    },
  );

  test('is named where it is another run or another step', () => {
    const step = 'apply.refresh-backup/capture';
    expect(describeOwner(object('run-1', step, { runId: 'run-2', step }))).toContain('run run-2');
    expect(describeOwner(object('run-1', step, { runId: 'run-1', step: 'backup.capture' }))).toContain(
      'backup.capture',
    );
    expect(describeOwner(object('run-1', 'backup.capture', { runId: 'run-1', step: 'capture' }))).toContain('capture');
  });
});
