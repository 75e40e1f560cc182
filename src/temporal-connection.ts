import { loadClientConnectConfig } from '@temporalio/envconfig';

/** What overrides the environment and `temporal.toml`. */
export interface TemporalAddress {
  /** `host:port` */
  readonly address?: string | undefined;
  readonly namespace?: string | undefined;
}

/**
 * Connection settings as Temporal's own command line takes them: `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`,
 * `TEMPORAL_TLS*`, and the profile `TEMPORAL_PROFILE` of `temporal.toml`.
 */
export function connectionSettings({ address, namespace }: TemporalAddress = {}) {
  const config = loadClientConnectConfig();
  return {
    connectionOptions: { ...config.connectionOptions, ...(address !== undefined && { address }) },
    address: address ?? config.connectionOptions.address ?? 'localhost:7233',
    namespace: namespace ?? config.namespace ?? 'default',
  };
}
