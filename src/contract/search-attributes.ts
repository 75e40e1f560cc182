import { defineSearchAttributeKey } from '@temporalio/common';

/** Registered by `runbook setup`; a worker refuses to start without them, for a missing one wedges runs. */
export const SEARCH_ATTRIBUTES = {
  service: defineSearchAttributeKey('MigrationService', 'KEYWORD'),
  release: defineSearchAttributeKey('MigrationRelease', 'KEYWORD'),
  ticket: defineSearchAttributeKey('MigrationTicket', 'KEYWORD'),
  stage: defineSearchAttributeKey('MigrationStage', 'KEYWORD'),
  outcome: defineSearchAttributeKey('MigrationOutcome', 'KEYWORD'),
} as const;

export const SEARCH_ATTRIBUTE_NAMES: readonly string[] = Object.values(SEARCH_ATTRIBUTES).map((key) => key.name);
