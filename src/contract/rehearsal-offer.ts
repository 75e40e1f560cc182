/** Which way back a rehearsal's verdict allows. Pure: the plan, the gate `recovery` and proofs decide by the same table. */
import type { LostValues, RehearsalVerdict } from './evidence/rehearsal.ts';

export interface RollbackOffer {
  /** `as-profile`: by itself where the profile says so. `by-decision`: only when a person asks for it, told what it loses. */
  readonly rollback: 'as-profile' | 'by-decision' | 'not-offered';
  /** One sentence for the plan. */
  readonly why: string;
  /** What the rehearsed downgrade lost or left behind, one line each. */
  readonly loses: readonly string[];
}

export function rollbackOffer(verdict: RehearsalVerdict): RollbackOffer {
  switch (verdict.kind) {
    case 'lossless':
      return {
        rollback: 'as-profile',
        why: 'the downgrade was rehearsed on this backup: objects and data were as before',
        loses: [],
      };
    case 'lossy':
      return {
        rollback: 'by-decision',
        why: 'the rehearsed downgrade lost data that a restore brings back',
        loses: [...verdict.lost.map(lossText), ...verdict.objects],
      };
    case 'leftovers':
      return {
        rollback: 'by-decision',
        why: 'the rehearsed downgrade lost no data, but did not leave everything as it was',
        loses: verdict.objects,
      };
    case 'fails':
      return {
        rollback: 'not-offered',
        why: `the rehearsed downgrade failed (${verdict.where}): ${verdict.why}`,
        loses: [],
      };
    case 'impossible':
      return { rollback: 'not-offered', why: `there is no downgrade: ${verdict.why}`, loses: [] };
  }
}

const lossText = ({ table, column, values }: LostValues): string =>
  column === null ? `${table}: ${values} row(s)` : `${table}.${column}: ${values} value(s)`;
