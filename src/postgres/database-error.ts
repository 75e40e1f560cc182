import { DatabaseError } from 'pg';
import { STEP_ERRORS, StepError, type StepErrorType } from '../contract/errors.ts';
import { type ConnectionTarget, describeTarget } from './connection-url.ts';

/** SQLSTATEs (or their two-digit classes) that another try may mend: PostgreSQL documentation, "Error Codes". */
const PASSING = ['08', '53', '57', '58', '40001', '40P01', '55P03', '55006', '25P03', '25P04'];

/** Failures of the socket or the name service, by Node's code. */
const NETWORK = /^(ECONN|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET|EPIPE|ENOENT|EADDR)/;
const CERTIFICATE = /CERT|SELF_SIGNED|ERR_TLS|ERR_SSL|UNABLE_TO_/;

/** The five-character SQLSTATE of an error thrown by a query, if it has one. */
export const sqlState = (error: unknown): string | undefined =>
  error instanceof DatabaseError ? error.code : undefined;

const nodeCode = (error: unknown): string => {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
};

/** A failure to connect, in words that tell the operator what to look at. */
export function connectFailure(error: unknown, target: ConnectionTarget): StepError {
  if (error instanceof StepError) return error;
  const where = describeTarget(target);
  const said = (type: StepErrorType, text: string): StepError =>
    new StepError(type, text, { sqlstate: sqlState(error) ?? null, host: target.host, port: target.port });
  const state = sqlState(error) ?? '';
  switch (state) {
    case '28P01':
      return said(
        STEP_ERRORS.refused,
        `wrong password for role "${target.user}" of ${where}, or there is no such role`,
      );
    case '28000':
      return said(
        STEP_ERRORS.refused,
        `the server does not let role "${target.user}" into ${where}: the role is missing or may not log in, or no line of pg_hba.conf admits it`,
      );
    case '3D000':
      return said(STEP_ERRORS.refused, `${where} does not exist`);
    case '42501':
      return said(STEP_ERRORS.refused, `role "${target.user}" lacks CONNECT on ${where}`);
    case '55000':
      return said(STEP_ERRORS.unavailable, `${where} accepts no connections at present`);
    case '53300':
      return said(STEP_ERRORS.unavailable, `${where} has no connection free for role "${target.user}"`);
    case '57P03':
      return said(STEP_ERRORS.unavailable, `${where} is starting up, stopping or recovering`);
    default:
      break;
  }
  const text = error instanceof Error ? error.message : '';
  if (text.includes('does not support SSL')) {
    return said(STEP_ERRORS.refused, `${where} offers no TLS, but sslmode=${target.sslmode} asks for it`);
  }
  if (CERTIFICATE.test(nodeCode(error))) {
    return said(STEP_ERRORS.refused, `the TLS certificate of ${where} is not trusted (${nodeCode(error)})`);
  }
  if (text.includes('password must be a')) {
    return said(STEP_ERRORS.refused, `${where} asks role "${target.user}" for a password, but its address has none`);
  }
  if (sqlState(error) !== undefined) return queryFailure(error, target);
  const reason = NETWORK.test(nodeCode(error)) ? nodeCode(error) : /timeout/i.test(text) ? 'timed out' : 'no answer';
  return said(STEP_ERRORS.unavailable, `${where} cannot be reached (${reason})`);
}

/** A failure of a statement or of the connection under it. The server's DETAIL is left out: it may quote rows. */
export function queryFailure(error: unknown, target: ConnectionTarget): StepError {
  if (error instanceof StepError) return error;
  const where = describeTarget(target);
  if (error instanceof DatabaseError) {
    const state = error.code ?? '';
    const type = PASSING.some((prefix) => state.startsWith(prefix)) ? STEP_ERRORS.unavailable : STEP_ERRORS.refused;
    return new StepError(type, `${where}, role "${target.user}": ${error.message.slice(0, 500)} (SQLSTATE ${state})`, {
      sqlstate: state,
    });
  }
  const text = error instanceof Error ? error.message : String(error);
  if (NETWORK.test(nodeCode(error)) || /Connection terminated|not queryable|timeout/i.test(text)) {
    return new StepError(STEP_ERRORS.unavailable, `the connection to ${where} was lost`);
  }
  throw error;
}
