import {
  BinaryPayloadConverter,
  CompositePayloadConverter,
  JsonPayloadConverter,
  type Payload,
  UndefinedPayloadConverter,
} from '@temporalio/common';
import type { UndecodablePayload } from './messages.ts';

/**
 * Decodes whatever arrives and never throws: a signal whose payload nobody can decode would otherwise fail the workflow
 * task for ever, that is, wedge the run. What cannot be decoded becomes an object that says so, and is refused like any
 * other malformed message.
 */
class TotalPayloadConverter extends CompositePayloadConverter {
  constructor() {
    super(new UndefinedPayloadConverter(), new BinaryPayloadConverter(), new JsonPayloadConverter());
  }

  override fromPayload<T>(payload: Payload): T {
    try {
      return super.fromPayload<T>(payload);
    } catch (error) {
      const undecodable: UndecodablePayload = {
        undecodable: error instanceof Error ? error.message.slice(0, 200) : 'payload',
      };
      return undecodable as T;
    }
  }
}

export const payloadConverter = new TotalPayloadConverter();
