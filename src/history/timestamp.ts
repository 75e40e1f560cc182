/** `google.protobuf.Timestamp` as the SDK hands it out. */
interface Timestamp {
  readonly seconds?: { toString(): string } | number | null;
  readonly nanos?: number | null;
}

/** ISO 8601 in UTC, cut to milliseconds as the workflow's clock is; undefined where there is none. */
export function isoTime(timestamp: Timestamp | null | undefined): string | undefined {
  if (timestamp === null || timestamp === undefined) return undefined;
  const milliseconds = Number(timestamp.seconds ?? 0) * 1000 + Math.floor((timestamp.nanos ?? 0) / 1_000_000);
  return milliseconds === 0 ? undefined : new Date(milliseconds).toISOString();
}
