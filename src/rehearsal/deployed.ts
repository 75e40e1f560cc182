/** The release that is deployed now, on an upgraded copy: it will run there in production until the new one is deployed. */
import { setTimeout as pause } from 'node:timers/promises';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { FlowsEvidence } from '../contract/evidence/dry-run.ts';
import type { ApplicationProfile } from '../contract/profile.ts';
import type { DeployedTrial } from '../contract/evidence/rehearsal.ts';
import { runDocument } from '../integrations/actions.ts';
import { withApplication } from '../integrations/application.ts';
import { runCommandAction } from '../integrations/command-action.ts';
import { type IntegrationContext, runValues } from '../integrations/context.ts';
import { runFlow } from '../integrations/flows.ts';
import { sendHttpAction } from '../integrations/http-action.ts';
import { valueAtPointer } from '../integrations/json-pointer.ts';
import { ensureCheckout } from '../repository/checkout.ts';
import { resolveRelease } from '../repository/release-tag.ts';
import { confidential } from '../staging/confidential.ts';
import { rehearsalEnvironment } from './environment.ts';
import { rehearsalTarget } from './login.ts';
import { withTrialCopy } from './scratch.ts';
import type { DeployedRequest } from './scratch-world.ts';

type Source = NonNullable<ApplicationProfile['deployed']>['source'];

/**
 * Boots the deployed release on a copy of the upgraded database and walks through the rehearsal's flows. On a copy, for its
 * rows would be taken for the migration's.
 *
 * @throws the signal's reason after an abort; all else is a trial that failed
 */
export async function tryDeployedRelease(request: DeployedRequest): Promise<DeployedTrial> {
  const { context } = request;
  const { deployed } = context.profile.application;
  if (deployed === undefined) {
    return { kind: 'not-tried', why: 'the profile does not say which release is deployed (application.deployed)' };
  }
  let release = '';
  try {
    request.progress({ phase: 'asking which release is deployed' });
    release = await deployedRelease(deployed.source, context);
    const { url } = context.profile.repository;
    const { redactor } = context.secrets;
    const commit = await resolveRelease({ url, name: release, signal: context.signal, redactor });
    const flows = await exercise(request, release, commit);
    return { kind: 'passed', release, commit, flows };
  } catch (error) {
    context.signal.throwIfAborted();
    if (!(error instanceof StepError)) throw error;
    return { kind: 'failed', release, why: context.secrets.redactor.redact(error.message).slice(0, 1_500) };
  }
}

const TRIES = 3;
const PAUSE = 2_000;

/** A tag or a commit, as the profile's source tells it. */
async function deployedRelease(source: Source, context: IntegrationContext): Promise<string> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const told = await ask(source, context);
      if (/^\S{1,200}$/.test(told)) return told;
      throw new StepError(
        STEP_ERRORS.checkFailed,
        `application.deployed tells "${told.slice(0, 100)}", which is no tag and no commit`,
      );
    } catch (error) {
      // The trial around it takes long: it is not worth less because somebody did not answer once.
      if (!(error instanceof StepError) || error.type !== STEP_ERRORS.unavailable || attempt >= TRIES) throw error;
      await pause(PAUSE, undefined, { signal: context.signal });
    }
  }
}

async function ask(source: Source, context: IntegrationContext): Promise<string> {
  switch (source.kind) {
    case 'command': {
      const facts = `${JSON.stringify({ run: runDocument(context.run) })}\n`;
      return (await runCommandAction(source.action, facts, context)).output;
    }
    case 'http': {
      const { json } = await sendHttpAction(source.action, undefined, context);
      const value = valueAtPointer(json, source.pointer);
      if (typeof value === 'string') return value.trim();
      throw new StepError(
        STEP_ERRORS.checkFailed,
        `the answer of application.deployed has no text at ${source.pointer === '' ? 'its top' : source.pointer}`,
      );
    }
  }
}

async function exercise(request: DeployedRequest, release: string, commit: string): Promise<FlowsEvidence> {
  const { world, upgraded, application, context, stateDirectory } = request;
  const { profile, signal } = context;
  const { repository } = profile;
  const { boot } = profile.application;
  const flows = profile.rehearsal.flows ?? profile.application.flows;
  request.progress({ phase: `checkout of ${release}` });
  const checkout = await ensureCheckout({
    url: repository.url,
    commit,
    stateDirectory,
    ...(repository.prepare === undefined
      ? {}
      : { prepare: { command: repository.prepare, timeout: repository.prepareTimeout } }),
    signal,
    redactor: context.secrets.redactor,
    progress: (line) => request.progress({ phase: `checkout of ${release}`, line }),
  });
  const run = { ...context.run, releaseTag: release, commit };
  return withTrialCopy(world, { of: upgraded, purpose: 'deployed' }, async ({ database }) => {
    request.progress({ phase: `booting ${release} on the upgraded copy` });
    const { target } = await rehearsalTarget(world, { copy: database, as: application });
    const environment = await rehearsalEnvironment(profile, checkout, target, context.secrets);
    const start = {
      command: boot.command,
      directory: checkout,
      environment: environment.application,
      templates: environment.templates,
      readyPath: boot.readyPath,
      timeout: boot.timeout,
      values: { ...runValues(run), checkout },
      redactor: context.secrets.redactor.with([...confidential(environment.application), target.password ?? '']),
      signal,
    };
    const here: IntegrationContext = { ...context, run, checkout: () => Promise.resolve(checkout) };
    try {
      return await withApplication(start, async ({ baseUrl, bootMilliseconds }) => {
        const results: FlowsEvidence['flows'][number][] = [];
        for (const flow of flows) {
          request.progress({ phase: `flows of ${release} on the upgraded copy`, flow: flow.name });
          results.push(await runFlow(flow, baseUrl, here));
        }
        return { bootMilliseconds, flows: results };
      });
    } catch (error) {
      const { withheld } = environment;
      if (!(error instanceof StepError) || withheld.length === 0) throw error;
      throw new StepError(
        error.type,
        `${error.message} (kept from it, for they lead to databases of production or staging: ${withheld.join(', ')})`,
      );
    }
  });
}
