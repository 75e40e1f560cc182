import {
  type Client,
  isGrpcDeadlineError,
  isGrpcServiceError,
  QueryNotRegisteredError,
  type WorkflowHandle,
} from '@temporalio/client';

/** An answer of the workflow itself, or why there is none: answering takes a worker. */
export type Answer<T> =
  | { readonly kind: 'answered'; readonly value: T }
  | { readonly kind: 'unanswered'; readonly why: string };

/** @param limit milliseconds after which the wait for a worker ends */
export async function ask<T>(client: Client, handle: WorkflowHandle, query: string, limit: number): Promise<Answer<T>> {
  try {
    const value = await client.withDeadline(Date.now() + limit, () => handle.query<T>(query));
    return { kind: 'answered', value };
  } catch (error) {
    return { kind: 'unanswered', why: whyNot(error, limit) };
  }
}

function whyNot(error: unknown, limit: number): string {
  if (isGrpcDeadlineError(error)) return `no worker answered within ${Math.round(limit / 1000)} s`;
  if (error instanceof QueryNotRegisteredError) return 'the run was refused at its start and answers no queries';
  let current = error;
  while (current instanceof Error && !isGrpcServiceError(current) && current.cause !== undefined)
    current = current.cause;
  if (isGrpcServiceError(current)) return current.details.slice(0, 500);
  return current instanceof Error ? current.message.slice(0, 500) : String(current);
}
