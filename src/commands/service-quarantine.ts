import { ownerState } from '../history/owner-state.ts';
import { dropKeptAside, type KeptAside, listKeptAside } from '../postgres/swap/quarantine.ts';
import { sizeText, timeText } from '../report/quantity.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError } from './command-error.ts';
import { withClient } from './connection.ts';
import { left } from './run-texts.ts';
import { withServiceAccess } from './service-access.ts';
import { ServiceDatabases } from './service-databases.ts';

const STEP = 'quarantine';

/** What runs of this service have put aside on production's server. */
const ofService = async (databases: ServiceDatabases, service: string): Promise<KeptAside[]> =>
  (await databases.on('production', listKeptAside)).filter(({ mark }) => mark.service === service);

/** @param now milliseconds since the epoch */
export function keptAsideText({ name, production, sizeBytes, closed, mark }: KeptAside, now: number): string {
  const { expiresAt } = mark;
  const until =
    Date.parse(expiresAt) <= now
      ? `was to be kept until ${timeText(expiresAt)}`
      : `kept until ${timeText(expiresAt)} (${left(expiresAt, now)})`;
  const facts = [
    `was database ${production}`,
    ...(sizeBytes === null ? [] : [sizeText(sizeBytes)]),
    ...(closed ? [] : ['OPEN to connections']),
    until,
  ];
  return `${name}\n    ${facts.join(', ')}\n    put aside by run ${mark.runId} (${mark.workflowId})`;
}

export const listQuarantine = (profiles: string, service: string): Promise<readonly KeptAside[]> =>
  withServiceAccess(profiles, service, (access) => ofService(new ServiceDatabases(access, STEP), service));

export interface DropOptions extends TemporalAddress {
  readonly profiles: string;
  readonly service: string;
}

/** @param confirm throws where a person does not want it */
export const dropFromQuarantine = (
  name: string,
  options: DropOptions,
  confirm: (found: KeptAside) => Promise<void>,
): Promise<KeptAside> => {
  const { profiles, service } = options;
  return withServiceAccess(profiles, service, async (access) => {
    const databases = new ServiceDatabases(access, STEP);
    const found = (await ofService(databases, service)).find((database) => database.name === name);
    if (found === undefined) {
      throw new CommandError(
        `no database "${name}" of ${service} is kept aside; see: runbook quarantine list ${service}`,
      );
    }
    const state = await withClient(options, (client) => ownerState(client, found.mark));
    if (state === 'running') {
      throw new CommandError(`the run that put "${name}" aside is still running: ${found.mark.workflowId}`);
    }
    await confirm(found);
    const production = [await databases.productionName()];
    return databases.withMigrationLock((signal) =>
      databases.on('production', (client) => dropKeptAside(client, { name, production }), { signal }),
    );
  });
};
