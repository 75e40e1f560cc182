import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';

/**
 * Collects what is wrong, so that one message names everything and not the first. What another try may mend is told
 * apart: where nothing else was found the step may be tried again.
 */
export class Findings {
  readonly #lasting: string[] = [];
  readonly #passing: string[] = [];

  add(...texts: readonly string[]): void {
    this.#lasting.push(...texts);
  }

  get all(): readonly string[] {
    return [...this.#lasting, ...this.#passing];
  }

  /**
   * Runs a part of the inspection; a StepError becomes findings, anything else comes through.
   * @returns undefined when it failed
   */
  async attempt<T>(subject: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      const texts = findingsOf(error).map((text) => `${subject}: ${text}`);
      if (error.type === STEP_ERRORS.unavailable) this.#passing.push(...texts);
      else this.#lasting.push(...texts);
      return undefined;
    }
  }

  /** @throws StepError `StepRefused`, or `OutsideUnavailable` where all that was found may pass */
  throwIfAny(): void {
    if (this.all.length === 0) return;
    const error = refusal(this.all);
    if (this.#lasting.length > 0) throw error;
    throw new StepError(STEP_ERRORS.unavailable, error.message, error.details);
  }
}

function findingsOf(error: StepError): readonly string[] {
  const { findings } = error.details;
  return Array.isArray(findings) && findings.length > 0 && findings.every((text) => typeof text === 'string')
    ? findings
    : [error.message];
}
