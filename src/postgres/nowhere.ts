/** Never resolved to an address (RFC 6761, section 6.4). */
export const NOWHERE = 'nowhere.invalid';
