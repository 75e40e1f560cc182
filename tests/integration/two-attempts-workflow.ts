/** A step whose first attempt is never heard of again. */
import { proxyActivities } from '@temporalio/workflow';

export interface TwoAttempts {
  work(): Promise<string>;
}

const { work } = proxyActivities<TwoAttempts>({
  startToCloseTimeout: '1 minute',
  heartbeatTimeout: '3 seconds',
  retry: { initialInterval: '100 milliseconds', maximumAttempts: 2 },
});

export const twoAttempts = (): Promise<string> => work();
