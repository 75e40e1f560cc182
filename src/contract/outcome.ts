/** How a run ends. */
export const OUTCOMES = ['succeeded', 'aborted', 'rolled-back', 'restored', 'handed-over'] as const;
export type Outcome = (typeof OUTCOMES)[number];
