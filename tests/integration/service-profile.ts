/** A profile file for a service on the shared stack, with every secret in a file beside it. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDocument } from 'yaml';
import type { Profile } from '../../src/contract/profile.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { TestService } from '../postgres-service.ts';
import { randomName, useStack } from '../stack.ts';
import { createKeys } from './archive-source.ts';

export interface ServiceProfile {
  readonly service: string;
  readonly profile: Profile;
  /** `<prefix>/<service>` in the stack's bucket, which nobody else uses. */
  readonly folder: string;
}

/** @param folder of profiles */
export async function writeServiceProfile(folder: string, production: TestService): Promise<ServiceProfile> {
  const { s3, postgres } = useStack();
  const service = randomName('svc').replaceAll('_', '-');
  const prefix = randomName('prefix');
  const { identity, recipient } = await createKeys();
  const secret = async (name: string, value: string): Promise<{ readonly file: string }> => {
    const file = `${service}-${name}`;
    await writeFile(join(folder, file), value, { mode: 0o600 });
    return { file };
  };
  const text = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');
  const document = parseDocument(text);
  const set = (path: string, value: unknown): void => document.setIn(path.split('.'), value);
  set('service', service);
  set('postgresPrograms', postgres.primary.binDirectory);
  set('databases.production.administrator', await secret('administrator', production.administratorUrl));
  set('databases.production.migrator', await secret('migrator', production.migratorUrl));
  set('databases.production.backup', await secret('backup', production.backupUrl));
  set('databases.production.application', await secret('application', production.applicationUrl));
  set('databases.production.applicationRoles', [production.roles.application]);
  set('databases.production.standbys', []);
  set('databases.production.tls', 'allow');
  set('databases.scratch.administrator', await secret('scratch', postgres.scratch.superuserUrl));
  set('backup', {
    bucket: s3.bucket,
    prefix,
    region: s3.region,
    endpoint: s3.endpoint,
    forcePathStyle: true,
    accessKeyId: await secret('access-key-id', s3.accessKeyId),
    secretAccessKey: await secret('secret-access-key', s3.secretAccessKey),
    recipients: [recipient],
    identity: await secret('identity', identity),
    maximumAge: '2h',
  });
  await writeFile(join(folder, `${service}.yaml`), String(document));
  const { profile } = await loadProfile(folder, service);
  return { service, profile, folder: `${prefix}/${service}` };
}
