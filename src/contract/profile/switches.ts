/** The key `switches`. */
import type { Outcome } from '../outcome.ts';
import type { Action } from './actions.ts';
import type { ConfiguredValue } from './values.ts';

/**
 * Something the run switches and must put back. Every switch can tell its state; what was already in the wanted state
 * before the run is left so.
 */
export interface Switch {
  readonly name: string;
  /** `pooler`: paused right before databases are swapped and resumed right after, not for the whole run. */
  readonly kind: 'freeze' | 'jobs' | 'silence' | 'notice' | 'pooler';
  readonly mechanism:
    | {
        readonly kind: 'actions';
        /**
         * Tells the state: `engaged` or `released` as the whole trimmed output, or that word or a boolean (true =
         * engaged) at `statePointer` of a JSON answer. Absent = the state cannot be told: the success of the action counts.
         */
        readonly state?: Action;
        readonly statePointer?: string;
        readonly engage: Action;
        readonly release: Action;
      }
    /** Celery's own remote control: queues are no longer consumed by the named workers (all that answer, when empty). */
    | {
        readonly kind: 'celery';
        /** Python with the service's Celery; relative to the checkout. */
        readonly python: string;
        /** `-A` of Celery, e.g. `api.worker`. */
        readonly app: string;
        readonly queues: readonly string[];
        readonly environment: Readonly<Record<string, ConfiguredValue>>;
        readonly timeout: number;
      };
  /** Outcomes after which it stays engaged on purpose (e.g. keep deployments frozen after `handed-over`). */
  readonly keepAfter: readonly Outcome[];
}
