import { quoted } from './commands.ts';
import { LINE_FORM, readFields, SERVICE_FORM } from './fields.ts';
import { TASK_QUEUE } from './request.ts';

/** The one argument of the workflow `restoreDrill`: a flat JSON object. */
export interface DrillRequest {
  readonly service: string;
  readonly requestedBy: string;
  /** URI of a backup (of its dump or of its manifest). Default: the latest one that was verified. */
  readonly backup?: string;
}

export const DRILL_WORKFLOW_TYPE = 'restoreDrill';

/** A schedule appends the time of each start to it. It is the schedule's own id as well. */
export const drillIdOf = (service: string): string => `drill-${service}`;

/** What the query `status` answers. Times are ISO 8601 in UTC. */
export interface DrillStatus {
  readonly service: string;
  readonly requestedBy: string;
  readonly phase: DrillPhase;
  readonly since: string;
  /** URI of the backup, once it is known. */
  readonly backup?: string;
  /** Why the restore failed, while the drill tidies up. */
  readonly trouble?: string;
}

/** `prepare` to `record` are the steps `drill.prepare` to `drill.record`. */
export type DrillPhase = 'prepare' | 'restore' | 'drop' | 'record' | 'passed' | 'failed' | 'refused' | 'cancelled';

/** Activity id of a phase. */
export const drillStep = (phase: Extract<DrillPhase, 'prepare' | 'restore' | 'drop' | 'record'>): string =>
  `drill.${phase}`;

const EXAMPLE: DrillRequest = { service: 'whisper-transcriber', requestedBy: 'dana@example.com' };

export const drillStartCommand = (request: DrillRequest = EXAMPLE): string =>
  `temporal workflow start --type ${DRILL_WORKFLOW_TYPE} --task-queue ${TASK_QUEUE} --workflow-id ${drillIdOf(request.service)} --input ${quoted(JSON.stringify(request))}`;

export type ParsedDrillRequest =
  | { readonly kind: 'valid'; readonly request: DrillRequest }
  | { readonly kind: 'invalid'; readonly findings: readonly string[] };

const FIELDS = {
  service: { required: true, ...SERVICE_FORM },
  requestedBy: { required: true, ...LINE_FORM },
  backup: {
    required: false,
    pattern: /^s3:\/\/[^/\p{Cc}]+\/[^\p{Cc}]{1,1000}$/u,
    form: 'an address like s3://bucket/key',
  },
} as const;

/** Reads the workflow's arguments, whatever they are; names every finding. */
export function parseDrillRequest(args: readonly unknown[]): ParsedDrillRequest {
  const read = readFields(args, FIELDS);
  if (read.kind === 'no-object' || read.findings.length > 0) return { kind: 'invalid', findings: read.findings };
  const { service, requestedBy, backup } = read.input as {
    service: string;
    requestedBy: string;
    backup?: string | null;
  };
  return {
    kind: 'valid',
    request: { service, requestedBy, ...(typeof backup === 'string' && { backup }) },
  };
}
