"""Which series an expression of PromQL asks for, and by which labels it groups them."""

import re

WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool", "inf",
         "nan", "atan2", "start", "end"}
TOKEN = re.compile(r"""
    (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<range>\[[^\]]*\])
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<number>(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:ms|[smhdwy])?)
  | (?P<other>\S)
""", re.VERBOSE)


def read(expression):
    """(selectors, labels): `name{matchers}` as they stand there, and the labels of by(), on() and the like."""
    tokens = [(m.lastgroup, m.group(), m.start(), m.end()) for m in TOKEN.finditer(expression)]
    selectors, labels, at = [], set(), 0
    while at < len(tokens):
        kind, text, start, end = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text.lower() in {"by", "without", "on", "ignoring", "group_left", "group_right"}:
            if following == "(":
                at += 2
                while tokens[at][1] != ")":
                    if tokens[at][0] == "name":
                        labels.add(tokens[at][1])
                    at += 1
        elif kind == "name" and following not in ("(", "by", "without") and text.lower() not in WORDS:
            if following == "{":
                while tokens[at][1] != "}":
                    at += 1
                end = tokens[at][3]
            selectors.append(expression[start:end])
        at += 1
    return selectors, labels


def _test():
    expression = 'sum by (job, le) (rate(a_total{x=~"b}|c", y="d"}[5m] offset 1h)) / on (job) group_left () max(b:c) > 1e3 or vector(0)'
    assert read(expression) == (['a_total{x=~"b}|c", y="d"}', "b:c"], {"job", "le"}), read(expression)


_test()
