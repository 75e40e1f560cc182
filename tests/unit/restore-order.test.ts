import { describe, expect, it } from 'vitest';
import { type ArchiveItem, orderRestore, parseItem, useList } from '../../src/postgres/restore/restore-order.ts';

const items = (...lines: readonly string[]): ArchiveItem[] => lines.flatMap((line) => parseItem(line) ?? []);

const TABLE = '219; 1259 16431 TABLE public accounts owner';
const DATA = '2584; 0 16431 TABLE DATA public accounts owner';
const INDEX = '2426; 1259 16440 INDEX public accounts_email owner';
const COMMENT = '2600; 0 0 COMMENT public INDEX accounts_email owner';
const RIGHTS = '2601; 0 0 ACL public TABLE accounts owner';
const DEFAULTS = '2602; 826 16500 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES owner';
const VIEW_ROWS = '2603; 0 16450 MATERIALIZED VIEW DATA public totals owner';
const TRIGGER = '2604; 3466 16460 EVENT TRIGGER - watch owner';
const TRIGGER_COMMENT = '2605; 0 0 COMMENT - EVENT TRIGGER watch owner';

describe('the order of a restore', () => {
  const all = items(TABLE, RIGHTS, DATA, INDEX, COMMENT, DEFAULTS, VIEW_ROWS, TRIGGER, TRIGGER_COMMENT);
  const streamed = items(TABLE, DATA);
  const afterData = items(INDEX, COMMENT, VIEW_ROWS, TRIGGER, TRIGGER_COMMENT);
  const order = orderRestore({ all, streamed, afterData });

  it('keeps rights, rows of materialized views and event triggers for last', () => {
    expect(order.concurrent).toEqual(items(INDEX, COMMENT));
    expect(order.last).toEqual(items(RIGHTS, DEFAULTS, VIEW_ROWS, TRIGGER, TRIGGER_COMMENT));
  });

  it('restores every item once', () => {
    const ids = [...streamed, ...order.concurrent, ...order.last].map(({ id }) => id);
    expect(ids).toHaveLength(all.length);
    expect(new Set(ids)).toEqual(new Set(all.map(({ id }) => id)));
  });

  it('refuses an item that two sections claim', () => {
    expect(() => orderRestore({ all, streamed, afterData: items(DATA) })).toThrow('2584 TABLE DATA public accounts');
  });

  it('reads items and passes over the list’s own comments', () => {
    expect(items(';', '; Selected TOC Entries:', '', INDEX)).toEqual([
      { id: 2426, what: 'INDEX public accounts_email owner' },
    ]);
    expect(useList(items(INDEX, COMMENT))).toBe('2426;\n2600;\n');
  });
});
