import type { ComparableTable } from './comparable-tables.ts';
import { qualifiedName } from '../identifier.ts';

/** How one table of production and the restored copy is compared, or that only one of them has it. */
export type TablePair = PairInBoth | PairInOne;

export interface PairInBoth {
  readonly presence: 'both';
  /** As the object map writes it. */
  readonly table: string;
  readonly production: ComparableTable;
  readonly copy: ComparableTable;
  /** By what rows are matched; null: by all that is compared, so that a changed row counts as one deleted and one inserted. */
  readonly key: readonly string[] | null;
  /** Columns whose values are compared: those both sides have, unless both generate them. */
  readonly compared: readonly string[];
  /** Among the compared ones: columns of another type, compared by their text. */
  readonly retyped: readonly string[];
  readonly onlyInProduction: readonly string[];
  readonly onlyInCopy: readonly string[];
}

export interface PairInOne {
  readonly presence: 'production' | 'copy';
  readonly table: string;
  readonly present: ComparableTable;
}

/** Sorted by name. */
export function pairTables(
  production: readonly ComparableTable[],
  copy: readonly ComparableTable[],
  leaveOut: (table: ComparableTable) => boolean = () => false,
): TablePair[] {
  const restored = new Map(copy.filter((table) => !leaveOut(table)).map((table) => [nameOf(table), table]));
  const pairs: TablePair[] = [];
  for (const table of production) {
    if (leaveOut(table)) continue;
    const other = restored.get(nameOf(table));
    restored.delete(nameOf(table));
    if (other === undefined) pairs.push({ presence: 'production', table: nameOf(table), present: table });
    else pairs.push(...pairOf(table, other));
  }
  for (const [table, present] of restored) pairs.push({ presence: 'copy', table, present });
  return pairs.sort((one, other) => (one.table < other.table ? -1 : one.table > other.table ? 1 : 0));
}

const nameOf = ({ schema, name }: ComparableTable): string => qualifiedName(schema, name);

/** A table that kept its name and none of its columns is another table. */
function pairOf(production: ComparableTable, copy: ComparableTable): TablePair[] {
  const table = nameOf(production);
  const theirs = new Map(copy.columns.map((column) => [column.name, column]));
  const common = production.columns.filter(({ name }) => theirs.has(name));
  if (common.length === 0 && production.columns.length + copy.columns.length > 0) {
    return [
      { presence: 'production', table, present: production },
      { presence: 'copy', table, present: copy },
    ];
  }
  const names = new Set(common.map(({ name }) => name));
  return [
    {
      presence: 'both',
      table,
      production,
      copy,
      key: commonKey(production, copy),
      compared: common.filter((column) => !column.generated || !theirs.get(column.name)!.generated).map(nameOfColumn),
      retyped: common.filter(({ name, type }) => theirs.get(name)!.type !== type).map(nameOfColumn),
      onlyInProduction: production.columns.filter(({ name }) => !names.has(name)).map(nameOfColumn),
      onlyInCopy: copy.columns.filter(({ name }) => !names.has(name)).map(nameOfColumn),
    },
  ];
}

const nameOfColumn = ({ name }: { readonly name: string }): string => name;

/** A key on one side alone would match a row with several. */
function commonKey(production: ComparableTable, copy: ComparableTable): readonly string[] | null {
  const ours = new Set(production.keys.map(sameColumns));
  return copy.keys.find((key) => ours.has(sameColumns(key))) ?? null;
}

const sameColumns = (key: readonly string[]): string => JSON.stringify([...key].sort());
