"""What a statement's text tells: how it waits, which limits it sets itself, and what of it may be shown.

Classes: `exclusive` takes locks that keep others out (most DDL); `concurrent` works beside the application; `rows` reads or
changes rows; `session` is everything else.
"""

import re
from collections import OrderedDict

# Scripts can be long; their beginning is shown, and decides.
EXAMINED = 1000000
EXAMINED_OF_EACH = 5000
# The worker cuts at 2,000, after its own redaction, which has to see a little more.
SHOWN = 2400
REMEMBERED = 256

_token = re.compile(
    r"""
      (?P<line>--[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>(?<![\w$])[eE]'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'|'[^']*(?:''[^']*)*')
    | (?P<dollar>(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$)
    | (?P<name>"[^"]*(?:""[^"]*)*")
    | (?P<end>;)
    | (?P<open>['"])
    """,
    re.VERBOSE | re.DOTALL,
)
_spaces = re.compile(r"\s+")
_comment_mark = re.compile(r"/\*|\*/")

_session = frozenset(
    "SET RESET SHOW BEGIN START COMMIT END ROLLBACK ABORT SAVEPOINT RELEASE DISCARD LISTEN UNLISTEN NOTIFY DEALLOCATE "
    "CHECKPOINT LOAD CLOSE".split()
)
_rows = frozenset(
    "SELECT INSERT UPDATE DELETE WITH COPY MERGE VALUES TABLE DO CALL EXPLAIN PREPARE EXECUTE DECLARE FETCH MOVE".split()
)
_concurrent = re.compile(
    r"""
      (CREATE\ (UNIQUE\ )?INDEX|DROP\ INDEX|REFRESH\ MATERIALIZED\ VIEW)\ CONCURRENTLY\b
    | REINDEX\b(?!.*\bCONCURRENTLY\ (FALSE|OFF|0)\b).*\bCONCURRENTLY\b
    | ALTER\ TABLE\b.*\ DETACH\ PARTITION\b.*\ (CONCURRENTLY|FINALIZE)$
    | ALTER\ TABLE\ (IF\ EXISTS\ )?(ONLY\ )?\S+(\ \*)?(\ ?,?\ ?VALIDATE\ CONSTRAINT\ [^\s,]+)+$
    | (VACUUM|ANALY[SZ]E)\b(?!.*\bFULL\b)
    """,
    re.VERBOSE,
)
_makes_table_of_rows = re.compile(r"CREATE\b.*\bTABLE\b.*\bAS\b ?\(?(SELECT|WITH|VALUES|TABLE|EXECUTE)\b")
_changes_objects = re.compile(r"\b(ALTER|CREATE|DROP|TRUNCATE|LOCK|GRANT|REVOKE|COMMENT)\b", re.IGNORECASE)

_limit_words = re.compile(r"timeout|\bALL\b", re.IGNORECASE)
_sets = re.compile(r"SET (?P<scope>SESSION |LOCAL )?(?P<name>LOCK_TIMEOUT|STATEMENT_TIMEOUT)\b(?: TO| ?=)? ?(?P<value>.*)")
_sets_inside = re.compile(r"\bSET\s+(?P<scope>LOCAL\s+)?(?:SESSION\s+)?(?P<name>lock_timeout|statement_timeout)\b", re.IGNORECASE)
_set_config = re.compile(
    r"\bset_config\s*\(\s*'(?P<name>lock_timeout|statement_timeout)'\s*,[^,)]*,\s*'?(?P<local>[a-z]+)", re.IGNORECASE
)
_secret_text = re.compile(r"passw|secret|token|api_?key|://[^/\s]*:[^/\s]*@", re.IGNORECASE)
# Long enough to be somebody's: a card, a telephone, an identity.
_long_number = re.compile(r"(?<![\w$.\"])\d{5,}(?![\w\"])")


class Statement:
    """`kind`: its class. `text`: what may be shown. `sets`: [(parameter, "transaction" | "session" | "default")].
    `first`: its first word. `savepoint`: of SAVEPOINT and ROLLBACK TO, the name in upper case."""

    __slots__ = ("kind", "text", "sets", "first", "savepoint", "repeats_locks")

    def __init__(self, kind, text, sets, first, savepoint=None):
        self.kind = kind
        self.text = text
        self.sets = sets
        self.first = first
        self.savepoint = savepoint
        # The same text takes the same locks again.
        self.repeats_locks = first in ("INSERT", "UPDATE", "DELETE", "MERGE")


