/** When a run began, by its id: since version 7 of UUIDs they begin with the milliseconds. Null for other ids. */
export function runStartedAt(runId: string): string | null {
  const parts = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.exec(runId);
  return parts === null ? null : new Date(Number.parseInt(`${parts[1]}${parts[2]}`, 16)).toISOString();
}
