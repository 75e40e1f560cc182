import type { Client } from 'pg';
import type { SwitchState } from '../../contract/evidence/switches.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { JsonValue } from '../../contract/profile.ts';
import { fenceObstacles, findMissingFenceRights } from './fence-obstacles.ts';
import {
  applySettings,
  isOn,
  type ReadOnlySettings,
  readSettings,
  settingStatements,
  type WantedSettings,
} from './fence-settings.ts';
import { endSessions, type Session } from '../sessions.ts';

/**
 * The fence of kind `read-only`: `default_transaction_read_only` for a database, off for the migrator alone. It holds those
 * who do not switch it off for themselves; whether somebody did is told by the tables' counters.
 */
export interface FencedRoles {
  /** Production's name: what a swap puts under it is fenced, or let go, alike. */
  readonly database: string;
  readonly migratorRole: string;
  readonly applicationRoles: readonly string[];
}

export interface FenceRequest extends FencedRoles {
  readonly signal: AbortSignal;
  readonly progress: (details: { readonly phase: string; readonly sessions?: number }) => void;
}

export interface RaisedFence {
  readonly state: SwitchState;
  /** ISO 8601, by the server's clock: since then no session is left that began before the fence. */
  readonly since: string;
  readonly endedSessions: number;
}

/**
 * How the settings are before the fence touches them: to be written down first, and handed to `lowerFence` at the end.
 * `engaged` means that all of the fence is there already.
 *
 * @param client of the administrator, in the maintenance database
 */
export async function readFence(client: Client, request: FencedRoles): Promise<SwitchState> {
  const found = await readSettings(client, request.database);
  const wanted = await fencedSettings(client, request, found);
  const state = settingStatements(request.database, found, wanted).length === 0 ? 'engaged' : 'released';
  return { state, detail: { database: request.database, setting: found.database, roles: found.inDatabase } };
}

/**
 * May the administrator raise it? To be asked long before.
 *
 * @param client of the administrator, in the maintenance database
 * @returns findings, in words; empty = it can be raised
 */
export async function findFenceRights(client: Client, request: FencedRoles): Promise<string[]> {
  const found = await readSettings(client, request.database);
  const wanted = await fencedSettings(client, request, found);
  return findMissingFenceRights(client, request.database, changedRoles(found, wanted));
}

/**
 * Raises the fence, or completes one that an earlier attempt has begun: settings first, all at once, then every session
 * that began without them is ended, so that whoever comes back can only read.
 *
 * @param client of the administrator, in the maintenance database
 * @throws StepError `StepRefused` when sessions remain that could write, or could not be kept from it
 */
export async function raiseFence(client: Client, request: FenceRequest): Promise<RaisedFence> {
  request.progress({ phase: 'looking for what a fence would not hold' });
  const found = await readSettings(client, request.database);
  const wanted = await fencedSettings(client, request, found);
  const obstacles = await fenceObstacles(client, { ...request, roles: changedRoles(found, wanted) });
  if (obstacles.length > 0) throw refusal(obstacles);
  await applySettings(client, settingStatements(request.database, found, wanted));
  request.progress({ phase: 'ending sessions from before the fence' });
  const ended = await endSessionsBefore(client, await now(client), request).catch((error: unknown) => {
    if (!(error instanceof StepError) || error.type !== STEP_ERRORS.stateUnexpected) throw error;
    throw refusal([`sessions remain that could write: ${error.message}`]);
  });
  return {
    state: {
      state: 'engaged',
      detail: { database: request.database, setting: wanted.database, roles: wanted.inDatabase },
    },
    since: await now(client),
    endedSessions: ended.length,
  };
}

export interface LoweringRequest extends FenceRequest {
  /**
   * `perhaps`: where the settings are found as they were before, it never was, and nobody's session is ended for it.
   * @default 'surely'
   */
  readonly raised?: 'surely' | 'perhaps';
}

export interface LoweredFence {
  readonly state: SwitchState;
  readonly endedSessions: number;
  /** What a new session of each role gets now. */
  readonly settings: ReadOnlySettings;
}

/**
 * Puts the settings back exactly as they were found, and ends the sessions that began behind the fence: they would stay
 * read-only until their clients reconnect. Who cannot be ended is named in the state, for that alone loses nothing.
 *
 * @param client of the administrator, in the maintenance database
 * @param before as `readFence` told it
 */
