/** Every secret reference of a profile, with the place it is used in. */
import type {
  Action,
  Check,
  ConfiguredValue,
  Fence,
  Flow,
  Measure,
  Profile,
  SecretReference,
  Switch,
} from '../contract/profile.ts';

export interface UsedReference {
  /** Where it is used, for messages: `databases.production.migrator`. */
  readonly path: string;
  readonly reference: SecretReference;
}

/** All references, in the order of the profile. The same reference may be used in several places. */
export function collectSecretReferences(profile: Profile): UsedReference[] {
  return [
    ...ofReview(profile),
    ...ofDatabases(profile),
    ...ofValues('alembic.environment', profile.alembic.environment),
    used('backup.accessKeyId', profile.backup.accessKeyId),
    used('backup.secretAccessKey', profile.backup.secretAccessKey),
    used('backup.identity', profile.backup.identity),
    ...ofFence(profile.fence),
    ...(profile.restore.capacity.kind === 'command'
      ? ofAction('restore.capacity', profile.restore.capacity.action)
      : []),
    ...(profile.recoveryPoint.snapshot ? ofAction('recoveryPoint.snapshot', profile.recoveryPoint.snapshot) : []),
    ...ofValues('rehearsal.environment', profile.rehearsal.environment ?? {}),
    ...(profile.rehearsal.flows ?? []).flatMap((flow, index) => ofFlow(`rehearsal.flows[${index}]`, flow)),
    ...(profile.application.deployed
      ? ofAction('application.deployed', profile.application.deployed.source.action)
      : []),
    ...ofValues('application.boot.environment', profile.application.boot.environment),
    ...profile.application.flows.flatMap((flow, index) => ofFlow(`application.flows[${index}]`, flow)),
    ...ofActions('announce', profile.announce),
    ...profile.switches.flatMap((item, index) => ofSwitch(`switches[${index}]`, item)),
    ...profile.checks.smoke.flatMap((check, index) => ofCheck(`checks.smoke[${index}]`, check)),
    ...profile.checks.smokeWrites.flatMap((check, index) => ofCheck(`checks.smokeWrites[${index}]`, check)),
    ...profile.monitoring.measures.flatMap((measure, index) => ofMeasure(`monitoring.measures[${index}]`, measure)),
    ...ofActions('ticket', profile.ticket),
    ...ofActions('stakeholders', profile.stakeholders),
    ...ofActions('retrospective', profile.retrospective),
    ...ofActions('approvals.notify', profile.approvals.notify),
    ...ofActions('recovery.escalate', profile.recovery.escalate),
    ...profile.steps.flatMap((step, index) => ofAction(`steps[${index}]`, step.action)),
  ];
}

const used = (path: string, reference: SecretReference): UsedReference => ({ path, reference });

const ofReview = ({ review: { source } }: Profile): UsedReference[] =>
  source.kind === 'command' ? ofAction('review', source.action) : [used(`review.${source.kind}.token`, source.token)];

const ofDatabases = ({ databases: { production, staging, scratch } }: Profile): UsedReference[] => [
  used('databases.production.administrator', production.administrator),
  used('databases.production.migrator', production.migrator),
  used('databases.production.backup', production.backup),
  ...(production.application ? [used('databases.production.application', production.application)] : []),
  ...production.standbys.flatMap(({ administrator }, index) =>
    administrator ? [used(`databases.production.standbys[${index}].administrator`, administrator)] : [],
  ),
  used('databases.staging.administrator', staging.administrator),
  used('databases.staging.migrator', staging.migrator),
  used('databases.scratch.administrator', scratch.administrator),
];

const ofValue = (path: string, value: ConfiguredValue): UsedReference[] =>
  typeof value === 'string' ? [] : [used(path, value.secret)];

const ofValues = (path: string, values: Readonly<Record<string, ConfiguredValue>>): UsedReference[] =>
  Object.entries(values).flatMap(([name, value]) => ofValue(`${path}.${name}`, value));

const ofActions = (path: string, actions: readonly Action[]): UsedReference[] =>
  actions.flatMap((action, index) => ofAction(`${path}[${index}]`, action));

function ofAction(path: string, action: Action): UsedReference[] {
  switch (action.kind) {
    case 'command':
      return ofValues(`${path}.environment`, action.environment);
    case 'http':
      return [...ofValue(`${path}.http`, action.url), ...ofValues(`${path}.headers`, action.headers)];
    case 'file':
      return [];
  }
}

function ofSwitch(path: string, { mechanism }: Switch): UsedReference[] {
  if (mechanism.kind === 'celery') return ofValues(`${path}.celery.environment`, mechanism.environment);
  return ofMechanism(path, mechanism);
}

const ofFence = (fence: Fence): UsedReference[] =>
  fence.kind === 'maintenance'
    ? [...ofMechanism('fence.maintenance', fence.mechanism), ...ofCheck('fence.maintenance.check', fence.check)]
    : [];

function ofMechanism(path: string, mechanism: Extract<Switch['mechanism'], { kind: 'actions' }>): UsedReference[] {
  return [
    ...(mechanism.state ? ofAction(`${path}.state`, mechanism.state) : []),
    ...ofAction(`${path}.engage`, mechanism.engage),
    ...ofAction(`${path}.release`, mechanism.release),
  ];
}

function ofCheck(path: string, check: Check): UsedReference[] {
  switch (check.kind) {
    case 'command':
    case 'http':
      return ofAction(path, check.action);
    case 'flow':
      return ofFlow(path, check.flow);
    case 'sql':
      return [];
  }
}

const ofFlow = (path: string, flow: Flow): UsedReference[] =>
  flow.requests.flatMap((request, index) => [
    ...ofValues(`${path}.requests[${index}].headers`, request.headers),
    ...Object.entries(request.secrets).map(([pointer, reference]) =>
      used(`${path}.requests[${index}].secrets.${pointer}`, reference),
    ),
  ]);

const ofMeasure = (path: string, { source }: Measure): UsedReference[] =>
  source.kind === 'http' || source.kind === 'prometheus' ? ofValues(`${path}.headers`, source.headers) : [];
