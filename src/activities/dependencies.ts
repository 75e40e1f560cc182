import type { Client } from '@temporalio/client';
import type { SecretVault } from '../profile/secret-vault.ts';

/** What the activities of one worker share. */
export interface ActivityDependencies {
  /** Folder with one `<service>.yaml` per service. */
  readonly profilesDirectory: string;
  /** Cache of git mirrors and checkouts; may be lost at any time. */
  readonly stateDirectory: string;
  /** Asks the server about earlier runs. */
  readonly client: Client;
  readonly secrets: SecretVault;
}