export async function lowerFence(client: Client, before: SwitchState, request: LoweringRequest): Promise<LoweredFence> {
  const original = await ofLivingRoles(client, settingsBefore(before));
  const found = await readSettings(client, request.database);
  const statements = settingStatements(request.database, found, original);
  await applySettings(client, statements);
  const settings = await readSettings(client, request.database);
  const left = settingStatements(request.database, settings, original);
  if (left.length > 0) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the settings of database "${request.database}" are not as they were before the fence: ${left.join('; ')}`,
    );
  }
  const restored: Record<string, JsonValue> = {
    database: request.database,
    setting: settings.database,
    roles: settings.inDatabase,
  };
  if (before.state === 'engaged') {
    const note = 'was fenced before the run: left so';
    return { state: { state: 'engaged', detail: { ...restored, note } }, endedSessions: 0, settings };
  }
  if (request.raised === 'perhaps' && statements.length === 0) {
    const note = 'was not raised: nothing to put back';
    return { state: { state: 'released', detail: { ...restored, note } }, endedSessions: 0, settings };
  }
  request.progress({ phase: 'ending sessions that began behind the fence' });
  let endedSessions = 0;
  try {
    endedSessions = (await endSessionsBefore(client, await now(client), request)).length;
  } catch (error) {
    if (!(error instanceof StepError) || error.type !== STEP_ERRORS.stateUnexpected) throw error;
    restored['note'] = `read-only until they reconnect: ${error.message}`.slice(0, 500);
  }
  return { state: { state: 'released', detail: restored }, endedSessions, settings };
}

/** Does a new session of this role begin read-only? The most particular setting wins. */
export const beginsReadOnly = (settings: ReadOnlySettings, role: string): boolean =>
  isOn(settings.inDatabase[role] ?? settings.roleWide[role] ?? settings.database);

function settingsBefore({ detail }: SwitchState): WantedSettings {
  const { setting, roles } = detail;
  const known = typeof roles === 'object' && roles !== null && !Array.isArray(roles);
  if (!known || (setting !== null && typeof setting !== 'string')) {
    throw refusal(['what was found before the fence is not on record: put default_transaction_read_only back by hand']);
  }
  const texts = Object.entries(roles).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
  return { database: setting, inDatabase: Object.fromEntries(texts) };
}

const changedRoles = (found: WantedSettings, wanted: WantedSettings): string[] =>
  Object.keys(wanted.inDatabase).filter((role) => found.inDatabase[role] !== wanted.inDatabase[role]);

/** A role that was dropped meanwhile has no settings to be put back. */
async function ofLivingRoles(client: Client, { database, inDatabase }: WantedSettings): Promise<WantedSettings> {
  const { rows } = await client.query<{ role: string }>(
    'SELECT rolname AS "role" FROM pg_roles WHERE rolname = ANY ($1)',
    [Object.keys(inDatabase)],
  );
  const living = new Set(rows.map(({ role }) => role));
  return { database, inDatabase: Object.fromEntries(Object.entries(inDatabase).filter(([role]) => living.has(role))) };
}

/**
 * The fence as settings. Besides the application's roles those are held that have switched it off for themselves, for a
 * role's own setting wins over the database's; the administrator's sessions switch it off one by one.
 */
async function fencedSettings(
  client: Client,
  { database, migratorRole, applicationRoles }: FencedRoles,
  found: ReadOnlySettings,
): Promise<WantedSettings> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT rolname AS "role" FROM pg_roles
     WHERE rolcanlogin AND rolname <> session_user AND rolname = ANY ($1) AND has_database_privilege(oid, $2, 'CONNECT')`,
    [Object.keys({ ...found.roleWide, ...found.inDatabase }), database],
  );
  const escaping = rows.flatMap(({ role }) => (isOn(found.inDatabase[role] ?? found.roleWide[role]) ? [] : [role]));
  const held = [...new Set([...applicationRoles, ...escaping])].filter((role) => role !== migratorRole);
  return {
    database: 'on',
    inDatabase: {
      ...found.inDatabase,
      ...Object.fromEntries(held.map((role) => [role, 'on'])),
      [migratorRole]: 'off',
    },
  };
}

/** The server's clock, in the form of `Session.backendStart`. */
async function now(client: Client): Promise<string> {
  const { rows } = await client.query<{ now: string }>(
    `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "now"`,
  );
  return rows[0]!.now;
}

/**
 * Sessions of clients and background workers that may have read their settings before `moment`. Looked for twice: a
 * session is not shown until it has read them.
 */
async function endSessionsBefore(client: Client, moment: string, request: FenceRequest): Promise<Session[]> {
  const older = ({ backendType, backendStart }: Session): boolean =>
    (backendType === null || backendType === 'client backend' || backendType === 'background worker') &&
    (backendStart === null || backendStart <= moment);
  const ended: Session[] = [];
  for (const _look of ['first', 'second']) {
    const { ended: sessions } = await endSessions(client, {
      of: { database: request.database },
      only: older,
      signal: request.signal,
    });
    ended.push(...sessions);
    request.progress({ phase: 'sessions ended', sessions: ended.length });
    await client.query('SELECT pg_sleep(0.3)');
  }
  return ended;
}
