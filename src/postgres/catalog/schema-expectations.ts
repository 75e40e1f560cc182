import type { SchemaExpectation } from '../../contract/profile.ts';
import { keyOf, type ObjectMap } from './object-map.ts';

/** The expectations that hold for a release: `releases` is a glob of its tag (`*` any text, `?` one character). */
export const expectationsFor = (
  expectations: readonly SchemaExpectation[],
  releaseTag: string,
): readonly SchemaExpectation[] =>
  expectations.filter(({ releases }) => releases === undefined || globPattern(releases).test(releaseTag));

const globPattern = (glob: string): RegExp =>
  new RegExp(
    `^${glob
      .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
    's',
  );

/** Expectations that the map does not meet. A name may be written with or without double quotes. */
export function unmetExpectations(
  map: ObjectMap,
  expectations: readonly SchemaExpectation[],
): readonly SchemaExpectation[] {
  const present = new Set(map.objects.map((object) => plain(keyOf(object))));
  return expectations.filter((expectation) => !present.has(plain(keyOf(expectation))));
}

const plain = (key: string): string => key.replaceAll('"', '');