_known = OrderedDict()

# Most of what comes in thousands: one statement on rows, without comments, code or escapes.
_plain = re.compile(r"\s*(INSERT|UPDATE|DELETE|SELECT)\s[^;\\$]*(?:\$\d[^;\\$]*)*\Z", re.IGNORECASE)
_not_plain = re.compile(r"--|/\*|timeout", re.IGNORECASE)
_to_strike = re.compile(r"(?P<name>\"[^\"]*\")|(?P<string>'[^']*(?:''[^']*)*')|(?P<number>(?<![\w$.])\d{5,}(?!\w))|(?P<space>\s+)")
_struck_by_kind = {"string": "'?'", "number": "0", "space": " "}


def examine(sql, with_placeholders=False):
    """`with_placeholders`: the text goes through Python's %-formatting on its way to the server."""
    key = (sql, with_placeholders)
    found = _known.get(key)
    if found is None:
        found = _examine_plain(sql, with_placeholders) or _examine(sql[:EXAMINED], with_placeholders)
        if len(sql) <= 10000:
            _known[key] = found
            if len(_known) > REMEMBERED:
                _known.popitem(last=False)
    return found


def _examine_plain(sql, with_placeholders):
    """None where it is not as plain as that."""
    match = _plain.match(sql) if len(sql) <= EXAMINED_OF_EACH else None
    if match is None or _not_plain.search(sql) or sql.count("'") % 2 or sql.count('"') % 2:
        return None
    text = _to_strike.sub(lambda found: _struck_by_kind.get(found.lastgroup) or found.group(), sql).strip()
    return Statement("rows", (_as_sent(text) if with_placeholders else text)[:SHOWN], (), match.group(1).upper())


def _examine(sql, with_placeholders):
    kinds, sets, shown, length, first, savepoint = set(), [], [], 0, "", None
    mentions_limits = _limit_words.search(sql) is not None
    for tokens in _statements(sql):
        skeleton = _skeleton(tokens)
        if not skeleton:
            continue
        word = re.match(r"[A-Z]*", skeleton).group()
        first = first or word
        if word in ("SAVEPOINT", "ROLLBACK"):
            words = "".join(part for _, part in tokens).upper().split()
            savepoint = words[-1] if word == "SAVEPOINT" or "TO" in words else None
        kind = _kind(word, skeleton, tokens)
        kinds.add(kind)
        if mentions_limits:
            sets.extend(_own_limits(word, skeleton, tokens))
        if length <= SHOWN:
            text = _shown(word, kind, skeleton, tokens)
            shown.append(_as_sent(text) if with_placeholders else text)
            length += len(text) + 2
    for kind in ("exclusive", "concurrent", "rows"):
        if kind in kinds:
            break
    else:
        kind = "session"
    return Statement(kind, "; ".join(shown)[:SHOWN], sets, first, savepoint)


def _statements(sql):
    """Lists of (kind, text); kinds: code, name, string. Comments are left out, every space in code is one blank."""
    tokens, position, start, size = [], 0, 0, 0

    def add(kind, text):
        nonlocal size
        if text and size < EXAMINED_OF_EACH:
            tokens.append((kind, _spaces.sub(" ", text) if kind == "code" else text))
        size += len(text)

    while size < EXAMINED_OF_EACH or sql.find(";", position) >= 0:
        match = _token.search(sql, position)
        add("code", sql[start : match.start()] if match else sql[start:])
        if match is None:
            break
        kind, position = match.lastgroup, match.end()
        if match.group("dollar"):
            closing = sql.find(match.group("dollar"), position)
            position = len(sql) if closing < 0 else closing + len(match.group("dollar"))
            add("string", sql[match.start() : position])
        elif kind in ("line", "comment"):
            position = position if kind == "line" else _end_of_comment(sql, position)
            add("code", " ")
        elif kind in ("string", "name"):
            add(kind, match.group())
        elif kind == "end":
            yield tokens
            tokens, size = [], 0
        else:  # a quote that nobody closes
            position = len(sql)
            add("string", sql[match.start() :])
        start = position
    yield tokens


def _end_of_comment(sql, position):
    depth = 1
    while depth:
        mark = _comment_mark.search(sql, position)
        if mark is None:
            return len(sql)
        depth += 1 if mark.group() == "/*" else -1
        position = mark.end()
    return position


