export { databaseLease } from './database-lease.ts';
export { databaseMigration } from './database-migration.ts';
