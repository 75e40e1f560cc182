/** Durations and sizes as people read them. */

/** @param milliseconds of any length, not negative */
export function durationText(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 3600) return inTwo(Math.floor(seconds / 60), 'min', seconds % 60, 's');
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return inTwo(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
  return inTwo(Math.floor(minutes / 1440), 'd', Math.floor((minutes % 1440) / 60), 'h');
}

/** `4 min 05 s`; a round one, as limits are, without the rest: `4 h`. */
const inTwo = (whole: number, unit: string, rest: number, smaller: string): string =>
  rest === 0
    ? `${whole} ${unit}`
    : `${whole} ${unit} ${String(rest).padStart(smaller === 'h' ? 1 : 2, '0')} ${smaller}`;

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'];

/** Decimal units: 1 MB is 1,000,000 bytes. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `2026-11-22 22:00:03 UTC` of an ISO 8601 time; what is no time comes back as it is. */
export function timeText(iso: string): string {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? iso : `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

/** `22:00:03` */
export const clockText = (iso: string): string => timeText(iso).slice(11, 19) || iso;