def _skeleton(tokens):
    """Upper case, with names and strings emptied."""
    empty = {"name": '""', "string": "''"}
    text = "".join(empty.get(kind) or text for kind, text in tokens)
    return re.sub(" +", " ", text).strip(" (").rstrip().upper()


def _kind(word, skeleton, tokens):
    if word in _session:
        return "session"
    if word in _rows:
        # A block of code that changes objects takes their locks.
        if word == "DO" and any(kind == "string" and _changes_objects.search(text) for kind, text in tokens):
            return "exclusive"
        return "rows"
    return "concurrent" if _concurrent.match(skeleton) else "exclusive"


def _own_limits(word, skeleton, tokens):
    if word == "SET":
        match = _sets.match(skeleton)
        if match:
            scope = "transaction" if match.group("scope") == "LOCAL " else "session"
            if match.group("value").strip() == "DEFAULT":
                scope = "default"
            return [(match.group("name").lower(), scope)]
    elif word in ("RESET", "DISCARD"):
        names = re.findall(r"\b(LOCK_TIMEOUT|STATEMENT_TIMEOUT)\b", skeleton)
        if skeleton.endswith(" ALL"):
            names = ["LOCK_TIMEOUT", "STATEMENT_TIMEOUT"]
        return [(name.lower(), "default") for name in names]
    elif word in _rows:
        text = "".join(text for _, text in tokens)
        found = [
            (match.group("name").lower(), "transaction" if match.group("local").lower() in ("true", "t", "on") else "session")
            for match in _set_config.finditer(text)
        ]
        if word == "DO":
            found += [
                (match.group("name").lower(), "transaction" if match.group("scope") else "session")
                for match in _sets_inside.finditer(text)
            ]
        return found
    return []


def _shown(word, kind, skeleton, tokens):
    if kind in ("rows", "session") or (word == "CREATE" and _makes_table_of_rows.match(skeleton)):
        text = _struck(tokens)
    else:
        text = _without_secrets(tokens)
    return re.sub(" +", " ", text).strip()


def _struck(tokens):
    parts = []
    for kind, text in tokens:
        if kind == "string":
            parts.append(_struck_body(text) if text.startswith("$") else "'?'")
        else:
            parts.append(_long_number.sub("0", text) if kind == "code" else text)
    return "".join(parts)


def _struck_body(text):
    """Code between dollar quotes stays, what is quoted in it does not."""
    quote = text[: text.index("$", 1) + 1]
    inner = text[len(quote) : -len(quote) if text.endswith(quote) and len(text) >= 2 * len(quote) else None]
    if not _changes_objects.search(inner) and not re.search(r"\bBEGIN\b", inner, re.IGNORECASE):
        return "'?'"
    return quote + "; ".join(_struck(statement).strip() for statement in _statements(inner)) + quote


def _without_secrets(tokens):
    """Texts of DDL stay, but for what follows PASSWORD, CONNECTION, the value of a setting, and all in OPTIONS (...)."""
    parts, before, options = [], "", 0
    for kind, text in tokens:
        if kind == "string":
            told = options or re.search(r"\b(PASSWORD|CONNECTION)\s*$|\bSET\s+\S+\s*(=|TO)?\s*$", before)
            if told or (not text.startswith("$") and _secret_text.search(text)):
                text = "'?'"
            elif text.startswith("$"):
                text = _body_without_secrets(text)
            before = "''"
        elif kind == "code":
            for mark in re.finditer(r"OPTIONS\s*\(|[()]", (before[-20:] if not options else "") + text.upper()):
                if mark.group().startswith("OPTIONS"):
                    options = 1
                elif options:
                    options += 1 if mark.group() == "(" else -1
            before = (before + text.upper())[-200:]
        else:
            before = (before + '""')[-200:]
        parts.append(text)
    return "".join(parts)


def _body_without_secrets(text):
    quote = text[: text.index("$", 1) + 1]
    inner = text[len(quote) : -len(quote) if text.endswith(quote) and len(text) >= 2 * len(quote) else None]
    return quote + "; ".join(_without_secrets(statement).strip() for statement in _statements(inner)) + quote


def _as_sent(text):
    if "%" not in text:
        return text
    numbers = {}

    def parameter(match):
        if match.group() == "%%":
            return "%"
        name = match.group("name") or object()
        return "$%d" % numbers.setdefault(name, len(numbers) + 1)

    return re.sub(r"%%|%(?:\((?P<name>\w+)\))?s", parameter, text)
